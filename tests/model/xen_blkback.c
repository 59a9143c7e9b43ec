// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * Backends of disks, as Linux's blkback behaves (xen/io/blkif.h, xen/io/xenbus.h):
 *
 *      the frontend's state        what the backend does
 *      Initialised, Connected      maps the ring and connects, unless it is connected
 *      Closing                     Closing; requests are still worked on
 *      Closed                      unmaps the ring, unless requests are in flight; Closed
 *      Initialising                InitWait, if it was Closed
 *
 * A request's pages are mapped from when it is taken out of the ring until it is answered, and its
 * data moves at the end.
 */

#include "tests/model/xen_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <xen/io/blkif.h>
#include <xen/io/protocols.h>
#include <xen/io/xenbus.h>

#define RING_PAGES_MAX 16u
#define FLIGHTS_MAX    512u
#define SEGMENTS_MAX   256u
#define SECTOR         512u

struct flight {
    struct flight *next;
    uint64_t due, id, sector;
    uint8_t operation;
    bool indirect, write; /* … into the guest's memory */
    bool bad;
    unsigned count;
    struct {
        uint32_t ref, first, bytes;
        int32_t mfn;
        bool mapped;
    } segment[SEGMENTS_MAX];
    uint32_t indirect_ref;
    bool indirect_mapped;
};

struct back {
    bool there; /* plugged in */
    struct xhost_disk *options;
    char front[64], path[64];
    unsigned state;
    bool dead, offline, excused;
    /* What it has heard of the frontend, and when it acts on it. */
    bool heard;
    uint64_t heard_due;

    bool connected;
    unsigned pages;
    uint32_t refs[RING_PAGES_MAX];
    int32_t mfns[RING_PAGES_MAX];
    uint32_t entries, port;
    uint32_t taken, answered; /* requests, responses */
    uint32_t astray;          /* how far the index is from the truth */
    bool kicked;
    struct flight *flights, **last;
    unsigned in_flight;
    unsigned char *disk, *stable;
};

static struct back backs[XHOST_DISKS_MAX];

/* ---- Keys ---- */

static const char *front_key(const struct back *back, const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", back->front, name);
    return tree_read(path);
}

static void publish(const struct back *back, const char *name, uint64_t number)
{
    char path[128], text[24];
    const char *value = text;

    snprintf(text, sizeof(text), "%llu", (unsigned long long)xhost_twist(TARGET_KEYS, number));
    for (unsigned i = 0; i < 2; i++)
        if (back->options->instead[i].name && strcmp(back->options->instead[i].name, name) == 0)
            value = back->options->instead[i].value;
    snprintf(path, sizeof(path), "%s/%s", back->path, name);
    if (value)
        tree_write(path, value, false);
}

static void switch_state(struct back *back, unsigned state)
{
    if (back->state == state)
        return;
    back->state = state;
    publish(back, "state", state);
}

/* ---- Connecting ---- */

/* An entry may lie across two pages. */
static void copy_entry(const struct back *back, uint32_t index, void *to, const void *from,
                       size_t bytes)
{
    size_t at = offsetof(struct blkif_sring, ring) +
                (index & (back->entries - 1)) * sizeof(union blkif_sring_entry);

    for (size_t i = 0; i < bytes; i++, at++) {
        unsigned char *byte = machine_page(back->mfns[at / PAGE]) + at % PAGE;
        if (to)
            ((unsigned char *)to)[i] = *byte;
        else
            *byte = ((const unsigned char *)from)[i];
    }
}

static volatile struct blkif_sring *ring_of(const struct back *back)
{
    return (struct blkif_sring *)(void *)machine_page(back->mfns[0]);
}

static bool parse(const char *text, uint32_t *number)
{
    char *end;

    if (!text || *text < '0' || *text > '9')
        return false;
    *number = (uint32_t)strtoul(text, &end, 10);
    return *end == 0;
}

/* Nothing is mapped any more, unless requests are in flight. */
static bool disconnect(struct back *back)
{
    if (!back->connected)
        return true;
    if (back->in_flight || back->options->never_unmaps)
        return false;
    for (unsigned i = 0; i < back->pages; i++)
        grant_unmap(back->refs[i], true);
    event_unbind(back->port);
    back->connected = false;
    back->kicked = false;
    return true;
}

