// SPDX-License-Identifier: BSD-2-Clause-Patent

#define _GNU_SOURCE

#include "tests/model/pc.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bios/int13.h"
#include "bios/memory.h"
#include "bios/start.h"

#define KEPT_SECTORS 4096u

uint8_t *pc_memory;
unsigned pc_windows;
void (*pc_in_window)(void);

static const struct frame *caller; /* whoever has come in last */
static struct pc_disk *plugged[DRIVES_MAX];

/* ---- Memory ---- */

void *at_physical(uint32_t address)
{
    return pc_memory + address;
}

static bool overlap(uint32_t address, uint32_t bytes, uint32_t start, uint32_t end)
{
    return address < end && (uint64_t)address + bytes > start;
}

bool memory_is_ours(uint32_t address, uint32_t bytes)
{
    return overlap(address, bytes, PC_OURS, PC_OURS_END);
}

bool memory_is_rom(uint32_t address, uint32_t bytes)
{
    return overlap(address, bytes, PC_ROM, PC_ROM_END) ||
           overlap(address, bytes, PC_BIOS, PC_BIOS_END);
}

/* Whether a pointer is to somewhere in the 4 GiB; if so, where. */
static bool in_memory(const void *at, uint64_t *address)
{
    uintptr_t from = (uintptr_t)pc_memory, to = (uintptr_t)at;

    *address = to - from;
    return to >= from && *address >> 32 == 0;
}

/* ---- Interrupts ---- */

void open_window(void)
{
    if (!caller || !(caller->flags & FLAG_INTERRUPT))
        model_violation("interrupts are let in for a caller who has them off");
    pc_windows++;
    if (pc_in_window)
        pc_in_window();
}

bool pc_int13(struct frame *frame)
{
    const struct frame *outer = caller;

    caller = frame;
    bool served = int13(frame);
    caller = outer;
    for (unsigned i = 0; i < DRIVES_MAX; i++)
        if (!outer && plugged[i] && plugged[i]->in_flight)
            model_violation("a call ends before its request does");
    return served;
}

/* ---- The disk ---- */

void pc_sector(uint64_t sector, uint8_t bytes[PC_SECTOR])
{
    uint32_t state = (uint32_t)(sector ^ sector >> 32) * 2654435761u | 1;

    for (unsigned i = 0; i < PC_SECTOR; i++) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes[i] = (uint8_t)state;
    }
    memcpy(bytes, &sector, sizeof(sector));
}

static struct pc_disk *disk_of(const struct disk *disk)
{
    return (struct pc_disk *)(void *)(uintptr_t)disk;
}

static void enter(struct pc_disk *own)
{
    if (own->inside)
        model_violation("the disk is entered while it is being served");
    own->inside = true;
}

static void move(struct pc_disk *own, const struct disk_request *request)
{
    uint8_t *data = request->base.buffer;
    uint64_t count = request->base.bytes / PC_SECTOR, address;

    /* Where the test has no memory, the device may find some. */
    if (in_memory(data, &address) && address + request->base.bytes > PC_BYTES)
        return;
    for (uint64_t i = 0; i < count; i++, data += PC_SECTOR) {
        uint64_t sector = request->sector + i;
        uint8_t *kept = sector - own->first < own->sectors
                            ? own->kept + (sector - own->first) * PC_SECTOR
                            : NULL;
        if (request->op == DISK_READ && kept)
            memcpy(data, kept, PC_SECTOR);
        else if (request->op == DISK_READ)
            pc_sector(sector, data);
        else if (kept)
            memcpy(kept, data, PC_SECTOR);
        else
            model_violation("sector %llu is written, which is not kept",
                            (unsigned long long)sector);
    }
}

static void finish(struct pc_disk *own)
{
    struct disk_request *request = own->in_flight;

    request->base.result = own->count > own->works ? own->fails : RESULT_OK;
    if (!request->base.result && request->op != DISK_FLUSH)
        move(own, request);
    own->in_flight = NULL;
    request->base.done(&request->base);
}

static enum result submit(struct disk *disk, struct disk_request *request)
{
    struct pc_disk *own = disk_of(disk);
    uint64_t address, bytes = request->base.bytes;

