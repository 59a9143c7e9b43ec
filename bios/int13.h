// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * INT 13h: the disk services of a PC BIOS, as the BIOSes of IBM had them, and Enhanced Disk Drive
 * services 3.0 (T13 1572D) with packets, 64-bit block numbers and device paths.
 */
#pragma once

#include <stdbool.h>
#include "bios/door.h"

/*
 * Serves a call, whose registers are the frame's, and whose flags tell whether interrupts may come
 * in while it waits. False if it is for somebody else; then nothing has been changed.
 */
bool int13(struct frame *frame);
