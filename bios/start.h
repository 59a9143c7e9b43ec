// SPDX-License-Identifier: BSD-2-Clause-Patent
/* The start of the ROM, and what is known from then on. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "bios/door.h"

extern uint64_t ticks_per_ms; /* the rate of clock_ticks() */
extern uint32_t start_pmm;    /* PMM's entry, segment and offset; only in the start */
extern uint16_t rom_segment;  /* the image in the first MiB; its third byte is its length / 512 */

/* Where an interrupt of real mode goes: segment and offset. */
uint32_t interrupt_vector(unsigned number);

/*
 * Calls a real-mode function far: with these registers, and with the `count` words on the stack,
 * the first on top. For an interrupt's handler they are the flags, which it takes away. Afterwards
 * *registers is what it has left; its flags are what is returned. It has interrupts off unless it
 * enables them, or its flags do. Another INT 13h may come in the middle.
 */
uint16_t call_real(uint32_t segment_offset, struct registers *registers, const uint16_t *arguments,
                   unsigned count);

/* Lets those interrupts in that wait. Another INT 13h may come in the middle. */
void open_window(void);
