/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* The BIOS called from processors that are not as it left them, and BIOSes that are wrong. */
#include "tests/real/real.h"

enum {
    A20_OFF = 0x2400,
    A20_ON = 0x2401,
    SVM_LEAF = 0x80000001,
    SVM = 1 << 2,
    EFER = 0xc0000080,
    SVME = 1 << 12,
    VMCB_FS_LIMIT = 0x444,
    VMCB_GS_LIMIT = 0x454,
};

/* ---- A20 ---- */

static bool a20(u32 function)
{
    call.in = (struct regs){.eax = function, .esp = STACK_END, .eflags = IF};
    real_call(0x15, false);
    pattern_fill(STACK_START, STACK_END);
    return !(call.out.eflags & CF) && call.after.a20 == (function == A20_ON);
}

void a20_off(u32 calls)
{
    if (!a20(A20_OFF)) {
        wrong("the BIOS cannot switch A20 off");
        return;
    }
    a20_is_off = true;
    soak(calls, false);
    a20_is_off = false;
    if (!a20(A20_ON))
        wrong("the BIOS cannot switch A20 on");
    memory_check();
}

/* ---- Segments of 4 GiB, whose limits a processor in real mode keeps ---- */

/* After the counters, which are never so many that they get here. */
static const u32 vmcb = MEMORY_MIN - 4096;

static bool has_svm(void)
{
    u32 a = 0x80000000, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (a < SVM_LEAF)
        return false;
    a = SVM_LEAF;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return c & SVM;
}

static u32 kept;

void big_look(void)
{
    u32 fs = *(u32 *)(vmcb + VMCB_FS_LIMIT), gs = *(u32 *)(vmcb + VMCB_GS_LIMIT);
    if (fs == 0xffffffff && gs == 0xffffffff)
        kept++;
    else
        wrong("the limits of FS and GS are %x and %x, after %s", fs, gs, call_name());
}

void big(u32 calls)
{
    u32 low, high;
    if (!has_svm()) {
        wrong("the limits of segments can be seen only with SVM");
        return;
    }
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(EFER));
    __asm__ volatile("wrmsr" : : "a"(low | SVME), "d"(high), "c"(EFER));

    kept = 0;
    vmsave_to = vmcb;
    mode = MODE_BIG;
    soak(calls, false);
    mode = MODE_REAL;
    vmsave_to = 0;
    __asm__ volatile("wrmsr" : : "a"(low), "d"(high), "c"(EFER));
    say("big: limits of 4 GiB kept %u times", kept);
}

/* ---- BIOSes that are wrong ---- */

extern u16 broken_after, broken_how, broken_old[2], broken_at[2];
extern u8 broken_int13[], broken_nothing[], broken_lba[], broken_edi[], broken_ebx[], broken_gs[],
    broken_es[], broken_if[], broken_df[], broken_pic[], broken_byte[], broken_gdt[], broken_a20[],
    broken_cf[], broken_stack[], broken_cr0[], broken_ticks[], broken_limits[];

/* In the place of the address of the byte that is to be changed. */
enum { IN_BUFFER = 1, IN_PACKET = 2 };

static u32 changes;

static void set_broken_at(u32 address)
{
    u32 pointer = far_pointer(address, 1);
    broken_at[0] = (u16)pointer;
    broken_at[1] = (u16)(pointer >> 16);
}

bool broken(const char *how, u32 after)
{
    static const struct {
        const char *name;
        const u8 *code;
        u32 at; /* of the byte that it changes */
    } ways[] = {
        {"nothing", broken_nothing, 0},
        {"lba", broken_lba, 0},
        {"edi", broken_edi, 0},
        {"ebx", broken_ebx, 0},
        {"gs", broken_gs, 0},
        {"es", broken_es, 0},
        {"if", broken_if, 0},
        {"df", broken_df, 0},
        {"pic", broken_pic, 0},
        {"data", broken_byte, IN_BUFFER},
        {"low", broken_byte, 0x4321},
        {"hma", broken_byte, 0x10abcd},
        {"vector", broken_byte, 0x60 * 4},
        {"gdt", broken_gdt, 0},
        {"a20", broken_a20, 0},
        {"cf", broken_cf, 0},
        {"stack", broken_stack, 0},
        {"cr0", broken_cr0, 0},
        {"ticks", broken_ticks, 0},
        {"limits", broken_limits, 0},
        {"packet", broken_byte, IN_PACKET},
    };
    for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
        u32 length = 0;
        while (how[length] && how[length] == ways[i].name[length])
            length++;
        if (how[length] != ways[i].name[length])
            continue;
        u16 *vector = (u16 *)(0x13 * 4);
        broken_old[0] = vector[0];
        broken_old[1] = vector[1];
        broken_after = (u16)after;
        broken_how = (u16)(u32)ways[i].code;
        changes = ways[i].at;
        set_broken_at(changes);
        vector[0] = (u16)(u32)broken_int13;
        vector[1] = 0;
        return true;
    }
    return !wrong("in the orders, no way to be broken: %s", how);
}

void broken_buffer(u32 last, u32 packet)
{
    if (changes == IN_BUFFER)
        set_broken_at(last);
    if (changes == IN_PACKET && packet)
        set_broken_at(packet);
    /* Not in this call, which has none. */
    if (changes == IN_PACKET && !packet && !broken_after)
        broken_after = 1;
}