static bool connect_ring(struct back *back)
{
    const char *protocol = front_key(back, "protocol");
    uint32_t order = 0, order_given = 0;
    char name[24];

    if (protocol && strcmp(protocol, XEN_IO_PROTO_ABI_X86_64) != 0) {
        xhost_complain("a frontend speaks %s", protocol);
        return false;
    }
    if (front_key(back, "ring-page-order")) {
        order_given = 1;
        if (!parse(front_key(back, "ring-page-order"), &order) ||
            order > back->options->ring_order || order > 4) {
            xhost_complain("a frontend has a ring of order %u", order);
            return false;
        }
    }
    if (!parse(front_key(back, "event-channel"), &back->port)) {
        xhost_complain("a frontend has no event channel");
        return false;
    }
    back->pages = 1u << order;
    for (unsigned i = 0; i < back->pages; i++) {
        if (order_given)
            snprintf(name, sizeof(name), "ring-ref%u", i);
        else
            snprintf(name, sizeof(name), "ring-ref");
        if (!parse(front_key(back, name), &back->refs[i])) {
            xhost_complain("a frontend has no %s", name);
            return false;
        }
    }
    for (unsigned i = 0; i < back->pages; i++)
        if (!grant_map(back->refs[i], true, &back->mfns[i])) {
            while (i-- > 0)
                grant_unmap(back->refs[i], true);
            return false;
        }
    if (!event_bind(back->port)) {
        if (!xhost_store_spoilt())
            xhost_complain("a frontend's event channel %u is none for us", back->port);
        for (unsigned i = 0; i < back->pages; i++)
            grant_unmap(back->refs[i], true);
        return false;
    }
    size_t parts =
        (back->pages * PAGE - offsetof(struct blkif_sring, ring)) / sizeof(union blkif_sring_entry);
    for (back->entries = 1; back->entries * 2 <= parts;)
        back->entries *= 2;
    back->taken = back->answered = ring_of(back)->rsp_prod;
    back->astray = 0;
    back->connected = true;
    return true;
}

static void connect(struct back *back)
{
    const struct xhost_disk *options = back->options;

    if (!disconnect(back) || options->refuses || !connect_ring(back)) {
        switch_state(back, XenbusStateClosing);
        return;
    }
    publish(back, "feature-flush-cache", options->flush);
    publish(back, "feature-barrier", options->barrier);
    publish(back, "sectors", options->sectors);
    publish(back, "info", options->info);
    publish(back, "sector-size", options->sector_size);
    publish(back, "physical-sector-size", options->physical_size);
    switch_state(back, XenbusStateConnected);
}

/* ---- The handshake ---- */

/* Where the frontend's state leads to; Unknown where it leads nowhere. */
static unsigned goal(const struct back *back)
{
    uint32_t front;

    if (!parse(front_key(back, "state"), &front))
        return XenbusStateUnknown;
    switch (front) {
    case XenbusStateInitialising:
        return back->state == XenbusStateClosed && !back->offline ? XenbusStateInitWait
                                                                  : XenbusStateUnknown;
    case XenbusStateInitialised:
    case XenbusStateConnected:
        return back->state == XenbusStateConnected || back->state == XenbusStateInitialising
                   ? XenbusStateUnknown
                   : XenbusStateConnected;
    case XenbusStateClosing:
    case XenbusStateClosed:
        return front;
    default:
        return XenbusStateUnknown;
    }
}

static void listen(struct back *back)
{
    unsigned next = goal(back);
    uint32_t ms = back->options->step_ms[next];

    back->heard = next != XenbusStateUnknown && ms != XHOST_NEVER && !back->dead;
    back->heard_due = xhost_time() + (uint64_t)ms * XHOST_TICKS_PER_MS;
}

void back_heard(const char *path)
{
    char state[80];

    for (unsigned i = 0; i < XHOST_DISKS_MAX; i++) {
        snprintf(state, sizeof(state), "%s/state", backs[i].front);
        if (backs[i].there && strcmp(path, state) == 0)
            listen(&backs[i]);
    }
}

