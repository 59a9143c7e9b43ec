// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "core/xen/blkfront.h"

#include <xen/io/protocols.h>

/* What fits into the page that lists them, and more than any backend takes. */
#define SEGMENTS_MAX 256u
_Static_assert(SEGMENTS_MAX * sizeof(struct blkif_request_segment) <= XEN_PAGE, "one page");

#define SECTORS_PER_PAGE (XEN_PAGE / DISK_SECTOR)
/* CD-ROMs have these, and firmware knows one by them, whatever the backend counts in. */
#define CDROM_BLOCK 2048u

#define COMMITS_MAX 8u /* tries, when others keep changing what we change */

static struct blkfront *of_disk(struct disk *disk)
{
    return (struct blkfront *)(void *)((char *)disk - offsetof(struct blkfront, disk));
}

static void blk_log(const struct blkfront *blk, const char *sentence, uint64_t number)
{
    blk->rich->log(blk->rich->context, sentence, number);
}

static struct poor_door within(const struct blkfront *blk, uint64_t ms)
{
    return (struct poor_door){.deadline = deadline_in_ms(blk->rich, ms)};
}

/* ---- Memory ---- */

static unsigned char *indirect_page(const struct blkfront *blk, unsigned piece)
{
    return (unsigned char *)blk->memory.cpu + (blk->ring_pages + piece) * XEN_PAGE;
}

static unsigned char *bounce_page(const struct blkfront *blk, unsigned piece, unsigned page)
{
    unsigned first = blk->ring_pages + (blk->indirect ? blk->pieces.count : 0);
    return (unsigned char *)blk->memory.cpu +
           (first + piece * BLKFRONT_BOUNCE_PAGES + page) * XEN_PAGE;
}

static size_t memory_bytes(const struct blkfront *blk)
{
    size_t each = BLKFRONT_BOUNCE_PAGES + (blk->indirect ? 1 : 0);
    return (blk->ring_pages + blk->pieces.count * each) * XEN_PAGE;
}

/* ---- Attach ---- */

static enum result store_lost(const struct blkfront *blk)
{
    blk_log(blk, blk->xen->store.lost ? blk->xen->store.lost : "XenStore is lost;", 0);
    return RESULT_TIMEOUT;
}

/* A number that the backend has, or need not have. */
static enum result backend_number(struct blkfront *blk, const char *name, uint64_t most,
                                  uint64_t missing, uint64_t *number)
{
    struct poor_door door = within(blk, XEN_STORE_MS);

    *number = missing;
    enum answer answer =
        store_read_number(&blk->xen->store, &door, blk->front.backend, name, most, number);
    return answer == ANSWER_LOST ? store_lost(blk) : RESULT_OK;
}

/* Where the backend is, from our own keys. */
static enum result find_backend(struct blkfront *blk)
{
    struct poor_door door = within(blk, XEN_STORE_MS);
    struct xen_front *front = &blk->front;
    char name[STORE_DIGITS];
    uint64_t domain;

    store_put_number(name, blk->number);
    store_path(front->path, "device/vbd", name);
    enum answer answer = store_read(&blk->xen->store, &door, front->path, "backend", front->backend,
                                    sizeof(front->backend));
    if (answer == ANSWER_OK)
        answer = store_read_number(&blk->xen->store, &door, front->path, "backend-id",
                                   DOMID_FIRST_RESERVED - 1, &domain);
    if (answer == ANSWER_LOST)
        return store_lost(blk);
    /* The longest names of ours have to fit behind it. */
    if (answer != ANSWER_OK || front->backend[0] != '/' ||
        !store_path((char[STORE_PATH_MAX]){0}, front->backend, "feature-max-indirect-segments")) {
        blk_log(blk, "XenStore names no backend for disk", blk->number);
        return RESULT_DEVICE_ERROR;
    }
    front->backend_domain = (domid_t)domain;
    return RESULT_OK;
}

/* Closes the one frontend, and ends what is in flight. */
static bool close_front(struct blkfront *blk, enum result why)
{
    struct poor_door door = within(blk, XEN_BACKEND_MS);
    struct xen_front *front = &blk->front;

    if (front->state == FRONT_LIVE) {
        front->closing = true;
        fronts_close(blk->xen, &door);
        if (front->state == FRONT_STUCK)
            blk_log(blk, "the backend has not let go; bytes lost for good:", blk->memory.bytes);
    }
    pieces_fail(&blk->pieces, why, front->state == FRONT_DORMANT);
    return front->state == FRONT_DORMANT;
}

