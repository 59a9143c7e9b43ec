// SPDX-License-Identifier: BSD-2-Clause-Patent
/* A disk on a unit of a SCSI adapter: what a unit may say that it is, transfers, and units that
 * have no time, no medium or no sense. */

#include "tests/unit/blk_harness.h"
#include "tests/unit/scsi_harness.h"

#define INQUIRY           0x12
#define TEST_UNIT_READY   0x00
#define READ_CAPACITY_10  0x25
#define READ_CAPACITY_16  0x9e
#define MODE_SENSE        0x5a
#define READ_10           0x28
#define WRITE_10          0x2a
#define SYNCHRONIZE_CACHE 0x35

#define BE16(value) (uint8_t)((value) >> 8), (uint8_t)(value)
#define BE32(value) BE16((uint32_t)(value) >> 16), BE16((uint32_t)(value))
#define BE64(value) BE32((uint64_t)(value) >> 32), BE32((uint64_t)(value))
/* The bytes of an answer, and how many. */
#define BYTES(...) .used = true, .bytes = {__VA_ARGS__}, .count = sizeof((uint8_t[]){__VA_ARGS__})
#define NO_BYTES   .used = true

/* An adapter, and unit 0 of target 0 on it. */
struct rig {
    struct binding binding;
    struct scsi_adapter adapter;
    struct scsi_disk *unit;
    struct disk *disk;
};

static void plugged(struct rig *rig, const struct vdev_options *options)
{
    vdev_plug(options);
    assert_int_equal(scsi_bind(&rig->binding), RESULT_OK);
    rig->adapter = adapter_of(&rig->binding);
}

static enum result started(struct rig *rig)
{
    enum result result;

    rig->unit = disk_on(&rig->adapter, 0, 0, &result);
    rig->disk = &rig->unit->disk;
    return result;
}

static void running(struct rig *rig, const struct vdev_options *options)
{
    plugged(rig, options);
    assert_int_equal(started(rig), RESULT_OK);
}

static void unplugged(struct rig *rig)
{
    held_free(&rig->binding);
    assert_true(unbind(&rig->binding));
    assert_clean();
    vdev_unplug();
}

/* The byte of the model's disk at which a transfer begins. */
static const unsigned char *at(const struct io *io)
{
    return vscsi_disk() + (io->sector * 512 - vscsi.units[0].window * vscsi.units[0].block_size);
}

static enum result moved(struct rig *rig, enum disk_op op, uint64_t sector, size_t bytes,
                         size_t misalign)
{
    struct io *io = io_new(op, sector, bytes, misalign);

    if (io_submit_to(rig->disk, io) == RESULT_OK)
        io_wait_on(rig->disk, io);
    if (io->result == RESULT_OK)
        assert_memory_equal(io->buffer, at(io), io->bytes);
    return io_free(io);
}

/* ---- Coming up ---- */

static void a_unit_says_what_it_is(void **state)
{
    static const uint32_t blocks[] = {512, 1024, 4096, 65536};
    struct rig rig;
    (void)state;

    for (size_t i = 0; i < LENGTH(blocks); i++) {
        struct vdev_options options = vscsi_usual();
        struct vscsi_unit *unit = &vscsi.units[0];
        unit->block_size = blocks[i];
        unit->physical = 3;
        unit->aligned = 0x3ffe;
        unit->removable = i % 2;
        unit->read_only = i & 2;
        unit->write_through = i % 2;
        running(&rig, &options);
        const struct disk_info *info = &rig.disk->info;
        assert_int_equal(info->block_size, blocks[i]);
        assert_int_equal(info->blocks, vscsi_disk_bytes() / blocks[i]);
        assert_int_equal(info->blocks_per_physical, 8);
        assert_int_equal(info->lowest_aligned_block, 0x3ffe);
        assert_int_equal(info->removable, i % 2);
        assert_int_equal(info->read_only, i >= 2);
        assert_int_equal(info->write_cache, i % 2 == 0);
        assert_int_equal(vscsi_counted()->commands, 5);
        assert_int_equal(vdev_counted()->logs, 0);
        unplugged(&rig);
    }
}

static void old_units_are_not_asked_for_more_than_they_know(void **state)
{
    struct rig rig;
    struct vdev_options options = vscsi_usual();
    (void)state;

    vscsi.units[0].version = 4;
    vscsi.units[0].physical = 3;
    running(&rig, &options);
    assert_int_equal(vscsi_counted()->commands, 4);
    assert_int_equal(rig.disk->info.blocks_per_physical, 1);
    /* Unless there is no other way to learn how large they are. */
    vscsi.units[0].blocks = 1ull << 32;
    assert_int_equal(started(&rig), RESULT_OK);
    assert_int_equal(rig.disk->info.blocks, 1ull << 32);
    assert_int_equal(rig.disk->info.blocks_per_physical, 8);
    unplugged(&rig);
}

static void names_are_for_people(void **state)
{
    static const struct {
        const char *vendor, *product, *name;
    } names[] = {
        {"QEMU", "QEMU HARDDISK", "QEMU QEMU HARDDISK"},
        {"ABCDEFGH", "0123456789abcdef", "ABCDEFGH 0123456789abcdef"},
        {"", "~ thing", "~ thing"},
        {"", "", ""},
        {"A", "", "A"},
        {"A\x1b[2J", "\xff\x80\x7f\x01", "A [2J"},
        {"\x01\x02", " \n x \t y", "x y"},
    };
    (void)state;

    for (size_t i = 0; i < LENGTH(names); i++) {
        struct rig rig;
        struct vdev_options options = vscsi_usual();
        vscsi.units[0].vendor = names[i].vendor;
        vscsi.units[0].product = names[i].product;
        running(&rig, &options);
        assert_string_equal(rig.unit->name, names[i].name);
        unplugged(&rig);
    }
}

