/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* Text that comes back from XenStore, and may be anything. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A node's name, or with `path` an absolute path, as XenStore allows them. */
bool name_valid(const char *text, size_t most, bool path);

/* A decimal number without anything around it, of at most nine digits. */
bool number_of(const char *text, uint32_t *number);

bool begins(const char *text, const char *with);

/* At most size - 1 bytes, ended by a zero; what is not printable becomes a question mark. */
void printable(char *to, size_t size, const char *from, size_t length);
