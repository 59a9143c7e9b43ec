/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "audit/xen/hypervisor.h"
#include "lab/efi/app.h"

void cpuid(uint32_t leaf, uint32_t out[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
                     : "a"(leaf), "c"(0));
}

static bool amd_cpu(void)
{
    uint32_t r[4];

    cpuid(0, r);
    uint32_t vendor[] = {r[1], r[3], r[2]};

    return memcmp(vendor, "AuthenticAMD", 12) == 0 || memcmp(vendor, "HygonGenuine", 12) == 0;
}

int64_t hypercall(uint64_t number, uint64_t a, void *b, uint64_t c)
{
    static enum { UNASKED, VMCALL, VMMCALL } instruction;
    uint64_t result = number;

    if (instruction == UNASKED)
        instruction = amd_cpu() ? VMMCALL : VMCALL;
    if (instruction == VMMCALL)
        __asm__ volatile("vmmcall" : "+a"(result), "+D"(a), "+S"(b), "+d"(c) : : "memory");
    else
        __asm__ volatile("vmcall" : "+a"(result), "+D"(a), "+S"(b), "+d"(c) : : "memory");
    return (int64_t)result;
}
