// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "tests/model/virtio_device.h"
#include "tests/model/virtio_kind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#define PAGE          4096u
#define IN_FLIGHT_MAX 256u
#define HUNG_STEPS    200000000u
#define NOTIFY_PLACE  3u /* queue_notify_off of queue 0: so that leaving it out is noticed */
#define FEATURE(bit)  VDEV_FEATURE(bit)
#define breach        vdev_breach
#define KNOWN_STATUS                                                                               \
    (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK |            \
     VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_NEEDS_RESET)

struct bar {
    bool there, port;
    uint64_t base, bytes;
};

/* Where the modern structures are. */
struct layout {
    uint32_t bar, common, isr, config, notify, notify_bytes;
};

static const struct layout in_memory = {4, 0x0, 0x1000, 0x2000, 0x4000, 0x4000};
static const struct layout in_ports = {2, 0x00, 0x40, 0x50, 0xa0, 0x40};

struct queue {
    bool enabled;
    uint16_t size;
    uint64_t desc, avail, used;
    uint16_t avail_next, used_next;
    bool kicked;
    uint64_t heads_seen[65536 / 64];
};

/* A slot, and the device in it. */
static struct slot {
    struct vdev_options options;
    struct vdev_counts counts;
    bool plugged, strict, poor, gone, broken, stalled, master;
    uint64_t steps;
    uint32_t random;

    uint8_t space[256];
    struct bar bars[6];
    struct layout layout;

    bool used_modern, used_legacy;
    uint8_t status;
    bool features_read_back, features_written;
    uint64_t accepted;
    uint32_t offer_select, accept_select;
    uint16_t queue_select;
    uint8_t generation;
    bool moved;
    unsigned starts; /* how often DRIVER_OK was set */

    bool reset_pending;
    uint32_t reset_reads_left;
    unsigned drain_next;

    struct queue queues[VDEV_QUEUES_MAX];
    struct queue nowhere; /* what is written about a queue that there is not */
    struct vdev_chain *in_flight[IN_FLIGHT_MAX];
    unsigned in_flight_count;

    size_t fuzz_at;
    char last_log[256];
} slots[VDEV_SLOTS], *slot = slots;
#define v (*slot) /* who is being talked to, or about */

static uint64_t now;

static const struct pci_function places[VDEV_SLOTS] = {
    {.segment = 0, .bus = 3, .device = 7, .function = 1},
    {.segment = 0, .bus = 3, .device = 8, .function = 0},
};

void (*vdev_hung)(void);
bool (*vdev_elsewhere)(const struct reg_window *window, uint64_t where, bool write,
                       uint32_t *value);

bool vdev_strict(void)
{
    return v.strict;
}

static void step(void)
{
    if (++v.steps == (v.options.steps_most ? v.options.steps_most : HUNG_STEPS)) {
        model_violation("C6: the driver goes on without an end");
        if (vdev_hung)
            vdev_hung();
        abort();
    }
}

/* ---- Chance, faults and lies ---- */

uint32_t vdev_chance(void)
{
    v.random ^= v.random << 13;
    v.random ^= v.random >> 17;
    v.random ^= v.random << 5;
    return v.random;
}

bool vdev_fault(void)
{
    return ++v.counts.points == v.options.fault_at;
}

bool vdev_lie(const struct vdev_chain *chain, int lie)
{
    if (v.options.lie != lie || v.options.lies == 0 ||
        (v.options.lie_queue != VDEV_ANY_QUEUE && v.options.lie_queue != chain->queue))
        return false;
    v.options.lies--;
    return true;
}

static bool feed(uint8_t *byte)
{
    if (v.fuzz_at >= v.options.fuzz_bytes)
        return false;
    *byte = v.options.fuzz[v.fuzz_at++];
    return true;
}

static uint32_t feed32(void)
{
    uint32_t value = 0;
    uint8_t byte;

    for (unsigned i = 0; i < 4 && feed(&byte); i++)
        value |= (uint32_t)byte << (8 * i);
    return value;
}

/* ---- Reaching guest memory ---- */

static bool can_dma(void)
{
    if (v.gone)
        return false;
    if (!v.master) {
        v.counts.dma_without_master++;
        return false;
    }
    return true;
}

static unsigned char *reach(uint64_t address, uint64_t bytes, bool write, const char *what)
{
    struct dma_region *region = dma_find(address, bytes);

    if (!region) {
        breach("C4/C5: the device reaches for %s at %#llx, %llu bytes, which it has not been shown "
               "or not any more",
               what, (unsigned long long)address, (unsigned long long)bytes);
        return NULL;
    }
    if (!region->shared && write != (region->direction == DMA_FROM_DEVICE))
        breach("%s is mapped for the other direction", what);
    if (write)
        v.counts.shown_changes++;
    return region->device + (address - region->address);
}

static uint16_t load16(const unsigned char *from)
{
    return __atomic_load_n((const uint16_t *)(const void *)from, __ATOMIC_ACQUIRE);
}

static void store16(unsigned char *to, uint16_t value)
{
    __atomic_store_n((uint16_t *)(void *)to, value, __ATOMIC_RELEASE);
}

bool vdev_accepted(unsigned feature)
{
    return (v.accepted & FEATURE(feature)) != 0;
}

bool vdev_any_layout(void)
{
    return v.used_modern || vdev_accepted(VIRTIO_F_ANY_LAYOUT);
}

static bool event_idx(void)
{
    return vdev_accepted(VIRTIO_RING_F_EVENT_IDX);
}

/* Each ring is followed by an event index where that was negotiated. */
static uint64_t avail_bytes(const struct queue *queue)
{
    return 4 + 2 * (uint64_t)queue->size + (event_idx() ? 2 : 0);
}

static uint64_t used_bytes(const struct queue *queue)
{
    return 4 + 8 * (uint64_t)queue->size + (event_idx() ? 2 : 0);
}

static unsigned char *avail_ring(const struct queue *queue)
{
    return reach(queue->avail, avail_bytes(queue), false, "the available ring");
}

static unsigned char *used_ring(const struct queue *queue)
{
    return reach(queue->used, used_bytes(queue), true, "the used ring");
}

/* Adds one descriptor to a chain. */
static bool take_segment(struct vdev_chain *chain, const struct vring_desc *desc)
{
    bool write = (desc->flags & VRING_DESC_F_WRITE) != 0;

    if (desc->len == 0)
        breach("a descriptor of no bytes");
    if (chain->segments == VDEV_SEGMENTS_MAX) {
        breach("a chain without an end");
        return false;
    }
    if (write && (desc->flags & VRING_DESC_F_INDIRECT))
        breach("an indirect descriptor that is device-writable");
    if (!write && chain->writable != 0)
        breach("a device-readable descriptor after a writable one");
    if (!reach(desc->addr, desc->len, write, "a buffer"))
        return false;
    chain->segment[chain->segments++] =
        (struct vdev_segment){.address = desc->addr, .bytes = desc->len, .write = write};
    *(write ? &chain->writable : &chain->readable) += desc->len;
    return true;
}