static void forget(struct blkfront *blk)
{
    for (struct xen_front **at = &blk->xen->fronts; *at; at = &(*at)->next)
        if (*at == &blk->front) {
            *at = blk->front.next;
            break;
        }
}

/* Watches the backend's state. Where that cannot be, it is looked at now and then. */
static void begin_watch(struct blkfront *blk)
{
    struct poor_door door = within(blk, XEN_STORE_MS);
    struct xen_front *front = &blk->front;

    front->watch = watch_number(blk->xen);
    if (front->watch == 0 ||
        !store_ask_watch(&blk->xen->store, &door, true, front->backend, "state", front->watch))
        return;
    /* One that is there already, because it could not be ended, is as good. */
    enum answer answer = store_answer(&blk->xen->store, &door);
    if (answer != ANSWER_OK &&
        !(answer == ANSWER_REFUSED && store_says(&blk->xen->store, "EEXIST"))) {
        blk->xen->watches &= ~(1ull << front->watch);
        front->watch = 0;
    }
}

/* The backend's state now. */
static unsigned backend_state(struct blkfront *blk)
{
    struct poor_door door = within(blk, XEN_STORE_MS);

    blk->front.waiting = true;
    fronts_look(blk->xen, &door, NULL);
    blk->front.waiting = false;
    return blk->front.backend_state;
}

/* Waits until nobody is connected to the backend, and it waits for us. */
static enum result find_idle(struct blkfront *blk)
{
    struct poor_door door = within(blk, XEN_BACKEND_MS);
    struct xen_front *front = &blk->front;
    unsigned state = backend_state(blk);
    uint64_t online = 1;

    if (!blk->xen->store.in_step)
        return store_lost(blk);
    if (state == XenbusStateInitialising)
        return RESULT_NO_MEDIA;
    /* A disk that the toolstack has begun to take away: its backend waits for nobody any more. */
    if (state == XenbusStateClosing || state == XenbusStateClosed) {
        enum result result = backend_number(blk, "online", UINT32_MAX, 1, &online);
        if (result)
            return result;
        if (online == 0)
            return RESULT_NO_MEDIA;
    }
    if (state == XenbusStateUnknown) {
        blk_log(blk, "XenStore knows no state of the backend of disk", blk->number);
        return RESULT_DEVICE_ERROR;
    }
    if (state == XenbusStateInitWait)
        return RESULT_OK;
    /* Somebody else was connected, or is being disconnected: it is closed as ours would be. */
    front->told = true;
    front->closing = true;
    fronts_close(blk->xen, &door);
    if (backend_state(blk) == XenbusStateInitWait)
        return RESULT_OK;
    blk_log(blk, "the backend does not become ready; it stays in state", front->backend_state);
    return RESULT_DEVICE_ERROR;
}

static enum result plan(struct blkfront *blk)
{
    uint64_t segments, order, parts;
    enum result result;

    result = backend_number(blk, "feature-max-indirect-segments", UINT32_MAX, 0, &segments);
    if (!result)
        result = backend_number(blk, "max-ring-page-order", 16, 0, &order);
    if (result)
        return result;
    blk->ring_pages = order > 0 ? FRONT_RING_PAGES : 1;
    blk->indirect = segments > BLKIF_MAX_SEGMENTS_PER_REQUEST;
    blk->segments = BLKIF_MAX_SEGMENTS_PER_REQUEST;
    if (blk->indirect)
        blk->segments = segments < SEGMENTS_MAX ? (uint32_t)segments : SEGMENTS_MAX;

    parts = (blk->ring_pages * XEN_PAGE - offsetof(struct blkif_sring, ring)) /
            sizeof(union blkif_sring_entry);
    for (blk->entries = 1; blk->entries * 2 <= parts;)
        blk->entries *= 2;
    return RESULT_OK;
}

static const struct disk_ops blkfront_ops;
static const struct pieces_ops blkfront_pieces;

