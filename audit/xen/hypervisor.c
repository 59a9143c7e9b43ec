/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "audit/xen/hypervisor.h"
#include "lab/efi/app.h"

#include <xen/arch-x86/cpuid.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>

/* What Xen reads and writes must look here as it looks there. */
_Static_assert(sizeof(struct xen_hvm_param) == 16, "xen_hvm_param");

struct xen xen;

/* The leaf where Xen describes itself, or 0. It moves up when another hypervisor's comes first. */
static uint32_t xen_leaf(void)
{
    uint32_t r[4];

    cpuid(1, r);
    if ((r[2] & 1u << 31) == 0)
        return 0;
    for (uint32_t leaf = 0x40000000; leaf < 0x40010000; leaf += 0x100) {
        cpuid(leaf, r);
        if (r[1] == XEN_CPUID_SIGNATURE_EBX && r[2] == XEN_CPUID_SIGNATURE_ECX &&
            r[3] == XEN_CPUID_SIGNATURE_EDX && r[0] >= leaf + 2)
            return leaf;
    }
    return 0;
}

static bool hvm_param(uint32_t index, uint64_t *value)
{
    static struct xen_hvm_param param;

    param = (struct xen_hvm_param){.domid = DOMID_SELF, .index = index};
    if (hypercall(__HYPERVISOR_hvm_op, HVMOP_get_param, &param, 0) != 0)
        return false;
    *value = param.value;
    return true;
}

bool hypervisor_find(void)
{
    uint32_t leaf = xen_leaf(), r[4];
    uint64_t page = 0, port = 0;

    if (leaf == 0)
        return false;
    xen.known = true;
    cpuid(leaf + 1, r);
    xen.version = r[0];
    if (hvm_param(HVM_PARAM_STORE_PFN, &page) && hvm_param(HVM_PARAM_STORE_EVTCHN, &port) &&
        page != 0 && page < 1ull << 20 && port != 0 && port < PORTS_MAX) {
        xen.ring = (volatile void *)(uintptr_t)(page * 4096);
        xen.store_port = (uint32_t)port;
    }
    if (hvm_param(HVM_PARAM_CONSOLE_EVTCHN, &port) && port < PORTS_MAX)
        xen.console_port = (uint32_t)port;
    return true;
}
