// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * virtio-blk (virtio 1.2 §5.2).
 *
 *   blk_attach(), blk_start()     the device comes up
 *   blk.disk.ops                  submit, poll, ready, restart: see core/disk.h
 *   virtio_quiesce(&blk.requests.device.exit, …)   the exit, through the poor door
 *   blk_detach()                  the device goes down, its memory comes back
 */
#pragma once

#include "core/disk.h"
#include "core/virtio/requests.h"

struct blk {
    struct disk disk;
    struct requests requests;        /* a slot's own: header, bounced data, status */
    uint32_t piece_bytes;            /* the most that one device request may carry */
    uint32_t bounce_bytes;           /* room for data in a slot; 0 but for a queue of two entries */
    void *bounce_to[RING_SLOTS_MAX]; /* where a bounced read goes; NULL otherwise */
};

/*
 * Meets the device: finds its registers, agrees on features, reads what disk it is, and plans the
 * queue. On success *memory_bytes is what blk_start() needs. The device has seen no memory yet.
 * On failure the device has been reset, if it could be found and would let itself be. `rich` must
 * outlive the binding.
 */
enum result blk_attach(struct blk *blk, const struct rich_door *rich,
                       const struct pci_function *where, size_t *memory_bytes);

/*
 * Starts the device with `memory`, which stays the driver's until blk_detach() gives it back.
 * On failure it may be live all the same: call blk_detach() and learn whether the memory may be
 * freed.
 */
enum result blk_start(struct blk *blk, const struct dma_block *memory);

/*
 * Takes the device down: reset within the bound, every request that is not done ended with
 * RESULT_ABORTED. Returns whether the device has let go. If not, its memory and the buffers of its
 * last requests must never be reused (C5), and the log has said so.
 */
bool blk_detach(struct blk *blk);