/* As SeaBIOS has it. */
static void geometry_is_what_it_would_be_elsewhere(void **state)
{
    static const struct {
        const char *vendor;
        uint64_t blocks;
        uint32_t cylinders;
        uint8_t heads;
        struct geometry geometry;
    } cases[] = {
        {"QEMU", 32768, 32, 16, {32, 16, 64}},
        {"QEMU", 1024 * 16 * 63, 1024, 16, {1024, 16, 63}},
        {"QEMU", 32769, 32, 16, {0, 0, 0}}, /* does not come out even */
        {"QEMU", 32768, 0, 16, {0, 0, 0}},
        {"QEMU", 32768, 32, 0, {0, 0, 0}},
        {"QEMU", UINT32_MAX, 0xffffff, 255, {0, 0, 0}},
        {"QEMU", 1ull << 33, 32, 16, {0, 0, 0}},
        {"QEMUX", 32768, 32, 16, {0, 0, 0}},
        {"ATA", 32768, 32, 16, {0, 0, 0}},
        {NULL, 32768, 32, 16, {0, 0, 0}},
    };
    (void)state;

    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct rig rig;
        struct vdev_options options = vscsi_usual();
        vscsi.units[0].vendor = cases[i].vendor;
        vscsi.units[0].blocks = cases[i].blocks;
        vscsi.units[0].cylinders = cases[i].cylinders;
        vscsi.units[0].heads = cases[i].heads;
        running(&rig, &options);
        assert_memory_equal(&rig.unit->geometry, &cases[i].geometry, sizeof(cases[i].geometry));
        unplugged(&rig);
    }
}

#define CAPACITY_10(last, block)      READ_CAPACITY_10, BYTES(BE32(last), BE32(block))
#define CAPACITY_16(last, block, ...) READ_CAPACITY_16, BYTES(BE64(last), BE32(block), __VA_ARGS__)
#define MANY                                                                                       \
    {                                                                                              \
        .operation = CAPACITY_10(UINT32_MAX, 512)                                                  \
    }

/* C9: each way to answer badly. What cannot be is refused, and said. */
static void nonsense_is_refused(void **state)
{
    static const struct {
        const char *name;
        struct vscsi_words words[2];
        enum result result;
    } cases[] = {
        {"a tape", {{.operation = INQUIRY, BYTES(1, 0, 5, 2, 31)}}, RESULT_UNSUPPORTED},
        {"a CD-ROM", {{.operation = INQUIRY, BYTES(5, 0x80, 5, 2, 31)}}, RESULT_UNSUPPORTED},
        {"not connected", {{.operation = INQUIRY, BYTES(0x20, 0, 5, 2, 31)}}, RESULT_UNSUPPORTED},
        {"nobody", {{.operation = INQUIRY, BYTES(0x7f, 0, 5, 2, 31)}}, RESULT_UNSUPPORTED},
        {"no words", {{.operation = INQUIRY, NO_BYTES}}, RESULT_DEVICE_ERROR},
        {"few words", {{.operation = INQUIRY, BYTES(0, 0, 5, 2)}}, RESULT_DEVICE_ERROR},
        {"no capacity", {{.operation = READ_CAPACITY_10, NO_BYTES}}, RESULT_DEVICE_ERROR},
        {"most of a capacity",
         {{.operation = READ_CAPACITY_10, BYTES(BE32(99), 0, 0, 2)}},
         RESULT_DEVICE_ERROR},
        {"blocks of 0", {{.operation = CAPACITY_16(99, 0, 0, 0, 0, 0)}}, RESULT_UNSUPPORTED},
        {"blocks of 256", {{.operation = CAPACITY_16(99, 256, 0, 0, 0, 0)}}, RESULT_UNSUPPORTED},
        {"blocks of 520", {{.operation = CAPACITY_16(99, 520, 0, 0, 0, 0)}}, RESULT_UNSUPPORTED},
        {"blocks of 513", {{.operation = CAPACITY_16(99, 513, 0, 0, 0, 0)}}, RESULT_UNSUPPORTED},
        {"blocks of 128 KiB",
         {{.operation = CAPACITY_16(99, 131072, 0, 0, 0, 0)}},
         RESULT_UNSUPPORTED},
        {"blocks of 2 GiB",
         {{.operation = CAPACITY_16(99, 0x80000000, 0, 0, 0, 0)}},
         RESULT_UNSUPPORTED},
        {"blocks of anything",
         {{.operation = CAPACITY_16(99, UINT32_MAX, 0, 0, 0, 0)}},
         RESULT_UNSUPPORTED},
        {"a capacity that wraps",
         {MANY, {.operation = CAPACITY_16(UINT64_MAX, 512, 0, 0, 0, 0)}},
         RESULT_DEVICE_ERROR},
        {"a capacity that wraps in bytes",
         {MANY, {.operation = CAPACITY_16(UINT64_MAX >> 9, 512, 0, 0, 0, 0)}},
         RESULT_DEVICE_ERROR},
        {"a capacity that wraps in long blocks",
         {MANY, {.operation = CAPACITY_16(1ull << 52, 4096, 0, 0, 0, 0)}},
         RESULT_DEVICE_ERROR},
        {"the largest",
         {MANY, {.operation = CAPACITY_16((UINT64_MAX >> 9) - 1, 512, 0, 0, 0, 0)}},
         0},
        {"most of a long capacity",
         {MANY, {.operation = CAPACITY_16(99, 512, 0, 0, 0)}},
         RESULT_DEVICE_ERROR},
        {"most of what is not needed",
         {{.operation = CAPACITY_10(99, 512)}, {.operation = CAPACITY_16(99, 512, 0, 0, 0)}},
         0},
        {"two opinions",
         {{.operation = CAPACITY_10(99, 520)}, {.operation = CAPACITY_16(99, 512, 0, 0, 0, 0)}},
         0},
    };
    bool good = true;
    (void)state;

    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct rig rig;
        struct vdev_options options = vscsi_usual();
        memcpy(vscsi.words, cases[i].words, sizeof(cases[i].words));
        plugged(&rig, &options);
        enum result result = started(&rig);
        /* That there is something else than a disk is no news. */
        bool news = result != RESULT_OK &&
                    !(cases[i].words[0].operation == INQUIRY && result == RESULT_UNSUPPORTED);
        if (result != cases[i].result || (vdev_counted()->logs != 0) != news) {
            print_error("%s: result %d, %llu sentences\n", cases[i].name, (int)result,
                        (unsigned long long)vdev_counted()->logs);
            good = false;
        }
        unplugged(&rig);
    }
    assert_true(good);
}

