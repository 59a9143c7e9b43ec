// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The PC-BIOS image as it lies in the ROM: headers, the door between real and protected mode, and
 * what brings the 32-bit part into high memory. All but the last stays in the first MiB, followed by
 * what start.c writes there: a boot entry for each disk. It is not written to once the BIOS has
 * called the last boot connection vector (PCI Firmware Specification 3.3 §5.2.1.6).
 *
 * The door costs the caller's stack some 80 bytes. It opens with interrupts off and A20 on; nothing
 * of the caller's is lost on the way: FS and GS are not touched at all, nor is the IDT register, and
 * the segments that are come back with limits of 4 GiB, on which a caller in "unreal" mode relies and
 * which nobody else can see.
 */

#include "bios/door.h"

#define INT15_A20_OFF 0x2400
#define INT15_A20_ON  0x2401

        .code16
        .section .rom, "ax"

/* ---- Headers ---- */

        .word   0xaa55
        .byte   0                       /* length: the packer knows it */
        .byte   0xe9                    /* jmp, of three bytes: */
        .word   init - . - 2
        .byte   0                       /* QEMU's for the checksum, if it changes an id */

        .org    ROM_PCIR_POINTER
        .word   pcir
        .word   pnp

/* What the 32-bit part has to know of this one: struct rom_table. */
        .org    ROM_TABLE
        .ascii  "Baton"
        .byte   0
        .word   enter, back, called, chain, int13
        .word   drives
        .word   headers
        .word   pmm, old13, int19

        .balign 4
pcir:   .ascii  "PCIR"
        .word   0x5853, 0x0001          /* Xen's platform device. -option-rom needs no device. */
        .word   0
        .word   PCIR_BYTES
        .byte   0                       /* not one that may be started elsewhere than where it runs */
        .byte   0x00, 0x80, 0xff        /* what that device says of its class */
        .word   0                       /* length: the packer's */
        .word   0
        .byte   0                       /* code type: PC-AT */
        .byte   0                       /* more images follow: the packer's */
        .word   0

/* The first boot entry is here from the start: BIOSes take a ROM without for one that has never heard
 * of the BIOS Boot Specification. */
        .balign 16
pnp:    .ascii  "$PnP"
        .byte   1, PNP_BYTES / 16
        .word   0
        .byte   0, 0xcb                 /* makes the sum 0 */
        .space  PNP_BYTES - 10

/* ---- Into protected mode ---- */

        .balign 8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff      /* SELECT_CODE32. All are marked as accessed: the CPU */
        .quad   0x00cf93000000ffff      /* SELECT_DATA32  would write to them otherwise. */
code16: .quad   0x00009b000000ffff      /* SELECT_CODE16: this segment, once we know where it is */
        .quad   0x008f93000000ffff      /* SELECT_DATA16 */
gdtr:   .word   gdtr - gdt - 1
        .long   gdt

/* To the 32-bit part, which begins where `init` adds to \place. */
        .macro  go_high place, offset
        lgdtl   %cs:gdtr
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        .byte   0x66, 0xea              /* ljmpl */
\place: .long   \offset
        .word   SELECT_CODE32
        .endm

/* INT 13h. Floppies are not even looked at. */
int13:  cmpb    $0x80, %dl
        jb      chain
        pushw   $WHAT_INT13
        pushw   %ax
        smsww   %ax
        testb   $1, %al
        popw    %ax
        jz      enter
        /* Virtual-8086 mode: the door cannot be opened from in here. Other people's drives are no
         * business of ours; for those that are, see below. */
        addw    $2, %sp
        jmp     in_v86

/* INT 19h in the middle of a call. Whose it is otherwise, and where it goes on, is found out inside. */
int19:  pushl   $0
        pushw   $WHAT_INT19
        jmp     enter

/* Every entry, with what it is for on the stack (WHAT_…). */
enter:  pushfw
        cli
        cld
        pushal
        pushw   %ds
        pushw   %es
        call    a20_on
        pushw   %ax
        subw    $6, %sp
        movw    %sp, %bp
        sgdtl   (%bp)

        /* EBX: the frame (struct frame). ECX, DX: the stack, to come back to. SI: this segment. */
        movl    %esp, %ecx
        movw    %ss, %dx
        movw    %cs, %si
        call    linear
        go_high to_high, HIGH_ENTERED

