/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "tests/real/real.h"

enum { RANGES_MAX = 16, GUARD = 256, USABLE = 1, SMAP = 0x534d4150 };

static const u32 FACTOR = 0x9e3779b1, OFFSET = 0x7f4a7c15;

static struct range ranges[RANGES_MAX];
struct range *const pattern_ranges = ranges;
unsigned pattern_count;
bool a20_is_off;
u32 low_end;

/* ---- What is ours ---- */

static void add(u64 start, u64 end)
{
    start = (start + 15) & ~15ull;
    end = end & ~15ull;
    if (end > 0xfffffff0)
        end = 0xfffffff0;
    if (start < end && pattern_count < RANGES_MAX)
        ranges[pattern_count++] = (struct range){(u32)start, (u32)end};
}

/* What is usable, but for [hole_start, hole_end). */
static void add_without(u64 start, u64 end, u32 hole_start, u32 hole_end)
{
    if (start < hole_start)
        add(start, end < hole_start ? end : hole_start);
    if (end > hole_end)
        add(start > hole_end ? start : hole_end, end);
}

bool memory_find(void)
{
    struct __attribute__((packed)) {
        u64 start, bytes;
        u32 type, more;
    } *entry = (void *)LOW_START;
    bool large = false;

    call.in = (struct regs){.ss = 0, .esp = STACK_END, .eflags = IF};
    real_call(0x12, false);
    low_end = (call.out.eax & 0xffff) << 10;

    u32 next = 0;
    do {
        call.in = (struct regs){.eax = 0xe820,
                                .ebx = next,
                                .ecx = 20,
                                .edx = SMAP,
                                .edi = LOW_START,
                                .esp = STACK_END,
                                .eflags = IF};
        real_call(0x15, false);
        if (call.out.eflags & CF || call.out.eax != SMAP)
            break;
        next = call.out.ebx;
        u64 start = entry->start, end = start + entry->bytes;
        if (entry->type != USABLE)
            continue;
        if (start < 0x100000) {
            if (start == 0 && end < low_end)
                low_end = (u32)end;
            continue;
        }
        large |= start == 0x100000 && end >= MEMORY_MIN;
        add_without(start, end, COUNTERS, MEMORY_MIN);
    } while (next);
    low_end &= ~15u;
    add(LOW_START, STACK_START);
    add((u32)program_end, low_end);
    return large && low_end > 0x60000;
}

/* ---- The pattern ---- */

void pattern_fill(u32 start, u32 end)
{
    u32 value = start * FACTOR + OFFSET;
    for (u32 *p = (u32 *)start; p < (u32 *)end; p++, value += 4 * FACTOR)
        *p = value;
}

u8 pattern_byte(u32 address)
{
    return (u8)((((address & ~3u) * FACTOR + OFFSET)) >> 8 * (address & 3));
}

/* Of whole words. The first that is another, or the end. */
static u32 pattern_until(u32 start, u32 end)
{
    u32 value = start * FACTOR + OFFSET;
    const u32 *p = (const u32 *)start;
    for (; p < (const u32 *)end; p++, value += 4 * FACTOR) {
        if (*p != value)
            break;
    }
    return (u32)p;
}

bool pattern_holds(u32 start, u32 end, const char *what)
{
    u32 at = start;
    while (at < end && at & 3 && *(const u8 *)at == pattern_byte(at))
        at++;
    if (at < end && !(at & 3))
        at = pattern_until(at, end & ~3u);
    while (at < end && *(const u8 *)at == pattern_byte(at))
        at++;
    if (at >= end)
        return true;
    wrong("memory at %08x (%s) is %02x and should be %02x, after %s", at, what, *(const u8 *)at,
          pattern_byte(at), call_name());
    return false;
}

void pattern_restore(u32 start, u32 end)
{
    u32 first = start & ~3u, last = (end + 3) & ~3u;
    for (unsigned i = 0; i < pattern_count; i++) {
        const struct range *range = &ranges[i];
        if (first < range->start || last > range->end)
            continue;
        u32 from = first - range->start > GUARD ? first - GUARD : range->start;
        u32 to = range->end - last > GUARD ? last + GUARD : range->end;
        pattern_holds(from, start, "before a buffer");
        pattern_holds(end, to, "after a buffer");
    }
    pattern_fill(first, last);
}

void memory_fill(void)
{
    for (unsigned i = 0; i < pattern_count; i++)
        pattern_fill(ranges[i].start, ranges[i].end);
    pattern_fill(STACK_START, STACK_END);
}

void memory_check_slice(u32 bytes)
{
    static unsigned index;
    static u32 offset;
    if (a20_is_off)
        return;
    const struct range *range = &ranges[index];
    u32 start = range->start + offset;
    u32 end = range->end - start > bytes ? start + bytes : range->end;
    pattern_holds(start, end, "a slice");
    offset += bytes;
    if (end == range->end) {
        offset = 0;
        index = (index + 1) % pattern_count;
    }
}

void memory_check(void)
{
    for (unsigned i = 0; i < pattern_count; i++)
        pattern_holds(ranges[i].start, ranges[i].end, "all");
}

/* ---- Where things are put ---- */

u32 far_pointer(u32 address, u32 size)
{
    if (address >= 0xffff0 + 0x10 && address < HMA_END)
        return 0xffff0000 | (address - 0xffff0);
    u32 offset = address & 15;
    u32 most = 0x10000 - size;
    if (most > address)
        most = address;
    if (most > offset)
        offset += 16 * random_below((most - offset) / 16 + 1);
    return (address - offset) >> 4 << 16 | offset;
}

static u32 random_address(u32 start, u32 end, u32 bytes)
{
    u32 address = start + random_below(end - start - bytes + 1);
    switch (random_below(4)) {
    case 0: /* any */
        return address;
    case 1:
        return address & ~1u;
    default:
        return address & ~15u;
    }
}

u32 random_buffer(u32 bytes)
{
    /* DOS has its buffers in the first 64 KiB past 1 MiB. */
    if (!a20_is_off && !gentle && random_below(8) == 0 && bytes <= HMA_END - 0x100000)
        return random_address(0x100000, HMA_END, bytes);
    return random_address(((u32)program_end + 15) & ~15u, low_end, bytes);
}

u32 random_packet(void)
{
    return random_address(LOW_START, STACK_START, sizeof(struct packet));
}
