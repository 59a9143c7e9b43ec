// SPDX-License-Identifier: BSD-2-Clause-Patent
/* INT 13h as IBM's BIOSes had it, and what it does while a disk takes its time. */

#include "bios/memory.h"
#include "tests/unit/bios_harness.h"

/* A buffer where nothing else is. */
#define SEGMENT 0x2000u
#define OFFSET  0x0100u
#define BUFFER  0x20100u

/* The sectors of the usual disk that are kept, for writing, begin with this place and number. */
#define KEPT_CYLINDER 290u
#define KEPT_SECTOR   (290u * 16 * 17)

static unsigned cx(unsigned cylinder, unsigned sector)
{
    return (cylinder & 0xff) << 8 | (cylinder & 0x300) >> 2 | sector;
}

static unsigned dx(unsigned head)
{
    return head << 8 | 0x80;
}

/* A call that moves data to or from BUFFER. */
static void begin_at(unsigned ax, unsigned cylinder, unsigned head, unsigned sector)
{
    begin(ax);
    gives(ecx, cx(cylinder, sector));
    gives(edx, dx(head));
    gives(ebx, OFFSET);
    gives_segment(es, SEGMENT);
}

/* ---- Which functions there are ---- */

static void every_function(void **state)
{
    static const uint8_t need_arguments[] = {0x01, 0x02, 0x03, 0x04, 0x05, 0x08, 0x0c, 0x15,
                                             0x41, 0x42, 0x43, 0x44, 0x45, 0x47, 0x48};
    static const uint8_t do_nothing[] = {0x09, 0x10, 0x11, 0x14, 0x49};
    static const uint8_t registers[] = {0x00, 0x01, 0x55, 0x80, 0xff};

    (void)state;
    for (unsigned ah = 0; ah <= 0xff; ah++) {
        if (memchr(need_arguments, (int)ah, sizeof(need_arguments)))
            continue;
        for (unsigned i = 0; i < LENGTH(registers); i++) {
            begin(ah << 8 | registers[i]);
            gives(ebx, registers[i] * 0x101u);
            gives(ecx, registers[i] * 0x101u);
            gives(edx, registers[i] << 8 | 0x80);
            gives(esi, registers[i] * 0x101u);
            gives_segment(ds, registers[i] * 0x101u);
            gives_segment(es, registers[i] * 0x101u);
            bool resets = ah == 0x00 || ah == 0x0d;
            served(resets || memchr(do_nothing, (int)ah, sizeof(do_nothing)) ? GOOD
                   : ah == 0x46                                              ? NOT_REMOVABLE
                                                                             : BAD_REQUEST);
            assert_asked_times(resets);
            if (resets)
                assert_asked(0, DISK_FLUSH, 0, 0);
        }
    }
    assert_unwritten();
}

static void other_drives_are_passed_on(void **state)
{
    (void)state;
    for (unsigned number = 0; number <= 0xff; number++)
        for (unsigned ah = 0; ah <= 0x50; ah++) {
            begin(ah << 8 | 1);
            gives(edx, number);
            if (number != 0x80)
                passed_on();
        }
    /* Also one that has no number yet, and would be 0. */
    drives[0].number = 0;
    for (unsigned number = 0; number <= 0xff; number++) {
        begin(0x0201);
        gives(edx, number);
        passed_on();
    }
    assert_asked_times(0);
}

static void the_status_can_be_asked_for(void **state)
{
    (void)state;
    for (unsigned status = 0; status <= 0xff; status++) {
        uint8_t byte = (uint8_t)status;
        begin(0x0155);
        pokes(PC_DISK_STATUS, &byte, 1);
        served(byte);
        /* It stays. */
        begin(0x01aa);
        served(byte);
    }
    begin(0x1234);
    served(BAD_REQUEST);
    begin(0x0100);
    served(BAD_REQUEST);
    begin(0x1034);
    served(GOOD);
    begin(0x0100);
    served(GOOD);
}

/* ---- Cylinders, heads and sectors ---- */