enum result blkfront_attach(struct blkfront *blk, struct xen *xen, const struct rich_door *rich,
                            uint32_t number, size_t *bytes)
{
    *blk = (struct blkfront){
        .disk = {.ops = &blkfront_ops},
        .front = {.next = xen->fronts, .flights = blk->flights, .flight_count = PIECES_MAX},
        .xen = xen,
        .rich = rich,
        .number = number,
    };
    pieces_init(&blk->pieces, &blkfront_pieces, rich, PIECES_MAX);
    xen->fronts = &blk->front;

    enum result result = find_backend(blk);
    if (!result) {
        begin_watch(blk);
        result = find_idle(blk);
    }
    if (!result)
        result = plan(blk);
    if (result) {
        blkfront_detach(blk);
        return result;
    }
    pieces_init(&blk->pieces, &blkfront_pieces, rich, blk->entries);
    *bytes = memory_bytes(blk);
    return RESULT_OK;
}

/* ---- Start ---- */

static bool share_page(struct blkfront *blk, const void *page, bool may_write, uint32_t *ref)
{
    *ref = grant_give(&blk->xen->grants, &blk->front.shared, blk->front.backend_domain, page,
                      may_write);
    return *ref != 0;
}

/* Lays the ring out, and grants what stays granted. */
static enum result share(struct blkfront *blk, uint32_t ring_refs[FRONT_RING_PAGES])
{
    struct blkif_sring *ring = blk->memory.cpu;
    bool shared = true;

    __builtin_memset(ring, 0, blk->ring_pages * XEN_PAGE);
    ring->req_event = 1;
    ring->rsp_event = 1;
    blk->front.ring = ring;
    blk->front.produced = blk->consumed = blk->announced = 0;

    for (unsigned i = 0; i < blk->ring_pages; i++)
        shared &= share_page(blk, (unsigned char *)ring + i * XEN_PAGE, true, &ring_refs[i]);
    for (unsigned i = 0; i < blk->pieces.count && shared; i++) {
        if (blk->indirect)
            shared &= share_page(blk, indirect_page(blk, i), false, &blk->indirect_refs[i]);
        for (unsigned k = 0; k < BLKFRONT_BOUNCE_PAGES; k++)
            shared &= share_page(blk, bounce_page(blk, i, k), true, &blk->bounce_refs[i][k]);
    }
    if (!shared)
        blk_log(blk, "there are not enough grants; frames of the table:", blk->xen->grants.frames);
    else if (!event_open(blk->front.backend_domain, &blk->front.port))
        blk_log(blk, "there is no event channel for domain", blk->front.backend_domain);
    else
        return RESULT_OK;
    return RESULT_NO_MEMORY;
}

static void write_key(struct blkfront *blk, const struct poor_door *door, uint32_t transaction,
                      enum front_key key, const char *text, uint64_t number)
{
    char digits[STORE_DIGITS];

    store_put_number(digits, number);
    store_ask_write(&blk->xen->store, door, transaction, blk->front.path, front_keys[key],
                    text ? text : digits);
    blk->front.keys |= 1u << key;
}

/* Tells the backend where everything is, all at once, or not at all. */
static enum result publish(struct blkfront *blk, const uint32_t ring_refs[FRONT_RING_PAGES])
{
    struct poor_door door = within(blk, XEN_STORE_MS);
    struct xen_front *front = &blk->front;
    struct store *store = &blk->xen->store;
    char none[] = "", commit[] = "T", state[STORE_DIGITS];
    struct store_piece begin = {none, sizeof(none)}, end = {commit, sizeof(commit)};
    uint64_t transaction;

