// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "uefi/log.h"

CHAR16 *put_text(CHAR16 *at, const char *text)
{
    while (*text)
        *at++ = (CHAR16)*text++;
    *at = 0;
    return at;
}

CHAR16 *put_number(CHAR16 *at, uint64_t number, unsigned base, unsigned width)
{
    CHAR16 digits[20];
    unsigned count = 0;

    do {
        digits[count++] = (CHAR16) "0123456789abcdef"[number % base];
        number /= base;
    } while (number || count < width);
    while (count)
        *at++ = digits[--count];
    *at = 0;
    return at;
}

void log_line(const CHAR16 *about, const char *sentence, uint64_t number)
{
    CHAR16 line[192], *at = line;
    size_t length = 0;

    if (!st->ConOut)
        return;
    while (sentence[length])
        length++;
    /* What stands around the sentence takes at most 73 characters. */
    if (length > sizeof(line) / sizeof(line[0]) - 80)
        return;
    at = put_text(at, "Baton: ");
    while (*about)
        *at++ = *about++;
    at = put_text(at, ": ");
    at = put_text(at, sentence);
    at = put_text(at, " ");
    at = put_number(at, number, 10, 1);
    put_text(at, "\r\n");
    st->ConOut->OutputString(st->ConOut, line);
}
