// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * Event channels, and waiting for one. On the exit path.
 *
 * Whoever waits by looking at memory keeps the CPU from the backend, which on a busy host may be
 * waiting for that very CPU. So waiting is done in the hypervisor. It wakes us up when the
 * channel's bit in the shared-info page is set, which somebody has to clear first: hence the page.
 */
#pragma once

#include <stdbool.h>
#include "core/regs.h"
#include "core/xen/abi.h"

struct events {
    struct shared_page *page; /* NULL if it cannot be had: then waiting only gives the CPU away */
};

/* Maps the shared-info page at `place`, a page of nobody's memory. False, and waiting works all the
 * same, if Xen refuses. */
bool events_start(struct events *events, void *place);

/* Leaves the page as it was found, empty, and takes it away. May be called again. */
void events_stop(struct events *events);

/* A new channel that `domain` may bind to. False if there are no more. */
bool event_open(domid_t domain, uint32_t *port);

/* Closes a channel; 0 is none. */
void event_close(const struct events *events, uint32_t port);

/* Wakes the other end up. False if the channel is not connected. */
bool event_send(uint32_t port);

/*
 * To wait for something: event_clear(), look, and if it is not there, event_wait(), and so on. What
 * happens after the look ends the wait at once. It also ends at the deadline, and for no reason
 * at all, such as an interrupt.
 */
void event_clear(const struct events *events, uint32_t port);
void event_wait(const struct events *events, uint32_t port, uint64_t deadline);