static void act(struct back *back)
{
    unsigned next = goal(back);

    back->heard = false;
    switch (next) {
    case XenbusStateConnected:
        connect(back);
        break;
    case XenbusStateClosed:
        /* Linux does not look whether that has worked. */
        disconnect(back);
        switch_state(back, next);
        if (back->options->cycles && !back->offline)
            switch_state(back, XenbusStateInitWait);
        break;
    case XenbusStateClosing:
    case XenbusStateInitWait:
        switch_state(back, next);
        break;
    default:
        break;
    }
}

/* ---- Requests ---- */

static void refuse(struct flight *flight, const char *why)
{
    xhost_complain("a bad request: %s", why);
    flight->bad = true;
}

static void map_segments(struct back *back, struct flight *flight,
                         const struct blkif_request_segment *segments)
{
    uint64_t sectors = 0, unit = back->options->sector_size / SECTOR;

    for (unsigned i = 0; i < flight->count && !flight->bad; i++) {
        struct blkif_request_segment segment = segments[i];
        if (segment.last_sect >= PAGE / SECTOR || segment.first_sect > segment.last_sect) {
            refuse(flight, "a segment is not within its page");
            return;
        }
        uint32_t count = (uint32_t)(segment.last_sect - segment.first_sect + 1);
        if (unit && (count % unit != 0 || segment.first_sect % unit != 0))
            refuse(flight, "a segment is not of whole sectors");
        flight->segment[i].ref = segment.gref;
        flight->segment[i].first = segment.first_sect * SECTOR;
        flight->segment[i].bytes = count * SECTOR;
        flight->segment[i].mapped = grant_map(segment.gref, flight->write, &flight->segment[i].mfn);
        if (!flight->segment[i].mapped)
            flight->bad = true;
        sectors += count;
    }
    if (flight->sector > back->options->sectors ||
        sectors > back->options->sectors - flight->sector)
        refuse(flight, "beyond the end of the disk");
    if (unit && flight->sector % unit != 0)
        refuse(flight, "it does not begin with a sector");
}

static void take(struct back *back, uint32_t index)
{
    static struct blkif_request_segment segments[SEGMENTS_MAX];
    struct blkif_request request;
    struct blkif_request_indirect indirect;
    struct flight *flight = calloc(1, sizeof(*flight));
    int32_t mfn;

    if (!flight)
        abort();
    xhost_counts.requests++;
    copy_entry(back, index, &request, NULL, sizeof(request));
    copy_entry(back, index, &indirect, NULL, sizeof(indirect));
    flight->due = xhost_time() + back->options->io_us * XHOST_TICKS_PER_MS / 1000;
    flight->id = request.id;
    flight->operation = request.operation;
    flight->sector = request.sector_number;
    flight->count = request.nr_segments;
    uint16_t handle = request.handle;
    if (request.operation == BLKIF_OP_INDIRECT) {
        xhost_counts.indirect++;
        flight->indirect = true;
        flight->id = indirect.id;
        flight->operation = indirect.indirect_op;
        flight->sector = indirect.sector_number;
        flight->count = indirect.nr_segments;
        flight->indirect_ref = indirect.indirect_grefs[0];
        handle = indirect.handle;
    }
    flight->write = flight->operation == BLKIF_OP_READ;
    if (handle != (uint16_t)back->options->number)
        xhost_complain("a request with handle %u", handle);

    switch (flight->operation) {
    case BLKIF_OP_READ:
    case BLKIF_OP_WRITE:
        if (flight->operation == BLKIF_OP_WRITE && back->options->info & VDISK_READONLY)
            refuse(flight, "a write to a disk that is read-only");
        if (flight->count == 0 || (flight->indirect && flight->count > back->options->segments) ||
            (!flight->indirect && flight->count > BLKIF_MAX_SEGMENTS_PER_REQUEST)) {
            refuse(flight, "its number of segments");
            flight->count = 0;
            break;
        }
        xhost_counts.segments += flight->count;
        if (!flight->indirect) {
            map_segments(back, flight, request.seg);
        } else if (grant_map(flight->indirect_ref, false, &mfn)) {
            flight->indirect_mapped = true;
            memcpy(segments, machine_page(mfn), flight->count * sizeof(*segments));
            map_segments(back, flight, segments);
        } else {
            flight->bad = true;
        }
        break;
    case BLKIF_OP_FLUSH_DISKCACHE:
    case BLKIF_OP_WRITE_BARRIER:
        xhost_counts.flushes++;
        if (flight->count != 0)
            refuse(flight, "a flush with data");
        if (flight->operation == BLKIF_OP_FLUSH_DISKCACHE ? !back->options->flush
                                                          : !back->options->barrier)
            refuse(flight, "an operation that was not offered");
        flight->count = 0;
        break;
    default:
        refuse(flight, "an unknown operation");
        flight->count = 0;
        break;
    }
    *back->last = flight;
    back->last = &flight->next;
    if (++back->in_flight > xhost_counts.most_in_flight)
        xhost_counts.most_in_flight = back->in_flight;
}