void vdev_copy(const struct vdev_chain *chain, bool write, uint64_t at, void *ours, uint64_t bytes)
{
    unsigned char *cursor = ours;

    for (unsigned i = 0; i < chain->segments && bytes != 0; i++) {
        const struct vdev_segment *segment = &chain->segment[i];
        if (segment->write != write)
            continue;
        if (at >= segment->bytes) {
            at -= segment->bytes;
            continue;
        }
        uint64_t part = segment->bytes - at < bytes ? segment->bytes - at : bytes;
        unsigned char *theirs = reach(segment->address + at, part, write, "a buffer");
        if (theirs) {
            if (write)
                memcpy(theirs, cursor, part);
            else
                memcpy(cursor, theirs, part);
        }
        cursor += part;
        bytes -= part;
        at = 0;
    }
}

/* Follows the chain at `head` without any effect on the device. */
static bool parse(const struct queue *queue, uint16_t head, struct vdev_chain *chain)
{
    uint16_t size = queue->size;
    const unsigned char *table =
        reach(queue->desc, 16 * (uint64_t)size, false, "the descriptor table");
    struct vring_desc desc;
    uint16_t at = head;

    *chain = (struct vdev_chain){.queue = (unsigned)(queue - v.queues), .head = head};
    if (!table)
        return false;
    if (head >= size) {
        breach("the available ring names descriptor %u of %u", head, size);
        return false;
    }
    memcpy(&desc, table + 16 * (size_t)at, sizeof(desc));
    if (desc.flags & VRING_DESC_F_INDIRECT) {
        uint32_t entries = desc.len / 16;
        if (!vdev_accepted(VIRTIO_RING_F_INDIRECT_DESC))
            breach("an indirect descriptor, which was not negotiated");
        if (desc.flags & VRING_DESC_F_NEXT)
            breach("an indirect descriptor with NEXT");
        if (desc.len % 16 != 0 || entries == 0)
            breach("an indirect table of %u bytes", desc.len);
        if (entries > size)
            breach("an indirect table of %u entries for a queue of %u", entries, size);
        table = reach(desc.addr, desc.len, false, "an indirect table");
        if (!table || entries == 0 || entries > 65535)
            return false;
        size = (uint16_t)entries;
        at = 0;
        memcpy(&desc, table, sizeof(desc));
    }
    for (unsigned count = 1;; count++) {
        if (desc.flags & ~(VRING_DESC_F_NEXT | VRING_DESC_F_WRITE))
            breach("descriptor flags %#x", desc.flags);
        if (count > queue->size) {
            breach("a chain longer than the queue");
            return false;
        }
        if (!take_segment(chain, &desc))
            return false;
        if (!(desc.flags & VRING_DESC_F_NEXT))
            break;
        at = desc.next;
        if (at >= size) {
            breach("a chain leads to descriptor %u of %u", at, size);
            return false;
        }
        memcpy(&desc, table + 16 * (size_t)at, sizeof(desc));
    }
    return true;
}

/* ---- The queues ---- */

static bool running(const struct queue *queue)
{
    return queue->enabled && (v.status & VIRTIO_CONFIG_S_DRIVER_OK);
}

static struct vdev_chain *in_flight_at(const struct queue *queue, uint16_t head)
{
    for (unsigned i = 0; i < v.in_flight_count; i++)
        if (v.in_flight[i]->queue == (unsigned)(queue - v.queues) && v.in_flight[i]->head == head)
            return v.in_flight[i];
    return NULL;
}

unsigned vdev_in_flight_of(unsigned queue)
{
    unsigned count = 0;

    for (unsigned i = 0; i < v.in_flight_count; i++)
        count += v.in_flight[i]->queue == queue;
    return count;
}

static bool idle(const struct queue *queue)
{
    return vdev_in_flight_of((unsigned)(queue - v.queues)) == 0;
}

/* Says whether the next request is to be announced. */
static void want_notice(const struct queue *queue, bool want)
{
    unsigned char *used = used_ring(queue);

    if (used && event_idx())
        store16(used + 4 + 8 * (size_t)queue->size,
                (uint16_t)(queue->avail_next + (want ? 0 : 0x8000u)));
    else if (used)
        store16(used, want ? 0 : VRING_USED_F_NO_NOTIFY);
}

static void drop(struct vdev_chain *chain)
{
    if (v.options.kind->forget)
        v.options.kind->forget(chain);
    free(chain);
}

/* Takes everything that the driver has made available. */
static void fetch(struct queue *queue)
{
    if (!running(queue) || !can_dma())
        return;
    queue->kicked = false;
    const unsigned char *avail = avail_ring(queue);
    if (!avail)
        return;
    uint16_t index = load16(avail + 2);
    if ((uint16_t)(index - queue->avail_next) > queue->size) {
        breach("C5: the available index went from %u to %u under the device", queue->avail_next,
               index);
        return;
    }
    while (queue->avail_next != index) {
        uint16_t head = load16(avail + 4 + 2 * (size_t)(queue->avail_next % queue->size));
        struct vdev_chain *chain = calloc(1, sizeof(*chain));

        queue->avail_next++;
        if (!chain)
            abort();
        if (in_flight_at(queue, head))
            breach("descriptor %u was made available while in flight", head);
        if (v.in_flight_count == IN_FLIGHT_MAX || !parse(queue, head, chain) ||
            !v.options.kind->accept(chain)) {
            drop(chain);
            continue;
        }
        v.counts.requests++;
        queue->heads_seen[head / 64] |= 1ull << head % 64;
        v.in_flight[v.in_flight_count++] = chain;
        if (v.in_flight_count > v.counts.most_in_flight)
            v.counts.most_in_flight = v.in_flight_count;
    }
    want_notice(queue, v.options.notices == VDEV_WANTS_ALL ||
                           (v.options.notices == VDEV_WANTS_WHEN_IDLE && idle(queue)));
}

static void fetch_all(void)
{
    for (unsigned i = 0; i < v.options.queues; i++)
        fetch(&v.queues[i]);
}

static void forget(unsigned which)
{
    drop(v.in_flight[which]);
    v.in_flight_count--;
    memmove(&v.in_flight[which], &v.in_flight[which + 1],
            (v.in_flight_count - which) * sizeof(v.in_flight[0]));
}

static void push_used(struct queue *queue, uint32_t id, uint32_t bytes)
{
    struct vring_used_elem element = {.id = id, .len = bytes};
    unsigned char *used = used_ring(queue);

    if (!used)
        return;
    memcpy(used + 4 + 8 * (size_t)(queue->used_next % queue->size), &element, sizeof(element));
    queue->used_next++;
    store16(used + 2, queue->used_next);

    /* Would that be an interrupt? Nobody takes them, and a legacy one never stops. */
    const unsigned char *avail = v.options.lie == LIE_NONE ? avail_ring(queue) : NULL;
    if (!avail)
        return;
    if (event_idx()
            ? load16(avail + 4 + 2 * (size_t)queue->size) == (uint16_t)(queue->used_next - 1)
            : !(load16(avail) & VRING_AVAIL_F_NO_INTERRUPT))
        breach("an interrupt is wanted, and nobody takes it");
    if (event_idx() && load16(avail) != 0)
        breach("available flags %#x beside an event index", load16(avail));
}

/* A descriptor that heads no request now, but has done if possible. */
static uint16_t head_of_nobody(const struct queue *queue)
{
    for (unsigned head = 0; head < queue->size; head++)
        if ((queue->heads_seen[head / 64] & 1ull << head % 64) &&
            !in_flight_at(queue, (uint16_t)head))
            return (uint16_t)head;
    for (unsigned head = queue->size; head-- > 0;)
        if (!in_flight_at(queue, (uint16_t)head))
            return (uint16_t)head;
    return 0;
}