    store_put_number(state, XenbusStateInitialised);
    for (unsigned tries = 0; tries < COMMITS_MAX; tries++) {
        if (!store_ask(store, &door, XS_TRANSACTION_START, 0, &begin, 1) ||
            store_answer(store, &door) != ANSWER_OK || store->header.len == 0 ||
            !store_parse_number(store->payload, store->header.len - 1, UINT32_MAX, &transaction))
            break;
        uint32_t id = (uint32_t)transaction;
        if (blk->ring_pages == 1) {
            write_key(blk, &door, id, KEY_RING_REF, NULL, ring_refs[0]);
        } else {
            write_key(blk, &door, id, KEY_RING_PAGE_ORDER, NULL, 1);
            write_key(blk, &door, id, KEY_RING_REF0, NULL, ring_refs[0]);
            write_key(blk, &door, id, KEY_RING_REF1, NULL, ring_refs[FRONT_RING_PAGES - 1]);
        }
        write_key(blk, &door, id, KEY_EVENT_CHANNEL, NULL, front->port);
        write_key(blk, &door, id, KEY_PROTOCOL, XEN_IO_PROTO_ABI_NATIVE, 0);
        store_ask_write(store, &door, id, front->path, "state", state);
        bool written = store_settle(store, &door);
        if (!written)
            commit[0] = 'F';
        /* From here on the backend may act on it, whatever we hear of that. */
        front->told = true;
        if (!store_ask(store, &door, XS_TRANSACTION_END, id, &end, 1))
            break;
        enum answer answer = store_answer(store, &door);
        if (!written)
            break;
        if (answer == ANSWER_OK)
            return RESULT_OK;
        /* EAGAIN: somebody has changed something in between. */
        if (answer == ANSWER_LOST || store->payload[0] != 'E' || store->payload[1] != 'A')
            break;
    }
    blk_log(blk, store->lost ? store->lost : "XenStore does not take our keys for disk",
            blk->number);
    return RESULT_DEVICE_ERROR;
}

/* What disk it is: the backend says so once it is connected. */
static enum result read_info(struct blkfront *blk)
{
    struct disk_info *info = &blk->disk.info;
    uint64_t sectors, sector_size, physical, flags, flush, barrier;
    enum result result;

    result = backend_number(blk, "sectors", UINT64_MAX, 0, &sectors);
    if (!result)
        result = backend_number(blk, "sector-size", UINT32_MAX, 0, &sector_size);
    if (!result)
        result = backend_number(blk, "physical-sector-size", UINT32_MAX, sector_size, &physical);
    if (!result)
        result = backend_number(blk, "info", UINT32_MAX, 0, &flags);
    if (!result)
        result = backend_number(blk, "feature-flush-cache", 1, 0, &flush);
    if (!result)
        result = backend_number(blk, "feature-barrier", 1, 0, &barrier);
    if (result)
        return result;

    /* A block has to fit a page, with which it is granted. */
    if (sector_size < DISK_SECTOR || sector_size > XEN_PAGE ||
        (sector_size & (sector_size - 1)) != 0) {
        blk_log(blk, "the sector size is not a power of two from 512 to 4096:", sector_size);
        return RESULT_UNSUPPORTED;
    }
    blk->cdrom = flags & VDISK_CDROM;
    info->block_size = (uint32_t)sector_size;
    if (blk->cdrom && info->block_size < CDROM_BLOCK)
        info->block_size = CDROM_BLOCK;
    /* In units of 512 bytes whatever the sector size is: so it is with Linux, which is the backend
     * that has other sizes. */
    info->blocks = sectors / (info->block_size / DISK_SECTOR);
    if (info->blocks == 0 || sectors > UINT64_MAX / DISK_SECTOR) {
        blk_log(blk, "the disk is empty, or larger than any; its sectors:", sectors);
        return RESULT_NO_MEDIA;
    }
    bool sane =
        physical >= info->block_size && physical <= (32u << 20) && (physical & (physical - 1)) == 0;
    info->blocks_per_physical = sane ? (uint32_t)(physical / info->block_size) : 1;
    info->read_only = blk->cdrom || (flags & VDISK_READONLY);
    info->removable = blk->cdrom || (flags & VDISK_REMOVABLE);
    info->write_cache = flush || barrier;
    blk->barrier = !flush;
    return RESULT_OK;
}

static enum result connect(struct blkfront *blk)
{
    uint32_t ring_refs[FRONT_RING_PAGES];
    struct xen_front *front = &blk->front;

    front->state = FRONT_LIVE;
    front->silent = front->leaving = false;
    /* Whoever closes a frontend ends its watch, too. */
    if (front->watch == 0)
        begin_watch(blk);
    enum result result = share(blk, ring_refs);
    if (!result)
        result = publish(blk, ring_refs);
    if (result)
        return result;

