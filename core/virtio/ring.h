// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The split virtqueue (virtio 1.2 §2.7), cut into slots.
 *
 * A slot is what one request needs: a fixed run of descriptors, in an indirect table where the
 * device offers that, else in the ring itself. Slots never trade descriptors, so there is no free
 * list for a device to corrupt: an id that comes back either is the head of a busy slot or is a lie
 * (C9). Everything that the driver believes is kept here, outside the memory that the device sees.
 */
#pragma once

#include <stddef.h>
#include "core/door.h"

struct vring_desc;
struct vring_avail;
struct vring_used;

/* One bit each in ring.busy. More would not make a disk faster, and each costs memory. */
#ifndef RING_SLOTS_MAX
#define RING_SLOTS_MAX 64u
#endif

struct ring {
    uint16_t size;  /* entries, as agreed with the device */
    uint16_t chain; /* descriptors in a slot */
    uint16_t slots; /* requests that can be in flight */
    bool indirect;
    bool event_idx;

    struct vring_desc *desc;
    struct vring_avail *avail;
    struct vring_used *used;
    struct vring_desc *tables; /* indirect: slots × chain descriptors */
    uint64_t desc_address, avail_address, used_address, tables_address;

    uint64_t busy;       /* a bit for each slot that the device has */
    uint16_t avail_next; /* the driver's running index: what it has offered */
    uint16_t used_next;  /* what it has taken back */
    uint16_t announced;  /* what the device has had a chance to be notified of */

    uint16_t index; /* the queue's number, and where to announce it */
    struct reg_window notify;
    uint64_t notify_offset;
};

enum ring_event {
    RING_EMPTY,  /* nothing has come back */
    RING_USED,   /* a slot has come back */
    RING_BROKEN, /* what came back makes no sense: reset the device */
};

/*
 * Plans a ring: how many entries of the `offered` to use, how many slots of `chain` descriptors,
 * and what the `features` that were agreed to (INDIRECT_DESC, EVENT_IDX) allow. `may_shrink` is
 * false on the legacy transport, where the device alone says the size. RESULT_UNSUPPORTED if not
 * even one slot fits.
 */
enum result ring_plan(struct ring *ring, uint16_t offered, uint16_t chain, uint64_t features,
                      bool may_shrink);

/* The bytes of shared memory that a planned ring needs. */
size_t ring_bytes(const struct ring *ring);

/* Lays a planned ring out in page-aligned shared memory, or lays it out anew after a reset: empty,
 * every slot free, interrupts not wanted. */
void ring_init(struct ring *ring, const struct dma_block *memory);

/* A slot that is not busy. False if all are. */
bool ring_free_slot(const struct ring *ring, unsigned *slot);

/* The slot's descriptors, to be filled from the front: addr, len, and VRING_DESC_F_WRITE where the
 * device may write. */
struct vring_desc *ring_descriptors(const struct ring *ring, unsigned slot);

/* Fills in one descriptor; gives 1, for counting. */
unsigned ring_describe(struct vring_desc *desc, uint64_t address, uint32_t bytes, uint16_t flags);

/* Offers a slot to the device, its first `count` descriptors as one chain. */
void ring_post(struct ring *ring, unsigned slot, unsigned count);

/* Tells the device that there is something to do, if it wants to be told. Returns whether it was.
 */
bool ring_notify(struct ring *ring);

/* Whether the device has finished all that it was told of. What was posted after that may wait. */
bool ring_idle(const struct ring *ring);
/* Whether something has been posted since ring_notify(). */
bool ring_untold(const struct ring *ring);

/*
 * Tells the device again, if it has not looked at all that it was offered. To be called when
 * nothing has come back for a while. Ours and the device's view of each other may cross where a
 * CPU's fences are not real ones: QEMU before 8.2 leaves them out when it emulates one CPU, as if
 * there were no threads beside it in which the devices work. Then neither would ever hear of the
 * other again.
 */
void ring_remind(struct ring *ring);

/* Whether ring_take() has something to find. */
bool ring_ready(const struct ring *ring);

/* Takes back one slot that the device has finished, with the number of bytes that it says it has
 * written. */
enum ring_event ring_take(struct ring *ring, unsigned *slot, uint32_t *written);
