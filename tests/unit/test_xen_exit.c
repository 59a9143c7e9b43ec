// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Letting go of PV disks: the exit through the poor door, detach, restart, and hosts that do not
 * answer (C2 to C7). */

#include "tests/unit/xen_harness.h"

#define IN_FLIGHT 32u

static void start_reads(struct guest *guest, unsigned disk, struct xio **io, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        io[i] = xio_new(disk, i % 4 == 3 ? DISK_WRITE : DISK_READ, 8 * i, 4096, i % 2);
        assert_int_equal(xio_submit(guest, io[i]), RESULT_OK);
    }
    xhost_finish(disk, 0); /* the backend takes them all */
}

static void all_ended_with(struct xio **io, unsigned count, enum result result)
{
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(xio_free(io[i]), result);
}

/* After an exit: the next owner finds all as the first did, and its disks work. */
static void the_next_owner_comes(void)
{
    struct guest guest;

    xhost_check_as_found();
    assert_no_violation();
    guest_up(&guest);
    for (unsigned i = 0; i < xhost_now()->disk_count; i++) {
        xhost_now()->disks[i].pace = XHOST_IN_ORDER;
        assert_reads(&guest, i, 0, 65536, 0);
    }
    guest_down(&guest);
}

static void leave(struct guest *guest)
{
    guest_exit(guest, EXIT_MS);
    xhost_check_as_found();
    assert_no_violation();
}

static void exit_of_idle_disks(void **state)
{
    (void)state;
    for (unsigned disks = 0; disks <= 8; disks++)
        for (unsigned busy = 0; busy < 2; busy++) {
            struct xhost_options options = xhost_usual(disks);
            struct guest guest;

            options.parallel = busy;
            options.no_shared_page = disks % 4 == 3;
            for (unsigned i = 0; i < disks; i++)
                options.disks[i].cycles = (disks + i) % 3 == 0;
            xhost_plug(&options);
            guest_up(&guest);
            for (unsigned i = 0; i < disks; i++)
                assert_reads(&guest, i, 0, 65536, i);
            uint64_t since = xhost_time();
            leave(&guest);
            assert_true(xhost_time() - since < 50 * MS);
            guest_handed_over(&guest);
            the_next_owner_comes();
            xhost_unplug();
        }
}

/* It has finished them, or has not begun: either way nothing comes later. */
static void exit_with_reads_in_flight(void **state)
{
    static const enum xhost_pace paces[] = {XHOST_IN_ORDER, XHOST_ONE_BY_ONE, XHOST_SHUFFLED};
    (void)state;
    for (unsigned k = 0; k < 2 * LENGTH(paces); k++) {
        struct xhost_options options = xhost_usual(1 + k % 2);
        struct guest guest;
        struct xio *io[2][IN_FLIGHT];

        for (unsigned i = 0; i < options.disk_count; i++) {
            options.disks[i].pace = paces[k / 2];
            options.disks[i].io_us = 20000;
        }
        xhost_plug(&options);
        guest_up(&guest);
        for (unsigned i = 0; i < options.disk_count; i++)
            start_reads(&guest, i, io[i], IN_FLIGHT);
        assert_int_equal(xhost_in_flight(0), IN_FLIGHT);
        leave(&guest);
        assert_int_equal(xhost_in_flight(0), 0);
        assert_int_equal(xhost_counted()->replaced, 0);
        /* An ExitBootServices that has failed comes back to somebody who waits. */
        for (unsigned i = 0; i < options.disk_count; i++) {
            xio_wait(&guest, io[i][0]);
            all_ended_with(io[i], IN_FLIGHT, RESULT_DEVICE_ERROR);
        }
        guest_handed_over(&guest);
        the_next_owner_comes();
        xhost_unplug();
    }
}