/* EBX = the address that SS:SP means, after the return. */
linear: xorl    %eax, %eax
        movw    %ss, %ax
        shll    $4, %eax
        movzwl  %sp, %ebx
        leal    2(%eax,%ebx), %ebx
        ret

/* ---- And out of it ---- */

/* From 32-bit code: EDI is what to do (BACK_…), DX:ECX the stack. */
back:   movw    $SELECT_DATA16, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    %cr0, %eax
        andb    $0xfe, %al
        movl    %eax, %cr0
        .byte   0xea                    /* ljmpw */
        .word   1f
to_rom: .word   0
1:      movw    %dx, %ss
        movl    %ecx, %esp
        cmpw    $BACK_CALL, %di
        je      call_real
        cmpw    $BACK_WINDOW, %di
        je      window

        movw    %sp, %bp
        lgdtl   (%bp)
        addw    $6, %sp
        popw    %ax
        testw   %ax, %ax
        jz      1f
        movw    $INT15_A20_OFF, %ax
        int     $0x15
1:      popw    %es
        popw    %ds
        popal
        popfw
        /* What the 32-bit part has made of WHAT_…: LEAVE_… */
        pushw   %bp
        movw    %sp, %bp
        cmpb    $LEAVE_CHAIN, 2(%bp)
        popw    %bp
        leaw    2(%esp), %sp
        je      chain
        jb      1f
        lretw
1:      iretw
chain:  .byte   0xea                    /* ljmpw: who had INT 13h before us */
old13:  .word   0, 0

/* A call of a real-mode function, as struct real_call on the stack says. */
call_real:
        popw    %es
        popw    %ds
        popal
        lretw                           /* to the function */
called: pushfw                          /* and from it: struct real_return */
        pushal
        pushw   %ds
        pushw   %es
        cli
        cld
        jmp     again

/* Lets interrupts in that have been waiting. */
window: sti
        nop
        nop
        cli
        /* Whoever came in may have left A20 off. What it is for the caller, is on his stack. */
again:  call    a20_on
        call    linear
        go_high to_high_again, HIGH_CALLED

/* ---- A20 ---- */

/* Makes sure that odd megabytes can be reached. AX = whether that was not so. Called in real mode with
 * interrupts off; may change EBX, DS, ES. The keyboard controller and port 92h can both have it off,
 * so memory is asked. */
a20_on: xorw    %bx, %bx
        movw    %bx, %ds
        decw    %bx
        movw    %bx, %es
        movl    INTER_APPLICATION, %ebx
        cmpl    %ebx, %es:INTER_APPLICATION + 0x10
        jne     1f
        notl    INTER_APPLICATION
        cmpl    %ebx, %es:INTER_APPLICATION + 0x10
        movl    %ebx, INTER_APPLICATION
        je      1f
        movw    $INT15_A20_ON, %ax
        int     $0x15
        movw    $1, %ax
        ret
1:      xorw    %ax, %ax
        ret

/* ---- Virtual-8086 mode ---- */

/* Which of the drives 80h to 8Fh are ours, a bit each. */
drives: .word   0

in_v86: pushw   %bp
        movw    %sp, %bp
        pushw   %ax
        pushw   %cx
        movb    %dl, %cl
        subb    $0x80, %cl
        cmpb    $16, %cl
        jae     1f
        movw    %cs:drives, %ax
        shrw    %cl, %ax
        testb   $1, %al
        jnz     2f
1:      popw    %cx
        popw    %ax
        popw    %bp
        jmp     chain
2:      popw    %cx
        popw    %ax
        cmpb    $0x01, %ah
        pushw   %ds
        pushw   $0x40
        popw    %ds
        je      3f
        movb    $AH_NOT_READY, %ah
        movb    %ah, BDA_DISK_STATUS
3:      movb    BDA_DISK_STATUS, %ah
        popw    %ds
        orb     $1, 6(%bp)              /* CF, in the caller's flags */
        testb   %ah, %ah
        jnz     4f
        andb    $0xfe, 6(%bp)
4:      popw    %bp
        iretw

