// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Disks that cannot be driven, or that stop being worth it: each ends in the right result, with a
 * sentence in the log, and with the device as after power-on (C5, C6, C7, C9). */

#include "tests/unit/blk_harness.h"

#define INDIRECT   feature(VIRTIO_RING_F_INDIRECT_DESC)
#define SIZE_MAX_F feature(VIRTIO_BLK_F_SIZE_MAX)

static const enum vdev_transport transports[] = {VDEV_MODERN, VDEV_LEGACY};

/* ---- At the start ---- */

struct bad_start {
    const char *name;
    enum result result;
    int lie;
    enum vdev_transport transport;
    uint64_t features;
    uint16_t queue_size; /* 0: the usual */
    uint32_t block_size, size_max;
    uint64_t capacity;
    bool empty;
};

static const struct bad_start bad_starts[] = {
    {.name = "a configuration of no bytes", .result = RESULT_UNSUPPORTED, .lie = LIE_CONFIG_EMPTY},
    {.name = "a configuration that never stands still",
     .result = RESULT_DEVICE_ERROR,
     .lie = LIE_CONFIG_RESTLESS},
    {.name = "a queue of two without ANY_LAYOUT (legacy)",
     .result = RESULT_UNSUPPORTED,
     .queue_size = 2,
     .transport = VDEV_LEGACY},
    {.name = "no blocks", .result = RESULT_NO_MEDIA, .empty = true},
    {.name = "less than a block", .result = RESULT_NO_MEDIA, .capacity = 7, .block_size = 4096},
    {.name = "a queue of more memory than we take (legacy)",
     .result = RESULT_UNSUPPORTED,
     .queue_size = 16384,
     .transport = VDEV_LEGACY},
    {.name = "a block size of 131072", .result = RESULT_UNSUPPORTED, .block_size = 131072},
    {.name = "a block size of 513", .result = RESULT_UNSUPPORTED, .block_size = 513},
    {.name = "a block size of 1", .result = RESULT_UNSUPPORTED, .block_size = 1},
    {.name = "a block size of 256", .result = RESULT_UNSUPPORTED, .block_size = 256},
    {.name = "a block size of 768", .result = RESULT_UNSUPPORTED, .block_size = 768},
    {.name = "a block size of 2 GiB", .result = RESULT_UNSUPPORTED, .block_size = 1u << 31},
    {.name = "blocks that do not fit the segments",
     .result = RESULT_UNSUPPORTED,
     .features = SIZE_MAX_F,
     .size_max = 8},
};

static struct vdev_options bad_options(const struct bad_start *bad)
{
    struct vdev_options options = vblk_usual();

    options.transport = bad->transport;
    options.lie = bad->lie;
    options.features = options.features | bad->features;
    if (bad->queue_size != 0)
        options.queue_size = bad->queue_size;
    if (bad->block_size != 0)
        vblk.block_size = bad->block_size;
    if (bad->size_max != 0)
        vblk.size_max = bad->size_max;
    if (bad->capacity != 0)
        vblk.capacity = bad->capacity;
    if (bad->empty)
        vblk.capacity = 0;
    return options;
}

static void bad_disks_are_refused(void **state)
{
    unsigned wrong = 0;
    (void)state;

    for (unsigned i = 0; i < LENGTH(bad_starts); i++) {
        struct vdev_options options = bad_options(&bad_starts[i]);
        wrong += !refused_start(&blk_test, bad_starts[i].name, &options, bad_starts[i].result);
    }
    assert_int_equal(wrong, 0);
}

static void a_configuration_that_moves_is_read_again(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    (void)state;

    options.lie = LIE_CONFIG_MOVES_ONCE;
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    assert_int_equal(disk_of(&binding)->info.blocks, vblk.capacity);
    assert_true(unbind(&binding));
    assert_clean();
}

/* ---- Answers ---- */

