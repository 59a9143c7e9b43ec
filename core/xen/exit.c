// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "core/xen/exit.h"

const char *const front_keys[KEYS] = {
    [KEY_RING_REF] = "ring-ref",           [KEY_RING_PAGE_ORDER] = "ring-page-order",
    [KEY_RING_REF0] = "ring-ref0",         [KEY_RING_REF1] = "ring-ref1",
    [KEY_EVENT_CHANNEL] = "event-channel", [KEY_PROTOCOL] = "protocol",
};

/* An earlier end for one step of several, so that one that takes all its time leaves as much for
 * all that come after it. */
static struct poor_door half_of(const struct poor_door *door)
{
    uint64_t now = clock_ticks(), left = door->deadline - now;

    return (struct poor_door){.deadline = (int64_t)left > 0 ? now + left / 2 : door->deadline};
}

/* ---- Backends' states ---- */

static void take_state(struct xen_front *front, enum answer answer, const struct store *store)
{
    uint64_t state;

    /* No such key, or nothing there that we may look at: the backend is gone. Any other refusal,
     * and a state that is none, is no news. */
    if (answer == ANSWER_REFUSED && (store_says(store, "ENOENT") || store_says(store, "EACCES")))
        front->backend_state = XenbusStateUnknown;
    else if (answer == ANSWER_OK &&
             store_parse_number(store->payload, store->header.len, XenbusStateReconfigured, &state))
        front->backend_state = (unsigned)state;
}

void fronts_look(struct xen *xen, const struct poor_door *door, const uint64_t *fired)
{
    struct xen_front *asked[STORE_AHEAD_MAX];
    struct xen_front *front = xen->fronts;

    while (front && xen->store.in_step) {
        unsigned count = 0;
        for (; front && count < STORE_AHEAD_MAX; front = front->next) {
            if (!front->waiting || (fired && !(*fired >> front->watch & 1)))
                continue;
            if (!store_ask_read(&xen->store, door, front->backend, "state"))
                return;
            asked[count++] = front;
        }
        for (unsigned i = 0; i < count; i++)
            take_state(asked[i], store_answer(&xen->store, door), &xen->store);
    }
}

bool fronts_wait(struct xen *xen, const struct poor_door *door, uint32_t states)
{
    struct store *store = &xen->store;
    uint64_t fired, every = (door->deadline - clock_ticks()) / 16, look_at = clock_ticks() + every;

    /* Everybody once; later those whose watch has told of something, and now and then everybody, in
     * case there is no watch. */
    fronts_look(xen, door, NULL);
    for (;;) {
        bool all = true;
        uint64_t ours = 0;
        for (struct xen_front *front = xen->fronts; front; front = front->next) {
            if (front->waiting && states & STATE_BIT(front->backend_state))
                front->waiting = false;
            all &= !front->waiting;
            if (front->waiting && front->watch)
                ours |= 1ull << front->watch;
        }
        if (all)
            return true;
        if (!store->in_step || deadline_passed(door->deadline))
            return false;
        store_listen(store);
        fired = store->fired & ours;
        store->fired &= ~ours;
        if (fired) {
            fronts_look(xen, door, &fired);
        } else if (deadline_passed(look_at)) {
            fronts_look(xen, door, NULL);
            look_at = clock_ticks() + every;
        } else {
            event_wait(store->events, store->port, look_at);
        }
    }
}

bool front_ask_state(struct xen *xen, const struct poor_door *door, const struct xen_front *front,
                     unsigned state)
{
    char text[STORE_DIGITS];

    store_put_number(text, state);
    return store_ask_write(&xen->store, door, 0, front->path, "state", text);
}

/* ---- Closing ---- */

/* Waits for what is in flight. What comes back is not looked at: whoever wanted it is not told. */
static void drain(struct xen *xen, const struct poor_door *door, struct xen_front *front)
{
    struct blkif_sring *ring = front->ring;

    if (!ring)
        return;
    /* Wake us up at the last one. It may come before this is seen, so look after it. */
    __atomic_store_n(&ring->rsp_event, front->produced, __ATOMIC_SEQ_CST);
    for (;;) {
        event_clear(&xen->events, front->port);
        if (__atomic_load_n(&ring->rsp_prod, __ATOMIC_ACQUIRE) == front->produced ||
            deadline_passed(door->deadline))
            return;
        event_wait(&xen->events, front->port, door->deadline);
    }
}

/* One step of the handshake, for all: our state, then theirs. */
static void step(struct xen *xen, const struct poor_door *door, unsigned state, uint32_t states)
{
    struct poor_door part = half_of(door);

    for (struct xen_front *front = xen->fronts; front; front = front->next) {
        front->waiting = false;
        if (!front->closing || !front->told)
            continue;
        front_ask_state(xen, &part, front, state);
        front->waiting = !front->silent;
    }
    store_settle(&xen->store, &part);
    fronts_wait(xen, &part, states);
    for (struct xen_front *front = xen->fronts; front; front = front->next) {
        /* Nothing is heard of anybody where XenStore itself is lost. */
        front->silent |= front->waiting && xen->store.in_step;
        front->waiting = false;
    }
}

