// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "bios/drives.h"
#include "bios/int13.h"
#include "bios/memory.h"
#include "bios/start.h"

/* What AH says. */
enum {
    GOOD = 0x00,
    BAD_REQUEST = 0x01,
    WRITE_PROTECTED = 0x03,
    BAD_ADDRESS = 0x09, /* "DMA crosses a boundary": the buffer is where none can be */
    FAILED = 0x20,
    NO_MEDIA = 0x31,
    TIMED_OUT = 0x80,
    NOT_READY = AH_NOT_READY,
    NOT_REMOVABLE = 0xb2,
    UNDEFINED = 0xbb,
};

/* The upper end of what a segment and an offset can mean, with A20 on, and off. */
#define REAL_MODE_END 0x10fff0u
#define MEGABYTE      0x100000u

/* How often to look at a device that shows nothing new before interrupts are let in, since the way
 * to real mode and back is long; and at one that may need our CPU, which is given away then. */
#define LOOKS_ALONE  4096u
#define LOOKS_SHARED 64u

/* The drive that is asked for something: there is one request at a time, and a call may be
 * interrupted by another one, from a timer's handler say. NULL: none is. */
static struct drive *busy;

/* Where what is read only to see whether it can be goes. */
static uint8_t discarded[16u << 10] __attribute__((aligned(4096)));

/* ---- Registers ---- */

static uint8_t low(uint32_t reg)
{
    return (uint8_t)reg;
}

static uint8_t high(uint32_t reg)
{
    return (uint8_t)(reg >> 8);
}

static void set_low(uint32_t *reg, uint8_t value)
{
    *reg = (*reg & ~0xffu) | value;
}

static void set_high(uint32_t *reg, uint8_t value)
{
    *reg = (*reg & ~0xff00u) | (uint32_t)value << 8;
}

static void set_word(uint32_t *reg, uint32_t value)
{
    *reg = (*reg & ~0xffffu) | (value & 0xffff);
}

/* ---- Moving data ---- */

static void done(struct io_request *request)
{
    (void)request;
    busy = NULL;
}

static uint8_t word_for(enum result result)
{
    switch (result) {
    case RESULT_OK:
        return GOOD;
    case RESULT_WRITE_PROTECTED:
        return WRITE_PROTECTED;
    case RESULT_OUT_OF_RANGE:
        return BAD_REQUEST;
    case RESULT_NO_MEDIA:
        return NO_MEDIA;
    case RESULT_TIMEOUT:
        return TIMED_OUT;
    case RESULT_NO_MEMORY:
        return UNDEFINED;
    case RESULT_BUSY:
        return NOT_READY;
    default:
        return FAILED;
    }
}

/* Waits until the request is done, which it will be: the driver's bounds see to that (C6). */
static void wait(struct disk *disk, bool interrupts)
{
    uint32_t looks = 0, most = disk->ops->wait ? LOOKS_SHARED : LOOKS_ALONE;

    while (busy) {
        if (!disk->ops->ready(disk) && ++looks < most)
            continue;
        if (looks == most) {
            looks = 0;
            if (interrupts)
                open_window();
            if (disk->ops->wait && !disk->ops->ready(disk))
                disk->ops->wait(disk);
        }
        disk->ops->poll(disk);
    }
}

static uint8_t transfer(struct drive *drive, enum disk_op op, uint64_t block, uint32_t blocks,
                        void *buffer, bool interrupts)
{
    struct disk *disk = drive->disk;
    uint32_t shift = (uint32_t)__builtin_ctz(disk->info.block_size);
    struct disk_request request = {
        .base = {.buffer = buffer, .bytes = (size_t)blocks << shift, .done = done},
        .op = op,
        .sector = block << (shift - 9),
    };

    busy = drive;
    enum result result = disk->ops->submit(disk, &request);
    if (result) {
        busy = NULL;
        return word_for(result);
    }
    wait(disk, interrupts);
    return word_for(request.base.result);
}

/* Whether a block is on the disk, and so many from it on. */
static bool on_disk(const struct drive *drive, uint64_t block, uint32_t blocks)
{
    uint64_t all = drive->disk->info.blocks;

    return block < all && blocks <= all - block;
}

/* ---- What is asked for ---- */

struct call {
    struct drive *drive;
    struct registers *registers;
    bool interrupts; /* may come in while we wait */
    bool a20_off;    /* the caller's megabytes: what is beyond the first is the first */
};

enum what { READ, WRITE, VERIFY, SEEK };

