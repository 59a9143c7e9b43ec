// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * How a domain's frontends are closed, and everything that the driver has of Xen given back: rules
 * C3 to C7 for Xen. With store.c, grants.c and events.c this is all of core/xen that runs inside
 * ExitBootServices; they know the poor door only.
 *
 * A frontend and its backend shake hands through a `state` key of each in XenStore
 * (xen/io/xenbus.h), in the end like this:
 *
 *      frontend        Closing      Closed                  Initialising
 *      backend                Closing     Closed                        InitWait
 *
 * A backend that says Closed has unmapped everything. One that says InitWait is as it was when the
 * domain began. Each step costs both sides a turn on the CPU; so all frontends take each step
 * together.
 */
#pragma once

#include "core/xen/grants.h"
#include "core/xen/store.h"
#include <xen/io/blkif.h>
#include <xen/io/xenbus.h>

/* Ring pages, one or two: 32 requests each. */
#ifndef FRONT_RING_PAGES
#define FRONT_RING_PAGES 2u
#endif

enum front_state {
    FRONT_DORMANT, /* as found, or given up: nothing to do */
    FRONT_LIVE,    /* begun: keys are written, pages granted */
    FRONT_STUCK,   /* the backend has pages that could not be taken from it (C5) */
};

/* Keys that a frontend writes, a bit each in xen_front.keys. */
enum front_key {
    KEY_RING_REF,
    KEY_RING_PAGE_ORDER,
    KEY_RING_REF0,
    KEY_RING_REF1,
    KEY_EVENT_CHANNEL,
    KEY_PROTOCOL,
    KEYS,
};
extern const char *const front_keys[KEYS];

struct xen_front {
    struct xen_front *next; /* of the same domain */
    enum front_state state;
    char path[STORE_PATH_MAX];    /* "device/vbd/51776" */
    char backend[STORE_PATH_MAX]; /* the backend's path */
    domid_t backend_domain;
    unsigned watch;         /* the number of the watch on the backend's state; 0: none */
    unsigned backend_state; /* as last read: XenbusState…, Unknown where there is no such key */
    bool told;              /* the backend has been told to connect: it has to be told to stop */
    bool leaving;           /* it was the backend that began to close: nobody is to come back */
    bool waiting;           /* … for its state to become another one */
    bool silent;            /* it has not done its part in time: do not wait for it again */
    bool closing;           /* among those that are being closed just now */
    uint32_t keys;          /* a bit for each key that was written */

    uint32_t port;            /* event channel; 0: none */
    struct blkif_sring *ring; /* NULL: not connected */
    uint32_t produced;        /* requests that were put into the ring in all */

    grant_list shared;   /* what is granted as long as it is connected */
    grant_list *flights; /* what is granted to each piece in flight */
    unsigned flight_count;
};

/* What a domain has one of. */
struct xen {
    struct events events;
    struct grants grants;
    struct store store;
    struct xen_front *fronts;
    uint64_t watches;   /* a bit for each number that is taken */
    uint32_t in_flight; /* pages that backends may have mapped for requests */
    bool live;          /* the ring, the table and the page are ours */
};

/* The watch on the list of disks. */
#define WATCH_LIST 0u

#define STATE_BIT(state) (1u << (state))

/* Sends the question what the states of all backends are whose frontends are `waiting` and, if
 * `fired` is not NULL, have their bit in it; and takes the answers. */
void fronts_look(struct xen *xen, const struct poor_door *door, const uint64_t *fired);

/* Waits until the backends of all that are `waiting` are in one of the `states` (STATE_BIT). Those
 * that are not by the deadline stay `waiting`. */
bool fronts_wait(struct xen *xen, const struct poor_door *door, uint32_t states);

/* Writes a frontend's state, a XenbusState…; the answer is still to come. */
bool front_ask_state(struct xen *xen, const struct poor_door *door, const struct xen_front *front,
                     unsigned state);

/* Takes a number for a new watch, 0 if there are no more; and ends the watch that a front has, the
 * answer being still to come. */
unsigned watch_number(struct xen *xen);
void front_end_watch(struct xen *xen, const struct poor_door *door, struct xen_front *front);

/*
 * Closes the frontends that are `closing`, all together: drains them, shakes hands, ends their
 * grants, closes their channels, removes their keys, and puts them back to Initialising. Pages that
 * a backend will not let go of are exchanged for others (grants.h). Takes no longer than the door's
 * deadline. Afterwards each of them is dormant; or stuck, if Xen did not exchange its pages: then
 * its memory has to stay (C5).
 */
void fronts_close(struct xen *xen, const struct poor_door *door);

/* The exit of any one frontend: that of all of them. May be called again (C3). */
void fronts_quiesce(struct xen *xen, const struct poor_door *door);

/*
 * The exit of the domain: all frontends that are left, then what they shared: watches, XenStore's
 * ring idle and in step, the grant table and the shared-info page away. May be called again (C3).
 */
void xen_quiesce(struct xen *xen, const struct poor_door *door);
