/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The hypervisor: how it is asked, and what it says of this domain. hypercall() and cpuid() are in
 * a file of their own, hypercall.c, in whose place the tests link a Xen that they play.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Structures with xen_pfn_t or xen_ulong_t in them are not to be used: long has 32 bits here. */
#define __XEN_INTERFACE_VERSION__ 0x00040e00
#include <xen/xen.h>

struct xenstore_domain_interface;

enum { PORTS_MAX = 131072 }; /* more event channels there cannot be */

extern struct xen {
    bool known;                                      /* this is Xen */
    uint32_t version;                                /* major << 16 | minor */
    volatile struct xenstore_domain_interface *ring; /* NULL: this domain has no XenStore */
    uint32_t store_port, console_port;               /* 0: none */
} xen;

/* Whether this is Xen; if so, fills in what is above. */
bool hypervisor_find(void);

/* 0, or what the call gives, or one of Xen's errors, negative. Not to be called but on Xen. */
int64_t hypercall(uint64_t number, uint64_t a, void *b, uint64_t c);

/* EAX, EBX, ECX and EDX, for subleaf 0. */
void cpuid(uint32_t leaf, uint32_t out[4]);