static void modes_are_hints(void **state)
{
    static const struct {
        struct vscsi_words words;
        bool read_only, write_cache, geometry;
    } cases[] = {
        {{NO_BYTES}, false, true, false},
        {{BYTES(0, 6, 0, 0x80, 0, 0, 0)}, false, true, false}, /* not even a header */
        {{BYTES(0, 6, 0, 0x80, 0, 0, 0, 0)}, true, true, false},
        {{BYTES(0, 0, 0, 0, 0, 0, 0, 0)}, false, true, false},
        {{BYTES(0, 9, 0, 0, 0, 0, 0, 0, 8, 1, 0)}, false, false, false},
        {{BYTES(0, 9, 0, 0, 0, 0, 0, 0, 0x88, 1, 4)}, false, true, false},
        /* Behind a block descriptor; and behind one that is not there. */
        {{BYTES(0, 17, 0, 0, 0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 8, 1, 0)}, false, false, false},
        {{BYTES(0, 9, 0, 0, 0, 0, 0xff, 0xff, 8, 1, 0)}, false, true, false},
        /* Lengths beyond what there is, and what there is beyond its length. */
        {{BYTES(0xff, 0xff, 0, 0, 0, 0, 0, 0, 8, 1, 0)}, false, false, false},
        {{BYTES(0, 8, 0, 0, 0, 0, 0, 0, 8, 1, 0)}, false, true, false},
        {{BYTES(0, 9, 0, 0, 0, 0, 0, 0, 8, 2, 0)}, false, true, false},
        {{BYTES(0xff, 0xff, 0, 0, 0, 0, 0, 0, 8, 0xff, 0)}, false, true, false},
        {{BYTES(0, 7, 0, 0, 0, 0, 0, 0, 8)}, false, true, false},
        {{BYTES(0, 8, 0, 0, 0, 0, 0, 0, 8, 0)}, false, true, false},
        /* Pages of no length, and a subpage. */
        {{BYTES(0, 13, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 8, 1, 0)}, false, false, false},
        {{BYTES(0, 9, 0, 0, 0, 0, 0, 0, 0x48, 1, 0)}, false, true, false},
        {{BYTES(0, 12, 0, 0, 0, 0, 0, 0, 4, 4, 0, 0, 32, 16)}, false, true, true},
        {{BYTES(0, 14, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 32, 8, 1, 4)}, false, true, false},
    };
    bool good = true;
    (void)state;

    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct rig rig;
        struct vdev_options options = vscsi_usual();
        vscsi.units[0].vendor = "QEMU";
        vscsi.words[0] = cases[i].words;
        vscsi.words[0].operation = MODE_SENSE;
        running(&rig, &options);
        const struct disk_info *info = &rig.disk->info;
        if (info->read_only != cases[i].read_only || info->write_cache != cases[i].write_cache ||
            (rig.unit->geometry.heads != 0) != cases[i].geometry) {
            print_error("case %zu: read-only %d, cache %d, heads %u\n", i, info->read_only,
                        info->write_cache, rig.unit->geometry.heads);
            good = false;
        }
        unplugged(&rig);
    }
    assert_true(good);
}

/* Command k fails, for every k and in every way. The last two are not needed. */
static void each_question_is_answered_badly_once(void **state)
{
    static const struct {
        struct vscsi_trouble trouble;
        enum result result;
    } ways[] = {
        {{.response = VIRTIO_SCSI_S_FAILURE}, RESULT_DEVICE_ERROR},
        {{.response = VIRTIO_SCSI_S_BAD_TARGET}, RESULT_DEVICE_ERROR},
        {{.status = 0x18}, RESULT_DEVICE_ERROR},
        {{.status = 2, .key = 4, .code = 0x4400}, RESULT_DEVICE_ERROR},
        {{.status = 2, .key = 5, .code = 0x2000}, RESULT_DEVICE_ERROR},
        {{.status = 2, .key = 2, .code = 0x0402}, RESULT_DEVICE_ERROR},
        {{.status = 2, .key = 2, .code = 0x3a01}, RESULT_NO_MEDIA},
        {{.mute = true}, RESULT_TIMEOUT},
    };
    (void)state;

    for (size_t way = 0; way < LENGTH(ways); way++)
        for (uint32_t k = 0; k < 5; k++)
            for (unsigned large = 0; large < 2; large++) {
                struct rig rig;
                struct vdev_options options = vscsi_usual();
                bool needed = large ? k < 4 : k < 3;
                if (large)
                    vscsi.units[0].blocks = 1ull << 32;
                vscsi.trouble = ways[way].trouble;
                vscsi.trouble.operation = VSCSI_ANY;
                vscsi.trouble.after = k;
                vscsi.trouble.times = 1;
                plugged(&rig, &options);
                uint64_t start = vdev_time(), logs = vdev_counted()->logs;
                enum result result = started(&rig);
                assert_int_equal(vscsi_counted()->troubled, 1);
                assert_int_equal(result, needed ? ways[way].result : RESULT_OK);
                assert_true(!needed || vdev_counted()->logs > logs);
                assert_true(vdev_time() - start < (SCSI_DISK_ASK_MS + 1000) * MS);
                assert_int_equal(started(&rig), RESULT_OK);
                unplugged(&rig);
            }
}