static void places(void **state)
{
    static const struct {
        unsigned cylinder, head, sector, count;
        uint32_t block;
    } good[] = {
        {0, 0, 1, 1, 0},       {0, 0, 2, 1, 1},           {0, 0, 17, 1, 16},
        {0, 1, 1, 1, 17},      {0, 15, 17, 1, 271},       {1, 0, 1, 1, 272},
        {255, 3, 5, 1, 69415}, {256, 0, 1, 1, 69632},     {299, 15, 17, 1, 81599},
        {0, 0, 17, 128, 16},   {299, 15, 17, 128, 81599}, {290, 7, 9, 100, 79007},
        {0, 0, 1, 127, 0},
    };
    static const struct {
        unsigned cylinder, head, sector;
    } bad[] = {
        {0, 0, 0},    {0, 0, 18},   {0, 0, 63},    {0, 16, 1},    {0, 255, 1},     {300, 0, 1},
        {1023, 0, 1}, {299, 16, 1}, {299, 15, 18}, {300, 15, 17}, {1023, 255, 63},
    };

    (void)state;
    for (unsigned verify = 0; verify < 2; verify++) {
        for (unsigned i = 0; i < LENGTH(good); i++) {
            unsigned left = good[i].count;
            begin_at((verify ? 0x0400 : 0x0200) | left, good[i].cylinder, good[i].head,
                     good[i].sector);
            if (!verify) {
                wants_sectors(BUFFER, good[i].block, left);
                served(GOOD);
                assert_asked_times(1);
                assert_asked_at(0, DISK_READ, good[i].block, left * PC_SECTOR, BUFFER);
                continue;
            }
            served(GOOD);
            for (unsigned k = 0; k < disk.count; k++) {
                assert_true(left != 0);
                unsigned now_blocks = left < 32 ? left : 32;
                assert_asked(k, DISK_READ, good[i].block + good[i].count - left,
                             now_blocks * PC_SECTOR);
                left -= now_blocks;
            }
            assert_int_equal(left, 0);
        }
        for (unsigned i = 0; i < LENGTH(bad); i++) {
            begin_at(verify ? 0x0401 : 0x0201, bad[i].cylinder, bad[i].head, bad[i].sector);
            returns_al(0);
            served(BAD_REQUEST);
            assert_asked_times(0);
        }
    }
}

static void counts_that_cannot_be(void **state)
{
    static const uint8_t counts[] = {0, 129, 200, 255};

    (void)state;
    for (unsigned ah = 2; ah <= 4; ah++)
        for (unsigned i = 0; i < LENGTH(counts); i++) {
            begin_at(ah << 8 | counts[i], 0, 0, 1);
            returns_al(0);
            served(BAD_REQUEST);
            assert_asked_times(0);
        }
}

/* Ten bits of a cylinder, eight of a head, six of a sector. */
static void the_last_place_that_can_be_said(void **state)
{
    (void)state;
    disk_is(PC_SECTOR, (1ull << 32) + 5);
    begin_at(0x0201, 1023, 254, 63);
    wants_sectors(BUFFER, 16450559, 1);
    served(GOOD);
    assert_asked_at(0, DISK_READ, 16450559, PC_SECTOR, BUFFER);
    begin_at(0x0280, 1023, 254, 63);
    wants_sectors(BUFFER, 16450559, 128);
    served(GOOD);
    begin_at(0x0201, 1023, 255, 63);
    returns_al(0);
    served(BAD_REQUEST);
    assert_asked_times(0);
}

static void large_sectors(void **state)
{
    (void)state;
    disk_is(4096, 1200);
    /* 19 tracks; the place is in the disk's own blocks. */
    begin_at(0x0202, 0, 3, 4);
    wants_sectors(BUFFER, (3 * 63 + 3) * 8, 16);
    served(GOOD);
    assert_asked_at(0, DISK_READ, (3 * 63 + 3) * 8, 8192, BUFFER);
    begin_at(0x0380, 0, 15, 63);
    served(GOOD);
    assert_asked_at(0, DISK_WRITE, (15 * 63 + 62) * 8, 128 * 4096, BUFFER);
    assert_written((15 * 63 + 62) * 8, BUFFER, 1024);
    begin_at(0x0405, 0, 0, 1);
    served(GOOD);
    assert_asked_times(2);
    assert_asked(0, DISK_READ, 0, 4 * 4096);
    assert_asked(1, DISK_READ, 4 * 8, 4096);
}

