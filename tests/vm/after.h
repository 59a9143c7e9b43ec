/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * After the exit: a program that owns the machine, and looks whether anybody still writes to its
 * memory. All that firmware has given up is filled with a pattern, except for what the CPU itself
 * uses.
 */
#pragma once

#include "tests/vm/vm.h"

enum { AFTER_ALSO_MAX = VM_DISKS_MAX };

/* Takes the machine, with the memory map that was exited with. Interrupts are off from here on. */
void after_take(const struct app_map *map);

/* Memory of the program's own that is watched as well. */
void after_also(void *at, size_t bytes);

void after_fill(void);

/* Tells how many pages were watched and how many have changed since, and checks that none has. */
void after_look(void);
