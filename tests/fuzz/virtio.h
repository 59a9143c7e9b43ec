// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * What the fuzzers of the virtio drivers share: a driver's life with a device that is the attacker
 * (C9). The first bytes of the input say what the device is, the next what the driver is asked to
 * do; its rest replaces what the device answers: in configuration space, in registers, in the
 * rings, in everything that is shared.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "core/virtio/exit.h"
#include "tests/model/virtio_device.h"

#define FEATURE(bit) (1ull << (bit))

struct fuzz_kind {
    size_t shape, operations; /* bytes of input for what the device is, and for what is done */
    size_t honesty_at;        /* the byte that says whether the start is honest */
    size_t driver_bytes, memory_most;
    /* What the device is, and forgets what was before. */
    struct vdev_options (*device)(const uint8_t *shape);
    enum result (*attach)(void *driver, size_t *memory_bytes);
    enum result (*start)(void *driver, const struct dma_block *memory);
    void (*use)(void *driver, const uint8_t *operations, size_t count);
    bool (*detach)(void *driver);
    /* Checks what has to hold afterwards, and frees what is left. May be NULL. */
    void (*ended)(void);
};

/* A life, for LLVMFuzzerTestOneInput() to return. */
int fuzz_life(const struct fuzz_kind *kind, const uint8_t *data, size_t size);

/* What the first five bytes say of a device of whatever kind. */
void fuzz_shape(struct vdev_options *options, const uint8_t *shape);
/* A queue's size, out of three bits. */
uint16_t fuzz_queue_size(unsigned bits);

/* The exit, in the middle of it all. */
void fuzz_exit(struct virtio_exit *exit);

/* Something that has to hold. */
void check(bool holds, const char *what);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