static void a_disk_of_one_block(void **state)
{
    static const struct geometry one = {1, 1, 1};

    (void)state;
    disk_is(PC_SECTOR, 1);
    /* Less than a cylinder is one. */
    begin_at(0x0201, 0, 0, 1);
    wants_sectors(BUFFER, 0, 1);
    served(GOOD);
    begin(0x08ff);
    returns(ecx, 63);
    returns(edx, 15 << 8 | 1);
    returns_al(0);
    served(GOOD);
    begin(0x15ff);
    returns(ecx, 0);
    returns(edx, 0);
    served_with(GOOD, 3);

    drives[0].physical = one;
    drives_count = 0;
    drives_add(&drives[0]);
    begin_at(0x0201, 0, 0, 1);
    wants_sectors(BUFFER, 0, 1);
    served(GOOD);
    begin_at(0x0301, 0, 0, 1);
    served(GOOD);
    assert_written(0, BUFFER, 1);
    begin_at(0x0202, 0, 0, 1);
    returns_al(0);
    served(BAD_REQUEST);
    begin(0x0801);
    returns(ecx, 1);
    returns(edx, 0 << 8 | 1);
    returns_al(0);
    served(GOOD);
    begin(0x15ff);
    returns(ecx, 0);
    returns(edx, 0);
    served_with(GOOD, 3);
}

static void writing(void **state)
{
    uint8_t data[PC_SECTOR * 3];

    (void)state;
    memset(data, 0x5a, sizeof(data));
    begin_at(0x0303, KEPT_CYLINDER, 0, 1);
    pokes(BUFFER, data, sizeof(data));
    served(GOOD);
    assert_asked_times(2);
    assert_asked_at(0, DISK_WRITE, KEPT_SECTOR, sizeof(data), BUFFER);
    assert_asked(1, DISK_FLUSH, 0, 0);
    assert_written(KEPT_SECTOR, BUFFER, 3);
    begin_at(0x0301, KEPT_CYLINDER, 0, 18);
    returns_al(0);
    served(BAD_REQUEST);
    assert_asked_times(0);
}

static void what_cannot_be_written(void **state)
{
    (void)state;
    disk.disk.info.read_only = true;
    begin_at(0x0303, KEPT_CYLINDER, 0, 1);
    returns_al(0);
    served(WRITE_PROTECTED);
    assert_unwritten();
    begin_at(0x0501, KEPT_CYLINDER, 0, 1);
    served(WRITE_PROTECTED);
    begin_at(0x0201, 0, 0, 1);
    wants_sectors(BUFFER, 0, 1);
    served(GOOD);
    begin_at(0x0400 | 1, 0, 0, 1);
    served(GOOD);
    begin(0x0000);
    served(GOOD);
}

/* No buffer is needed for these, and so there is none that is wrong; nor has an arm a sector. */
static void what_needs_no_buffer(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        begin_at(i == 0 ? 0x0401 : i == 1 ? 0x0c00 : 0x0cff, 299, 15, i == 2 ? 0 : 17);
        gives_segment(es, 0xffff);
        gives(ebx, 0xffff);
        served(GOOD);
        assert_asked_times(i == 0);
    }
    begin_at(0x0c01, 300, 0, 1);
    served(BAD_REQUEST);
    begin_at(0x0c01, 0, 16, 1);
    served(BAD_REQUEST);
    assert_asked_times(0);
}