static void finish(unsigned which)
{
    struct vdev_chain *chain = v.in_flight[which];
    struct queue *queue = &v.queues[chain->queue];
    uint64_t room = chain->readable + chain->writable;
    uint32_t id = chain->head;
    bool keep = true; /* after these lies, the driver cannot know that the request is done */

    if (vdev_lie(chain, LIE_NEEDS_RESET)) {
        v.broken = true;
        v.options.pace = VDEV_BY_HAND;
        return;
    }
    uint32_t bytes = v.options.kind->serve(chain);

    if (vdev_lie(chain, LIE_ID_OUT_OF_RANGE)) {
        id = queue->size;
    } else if (vdev_lie(chain, LIE_ID_HUGE)) {
        id = UINT32_MAX;
    } else if (vdev_lie(chain, LIE_ID_OF_NOBODY)) {
        id = head_of_nobody(queue);
    } else if (vdev_lie(chain, LIE_ID_NOT_A_HEAD)) {
        id++;
    } else if (vdev_lie(chain, LIE_INDEX_BACK)) {
        queue->used_next = (uint16_t)(queue->used_next - 2);
    } else if (vdev_lie(chain, LIE_INDEX_JUMPS)) {
        queue->used_next = (uint16_t)(queue->used_next + 1000);
    } else {
        keep = false;
        if (vdev_lie(chain, LIE_LENGTH))
            bytes = (uint32_t)room + 1;
        else if (vdev_lie(chain, LIE_LENGTH_HUGE))
            bytes = UINT32_MAX;
        if (vdev_lie(chain, LIE_ID_TWICE))
            push_used(queue, id, bytes);
    }
    push_used(queue, id, bytes);
    if (!keep)
        forget(which);
    else
        v.stalled = v.options.fuzz == NULL;
}

static bool ready(unsigned which)
{
    return !v.options.kind->ready || v.options.kind->ready(v.in_flight[which]);
}

static unsigned ready_count(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < v.in_flight_count; i++)
        count += ready(i);
    return count;
}

/* The n-th chain in flight that is ready, from 0. */
static unsigned nth_ready(unsigned n)
{
    unsigned which = 0;

    while (!ready(which) || n-- > 0)
        which++;
    return which;
}

/* Answers out of the fuzzer's bytes. */
static void fuzzed_work(void)
{
    uint8_t what, where = 0;

    if (!feed(&what)) {
        v.options.pace = VDEV_IN_ORDER;
        return;
    }
    if (v.options.queues > 1)
        feed(&where);
    struct queue *queue = &v.queues[where % v.options.queues];
    unsigned char *used = queue->enabled && can_dma() ? used_ring(queue) : NULL;
    switch (what % 12) {
    case 0: /* an element of chance */
        if (used) {
            feed(&where);
            push_used(queue, where < 200 ? where : feed32(), feed32());
        }
        break;
    case 1: /* an index of chance */
        if (used)
            store16(used + 2, (uint16_t)feed32());
        break;
    case 2: /* an element, and no index */
        if (used && feed(&where)) {
            uint32_t value = feed32();
            memcpy(used + 4 + where % (8u * queue->size - 4), &value, 4);
        }
        break;
    case 3: /* anything that is shared */
        for (struct dma_region *region = dma_first(); v.master && region; region = region->next) {
            uint32_t value = feed32(), at = feed32();
            if (region->shared && region->bytes >= 4)
                memcpy(region->device + at % (region->bytes - 3), &value, 4);
        }
        break;
    case 4:
        if (used)
            store16(used, (uint16_t)feed32());
        break;
    case 5:
        v.broken = true;
        break;
    case 6:
        if (feed(&what)) {
            unsigned lie =
                what % (LIE_INDEX_BACK - LIE_ID_OUT_OF_RANGE + 1u + v.options.kind->lies);
            v.options.lie = (int)lie + LIE_ID_OUT_OF_RANGE;
            if (v.options.lie > LIE_INDEX_BACK)
                v.options.lie += LIE_OF_KIND - LIE_INDEX_BACK - 1;
        }
        v.options.lies = 1;
        break;
    case 7:
        break;
    default:
        if (running(queue) && can_dma()) {
            fetch_all();
            if (ready_count() != 0)
                finish(nth_ready(what % ready_count()));
        }
        break;
    }
}

unsigned vdev_finish(unsigned most)
{
    unsigned done = 0, count;

    if (v.reset_pending || !(v.status & VIRTIO_CONFIG_S_DRIVER_OK) || !vdev_live() || !can_dma())
        return 0;
    for (unsigned i = 0; i < v.options.queues; i++)
        if (v.queues[i].kicked || v.options.notices != VDEV_WANTS_ALL)
            fetch(&v.queues[i]);
    while (done < most && !v.broken && !v.stalled && (count = ready_count()) != 0) {
        unsigned n = 0;
        if (v.options.pace == VDEV_SHUFFLED)
            n = vdev_chance() % count;
        else if (v.options.pace == VDEV_LAST_FIRST)
            n = count - 1;
        finish(nth_ready(n));
        done++;
    }
    for (unsigned i = 0; i < v.options.queues; i++)
        if (v.options.notices == VDEV_WANTS_WHEN_IDLE && running(&v.queues[i]) &&
            idle(&v.queues[i])) {
            want_notice(&v.queues[i], true);
            fetch(&v.queues[i]);
        }
    return done;
}

/* What a device does that was told to stop, and has not yet: it goes on with what it has. */
static void drain(void)
{
    if (v.options.no_dma_drain || !(v.status & VIRTIO_CONFIG_S_DRIVER_OK) || !can_dma())
        return;
    fetch_all();
    if (v.in_flight_count != 0)
        (void)v.options.kind->serve(v.in_flight[v.drain_next++ % v.in_flight_count]);
}

void vdev_last_gasp(void)
{
    if (!vdev_live() || !can_dma())
        return;
    fetch_all();
    for (unsigned i = 0; i < v.in_flight_count; i++) {
        uint32_t bytes = v.options.kind->serve(v.in_flight[i]);
        push_used(&v.queues[v.in_flight[i]->queue], v.in_flight[i]->head, bytes);
    }
}

static bool within(const struct dma_region *region, uint64_t address, uint64_t bytes)
{
    return address < region->address + region->bytes && region->address < address + bytes;
}

static bool overlaps(const struct dma_region *region, const struct vdev_chain *chain)
{
    for (unsigned i = 0; i < chain->segments; i++)
        if (within(region, chain->segment[i].address, chain->segment[i].bytes))
            return true;
    return false;
}

/* What was made available can be fetched at any moment, notified or not. */
static bool waits_in(const struct queue *queue, const struct dma_region *region)
{
    const unsigned char *avail = running(queue) ? avail_ring(queue) : NULL;

    if (!avail)
        return false;
    uint16_t index = load16(avail + 2);
    for (uint16_t at = queue->avail_next; at != index && (uint16_t)(index - at) <= queue->size;
         at++) {
        struct vdev_chain chain;
        if (parse(queue, load16(avail + 4 + 2 * (size_t)(at % queue->size)), &chain) &&
            overlaps(region, &chain))
            return true;
    }
    return false;
}

