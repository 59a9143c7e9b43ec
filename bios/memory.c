// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Post Memory Manager Specification 1.01 §3.2. */

#include "bios/memory.h"
#include "bios/start.h"

#define PAGE    4096u
#define PARTS   64u
#define NO_NAME 0xffffffffu

/* The upper part of the first MiB. */
#define ROMS     0xc0000u
#define BIOS     0xf0000u
#define MEGABYTE 0x100000u

struct part {
    uint32_t given, start, bytes;
};

static struct part parts[PARTS];
static unsigned count;

/* For good. */
static uint32_t allocate(uint32_t bytes)
{
    uint32_t paragraphs = (bytes + 15) / 16;
    const uint16_t arguments[] = {
        PMM_ALLOCATE,      (uint16_t)paragraphs, (uint16_t)(paragraphs >> 16),
        (uint16_t)NO_NAME, NO_NAME >> 16,        PMM_HIGH_FOR_GOOD,
    };
    struct registers registers = {0};

    call_real(start_pmm, &registers, arguments, sizeof(arguments) / sizeof(arguments[0]));
    uint32_t given = registers.edx << 16 | (registers.eax & 0xffff);
    return given == PMM_UNSUPPORTED ? 0 : given;
}

void *memory_get(size_t bytes)
{
    /* One page more, because alignment is only asked for by newer specifications. */
    uint32_t whole = ((uint32_t)bytes + PAGE - 1) & ~(PAGE - 1);
    uint32_t given = whole >= bytes && count < PARTS ? allocate(whole + PAGE) : 0;

    if (given == 0)
        return NULL;
    uint32_t start = (given + PAGE - 1) & ~(PAGE - 1);
    parts[count++] = (struct part){given, start, whole};
    return __builtin_memset(at_physical(start), 0, whole);
}

bool memory_share(struct dma_block *block, size_t bytes)
{
    void *cpu = memory_get(bytes);

    *block = (struct dma_block){.cpu = cpu, .address = (uintptr_t)cpu, .bytes = bytes};
    return cpu != NULL;
}

unsigned memory_mark(void)
{
    return count;
}

static void give_back(uint32_t given)
{
    uint16_t arguments[] = {PMM_FREE, (uint16_t)given, (uint16_t)(given >> 16)};
    struct registers registers = {0};

    call_real(start_pmm, &registers, arguments, sizeof(arguments) / sizeof(arguments[0]));
}

void memory_give_back(unsigned mark)
{
    while (count > mark)
        give_back(parts[--count].given);
}

void memory_give_image_back(void)
{
    give_back((uint32_t)(uintptr_t)high_image);
}

static bool overlap(uint32_t a, uint32_t a_bytes, uint32_t b, uint32_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

bool memory_is_ours(uint32_t address, uint32_t bytes)
{
    if (overlap(address, bytes, (uint32_t)(uintptr_t)high_image, (uint32_t)(high_end - high_image)))
        return true;
    for (unsigned i = 0; i < count; i++)
        if (overlap(address, bytes, parts[i].start, parts[i].bytes))
            return true;
    return false;
}

/*
 * From F0000h on, all is the BIOS's, and some place before is Baton's. Otherwise, option ROMs and
 * memory that a DOS uses lie side by side, and the chipset keeps the former from being written;
 * QEMU keeps the CPU from it, and no device. So it is tried, in each page. That harms nothing,
 * which is about to be written to.
 */
bool memory_is_rom(uint32_t address, uint32_t bytes)
{
    uint32_t at = address > ROMS ? address : ROMS, end = address + bytes;
    uint32_t rom = (uint32_t)rom_segment << 4;

    if (at >= MEGABYTE || end <= at)
        return false;
    if (end > BIOS || overlap(address, bytes, rom, *(const uint8_t *)at_physical(rom + 2) * 512u))
        return true;
    for (; at < end; at = (at + PAGE) & ~(PAGE - 1)) {
        volatile uint8_t *byte = at_physical(at);
        uint8_t is = *byte;
        *byte = (uint8_t)~is;
        bool kept = *byte == is;
        *byte = is;
        if (kept)
            return true;
    }
    return false;
}