/* The backend is slower than the exit may be. It keeps pages, but not ours. */
static void exit_with_reads_that_take_too_long(void **state)
{
    struct xhost_options options = xhost_usual(2);
    struct guest guest;
    struct xio *io[IN_FLIGHT], *other[IN_FLIGHT];
    unsigned char *before[IN_FLIGHT];
    (void)state;

    options.disks[0].pace = XHOST_BY_HAND;
    xhost_plug(&options);
    guest_up(&guest);
    start_reads(&guest, 0, io, IN_FLIGHT);
    start_reads(&guest, 1, other, IN_FLIGHT);
    for (unsigned i = 0; i < IN_FLIGHT; i++) {
        before[i] = malloc(4096);
        assert_non_null(before[i]);
        memcpy(before[i], io[i]->buffer, 4096);
    }
    leave(&guest);
    /* Linux says Closed all the same; that is what the exchange is for. */
    assert_true(xhost_counted()->replaced >= 2 + IN_FLIGHT / 2);
    assert_int_equal(guest.blk[0]->front.state, FRONT_DORMANT);
    assert_int_equal(guest.blk[1]->front.state, FRONT_DORMANT);
    assert_int_equal(xhost_in_flight(1), 0);
    /* What was in the pages still is, and what comes now does not reach them. */
    xhost_finish(0, IN_FLIGHT);
    for (unsigned i = 0; i < IN_FLIGHT; i++) {
        assert_memory_equal(io[i]->buffer, before[i], 4096);
        free(before[i]);
    }
    xhost_check_as_found();
    guest_handed_over(&guest);
    the_next_owner_comes();
}

static void exit_with_a_dead_backend(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 8; k++) {
        struct xhost_options options = xhost_usual(3);
        struct guest guest;
        struct xio *io[IN_FLIGHT];

        options.no_shared_page = k & 2;
        options.parallel = k & 4;
        options.disks[1].pace = XHOST_BY_HAND;
        xhost_plug(&options);
        guest_up(&guest);
        if (k & 1)
            start_reads(&guest, 1, io, IN_FLIGHT);
        assert_reads(&guest, 0, 0, 65536, 0);
        xhost_kill(1);
        uint64_t since = xhost_time();
        leave(&guest);
        assert_true(xhost_time() - since <= EXIT_MS * MS);
        /* The others are as found nevertheless. */
        assert_int_equal(xhost_backend_state(0), XenbusStateInitWait);
        assert_int_equal(xhost_backend_state(2), XenbusStateInitWait);
        assert_int_equal(xhost_frontend_state(1), XenbusStateInitialising);
        /* And for all that it costs, memory is not lost. */
        assert_int_equal(guest.blk[1]->front.state, FRONT_DORMANT);
        guest_handed_over(&guest);
        assert_int_equal(guest.leaked, 0);
        assert_no_violation();
        xhost_unplug();
    }
}

/* Slow in one step after the other: within the bound it is waited for, beyond it not. */
static void exit_with_a_backend_that_answers_late(void **state)
{
    static const unsigned steps[] = {XenbusStateClosing, XenbusStateClosed, XenbusStateInitWait};
    static const uint32_t late[] = {100, 200, 3000, XHOST_NEVER};
    (void)state;
    for (unsigned k = 0; k < LENGTH(steps) * LENGTH(late); k++) {
        struct xhost_options options = xhost_usual(2);
        struct guest guest;
        uint32_t ms = late[k % LENGTH(late)];

        xhost_plug(&options);
        guest_up(&guest);
        assert_reads(&guest, 0, 0, 65536, 0);
        xhost_now()->disks[1].step_ms[steps[k / LENGTH(late)]] = ms;
        uint64_t since = xhost_time();
        guest_exit(&guest, EXIT_MS);
        if (ms < 1000) {
            assert_true(xhost_time() - since < (2 * ms + 100) * MS);
            xhost_check_as_found();
        }
        assert_int_equal(xhost_backend_state(0), XenbusStateInitWait);
        assert_int_equal(xhost_frontend_state(1), XenbusStateInitialising);
        guest_handed_over(&guest);
        assert_int_equal(guest.leaked, 0);
        assert_no_violation();
        xhost_unplug();
    }
}

