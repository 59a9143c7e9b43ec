// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The caller of INT 13h is the attacker, or at least has anything in his registers: the input says
 * what the disk is, then, for each call, what is in registers, in the packet that they point to,
 * and what the disk does.
 *
 * Nothing may crash or go on without an end. Memory has to be what it was, but for the buffer,
 * which has what was read, the answer of 48h, and a packet's count; and the disk, but for what is
 * written. Registers that a function does not answer in stay.
 */

#include <stdlib.h>
#include <string.h>

#include "bios/int13.h"
#include "tests/model/pc.h"

#define SHAPE        8u
#define CALLS        6u
#define DISK_SECTORS 1088u

struct call {
    uint16_t ax, bx, cx, dx, si, ds, es;
    uint8_t mode, flags, behaviour[3];
    uint8_t packet[24];
} __attribute__((packed));

enum {
    MODE_KNOWN = 0x03,     /* most functions are those that there are */
    MODE_DRIVE = 0x04,     /* any drive */
    MODE_PACKET = 0x08,    /* a packet that makes sense */
    MODE_FLAT = 0x10,      /* and has a flat address */
    MODE_GEOMETRY = 0x20,  /* a place that makes sense */
    MODE_NESTED = 0x40,    /* a call in the middle */
    MODE_BEHAVIOUR = 0x80, /* a disk that fails, or takes its time */
};

static struct pc_disk disk;
static uint8_t first_disk[DISK_SECTORS * PC_SECTOR];
static uint8_t disk_before[DISK_SECTORS * PC_SECTOR];
static uint8_t memory[PC_BYTES]; /* as it has to be */

static void check(bool holds, const char *what)
{
    if (!holds)
        model_violation("does not hold: %s", what);
}

/* ---- The machine ---- */

static void start(const uint8_t *shape)
{
    static const uint16_t sectors[] = {8, 56, 64, 1008, 1080, DISK_SECTORS};
    const struct geometry physical = {
        .cylinders = shape[3], .heads = shape[4], .sectors = shape[5]};

    model_abort_on_violation = true;
    pc_on();
    if (!disk.kept) {
        pc_disk(&disk, PC_SECTOR, DISK_SECTORS);
        memcpy(first_disk, disk.kept, sizeof(first_disk));
    }
    memcpy(disk.kept, first_disk, sizeof(first_disk));
    disk.disk.info.block_size = shape[0] & 1 ? 4096 : 512;
    disk.disk.info.blocks = sectors[shape[1] % 6] * PC_SECTOR / disk.disk.info.block_size;
    disk.disk.info.read_only = shape[2] % 8 == 0;
    if (shape[2] & 8)
        pc_disk_waits(&disk);
    pc_drive(&disk, &physical);
}

static void behave(const struct call *call)
{
    bool ill = call->mode & MODE_BEHAVIOUR;
    const uint8_t *is = call->behaviour;

    pc_disk_forget(&disk);
    disk.refuses = ill && is[0] & 0x80 ? (enum result)(is[0] % (RESULT_BUSY + 1)) : RESULT_OK;
    disk.fails = ill && is[1] & 0x80 ? (enum result)(is[1] % (RESULT_BUSY + 1)) : RESULT_OK;
    disk.works = is[1] >> 4 & 7;
    disk.restart = ill ? (enum result)(is[0] & 1) : RESULT_OK;
    disk.polls = ill ? is[2] % 4 : 0;
    disk.ready_after = is[2] & 0x80 ? PC_NEVER : is[2];
}

/* ---- What is asked for ---- */

