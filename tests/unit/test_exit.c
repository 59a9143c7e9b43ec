// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Letting go, whatever the device is: the exit through the poor door, detach, and devices that do
 * not answer (C2 to C7). */

#include "tests/unit/harness.h"

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

static const enum vdev_transport transports[] = {VDEV_MODERN, VDEV_LEGACY};

static void quiesce_does_nothing_where_nothing_is_live(void **state)
{
    const struct test_kind *kind = *state;
    struct vdev_options options = kind->usual();
    struct virtio_device device = {0};
    struct binding binding;

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
    assert_int_equal(bind(&binding, kind), RESULT_OK);
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
    const struct test_kind *kind = *state;

    for (unsigned k = 0; k < LENGTH(transports); k++) {
        struct vdev_options options = kind->usual();
        struct binding binding;

        options.transport = transports[k];
        vdev_plug(&options);
        assert_int_equal(bind(&binding, kind), RESULT_OK);
        kind->work(&binding);
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
    const struct test_kind *kind = *state;

    for (unsigned k = 0; k < LENGTH(transports) * LENGTH(reads) * 3; k++) {
        struct vdev_options options = kind->usual();
        struct binding binding = {0};
        unsigned life = k % 3;

        options.transport = transports[k / 3 % LENGTH(transports)];
        options.reset_reads = reads[k / 3 / LENGTH(transports)];
        options.pace = VDEV_BY_HAND;
        vdev_plug(&options);
        if (life == 0) {
            assert_int_equal(attach(&binding, kind), RESULT_OK);
            assert_true(leave(&binding, 100));
            assert_true(unbind(&binding));
        } else {
            assert_int_equal(bind(&binding, kind), RESULT_OK);
            if (life == 2)
                kind->busy(&binding);
            assert_true(leave(&binding, 100));
            /* Nothing new goes out, and who asks again hears what became of what was in flight. */
            kind->refused(&binding);
            assert_int_equal(vdev_status(), 0);
            /* And should there be a Stop() after all: everything comes back. */
            assert_true(unbind(&binding));
            if (life == 2)
                kind->ended(RESULT_DEVICE_ERROR);
        }
        assert_int_equal(vdev_counted()->master_off_live, 0);
        assert_clean();
        vdev_unplug();
    }
}

static void quiesce_of_a_stuck_device_is_bounded(void **state)
{
    static const uint32_t bounds[] = {1, 100, 1000};
    const struct test_kind *kind = *state;

    for (unsigned k = 0; k < LENGTH(transports) * LENGTH(bounds); k++) {
        struct vdev_options options = kind->usual();
        struct binding binding;
        uint64_t bound = bounds[k / LENGTH(transports)];

        options.transport = transports[k % LENGTH(transports)];
        options.pace = VDEV_BY_HAND;
        vdev_plug(&options);
        assert_int_equal(bind(&binding, kind), RESULT_OK);
        kind->busy(&binding);
        vdev_now()->reset_reads = VDEV_NEVER;
        assert_false(leave(&binding, bound));
        assert_int_equal(device_of(&binding)->exit.state, VIRTIO_STUCK);
        /* Again, and still bounded. */
        assert_false(leave(&binding, bound));
        /* A Stop() must not believe it either: no memory comes back, no buffer is unmapped. */
        uint64_t unmaps = vdev_counted()->unmaps, logs = vdev_counted()->logs;
        kind->refused(&binding);
        assert_false(unbind(&binding));
        assert_int_equal(vdev_counted()->unmaps, unmaps);
        assert_true(vdev_counted()->logs > logs);
        kind->ended(RESULT_DEVICE_ERROR);
        assert_no_violation();
        vdev_unplug();
    }
}

/* It may yet answer: then it has let go after all. */
static void quiesce_tries_a_stuck_device_again(void **state)
{
    const struct test_kind *kind = *state;
    struct vdev_options options = kind->usual();
    struct binding binding;

    options.pace = VDEV_BY_HAND;
    vdev_plug(&options);
    assert_int_equal(bind(&binding, kind), RESULT_OK);
    kind->busy(&binding);
    vdev_now()->stuck_reset_at = 2;
    assert_false(leave(&binding, 50));
    assert_true(leave(&binding, 50));
    assert_true(unbind(&binding));
    kind->ended(RESULT_ABORTED);
    assert_clean();
}

/* Several devices, one deadline: the second has what the first has left. */
static void a_deadline_that_is_past_leaves_one_look(void **state)
{
    const struct test_kind *kind = *state;
    struct vdev_options options = kind->usual();
    struct binding binding;

    options.reset_reads = 0;
    vdev_plug(&options);
    assert_int_equal(bind(&binding, kind), RESULT_OK);
    struct poor_door door = {.deadline = vdev_time() - 1000};
    assert_true(virtio_quiesce(&device_of(&binding)->exit, &door));
    assert_true(unbind(&binding));
    assert_clean();
    vdev_unplug();

    options.reset_reads = 2;
    vdev_plug(&options);
    assert_int_equal(bind(&binding, kind), RESULT_OK);
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
    const struct test_kind *kind = *state;
    struct vdev_options options = kind->usual();
    struct binding binding;

    vdev_plug(&options);
    assert_int_equal(bind(&binding, kind), RESULT_OK);
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
    const struct test_kind *kind = *state;
    struct vdev_options options = kind->usual();
    struct binding binding;

    options.pace = VDEV_BY_HAND;
    vdev_plug(&options);
    assert_int_equal(bind(&binding, kind), RESULT_OK);
    kind->busy(&binding);
    vdev_vanish();
    assert_false(leave(&binding, 100));
    assert_false(unbind(&binding));
    kind->ended(RESULT_ABORTED);
    assert_no_violation();
}

static void memory_of_a_stuck_device_is_not_given_back(void **state)
{
    const struct test_kind *kind = *state;

    for (unsigned k = 0; k < LENGTH(transports); k++) {
        struct vdev_options options = kind->usual();
        struct binding binding;

        options.transport = transports[k];
        options.pace = VDEV_BY_HAND;
        vdev_plug(&options);
        assert_int_equal(bind(&binding, kind), RESULT_OK);
        kind->busy(&binding);
        vdev_now()->reset_reads = VDEV_NEVER;
        uint64_t since = vdev_time();
        assert_false(unbind(&binding));
        assert_true(vdev_time() - since <= (VIRTIO_RESET_MS + 1) * MS);
        assert_true(vdev_counted()->logs != 0);
        assert_int_equal(vdev_counted()->unmaps, 0);
        assert_int_equal(dma_shared(), 1);
        assert_false(vdev_master());
        kind->ended(RESULT_ABORTED);
        assert_no_violation();
        vdev_unplug();
    }
}

static void detach_ends_what_is_in_flight(void **state)
{
    const struct test_kind *kind = *state;

    for (unsigned k = 0; k < LENGTH(transports); k++) {
        struct vdev_options options = kind->usual();
        struct binding binding;

        options.transport = transports[k];
        options.pace = VDEV_BY_HAND;
        options.reset_reads = 100; /* it writes into buffers until then */
        vdev_plug(&options);
        assert_int_equal(bind(&binding, kind), RESULT_OK);
        kind->busy(&binding);
        assert_true(unbind(&binding));
        kind->ended(RESULT_ABORTED);
        assert_false(vdev_master());
        assert_int_equal(vdev_counted()->master_off_live, 0);
        assert_clean();
        vdev_unplug();
    }
}

static void bind_and_unbind_a_thousand_times(void **state)
{
    const struct test_kind *kind = *state;
    struct vdev_options options = kind->usual();
    struct binding binding;

    vdev_plug(&options);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(bind(&binding, kind), RESULT_OK);
        if (i % 10 == 0)
            kind->work(&binding);
        assert_true(unbind(&binding));
        assert_clean();
        assert_false(vdev_master());
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(quiesce_does_nothing_where_nothing_is_live),
        cmocka_unit_test(quiesce_again_leaves_the_device_alone),
        cmocka_unit_test(quiesce_waits_for_the_acknowledgement),
        cmocka_unit_test(quiesce_of_a_stuck_device_is_bounded),
        cmocka_unit_test(quiesce_tries_a_stuck_device_again),
        cmocka_unit_test(a_deadline_that_is_past_leaves_one_look),
        cmocka_unit_test(quiesce_ends_where_the_clock_stands),
        cmocka_unit_test(quiesce_of_a_device_that_is_gone),
        cmocka_unit_test(memory_of_a_stuck_device_is_not_given_back),
        cmocka_unit_test(detach_ends_what_is_in_flight),
        cmocka_unit_test(bind_and_unbind_a_thousand_times),
    };
    return run_for_each_kind("letting go", tests, LENGTH(tests));
}
