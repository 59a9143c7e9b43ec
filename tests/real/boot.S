/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The boot sector: reads the program, which begins at sector 2, to 0x8000, a sector at a time, with
 * EDD if the drive has it (and then whatever the size of its sectors), or else by cylinder, head and
 * sector.
 */
    .code16
    .section .boot, "awx"
    .globl boot
boot:
    cli
    xorw    %ax, %ax
    movw    %ax, %ds
    movw    %ax, %es
    movw    %ax, %ss
    movw    $0x7c00, %sp
    sti
    cld
    ljmpw   $0, $1f
1:  movb    %dl, boot_drive

    movb    $0x41, %ah
    movw    $0x55aa, %bx
    int     $0x13
    jc      geometry
    cmpw    $0xaa55, %bx
    jne     geometry
    testb   $1, %cl
    jz      geometry
    movb    $0x48, %ah
    movb    boot_drive, %dl
    movw    $0x600, %si
    movw    $0x1a, (%si)
    int     $0x13
    jc      trouble
    movw    0x618, %ax
    movw    %ax, sector_bytes
    movw    $read_edd, read
    jmp     load

geometry:
    movb    $8, %ah
    movb    boot_drive, %dl
    int     $0x13
    jc      trouble
    andw    $0x3f, %cx
    movw    %cx, track_sectors
    movzbw  %dh, %ax
    incw    %ax
    movw    %ax, heads

load:
    movl    $program_bytes, %ebp
next:
    call    *read
    jc      trouble
    incw    packet_lba
    movzwl  sector_bytes, %eax
    movw    %ax, %bx
    shrw    $4, %bx
    addw    %bx, packet_segment
    subl    %eax, %ebp
    ja      next
    movb    boot_drive, %dl
    ljmpw   $0, $real_start

read_edd:
    movw    $packet, %si
    movb    $0x42, %ah
    movb    boot_drive, %dl
    int     $0x13
    ret

read_chs:
    movw    packet_lba, %ax
    xorw    %dx, %dx
    divw    track_sectors
    incw    %dx
    movw    %dx, %cx
    xorw    %dx, %dx
    divw    heads
    movb    %al, %ch
    movb    %dl, %dh
    movb    boot_drive, %dl
    movw    packet_segment, %es
    xorw    %bx, %bx
    movw    $0x0201, %ax
    int     $0x13
    ret

trouble:
    movw    $message, %si
1:  lodsb
    testb   %al, %al
    jz      2f
    movb    %al, %bl
    movw    $0x3fd, %dx
3:  inb     %dx, %al
    testb   $0x20, %al
    jz      3b
    movb    %bl, %al
    movw    $0x3f8, %dx
    outb    %al, %dx
    jmp     1b
2:  cli
    hlt
    jmp     2b

message:        .asciz  "real: failed: the boot sector cannot read the program\r\n"
boot_drive:     .byte   0
sector_bytes:   .word   512
track_sectors:  .word   0
heads:          .word   0
read:           .word   read_chs
    .balign 4
packet:         .byte   0x10, 0
                .word   1, 0
packet_segment: .word   0x800
packet_lba:     .quad   2

    .org    446
    .fill   64, 1, 0
    .byte   0x55, 0xaa
