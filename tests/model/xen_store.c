// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * XenStore: a tree of keys, watches and transactions, behind a ring of bytes (xen/io/xs_wire.h;
 * docs/misc/xenstore.txt of Xen's source). Keys of a frontend belong to the guest; it may read the
 * others. What it asks is done in order, and answered in order, with events in between.
 */

#include "tests/model/xen_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <xen/io/xs_wire.h>

#define HOME             "/local/domain/5" /* XHOST_GUEST */
#define WATCHES_MAX      128u
#define TRANSACTIONS_MAX 10u
#define CHANGES_MAX      32u

struct node {
    char *path, *value;
    bool guest; /* may write it, and what is below */
    uint64_t changed;
};

struct watch {
    char *path; /* as it was asked for: NULL is none */
    char *absolute, *token;
};

struct change {
    char *path, *value; /* a value of NULL removes it */
};

struct transaction {
    uint32_t id; /* 0: none */
    uint64_t began;
    struct change changes[CHANGES_MAX];
    unsigned count;
};

static struct {
    struct node *nodes;
    size_t node_count, node_room;
    uint64_t clock;
    struct watch watches[WATCHES_MAX];
    struct transaction transactions[TRANSACTIONS_MAX];
    uint32_t next_transaction;
    struct node *found; /* the guest's part of the tree as it was found */
    size_t found_count;

    bool kicked, dead;
    bool spoilt;  /* nothing can be asked any more, unless the ring is made anew */
    bool excused; /* that has happened; so keys are as they are */
    uint64_t due;
    /* What is coming in and what has still to go out. */
    struct xsd_sockmsg header;
    char payload[XENSTORE_PAYLOAD_MAX + 1];
    uint32_t have;
    char out[1 << 17];
    size_t out_at, out_end;
    uint32_t conflicts;
    /* What the wrong answer was about. */
    uint32_t wrong_type;
    char wrong_path[128];
} s;

static char *copy(const char *text)
{
    char *copied = malloc(strlen(text) + 1);

    if (!copied)
        abort();
    return strcpy(copied, text);
}

/* ---- The tree ---- */

static struct node *find(const char *path)
{
    for (size_t i = 0; i < s.node_count; i++)
        if (strcmp(s.nodes[i].path, path) == 0)
            return &s.nodes[i];
    return NULL;
}

/* Whether `path` is `folder`, or below it. */
static bool within(const char *path, const char *folder)
{
    size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && (path[length] == 0 || path[length] == '/');
}

static struct node *parent_of(const char *path)
{
    char above[256];
    struct node *node = NULL;

    snprintf(above, sizeof(above), "%s", path);
    while (!node) {
        char *slash = strrchr(above, '/');
        if (!slash || slash == above)
            return NULL;
        *slash = 0;
        node = find(above);
    }
    return node;
}

static void reply(uint32_t type, uint32_t id, uint32_t transaction, const char *bytes,
                  size_t count);

static void put_event(const struct watch *watch, const char *path)
{
    char message[512];
    size_t relative = watch->path[0] == '/' ? 0 : strlen(HOME) + 1;
    int length = snprintf(message, sizeof(message), "%s%c%s", path + relative, 0, watch->token);

    xhost_counts.watch_events++;
    reply(XS_WATCH_EVENT, 0, 0, message, (size_t)length + 1);
}

static void fire(const char *path, bool removed)
{
    for (unsigned i = 0; i < WATCHES_MAX; i++) {
        const struct watch *watch = &s.watches[i];
        if (!watch->path)
            continue;
        if (within(path, watch->absolute))
            put_event(watch, path);
        else if (removed && within(watch->absolute, path))
            put_event(watch, watch->absolute);
    }
    back_heard(path);
    s.kicked |= s.out_at != s.out_end;
}

const char *tree_read(const char *path)
{
    const struct node *node = find(path);
    return node ? node->value : NULL;
}

