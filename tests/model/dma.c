// SPDX-License-Identifier: BSD-2-Clause-Patent

#define _POSIX_C_SOURCE 200809L

#include "tests/model/dma.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE    4096u
#define GARBAGE 0xa5 /* what the device's side of a buffer holds before the device writes it */
#define FREED   0xdd

bool model_abort_on_violation;
bool (*dma_in_use)(const struct dma_region *region);

static unsigned violations;
static struct dma_region *regions;
/* Above 4 GiB, so that a driver that drops the upper half of an address is found out, and within
 * reach of a legacy device's 32-bit page number. */
static uint64_t next_address = 7ull << 32;

void model_violation(const char *format, ...)
{
    va_list arguments;

    violations++;
    if (violations <= 8) {
        fputs("model: ", stderr);
        va_start(arguments, format);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
        fputc('\n', stderr);
    }
    if (model_abort_on_violation)
        abort();
}

unsigned model_violations(void)
{
    return violations;
}

static void drop(struct dma_region *region)
{
    for (struct dma_region **link = &regions; *link; link = &(*link)->next)
        if (*link == region) {
            *link = region->next;
            free(region->allocation);
            free(region);
            return;
        }
}

void model_forget(void)
{
    while (regions)
        drop(regions);
    violations = 0;
}

static struct dma_region *add(size_t bytes, unsigned low_bits)
{
    struct dma_region *region = calloc(1, sizeof(*region));

    if (!region)
        abort();
    region->bytes = bytes;
    region->address = next_address + low_bits;
    region->next = regions;
    regions = region;
    next_address += (low_bits + bytes + 2 * PAGE - 1) & ~(uint64_t)(PAGE - 1);
    if (next_address >= 1ull << 44)
        next_address = 7ull << 32;
    return region;
}

void dma_share(size_t bytes, struct dma_block *block)
{
    struct dma_region *region = add(bytes, 0);
    void *allocation;

    /* Not a byte more than asked for: the address sanitizer guards what lies behind. */
    if (posix_memalign(&allocation, PAGE, bytes) != 0)
        abort();
    memset(allocation, 0, bytes);
    region->allocation = allocation;
    region->cpu = allocation;
    region->device = allocation;
    region->shared = true;
    *block = (struct dma_block){.cpu = allocation, .address = region->address, .bytes = bytes};
}

void dma_unshare(const struct dma_block *block)
{
    struct dma_region *region = dma_find(block->address, block->bytes);

    if (!region || region->cpu != block->cpu || !region->shared) {
        model_violation("freed memory that was not shared");
        return;
    }
    if (dma_in_use && dma_in_use(region))
        model_violation("C5: freed memory that the device may still touch");
    memset(region->cpu, FREED, region->bytes);
    drop(region);
}

static bool overlap(const struct dma_region *a, const struct dma_region *b)
{
    return a->cpu < b->cpu + b->bytes && b->cpu < a->cpu + a->bytes;
}

void dma_add_plain(void *memory, size_t bytes)
{
    struct dma_region *region = add(bytes, 0);

    region->address = (uintptr_t)memory;
    region->cpu = memory;
    region->device = memory;
    region->shared = true;
    region->plain = true;
}

void dma_end_plain(void *memory)
{
    struct dma_region *region = dma_find((uintptr_t)memory, 1);

    if (!region || region->cpu != memory) {
        model_violation("ended memory that there is not");
        return;
    }
    for (struct dma_region *other = regions; dma_in_use && other; other = other->next)
        if ((other == region || (!other->shared && overlap(other, region))) && dma_in_use(other))
            model_violation("C5: gave back memory that a device may still touch");
    drop(region);
}

struct dma_region *dma_map(enum dma_direction direction, void *buffer, size_t bytes)
{
    unsigned low_bits = (unsigned)((uintptr_t)buffer % PAGE);
    struct dma_region *region = add(bytes, low_bits);
    unsigned char *copy = malloc(bytes);

    if (!copy)
        abort();
    if (direction == DMA_TO_DEVICE)
        memcpy(copy, buffer, bytes);
    else
        memset(copy, GARBAGE, bytes);
    region->allocation = copy;
    region->cpu = buffer;
    region->device = copy;
    region->direction = direction;
    return region;
}

static bool known(const struct dma_region *wanted)
{
    for (const struct dma_region *region = regions; region; region = region->next)
        if (region == wanted)
            return true;
    return false;
}

void dma_unmap(struct dma_region *region)
{
    if (!known(region) || region->shared) {
        model_violation("unmapped what is not mapped");
        return;
    }
    if (dma_in_use && dma_in_use(region))
        model_violation("C5: unmapped a buffer that the device may still touch");
    if (region->direction == DMA_FROM_DEVICE)
        memcpy(region->cpu, region->device, region->bytes);
    drop(region);
}

struct dma_region *dma_find(uint64_t address, uint64_t bytes)
{
    for (struct dma_region *region = regions; region; region = region->next)
        if (address >= region->address && bytes <= region->bytes &&
            address - region->address <= region->bytes - bytes)
            return region;
    return NULL;
}

bool dma_shown(const void *buffer, size_t bytes)
{
    const unsigned char *first = buffer;

    for (const struct dma_region *region = regions; region; region = region->next)
        if (!region->shared && region->cpu < first + bytes && first < region->cpu + region->bytes)
            return true;
    return false;
}

static unsigned count(bool shared)
{
    unsigned number = 0;

    for (const struct dma_region *region = regions; region; region = region->next)
        number += region->shared == shared;
    return number;
}

unsigned dma_mapped(void)
{
    return count(false);
}

unsigned dma_shared(void)
{
    return count(true);
}

struct dma_region *dma_first(void)
{
    return regions;
}