    struct poor_door door = within(blk, XEN_BACKEND_MS);
    front->waiting = true;
    bool connected = fronts_wait(blk->xen, &door,
                                 STATE_BIT(XenbusStateConnected) | STATE_BIT(XenbusStateClosing) |
                                     STATE_BIT(XenbusStateClosed) | STATE_BIT(XenbusStateUnknown));
    front->waiting = false;
    if (!connected || front->backend_state != XenbusStateConnected) {
        blk_log(blk, "the backend does not connect; it is in state", front->backend_state);
        return connected ? RESULT_DEVICE_ERROR : RESULT_TIMEOUT;
    }
    result = read_info(blk);
    if (result)
        return result;

    door = within(blk, XEN_STORE_MS);
    front_ask_state(blk->xen, &door, front, XenbusStateConnected);
    if (store_settle(&blk->xen->store, &door))
        return RESULT_OK;
    blk_log(blk, "XenStore does not take our state for disk", blk->number);
    return RESULT_DEVICE_ERROR;
}

enum result blkfront_start(struct blkfront *blk, const struct dma_block *memory)
{
    blk->memory = *memory;
    return connect(blk);
}

/* ---- Requests on their way to the backend ---- */

static union blkif_sring_entry *entry(const struct blkfront *blk, uint32_t index)
{
    return &blk->front.ring->ring[index & (blk->entries - 1)];
}

/* Puts a request into the ring. The backend sees it with the next notify(). */
static void put(struct blkfront *blk, const void *request, size_t bytes)
{
    __builtin_memcpy(entry(blk, blk->front.produced), request, bytes);
    blk->front.produced++;
}

static void notify(struct blkfront *blk)
{
    struct blkif_sring *ring = blk->front.ring;
    uint32_t old = blk->announced, new = blk->front.produced;

    if (new == old)
        return;
    blk->announced = new;
    /* The requests first, then the index; and the index before we look whether the backend sleeps,
     * or it could fall asleep over the old one. */
    __atomic_store_n(&ring->req_prod, new, __ATOMIC_SEQ_CST);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (new - __atomic_load_n(&ring->req_event, __ATOMIC_RELAXED) < new - old)
        event_send(blk->front.port);
}

/* One page's part of a piece. */
static struct blkif_request_segment segment(uint32_t ref, size_t offset, size_t bytes)
{
    return (struct blkif_request_segment){
        .gref = ref,
        .first_sect = (uint8_t)(offset / DISK_SECTOR),
        .last_sect = (uint8_t)((offset + bytes - 1) / DISK_SECTOR),
    };
}

/* Grants the next pages of a request's buffer, `most` of them at most. Gives how many bytes: fewer
 * than it could be where there are not enough grants, or 0. */
static uint32_t grant_in_place(struct blkfront *blk, unsigned piece, unsigned char *buffer,
                               size_t left, bool may_write, uint32_t most,
                               struct blkif_request_segment *segments, uint32_t *count)
{
    size_t done = 0;

    for (*count = 0; *count < most && done < left; ++*count) {
        size_t offset = (uintptr_t)(buffer + done) % XEN_PAGE;
        size_t bytes = XEN_PAGE - offset < left - done ? XEN_PAGE - offset : left - done;
        uint32_t ref = grant_give(&blk->xen->grants, &blk->flights[piece],
                                  blk->front.backend_domain, buffer + done, may_write);
        if (ref == 0)
            break;
        segments[*count] = segment(ref, offset, bytes);
        done += bytes;
    }
    return (uint32_t)done;
}

/* Uses the piece's own pages, which are granted already. */
static uint32_t bounce(struct blkfront *blk, unsigned piece, unsigned char *buffer, size_t left,
                       enum disk_op op, struct blkif_request_segment *segments, uint32_t *count)
{
    size_t done = 0;

    for (*count = 0; *count < BLKFRONT_BOUNCE_PAGES && done < left; ++*count) {
        size_t bytes = XEN_PAGE < left - done ? XEN_PAGE : left - done;
        segments[*count] = segment(blk->bounce_refs[piece][*count], 0, bytes);
        done += bytes;
    }
    if (op == DISK_WRITE)
        __builtin_memcpy(bounce_page(blk, piece, 0), buffer, done);
    else
        blk->sent[piece].bounce_to = buffer;
    return (uint32_t)done;
}