static uint8_t verify(const struct call *call, uint64_t block, uint32_t blocks)
{
    uint32_t most = sizeof(discarded) / call->drive->disk->info.block_size;
    uint8_t status = GOOD;

    while (blocks != 0 && status == GOOD) {
        uint32_t now = blocks < most ? blocks : most;
        status = transfer(call->drive, DISK_READ, block, now, discarded, call->interrupts);
        block += now;
        blocks -= now;
    }
    return status;
}

static uint8_t flush(const struct call *call)
{
    return transfer(call->drive, DISK_FLUSH, 0, 0, NULL, call->interrupts);
}

/* `buffer` is physical, and as large as it has to be. */
static uint8_t move(const struct call *call, enum what what, uint64_t block, uint32_t blocks,
                    uint64_t buffer)
{
    uint64_t bytes = (uint64_t)blocks * call->drive->disk->info.block_size;

    if (!on_disk(call->drive, block, blocks))
        return BAD_REQUEST;
    if (what == SEEK || blocks == 0)
        return GOOD;
    if (what == VERIFY)
        return verify(call, block, blocks);
    if (buffer >> 32 || bytes >> 32 || (buffer + bytes) >> 32 ||
        memory_is_ours((uint32_t)buffer, (uint32_t)bytes) ||
        (what == READ && memory_is_rom((uint32_t)buffer, (uint32_t)bytes)))
        return BAD_ADDRESS;
    uint8_t status = transfer(call->drive, what == WRITE ? DISK_WRITE : DISK_READ, block, blocks,
                              at_physical((uint32_t)buffer), call->interrupts);
    /* What INT 13h says is written, is: nobody who calls it knows of a cache. */
    return status == GOOD && what == WRITE ? flush(call) : status;
}

/* Where a caller's segment and offset are, which `bytes` begin at. False if there is no such place:
 * what goes on at 0, as the caller sees it, is none for us. */
static bool place(const struct call *call, uint16_t segment, uint16_t offset, uint64_t bytes,
                  uint32_t *physical)
{
    uint32_t end = call->a20_off ? MEGABYTE : REAL_MODE_END;

    *physical = physical_of(segment, offset);
    if (call->a20_off)
        *physical %= MEGABYTE;
    return bytes <= end - *physical;
}

/* ---- Cylinders, heads and sectors ---- */

static uint32_t cylinder_of(const struct registers *r)
{
    return high(r->ecx) | (uint32_t)(low(r->ecx) & 0xc0) << 2;
}

static uint8_t by_geometry(const struct call *call, enum what what)
{
    struct registers *r = call->registers;
    const struct geometry *is = &call->drive->logical;
    uint32_t cylinder = cylinder_of(r);
    uint32_t head = high(r->edx), sector = low(r->ecx) & 0x3f;
    uint32_t count = low(r->eax), buffer = 0;

    if (what == SEEK)
        count = sector = 1; /* an arm goes to a track */
    /* 128 is what one transfer of the first controllers could move. */
    if (count == 0 || count > 128 || sector == 0 || sector > is->sectors || head >= is->heads ||
        cylinder >= is->cylinders)
        return BAD_REQUEST;
    if ((what == READ || what == WRITE) &&
        !place(call, r->es, (uint16_t)r->ebx, count * call->drive->disk->info.block_size, &buffer))
        return BAD_ADDRESS;
    return move(call, what, (cylinder * is->heads + head) * is->sectors + sector - 1, count,
                buffer);
}

static uint8_t read_write_verify(const struct call *call, enum what what)
{
    uint8_t status = by_geometry(call, what);

    if (status != GOOD)
        set_low(&call->registers->eax, 0); /* how many were moved: all or none */
    return status;
}

/* There is nothing to format: only whether there is such a track is to be said. */
static uint8_t format(const struct call *call)
{
    const struct registers *r = call->registers;
    const struct geometry *is = &call->drive->logical;
    uint32_t cylinder = cylinder_of(r);

    if (cylinder >= is->cylinders || high(r->edx) >= is->heads || low(r->eax) == 0 ||
        low(r->eax) > is->sectors)
        return BAD_REQUEST;
    return call->drive->disk->info.read_only ? WRITE_PROTECTED : GOOD;
}

/* The last cylinder has always been kept back for diagnostics, and 08h does not tell of it. */
static uint8_t parameters(const struct call *call)
{
    struct registers *r = call->registers;
    const struct geometry *is = &call->drive->logical;
    uint32_t last = is->cylinders > 1 ? is->cylinders - 2 : 0;

    set_low(&r->eax, 0);
    set_word(&r->ecx, (last & 0xff) << 8 | (last >> 2 & 0xc0) | (is->sectors & 0x3f));
    set_word(&r->edx, (is->heads - 1) << 8 | *bios_data(BDA_DISKS));
    return GOOD;
}