static void set(const char *path, const char *value, bool guest)
{
    struct node *node = find(path);

    if (!node) {
        if (s.node_count == s.node_room) {
            s.node_room = s.node_room ? 2 * s.node_room : 256;
            s.nodes = realloc(s.nodes, s.node_room * sizeof(*s.nodes));
            if (!s.nodes)
                abort();
        }
        node = &s.nodes[s.node_count++];
        *node = (struct node){.path = copy(path), .guest = guest};
    }
    free(node->value);
    node->value = copy(value);
    node->changed = ++s.clock;
}

void tree_write(const char *path, const char *value, bool guest_may_write)
{
    set(path, value, guest_may_write);
    fire(path, false);
}

void tree_remove(const char *path)
{
    bool any = false;

    for (size_t i = s.node_count; i-- > 0;) {
        if (!within(s.nodes[i].path, path))
            continue;
        any = true;
        free(s.nodes[i].path);
        free(s.nodes[i].value);
        s.nodes[i] = s.nodes[--s.node_count];
    }
    s.clock++;
    if (any)
        fire(path, true);
}

/* ---- Out ---- */

static void append(const void *bytes, size_t count)
{
    if (s.out_at == s.out_end || s.out_at > sizeof(s.out) / 2) {
        memmove(s.out, s.out + s.out_at, s.out_end - s.out_at);
        s.out_end -= s.out_at;
        s.out_at = 0;
    }
    if (s.out_end + count > sizeof(s.out)) {
        /* Nobody reads: a real one drops the connection. */
        s.dead = s.spoilt = true;
        return;
    }
    memcpy(s.out + s.out_end, bytes, count);
    s.out_end += count;
}

static void reply(uint32_t type, uint32_t id, uint32_t transaction, const char *bytes, size_t count)
{
    struct xsd_sockmsg header = {
        .type = (uint32_t)xhost_twist(TARGET_STORE, type),
        .req_id = (uint32_t)xhost_twist(TARGET_STORE, id),
        .tx_id = transaction,
        .len = (uint32_t)xhost_twist(TARGET_STORE, count),
    };

    append(&header, sizeof(header));
    for (size_t i = 0; i < header.len && i < XENSTORE_PAYLOAD_MAX + 8; i++) {
        char byte = i < count ? bytes[i] : '7';
        if (xhost_options.fuzz && i < count && i < 32)
            byte = (char)xhost_twist(TARGET_STORE, (uint8_t)byte);
        append(&byte, 1);
    }
}

static void answer(const char *bytes, size_t count)
{
    enum xhost_fault fault = xhost_options.fault;
    static const char text[] = "none", zeroes[8];
    static char many[2000];
    uint32_t type = s.header.type, id = s.header.req_id;

    if (xhost_counts.answers != xhost_options.answer_wrong_at) {
        reply(type, id, s.header.tx_id, bytes, count);
        return;
    }
    memset(many, 'x', sizeof(many));
    if (fault == XFAULT_LOST || fault == XFAULT_WRONG_ID || fault == XFAULT_TOO_LONG ||
        fault == XFAULT_INDEX)
        store_spoil();
    switch (fault) {
    case XFAULT_LOST:
        break;
    case XFAULT_WRONG_ID:
        reply(type, id ^ 0x10000, s.header.tx_id, bytes, count);
        break;
    case XFAULT_TOO_LONG:
        append(&(struct xsd_sockmsg){.type = type, .req_id = id, .len = 3 * sizeof(many)},
               sizeof(struct xsd_sockmsg));
        for (unsigned i = 0; i < 3; i++)
            append(many, sizeof(many));
        break;
    case XFAULT_OVERLONG:
        reply(type, id, 0, many, sizeof(many));
        break;
    case XFAULT_NO_NUMBER:
        reply(type, id, 0, text, sizeof(text) - 1);
        break;
    case XFAULT_EMPTY:
        reply(type, id, 0, text, 0);
        break;
    case XFAULT_ZEROES:
        reply(type, id, 0, zeroes, sizeof(zeroes));
        break;
    case XFAULT_INDEX:
        machine_store()->rsp_prod += 3000;
        break;
    case XFAULT_SLOW:
        s.due = xhost_time() + 2000 * XHOST_TICKS_PER_MS;
        reply(type, id, 0, bytes, count);
        break;
    case XFAULT_TWICE:
        reply(type, id, 0, bytes, count);
        reply(type, id, 0, bytes, count);
        break;
    default:
        break;
    }
}

