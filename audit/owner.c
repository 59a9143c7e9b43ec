/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "audit/owner.h"
#include "audit/report.h"

/* ---- Page tables (Intel SDM volume 3 §4.5) ---- */

enum {
    PRESENT = 1 << 0,
    WRITABLE = 1 << 1,
    WRITE_THROUGH = 1 << 3,
    CACHE_OFF = 1 << 4,
    LARGE = 1 << 7,
};
#define PAGE_2M (1ull << 21)
#define PAGE_1G (1ull << 30)
#define ADDRESS 0x000ffffffffff000ull
#define REACH   (1ull << 47) /* of four levels, the half where addresses are what they say */

static uint64_t *top;   /* level 4 */
static uint64_t *spare; /* tables that are not used yet */
static size_t spare_count;
static const struct app_map *known;

/* How many tables there may have to be: one for each GiB that has anything in it, and for each half
 * TiB. Found by building twice, the first time without tables. */
static uint64_t *take_table(void)
{
    if (spare_count == 0)
        report_give_up("the machine's memory is in too many places for the auditor's page tables");
    spare_count--;
    uint64_t *table = spare;
    spare += 512;
    memset(table, 0, 4096);
    return table;
}

static uint64_t *below(uint64_t *entry)
{
    if (!(*entry & PRESENT))
        *entry = (uintptr_t)take_table() | PRESENT | WRITABLE;
    return (uint64_t *)(uintptr_t)(*entry & ADDRESS);
}

/* Whether there is memory in these 2 MiB. Firmware's range registers still decide for what in them
 * is not, and keep registers uncached; elsewhere the tables say so themselves as well. */
static bool has_memory(uint64_t base)
{
    const EFI_MEMORY_DESCRIPTOR *entry;

    for (size_t i = 0; (entry = app_map_entry(known, i)) != NULL; i++)
        if (entry->Type != EfiMemoryMappedIO && entry->Type != EfiMemoryMappedIOPortSpace &&
            entry->Type != EfiReservedMemoryType && entry->PhysicalStart < base + PAGE_2M &&
            base < entry->PhysicalStart + entry->NumberOfPages * 4096)
            return true;
    return false;
}

static void map_range(uint64_t base, uint64_t size)
{
    if (size == 0 || base >= REACH || size > REACH - base)
        return;
    for (uint64_t at = base & ~(PAGE_2M - 1); at < base + size; at += PAGE_2M) {
        uint64_t *level3 = below(&top[at >> 39 & 511]);
        uint64_t *level2 = below(&level3[at >> 30 & 511]);
        uint64_t *entry = &level2[at >> 21 & 511];
        if (!(*entry & PRESENT))
            *entry = at | PRESENT | WRITABLE | LARGE |
                     (has_memory(at) ? 0 : (uint64_t)(CACHE_OFF | WRITE_THROUGH));
    }
}

/* Which GiB are used, for the count of tables. */
enum { GIB_MAX = 4096 };
static uint64_t gib_used[GIB_MAX];
static size_t gib_count;

static void count_range(uint64_t base, uint64_t size)
{
    if (size == 0 || base >= REACH || size > REACH - base)
        return;
    for (uint64_t at = base / PAGE_1G; at <= (base + size - 1) / PAGE_1G; at++) {
        size_t i = gib_count;
        while (i > 0 && gib_used[i - 1] != at)
            i--;
        if (i == 0 && gib_count < GIB_MAX)
            gib_used[gib_count++] = at;
    }
}

static void everything(void (*range)(uint64_t base, uint64_t size),
                       void (*each_window)(void (*range)(uint64_t base, uint64_t size)))
{
    const EFI_MEMORY_DESCRIPTOR *entry;
    uint64_t base, size;

    range(0, 4 * PAGE_1G);
    for (size_t i = 0; (entry = app_map_entry(known, i)) != NULL; i++)
        range(entry->PhysicalStart, entry->NumberOfPages * 4096);
    each_window(range);
    report_screen_memory(&base, &size);
    range(base, size);
}

