// SPDX-License-Identifier: BSD-2-Clause-Patent
/* INT 13h's Enhanced Disk Drive services (T13 1572D): packets, and what a drive says of itself. */

#include "bios/memory.h"
#include "tests/unit/bios_harness.h"

#define PACKET_SHORT 16u
#define PACKET_LONG  24u

/* Where nothing else is: a packet, and a buffer. */
#define PACKET  0x30040u
#define BUFFER  0x20100u
#define SEGMENT 0x2000u
#define OFFSET  0x0100u

#define FIRST_KEPT (USUAL_BLOCKS - 4096u)

/* A call with this packet, of which so much is there as it says, at DS:SI. */
static void begin_there(unsigned ax, const struct pc_packet *packet, uint16_t ds, uint16_t si)
{
    uint32_t at = ((uint32_t)ds << 4) + si;

    begin(ax);
    gives_segment(ds, ds);
    gives(esi, si);
    pokes(at, packet, packet->bytes < sizeof(*packet) ? packet->bytes : sizeof(*packet));
}

static void begin_with(unsigned ax, const struct pc_packet *packet)
{
    begin_there(ax, packet, PACKET >> 4, PACKET & 0xf);
}

/* None of the blocks were moved. */
static void wants_none_moved(void)
{
    static const uint8_t none[2];

    wants(PACKET + 2, none, sizeof(none));
}

static struct pc_packet packet_of(uint64_t block, unsigned blocks)
{
    return (struct pc_packet){.bytes = PACKET_SHORT,
                              .blocks = (uint16_t)blocks,
                              .offset = OFFSET,
                              .segment = SEGMENT,
                              .block = block};
}

static struct pc_packet flat_packet_of(uint64_t block, unsigned blocks, uint64_t buffer)
{
    return (struct pc_packet){.bytes = PACKET_LONG,
                              .blocks = (uint16_t)blocks,
                              .offset = 0xffff,
                              .segment = 0xffff,
                              .block = block,
                              .flat = buffer};
}

/* ---- 41h ---- */

static void extensions(void **state)
{
    static const uint16_t others[] = {0x0000, 0x55ab, 0xaa55, 0x55a9, 0xffff};

    (void)state;
    begin(0x4177);
    gives(ebx, 0x55aa);
    returns(ebx, 0xaa55);
    returns(ecx, 0x0007);
    served_with(GOOD, 0x30);
    for (unsigned i = 0; i < LENGTH(others); i++) {
        begin(0x4177);
        gives(ebx, others[i]);
        served(BAD_REQUEST);
    }
    assert_asked_times(0);
}

/* ---- Packets ---- */

static void reading(void **state)
{
    static const struct {
        uint64_t block;
        unsigned blocks;
    } reads[] = {{0, 1},     {1, 2},     {FIRST_KEPT, 128}, {81599, 1},
                 {81600, 3}, {81999, 1}, {81000, 1000},     {63, 1300}};

    (void)state;
    for (unsigned i = 0; i < LENGTH(reads); i++) {
        struct pc_packet packet = packet_of(reads[i].block, reads[i].blocks);
        begin_with(0x42dd, &packet);
        wants_sectors(BUFFER, reads[i].block, reads[i].blocks);
        /* The packet may lie in the buffer, and is gone then. */
        served(GOOD);
        assert_asked_times(1);
        assert_asked_at(0, DISK_READ, reads[i].block, reads[i].blocks * PC_SECTOR, BUFFER);
    }
}

static void writing(void **state)
{
    (void)state;
    for (unsigned al = 0; al < 2; al++) {
        struct pc_packet packet = packet_of(FIRST_KEPT + 7, 300);
        begin_with(0x4300 | al, &packet);
        memset(pc_memory + BUFFER, (int)(0x11 + al), 300 * PC_SECTOR);
        wants(BUFFER, pc_memory + BUFFER, 300 * PC_SECTOR);
        /* The packet has been in the way. */
        pokes(PACKET, &packet, PACKET_SHORT);
        served(GOOD);
        assert_asked_times(2);
        assert_asked_at(0, DISK_WRITE, FIRST_KEPT + 7, 300 * PC_SECTOR, BUFFER);
        assert_asked(1, DISK_FLUSH, 0, 0);
        assert_written(FIRST_KEPT + 7, BUFFER, 300);
    }
}

static void writing_with_verification(void **state)
{
    struct pc_packet packet = packet_of(FIRST_KEPT + 7, 40);

    (void)state;
    begin_with(0x4302, &packet);
    served(GOOD);
    assert_asked_times(4);
    assert_asked_at(0, DISK_WRITE, FIRST_KEPT + 7, 40 * PC_SECTOR, BUFFER);
    assert_asked(1, DISK_FLUSH, 0, 0);
    assert_asked(2, DISK_READ, FIRST_KEPT + 7, 32 * PC_SECTOR);
    assert_asked(3, DISK_READ, FIRST_KEPT + 39, 8 * PC_SECTOR);
    assert_written(FIRST_KEPT + 7, BUFFER, 40);
    /* Each of these may fail, and then nothing comes after it. */
    disk.fails = RESULT_DEVICE_ERROR;
    for (disk.works = 0; disk.works < 4; disk.works++) {
        begin_with(0x4302, &packet);
        wants_none_moved();
        served(FAILED);
        assert_asked_times(disk.works + 1);
    }
    disk.fails = RESULT_OK;
    for (unsigned al = 3; al <= 0xff; al++) {
        begin_with(0x4300 | al, &packet);
        wants_none_moved();
        served(BAD_REQUEST);
        assert_asked_times(0);
    }
    /* Which is nothing to the others. */
    begin_with(0x4203, &packet);
    wants(BUFFER, disk.kept + 7 * PC_SECTOR, 40 * PC_SECTOR);
    served(GOOD);
}

static void sizes(void **state)
{
    static const struct {
        uint8_t bytes;
        bool read, flat;
    } those[] = {{0, false, false},   {1, false, false},   {0x0f, false, false},
                 {0x10, true, false}, {0x11, true, false}, {0x17, true, false},
                 {0x18, true, true},  {0x19, true, true},  {0x20, true, true},
                 {0x80, true, true},  {0xff, true, true}};

    (void)state;
    for (unsigned i = 0; i < LENGTH(those); i++) {
        struct pc_packet packet = packet_of(5, 2);
        packet.bytes = those[i].bytes;
        packet.flat = 0x111100; /* not asked for */
        begin_with(0x4200, &packet);
        pokes(PACKET, &packet, sizeof(packet));
        if (those[i].read)
            wants_sectors(BUFFER, 5, 2);
        served(those[i].read ? GOOD : BAD_REQUEST);
        assert_asked_times(those[i].read);

        packet.segment = packet.offset = 0xffff;
        begin_with(0x4200, &packet);
        pokes(PACKET, &packet, sizeof(packet));
        if (those[i].flat)
            wants_sectors(0x111100, 5, 2);
        else if (those[i].read)
            wants_none_moved();
        served(those[i].flat ? GOOD : those[i].read ? BAD_ADDRESS : BAD_REQUEST);
        assert_asked_times(those[i].flat);
        /* One of both alone means what it says. */
        packet.segment = 0x1234;
        begin_with(0x4200, &packet);
        pokes(PACKET, &packet, sizeof(packet));
        if (those[i].read)
            wants_sectors(0x12340 + 0xffff, 5, 2);
        served(those[i].read ? GOOD : BAD_REQUEST);
    }
}

static void where_packets_are(void **state)
{
    static const struct {
        uint16_t ds, si;
        bool a20_off, flat;
        uint8_t status;
        uint32_t at;
    } those[] = {
        {0x0000, 0x0500, false, true, GOOD, 0x500},
        {0x1000, 0xfff8, false, true, GOOD, 0x1fff8},
        {0xffff, 0x0010, false, true, GOOD, 0x100000},
        /* The last place that a segment and an offset reach. */
        {0xffff, 0xffe8, false, true, GOOD, 0x10ffd8},
        {0xffff, 0xffe9, false, true, BAD_REQUEST, 0x10ffd9},
        {0xffff, 0xfff0, false, false, GOOD, 0x10ffe0},
        {0xffff, 0xfff0, false, true, BAD_REQUEST, 0x10ffe0},
        {0xffff, 0xfff1, false, false, BAD_REQUEST, 0x10ffe1},
        {0xffff, 0xffff, false, false, BAD_REQUEST, 0x10ffef},
        /* The first megabyte again. */
        {0xffff, 0x0510, true, true, GOOD, 0x500},
        {0xffff, 0xffff, true, true, GOOD, 0xffef},
        {0xf000, 0xffe8, true, true, GOOD, 0xfffe8},
        {0xf000, 0xffe9, true, true, BAD_REQUEST, 0xfffe9},
        {0xf000, 0xfff0, true, false, GOOD, 0xffff0},
        {0xf000, 0xfff1, true, false, BAD_REQUEST, 0xffff1},
        {0xffff, 0x0001, true, false, BAD_REQUEST, 0xffff1},
    };

    (void)state;
    for (unsigned i = 0; i < LENGTH(those); i++) {
        struct pc_packet packet =
            those[i].flat ? flat_packet_of(99, 1, 0x115000) : packet_of(99, 1);
        begin(0x4200);
        now.a20_was_off = wanted.a20_was_off = those[i].a20_off;
        gives_segment(ds, those[i].ds);
        gives(esi, those[i].si);
        pokes(those[i].at, &packet, packet.bytes);
        if (those[i].status == GOOD)
            wants_sectors(those[i].flat ? 0x115000 : BUFFER, 99, 1);
        served(those[i].status);
        assert_asked_times(those[i].status == GOOD);
    }
}

/* For all four functions. */
static void blocks(void **state)
{
    static const struct {
        uint64_t blocks; /* on the disk */
        uint64_t block;
        uint16_t count;
        uint8_t status;
    } those[] = {
        {82000, 81999, 1, GOOD},
        {82000, 81999, 2, BAD_REQUEST},
        {82000, 82000, 1, BAD_REQUEST},
        {82000, 81990, 10, GOOD},
        {82000, 81990, 11, BAD_REQUEST},
        {82000, 81990, 100, BAD_REQUEST},
        {82000, 1ull << 32, 1, BAD_REQUEST},
        {82000, (1ull << 32) + 81999, 1, BAD_REQUEST},
        {82000, UINT64_MAX, 1, BAD_REQUEST},
        {82000, UINT64_MAX, 2, BAD_REQUEST},
        {82000, UINT64_MAX - 9, 15, BAD_REQUEST},
        {82000, 1ull << 63, 1, BAD_REQUEST},
        /* Nothing is done, but not at a place that is not there. */
        {82000, 0, 0, GOOD},
        {82000, 81999, 0, GOOD},
        {82000, 82000, 0, BAD_REQUEST},
        {82000, UINT64_MAX, 0, BAD_REQUEST},
        {1, 0, 1, GOOD},
        {1, 0, 2, BAD_REQUEST},
        {1, 1, 1, BAD_REQUEST},
        {1, 1, 0, BAD_REQUEST},
        {(1ull << 32) + 5, (1ull << 32) + 4, 1, GOOD},
        {(1ull << 32) + 5, (1ull << 32) + 4, 2, BAD_REQUEST},
        {(1ull << 32) + 5, (1ull << 32) - 1, 6, GOOD},
        {(1ull << 32) + 5, (1ull << 32) - 1, 7, BAD_REQUEST},
        {(1ull << 32) + 5, (1ull << 32) + 5, 1, BAD_REQUEST},
        {(1ull << 32) + 5, (1ull << 33) + 1, 1, BAD_REQUEST},
    };

    (void)state;
    for (unsigned large = 0; large < 2; large++)
        for (unsigned i = 0; i < LENGTH(those); i++) {
            unsigned in_block = large ? 8 : 1, count = those[i].count;
            disk_is(in_block * PC_SECTOR, those[i].blocks);
            for (unsigned ah = 0x42; ah <= 0x47; ah += ah == 0x44 ? 3 : 1) {
                struct pc_packet packet = packet_of(those[i].block, count);
                begin_with(ah << 8, &packet);
                if (those[i].status != GOOD)
                    wants_none_moved();
                else if (ah == 0x42)
                    for (unsigned k = 0; k < count * in_block; k++) {
                        uint64_t sector = those[i].block * in_block + k - disk.first;
                        wants(BUFFER + k * PC_SECTOR, disk.kept + sector * PC_SECTOR, PC_SECTOR);
                    }
                served(those[i].status);
                if (those[i].status != GOOD || count == 0 || ah == 0x47)
                    assert_asked_times(0);
                else if (ah == 0x42 || ah == 0x43)
                    assert_asked_at(0, ah == 0x42 ? DISK_READ : DISK_WRITE,
                                    those[i].block * in_block, count * in_block * PC_SECTOR,
                                    BUFFER);
            }
        }
}

/* A block's number that is no sector's number any more. */
static void large_numbers_of_large_sectors(void **state)
{
    (void)state;
    disk_is(4096, 1u << 20);
    for (unsigned ah = 0x42; ah <= 0x44; ah++) {
        struct pc_packet packet = packet_of(1ull << 61, 1);
        begin_with(ah << 8, &packet);
        wants_none_moved();
        served(BAD_REQUEST);
        assert_asked_times(0);
    }
}

/* Real mode's, by packets: no more than what segments reach. */
static void buffers(void **state)
{
    static const struct {
        uint16_t segment, offset, count;
        bool a20_off;
        uint32_t address; /* UINT32_MAX for none */
    } places[] = {
        {0x0000, 0x0600, 1, false, 0x600},           {0x1000, 0xfff0, 300, false, 0x1fff0},
        {0xffff, 0xfe00, 1, false, 0x10fdf0},        {0xffff, 0xfe01, 1, false, UINT32_MAX},
        {0xffff, 0xfffe, 1, false, UINT32_MAX},      {0xfffe, 0xffff, 1, false, UINT32_MAX},
        {0x1000, 0x0000, 0x07ff, false, 0x10000},    {0x1000, 0x0000, 0x0800, false, UINT32_MAX},
        {0x1000, 0x0000, 0x0fff, false, UINT32_MAX}, {0xffff, 0x0610, 2, true, 0x600},
        {0xffff, 0xfffe, 1, true, 0xffee},           {0xc7e0, 0x0000, 1, false, 0xc7e00},
        {0xf000, 0xfe00, 2, true, UINT32_MAX},       {0xffff, 0x0000, 1, true, UINT32_MAX},
    };

    (void)state;
    for (unsigned ah = 0x42; ah <= 0x43; ah++)
        for (unsigned i = 0; i < LENGTH(places); i++) {
            struct pc_packet packet = packet_of(FIRST_KEPT, places[i].count);
            packet.segment = places[i].segment;
            packet.offset = places[i].offset;
            begin_there(ah << 8, &packet, 0, 0x504);
            now.a20_was_off = wanted.a20_was_off = places[i].a20_off;
            bool rom = memory_is_rom(places[i].address, places[i].count * PC_SECTOR);
            bool good = places[i].address != UINT32_MAX && !(rom && ah == 0x42);
            static const uint8_t none[2];
            if (!good)
                wants(0x506, none, sizeof(none));
            else if (ah == 0x42)
                wants(places[i].address, disk.kept, places[i].count * PC_SECTOR);
            served(good ? GOOD : BAD_ADDRESS);
            assert_asked_times(good ? 1 + (ah == 0x43) : 0);
            if (good)
                assert_asked_at(0, ah == 0x42 ? DISK_READ : DISK_WRITE, FIRST_KEPT,
                                places[i].count * PC_SECTOR, places[i].address);
        }
}

static void flat_buffers(void **state)
{
    static const struct {
        uint64_t buffer;
        uint16_t count;
        uint8_t status;
    } those[] = {
        {0, 1, GOOD},
        /* Where ROMs are, which what is read may not go to, and beside them. */
        {PC_ROM_END - 1, 1, GOOD},
        {PC_ROM_END, 16, GOOD},
        {PC_BIOS - 512, 1, GOOD},
        {PC_BIOS - 512, 2, GOOD},
        {PC_BIOS_END - 1, 1, GOOD},
        {PC_BIOS_END, 1, GOOD},
        {0x110000, 16, GOOD},
        {0x11ffff - 511, 1, GOOD},
        /* Memory that the test has not, but a machine may. */
        {0x80000001, 0x1000, GOOD},
        {0xfffffc00, 1, GOOD},
        {0xfffffdff, 1, GOOD},
        /* 4 GiB and more. */
        {0xfffffe01, 1, BAD_ADDRESS},
        {0xffffffff, 1, BAD_ADDRESS},
        {0xffffffff, 0x1000, BAD_ADDRESS},
        {1ull << 32, 1, BAD_ADDRESS},
        {(1ull << 32) + 0x110000, 1, BAD_ADDRESS},
        {(1ull << 63) + 0x110000, 1, BAD_ADDRESS},
        {UINT64_MAX, 1, BAD_ADDRESS},
        {UINT64_MAX - 511, 1, BAD_ADDRESS},
        {UINT64_MAX - 1023, 1, BAD_ADDRESS},
        {UINT64_MAX - 0x100, 0x1000, BAD_ADDRESS},
        /* Baton's own. */
        {PC_OURS - 512, 1, GOOD},
        {PC_OURS - 511, 1, BAD_ADDRESS},
        {PC_OURS - 512, 2, BAD_ADDRESS},
        {PC_OURS, 1, BAD_ADDRESS},
        {PC_OURS + 0x1000, 1, BAD_ADDRESS},
        {PC_OURS_END - 1, 1, BAD_ADDRESS},
        {PC_OURS_END, 1, GOOD},
        {PC_OURS - 0x1000, 100, BAD_ADDRESS},
        {0x80000000 + PC_OURS, 1, GOOD},
        /* What is far below it, and longer than that. */
        {0x500, 0x1000, BAD_ADDRESS},
    };

    (void)state;
    for (unsigned ah = 0x42; ah <= 0x43; ah++)
        for (unsigned i = 0; i < LENGTH(those); i++) {
            struct pc_packet packet =
                flat_packet_of(ah == 0x43 ? FIRST_KEPT : 100, those[i].count, those[i].buffer);
            begin_with(ah << 8, &packet);
            bool rom = memory_is_rom((uint32_t)those[i].buffer, those[i].count * PC_SECTOR);
            uint8_t status = rom && ah == 0x42 ? BAD_ADDRESS : those[i].status;
            bool good = status == GOOD;
            if (!good)
                wants_none_moved();
            else if (ah == 0x42 && those[i].buffer < PC_BYTES) {
                wants_sectors((uint32_t)those[i].buffer, 100, those[i].count);
            }
            served(status);
            assert_asked_times(good ? 1 + (ah == 0x43) : 0);
            if (good)
                assert_asked_at(0, ah == 0x42 ? DISK_READ : DISK_WRITE, packet.block,
                                those[i].count * PC_SECTOR, (uint32_t)those[i].buffer);
        }
}

/* And a caller whose second megabyte is the first has flat ones all the same: they are physical. */
static void flat_buffers_know_no_a20(void **state)
{
    struct pc_packet packet = flat_packet_of(3, 2, 0x110200);

    (void)state;
    begin_with(0x4200, &packet);
    now.a20_was_off = wanted.a20_was_off = 1;
    wants_sectors(0x110200, 3, 2);
    served(GOOD);
}

static void what_needs_no_buffer(void **state)
{
    static const uint64_t nowhere[] = {PC_OURS, UINT64_MAX, 1ull << 32};

    (void)state;
    for (unsigned ah = 0x44; ah <= 0x47; ah += 3) {
        struct pc_packet packet = packet_of(8, 100);
        packet.segment = packet.offset = 0xffff;
        begin_with(ah << 8 | 0xee, &packet);
        served(GOOD);
        assert_asked_times(ah == 0x44 ? 4 : 0);
        for (unsigned i = 0; i < LENGTH(nowhere); i++) {
            packet = flat_packet_of(8, 1, nowhere[i]);
            begin_with(ah << 8 | 0xee, &packet);
            served(GOOD);
            assert_asked_times(ah == 0x44);
        }
    }
    /* As much as one likes. */
    struct pc_packet packet = packet_of(8, 0xffff);
    begin_with(0x4400, &packet);
    served(GOOD);
    assert_asked_times(2048);
    begin_with(0x4700, &packet);
    served(GOOD);
    assert_asked_times(0);
}

static void failures(void **state)
{
    (void)state;
    for (unsigned i = 0; i < LENGTH(results_said); i++)
        for (unsigned ah = 0x42; ah <= 0x44; ah++)
            for (unsigned later = 0; later < 2; later++) {
                struct pc_packet packet = packet_of(FIRST_KEPT, 40);
                disk.refuses = later ? RESULT_OK : results_said[i].result;
                disk.fails = results_said[i].result;
                disk.polls = i % 3;
                begin_with(ah << 8, &packet);
                wants_none_moved();
                served(results_said[i].status);
                assert_asked_times(1);
            }
    assert_unwritten();
}

static void what_cannot_be_written(void **state)
{
    struct pc_packet packet = packet_of(FIRST_KEPT, 4);

    (void)state;
    disk.disk.info.read_only = true;
    for (unsigned al = 0; al <= 2; al++) {
        begin_with(0x4300 | al, &packet);
        wants_none_moved();
        served(WRITE_PROTECTED);
        assert_asked_times(1);
    }
    assert_unwritten();
    begin_with(0x4400, &packet);
    served(GOOD);
}

static void windows(void **state)
{
    struct pc_packet packet = packet_of(FIRST_KEPT, 40);

    (void)state;
    pc_disk_waits(&disk);
    disk.polls = 2;
    for (unsigned on = 0; on < 2; on++) {
        begin_with(0x4302, &packet);
        now.flags = (uint16_t)(on ? now.flags : now.flags & ~FLAG_INTERRUPT);
        served(GOOD);
        assert_asked_times(4);
        assert_int_equal(pc_windows, on ? 8 : 0);
        assert_int_equal(disk.waits, 8);
    }
}

/* ---- 45h, 46h, 49h ---- */

static void nothing_can_be_removed(void **state)
{
    (void)state;
    for (unsigned al = 0; al <= 0xff; al++) {
        begin(0x4500 | al);
        returns_al(0);
        served(GOOD);
        begin(0x4600 | al);
        served(NOT_REMOVABLE);
        begin(0x4900 | al);
        served(GOOD);
    }
    assert_asked_times(0);
}

/* ---- 48h ---- */

#define ROOM_AT 0x40050u

static const uint8_t path_t13[44] = {
    0xdd, 0xbe, 44, 0, 0, 0, 'P', 'C', 'I',  ' ',  'S',  'C',  'S',  'I',  ' ',  ' ',  ' ',  ' ',
    3,    31,   7,  0, 0, 0, 0,   0,   0x34, 0x12, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
};

static void path(struct drive *drive)
{
    drive->path = (struct drive_path){.where = {.bus = 3, .device = 31, .function = 7},
                                      .target = 0x1234,
                                      .lun = 0x1122334455667788};
}

static uint8_t sum(const uint8_t *from, unsigned bytes)
{
    uint8_t sum = 0;

    while (bytes--)
        sum = (uint8_t)(sum + *from++);
    return sum;
}

/* What is told, but for its checksum, to whom has room for so much. */
static unsigned parameters_of(uint16_t room, uint8_t told[74])
{
    static const uint8_t first[26] = {0, 0, 2, 0,    0x2c, 1, 0, 0, 16, 0, 0, 0,    17,
                                      0, 0, 0, 0x50, 0x40, 1, 0, 0, 0,  0, 0, 0x00, 0x02};
    unsigned bytes = room >= 74 ? 74 : room >= 66 ? 66 : room >= 30 ? 30 : 26;

    memcpy(told, first, sizeof(first));
    told[0] = (uint8_t)bytes;
    memset(told + 26, 0xff, 4);
    memcpy(told + 30, path_t13, sizeof(path_t13));
    if (bytes == 66) {
        /* Eight bytes for the path: less of the unit's number. */
        told[32] = 36;
        told[64] = told[65] = 0;
    }
    if (bytes > 30)
        told[bytes - 1] = (uint8_t)-sum(told + 30, bytes - 31);
    return bytes;
}

static void drive_parameters(void **state)
{
    static const uint16_t rooms[] = {0,    1,    0x19, 0x1a, 0x1b, 0x1d,  0x1e,   0x1f,  0x41,
                                     0x42, 0x43, 0x49, 0x4a, 0x4b, 0x100, 0x8000, 0xffff};

    (void)state;
    path(&drives[0]);
    for (unsigned i = 0; i < LENGTH(rooms); i++) {
        uint8_t told[74];

        begin(0x48cc);
        gives_segment(ds, ROOM_AT >> 4);
        gives(esi, ROOM_AT & 0xf);
        pokes(ROOM_AT, &rooms[i], 2);
        if (rooms[i] < 26) {
            served(BAD_REQUEST);
            continue;
        }
        unsigned bytes = parameters_of(rooms[i], told);
        wants(ROOM_AT, told, bytes);
        served(GOOD);
        if (bytes > 30)
            assert_int_equal(sum(pc_memory + ROOM_AT + 30, bytes - 30), 0);
    }
    assert_asked_times(0);
}

