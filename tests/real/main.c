/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The orders, in one line, are carried out from left to right:
 *
 *     seed N                  chance, for what comes after
 *     gently                  no more calls with DF set, nor with buffers past 1 MiB
 *     soak N                  N random reads, writes and verifications
 *     functions               each function once, on each drive, with good arguments
 *     bad N                   arguments that no caller should have, and N random ones
 *     rom                     reads to where the BIOS itself is
 *     a20off N, big N, v86 N  N calls with A20 off, with segments of 4 GiB, in virtual-8086 mode
 *     time N                  how long N reads of each of some sizes take
 *     broken HOW N            after N more calls the BIOS does something that it must not
 *     linux K KN I IN TEXT    starts the kernel of KN bytes at LBA K of the boot drive with the
 *                             initrd of IN bytes at I, and the rest of the line; most of the
 *                             memory with the pattern is kept from it
 */
#include "tests/real/real.h"
#include "tests/real/io.h"

enum { WORD = 24, SETTLE_TICKS = 3 };

/* QEMU's ACPI registers as SeaBIOS and as hvmloader have them; S5 is type 0. */
enum { PM1_CONTROL = 0x604, PM1_CONTROL_XEN = 0xb004, SLEEP = 0x2000 };

static const char *next = orders;

static const char *word(void)
{
    static char text[WORD];
    unsigned count = 0;
    while (*next == ' ')
        next++;
    while (*next > ' ') {
        if (count < WORD - 1)
            text[count++] = *next;
        next++;
    }
    text[count] = 0;
    return text;
}

static bool is(const char *text, const char *wanted)
{
    while (*text && *text == *wanted) {
        text++;
        wanted++;
    }
    return *text == *wanted;
}

static u32 number(void)
{
    const char *text = word();
    u32 value = 0;
    if (!*text)
        wrong("a number is missing in the orders");
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            wrong("in the orders, no number: %s", text);
        value = value * 10 + (u32)(*text - '0');
    }
    return value;
}

static void carry_out(const char *order, const struct drive *boot)
{
    if (is(order, "seed")) {
        random_seed(number());
    } else if (is(order, "gently")) {
        gentle = true;
    } else if (is(order, "rom")) {
        rom();
    } else if (is(order, "soak")) {
        soak(number(), false);
    } else if (is(order, "functions")) {
        functions();
    } else if (is(order, "bad")) {
        bad(number());
    } else if (is(order, "a20off")) {
        a20_off(number());
    } else if (is(order, "big")) {
        big(number());
    } else if (is(order, "v86")) {
        v86(number());
    } else if (is(order, "time")) {
        timing(number());
    } else if (is(order, "broken")) {
        char how[WORD];
        say_to(how, sizeof how, "%s", word());
        broken(how, number());
        calls_start();
    } else if (is(order, "linux")) {
        u32 kernel = number(), kernel_bytes = number(), initrd = number(), initrd_bytes = number();
        memory_check();
        calls_check();
        if (wrongs == 0)
            linux_start(boot, kernel, kernel_bytes, initrd, initrd_bytes, next);
    } else {
        wrong("in the orders, no order: %s", order);
    }
}

static _Noreturn void finish(const struct drive *boot)
{
    if (boot) {
        /* Whoever looks from outside can tell what comes after the last call. */
        say("before the last call");
        bool read = drive_read(boot, 1, 1, (u32)program_end);
        say("after the last call");
        if (!read)
            wrong("the last call was refused with ah=%02x", call_ah());
    }
    if (wrongs)
        say("failed: %s", first_wrong);
    else
        say("ok");
    power_off();
}

void power_off(void)
{
    out16(PM1_CONTROL, SLEEP);
    out16(PM1_CONTROL_XEN, SLEEP);
    for (;;)
        __asm__ volatile("cli; hlt");
}

void real_main(u8 boot_drive)
{
    content_start();
    random_seed(1);
    /* A BIOS that has its screen on the serial port finishes what it said with the clock. */
    for (unsigned i = 0; i < SETTLE_TICKS; i++)
        tick_wait();
    say_end();
    if (!memory_find()) {
        wrong("the BIOS grants too little memory");
        finish(NULL);
    }
    if (!drives_find(boot_drive)) {
        wrong("there are no orders on drive %02xh", boot_drive);
        finish(NULL);
    }
    const struct drive *boot = drives;
    while (boot->number != boot_drive)
        boot++;
    memory_fill();
    u32 bytes = 0;
    for (unsigned i = 0; i < pattern_count; i++)
        bytes += pattern_ranges[i].end - pattern_ranges[i].start;
    say("memory=%u low=0x%x", bytes, low_end);
    calls_start();

    for (const char *order; *(order = word());) {
        char text[WORD];
        say_to(text, sizeof text, "%s", order);
        say("order %s", text);
        unsigned before = wrongs;
        carry_out(text, boot);
        if (wrongs != before)
            break;
    }
    memory_check();
    calls_check();
    finish(boot);
}