/* What a device may say about a request, and what becomes of that request. */
static const struct {
    const char *name;
    int lie;
    bool restarts;
    bool logs;
} bad_answers[] = {
    {"an id out of range", LIE_ID_OUT_OF_RANGE, true, true},
    {"a huge id", LIE_ID_HUGE, true, true},
    {"the id of nobody", LIE_ID_OF_NOBODY, true, true},
    {"an id within a chain", LIE_ID_NOT_A_HEAD, true, true},
    {"a length beyond the buffer", LIE_LENGTH, true, true},
    {"a huge length", LIE_LENGTH_HUGE, true, true},
    {"an index that jumps", LIE_INDEX_JUMPS, true, true},
    {"an index that goes back", LIE_INDEX_BACK, true, true},
    {"a status that is not written", LIE_STATUS_NOT_WRITTEN, false, false},
    {"an unknown status", LIE_STATUS_UNKNOWN, false, false},
    {"an I/O error", LIE_STATUS_IOERR, false, false},
    {"an unsupported request", LIE_STATUS_UNSUPP, false, false},
    {"NEEDS_RESET", LIE_NEEDS_RESET, true, true},
};

static void bad_answers_end_requests_with_an_error(void **state)
{
    unsigned wrong = 0;
    (void)state;

    for (unsigned i = 0; i < LENGTH(bad_answers) * 4; i++) {
        struct vdev_options options = vblk_usual();
        struct binding binding;
        unsigned which = i / 4;
        enum disk_op op = i % 2 ? DISK_WRITE : DISK_READ;

        options.lie = bad_answers[which].lie;
        if (i % 4 >= 2)
            options.features &= ~INDIRECT;
        vdev_plug(&options);
        assert_int_equal(blk_bind(&binding), RESULT_OK);
        uint64_t since = vdev_time();
        enum result result = io_run(&binding, op, 9, 4096, 3);
        uint64_t took = vdev_time() - since;
        bool restarted = vdev_counted()->resets > 1;
        vdev_now()->lie = LIE_NONE;
        vdev_now()->pace = VDEV_IN_ORDER;
        if (result != RESULT_DEVICE_ERROR || restarted != bad_answers[which].restarts ||
            (bad_answers[which].logs && vdev_counted()->logs == 0) ||
            took > 1500 * (uint64_t)VDEV_TICKS_PER_MS || model_violations() != 0) {
            print_error("%s (%s, %s): result %d, %s, %llu sentences, %llu ms, %u violations\n",
                        bad_answers[which].name, op == DISK_WRITE ? "write" : "read",
                        i % 4 >= 2 ? "direct" : "indirect", (int)result,
                        restarted ? "restarted" : "not restarted",
                        (unsigned long long)vdev_counted()->logs,
                        (unsigned long long)took / VDEV_TICKS_PER_MS, model_violations());
            wrong++;
        }
        /* An honest device again: and the disk works. */
        assert_reads_right(&binding, 0, 4096);
        assert_true(unbind(&binding));
        assert_clean();
        vdev_unplug();
    }
    assert_int_equal(wrong, 0);
}

/* The id that came is that of another request in flight, or of one that is done. */
static void an_id_twice_is_noticed_among_many(void **state)
{
    static const int lies[] = {LIE_ID_TWICE, LIE_ID_OF_NOBODY};
    (void)state;

    for (unsigned k = 0; k < LENGTH(lies) * 2; k++) {
        struct vdev_options options = vblk_usual();
        struct binding binding;
        struct io *io[32];
        unsigned good = 0;

        if (k >= LENGTH(lies))
            options.features &= ~INDIRECT;
        options.pace = VDEV_BY_HAND;
        vdev_plug(&options);
        assert_int_equal(blk_bind(&binding), RESULT_OK);
        for (unsigned i = 0; i < LENGTH(io); i++) {
            io[i] = io_new(DISK_READ, 8 * i, 4096, i);
            assert_int_equal(io_submit(&binding, io[i]), RESULT_OK);
        }
        vdev_finish(10);
        vdev_now()->lie = lies[k % LENGTH(lies)];
        vdev_finish(1);
        vdev_now()->lie = LIE_NONE;
        vdev_finish(3);
        vdev_now()->pace = VDEV_IN_ORDER;
        for (unsigned i = 0; i < LENGTH(io); i++) {
            io_wait(&binding, io[i]);
            if (io[i]->result == RESULT_OK) {
                assert_memory_equal(io[i]->buffer, vblk_disk() + 8 * i * 512, 4096);
                good++;
            } else {
                assert_int_equal(io[i]->result, RESULT_DEVICE_ERROR);
            }
            io_free(io[i]);
        }
        assert_true(good >= 10 && good < LENGTH(io));
        assert_int_equal(vdev_counted()->resets, 3); /* at first; to stop it; to start it */
        assert_true(vdev_counted()->logs != 0);
        assert_reads_right(&binding, 0, 65536);
        assert_true(unbind(&binding));
        assert_clean();
        vdev_unplug();
    }
}