/* Of the device in this slot. */
static bool in_its_use(const struct dma_region *region)
{
    if (!v.plugged || v.options.fuzz || !vdev_live())
        return false;
    if (region->shared && !region->plain)
        return true;
    for (unsigned i = 0; i < v.options.queues; i++) {
        const struct queue *queue = &v.queues[i];
        if (queue->enabled && (within(region, queue->desc, 16 * (uint64_t)queue->size) ||
                               within(region, queue->avail, avail_bytes(queue)) ||
                               within(region, queue->used, used_bytes(queue))))
            return true;
    }
    for (unsigned i = 0; i < v.in_flight_count; i++)
        if (overlaps(region, v.in_flight[i]))
            return true;
    for (unsigned i = 0; i < v.options.queues; i++)
        if (waits_in(&v.queues[i], region))
            return true;
    return false;
}

static bool in_use(const struct dma_region *region)
{
    struct slot *before = slot;
    bool used = false;

    for (slot = slots; slot < slots + VDEV_SLOTS; slot++)
        used |= in_its_use(region);
    slot = before;
    return used;
}

/* ---- Status and reset ---- */

static uint64_t offered(void)
{
    uint64_t features = v.options.features;

    if (v.used_modern) {
        if (v.options.lie != LIE_NO_VERSION_1)
            features |= FEATURE(VIRTIO_F_VERSION_1);
    } else {
        features &= UINT32_MAX;
    }
    if (v.options.lie == LIE_OTHER_FEATURES && v.starts != 0)
        features &= ~FEATURE(VIRTIO_RING_F_INDIRECT_DESC) & ~v.options.kind->fickle_features;
    return features;
}

/* The queue that the driver has selected. */
static struct queue *selected(void)
{
    return v.queue_select < v.options.queues ? &v.queues[v.queue_select] : &v.nowhere;
}

static uint16_t honest_queue_size(const struct queue *queue)
{
    uint16_t own = queue == &v.nowhere ? VDEV_NO_QUEUE : v.options.queue_sizes[queue - v.queues];

    if (own == VDEV_NO_QUEUE)
        return 0;
    return own ? own : v.options.queue_size;
}

static uint16_t offered_queue_size(void)
{
    uint16_t honest = honest_queue_size(selected());

    if (honest == 0 || vdev_fault())
        return 0;
    if (v.starts != 0 && v.options.lie == LIE_SMALLER_QUEUE)
        return honest / 2;
    if (v.starts != 0 && v.options.lie == LIE_LARGER_QUEUE)
        return (uint16_t)(honest * 2);
    return honest;
}

static void as_after_power_on(void)
{
    while (v.in_flight_count != 0)
        forget(v.in_flight_count - 1);
    memset(v.queues, 0, v.options.queues * sizeof(v.queues[0]));
    v.nowhere = (struct queue){0};
    v.reset_pending = false;
    v.broken = false;
    v.stalled = false;
    v.status = 0;
    v.accepted = 0;
    v.features_read_back = false;
    v.features_written = false;
    v.offer_select = 0;
    v.accept_select = 0;
    v.queue_select = 0;
}

static void begin_reset(void)
{
    v.counts.resets++;
    v.reset_pending = true;
    v.reset_reads_left = v.status == 0 && !vdev_live() ? 0 : v.options.reset_reads;
    if (v.options.reset_reads == VDEV_NEVER || v.counts.resets <= v.options.stuck_resets ||
        v.counts.resets == v.options.stuck_reset_at || vdev_fault())
        v.reset_reads_left = VDEV_NEVER;
    if (v.reset_reads_left == VDEV_NEVER)
        v.counts.resets_refused++;
}

static uint8_t read_status(void)
{
    if (v.reset_pending) {
        if (v.reset_reads_left == 0) {
            as_after_power_on();
            return 0;
        }
        if (v.reset_reads_left != VDEV_NEVER)
            v.reset_reads_left--;
        drain();
        return v.status ? v.status : VIRTIO_CONFIG_S_FAILED;
    }
    if (v.status & VIRTIO_CONFIG_S_FEATURES_OK)
        v.features_read_back = true;
    return (uint8_t)(v.status | (v.broken ? VIRTIO_CONFIG_S_NEEDS_RESET : 0));
}

static void write_status(uint8_t value)
{
    uint8_t added = (uint8_t)(value & ~v.status);

    if (value == 0) {
        begin_reset();
        return;
    }
    if (v.reset_pending)
        breach("status %#x written before the reset was acknowledged", value);
    if ((value & v.status) != v.status)
        breach("status bits cleared: from %#x to %#x", v.status, value);
    if (value & ~KNOWN_STATUS)
        breach("status %#x", value);
    if ((added & VIRTIO_CONFIG_S_ACKNOWLEDGE) && v.counts.resets == 0)
        breach("no reset before ACKNOWLEDGE");
    if ((added & VIRTIO_CONFIG_S_DRIVER) && !(v.status & VIRTIO_CONFIG_S_ACKNOWLEDGE))
        breach("DRIVER before ACKNOWLEDGE");
    if (added & VIRTIO_CONFIG_S_FEATURES_OK) {
        if (!v.used_modern || !(v.status & VIRTIO_CONFIG_S_DRIVER) || !v.features_written)
            breach("FEATURES_OK out of turn");
        if (v.accepted & ~offered())
            breach("accepted features that were not offered: %#llx",
                   (unsigned long long)(v.accepted & ~offered()));
        if (!vdev_accepted(VIRTIO_F_VERSION_1))
            breach("a modern driver that does not accept VERSION_1");
        if (v.options.lie == LIE_FEATURES_REFUSED || vdev_fault())
            value &= (uint8_t)~VIRTIO_CONFIG_S_FEATURES_OK;
    }
    if (added & VIRTIO_CONFIG_S_DRIVER_OK) {
        if (v.used_modern ? !v.features_read_back : !(v.status & VIRTIO_CONFIG_S_DRIVER))
            breach("DRIVER_OK out of turn");
        if (!vdev_live())
            breach("DRIVER_OK without a queue");
        v.starts++;
    }
    v.status = value & KNOWN_STATUS;
    for (unsigned i = 0; i < v.options.queues; i++)
        if ((added & VIRTIO_CONFIG_S_DRIVER_OK) && v.queues[i].enabled && can_dma())
            want_notice(&v.queues[i], v.options.notices != VDEV_WANTS_NONE);
}

static void enable_queue(struct queue *queue)
{
    uint16_t size = queue->size, most = honest_queue_size(queue);

    if (v.status & VIRTIO_CONFIG_S_DRIVER_OK)
        breach("a queue enabled after DRIVER_OK");
    if (queue->enabled)
        breach("a queue enabled twice");
    if (v.reset_pending)
        breach("a queue enabled before the reset was acknowledged");
    if (size == 0 || size > most)
        breach("a queue of %u where %u are offered", size, most);
    if (queue->desc % 16 != 0 || queue->avail % 2 != 0 || queue->used % 4 != 0)
        breach("a queue that is not aligned");
    queue->enabled = true;
    const struct dma_region *desc = dma_find(queue->desc, 16 * (uint64_t)size);
    const struct dma_region *avail = dma_find(queue->avail, avail_bytes(queue));
    const struct dma_region *used = dma_find(queue->used, used_bytes(queue));
    if (!desc || !avail || !used || !desc->shared || !avail->shared || !used->shared) {
        breach("a queue outside the memory that was shown");
        return;
    }
    if ((queue->avail < queue->desc + 16 * (uint64_t)size && queue->desc < queue->avail) ||
        (queue->used < queue->avail + avail_bytes(queue) && queue->avail < queue->used))
        breach("the parts of a queue overlap");
    if (load16(avail->device + (queue->avail - avail->address) + 2) != 0 ||
        load16(used->device + (queue->used - used->address) + 2) != 0)
        breach("a queue that does not start at 0");
}

