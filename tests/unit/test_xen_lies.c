// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Backends that lie in the ring (C9): nothing is touched that is not in flight, nobody is told what
 * is not true, and the disk comes back once the backend is honest. */

#include "tests/unit/xen_harness.h"

#define COUNT 40

static void each(struct guest *guest, struct xio *io[COUNT])
{
    for (unsigned i = 0; i < COUNT; i++) {
        io[i] = xio_new(0, i % 3 ? DISK_READ : DISK_WRITE, 100 * i, i % 5 ? 4096 : 100 * 512,
                        i % 4 ? 0 : 1);
        assert_int_equal(xio_submit(guest, io[i]), RESULT_OK);
    }
    for (unsigned i = 0; i < COUNT; i++)
        xio_wait(guest, io[i]);
}

static unsigned failed(struct xio *io[COUNT])
{
    unsigned count = 0;

    for (unsigned i = 0; i < COUNT; i++) {
        count += io[i]->result != RESULT_OK;
        /* What is said to have been read has been. */
        if (io[i]->op == DISK_READ && io[i]->result == RESULT_OK)
            assert_memory_equal(io[i]->buffer, xhost_disk(0) + 100 * i * 512, io[i]->bytes);
        xio_free(io[i]);
    }
    return count;
}

static void a_lie(enum xhost_lie lie, const char *log, bool comes_back)
{
    static const enum xhost_pace paces[] = {XHOST_IN_ORDER, XHOST_SHUFFLED, XHOST_ONE_BY_ONE};

    for (unsigned k = 0; k < 4 * LENGTH(paces); k++) {
        struct xhost_options options = xhost_usual(2);
        struct guest guest;
        struct xio *io[COUNT];

        options.disks[0].pace = paces[k % LENGTH(paces)];
        options.parallel = k & 1;
        options.seed = k;
        xhost_plug(&options);
        guest_up(&guest);
        for (unsigned i = 0; i < k; i++) /* so that it comes at any place of the ring */
            assert_reads(&guest, 0, 8 * i, 4096, 0);
        xhost_now()->disks[0].lie = lie;
        xhost_now()->disks[0].lies = 1;
        uint64_t since = xhost_time();
        each(&guest, io);
        assert_true(failed(io) != 0);
        assert_non_null(strstr(xhost_last_log(), log));
        assert_true(xhost_time() - since < (PIECE_TIMEOUT_MS + 3 * XEN_BACKEND_MS) * MS);
        if (comes_back) {
            each(&guest, io);
            assert_int_equal(failed(io), 0);
        } else {
            assert_int_equal(xio_run(&guest, 0, DISK_READ, 0, 4096, 0), RESULT_DEVICE_ERROR);
        }
        assert_reads(&guest, 1, 0, 65536, 0);
        if (k & 2) {
            guest_exit(&guest, EXIT_MS);
            xhost_check_as_found();
            guest_handed_over(&guest);
            assert_no_violation();
        } else {
            guest_down(&guest);
        }
        switch_off(NULL);
    }
}

static void an_id_that_is_out_of_range(void **state)
{
    (void)state;
    a_lie(XLIE_ID_OUT_OF_RANGE, "its id is", true);
}

static void an_id_that_is_huge(void **state)
{
    (void)state;
    a_lie(XLIE_ID_HUGE, "its id is", true);
}

static void an_id_of_nobody(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    (void)state;

    xhost_plug(&options);
    guest_up(&guest);
    xhost_now()->disks[0].lie = XLIE_ID_OF_NOBODY;
    xhost_now()->disks[0].lies = 1;
    /* One request is in flight, and another one is answered. */
    assert_int_equal(xio_run(&guest, 0, DISK_READ, 0, 4096, 0), RESULT_DEVICE_ERROR);
    assert_non_null(strstr(xhost_last_log(), "its id is"));
    assert_reads(&guest, 0, 0, 4096, 0);
    guest_down(&guest);
}