/* Nothing written at a read, all of the data at a write: devices that exist say such things. */
static void careless_lengths_are_taken(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    (void)state;

    options.lie = LIE_LENGTH_CARELESS;
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    assert_int_equal(io_run(&binding, DISK_WRITE, 9, 4096, 3), RESULT_OK);
    assert_int_equal(io_run(&binding, DISK_READ, 9, 4096, 3), RESULT_OK);
    assert_reads_right(&binding, 0, 1u << 16);
    assert_int_equal(vdev_counted()->resets, 1);
    assert_true(unbind(&binding));
    assert_clean();
    vdev_unplug();
}

static void an_error_in_one_piece_fails_the_request_once(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    (void)state;

    for (uint32_t lies = 1; lies < 40; lies += 3) {
        options.features |= SIZE_MAX_F;
        vblk.size_max = 4096;
        options.pace = VDEV_SHUFFLED;
        options.lie = LIE_STATUS_IOERR;
        options.lies = lies;
        options.seed = lies;
        options.queue_size = lies % 2 ? 4 : 128;
        vdev_plug(&options);
        assert_int_equal(blk_bind(&binding), RESULT_OK);
        assert_int_equal(io_run(&binding, DISK_READ, 0, 1u << 20, 1), RESULT_DEVICE_ERROR);
        vdev_now()->lies = 0;
        assert_reads_right(&binding, 0, 1u << 20);
        assert_int_equal(vdev_counted()->resets, 1);
        assert_true(unbind(&binding));
        assert_clean();
        vdev_unplug();
    }
}

/* ---- Restarts, and the end ---- */

/* After a reset, the ring that there is must still be right for what the device now says. */
static void a_device_that_changes_in_a_restart(void **state)
{
    static const struct {
        int lie;
        enum vdev_transport transport;
        enum result result;
    } changes[] = {
        {LIE_NONE, VDEV_MODERN, RESULT_OK},
        {LIE_NONE, VDEV_LEGACY, RESULT_OK},
        {LIE_OTHER_FEATURES, VDEV_MODERN, RESULT_DEVICE_ERROR},
        {LIE_OTHER_FEATURES, VDEV_LEGACY, RESULT_DEVICE_ERROR},
        {LIE_SMALLER_QUEUE, VDEV_MODERN, RESULT_DEVICE_ERROR},
        {LIE_SMALLER_QUEUE, VDEV_LEGACY, RESULT_DEVICE_ERROR},
        {LIE_LARGER_QUEUE, VDEV_MODERN, RESULT_OK},
        {LIE_LARGER_QUEUE, VDEV_LEGACY, RESULT_DEVICE_ERROR},
    };
    (void)state;
    for (unsigned i = 0; i < LENGTH(changes); i++) {
        struct vdev_options options = vblk_usual();
        struct binding binding;
        struct io *io[3];

        options.transport = changes[i].transport;
        options.lie = changes[i].lie;
        options.pace = VDEV_BY_HAND;
        vdev_plug(&options);
        assert_int_equal(blk_bind(&binding), RESULT_OK);
        for (unsigned k = 0; k < LENGTH(io); k++) {
            io[k] = io_new(k == 1 ? DISK_WRITE : DISK_READ, k, 512, 0);
            assert_int_equal(io_submit(&binding, io[k]), RESULT_OK);
        }
        enum result result = disk_of(&binding)->ops->restart(disk_of(&binding), RESULT_ABORTED);
        assert_int_equal(result, changes[i].result);
        for (unsigned k = 0; k < LENGTH(io); k++)
            assert_int_equal(io_free(io[k]), RESULT_ABORTED);
        vdev_now()->pace = VDEV_IN_ORDER;
        if (result == RESULT_OK) {
            assert_reads_right(&binding, 0, 65536);
        } else {
            /* Given up, and quiet already. */
            assert_int_equal(vdev_status(), 0);
            assert_false(vdev_master());
            assert_true(vdev_counted()->logs != 0);
            assert_int_equal(io_run(&binding, DISK_READ, 0, 512, 0), RESULT_DEVICE_ERROR);
            disk_poll(&binding);
        }
        assert_true(unbind(&binding));
        assert_clean();
        vdev_unplug();
    }
}

