// SPDX-License-Identifier: BSD-2-Clause-Patent
/* The disk as its users see it: every byte right, whatever the device is like. */

#include "tests/unit/blk_harness.h"

#define KIB          1024u
#define SIXTY_FOUR_K 65536u

struct flavour {
    const char *name;
    enum vdev_transport transport;
    bool io_bar;
    uint16_t queue_size;
    uint64_t features;
    uint32_t block_size, size_max, seg_max;
    uint64_t sectors;
};

#define INDIRECT   feature(VIRTIO_RING_F_INDIRECT_DESC)
#define FLUSH      feature(VIRTIO_BLK_F_FLUSH)
#define BLK_SIZE   feature(VIRTIO_BLK_F_BLK_SIZE)
#define SEG_MAX    feature(VIRTIO_BLK_F_SEG_MAX)
#define SIZE_MAX_F feature(VIRTIO_BLK_F_SIZE_MAX)
#define ANY_LAYOUT feature(VIRTIO_F_ANY_LAYOUT)

static struct flavour flavours[] = {
    {"modern", VDEV_MODERN, false, 128, 0, 512, 0, 0, 4096},
    {"modern, I/O BAR", VDEV_MODERN, true, 128, 0, 512, 0, 0, 4096},
    {"modern, direct", VDEV_MODERN, false, 256, 1, 512, 0, 0, 4096},
    {"modern, 1024 entries", VDEV_MODERN, false, 1024, 0, 4096, 0, 0, 4096},
    {"modern, 32768 entries", VDEV_MODERN, false, 32768, 1, 512, 0, 0, 4096},
    {"modern, 4 entries", VDEV_MODERN, false, 4, 1, 512, 0, 0, 4096},
    {"modern, 4 entries, indirect", VDEV_MODERN, false, 4, 0, 512, 0, 0, 4096},
    {"modern, 2 entries", VDEV_MODERN, false, 2, 1, 512, 0, 0, 4096},
    {"modern, 2 entries, indirect", VDEV_MODERN, false, 2, 0, 512, 0, 0, 4096},
    {"modern, 2 entries, large blocks", VDEV_MODERN, false, 2, 0, 8192, 0, 0, 4096},
    {"modern, small segments", VDEV_MODERN, false, 128, 2, 512, 4096, 126, 4096},
    {"modern, tiny segments", VDEV_MODERN, false, 64, 2, 512, 32, 126, 4096},
    {"modern, odd segments, direct", VDEV_MODERN, false, 64, 3, 4096, 1500, 7, 4096},
    {"modern, one segment", VDEV_MODERN, false, 64, 2, 512, 1024, 1, 4096},
    {"modern, all platform features", VDEV_MODERN, false, 64, 4, 512, 0, 0, 4096},
    {"transitional", VDEV_TRANSITIONAL, false, 128, 0, 512, 0, 0, 4096},
    {"legacy", VDEV_LEGACY, false, 128, 0, 512, 0, 0, 4096},
    {"legacy, direct", VDEV_LEGACY, false, 256, 1, 4096, 0, 0, 4096},
    {"legacy, 3 entries", VDEV_LEGACY, false, 3, 1, 512, 0, 0, 4096},
    {"legacy, 3 entries, indirect", VDEV_LEGACY, false, 3, 0, 512, 0, 0, 4096},
    {"legacy, 5 entries, small segments", VDEV_LEGACY, false, 5, 3, 512, 1024, 126, 4096},
    {"legacy, 2 entries, any layout", VDEV_LEGACY, false, 2, 5, 512, 0, 0, 4096},
    {"legacy, 1024 entries", VDEV_LEGACY, false, 1024, 0, 512, 0, 0, 4096},
    {"legacy, 4096 entries", VDEV_LEGACY, false, 4096, 1, 512, 0, 0, 4096},
};

static struct vdev_options options_of(const struct flavour *flavour)
{
    struct vdev_options options = vblk_usual();

