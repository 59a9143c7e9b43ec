/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "audit/watch.h"
#include "audit/calls.h"
#include "audit/devices.h"
#include "audit/report.h"

struct change changes[CHANGES_MAX];
size_t change_count;
uint64_t changes_lost;

enum { OWN_MAX = 64 };
static struct {
    uint64_t base, size;
} own[OWN_MAX];
static size_t own_count;

void watch_also(void *base, uint64_t size)
{
    app_assert(own_count < OWN_MAX);
    own[own_count].base = (uintptr_t)base;
    own[own_count++].size = size & ~4095ull;
}

enum { SPARED_MAX = 512 };
static struct piece {
    uint64_t base, size;
} spared[SPARED_MAX];
static size_t spared_count;

/* Words of 8 bytes are filled and compared, so the piece is rounded to whole ones. In order of
 * their addresses. What does not fit in is overwritten; the device may then die of it, which is
 * seen too. */
void watch_spare(uint64_t base, uint64_t size)
{
    uint64_t end = (base + size + 7) & ~7ull;
    size_t at = spared_count;

    if (spared_count == SPARED_MAX)
        return;
    base &= ~7ull;
    for (; at > 0 && spared[at - 1].base > base; at--)
        spared[at] = spared[at - 1];
    spared[at].base = base;
    spared[at].size = end - base;
    spared_count++;
}

/* Calls `act` for what of this range is not spared in this round. */
static void around_spared(uint64_t base, uint64_t size, unsigned round,
                          void (*act)(uint64_t base, uint64_t size, unsigned round))
{
    uint64_t end = base + size;

    for (size_t i = 0; round == 1 && i < spared_count && spared[i].base < end; i++) {
        uint64_t stop = spared[i].base + spared[i].size;
        if (stop <= base)
            continue;
        if (spared[i].base > base)
            act(base, spared[i].base - base, round);
        base = stop;
        if (base >= end)
            return;
    }
    act(base, end - base, round);
}

/* UEFI 2.10 §7.2, table 7.10: what the operating system may use after the exit. */
static bool given_up(const EFI_MEMORY_DESCRIPTOR *entry)
{
    return entry->Type == EfiBootServicesCode || entry->Type == EfiBootServicesData ||
           entry->Type == EfiConventionalMemory;
}

/* The address, so that a copy of a piece elsewhere is not taken for the original; all bits turned
 * in every second round. */
static uint64_t pattern(unsigned round)
{
    return round % 2 ? 0x5bd1e995c6a4a793ull : ~0x5bd1e995c6a4a793ull;
}

static void fill(uint64_t base, uint64_t size, unsigned round)
{
    uint64_t mask = pattern(round);

    for (uint64_t at = base; at < base + size; at += 8)
        *(volatile uint64_t *)(uintptr_t)at = at ^ mask;
}

enum { GAP = 64 };

static uint8_t byte_of(uint64_t address, uint64_t mask)
{
    return (uint8_t)(((address & ~7ull) ^ mask) >> 8 * (address & 7));
}

/* From the first byte that differs to the last before GAP bytes that do not: what a device has
 * written is one piece, though some of it happened to be there. Gives where to look on. */
static uint64_t put_down(uint64_t at, uint64_t end, uint64_t mask, unsigned round)
{
    struct change change = {.round = round};
    uint64_t last;

    while (*(const volatile uint8_t *)(uintptr_t)at == byte_of(at, mask))
        at++;
    change.address = last = at;
    for (; at < end && at - last <= GAP; at++) {
        uint8_t found = *(const volatile uint8_t *)(uintptr_t)at, expected = byte_of(at, mask);
        if (found != expected) {
            last = at;
            /* Put right, so that it is not found again. */
            *(volatile uint8_t *)(uintptr_t)at = expected;
        }
        if (at - change.address < CHANGE_BYTES) {
            change.expected[at - change.address] = expected;
            change.found[at - change.address] = found;
        }
    }
    change.size = last + 1 - change.address;
    if (change_count < CHANGES_MAX)
        changes[change_count++] = change;
    else
        changes_lost++;
    return at;
}

static void look(uint64_t base, uint64_t size, unsigned round)
{
    uint64_t mask = pattern(round);

    for (uint64_t at = base; at < base + size; at += 8)
        if (*(const volatile uint64_t *)(uintptr_t)at != (at ^ mask))
            at = (put_down(at, base + size, mask, round) & ~7ull) - 8;
}

/* In small steps: what was written to a place after it had been looked at must not be lost because
 * it is filled again. */
static void refill(uint64_t base, uint64_t size, unsigned round)
{
    enum { STEP = 1 << 20 };

    for (uint64_t at = base; at < base + size; at += STEP) {
        uint64_t step = base + size - at < STEP ? base + size - at : STEP;
        if (round > 1)
            around_spared(at, step, round - 1, look);
        around_spared(at, step, round, fill);
    }
}

