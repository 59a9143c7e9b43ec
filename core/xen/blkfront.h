// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * A Xen PV disk: the frontend of a vbd (xen/io/blkif.h).
 *
 *   blkfront_attach(), blkfront_start()   the disk comes up
 *   blkfront.disk.ops                     submit, poll, ready, restart, wait: see core/disk.h
 *   fronts_quiesce()                      the exit, through the poor door: see core/xen/exit.h
 *   blkfront_detach()                     the disk goes down, its memory comes back
 *
 * Buffers are granted where they are, page by page, if their address allows it; otherwise their
 * data goes through pages of the driver's own.
 */
#pragma once

#include "core/disk.h"
#include "core/pieces.h"
#include "core/xen/domain.h"

/* A piece's own pages, for buffers that cannot be granted as they are. */
#define BLKFRONT_BOUNCE_PAGES 4u

/*
 * Pages of the reserve (grants_reserve()) that make the exit safe from dead backends. No more is in
 * flight than could be exchanged: this many pages for requests of all disks, 32 of 64 KiB with the
 * pages that list theirs. Besides there is room for so many disks' rings, and for a request of each
 * through its own pages, so that no disk has to wait for another one's.
 */
#define BLKFRONT_FLIGHT_PAGES (32u * 17u)
#ifndef BLKFRONT_KEPT_PAGES
#define BLKFRONT_KEPT_PAGES (16u * (FRONT_RING_PAGES + BLKFRONT_BOUNCE_PAGES))
#endif
#define BLKFRONT_RESERVE_PAGES (BLKFRONT_FLIGHT_PAGES + BLKFRONT_KEPT_PAGES)

struct blkfront {
    struct disk disk;
    struct xen_front front; /* how it is closed: all that the exit path sees */
    struct xen *xen;
    const struct rich_door *rich;
    struct pieces pieces;
    struct dma_block memory; /* ring, then each piece's page of segments, then bounced data */
    uint32_t number;         /* virtual device number */
    bool cdrom;
    bool gone;    /* the backend has begun to close: it takes no more */
    bool barrier; /* a flush is an empty barrier */

    uint32_t ring_pages;
    uint32_t entries;   /* in the ring: a power of two */
    uint32_t segments;  /* the most that a piece may have: a page each */
    bool indirect;      /* … they are listed in a page of their own */
    uint32_t consumed;  /* responses that were taken, in all */
    uint32_t announced; /* requests that the backend has had a chance to hear of */
    uint32_t indirect_refs[PIECES_MAX];
    uint32_t bounce_refs[PIECES_MAX][BLKFRONT_BOUNCE_PAGES];
    grant_list flights[PIECES_MAX];
    struct {
        uint8_t operation;
        bool indirect;
        uint32_t pages;  /* that the backend may have mapped for it */
        void *bounce_to; /* where a bounced read goes; NULL otherwise */
    } sent[PIECES_MAX];
};

/*
 * Meets the disk: finds its backend, makes sure that nobody is connected to it, and plans the ring.
 * On success *memory_bytes is what blkfront_start() needs. `xen` and `rich` must outlive it.
 * RESULT_NO_MEDIA if its backend is not ready, and is not about to be: a drive without a medium.
 * On failure nothing is left.
 */
enum result blkfront_attach(struct blkfront *blk, struct xen *xen, const struct rich_door *rich,
                            uint32_t number, size_t *memory_bytes);

/*
 * Connects, with page-aligned `memory`, which stays the driver's until blkfront_detach() gives it
 * back. On failure too: call it, and learn whether the memory may be freed.
 */
enum result blkfront_start(struct blkfront *blk, const struct dma_block *memory);

/*
 * Closes the disk within a bound, every request that is not done ended with RESULT_ABORTED. Returns
 * whether the backend has let go. If not, its memory and the buffers of its last requests must
 * never be reused (C5), and the log has said so.
 */
bool blkfront_detach(struct blkfront *blk);

/* Whether the backend has begun to close: the disk is being taken away. Never waits. */
bool blkfront_gone(struct blkfront *blk);