    options.transport = flavour->transport;
    options.io_bar = flavour->io_bar;
    options.queue_size = flavour->queue_size;
    vblk.block_size = flavour->block_size;
    vblk.size_max = flavour->size_max;
    vblk.seg_max = flavour->seg_max ? flavour->seg_max : 126;
    vblk.capacity = flavour->sectors;
    options.features |= INDIRECT | FLUSH | BLK_SIZE;
    if (flavour->features & 1)
        options.features &= ~INDIRECT;
    if (flavour->features & 2)
        options.features |= SIZE_MAX_F | SEG_MAX;
    if (flavour->features & 4)
        options.features |= ANY_LAYOUT | feature(VIRTIO_F_ACCESS_PLATFORM) |
                            feature(VIRTIO_F_ORDER_PLATFORM) | feature(VIRTIO_F_SR_IOV);
    return options;
}

/* What a failure is about. */
static const char *scene;

/* Random reads, writes and flushes, many at a time, never two that overlap unless both read. */
static void hammer(struct binding *binding, unsigned rounds, size_t most_bytes)
{
    size_t disk_bytes = vblk_disk_bytes();
    size_t block = disk_of(binding)->info.block_size;
    unsigned char *reference = malloc(disk_bytes);
    enum { MANY = 40 };
    struct io *io[MANY] = {0};

    assert_non_null(reference);
    memcpy(reference, vblk_disk(), disk_bytes);
    for (unsigned round = 0; round < rounds; round++) {
        unsigned which = test_chance(MANY);
        if (io[which]) {
            io_wait(binding, io[which]);
            assert_int_equal(io[which]->result, RESULT_OK);
            uint64_t place = io[which]->sector * 512;
            if (io[which]->op == DISK_READ &&
                memcmp(io[which]->buffer, reference + place, io[which]->bytes) != 0)
                print_error("with %s: %zu bytes from %llu\n", scene, io[which]->bytes,
                            (unsigned long long)place);
            if (io[which]->op == DISK_READ)
                assert_memory_equal(io[which]->buffer, reference + place, io[which]->bytes);
            else if (io[which]->op == DISK_WRITE)
                assert_memory_equal(vblk_disk() + place, reference + place, io[which]->bytes);
            io_free(io[which]);
            io[which] = NULL;
        }
        enum disk_op op = test_chance(20) == 0 ? DISK_FLUSH
                          : test_chance(2)     ? DISK_WRITE
                                               : DISK_READ;
        size_t bytes = (test_chance((uint32_t)(most_bytes / block)) + 1) * block;
        size_t place = test_chance((uint32_t)((disk_bytes - bytes) / block) + 1) * block;
        bool clash = false;
        for (unsigned i = 0; i < MANY; i++)
            clash |= io[i] && !io[i]->done && io[i]->op != DISK_FLUSH && op != DISK_FLUSH &&
                     io[i]->sector * 512 < place + bytes &&
                     place < io[i]->sector * 512 + io[i]->bytes;
        /* Those that are done and not looked at yet would be compared with later contents. */
        for (unsigned i = 0; i < MANY && op == DISK_WRITE; i++)
            clash |= io[i] && io[i]->op != DISK_FLUSH && io[i]->sector * 512 < place + bytes &&
                     place < io[i]->sector * 512 + io[i]->bytes;
        if (clash)
            continue;
        io[which] = op == DISK_FLUSH ? io_new(op, 0, 0, 0)
                                     : io_new(op, place / 512, bytes, test_chance(70));
        if (op == DISK_WRITE)
            memcpy(reference + place, io[which]->buffer, bytes);
        assert_int_equal(io_submit(binding, io[which]), RESULT_OK);
        if (test_chance(3) == 0)
            disk_poll(binding);
        if (test_chance(3) == 0)
            cpu_relax();
    }
    for (unsigned i = 0; i < MANY; i++)
        if (io[i]) {
            io_wait(binding, io[i]);
            assert_int_equal(io_free(io[i]), RESULT_OK);
        }
    assert_int_equal(io_run(binding, DISK_FLUSH, 0, 0, 0), RESULT_OK);
    assert_memory_equal(vblk_disk(), reference, disk_bytes);
    if (disk_of(binding)->info.write_cache)
        assert_memory_equal(vblk_stable(), reference, disk_bytes);
    free(reference);
}

