// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Letting go: the exit through the poor door, detach, restart, and devices that do not answer
 * (C2 to C7). */

#include "tests/unit/blk_harness.h"

#define IN_FLIGHT 32u

static struct poor_door door_for(uint64_t ms)
{
    return (struct poor_door){.deadline = clock_ticks() + ms * MS};
}

/* The exit, as firmware does it; afterwards the device tries all that it still can. */
static bool leave(struct binding *binding, uint64_t bound_ms)
{
    uint64_t since = vdev_time();
    bool let_go = quiesce(binding, bound_ms);

    /* Writing the status, and one more look, are allowed after the bound. */
    assert_true(vdev_time() - since <= bound_ms * MS + 200);
    assert_false(vdev_master());
    if (let_go) {
        uint64_t changes = vdev_counted()->shown_changes;
        assert_int_equal(vdev_status(), 0);
        assert_false(vdev_live());
        vdev_master_on(); /* an OS does, before it resets the device */
        vdev_last_gasp();
        for (unsigned i = 0; i < 100; i++)
            cpu_relax();
        assert_int_equal(vdev_counted()->shown_changes, changes);
    }
    return let_go;
}

static void start_reads(struct binding *binding, struct io **io, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        io[i] = io_new(i % 4 == 3 ? DISK_WRITE : DISK_READ, 8 * i, 4096, i);
        assert_int_equal(io_submit(binding, io[i]), RESULT_OK);
    }
}

static void all_ended_with(struct io **io, unsigned count, enum result result)
{
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(io_free(io[i]), result);
}

static const enum vdev_transport transports[] = {VDEV_MODERN, VDEV_LEGACY};

static void quiesce_does_nothing_where_nothing_is_live(void **state)
{
    struct vdev_options options = vblk_usual();
    struct virtio_device device = {0};
    struct binding binding;
    (void)state;

    vdev_plug(&options);
    vdev_poor(true);
    struct poor_door door = door_for(100);
    assert_true(virtio_quiesce(&device.exit, &door));
    assert_int_equal(vdev_counted()->reads, 0);
    assert_int_equal(vdev_counted()->resets, 0);
    assert_int_equal(vdev_counted()->master_off, 0);
    vdev_poor(false);

    /* The device's registers found, and nothing said to it yet. */
    assert_int_equal(virtio_find(&device, vdev_door(), vdev_where()), RESULT_OK);
    vdev_poor(true);
    assert_true(virtio_quiesce(&device.exit, &door));
    assert_int_equal(vdev_counted()->resets, 0);
    assert_int_equal(vdev_counted()->master_off, 0);
    vdev_poor(false);

    /* A binding that has come and gone. */
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    struct virtio_exit exit = device_of(&binding)->exit;
    assert_true(unbind(&binding) || true);
    exit.state = VIRTIO_DORMANT;
    uint64_t reads = vdev_counted()->reads, resets = vdev_counted()->resets;
    assert_true(virtio_quiesce(&exit, &door));
    assert_int_equal(vdev_counted()->reads, reads);
    assert_int_equal(vdev_counted()->resets, resets);
    assert_clean();
}

/* ExitBootServices() that fails with a stale map key comes again: the second time there is nothing
 * to do, and nothing is done. An OS may have the device by then. */
static void quiesce_again_leaves_the_device_alone(void **state)
{
    (void)state;
    for (unsigned k = 0; k < LENGTH(transports); k++) {
        struct vdev_options options = vblk_usual();
        struct binding binding;

        options.transport = transports[k];
        vdev_plug(&options);
        assert_int_equal(blk_bind(&binding), RESULT_OK);
        assert_reads_right(&binding, 0, 8192);
        assert_true(leave(&binding, 100));
        assert_int_equal(vdev_counted()->master_off, 1);
        uint64_t reads = vdev_counted()->reads, resets = vdev_counted()->resets;
        struct poor_door door = door_for(100);
        for (unsigned i = 0; i < 3; i++)
            assert_true(virtio_quiesce(&device_of(&binding)->exit, &door));
        assert_int_equal(vdev_counted()->reads, reads);
        assert_int_equal(vdev_counted()->resets, resets);
        assert_int_equal(vdev_counted()->master_off, 1);
        assert_true(vdev_master());
        assert_true(unbind(&binding));
        assert_int_equal(vdev_counted()->resets, resets);
        assert_clean();
        vdev_unplug();
    }
}