static void acknowledge(void)
{
    answer("OK", 3);
}

static void refuse(const char *why)
{
    s.header.type = XS_ERROR;
    answer(why, strlen(why) + 1);
}

/* ---- Requests ---- */

static struct transaction *find_transaction(uint32_t id)
{
    for (unsigned i = 0; id != 0 && i < TRANSACTIONS_MAX; i++)
        if (s.transactions[i].id == id)
            return &s.transactions[i];
    return NULL;
}

static void drop_transaction(struct transaction *transaction)
{
    for (unsigned i = 0; i < transaction->count; i++) {
        free(transaction->changes[i].path);
        free(transaction->changes[i].value);
    }
    *transaction = (struct transaction){0};
}

static void drop_watch(struct watch *watch)
{
    free(watch->path);
    free(watch->absolute);
    free(watch->token);
    *watch = (struct watch){0};
}

static void apply(const struct change *change)
{
    const struct node *above = parent_of(change->path);

    if (change->value)
        tree_write(change->path, change->value, above && above->guest);
    else
        tree_remove(change->path);
}

/* A change of the guest's: now, or in its transaction. */
static void change(const char *path, const char *value)
{
    const struct node *node = find(path), *above = node ? node : parent_of(path);
    struct transaction *transaction = find_transaction(s.header.tx_id);
    struct change made = {copy(path), value ? copy(value) : NULL};

    if (s.header.tx_id != 0 && !transaction) {
        refuse("ENOENT");
    } else if (!above || !above->guest) {
        refuse("EACCES");
    } else if (transaction) {
        if (transaction->count == CHANGES_MAX)
            abort();
        transaction->changes[transaction->count++] = made;
        acknowledge();
        return;
    } else {
        acknowledge();
        apply(&made);
    }
    free(made.path);
    free(made.value);
}

static void end_transaction(bool commit)
{
    struct transaction *transaction = find_transaction(s.header.tx_id);
    bool conflict = false;

    if (!transaction) {
        refuse("ENOENT");
        return;
    }
    for (unsigned i = 0; i < transaction->count; i++) {
        const struct node *node = find(transaction->changes[i].path);
        conflict |= node && node->changed > transaction->began;
    }
    if (commit && s.conflicts) {
        s.conflicts--;
        conflict = true;
    }
    if (commit && conflict) {
        refuse("EAGAIN");
    } else {
        acknowledge();
        for (unsigned i = 0; commit && i < transaction->count; i++)
            apply(&transaction->changes[i]);
    }
    drop_transaction(transaction);
}

static void start_transaction(void)
{
    char id[16];

    for (unsigned i = 0; i < TRANSACTIONS_MAX; i++)
        if (s.transactions[i].id == 0) {
            s.transactions[i].id = ++s.next_transaction;
            s.transactions[i].began = s.clock;
            int length = snprintf(id, sizeof(id), "%u", s.next_transaction);
            answer(id, (size_t)length + 1);
            return;
        }
    refuse("ENOSPC");
}

static void directory(const char *path)
{
    char names[XENSTORE_PAYLOAD_MAX];
    size_t size = 0, length = strlen(path);

    if (!find(path)) {
        refuse("ENOENT");
        return;
    }
    for (size_t i = 0; i < s.node_count; i++) {
        const char *child = s.nodes[i].path;
        if (!within(child, path) || child[length] != '/' || strchr(child + length + 1, '/'))
            continue;
        size_t more = strlen(child + length + 1) + 1;
        if (size + more > sizeof(names)) {
            refuse("E2BIG");
            return;
        }
        memcpy(names + size, child + length + 1, more);
        size += more;
    }
    answer(names, size);
}