/* ---- Units that want to be asked again ---- */

static const struct {
    struct vscsi_trouble trouble;
    uint32_t bound_ms;
    enum result result;
} again[] = {
    {{.status = 2, .key = 6, .code = 0x2900}, SCSI_DISK_RETRY_MS, RESULT_DEVICE_ERROR},
    {{.status = 0x08}, SCSI_DISK_RETRY_MS, RESULT_BUSY},
    {{.status = 0x28}, SCSI_DISK_RETRY_MS, RESULT_BUSY},
    {{.response = VIRTIO_SCSI_S_BUSY}, SCSI_DISK_RETRY_MS, RESULT_BUSY},
    {{.response = VIRTIO_SCSI_S_RESET}, SCSI_DISK_RETRY_MS, RESULT_BUSY},
    {{.status = 2, .key = 2, .code = 0x0401}, SCSI_DISK_START_MS, RESULT_BUSY},
};

static void trouble(size_t way, int operation, uint32_t times)
{
    vscsi.trouble = again[way].trouble;
    vscsi.trouble.operation = operation;
    vscsi.trouble.times = times;
}

static void who_wants_attention_gets_it(void **state)
{
    (void)state;

    for (size_t way = 0; way < LENGTH(again); way++)
        for (unsigned descriptors = 0; descriptors < 2; descriptors++) {
            struct rig rig;
            struct vdev_options options = vscsi_usual();
            vscsi.descriptors = descriptors;
            for (uint32_t k = 0; k < 5; k++) {
                trouble(way, VSCSI_ANY, 3);
                vscsi.trouble.after = k;
                running(&rig, &options);
                assert_int_equal(vscsi_counted()->troubled, 3);
                assert_int_equal(vscsi_counted()->commands, 5 + 3);
                assert_int_equal(vdev_counted()->logs, 0);
                /* And in the middle. */
                trouble(way, VSCSI_ANY, 2);
                assert_int_equal(moved(&rig, (enum disk_op)(k % 2), 8 * k, 4096, 1), RESULT_OK);
                assert_int_equal(vscsi_counted()->troubled, 5);
                unplugged(&rig);
            }
        }
}

/* Twenty seconds, in all. */
static void a_slow_disk_is_waited_for(void **state)
{
    struct rig rig;
    struct vdev_options options = vscsi_usual();
    (void)state;

    trouble(LENGTH(again) - 1, TEST_UNIT_READY, 20000 / SCSI_DISK_AGAIN_MS);
    running(&rig, &options);
    assert_int_equal(vscsi.trouble.times, 0);
    assert_true(vdev_time() >= 20000 * MS);
    unplugged(&rig);
}

/* C6: who wants it for ever does not. */
static void attention_has_an_end(void **state)
{
    static const int questions[] = {INQUIRY, TEST_UNIT_READY, READ_CAPACITY_10, READ_10};
    (void)state;

    for (size_t way = 0; way < LENGTH(again); way++)
        for (size_t i = 0; i < LENGTH(questions); i++) {
            struct rig rig;
            struct vdev_options options = vscsi_usual();
            enum result result;
            plugged(&rig, &options);
            if (questions[i] == READ_10)
                assert_int_equal(started(&rig), RESULT_OK);
            trouble(way, questions[i], UINT32_MAX);
            uint64_t start = vdev_time();
            if (questions[i] == READ_10)
                result = moved(&rig, DISK_READ, 0, 4096, 0);
            else
                result = started(&rig);
            assert_int_equal(result, again[way].result);
            assert_true(vdev_time() - start >= again[way].bound_ms * MS);
            assert_true(vdev_time() - start < (again[way].bound_ms + 1000) * MS);
            /* Not in a hurry, either. */
            assert_true(vscsi_counted()->troubled <= again[way].bound_ms / SCSI_DISK_AGAIN_MS + 1);
            vscsi.trouble.times = 0;
            assert_int_equal(started(&rig), RESULT_OK);
            unplugged(&rig);
        }
}

static int slow_operation;

static enum result slowly(void *context, struct scsi_request *request)
{
    if (request->cdb[0] != slow_operation) {
        slow_operation = request->cdb[0];
        trouble(LENGTH(again) - 1, slow_operation, 25000 / SCSI_DISK_AGAIN_MS);
    }
    return scsi_submit(context, request);
}

/* Each question may take long, but not all of them together: the first takes 25 seconds, and so
 * does the second, and then no more are asked. */
static void a_start_has_an_end(void **state)
{
    struct rig rig;
    struct vdev_options options = vscsi_usual();
    (void)state;

    plugged(&rig, &options);
    slow_operation = -1;
    rig.adapter.submit = slowly;
    uint64_t start = vdev_time();
    assert_int_equal(started(&rig), RESULT_TIMEOUT);
    assert_int_equal(slow_operation, TEST_UNIT_READY);
    assert_true(vdev_time() - start > SCSI_DISK_START_MS * MS);
    assert_true(vdev_time() - start < 2 * SCSI_DISK_START_MS * MS);
    unplugged(&rig);
}

/* ---- Transfers ---- */

