// SPDX-License-Identifier: BSD-2-Clause-Patent
/* The table of drives, and how disks are cut into cylinders, heads and sectors. */

#include "tests/unit/bios_harness.h"

/*
 * SeaBIOS's rules (src/block.c, get_translation() and setup_translation()), worked out by hand.
 *
 * Without a geometry, or with one that is larger than the disk: 63 sectors. T = size / 63 tracks;
 * as many heads of 16, 32, 64, 128 or 255 as T / 1024, rounded down, takes; T / heads cylinders,
 * but 1024 at most. What is larger than 1024 * 255 * 63 is taken for that.
 *
 * With one of at most 131072 tracks: cylinders are halved and heads are doubled until there are
 * 1024 cylinders at most, or more than 127 heads.
 */
static const struct {
    uint64_t blocks;
    struct geometry physical, logical;
} translations[] = {
    /* By the size alone: T is 0, 1, 15, 16, 31, 32; */
    {1, {0, 0, 0}, {1, 16, 63}},
    {62, {0, 0, 0}, {1, 16, 63}},
    {63, {0, 0, 0}, {1, 16, 63}},
    {1007, {0, 0, 0}, {1, 16, 63}},
    {1008, {0, 0, 0}, {1, 16, 63}},
    {2015, {0, 0, 0}, {1, 16, 63}},
    {2016, {0, 0, 0}, {2, 16, 63}},
    /* 16383, 16384, and up to 17407, which are 1087 cylinders that are not all counted; */
    {1032191, {0, 0, 0}, {1023, 16, 63}},
    {1032192, {0, 0, 0}, {1024, 16, 63}},
    {1096703, {0, 0, 0}, {1024, 16, 63}},
    /* from 17408 on 32 heads, */
    {1096704, {0, 0, 0}, {544, 32, 63}},
    {2097152, {0, 0, 0}, {1024, 32, 63}},
    {2128895, {0, 0, 0}, {1024, 32, 63}},
    /* from 33792 on 64, */
    {2128896, {0, 0, 0}, {528, 64, 63}},
    {4193279, {0, 0, 0}, {1024, 64, 63}},
    /* from 66560 on 128, */
    {4193280, {0, 0, 0}, {520, 128, 63}},
    {4194304, {0, 0, 0}, {520, 128, 63}},
    {8322047, {0, 0, 0}, {1024, 128, 63}},
    /* from 132096 on 255; */
    {8322048, {0, 0, 0}, {518, 255, 63}},
    {16450559, {0, 0, 0}, {1023, 255, 63}},
    {16450560, {0, 0, 0}, {1024, 255, 63}},
    {16450561, {0, 0, 0}, {1024, 255, 63}},
    {20971520, {0, 0, 0}, {1024, 255, 63}},
    {1ull << 32, {0, 0, 0}, {1024, 255, 63}},
    {(1ull << 32) + 5, {0, 0, 0}, {1024, 255, 63}},
    {(1ull << 32) + 1008, {0, 0, 0}, {1024, 255, 63}},
    {UINT64_MAX, {0, 0, 0}, {1024, 255, 63}},
    /* and also if the geometry lacks one of the three, */
    {1032192, {0, 16, 63}, {1024, 16, 63}},
    {1032192, {512, 0, 63}, {1024, 16, 63}},
    {1032192, {512, 16, 0}, {1024, 16, 63}},
    /* is larger than the disk, if only by a sector, */
    {1032191, {1024, 16, 63}, {1023, 16, 63}},
    {2879, {80, 2, 18}, {2, 16, 63}},
    {1ull << 32, {65535, 255, 255}, {1024, 255, 63}},
    /* or has more tracks: 8193 * 16, 515 * 255, 16383 * 16. */
    {4194816, {8193, 16, 32}, {520, 128, 63}},
    {8273475, {515, 255, 63}, {1024, 128, 63}},
    {20971520, {16383, 16, 63}, {1024, 255, 63}},

    /* By the geometry, as it is, */
    {1, {1, 1, 1}, {1, 1, 1}},
    {2880, {80, 2, 18}, {80, 2, 18}},
    {82000, {300, 16, 17}, {300, 16, 17}},
    {1032192, {1024, 16, 63}, {1024, 16, 63}},
    {9000000, {1024, 16, 63}, {1024, 16, 63}},
    {8032500, {500, 255, 63}, {500, 255, 63}},
    {10200, {10, 4, 255}, {10, 4, 255}},
    /* or with fewer cylinders: 1025 / 2, 2080 / 4, 4161 / 8, 8192 / 8, */
    {1033200, {1025, 16, 63}, {512, 32, 63}},
    {2097152, {2080, 16, 63}, {520, 64, 63}},
    {4194304, {4161, 16, 63}, {520, 128, 63}},
    {4194304, {8192, 16, 32}, {1024, 128, 32}},
    /* 1032 / 2, 1310 / 2, 65535 / 64 twice. */
    {8257032, {1032, 127, 63}, {516, 254, 63}},
    {8253000, {1310, 100, 63}, {655, 200, 63}},
    {8257410, {65535, 2, 63}, {1023, 128, 63}},
    {1114095, {65535, 1, 17}, {1023, 64, 17}},
};