static void every_byte_right_on_every_device(void **state)
{
    static const enum vdev_pace paces[] = {VDEV_AT_ONCE, VDEV_IN_ORDER, VDEV_ONE_BY_ONE,
                                           VDEV_SHUFFLED};
    (void)state;
    for (unsigned i = 0; i < LENGTH(flavours); i++) {
        for (unsigned pace = 0; pace < LENGTH(paces); pace++) {
            struct vdev_options options = options_of(&flavours[i]);
            struct binding binding;

            options.pace = paces[pace];
            options.notices = (enum vdev_notices)((i + pace) % 3);
            options.seed = i * 7 + pace + 1;
            options.reset_reads = pace;
            if (pace % 2 == 0)
                options.features &= ~feature(VIRTIO_RING_F_EVENT_IDX);
            if (pace == 3)
                options.map_most = flavours[i].block_size * 2 + 100;
            vdev_plug(&options);
            if (blk_bind(&binding) != RESULT_OK)
                fail_msg("%s: %s", flavours[i].name, vdev_last_log());
            assert_int_equal(vdev_uses_legacy(), flavours[i].transport == VDEV_LEGACY);
            assert_int_equal(disk_of(&binding)->info.block_size, flavours[i].block_size);
            scene = flavours[i].name;
            hammer(&binding, 120, 100 * KIB);
            assert_int_equal(vdev_counted()->maps, vdev_counted()->unmaps);
            assert_true(unbind(&binding));
            if (model_violations() != 0)
                print_error("with %s, pace %u\n", flavours[i].name, pace);
            assert_clean();
            vdev_unplug();
        }
    }
}

static void any_alignment_of_the_buffer(void **state)
{
    static const uint16_t sizes[] = {128, 2};
    (void)state;
    for (unsigned i = 0; i < LENGTH(sizes); i++) {
        struct vdev_options options = vblk_usual();
        struct binding binding;

        options.queue_size = sizes[i];
        vdev_plug(&options);
        assert_int_equal(blk_bind(&binding), RESULT_OK);
        for (size_t misalign = 0; misalign < 130; misalign++) {
            struct io *write = io_new(DISK_WRITE, misalign, 1024, misalign);
            struct io *read = io_new(DISK_READ, misalign, 1024, misalign + 3);
            assert_int_equal(io_submit(&binding, write), RESULT_OK);
            io_wait(&binding, write);
            assert_int_equal(io_submit(&binding, read), RESULT_OK);
            io_wait(&binding, read);
            assert_memory_equal(read->buffer, write->buffer, 1024);
            assert_int_equal(io_free(write), RESULT_OK);
            assert_int_equal(io_free(read), RESULT_OK);
        }
        assert_true(unbind(&binding));
        assert_clean();
        vdev_unplug();
    }
}

/* Across the point where the 16-bit indices wrap, for queues of every kind of size. */
static void ring_indices_wrap_at_65536(void **state)
{
    static const struct {
        enum vdev_transport transport;
        uint16_t size;
        bool indirect;
    } rings[] = {
        {VDEV_MODERN, 2, false},   {VDEV_MODERN, 4, true},    {VDEV_MODERN, 128, true},
        {VDEV_MODERN, 256, false}, {VDEV_MODERN, 1024, true}, {VDEV_LEGACY, 3, false},
        {VDEV_LEGACY, 3, true},    {VDEV_LEGACY, 7, false},   {VDEV_LEGACY, 128, true},
    };
    (void)state;
    for (unsigned i = 0; i < LENGTH(rings); i++) {
        struct vdev_options options = vblk_usual();
        struct binding binding;

        options.transport = rings[i].transport;
        options.queue_size = rings[i].size;
        vblk.capacity = 256;
        if (i % 3 == 0)
            options.features &= ~feature(VIRTIO_RING_F_EVENT_IDX);
        options.pace = i % 2 ? VDEV_SHUFFLED : VDEV_AT_ONCE;
        if (!rings[i].indirect)
            options.features &= ~INDIRECT;
        vdev_plug(&options);
        assert_int_equal(blk_bind(&binding), RESULT_OK);
        /* One byte of each answer is looked at, all of every 97th. */
        unsigned char buffers[8][512];
        struct io *io[8];
        for (unsigned count = 0; count < SIXTY_FOUR_K + 300;) {
            unsigned batch = test_chance(8) + 1;
            for (unsigned k = 0; k < batch; k++) {
                io[k] = io_new(DISK_READ, (count + k) % 256, 512, 0);
                assert_int_equal(io_submit(&binding, io[k]), RESULT_OK);
            }
            for (unsigned k = 0; k < batch; k++) {
                uint64_t place = (uint64_t)((count + k) % 256) * 512;
                io_wait(&binding, io[k]);
                memcpy(buffers[k], io[k]->buffer, 512);
                assert_int_equal(io_free(io[k]), RESULT_OK);
                if (memcmp(buffers[k], vblk_disk() + place, 512) != 0)
                    fail_msg("wrong data at request %u, queue of %u", count + k, rings[i].size);
            }
            count += batch;
        }
        assert_true(vdev_counted()->requests > SIXTY_FOUR_K);
        assert_true(unbind(&binding));
        assert_clean();
        vdev_unplug();
    }
}