static void transfers_move_the_right_bytes(void **state)
{
    static const uint32_t blocks[] = {512, 4096, 65536};
    (void)state;

    for (size_t b = 0; b < LENGTH(blocks); b++)
        for (unsigned limits = 0; limits < 2; limits++) {
            struct rig rig;
            struct vdev_options options = vscsi_usual();
            uint64_t sectors = blocks[b] / 512;
            vscsi.units[0].block_size = blocks[b];
            if (limits)
                vscsi.max_sectors = 128 + 3;
            running(&rig, &options);
            for (unsigned i = 0; i < 8; i++)
                assert_int_equal(
                    moved(&rig, (enum disk_op)(i % 2), 7 * i * sectors, (i + 1) * blocks[b], i),
                    RESULT_OK);
            assert_int_equal(moved(&rig, DISK_READ, 0, vscsi_disk_bytes(), 1), RESULT_OK);
            assert_int_equal(
                moved(&rig, DISK_WRITE, vscsi_disk_bytes() / 512 - sectors, blocks[b], 3),
                RESULT_OK);
            unplugged(&rig);
        }
}

/* The first block that READ (10) cannot name is the 2^32nd; and an adapter cannot cut one that
 * begins before and ends behind it. */
static void large_units_are_reached_to_their_end(void **state)
{
    static const uint32_t blocks[] = {512, 4096};
    (void)state;

    for (size_t b = 0; b < LENGTH(blocks); b++) {
        struct rig rig;
        struct vdev_options options = vscsi_usual();
        uint64_t sectors = blocks[b] / 512;
        vscsi.units[0].block_size = blocks[b];
        vscsi.max_sectors = (uint32_t)(3 * sectors);
        vscsi.units[0].window = (1ull << 32) - 8;
        vscsi.units[0].blocks = (1ull << 32) + 8;
        running(&rig, &options);
        assert_int_equal(rig.disk->info.blocks, (1ull << 32) + 8);
        for (unsigned i = 0; i < 16; i++)
            for (unsigned count = 1; count <= 16 - i; count += 5)
                assert_int_equal(moved(&rig, (enum disk_op)(count % 2),
                                       ((1ull << 32) - 8 + i) * sectors, count * blocks[b], i),
                                 RESULT_OK);
        assert_int_equal(moved(&rig, DISK_READ, ((1ull << 32) + 8) * sectors, blocks[b], 0),
                         RESULT_OUT_OF_RANGE);
        unplugged(&rig);
    }
}

static void what_does_not_fit_is_refused(void **state)
{
    struct rig rig;
    struct vdev_options options = vscsi_usual();
    (void)state;

    vscsi.units[0].block_size = 4096;
    vscsi.units[0].read_only = true;
    running(&rig, &options);
    uint64_t commands = vscsi_counted()->commands;
    assert_int_equal(moved(&rig, DISK_READ, 0, 512, 0), RESULT_OUT_OF_RANGE);
    assert_int_equal(moved(&rig, DISK_READ, 1, 4096, 0), RESULT_OUT_OF_RANGE);
    assert_int_equal(moved(&rig, DISK_READ, 0, 0, 0), RESULT_OUT_OF_RANGE);
    assert_int_equal(moved(&rig, DISK_READ, vscsi_disk_bytes() / 512, 4096, 0),
                     RESULT_OUT_OF_RANGE);
    assert_int_equal(moved(&rig, DISK_READ, vscsi_disk_bytes() / 512 - 8, 8192, 0),
                     RESULT_OUT_OF_RANGE);
    assert_int_equal(moved(&rig, DISK_WRITE, 0, 4096, 0), RESULT_WRITE_PROTECTED);
    assert_int_equal(vscsi_counted()->commands, commands);
    unplugged(&rig);
}

static void many_are_in_flight_in_any_order(void **state)
{
    enum { COUNT = 3 * SCSI_DISK_COMMANDS };
    struct io *io[COUNT];
    struct rig rig;
    struct vdev_options options = vscsi_usual();
    (void)state;

    options.pace = VDEV_SHUFFLED;
    running(&rig, &options);
    trouble(1, VSCSI_ANY, 5);
    vscsi.trouble.after = 7;
    for (unsigned i = 0; i < COUNT; i++) {
        io[i] = io_new(i % 3 ? DISK_READ : DISK_WRITE, 11 * i, 512 * (1 + i % 10), i % 5);
        assert_int_equal(io_submit_to(rig.disk, io[i]), RESULT_OK);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        io_wait_on(rig.disk, io[i]);
        assert_int_equal(io[i]->result, RESULT_OK);
        assert_memory_equal(io[i]->buffer, at(io[i]), io[i]->bytes);
        io_free(io[i]);
    }
    assert_int_equal(vscsi.trouble.times, 0);
    assert_int_equal(vdev_counted()->most_in_flight, SCSI_DISK_COMMANDS);
    unplugged(&rig);
}

/* One is polled, all are finished; and what waits in another goes on when that is polled. */
static void units_share_an_adapter(void **state)
{
    enum { COUNT = SCSI_DISK_COMMANDS + 1 };
    struct io *io[2][COUNT];
    struct rig rig;
    struct vdev_options options = vscsi_usual();
    enum result result;
    (void)state;

    vscsi_add(3, 300);
    running(&rig, &options);
    struct disk *disk[2] = {rig.disk, &disk_on(&rig.adapter, 3, 300, &result)->disk};
    assert_int_equal(result, RESULT_OK);
    vdev_now()->pace = VDEV_BY_HAND;
    for (unsigned i = 0; i < COUNT; i++)
        for (unsigned d = 0; d < 2; d++) {
            io[d][i] = io_new(DISK_READ, 8 * i, 4096, i);
            assert_int_equal(io_submit_to(disk[d], io[d][i]), RESULT_OK);
        }
    assert_false(disk[1]->ops->ready(disk[1]));
    assert_int_equal(vdev_finish(UINT32_MAX), 2 * (COUNT - 1));
    assert_true(disk[1]->ops->ready(disk[1]));
    disk[0]->ops->poll(disk[0]);
    for (unsigned i = 0; i < COUNT; i++)
        for (unsigned d = 0; d < 2; d++)
            assert_int_equal(io[d][i]->done, i < COUNT - 1);
    /* Nothing of the other is in flight, but it has something to do. */
    assert_true(disk[1]->ops->ready(disk[1]));
    disk[1]->ops->poll(disk[1]);
    assert_false(disk[1]->ops->ready(disk[1]));
    assert_int_equal(vdev_finish(UINT32_MAX), 2);
    disk[0]->ops->poll(disk[0]);
    for (unsigned i = 0; i < COUNT; i++)
        for (unsigned d = 0; d < 2; d++)
            assert_int_equal(io_free(io[d][i]), RESULT_OK);
    unplugged(&rig);
}

