// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "core/virtio/ring.h"

#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

/* No driver of ours keeps more in flight than fits in this; a larger ring would only be colder. */
#define RING_ENTRIES_MAX 1024u

static size_t align_up(size_t bytes, size_t alignment)
{
    return (bytes + alignment - 1) & ~(alignment - 1);
}

static bool power_of_two(uint32_t number)
{
    return (number & (number - 1)) == 0;
}

enum result ring_plan(struct ring *ring, uint16_t offered, uint16_t chain, uint64_t features,
                      bool may_shrink)
{
    bool indirect = features & 1ull << VIRTIO_RING_F_INDIRECT_DESC;
    uint32_t size = offered;

    if (may_shrink) {
        /* A size that is not a power of two breaks the specification (§2.7), but one below it that
         * is can be asked for. */
        while (!power_of_two(size))
            size &= size - 1;
        if (size > RING_ENTRIES_MAX)
            size = RING_ENTRIES_MAX;
    }
    /* No chain may be longer than the queue, not even in an indirect table (§2.7.5.3.1). */
    if (size < chain || size < 2)
        return RESULT_UNSUPPORTED;

    uint32_t slots = indirect ? size : size / chain;
    if (slots > RING_SLOTS_MAX)
        slots = RING_SLOTS_MAX;
    /* Where the indices wrap at 65,536, a ring of an odd size uses the same entry twice in a row:
     * safe only while one request is in flight. */
    if (!power_of_two(size))
        slots = 1;

    *ring = (struct ring){
        .size = (uint16_t)size,
        .chain = chain,
        .slots = (uint16_t)slots,
        .indirect = indirect,
        .event_idx = features & 1ull << VIRTIO_RING_F_EVENT_IDX,
    };
    return RESULT_OK;
}

/* Offsets of the parts, in the order and alignment that the legacy transport prescribes (§2.7.2);
 * the modern one is content with them. */
static size_t avail_offset(const struct ring *ring)
{
    return ring->size * sizeof(struct vring_desc);
}

static size_t used_offset(const struct ring *ring)
{
    /* flags, idx, ring[], used_event */
    return align_up(avail_offset(ring) + sizeof(__virtio16) * (3u + ring->size),
                    VIRTIO_PCI_VRING_ALIGN);
}

static size_t tables_offset(const struct ring *ring)
{
    /* flags, idx, ring[], avail_event */
    return align_up(used_offset(ring) + sizeof(__virtio16) * 3 +
                        ring->size * sizeof(struct vring_used_elem),
                    VRING_DESC_ALIGN_SIZE);
}

size_t ring_bytes(const struct ring *ring)
{
    size_t tables = ring->indirect ? (size_t)ring->slots * ring->chain : 0;
    return tables_offset(ring) + tables * sizeof(struct vring_desc);
}

/* With EVENT_IDX, each side says at which of the other's indices it wants to hear again (§2.7.7,
 * §2.7.10). The fields follow the two rings. */
static __virtio16 *used_event(const struct ring *ring)
{
    return &ring->avail->ring[ring->size];
}

static __virtio16 *avail_event(const struct ring *ring)
{
    return (__virtio16 *)(void *)&ring->used->ring[ring->size];
}

/* We look at the ring, and want no interrupts. The index as far ahead as can be is never reached.
 */
static void no_interrupts(struct ring *ring)
{
    if (ring->event_idx)
        *used_event(ring) = (uint16_t)(ring->used_next + 0x8000u);
    else
        ring->avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
}

void ring_init(struct ring *ring, const struct dma_block *memory)
{
    unsigned char *base = memory->cpu;

    ring->desc = (struct vring_desc *)(void *)base;
    ring->avail = (struct vring_avail *)(void *)(base + avail_offset(ring));
    ring->used = (struct vring_used *)(void *)(base + used_offset(ring));
    ring->tables = (struct vring_desc *)(void *)(base + tables_offset(ring));
    ring->desc_address = memory->address;
    ring->avail_address = memory->address + avail_offset(ring);
    ring->used_address = memory->address + used_offset(ring);
    ring->tables_address = memory->address + tables_offset(ring);
    ring->busy = 0;
    ring->avail_next = 0;
    ring->used_next = 0;
    ring->announced = 0;

    ring->avail->idx = 0;
    ring->used->idx = 0;
    ring->used->flags = 0;
    *avail_event(ring) = 0;
    no_interrupts(ring);
}