static void put(struct frame *frame, const struct call *call)
{
    static const uint8_t known[] = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x08, 0x0c, 0x0d, 0x15,
                                    0x41, 0x42, 0x43, 0x44, 0x45, 0x47, 0x48, 0x42, 0x43, 0x02};
    const struct geometry *is = &drives[0].logical;
    uint16_t ax = call->ax, bx = call->bx, cx = call->cx, dx = call->dx, si = call->si;
    uint16_t ds = call->ds, es = call->es;

    if (call->mode & MODE_KNOWN)
        ax = (uint16_t)(known[(ax >> 8) % sizeof(known)] << 8 | (ax & 0xff));
    if (!(call->mode & MODE_DRIVE))
        dx = (uint16_t)((dx & 0xff00) | DRIVE_FIRST);
    if (call->mode & MODE_GEOMETRY) {
        uint32_t cylinder = cx % (is->cylinders + 1);
        ax &= 0xff8f;
        cx = (uint16_t)((cylinder & 0xff) << 8 | (cylinder & 0x300) >> 2 |
                        (1 + call->bx % is->sectors) % 64);
        dx = (uint16_t)((dx >> 8) % (is->heads + 1) << 8 | (dx & 0xff));
    }
    /* Where segments end. */
    if (call->flags >> 4 == 1) {
        ds = 0xffff;
        si |= 0xff80;
    } else if (call->flags >> 4 == 2) {
        es = 0xffff;
        bx |= 0xf800;
    }
    *frame = (struct frame){
        .gdtr = {1, 2, 3, 4, 5, 6},
        .a20_was_off = call->flags & 1,
        .registers = {.es = es,
                      .ds = ds,
                      .edi = 0xd1d20000u | bx,
                      .esi = 0xe1e20000u | si,
                      .ebp = 0xf1f2f3f4,
                      .esp = 0xa1a2a3a4,
                      .ebx = 0xb1b20000u | (ax >> 8 == 0x41 && call->si & 1 ? 0x55aau : bx),
                      .edx = 0xc1c20000u | dx,
                      .ecx = 0x91920000u | cx,
                      .eax = 0x81820000u | ax},
        .flags_inside = 0x7777,
        .what = WHAT_INT13,
        .ip = 0x9abc,
        .cs = 0xdef0,
        .flags =
            (uint16_t)(call->flags & 2 ? FLAG_INTERRUPT | FLAG_CARRY : call->flags & FLAG_CARRY),
    };
}

/* Where a segment and an offset are, as the caller sees it, and how much is from there on. */
static uint32_t place(const struct frame *frame, uint16_t segment, uint32_t offset, uint32_t *room)
{
    uint32_t end = frame->a20_was_off ? 0x100000 : PC_REAL_END;
    uint32_t at = segment * 16u + (offset & 0xffff);

    if (at >= end)
        at -= end;
    *room = end - at;
    return at;
}

static void put_packet(const struct frame *frame, const struct call *call)
{
    static const uint8_t sizes[] = {0x10, 0x10, 0x18, 0x18, 0x0f, 0x11, 0x17, 0xff};
    struct pc_packet packet;
    uint32_t room, at = place(frame, frame->registers.ds, frame->registers.esi, &room);

    memcpy(&packet, call->packet, sizeof(packet));
    if (call->mode & MODE_PACKET && (frame->registers.eax >> 8 & 0xff) == 0x48) {
        packet.bytes %= 80;
        packet.reserved = 0;
    } else if (call->mode & MODE_PACKET) {
        packet.bytes = sizes[packet.bytes % sizeof(sizes)];
        packet.blocks %= 200;
        packet.block %= disk.disk.info.blocks + 2;
        if (call->mode & MODE_FLAT) {
            packet.segment = packet.offset = 0xffff;
            packet.flat %= packet.reserved & 1 ? PC_BYTES + 0x1000ull : (1ull << 32) + 0x1000;
        }
    }
    memcpy(pc_memory + at, &packet, room < sizeof(packet) ? room : sizeof(packet));
}

/* What has to come of it: which sectors go where, if they can. */
struct transfer {
    bool packet; /* there is one, and it asks for something */
    bool reads, writes, possible;
    uint64_t sector, sectors, buffer;
};

static struct transfer transfer_of(const struct frame *frame)
{
    const struct registers r = frame->registers;
    const struct disk_info *info = &disk.disk.info;
    const struct geometry *is = &drives[0].logical;
    uint8_t ah = (uint8_t)(r.eax >> 8);
    struct transfer transfer = {.reads = ah == 0x02 || ah == 0x42,
                                .writes = ah == 0x03 || ah == 0x43};
    uint64_t block, blocks, bytes, in_block = info->block_size / PC_SECTOR;
    uint32_t room;

