/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The machine's sole owner: page tables, descriptor tables and a stack in memory of our own, so
 * that all that firmware has given up can be overwritten. Addresses stay what they are.
 */
#pragma once

#include "lab/efi/app.h"

/* Builds page tables for everything in the map, below 4 GiB, and in the windows that `each_window`
 * calls back with. Allocates, so before the map that is used to exit is read; memory that is
 * allocated in between is mapped as long as the map's ranges stay the same. */
void owner_prepare(const struct app_map *map,
                   void (*each_window)(void (*range)(uint64_t base, uint64_t size)));

/* After the exit: goes over to them, with interrupts off, and calls `then`, which must not return.
 * A CPU exception from now on ends the audit with an error. */
_Noreturn void owner_take(void (*then)(void));
