/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The operating system that never leaves the BIOS: a program that boots from a disk of a PC BIOS,
 * calls INT 13h and nothing else for as long as it lives, and looks at everything that the BIOS has
 * no business to touch. It runs in 32-bit code with paging and interrupts off, and calls the BIOS
 * in real mode (or in virtual-8086 mode).
 *
 * Sector 1 of each of its disks has a line of words: "real", the disk's number, and, on the one
 * that it boots from, orders (see main.c). It answers on COM1 with lines that begin "real: ", the
 * last of them "real: ok" or "real: failed: " and the first thing that was wrong.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

struct regs {
    u32 eax, ebx, ecx, edx, esi, edi, ebp, esp, eflags;
    u16 ds, es, fs, gs, ss, unused;
};

struct __attribute__((packed)) machine {
    u32 cr0, cr3, cr4;
    u8 gdtr[6], idtr[6], pic_masks[2];
    u8 a20, unused;
};

/* start.S has this, too. */
extern struct {
    struct regs in, out;
    struct machine before, after;
    u64 start, end;
} call;

enum { CF = 1, ZF = 0x40, IF = 0x200, DF = 0x400 };

/* start.S */
extern u8 program_end[], file_end[];
extern u8 v86_code[], v86_end[], trap_stubs[], trap_stack_top[], task[], task_end[], idt[];
extern u32 vmsave_to;
void real_call(unsigned interrupt, bool big);
void v86_call(void);
_Noreturn void enter_linux(u32 segment);

/* lib.c: COM1. say() knows %c %s %d %u %x, widths with zeros, and %llx. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The end of a line of somebody else's. */
void say_end(void);
/* To `text` in the place of COM1, ended with a 0. */
void say_to(char *text, u32 bytes, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Something does not hold: said, and the program will fail. True, so that a caller can count. */
bool wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern unsigned wrongs;
/* What was wrong first, or "". */
extern char first_wrong[160];

/* Numbers that a seed says all of. */
void random_seed(u32 seed);
u32 random32(void);
/* From 0 to below. */
u32 random_below(u32 limit);

/* memory.c: all the memory that the BIOS says is ours has a pattern in it. */
struct range {
    u32 start, end;
};
enum {
    LOW_START = 0x600,
    STACK_START = 0x5000, /* the stack of the BIOS's callers */
    STACK_END = 0x7c00,
    HMA_END = 0x10fff0,
    COUNTERS = 0x200000, /* bit 20 is not set */
    MEMORY_MIN = 0x400000,
};
extern bool a20_is_off;
extern u32 low_end; /* of memory below 640 KiB */
extern struct range *const pattern_ranges;
extern unsigned pattern_count;
bool memory_find(void);
void memory_fill(void);
/* The next so many bytes of it, or all. */
void memory_check_slice(u32 bytes);
void memory_check(void);
void pattern_fill(u32 start, u32 end);
u8 pattern_byte(u32 address);
/* Whether the pattern is at [start, end), of any alignment. Complains with what it is called. */
bool pattern_holds(u32 start, u32 end, const char *what);
/* Lets the pattern be again where something of ours was, which has to lie in it. */
void pattern_restore(u32 start, u32 end);

/* calls.c */
enum mode { MODE_REAL, MODE_BIG, MODE_V86 };
extern enum mode mode;
extern bool gentle; /* no calls with DF set, nor with buffers past 1 MiB */
/* What a function gives back in, besides AX and CF. */
enum { GIVES_BX = 1, GIVES_CX = 2, GIVES_DX = 4, GIVES_ES_DI = 8 };
/* Random values everywhere but for AX and DL, in call.in. */
void call_prepare(u32 ax, u32 dl);
/* INT 13h, and everything that must hold after any. `gives` says what may be other. */
void call_int13(unsigned gives);
bool call_failed(void);
u8 call_ah(void);
extern u32 most_stack; /* that any call has used, in bytes */
void call_set_ds_si(u32 address, u32 size);
void call_set_es_bx(u32 address, u32 size);
/* A segment and offset of an address so that `size` bytes from there do not wrap. */
u32 far_pointer(u32 address, u32 size);
extern u32 call_count;
/* Where the stack of the call in call.in begins. */
u32 call_stack(void);
/* The last call in words. */
const char *call_name(void);
/* From here on the interrupt table must stay as it is, and the clock of INT 08h go on. */
void calls_start(void);
void calls_check(void);
/* What that clock shows. */
u32 ticks_now(void);
/* Lets interrupts in until it has gone on; false if it does not. */
bool tick_wait(void);

/* drives.c */
enum { DRIVES_MAX = 16, SCRATCH = 2048, WINDOW_BYTES = 8 << 20 };
struct drive {
    u8 number;
    u8 disk; /* as its sector 1 says */
    bool edd;
    u32 bytes; /* of a sector */
    u64 sectors;
    u32 cylinders, heads, track; /* 0 where function 08h fails */
    u64 window[2];               /* the first LBAs of two scratch windows, */
    u32 window_sectors[2];       /* and how many there are */
    u8 *counters[2];             /* how often each sector has been written */
};
extern struct drive drives[DRIVES_MAX];
extern unsigned drive_count;
extern char orders[512];
bool drives_find(u8 boot);
/* Reads with no checks but for the result; `count` sectors to below 1 MiB. */
bool drive_read(const struct drive *drive, u64 lba, u32 count, u32 to);
bool drive_has_chs(const struct drive *drive, u64 lba, u32 count);
/* CX and DH (as bits 8 to 15) of an LBA. */
void drive_chs(const struct drive *drive, u64 lba, u32 *cx, u32 *dx);
u8 *drive_counter(const struct drive *drive, u64 lba);

struct __attribute__((packed)) packet {
    u8 size, zero;
    u16 count;
    u16 offset, segment;
    u64 lba;
    u64 flat;
};
enum { PACKET_BYTES = 16, PACKET_FLAT_BYTES = 24 };

/* A sector's contents, which are its disk's, its LBA's and its counter's alone. */
void content_start(void);
void content_fill(const struct drive *drive, u64 lba, u8 counter, u8 *sector);
bool content_is(const struct drive *drive, u64 lba, u8 counter, const u8 *sector);

/* Where a random buffer or packet is, of so many bytes: in memory with the pattern in it. */
u32 random_buffer(u32 bytes);
u32 random_packet(void);

/* The orders */
void soak(u32 calls, bool may_refuse);
void functions(void);
void bad(u32 calls);
/* Reads to where the BIOS itself is. */
void rom(void);
void a20_off(u32 calls);
void big(u32 calls);
void big_look(void);
void v86(u32 calls);
void timing(u32 calls);
bool broken(const char *how, u32 after);
/* Before a call: for a BIOS that changes these bytes. Without a packet, the second is 0. */
void broken_buffer(u32 last, u32 packet);
_Noreturn void linux_start(const struct drive *drive, u32 kernel, u32 kernel_bytes, u32 initrd,
                           u32 initrd_bytes, const char *command_line);
bool v86_int13(void);

/* main.c */
_Noreturn void power_off(void);

/* lib.c; the compiler calls them, too. */
void *memcpy(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);
