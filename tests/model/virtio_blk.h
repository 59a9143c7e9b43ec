// SPDX-License-Identifier: BSD-2-Clause-Patent
/* A virtio block device (virtio 1.2 §5.2), for the model in virtio_device.h. */
#pragma once

#include "tests/model/virtio_device.h"

extern const struct vdev_kind vblk_kind;

/* Lies about requests, besides those of every kind. */
enum {
    LIE_LENGTH_CARELESS = LIE_OF_KIND, /* as many devices do: no lie that matters */
    LIE_STATUS_NOT_WRITTEN,
    LIE_STATUS_UNKNOWN,
    LIE_STATUS_IOERR,
    LIE_STATUS_UNSUPP,
    LIE_BLK_END,
};

/* What disk the next device has, and this one says that it has. vblk_usual() sets it anew. */
extern struct vblk_disk {
    uint64_t capacity; /* sectors */
    uint32_t block_size, size_max, seg_max;
    uint8_t physical_exponent, alignment_offset;
    uint32_t optimal_blocks;
    uint16_t cylinders; /* with VIRTIO_BLK_F_GEOMETRY, which is not a usual feature */
    uint8_t heads, sectors;
} vblk;

struct vdev_options vblk_usual(void);

/* The disk holds this of every byte's place, when it is plugged in. */
uint8_t vblk_pattern(uint64_t place);
unsigned char *vblk_disk(void);   /* what reads return */
unsigned char *vblk_stable(void); /* what would survive a loss of power */
size_t vblk_disk_bytes(void);
uint64_t vblk_flushes(void);