static struct geometry translated(uint64_t blocks, const struct geometry *physical)
{
    struct disk is = {.info = {.block_size = PC_SECTOR, .blocks = blocks}};

    drives_count = 0;
    struct drive *drive = drives_next();
    assert_ptr_equal(drive, &drives[0]);
    drive->disk = &is;
    drive->physical = *physical;
    drives_add(drive);
    assert_int_equal(drives_count, 1);
    drives_count = 0;
    return drive->logical;
}

static void translations_are_seabioss(void **state)
{
    unsigned wrong = 0;

    (void)state;
    for (unsigned i = 0; i < LENGTH(translations); i++) {
        const struct geometry *from = &translations[i].physical, *want = &translations[i].logical;
        struct geometry is = translated(translations[i].blocks, from);
        if (memcmp(&is, want, sizeof(is)) == 0)
            continue;
        print_error("%llu blocks, %u/%u/%u: %u/%u/%u instead of %u/%u/%u\n",
                    (unsigned long long)translations[i].blocks, from->cylinders, from->heads,
                    from->sectors, is.cylinders, is.heads, is.sectors, want->cylinders, want->heads,
                    want->sectors);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* Whatever a disk is and says: what a call can say, and no more than there is. */
static void no_translation_is_beyond_the_disk(void **state)
{
    uint32_t random = 0x2545f491;

    (void)state;
    for (unsigned i = 0; i < 200000; i++) {
        random = random * 1664525u + 1013904223u;
        uint64_t blocks = ((uint64_t)random << 7 ^ random) >> (random >> 8) % 38;
        random = random * 1664525u + 1013904223u;
        struct geometry physical = {.cylinders = (random >> 16) >> (random & 15),
                                    .heads = random >> 8 & 0xff,
                                    .sectors = random >> 20 & (random & 16 ? 0xff : 0x3f)};
        struct geometry is = translated(blocks + 1, &physical);
        assert_true(is.cylinders <= 1024 && is.heads != 0 && is.heads <= 255 && is.sectors != 0);
        assert_true((uint64_t)is.cylinders * is.heads * is.sectors <= blocks + 1 ||
                    is.cylinders == 1);
    }
}

static void there_are_no_more_than_there_is_room_for(void **state)
{
    struct disk is = {.info = {.block_size = PC_SECTOR, .blocks = 5}};

    (void)state;
    drives_count = 0;
    memset(drives, 0xcc, sizeof(drives));
    for (unsigned i = 0; i < DRIVES_MAX; i++) {
        struct drive *drive = drives_next();
        static const struct drive nothing;
        assert_ptr_equal(drive, &drives[i]);
        assert_memory_equal(drive, &nothing, sizeof(nothing));
        /* It does not count before it is added. */
        assert_ptr_equal(drives_next(), drive);
        drive->disk = &is;
        drives_add(drive);
        assert_int_equal(drives_count, i + 1);
    }
    assert_null(drives_next());
    drives_count = 0;
}

static void drives_are_found_by_their_numbers(void **state)
{
    static struct pc_disk disks[3];
    struct drive *of[3];

    (void)state;
    pc_on();
    for (unsigned i = 0; i < LENGTH(disks); i++) {
        pc_disk(&disks[i], PC_SECTOR, 10);
        of[i] = pc_drive(&disks[i], NULL);
    }
    of[1]->number = 0; /* nobody has asked for it yet */
    of[2]->number = 0x8f;
    for (unsigned number = 0; number <= 0xff; number++)
        assert_ptr_equal(drives_find((uint8_t)number), number == 0x80   ? of[0]
                                                       : number == 0x8f ? of[2]
                                                                        : NULL);
    pc_off();
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(translations_are_seabioss),
        cmocka_unit_test(no_translation_is_beyond_the_disk),
        cmocka_unit_test(there_are_no_more_than_there_is_room_for),
        cmocka_unit_test(drives_are_found_by_their_numbers),
    };
    return cmocka_run_group_tests_name("drives", tests, NULL, NULL);
}