uint64_t watch_fill(const struct app_map *map, unsigned round)
{
    const EFI_MEMORY_DESCRIPTOR *entry;
    uint64_t bytes = 0;

    /* First, because all of memory takes its time: what is read into these is not to arrive before
     * they are filled. */
    for (size_t i = 0; i < own_count; i++) {
        refill(own[i].base, own[i].size, round);
        bytes += own[i].size;
    }
    for (size_t i = 0; (entry = app_map_entry(map, i)) != NULL; i++) {
        if (!given_up(entry))
            continue;
        refill(entry->PhysicalStart, entry->NumberOfPages * 4096, round);
        bytes += entry->NumberOfPages * 4096;
    }
    return bytes;
}

void watch_look(const struct app_map *map, unsigned round)
{
    const EFI_MEMORY_DESCRIPTOR *entry;

    for (size_t i = 0; (entry = app_map_entry(map, i)) != NULL; i++)
        if (given_up(entry))
            around_spared(entry->PhysicalStart, entry->NumberOfPages * 4096, round, look);
    for (size_t i = 0; i < own_count; i++)
        around_spared(own[i].base, own[i].size, round, look);
}

/* ---- The report ---- */

void watch_report(void)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < change_count; i++) {
        const struct change *change = &changes[i];
        size_t shown = change->size < CHANGE_BYTES ? (size_t)change->size : CHANGE_BYTES;
        const struct shared *piece = shared_at(change->address);
        int owner = calls_owner(change->address);

        bytes += change->size;
        json_begin("change");
        json_number("round", change->round);
        json_hex("address", change->address);
        json_number("size", change->size);
        json_bytes("expected", change->expected, shown);
        json_bytes("found", change->found, shown);
        json_text("device", piece != NULL ? devices[piece->device].name : NULL);
        json_text("what", piece != NULL ? piece->what : NULL);
        if (owner != IMAGE_NONE)
            json_number("owner", (uint64_t)owner);
        else
            json_null("owner");
        json_end();
        report_print("  0x%llx, %llu bytes: %s%s%s%s\n", change->address, change->size,
                     piece != NULL ? devices[piece->device].name : "no device known to own it",
                     piece != NULL ? ", " : "", piece != NULL ? piece->what : "",
                     owner != IMAGE_NONE ? ", allocated by" : "");
        if (owner != IMAGE_NONE)
            report_print("      %s\n", image_name(owner));
        if (piece == NULL) {
            report_verdict(SUBJECT_FIRMWARE, "memory", IMAGE_NONE, "C4", FAIL,
                           "memory that was given up changed after the exit, first at 0x%llx; it "
                           "%s%s",
                           change->address,
                           owner != IMAGE_NONE ? "had been allocated by "
                                               : "is not known whose it had been",
                           owner != IMAGE_NONE ? image_name(owner) : "");
            continue;
        }
        struct device *device = &devices[piece->device];
        if (device->changes == 0)
            app_format(device->change, sizeof(device->change), "0x%llx, its %s", change->address,
                       piece->what);
        device->changes += change->size;
    }
    if (changes_lost > 0) {
        json_begin("lost");
        json_text("what", "change");
        json_number("count", changes_lost);
        json_end();
    }
    if (change_count == 0)
        report_verdict(SUBJECT_FIRMWARE, "memory", IMAGE_NONE, "C4", PASS,
                       "not a byte that firmware gave up has changed");
    else
        report_print("  %zu places, %llu bytes, and %llu places more\n", change_count, bytes,
                     changes_lost);
    if (change_count > 0)
        report_verdict(SUBJECT_FIRMWARE, "memory", IMAGE_NONE, "C4", FAIL,
                       "memory that was given up changed after the exit in %llu places",
                       change_count + changes_lost);
}

void watch_report_regions(const struct app_map *map)
{
    const EFI_MEMORY_DESCRIPTOR *entry;

    for (size_t i = 0; (entry = app_map_entry(map, i)) != NULL; i++) {
        static const char *const names[] = {
            [EfiLoaderCode] = "loader",
            [EfiLoaderData] = "loader",
            [EfiBootServicesCode] = "boot",
            [EfiBootServicesData] = "boot",
            [EfiRuntimeServicesCode] = "runtime",
            [EfiRuntimeServicesData] = "runtime",
            [EfiConventionalMemory] = "free",
            [EfiACPIReclaimMemory] = "acpi",
            [EfiACPIMemoryNVS] = "acpi",
            [EfiMemoryMappedIO] = "mmio",
            [EfiMemoryMappedIOPortSpace] = "mmio",
        };
        const char *name =
            entry->Type < sizeof(names) / sizeof(names[0]) ? names[entry->Type] : NULL;

        json_begin("region");
        json_hex("base", entry->PhysicalStart);
        json_number("size", entry->NumberOfPages * 4096);
        json_text("memory", name != NULL ? name : "reserved");
        json_bool("watched", given_up(entry));
        json_end();
    }
}