static void where_parameters_go(void **state)
{
    static const struct {
        uint16_t ds, si, room;
        bool a20_off, good;
        uint32_t at;
    } those[] = {
        {0x0000, 0x0500, 74, false, true, 0x500},     {0x1000, 0xfff0, 74, false, true, 0x1fff0},
        {0xffff, 0xffb6, 74, false, true, 0x10ffa6},  {0xffff, 0xffb7, 74, false, false, 0x10ffa7},
        {0xffff, 0xffe6, 26, false, true, 0x10ffd6},  {0xffff, 0xffe6, 30, false, false, 0x10ffd6},
        {0xffff, 0xffe7, 26, false, false, 0x10ffd7}, {0xffff, 0xfffe, 26, false, false, 0x10ffee},
        {0xffff, 0x0510, 74, true, true, 0x500},      {0xf000, 0xffb6, 74, true, true, 0xfffb6},
        {0xf000, 0xffb7, 74, true, false, 0xfffb7},   {0xffff, 0x0000, 26, true, false, 0xffff0},
    };

    (void)state;
    path(&drives[0]);
    for (unsigned i = 0; i < LENGTH(those); i++) {
        uint8_t told[74];

        begin(0x4800);
        now.a20_was_off = wanted.a20_was_off = those[i].a20_off;
        gives_segment(ds, those[i].ds);
        gives(esi, those[i].si);
        pokes(those[i].at, &those[i].room, 2);
        if (those[i].good)
            wants(those[i].at, told, parameters_of(those[i].room, told));
        served(those[i].good ? GOOD : BAD_REQUEST);
    }
    /* The very last byte: not even the room can be told. */
    begin(0x4800);
    gives_segment(ds, 0xffff);
    gives(esi, 0xffff);
    served(BAD_REQUEST);
}

static void geometries_that_are_told(void **state)
{
    static const struct {
        uint32_t block_size;
        uint64_t blocks;
        struct geometry physical;
        uint16_t flags;
        uint32_t cylinders;
    } those[] = {
        {512, 1, {1, 1, 1}, 2, 1},
        {512, 16514064, {16383, 16, 63}, 2, 16383},
        {512, 16514065, {16383, 16, 63}, 0, 16383},
        {512, 0x3fffull * 255 * 63, {20000, 255, 63}, 2, 20000},
        {512, 0x3fffull * 255 * 63 + 1, {20000, 255, 63}, 0, 16383},
        {512, (1ull << 32) + 5, {1024, 255, 63}, 0, 16383},
        {4096, 1000, {0, 0, 0}, 0, 16383},
        {4096, (1ull << 32) + 5, {0, 0, 0}, 0, 16383},
        {512, 0xffffffffffffull, {65535, 255, 255}, 0, 16383},
    };
    const uint16_t room = 30;

    (void)state;
    for (unsigned i = 0; i < LENGTH(those); i++) {
        struct __attribute__((packed)) {
            uint16_t bytes, flags;
            uint32_t cylinders, heads, sectors;
            uint64_t blocks;
            uint16_t block_size;
            uint32_t configuration;
        } told = {.bytes = room,
                  .flags = those[i].flags,
                  .cylinders = those[i].cylinders,
                  .heads = those[i].physical.heads,
                  .sectors = those[i].physical.sectors,
                  .blocks = those[i].blocks,
                  .block_size = (uint16_t)those[i].block_size,
                  .configuration = UINT32_MAX};

        disk_is(those[i].block_size, those[i].blocks);
        drives[0].physical = those[i].physical;
        begin(0x4800);
        gives_segment(ds, ROOM_AT >> 4);
        gives(esi, ROOM_AT & 0xf);
        pokes(ROOM_AT, &room, 2);
        wants(ROOM_AT, &told, sizeof(told));
        served(GOOD);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        ON_A_MACHINE(extensions),
        ON_A_MACHINE(reading),
        ON_A_MACHINE(writing),
        ON_A_MACHINE(writing_with_verification),
        ON_A_MACHINE(sizes),
        ON_A_MACHINE(where_packets_are),
        ON_A_MACHINE(blocks),
        ON_A_MACHINE(large_numbers_of_large_sectors),
        ON_A_MACHINE(buffers),
        ON_A_MACHINE(flat_buffers),
        ON_A_MACHINE(flat_buffers_know_no_a20),
        ON_A_MACHINE(what_needs_no_buffer),
        ON_A_MACHINE(failures),
        ON_A_MACHINE(what_cannot_be_written),
        ON_A_MACHINE(windows),
        ON_A_MACHINE(nothing_can_be_removed),
        ON_A_MACHINE(drive_parameters),
        ON_A_MACHINE(where_parameters_go),
        ON_A_MACHINE(geometries_that_are_told),
    };
    return cmocka_run_group_tests_name("EDD", tests, NULL, NULL);
}
