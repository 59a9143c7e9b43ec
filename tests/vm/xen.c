/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "tests/vm/xen.h"

/* The ACPI event registers that Xen itself emulates (its public/hvm/ioreq.h, and ACPI 6.4
 * §4.8.3.1.1). */
enum { PM1A_STATUS = 0xb000, POWER_BUTTON = 1 << 8, PATIENCE_S = 120 };

static bool pressed(void)
{
    uint16_t status;

    __asm__ volatile("inw %1, %0" : "=a"(status) : "Nd"((uint16_t)PM1A_STATUS) : "memory");
    if (!(status & POWER_BUTTON))
        return false;
    /* Writing a one takes it away. */
    __asm__ volatile("outw %0, %1"
                     :
                     : "a"((uint16_t)POWER_BUTTON), "Nd"((uint16_t)PM1A_STATUS)
                     : "memory");
    return true;
}

void xen_ask(const char *word)
{
    uint64_t start = app_tsc();

    while (pressed())
        ;
    app_print("vm: please %s\n", word);
    while (!pressed()) {
        if (app_us(app_tsc() - start) > PATIENCE_S * 1000000ull)
            app_failed(__FILE__, __LINE__, "dom0 does not do what it is asked for");
        app_delay_us(1000);
    }
}

struct vm_disk *xen_disk(struct vm_disk *disks, size_t count, UINT32 number)
{
    for (size_t i = 0; i < count; i++)
        if (disks[i].child && disks[i].number == number)
            return &disks[i];
    app_print("vm: there is no disk %u\n", number);
    app_exit(1);
}