static void begin_watch(const char *path, const char *absolute, const char *token)
{
    struct watch *free_one = NULL;

    for (unsigned i = 0; i < WATCHES_MAX; i++) {
        struct watch *watch = &s.watches[i];
        if (!watch->path) {
            free_one = free_one ? free_one : watch;
        } else if (strcmp(watch->path, path) == 0 && strcmp(watch->token, token) == 0) {
            if (strcmp(absolute, s.wrong_path) != 0) /* which could not be ended */
                xhost_complain("a watch that there is already");
            refuse("EEXIST");
            return;
        }
    }
    if (!free_one) {
        refuse("E2BIG");
        return;
    }
    *free_one = (struct watch){copy(path), copy(absolute), copy(token)};
    if (!xhost_options.event_first)
        acknowledge();
    put_event(free_one, absolute);
    if (xhost_options.event_first)
        acknowledge();
}

static void end_watch(const char *path, const char *token)
{
    for (unsigned i = 0; i < WATCHES_MAX; i++) {
        struct watch *watch = &s.watches[i];
        if (!watch->path || strcmp(watch->path, path) != 0 || strcmp(watch->token, token) != 0)
            continue;
        drop_watch(watch);
        acknowledge();
        return;
    }
    xhost_complain("a watch is to end that there is not: %s", path);
    refuse("ENOENT");
}

static bool good_path(const char *path)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789-/_@";
    size_t length = strlen(path);

    return length != 0 && length <= XENSTORE_REL_PATH_MAX && strspn(path, allowed) == length &&
           path[length - 1] != '/' && !strstr(path, "//");
}

/* The words of a request, each ended by a zero; the last need not be. */
static const char *word(unsigned which)
{
    const char *at = s.payload, *end = s.payload + s.header.len;

    while (which-- > 0) {
        at = memchr(at, 0, (size_t)(end - at));
        if (!at || ++at > end)
            return NULL;
    }
    return at <= end ? at : NULL;
}

static void handle(void)
{
    char absolute[XENSTORE_ABS_PATH_MAX + 64];
    const char *first = word(0), *second = word(1);
    bool about_path = s.header.type != XS_TRANSACTION_START && s.header.type != XS_TRANSACTION_END;

    xhost_counts.messages++;
    xhost_counts.answers++;
    if (about_path) {
        if (!second)
            xhost_complain("a request whose path has no end");
        if (!good_path(first)) {
            xhost_complain("a bad path: %.100s", first);
            refuse("EINVAL");
            return;
        }
        snprintf(absolute, sizeof(absolute), first[0] == '/' ? "%.2048s" : HOME "/%.2048s", first);
    }
    if (xhost_options.noise) {
        reply(XS_WATCH_EVENT, 0, 0, "device/vif/0/state\0gone", 24);
        reply(XS_WATCH_EVENT, 0, 0, "x", 1);
        reply(XS_WATCH_EVENT, 0, 0, "", 0);
    }
    if (xhost_counts.answers == xhost_options.answer_wrong_at) {
        s.wrong_type = s.header.type;
        snprintf(s.wrong_path, sizeof(s.wrong_path), "%.127s", about_path ? absolute : "");
        if (about_path)
            back_excuse(absolute);
        if (xhost_options.fault == XFAULT_DEAD) {
            s.dead = true;
            store_spoil();
            return;
        }
        if (xhost_options.fault == XFAULT_ERROR) {
            reply(XS_ERROR, s.header.req_id, s.header.tx_id, "EIO", 4);
            return;
        }
    }
    uint8_t how;
    if (xhost_options.fuzz && xhost_feed(TARGET_STORE, &how) && how > 0xfa) {
        refuse(how % 2 ? "EAGAIN" : "EIO");
        return;
    }
    switch (s.header.type) {
    case XS_READ:
        if (xhost_options.read_errors) {
            xhost_options.read_errors--;
            refuse("ENOMEM");
            break;
        }
        /* Whether a key is there is nobody's business who may not see what is around it. */
        if (!find(absolute))
            refuse(within(absolute, HOME) || parent_of(absolute) ? "ENOENT" : "EACCES");
        else
            answer(tree_read(absolute), strlen(tree_read(absolute)));
        break;
    case XS_WRITE:
        change(absolute, second ? second : "");
        break;
    case XS_RM:
        /* One that is not there is no error, as long as there is a place for it. */
        if (!find(absolute) && parent_of(absolute) && parent_of(absolute)->guest)
            acknowledge();
        else
            change(absolute, NULL);
        break;
    case XS_DIRECTORY:
        directory(absolute);
        break;
    case XS_WATCH:
    case XS_UNWATCH:
        if (!word(2))
            xhost_complain("a watch's token has no end");
        if (s.header.type == XS_WATCH)
            begin_watch(first, absolute, second ? second : "");
        else
            end_watch(first, second ? second : "");
        break;
    case XS_TRANSACTION_START:
        start_transaction();
        break;
    case XS_TRANSACTION_END:
        end_transaction(first[0] == 'T');
        break;
    default:
        xhost_complain("a request of type %u", s.header.type);
        refuse("ENOSYS");
        break;
    }
}