static void requests_larger_than_the_limits(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    (void)state;

    vblk.capacity = 32768;
    options.pace = VDEV_SHUFFLED;
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    assert_reads_right(&binding, 0, 16u << 20);
    assert_int_equal(io_run(&binding, DISK_WRITE, 3, (9u << 20) + 512, 1), RESULT_OK);
    assert_reads_right(&binding, 0, 16u << 20);
    assert_true(unbind(&binding));
    assert_clean();
}

static void many_in_flight_at_once(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    struct io *io[200];
    (void)state;

    options.pace = VDEV_BY_HAND;
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    for (unsigned i = 0; i < LENGTH(io); i++) {
        io[i] = io_new(DISK_READ, i, 512, i % 5);
        assert_int_equal(io_submit(&binding, io[i]), RESULT_OK);
    }
    /* Once to see it; the device takes the queue as it is notified. */
    vdev_finish(1);
    assert_true(vdev_counted()->most_in_flight >= 32);
    assert_true(disk_of(&binding)->ops->ready(disk_of(&binding)));
    vdev_now()->pace = VDEV_SHUFFLED;
    for (unsigned i = 0; i < LENGTH(io); i++) {
        io_wait(&binding, io[i]);
        assert_memory_equal(io[i]->buffer, vblk_disk() + i * 512, 512);
        assert_int_equal(io_free(io[i]), RESULT_OK);
    }
    assert_false(disk_of(&binding)->ops->ready(disk_of(&binding)));
    assert_true(unbind(&binding));
    assert_clean();
}

/* What a flush promises is what was done before it was asked for, also where nobody waited. */
static void flush_covers_all_before_it(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    (void)state;

    options.pace = VDEV_SHUFFLED;
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    for (unsigned round = 0; round < 50; round++) {
        struct io *write[6], *later, *flush;
        options.seed++;
        for (unsigned i = 0; i < LENGTH(write); i++) {
            write[i] = io_new(DISK_WRITE, 100 * i + round, 4096, 1);
            assert_int_equal(io_submit(&binding, write[i]), RESULT_OK);
        }
        flush = io_new(DISK_FLUSH, 0, 0, 0);
        assert_int_equal(io_submit(&binding, flush), RESULT_OK);
        later = io_new(DISK_WRITE, 2000 + round, 512, 0);
        assert_int_equal(io_submit(&binding, later), RESULT_OK);
        io_wait(&binding, flush);
        for (unsigned i = 0; i < LENGTH(write); i++) {
            assert_int_equal(write[i]->done, 1);
            assert_true(write[i]->done_at <= flush->done_at);
            assert_memory_equal(vblk_stable() + (100 * i + round) * 512, write[i]->buffer, 4096);
            assert_int_equal(io_free(write[i]), RESULT_OK);
        }
        io_wait(&binding, later);
        assert_int_equal(io_free(later), RESULT_OK);
        assert_int_equal(io_free(flush), RESULT_OK);
    }
    assert_int_equal(vblk_flushes(), 50);
    assert_true(unbind(&binding));
    assert_clean();
}