static void detach_ends_what_is_in_flight(void **state)
{
    (void)state;
    for (unsigned count = 0; count <= 128; count += 16) {
        struct vdev_options options = vblk_usual();
        struct binding binding;
        struct io *io[128];

        options.pace = VDEV_BY_HAND;
        options.queue_size = count % 32 ? 16 : 256;
        options.reset_reads = 100; /* it writes into buffers until then */
        vdev_plug(&options);
        assert_int_equal(blk_bind(&binding), RESULT_OK);
        io_start_many(&binding, io, count);
        vdev_finish(count / 3);
        assert_true(unbind(&binding));
        io_all_ended(io, count, RESULT_ABORTED);
        assert_false(vdev_master());
        assert_int_equal(vdev_counted()->master_off_live, 0);
        assert_clean();
        vdev_unplug();
    }
}

/* No answer for 30 s: the requests fail, the device is reset, and works. */
static void a_device_that_never_answers_times_out(void **state)
{
    (void)state;
    for (unsigned k = 0; k < LENGTH(transports); k++) {
        struct vdev_options options = vblk_usual();
        struct binding binding;
        struct io *io[100];

        options.transport = transports[k];
        options.pace = VDEV_BY_HAND;
        options.relax_ticks = 1000;
        options.reset_reads = 50;
        vdev_plug(&options);
        assert_int_equal(blk_bind(&binding), RESULT_OK);
        vdev_skip_ms(3 * PIECE_TIMEOUT_MS); /* an idle disk does not run out of time */
        uint64_t since = vdev_time();
        io_start_many(&binding, io, LENGTH(io));
        io_wait(&binding, io[0]);
        uint64_t took = vdev_time() - since;
        assert_true(took > PIECE_TIMEOUT_MS * MS && took < (PIECE_TIMEOUT_MS + 1500) * MS);
        io_all_ended(io, LENGTH(io), RESULT_TIMEOUT);
        assert_int_equal(vdev_counted()->resets, 3); /* at first, and in the restart */
        vdev_now()->pace = VDEV_SHUFFLED;
        assert_reads_right(&binding, 0, 1u << 20);
        assert_int_equal(io_run(&binding, DISK_WRITE, 0, 1u << 20, 0), RESULT_OK);
        assert_true(unbind(&binding));
        assert_clean();
        vdev_unplug();
    }
}

/* One that is slow, but works, does not. */
static void a_slow_device_does_not_time_out(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    struct io *io[10];
    (void)state;

    options.pace = VDEV_BY_HAND;
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    io_start_many(&binding, io, LENGTH(io));
    for (unsigned i = 0; i < LENGTH(io); i++) {
        vdev_skip_ms(PIECE_TIMEOUT_MS * 9 / 10);
        disk_poll(&binding);
        vdev_finish(1);
        disk_poll(&binding);
        assert_int_equal(io[i]->done, 1);
    }
    io_all_ended(io, LENGTH(io), RESULT_OK);
    assert_int_equal(vdev_counted()->resets, 1);
    assert_true(unbind(&binding));
    assert_clean();
}

/* Others keep overtaking a request that the device has lost: it must not wait for ever. */
static void a_request_lost_among_others_times_out(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    struct io *lost;
    uint64_t since;
    (void)state;

    options.pace = VDEV_LAST_FIRST;
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    lost = io_new(DISK_READ, 0, 4096, 0);
    assert_int_equal(io_submit(&binding, lost), RESULT_OK);
    since = vdev_time();
    while (!lost->done) {
        struct io *other = io_new(DISK_READ, 8, 4096, 0);
        assert_int_equal(io_submit(&binding, other), RESULT_OK);
        vdev_skip_ms(150);
        if (!lost->done)
            assert_int_equal(vdev_finish(1), 1);
        disk_poll(&binding);
        assert_int_equal(other->done, 1);
        io_free(other);
        assert_true(vdev_time() - since < 2 * PIECE_TIMEOUT_MS * (uint64_t)VDEV_TICKS_PER_MS);
    }
    assert_int_equal(io_free(lost), RESULT_TIMEOUT);
    vdev_now()->pace = VDEV_IN_ORDER;
    assert_reads_right(&binding, 0, 8192);
    assert_true(unbind(&binding));
    assert_clean();
}