/* How many more pages may be shown to backends: as many as can be exchanged at the exit, should all
 * of them be dead by then. One is for the list of the others. */
static uint32_t room(const struct blkfront *blk)
{
    uint32_t taken = blk->xen->in_flight + BLKFRONT_KEPT_PAGES + 1;
    uint32_t reserve = blk->xen->grants.reserve_pages;

    return reserve > taken ? reserve - taken : 0;
}

static enum post post_flush(struct blkfront *blk, unsigned piece, struct disk_request *request)
{
    struct blkif_request flush = {
        .operation = blk->barrier ? BLKIF_OP_WRITE_BARRIER : BLKIF_OP_FLUSH_DISKCACHE,
        .handle = (blkif_vdev_t)blk->number,
        .id = piece,
    };

    if (!blk->disk.info.write_cache)
        return POSTED;
    blk->sent[piece].operation = flush.operation;
    blk->sent[piece].indirect = false;
    blk->sent[piece].pages = 0;
    put(blk, &flush, sizeof(flush));
    pieces_begin(&blk->pieces, piece, &request->base, 0);
    return POSTED;
}

static enum post post(struct pieces *pieces, struct io_request *base)
{
    struct blkfront *blk =
        (struct blkfront *)(void *)((char *)pieces - offsetof(struct blkfront, pieces));
    struct disk_request *request = disk_request_of(base);
    struct blkif_request direct;
    struct blkif_request_segment *segments = direct.seg;
    unsigned piece;
    uint32_t count;

    if (!pieces_free(pieces, &piece))
        return POST_LATER;
    blk->sent[piece].bounce_to = NULL;
    if (request->op == DISK_FLUSH)
        return post_flush(blk, piece, request);

    uint8_t operation = request->op == DISK_READ ? BLKIF_OP_READ : BLKIF_OP_WRITE;
    uint64_t sector = request->sector + base->issued / DISK_SECTOR;
    /* Where a page of segments can be had, they are written there, and copied if they are few. */
    if (blk->indirect)
        segments = (struct blkif_request_segment *)(void *)indirect_page(blk, piece);
    unsigned char *buffer = (unsigned char *)base->buffer + base->issued;
    size_t left = base->bytes - base->issued;
    uint32_t bytes = 0;
    uint32_t most = room(blk);
    size_t wanted = ((uintptr_t)buffer % XEN_PAGE + left + XEN_PAGE - 1) / XEN_PAGE;
    if (wanted > blk->segments)
        wanted = blk->segments;
    if (most < wanted && pieces->busy != 0)
        return POST_LATER;
    /* No block may lie in two pages. Where other disks have all grants, or all the room, our own
     * pages do. */
    if ((uintptr_t)buffer % blk->disk.info.block_size == 0)
        bytes = grant_in_place(blk, piece, buffer, left, request->op == DISK_READ,
                               most < wanted ? most : (uint32_t)wanted, segments, &count);
    if (bytes == 0)
        bytes = bounce(blk, piece, buffer, left, request->op, segments, &count);

    if (count <= BLKIF_MAX_SEGMENTS_PER_REQUEST) {
        if (segments != direct.seg)
            __builtin_memcpy(direct.seg, segments, count * sizeof(*segments));
        direct.operation = operation;
        direct.nr_segments = (uint8_t)count;
        direct.handle = (blkif_vdev_t)blk->number;
        direct.id = piece;
        direct.sector_number = sector;
        put(blk, &direct, offsetof(struct blkif_request, seg) + count * sizeof(*segments));
    } else {
        struct blkif_request_indirect indirect = {
            .operation = BLKIF_OP_INDIRECT,
            .indirect_op = operation,
            .nr_segments = (uint16_t)count,
            .id = piece,
            .sector_number = sector,
            .handle = (blkif_vdev_t)blk->number,
            .indirect_grefs = {blk->indirect_refs[piece]},
        };
        put(blk, &indirect, sizeof(indirect));
    }
    blk->sent[piece].operation = operation;
    blk->sent[piece].indirect = count > BLKIF_MAX_SEGMENTS_PER_REQUEST;
    blk->sent[piece].pages = count + blk->sent[piece].indirect;
    blk->xen->in_flight += blk->sent[piece].pages;
    pieces_begin(pieces, piece, base, bytes);
    return POSTED;
}

