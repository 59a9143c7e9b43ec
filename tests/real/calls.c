/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* A call of INT 13h, and what has to hold after each. */
#include "tests/real/real.h"
#include "tests/real/io.h"

enum {
    TICKS = 0x46c,
    VECTORS = 256,
    STACK_ROOM = 0x1000, /* where the stack may begin, below its end */
    STACK_ABOVE = 64,
    CMOS = 0x70,
};

enum mode mode;
bool gentle;
u32 most_stack;
u32 call_count;

static u32 vectors[VECTORS];
static u32 ticks_at_start;

void call_prepare(u32 ax, u32 dl)
{
    struct regs *in = &call.in;
    u32 *registers[] = {&in->eax, &in->ebx, &in->ecx, &in->edx, &in->esi, &in->edi, &in->ebp};
    for (unsigned i = 0; i < sizeof registers / sizeof *registers; i++)
        *registers[i] = random32();
    in->eax = (in->eax & 0xffff0000) | ax;
    in->edx = (in->edx & 0xffffff00) | dl;
    in->ds = (u16)random32();
    in->es = (u16)random32();
    in->fs = (u16)random32();
    in->gs = (u16)random32();
    in->ss = (u16)random_below(STACK_START >> 4);
    in->esp = STACK_END - STACK_ABOVE - (random_below(STACK_ROOM) & ~1u) - in->ss * 16u;
    in->eflags = 2 | (random_below(8) ? (u32)IF : 0) | (random32() & (CF | ZF));
    if (!gentle && random_below(4) == 0)
        in->eflags |= DF;
}

void call_set_ds_si(u32 address, u32 size)
{
    u32 pointer = far_pointer(address, size);
    call.in.ds = (u16)(pointer >> 16);
    call.in.esi = (call.in.esi & 0xffff0000) | (pointer & 0xffff);
}

void call_set_es_bx(u32 address, u32 size)
{
    u32 pointer = far_pointer(address, size);
    call.in.es = (u16)(pointer >> 16);
    call.in.ebx = (call.in.ebx & 0xffff0000) | (pointer & 0xffff);
}

u32 call_stack(void)
{
    return call.in.ss * 16u + call.in.esp;
}

bool call_failed(void)
{
    return call.out.eflags & CF;
}

u8 call_ah(void)
{
    return (u8)(call.out.eax >> 8);
}

const char *call_name(void)
{
    static char text[100];
    const struct regs *in = &call.in;
    say_to(text, sizeof text, "call %u, ax=%04x cx=%04x dx=%04x ds:si=%04x:%04x es:bx=%04x:%04x",
           call_count, in->eax & 0xffff, in->ecx & 0xffff, in->edx & 0xffff, in->ds,
           in->esi & 0xffff, in->es, in->ebx & 0xffff);
    return text;
}

static void compare(const char *name, u32 before, u32 after)
{
    if (before != after)
        wrong("%s was %x and is %x, after %s", name, before, after, call_name());
}

static void check_registers(unsigned gives)
{
    const struct regs *in = &call.in, *out = &call.out;
    u32 mask = gives & GIVES_BX ? 0xffff0000 : 0xffffffff;
    compare("EBX", in->ebx & mask, out->ebx & mask);
    mask = gives & GIVES_CX ? 0xffff0000 : 0xffffffff;
    compare("ECX", in->ecx & mask, out->ecx & mask);
    mask = gives & GIVES_DX ? 0xffff0000 : 0xffffffff;
    compare("EDX", in->edx & mask, out->edx & mask);
    mask = gives & GIVES_ES_DI ? 0xffff0000 : 0xffffffff;
    compare("EDI", in->edi & mask, out->edi & mask);
    if (!(gives & GIVES_ES_DI))
        compare("ES", in->es, out->es);
    compare("ESI", in->esi, out->esi);
    compare("EBP", in->ebp, out->ebp);
    compare("ESP", in->esp, out->esp);
    compare("DS", in->ds, out->ds);
    compare("FS", in->fs, out->fs);
    compare("GS", in->gs, out->gs);
    compare("SS", in->ss, out->ss);
    compare("IF", in->eflags & IF, out->eflags & IF);
    compare("DF", in->eflags & DF, out->eflags & DF);
}

static void check_machine(void)
{
    const struct machine *before = &call.before, *after = &call.after;
    compare("CR0", before->cr0, after->cr0);
    compare("CR3", before->cr3, after->cr3);
    compare("CR4", before->cr4, after->cr4);
    if (memcmp(before->gdtr, after->gdtr, sizeof before->gdtr) != 0)
        wrong("GDTR is another, after %s", call_name());
    if (memcmp(before->idtr, after->idtr, sizeof before->idtr) != 0)
        wrong("IDTR is another, after %s", call_name());
    compare("the first PIC's mask", before->pic_masks[0], after->pic_masks[0]);
    compare("the second PIC's mask", before->pic_masks[1], after->pic_masks[1]);
    compare("A20", before->a20, after->a20);
    for (u32 i = 0; i < VECTORS; i++) {
        if (((volatile u32 *)0)[i] != vectors[i])
            wrong("the vector of interrupt %02xh is another, after %s", i, call_name());
    }
}

static void check_stack(void)
{
    u32 stack = call_stack();
    pattern_holds(stack, STACK_END, "the caller's stack");
    u32 lowest = STACK_START;
    while (lowest < stack && *(const u8 *)lowest == pattern_byte(lowest))
        lowest++;
    if (stack - lowest > most_stack)
        most_stack = stack - lowest;
    pattern_fill(STACK_START, STACK_END);
}

void call_int13(unsigned gives)
{
    unsigned before = wrongs;
    call_count++;
    if (mode == MODE_V86) {
        if (!v86_int13())
            return;
    } else {
        real_call(0x13, mode == MODE_BIG);
    }
    check_registers(gives);
    check_machine();
    check_stack();
    if (wrongs != before)
        say("that was with eflags=%x ss:sp=%04x:%04x and gave ax=%04x eflags=%x", call.in.eflags,
            call.in.ss, call.in.esp, call.out.eax & 0xffff, call.out.eflags);
}

/* ---- What has to go on ---- */

u32 ticks_now(void)
{
    return *(volatile u32 *)TICKS;
}

void calls_start(void)
{
    for (u32 i = 0; i < VECTORS; i++)
        vectors[i] = ((volatile u32 *)0)[i];
    ticks_at_start = ticks_now();
}

static u8 second_now(void)
{
    out8(CMOS, 0);
    return in8(CMOS + 1);
}

/* The real-time clock says how long a tick is waited for: until its second has changed so often. */
enum { SECONDS = 4 };

bool tick_wait(void)
{
    u32 ticks = ticks_now();
    u8 second = second_now();
    for (unsigned changes = 0; changes < SECONDS && ticks == ticks_now();) {
        call.in = (struct regs){.esp = STACK_END, .eflags = IF};
        real_call(0x12, false);
        u8 before = second;
        second = second_now();
        changes += second != before;
    }
    pattern_fill(STACK_START, STACK_END);
    return ticks != ticks_now();
}

void calls_check(void)
{
    if (!tick_wait())
        wrong("the clock of INT 08h has stopped");
    say("ticks=%u stack=%u", ticks_now() - ticks_at_start, most_stack);
}