/* ---- An adapter that keeps what it is given ---- */

static struct keeper {
    struct scsi_adapter adapter; /* behind it */
    bool keeps;
    enum result refuses, at_once;
    struct scsi_request *kept[32];
    unsigned count;
} keeper;

static enum result keep(void *context, struct scsi_request *request)
{
    (void)context;
    if (!keeper.keeps)
        return keeper.adapter.submit(keeper.adapter.context, request);
    if (keeper.refuses)
        return keeper.refuses;
    assert_true(keeper.count < LENGTH(keeper.kept));
    keeper.kept[keeper.count++] = request;
    if (keeper.at_once) {
        request->base.result = keeper.at_once;
        request->base.done(&request->base);
    }
    return RESULT_OK;
}

static void keeping(struct rig *rig, const struct vdev_options *options)
{
    plugged(rig, options);
    keeper = (struct keeper){.adapter = rig->adapter};
    rig->adapter.submit = keep;
    assert_int_equal(started(rig), RESULT_OK);
    keeper.keeps = true;
}

static void give_back(unsigned i)
{
    struct scsi_request *request = keeper.kept[i];

    request->base.result = RESULT_OK;
    request->host = SCSI_HOST_OK;
    request->status = SCSI_GOOD;
    request->transferred = request->base.bytes;
    request->base.done(&request->base);
}

/* A command has 65,535 blocks at most. */
static void what_is_too_long_for_a_command_is_cut(void **state)
{
    static const uint8_t first[10] = {0x28, 0, 0xff, 0xff, 0, 1, 0, 0xff, 0xff};
    static const uint8_t second[16] = {0x88, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3};
    struct rig rig;
    struct vdev_options options = vscsi_usual();
    (void)state;

    vscsi.units[0].blocks = 1ull << 40;
    keeping(&rig, &options);
    struct io *io = io_new(DISK_READ, 0xffff0001, 65538 * 512, 1);
    assert_int_equal(io_submit_to(rig.disk, io), RESULT_OK);
    assert_int_equal(keeper.count, 2);
    assert_int_equal(keeper.kept[0]->cdb_bytes, 10);
    assert_memory_equal(keeper.kept[0]->cdb, first, 10);
    assert_ptr_equal(keeper.kept[0]->base.buffer, io->buffer);
    assert_int_equal(keeper.kept[0]->base.bytes, 65535 * 512);
    assert_int_equal(keeper.kept[1]->cdb_bytes, 16);
    assert_memory_equal(keeper.kept[1]->cdb, second, 16);
    assert_ptr_equal(keeper.kept[1]->base.buffer, io->buffer + 65535 * 512);
    assert_int_equal(keeper.kept[1]->base.bytes, 3 * 512);
    give_back(1);
    assert_int_equal(io->done, 0);
    give_back(0);
    assert_int_equal(io_free(io), RESULT_OK);
    unplugged(&rig);
}

static void refusals_and_answers_at_once_are_ends(void **state)
{
    static const enum result results[] = {RESULT_OUT_OF_RANGE, RESULT_NO_MEMORY,
                                          RESULT_DEVICE_ERROR, RESULT_TIMEOUT};
    struct rig rig;
    struct vdev_options options = vscsi_usual();
    (void)state;

    keeping(&rig, &options);
    for (size_t i = 0; i < LENGTH(results); i++)
        for (unsigned at_once = 0; at_once < 2; at_once++) {
            struct io *io = io_new(DISK_READ, 0, 4096, 0);
            keeper.refuses = at_once ? RESULT_OK : results[i];
            keeper.at_once = at_once ? results[i] : RESULT_OK;
            assert_int_equal(io_submit_to(rig.disk, io), RESULT_OK);
            assert_int_equal(io_free(io), results[i]);
        }
    keeper.keeps = false;
    assert_int_equal(moved(&rig, DISK_READ, 0, 4096, 0), RESULT_OK);
    unplugged(&rig);
}

/* ---- What goes wrong in the middle ---- */