/* In every state of a live device: not yet started, idle, with requests in flight. */
static void quiesce_waits_for_the_acknowledgement(void **state)
{
    static const uint32_t reads[] = {0, 1, 7, 500};
    (void)state;
    for (unsigned k = 0; k < LENGTH(transports) * LENGTH(reads) * 3; k++) {
        struct vdev_options options = vblk_usual();
        struct binding binding = {0};
        struct io *io[IN_FLIGHT];
        unsigned life = k % 3;

        options.transport = transports[k / 3 % LENGTH(transports)];
        options.reset_reads = reads[k / 3 / LENGTH(transports)];
        options.pace = VDEV_BY_HAND;
        vdev_plug(&options);
        if (life == 0) {
            assert_int_equal(attach(&binding, &blk_test), RESULT_OK);
            assert_true(leave(&binding, 100));
            assert_true(unbind(&binding));
        } else {
            assert_int_equal(blk_bind(&binding), RESULT_OK);
            if (life == 2)
                start_reads(&binding, io, IN_FLIGHT);
            assert_true(leave(&binding, 100));
            /* Nothing new goes out, and who asks again hears what became of what was in flight. */
            struct io *late = io_new(DISK_READ, 0, 512, 0);
            assert_int_equal(io_submit(&binding, late), RESULT_DEVICE_ERROR);
            io_free(late);
            disk_poll(&binding);
            assert_int_not_equal(disk_of(&binding)->ops->restart(disk_of(&binding), RESULT_ABORTED),
                                 RESULT_OK);
            assert_int_equal(vdev_status(), 0);
            /* And should there be a Stop() after all: everything comes back. */
            assert_true(unbind(&binding));
            if (life == 2)
                all_ended_with(io, IN_FLIGHT, RESULT_DEVICE_ERROR);
        }
        assert_int_equal(vdev_counted()->master_off_live, 0);
        assert_clean();
        vdev_unplug();
    }
}

static void quiesce_of_a_stuck_device_is_bounded(void **state)
{
    static const uint32_t bounds[] = {1, 100, 1000};
    (void)state;
    for (unsigned k = 0; k < LENGTH(transports) * LENGTH(bounds); k++) {
        struct vdev_options options = vblk_usual();
        struct binding binding;
        struct io *io[IN_FLIGHT];
        uint64_t bound = bounds[k / LENGTH(transports)];

        options.transport = transports[k % LENGTH(transports)];
        options.pace = VDEV_BY_HAND;
        vdev_plug(&options);
        assert_int_equal(blk_bind(&binding), RESULT_OK);
        start_reads(&binding, io, IN_FLIGHT);
        vdev_now()->reset_reads = VDEV_NEVER;
        assert_false(leave(&binding, bound));
        assert_int_equal(device_of(&binding)->exit.state, VIRTIO_STUCK);
        /* Again, and still bounded. */
        assert_false(leave(&binding, bound));
        assert_int_equal(io_run(&binding, DISK_READ, 0, 512, 0), RESULT_DEVICE_ERROR);
        /* A Stop() must not believe it either: no memory comes back, no buffer is unmapped. */
        uint64_t unmaps = vdev_counted()->unmaps, logs = vdev_counted()->logs;
        assert_false(unbind(&binding));
        assert_int_equal(vdev_counted()->unmaps, unmaps);
        assert_true(vdev_counted()->logs > logs);
        all_ended_with(io, IN_FLIGHT, RESULT_ABORTED);
        assert_no_violation();
        vdev_unplug();
    }
}

/* It may yet answer: then it has let go after all. */
static void quiesce_tries_a_stuck_device_again(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    struct io *io[IN_FLIGHT];
    (void)state;

    options.pace = VDEV_BY_HAND;
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    start_reads(&binding, io, IN_FLIGHT);
    vdev_now()->stuck_reset_at = 2;
    assert_false(leave(&binding, 50));
    assert_true(leave(&binding, 50));
    assert_true(unbind(&binding));
    all_ended_with(io, IN_FLIGHT, RESULT_ABORTED);
    assert_clean();
}

