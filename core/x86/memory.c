// SPDX-License-Identifier: BSD-2-Clause-Patent
/* The memory functions that a freestanding compiler takes for granted. String instructions: short,
 * and as fast as anything for what the drivers copy. Frames are copied by the word, because an
 * emulated CPU takes as long over a byte. */

#include <stddef.h>
#include <stdint.h>

void *memcpy(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

void *memcpy(void *to, const void *from, size_t bytes)
{
    void *cursor = to;
    size_t words = bytes / sizeof(uintptr_t);

    bytes %= sizeof(uintptr_t);
#ifdef __x86_64__
    __asm__ volatile("rep movsq" : "+D"(cursor), "+S"(from), "+c"(words) : : "memory");
#else
    __asm__ volatile("rep movsl" : "+D"(cursor), "+S"(from), "+c"(words) : : "memory");
#endif
    __asm__ volatile("rep movsb" : "+D"(cursor), "+S"(from), "+c"(bytes) : : "memory");
    return to;
}

void *memset(void *to, int value, size_t bytes)
{
    void *cursor = to;
    __asm__ volatile("rep stosb" : "+D"(cursor), "+c"(bytes) : "a"(value) : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t bytes)
{
    const unsigned char *left = a, *right = b;

    for (; bytes; bytes--, left++, right++)
        if (*left != *right)
            return *left - *right;
    return 0;
}