/* What closing takes: the waits overlap, so that eight disks cost little more time than one. */
static void exit_of_eight_disks_takes_the_time_of_one(void **state)
{
    uint64_t took[9], waits[9], messages[9], hypercalls[9];
    (void)state;
    for (unsigned disks = 1; disks <= 8; disks += 7) {
        struct xhost_options options = xhost_usual(disks);
        struct guest guest;

        for (unsigned i = 0; i < disks; i++)
            for (unsigned step = 0; step < 7; step++)
                options.disks[i].step_ms[step] = 20;
        xhost_plug(&options);
        guest_up(&guest);
        struct xhost_counts before = *xhost_counted();
        uint64_t since = xhost_time();
        leave(&guest);
        took[disks] = xhost_time() - since;
        waits[disks] = xhost_counted()->waits - before.waits;
        messages[disks] = xhost_counted()->messages - before.messages;
        hypercalls[disks] = xhost_counted()->hypercalls - before.hypercalls;
        print_message(
            "             %u disks: %llu us, %llu waits, %llu messages, %llu hypercalls\n", disks,
            (unsigned long long)took[disks], (unsigned long long)waits[disks],
            (unsigned long long)messages[disks], (unsigned long long)hypercalls[disks]);
        guest_handed_over(&guest);
        xhost_unplug();
    }
    assert_true(took[8] * 2 <= took[1] * 3);
    assert_true(waits[1] <= 25);
    assert_true(waits[8] <= 4 * waits[1]);
    assert_true(messages[1] <= 30);
    assert_true(messages[8] <= 8 * messages[1]);
    assert_true(hypercalls[8] <= 8 * hypercalls[1]);
}

/* ExitBootServices may be refused and called again (C3). */
static void exit_twice(void **state)
{
    (void)state;
    for (unsigned dead = 0; dead < 2; dead++) {
        struct xhost_options options = xhost_usual(2);
        struct guest guest;

        options.reconnection = true;
        xhost_plug(&options);
        guest_up(&guest);
        if (dead)
            xhost_kill(1);
        leave(&guest);
        struct xhost_counts before = *xhost_counted();
        uint64_t since = xhost_time();
        leave(&guest);
        assert_int_equal(xhost_counted()->hypercalls, before.hypercalls);
        assert_int_equal(xhost_counted()->messages, before.messages);
        assert_true(xhost_time() - since < MS);
        /* The disk does not come to life again. */
        assert_int_equal(xio_run(&guest, 0, DISK_READ, 0, 4096, 0), RESULT_DEVICE_ERROR);
        assert_int_not_equal(disk_of(&guest, 0)->ops->restart(disk_of(&guest, 0), RESULT_ABORTED),
                             RESULT_OK);
        disk_poll(&guest, 0);
        assert_false(disk_of(&guest, 0)->ops->ready(disk_of(&guest, 0)));
        disk_of(&guest, 0)->ops->wait(disk_of(&guest, 0));
        assert_false(blkfront_gone(guest.blk[0]));
        xen_list_changed(guest.xen);
        assert_int_equal(xhost_counted()->hypercalls, before.hypercalls);
        /* And a loader that stays may unload the driver. */
        guest_leave(&guest);
        assert_int_equal(guest.leaked, 0);
        assert_int_equal(xhost_counted()->hypercalls, before.hypercalls);
        xhost_check_as_found();
        assert_no_violation();
        xio_free_all();
        xhost_unplug();
    }
}

/* Handlers of one level may come in any order: the bus's may be first, or between. */
static void the_order_of_the_handlers(void **state)
{
    (void)state;
    for (unsigned order = 0; order < 3; order++) {
        struct xhost_options options = xhost_usual(3);
        struct guest guest;
        struct xio *io[3][8];

        xhost_plug(&options);
        guest_up(&guest);
        for (unsigned i = 0; i < 3; i++)
            start_reads(&guest, i, io[i], 8);
        struct poor_door door = {.deadline = clock_ticks() + EXIT_MS * MS};
        xhost_poor(true);
        for (unsigned i = 0; i < 4; i++) {
            if (i == 2 * order || (order == 2 && i == 3))
                xen_quiesce(guest.xen, &door);
            fronts_quiesce(guest.xen, &door);
        }
        xen_quiesce(guest.xen, &door);
        xhost_poor(false);
        xhost_check_as_found();
        guest_handed_over(&guest);
        the_next_owner_comes();
        xhost_unplug();
    }
}

