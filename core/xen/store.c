// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "core/xen/store.h"

/* Requests of former owners may still be answered; ours have numbers that none is likely to have
 * used. */
#define FIRST_ID 0xba700000u

_Static_assert(offsetof(struct xenstore_domain_interface, server_features) == 2064, "the ring");

static void lose(struct store *store, const char *why)
{
    store->in_step = false;
    if (!store->lost)
        store->lost = why;
}

/* As many messages as the ring holds of the shortest. If there are more, they were sent while these
 * were taken in, with an event of their own; and whoever goes on like this does not mean to end. */
#define LISTEN_MAX (XENSTORE_RING_SIZE / sizeof(struct xsd_sockmsg))

/* ---- Bytes ---- */

/* How much may be moved now, from what the other side says. Its index is read once (C9). */
static uint32_t room(struct store *store, uint32_t distance)
{
    if (distance <= XENSTORE_RING_SIZE)
        return distance;
    lose(store, "XenStore's ring makes no sense");
    return 0;
}

static uint32_t load(const volatile uint32_t *index)
{
    return __atomic_load_n(index, __ATOMIC_ACQUIRE);
}

/* Bytes of the other side's that can be taken, and room of ours that can be filled. */
static uint32_t incoming(struct store *store)
{
    return room(store, load(&store->ring->rsp_prod) - store->ring->rsp_cons);
}

static uint32_t outgoing(struct store *store)
{
    return room(store, XENSTORE_RING_SIZE - (store->ring->req_prod - load(&store->ring->req_cons)));
}

static void take(struct store *store, void *to, uint32_t count)
{
    uint32_t at = store->ring->rsp_cons;

    for (uint32_t i = 0; i < count; i++)
        ((char *)to)[i] = store->ring->rsp[MASK_XENSTORE_IDX(at + i)];
    /* The room is theirs as soon as the index says so. */
    __atomic_store_n(&store->ring->rsp_cons, at + count, __ATOMIC_RELEASE);
}

/* ---- Messages coming in ---- */

static bool complete(const struct store *store)
{
    return store->have >= sizeof(store->header) &&
           store->have == sizeof(store->header) + store->header.len;
}

/* Takes in more of the message that is coming. Whether it is all there. */
static bool receive(struct store *store)
{
    bool took = false;

    while (store->in_step && !complete(store)) {
        uint32_t ready = incoming(store), wanted;
        char *to;
        if (ready == 0)
            break;
        if (store->have < sizeof(store->header)) {
            to = (char *)&store->header + store->have;
            wanted = (uint32_t)sizeof(store->header) - store->have;
        } else {
            uint32_t got = store->have - (uint32_t)sizeof(store->header);
            to = store->payload + got;
            wanted = store->header.len - got;
        }
        if (wanted > ready)
            wanted = ready;
        take(store, to, wanted);
        took = true;
        store->have += wanted;
        if (store->have == sizeof(store->header) && store->header.len > XENSTORE_PAYLOAD_MAX)
            lose(store, "XenStore sends a message longer than any can be");
    }
    /* It may have been waiting for the room. */
    if (took)
        event_send(store->port);
    if (!store->in_step || !complete(store))
        return false;
    store->payload[store->header.len] = 0;
    return true;
}

/* A message that has come by itself: a path, a zero, our token, a zero. */
static bool take_event(struct store *store)
{
    uint64_t watch;

    if (store->header.type != XS_WATCH_EVENT)
        return false;
    store->have = 0;
    for (uint32_t i = 0; i < store->header.len; i++) {
        if (store->payload[i] != 0)
            continue;
        uint32_t token = i + 1, end = token;
        while (end < store->header.len && store->payload[end] != 0)
            end++;
        if (store_parse_number(store->payload + token, end - token, STORE_WATCHES_MAX - 1, &watch))
            store->fired |= 1ull << watch;
        break;
    }
    return true;
}

void store_listen(struct store *store)
{
    event_clear(store->events, store->port);
    for (unsigned count = 0; count < LISTEN_MAX && receive(store); count++)
        /* An answer that nobody waits for is one that somebody gave up on. */
        if (!take_event(store)) {
            if (store->asked != store->answered)
                break;
            store->have = 0;
        }
}

enum answer store_answer(struct store *store, const struct poor_door *door)
{
    uint32_t id = FIRST_ID + store->answered;

    if (!store->in_step || store->asked == store->answered)
        return ANSWER_LOST;
    for (;;) {
        event_clear(store->events, store->port);
        /* Neither events nor answers to others may go on for ever. */
        for (unsigned count = 0; count < LISTEN_MAX && receive(store); count++) {
            if (take_event(store))
                continue;
            store->have = 0;
            if (store->header.req_id != id)
                continue; /* a former owner's */
            store->answered++;
            return store->header.type == XS_ERROR ? ANSWER_REFUSED : ANSWER_OK;
        }
        if (!store->in_step)
            return ANSWER_LOST;
        if (deadline_passed(door->deadline)) {
            lose(store, "XenStore does not answer");
            return ANSWER_LOST;
        }
        event_wait(store->events, store->port, door->deadline);
    }
}

bool store_says(const struct store *store, const char *text)
{
    uint32_t at = 0;

    while (text[at] != 0 && store->payload[at] == text[at])
        at++;
    return text[at] == 0 && store->payload[at] == 0;
}

bool store_settle(struct store *store, const struct poor_door *door)
{
    bool good = true;

    while (store->in_step && store->answered != store->asked)
        good &= store_answer(store, door) == ANSWER_OK;
    return good && store->in_step;
}

/* ---- And going out ---- */

static bool put(struct store *store, const struct poor_door *door, const void *bytes, size_t count)
{
    const char *from = bytes;

    while (count > 0) {
        uint32_t free = outgoing(store);
        if (!store->in_step)
            return false;
        if (free == 0) {
            if (deadline_passed(door->deadline)) {
                lose(store, "XenStore does not read what it is asked");
                return false;
            }
            event_send(store->port);
            event_clear(store->events, store->port);
            if (outgoing(store) == 0)
                event_wait(store->events, store->port, door->deadline);
            continue;
        }
        uint32_t at = store->ring->req_prod, part = free < count ? free : (uint32_t)count;
        for (uint32_t i = 0; i < part; i++)
            store->ring->req[MASK_XENSTORE_IDX(at + i)] = from[i];
        /* What the index covers is read as soon as the index moves. */
        __atomic_store_n(&store->ring->req_prod, at + part, __ATOMIC_RELEASE);
        from += part;
        count -= part;
    }
    return true;
}

bool store_ask(struct store *store, const struct poor_door *door, uint32_t type,
               uint32_t transaction, const struct store_piece *pieces, size_t count)
{
    struct xsd_sockmsg header = {
        .type = type, .req_id = FIRST_ID + store->asked, .tx_id = transaction};

    if (store->asked - store->answered >= STORE_AHEAD_MAX)
        store_answer(store, door);
    if (!store->in_step)
        return false;
    for (size_t i = 0; i < count; i++)
        header.len += (uint32_t)pieces[i].count;
    bool sent = put(store, door, &header, sizeof(header));
    for (size_t i = 0; sent && i < count; i++)
        sent = put(store, door, pieces[i].bytes, pieces[i].count);
    if (!sent)
        return false;
    store->asked++;
    event_send(store->port);
    return true;
}

/* ---- Coming and going ---- */

bool store_reconnect(struct store *store, const struct poor_door *door)
{
    volatile struct xenstore_domain_interface *ring = store->ring;

    if (!(ring->server_features & XENSTORE_SERVER_FEATURE_RECONNECTION))
        return false;
    /* The server empties the ring, then says that it has. */
    __atomic_store_n(&ring->connection, XENSTORE_RECONNECT, __ATOMIC_SEQ_CST);
    event_send(store->port);
    for (;;) {
        event_clear(store->events, store->port);
        if (load(&ring->connection) == XENSTORE_CONNECTED)
            break;
        if (deadline_passed(door->deadline))
            return false;
        event_wait(store->events, store->port, door->deadline);
    }
    store->have = 0;
    store->answered = store->asked;
    store->fired = 0;
    store->in_step = true;
    store->lost = NULL;
    return true;
}

bool store_start(struct store *store, volatile struct xenstore_domain_interface *ring,
                 const struct events *events, uint32_t port, const struct poor_door *door)
{
    store->ring = ring;
    store->events = events;
    store->port = port;
    store->in_step = true;
    store->lost = NULL;
    store->fired = 0;
    store->asked = store->answered = 0;
    store->have = 0;
    /* Any question shows whether the two are in step: this one everybody may ask. */
    char path[] = "domid";
    struct store_piece piece = {path, sizeof(path)};
    return store_ask(store, door, XS_READ, 0, &piece, 1) &&
           store_answer(store, door) != ANSWER_LOST;
}

bool store_idle(const struct store *store)
{
    return load(&store->ring->rsp_prod) == store->ring->rsp_cons &&
           load(&store->ring->req_cons) == store->ring->req_prod;
}

/* ---- Requests ---- */

static size_t length(const char *text)
{
    size_t count = 0;

    while (text[count])
        count++;
    return count;
}

bool store_path(char path[STORE_PATH_MAX], const char *folder, const char *name)
{
    size_t at = length(folder), more = name ? length(name) + 1 : 0;

    if (at + more + 1 > STORE_PATH_MAX)
        return false;
    __builtin_memcpy(path, folder, at);
    if (name) {
        path[at] = '/';
        __builtin_memcpy(path + at + 1, name, more - 1);
    }
    path[at + more] = 0;
    return true;
}

/* A request about a key: its path with its zero, then perhaps something more. */
static bool ask(struct store *store, const struct poor_door *door, uint32_t type,
                uint32_t transaction, const char *folder, const char *name, const char *more,
                size_t more_count)
{
    char path[STORE_PATH_MAX];

    if (!store_path(path, folder, name)) {
        lose(store, "a path is longer than any that is used");
        return false;
    }
    struct store_piece pieces[] = {{path, length(path) + 1}, {more, more_count}};
    return store_ask(store, door, type, transaction, pieces, more_count ? 2 : 1);
}

bool store_ask_read(struct store *store, const struct poor_door *door, const char *folder,
                    const char *name)
{
    return ask(store, door, XS_READ, 0, folder, name, NULL, 0);
}

bool store_ask_write(struct store *store, const struct poor_door *door, uint32_t transaction,
                     const char *folder, const char *name, const char *value)
{
    return ask(store, door, XS_WRITE, transaction, folder, name, value, length(value));
}

bool store_ask_remove(struct store *store, const struct poor_door *door, const char *folder,
                      const char *name)
{
    return ask(store, door, XS_RM, 0, folder, name, NULL, 0);
}

bool store_ask_watch(struct store *store, const struct poor_door *door, bool begin,
                     const char *folder, const char *name, unsigned watch)
{
    char token[STORE_DIGITS];
    char *end = store_put_number(token, watch);
    return ask(store, door, begin ? XS_WATCH : XS_UNWATCH, 0, folder, name, token,
               (size_t)(end - token) + 1);
}

enum answer store_read(struct store *store, const struct poor_door *door, const char *folder,
                       const char *name, char *value, size_t size)
{
    value[0] = 0;
    if (!store_ask_read(store, door, folder, name))
        return ANSWER_LOST;
    enum answer answer = store_answer(store, door);
    if (answer != ANSWER_OK)
        return answer;
    /* A zero in the middle would make two texts of it. */
    for (uint32_t i = 0; i < store->header.len; i++)
        if (store->payload[i] == 0)
            return ANSWER_REFUSED;
    if (store->header.len >= size)
        return ANSWER_REFUSED;
    __builtin_memcpy(value, store->payload, store->header.len + 1);
    return ANSWER_OK;
}

enum answer store_read_number(struct store *store, const struct poor_door *door, const char *folder,
                              const char *name, uint64_t most, uint64_t *number)
{
    if (!store_ask_read(store, door, folder, name))
        return ANSWER_LOST;
    enum answer answer = store_answer(store, door);
    if (answer == ANSWER_OK && !store_parse_number(store->payload, store->header.len, most, number))
        answer = ANSWER_REFUSED;
    return answer;
}

char *store_put_number(char *at, uint64_t number)
{
    char digits[STORE_DIGITS];
    unsigned count = 0;

    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    while (count > 0)
        *at++ = digits[--count];
    *at = 0;
    return at;
}

bool store_parse_number(const char *text, size_t count, uint64_t most, uint64_t *number)
{
    uint64_t value = 0;

    if (count == 0)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(text[i] - '0');
        if (digit > most || value > (most - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *number = value;
    return true;
}
