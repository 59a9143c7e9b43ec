/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The door between the BIOS's real mode and the 32-bit part in high memory, whose assembler (rom.S,
 * high.S) and C share this file.
 */
#pragma once

/* In the ROM. */
#define ROM_PCIR_POINTER 0x18
#define ROM_TABLE        0x20
#define PCIR_BYTES       0x18
#define PNP_BYTES        0x20

#define SELECT_CODE32 0x08
#define SELECT_DATA32 0x10
#define SELECT_CODE16 0x18
#define SELECT_DATA16 0x20 /* all memory, with a 16-bit stack pointer */

/* At the start of the 32-bit part. */
#define HIGH_IMAGE   0  /* its bytes in the ROM */
#define HIGH_BYTES   4  /* and in memory */
#define HIGH_ENTERED 8  /* where to enter, */
#define HIGH_CALLED  16 /* and where to return to */

/* Of the 32-bit part's stack. */
#define STACK_BYTES 16384

/* What is entered for. */
#define WHAT_INIT  0
#define WHAT_INT13 1
#define WHAT_INT19 2
#define WHAT_BCV   3 /* and more: of which disk */

/* How the caller is left. */
#define LEAVE_IRET  0
#define LEAVE_CHAIN 1 /* to whoever had the interrupt before us */
#define LEAVE_RETF  2

/* What to do in real mode. */
#define BACK_LEAVE  0
#define BACK_CALL   1
#define BACK_WINDOW 2

/* Post Memory Manager. */
#define PMM_ALLOCATE      0
#define PMM_FREE          2
#define PMM_HIGH_FOR_GOOD 0x000a /* extended memory, and permanent */
#define PMM_ALIGNED       0x0004 /* as the lowest bit of the length says */
#define PMM_UNSUPPORTED   0xffffffff

/* 40:F0, 16 bytes for whoever wants to tell somebody something. */
#define INTER_APPLICATION 0x4f0

#define BDA_DISK_STATUS 0x74
#define AH_NOT_READY    0xaa

#ifndef __ASSEMBLER__

#include <stdint.h>

struct registers {
    uint16_t es, ds;
    uint32_t edi, esi, ebp, esp, ebx, edx, ecx, eax;
};
_Static_assert(sizeof(struct registers) == 36, "as pushed by rom.S");

/* The caller's stack when it has come in by `enter`. */
struct frame {
    uint8_t gdtr[6];
    uint16_t a20_was_off;
    struct registers registers;
    uint16_t flags_inside;
    uint16_t what; /* WHAT_… on the way in, LEAVE_… on the way out */
    uint16_t ip, cs;
    uint16_t flags; /* of an interrupt only */
} __attribute__((packed));

/* A call to real mode, on its stack. */
struct real_call {
    struct registers registers;
    uint16_t ip, cs;               /* what is called */
    uint16_t return_ip, return_cs; /* `called` */
    uint16_t arguments[];
} __attribute__((packed));

struct rom_table {
    char signature[6];
    uint16_t enter, back, called, chain, int13; /* offsets */
    uint16_t drives;                            /* of a word: see rom.S */
    uint16_t headers;                           /* where boot entries may be put */
    uint16_t pmm;                               /* of the dword that is PMM's entry, at the start */
    uint16_t old13;                             /* of who had INT 13h before us, a dword */
    uint16_t int19;                             /* for INT 19h while interrupts are let in */
} __attribute__((packed));

/* What it leaves there. */
struct real_return {
    struct registers registers;
    uint16_t flags;
} __attribute__((packed));

/* ---- high.S ---- */

/* The end of the 32-bit stack that is not in use. */
extern uint32_t stack_top;

/* Where `back` is, an offset in the ROM's segment. */
extern uint32_t back_offset;

/* Goes to real mode with this stack, to do what BACK_… says but BACK_LEAVE, and comes back. Gives
 * the address of what is on that stack then. Another entry may come in the middle. */
__attribute__((regparm(0))) uint32_t go_real(uint32_t back, uint32_t ss, uint32_t esp);

/* The 32-bit part: where it begins, and its bytes. */
extern uint8_t high_image[], high_end[];

/* Called by high.S with the caller's frame, with what goes into SS and ESP to come back to it, and
 * with the segment that the ROM is in. */
__attribute__((regparm(0))) void entered(struct frame *frame, uint32_t ss, uint32_t esp,
                                         uint32_t segment);

#endif
