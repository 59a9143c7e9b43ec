// SPDX-License-Identifier: BSD-2-Clause-Patent
/* The memory functions that a freestanding compiler takes for granted. String instructions: short,
 * and as fast as anything for what the drivers copy. Frames are copied by the word, because an
 * emulated CPU takes as long over a byte. */

#include <stddef.h>
#include <stdint.h>

void *memcpy(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);

void *memcpy(void *to, const void *from, size_t bytes)
{
    void *cursor = to;
    size_t words = bytes / sizeof(uint64_t);

    bytes %= sizeof(uint64_t);
    __asm__ volatile("rep movsq" : "+D"(cursor), "+S"(from), "+c"(words) : : "memory");
    __asm__ volatile("rep movsb" : "+D"(cursor), "+S"(from), "+c"(bytes) : : "memory");
    return to;
}

void *memset(void *to, int value, size_t bytes)
{
    void *cursor = to;
    __asm__ volatile("rep stosb" : "+D"(cursor), "+c"(bytes) : "a"(value) : "memory");
    return to;
}
