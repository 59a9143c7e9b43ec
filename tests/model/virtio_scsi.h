// SPDX-License-Identifier: BSD-2-Clause-Patent
/* A virtio SCSI adapter (virtio 1.2 §5.6) with disks behind it, for the model in virtio_device.h.
 */
#pragma once

#include "tests/model/virtio_device.h"

extern const struct vdev_kind vscsi_kind;

#define VSCSI_UNITS_MAX 400u
#define VSCSI_BLOCKS    32768u /* of each unit, all of which show the same disk */

/* Lies about requests, besides those of every kind. */
enum {
    LIE_SCSI_CARELESS = LIE_OF_KIND, /* counts what it has read as written, as QEMU does: no lie
                                        that matters */
    LIE_SCSI_NOT_WRITTEN,            /* no response */
    LIE_SCSI_UNKNOWN,                /* a response that there is not */
    LIE_SCSI_RESIDUAL,               /* more is missing than there was */
    LIE_SCSI_SENSE,                  /* more sense data than there is room for */
    LIE_SCSI_GOOD_FOR_NOTHING,       /* all is well, and nothing was moved */
    LIE_SCSI_LIST_LENGTH,            /* a list of units longer than what was sent */
    LIE_SCSI_LIST_HUGE,
    LIE_SCSI_LIST_REPEATS,
    LIE_SCSI_LIST_METHODS, /* units in forms that nobody can address */
    LIE_SCSI_LIST_GARBAGE, /* each byte of it anything */
    LIE_SCSI_END,
};

enum { VSCSI_CONTROL_QUEUE, VSCSI_EVENT_QUEUE, VSCSI_REQUEST_QUEUE };

struct vscsi_unit {
    uint8_t target;
    uint16_t lun;
    uint32_t block_size;
    uint64_t blocks;              /* that it says it has; 0 for as many as the disk has */
    uint64_t window;              /* the block at which the disk begins */
    const char *vendor, *product; /* NULL for blanks */
    uint8_t version;              /* of SPC, as INQUIRY has it */
    uint8_t physical;             /* READ CAPACITY (16): the exponent, */
    uint16_t aligned;             /* and the lowest aligned block */
    uint32_t cylinders;
    uint8_t heads;
    bool removable, read_only, write_through;
    bool absent;    /* in the list, but not there: INQUIRY says so */
    bool old;       /* does not know REPORT LUNS; for unit 0 */
    uint8_t status; /* with which it refuses everything, if it is not 0 */
};

/* Commands that do not go well. */
#define VSCSI_ANY (-1)
struct vscsi_trouble {
    int operation;    /* their code, or VSCSI_ANY */
    uint32_t after;   /* how many of them go well before */
    uint32_t times;   /* then how many do not; 0 for none */
    bool mute;        /* never answered; or else, with these: */
    uint8_t response; /* if it is not 0; or */
    uint8_t status, key;
    uint16_t code; /* additional sense code and qualifier */
};

/* What is answered to a command, whatever the truth is. */
struct vscsi_words {
    bool used;
    uint8_t operation;
    uint8_t bytes[64];
    size_t count; /* of these bytes */
};

/* What the next adapter has, and this one says that it has. vscsi_usual() sets it anew. */
extern struct vscsi_adapter {
    struct vscsi_unit units[VSCSI_UNITS_MAX];
    unsigned unit_count;
    uint32_t num_queues, seg_max, max_sectors, cmd_per_lun, sense_size, cdb_size;
    uint16_t max_target;
    uint32_t max_lun;
    bool size_fixed; /* will not be told a size of CDBs or sense data */

    /* What becomes of commands; each is for the unit below, or all if that is negative. */
    int only_target;
    uint8_t response;     /* to reads and writes, if it is not 0 */
    uint32_t short_by;    /* so many bytes fewer than they wanted */
    uint32_t sense_bytes; /* with an error, so much sense data; the bytes are their places */
    bool descriptors;     /* the other format of it */
    uint64_t bad_block;   /* MEDIUM ERROR for this one; UINT64_MAX for none */
    bool deaf;            /* never answers reads and writes */
    bool control_deaf;    /* never answers on the control queue */
    bool control_refuses;
    bool control_forgets; /* says that it has given up a command, and has not */
    struct vscsi_trouble trouble;
    struct vscsi_words words[4];
} vscsi;

struct vdev_options vscsi_usual(void);
/* One more unit, of blocks of 512 bytes. */
struct vscsi_unit *vscsi_add(uint8_t target, uint16_t lun);

unsigned char *vscsi_disk(void); /* what all of them show, by byte */
size_t vscsi_disk_bytes(void);
struct vscsi_counts {
    uint64_t commands, aborts, unit_resets, flushes;
    uint64_t troubled;     /* commands */
    uint64_t most_at_once; /* REPORT LUNS, in flight together */
    uint32_t largest;      /* transfer */
};
const struct vscsi_counts *vscsi_counted(void);