static void notify(uint16_t index)
{
    struct queue *queue = index < v.options.queues ? &v.queues[index] : &v.nowhere;

    v.counts.notifications++;
    if (!running(queue) || v.reset_pending) {
        breach("a notification to a device that is not running, for queue %u", index);
        return;
    }
    const unsigned char *used = can_dma() ? used_ring(queue) : NULL;
    bool unwanted = used && (load16(used) & VRING_USED_F_NO_NOTIFY);
    if (used && event_idx())
        unwanted =
            load16(used + 4 + 8 * (size_t)queue->size) == (uint16_t)(queue->avail_next + 0x8000u);
    if (unwanted)
        breach("a notification that the device had asked not to get");
    queue->kicked = true;
    if (v.options.fuzz)
        fuzzed_work();
    else if (v.options.pace == VDEV_AT_ONCE)
        vdev_finish(UINT32_MAX);
}

/* ---- Registers ---- */

static void check_width(uint64_t offset, unsigned bytes, unsigned right)
{
    if (bytes != right)
        breach("register %#llx accessed by %u bytes instead of %u", (unsigned long long)offset,
               bytes, right);
}

static void only(bool modern)
{
    *(modern ? &v.used_modern : &v.used_legacy) = true;
    if (v.used_modern && v.used_legacy)
        breach("both transports are used");
}

static uint64_t replace_half(uint64_t value, bool high, uint32_t half)
{
    return high ? (value & UINT32_MAX) | (uint64_t)half << 32
                : (value & ~(uint64_t)UINT32_MAX) | half;
}

static void queue_write_allowed(void)
{
    if (!(v.status & VIRTIO_CONFIG_S_DRIVER) || (v.used_modern && !v.features_read_back))
        breach("a queue set up before the features were agreed");
    if (selected()->enabled || (v.status & VIRTIO_CONFIG_S_DRIVER_OK))
        breach("a queue set up anew while in use");
    if (honest_queue_size(selected()) == 0)
        breach("queue %u set up", v.queue_select);
}

static uint32_t common_read(uint64_t offset, unsigned bytes)
{
    switch (offset) {
    case VIRTIO_PCI_COMMON_DF:
        check_width(offset, bytes, 4);
        return v.offer_select > 1 ? 0 : (uint32_t)(offered() >> (32 * v.offer_select));
    case VIRTIO_PCI_COMMON_NUMQ:
        check_width(offset, bytes, 2);
        return v.options.queues;
    case VIRTIO_PCI_COMMON_STATUS:
        check_width(offset, bytes, 1);
        return read_status();
    case VIRTIO_PCI_COMMON_CFGGENERATION:
        check_width(offset, bytes, 1);
        return v.generation;
    case VIRTIO_PCI_COMMON_Q_SIZE:
        check_width(offset, bytes, 2);
        return offered_queue_size();
    case VIRTIO_PCI_COMMON_Q_ENABLE:
        check_width(offset, bytes, 2);
        return selected()->enabled;
    case VIRTIO_PCI_COMMON_Q_NOFF:
        check_width(offset, bytes, 2);
        return NOTIFY_PLACE + v.queue_select;
    default:
        breach("read of common register %#llx", (unsigned long long)offset);
        return 0;
    }
}

static void common_write(uint64_t offset, unsigned bytes, uint32_t value)
{
    struct queue *queue = selected();

    if (v.reset_pending && offset != VIRTIO_PCI_COMMON_STATUS)
        breach("register %#llx written before the reset was acknowledged",
               (unsigned long long)offset);
    switch (offset) {
    case VIRTIO_PCI_COMMON_DFSELECT:
        check_width(offset, bytes, 4);
        v.offer_select = value;
        break;
    case VIRTIO_PCI_COMMON_GFSELECT:
        check_width(offset, bytes, 4);
        v.accept_select = value;
        break;
    case VIRTIO_PCI_COMMON_GF:
        check_width(offset, bytes, 4);
        if (!(v.status & VIRTIO_CONFIG_S_DRIVER) || (v.status & VIRTIO_CONFIG_S_FEATURES_OK))
            breach("features written out of turn");
        if (v.accept_select > 1)
            breach("features beyond 64 bits");
        v.accepted = replace_half(v.accepted, v.accept_select != 0, value);
        v.features_written = true;
        break;
    case VIRTIO_PCI_COMMON_STATUS:
        check_width(offset, bytes, 1);
        write_status((uint8_t)value);
        break;
    case VIRTIO_PCI_COMMON_Q_SELECT:
        check_width(offset, bytes, 2);
        v.queue_select = (uint16_t)value;
        break;
    case VIRTIO_PCI_COMMON_Q_SIZE:
        check_width(offset, bytes, 2);
        queue_write_allowed();
        if (value == 0 || value > honest_queue_size(queue) || (value & (value - 1)) != 0)
            breach("a queue size of %u where %u are offered", value, honest_queue_size(queue));
        queue->size = (uint16_t)value;
        break;
    case VIRTIO_PCI_COMMON_Q_DESCLO:
    case VIRTIO_PCI_COMMON_Q_DESCHI:
        check_width(offset, bytes, 4);
        queue_write_allowed();
        queue->desc = replace_half(queue->desc, offset == VIRTIO_PCI_COMMON_Q_DESCHI, value);
        break;
    case VIRTIO_PCI_COMMON_Q_AVAILLO:
    case VIRTIO_PCI_COMMON_Q_AVAILHI:
        check_width(offset, bytes, 4);
        queue_write_allowed();
        queue->avail = replace_half(queue->avail, offset == VIRTIO_PCI_COMMON_Q_AVAILHI, value);
        break;
    case VIRTIO_PCI_COMMON_Q_USEDLO:
    case VIRTIO_PCI_COMMON_Q_USEDHI:
        check_width(offset, bytes, 4);
        queue_write_allowed();
        queue->used = replace_half(queue->used, offset == VIRTIO_PCI_COMMON_Q_USEDHI, value);
        break;
    case VIRTIO_PCI_COMMON_Q_ENABLE:
        check_width(offset, bytes, 2);
        queue_write_allowed();
        if (value != 1)
            breach("%u written to queue_enable", value);
        if (queue->size == 0)
            queue->size = honest_queue_size(queue);
        enable_queue(queue);
        break;
    default:
        breach("write of common register %#llx", (unsigned long long)offset);
        break;
    }
}

