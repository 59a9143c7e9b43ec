/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* Random reads, writes and verifications, in whatever mode the BIOS is called. */
#include "tests/real/real.h"

enum {
    CHS_READ = 0x02,
    EDD_READ = 0x42, /* and EDD_READ + 1 writes, + 2 verifies, as with CHS */
    COUNT_MAX = 127,
    BUFFER_MAX = 0xfff0,
    SLICE = 4096,
    WRONG_MAX = 8,
};

static u32 refused;

enum operation { READ, WRITE, VERIFY };

static u32 random_count(const struct drive *drive)
{
    u32 most = BUFFER_MAX / drive->bytes;
    if (most > COUNT_MAX)
        most = COUNT_MAX;
    u32 count = 1 + random_below(1u << random_below(8));
    return count < most ? count : most;
}

static void step(const struct drive *drive, bool may_refuse)
{
    unsigned w = random_below(2) && drive->window_sectors[1];
    u32 count = random_count(drive);
    u64 lba = drive->window[w] + random_below(drive->window_sectors[w] - count + 1);
    enum operation operation = (enum operation)random_below(3);
    bool edd = drive->edd && !(drive_has_chs(drive, lba, count) && random_below(3) == 0);
    if (!edd && !drive_has_chs(drive, lba, count))
        return;
    u32 bytes = count * drive->bytes;
    u32 buffer = random_buffer(bytes);
    u8 *data = (u8 *)buffer;
    struct packet *packet = (void *)random_packet();
    u32 pointer = far_pointer(buffer, bytes);

    pattern_holds(buffer, buffer + bytes, "where a buffer is to be");
    if (operation == WRITE) {
        for (u32 i = 0; i < count; i++) {
            u8 counter = (u8)(*drive_counter(drive, lba + i) + 1);
            content_fill(drive, lba + i, counter, data + i * drive->bytes);
        }
    }
    broken_buffer(buffer + bytes - 1, edd ? (u32)packet + 1 : 0);

    struct packet packed = {PACKET_BYTES,         0,   (u16)count, (u16)pointer,
                            (u16)(pointer >> 16), lba, 0};
    if (edd) {
        /* What AL says of a write: without verification, in two ways. */
        call_prepare((EDD_READ + operation) << 8 | (operation == WRITE ? random_below(2) : 0),
                     drive->number);
        call_set_ds_si((u32)packet, PACKET_BYTES);
        memcpy(packet, &packed, PACKET_BYTES);
    } else {
        call_prepare((CHS_READ + operation) << 8 | count, drive->number);
        drive_chs(drive, lba, &call.in.ecx, &call.in.edx);
        call.in.es = (u16)(pointer >> 16);
        call.in.ebx = (call.in.ebx & 0xffff0000) | (u16)pointer;
    }
    call_int13(0);

    bool failed = call_failed();
    refused += failed;
    if (failed && !may_refuse)
        wrong("refused with ah=%02x, %u sectors at 0x%llx: %s", call_ah(), count, lba, call_name());
    else if (failed && call_ah() == 0)
        wrong("refused with ah=00: %s", call_name());
    else if (!failed && call_ah() != 0)
        wrong("not refused, but ah=%02x: %s", call_ah(), call_name());
    if (!failed && !edd && operation != VERIFY && (call.out.eax & 0xff) != count)
        wrong("%u sectors were had, not %u: %s", call.out.eax & 0xff, count, call_name());

    if (edd) {
        if (failed)
            packed.count = packet->count;
        if (memcmp(packet, &packed, PACKET_BYTES) != 0)
            wrong("the packet is another, after %s", call_name());
        pattern_restore((u32)packet, (u32)packet + PACKET_BYTES);
    }
    for (u32 i = 0; i < count && operation != VERIFY && !(failed && operation == READ); i++) {
        u8 *counter = drive_counter(drive, lba + i);
        u8 now = (u8)(*counter + (operation == WRITE));
        if (!content_is(drive, lba + i, now, data + i * drive->bytes))
            break;
        if (!failed)
            *counter = now;
    }
    /* Where nothing is to be put, nothing is. */
    if (operation == VERIFY)
        pattern_holds(buffer, buffer + bytes, "what was to be verified only");
    pattern_restore(buffer, buffer + bytes);
}

void soak(u32 calls, bool may_refuse)
{
    u32 began = call_count;
    refused = 0;
    unsigned wrong_before = wrongs;
    while (call_count - began < calls && wrongs - wrong_before < WRONG_MAX) {
        step(&drives[random_below(drive_count)], may_refuse);
        if (mode == MODE_BIG)
            big_look();
        memory_check_slice(SLICE);
    }
    if (!a20_is_off)
        memory_check();
    say("soak: %u calls, %u refused", call_count - began, refused);
}
