// SPDX-License-Identifier: BSD-2-Clause-Patent
/* What a 32-bit compiler calls its library for when it has 64 bits before it. There is no library
 * here. */

#include <stdbool.h>
#include <stdint.h>

uint64_t __udivmoddi4(uint64_t number, uint64_t by, uint64_t *rest);
uint64_t __udivdi3(uint64_t number, uint64_t by);
uint64_t __umoddi3(uint64_t number, uint64_t by);
int __ctzdi2(uint64_t number);
int __popcountdi2(uint64_t number);

uint64_t __udivmoddi4(uint64_t number, uint64_t by, uint64_t *rest)
{
    uint64_t quotient = 0, left = 0;

    for (unsigned i = 64; i-- != 0;) {
        /* What is shifted out counts: `by` may have all 64 bits. */
        bool carry = left >> 63;
        left = left << 1 | (number >> i & 1);
        if (carry || left >= by) {
            left -= by;
            quotient |= 1ull << i;
        }
    }
    if (rest)
        *rest = left;
    return quotient;
}

uint64_t __udivdi3(uint64_t number, uint64_t by)
{
    return __udivmoddi4(number, by, 0);
}

uint64_t __umoddi3(uint64_t number, uint64_t by)
{
    uint64_t rest;

    __udivmoddi4(number, by, &rest);
    return rest;
}

int __ctzdi2(uint64_t number)
{
    uint32_t low = (uint32_t)number;

    return low ? __builtin_ctz(low) : 32 + __builtin_ctz((uint32_t)(number >> 32));
}

int __popcountdi2(uint64_t number)
{
    int count = 0;

    for (; number; number &= number - 1)
        count++;
    return count;
}