/* And the same as sectors. */
#define DISK_TYPE 0x03 /* a hard disk */
static uint8_t type(const struct call *call)
{
    struct registers *r = call->registers;
    const struct geometry *is = &call->drive->logical;
    uint32_t sectors = (is->cylinders ? is->cylinders - 1 : 0) * is->heads * is->sectors;

    set_word(&r->ecx, sectors >> 16);
    set_word(&r->edx, sectors);
    return GOOD;
}

/* ---- Enhanced Disk Drive services ---- */

#define EDD_INSTALLED 0x55aau
#define EDD_VERSION   0x30
#define EDD_SUPPORT   0x0007u /* packets, locking and ejecting, drive parameters */

struct packet {
    uint8_t bytes;
    uint8_t reserved;
    uint16_t blocks;
    uint16_t offset, segment;
    uint64_t block;
    uint64_t flat; /* where the buffer is, if segment and offset are all ones, and there is this */
} __attribute__((packed));
#define PACKET_SHORT 16u
#define PACKET_LONG  24u

#define WRITE_AND_VERIFY 0x02

static uint8_t by_packet(const struct call *call, enum what what)
{
    struct registers *r = call->registers;
    struct packet *there, packet;
    uint32_t at, bytes, buffer = 0;
    uint64_t flat;

    if (!place(call, r->ds, (uint16_t)r->esi, PACKET_SHORT, &at))
        return BAD_REQUEST;
    there = at_physical(at);
    bytes = *(volatile uint8_t *)there;
    if (bytes < PACKET_SHORT)
        return BAD_REQUEST;
    __builtin_memset(&packet, 0, sizeof(packet));
    __builtin_memcpy(&packet, there, PACKET_SHORT);
    bool is_flat = packet.segment == 0xffff && packet.offset == 0xffff && bytes >= PACKET_LONG;
    if (is_flat) {
        if (!place(call, r->ds, (uint16_t)r->esi, PACKET_LONG, &at))
            return BAD_REQUEST;
        packet.flat = there->flat;
    }
    flat = packet.flat;
    if (packet.blocks == 0)
        return on_disk(call->drive, packet.block, 0) ? GOOD : BAD_REQUEST;
    uint8_t status = GOOD;
    if (what == WRITE && low(r->eax) > WRITE_AND_VERIFY)
        status = BAD_REQUEST;
    else if ((what == READ || what == WRITE) && !is_flat) {
        if (!place(call, packet.segment, packet.offset,
                   (uint64_t)packet.blocks * call->drive->disk->info.block_size, &buffer))
            status = BAD_ADDRESS;
        flat = buffer;
    }
    if (status == GOOD)
        status = move(call, what, packet.block, packet.blocks, flat);
    if (status == GOOD && what == WRITE && low(r->eax) == WRITE_AND_VERIFY) {
        status = verify(call, packet.block, packet.blocks);
    }
    if (status != GOOD)
        there->blocks = 0; /* that were moved */
    return status;
}

static uint8_t extensions_here(const struct call *call)
{
    struct registers *r = call->registers;

    if ((r->ebx & 0xffff) != EDD_INSTALLED)
        return BAD_REQUEST;
    set_word(&r->ebx, 0xaa55);
    set_word(&r->ecx, EDD_SUPPORT);
    return GOOD;
}

#define GEOMETRY_VALID 0x0002