/* Another device has taken all the time that there was. What needs no answer is done, nothing is
 * waited for, and no page stays within reach. */
static void exit_with_a_deadline_that_is_past(void **state)
{
    (void)state;
    for (unsigned parallel = 0; parallel < 2; parallel++) {
        struct xhost_options options = xhost_usual(2);
        struct guest guest;
        struct xio *io[IN_FLIGHT];

        options.parallel = parallel;
        options.disks[0].pace = XHOST_BY_HAND;
        xhost_plug(&options);
        guest_up(&guest);
        start_reads(&guest, 0, io, IN_FLIGHT);
        xhost_skip_ms(10);
        struct poor_door door = {.deadline = clock_ticks() - 5 * MS};
        uint64_t since = xhost_time();
        xhost_poor(true);
        fronts_quiesce(guest.xen, &door);
        xen_quiesce(guest.xen, &door);
        xhost_poor(false);
        assert_true(xhost_time() - since < 20 * MS);
        assert_int_equal(guest.blk[0]->front.state, FRONT_DORMANT);
        guest_handed_over(&guest);
        assert_int_equal(guest.leaked, 0);
        assert_no_violation();
        xhost_unplug();
    }
}

/* XenStore has gone silent before the exit: nobody can be told anything. Memory is safe. */
static void exit_without_xenstore(void **state)
{
    (void)state;
    for (unsigned reads = 0; reads < 2; reads++) {
        struct xhost_options options = xhost_usual(2);
        struct guest guest;
        struct xio *io[IN_FLIGHT];

        options.disks[1].pace = XHOST_BY_HAND;
        xhost_plug(&options);
        guest_up(&guest);
        if (reads)
            start_reads(&guest, 1, io, IN_FLIGHT);
        xhost_break_store();
        guest_exit(&guest, EXIT_MS);
        xhost_check_as_found();
        assert_true(xhost_counted()->replaced >= 4); /* two rings */
        guest_handed_over(&guest);
        assert_int_equal(guest.leaked, 0);
        assert_no_violation();
        xhost_unplug();
    }
}

/* Where it can be had back, the exit has it back, and is as clean as any. */
static void exit_with_xenstore_lost_and_found(void **state)
{
    (void)state;
    for (unsigned disks = 0; disks < 3; disks++) {
        struct xhost_options options = xhost_usual(disks);
        struct guest guest;
        uint32_t numbers[8];
        size_t count;

        options.reconnection = true;
        xhost_plug(&options);
        guest_up(&guest);
        xhost_break_store();
        assert_int_not_equal(xen_list(guest.xen, xhost_door(), numbers, 8, &count), RESULT_OK);
        assert_non_null(strstr(xhost_last_log(), "XenStore"));
        for (unsigned i = 0; i < disks; i++)
            assert_reads(&guest, i, 0, 4096, 0); /* disks do not need it for this */
        leave(&guest);
        assert_int_equal(xhost_watches(), 0);
        guest_handed_over(&guest);
        the_next_owner_comes();
        xhost_unplug();
    }
}

/* It gets out of step in the middle of it all, at whichever answer: what was not heard is said
 * again. */
static void exit_in_which_xenstore_is_lost(void **state)
{
    static const enum xhost_fault faults[] = {XFAULT_WRONG_ID, XFAULT_TOO_LONG, XFAULT_TWICE};
    unsigned runs = 0;
    (void)state;

    for (unsigned f = 0; f < LENGTH(faults); f++)
        for (uint64_t k = 1;; k++) {
            struct xhost_options options = xhost_usual(2);
            struct guest guest;
            char key[64];

            options.reconnection = true;
            xhost_plug(&options);
            guest_up(&guest);
            xhost_now()->fault = faults[f];
            xhost_now()->answer_wrong_at = xhost_counted()->answers + k;
            guest_exit(&guest, EXIT_MS);
            bool happened = xhost_fault_happened();
            for (unsigned i = 0; i < 2; i++) {
                assert_int_equal(guest.blk[i]->front.state, FRONT_DORMANT);
                assert_int_equal(xhost_frontend_state(i), XenbusStateInitialising);
                assert_int_equal(xhost_backend_state(i), XenbusStateInitWait);
                for (unsigned name = 0; name < KEYS; name++) {
                    snprintf(key, sizeof(key), "/local/domain/5/device/vbd/%u/%s",
                             options.disks[i].number, front_keys[name]);
                    assert_null(xhost_key(key));
                }
            }
            assert_int_equal(xhost_watches(), 0);
            assert_int_equal(xhost_counted()->replaced, 0);
            guest_handed_over(&guest);
            assert_no_violation();
            xhost_unplug();
            if (!happened)
                break;
            runs++;
        }
    assert_true(runs > LENGTH(faults) * 20);
}

