/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Text on the frame buffer, with letters that the firmware drew while it was there: on a real
 * machine without a serial port this is all that a person will see.
 */
#pragma once

#include "lab/efi/app.h"

/* Looks for a frame buffer and a font (Graphics Output and HII Font). Without either, the other
 * functions do nothing. Boot services are needed; allocates. */
void screen_find(void);

void screen_memory(uint64_t *base, uint64_t *size);
void screen_put(char c);
void screen_clear(void);
