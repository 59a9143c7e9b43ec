// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "tests/model/virtio_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/pci_regs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#define PAGE           4096u
#define SEGMENTS_MAX   64u
#define IN_FLIGHT_MAX  128u
#define HUNG_STEPS     200000000u
#define NOTIFY_PLACE   3u /* queue_notify_off: not 0, so that leaving it out is noticed */
#define DISK_BYTES_MAX (16u << 20)
#define FEATURE(bit)   (1ull << (bit))
#define KNOWN_STATUS                                                                               \
    (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK |            \
     VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_NEEDS_RESET)

struct segment {
    uint64_t address;
    uint32_t bytes;
    bool write;
};

struct request {
    uint16_t head;
    unsigned segments;
    struct segment segment[SEGMENTS_MAX];
    uint64_t readable, writable; /* bytes */
    struct virtio_blk_outhdr header;
    unsigned char *snapshot; /* flush: the disk as it was when the device saw the flush */
};

struct bar {
    bool there, port;
    uint64_t base, bytes;
};

/* Where the modern structures are. */
struct layout {
    uint32_t bar, common, isr, config, notify, notify_bytes;
};

static const struct layout in_memory = {4, 0x0, 0x1000, 0x2000, 0x3000, 0x1000};
static const struct layout in_ports = {2, 0x00, 0x40, 0x50, 0xa0, 0x40};
#define CONFIG_BYTES 60u

static struct {
    struct vdev_options options;
    struct vdev_counts counts;
    bool plugged, strict, poor, gone, broken, stalled, master;
    uint64_t now, steps;
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

    struct {
        bool enabled;
        uint16_t size;
        uint64_t desc, avail, used;
        uint16_t avail_next, used_next;
        bool kicked;
        bool head_seen[65536];
    } queue;
    struct request *in_flight[IN_FLIGHT_MAX];
    unsigned in_flight_count;

    unsigned char *disk, *stable;
    size_t disk_bytes;
    size_t fuzz_at;
    char last_log[256];
} v;

void (*vdev_hung)(void);

/* What a driver does against the rules. Where the device itself does not keep them, nobody can be
 * held to all of them; what touches memory wrongly is a violation always. */
#define breach(...)                                                                                \
    do {                                                                                           \
        if (v.strict)                                                                              \
            model_violation(__VA_ARGS__);                                                          \
    } while (0)

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

static uint32_t chance(void)
{
    v.random ^= v.random << 13;
    v.random ^= v.random >> 17;
    v.random ^= v.random << 5;
    return v.random;
}

static bool fault(void)
{
    return ++v.counts.points == v.options.fault_at;
}