/* It neither answers nor acknowledges. Then its buffers are not unmapped, its memory is lost, and
 * whoever owns the buffers hears of it only when the device cannot reach memory any more. */
static void a_restart_that_is_not_acknowledged(void **state)
{
    (void)state;
    for (unsigned k = 0; k < LENGTH(transports); k++) {
        struct vdev_options options = vblk_usual();
        struct binding binding;
        struct io *io[8];

        options.transport = transports[k];
        options.pace = VDEV_BY_HAND;
        options.relax_ticks = 1000;
        vdev_plug(&options);
        assert_int_equal(blk_bind(&binding), RESULT_OK);
        io_start_many(&binding, io, LENGTH(io));
        vdev_now()->reset_reads = VDEV_NEVER;
        uint64_t since = vdev_time();
        io_wait(&binding, io[0]);
        assert_true(vdev_time() - since < (PIECE_TIMEOUT_MS + 4 * VIRTIO_RESET_MS) * MS);
        io_all_ended(io, LENGTH(io), RESULT_TIMEOUT);
        assert_int_equal(vdev_counted()->unmaps, 0);
        assert_false(vdev_master());
        assert_int_equal(io_run(&binding, DISK_READ, 0, 512, 0), RESULT_DEVICE_ERROR);
        assert_false(quiesce(&binding, 10));
        assert_false(unbind(&binding));
        assert_no_violation();
        vdev_unplug();
    }
}

/* Acknowledged late: the driver has given up on the first reset, and detach tries again. */
static void a_restart_that_is_acknowledged_late(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    struct io *io[8];
    (void)state;

    options.pace = VDEV_BY_HAND;
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    io_start_many(&binding, io, LENGTH(io));
    vdev_now()->stuck_reset_at = 2;
    assert_int_not_equal(disk_of(&binding)->ops->restart(disk_of(&binding), RESULT_TIMEOUT),
                         RESULT_OK);
    io_all_ended(io, LENGTH(io), RESULT_TIMEOUT);
    assert_true(unbind(&binding));
    assert_no_violation();
    assert_int_equal(vdev_status(), 0);
}

static void a_device_that_says_that_it_failed_is_noticed_soon(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    (void)state;

    options.pace = VDEV_BY_HAND;
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    vdev_break();
    uint64_t since = vdev_time();
    assert_int_equal(io_run(&binding, DISK_READ, 0, 4096, 0), RESULT_DEVICE_ERROR);
    assert_true(vdev_time() - since < 500 * MS);
    vdev_now()->pace = VDEV_IN_ORDER;
    assert_reads_right(&binding, 0, 4096);
    assert_true(unbind(&binding));
    assert_clean();
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(bad_disks_are_refused, unplug),
        cmocka_unit_test_teardown(a_configuration_that_moves_is_read_again, unplug),
        cmocka_unit_test_teardown(bad_answers_end_requests_with_an_error, unplug),
        cmocka_unit_test_teardown(an_id_twice_is_noticed_among_many, unplug),
        cmocka_unit_test_teardown(careless_lengths_are_taken, unplug),
        cmocka_unit_test_teardown(an_error_in_one_piece_fails_the_request_once, unplug),
        cmocka_unit_test_teardown(a_device_that_changes_in_a_restart, unplug),
        cmocka_unit_test_teardown(detach_ends_what_is_in_flight, unplug),
        cmocka_unit_test_teardown(a_device_that_never_answers_times_out, unplug),
        cmocka_unit_test_teardown(a_slow_device_does_not_time_out, unplug),
        cmocka_unit_test_teardown(a_request_lost_among_others_times_out, unplug),
        cmocka_unit_test_teardown(a_restart_that_is_not_acknowledged, unplug),
        cmocka_unit_test_teardown(a_restart_that_is_acknowledged_late, unplug),
        cmocka_unit_test_teardown(a_device_that_says_that_it_failed_is_noticed_soon, unplug),
    };
    return cmocka_run_group_tests_name("virtio-blk disks that misbehave", tests, NULL, NULL);
}