static void flush_without_a_cache_is_done_at_once(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    (void)state;

    options.features &= ~FLUSH;
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    assert_false(disk_of(&binding)->info.write_cache);
    struct io *flush = io_new(DISK_FLUSH, 0, 0, 0);
    assert_int_equal(io_submit(&binding, flush), RESULT_OK);
    assert_int_equal(flush->done, 1);
    assert_int_equal(io_free(flush), RESULT_OK);
    assert_int_equal(vdev_counted()->requests, 0);
    assert_true(unbind(&binding));
    assert_clean();
}

/* Requests start in the order in which they came, even where a large one has to wait for room. */
static void pending_requests_keep_their_order(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    struct io *io[30];
    (void)state;

    options.queue_size = 4;
    options.features &= ~INDIRECT;
    options.pace = VDEV_ONE_BY_ONE;
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    for (unsigned i = 0; i < LENGTH(io); i++) {
        io[i] =
            i % 7 == 3 ? io_new(DISK_FLUSH, 0, 0, 0) : io_new(DISK_WRITE, i, 512 * (1 + i % 3), 0);
        assert_int_equal(io_submit(&binding, io[i]), RESULT_OK);
    }
    io_wait(&binding, io[LENGTH(io) - 1]);
    for (unsigned i = 0; i < LENGTH(io); i++) {
        assert_int_equal(io[i]->done, 1);
        if (i != 0)
            assert_true(io[i - 1]->done_at <= io[i]->done_at);
    }
    for (unsigned i = 0; i < LENGTH(io); i++)
        assert_int_equal(io_free(io[i]), RESULT_OK);
    assert_true(unbind(&binding));
    assert_clean();
}

static void one_notification_for_a_batch(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    (void)state;

    options.features |= SIZE_MAX_F;
    vblk.size_max = 4096;
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    assert_reads_right(&binding, 0, 1u << 20);
    assert_int_equal(vdev_counted()->requests, 16);
    assert_int_equal(vdev_counted()->notifications, 1);
    assert_true(unbind(&binding));
    assert_clean();
}

static void a_polling_device_is_not_notified(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    (void)state;

    for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
        options.notices = VDEV_WANTS_NONE;
        vdev_plug(&options);
        assert_int_equal(blk_bind(&binding), RESULT_OK);
        for (unsigned i = 0; i < 100; i++)
            assert_reads_right(&binding, i, 512);
        assert_int_equal(vdev_counted()->notifications, 0);
        assert_true(unbind(&binding));
        assert_clean();
        vdev_unplug();
        options.features &= ~feature(VIRTIO_RING_F_EVENT_IDX);
    }
}

/* A device that has work does not want to be told of more; one that is idle must be told. */
static void a_busy_device_is_not_notified(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    struct io *io[20];
    (void)state;

    for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
        options.notices = VDEV_WANTS_WHEN_IDLE;
        options.pace = VDEV_BY_HAND;
        vdev_plug(&options);
        assert_int_equal(blk_bind(&binding), RESULT_OK);
        for (unsigned round = 1; round < 10; round++) {
            io[0] = io_new(DISK_READ, 0, 512, 0);
            assert_int_equal(io_submit(&binding, io[0]), RESULT_OK);
            assert_int_equal(vdev_counted()->notifications, round);
            vdev_finish(0); /* it takes the request, and asks for peace */
            for (unsigned i = 1; i < LENGTH(io); i++) {
                io[i] = io_new(DISK_READ, i, 512, 0);
                assert_int_equal(io_submit(&binding, io[i]), RESULT_OK);
            }
            vdev_finish(UINT32_MAX);
            for (unsigned i = 0; i < LENGTH(io); i++) {
                io_wait(&binding, io[i]);
                assert_int_equal(io_free(io[i]), RESULT_OK);
            }
            assert_int_equal(vdev_counted()->notifications, round);
        }
        assert_true(unbind(&binding));
        assert_clean();
        vdev_unplug();
        options.features &= ~feature(VIRTIO_RING_F_EVENT_IDX);
    }
}

