/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Event channels can be asked for one by one. Those that Xen itself keeps in this domain, for the
 * device model, refuse to be asked.
 */
#include "audit/xen/channels.h"
#include "audit/xen/findings.h"
#include "audit/xen/hypervisor.h"
#include "lab/efi/app.h"

#include <xen/event_channel.h>

enum { BOUND_MAX = 64 };

/* What Xen reads and writes must look here as it looks there. */
_Static_assert(sizeof(struct evtchn_status) == 24, "evtchn_status");

struct channel {
    uint32_t port, status, domain;
};

static struct {
    bool unseen;
    struct channel bound[BOUND_MAX]; /* without XenStore's and the console's */
    size_t bound_count;              /* may be more than were kept */
    size_t xen_count;                /* Xen's own */
    uint32_t store, console;         /* EVTCHNSTAT_… of these two */
} channels;

static const char *channel_name(uint32_t status)
{
    static const char *const names[] = {"closed",       "unbound",     "interdomain",
                                        "physical IRQ", "virtual IRQ", "IPI"};

    return status < sizeof(names) / sizeof(names[0]) ? names[status] : "of an unknown kind";
}

size_t channels_read(void)
{
    static struct evtchn_status status;
    enum { XEN_EACCES = -13 };

    channels.bound_count = channels.xen_count = 0;
    channels.store = channels.console = EVTCHNSTAT_closed;
    channels.unseen = false;
    for (uint32_t port = 1; port < PORTS_MAX; port++) {
        status = (struct evtchn_status){.dom = DOMID_SELF, .port = port};

        int64_t error = hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_status, &status, 0);

        if (error == XEN_EACCES) {
            channels.xen_count++;
        } else if (error != 0) {
            /* Past the last one. */
            channels.unseen = port == 1;
            break;
        } else if (port == xen.store_port) {
            channels.store = status.status;
        } else if (port == xen.console_port) {
            channels.console = status.status;
        } else if (status.status != EVTCHNSTAT_closed) {
            if (channels.bound_count < BOUND_MAX)
                channels.bound[channels.bound_count] = (struct channel){
                    .port = port, .status = status.status, .domain = status.u.interdomain.dom};
            channels.bound_count++;
        }
    }
    return channels.bound_count;
}

void channels_tell(void)
{
    size_t told = 0;

    say(domain_name, "event-channel", channels.store == EVTCHNSTAT_closed ? WRONG : RIGHT,
        "%u: XenStore's, %s", xen.store_port, channel_name(channels.store));
    if (xen.console_port != 0)
        say(domain_name, "event-channel", channels.console == EVTCHNSTAT_closed ? WRONG : RIGHT,
            "%u: the console's, %s", xen.console_port, channel_name(channels.console));
    if (channels.xen_count > 0)
        say(domain_name, "event-channel", NEITHER, "%zu belong to Xen itself", channels.xen_count);
    for (; told < channels.bound_count && told < BOUND_MAX && told < LINES_MAX; told++) {
        const struct channel *channel = &channels.bound[told];

        if (channel->status == EVTCHNSTAT_unbound || channel->status == EVTCHNSTAT_interdomain)
            say(domain_name, "event-channel", WRONG, "%u: %s, domain %u", channel->port,
                channel_name(channel->status), channel->domain);
        else
            say(domain_name, "event-channel", WRONG, "%u: %s", channel->port,
                channel_name(channel->status));
    }
    say_lost("event channels", channels.bound_count - told);

    if (channels.unseen) {
        reason(&domain_unseen, "Xen does not tell of event channels");
        return;
    }
    if (channels.bound_count > 0)
        reason(&domain_wrong, "event channels left: %zu", channels.bound_count);
    if (xen.ring != NULL && channels.store == EVTCHNSTAT_closed)
        reason(&domain_wrong, "XenStore's event channel is closed");
    if (xen.console_port != 0 && channels.console == EVTCHNSTAT_closed)
        reason(&domain_wrong, "the console's event channel is closed");
}
