/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "audit/xen/text.h"
#include "lab/efi/app.h"

bool name_valid(const char *text, size_t most, bool path)
{
    size_t length = strlen(text);

    if (length == 0 || length > most || (path && text[0] != '/'))
        return false;
    for (; *text != '\0'; text++) {
        char c = *text;

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '-' || c == '_' || c == '@' || (path && c == '/')))
            return false;
    }
    return true;
}

bool number_of(const char *text, uint32_t *number)
{
    size_t length = strlen(text);

    *number = 0;
    if (length == 0 || length > 9)
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return false;
        *number = *number * 10 + (uint32_t)(*text - '0');
    }
    return true;
}

bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

void printable(char *to, size_t size, const char *from, size_t length)
{
    size_t i;

    for (i = 0; i < length && i + 1 < size; i++)
        to[i] = from[i] >= ' ' && from[i] < 0x7f ? from[i] : '?';
    to[i] = '\0';
}