static void formatting(void **state)
{
    (void)state;
    begin_at(0x0501, 299, 15, 1);
    served(GOOD);
    begin_at(0x0511, 299, 15, 1);
    served(GOOD);
    begin_at(0x0512, 299, 15, 1);
    served(BAD_REQUEST);
    begin_at(0x0500, 299, 15, 1);
    served(BAD_REQUEST);
    begin_at(0x0501, 300, 15, 1);
    served(BAD_REQUEST);
    begin_at(0x0501, 299, 16, 1);
    served(BAD_REQUEST);
    assert_asked_times(0);
    assert_unwritten();
}

static void parameters(void **state)
{
    static const struct {
        uint64_t blocks;
        struct geometry physical;
        unsigned cx, dh;
        uint32_t sectors; /* by 15h */
    } disks[] = {
        /* The last cylinder is not told of: 298, 1022, 1022, 518, 0. */
        {82000, {300, 16, 17}, 0x2a << 8 | 0x40 | 17, 15, 299 * 16 * 17},
        {1032192, {0, 0, 0}, 0xfe << 8 | 0xc0 | 63, 15, 1023 * 16 * 63},
        {(1ull << 32) + 5, {0, 0, 0}, 0xfe << 8 | 0xc0 | 63, 254, 1023 * 255 * 63},
        {4194304, {4161, 16, 63}, 0x06 << 8 | 0x80 | 63, 127, 519 * 128 * 63},
        {8032500, {500, 255, 63}, 0xf2 << 8 | 0x40 | 63, 254, 499 * 255 * 63},
        {72, {2, 4, 9}, 0 << 8 | 9, 3, 36},
        {36, {1, 4, 9}, 0 << 8 | 9, 3, 0},
        /* Six bits of sectors can be told, and the rest is not the cylinder's. */
        {10200, {10, 4, 255}, 8 << 8 | 63, 3, 9 * 4 * 255},
    };

    (void)state;
    for (unsigned i = 0; i < LENGTH(disks); i++) {
        uint8_t count = (uint8_t)(3 + i);
        disk_is(PC_SECTOR, disks[i].blocks);
        drives[0].physical = disks[i].physical;
        drives_count = 0;
        drives_add(&drives[0]);
        begin(0x08ee);
        pokes(PC_DISKS, &count, 1);
        returns_al(0);
        returns(ecx, disks[i].cx);
        returns(edx, disks[i].dh << 8 | count);
        served(GOOD);
        begin(0x15ee);
        returns(ecx, disks[i].sectors >> 16);
        returns(edx, disks[i].sectors);
        served_with(GOOD, 3);
        assert_asked_times(0);
    }
}

/* ---- Buffers ---- */