static void errors_have_their_names(void **state)
{
    static const struct {
        uint8_t status, key;
        uint16_t code;
        enum result result;
    } cases[] = {
        {2, 2, 0x3a00, RESULT_NO_MEDIA},        {2, 2, 0x3a02, RESULT_NO_MEDIA},
        {2, 2, 0x0400, RESULT_DEVICE_ERROR},    {2, 3, 0x1100, RESULT_DEVICE_ERROR},
        {2, 4, 0x4400, RESULT_DEVICE_ERROR},    {2, 5, 0x2100, RESULT_OUT_OF_RANGE},
        {2, 5, 0x2000, RESULT_DEVICE_ERROR},    {2, 5, 0x2400, RESULT_DEVICE_ERROR},
        {2, 7, 0x2700, RESULT_WRITE_PROTECTED}, {2, 0, 0, RESULT_DEVICE_ERROR},
        {2, 0xb, 0x4700, RESULT_DEVICE_ERROR},  {0x18, 0, 0, RESULT_DEVICE_ERROR},
        {0x40, 0, 0, RESULT_DEVICE_ERROR},
    };
    struct rig rig;
    struct vdev_options options = vscsi_usual();
    (void)state;

    running(&rig, &options);
    for (size_t i = 0; i < LENGTH(cases); i++)
        for (unsigned descriptors = 0; descriptors < 2; descriptors++)
            for (unsigned op = DISK_READ; op <= DISK_WRITE; op++) {
                vscsi.descriptors = descriptors;
                vscsi.trouble = (struct vscsi_trouble){
                    .operation = VSCSI_ANY,
                    .times = 1,
                    .status = cases[i].status,
                    .key = cases[i].key,
                    .code = cases[i].code,
                };
                assert_int_equal(moved(&rig, (enum disk_op)op, 0, 4096, 0), cases[i].result);
                assert_int_equal(vscsi.trouble.times, 0);
            }
    /* Too little sense data to know: it is an error, and no more. */
    for (unsigned descriptors = 0; descriptors < 2; descriptors++) {
        vscsi.descriptors = descriptors;
        for (vscsi.sense_bytes = 0; vscsi.sense_bytes < (descriptors ? 4 : 14);
             vscsi.sense_bytes++) {
            vscsi.trouble.times = 1;
            vscsi.trouble.status = 2;
            vscsi.trouble.key = 7;
            assert_int_equal(moved(&rig, DISK_WRITE, 0, 4096, 0), RESULT_DEVICE_ERROR);
        }
    }
    unplugged(&rig);
}

static void a_unit_that_hides_its_protection_keeps_it(void **state)
{
    struct rig rig;
    struct vdev_options options = vscsi_usual();
    (void)state;

    vscsi.units[0].read_only = true;
    vscsi.trouble = (struct vscsi_trouble){
        .operation = MODE_SENSE, .times = 1, .status = 2, .key = 5, .code = 0x2000};
    running(&rig, &options);
    assert_false(rig.disk->info.read_only);
    assert_int_equal(moved(&rig, DISK_WRITE, 0, 512, 0), RESULT_WRITE_PROTECTED);
    assert_int_equal(moved(&rig, DISK_READ, 0, 512, 0), RESULT_OK);
    unplugged(&rig);
}

static void a_unit_that_goes_away(void **state)
{
    struct rig rig;
    struct vdev_options options = vscsi_usual();
    (void)state;

    vscsi_add(0, 1);
    running(&rig, &options);
    vscsi.units[0].absent = true;
    assert_int_equal(moved(&rig, DISK_READ, 0, 512, 0), RESULT_DEVICE_ERROR);
    assert_int_equal(started(&rig), RESULT_UNSUPPORTED);
    vscsi.units[0].absent = false;
    assert_int_equal(started(&rig), RESULT_OK);
    /* It has become smaller. */
    vscsi.units[0].blocks = 1ull << 20;
    assert_int_equal(started(&rig), RESULT_OK);
    assert_int_equal(moved(&rig, DISK_READ, 1ull << 19, 512, 0), RESULT_OUT_OF_RANGE);
    unplugged(&rig);
}

static void short_reads_are_errors(void **state)
{
    static const uint32_t short_by[] = {1, 512, 4095};
    struct rig rig;
    struct vdev_options options = vscsi_usual();
    (void)state;

    running(&rig, &options);
    for (size_t i = 0; i < LENGTH(short_by); i++)
        for (unsigned op = DISK_READ; op <= DISK_WRITE; op++) {
            vscsi.short_by = short_by[i];
            assert_int_equal(io_run_on(rig.disk, io_new((enum disk_op)op, 0, 8192, 0)),
                             RESULT_DEVICE_ERROR);
        }
    vscsi.short_by = 0;
    assert_int_equal(moved(&rig, DISK_READ, 0, 8192, 0), RESULT_OK);
    unplugged(&rig);
}

static void time_outs_are_passed_on(void **state)
{
    static const uint32_t timeouts[] = {300, 0};
    struct rig rig;
    struct vdev_options options = vscsi_usual();
    (void)state;

    running(&rig, &options);
    for (size_t i = 0; i < LENGTH(timeouts); i++) {
        uint64_t bound = timeouts[i] ? timeouts[i] : PIECE_TIMEOUT_MS;
        struct io *io = io_new(DISK_READ, 0, 512, 0);
        io->request->base.timeout_ms = timeouts[i];
        vscsi.deaf = true;
        uint64_t start = vdev_time();
        assert_int_equal(io_run_on(rig.disk, io), RESULT_TIMEOUT);
        assert_true(vdev_time() - start >= bound * MS);
        assert_true(vdev_time() - start < (bound + 1000) * MS);
        vscsi.deaf = false;
        assert_int_equal(moved(&rig, DISK_READ, 0, 512, 0), RESULT_OK);
    }
    unplugged(&rig);
}

/* ---- Flushes ---- */

static void a_flush_comes_after_what_is_before_it(void **state)
{
    struct io *io[3];
    struct rig rig;
    struct vdev_options options = vscsi_usual();
    (void)state;

    running(&rig, &options);
    vdev_now()->pace = VDEV_BY_HAND;
    for (unsigned i = 0; i < LENGTH(io); i++) {
        io[i] = io_new(i == 1 ? DISK_FLUSH : DISK_WRITE, 8 * i, i == 1 ? 0 : 512, 0);
        assert_int_equal(io_submit_to(rig.disk, io[i]), RESULT_OK);
    }
    /* The second is held back by the first; and the third, only by a place in the line. */
    for (unsigned i = 0; i < LENGTH(io); i++) {
        assert_int_equal(vscsi_counted()->flushes, i == 2);
        while (!io[i]->done) {
            vdev_finish(1);
            rig.disk->ops->poll(rig.disk);
        }
        assert_int_equal(io_free(io[i]), RESULT_OK);
    }
    unplugged(&rig);
}

