// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Xen's door on a PC: the instruction by which a guest calls its hypervisor, AMD's or Intel's. */

#include <stdbool.h>
#include "core/xen/abi.h"

void cpuid(uint32_t leaf, uint32_t registers[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(registers[0]), "=b"(registers[1]), "=c"(registers[2]),
                       "=d"(registers[3])
                     : "a"(leaf), "c"(0));
}

/* Each vendor's CPU has its own instruction, and takes the other one's for an error. */
static bool is_amd(void)
{
    uint32_t r[4];

    cpuid(0, r);
    return (r[1] == 0x68747541 && r[3] == 0x69746e65 && r[2] == 0x444d4163) || /* AuthenticAMD */
           (r[1] == 0x6f677948 && r[3] == 0x6e65476e && r[2] == 0x656e6975);   /* HygonGenuine */
}

intptr_t hypercall(unsigned number, unsigned command, void *argument, unsigned count)
{
    static enum { UNASKED, VMCALL, VMMCALL } instruction;
    uintptr_t a = command, b = (uintptr_t)argument, c = count;
    intptr_t result = (intptr_t)number;

    if (instruction == UNASKED)
        instruction = is_amd() ? VMMCALL : VMCALL;
#ifdef __x86_64__
    if (instruction == VMMCALL)
        __asm__ volatile("vmmcall" : "+a"(result), "+D"(a), "+S"(b), "+d"(c) : : "memory");
    else
        __asm__ volatile("vmcall" : "+a"(result), "+D"(a), "+S"(b), "+d"(c) : : "memory");
#else
    if (instruction == VMMCALL)
        __asm__ volatile("vmmcall" : "+a"(result), "+b"(a), "+c"(b), "+d"(c) : : "memory");
    else
        __asm__ volatile("vmcall" : "+a"(result), "+b"(a), "+c"(b), "+d"(c) : : "memory");
#endif
    return result;
}