/* ---- The ring ---- */

static void forget_connection(void)
{
    for (unsigned i = 0; i < WATCHES_MAX; i++)
        drop_watch(&s.watches[i]);
    for (unsigned i = 0; i < TRANSACTIONS_MAX; i++)
        drop_transaction(&s.transactions[i]);
    s.have = 0;
    s.out_at = s.out_end = 0;
}

static void reconnect(volatile struct xenstore_domain_interface *ring)
{
    forget_connection();
    s.dead = s.spoilt = false;
    ring->req_cons = ring->req_prod = ring->rsp_cons = ring->rsp_prod = 0;
    ring->connection = XENSTORE_CONNECTED;
    event_raise(STORE_PORT);
}

static uint32_t part(uint32_t wanted)
{
    uint32_t chunk = xhost_options.store_chunk;
    return chunk && chunk < wanted ? chunk : wanted;
}

/* Reads some of a request. Whether there was any. */
static bool read_in(volatile struct xenstore_domain_interface *ring)
{
    uint32_t ready = ring->req_prod - ring->req_cons;

    if (ready > XENSTORE_RING_SIZE) {
        xhost_complain("XenStore's ring is out of bounds");
        s.dead = s.spoilt = true;
        return false;
    }
    if (ready == 0)
        return false;
    uint32_t wanted = s.have < sizeof(s.header)
                          ? (uint32_t)sizeof(s.header) - s.have
                          : s.header.len + (uint32_t)sizeof(s.header) - s.have;
    wanted = part(wanted < ready ? wanted : ready);
    for (uint32_t i = 0; i < wanted; i++) {
        char byte = ring->req[MASK_XENSTORE_IDX(ring->req_cons + i)];
        if (s.have < sizeof(s.header))
            ((char *)&s.header)[s.have] = byte;
        else
            s.payload[s.have - sizeof(s.header)] = byte;
        s.have++;
        if (s.have == sizeof(s.header) && s.header.len > XENSTORE_PAYLOAD_MAX) {
            if (!xhost_options.half_request)
                xhost_complain("a request of %u bytes", s.header.len);
            s.dead = s.spoilt = true;
            return false;
        }
    }
    ring->req_cons += wanted;
    if (s.have >= sizeof(s.header) && s.have == sizeof(s.header) + s.header.len) {
        s.payload[s.header.len] = 0;
        s.have = 0;
        handle();
    }
    return true;
}