/* Several devices, one deadline: the second has what the first has left. */
static void a_deadline_that_is_past_leaves_one_look(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    (void)state;

    options.reset_reads = 0;
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    struct poor_door door = {.deadline = vdev_time() - 1000};
    assert_true(virtio_quiesce(&device_of(&binding)->exit, &door));
    assert_true(unbind(&binding));
    assert_clean();
    vdev_unplug();

    options.reset_reads = 2;
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    door.deadline = vdev_time() - 1000;
    uint64_t since = vdev_time();
    assert_false(virtio_quiesce(&device_of(&binding)->exit, &door));
    assert_true(vdev_time() - since < MS);
    assert_false(vdev_master());
    assert_true(unbind(&binding)); /* with time, it lets go */
    assert_clean();
}

static void quiesce_ends_where_the_clock_stands(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    (void)state;

    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    vdev_now()->reset_reads = VDEV_NEVER;
    vdev_now()->clock_stands = true;
    struct poor_door door = {.deadline = UINT64_MAX / 4};
    uint64_t reads = vdev_counted()->reads;
    assert_false(virtio_quiesce(&device_of(&binding)->exit, &door));
    assert_true(vdev_counted()->reads - reads < 10000000);
    vdev_now()->clock_stands = false;
    assert_false(unbind(&binding));
    assert_no_violation();
}

static void quiesce_of_a_device_that_is_gone(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    struct io *io[4];
    (void)state;

    options.pace = VDEV_BY_HAND;
    vdev_plug(&options);
    assert_int_equal(blk_bind(&binding), RESULT_OK);
    start_reads(&binding, io, 4);
    vdev_vanish();
    assert_false(leave(&binding, 100));
    assert_false(unbind(&binding));
    all_ended_with(io, 4, RESULT_ABORTED);
    assert_no_violation();
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
        start_reads(&binding, io, count);
        vdev_finish(count / 3);
        assert_true(unbind(&binding));
        all_ended_with(io, count, RESULT_ABORTED);
        assert_false(vdev_master());
        assert_int_equal(vdev_counted()->master_off_live, 0);
        assert_clean();
        vdev_unplug();
    }
}