/* Fuzz: what can be written into is written into, and states come as they like. */
static void scribble(struct back *back)
{
    uint8_t how, at, what;

    if (!xhost_options.fuzz || !xhost_feed(TARGET_WILD, &how) || how < 0xe8 ||
        !xhost_feed(TARGET_WILD, &at) || !xhost_feed(TARGET_WILD, &what))
        return;
    if (how < 0xf8 && back->connected)
        machine_page(back->mfns[how % back->pages])[(how < 0xf0 ? 0 : 16u * at) + at % 64] = what;
    else if (how < 0xfa)
        back->options->lie = (enum xhost_lie)(what % (XLIE_LOST + 1)), back->options->lies = 1;
    else if (how < 0xfd)
        publish(back, "state", what % 9);
    else if (how < 0xfe)
        back->options->never_unmaps = what & 1;
    else
        back->options->pace = (enum xhost_pace)(what % 4);
}

static void take_all(struct back *back)
{
    volatile struct blkif_sring *ring = ring_of(back);

    back->kicked = false;
    for (;;) {
        uint32_t produced = ring->req_prod;
        if (produced - back->answered > back->entries) {
            xhost_complain("a ring overflows: %u requests", produced - back->answered);
            return; /* a real one stops for good */
        }
        while (back->taken != produced && back->in_flight < FLIGHTS_MAX)
            take(back, back->taken++);
        ring->req_event = (uint32_t)xhost_twist(TARGET_RING, back->taken + 1);
        if (ring->req_prod == produced)
            return;
    }
}

static void move_data(struct back *back, struct flight *flight)
{
    unsigned char *at = back->disk + flight->sector * SECTOR;

    if (flight->operation == BLKIF_OP_FLUSH_DISKCACHE ||
        flight->operation == BLKIF_OP_WRITE_BARRIER)
        memcpy(back->stable, back->disk, xhost_disk_bytes((unsigned)(back - backs)));
    for (unsigned i = 0; i < flight->count; i++) {
        unsigned char *page = machine_page(flight->segment[i].mfn) + flight->segment[i].first;
        if (flight->write)
            memcpy(page, at, flight->segment[i].bytes);
        else
            memcpy(at, page, flight->segment[i].bytes);
        at += flight->segment[i].bytes;
    }
}

static void unmap_segments(struct flight *flight)
{
    for (unsigned i = 0; i < flight->count; i++)
        if (flight->segment[i].mapped)
            grant_unmap(flight->segment[i].ref, flight->write);
    if (flight->indirect_mapped)
        grant_unmap(flight->indirect_ref, false);
}

static void respond(struct back *back, uint64_t id, uint8_t operation, int16_t status)
{
    volatile struct blkif_sring *ring = ring_of(back);
    struct blkif_response response = {
        .id = xhost_twist(TARGET_RING, id),
        .operation = (uint8_t)xhost_twist(TARGET_RING, operation),
        .status = (int16_t)xhost_twist(TARGET_RING, (uint64_t)status),
    };

    copy_entry(back, back->answered, NULL, &response, sizeof(response));
    uint32_t old = back->answered++;
    ring->rsp_prod = (uint32_t)xhost_twist(TARGET_RING, back->answered + back->astray);
    xhost_counts.responses++;
    if (back->answered - ring->rsp_event < back->answered - old)
        event_raise(back->port);
}

