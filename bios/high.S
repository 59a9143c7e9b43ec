// SPDX-License-Identifier: BSD-2-Clause-Patent
/* The 32-bit side of the door: flat segments, no paging, interrupts off. See rom.S for the other. */

#include "bios/door.h"

        .macro  flat_segments
        movl    $SELECT_DATA32, %eax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        .endm

        .code32

/* The linker puts two words before this, so that these are at HIGH_ENTERED and HIGH_CALLED. */
        .section .head, "ax"
        jmp     in
        .balign 8
        jmp     again

        .text

/* From real mode: EBX is the frame, DX:ECX the stack to come back to, SI the ROM's segment. */
in:     flat_segments
        movl    stack_top, %esp
        movzwl  %si, %esi
        movzwl  %dx, %edx
        pushl   %esi
        pushl   %ecx
        pushl   %edx
        pushl   %ebx
        call    entered
        popl    %ebx
        popl    %edx
        popl    %ecx
        popl    %esi
        movl    $BACK_LEAVE, %edi
        jmp     out

        .globl  go_real
go_real:
        pushl   %ebp
        pushl   %edi
        pushl   %esi
        pushl   %ebx
        movl    20(%esp), %edi
        movl    24(%esp), %edx
        movl    28(%esp), %ecx
        pushl   stack_top
        movl    %esp, stack_top
out:    pushl   $SELECT_CODE16
        pushl   back_offset
        lretl

again:  flat_segments
        movl    stack_top, %esp
        popl    stack_top
        movl    %ebx, %eax
        popl    %ebx
        popl    %esi
        popl    %edi
        popl    %ebp
        ret

/* The address as a pointer, unseen by the compiler, which takes what is at 0 for nothing at all. */
        .globl  at_physical
at_physical:
        ret

        .data
        .balign 4
        .globl  stack_top, back_offset
stack_top:
        .long   stack + STACK_BYTES
back_offset:
        .long   0

        .bss
        .balign 16
stack:  .space  STACK_BYTES