static void who_has_no_cache_need_not_flush(void **state)
{
    struct rig rig;
    struct vdev_options options = vscsi_usual();
    (void)state;

    vscsi.units[0].write_through = true;
    running(&rig, &options);
    uint64_t commands = vscsi_counted()->commands;
    assert_int_equal(moved(&rig, DISK_FLUSH, 0, 0, 0), RESULT_OK);
    assert_int_equal(vscsi_counted()->commands, commands);
    unplugged(&rig);

    /* It does not say whether it has one, and does not know the command. */
    options = vscsi_usual();
    vscsi.words[0] = (struct vscsi_words){.operation = MODE_SENSE, NO_BYTES};
    running(&rig, &options);
    vscsi.trouble = (struct vscsi_trouble){
        .operation = SYNCHRONIZE_CACHE, .times = 1, .status = 2, .key = 5, .code = 0x2000};
    assert_int_equal(moved(&rig, DISK_FLUSH, 0, 0, 0), RESULT_OK);
    vscsi.trouble.times = 1;
    vscsi.trouble.code = 0x2400;
    assert_int_equal(moved(&rig, DISK_FLUSH, 0, 0, 0), RESULT_DEVICE_ERROR);
    vscsi.trouble.times = 1;
    vscsi.trouble.key = 3;
    assert_int_equal(moved(&rig, DISK_FLUSH, 0, 0, 0), RESULT_DEVICE_ERROR);
    assert_int_equal(vscsi_counted()->flushes, 0);
    assert_int_equal(moved(&rig, DISK_FLUSH, 0, 0, 0), RESULT_OK);
    assert_int_equal(vscsi_counted()->flushes, 1);
    unplugged(&rig);
}

/* ---- Ends ---- */

/* Reads in flight, writes to be sent again, and a flush and others that wait behind them. */
static void fill(struct rig *rig, struct io **io, unsigned count)
{
    vscsi.deaf = true;
    trouble(1, WRITE_10, UINT32_MAX);
    for (unsigned i = 0; i < count; i++) {
        enum disk_op op = i == count - 1 ? DISK_FLUSH : i % 5 ? DISK_READ : DISK_WRITE;
        io[i] = io_new(op, 8 * i, op == DISK_FLUSH ? 0 : 4096, 0);
        assert_int_equal(io_submit_to(rig->disk, io[i]), RESULT_OK);
    }
    /* Until the adapter has given writes back, and all that is left to do is to wait a little. */
    do {
        rig->disk->ops->poll(rig->disk);
        cpu_relax();
    } while (vscsi_counted()->troubled < 8 || rig->adapter.ready(rig->adapter.context) ||
             !rig->disk->ops->ready(rig->disk));
    assert_false(io[0]->done);
}

static void a_restart_ends_everything(void **state)
{
    struct io *io[SCSI_DISK_COMMANDS + 4];
    struct rig rig;
    struct vdev_options options = vscsi_usual();
    (void)state;

    running(&rig, &options);
    fill(&rig, io, LENGTH(io));
    assert_int_equal(rig.disk->ops->restart(rig.disk, RESULT_ABORTED), RESULT_OK);
    for (unsigned i = 0; i < LENGTH(io); i++)
        assert_int_equal(io_free(io[i]), RESULT_ABORTED);
    assert_false(rig.disk->ops->ready(rig.disk));
    vscsi.deaf = false;
    /* Which the unit does not take without a word. */
    trouble(0, VSCSI_ANY, 1);
    assert_int_equal(moved(&rig, DISK_READ, 0, 4096, 0), RESULT_OK);
    unplugged(&rig);
}

static void the_exit_ends_everything(void **state)
{
    struct io *io[SCSI_DISK_COMMANDS + 4];
    struct rig rig;
    struct vdev_options options = vscsi_usual();
    (void)state;

    running(&rig, &options);
    fill(&rig, io, LENGTH(io));
    assert_true(quiesce(&rig.binding, 100));
    for (unsigned i = 0; i < LENGTH(io); i++) {
        io_wait_on(rig.disk, io[i]);
        assert_int_equal(io_free(io[i]), RESULT_DEVICE_ERROR);
    }
    assert_int_equal(moved(&rig, DISK_READ, 0, 4096, 0), RESULT_DEVICE_ERROR);
    assert_int_not_equal(rig.disk->ops->restart(rig.disk, RESULT_ABORTED), RESULT_OK);
    unplugged(&rig);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, unplug)
    static const struct CMUnitTest tests[] = {
        TEST(a_unit_says_what_it_is),
        TEST(old_units_are_not_asked_for_more_than_they_know),
        TEST(names_are_for_people),
        TEST(geometry_is_what_it_would_be_elsewhere),
        TEST(nonsense_is_refused),
        TEST(modes_are_hints),
        TEST(each_question_is_answered_badly_once),
        TEST(who_wants_attention_gets_it),
        TEST(a_slow_disk_is_waited_for),
        TEST(attention_has_an_end),
        TEST(a_start_has_an_end),
        TEST(transfers_move_the_right_bytes),
        TEST(large_units_are_reached_to_their_end),
        TEST(what_does_not_fit_is_refused),
        TEST(many_are_in_flight_in_any_order),
        TEST(units_share_an_adapter),
        TEST(what_is_too_long_for_a_command_is_cut),
        TEST(refusals_and_answers_at_once_are_ends),
        TEST(errors_have_their_names),
        TEST(a_unit_that_hides_its_protection_keeps_it),
        TEST(a_unit_that_goes_away),
        TEST(short_reads_are_errors),
        TEST(time_outs_are_passed_on),
        TEST(a_flush_comes_after_what_is_before_it),
        TEST(who_has_no_cache_need_not_flush),
        TEST(a_restart_ends_everything),
        TEST(the_exit_ends_everything),
    };
    return cmocka_run_group_tests_name("scsi_disk", tests, NULL, NULL);
}