static bool write_out(volatile struct xenstore_domain_interface *ring)
{
    uint32_t room = XENSTORE_RING_SIZE - (ring->rsp_prod - ring->rsp_cons);
    size_t left = s.out_end - s.out_at;

    if (room > XENSTORE_RING_SIZE || room == 0 || left == 0)
        return false;
    uint32_t count = part(left < room ? (uint32_t)left : room);
    for (uint32_t i = 0; i < count; i++)
        ring->rsp[MASK_XENSTORE_IDX(ring->rsp_prod + i)] = s.out[s.out_at + i];
    ring->rsp_prod = (uint32_t)xhost_twist(TARGET_STORE, ring->rsp_prod + count);
    s.out_at += count;
    return true;
}

void store_kick(void)
{
    if (!s.kicked)
        s.due = xhost_time() + xhost_options.store_us * XHOST_TICKS_PER_MS / 1000;
    s.kicked = true;
}

uint64_t store_due(void)
{
    return s.kicked ? s.due : DUE_NEVER;
}

void store_work(void)
{
    volatile struct xenstore_domain_interface *ring = machine_store();
    bool moved = false;

    if (!s.kicked || xhost_time() < s.due)
        return;
    s.kicked = false;
    if (xhost_options.reconnection && ring->connection == XENSTORE_RECONNECT) {
        reconnect(ring);
        return;
    }
    while (xhost_options.flood && s.out_end - s.out_at < XENSTORE_RING_SIZE)
        reply(XS_WATCH_EVENT, 0, 0, "device/vif/0/state\0gone", 24);
    do {
        bool more = !s.dead && read_in(ring);
        /* A late answer goes out when it is time. */
        if (xhost_time() >= s.due)
            more |= !s.dead && write_out(ring);
        if (!more)
            break;
        moved = true;
    } while (!xhost_options.store_chunk);
    bool more = ring->req_prod != ring->req_cons ||
                (s.out_at != s.out_end && ring->rsp_prod - ring->rsp_cons < XENSTORE_RING_SIZE);
    if (!s.dead && more) {
        s.kicked = true;
        if (s.due <= xhost_time())
            s.due = xhost_time() + 1;
    }
    if (moved)
        event_raise(STORE_PORT);
}

/* ---- From outside ---- */

const char *xhost_key(const char *path)
{
    return tree_read(path);
}

void xhost_write(const char *path, const char *value)
{
    const struct node *above = parent_of(path);
    tree_write(path, value, above && above->guest);
}

void xhost_remove(const char *path)
{
    tree_remove(path);
}

unsigned xhost_watches(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < WATCHES_MAX; i++)
        count += s.watches[i].path != NULL;
    return count;
}

void store_spoil(void)
{
    s.spoilt = s.excused = true;
}

bool xhost_store_spoilt(void)
{
    return s.spoilt || s.excused;
}

void xhost_break_store(void)
{
    s.dead = s.spoilt = true;
}

/* The guest's keys as they were found: copies, in s.found. */
void store_found(const char *path)
{
    for (size_t i = s.found_count; i-- > 0;)
        if (within(s.found[i].path, path)) {
            free(s.found[i].path);
            free(s.found[i].value);
            s.found[i] = s.found[--s.found_count];
        }
    for (size_t i = 0; i < s.node_count; i++) {
        if (!within(s.nodes[i].path, path))
            continue;
        s.found = realloc(s.found, (s.found_count + 1) * sizeof(*s.found));
        if (!s.found)
            abort();
        s.found[s.found_count++] =
            (struct node){.path = copy(s.nodes[i].path), .value = copy(s.nodes[i].value)};
    }
}

static const struct node *found(const char *path)
{
    for (size_t i = 0; i < s.found_count; i++)
        if (strcmp(s.found[i].path, path) == 0)
            return &s.found[i];
    return NULL;
}

