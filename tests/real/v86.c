/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The BIOS called as under EMM386: in virtual-8086 mode, with all ports and interrupts its own. It
 * may do what it can there or refuse, but nothing that the mode does not allow.
 */
#include "tests/real/real.h"

enum {
    CODE32 = 0x08,
    DATA32 = 0x10,
    VECTORS = 256,
    STUB_BYTES = 16,
    GATE = 0xee00, /* an interrupt gate for anybody */
    IF_TF = 0x300,
    INVALID_OPCODE = 6,
    FAULT = 13,
    HLT = 0xf4,
    FRAME_BYTES = 36,
};

/* What the processor pushed, and what start.S did. */
struct frame {
    u32 eip, cs, eflags, esp, ss, es, ds, fs, gs;
};
struct trap {
    u32 edi, esi, ebp, esp, ebx, edx, ecx, eax;
    u32 vector;
};

static bool crashed;

void set_up_traps(void);
bool v86_trap(struct trap *trap);

void set_up_traps(void)
{
    for (u32 i = 0; i < VECTORS; i++) {
        u32 stub = (u32)trap_stubs + i * STUB_BYTES;
        u16 *gate = (u16 *)(idt + i * 8);
        gate[0] = (u16)stub;
        gate[1] = CODE32;
        gate[2] = GATE;
        gate[3] = (u16)(stub >> 16);
    }
    u32 *words = (u32 *)task;
    words[1] = (u32)trap_stack_top;
    words[2] = DATA32;
    ((u16 *)task)[51] = 104; /* where the bits of the ports begin, */
    task_end[-1] = 0xff;     /* and their end */
}

static void push(struct frame *frame, u32 value)
{
    frame->esp = (frame->esp & 0xffff0000) | ((frame->esp - 2) & 0xffff);
    *(volatile u16 *)((frame->ss << 4) + (frame->esp & 0xffff)) = (u16)value;
}

static void leave(const struct frame *frame, const struct trap *trap)
{
    struct regs *out = &call.out;
    out->eax = trap->eax;
    out->ebx = trap->ebx;
    out->ecx = trap->ecx;
    out->edx = trap->edx;
    out->esi = trap->esi;
    out->edi = trap->edi;
    out->ebp = trap->ebp;
    out->esp = frame->esp;
    out->eflags = frame->eflags;
    out->ds = (u16)frame->ds;
    out->es = (u16)frame->es;
    out->fs = (u16)frame->fs;
    out->gs = (u16)frame->gs;
    out->ss = (u16)frame->ss;
}

/* MOV from CR0, which such a monitor lets its task have. */
static bool read_control_register(const u8 *code, struct trap *trap)
{
    enum { MOV_1 = 0x0f, MOV_2 = 0x20, FROM_CR0 = 0xc0 };
    u32 *registers[] = {&trap->eax, &trap->ecx, &trap->edx, &trap->ebx,
                        &trap->esp, &trap->ebp, &trap->esi, &trap->edi};
    if (code[0] != MOV_1 || code[1] != MOV_2 || (code[2] & ~7) != FROM_CR0)
        return false;
    __asm__ volatile("movl %%cr0, %0" : "=r"(*registers[code[2] & 7]));
    return true;
}

/* Whether to go on in virtual-8086 mode. */
bool v86_trap(struct trap *trap)
{
    struct frame *frame = (struct frame *)(trap_stack_top - FRAME_BYTES);
    u8 *after = (u8 *)(&trap->vector + 1);
    bool error_code = after + 4 == (u8 *)frame;
    if (!error_code && after != (u8 *)frame) {
        u32 *at = (u32 *)after;
        say("failed: exception %u in the program itself, near %x %x", trap->vector, at[0], at[1]);
        power_off();
    }
    u8 *code = (u8 *)((frame->cs << 4) + (frame->eip & 0xffff));
    if (error_code && code == v86_end) {
        leave(frame, trap);
        return false;
    }
    if (error_code || trap->vector == INVALID_OPCODE) {
        if (trap->vector == FAULT && *code == HLT) {
            frame->eip++;
            return true;
        }
        if (trap->vector == FAULT && read_control_register(code, trap)) {
            frame->eip += 3;
            return true;
        }
        crashed = true;
        return wrong("v86: exception %u at %04x:%04x, %02x %02x %02x %02x, in %s", trap->vector,
                     frame->cs, frame->eip, code[0], code[1], code[2], code[3], call_name()),
               false;
    }
    const volatile u16 *vector = (const volatile u16 *)(trap->vector * 4);
    push(frame, frame->eflags);
    push(frame, frame->cs);
    push(frame, frame->eip);
    frame->eip = vector[0];
    frame->cs = vector[1];
    frame->eflags &= ~(u32)IF_TF;
    return true;
}

static void look(struct machine *machine)
{
    __asm__ volatile("movl %%cr0, %0" : "=r"(machine->cr0));
    __asm__ volatile("movl %%cr3, %0" : "=r"(machine->cr3));
    __asm__ volatile("movl %%cr4, %0" : "=r"(machine->cr4));
    __asm__ volatile("sgdt %0" : "=m"(machine->gdtr));
    __asm__ volatile("sidt %0" : "=m"(machine->idtr));
    __asm__ volatile("inb $0x21, %0" : "=a"(machine->pic_masks[0]));
    __asm__ volatile("inb $0xa1, %0" : "=a"(machine->pic_masks[1]));
}

bool v86_int13(void)
{
    call.before = call.after = (struct machine){0};
    crashed = false;
    look(&call.before);
    v86_call();
    look(&call.after);
    return !crashed;
}

void v86(u32 calls)
{
    mode = MODE_V86;
    soak(calls, true);
    mode = MODE_REAL;
}