bool ring_free_slot(const struct ring *ring, unsigned *slot)
{
    if (~ring->busy == 0)
        return false;
    *slot = (unsigned)__builtin_ctzll(~ring->busy);
    return *slot < ring->slots;
}

static uint16_t slot_head(const struct ring *ring, unsigned slot)
{
    return (uint16_t)(ring->indirect ? slot : slot * ring->chain);
}

struct vring_desc *ring_descriptors(const struct ring *ring, unsigned slot)
{
    return (ring->indirect ? ring->tables : ring->desc) + slot * ring->chain;
}

unsigned ring_describe(struct vring_desc *desc, uint64_t address, uint32_t bytes, uint16_t flags)
{
    *desc = (struct vring_desc){.addr = address, .len = bytes, .flags = flags};
    return 1;
}

void ring_post(struct ring *ring, unsigned slot, unsigned count)
{
    struct vring_desc *chain = ring_descriptors(ring, slot);
    uint16_t head = slot_head(ring, slot);
    uint16_t first = ring->indirect ? 0 : head; /* a table counts from its own start */

    for (unsigned i = 0; i + 1 < count; i++) {
        chain[i].flags |= VRING_DESC_F_NEXT;
        chain[i].next = (uint16_t)(first + i + 1);
    }
    if (ring->indirect) {
        size_t table = (size_t)slot * ring->chain * sizeof(*chain);
        ring->desc[head] = (struct vring_desc){
            .addr = ring->tables_address + table,
            .len = (uint32_t)(count * sizeof(*chain)),
            .flags = VRING_DESC_F_INDIRECT,
        };
    }

    ring->busy |= 1ull << slot;
    ring->avail->ring[ring->avail_next % ring->size] = head;
    ring->avail_next++;
    /* The device may look as soon as the index moves: all of the above comes first. */
    __atomic_store_n(&ring->avail->idx, ring->avail_next, __ATOMIC_RELEASE);
}

bool ring_notify(struct ring *ring)
{
    uint16_t new = ring->avail_next, old = ring->announced;
    bool wanted;

    ring->announced = new;
    /* The device says what it wants, then looks at the index once more; we move the index, then
     * look at what it wants. Neither may be reordered, or each could wait for the other. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (ring->event_idx)
        wanted = vring_need_event(__atomic_load_n(avail_event(ring), __ATOMIC_RELAXED), new, old);
    else
        wanted = !(__atomic_load_n(&ring->used->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY);
    if (wanted)
        reg_write16(&ring->notify, ring->notify_offset, ring->index);
    return wanted;
}

bool ring_idle(const struct ring *ring)
{
    uint16_t used = __atomic_load_n(&ring->used->idx, __ATOMIC_RELAXED);

    return (int16_t)(used - ring->announced) >= 0;
}

bool ring_untold(const struct ring *ring)
{
    return ring->announced != ring->avail_next;
}

void ring_remind(struct ring *ring)
{
    bool seen =
        ring->event_idx
            ? __atomic_load_n(avail_event(ring), __ATOMIC_RELAXED) == ring->avail_next
            : __atomic_load_n(&ring->used->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY;

    if (ring->busy != 0 && !seen)
        reg_write16(&ring->notify, ring->notify_offset, ring->index);
}

bool ring_ready(const struct ring *ring)
{
    return __atomic_load_n(&ring->used->idx, __ATOMIC_RELAXED) != ring->used_next;
}

enum ring_event ring_take(struct ring *ring, unsigned *slot, uint32_t *written)
{
    /* What the index covers must not be read before the index is. */
    uint16_t used = __atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE);
    if (used == ring->used_next)
        return RING_EMPTY;
    if ((uint16_t)(used - ring->used_next) > __builtin_popcountll(ring->busy))
        return RING_BROKEN;

    /* Read once: a second look may show something else (C9). */
    const struct vring_used_elem *element = &ring->used->ring[ring->used_next % ring->size];
    uint32_t id = __atomic_load_n(&element->id, __ATOMIC_RELAXED);
    *written = __atomic_load_n(&element->len, __ATOMIC_RELAXED);

    uint32_t spacing = ring->indirect ? 1 : ring->chain;
    if (id % spacing != 0 || id / spacing >= ring->slots)
        return RING_BROKEN;
    *slot = id / spacing;
    if (!(ring->busy & 1ull << *slot))
        return RING_BROKEN;

    ring->busy &= ~(1ull << *slot);
    ring->used_next++;
    no_interrupts(ring);
    return RING_USED;
}
