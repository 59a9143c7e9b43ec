/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "audit/xen/findings.h"
#include "audit/xen/store.h"
#include "audit/xen/text.h"
#include "audit/xen/watches.h"

#include <xen/event_channel.h>
#include <xen/sched.h>

enum {
    ANSWER_US = 5 * 1000 * 1000,
    ALL_US = 60 * 1000 * 1000,
};

/* What XenStore reads and writes must look here as it looks there. */
_Static_assert(offsetof(struct xenstore_domain_interface, error) == 2072, "XenStore's ring");

/* ---- The ring, looked at ---- */

static struct {
    uint32_t req_cons, req_prod, rsp_cons, rsp_prod;
    uint32_t features, connection, error;
} seen;

void store_look(void)
{
    seen.req_cons = xen.ring->req_cons;
    seen.req_prod = xen.ring->req_prod;
    seen.rsp_cons = xen.ring->rsp_cons;
    seen.rsp_prod = xen.ring->rsp_prod;
    seen.features = xen.ring->server_features;
    seen.connection = xen.ring->connection;
    seen.error = xen.ring->error;
}

/* What is wrong with a ring that ought to be idle, or NULL. */
static const char *not_idle(void)
{
    uint32_t asked = seen.req_prod - seen.req_cons, answered = seen.rsp_prod - seen.rsp_cons;

    if (asked > XENSTORE_RING_SIZE || answered > XENSTORE_RING_SIZE)
        return "the XenStore ring's indexes cannot be true";
    if ((seen.features & XENSTORE_SERVER_FEATURE_ERROR) != 0 && seen.error != XENSTORE_ERROR_NONE)
        return "XenStore says that the ring was used wrongly";
    if ((seen.features & XENSTORE_SERVER_FEATURE_RECONNECTION) != 0 &&
        seen.connection != XENSTORE_CONNECTED)
        return "the XenStore ring is being reconnected";
    if (asked > 0 && answered > 0)
        return "the XenStore ring holds requests and answers that nobody has read";
    if (asked > 0)
        return "the XenStore ring holds requests that XenStore has not read";
    if (answered > 0)
        return "the XenStore ring holds answers or watch events that nobody has read";
    return NULL;
}

void store_tell(const char *what, bool idle)
{
    const char *wrong = NULL;
    enum truth ok = NEITHER;

    if (idle) {
        wrong = not_idle();
        ok = wrong == NULL ? RIGHT : WRONG;
    }
    say(domain_name, what, ok,
        "requests 0x%x to 0x%x, answers 0x%x to 0x%x, features 0x%x, connection %u, error %u",
        seen.req_cons, seen.req_prod, seen.rsp_cons, seen.rsp_prod, seen.features, seen.connection,
        seen.error);
    if (wrong != NULL)
        reason(&domain_wrong, "%s", wrong);
}

/* ---- The ring, used ---- */

struct store store;

static uint64_t start, asked; /* TSC values, for the bounds */
static uint32_t req_prod, rsp_cons, request_count;

static void store_lose(const char *why)
{
    if (store.lost == NULL)
        store.lost = why;
}

/* Gives the CPU to XenStore for a moment. False: the time is over. */
static bool store_wait(void)
{
    uint64_t now = app_tsc();

    if (app_us(now - asked) > ANSWER_US || app_us(now - start) > ALL_US) {
        store.silent = true;
        store_lose("XenStore does not answer");
        return false;
    }
    hypercall(__HYPERVISOR_sched_op, SCHEDOP_yield, NULL, 0);
    return true;
}

static bool store_notify(void)
{
    static struct evtchn_send send;

    send.port = xen.store_port;
    if (hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_send, &send, 0) == 0)
        return true;
    store_lose("XenStore's event channel does not work");
    return false;
}

/* How far our index may go: up to XenStore's, or by so many bytes ahead of it. Waits until that is
 * anywhere; 0 when it cannot be. */
static uint32_t store_ready(const volatile uint32_t *theirs, uint32_t ahead, uint32_t ours,
                            const char *untrue)
{
    for (;;) {
        uint32_t ready = *theirs + ahead - ours;

        if (ready > XENSTORE_RING_SIZE) {
            store_lose(untrue);
            return 0;
        }
        if (ready > 0)
            return ready;
        if (!store_wait())
            return 0;
    }
}

static bool store_put(const void *from, size_t size)
{
    const char *bytes = from;

    while (size > 0) {
        uint32_t room = store_ready(&xen.ring->req_cons, XENSTORE_RING_SIZE, req_prod,
                                    "XenStore's index for requests cannot be true");

        if (room == 0)
            return false;
        for (; room > 0 && size > 0; room--, size--)
            xen.ring->req[MASK_XENSTORE_IDX(req_prod++)] = *bytes++;
        __asm__ volatile("" : : : "memory");
        xen.ring->req_prod = req_prod;
        if (!store_notify())
            return false;
    }
    return true;
}