static void check_keys(void)
{
    for (size_t i = 0; i < s.node_count; i++) {
        const struct node *node = &s.nodes[i], *before = found(node->path);
        /* Where a request has failed, its key is as it is. */
        if (!within(node->path, HOME) || strcmp(node->path, s.wrong_path) == 0)
            continue;
        if (!before)
            model_violation("C7: a key is left: %s = %s", node->path, node->value);
        else if (s.wrong_path[0] == 0 && strcmp(node->value, before->value) != 0)
            model_violation("C7: a key is not as found: %s = %s", node->path, node->value);
    }
    for (size_t i = 0; i < s.found_count; i++)
        if (!find(s.found[i].path))
            model_violation("C7: a key is missing: %s", s.found[i].path);
}

void store_check(void)
{
    const volatile struct xenstore_domain_interface *ring = machine_store();

    if (s.spoilt)
        return;
    for (unsigned i = 0; i < WATCHES_MAX; i++)
        if (s.watches[i].path && strcmp(s.watches[i].absolute, s.wrong_path) != 0)
            model_violation("C7: a watch is left on %s", s.watches[i].path);
    for (unsigned i = 0; i < TRANSACTIONS_MAX; i++)
        if (s.transactions[i].id && s.wrong_type != XS_TRANSACTION_START &&
            s.wrong_type != XS_TRANSACTION_END)
            model_violation("C7: transaction %u is left", s.transactions[i].id);
    if (ring->req_prod != ring->req_cons || ring->rsp_prod != ring->rsp_cons ||
        s.out_at != s.out_end || s.have != 0)
        model_violation("C7: XenStore's ring is not idle");
    if (!s.excused)
        check_keys();
}

void store_plug(void)
{
    volatile struct xenstore_domain_interface *ring = machine_store();
    uint32_t at = xhost_options.ring_start;

    s.conflicts = xhost_options.conflicts;
    s.next_transaction = 7;
    set(HOME, "", false);
    set(HOME "/domid", "5", false);
    set(HOME "/name", "guest", false);
    set(HOME "/data", "", true);
    set(HOME "/device", "", false);
    ring->req_prod = ring->req_cons = ring->rsp_prod = ring->rsp_cons = at;
    if (xhost_options.reconnection)
        ring->server_features = XENSTORE_SERVER_FEATURE_RECONNECTION;
    if (xhost_options.relic) {
        reply(XS_READ, 7, 0, "5", 1);
        reply(XS_WATCH_EVENT, 0, 0, "device/vbd\0state", 17);
        reply(XS_ERROR, 8, 0, "ENOENT", 7);
    }
    if (xhost_options.half_answer)
        append("in the middle of it", 19);
    if (xhost_options.half_request) {
        /* It has announced 30 bytes more than it has sent. */
        s.header = (struct xsd_sockmsg){.type = XS_READ, .req_id = 9, .len = 40};
        memcpy(s.payload, "device/vbd", 10);
        s.have = (uint32_t)sizeof(s.header) + 10;
        s.spoilt = true;
    }
    if (s.out_at != s.out_end) {
        write_out(ring);
        s.spoilt |= xhost_options.half_answer;
    }
    if (xhost_options.store_us == XHOST_NEVER)
        s.dead = s.spoilt = true;
}

void store_unplug(void)
{
    forget_connection();
    for (size_t i = 0; i < s.node_count; i++) {
        free(s.nodes[i].path);
        free(s.nodes[i].value);
    }
    for (size_t i = 0; i < s.found_count; i++) {
        free(s.found[i].path);
        free(s.found[i].value);
    }
    free(s.nodes);
    free(s.found);
    memset(&s, 0, offsetof(__typeof__(s), out));
    s.out_at = s.out_end = 0;
    s.wrong_type = 0;
    s.wrong_path[0] = 0;
    s.conflicts = 0;
}
