// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * What is around INT 13h, in the place of bios/memory.c, bios/start.c and the drivers: memory as
 * the 32-bit part sees it, interrupts that wait, and a disk that does as it is told and writes down
 * what it was asked.
 *
 * It is strict: what bios/ must not do is a violation (dma.h). Who touches memory that there is not
 * ends there.
 */
#pragma once

#include "bios/door.h"
#include "bios/drives.h"
#include "tests/model/dma.h"

/* ---- Memory ---- */

/* What segments and offsets reach, some more, and in that what is Baton's own; an option ROM, and
 * the BIOS, whose end is the first megabyte's. */
#define PC_REAL_END 0x10fff0u
#define PC_OURS     0x120000u
#define PC_OURS_END 0x122000u
#define PC_BYTES    0x130000u
#define PC_ROM      0xc8000u
#define PC_ROM_END  0xca000u
#define PC_BIOS     0xf0000u
#define PC_BIOS_END 0x100000u

#define PC_DISKS       0x475u
#define PC_DISK_STATUS 0x474u

extern uint8_t *pc_memory;

/* What EDD functions have at DS:SI. */
struct pc_packet {
    uint8_t bytes, reserved;
    uint16_t blocks, offset, segment;
    uint64_t block, flat;
} __attribute__((packed));

/* ---- The disk ---- */

#define PC_ASKED  128u
#define PC_NEVER  UINT32_MAX
#define PC_SECTOR DISK_SECTOR

struct pc_request {
    enum disk_op op;
    uint64_t sector;
    size_t bytes;
    void *buffer;
};

struct pc_disk {
    struct disk disk;

    /* How it is. */
    enum result refuses;  /* what submit() says, if it takes nothing */
    enum result fails;    /* what requests end with, */
    unsigned works;       /* after so many that end well */
    unsigned polls;       /* how many a request takes; 0: it is done before submit() returns */
    uint32_t ready_after; /* looks since it was submitted or polled, or PC_NEVER */
    enum result restart;  /* what restart() says */

    /* What was asked of it. */
    struct pc_request asked[PC_ASKED];
    unsigned count; /* of those, and of those that no more fitted in */
    unsigned waits, restarts;

    /* What is on it: `sectors` from `first` on are kept. Of all others, and of these at the start,
     * what pc_sector() says. */
    uint64_t first, sectors;
    uint8_t *kept;

    /* Its own. */
    struct disk_request *in_flight;
    unsigned polls_left;
    uint32_t looks;
    bool inside;
};

/* What is in a sector that nobody has written. */
void pc_sector(uint64_t sector, uint8_t bytes[PC_SECTOR]);

/* A disk that works, at once and without a wait() of its own. Of a large one, only what is near its
 * end is kept: it cannot be written elsewhere. */
void pc_disk(struct pc_disk *disk, uint32_t block_size, uint64_t blocks);
/* Gives it a wait(). */
void pc_disk_waits(struct pc_disk *disk);
/* Forgets what was asked. */
void pc_disk_forget(struct pc_disk *disk);

/* ---- Running ---- */

/* Memory with something in it, and no drives. Undone by pc_off(). */
void pc_on(void);
void pc_off(void);

/* A drive for a disk, of the next number from 80h on; of a geometry, if it has one. */
struct drive *pc_drive(struct pc_disk *disk, const struct geometry *physical);

/* How often interrupts have been let in, and what comes in then. */
extern unsigned pc_windows;
extern void (*pc_in_window)(void);

/* int13(), whose caller is known to open_window() meanwhile. */
bool pc_int13(struct frame *frame);