static bool store_get(void *to, size_t size)
{
    char *bytes = to;

    while (size > 0) {
        uint32_t ready = store_ready(&xen.ring->rsp_prod, 0, rsp_cons,
                                     "XenStore's index for answers cannot be true");

        if (ready == 0)
            return false;
        __asm__ volatile("" : : : "memory");
        for (; ready > 0 && size > 0; ready--, size--)
            *bytes++ = xen.ring->rsp[MASK_XENSTORE_IDX(rsp_cons++)];
        __asm__ volatile("" : : : "memory");
        xen.ring->rsp_cons = rsp_cons;
        /* It may be waiting for room. */
        if (!store_notify())
            return false;
    }
    return true;
}

/* The next message, into store.header and store.payload. */
static bool store_message(void)
{
    if (!store_get(&store.header, sizeof(store.header)))
        return false;
    if (store.header.len > XENSTORE_PAYLOAD_MAX || store.header.type >= XS_TYPE_COUNT) {
        store_lose("what XenStore sends is no message: the ring is out of step");
        return false;
    }
    if (!store_get(store.payload, store.header.len))
        return false;
    store.payload[store.header.len] = '\0';
    return true;
}

/* ---- Questions ---- */

enum answer store_ask(uint32_t type, const void *request, size_t size)
{
    struct xsd_sockmsg header = {.type = type, .len = (uint32_t)size};

    asked = app_tsc();
    if (store.lost == NULL && app_us(asked - start) > ALL_US)
        store_lose("XenStore takes too long over its answers");
    if (store.lost != NULL)
        return LOST;
    /* Numbers that no former owner is likely to have used, so that its answers are told apart. */
    header.req_id = 0xba700000u + ++request_count;
    if (!store_put(&header, sizeof(header)) || !store_put(request, size))
        return LOST;
    while (store_message()) {
        if (store.header.type == XS_WATCH_EVENT) {
            watches_event();
        } else if (store.header.req_id != header.req_id) {
            store.stale++;
        } else if (store.header.type == XS_ERROR) {
            return REFUSED;
        } else if (store.header.type == type) {
            return ANSWERED;
        } else {
            store_lose("XenStore answers another question than it was asked");
            return LOST;
        }
        /* Whoever talks without end, and never to the point, has his time as well. */
        if (app_us(app_tsc() - asked) > ANSWER_US) {
            store_lose("XenStore sends much, but not the answer");
            return LOST;
        }
    }
    return LOST;
}

enum answer store_ask_path(uint32_t type, const char *path, const char *more, size_t size)
{
    static char request[XENSTORE_PAYLOAD_MAX];
    size_t length = strlen(path) + 1;

    if (length + size > sizeof(request)) {
        store_lose("a path is too long to be asked for");
        return LOST;
    }
    memcpy(request, path, length);
    if (size > 0)
        memcpy(request + length, more, size);
    return store_ask(type, request, length + size);
}

bool store_read(const char *path, char *value, size_t size)
{
    value[0] = '\0';
    if (store_ask_path(XS_READ, path, NULL, 0) != ANSWERED)
        return false;
    printable(value, size, store.payload, store.header.len);
    return true;
}

bool store_list(const char *path, struct listing *list)
{
    list->size = list->at = 0;
    if (store_ask_path(XS_DIRECTORY, path, NULL, 0) != ANSWERED)
        return false;
    memcpy(list->text, store.payload, store.header.len + 1);
    list->size = store.header.len;
    return true;
}

const char *listing_next(struct listing *list)
{
    const char *name = list->text + list->at;

    if (list->at >= list->size)
        return NULL;
    list->at += strlen(name) + 1;
    if (name_valid(name, NAME_MAX, false))
        return name;
    store_lose("XenStore lists a name that cannot be one");
    return NULL;
}

/* Has the server start over with an empty ring, where it offers that. */
static bool store_reconnect(void)
{
    if ((xen.ring->server_features & XENSTORE_SERVER_FEATURE_RECONNECTION) == 0)
        return false;
    store.lost = NULL;
    store.silent = false;
    asked = app_tsc();
    xen.ring->connection = XENSTORE_RECONNECT;
    if (!store_notify())
        return false;
    while (xen.ring->connection != XENSTORE_CONNECTED)
        if (!store_wait())
            return false;
    req_prod = xen.ring->req_prod;
    rsp_cons = xen.ring->rsp_cons;
    store.reconnected = true;
    return true;
}

void store_take(void)
{
    start = app_tsc();
    req_prod = xen.ring->req_prod;
    rsp_cons = xen.ring->rsp_cons;
    /* Any question will do to see whether it answers. */
    if (store_ask_path(XS_READ, "domid", NULL, 0) != LOST)
        return;
    say(domain_name, "ring-taken", WRONG, "%s", store.lost);
    /* Silence of a XenStore that the firmware has never asked for anything is not its doing. */
    bool untouched = seen.req_prod == 0 && seen.rsp_cons == 0;

    if (store.silent && untouched)
        reason(&domain_unseen, "%s", store.lost);
    else if (store.silent)
        reason(&domain_wrong, "the XenStore ring, which the firmware has used, is dead");
    else
        reason(&domain_wrong, "%s", store.lost);
    if (store_reconnect()) {
        say(domain_name, "ring-taken", NEITHER, "reconnected; with that, all watches are gone");
        store_ask_path(XS_READ, "domid", NULL, 0);
    }
}