static void legacy_queue(uint32_t page)
{
    struct queue *queue = selected();

    queue_write_allowed();
    if (page == 0) {
        queue->enabled = false;
        return;
    }
    queue->size = honest_queue_size(queue);
    queue->desc = (uint64_t)page << VIRTIO_PCI_QUEUE_ADDR_SHIFT;
    queue->avail = queue->desc + 16 * (uint64_t)queue->size;
    queue->used = (queue->avail + 6 + 2 * (uint64_t)queue->size + PAGE - 1) & ~(uint64_t)(PAGE - 1);
    enable_queue(queue);
}

static uint32_t legacy_read(uint64_t offset, unsigned bytes)
{
    switch (offset) {
    case VIRTIO_PCI_HOST_FEATURES:
        check_width(offset, bytes, 4);
        return (uint32_t)offered();
    case VIRTIO_PCI_QUEUE_NUM:
        check_width(offset, bytes, 2);
        return offered_queue_size();
    case VIRTIO_PCI_STATUS:
        check_width(offset, bytes, 1);
        return read_status();
    default:
        breach("read of legacy register %#llx", (unsigned long long)offset);
        return 0;
    }
}

static void legacy_write(uint64_t offset, unsigned bytes, uint32_t value)
{
    if (v.reset_pending && offset != VIRTIO_PCI_STATUS)
        breach("register %#llx written before the reset was acknowledged",
               (unsigned long long)offset);
    switch (offset) {
    case VIRTIO_PCI_GUEST_FEATURES:
        check_width(offset, bytes, 4);
        if (!(v.status & VIRTIO_CONFIG_S_DRIVER) || (v.status & VIRTIO_CONFIG_S_DRIVER_OK))
            breach("features written out of turn");
        if (value & ~offered())
            breach("accepted features that were not offered: %#llx",
                   (unsigned long long)(value & ~offered()));
        v.accepted = value;
        v.features_written = true;
        break;
    case VIRTIO_PCI_QUEUE_PFN:
        check_width(offset, bytes, 4);
        if (!v.features_written)
            breach("a queue set up before the features were agreed");
        legacy_queue(value);
        break;
    case VIRTIO_PCI_QUEUE_SEL:
        check_width(offset, bytes, 2);
        v.queue_select = (uint16_t)value;
        break;
    case VIRTIO_PCI_QUEUE_NOTIFY:
        check_width(offset, bytes, 2);
        notify((uint16_t)value);
        break;
    case VIRTIO_PCI_STATUS:
        check_width(offset, bytes, 1);
        write_status((uint8_t)value);
        break;
    default:
        breach("write of legacy register %#llx", (unsigned long long)offset);
        break;
    }
}

uint32_t vdev_config_field(uint64_t offset, unsigned bytes, unsigned right, int feature,
                           uint32_t value)
{
    check_width(offset, bytes, right);
    if (feature >= 0 && !vdev_accepted((unsigned)feature))
        breach("configuration field %#llx without its feature", (unsigned long long)offset);
    return value;
}

bool vdev_config_moves(void)
{
    if (v.options.lie != LIE_CONFIG_MOVES_ONCE || v.moved)
        return false;
    v.moved = true;
    v.generation++;
    return true;
}

void vdev_config_changed(void)
{
    v.generation++;
}

static void config_has_driver(void)
{
    if (v.reset_pending || !(v.status & VIRTIO_CONFIG_S_DRIVER))
        breach("the configuration of a device that has no driver");
}

static uint32_t config_read(uint64_t offset, unsigned bytes)
{
    config_has_driver();
    if (v.options.lie == LIE_CONFIG_RESTLESS)
        v.generation++;
    return v.options.kind->config_read(offset, bytes);
}

static void config_write(uint64_t offset, unsigned bytes, uint32_t value)
{
    config_has_driver();
    if (v.options.kind->config_write)
        v.options.kind->config_write(offset, bytes, value);
    else
        breach("a write to the configuration");
}

/* One access, to the BAR that it falls into. Reads return, writes take, `value`. */
static uint32_t access_bar(unsigned index, uint64_t offset, unsigned bytes, bool write,
                           uint32_t value)
{
    if (index == 0 && v.bars[0].port) {
        uint64_t config = VIRTIO_PCI_CONFIG_OFF(false);
        only(false);
        if (!write)
            return offset < config ? legacy_read(offset, bytes)
                                   : config_read(offset - config, bytes);
        if (offset < config)
            legacy_write(offset, bytes, value);
        else
            config_write(offset - config, bytes, value);
        return 0;
    }

    const struct layout *layout = &v.layout;
    only(true);
    if (offset >= layout->notify) {
        if (!write || bytes != 2 ||
            offset != layout->notify + (uint64_t)(NOTIFY_PLACE + value) * v.options.notify_scale)
            breach("an access at %#llx of the notify structure",
                   (unsigned long long)(offset - layout->notify));
        else
            notify((uint16_t)value);
        return 0;
    }
    if (offset >= layout->config && offset < layout->config + v.options.kind->config_bytes) {
        if (!write)
            return config_read(offset - layout->config, bytes);
        config_write(offset - layout->config, bytes, value);
        return 0;
    }
    if (offset >= layout->common &&
        offset < layout->common + sizeof(struct virtio_pci_common_cfg)) {
        if (!write)
            return common_read(offset - layout->common, bytes);
        common_write(offset - layout->common, bytes, value);
        return 0;
    }
    breach("an access outside the structures, at %#llx of BAR %u", (unsigned long long)offset,
           index);
    return 0;
}

static bool in_bar(const struct bar *bar, const struct reg_window *window, uint64_t where,
                   unsigned bytes)
{
    return bar->there && bar->port == window->port && where >= bar->base &&
           where - bar->base <= bar->bytes - bytes;
}

/* Turns to the device whose register that is, if it is any's. */
static void turn_to_register(const struct reg_window *window, uint64_t where, unsigned bytes)
{
    for (unsigned i = 0; i < VDEV_SLOTS; i++)
        for (unsigned j = 0; j < 6; j++)
            if (slots[i].plugged && in_bar(&slots[i].bars[j], window, where, bytes))
                slot = &slots[i];
}

static uint32_t access_reg(const struct reg_window *window, uint64_t offset, unsigned bytes,
                           bool write, uint32_t value)
{
    uint64_t where = window->base + offset;
    const uint32_t ones = bytes == 4 ? UINT32_MAX : (1u << (8 * bytes)) - 1;

    if (vdev_elsewhere && vdev_elsewhere(window, where, write, &value))
        return value;
    turn_to_register(window, where, bytes);
    step();
    now++;
    if (!v.plugged) {
        model_violation("a register access without a device");
        return ones;
    }
    if (bytes > window->bytes || offset > window->bytes - bytes)
        model_violation("C9: an access at %#llx of a window of %#llx bytes",
                        (unsigned long long)offset, (unsigned long long)window->bytes);
    if (!write) {
        v.counts.reads++;
        if (v.options.gone_at != 0 && v.counts.reads >= v.options.gone_at) {
            if (v.options.gone_for_good)
                v.gone = true;
            else if (v.counts.reads == v.options.gone_at)
                return ones;
        }
    }
    for (unsigned i = 0; i < 6; i++) {
        const struct bar *bar = &v.bars[i];
        if (!in_bar(bar, window, where, bytes))
            continue;
        if (v.gone)
            return ones;
        if ((where - bar->base) % bytes != 0)
            breach("an access of %u bytes that is not aligned, at %#llx of BAR %u", bytes,
                   (unsigned long long)(where - bar->base), i);
        uint32_t honest = access_bar(i, where - bar->base, bytes, write, value);
        uint8_t choice;
        if (!write && v.options.fuzz && feed(&choice) && choice < 0x30)
            return feed32() & ones;
        return honest & ones;
    }
    model_violation("C9: an access outside the BARs, at %#llx", (unsigned long long)where);
    return ones;
}