void owner_prepare(const struct app_map *map,
                   void (*each_window)(void (*range)(uint64_t base, uint64_t size)))
{
    known = map;
    everything(count_range, each_window);
    /* A level 2 table for each GiB, as many of level 3 at most, the top, and one above it. */
    spare_count = 2 * gib_count + 2;
    spare = app_pages(spare_count * 4096);
    top = take_table();
    everything(map_range, each_window);
}

/* ---- Descriptor tables ---- */

enum { VECTORS = 256, EXCEPTIONS = 32, STUB_BYTES = 16, CODE = 8, DATA = 16 };

static const uint64_t gdt[] = {
    0, 0x00af9a000000ffffull, /* code, 64 bits */
    0x00cf92000000ffffull,    /* data */
};

static struct gate {
    uint16_t low, selector, type, middle;
    uint32_t high, zero;
} idt[VECTORS];

static _Alignas(16) uint8_t stack[64 * 1024];

struct table {
    uint16_t padding[3], limit;
    uint64_t base;
};

extern const uint8_t owner_vectors[];
_Noreturn void owner_exception(uint64_t vector, const uint64_t *frame);

/* Every vector: its number, and on to a common end. An error code may or may not be on the stack.
 */
__asm__(".text\n"
        ".balign 16\n"
        ".globl owner_vectors\n"
        "owner_vectors:\n"
        ".set vector, 0\n"
        ".rept 256\n"
        ".balign 16\n"
        "movl $vector, %ecx\n"
        "jmp owner_common\n"
        ".set vector, vector + 1\n"
        ".endr\n"
        "owner_common:\n"
        "cld\n"
        "movq %rsp, %rdx\n"
        "andq $-16, %rsp\n"
        "subq $32, %rsp\n"
        "call owner_exception\n");

void owner_exception(uint64_t vector, const uint64_t *frame)
{
    static bool again;
    /* These push an error code below the instruction's address (Intel SDM volume 3 §6.3.1). */
    bool code = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;
    uint64_t address;

    __asm__ volatile("mov %%cr2, %0" : "=r"(address));
    /* While telling of one, or in the firmware's ResetSystem, after all has been said: nothing is
     * left to be told. */
    while (again || report_is_ended())
        __asm__ volatile("cli; hlt");
    again = true;
    report_give_up("CPU exception %llu after the exit, at 0x%llx (error code 0x%llx, address "
                   "0x%llx)",
                   vector, frame[code], code ? frame[0] : 0, address);
}

/* Five levels can only be left by way of no paging at all; one more table on top does as well. */
static uint64_t root(void)
{
    uint64_t cr4;

    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    if (!(cr4 & 1 << 12))
        return (uintptr_t)top;
    uint64_t *level5 = take_table();
    level5[0] = (uintptr_t)top | PRESENT | WRITABLE;
    return (uintptr_t)level5;
}

void owner_take(void (*then)(void))
{
    struct table new_gdt = {.limit = sizeof(gdt) - 1, .base = (uintptr_t)gdt};
    struct table new_idt = {.limit = sizeof(idt) - 1, .base = (uintptr_t)idt};
    uint64_t tables = root();

    for (unsigned vector = 0; vector < VECTORS; vector++) {
        uint64_t handler = (uintptr_t)owner_vectors + STUB_BYTES * vector;
        idt[vector] = (struct gate){.low = (uint16_t)handler,
                                    .selector = CODE,
                                    .type = 0x8e00,
                                    .middle = (uint16_t)(handler >> 16),
                                    .high = (uint32_t)(handler >> 32)};
    }
    __asm__ volatile("cli\n"
                     "lgdt %0\n"
                     "lidt %1\n"
                     "mov %2, %%cr3\n"
                     "mov %w3, %%ds\n"
                     "mov %w3, %%es\n"
                     "mov %w3, %%ss\n"
                     "mov %4, %%rsp\n"
                     "pushq %5\n"
                     "leaq 1f(%%rip), %%rax\n"
                     "pushq %%rax\n"
                     "lretq\n"
                     "1: subq $32, %%rsp\n"
                     "call *%6\n"
                     :
                     : "m"(new_gdt.limit), "m"(new_idt.limit), "r"(tables), "r"((uint64_t)DATA),
                       "r"(stack + sizeof(stack)), "i"(CODE), "r"(then)
                     : "rax", "memory");
    __builtin_unreachable();
}