/* What a backend had from us is taken back. Whether none of it is ours any more. */
static bool disconnect(struct xen *xen, struct xen_front *front)
{
    bool done = true;

    /* Others' buffers first, in case that there is not enough to exchange all for. */
    for (unsigned i = 0; i < front->flight_count; i++)
        done &= grants_take_back(&xen->grants, &front->flights[i]);
    done &= grants_take_back(&xen->grants, &front->shared);
    event_close(&xen->events, front->port);
    front->port = 0;
    front->ring = NULL;
    front->produced = 0;
    return done;
}

unsigned watch_number(struct xen *xen)
{
    for (unsigned number = WATCH_LIST + 1; number < STORE_WATCHES_MAX; number++)
        if (!(xen->watches >> number & 1)) {
            xen->watches |= 1ull << number;
            return number;
        }
    return 0;
}

void front_end_watch(struct xen *xen, const struct poor_door *door, struct xen_front *front)
{
    if (front->watch == 0)
        return;
    store_ask_watch(&xen->store, door, false, front->backend, "state", front->watch);
    xen->watches &= ~(1ull << front->watch);
    xen->store.fired &= ~(1ull << front->watch);
    front->watch = 0;
}

/* Until no backend has anything of ours any more, or has anything to say. */
static void shake_hands(struct xen *xen, const struct poor_door *door)
{
    struct poor_door draining = half_of(door);
    struct xen_front *front;

    for (front = xen->fronts; front; front = front->next)
        if (front->closing)
            drain(xen, &draining, front);
    step(xen, door, XenbusStateClosing,
         STATE_BIT(XenbusStateUnknown) | STATE_BIT(XenbusStateClosing) |
             STATE_BIT(XenbusStateClosed));
    /* Some go on from Closed to InitWait by themselves, before anybody can see that they were
     * Closed; all that are waited for here have left Connected. */
    step(xen, door, XenbusStateClosed,
         STATE_BIT(XenbusStateUnknown) | STATE_BIT(XenbusStateClosed) |
             STATE_BIT(XenbusStateInitWait));
}

/* And then, until all is as found. */
static void let_go(struct xen *xen, const struct poor_door *door)
{
    struct poor_door part = half_of(door);
    struct xen_front *front;

    for (front = xen->fronts; front; front = front->next) {
        if (!front->closing)
            continue;
        if (!disconnect(xen, front))
            front->state = FRONT_STUCK;
        else if (front->state == FRONT_LIVE)
            front->state = FRONT_DORMANT;
        for (unsigned key = 0; key < KEYS; key++)
            if (front->keys & 1u << key)
                store_ask_remove(&xen->store, &part, front->path, front_keys[key]);
        /* A disk that has been unplugged is nobody's any more. */
        if (front->leaving || front->backend_state == XenbusStateUnknown)
            front->told = false;
    }
    step(xen, door, XenbusStateInitialising,
         STATE_BIT(XenbusStateUnknown) | STATE_BIT(XenbusStateInitWait));
    part = half_of(door);
    for (front = xen->fronts; front; front = front->next)
        if (front->closing)
            front_end_watch(xen, &part, front);
    store_settle(&xen->store, &part);
    for (front = xen->fronts; front && xen->store.in_step; front = front->next)
        if (front->closing) {
            front->closing = front->told = false;
            front->keys = 0;
        }
}

void fronts_close(struct xen *xen, const struct poor_door *door)
{
    shake_hands(xen, door);
    let_go(xen, door);
}

/* ---- The exit ---- */

/* A ring that is out of step is made anew, where the server offers that. True if it was: no watch
 * is left then, and nobody knows how much of what was said has been heard. */
static bool regain(struct xen *xen, const struct poor_door *door)
{
    struct poor_door part = half_of(door);

    if (xen->store.in_step || !store_reconnect(&xen->store, &part))
        return false;
    xen->watches = 0;
    for (struct xen_front *front = xen->fronts; front; front = front->next)
        front->watch = 0;
    return true;
}

void fronts_quiesce(struct xen *xen, const struct poor_door *door)
{
    bool any = false;

    for (struct xen_front *front = xen->fronts; front; front = front->next) {
        /* One that was given up while XenStore was lost may still have to be told. */
        front->closing = xen->live && (front->state == FRONT_LIVE || front->told || front->keys);
        any |= front->closing;
    }
    if (!any)
        return;
    regain(xen, door);
    shake_hands(xen, door);
    if (regain(xen, door))
        shake_hands(xen, door);
    let_go(xen, door);
    if (regain(xen, door)) {
        shake_hands(xen, door);
        let_go(xen, door);
    }
}

void xen_quiesce(struct xen *xen, const struct poor_door *door)
{
    struct poor_door part;

    if (!xen->live)
        return;
    fronts_quiesce(xen, door);
    regain(xen, door);
    part = half_of(door);
    if (xen->watches & 1ull << WATCH_LIST)
        store_ask_watch(&xen->store, &part, false, "device/vbd", NULL, WATCH_LIST);
    xen->watches = 0;
    store_settle(&xen->store, &part);
    regain(xen, door);
    store_listen(&xen->store);
    grants_stop(&xen->grants);
    events_stop(&xen->events);
    xen->store.in_step = false;
    xen->live = false;
}
