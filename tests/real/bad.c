/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Arguments that nobody should give. What must be refused is; the data on the disks, the memory and
 * the machine stay as they are. Writes are of what the sectors have in them already, so that
 * one that is done by halves does no harm.
 */
#include "tests/real/real.h"

enum {
    LAP = 0x40000, /* where anything may be put that is read */
    LAP_BYTES = 0x20000,
    PACKET = 0x1000,
    PACKET_ROOM = 0x100,
    ROMS = 0xc0000,
    BIOS = 0xf0000,
    ROM_END = 0x100000,
    ROM_STEP = 0x4000,
    BAD_ARGUMENT = 0x01,
};

enum verdict { EITHER, REFUSED, BAD_COMMAND };

static u32 refused, done;

static void restore_lap(void)
{
    pattern_restore(LAP, LAP + LAP_BYTES);
    pattern_restore(PACKET, PACKET + PACKET_ROOM);
}

static void check(const char *what, enum verdict verdict)
{
    bool failed = call_failed();
    refused += failed;
    done += !failed;
    if (failed && call_ah() == 0)
        wrong("%s: refused with ah=00: %s", what, call_name());
    if (verdict != EITHER && !failed)
        wrong("%s: not refused: %s", what, call_name());
    if (verdict == BAD_COMMAND && failed && call_ah() != BAD_ARGUMENT)
        wrong("%s: refused with ah=%02x and not 01: %s", what, call_ah(), call_name());
}

/* ---- Packets ---- */

/* What a write writes is what is there. */
static void fill_with_what_is_there(const struct drive *drive, u64 lba, u32 count)
{
    for (u32 i = 0; i < count && i < LAP_BYTES / drive->bytes; i++) {
        u64 at = lba + i;
        if (at >= drive->window[1] && at < drive->sectors)
            content_fill(drive, at, *drive_counter(drive, at), (u8 *)LAP + i * drive->bytes);
    }
}

static void packet_call(const struct drive *drive, const char *what, u32 fn, struct packet packet,
                        enum verdict verdict)
{
    if (fn == 0x43)
        fill_with_what_is_there(drive, packet.lba, packet.count);
    memcpy((void *)PACKET, &packet, sizeof packet);
    call_prepare(fn << 8, drive->number);
    call_set_ds_si(PACKET, PACKET_ROOM);
    call_int13(0);
    char text[80];
    say_to(text, sizeof text, "%s (size %02x, count %u, lba 0x%llx)", what, packet.size,
           packet.count, packet.lba);
    check(text, verdict);
    restore_lap();
}

static void bad_packets(const struct drive *drive)
{
    static const u8 sizes[] = {0, 1, 0x0f, 0x11, 0x18, 0xff};
    const struct packet good = {PACKET_BYTES, 0, 1, 0, LAP >> 4, drive->window[1], LAP};
    for (u32 fn = 0x42; fn <= 0x44; fn++) {
        for (unsigned i = 0; i < sizeof sizes; i++) {
            struct packet packet = good;
            packet.size = sizes[i];
            packet_call(drive, "size", fn, packet, sizes[i] < PACKET_BYTES ? BAD_COMMAND : EITHER);
        }
        struct packet none = good;
        none.count = 0;
        packet_call(drive, "no sectors", fn, none, EITHER);

        const struct {
            u64 lba;
            u16 count;
        } outside[] = {
            {drive->sectors, 1},          {drive->sectors, 127},     {drive->sectors - 1, 2},
            {drive->sectors - 60, 127},   {drive->sectors + 1, 1},   {0x7fffffffffffffff, 1},
            {0xffffffffffffffff, 1},      {0xffffffffffffffff, 127}, {0xffffffffffffffc0, 127},
            {1ull << 32 | 0xffffff00, 1}, {1ull << 55, 1},           {1ull << 63, 1},
        };
        for (unsigned i = 0; i < sizeof outside / sizeof *outside; i++) {
            struct packet packet = good;
            packet.lba = outside[i].lba;
            packet.count = outside[i].count;
            if (packet.count * drive->bytes > LAP_BYTES)
                packet.count = (u16)(LAP_BYTES / drive->bytes);
            /* A large enough disk has it. */
            u64 last = packet.lba + packet.count;
            if (packet.lba >= drive->sectors || last > drive->sectors || last < packet.lba)
                packet_call(drive, "outside", fn, packet, REFUSED);
        }
    }

    struct packet many = good;
    many.count = 128;
    if (128 * drive->bytes <= LAP_BYTES)
        packet_call(drive, "128 sectors", 0x42, many, EITHER);
    many.count = 0xffff;
    many.lba = drive->sectors - 1;
    packet_call(drive, "65535 sectors", 0x44, many, REFUSED);
}

/* ---- Buffers ---- */

