// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "core/xen/events.h"

static intptr_t event_op(unsigned command, void *argument)
{
    return hypercall(__HYPERVISOR_event_channel_op, command, argument, 0);
}

bool events_start(struct events *events, void *place)
{
    struct physmap_add add = {
        .domid = DOMID_SELF,
        .space = XENMAPSPACE_shared_info,
        .frame = frame_of(place),
    };

    bool mapped = hypercall(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, &add, 0) == 0;
    events->page = mapped ? place : NULL;
    return mapped;
}

void events_stop(struct events *events)
{
    volatile struct shared_page *page = events->page;

    if (!page)
        return;
    /* hvmloader leaves it like this: without it, the next owner would begin with an event that
     * nobody has sent. Bits first, or Xen could tell of one again. */
    for (unsigned i = 0; i < sizeof(page->pending) / sizeof(page->pending[0]); i++)
        page->pending[i] = 0;
    for (unsigned i = 0; i < sizeof(page->selectors) / sizeof(page->selectors[0]); i++)
        page->selectors[i] = 0;
    page->upcall_pending = 0;

    struct physmap_remove remove = {.domid = DOMID_SELF, .frame = frame_of(events->page)};
    hypercall(__HYPERVISOR_memory_op, XENMEM_remove_from_physmap, &remove, 0);
    events->page = NULL;
}

bool event_open(domid_t domain, uint32_t *port)
{
    struct evtchn_alloc_unbound unbound = {.dom = DOMID_SELF, .remote_dom = domain};

    if (event_op(EVTCHNOP_alloc_unbound, &unbound) != 0)
        return false;
    *port = unbound.port;
    return true;
}

void event_close(const struct events *events, uint32_t port)
{
    struct evtchn_close close = {.port = port};

    if (port == 0)
        return;
    event_op(EVTCHNOP_close, &close);
    event_clear(events, port);
}

bool event_send(uint32_t port)
{
    struct evtchn_send send = {.port = port};
    return event_op(EVTCHNOP_send, &send) == 0;
}

void event_clear(const struct events *events, uint32_t port)
{
    if (events->page && port < EVENT_CHANNELS_MAX)
        __atomic_and_fetch(&events->page->pending[port / 32], ~(1u << port % 32), __ATOMIC_SEQ_CST);
}

/* A clock value in nanoseconds of Xen's own time (struct vcpu_time_info has the formula). False if
 * the page does not say. */
static bool xen_time(const struct shared_page *page, uint64_t ticks, uint64_t *ns)
{
    const volatile struct vcpu_time_info *time = &page->time;

    /* Xen may be writing it; not for long, and if it is for longer, it is not Xen. */
    for (unsigned tries = 0; tries < 1000; tries++) {
        uint32_t version = time->version;
        uint64_t then = time->tsc_timestamp, system = time->system_time;
        uint32_t factor = time->tsc_to_system_mul;
        int8_t shift = time->tsc_shift;
        if (version % 2 != 0 || version != time->version)
            continue;
        if (factor == 0 || shift <= -32 || shift >= 32 || ticks < then)
            return false;
        uint64_t delta = shift < 0 ? (ticks - then) >> -shift : (ticks - then) << shift;
        *ns = system + (delta >> 32) * factor + ((delta & UINT32_MAX) * factor >> 32);
        return true;
    }
    return false;
}

void event_wait(const struct events *events, uint32_t port, uint64_t deadline)
{
    struct sched_poll poll = {.nr_ports = 1};

    if (events->page && port < EVENT_CHANNELS_MAX &&
        xen_time(events->page, deadline, &poll.timeout)) {
        set_xen_guest_handle(poll.ports, &port);
        if (hypercall(__HYPERVISOR_sched_op, SCHEDOP_poll, &poll, 0) == 0)
            return;
    }
    hypercall(__HYPERVISOR_sched_op, SCHEDOP_yield, NULL, 0);
}