static uint8_t drive_parameters(const struct call *call)
{
    struct registers *r = call->registers;
    const struct drive *drive = call->drive;
    const struct geometry *is = &drive->physical;
    const struct drive_path *path = &drive->path;
    uint64_t all = drive->disk->info.blocks;
    uint32_t at, bytes;
    uint16_t room;

    if (!place(call, r->ds, (uint16_t)r->esi, PARAMETERS_1, &at))
        return BAD_REQUEST;
    __builtin_memcpy(&room, at_physical(at), sizeof(room));
    if (room < PARAMETERS_1)
        return BAD_REQUEST;
    bytes = room >= PARAMETERS_T13       ? PARAMETERS_T13
            : room >= PARAMETERS_PHOENIX ? PARAMETERS_PHOENIX
            : room >= PARAMETERS_2       ? PARAMETERS_2
                                         : PARAMETERS_1;
    if (!place(call, r->ds, (uint16_t)r->esi, bytes, &at))
        return BAD_REQUEST;

    struct parameters told = {
        .bytes = (uint16_t)bytes,
        .cylinders = is->cylinders,
        .heads = is->heads,
        .sectors = is->sectors,
        .blocks = all,
        .block_size = (uint16_t)drive->disk->info.block_size,
        .configuration = UINT32_MAX,
        .key = PARAMETERS_KEY,
        .path_bytes = (uint8_t)(bytes - PARAMETERS_2),
        .host_bus = {'P', 'C', 'I', ' '},
        .interface = {'S', 'C', 'S', 'I', ' ', ' ', ' ', ' '},
        .bus = path->where.bus,
        .device = path->where.device,
        .function = path->where.function,
    };
    /* No more cylinders than ATA has ever been able to say. */
    if (all <= 0x3fffull * is->heads * is->sectors)
        told.flags = GEOMETRY_VALID;
    else
        told.cylinders = 0x3fff;
    __builtin_memcpy(&told.rest[0], &path->target, sizeof(path->target));
    __builtin_memcpy(&told.rest[2], &path->lun, bytes == PARAMETERS_T13 ? sizeof(path->lun) : 6);
    uint8_t sum = 0;
    for (uint32_t i = PARAMETERS_2; i < bytes; i++)
        sum = (uint8_t)(sum + ((const uint8_t *)&told)[i]);
    if (bytes > PARAMETERS_2)
        ((uint8_t *)&told)[bytes - 1] = (uint8_t)-sum;
    __builtin_memcpy(at_physical(at), &told, bytes);
    return GOOD;
}

/* ---- Which is which ---- */

/* After a failure, the device is brought up anew: that is what whoever resets a disk hopes for. */
static uint8_t reset(const struct call *call)
{
    struct drive *drive = call->drive;

    if (drive->status == FAILED || drive->status == TIMED_OUT || drive->status == NOT_READY) {
        enum result result = drive->disk->ops->restart(drive->disk, RESULT_ABORTED);
        if (result)
            return word_for(result);
    }
    return flush(call);
}

static uint8_t serve(const struct call *call)
{
    struct registers *r = call->registers;

    switch (high(r->eax)) {
    case 0x00:
    case 0x0d:
        return reset(call);
    case 0x02:
        return read_write_verify(call, READ);
    case 0x03:
        return read_write_verify(call, WRITE);
    case 0x04:
        return read_write_verify(call, VERIFY);
    case 0x05:
        return format(call);
    case 0x08:
        return parameters(call);
    case 0x0c:
        return by_geometry(call, SEEK);
    case 0x09: /* initialise with the drive's parameters, */
    case 0x10: /* is it ready, */
    case 0x11: /* recalibrate, */
    case 0x14: /* diagnose: all is well as long as nothing has failed */
        return GOOD;
    case 0x15:
        return type(call);
    case 0x41:
        return extensions_here(call);
    case 0x42:
        return by_packet(call, READ);
    case 0x43:
        return by_packet(call, WRITE);
    case 0x44:
        return by_packet(call, VERIFY);
    case 0x45: /* lock, unlock, or is it: what cannot be removed need not be locked */
        set_low(&r->eax, 0);
        return GOOD;
    case 0x46: /* eject */
        return NOT_REMOVABLE;
    case 0x47:
        return by_packet(call, SEEK);
    case 0x48:
        return drive_parameters(call);
    case 0x49: /* has it been changed: no */
        return GOOD;
    default:
        return BAD_REQUEST;
    }
}

void int13_abandon(void)
{
    struct drive *drive = busy;

    /* What does not come back is tried again by whoever resets it first. */
    if (drive && drive->disk->ops->restart(drive->disk, RESULT_ABORTED))
        drive->status = FAILED;
}

bool int13(struct frame *frame)
{
    struct registers r = frame->registers; /* the stack's need not be aligned */
    struct call call = {
        .drive = drives_find(low(r.edx)),
        .registers = &r,
        .interrupts = (frame->flags & FLAG_INTERRUPT) != 0,
        .a20_off = frame->a20_was_off != 0,
    };
    uint8_t status;

    if (!call.drive)
        return false;
    frame->flags &= (uint16_t)~FLAG_CARRY;
    if (high(r.eax) == 0x01) /* how did the last call go? */
        status = *bios_data(BDA_DISK_STATUS);
    else if (busy)
        status = NOT_READY;
    else
        call.drive->status = status = serve(&call);
    *bios_data(BDA_DISK_STATUS) = status;

    if (status != GOOD)
        frame->flags |= FLAG_CARRY;
    else if (high(r.eax) == 0x15)
        status = DISK_TYPE;
    else if (high(r.eax) == 0x41)
        status = EDD_VERSION;
    set_high(&r.eax, status);
    frame->registers = r;
    return true;
}
