// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "tests/unit/bios_harness.h"

const struct said results_said[9] = {
    {RESULT_UNSUPPORTED, FAILED},  {RESULT_DEVICE_ERROR, FAILED},
    {RESULT_TIMEOUT, TIMED_OUT},   {RESULT_NO_MEDIA, NO_MEDIA},
    {RESULT_NO_MEMORY, UNDEFINED}, {RESULT_WRITE_PROTECTED, WRITE_PROTECTED},
    {RESULT_ABORTED, FAILED},      {RESULT_OUT_OF_RANGE, BAD_REQUEST},
    {RESULT_BUSY, NOT_READY},
};

struct frame now, wanted;
struct pc_disk disk;

static uint8_t wanted_memory[PC_BYTES];

int machine_on(void **state)
{
    static const struct geometry usual = {300, 16, 17};

    (void)state;
    pc_on();
    pc_disk(&disk, PC_SECTOR, USUAL_BLOCKS);
    pc_drive(&disk, &usual);
    return 0;
}

int machine_off(void **state)
{
    (void)state;
    pc_off();
    return 0;
}

void disk_is(uint32_t block_size, uint64_t blocks)
{
    assert_int_equal(model_violations(), 0);
    pc_off();
    pc_on();
    pc_disk(&disk, block_size, blocks);
    pc_drive(&disk, NULL);
}

uint32_t with_half(uint32_t reg, unsigned value)
{
    return (reg & 0xffff0000u) | (value & 0xffff);
}

void returns_al(uint8_t al)
{
    wanted.registers.eax = (wanted.registers.eax & ~0xffu) | al;
}

void begin(unsigned ax)
{
    now = (struct frame){
        .gdtr = {1, 2, 3, 4, 5, 6},
        .registers = {.es = 0x1357,
                      .ds = 0x2468,
                      .edi = 0xd1d2d3d4,
                      .esi = 0xe1e2e3e4,
                      .ebp = 0xf1f2f3f4,
                      .esp = 0xa1a2a3a4,
                      .ebx = 0xb1b2b3b4,
                      .edx = 0xc1c20080,
                      .ecx = 0x91920001,
                      .eax = 0x81820000 | ax},
        .flags_inside = 0x7777,
        .what = WHAT_INT13,
        .ip = 0x9abc,
        .cs = 0xdef0,
        .flags = 0x7cd6 | FLAG_INTERRUPT,
    };
    wanted = now;
    memcpy(wanted_memory, pc_memory, PC_BYTES);
    pc_disk_forget(&disk);
    pc_windows = 0;
}

void pokes(uint32_t at, const void *data, size_t bytes)
{
    assert_true(at + bytes <= PC_BYTES);
    memcpy(pc_memory + at, data, bytes);
    wants(at, data, bytes);
}

void wants(uint32_t at, const void *data, size_t bytes)
{
    assert_true(at + bytes <= PC_BYTES);
    memcpy(wanted_memory + at, data, bytes);
}

void wants_sectors(uint32_t at, uint64_t sector, unsigned count)
{
    uint8_t bytes[PC_SECTOR];

    for (unsigned i = 0; i < count; i++) {
        pc_sector(sector + i, bytes);
        wants(at + i * PC_SECTOR, bytes, PC_SECTOR);
    }
}

static void assert_memory(void)
{
    for (uint32_t at = 0; memcmp(pc_memory, wanted_memory, PC_BYTES) != 0; at++)
        if (pc_memory[at] != wanted_memory[at])
            fail_msg("memory at %#x is %02x, not %02x", at, pc_memory[at], wanted_memory[at]);
}

static void assert_frame(void)
{
    static const char *const names[] = {"edi", "esi", "ebp", "esp", "ebx", "edx", "ecx", "eax"};
    const struct registers is = now.registers, want = wanted.registers;
    const uint32_t *found = &is.edi, *right = &want.edi;

    for (unsigned i = 0; i < LENGTH(names); i++)
        if (found[i] != right[i])
            fail_msg("%s is %#x, not %#x", names[i], found[i], right[i]);
    assert_int_equal(now.flags, wanted.flags);
    assert_memory_equal(&now, &wanted, sizeof(now));
}

void served_with(uint8_t status, uint8_t ah)
{
    /* Whatever it was before. */
    now.flags = (uint16_t)(status ? now.flags & ~FLAG_CARRY : now.flags | FLAG_CARRY);
    wanted.flags = (uint16_t)(now.flags ^ FLAG_CARRY);
    wanted.registers.eax = (wanted.registers.eax & ~0xff00u) | (uint32_t)ah << 8;
    wanted_memory[PC_DISK_STATUS] = status;
    assert_true(pc_int13(&now));
    assert_frame();
    assert_memory();
    assert_int_equal(model_violations(), 0);
}

void served(uint8_t status)
{
    served_with(status, status);
}

void passed_on(void)
{
    assert_false(pc_int13(&now));
    assert_frame();
    assert_memory();
    assert_int_equal(model_violations(), 0);
}

void assert_asked(unsigned which, enum disk_op op, uint64_t sector, size_t bytes)
{
    assert_true(which < disk.count && which < PC_ASKED);
    assert_int_equal(disk.asked[which].op, op);
    assert_int_equal(disk.asked[which].sector, sector);
    assert_int_equal(disk.asked[which].bytes, bytes);
}

void assert_asked_at(unsigned which, enum disk_op op, uint64_t sector, size_t bytes,
                     uint32_t address)
{
    assert_asked(which, op, sector, bytes);
    assert_ptr_equal(disk.asked[which].buffer, pc_memory + address);
}

static const uint8_t *kept(uint64_t sector)
{
    assert_true(sector - disk.first < disk.sectors);
    return disk.kept + (sector - disk.first) * PC_SECTOR;
}

void assert_written(uint64_t sector, uint32_t at, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        assert_memory_equal(kept(sector + i), pc_memory + at + i * PC_SECTOR, PC_SECTOR);
}

void assert_unwritten(void)
{
    for (uint64_t i = 0; i < disk.sectors; i++) {
        uint8_t bytes[PC_SECTOR];
        pc_sector(disk.first + i, bytes);
        assert_memory_equal(kept(disk.first + i), bytes, PC_SECTOR);
    }
}