/* As much is in flight as can be taken back, however much was asked for; and a disk whose backend
 * is well works beside others that have all the room there is. */
static void exit_with_all_that_may_be_in_flight(void **state)
{
    struct xhost_options options = xhost_usual(4);
    struct guest guest;
    struct xio *io[3][IN_FLIGHT];
    (void)state;

    for (unsigned i = 0; i < 3; i++)
        options.disks[i].pace = XHOST_BY_HAND;
    options.reserve_pages = BLKFRONT_RESERVE_PAGES;
    xhost_plug(&options);
    guest_up(&guest);
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned k = 0; k < IN_FLIGHT; k++) {
            io[i][k] = xio_new(i, DISK_READ, 0, 128 << 10, k % 2 * 512);
            assert_int_equal(xio_submit(&guest, io[i][k]), RESULT_OK);
        }
        xhost_finish(i, 0);
    }
    assert_true(guest.xen->in_flight > BLKFRONT_FLIGHT_PAGES / 2);
    assert_reads(&guest, 3, 0, 128 << 10, 0);
    assert_reads(&guest, 3, 8, 128 << 10, 1);
    leave(&guest);
    assert_true(xhost_counted()->replaced > BLKFRONT_FLIGHT_PAGES / 2);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(guest.blk[i]->front.state, FRONT_DORMANT);
    guest_handed_over(&guest);
    assert_int_equal(guest.leaked, 0);
    assert_no_violation();
}

/* An error is not an answer: the question is asked again. */
static void exit_with_errors_of_xenstores(void **state)
{
    (void)state;
    for (uint32_t errors = 1; errors < 6; errors++) {
        struct xhost_options options = xhost_usual(2);
        struct guest guest;

        xhost_plug(&options);
        guest_up(&guest);
        assert_reads(&guest, 0, 0, 4096, 0);
        xhost_now()->read_errors = errors;
        leave(&guest);
        assert_int_equal(xhost_counted()->replaced, 0);
        guest_handed_over(&guest);
        the_next_owner_comes();
        xhost_unplug();
    }
}

/* A backend that is being taken away, or has been: there is nobody to shake hands with. */
static void exit_while_a_disk_is_taken_away(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 3; how++) {
        struct xhost_options options = xhost_usual(2);
        struct guest guest;

        xhost_plug(&options);
        guest_up(&guest);
        if (how == 0)
            xhost_close(1); /* an error of its own: it comes back */
        else if (how == 1)
            xhost_unplug_disk(1);
        else
            xhost_vanish(1);
        xhost_skip_ms(10);
        uint64_t since = xhost_time();
        guest_exit(&guest, EXIT_MS);
        assert_true(how == 1 || xhost_time() - since < 500 * MS);
        xhost_check_as_found();
        guest_handed_over(&guest);
        assert_int_equal(guest.leaked, 0);
        assert_no_violation();
        xhost_unplug();
    }
}

/* The backend says that it is closed, and is not: its word is not enough. */
static void a_backend_that_clings_to_its_pages(void **state)
{
    (void)state;
    for (unsigned by_exit = 0; by_exit < 2; by_exit++) {
        struct xhost_options options = xhost_usual(1);
        struct guest guest;

        options.disks[0].never_unmaps = true;
        xhost_plug(&options);
        guest_up(&guest);
        assert_reads(&guest, 0, 0, 65536, 0);
        if (by_exit) {
            leave(&guest);
            guest_handed_over(&guest);
        } else {
            guest_down(&guest);
        }
        assert_int_equal(xhost_counted()->replaced, 2); /* the ring's pages */
        assert_no_violation();
        xhost_unplug();
    }
}

