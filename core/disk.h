// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * A disk, whichever driver stands behind it. The firmware's side (Block I/O, INT 13h) is written
 * once against this.
 *
 * None of these functions may be entered while another of the same disk runs: the caller keeps
 * them apart (under UEFI, by TPL_NOTIFY). ready() alone may be called at any time.
 */
#pragma once

#include "core/io_request.h"

#define DISK_SECTOR 512u /* the unit of disk_request.sector, whatever the disk's block size */
/* The largest block that makes sense: firmware keeps buffers of many blocks for each disk. */
#define DISK_BLOCK_MAX (64u << 10)

enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH };

/* One transfer. */
struct disk_request {
    struct io_request base; /* its bytes: a multiple of the disk's block size; 0 for a flush */
    enum disk_op op;
    uint64_t sector;
};

/* Cylinders, heads, and sectors of a track: what some devices say, and some callers count in. */
struct geometry {
    uint32_t cylinders, heads, sectors;
};

struct disk_info {
    uint32_t block_size;              /* bytes: a power of two, 512 or more */
    uint64_t blocks;                  /* at least 1 */
    uint32_t lowest_aligned_block;    /* the first block that starts a physical block */
    uint32_t blocks_per_physical;     /* 1 where the device does not say */
    uint32_t optimal_transfer_blocks; /* 0 where the device does not say */
    bool read_only;
    bool removable;
    bool write_cache; /* a flush has something to do */
};

struct disk;

struct disk_ops {
    /* Takes a request. RESULT_OK: done() will be called, perhaps before this returns. Anything
     * else: the request was refused and done() will not be called. */
    enum result (*submit)(struct disk *disk, struct disk_request *request);
    /* Finishes what the device has finished, starts what now has room, and gives up on a device
     * that has made no progress within its bound (C6). */
    void (*poll)(struct disk *disk);
    /* Whether poll() has a completion to find. A hint, for waiting without the lock. */
    bool (*ready)(const struct disk *disk);
    /* Ends every request that is not done with `why`, and brings the device up anew. */
    enum result (*restart)(struct disk *disk, enum result why);
    /* Gives the CPU away until ready() may have become true, or until it is time for a poll() at
     * the latest; may come back for no reason. Something is in flight. NULL for a device that works
     * without our CPU. */
    void (*wait)(struct disk *disk);
};

struct disk {
    const struct disk_ops *ops;
    struct disk_info info;
};

static inline struct disk_request *disk_request_of(struct io_request *base)
{
    return (struct disk_request *)(void *)base;
}

/* Whether blocks may have this size (C9): a power of two from DISK_SECTOR to DISK_BLOCK_MAX. For
 * the drivers. */
bool disk_block_size(uint32_t bytes);

/* Whether a request fits the disk: RESULT_OUT_OF_RANGE, RESULT_WRITE_PROTECTED. For the drivers. */
enum result disk_check(const struct disk_info *info, struct disk_request *request);
