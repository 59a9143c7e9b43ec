// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "bios/log.h"
#include "bios/start.h"
#include "core/xen/domain.h"

/* Where SeaBIOS writes its own log, too: QEMU's debug console, which tells whether it is there, and
 * Xen's. */
#define DEBUG_PORT     0x402
#define DEBUG_HERE     0xe9
#define DEBUG_PORT_XEN 0xe9

static bool screen_left;

char *put_text(char *at, const char *text)
{
    while (*text)
        *at++ = *text++;
    *at = 0;
    return at;
}

/* 64 bits in steps of 16, because there is no other division here. */
static uint64_t divide_by_ten(uint64_t number, unsigned *rest)
{
    uint64_t quotient = 0;
    uint32_t left = 0;

    for (unsigned i = 4; i-- != 0;) {
        left = left << 16 | (uint16_t)(number >> 16 * i);
        quotient = quotient << 16 | left / 10;
        left %= 10;
    }
    *rest = left;
    return quotient;
}

char *put_decimal(char *at, uint64_t number)
{
    char digits[20];
    unsigned count = 0, digit;

    do {
        number = divide_by_ten(number, &digit);
        digits[count++] = (char)('0' + digit);
    } while (number);
    while (count)
        *at++ = digits[--count];
    *at = 0;
    return at;
}

char *put_hex(char *at, uint32_t number, unsigned digits)
{
    while (digits)
        *at++ = "0123456789abcdef"[number >> 4 * --digits & 0xf];
    *at = 0;
    return at;
}

char *put_place(char *at, const struct pci_function *where)
{
    at = put_text(put_hex(at, where->bus, 2), ":");
    at = put_text(put_hex(at, where->device, 2), ".");
    return put_hex(at, where->function, 1);
}

static void say(const char *text)
{
    const struct reg_window ports = {.base = 0, .bytes = 0x10000, .port = true};
    uint16_t debug = xen_found()                                   ? DEBUG_PORT_XEN
                     : reg_read8(&ports, DEBUG_PORT) == DEBUG_HERE ? DEBUG_PORT
                                                                   : 0;

    for (; *text; text++) {
        if (debug)
            reg_write8(&ports, debug, (uint8_t)*text);
        if (screen_left)
            continue;
        struct registers registers = {.eax = 0x0e00u | (uint8_t)*text, .ebx = 7};
        uint16_t flags = 0x0002;
        call_real(interrupt_vector(0x10), &registers, &flags, 1);
    }
}

void log_text(const char *text)
{
    say("Baton: ");
    say(text);
    say("\r\n");
}

void log_line(const struct pci_function *where, const char *sentence, uint64_t number)
{
    char line[200], *at = line;

    if (where)
        at = put_text(put_place(at, where), ": ");
    at = put_text(put_text(at, sentence), " ");
    put_decimal(at, number);
    log_text(line);
}

void log_leave_screen(void)
{
    screen_left = true;
}