    enter(own);
    if (own->count < PC_ASKED)
        own->asked[own->count] = (struct pc_request){
            .op = request->op,
            .sector = request->sector,
            .bytes = request->base.bytes,
            .buffer = request->base.buffer,
        };
    own->count++;
    enum result result = own->refuses ? own->refuses : disk_check(&disk->info, request);
    if (own->in_flight)
        model_violation("a request while another is in flight");
    if (request->op != DISK_FLUSH && in_memory(request->base.buffer, &address) &&
        (address + bytes > UINT32_MAX || memory_is_ours((uint32_t)address, (uint32_t)bytes)))
        model_violation("a buffer that nobody else's can be");
    if (request->op == DISK_READ && in_memory(request->base.buffer, &address) &&
        memory_is_rom((uint32_t)address, (uint32_t)bytes))
        model_violation("what is read goes to where a ROM is");
    if (!result) {
        own->in_flight = request;
        own->polls_left = own->polls;
        own->looks = 0;
        if (own->polls == 0)
            finish(own);
    }
    own->inside = false;
    return result;
}

static void poll(struct disk *disk)
{
    struct pc_disk *own = disk_of(disk);

    enter(own);
    own->looks = 0;
    if (own->in_flight && --own->polls_left == 0)
        finish(own);
    own->inside = false;
}

static bool ready(const struct disk *disk)
{
    struct pc_disk *own = disk_of(disk);

    return own->looks++ >= own->ready_after;
}

static enum result restart(struct disk *disk, enum result why)
{
    struct pc_disk *own = disk_of(disk);

    enter(own);
    if (own->in_flight)
        model_violation("a restart in the middle of a request");
    if (why != RESULT_ABORTED)
        model_violation("a restart because of %d", (int)why);
    own->restarts++;
    own->inside = false;
    return own->restart;
}

static void wait(struct disk *disk)
{
    struct pc_disk *own = disk_of(disk);

    enter(own);
    if (!own->in_flight)
        model_violation("the CPU is given away, and nothing is in flight");
    own->waits++;
    own->inside = false;
}

static const struct disk_ops ops = {
    .submit = submit, .poll = poll, .ready = ready, .restart = restart};
static const struct disk_ops ops_that_wait = {
    .submit = submit, .poll = poll, .ready = ready, .restart = restart, .wait = wait};

void pc_disk(struct pc_disk *own, uint32_t block_size, uint64_t blocks)
{
    uint64_t all = blocks * (block_size / PC_SECTOR);

    *own = (struct pc_disk){
        .disk = {.ops = &ops,
                 .info = {.block_size = block_size, .blocks = blocks, .blocks_per_physical = 1}},
        .ready_after = PC_NEVER,
        .sectors = all < KEPT_SECTORS ? all : KEPT_SECTORS,
    };
    own->first = all - own->sectors;
    own->kept = malloc(own->sectors * PC_SECTOR);
    if (!own->kept)
        abort();
    for (uint64_t i = 0; i < own->sectors; i++)
        pc_sector(own->first + i, own->kept + i * PC_SECTOR);
}

void pc_disk_waits(struct pc_disk *own)
{
    own->disk.ops = &ops_that_wait;
}

void pc_disk_forget(struct pc_disk *own)
{
    own->count = own->waits = own->restarts = 0;
}

/* ---- Running ---- */

void pc_on(void)
{
    static uint8_t first[PC_BYTES];

    /* Anything in 4 GiB has an address, and most of it nothing there. */
    if (!pc_memory) {
        pc_memory =
            mmap(NULL, 1ull << 32, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (pc_memory == MAP_FAILED || mprotect(pc_memory, PC_BYTES, PROT_READ | PROT_WRITE) != 0)
            abort();
        for (uint32_t at = 0; at < PC_BYTES; at += PC_SECTOR)
            pc_sector(~(uint64_t)at, first + at);
        first[PC_DISKS] = first[PC_DISK_STATUS] = 0;
    }
    memcpy(pc_memory, first, PC_BYTES);
    drives_count = 0;
    pc_windows = 0;
    pc_in_window = NULL;
}

void pc_off(void)
{
    for (unsigned i = 0; i < DRIVES_MAX; i++)
        if (plugged[i]) {
            free(plugged[i]->kept);
            plugged[i] = NULL;
        }
    drives_count = 0;
    model_forget();
}

struct drive *pc_drive(struct pc_disk *disk, const struct geometry *physical)
{
    struct drive *drive = drives_next();

    if (!drive)
        abort();
    plugged[drives_count] = disk;
    drive->disk = &disk->disk;
    if (physical)
        drive->physical = *physical;
    drives_add(drive);
    drive->number = (uint8_t)(DRIVE_FIRST + pc_memory[PC_DISKS]++);
    return drive;
}
