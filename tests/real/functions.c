/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* Each function once, with arguments as they should be, and what came back, for a reader. */
#include "tests/real/real.h"

enum {
    BUFFER = 0x30000,
    BUFFER_BYTES = 0x10000,
    PACKET = 0x1000,
    PARAMETERS = 0x1100,
    PARAMETERS_BYTES = 0x4a, /* with the device path, EDD 4 */
    PARAMETERS_ROOM = 0x80,
};

/* A call as prepared, and a line about it. */
static void tell(const struct drive *drive, unsigned gives, const char *more)
{
    u32 fn = call.in.eax >> 8 & 0xff;
    call_int13(gives);
    u32 cx = call.out.ecx & 0xffff, dx = call.out.edx & 0xffff, bx = call.out.ebx & 0xffff;
    char text[80] = "", *end = text;
    if (gives & GIVES_BX) {
        say_to(end, 10, " bx=%04x", bx);
        end += 8;
    }
    if (gives & GIVES_CX) {
        say_to(end, 10, " cx=%04x", cx);
        end += 8;
    }
    if (gives & GIVES_DX)
        say_to(end, 10, " dx=%04x", dx);
    say("%02xh fn=%02x cf=%u ah=%02x al=%02x%s%s", drive->number, fn, call_failed(), call_ah(),
        call.out.eax & 0xff, text, more);
}

static void prepare(const struct drive *drive, u32 ax, u64 lba)
{
    call_prepare(ax, drive->number);
    call_set_es_bx(BUFFER, BUFFER_BYTES - 16);
    call.in.ecx = (call.in.ecx & 0xffff0000) | 1;
    call.in.edx &= 0xffff00ff;
    if (drive->track)
        drive_chs(drive, lba, &call.in.ecx, &call.in.edx);
}

static void by_chs(const struct drive *drive)
{
    u64 lba = drive->window[0] + 1;
    u8 *data = (u8 *)BUFFER;
    u8 *counter = drive_counter(drive, lba);

    prepare(drive, 0x0201, lba);
    tell(drive, 0, "");
    if (!call_failed())
        content_is(drive, lba, *counter, data);
    pattern_restore(BUFFER, BUFFER + BUFFER_BYTES);

    content_fill(drive, lba, (u8)(*counter + 1), data);
    prepare(drive, 0x0301, lba);
    tell(drive, 0, "");
    if (!call_failed())
        (*counter)++;
    pattern_restore(BUFFER, BUFFER + BUFFER_BYTES);

    prepare(drive, 0x0401, lba);
    tell(drive, 0, "");

    /* A track of the scratch area; the buffer is a table of sector numbers. */
    u32 track = ((u32)lba + drive->track - 1) / drive->track * drive->track;
    for (u32 i = 0; i < drive->track; i++)
        ((u16 *)BUFFER)[i] = (u16)((i + 1) << 8);
    prepare(drive, 0x0501, track);
    call.in.eax = (call.in.eax & 0xffffff00) | drive->track;
    tell(drive, 0, "");
    pattern_restore(BUFFER, BUFFER + BUFFER_BYTES);
}

/* Formatting may have lost the sectors of the track, so all get new contents. */
static void write_anew(const struct drive *drive)
{
    u8 *data = (u8 *)BUFFER;
    for (u32 i = 0; i < 2 * drive->track; i++) {
        u64 lba = drive->window[0] + i;
        u8 *counter = drive_counter(drive, lba);
        (*counter)++;
        content_fill(drive, lba, *counter, data);
        prepare(drive, 0x0301, lba);
        call_int13(0);
        if (call_failed())
            wrong("%02xh: a write after fn=05 was refused with ah=%02x", drive->number, call_ah());
    }
    pattern_restore(BUFFER, BUFFER + drive->bytes);
}