/* One of two requests is answered twice, the other not at all. */
static void an_id_that_comes_twice(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    struct xio *io[2];
    (void)state;

    options.disks[0].pace = XHOST_BY_HAND;
    xhost_plug(&options);
    guest_up(&guest);
    for (unsigned i = 0; i < 2; i++) {
        io[i] = xio_new(0, DISK_READ, 8 * i, 4096, 0);
        assert_int_equal(xio_submit(&guest, io[i]), RESULT_OK);
    }
    xhost_now()->disks[0].lie = XLIE_ID_TWICE;
    xhost_now()->disks[0].lies = 1;
    xhost_finish(0, 1);
    xhost_now()->disks[0].pace = XHOST_IN_ORDER;
    xio_wait(&guest, io[1]);
    assert_non_null(strstr(xhost_last_log(), "its id is"));
    assert_int_equal(xio_free(io[0]), RESULT_OK);
    assert_int_equal(xio_free(io[1]), RESULT_DEVICE_ERROR);
    assert_reads(&guest, 0, 0, 65536, 0);
    guest_down(&guest);
}

static void another_operation(void **state)
{
    (void)state;
    a_lie(XLIE_OPERATION, "another operation", true);
}

static void an_index_that_jumps(void **state)
{
    (void)state;
    a_lie(XLIE_INDEX_JUMPS, "makes no sense", true);
}

static void an_index_that_goes_back(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    (void)state;

    xhost_plug(&options);
    guest_up(&guest);
    assert_reads(&guest, 0, 0, 65536, 0);
    xhost_now()->disks[0].lie = XLIE_INDEX_BACK;
    xhost_now()->disks[0].lies = 1;
    assert_int_equal(xio_run(&guest, 0, DISK_READ, 0, 4096, 0), RESULT_DEVICE_ERROR);
    assert_non_null(strstr(xhost_last_log(), "makes no sense"));
    assert_reads(&guest, 0, 0, 4096, 0);
    guest_down(&guest);
}

static void an_answer_that_is_lost(void **state)
{
    (void)state;
    a_lie(XLIE_LOST, "milliseconds", true);
}

/* It says that it has done, and has the pages mapped: they are not the caller's again before they
 * are others. */
static void pages_that_are_kept(void **state)
{
    struct xhost_options options = xhost_usual(2);
    struct guest guest;
    (void)state;

    xhost_plug(&options);
    guest_up(&guest);
    xhost_now()->disks[0].lie = XLIE_KEEPS_PAGES;
    xhost_now()->disks[0].lies = 1;
    assert_int_equal(xio_run(&guest, 0, DISK_READ, 0, 65536, 0), RESULT_DEVICE_ERROR);
    assert_int_equal(xhost_counted()->replaced, 16 + 1 + 2); /* data, segments, ring */
    assert_int_equal(xio_run(&guest, 0, DISK_READ, 0, 4096, 0), RESULT_DEVICE_ERROR);
    assert_reads(&guest, 1, 0, 65536, 0);
    guest_down(&guest);
}

/* A ring that says nonsense as the exit comes: the exit does not believe it either. */
static void a_lie_before_the_exit(void **state)
{
    (void)state;
    for (unsigned lie = XLIE_ID_OUT_OF_RANGE; lie <= XLIE_LOST; lie++) {
        struct xhost_options options = xhost_usual(2);
        struct guest guest;

        options.disks[0].pace = XHOST_BY_HAND;
        options.disks[0].lie = (enum xhost_lie)lie;
        options.disks[0].lies = 2;
        xhost_plug(&options);
        guest_up(&guest);
        for (unsigned i = 0; i < 20; i++)
            assert_int_equal(xio_submit(&guest, xio_new(0, DISK_READ, 8 * i, 4096, 0)), RESULT_OK);
        xhost_finish(0, 10);
        xhost_now()->disks[0].pace = XHOST_IN_ORDER;
        guest_exit(&guest, EXIT_MS);
        xhost_check_as_found();
        guest_handed_over(&guest);
        assert_int_equal(guest.leaked, 0);
        assert_no_violation();
        switch_off(NULL);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        xen_test(an_id_that_is_out_of_range),
        xen_test(an_id_that_is_huge),
        xen_test(an_id_of_nobody),
        xen_test(an_id_that_comes_twice),
        xen_test(another_operation),
        xen_test(an_index_that_jumps),
        xen_test(an_index_that_goes_back),
        xen_test(an_answer_that_is_lost),
        xen_test(pages_that_are_kept),
        xen_test(a_lie_before_the_exit),
    };
    return cmocka_run_group_tests_name("Xen backends that lie", tests, NULL, NULL);
}