static void buffers(void **state)
{
    static const struct {
        uint16_t segment, offset;
        bool a20_off;
        uint32_t address; /* UINT32_MAX for none */
        unsigned count;
    } places[] = {
        {0x0000, 0x0600, false, 0x600, 1},
        {0x0000, 0xffff, false, 0xffff, 1},
        {0x1000, 0xfff0, false, 0x1fff0, 128}, /* beyond the segment's end */
        {0x2000, 0x0001, false, 0x20001, 2},
        {0xa000, 0x0000, false, 0xa0000, 128},
        /* Up to where segments reach, and not a byte farther. */
        {0xffff, 0x0010, false, 0x100000, 1},
        {0xffff, 0xfdf0, false, 0x10fde0, 1},
        {0xffff, 0xfe00, false, 0x10fdf0, 1},
        {0xffff, 0xfe01, false, UINT32_MAX, 1},
        {0xffff, 0xfe00, false, UINT32_MAX, 2},
        /* Memory beside ROMs, which a DOS uses, and ROMs. */
        {0xc800 - 64, 0x0000, false, 0xc7c00, 2},
        {0xc800 - 64, 0x0000, false, 0xc7c00, 3},
        {0xc900, 0x0000, false, 0xc9000, 1},
        {0xca00 - 32, 0x0001, false, 0xc9e01, 2},
        {0xca00, 0x0000, false, 0xca000, 128},
        {0xe000, 0xfc00, false, 0xefc00, 2},
        {0xe000, 0xfc01, false, 0xefc01, 2},
        {0xf000, 0x0000, false, 0xf0000, 128},
        {0xf000, 0xffff, false, 0xfffff, 1},
        {0xffff, 0x0000, false, 0xffff0, 128},
        {0xffff, 0x000f, false, 0xfffff, 1},
        {0xffff, 0xffff, false, UINT32_MAX, 1},
        {0xffff, 0xffff, false, UINT32_MAX, 128},
        /* Where the second megabyte is the first, as the caller sees it. */
        {0x0000, 0x0600, true, 0x600, 1},
        {0xffff, 0x0610, true, 0x600, 2},
        {0xffff, 0xffff, true, 0xffef, 1},
        {0xfff0, 0xff00, true, 0xfe00, 1},
        {0xf000, 0xfe00, true, 0xffe00, 1},
        {0xf000, 0xfe01, true, UINT32_MAX, 1},
        {0xf000, 0xfe00, true, UINT32_MAX, 2},
        {0xffff, 0x0000, true, UINT32_MAX, 1},
    };

    (void)state;
    for (unsigned write = 0; write < 2; write++)
        for (unsigned i = 0; i < LENGTH(places); i++) {
            unsigned count = places[i].count;
            begin_at((write ? 0x0300 : 0x0200) | count, KEPT_CYLINDER, 1, 2);
            now.a20_was_off = wanted.a20_was_off = places[i].a20_off;
            gives_segment(es, places[i].segment);
            gives(ebx, places[i].offset);
            bool rom = memory_is_rom(places[i].address, count * PC_SECTOR);
            if (places[i].address == UINT32_MAX || (rom && !write)) {
                returns_al(0);
                served(BAD_ADDRESS);
                assert_asked_times(0);
                continue;
            }
            uint64_t sector = KEPT_SECTOR + 17 + 1;
            if (!write)
                wants_sectors(places[i].address, sector, count);
            served(GOOD);
            assert_asked_times(1 + write);
            assert_asked_at(0, write ? DISK_WRITE : DISK_READ, sector, count * PC_SECTOR,
                            places[i].address);
            if (write)
                assert_written(sector, places[i].address, count);
        }
}

/* ---- What goes wrong ---- */

static void failures(void **state)
{
    (void)state;
    for (unsigned i = 0; i < LENGTH(results_said); i++)
        for (unsigned ah = 2; ah <= 4; ah++) {
            disk.refuses = results_said[i].result;
            begin_at(ah << 8 | 40, KEPT_CYLINDER, 0, 1);
            returns_al(0);
            served(results_said[i].status);
            assert_asked_times(1);
            disk.refuses = RESULT_OK;

            /* Later, or, if it is verified in parts, in the second. */
            disk.fails = results_said[i].result;
            disk.works = ah == 4;
            disk.polls = i % 3;
            begin_at(ah << 8 | 40, KEPT_CYLINDER, 0, 1);
            returns_al(0);
            served(results_said[i].status);
            assert_asked_times(1 + (ah == 4));
            disk.fails = RESULT_OK;
            disk.polls = disk.works = 0;
            begin(0x0100);
            served(results_said[i].status);

            /* No harm is done to what comes then. */
            begin_at(0x0201, 5, 0, 1);
            wants_sectors(BUFFER, 5 * 272, 1);
            served(GOOD);
        }
    assert_unwritten();
}

static void a_reset_brings_up_what_has_failed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < LENGTH(results_said); i++)
        for (unsigned ah = 0; ah <= 0x0d; ah += 0x0d) {
            uint8_t status = results_said[i].status;
            bool restarted = status == FAILED || status == TIMED_OUT || status == NOT_READY;
            disk.fails = results_said[i].result;
            begin_at(0x0201, 0, 0, 1);
            returns_al(0);
            served(status);
            assert_int_equal(disk.restarts, 0);
            disk.fails = RESULT_OK;

            /* Asking does not make it better. */
            begin(0x0100);
            served(status);
            begin(ah << 8);
            served(GOOD);
            assert_int_equal(disk.restarts, restarted);
            assert_asked_times(1);
            assert_asked(0, DISK_FLUSH, 0, 0);
            /* Once. */
            begin(ah << 8);
            served(GOOD);
            assert_int_equal(disk.restarts, 0);
            assert_asked_times(1);
        }
}