    if (ah < 0x42) {
        uint32_t cylinder = (r.ecx >> 8 & 0xff) | (r.ecx & 0xc0) << 2;
        uint32_t head = r.edx >> 8 & 0xff, sector = r.ecx & 0x3f;
        block = ((uint64_t)cylinder * is->heads + head) * is->sectors + sector - 1;
        blocks = r.eax & 0xff;
        bytes = blocks * info->block_size;
        transfer.buffer = place(frame, r.es, r.ebx, &room);
        transfer.possible = cylinder < is->cylinders && head < is->heads && sector != 0 &&
                            sector <= is->sectors && blocks <= 128 && bytes <= room;
    } else {
        struct pc_packet packet = {0};
        uint32_t at = place(frame, r.ds, r.esi, &room);
        memcpy(&packet, pc_memory + at, room < sizeof(packet) ? room : sizeof(packet));
        bool flat = packet.bytes >= 24 && packet.segment == 0xffff && packet.offset == 0xffff;
        transfer.packet = packet.bytes >= 16 && room >= (flat ? 24u : 16u) && packet.blocks != 0;
        block = packet.block;
        blocks = packet.blocks;
        bytes = blocks * info->block_size;
        transfer.buffer = flat ? packet.flat : place(frame, packet.segment, packet.offset, &room);
        uint64_t most = flat ? UINT32_MAX - transfer.buffer : room;
        transfer.possible = transfer.packet && (ah != 0x43 || (r.eax & 0xff) <= 2) &&
                            transfer.buffer >> 32 == 0 && bytes <= most &&
                            (transfer.buffer >= PC_OURS_END || transfer.buffer + bytes <= PC_OURS);
    }
    transfer.possible &= blocks != 0 && block < info->blocks && blocks <= info->blocks - block;
    transfer.sector = block * in_block;
    transfer.sectors = blocks * in_block;
    return transfer;
}

/* ---- What came of it ---- */

static void check_asked(const struct transfer *transfer)
{
    uint64_t verified = transfer->sector, end = transfer->sector + transfer->sectors;

    for (unsigned i = 0; i < disk.count && i < PC_ASKED; i++) {
        const struct pc_request *asked = &disk.asked[i];
        uint64_t at = (uint64_t)((const uint8_t *)asked->buffer - pc_memory);
        if (asked->op == DISK_FLUSH)
            continue;
        check(asked->bytes != 0 && end * PC_SECTOR <= sizeof(first_disk),
              "the disk is asked for what it has");
        if (asked->op == DISK_READ && at >> 32 != 0) {
            /* Into memory of Baton's own. */
            check(asked->sector == verified, "what is verified is what was asked for");
            verified += asked->bytes / PC_SECTOR;
            check(verified <= end, "and not more");
            continue;
        }
        check(asked->op == DISK_READ ? transfer->reads : transfer->writes,
              "what is asked for is asked of the disk");
        check(transfer->possible && i == 0, "nothing is moved that cannot be");
        check(asked->sector == transfer->sector && at == transfer->buffer &&
                  asked->bytes == transfer->sectors * PC_SECTOR,
              "what is moved is what was asked for");
    }
}

/* Memory and disk, where they have to have changed, or may have. */
static void move(const struct transfer *transfer, bool good)
{
    uint64_t bytes = transfer->sectors * PC_SECTOR, at = transfer->sector * PC_SECTOR;

    if (!transfer->reads && !transfer->writes)
        return;
    check(!good || transfer->possible || bytes == 0, "what cannot be done does not succeed");
    if (!transfer->possible || transfer->buffer + bytes > PC_BYTES)
        return;
    if (good && transfer->reads)
        memcpy(memory + transfer->buffer, disk_before + at, bytes);
    /* It may have failed only after it was written. */
    if (transfer->writes && (good || memcmp(disk.kept + at, disk_before + at, bytes) != 0)) {
        check(!disk.disk.info.read_only, "a disk that cannot be written is not");
        memcpy(disk_before + at, memory + transfer->buffer, bytes);
    }
}