/* And there is no reserve: then memory is lost, and that is said (C5). */
static void a_backend_that_clings_where_there_is_no_memory(void **state)
{
    (void)state;
    for (unsigned by_exit = 0; by_exit < 2; by_exit++) {
        struct xhost_options options = xhost_usual(2);
        struct guest guest;

        options.disks[1].never_unmaps = true;
        options.reserve_pages = 0;
        xhost_plug(&options);
        guest_up(&guest);
        assert_reads(&guest, 1, 0, 65536, 0);
        if (by_exit) {
            guest_exit(&guest, EXIT_MS);
            assert_int_equal(guest.blk[1]->front.state, FRONT_STUCK);
            assert_int_equal(guest.blk[0]->front.state, FRONT_DORMANT);
            guest_exit(&guest, EXIT_MS);
            assert_int_equal(xio_run(&guest, 1, DISK_READ, 0, 512, 0), RESULT_DEVICE_ERROR);
            guest_handed_over(&guest);
        } else {
            uint64_t logs = xhost_counted()->logs;
            assert_false(guest_drop(&guest, 1));
            assert_true(xhost_counted()->logs > logs);
            guest_leave(&guest);
        }
        assert_int_equal(guest.leaked, 1);
        assert_int_equal(xhost_allocations(), 1);
        assert_no_violation();
        switch_off(NULL);
    }
}

static void detach_ends_what_is_in_flight(void **state)
{
    (void)state;
    for (unsigned count = 0; count <= 128; count += 32) {
        struct xhost_options options = xhost_usual(1);
        struct guest guest;
        struct xio *io[128];

        options.disks[0].pace = XHOST_SHUFFLED;
        options.disks[0].io_us = 5000;
        xhost_plug(&options);
        guest_up(&guest);
        start_reads(&guest, 0, io, count);
        assert_true(guest_drop(&guest, 0));
        all_ended_with(io, count, RESULT_ABORTED);
        guest_down(&guest);
        xhost_unplug();
    }
}

/* One disk goes, the others do not notice. */
static void detach_of_one_disk_leaves_the_others(void **state)
{
    struct xhost_options options = xhost_usual(4);
    struct guest guest;
    struct xio *io[IN_FLIGHT];
    (void)state;

    xhost_plug(&options);
    guest_up(&guest);
    for (unsigned i = 0; i < 4; i++) {
        unsigned other = (i + 1) % 4;
        start_reads(&guest, other, io, IN_FLIGHT);
        assert_true(guest_drop(&guest, i));
        assert_int_equal(xhost_backend_state(i), XenbusStateInitWait);
        assert_int_equal(xhost_backend_state(other), XenbusStateConnected);
        for (unsigned k = 0; k < IN_FLIGHT; k++)
            xio_wait(&guest, io[k]);
        all_ended_with(io, IN_FLIGHT, RESULT_OK);
        assert_int_equal(guest_disk(&guest, i), RESULT_OK);
        assert_reads(&guest, i, 0, 4096, 0);
    }
    guest_down(&guest);
}

static void restart_ends_all_and_comes_back(void **state)
{
    struct xhost_options options = xhost_usual(2);
    struct guest guest;
    struct xio *io[100];
    (void)state;

    options.disks[0].pace = XHOST_SHUFFLED;
    xhost_plug(&options);
    guest_up(&guest);
    for (unsigned round = 0; round < 5; round++) {
        start_reads(&guest, 0, io, LENGTH(io));
        assert_int_equal(disk_of(&guest, 0)->ops->restart(disk_of(&guest, 0), RESULT_ABORTED),
                         RESULT_OK);
        for (unsigned i = 0; i < LENGTH(io); i++)
            assert_int_equal(io[i]->done, 1);
        for (unsigned i = 0; i < LENGTH(io); i++)
            xio_free(io[i]);
        assert_reads(&guest, 0, 0, 1u << 20, 0);
        assert_reads(&guest, 1, 0, 4096, 0);
    }
    guest_down(&guest);
}