static void a_reset_that_fails(void **state)
{
    (void)state;
    for (unsigned i = 0; i < LENGTH(results_said); i++) {
        disk.fails = RESULT_DEVICE_ERROR;
        begin_at(0x0201, 0, 0, 1);
        returns_al(0);
        served(FAILED);
        disk.restart = results_said[i].result;
        begin(0x0000);
        served(results_said[i].status);
        assert_int_equal(disk.restarts, 1);
        assert_asked_times(0);

        /* Restarted, but nothing comes of it: then it is tried again the next time. */
        disk.restart = RESULT_OK;
        begin_at(0x0201, 0, 0, 1);
        returns_al(0);
        served(FAILED);
        begin(0x0000);
        served(FAILED);
        assert_int_equal(disk.restarts, 1);
        assert_asked_times(1);
        disk.fails = RESULT_OK;
        begin(0x0000);
        served(GOOD);
        assert_int_equal(disk.restarts, 1);
    }
}

/* ---- While the disk takes its time ---- */

static void windows_for_those_who_have_interrupts_on(void **state)
{
    (void)state;
    for (unsigned waits = 0; waits < 2; waits++) {
        disk_is(PC_SECTOR, 2000);
        if (waits)
            pc_disk_waits(&disk);
        for (unsigned polls = 0; polls < 6; polls++)
            for (unsigned on = 0; on < 2; on++) {
                disk.polls = polls;
                begin_at(0x0204, 0, 0, 1);
                now.flags = (uint16_t)(on ? now.flags : now.flags & ~FLAG_INTERRUPT);
                wants_sectors(BUFFER, 0, 4);
                served(GOOD);
                assert_int_equal(pc_windows, on ? polls : 0);
                assert_int_equal(disk.waits, waits ? polls : 0);
            }
    }
}

/* Nobody need wait for what is there. */
static void no_window_for_a_disk_that_is_quick(void **state)
{
    (void)state;
    for (unsigned waits = 0; waits < 2; waits++) {
        disk_is(PC_SECTOR, 2000);
        if (waits)
            pc_disk_waits(&disk);
        for (unsigned looks = 0; looks < 16; looks++) {
            disk.polls = 4;
            disk.ready_after = looks;
            begin_at(0x0204, 0, 0, 1);
            wants_sectors(BUFFER, 0, 4);
            served(GOOD);
            assert_int_equal(pc_windows, 0);
            assert_int_equal(disk.waits, 0);
        }
    }
}

static void flushes_and_verifications_wait_too(void **state)
{
    (void)state;
    disk.polls = 3;
    for (unsigned on = 0; on < 2; on++) {
        begin(0x0000);
        now.flags = (uint16_t)(on ? now.flags : now.flags & ~FLAG_INTERRUPT);
        served(GOOD);
        assert_int_equal(pc_windows, on ? 3 : 0);
        begin_at(0x0400 | 65, 0, 0, 1);
        now.flags = (uint16_t)(on ? now.flags : now.flags & ~FLAG_INTERRUPT);
        served(GOOD);
        assert_int_equal(pc_windows, on ? 9 : 0);
    }
}

/* What a handler of another interrupt asks for in the middle. */
static struct pc_disk other;
static unsigned nested;

