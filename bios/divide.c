// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Division of 64 bits, for which a 32-bit compiler calls its library. There is none here. */

#include <stdbool.h>
#include <stdint.h>

uint64_t __udivdi3(uint64_t number, uint64_t by);
uint64_t __umoddi3(uint64_t number, uint64_t by);

static uint64_t divide(uint64_t number, uint64_t by, uint64_t *rest)
{
    uint64_t quotient = 0, left = 0;

    for (unsigned i = 64; i-- != 0;) {
        /* What is shifted out counts: by may have all 64 bits. */
        bool carry = left >> 63;
        left = left << 1 | (number >> i & 1);
        if (carry || left >= by) {
            left -= by;
            quotient |= 1ull << i;
        }
    }
    *rest = left;
    return quotient;
}

uint64_t __udivdi3(uint64_t number, uint64_t by)
{
    uint64_t rest;

    return divide(number, by, &rest);
}

uint64_t __umoddi3(uint64_t number, uint64_t by)
{
    uint64_t rest;

    divide(number, by, &rest);
    return rest;
}
