/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* How long reads take, in ticks of the processor's clock. */
#include "tests/real/real.h"

enum { CALLS_MAX = 4096, BUFFER = 0x30000, SORTED = COUNTERS - CALLS_MAX * 4, CLOCK_TICKS = 9 };

static void sort(u32 *values, u32 count)
{
    for (u32 gap = count / 2; gap > 0; gap /= 2) {
        for (u32 i = gap; i < count; i++) {
            u32 value = values[i], k = i;
            for (; k >= gap && values[k - gap] > value; k -= gap)
                values[k] = values[k - gap];
            values[k] = value;
        }
    }
}

static void time_reads(const struct drive *drive, u32 sectors, u32 calls)
{
    u32 *ticks = (u32 *)SORTED;
    u64 total = 0;
    for (u32 i = 0; i < calls; i++) {
        u64 lba = drive->window[0] + random_below(drive->window_sectors[0] - sectors + 1);
        if (!drive_read(drive, lba, sectors, BUFFER)) {
            wrong("%02xh: a read of %u sectors was refused with ah=%02x", drive->number, sectors,
                  call_ah());
            break;
        }
        u64 took = call.end - call.start;
        total += took;
        ticks[i] = took < 0xffffffff ? (u32)took : 0xffffffff;
    }
    sort(ticks, calls);
    say("time: %02xh sectors=%u reads=%u median=0x%x total=0x%llx", drive->number, sectors, calls,
        ticks[calls / 2], total);
}

/* How many half a second has, by the clock of INT 08h, for those who want microseconds. */
static void time_clock(void)
{
    tick_wait();
    u32 first = ticks_now();
    u64 start = call.end;
    while (ticks_now() - first < CLOCK_TICKS && tick_wait())
        ;
    say("time: clock=%u tsc=0x%llx", ticks_now() - first, call.end - start);
}

void timing(u32 calls)
{
    static const u32 sizes[] = {1, 8, 64, 127};
    if (calls > CALLS_MAX)
        calls = CALLS_MAX;
    time_clock();
    for (unsigned d = 0; d < drive_count; d++) {
        for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
            time_reads(&drives[d], sizes[i], calls);
    }
    memory_fill();
}
