// SPDX-License-Identifier: BSD-2-Clause-Patent
/* What the drivers have to say, on the console: one that cannot do its work has nowhere else. */
#pragma once

#include "uefi/driver.h"

/* "Baton: ABOUT: SENTENCE NUMBER". `about` has at most 40 characters. A sentence that does not fit
 * a line is not shown. TPL_NOTIFY or below. */
void log_line(const CHAR16 *about, const char *sentence, uint64_t number);

/* Text put together in a buffer of the caller's; each gives where to go on, and ends it there. A
 * number has at most 20 digits, and at least `width`. */
CHAR16 *put_text(CHAR16 *at, const char *text);
CHAR16 *put_number(CHAR16 *at, uint64_t number, unsigned base, unsigned width);