static void memory_of_a_stuck_device_is_not_given_back(void **state)
{
    (void)state;
    for (unsigned k = 0; k < LENGTH(transports); k++) {
        struct vdev_options options = vblk_usual();
        struct binding binding;
        struct io *io[8];

        options.transport = transports[k];
        options.pace = VDEV_BY_HAND;
        vdev_plug(&options);
        assert_int_equal(blk_bind(&binding), RESULT_OK);
        start_reads(&binding, io, LENGTH(io));
        vdev_now()->reset_reads = VDEV_NEVER;
        uint64_t since = vdev_time();
        assert_false(unbind(&binding));
        assert_true(vdev_time() - since <= (VIRTIO_RESET_MS + 1) * MS);
        assert_true(vdev_counted()->logs != 0);
        assert_int_equal(vdev_counted()->unmaps, 0);
        assert_int_equal(dma_shared(), 1);
        assert_false(vdev_master());
        all_ended_with(io, LENGTH(io), RESULT_ABORTED);
        assert_no_violation();
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
        start_reads(&binding, io, LENGTH(io));
        io_wait(&binding, io[0]);
        uint64_t took = vdev_time() - since;
        assert_true(took > PIECE_TIMEOUT_MS * MS && took < (PIECE_TIMEOUT_MS + 1500) * MS);
        all_ended_with(io, LENGTH(io), RESULT_TIMEOUT);
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
    start_reads(&binding, io, LENGTH(io));
    for (unsigned i = 0; i < LENGTH(io); i++) {
        vdev_skip_ms(PIECE_TIMEOUT_MS * 9 / 10);
        disk_poll(&binding);
        vdev_finish(1);
        disk_poll(&binding);
        assert_int_equal(io[i]->done, 1);
    }
    all_ended_with(io, LENGTH(io), RESULT_OK);
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
        start_reads(&binding, io, LENGTH(io));
        vdev_now()->reset_reads = VDEV_NEVER;
        uint64_t since = vdev_time();
        io_wait(&binding, io[0]);
        assert_true(vdev_time() - since < (PIECE_TIMEOUT_MS + 4 * VIRTIO_RESET_MS) * MS);
        all_ended_with(io, LENGTH(io), RESULT_TIMEOUT);
        assert_int_equal(vdev_counted()->unmaps, 0);
        assert_false(vdev_master());
        assert_int_equal(io_run(&binding, DISK_READ, 0, 512, 0), RESULT_DEVICE_ERROR);
        assert_false(leave(&binding, 10));
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
    start_reads(&binding, io, LENGTH(io));
    vdev_now()->stuck_reset_at = 2;
    assert_int_not_equal(disk_of(&binding)->ops->restart(disk_of(&binding), RESULT_TIMEOUT),
                         RESULT_OK);
    all_ended_with(io, LENGTH(io), RESULT_TIMEOUT);
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

static void a_first_reset_that_is_not_acknowledged(void **state)
{
    (void)state;
    for (unsigned k = 0; k < LENGTH(transports); k++) {
        struct vdev_options options = vblk_usual();
        struct binding binding;

        options.transport = transports[k];
        options.reset_reads = VDEV_NEVER;
        vdev_plug(&options);
        uint64_t since = vdev_time();
        assert_int_equal(blk_bind(&binding), RESULT_TIMEOUT);
        assert_true(vdev_time() - since < (VIRTIO_RESET_MS + 100) * MS);
        assert_true(vdev_counted()->logs != 0);
        assert_int_equal(dma_shared(), 0);
        assert_no_violation();
        /* And if it comes round later, it can be had. */
        vdev_now()->reset_reads = 2;
        assert_int_equal(blk_bind(&binding), RESULT_OK);
        assert_reads_right(&binding, 0, 4096);
        assert_true(unbind(&binding));
        assert_clean();
        vdev_unplug();
    }
}

static void bind_and_unbind_a_thousand_times(void **state)
{
    struct vdev_options options = vblk_usual();
    struct binding binding;
    (void)state;

    vblk.capacity = 64;
    vdev_plug(&options);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(blk_bind(&binding), RESULT_OK);
        if (i % 10 == 0)
            assert_reads_right(&binding, i % 60, 2048);
        assert_true(unbind(&binding));
        assert_clean();
        assert_false(vdev_master());
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(quiesce_does_nothing_where_nothing_is_live, unplug),
        cmocka_unit_test_teardown(quiesce_again_leaves_the_device_alone, unplug),
        cmocka_unit_test_teardown(quiesce_waits_for_the_acknowledgement, unplug),
        cmocka_unit_test_teardown(quiesce_of_a_stuck_device_is_bounded, unplug),
        cmocka_unit_test_teardown(quiesce_tries_a_stuck_device_again, unplug),
        cmocka_unit_test_teardown(a_deadline_that_is_past_leaves_one_look, unplug),
        cmocka_unit_test_teardown(quiesce_ends_where_the_clock_stands, unplug),
        cmocka_unit_test_teardown(quiesce_of_a_device_that_is_gone, unplug),
        cmocka_unit_test_teardown(detach_ends_what_is_in_flight, unplug),
        cmocka_unit_test_teardown(memory_of_a_stuck_device_is_not_given_back, unplug),
        cmocka_unit_test_teardown(a_device_that_never_answers_times_out, unplug),
        cmocka_unit_test_teardown(a_slow_device_does_not_time_out, unplug),
        cmocka_unit_test_teardown(a_request_lost_among_others_times_out, unplug),
        cmocka_unit_test_teardown(a_restart_that_is_not_acknowledged, unplug),
        cmocka_unit_test_teardown(a_restart_that_is_acknowledged_late, unplug),
        cmocka_unit_test_teardown(a_device_that_says_that_it_failed_is_noticed_soon, unplug),
        cmocka_unit_test_teardown(a_first_reset_that_is_not_acknowledged, unplug),
        cmocka_unit_test_teardown(bind_and_unbind_a_thousand_times, unplug),
    };
    return cmocka_run_group_tests_name("virtio-blk letting go", tests, NULL, NULL);
}