uint8_t reg_read8(const struct reg_window *window, uint64_t offset)
{
    return (uint8_t)access_reg(window, offset, 1, false, 0);
}

uint16_t reg_read16(const struct reg_window *window, uint64_t offset)
{
    return (uint16_t)access_reg(window, offset, 2, false, 0);
}

uint32_t reg_read32(const struct reg_window *window, uint64_t offset)
{
    return access_reg(window, offset, 4, false, 0);
}

void reg_write8(const struct reg_window *window, uint64_t offset, uint8_t value)
{
    access_reg(window, offset, 1, true, value);
}

void reg_write16(const struct reg_window *window, uint64_t offset, uint16_t value)
{
    access_reg(window, offset, 2, true, value);
}

void reg_write32(const struct reg_window *window, uint64_t offset, uint32_t value)
{
    access_reg(window, offset, 4, true, value);
}

void pci_master_off(const struct pci_function *where)
{
    step();
    for (unsigned i = 0; i < VDEV_SLOTS; i++)
        if (slots[i].plugged && memcmp(where, &places[i], sizeof(*where)) == 0)
            slot = &slots[i];
    if (memcmp(where, vdev_where(), sizeof(*where)) != 0)
        model_violation("bus mastering turned off for somebody else");
    v.counts.master_off++;
    if (vdev_live())
        v.counts.master_off_live++;
    v.master = false;
}

uint64_t clock_ticks(void)
{
    step();
    if (!v.options.clock_stands)
        now++;
    return v.options.clock_stands ? 1 : now;
}

static void work(void)
{
    if (!v.plugged || v.reset_pending)
        return;
    if (v.options.fuzz && v.fuzz_at < v.options.fuzz_bytes) {
        fuzzed_work();
        return;
    }
    switch (v.options.pace) {
    case VDEV_AT_ONCE:
    case VDEV_IN_ORDER:
        vdev_finish(UINT32_MAX);
        break;
    case VDEV_ONE_BY_ONE:
        vdev_finish(1);
        break;
    case VDEV_SHUFFLED:
        vdev_finish(vdev_chance() % 5);
        break;
    case VDEV_BY_HAND:
    case VDEV_LAST_FIRST:
        break;
    }
}

void cpu_relax(void)
{
    struct slot *before = slot;

    step();
    now += v.options.relax_ticks;
    for (slot = slots; slot < slots + VDEV_SLOTS; slot++)
        work();
    slot = before;
}

/* ---- The rich door ---- */

/* Turns to the device whose door it is. */
static bool rich_call(void *context, const char *name)
{
    struct slot *whose = context;
    bool known = false;

    for (unsigned i = 0; i < VDEV_SLOTS; i++)
        known |= whose == &slots[i];
    if (known)
        slot = whose;
    step();
    now++;
    if (v.poor)
        model_violation("C2: %s called through the rich door while only the poor one is open",
                        name);
    return known;
}

static uint32_t door_config_read32(void *context, uint32_t offset)
{
    uint32_t value = UINT32_MAX;
    uint8_t choice;

    if (!rich_call(context, "config_read32") || offset % 4 != 0)
        model_violation("a read of configuration space at %#x", offset);
    if (vdev_fault() || v.gone)
        return UINT32_MAX;
    if (offset <= sizeof(v.space) - 4)
        memcpy(&value, v.space + offset, 4);
    if (v.options.fuzz && feed(&choice) && choice < 0x10)
        return feed32();
    return value;
}

static bool door_bar(void *context, unsigned index, struct reg_window *window)
{
    if (!rich_call(context, "bar") || index > 5) {
        model_violation("BAR %u", index);
        return false;
    }
    if (vdev_fault() || !v.bars[index].there)
        return false;
    *window = (struct reg_window){
        .base = v.bars[index].base, .bytes = v.bars[index].bytes, .port = v.bars[index].port};
    return true;
}

static enum result door_map(void *context, enum dma_direction direction, void *buffer, size_t bytes,
                            struct dma_mapping *mapping)
{
    if (!rich_call(context, "map") || !buffer || bytes == 0)
        model_violation("a mapping of %zu bytes at %p", bytes, buffer);
    if (vdev_fault())
        return RESULT_NO_MEMORY;
    if (v.options.fuzz) {
        uint8_t choice;
        if (feed(&choice) && choice < 0x10)
            return RESULT_NO_MEMORY;
    }
    if (v.options.map_most != 0 && bytes > v.options.map_most)
        bytes = v.options.map_most;
    v.counts.maps++;
    struct dma_region *region = dma_map(direction, buffer, bytes);
    *mapping = (struct dma_mapping){.address = region->address, .bytes = bytes, .cookie = region};
    return RESULT_OK;
}

static void door_unmap(void *context, const struct dma_mapping *mapping)
{
    if (!rich_call(context, "unmap"))
        model_violation("unmap with somebody else's context");
    v.counts.unmaps++;
    dma_unmap(mapping->cookie);
}

static void door_log(void *context, const char *sentence, uint64_t number)
{
    if (!rich_call(context, "log"))
        model_violation("log with somebody else's context");
    v.counts.logs++;
    snprintf(v.last_log, sizeof(v.last_log), "%s %llu", sentence, (unsigned long long)number);
}

static bool door_bus_master(void *context, bool on)
{
    if (!rich_call(context, "bus_master"))
        model_violation("bus_master with somebody else's context");
    if (on && v.counts.resets == 0)
        model_violation("C4: bus mastering on before the device has acknowledged a reset");
    if (on && vdev_fault())
        return false;
    v.master = on;
    return true;
}

const struct rich_door *vdev_door(void)
{
    static struct rich_door doors[VDEV_SLOTS];
    struct rich_door *door = &doors[slot - slots];

    *door = (struct rich_door){
        .context = slot,
        .ticks_per_ms = VDEV_TICKS_PER_MS,
        .config_read32 = door_config_read32,
        .bar = door_bar,
        .bus_master = door_bus_master,
        .map = door_map,
        .unmap = door_unmap,
        .log = door_log,
    };
    return door;
}

/* ---- Configuration space ---- */

static void put16(unsigned at, uint16_t value)
{
    memcpy(v.space + at, &value, 2);
}

static void put32(unsigned at, uint32_t value)
{
    memcpy(v.space + at, &value, 4);
}

/* Writes a virtio capability and links it to the next; returns where that goes. */
static unsigned put_capability(unsigned at, uint8_t type, uint32_t bar, uint32_t offset,
                               uint32_t bytes)
{
    v.space[at] = PCI_CAP_ID_VNDR;
    v.space[at + 1] = (uint8_t)(at + 20);
    v.space[at + 2] = type == VIRTIO_PCI_CAP_NOTIFY_CFG ? 20 : 16;
    v.space[at + 3] = type;
    put32(at + VIRTIO_PCI_CAP_BAR, 0xabcd00u | bar); /* id and padding are not the BAR's number */
    put32(at + VIRTIO_PCI_CAP_OFFSET, offset);
    put32(at + VIRTIO_PCI_CAP_LENGTH, bytes);
    return at + 20;
}