static void requests_that_do_not_fit_are_refused(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    (void)state;

    vblk.block_size = 4096;
    vblk.capacity = 4096 + 3; /* the last block is not whole */
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    assert_int_equal(disk_of(&binding)->info.blocks, 512);
    static const struct {
        uint64_t sector;
        size_t bytes;
    } bad[] = {
        {0, 512},     {0, 4097},    {1, 4096},          {4096, 4096},
        {4088, 8192}, {0, 0},       {UINT64_MAX, 4096}, {UINT64_MAX - 7, 4096},
        {1, 0},       {4104, 4096}, {1ull << 55, 4096},
    };
    for (unsigned i = 0; i < LENGTH(bad); i++) {
        assert_int_equal(io_run(&binding, DISK_READ, bad[i].sector, bad[i].bytes, 0),
                         RESULT_OUT_OF_RANGE);
        assert_int_equal(io_run(&binding, DISK_WRITE, bad[i].sector, bad[i].bytes, 0),
                         RESULT_OUT_OF_RANGE);
    }
    /* A length that no buffer has: nothing may be looked at. */
    struct io *io = io_new(DISK_READ, 8, 4096, 0);
    io->request->base.bytes = SIZE_MAX & ~(size_t)4095;
    assert_int_equal(io_submit(&binding, io), RESULT_OUT_OF_RANGE);
    io_free(io);
    assert_reads_right(&binding, 4088, 4096);
    assert_int_equal(vdev_counted()->requests, 1);
    assert_true(unbind(&binding));
    assert_clean();
}

static void read_only_disks_are_not_written(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    (void)state;

    options.features |= feature(VIRTIO_BLK_F_RO);
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    assert_true(disk_of(&binding)->info.read_only);
    assert_int_equal(io_run(&binding, DISK_WRITE, 0, 512, 0), RESULT_WRITE_PROTECTED);
    assert_reads_right(&binding, 0, 4096);
    assert_int_equal(io_run(&binding, DISK_FLUSH, 0, 0, 0), RESULT_OK);
    assert_true(unbind(&binding));
    assert_clean();
}

static void the_disk_is_described(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    (void)state;

    vblk.physical_exponent = 3;
    vblk.alignment_offset = 2;
    vblk.optimal_blocks = 64;
    vblk.capacity = 0x123456789a0;
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    const struct disk_info *info = &disk_of(&binding)->info;
    assert_int_equal(info->blocks, vblk.capacity);
    assert_int_equal(info->blocks_per_physical, 8);
    assert_int_equal(info->lowest_aligned_block, 2);
    assert_int_equal(info->optimal_transfer_blocks, 64);
    assert_true(info->write_cache);
    assert_false(info->read_only);
    assert_true(unbind(&binding));
    assert_clean();
    vdev_unplug();

    options.features = 0;
    vblk.capacity = UINT64_MAX;
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    info = &disk_of(&binding)->info;
    assert_int_equal(info->block_size, 512);
    assert_true(info->blocks == UINT64_MAX);
    assert_int_equal(info->blocks_per_physical, 1);
    assert_int_equal(info->lowest_aligned_block, 0);
    assert_int_equal(info->optimal_transfer_blocks, 0);
    assert_true(unbind(&binding));
    assert_clean();
}

/* Larger in what can be had, and only what the device offered. */
static void features_that_are_used(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    (void)state;

    options.features = ~feature(VIRTIO_BLK_F_RO) & ~feature(VIRTIO_BLK_F_SIZE_MAX);
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    uint64_t wanted = feature(VIRTIO_F_VERSION_1) | feature(VIRTIO_F_ACCESS_PLATFORM) | FLUSH |
                      BLK_SIZE | INDIRECT | feature(VIRTIO_BLK_F_TOPOLOGY);
    assert_int_equal(vdev_features() & wanted, wanted);
    /* Each of these would change the rules of the ring. */
    assert_int_equal(vdev_features() & (feature(VIRTIO_F_RING_PACKED) | feature(VIRTIO_F_IN_ORDER) |
                                        feature(VIRTIO_F_SR_IOV) | feature(VIRTIO_F_RING_RESET) |
                                        feature(38) | feature(VIRTIO_BLK_F_MQ)),
                     0);
    assert_reads_right(&binding, 0, 8192);
    assert_true(unbind(&binding));
    assert_clean();
}

