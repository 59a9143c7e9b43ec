// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "bios/log.h"
#include "bios/pci.h"
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

char *put_decimal(char *at, uint64_t number)
{
    return store_put_number(at, number);
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
    uint16_t debug = xen_found()                                      ? DEBUG_PORT_XEN
                     : reg_read8(&io_ports, DEBUG_PORT) == DEBUG_HERE ? DEBUG_PORT
                                                                      : 0;

    for (; *text; text++) {
        if (debug)
            reg_write8(&io_ports, debug, (uint8_t)*text);
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
