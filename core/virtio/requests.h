// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * A virtio device that is given requests with data in one queue: what virtio-blk and virtio-scsi
 * share. Each slot of the ring carries one piece of a request, with a mapping of that part of the
 * caller's buffer, and has some shared memory of its own for what goes before and after the data.
 */
#pragma once

#include "core/pieces.h"
#include "core/virtio/device.h"
#include "core/virtio/ring.h"

/* The most shared memory that a binding takes. Only a legacy device with a queue of 16,384 entries
 * or more could want more. */
#define REQUESTS_MEMORY_MAX (240u << 10)
/* A larger transfer goes out as several: enough to keep a device busy, and small enough that an
 * IOMMU's or a bounce pool's mapping of each is likely to succeed. */
#define REQUESTS_PIECE_MAX (4u << 20)

struct requests;

struct requests_ops {
    /* Sends the next piece of a request: see core/pieces.h. */
    enum post (*post)(struct requests *requests, struct io_request *request);
    /* How the piece in a slot that has come back went; `written` is what the device says that it
     * wrote there. False if what it says cannot be true. */
    bool (*collect)(struct requests *requests, unsigned slot, uint32_t written,
                    enum result *result);
    /* A piece is over, come back or not; its buffer is the caller's again. May be NULL, as may the
     * others below. */
    void (*release)(struct requests *requests, unsigned slot, enum result result);
    /* Shows the device what it needs besides the queue, before it may begin. */
    enum result (*start)(struct requests *requests);
    /* Ends a request that has waited too long. False if the device has to be reset. */
    bool (*abort)(struct requests *requests, struct io_request *request);
};

struct requests {
    struct virtio_device device;
    struct ring ring;
    struct pieces pieces;
    struct dma_block memory; /* the ring, then each slot's own */
    const struct requests_ops *ops;
    uint64_t wanted; /* features */
    uint16_t queue;
    uint32_t slot_bytes;                         /* of a slot's own memory */
    uint32_t segment_bytes;                      /* the most that one descriptor may carry */
    struct dma_mapping mappings[RING_SLOTS_MAX]; /* bytes 0 where nothing is mapped */
};

/* Finds the device, resets it and agrees on those of the `wanted` features that it offers. After a
 * failure, virtio_down(). */
enum result requests_attach(struct requests *requests, const struct requests_ops *ops,
                            const struct rich_door *rich, const struct pci_function *where,
                            uint64_t wanted);

/* Plans the ring of queue `queue`, which has `offered` entries: `chain` descriptors and
 * `slot_bytes` of memory for each slot. *memory_bytes is what requests_start() needs. */
enum result requests_plan(struct requests *requests, uint16_t queue, uint16_t offered,
                          uint16_t chain, uint32_t slot_bytes, size_t *memory_bytes);

/* Lets the device begin. On failure it may be live all the same. */
enum result requests_start(struct requests *requests, const struct dma_block *memory);

/* A slot's own memory, and where the device sees it. */
void *requests_own(const struct requests *requests, unsigned slot, uint64_t *address);

/*
 * Maps what comes next of a request's buffer: whole `grain`s of it, `most` bytes at most. Gives how
 * many bytes; 0 if none, and then the slot's mapping says how many bytes one could have held.
 */
size_t requests_map(struct requests *requests, unsigned slot, const struct io_request *request,
                    enum dma_direction direction, size_t grain, size_t most);

/* Descriptors for what is mapped; gives how many. */
unsigned requests_describe(const struct requests *requests, unsigned slot, struct vring_desc *desc,
                           uint16_t flags);

/* Sends a slot: the next `bytes` of the request, its first `count` descriptors. */
void requests_send(struct requests *requests, unsigned slot, struct io_request *request,
                   uint32_t bytes, unsigned count);

/* What core/disk.h says of a disk's functions of these names. */
enum result requests_submit(struct requests *requests, struct io_request *request);
void requests_poll(struct requests *requests);
bool requests_ready(const struct requests *requests);
enum result requests_restart(struct requests *requests, enum result why);

/* Takes in what has come back. False if it makes no sense: then the device has to be reset. */
bool requests_take(struct requests *requests);

/* Takes the device down, and ends every request that is not done. Whether it has let go; see
 * blk_detach(). */
bool requests_detach(struct requests *requests);