static enum result blkfront_submit(struct disk *disk, struct disk_request *request)
{
    struct blkfront *blk = of_disk(disk);
    enum result result = disk_check(&disk->info, request);

    if (result)
        return result;
    /* Given up, or let go by the exit: then nothing may wake it up again (C4). */
    if (blk->front.state != FRONT_LIVE || blk->gone)
        return RESULT_DEVICE_ERROR;
    pieces_submit(&blk->pieces, &request->base);
    pieces_issue(&blk->pieces);
    notify(blk);
    return RESULT_OK;
}

/* ---- And on their way back ---- */

static void release(struct pieces *pieces, unsigned piece, enum result result, bool let_go)
{
    struct blkfront *blk =
        (struct blkfront *)(void *)((char *)pieces - offsetof(struct blkfront, pieces));
    void *to = blk->sent[piece].bounce_to;
    (void)let_go; /* what the backend still has stays in its list of grants */

    if (to && result == RESULT_OK)
        __builtin_memcpy(to, bounce_page(blk, piece, 0), pieces->at[piece].bytes);
    blk->sent[piece].bounce_to = NULL;
    blk->xen->in_flight -= blk->sent[piece].pages;
}

/* If the exit has let the disk go, what it cut off still waits to be told. It may be asked: an
 * ExitBootServices that fails comes back to callers who wait. */
static bool still_live(struct blkfront *blk)
{
    if (blk->front.state == FRONT_LIVE)
        return true;
    pieces_fail(&blk->pieces, RESULT_DEVICE_ERROR, blk->front.state == FRONT_DORMANT);
    return false;
}

/* Also without the lock: a restart may take the ring away between two looks at it. */
static bool ready(const struct blkfront *blk)
{
    const struct blkif_sring *ring = *(struct blkif_sring *const volatile *)&blk->front.ring;

    return ring && __atomic_load_n(&ring->rsp_prod, __ATOMIC_RELAXED) != blk->consumed;
}

/* Takes one response. False if it cannot be true. */
static bool take_response(struct blkfront *blk)
{
    /* A second look may show something else (C9). */
    const volatile struct blkif_response *response = &entry(blk, blk->consumed)->rsp;
    uint64_t id = response->id;
    uint8_t operation = response->operation;
    int16_t status = response->status;
    enum result result = status == BLKIF_RSP_OKAY ? RESULT_OK : RESULT_DEVICE_ERROR;

    if (id >= blk->pieces.count || !(blk->pieces.busy >> id & 1)) {
        blk_log(blk, "the backend answers a request that was not made; its id is", id);
        return false;
    }
    /* What comes back for an indirect request is what it was about; some may copy the request. */
    if (operation != blk->sent[id].operation &&
        !(blk->sent[id].indirect && operation == BLKIF_OP_INDIRECT)) {
        blk_log(blk, "the backend answers another operation than was asked for:", operation);
        return false;
    }
    /* The pages are the caller's again only if nobody can write to them. */
    if (!grants_end(&blk->xen->grants, &blk->flights[id])) {
        blk_log(blk, "the backend has finished a request, but keeps its pages; request", id);
        return false;
    }
    blk->consumed++;
    /* It has offered flushes and cannot do them: there is nothing to flush, then. */
    if (status == BLKIF_RSP_EOPNOTSUPP &&
        disk_request_of(blk->pieces.at[id].request)->op == DISK_FLUSH) {
        blk->disk.info.write_cache = false;
        result = RESULT_OK;
    }
    pieces_finish(&blk->pieces, (unsigned)id, result, true);
    return true;
}

/* Takes what has come back. False if it makes no sense. */
static bool take_responses(struct blkfront *blk)
{
    uint32_t produced = __atomic_load_n(&blk->front.ring->rsp_prod, __ATOMIC_ACQUIRE);

    if (produced - blk->consumed > blk->front.produced - blk->consumed) {
        blk_log(blk, "the backend's ring makes no sense, at index", produced);
        return false;
    }
    while (blk->consumed != produced)
        if (!take_response(blk))
            return false;
    return true;
}