static void drop_flight(struct back *back, struct flight **link)
{
    struct flight *flight = *link;

    *link = flight->next;
    if (back->last == &flight->next)
        back->last = link;
    back->in_flight--;
    free(flight);
}

/* Whether there is another request to be honest about later. */
static enum xhost_lie next_lie(struct back *back)
{
    enum xhost_lie lie = back->options->lie;

    if (lie == XLIE_NONE || back->options->lies == 0)
        return XLIE_NONE;
    back->options->lies--;
    return lie;
}

static void finish(struct back *back, struct flight **link)
{
    struct flight *flight = *link;
    enum xhost_lie lie = XLIE_NONE;
    bool is_flush = flight->operation == BLKIF_OP_FLUSH_DISKCACHE ||
                    flight->operation == BLKIF_OP_WRITE_BARRIER;
    uint64_t id = flight->id;
    uint8_t operation =
        flight->indirect && back->options->copies_operation ? BLKIF_OP_INDIRECT : flight->operation;
    int16_t status = flight->bad ? BLKIF_RSP_ERROR : BLKIF_RSP_OKAY;

    if (back->options->lie != XLIE_UNSUPPORTED || is_flush)
        lie = next_lie(back);
    switch (lie) {
    case XLIE_STATUS_ERROR:
        status = BLKIF_RSP_ERROR;
        break;
    case XLIE_STATUS_UNKNOWN:
        status = 77;
        break;
    case XLIE_UNSUPPORTED:
        status = BLKIF_RSP_EOPNOTSUPP;
        break;
    default:
        break;
    }
    if (status == BLKIF_RSP_OKAY)
        move_data(back, flight);
    if (lie == XLIE_KEEPS_PAGES) {
        /* It stays where it is, answered, until the backend is told to let go; and not even then.
         */
        back->options->never_unmaps = true;
        flight->due = DUE_NEVER;
        respond(back, id, operation, status);
        return;
    }
    unmap_segments(flight);
    drop_flight(back, link);
    switch (lie) {
    case XLIE_LOST:
        return;
    case XLIE_ID_OUT_OF_RANGE:
        respond(back, 64, operation, status);
        return;
    case XLIE_ID_HUGE:
        respond(back, UINT64_MAX - 3, operation, status);
        return;
    case XLIE_ID_OF_NOBODY:
        respond(back, id ^ 0x3f, operation, status);
        return;
    case XLIE_ID_TWICE:
        respond(back, id, operation, status);
        respond(back, id, operation, status);
        return;
    case XLIE_OPERATION:
        respond(back, id, (uint8_t)(operation ^ 1), status);
        return;
    case XLIE_INDEX_JUMPS:
        back->astray = 1000;
        respond(back, id, operation, status);
        return;
    case XLIE_INDEX_BACK:
        back->astray = 0u - 2;
        respond(back, id, operation, status);
        return;
    default:
        respond(back, id, operation, status);
        return;
    }
}

/* ---- When ---- */

static struct flight **first_due(struct back *back)
{
    for (struct flight **link = &back->flights; *link; link = &(*link)->next)
        if ((*link)->due <= xhost_time())
            return link;
    return NULL;
}

static void finish_some(struct back *back)
{
    struct flight **link;

    switch (back->options->pace) {
    case XHOST_ONE_BY_ONE:
        if ((link = first_due(back)))
            finish(back, link);
        break;
    case XHOST_IN_ORDER:
        while ((link = first_due(back)))
            finish(back, link);
        break;
    case XHOST_SHUFFLED:
        for (unsigned some = 1 + xhost_random(back->in_flight + 1); some > 0; some--) {
            unsigned skip = xhost_random(back->in_flight + 1);
            for (link = first_due(back); link && *link && skip > 0; skip--)
                link = &(*link)->next;
            if (link && *link && (*link)->due <= xhost_time())
                finish(back, link);
        }
        if ((link = first_due(back))) /* so that something moves in any case */
            finish(back, link);
        break;
    default:
        break;
    }
}

void back_kick(uint32_t port)
{
    for (unsigned i = 0; i < XHOST_DISKS_MAX; i++)
        if (backs[i].there && backs[i].connected && backs[i].port == port)
            backs[i].kicked = !backs[i].dead;
}