static void a_binding_takes_at_most_256_kib(void **state)
{
    static const uint16_t more[] = {2048, 4096, 32768};
    size_t most = 0;
    (void)state;

    for (unsigned kind = 0; kind < 8; kind++) {
        for (unsigned size = 2; size <= 1024 + LENGTH(more); size++) {
            struct vdev_options options = vblk_usual();
            struct binding binding;
            options.queue_size = size <= 1024 ? (uint16_t)size : more[size - 1025];
            vblk.capacity = 16;
            options.transport = kind & 1 ? VDEV_LEGACY : VDEV_MODERN;
            /* Beyond 1024 a legacy device leaves no choice. */
            if (size > 1024 && options.transport == VDEV_LEGACY)
                continue;
            vblk.size_max = 4096;
            if (kind & 2)
                options.features &= ~INDIRECT;
            if (kind & 4)
                options.features |= SIZE_MAX_F;
            if (size == 2)
                options.features |= ANY_LAYOUT;
            /* All sizes near the ends and a step's width apart between. */
            if (size > 20 && size < 1000 && (size & (size - 1)) != 0 && size % 37 != 0)
                continue;
            vdev_plug(&options);
            enum result result = blk_bind(&binding);
            if (result == RESULT_OK) {
                size_t bytes = sizeof(struct blk) + binding.memory_bytes;
                if (bytes > most)
                    most = bytes;
                assert_true(bytes <= 256 * KIB);
                assert_true(options.transport == VDEV_LEGACY || vdev_queue_size(0) <= 1024);
                assert_true(unbind(&binding));
            } else if ((size & (size - 1)) == 0 && !(kind & 4 && size == 2)) {
                fail_msg("a queue of %u entries is refused: %s", size, vdev_last_log());
            }
            assert_clean();
            vdev_unplug();
        }
    }
    print_message("             at most %zu bytes\n", most);
}

static void a_mapping_of_less_than_a_block_fails_cleanly(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    (void)state;

    vblk.block_size = 4096;
    options.map_most = 4095;
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    assert_int_equal(io_run(&binding, DISK_READ, 0, 65536, 0), RESULT_NO_MEMORY);
    assert_int_equal(vdev_counted()->maps, vdev_counted()->unmaps);
    vdev_now()->map_most = 4096;
    assert_reads_right(&binding, 0, 65536);
    vdev_now()->map_most = 5000;
    assert_reads_right(&binding, 0, 65536);
    assert_true(unbind(&binding));
    assert_clean();
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(every_byte_right_on_every_device, unplug),
        cmocka_unit_test_teardown(any_alignment_of_the_buffer, unplug),
        cmocka_unit_test_teardown(ring_indices_wrap_at_65536, unplug),
        cmocka_unit_test_teardown(requests_larger_than_the_limits, unplug),
        cmocka_unit_test_teardown(many_in_flight_at_once, unplug),
        cmocka_unit_test_teardown(flush_covers_all_before_it, unplug),
        cmocka_unit_test_teardown(flush_without_a_cache_is_done_at_once, unplug),
        cmocka_unit_test_teardown(pending_requests_keep_their_order, unplug),
        cmocka_unit_test_teardown(one_notification_for_a_batch, unplug),
        cmocka_unit_test_teardown(a_polling_device_is_not_notified, unplug),
        cmocka_unit_test_teardown(a_busy_device_is_not_notified, unplug),
        cmocka_unit_test_teardown(requests_that_do_not_fit_are_refused, unplug),
        cmocka_unit_test_teardown(read_only_disks_are_not_written, unplug),
        cmocka_unit_test_teardown(the_disk_is_described, unplug),
        cmocka_unit_test_teardown(features_that_are_used, unplug),
        cmocka_unit_test_teardown(a_binding_takes_at_most_256_kib, unplug),
        cmocka_unit_test_teardown(a_mapping_of_less_than_a_block_fails_cleanly, unplug),
    };
    return cmocka_run_group_tests_name("virtio-blk", tests, NULL, NULL);
}