static enum result blkfront_restart(struct disk *disk, enum result why)
{
    struct blkfront *blk = of_disk(disk);
    enum result result = RESULT_DEVICE_ERROR;

    if (!still_live(blk))
        return RESULT_DEVICE_ERROR;
    /* Nothing to end, nothing wrong: a PV disk has no state that a reset would clear. */
    if (why == RESULT_ABORTED && blk->pieces.busy == 0 && !blk->pieces.pending && !blk->gone)
        return RESULT_OK;
    /* A backend that has not gone the whole way back is not one to connect to: that it still says
     * Connected would be about the time before. */
    if (close_front(blk, why) && !blk->gone && backend_state(blk) == XenbusStateInitWait) {
        struct disk_info info = blk->disk.info;
        result = connect(blk);
        /* Whoever uses the disk knows it as it was. */
        if (!result &&
            (blk->disk.info.blocks != info.blocks || blk->disk.info.block_size != info.block_size ||
             blk->disk.info.read_only != info.read_only))
            result = RESULT_DEVICE_ERROR;
        if (result)
            close_front(blk, RESULT_DEVICE_ERROR);
    }
    if (result)
        blk_log(blk, "the disk does not come back; given up with error", (uint64_t)result);
    return result;
}

bool blkfront_gone(struct blkfront *blk)
{
    struct xen_front *front = &blk->front;
    uint64_t mine = 1ull << front->watch;

    if (blk->gone || front->state != FRONT_LIVE)
        return blk->gone;
    store_listen(&blk->xen->store);
    if (front->watch == 0 || !(blk->xen->store.fired & mine))
        return false;
    blk->xen->store.fired &= ~mine;
    unsigned state = backend_state(blk);
    blk->gone = state == XenbusStateClosing || state == XenbusStateClosed ||
                (state == XenbusStateUnknown && blk->xen->store.in_step);
    front->leaving = blk->gone;
    return blk->gone;
}

static void blkfront_poll(struct disk *disk)
{
    struct blkfront *blk = of_disk(disk);

    if (!still_live(blk))
        return;
    if (!take_responses(blk)) {
        blkfront_restart(disk, RESULT_DEVICE_ERROR);
        return;
    }
    pieces_issue(&blk->pieces);
    notify(blk);

    if (!pieces_look_due(&blk->pieces))
        return;
    if (blkfront_gone(blk)) {
        blk_log(blk, "the backend closes with requests in flight; it is in state",
                blk->front.backend_state);
        blkfront_restart(disk, RESULT_DEVICE_ERROR);
    } else if (pieces_overdue(&blk->pieces)) {
        blk_log(blk,
                "a request has not been answered for this many milliseconds:", PIECE_TIMEOUT_MS);
        blkfront_restart(disk, RESULT_TIMEOUT);
    }
}

static bool blkfront_ready(const struct disk *disk)
{
    const struct blkfront *blk =
        (const struct blkfront *)(const void *)((const char *)disk -
                                                offsetof(struct blkfront, disk));
    return blk->front.state == FRONT_LIVE && ready(blk);
}

static void blkfront_wait(struct disk *disk)
{
    struct blkfront *blk = of_disk(disk);

    if (blk->front.state != FRONT_LIVE)
        return;
    event_clear(&blk->xen->events, blk->front.port);
    __atomic_store_n(&blk->front.ring->rsp_event, blk->consumed + 1, __ATOMIC_SEQ_CST);
    /* An answer that came before the backend could see that we wait for it gives no event. */
    if (!ready(blk))
        event_wait(&blk->xen->events, blk->front.port, blk->pieces.look_at);
}

static const struct disk_ops blkfront_ops = {
    .submit = blkfront_submit,
    .poll = blkfront_poll,
    .ready = blkfront_ready,
    .restart = blkfront_restart,
    .wait = blkfront_wait,
};

static const struct pieces_ops blkfront_pieces = {.post = post, .release = release};

/* ---- Detach ---- */

bool blkfront_detach(struct blkfront *blk)
{
    struct poor_door door = within(blk, XEN_STORE_MS);
    bool let_go = close_front(blk, RESULT_ABORTED);

    front_end_watch(blk->xen, &door, &blk->front);
    store_settle(&blk->xen->store, &door);
    forget(blk);
    return let_go;
}