/* FFFF:FFFF with a packet of 18h bytes says that the address is the flat one. */
static void far_buffers(const struct drive *drive)
{
    static const u8 sizes[] = {PACKET_BYTES, PACKET_FLAT_BYTES};
    const u32 odd = 0x10ffef, flat = 0x180000;
    for (unsigned i = 0; i < sizeof sizes; i++) {
        struct packet packet = {sizes[i], 0, 1, 0xffff, 0xffff, drive->window[1], flat};
        memcpy((void *)PACKET, &packet, sizeof packet);
        call_prepare(0x4200, drive->number);
        call_set_ds_si(PACKET, PACKET_ROOM);
        call_int13(0);
        check("buffer FFFF:FFFF", EITHER);
        const char *where = "refused";
        if (!call_failed()) {
            u32 at = *(u32 *)flat == (u32)drive->window[1] ? flat : odd;
            where = at == flat ? "at the flat address" : "at FFFF:FFFF";
            content_is(drive, drive->window[1], *drive_counter(drive, drive->window[1]), (u8 *)at);
            pattern_restore(at, at + drive->bytes);
        }
        say("%02xh buffer FFFF:FFFF, packet of %02xh bytes: %s", drive->number, sizes[i], where);
        restore_lap();
    }
}

/* Of what is kept from being written together: beside it, the BIOS has what its interrupts change.
 */
static u32 rom_sum(u32 rom)
{
    u32 sum = 0;
    for (u32 at = rom; at < rom + ROM_STEP; at += 4)
        sum = (sum << 1 | sum >> 31) ^ *(volatile u32 *)at;
    return sum;
}

static bool writable(u32 address)
{
    volatile u8 *byte = (volatile u8 *)address;
    u8 was = *byte;
    *byte = (u8)~was;
    bool is = *byte != was;
    *byte = was;
    return is;
}

/* Nothing that is read gets to where a ROM is, in whole or in part; to memory beside, it does. */
static void read_to_rom(const struct drive *drive)
{
    static u8 was[2 * 4096];
    u32 tried = 0, beside = 0;
    for (u32 rom = ROMS; rom < ROM_END; rom += ROM_STEP) {
        struct packet packet = {PACKET_BYTES, 0, 2, 0, (u16)(rom >> 4), drive->window[1], 0};
        if (writable(rom)) {
            /* That which is the BIOS's own, or what nobody has. */
            if (rom < BIOS && beside == 0) {
                u8 *there = (u8 *)rom;
                memcpy(was, there, 2 * drive->bytes);
                packet_call(drive, "beside ROM", 0x42, packet, EITHER);
                if (!call_failed()) {
                    content_is(drive, drive->window[1], *drive_counter(drive, drive->window[1]),
                               there);
                    beside++;
                }
                memcpy(there, was, 2 * drive->bytes);
            }
            continue;
        }
        u32 sum = rom_sum(rom);
        packet_call(drive, "to ROM", 0x42, packet, REFUSED);
        packet.segment--; /* and all but the first 16 bytes */
        if (writable(rom - 16)) {
            memcpy(was, (u8 *)rom - 16, 16);
            packet_call(drive, "to ROM", 0x42, packet, REFUSED);
            if (memcmp((u8 *)rom - 16, was, 16) != 0)
                wrong("what is before the ROM at %x is another, after %s", rom, call_name());
            memcpy((u8 *)rom - 16, was, 16);
        }
        if (rom_sum(rom) != sum) {
            wrong("the ROM at %x is another, after %s", rom, call_name());
            return;
        }
        tried++;
    }
    say("%02xh rom: %u places tried, %u beside", drive->number, tried, beside);
}

/* ---- The old functions ---- */

static void bad_chs(const struct drive *drive)
{
    if (!drive->track)
        return;
    /* The last cylinder was kept back for tests once, so 08h may be silent about it. */
    u32 past = drive->cylinders + 1;
    const struct {
        const char *what;
        u32 ax, cx, dh;
    } cases[] = {
        {"sector 0", 0x0201, 0x0000, 0},
        {"no sectors", 0x0200, 0x0101, 0},
        {"past the last head", 0x0201, 0x0101, drive->heads},
        {"past the last sector", 0x0201, 0x0100 + drive->track + 1, 0},
        {"past the last cylinder", 0x0201, (past & 0xff) << 8 | (past >> 2 & 0xc0) | 1, 0},
        {"verify past the last head", 0x0401, 0x0101, drive->heads},
        {"seek past the last cylinder", 0x0c00, (past & 0xff) << 8 | (past >> 2 & 0xc0) | 1, 0},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (cases[i].dh > 255 || (cases[i].cx & 0x3f) != (cases[i].cx & 0xff & ~0xc0u) ||
            (drive->track == 63 && i == 3) || (past > 1023 && (i == 4 || i == 6)))
            continue; /* cannot be said */
        call_prepare(cases[i].ax, drive->number);
        call_set_es_bx(LAP, 0x1000);
        call.in.ecx = cases[i].cx;
        call.in.edx = cases[i].dh << 8 | drive->number;
        call_int13(0);
        check(cases[i].what, i == 1 || i == 6 ? EITHER : REFUSED);
        restore_lap();
    }
}

