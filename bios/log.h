// SPDX-License-Identifier: BSD-2-Clause-Patent
/* What people get to read: on the screen while the BIOS starts, and on QEMU's or Xen's debug
 * console always.
 */
#pragma once

#include <stdbool.h>
#include "core/regs.h"

/* Text into a buffer that is large enough; each gives the end, where a zero is. */
char *put_text(char *at, const char *text);
char *put_decimal(char *at, uint64_t number);
char *put_hex(char *at, uint32_t number, unsigned digits);
char *put_place(char *at, const struct pci_function *where); /* 00:04.0 */

/* A line about a device, or, if `where` is NULL, about Baton. The number is decimal. */
void log_line(const struct pci_function *where, const char *sentence, uint64_t number);

/* A line as it is: "Baton: ", the text, and the line's end. */
void log_text(const char *text);

/* From here on the screen is the operating system's. */
void log_leave_screen(void);