void back_work(void)
{
    for (unsigned i = 0; i < XHOST_DISKS_MAX; i++) {
        struct back *back = &backs[i];
        if (!back->there || back->dead)
            continue;
        scribble(back);
        if (back->heard && back->heard_due <= xhost_time())
            act(back);
        if (back->connected && back->kicked)
            take_all(back);
        if (back->connected)
            finish_some(back);
    }
}

uint64_t back_due(void)
{
    uint64_t first = DUE_NEVER;

    for (unsigned i = 0; i < XHOST_DISKS_MAX; i++) {
        const struct back *back = &backs[i];
        if (!back->there || back->dead)
            continue;
        if (back->heard && back->heard_due < first)
            first = back->heard_due;
        if (back->connected && back->kicked)
            first = 0;
        if (back->options->pace == XHOST_BY_HAND || back->options->pace == XHOST_LAST_FIRST)
            continue;
        for (const struct flight *flight = back->flights; flight; flight = flight->next)
            if (flight->due < first)
                first = flight->due;
    }
    return first;
}

/* ---- From outside ---- */

uint8_t xhost_pattern(unsigned disk, uint64_t place)
{
    return (uint8_t)(place * 7 + place / 256 * 13 + place / 65536 * 31 + disk * 101 + 1);
}

unsigned char *xhost_disk(unsigned disk)
{
    return backs[disk].disk;
}

unsigned char *xhost_stable(unsigned disk)
{
    return backs[disk].stable;
}

size_t xhost_disk_bytes(unsigned disk)
{
    return (size_t)backs[disk].options->sectors * SECTOR;
}

unsigned xhost_finish(unsigned disk, unsigned most)
{
    struct back *back = &backs[disk];
    unsigned count = 0;

    if (back->connected && back->kicked)
        take_all(back);
    for (; count < most && back->flights; count++) {
        struct flight **link = &back->flights;
        if (back->options->pace == XHOST_LAST_FIRST)
            while ((*link)->next)
                link = &(*link)->next;
        if ((*link)->due == DUE_NEVER)
            break;
        finish(back, link);
    }
    return count;
}

unsigned xhost_in_flight(unsigned disk)
{
    return backs[disk].in_flight;
}

bool xhost_connected(unsigned disk)
{
    return backs[disk].connected;
}

unsigned xhost_backend_state(unsigned disk)
{
    return backs[disk].state;
}

unsigned xhost_frontend_state(unsigned disk)
{
    uint32_t state;

    return parse(front_key(&backs[disk], "state"), &state) ? state : XenbusStateUnknown;
}

unsigned xhost_ring_pages(unsigned disk)
{
    return backs[disk].connected ? backs[disk].pages : 0;
}

void xhost_close(unsigned disk)
{
    switch_state(&backs[disk], XenbusStateClosing);
}

void xhost_unplug_disk(unsigned disk)
{
    backs[disk].offline = true;
    backs[disk].excused = true; /* it does not come back */
    xhost_close(disk);
}

void xhost_kill(unsigned disk)
{
    backs[disk].dead = true;
    backs[disk].excused = true;
}

void xhost_vanish(unsigned disk)
{
    struct back *back = &backs[disk];

    back->excused = true;
    back->in_flight = 0;
    while (back->flights) {
        unmap_segments(back->flights);
        back->in_flight++;
        drop_flight(back, &back->flights);
    }
    back->options->never_unmaps = false;
    disconnect(back);
    back->there = false;
    tree_remove(back->path);
    tree_remove(back->front);
    store_found(back->front);
}

void xhost_wind(unsigned disk, uint32_t index)
{
    struct back *back = &backs[disk];
    volatile struct blkif_sring *ring = ring_of(back);

    back->taken = back->answered = index;
    ring->req_prod = ring->rsp_prod = index;
    ring->req_event = ring->rsp_event = index + 1;
}

void back_excuse(const char *path)
{
    for (unsigned i = 0; i < XHOST_DISKS_MAX; i++) {
        size_t length = strlen(backs[i].front);
        if (backs[i].there && strncmp(path, backs[i].front, length) == 0 && path[length] == '/')
            backs[i].excused = true;
    }
}

