/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The watch: fills all memory that firmware has given up with a pattern, and finds every byte that
 * somebody else has changed since.
 */
#pragma once

#include "lab/efi/app.h"

enum { CHANGES_MAX = 256, CHANGE_BYTES = 32 };

struct change {
    uint64_t address, size; /* from the first changed byte to the last; few between are unchanged */
    uint8_t expected[CHANGE_BYTES], found[CHANGE_BYTES];
    unsigned round;
};

extern struct change changes[CHANGES_MAX];
extern size_t change_count;
extern uint64_t changes_lost;

/* Memory of ours that a device may still have been told to write to: watched as well. Whole pages.
 * Before watch_fill(). */
void watch_also(void *base, uint64_t size);

/* Memory that a live device finds its orders in: left as it is in the first round, so that the
 * device goes on with what it was told to do, and is caught at it. Before watch_fill(). */
void watch_spare(uint64_t base, uint64_t size);

/* Each round has a pattern of its own, which differs from the others' in every bit: what a device
 * happens to write that was there already in one round is not there in the next. Gives how many
 * bytes are watched. */
uint64_t watch_fill(const struct app_map *map, unsigned round);
void watch_look(const struct app_map *map, unsigned round);

/* Tells of all changes, with the likely writer of each, and puts them down to the devices. */
void watch_report(void);

/* Tells of the regions of the memory map. */
void watch_report_regions(const struct app_map *map);