static void no_such_drive(void)
{
    static const u8 numbers[] = {0x7f, 0x8f, 0xe0, 0xff};
    static const u8 fns[] = {0x02, 0x04, 0x08, 0x10, 0x15, 0x41, 0x42, 0x44, 0x48};
    for (unsigned n = 0; n < sizeof numbers; n++) {
        for (unsigned f = 0; f < sizeof fns; f++) {
            call_prepare((u32)fns[f] << 8 | 1, numbers[n]);
            call_set_es_bx(LAP, 0x1000);
            call_set_ds_si(PACKET, PACKET_ROOM);
            call.in.ecx = 1;
            call.in.edx = numbers[n];
            *(struct packet *)PACKET = (struct packet){PACKET_BYTES, 0, 1, 0, LAP >> 4, 0, 0};
            if (fns[f] == 0x41)
                call.in.ebx = 0x55aa;
            if (fns[f] == 0x48)
                *(u16 *)PACKET = 0x1a;
            call_int13(GIVES_BX | GIVES_CX | GIVES_DX | GIVES_ES_DI);
            char text[40];
            say_to(text, sizeof text, "no drive %02xh, fn=%02x", numbers[n], fns[f]);
            /* AH=15h may say so in AH; and of drives that are no hard disks 08h says other things.
             */
            bool old = fns[f] == 0x15 || (numbers[n] == 0x7f && fns[f] == 0x08);
            if (old && call_ah() == 0)
                done++;
            else
                check(text, old ? EITHER : REFUSED);
            restore_lap();
        }
    }
}

static void unknown_functions(const struct drive *drive)
{
    static const u8 fns[] = {0x17, 0x18, 0x1c, 0x20, 0x22, 0x40, 0x4f, 0x51, 0x80, 0xaa, 0xff};
    for (unsigned i = 0; i < sizeof fns; i++) {
        call_prepare((u32)fns[i] << 8, drive->number);
        call_set_es_bx(LAP, 0x1000);
        call_set_ds_si(PACKET, PACKET_ROOM);
        call_int13(0);
        check("no such function", BAD_COMMAND);
        restore_lap();
    }
    call_prepare(0x4800, drive->number);
    call_set_ds_si(PACKET, PACKET_ROOM);
    *(u16 *)PACKET = 0x19;
    call_int13(0);
    check("too little room for parameters", BAD_COMMAND);
    restore_lap();
}

/* ---- Anything ---- */

static bool writes(u32 fn)
{
    /* 03h, 05h to 07h, 0Bh, 0Fh and 43h; what 4Ah to 4Eh do to CD-ROM drives is not for us. */
    return fn == 0x03 || (fn >= 0x05 && fn <= 0x07) || fn == 0x0b || fn == 0x0f ||
           (fn >= 0x1a && fn <= 0x1b) || fn == 0x43 || (fn >= 0x4a && fn <= 0x4e);
}

static void anything(void)
{
    static const u8 numbers[] = {0x7f, 0x80, 0x81, 0x82, 0x83, 0x87, 0x88, 0x8f, 0x90, 0xe0, 0xff};
    u32 fn;
    do {
        fn = random_below(4) == 0 ? random_below(256) : random_below(0x4a);
    } while (writes(fn));
    call_prepare(fn << 8 | random_below(256), numbers[random_below(sizeof numbers)]);
    call_set_es_bx(LAP, 0x10);
    call.in.ebx &= 0xffff000f; /* so that what is read does not wrap, */
    call.in.es = LAP >> 4;
    if ((call.in.eax & 0xff) > 250)
        call.in.eax -= 16; /* nor gets past the lap */
    struct packet packet = {
        (u8)random_below(40), (u8)random32(), (u16)random_below(240), 0, LAP >> 4, 0, LAP};
    if (random_below(2))
        packet.size = PACKET_BYTES;
    packet.lba =
        random_below(2) ? random32() >> random_below(32) : (u64)random32() << 32 | random32();
    if (random_below(4) == 0)
        packet.count = 0;
    memcpy((void *)PACKET, &packet, sizeof packet);
    call_set_ds_si(PACKET, PACKET_ROOM);
    unsigned gives = 0;
    if (fn == 0x08 || fn == 0x15 || fn == 0x41)
        gives = GIVES_BX | GIVES_CX | GIVES_DX | GIVES_ES_DI;
    call_int13(gives);
    refused += call_failed();
    done += !call_failed();
    restore_lap();
    memory_check_slice(4096);
}

void bad(u32 calls)
{
    for (unsigned d = 0; d < drive_count; d++) {
        const struct drive *drive = &drives[d];
        bad_chs(drive);
        unknown_functions(drive);
        if (drive->edd) {
            bad_packets(drive);
            if (!gentle)
                far_buffers(drive);
        }
    }
    no_such_drive();
    unsigned before = wrongs;
    for (u32 i = 0; i < calls && wrongs == before; i++)
        anything();
    memory_check();
    say("bad: refused %u, done %u", refused, done);
}

void rom(void)
{
    for (unsigned d = 0; d < drive_count; d++) {
        if (drives[d].edd)
            read_to_rom(&drives[d]);
    }
    memory_check();
}