static void ask_in_the_middle(void)
{
    for (unsigned ah = 0; ah <= 0xff; ah++) {
        for (unsigned number = 0x80; number <= 0x82; number++) {
            struct frame inner = {
                .registers = {.eax = ah << 8 | 1,
                              .ebx = 0x55aa,
                              .ecx = 1,
                              .edx = 0x51510000 | number,
                              .es = 0x3000,
                              .ds = 0x4000},
                .flags = nested & 1 ? FLAG_INTERRUPT : FLAG_INTERRUPT | FLAG_CARRY,
            };
            struct frame want = inner;
            uint8_t status = pc_memory[PC_DISK_STATUS];
            bool ours = number != 0x82;

            if (ours) {
                status = ah == 0x01 ? status : NOT_READY;
                want.registers.eax = (uint32_t)status << 8 | 1;
                want.flags = FLAG_INTERRUPT | (status ? FLAG_CARRY : 0);
            }
            assert_int_equal(pc_int13(&inner), ours);
            assert_memory_equal(&inner, &want, sizeof(inner));
            assert_int_equal(pc_memory[PC_DISK_STATUS], status);
            nested++;
        }
    }
}

static void calls_in_the_middle_of_another(void **state)
{
    (void)state;
    pc_disk(&other, PC_SECTOR, 1000);
    pc_drive(&other, NULL);
    nested = 0;
    pc_in_window = ask_in_the_middle;
    disk.polls = 3;
    begin_at(0x0204, 7, 0, 1);
    wants_sectors(BUFFER, 7 * 272, 4);
    served(GOOD);
    assert_int_equal(nested, 3 * 256 * 3);
    assert_asked_times(1);
    assert_int_equal(other.count, 0);
    assert_int_equal(disk.restarts + other.restarts, 0);
    /* The calls in the middle were refused because of that, and not because the disk has failed. */
    pc_in_window = NULL;
    begin(0x0000);
    served(GOOD);
    assert_int_equal(disk.restarts, 0);
    begin(0x0000);
    gives(edx, 0x81);
    served(GOOD);
    assert_int_equal(other.restarts, 0);
    assert_int_equal(other.count, 1);
}

static void every_drive_is_its_own(void **state)
{
    (void)state;
    pc_disk(&other, PC_SECTOR, 3000);
    pc_drive(&other, NULL);
    begin_at(0x0201, 1, 0, 1);
    gives(edx, 0x0081);
    wants_sectors(BUFFER, 16 * 63, 1);
    served(GOOD);
    assert_asked_times(0);
    assert_int_equal(other.count, 1);
    /* Nor does one's failure concern the other. */
    other.fails = RESULT_TIMEOUT;
    begin_at(0x0201, 1, 0, 1);
    gives(edx, 0x0081);
    returns_al(0);
    served(TIMED_OUT);
    begin(0x0000);
    served(GOOD);
    assert_int_equal(disk.restarts + other.restarts, 0);
    other.fails = RESULT_OK;
    begin(0x0000);
    gives(edx, 0x0081);
    served(GOOD);
    assert_int_equal(other.restarts, 1);
    assert_int_equal(disk.restarts, 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        ON_A_MACHINE(every_function),
        ON_A_MACHINE(other_drives_are_passed_on),
        ON_A_MACHINE(the_status_can_be_asked_for),
        ON_A_MACHINE(places),
        ON_A_MACHINE(counts_that_cannot_be),
        ON_A_MACHINE(the_last_place_that_can_be_said),
        ON_A_MACHINE(large_sectors),
        ON_A_MACHINE(a_disk_of_one_block),
        ON_A_MACHINE(writing),
        ON_A_MACHINE(what_cannot_be_written),
        ON_A_MACHINE(what_needs_no_buffer),
        ON_A_MACHINE(formatting),
        ON_A_MACHINE(parameters),
        ON_A_MACHINE(buffers),
        ON_A_MACHINE(failures),
        ON_A_MACHINE(a_reset_brings_up_what_has_failed),
        ON_A_MACHINE(a_reset_that_fails),
        ON_A_MACHINE(windows_for_those_who_have_interrupts_on),
        ON_A_MACHINE(no_window_for_a_disk_that_is_quick),
        ON_A_MACHINE(flushes_and_verifications_wait_too),
        ON_A_MACHINE(calls_in_the_middle_of_another),
        ON_A_MACHINE(every_drive_is_its_own),
    };
    return cmocka_run_group_tests_name("INT 13h", tests, NULL, NULL);
}
