/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* The drives that INT 13h has, and what is on them. */
#include "tests/real/real.h"

enum { DRIVES_BYTE = 0x475, FIRST_DRIVE = 0x80, READ_TO = 0x20000, WORDS_MAX = 1024 };

struct drive drives[DRIVES_MAX];
unsigned drive_count;
char orders[512];

static u32 noise[WORDS_MAX];

/* ---- Calls that only have to succeed ---- */

static bool simple(u32 ax, u32 number)
{
    call.in.eax = ax;
    call.in.edx = (call.in.edx & 0xff00) | number;
    call.in.esp = STACK_END;
    call.in.eflags = IF;
    real_call(0x13, false);
    return !(call.out.eflags & CF);
}

bool drive_read(const struct drive *drive, u64 lba, u32 count, u32 to)
{
    struct packet *packet = (void *)LOW_START;
    call.in = (struct regs){.esi = LOW_START};
    if (drive->edd) {
        *packet =
            (struct packet){PACKET_BYTES, 0, (u16)count, (u16)(to & 15), (u16)(to >> 4), lba, 0};
        return simple(0x4200, drive->number);
    }
    drive_chs(drive, lba, &call.in.ecx, &call.in.edx);
    call.in.es = (u16)(to >> 4);
    call.in.ebx = to & 15;
    return simple(0x0200 | count, drive->number);
}

static void find_size(struct drive *drive)
{
    call.in = (struct regs){0};
    if (simple(0x0800, drive->number)) {
        drive->cylinders = (call.out.ecx >> 8 & 0xff) + ((call.out.ecx & 0xc0) << 2) + 1;
        drive->heads = (call.out.edx >> 8 & 0xff) + 1;
        drive->track = call.out.ecx & 0x3f;
    }
    drive->bytes = 512;
    drive->sectors = drive->cylinders * drive->heads * drive->track;
    call.in = (struct regs){.ebx = 0x55aa};
    if (!simple(0x4100, drive->number) || (u16)call.out.ebx != 0xaa55 || !(call.out.ecx & 1))
        return;
    u8 *parameters = (void *)LOW_START;
    *(u16 *)parameters = 0x1a;
    call.in = (struct regs){.esi = LOW_START};
    if (!simple(0x4800, drive->number))
        return;
    drive->edd = true;
    memcpy(&drive->sectors, parameters + 0x10, sizeof drive->sectors);
    drive->bytes = *(u16 *)(parameters + 0x18);
}

/* The number after "real ", and what follows it, which has at most as much room as `orders`. */
static bool read_number(const char *text, u8 *number, const char **rest)
{
    if (memcmp(text, "real ", 5) != 0 || text[5] < '0' || text[5] > '9')
        return false;
    u32 value = 0;
    for (text += 5; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (u32)(*text - '0');
    *number = (u8)value;
    *rest = text;
    return true;
}

bool drives_find(u8 boot)
{
    u8 *counters = (void *)COUNTERS;
    memset(counters, 0, MEMORY_MIN - COUNTERS);
    u32 count = *(volatile u8 *)DRIVES_BYTE;
    say("drives=%u boot=%02xh", count, boot);
    for (u32 i = 0; i < count && drive_count < DRIVES_MAX; i++) {
        struct drive *drive = &drives[drive_count];
        *drive = (struct drive){.number = (u8)(FIRST_DRIVE + i)};
        find_size(drive);
        char *text = (char *)READ_TO;
        const char *rest;
        if (drive->bytes < 512 || drive->bytes > 4096 || !drive_read(drive, 1, 1, READ_TO) ||
            !read_number(text, &drive->disk, &rest)) {
            say("%02xh is none of ours", drive->number);
            continue;
        }
        if (drive->number == boot)
            say_to(orders, sizeof orders, "%s", rest);

        u64 room = drive->sectors - SCRATCH;
        u32 window = WINDOW_BYTES / drive->bytes;
        drive->window[0] = SCRATCH;
        drive->window_sectors[0] = room < window ? (u32)room : window;
        room -= drive->window_sectors[0];
        drive->window_sectors[1] = room < window ? (u32)room : window;
        drive->window[1] = drive->sectors - drive->window_sectors[1];
        for (unsigned w = 0; w < 2; w++) {
            drive->counters[w] = counters;
            counters += drive->window_sectors[w];
        }
        say("%02xh disk=%u edd=%u bytes=%u sectors=0x%llx chs=%u/%u/%u", drive->number, drive->disk,
            drive->edd, drive->bytes, drive->sectors, drive->cylinders, drive->heads, drive->track);
        drive_count++;
    }
    return orders[0];
}

/* ---- Where sectors are ---- */

bool drive_has_chs(const struct drive *drive, u64 lba, u32 count)
{
    return lba + count <= drive->cylinders * drive->heads * drive->track;
}

void drive_chs(const struct drive *drive, u64 lba, u32 *cx, u32 *dx)
{
    u32 track = (u32)lba / drive->track, sector = (u32)lba % drive->track + 1;
    u32 cylinder = track / drive->heads, head = track % drive->heads;
    *cx = (*cx & 0xffff0000) | (cylinder & 0xff) << 8 | (cylinder >> 2 & 0xc0) | sector;
    *dx = (*dx & 0xffff00ff) | head << 8;
}

u8 *drive_counter(const struct drive *drive, u64 lba)
{
    unsigned w = lba >= drive->window[1];
    return drive->counters[w] + (u32)(lba - drive->window[w]);
}

/* ---- What is in them ---- */

void content_start(void)
{
    u32 value = 1;
    for (u32 i = 0; i < WORDS_MAX; i++) {
        value ^= value << 13;
        value ^= value >> 17;
        value ^= value << 5;
        noise[i] = value;
    }
}

static u32 content_key(u32 first, u32 second)
{
    u32 key = (first ^ 0x5bd1e995) * 0x9e3779b1 ^ second * 0x85ebca6b;
    return key ^ key >> 15;
}

void content_fill(const struct drive *drive, u64 lba, u8 counter, u8 *sector)
{
    u32 *words = (u32 *)sector;
    words[0] = (u32)lba;
    words[1] = (u32)drive->disk << 24 | (u32)counter << 16 | (u16)(lba >> 32);
    u32 key = content_key(words[0], words[1]);
    for (u32 i = 2; i < drive->bytes / 4; i++)
        words[i] = key ^ noise[i];
}

bool content_is(const struct drive *drive, u64 lba, u8 counter, const u8 *sector)
{
    const u32 *words = (const u32 *)sector;
    u32 second = (u32)drive->disk << 24 | (u32)counter << 16 | (u16)(lba >> 32);
    u32 key = content_key((u32)lba, second);
    u32 bad = 0;
    for (u32 i = 2; i < drive->bytes / 4; i++)
        bad |= words[i] ^ key ^ noise[i];
    if (!bad && words[0] == (u32)lba && words[1] == second)
        return true;
    wrong("%02xh: sector 0x%llx, written %u times, has %08x %08x in it, after %s", drive->number,
          lba, counter, words[0], words[1], call_name());
    return false;
}