static bool steps_back(const struct back *back)
{
    for (unsigned state = 0; state < 7; state++)
        if (back->options->step_ms[state] == XHOST_NEVER)
            return false;
    return true;
}

void back_check(void)
{
    for (unsigned i = 0; i < XHOST_DISKS_MAX; i++) {
        const struct back *back = &backs[i];
        if (!back->there || back->dead || back->excused || xhost_store_spoilt() || !xhost_strict ||
            !steps_back(back))
            continue;
        if (back->state != back->options->first_state)
            model_violation("C7: the backend of disk %u is in state %u", back->options->number,
                            back->state);
    }
}

/* The same for each host: worked out once. */
static void fill(unsigned disk, unsigned char *bytes, size_t count)
{
    static unsigned char *made[XHOST_DISKS_MAX];
    static size_t have[XHOST_DISKS_MAX];

    if (count > have[disk]) {
        made[disk] = realloc(made[disk], count);
        if (!made[disk])
            abort();
        for (size_t at = have[disk]; at < count; at++)
            made[disk][at] = xhost_pattern(disk, at);
        have[disk] = count;
    }
    if (count)
        memcpy(bytes, made[disk], count);
}

static void plug_disk(unsigned i, struct xhost_disk *options)
{
    struct back *back = &backs[i];
    char path[128];
    const char *front = back->front;
    size_t bytes = (size_t)options->sectors * SECTOR;

    *back = (struct back){.there = true, .options = options, .last = &back->flights};
    snprintf(back->front, sizeof(back->front), "/local/domain/%u/device/vbd/%u", XHOST_GUEST,
             options->number);
    snprintf(back->path, sizeof(back->path), "/local/domain/0/backend/vbd/%u/%u", XHOST_GUEST,
             options->number);
    back->disk = malloc(bytes + 1);
    back->stable = malloc(bytes + 1);
    if (!back->disk || !back->stable)
        abort();
    fill(i, back->disk, bytes);
    memcpy(back->stable, back->disk, bytes);

    tree_write("/local/domain/5/device/vbd", "", false);
    tree_write(front, "", true);
    snprintf(path, sizeof(path), "%s/backend", front);
    tree_write(path, back->path, true);
    snprintf(path, sizeof(path), "%s/backend-id", front);
    tree_write(path, "0", true);
    snprintf(path, sizeof(path), "%s/device-type", front);
    tree_write(path, options->info & VDISK_CDROM ? "cdrom" : "disk", true);
    snprintf(path, sizeof(path), "%s/state", front);
    tree_write(path, "1", true);
    publish(back, "online", 1);
    if (options->ring_order)
        publish(back, "max-ring-page-order", options->ring_order);
    if (options->segments)
        publish(back, "feature-max-indirect-segments", options->segments);
    publish(back, "feature-persistent", 1);
    switch_state(back, options->first_state);
    if (options->first_state != XenbusStateInitWait)
        back->excused = true;
}

void xhost_add_disk(const struct xhost_disk *disk)
{
    unsigned i = xhost_options.disk_count++;

    xhost_options.disks[i] = *disk;
    bool first = !tree_read("/local/domain/5/device/vbd");
    plug_disk(i, &xhost_options.disks[i]);
    store_found(first ? "/local/domain/5/device/vbd" : backs[i].front);
}

void back_plug(void)
{
    for (unsigned i = 0; i < xhost_options.disk_count; i++)
        plug_disk(i, &xhost_options.disks[i]);
}

void back_take(void)
{
    for (unsigned i = 0; i < xhost_options.disk_count; i++) {
        char path[128];
        if (!backs[i].options->taken)
            continue;
        snprintf(path, sizeof(path), "%s/state", backs[i].front);
        tree_write(path, "4", true);
        switch_state(&backs[i], XenbusStateConnected);
    }
}

void back_unplug(void)
{
    for (unsigned i = 0; i < XHOST_DISKS_MAX; i++) {
        struct back *back = &backs[i];
        while (back->flights)
            drop_flight(back, &back->flights);
        free(back->disk);
        free(back->stable);
        *back = (struct back){0};
    }
}