static void by_packet(const struct drive *drive)
{
    for (u32 fn = 0x42; fn <= 0x47; fn++) {
        u64 lba = drive->window[0] + 2;
        u8 *counter = drive_counter(drive, lba);
        u8 *data = (u8 *)BUFFER;
        struct packet *packet = (void *)PACKET;
        bool has_packet = fn <= 0x44 || fn == 0x47;
        if (fn == 0x43)
            content_fill(drive, lba, (u8)(*counter + 1), data);
        prepare(drive, fn << 8 | (fn == 0x45 ? 2 : 0), lba);
        if (has_packet) {
            call_set_ds_si(PACKET, PACKET_BYTES);
            *packet = (struct packet){PACKET_BYTES, 0, 1, 0, BUFFER >> 4, lba, 0};
        }
        tell(drive, 0, "");
        pattern_restore(PACKET, PACKET + sizeof(struct packet));
        if (fn == 0x42 && !call_failed())
            content_is(drive, lba, *counter, data);
        if (fn == 0x43 && !call_failed())
            (*counter)++;
        pattern_restore(BUFFER, BUFFER + drive->bytes);
    }
}

static void parameters(const struct drive *drive)
{
    static const u16 sizes[] = {0x1a, 0x1e, 0x42, PARAMETERS_BYTES};
    u8 *bytes = (void *)PARAMETERS;
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        prepare(drive, 0x4800, drive->window[0]);
        call_set_ds_si(PARAMETERS, PARAMETERS_ROOM);
        *(u16 *)bytes = sizes[i];
        tell(drive, 0, "");
        u16 size = *(u16 *)bytes;
        if (call_failed()) {
            pattern_restore(PARAMETERS, PARAMETERS + 2);
            continue;
        }
        u64 sectors;
        memcpy(&sectors, bytes + 0x10, sizeof sectors);
        say("%02xh parameters room=%02x size=%02x flags=%04x chs=%u/%u/%u sectors=0x%llx bytes=%u",
            drive->number, sizes[i], size, *(u16 *)(bytes + 2), *(u32 *)(bytes + 4),
            *(u32 *)(bytes + 8), *(u32 *)(bytes + 12), sectors, *(u16 *)(bytes + 0x18));
        if (size > sizes[i])
            wrong("%02xh: fn=48 gave %u bytes where there is room for %u", drive->number, size,
                  sizes[i]);
        if (size >= PARAMETERS_BYTES && *(u16 *)(bytes + 0x1e) == 0xbedd) {
            u8 sum = 0;
            for (u32 k = 0x1e; k < PARAMETERS_BYTES; k++)
                sum = (u8)(sum + bytes[k]);
            char bus[5] = "", kind[9] = "";
            memcpy(bus, bytes + 0x24, 4);
            memcpy(kind, bytes + 0x28, 8);
            u64 where, what;
            memcpy(&where, bytes + 0x30, sizeof where);
            memcpy(&what, bytes + 0x38, sizeof what);
            say("%02xh path bus=\"%s\" kind=\"%s\" where=%llx what=%llx sum=%u", drive->number, bus,
                kind, where, what, sum);
        }
        pattern_restore(PARAMETERS, PARAMETERS + (size > sizes[i] ? size : sizes[i]));
    }
}

void functions(void)
{
    static const struct {
        u8 fn;
        unsigned gives;
    } plain[] = {
        {0x00, 0}, {0x01, 0},
        {0x0c, 0}, {0x0d, 0},
        {0x10, 0}, {0x11, 0},
        {0x14, 0}, {0x15, GIVES_CX | GIVES_DX},
        {0x16, 0}, {0x08, GIVES_BX | GIVES_CX | GIVES_DX | GIVES_ES_DI},
        {0x49, 0},
    };
    for (unsigned d = 0; d < drive_count; d++) {
        const struct drive *drive = &drives[d];
        for (unsigned i = 0; i < sizeof plain / sizeof *plain; i++) {
            prepare(drive, (u32)plain[i].fn << 8, drive->window[0]);
            tell(drive, plain[i].gives, "");
        }
        if (drive->track) {
            by_chs(drive);
            write_anew(drive);
        }
        prepare(drive, 0x4100, drive->window[0]);
        call.in.ebx = 0x55aa;
        tell(drive, GIVES_BX | GIVES_CX, "");
        by_packet(drive);
        parameters(drive);
    }
    memory_check();
}