static bool lie(enum vdev_lie kind)
{
    if (v.options.lie != kind || v.options.lies == 0)
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

static bool event_idx(void)
{
    return (v.accepted & FEATURE(VIRTIO_RING_F_EVENT_IDX)) != 0;
}

/* Each ring is followed by an event index where that was negotiated. */
static uint64_t avail_bytes(void)
{
    return 4 + 2 * (uint64_t)v.queue.size + (event_idx() ? 2 : 0);
}

static uint64_t used_bytes(void)
{
    return 4 + 8 * (uint64_t)v.queue.size + (event_idx() ? 2 : 0);
}

static unsigned char *avail_ring(void)
{
    return reach(v.queue.avail, avail_bytes(), false, "the available ring");
}

static unsigned char *used_ring(void)
{
    return reach(v.queue.used, used_bytes(), true, "the used ring");
}

/* Adds one descriptor to a request. */
static bool take_segment(struct request *request, const struct vring_desc *desc)
{
    bool write = (desc->flags & VRING_DESC_F_WRITE) != 0;

    if (desc->len == 0)
        breach("a descriptor of no bytes");
    if (request->segments == SEGMENTS_MAX) {
        breach("a chain without an end");
        return false;
    }
    if (write && (desc->flags & VRING_DESC_F_INDIRECT))
        breach("an indirect descriptor that is device-writable");
    if (!write && request->writable != 0)
        breach("a device-readable descriptor after a writable one");
    if (!reach(desc->addr, desc->len, write, "a buffer"))
        return false;
    request->segment[request->segments++] =
        (struct segment){.address = desc->addr, .bytes = desc->len, .write = write};
    *(write ? &request->writable : &request->readable) += desc->len;
    return true;
}

/* Copies between a request's device-readable (or writable) bytes and ours. */
static void copy(const struct request *request, bool write, uint64_t at, void *ours, uint64_t bytes)
{
    unsigned char *cursor = ours;

    for (unsigned i = 0; i < request->segments && bytes != 0; i++) {
        const struct segment *segment = &request->segment[i];
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
static bool parse(uint16_t head, struct request *request)
{
    uint16_t size = v.queue.size;
    const unsigned char *table =
        reach(v.queue.desc, 16 * (uint64_t)size, false, "the descriptor table");
    struct vring_desc desc;
    uint16_t at = head;

    *request = (struct request){.head = head};
    if (!table)
        return false;
    if (head >= size) {
        breach("the available ring names descriptor %u of %u", head, size);
        return false;
    }
    memcpy(&desc, table + 16 * (size_t)at, sizeof(desc));
    if (desc.flags & VRING_DESC_F_INDIRECT) {
        uint32_t entries = desc.len / 16;
        if (!(v.accepted & FEATURE(VIRTIO_RING_F_INDIRECT_DESC)))
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
        if (count > v.queue.size) {
            breach("a chain longer than the queue");
            return false;
        }
        if (!take_segment(request, &desc))
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
    if (request->readable < sizeof(request->header) || request->writable < 1) {
        breach("a request without a header or a status");
        return false;
    }
    copy(request, false, 0, &request->header, sizeof(request->header));
    return true;
}

/* virtio 1.2 §5.2.6: what a driver may ask for. */
static void check_request(const struct request *request)
{
    const struct virtio_blk_outhdr *header = &request->header;
    bool any_layout = v.used_modern || (v.accepted & FEATURE(VIRTIO_F_ANY_LAYOUT));
    const struct segment *first = &request->segment[0];
    const struct segment *last = &request->segment[request->segments - 1];
    uint64_t data;

    if (!any_layout && (first->bytes != sizeof(*header) || last->bytes != 1))
        breach("a legacy request whose header or status shares its descriptor");
    if (header->ioprio != 0)
        breach("a priority of %u", header->ioprio);
    if (v.accepted & FEATURE(VIRTIO_BLK_F_SIZE_MAX))
        for (unsigned i = 0; i < request->segments; i++)
            if (request->segment[i].bytes > v.options.size_max &&
                request->segment[i].bytes > sizeof(*header))
                breach("a segment of %u bytes", request->segment[i].bytes);
    if ((v.accepted & FEATURE(VIRTIO_BLK_F_SEG_MAX)) && request->segments > v.options.seg_max + 2)
        breach("a request of %u segments", request->segments - 2);

    switch (header->type) {
    case VIRTIO_BLK_T_IN:
        data = request->writable - 1;
        if (request->readable != sizeof(*header))
            breach("a read with data to write");
        break;
    case VIRTIO_BLK_T_OUT:
        data = request->readable - sizeof(*header);
        if (request->writable != 1)
            breach("a write with room to read");
        if (v.options.features & FEATURE(VIRTIO_BLK_F_RO))
            breach("a write to a read-only disk");
        break;
    case VIRTIO_BLK_T_FLUSH:
        if (!(v.accepted & FEATURE(VIRTIO_BLK_F_FLUSH)))
            breach("a flush, which was not negotiated");
        if (header->sector != 0 || request->readable != sizeof(*header) || request->writable != 1)
            breach("a flush with a sector or data");
        return;
    default:
        breach("a request of type %u", header->type);
        return;
    }
    if (data == 0 || data % 512 != 0)
        breach("a transfer of %llu bytes", (unsigned long long)data);
    if ((v.accepted & FEATURE(VIRTIO_BLK_F_BLK_SIZE)) &&
        (data % v.options.block_size != 0 || header->sector % (v.options.block_size / 512) != 0))
        breach("a transfer of part of a block");
    if (header->sector > v.options.capacity || data / 512 > v.options.capacity - header->sector)
        breach("a transfer past the end");
}

/* ---- The queue ---- */

static bool running(void)
{
    return v.queue.enabled && (v.status & VIRTIO_CONFIG_S_DRIVER_OK);
}

static bool is_in_flight(uint16_t head)
{
    for (unsigned i = 0; i < v.in_flight_count; i++)
        if (v.in_flight[i]->head == head)
            return true;
    return false;
}

/* Says whether the next request is to be announced. */
static void want_notice(bool want)
{
    unsigned char *used = used_ring();

    if (used && event_idx())
        store16(used + 4 + 8 * (size_t)v.queue.size,
                (uint16_t)(v.queue.avail_next + (want ? 0 : 0x8000u)));
    else if (used)
        store16(used, want ? 0 : VRING_USED_F_NO_NOTIFY);
}

/* Takes everything that the driver has made available. */
static void fetch(void)
{
    if (!running() || !can_dma())
        return;
    v.queue.kicked = false;
    const unsigned char *avail = avail_ring();
    if (!avail)
        return;
    uint16_t index = load16(avail + 2);
    if ((uint16_t)(index - v.queue.avail_next) > v.queue.size) {
        breach("C5: the available index went from %u to %u under the device", v.queue.avail_next,
               index);
        return;
    }
    while (v.queue.avail_next != index) {
        uint16_t head = load16(avail + 4 + 2 * (size_t)(v.queue.avail_next % v.queue.size));
        struct request *request = calloc(1, sizeof(*request));

        v.queue.avail_next++;
        if (!request)
            abort();
        if (is_in_flight(head))
            breach("descriptor %u was made available while in flight", head);
        if (v.in_flight_count == IN_FLIGHT_MAX || !parse(head, request)) {
            free(request);
            continue;
        }
        check_request(request);
        v.counts.requests++;
        if (request->header.type == VIRTIO_BLK_T_FLUSH) {
            v.counts.flushes++;
            request->snapshot = malloc(v.disk_bytes);
            if (!request->snapshot)
                abort();
            memcpy(request->snapshot, v.disk, v.disk_bytes);
        }
        v.queue.head_seen[head] = true;
        v.in_flight[v.in_flight_count++] = request;
        if (v.in_flight_count > v.counts.most_in_flight)
            v.counts.most_in_flight = v.in_flight_count;
    }
    want_notice(v.options.notices == VDEV_WANTS_ALL ||
                (v.options.notices == VDEV_WANTS_WHEN_IDLE && v.in_flight_count == 0));
}

static bool span_on_disk(const struct request *request, uint64_t bytes)
{
    uint64_t from = request->header.sector;

    return from <= v.disk_bytes / 512 && bytes <= v.disk_bytes - from * 512;
}

/* Does what a request asks for; returns the number of bytes written. */
static uint32_t serve(struct request *request)
{
    uint8_t status = VIRTIO_BLK_S_OK;
    uint64_t data;
    uint64_t written = 1;
    unsigned char *place;

    if (lie(LIE_STATUS_IOERR) || fault())
        status = VIRTIO_BLK_S_IOERR;
    else if (lie(LIE_STATUS_UNSUPP))
        status = VIRTIO_BLK_S_UNSUPP;
    else if (lie(LIE_STATUS_UNKNOWN))
        status = 0x77;
    switch (status == VIRTIO_BLK_S_OK ? request->header.type : VIRTIO_BLK_T_GET_ID) {
    case VIRTIO_BLK_T_IN:
        data = request->writable - 1;
        if (!span_on_disk(request, data)) {
            status = VIRTIO_BLK_S_IOERR;
            break;
        }
        place = v.disk + request->header.sector * 512;
        copy(request, true, 0, place, data);
        written += data;
        break;
    case VIRTIO_BLK_T_OUT:
        data = request->readable - sizeof(request->header);
        if (!span_on_disk(request, data)) {
            status = VIRTIO_BLK_S_IOERR;
            break;
        }
        copy(request, false, sizeof(request->header), v.disk + request->header.sector * 512, data);
        break;
    case VIRTIO_BLK_T_FLUSH:
        if (request->snapshot)
            memcpy(v.stable, request->snapshot, v.disk_bytes);
        break;
    default:
        break;
    }
    if (!lie(LIE_STATUS_NOT_WRITTEN))
        copy(request, true, request->writable - 1, &status, 1);
    return (uint32_t)written;
}

static void forget(unsigned which)
{
    free(v.in_flight[which]->snapshot);
    free(v.in_flight[which]);
    v.in_flight_count--;
    memmove(&v.in_flight[which], &v.in_flight[which + 1],
            (v.in_flight_count - which) * sizeof(v.in_flight[0]));
}

static void push_used(uint32_t id, uint32_t bytes)
{
    struct vring_used_elem element = {.id = id, .len = bytes};
    unsigned char *used = used_ring();

    if (!used)
        return;
    memcpy(used + 4 + 8 * (size_t)(v.queue.used_next % v.queue.size), &element, sizeof(element));
    v.queue.used_next++;
    store16(used + 2, v.queue.used_next);

    /* Would that be an interrupt? Nobody takes them, and a legacy one never stops. */
    const unsigned char *avail = v.options.lie == LIE_NONE ? avail_ring() : NULL;
    if (!avail)
        return;
    if (event_idx()
            ? load16(avail + 4 + 2 * (size_t)v.queue.size) == (uint16_t)(v.queue.used_next - 1)
            : !(load16(avail) & VRING_AVAIL_F_NO_INTERRUPT))
        breach("an interrupt is wanted, and nobody takes it");
    if (event_idx() && load16(avail) != 0)
        breach("available flags %#x beside an event index", load16(avail));
}

/* A descriptor that heads no request now, but has done if possible. */
static uint16_t head_of_nobody(void)
{
    for (unsigned head = 0; head < v.queue.size; head++)
        if (v.queue.head_seen[head] && !is_in_flight((uint16_t)head))
            return (uint16_t)head;
    for (unsigned head = v.queue.size; head-- > 0;)
        if (!is_in_flight((uint16_t)head))
            return (uint16_t)head;
    return 0;
}

static void finish(unsigned which)
{
    struct request *request = v.in_flight[which];
    uint64_t room = request->readable + request->writable;
    uint64_t data = request->readable - sizeof(request->header);
    uint32_t id = request->head;
    bool keep = true; /* after these lies, the driver cannot know that the request is done */

    if (lie(LIE_NEEDS_RESET)) {
        v.broken = true;
        v.options.pace = VDEV_BY_HAND;
        return;
    }
    uint32_t bytes = serve(request);

    if (lie(LIE_ID_OUT_OF_RANGE)) {
        id = v.queue.size;
    } else if (lie(LIE_ID_HUGE)) {
        id = UINT32_MAX;
    } else if (lie(LIE_ID_OF_NOBODY)) {
        id = head_of_nobody();
    } else if (lie(LIE_ID_NOT_A_HEAD)) {
        id++;
    } else if (lie(LIE_INDEX_BACK)) {
        v.queue.used_next = (uint16_t)(v.queue.used_next - 2);
    } else if (lie(LIE_INDEX_JUMPS)) {
        v.queue.used_next = (uint16_t)(v.queue.used_next + 1000);
    } else {
        keep = false;
        if (lie(LIE_LENGTH))
            bytes = (uint32_t)room + 1;
        else if (lie(LIE_LENGTH_HUGE))
            bytes = UINT32_MAX;
        else if (lie(LIE_LENGTH_CARELESS))
            bytes = data != 0 ? (uint32_t)data + 1 : 0;
        if (lie(LIE_ID_TWICE))
            push_used(id, bytes);
    }
    push_used(id, bytes);
    if (!keep)
        forget(which);
    else
        v.stalled = v.options.fuzz == NULL;
}

/* Answers out of the fuzzer's bytes. */
static void fuzzed_work(void)
{
    unsigned char *used = v.queue.enabled && can_dma() ? used_ring() : NULL;
    uint8_t what, where;

    if (!feed(&what)) {
        v.options.pace = VDEV_IN_ORDER;
        return;
    }
    switch (what % 12) {
    case 0: /* an element of chance */
        if (used) {
            feed(&where);
            push_used(where < 200 ? where : feed32(), feed32());
        }
        break;
    case 1: /* an index of chance */
        if (used)
            store16(used + 2, (uint16_t)feed32());
        break;
    case 2: /* an element, and no index */
        if (used && feed(&where)) {
            uint32_t value = feed32();
            memcpy(used + 4 + where % (8u * v.queue.size - 4), &value, 4);
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
        if (feed(&what))
            v.options.lie = (enum vdev_lie)(LIE_ID_OUT_OF_RANGE + what % 14);
        v.options.lies = 1;
        break;
    case 7:
        break;
    default:
        if (running() && can_dma()) {
            fetch();
            if (v.in_flight_count != 0)
                finish(what % v.in_flight_count);
        }
        break;
    }
}

unsigned vdev_finish(unsigned most)
{
    unsigned done = 0;

    if (v.reset_pending || !running() || !can_dma())
        return 0;
    if (v.queue.kicked || v.options.notices != VDEV_WANTS_ALL)
        fetch();
    while (done < most && v.in_flight_count != 0 && !v.broken && !v.stalled) {
        unsigned which = 0;
        if (v.options.pace == VDEV_SHUFFLED)
            which = chance() % v.in_flight_count;
        else if (v.options.pace == VDEV_LAST_FIRST)
            which = v.in_flight_count - 1;
        finish(which);
        done++;
    }
    if (v.options.notices == VDEV_WANTS_WHEN_IDLE && v.in_flight_count == 0) {
        want_notice(true);
        fetch();
    }
    return done;
}

/* What a device does that was told to stop, and has not yet: it goes on with what it has. */
static void drain(void)
{
    if (v.options.no_dma_drain || !running() || !can_dma())
        return;
    fetch();
    if (v.in_flight_count != 0)
        (void)serve(v.in_flight[v.drain_next++ % v.in_flight_count]);
}

void vdev_last_gasp(void)
{
    if (!vdev_live() || !can_dma())
        return;
    fetch();
    for (unsigned i = 0; i < v.in_flight_count; i++) {
        uint32_t bytes = serve(v.in_flight[i]);
        push_used(v.in_flight[i]->head, bytes);
    }
}

static bool overlaps(const struct dma_region *region, const struct request *request)
{
    for (unsigned i = 0; i < request->segments; i++)
        if (request->segment[i].address < region->address + region->bytes &&
            region->address < request->segment[i].address + request->segment[i].bytes)
            return true;
    return false;
}

static bool in_use(const struct dma_region *region)
{
    if (!v.plugged || v.options.fuzz || !vdev_live())
        return false;
    if (region->shared)
        return true;
    for (unsigned i = 0; i < v.in_flight_count; i++)
        if (overlaps(region, v.in_flight[i]))
            return true;
    /* What was made available can be fetched at any moment, notified or not. */
    const unsigned char *avail = avail_ring();
    if (!running() || !avail)
        return false;
    uint16_t index = load16(avail + 2);
    for (uint16_t at = v.queue.avail_next; at != index && (uint16_t)(index - at) <= v.queue.size;
         at++) {
        struct request request;
        if (parse(load16(avail + 4 + 2 * (size_t)(at % v.queue.size)), &request) &&
            overlaps(region, &request))
            return true;
    }
    return false;
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
        features &= ~FEATURE(VIRTIO_RING_F_INDIRECT_DESC) & ~FEATURE(VIRTIO_BLK_F_FLUSH);
    return features;
}

static uint16_t offered_queue_size(void)
{
    if (v.queue_select != 0 || fault())
        return 0;
    if (v.starts != 0 && v.options.lie == LIE_SMALLER_QUEUE)
        return v.options.queue_size / 2;
    if (v.starts != 0 && v.options.lie == LIE_LARGER_QUEUE)
        return (uint16_t)(v.options.queue_size * 2);
    return v.options.queue_size;
}

static void as_after_power_on(void)
{
    while (v.in_flight_count != 0)
        forget(v.in_flight_count - 1);
    memset(&v.queue, 0, sizeof(v.queue));
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
    v.reset_reads_left = v.status == 0 && !v.queue.enabled ? 0 : v.options.reset_reads;
    if (v.options.reset_reads == VDEV_NEVER || v.counts.resets <= v.options.stuck_resets ||
        v.counts.resets == v.options.stuck_reset_at || fault())
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
        if (!(v.accepted & FEATURE(VIRTIO_F_VERSION_1)))
            breach("a modern driver that does not accept VERSION_1");
        if (v.options.lie == LIE_FEATURES_REFUSED || fault())
            value &= (uint8_t)~VIRTIO_CONFIG_S_FEATURES_OK;
    }
    if (added & VIRTIO_CONFIG_S_DRIVER_OK) {
        if (v.used_modern ? !v.features_read_back : !(v.status & VIRTIO_CONFIG_S_DRIVER))
            breach("DRIVER_OK out of turn");
        if (!v.queue.enabled)
            breach("DRIVER_OK without a queue");
        v.starts++;
    }
    v.status = value & KNOWN_STATUS;
    if ((added & VIRTIO_CONFIG_S_DRIVER_OK) && v.queue.enabled && can_dma())
        want_notice(v.options.notices != VDEV_WANTS_NONE);
}

static void enable_queue(void)
{
    uint16_t size = v.queue.size;

    if (v.status & VIRTIO_CONFIG_S_DRIVER_OK)
        breach("a queue enabled after DRIVER_OK");
    if (v.queue.enabled)
        breach("a queue enabled twice");
    if (v.reset_pending)
        breach("a queue enabled before the reset was acknowledged");
    if (size == 0 || size > v.options.queue_size)
        breach("a queue of %u where %u are offered", size, v.options.queue_size);
    if (v.queue.desc % 16 != 0 || v.queue.avail % 2 != 0 || v.queue.used % 4 != 0)
        breach("a queue that is not aligned");
    v.queue.enabled = true;
    const struct dma_region *desc = dma_find(v.queue.desc, 16 * (uint64_t)size);
    const struct dma_region *avail = dma_find(v.queue.avail, avail_bytes());
    const struct dma_region *used = dma_find(v.queue.used, used_bytes());
    if (!desc || !avail || !used || !desc->shared || !avail->shared || !used->shared) {
        breach("a queue outside the memory that was shown");
        return;
    }
    if ((v.queue.avail < v.queue.desc + 16 * (uint64_t)size && v.queue.desc < v.queue.avail) ||
        (v.queue.used < v.queue.avail + avail_bytes() && v.queue.avail < v.queue.used))
        breach("the parts of a queue overlap");
    if (load16(avail->device + (v.queue.avail - avail->address) + 2) != 0 ||
        load16(used->device + (v.queue.used - used->address) + 2) != 0)
        breach("a queue that does not start at 0");
}

static void notify(uint16_t queue)
{
    v.counts.notifications++;
    if (!running() || v.reset_pending) {
        breach("a notification to a device that is not running");
        return;
    }
    if (queue != 0)
        breach("a notification for queue %u", queue);
    const unsigned char *used = can_dma() ? used_ring() : NULL;
    bool unwanted = used && (load16(used) & VRING_USED_F_NO_NOTIFY);
    if (used && event_idx())
        unwanted =
            load16(used + 4 + 8 * (size_t)v.queue.size) == (uint16_t)(v.queue.avail_next + 0x8000u);
    if (unwanted)
        breach("a notification that the device had asked not to get");
    v.queue.kicked = true;
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
    if (v.queue.enabled || (v.status & VIRTIO_CONFIG_S_DRIVER_OK))
        breach("a queue set up anew while in use");
    if (v.queue_select != 0)
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
        return 1;
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
        return v.queue.enabled;
    case VIRTIO_PCI_COMMON_Q_NOFF:
        check_width(offset, bytes, 2);
        return NOTIFY_PLACE;
    default:
        breach("read of common register %#llx", (unsigned long long)offset);
        return 0;
    }
}

static void common_write(uint64_t offset, unsigned bytes, uint32_t value)
{
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
        if (value == 0 || value > v.options.queue_size || (value & (value - 1)) != 0)
            breach("a queue size of %u where %u are offered", value, v.options.queue_size);
        v.queue.size = (uint16_t)value;
        break;
    case VIRTIO_PCI_COMMON_Q_DESCLO:
    case VIRTIO_PCI_COMMON_Q_DESCHI:
        check_width(offset, bytes, 4);
        queue_write_allowed();
        v.queue.desc = replace_half(v.queue.desc, offset == VIRTIO_PCI_COMMON_Q_DESCHI, value);
        break;
    case VIRTIO_PCI_COMMON_Q_AVAILLO:
    case VIRTIO_PCI_COMMON_Q_AVAILHI:
        check_width(offset, bytes, 4);
        queue_write_allowed();
        v.queue.avail = replace_half(v.queue.avail, offset == VIRTIO_PCI_COMMON_Q_AVAILHI, value);
        break;
    case VIRTIO_PCI_COMMON_Q_USEDLO:
    case VIRTIO_PCI_COMMON_Q_USEDHI:
        check_width(offset, bytes, 4);
        queue_write_allowed();
        v.queue.used = replace_half(v.queue.used, offset == VIRTIO_PCI_COMMON_Q_USEDHI, value);
        break;
    case VIRTIO_PCI_COMMON_Q_ENABLE:
        check_width(offset, bytes, 2);
        queue_write_allowed();
        if (value != 1)
            breach("%u written to queue_enable", value);
        if (v.queue.size == 0)
            v.queue.size = v.options.queue_size;
        enable_queue();
        break;
    default:
        breach("write of common register %#llx", (unsigned long long)offset);
        break;
    }
}

static void legacy_queue(uint32_t page)
{
    queue_write_allowed();
    if (page == 0) {
        v.queue.enabled = false;
        return;
    }
    v.queue.size = v.options.queue_size;
    v.queue.desc = (uint64_t)page << VIRTIO_PCI_QUEUE_ADDR_SHIFT;
    v.queue.avail = v.queue.desc + 16 * (uint64_t)v.queue.size;
    v.queue.used =
        (v.queue.avail + 6 + 2 * (uint64_t)v.queue.size + PAGE - 1) & ~(uint64_t)(PAGE - 1);
    enable_queue();
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

static uint32_t config_field(uint64_t offset, unsigned bytes, unsigned right, int feature,
                             uint32_t value)
{
    check_width(offset, bytes, right);
    if (feature >= 0 && !(v.accepted & FEATURE(feature)))
        breach("configuration field %#llx without its feature", (unsigned long long)offset);
    return value;
}

static uint32_t config_read(uint64_t offset, unsigned bytes)
{
    const struct vdev_options *o = &v.options;

    if (v.reset_pending || !(v.status & VIRTIO_CONFIG_S_DRIVER))
        breach("configuration read from a device that has no driver");
    if (o->lie == LIE_CONFIG_RESTLESS)
        v.generation++;
    switch (offset) {
    case offsetof(struct virtio_blk_config, capacity):
        if (o->lie == LIE_CONFIG_MOVES_ONCE && !v.moved) {
            v.moved = true;
            v.generation++;
            return 7;
        }
        return config_field(offset, bytes, 4, -1, (uint32_t)o->capacity);
    case offsetof(struct virtio_blk_config, capacity) + 4:
        return config_field(offset, bytes, 4, -1, (uint32_t)(o->capacity >> 32));
    case offsetof(struct virtio_blk_config, size_max):
        return config_field(offset, bytes, 4, VIRTIO_BLK_F_SIZE_MAX, o->size_max);
    case offsetof(struct virtio_blk_config, seg_max):
        return config_field(offset, bytes, 4, VIRTIO_BLK_F_SEG_MAX, o->seg_max);
    case offsetof(struct virtio_blk_config, blk_size):
        return config_field(offset, bytes, 4, VIRTIO_BLK_F_BLK_SIZE, o->block_size);
    case offsetof(struct virtio_blk_config, physical_block_exp):
        return config_field(offset, bytes, 1, VIRTIO_BLK_F_TOPOLOGY, o->physical_exponent);
    case offsetof(struct virtio_blk_config, alignment_offset):
        return config_field(offset, bytes, 1, VIRTIO_BLK_F_TOPOLOGY, o->alignment_offset);
    case offsetof(struct virtio_blk_config, opt_io_size):
        return config_field(offset, bytes, 4, VIRTIO_BLK_F_TOPOLOGY, o->optimal_blocks);
    default:
        breach("read of configuration %#llx", (unsigned long long)offset);
        return 0;
    }
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
            breach("a write to the configuration");
        return 0;
    }

    const struct layout *layout = &v.layout;
    only(true);
    if (offset >= layout->notify) {
        if (!write || bytes != 2 ||
            offset != layout->notify + (uint64_t)NOTIFY_PLACE * v.options.notify_scale)
            breach("an access at %#llx of the notify structure",
                   (unsigned long long)(offset - layout->notify));
        else
            notify((uint16_t)value);
        return 0;
    }
    if (offset >= layout->config && offset < layout->config + CONFIG_BYTES && !write)
        return config_read(offset - layout->config, bytes);
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

static uint32_t access_reg(const struct reg_window *window, uint64_t offset, unsigned bytes,
                           bool write, uint32_t value)
{
    uint64_t where = window->base + offset;
    const uint32_t ones = bytes == 4 ? UINT32_MAX : (1u << (8 * bytes)) - 1;

    step();
    v.now++;
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
        if (!bar->there || bar->port != window->port || where < bar->base ||
            where - bar->base > bar->bytes - bytes)
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
        v.now++;
    return v.options.clock_stands ? 1 : v.now;
}

void cpu_relax(void)
{
    step();
    v.now += v.options.relax_ticks;
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
        vdev_finish(chance() % 5);
        break;
    case VDEV_BY_HAND:
    case VDEV_LAST_FIRST:
        break;
    }
}

/* ---- The rich door ---- */

static void rich_call(const char *name)
{
    step();
    v.now++;
    if (v.poor)
        model_violation("C2: %s called through the rich door while only the poor one is open",
                        name);
}

static uint32_t door_config_read32(void *context, uint32_t offset)
{
    uint32_t value = UINT32_MAX;
    uint8_t choice;

    rich_call("config_read32");
    if (context != &v || offset % 4 != 0)
        model_violation("a read of configuration space at %#x", offset);
    if (fault() || v.gone)
        return UINT32_MAX;
    if (offset <= sizeof(v.space) - 4)
        memcpy(&value, v.space + offset, 4);
    if (v.options.fuzz && feed(&choice) && choice < 0x10)
        return feed32();
    return value;
}

static bool door_bar(void *context, unsigned index, struct reg_window *window)
{
    rich_call("bar");
    if (context != &v || index > 5) {
        model_violation("BAR %u", index);
        return false;
    }
    if (fault() || !v.bars[index].there)
        return false;
    *window = (struct reg_window){
        .base = v.bars[index].base, .bytes = v.bars[index].bytes, .port = v.bars[index].port};
    return true;
}

static enum result door_map(void *context, enum dma_direction direction, void *buffer, size_t bytes,
                            struct dma_mapping *mapping)
{
    rich_call("map");
    if (context != &v || !buffer || bytes == 0)
        model_violation("a mapping of %zu bytes at %p", bytes, buffer);
    if (fault())
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
    rich_call("unmap");
    if (context != &v)
        model_violation("unmap with somebody else's context");
    v.counts.unmaps++;
    dma_unmap(mapping->cookie);
}

static void door_log(void *context, const char *sentence, uint64_t number)
{
    rich_call("log");
    if (context != &v)
        model_violation("log with somebody else's context");
    v.counts.logs++;
    snprintf(v.last_log, sizeof(v.last_log), "%s %llu", sentence, (unsigned long long)number);
}

static bool door_bus_master(void *context, bool on)
{
    rich_call("bus_master");
    if (context != &v)
        model_violation("bus_master with somebody else's context");
    if (on && v.counts.resets == 0)
        model_violation("C4: bus mastering on before the device has acknowledged a reset");
    if (on && fault())
        return false;
    v.master = on;
    return true;
}

const struct rich_door *vdev_door(void)
{
    static const struct rich_door door = {
        .context = &v,
        .ticks_per_ms = VDEV_TICKS_PER_MS,
        .config_read32 = door_config_read32,
        .bar = door_bar,
        .bus_master = door_bus_master,
        .map = door_map,
        .unmap = door_unmap,
        .log = door_log,
    };
    return &door;
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
    const enum vdev_lie lie_told = v.options.lie;
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
                        lie_told == LIE_CONFIG_EMPTY ? 0 : CONFIG_BYTES);
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
    bool modern = v.options.kind != VDEV_LEGACY;
    bool legacy = v.options.kind != VDEV_MODERN;

    v.layout = v.options.io_bar ? in_ports : in_memory;
    if (modern)
        v.bars[v.layout.bar] = v.options.io_bar ? (struct bar){true, true, 0x6000, 0x100}
                                                : (struct bar){true, false, 0xfe8000000, 0x4000};
    if (legacy)
        v.bars[0] = (struct bar){true, true, 0xc000, 0x80};
    put16(PCI_VENDOR_ID, 0x1af4);
    put16(PCI_DEVICE_ID, legacy ? 0x1001 : 0x1042);
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

struct vdev_options vdev_usual(void)
{
    return (struct vdev_options){
        .kind = VDEV_MODERN,
        .notify_scale = 4,
        .queue_size = 128,
        .features = FEATURE(VIRTIO_RING_F_INDIRECT_DESC) | FEATURE(VIRTIO_BLK_F_FLUSH) |
                    FEATURE(VIRTIO_BLK_F_BLK_SIZE) | FEATURE(VIRTIO_BLK_F_TOPOLOGY) |
                    FEATURE(VIRTIO_BLK_F_SEG_MAX) | FEATURE(VIRTIO_BLK_F_MQ) |
                    FEATURE(VIRTIO_RING_F_EVENT_IDX) | FEATURE(VIRTIO_F_RING_RESET) |
                    FEATURE(VIRTIO_F_RING_PACKED) | FEATURE(VIRTIO_BLK_F_DISCARD),
        .capacity = 4096,
        .block_size = 512,
        .seg_max = 126,
        .size_max = 65536,
        .pace = VDEV_IN_ORDER,
        .seed = 1,
        .relax_ticks = 50,
        .reset_reads = 3,
        .lies = 1,
    };
}

uint8_t vdev_pattern(uint64_t place)
{
    uint64_t mixed = (place / 8 + 1) * 0x9e3779b97f4a7c15ull;
    return (uint8_t)(mixed >> (8 * (place % 8)));
}

void vdev_plug(const struct vdev_options *options)
{
    uint64_t now = v.now;

    memset(&v, 0, sizeof(v));
    model_forget();
    v.options = *options;
    v.now = now + 12345;
    v.random = options->seed ? options->seed : 1;
    v.strict = !options->fuzz && options->gone_at == 0;
    v.disk_bytes = DISK_BYTES_MAX;
    if (options->capacity < DISK_BYTES_MAX / 512)
        v.disk_bytes = (size_t)options->capacity * 512;
    v.disk = malloc(v.disk_bytes + 1);
    v.stable = malloc(v.disk_bytes + 1);
    if (!v.disk || !v.stable)
        abort();
    if (!options->fuzz)
        for (size_t i = 0; i < v.disk_bytes; i++)
            v.disk[i] = vdev_pattern(i);
    else
        memset(v.disk, 0x5a, v.disk_bytes);
    memcpy(v.stable, v.disk, v.disk_bytes);
    fill_space();
    v.plugged = true;
    dma_in_use = in_use;
}

void vdev_unplug(void)
{
    if (!v.plugged)
        return;
    as_after_power_on();
    free(v.disk);
    free(v.stable);
    v.disk = NULL;
    v.stable = NULL;
    v.plugged = false;
    model_forget();
}

struct vdev_options *vdev_now(void)
{
    return &v.options;
}

const struct pci_function *vdev_where(void)
{
    static const struct pci_function where = {.segment = 0, .bus = 3, .device = 7, .function = 1};
    return &where;
}

const struct vdev_counts *vdev_counted(void)
{
    return &v.counts;
}

const char *vdev_last_log(void)
{
    return v.last_log;
}

unsigned char *vdev_disk(void)
{
    return v.disk;
}

unsigned char *vdev_stable(void)
{
    return v.stable;
}

size_t vdev_disk_bytes(void)
{
    return v.disk_bytes;
}

uint8_t vdev_status(void)
{
    return v.reset_pending && v.status == 0 ? VIRTIO_CONFIG_S_FAILED : v.status;
}

uint64_t vdev_features(void)
{
    return v.accepted;
}

uint16_t vdev_queue_size(void)
{
    return v.queue.size;
}

bool vdev_uses_legacy(void)
{
    return v.used_legacy;
}

bool vdev_live(void)
{
    return v.queue.enabled;
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
    return v.now;
}

void vdev_skip_ms(uint64_t ms)
{
    v.now += ms * VDEV_TICKS_PER_MS;
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