static unsigned put_modern(unsigned at)
{
    const int lie_told = v.options.lie;
    const struct layout *l = &v.layout;
    uint32_t bar_bytes = (uint32_t)v.bars[l->bar].bytes;
    uint32_t common = l->common, common_bytes = sizeof(struct virtio_pci_common_cfg);
    uint32_t common_bar = l->bar, notify_bytes = l->notify_bytes;
    unsigned first = at;

    if (lie_told == LIE_COMMON_OUTSIDE_BAR)
        common = bar_bytes - 8;
    if (lie_told == LIE_COMMON_WRAPS)
        common = UINT32_MAX - 15;
    if (lie_told == LIE_COMMON_UNALIGNED)
        common = l->common + 2;
    if (lie_told == LIE_COMMON_SHORT)
        common_bytes = 16;
    if (lie_told == LIE_COMMON_IN_NO_BAR)
        common_bar = 5;
    if (lie_told == LIE_NOTIFY_TINY)
        notify_bytes = 1;
    if (lie_told == LIE_DECOYS) {
        at = put_capability(at, VIRTIO_PCI_CAP_COMMON_CFG, 7, 0, common_bytes);
        at = put_capability(at, VIRTIO_PCI_CAP_DEVICE_CFG, l->bar, bar_bytes, 60);
    }
    at = put_capability(at, VIRTIO_PCI_CAP_COMMON_CFG, common_bar, common, common_bytes);
    at = put_capability(at, VIRTIO_PCI_CAP_ISR_CFG, l->bar, l->isr, 1);
    at = put_capability(at, VIRTIO_PCI_CAP_DEVICE_CFG, l->bar, l->config,
                        lie_told == LIE_CONFIG_EMPTY ? 0 : v.options.kind->config_bytes);
    unsigned multiplier = at + VIRTIO_PCI_NOTIFY_CAP_MULT;
    at = put_capability(at, VIRTIO_PCI_CAP_NOTIFY_CFG, l->bar, l->notify, notify_bytes);
    put32(multiplier, lie_told == LIE_NOTIFY_OUTSIDE ? 0x10000 : v.options.notify_scale);
    if (lie_told == LIE_DECOYS) /* the first that is usable counts */
        at = put_capability(at, VIRTIO_PCI_CAP_COMMON_CFG, l->bar, l->notify, common_bytes);
    unsigned last = at;
    at = put_capability(at, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 0);
    v.space[last + 1] = lie_told == LIE_CAPABILITY_LOOP ? (uint8_t)first : 0;
    if (lie_told == LIE_CAPABILITY_LOOP)
        v.space[first + 3] = VIRTIO_PCI_CAP_PCI_CFG; /* and never a common structure */
    return at;
}

static void fill_space(void)
{
    bool modern = v.options.transport != VDEV_LEGACY;
    bool legacy = v.options.transport != VDEV_MODERN;
    uint64_t index = (uint64_t)(slot - slots);

    v.layout = v.options.io_bar ? in_ports : in_memory;
    if (modern)
        v.bars[v.layout.bar] =
            v.options.io_bar ? (struct bar){true, true, 0x6000 + 0x100 * index, 0x100}
                             : (struct bar){true, false, 0xfe8000000 + 0x8000 * index, 0x8000};
    if (legacy)
        v.bars[0] = (struct bar){true, true, 0xc000 + 0x100 * index, 0x80};
    put16(PCI_VENDOR_ID, 0x1af4);
    put16(PCI_DEVICE_ID, legacy ? v.options.kind->transitional_id : v.options.kind->device_id);
    v.space[PCI_REVISION_ID] = legacy ? 0 : 1;
    put16(PCI_COMMAND, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
    if (v.options.lie == LIE_NO_CAPABILITIES)
        return;
    put16(PCI_STATUS, PCI_STATUS_CAP_LIST);
    /* Another capability comes first, as MSI-X does. */
    v.space[PCI_CAPABILITY_LIST] = 0x40;
    v.space[0x40] = PCI_CAP_ID_MSIX;
    v.space[0x41] = modern ? 0x4c : 0;
    if (modern)
        put_modern(0x4c);
}

/* ---- The outside ---- */

struct vdev_options vdev_usual(const struct vdev_kind *kind)
{
    return (struct vdev_options){
        .kind = kind,
        .transport = VDEV_MODERN,
        .notify_scale = 4,
        .queues = kind->queues,
        .queue_size = 128,
        .features = kind->features | FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |
                    FEATURE(VIRTIO_RING_F_EVENT_IDX) | FEATURE(VIRTIO_F_RING_RESET) |
                    FEATURE(VIRTIO_F_RING_PACKED),
        .pace = VDEV_IN_ORDER,
        .seed = 1,
        .relax_ticks = 50,
        .reset_reads = 3,
        .lies = 1,
        .lie_queue = VDEV_ANY_QUEUE,
    };
}

void vdev_plug(const struct vdev_options *options)
{
    memset(slot, 0, sizeof(*slot));
    if (slot == slots)
        model_forget();
    if (options->queues == 0 || options->queues > VDEV_QUEUES_MAX)
        abort();
    v.options = *options;
    now += 12345;
    v.random = options->seed ? options->seed : 1;
    v.strict = !options->fuzz && options->gone_at == 0;
    fill_space();
    if (options->kind->plug)
        options->kind->plug();
    v.plugged = true;
    dma_in_use = in_use;
}

void vdev_unplug(void)
{
    if (!v.plugged)
        return;
    as_after_power_on();
    if (v.options.kind->unplug)
        v.options.kind->unplug();
    v.plugged = false;
    model_forget();
}

struct vdev_options *vdev_now(void)
{
    return &v.options;
}

const struct pci_function *vdev_where(void)
{
    return &places[slot - slots];
}

void vdev_turn_to(unsigned which)
{
    slot = &slots[which];
}

const struct vdev_counts *vdev_counted(void)
{
    return &v.counts;
}

const char *vdev_last_log(void)
{
    return v.last_log;
}

uint8_t vdev_status(void)
{
    return v.reset_pending && v.status == 0 ? VIRTIO_CONFIG_S_FAILED : v.status;
}

uint64_t vdev_features(void)
{
    return v.accepted;
}

uint16_t vdev_queue_size(unsigned queue)
{
    return v.queues[queue].size;
}

bool vdev_uses_legacy(void)
{
    return v.used_legacy;
}

bool vdev_live(void)
{
    for (unsigned i = 0; i < v.options.queues; i++)
        if (v.queues[i].enabled)
            return true;
    return false;
}

bool vdev_master(void)
{
    return v.master;
}

void vdev_master_on(void)
{
    v.master = true;
}

uint64_t vdev_time(void)
{
    return now;
}

void vdev_skip_ms(uint64_t ms)
{
    now += ms * VDEV_TICKS_PER_MS;
}

unsigned vdev_in_flight(void)
{
    return v.in_flight_count;
}

void vdev_break(void)
{
    v.broken = true;
}

void vdev_vanish(void)
{
    v.gone = true;
}

void vdev_poor(bool poor)
{
    v.poor = poor;
}
