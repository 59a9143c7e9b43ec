/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "tests/vm/after.h"

static const struct app_map *map;

/* Memory below 4 GiB that must stay as it is, a bit for each page: what the CPU itself uses. */
static uint8_t kept[(1ull << 32) / 4096 / 8];

static void keep(uint64_t address, uint64_t bytes)
{
    for (uint64_t page = address / 4096; page <= (address + bytes - 1) / 4096; page++)
        if (page / 8 < sizeof(kept))
            kept[page / 8] |= (uint8_t)(1 << page % 8);
}

static bool is_kept(uint64_t page)
{
    return page / 8 >= sizeof(kept) || (kept[page / 8] & 1 << page % 8);
}

static void keep_page_tables(uint64_t table, unsigned level)
{
    const uint64_t *entries = (const uint64_t *)(uintptr_t)table;

    keep(table, 4096);
    if (level == 1)
        return;
    for (unsigned i = 0; i < 512; i++)
        if ((entries[i] & 1) && !(level <= 3 && (entries[i] & 0x80)))
            keep_page_tables(entries[i] & 0x000ffffffffff000ull, level - 1);
}

static void keep_what_the_cpu_uses(void)
{
    struct {
        uint16_t padding[3], limit;
        uint64_t base;
    } gdt, idt;
    uint64_t cr0, cr3, cr4, stack;

    __asm__ volatile("mov %%cr0, %0" : "=r"(cr0));
    __asm__ volatile("mov %%cr3, %0" : "=r"(cr3));
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    __asm__ volatile("mov %%rsp, %0" : "=r"(stack));
    __asm__ volatile("sgdt %0" : "=m"(gdt.limit));
    __asm__ volatile("sidt %0" : "=m"(idt.limit));
    gdt.base = *(uint64_t *)(void *)(&gdt.limit + 1);
    idt.base = *(uint64_t *)(void *)(&idt.limit + 1);
    keep(gdt.base, gdt.limit + 1u);
    keep(idt.base, idt.limit + 1u);
    keep(stack - 64 * 1024, 256 * 1024);
    keep_page_tables(cr3 & 0x000ffffffffff000ull, cr4 & 1 << 12 ? 5 : 4);
    /* The firmware has made its code read-only. */
    cr0 &= ~(1ull << 16);
    __asm__ volatile("mov %0, %%cr0" : : "r"(cr0) : "memory");
}

static bool given_up(const EFI_MEMORY_DESCRIPTOR *entry)
{
    switch (entry->Type) {
    case EfiBootServicesCode:
    case EfiBootServicesData:
    case EfiConventionalMemory:
        return true;
    default:
        return false;
    }
}

#define PATTERN 0x5bd1e995c6a4a793ull

static uint64_t pages_watched, pages_changed;

static void fill(uint64_t *at, uint64_t words)
{
    for (uint64_t i = 0; i < words; i++)
        at[i] = (uintptr_t)&at[i] ^ PATTERN;
}

static void look(const uint64_t *at, uint64_t words)
{
    for (uint64_t i = 0; i < words; i++) {
        if (at[i] == ((uintptr_t)&at[i] ^ PATTERN))
            continue;
        if (pages_changed++ < 8)
            app_print("vm: memory at %p has changed: %016llx\n", &at[i], at[i]);
        i |= 511; /* once a page will do */
    }
}

static struct {
    uint8_t *at;
    size_t bytes;
} also[AFTER_ALSO_MAX];
static size_t also_count;

void after_also(void *at, size_t bytes)
{
    app_assert(also_count < AFTER_ALSO_MAX && (uintptr_t)at % 8 == 0);
    also[also_count].at = at;
    also[also_count++].bytes = bytes;
}

static void each_page(bool filling)
{
    const EFI_MEMORY_DESCRIPTOR *entry;

    for (size_t i = 0; (entry = app_map_entry(map, i)) != NULL; i++) {
        if (!given_up(entry))
            continue;
        uint64_t page = entry->PhysicalStart / 4096, end = page + entry->NumberOfPages;
        /* The first page is nobody's: real-mode vectors, and address 0. */
        for (page += page == 0; page < end; page++) {
            if (is_kept(page))
                continue;
            uint64_t *at = (uint64_t *)(uintptr_t)(page * 4096);
            if (filling) {
                fill(at, 512);
                pages_watched++;
            } else {
                look(at, 512);
            }
        }
    }
    for (size_t i = 0; i < also_count; i++) {
        uint64_t *at = (uint64_t *)(void *)also[i].at;
        if (filling)
            fill(at, also[i].bytes / 8);
        else
            look(at, also[i].bytes / 8);
    }
}

void after_take(const struct app_map *known)
{
    map = known;
    __asm__ volatile("cli");
    keep_what_the_cpu_uses();
}

void after_fill(void)
{
    pages_watched = pages_changed = 0;
    each_page(true);
}

void after_look(void)
{
    each_page(false);
    app_print("vm: %llu pages watched, %llu changed\n", pages_watched, pages_changed);
    app_check(pages_watched > 10000);
    app_check(pages_changed == 0);
}