/* No answer for 30 s, and no other sign of life: the requests fail. */
static void a_backend_that_never_answers_times_out(void **state)
{
    struct xhost_options options = xhost_usual(2);
    struct guest guest;
    struct xio *io[100];
    (void)state;

    options.disks[0].pace = XHOST_BY_HAND;
    xhost_plug(&options);
    guest_up(&guest);
    xhost_skip_ms(100000); /* an idle disk does not run out of time */
    start_reads(&guest, 0, io, LENGTH(io));
    xhost_kill(0);
    uint64_t since = xhost_time();
    xio_wait(&guest, io[0]);
    uint64_t took = xhost_time() - since;
    assert_true(took > PIECE_TIMEOUT_MS * MS);
    assert_true(took < (PIECE_TIMEOUT_MS + 3 * XEN_BACKEND_MS) * MS);
    all_ended_with(io, LENGTH(io), RESULT_TIMEOUT);
    assert_int_equal(xio_run(&guest, 0, DISK_READ, 0, 512, 0), RESULT_DEVICE_ERROR);
    assert_reads(&guest, 1, 0, 4096, 0);
    leave(&guest);
    guest_handed_over(&guest);
    assert_no_violation();
}

/* Slow, but alive: no reason to give it up, and no more is asked of it. */
static void a_slow_backend_does_not_time_out(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    struct xio *io[10];
    (void)state;

    options.disks[0].pace = XHOST_BY_HAND;
    xhost_plug(&options);
    guest_up(&guest);
    start_reads(&guest, 0, io, LENGTH(io));
    for (unsigned i = 0; i < LENGTH(io); i++) {
        xhost_skip_ms(PIECE_TIMEOUT_MS * 9 / 10);
        disk_poll(&guest, 0);
        xhost_finish(0, 1);
        disk_poll(&guest, 0);
        assert_int_equal(io[i]->done, 1);
    }
    all_ended_with(io, LENGTH(io), RESULT_OK);
    guest_down(&guest);
}

static void up_and_down_many_times(void **state)
{
    struct xhost_options options = xhost_usual(2);
    struct guest guest;
    (void)state;

    options.disks[0].sectors = options.disks[1].sectors = 64;
    xhost_plug(&options);
    for (unsigned i = 0; i < 300; i++) {
        guest_up(&guest);
        assert_reads(&guest, i % 2, i % 60, 2048, 0);
        if (i % 2) {
            leave(&guest);
            guest_handed_over(&guest);
        } else {
            guest_down(&guest);
        }
    }
    assert_int_equal(xhost_counted()->replaced, 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        xen_test(exit_of_idle_disks),
        xen_test(exit_with_reads_in_flight),
        xen_test(exit_with_reads_that_take_too_long),
        xen_test(exit_with_a_dead_backend),
        xen_test(exit_with_a_backend_that_answers_late),
        xen_test(exit_of_eight_disks_takes_the_time_of_one),
        xen_test(exit_twice),
        xen_test(the_order_of_the_handlers),
        xen_test(exit_with_a_deadline_that_is_past),
        xen_test(exit_without_xenstore),
        xen_test(exit_with_xenstore_lost_and_found),
        xen_test(exit_in_which_xenstore_is_lost),
        xen_test(exit_with_all_that_may_be_in_flight),
        xen_test(exit_with_errors_of_xenstores),
        xen_test(exit_while_a_disk_is_taken_away),
        xen_test(a_backend_that_clings_to_its_pages),
        xen_test(a_backend_that_clings_where_there_is_no_memory),
        xen_test(detach_ends_what_is_in_flight),
        xen_test(detach_of_one_disk_leaves_the_others),
        xen_test(restart_ends_all_and_comes_back),
        xen_test(a_backend_that_never_answers_times_out),
        xen_test(a_slow_backend_does_not_time_out),
        xen_test(up_and_down_many_times),
    };
    return cmocka_run_group_tests_name("Xen disks letting go", tests, NULL, NULL);
}