static void check_frame(const struct frame *before, const struct frame *after, uint8_t status)
{
    struct frame want = *before;
    struct registers to = before->registers;
    const struct registers is = after->registers;
    uint8_t ah = (uint8_t)(before->registers.eax >> 8), said = status;

    if (status == 0 && ah == 0x15)
        said = 0x03;
    if (status == 0 && ah == 0x41)
        said = 0x30;
    to.eax = (to.eax & ~0xff00u) | (uint32_t)said << 8;
    if (status != 0 ? ah >= 0x02 && ah <= 0x04 : ah == 0x08 || ah == 0x45)
        to.eax &= ~0xffu;
    if (status == 0 && (ah == 0x08 || ah == 0x15 || ah == 0x41))
        to.ecx = (to.ecx & ~0xffffu) | (is.ecx & 0xffff);
    if (status == 0 && (ah == 0x08 || ah == 0x15))
        to.edx = (to.edx & ~0xffffu) | (is.edx & 0xffff);
    if (status == 0 && ah == 0x41)
        to.ebx = (to.ebx & ~0xffffu) | 0xaa55;
    want.registers = to;
    want.flags = (uint16_t)((want.flags & ~FLAG_CARRY) | (status ? FLAG_CARRY : 0));
    check(memcmp(&want, after, sizeof(want)) == 0, "registers stay");
}

static void check_rest(const struct frame *before, const struct transfer *transfer, uint8_t status)
{
    uint8_t ah = (uint8_t)(before->registers.eax >> 8);
    uint32_t room, at = place(before, before->registers.ds, before->registers.esi, &room);

    if (status != 0 && transfer->packet && ((ah >= 0x42 && ah <= 0x44) || ah == 0x47))
        memset(memory + at + 2, 0, 2);
    if (status == 0 && ah == 0x48) {
        uint32_t bytes = memory[at] | (uint32_t)memory[at + 1] << 8;
        bytes = bytes >= 74 ? 74 : bytes >= 66 ? 66 : bytes >= 30 ? 30 : bytes;
        check(bytes >= 26 && bytes <= room, "48h needs room");
        memcpy(memory + at, pc_memory + at, bytes < 30 ? 26 : bytes);
    }
    memory[PC_DISK_STATUS] = status;
    check(memcmp(memory, pc_memory, PC_BYTES) == 0, "memory is what it was");
    check(memcmp(disk_before, disk.kept, sizeof(disk_before)) == 0, "the disk is what it was");
}

static void in_the_middle(void)
{
    struct frame frame = {.registers = {.eax = 0x0201, .ecx = 1, .edx = 0x80, .es = 0x1000}};

    check(pc_int13(&frame) && frame.registers.eax == 0xaa01 && frame.flags == FLAG_CARRY,
          "one call at a time");
    frame.registers.edx = 0x81;
    check(!pc_int13(&frame), "and others' drives are others'");
}

static void one_call(const struct call *call)
{
    struct frame frame;

    behave(call);
    put(&frame, call);
    put_packet(&frame, call);
    pc_in_window = call->mode & MODE_NESTED ? in_the_middle : NULL;
    memcpy(memory, pc_memory, PC_BYTES);
    memcpy(disk_before, disk.kept, sizeof(disk_before));

    const struct frame before = frame;
    struct transfer transfer = transfer_of(&frame);
    bool ours = (frame.registers.edx & 0xff) == DRIVE_FIRST;
    check(pc_int13(&frame) == ours, "our drives are ours, and others are not");
    if (!ours) {
        check(memcmp(&before, &frame, sizeof(frame)) == 0, "registers stay, for others");
        check(memcmp(memory, pc_memory, PC_BYTES) == 0, "memory stays, for others");
        check(disk.count == 0, "the disk is left alone, for others");
        return;
    }
    uint8_t status = pc_memory[PC_DISK_STATUS];
    check_asked(&transfer);
    check_frame(&before, &frame, status);
    move(&transfer, status == 0);
    check_rest(&before, &transfer, status);
}

/* The input, and after its end what chance makes of it: so that short ones, with which a fuzzer
 * begins, say as much as long ones. */
struct input {
    const uint8_t *data;
    size_t size;
    uint32_t chance;
};

static void take(struct input *input, void *to, size_t bytes)
{
    for (uint8_t *at = to; bytes-- != 0; at++) {
        input->chance = input->chance * 1664525u + 1013904223u;
        *at = (uint8_t)(input->chance >> 24);
        if (input->size != 0) {
            input->size--;
            *at = *input->data++;
            input->chance ^= *at;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {.data = data, .size = size};
    uint8_t shape[SHAPE];
    struct call call;

    take(&input, shape, sizeof(shape));
    start(shape);
    for (unsigned i = 0; i < CALLS; i++) {
        take(&input, &call, sizeof(call));
        one_call(&call);
    }
    return 0;
}
