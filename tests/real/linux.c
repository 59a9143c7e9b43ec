/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Starts Linux as a boot loader does that has no more than INT 13h (Documentation/x86/boot.rst, the
 * 16-bit protocol), so that the kernel's own real-mode code is the next that calls the BIOS.
 */
#include "tests/real/real.h"

enum {
    SETUP = 0x40000, /* its real-mode code, heap, stack and command line */
    SETUP_MAX = 0x8000,
    HEAP_END = 0xe000,
    COMMAND_LINE = SETUP + HEAP_END,
    COMMAND_LINE_MAX = 0x200,
    KERNEL = 0x100000,
    BOUNCE = 0x50000,
    BOUNCE_BYTES = 0xfe00,
    /* In the header */
    SETUP_SECTS = 0x1f1,
    MAGIC = 0x202,
    TYPE_OF_LOADER = 0x210,
    LOADFLAGS = 0x211,
    RAMDISK_IMAGE = 0x218,
    RAMDISK_SIZE = 0x21c,
    HEAP_END_PTR = 0x224,
    CMD_LINE_PTR = 0x228,
    PREF_ADDRESS = 0x258,
    INIT_SIZE = 0x260,
    LOADED_HIGH = 1,
    CAN_USE_HEAP = 0x80,
    UNKNOWN_LOADER = 0xff,

    PAGE = 0x1000,
    ROOM = 64 << 20, /* for Linux to run in, besides itself and its initrd */
};

/* `bytes` from byte `from` of what begins at sector `lba`, to anywhere. */
static bool load(const struct drive *drive, u32 lba, u32 from, u32 bytes, u32 to, bool last)
{
    while (bytes > 0) {
        u32 skip = from % drive->bytes;
        u32 piece = BOUNCE_BYTES - skip < bytes ? BOUNCE_BYTES - skip : bytes;
        u32 count = (skip + piece + drive->bytes - 1) / drive->bytes;
        if (last && piece == bytes)
            say("before the last call");
        if (!drive_read(drive, lba + from / drive->bytes, count, BOUNCE))
            return !wrong("a read for Linux was refused with ah=%02x", call_ah());
        memcpy((void *)to, (const void *)(BOUNCE + skip), piece);
        from += piece;
        to += piece;
        bytes -= piece;
    }
    if (last)
        say("after the last call");
    return true;
}

/* `text` and one word more. */
static void add_word(char *text, const char *format, u32 first, u32 second)
{
    u32 length = 0;
    while (text[length])
        length++;
    say_to(text + length, COMMAND_LINE_MAX - length, format, first, second);
}

/*
 * Keeps from Linux all memory from `start` on that has the pattern in it, so that it can be looked
 * at while Linux runs. A word of it is spoilt, which whoever looks has to see, and nothing else.
 */
static void keep_back(char *command_line, u32 start)
{
    u32 bytes = 0, spoilt = 0;
    for (unsigned i = 0; i < pattern_count; i++) {
        u32 from = pattern_ranges[i].start > start ? pattern_ranges[i].start : start;
        u32 to = pattern_ranges[i].end & ~(PAGE - 1u);
        from = (from + PAGE - 1) & ~(PAGE - 1u);
        if (from >= to)
            continue;
        add_word(command_line, " memmap=0x%x$0x%x", to - from, from);
        bytes += to - from;
        spoilt = (from + random_below(to - from)) & ~3u;
    }
    if (spoilt)
        *(u32 *)spoilt ^= 1u << random_below(32);
    say("kept=%u spoilt=0x%x", bytes, spoilt);
}

void linux_start(const struct drive *drive, u32 kernel, u32 kernel_bytes, u32 initrd,
                 u32 initrd_bytes, const char *command_line)
{
    u8 *setup = (u8 *)SETUP;
    if (!load(drive, kernel, 0, SETUP_MAX, SETUP, false))
        goto failed;
    if (memcmp(setup + MAGIC, "HdrS", 4) != 0) {
        wrong("there is no kernel at sector %u", kernel);
        goto failed;
    }
    /* Behind what the kernel takes before it knows where its initrd is, if it stays where it
     * prefers to be. */
    u32 initrd_at = *(u32 *)(setup + PREF_ADDRESS) + *(u32 *)(setup + INIT_SIZE);
    initrd_at = (initrd_at + PAGE - 1) & ~(PAGE - 1u);
    u32 setup_bytes = (setup[SETUP_SECTS] + 1u) * 512;
    if (!load(drive, kernel, setup_bytes, kernel_bytes - setup_bytes, KERNEL, false) ||
        !load(drive, initrd, 0, initrd_bytes, initrd_at, true))
        goto failed;

    setup[TYPE_OF_LOADER] = UNKNOWN_LOADER;
    setup[LOADFLAGS] |= CAN_USE_HEAP;
    *(u32 *)(setup + RAMDISK_IMAGE) = initrd_at;
    *(u32 *)(setup + RAMDISK_SIZE) = initrd_bytes;
    *(u16 *)(setup + HEAP_END_PTR) = HEAP_END - 0x200;
    *(u32 *)(setup + CMD_LINE_PTR) = COMMAND_LINE;
    say_to((char *)COMMAND_LINE, COMMAND_LINE_MAX, "%s nokaslr", command_line);
    keep_back((char *)COMMAND_LINE, initrd_at + initrd_bytes + ROOM);
    say("linux");
    enter_linux(SETUP >> 4);
failed:
    say("failed: %s", first_wrong);
    power_off();
}