/* ---- Nothing below here stays ---- */

        .balign 16
headers:

/* Called by the BIOS: AX is the device (unused, because disks of all devices are looked for), ES:DI
 * PnP's installation check structure if there is one. */
init:   pushfw
        pushal
        pushw   %ds
        pushw   %es
        cld
        movw    %cs, %ax
        movw    %ax, %ds
        call    find_pmm
        jc      no_memory
        movl    payload + HIGH_BYTES, %eax
        addl    $0xfff, %eax
        shrl    $12, %eax
        shll    $8, %eax                /* paragraphs, in whole pages */
        pushw   $PMM_HIGH_FOR_GOOD | PMM_ALIGNED
        pushl   $0xffffffff             /* no handle */
        pushl   %eax
        pushw   $PMM_ALLOCATE
        lcallw  *pmm
        addw    $12, %sp
        shll    $16, %edx
        movw    %ax, %dx
        testl   %edx, %edx
        jz      no_memory
        cmpl    $PMM_UNSUPPORTED, %edx
        je      no_memory

        /* Where things are, in places that are about to be read-only. */
        pushfw
        cli
        call    a20_on                  /* it stays on: BIOSes have it on here */
        movw    %cs, %ax
        movw    %ax, %ds
        movw    %ax, to_rom
        movzwl  %ax, %eax
        shll    $4, %eax
        addl    %eax, gdtr + 2
        movl    %eax, %ebx
        movw    %ax, code16 + 2
        shrl    $16, %eax
        movb    %al, code16 + 4
        addl    %edx, to_high
        addl    %edx, to_high_again

        /* The 32-bit part to there: EBX is this segment's address, EDX the place. */
        subw    $6, %sp
        movw    %sp, %bp
        sgdtl   (%bp)
        lgdtl   gdtr
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        movw    $SELECT_DATA16, %cx
        movw    %cx, %ds
        movw    %cx, %es
        leal    payload(%ebx), %esi
        movl    %edx, %edi
        movl    HIGH_IMAGE(%esi), %ecx
        .byte   0x67                    /* with 32-bit addresses */
        rep movsb
        movl    HIGH_BYTES(%edx), %ecx
        subl    HIGH_IMAGE(%edx), %ecx
        xorb    %al, %al
        .byte   0x67
        rep stosb
        /* And it is made for there. */
        leal    relocations(%ebx), %esi
        movw    $(relocations_end - relocations) / 2, %cx
        xorl    %eax, %eax
1:      movw    (%esi), %ax
        addl    %edx, (%edx,%eax)
        addl    $2, %esi
        loop    1b
        movl    %cr0, %eax
        andb    $0xfe, %al
        movl    %eax, %cr0
        lgdtl   (%bp)
        addw    $6, %sp
        popfw
        popw    %es
        popw    %ds
        popal
        popfw
        pushw   $WHAT_INIT
        jmp     enter

no_memory:
        movw    $complaint, %si
1:      lodsb
        testb   %al, %al
        jz      2f
        movb    $0x0e, %ah
        movw    $7, %bx
        int     $0x10
        jmp     1b
2:      movb    $0, 2                   /* nothing of the ROM is to stay */
        popw    %es
        popw    %ds
        popal
        popfw
        lretw
complaint:
        .asciz  "Baton: no memory from the BIOS's PMM; its disks are left alone\r\n"

/* CF clear: `pmm` has the entry. In the last 128 KiB, on a paragraph, its bytes summing up to 0
 * (Post Memory Manager Specification 1.01 §3.1.1). */
find_pmm:
        movw    $0xe000, %bx
1:      movw    %bx, %es
        cmpl    $0x4d4d5024, %es:0      /* $PMM */
        jne     3f
        movzbw  %es:5, %cx
        jcxz    3f
        xorw    %si, %si
        xorb    %al, %al
2:      addb    %es:(%si), %al
        incw    %si
        loop    2b
        testb   %al, %al
        jnz     3f
        movl    %es:7, %eax
        movl    %eax, pmm
        clc
        ret
3:      incw    %bx
        jnz     1b
        stc
        ret
pmm:    .long   0

        .balign 16
payload:
        .incbin HIGH
relocations:
        .incbin RELOCATIONS
relocations_end:
