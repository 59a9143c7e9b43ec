/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What cannot be said in C: the way in, the doors between 32-bit code (flat, paging off, interrupts
 * off) and the two modes in which the BIOS is called, and BIOSes that are wrong on purpose.
 */
#define CODE32    0x08
#define DATA32    0x10
#define CODE16    0x18
#define DATA16    0x20
#define DATA_BIG  0x28
#define TSS       0x30

#define EFLAGS_VM 0x23000 /* virtual-8086 mode with I/O privilege level 3 */

    .section .text16, "awx"

    .code16
    .globl real_start
real_start:
    cli
    cld
    xorw    %ax, %ax
    movw    %ax, %ss
    movl    $real_stack_top, %esp
    lgdtl   %cs:gdt_pointer
    movl    %cr0, %eax
    orb     $1, %al
    movl    %eax, %cr0
    ljmpl   $CODE32, $1f
    .code32
1:  movl    $DATA32, %eax
    movl    %eax, %ds
    movl    %eax, %es
    movl    %eax, %fs
    movl    %eax, %gs
    movl    %eax, %ss
    movl    $stack_top, %esp
    movl    $bss_start, %edi
    movl    $program_end, %ecx
    subl    %edi, %ecx
    xorl    %eax, %eax
    rep stosb
    movzbl  %dl, %edx
    pushl   %edx
    movl    $task, %eax
    movw    %ax, gdt_task + 2
    shrl    $16, %eax
    movb    %al, gdt_task + 4
    call    set_up_traps
    lidt    idt_pointer
    movl    $TSS, %eax
    ltr     %ax
    call    real_main
2:  hlt
    jmp     2b

/* EBX: the selector that the segments keep the limits of. */
    .macro  to_real_mode
    lidt    real_idt
    ljmp    $CODE16, $.Lleaving\@
    .code16
.Lleaving\@:
    movw    %bx, %ds
    movw    %bx, %es
    movw    %bx, %fs
    movw    %bx, %gs
    movw    %bx, %ss
    movl    %cr0, %eax
    andb    $0xfe, %al
    movl    %eax, %cr0
    ljmpw   $0, $.Lreal\@
.Lreal\@:
    .endm

/* void real_call(unsigned interrupt, bool big): an interrupt with call.in in real mode. */
    .globl real_call
real_call:
    pushal
    movl    36(%esp), %eax
    movb    %al, interrupt
    movl    $DATA16, %ebx
    cmpl    $0, 40(%esp)
    je      1f
    movl    $DATA_BIG, %ebx
1:  movl    %esp, protected_esp
    to_real_mode
    xorw    %ax, %ax
    movw    %ax, %ds
    movw    %ax, %ss
    movl    $real_stack_top, %esp
    movw    $call_before, %di
    callw   look
    rdtsc
    movl    %eax, call_tsc
    movl    %edx, call_tsc + 4

    movw    in_ss, %ss
    movl    in_esp, %esp
    movw    in_es, %es
    movw    in_fs, %fs
    movw    in_gs, %gs
    movl    in_ebx, %ebx
    movl    in_ecx, %ecx
    movl    in_edx, %edx
    movl    in_esi, %esi
    movl    in_edi, %edi
    movl    in_ebp, %ebp
    pushl   in_eflags
    movl    in_eax, %eax
    movw    in_ds, %ds
    popfl
    .byte   0xcd
interrupt:
    .byte   0x13
    movl    %esp, %cs:out_esp
    movw    %ss, %cs:out_ss
    movw    %cs:zero, %ss
    movl    $real_stack_top, %esp
    pushfl
    popl    %cs:out_eflags
    cli
    movw    %ds, %cs:out_ds
    movw    %cs:zero, %ds
    movl    %eax, out_eax
    movl    %ebx, out_ebx
    movl    %ecx, out_ecx
    movl    %edx, out_edx
    movl    %esi, out_esi
    movl    %edi, out_edi
    movl    %ebp, out_ebp
    movw    %es, out_es
    movw    %fs, out_fs
    movw    %gs, out_gs
    rdtsc
    movl    %eax, call_tsc + 8
    movl    %edx, call_tsc + 12
    cld
    movw    $call_after, %di
    callw   look

    lgdtl   gdt_pointer
    movl    %cr0, %eax
    orb     $1, %al
    movl    %eax, %cr0
    ljmpl   $CODE32, $4f
    .code32
4:  movl    $DATA32, %eax
    movl    %eax, %ds
    /* FS and GS still have the limits that they came with, and SVM can show them. */
    movl    vmsave_to, %eax
    testl   %eax, %eax
    jz      5f
    vmsave  %eax
5:  movl    $DATA32, %eax
    movl    %eax, %es
    movl    %eax, %fs
    movl    %eax, %gs
    movl    %eax, %ss
    movl    protected_esp, %esp
    lidt    idt_pointer
    popal
    ret

/* What the BIOS must leave alone besides the registers, to a struct machine at DI. */
    .code16
look:
    movl    %cr0, %eax
    movl    %eax, (%di)
    movl    %cr3, %eax
    movl    %eax, 4(%di)
    movl    %cr4, %eax
    movl    %eax, 8(%di)
    sgdtl   12(%di)
    sidtl   18(%di)
    inb     $0x21, %al
    movb    %al, 24(%di)
    inb     $0xa1, %al
    movb    %al, 25(%di)
    /* Does address bit 20 tell this from what is 1 MiB above it? */
    movw    $0xffff, %ax
    movw    %ax, %es
    movb    $1, %al
    movl    a20_probe, %edx
    cmpl    %es:a20_probe + 0x10, %edx
    jne     1f
    notl    a20_probe
    notl    %edx
    cmpl    %es:a20_probe + 0x10, %edx
    jne     1f
    movb    $0, %al
1:  movb    %al, 26(%di)
    retw

/* bool v86_call(void): INT 13h with call.in in virtual-8086 mode; v86_trap() says how it ends. */
    .code32
    .globl v86_call
v86_call:
    pushal
    movl    %esp, protected_esp
    movzwl  in_gs, %eax
    pushl   %eax
    movzwl  in_fs, %eax
    pushl   %eax
    movzwl  in_ds, %eax
    pushl   %eax
    movzwl  in_es, %eax
    pushl   %eax
    movzwl  in_ss, %eax
    pushl   %eax
    pushl   in_esp
    movl    in_eflags, %eax
    orl     $EFLAGS_VM, %eax
    pushl   %eax
    pushl   $0
    pushl   $v86_code
    movl    in_eax, %eax
    movl    in_ebx, %ebx
    movl    in_ecx, %ecx
    movl    in_edx, %edx
    movl    in_esi, %esi
    movl    in_edi, %edi
    movl    in_ebp, %ebp
    iretl

    .globl v86_code, v86_end
v86_code:
    int     $0x13
v86_end:
    hlt

    .globl trap_stubs
    .balign 16
trap_stubs:
    vector = 0
    .rept   256
    .balign 16
    pushl   $vector
    jmp     trap
    vector = vector + 1
    .endr

trap:
    pushal
    movl    $DATA32, %eax
    movl    %eax, %ds
    movl    %eax, %es
    cld
    pushl   %esp
    call    v86_trap
    popl    %ecx
    testb   %al, %al
    jz      1f
    popal
    movl    $trap_stack_top - 36, %esp /* with or without an error code */
    iretl
1:  movl    protected_esp, %esp
    popal
    ret

/*
 * A BIOS that is wrong: INT 13h goes here, and after so many calls, what the BIOS did is followed
 * by something that it must not do. What changes flags does so in the caller's, at 6(%bp).
 */
    .code16
    .globl broken_int13
broken_int13:
    cmpw    $0, %cs:broken_after
    je      1f
    decw    %cs:broken_after
    ljmpw   *%cs:broken_old
1:  cmpw    $broken_nothing, %cs:broken_how
    je      broken_nothing
    cmpw    $broken_lba, %cs:broken_how
    je      broken_lba
    pushfw
    lcallw  *%cs:broken_old
    pushw   %bp
    movw    %sp, %bp
    callw   broken_flags
    jmpw    *%cs:broken_how

broken_flags:
    jc      1f
    andb    $0xfe, 6(%bp)
    retw
1:  orb     $1, 6(%bp)
    retw

    .globl broken_nothing, broken_lba, broken_edi, broken_ebx, broken_gs, broken_es, broken_if
    .globl broken_df, broken_pic, broken_byte, broken_gdt, broken_a20, broken_cf, broken_stack
    .globl broken_cr0, broken_ticks, broken_limits
broken_nothing:
    pushw   %bp
    movw    %sp, %bp
    andb    $0xfe, 6(%bp)
    popw    %bp
    movb    $0, %ah
    iretw
broken_lba:
    cmpb    $0x42, %ah
    je      1f
    cmpb    $0x43, %ah
    je      1f
    ljmpw   *%cs:broken_old
1:  incl    8(%si)
    pushfw
    lcallw  *%cs:broken_old
    decl    8(%si)
    pushw   %bp
    movw    %sp, %bp
    callw   broken_flags
    jmp     broken_done
broken_edi:
    incl    %edi
broken_done:
    popw    %bp
    iretw
broken_ebx:
    xorl    $0x80000000, %ebx
    jmp     broken_done
broken_gs:
    pushw   %ax
    movw    %gs, %ax
    incw    %ax
    movw    %ax, %gs
    popw    %ax
    jmp     broken_done
broken_es:
    pushw   %ax
    movw    %es, %ax
    incw    %ax
    movw    %ax, %es
    popw    %ax
    jmp     broken_done
broken_if:
    andb    $0xfd, 7(%bp)
    jmp     broken_done
broken_df:
    xorb    $4, 7(%bp)
    jmp     broken_done
broken_pic:
    pushw   %ax
    inb     $0x21, %al
    xorb    $8, %al
    outb    %al, $0x21
    popw    %ax
    jmp     broken_done
broken_byte:
    pushw   %ds
    pushw   %bx
    ldsw    %cs:broken_at, %bx
    notb    (%bx)
    popw    %bx
    popw    %ds
    movw    $broken_done, %cs:broken_how /* another time would make it good */
    jmp     broken_done
broken_gdt:
    lgdtl   %cs:real_idt
    jmp     broken_done
broken_a20:
    pushw   %ax
    inb     $0x92, %al
    xorb    $2, %al
    outb    %al, $0x92
    popw    %ax
    jmp     broken_done
broken_cf:
    orb     $1, 6(%bp)
    movb    $0x20, %ah
    jmp     broken_done
broken_stack:
    notb    20(%bp)
    jmp     broken_done
broken_cr0:
    pushl   %eax
    movl    %cr0, %eax
    xorb    $2, %al
    movl    %eax, %cr0
    popl    %eax
    jmp     broken_done
broken_ticks:
    pushw   %ax
    movb    $0x30, %al
    outb    %al, $0x43
    popw    %ax
    jmp     broken_done
broken_limits:
    pushw   %fs
    pushl   %eax
    pushw   %bx
    movl    %cr0, %eax
    orb     $1, %al
    movl    %eax, %cr0
    movw    $DATA16, %bx
    movw    %bx, %fs
    andb    $0xfe, %al
    movl    %eax, %cr0
    popw    %bx
    popl    %eax
    popw    %fs
    jmp     broken_done

/* Where 16-bit Linux is entered: void enter_linux(unsigned segment). */
    .code32
    .globl enter_linux
enter_linux:
    movl    4(%esp), %ecx
    movl    $DATA16, %ebx
    to_real_mode
    movw    %cx, %ds
    movw    %cx, %es
    movw    %cx, %fs
    movw    %cx, %gs
    movw    %cx, %ss
    movl    $0xe000, %esp
    addw    $0x20, %cx
    pushw   %cx
    pushw   $0
    lretw

/* struct call of real.h. */
    .balign 16
    .globl call
call:
in_eax:     .long   0
in_ebx:     .long   0
in_ecx:     .long   0
in_edx:     .long   0
in_esi:     .long   0
in_edi:     .long   0
in_ebp:     .long   0
in_esp:     .long   0
in_eflags:  .long   0
in_ds:      .word   0
in_es:      .word   0
in_fs:      .word   0
in_gs:      .word   0
in_ss:      .word   0
            .word   0
out_eax:    .long   0
out_ebx:    .long   0
out_ecx:    .long   0
out_edx:    .long   0
out_esi:    .long   0
out_edi:    .long   0
out_ebp:    .long   0
out_esp:    .long   0
out_eflags: .long   0
out_ds:     .word   0
out_es:     .word   0
out_fs:     .word   0
out_gs:     .word   0
out_ss:     .word   0
            .word   0
call_before: .skip  28
call_after: .skip   28
call_tsc:   .quad   0, 0

    .globl  broken_after, broken_how, broken_old, broken_at, vmsave_to
broken_after: .word 0
broken_how: .word   0
broken_old: .word   0, 0
broken_at:  .word   0, 0
zero:       .word   0
    .balign 4
vmsave_to:  .long   0
a20_probe:  .long   0x600dcafe
protected_esp: .long 0

    .balign 8
gdt:
    .quad   0
    .quad   0x00cf9b000000ffff
    .quad   0x00cf93000000ffff
    .quad   0x00009b000000ffff
    .quad   0x000093000000ffff
    .quad   0x008f93000000ffff
gdt_task:
    .word   task_bytes - 1, 0
    .byte   0, 0x89, 0, 0
gdt_end:
    .word   0
gdt_pointer:
    .word   gdt_end - gdt - 1
    .long   gdt
    .word   0
real_idt:
    .word   0x3ff
    .long   0
    .word   0
idt_pointer:
    .word   256 * 8 - 1
    .long   idt

/* All of real mode's own stack that is needed here is a return address and two words. */
    .balign 4
    .skip   256
real_stack_top:

    .section .bss, "aw", @nobits
    .balign 16
    .globl  task, task_end, trap_stack_top, idt
task:
    .skip   104 + 8192 + 1
task_end:
task_bytes = task_end - task
    .balign 16
idt:
    .skip   256 * 8
    .skip   4096
stack_top:
    .skip   4096
trap_stack_top:
