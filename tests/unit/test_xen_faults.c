// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * Every start-up, transfer and shutdown once per possible failure: hypercall k fails, XenStore's
 * answer k is wrong, in each way that it can be, for every k, until a life has no k-th one.
 * Afterwards no page is reachable for a backend that was not lost on purpose, and all is as found
 * but what the failure itself has made impossible (C4 to C7).
 */

#include "tests/unit/xen_harness.h"

/* Shapes of the host, one bit each; any of them together. */
enum {
    PARALLEL = 1,  /* the others have CPUs of their own, and finish in any order */
    PIECEMEAL = 2, /* XenStore moves a few bytes at a time, with others' events in between */
    BLIND = 4,     /* there is no shared-info page */
    DEAF = 8,      /* at the end, the first disk's backend dies with requests in flight */
    CLINGING = 16, /* it says that it has closed, and has the pages mapped all the same */
    SMALL = 32,    /* one disk, one transfer: where there are many runs */
};

static struct xhost_options shape(unsigned bits)
{
    struct xhost_options options = xhost_usual(bits & SMALL ? 1 : 2);

    for (unsigned i = 0; i < options.disk_count; i++) {
        options.disks[i].sectors = 512;
        options.disks[i].pace = bits & PARALLEL ? XHOST_SHUFFLED : XHOST_IN_ORDER;
    }
    if (options.disk_count > 1) {
        options.disks[1].ring_order = 0;
        options.disks[1].segments = 0;
        options.disks[1].flush = false;
    }
    options.parallel = bits & PARALLEL;
    options.event_first = bits & PARALLEL;
    options.no_shared_page = bits & BLIND;
    if (bits & PIECEMEAL) {
        options.store_chunk = 13;
        options.noise = true;
        options.spurious = 5;
        options.ring_start = UINT32_MAX - 700;
        options.conflicts = 1;
    }
    return options;
}

#define COUNT 8

static void start_some(struct guest *guest, unsigned disk, struct xio *io[COUNT])
{
    for (unsigned i = 0; i < COUNT; i++) {
        io[i] = i % 5 == 4 ? xio_new(disk, DISK_FLUSH, 0, 0, 0)
                           : xio_new(disk, i % 2 ? DISK_WRITE : DISK_READ, 56 * i,
                                     512 * (1 + i * 7), i % 3 * 512 + i / 4);
        xio_submit(guest, io[i]);
    }
}

/* Results may be anything but a lie: what is said to have been read was read. */
static void wait_for(struct guest *guest, struct xio *io[COUNT])
{
    for (unsigned i = 0; i < COUNT; i++) {
        xio_wait(guest, io[i]);
        if (io[i]->result == RESULT_OK && io[i]->op == DISK_READ)
            assert_memory_equal(io[i]->buffer, xhost_disk(io[i]->disk) + io[i]->sector * 512,
                                io[i]->bytes);
        xio_free(io[i]);
    }
}

static void live(struct guest *guest, unsigned bits, bool by_exit)
{
    struct xio *io[XHOST_DISKS_MAX][COUNT];
    unsigned disks = xhost_now()->disk_count;

    for (unsigned i = 0; i < disks; i++)
        if (guest->blk[i]) {
            start_some(guest, i, io[i]);
            if (!(bits & SMALL))
                disk_of(guest, i)->ops->restart(disk_of(guest, i), RESULT_ABORTED);
        }
    for (unsigned i = 0; i < disks; i++)
        if (guest->blk[i])
            wait_for(guest, io[i]);
    if (bits & (DEAF | CLINGING))
        xhost_now()->disks[0].pace = XHOST_BY_HAND;
    for (unsigned i = 0; i < disks; i++)
        if (guest->blk[i])
            start_some(guest, i, io[i]);
    if (bits & (DEAF | CLINGING)) {
        xhost_finish(0, 1); /* and takes the others out of the ring */
        if (bits & DEAF)
            xhost_kill(0);
        xhost_now()->disks[0].never_unmaps = bits & CLINGING;
    }
    if (by_exit) {
        guest_exit(guest, EXIT_MS);
        guest_exit(guest, EXIT_MS);
    } else {
        for (unsigned i = 0; i < disks; i++)
            if (guest->blk[i])
                guest_drop(guest, i);
        guest_leave(guest);
    }
}

/* One run; returns whether the failure came to pass. */
static bool run_with(const struct xhost_options *options, unsigned bits, bool by_exit)
{
    struct guest guest;

    xhost_plug(options);
    uint64_t since = xhost_time();
    if (guest_begin(&guest) == RESULT_OK) {
        for (unsigned i = 0; i < options->disk_count; i++) {
            uint64_t logs = xhost_counted()->logs;
            if (guest_disk(&guest, i) != RESULT_OK && xhost_counted()->logs == logs)
                model_violation("a disk is missing, and nobody has said why");
        }
        live(&guest, bits, by_exit);
    } else if (xhost_counted()->logs == 0) {
        model_violation("all disks are missing, and nobody has said why");
    }
    if (xhost_time() - since > 300000 * MS)
        model_violation("C6: it took %llu ms", (unsigned long long)((xhost_time() - since) / MS));
    bool happened = xhost_fault_happened();
    bool stuck = guest.leaked != 0;
    for (unsigned i = 0; guest.xen && i < options->disk_count; i++)
        stuck |= guest.blk[i] && guest.blk[i]->front.state == FRONT_STUCK;
    /* Only Xen itself can bring it so far that memory is lost. */
    if (stuck && options->hypercall_fails_at == 0)
        model_violation("C5: memory was lost");
    if (!stuck)
        xhost_check_as_found();
    if (guest.xen)
        guest_handed_over(&guest);
    else
        xio_free_all();
    if (!stuck && xhost_allocations() != 0)
        model_violation("memory was not given back");
    if (model_violations() != 0)
        fail_msg("violations with shape %u, %s, hypercall %llu, answer %llu wrong in way %u; the "
                 "last log line: %s",
                 bits, by_exit ? "exit" : "detach", (unsigned long long)options->hypercall_fails_at,
                 (unsigned long long)options->answer_wrong_at, options->fault, xhost_last_log());
    switch_off(NULL);
    return happened;
}

static void each_hypercall(unsigned bits)
{
    struct xhost_options options = shape(bits);
    unsigned long long k = 0;

    do {
        options.hypercall_fails_at = ++k;
        options.seed = (uint32_t)k;
        assert_true(k < 5000);
    } while (run_with(&options, bits, k % 2));
    assert_true(k > 40);
    print_message("             %llu failures\n", k - 1);
}

static void each_hypercall_fails_once(void **state)
{
    (void)state;
    each_hypercall(0);
}

static void each_hypercall_fails_once_on_a_busy_host(void **state)
{
    (void)state;
    each_hypercall(PARALLEL | PIECEMEAL | SMALL);
}

static void each_hypercall_fails_once_without_the_page(void **state)
{
    (void)state;
    each_hypercall(BLIND);
}

static void each_hypercall_fails_once_with_a_backend_that_dies(void **state)
{
    (void)state;
    each_hypercall(DEAF);
}

static void each_hypercall_fails_once_with_a_backend_that_clings(void **state)
{
    (void)state;
    each_hypercall(CLINGING | SMALL);
}

static void each_answer(unsigned bits, bool reconnection)
{
    unsigned long long runs = 0;

    for (unsigned fault = 0; fault < XFAULTS; fault++) {
        struct xhost_options options = shape(bits);
        uint64_t k = 0;
        options.fault = (enum xhost_fault)fault;
        options.reconnection = reconnection;
        do {
            options.answer_wrong_at = ++k;
            options.seed = (uint32_t)k;
            runs++;
            assert_true(k < 5000);
        } while (run_with(&options, bits, k % 2));
        assert_true(k > 20);
    }
    print_message("             %llu runs\n", runs);
}

static void each_answer_is_wrong_once(void **state)
{
    (void)state;
    each_answer(SMALL, false);
}

static void each_answer_is_wrong_once_with_two_disks(void **state)
{
    (void)state;
    each_answer(0, false);
}

static void each_answer_is_wrong_once_where_reconnection_is_offered(void **state)
{
    (void)state;
    each_answer(SMALL | PARALLEL | PIECEMEAL, true);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        xen_test(each_hypercall_fails_once),
        xen_test(each_hypercall_fails_once_on_a_busy_host),
        xen_test(each_hypercall_fails_once_without_the_page),
        xen_test(each_hypercall_fails_once_with_a_backend_that_dies),
        xen_test(each_hypercall_fails_once_with_a_backend_that_clings),
        xen_test(each_answer_is_wrong_once),
        xen_test(each_answer_is_wrong_once_with_two_disks),
        xen_test(each_answer_is_wrong_once_where_reconnection_is_offered),
    };
    return cmocka_run_group_tests_name("Xen disks, call k fails", tests, NULL, NULL);
}
