// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * Xen's public interface, as its own headers describe it (libxen-dev), and the hypercall.
 *
 * Xen's headers write a machine word as `unsigned long`, which has 32 bits on UEFI's x64. The
 * structures that contain one (xen_pfn_t, xen_ulong_t) stand here once more, with uintptr_t.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifndef __XEN_INTERFACE_VERSION__
#define __XEN_INTERFACE_VERSION__ 0x00040e00
#endif
#include <xen/xen.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/memory.h>
#include <xen/sched.h>

#define XEN_PAGE 4096u

/*
 * Calls Xen (part of the poor door: a symbol, see core/regs.h). Only on Xen. `argument` points to a
 * structure that Xen reads and writes, at an address that is mapped; it is the second argument of
 * most hypercalls, and `count` the third where there is one. 0 or more, or one of Xen's errors,
 * negative. Any TPL; any CPU mode with paging as firmware has it, or none.
 */
intptr_t hypercall(unsigned number, unsigned command, void *argument, unsigned count);

/* EAX to EDX of a CPUID leaf, subleaf 0. */
void cpuid(uint32_t leaf, uint32_t registers[4]);

/* The guest frame behind an address: firmware maps memory one to one. */
static inline uintptr_t frame_of(const void *address)
{
    return (uintptr_t)address / XEN_PAGE;
}

struct physmap_add { /* struct xen_add_to_physmap */
    domid_t domid;
    uint16_t size;
    uint32_t space;
    uintptr_t index;
    uintptr_t frame;
};

struct physmap_remove { /* struct xen_remove_from_physmap */
    domid_t domid;
    uintptr_t frame;
};

/* struct shared_info, as far as it is used here. All of this is where it is whether Xen takes the
 * domain for one of 32 or of 64 bits, which depends on who has asked for what before us. */
struct shared_page {
    uint8_t upcall_pending; /* of CPU 0, which is firmware's */
    uint8_t mask_or_pad;
    uint8_t pad[2];
    uint32_t selectors[3]; /* which words of `pending` to look at; and a word of PV guests' */
    uint32_t pv[4];
    struct vcpu_time_info time;
    uint8_t other_cpus[XEN_LEGACY_MAX_VCPUS - 1][64];
    uint32_t pending[32]; /* a bit for each event channel */
};
_Static_assert(offsetof(struct shared_page, time) == 32, "struct vcpu_info");
_Static_assert(sizeof(struct vcpu_time_info) == 32, "struct vcpu_time_info");
_Static_assert(offsetof(struct shared_page, pending) == 2048, "struct shared_info");

/* As many as struct shared_page has bits for: more than a domain of 32 bits can have at all. */
#define EVENT_CHANNELS_MAX 1024u
