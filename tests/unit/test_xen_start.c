// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Coming up: the domain, its XenStore and its disks, as they should be and as they should not
 * (C5, C6, C9). */

#include "tests/unit/xen_harness.h"

/* What is wrong with one disk is no other's business. */
static void other_disk_works(struct guest *guest)
{
    assert_int_equal(guest_disk(guest, 1), RESULT_OK);
    assert_reads(guest, 1, 0, 65536, 0);
}

/* The first of two disks fails to come up, with a reason in the log; what was begun is undone. */
static void first_disk_fails(const struct xhost_options *options, enum result result)
{
    struct guest guest;

    xhost_plug(options);
    assert_int_equal(guest_begin(&guest), RESULT_OK);
    uint64_t logs = xhost_counted()->logs;
    assert_int_equal(guest_disk(&guest, 0), result);
    assert_true(xhost_counted()->logs > logs);
    other_disk_works(&guest);
    guest_down(&guest);
    xhost_unplug();
}

/* ---- The domain ---- */

static void xen_is_found_wherever_its_leaves_are(void **state)
{
    struct xhost_options options = xhost_usual(0);
    (void)state;

    for (uint32_t leaf = 0x40000000; leaf < 0x40000400; leaf += 0x100) {
        options.leaf = leaf;
        options.other_too = leaf != 0x40000000;
        xhost_plug(&options);
        assert_true(xen_found());
    }
    options.leaf = 0;
    xhost_plug(&options);
    assert_false(xen_found());
    options.other_too = false;
    xhost_plug(&options);
    assert_false(xen_found());
}

static void a_domain_without_the_platform_device(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct reg_window places[] = {xhost_place(), xhost_place(), xhost_place(), xhost_place()};
    struct xen *xen = malloc(sizeof(*xen));
    (void)state;

    assert_non_null(xen);
    places[0].bytes = 0;
    places[1].bytes = 4096;
    places[2].base += 8;
    places[3].port = true;
    xhost_plug(&options);
    for (unsigned i = 0; i < LENGTH(places); i++) {
        uint64_t logs = xhost_counted()->logs;
        memset(xen, 0xcc, sizeof(*xen));
        assert_int_equal(xen_begin(xen, xhost_door(), &places[i]), RESULT_UNSUPPORTED);
        assert_true(xhost_counted()->logs > logs);
        /* The exit finds nothing to do. */
        struct poor_door door = {.deadline = clock_ticks() + 10 * MS};
        xen_quiesce(xen, &door);
        fronts_quiesce(xen, &door);
        xhost_check_as_found();
        assert_no_violation();
    }
    free(xen);
}

/* Two pages are enough for one frame of grants. */
static void a_small_place(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct reg_window place = xhost_place();
    struct xen *xen = malloc(sizeof(*xen));
    struct poor_door door;
    (void)state;

    assert_non_null(xen);
    xhost_plug(&options);
    place.bytes = 2 * 4096;
    assert_int_equal(xen_begin(xen, xhost_door(), &place), RESULT_OK);
    assert_int_equal(xen->grants.frames_max, 1);
    door.deadline = clock_ticks() + 100 * MS;
    xen_quiesce(xen, &door);
    xhost_check_as_found();
    assert_no_violation();
    free(xen);
}

static void a_grant_table_of_version_2(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    (void)state;

    options.grant_version = 2;
    xhost_plug(&options);
    guest_up(&guest);
    assert_reads(&guest, 0, 0, 4096, 0);
    guest_down(&guest);
}

/* XenStore's ring may be anywhere in its indices, and have in it what a former owner left. */
static void a_ring_that_has_been_used(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 64; k++) {
        struct xhost_options options = xhost_usual(2);
        struct guest guest;

        options.relic = k & 1;
        options.store_chunk = k & 2 ? 1 + k / 2 : 0;
        options.ring_start = k & 4 ? UINT32_MAX - 8 * k : 1000 + k;
        options.event_first = k & 8;
        options.noise = k & 16;
        options.parallel = k & 32;
        options.store_us = k & 32 ? 0 : 50;
        options.spurious = k % 3 ? 0 : 3;
        xhost_plug(&options);
        guest_up(&guest);
        assert_reads(&guest, 0, 0, 4096, 0);
        guest_exit(&guest, EXIT_MS);
        xhost_check_as_found();
        guest_handed_over(&guest);
        assert_no_violation();
        xhost_unplug();
    }
}

/* A former owner has left in the middle of a message: no answer can be trusted any more. */
static void a_ring_that_is_out_of_step(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 4; k++) {
        struct xhost_options options = xhost_usual(1);
        struct guest guest;

        options.half_answer = k & 1;
        options.half_request = !options.half_answer;
        options.reconnection = k & 2;
        xhost_plug(&options);
        uint64_t since = xhost_time();
        if (options.reconnection) {
            guest_up(&guest);
            assert_reads(&guest, 0, 0, 4096, 0);
            guest_down(&guest);
        } else {
            assert_int_equal(guest_begin(&guest), RESULT_TIMEOUT);
            assert_true(xhost_counted()->logs != 0);
            xhost_check_as_found();
            assert_no_violation();
        }
        assert_true(xhost_time() - since < 3 * XEN_STORE_MS * MS);
        xhost_unplug();
    }
}

static void a_xenstore_that_never_answers(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    (void)state;

    options.store_us = XHOST_NEVER;
    xhost_plug(&options);
    uint64_t since = xhost_time();
    assert_int_equal(guest_begin(&guest), RESULT_TIMEOUT);
    assert_true(xhost_time() - since < 2 * XEN_STORE_MS * MS);
    assert_true(xhost_counted()->logs != 0);
    assert_int_equal(xhost_counted()->messages, 0);
}

/* ---- Which disks there are ---- */

static void the_list_of_disks(void **state)
{
    struct xhost_options options = xhost_usual(3);
    struct guest guest;
    uint32_t numbers[8];
    size_t count;
    (void)state;

    xhost_plug(&options);
    assert_int_equal(guest_begin(&guest), RESULT_OK);
    assert_int_equal(xen_list(guest.xen, xhost_door(), numbers, 8, &count), RESULT_OK);
    assert_int_equal(count, 3);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(numbers[i], options.disks[i].number);
    /* The watch tells once of what is there already. */
    if (xen_list_changed(guest.xen))
        assert_int_equal(xen_list(guest.xen, xhost_door(), numbers, 8, &count), RESULT_OK);
    assert_false(xen_list_changed(guest.xen));

    /* One that is no number is left out, and so is what there is no room for. */
    xhost_write("/local/domain/5/device/vbd/sda", "");
    xhost_write("/local/domain/5/device/vbd/99999999999", "");
    xhost_skip_ms(10);
    assert_true(xen_list_changed(guest.xen));
    assert_int_equal(xen_list(guest.xen, xhost_door(), numbers, 8, &count), RESULT_OK);
    assert_int_equal(count, 3);
    uint64_t logs = xhost_counted()->logs;
    assert_int_equal(xen_list(guest.xen, xhost_door(), numbers, 2, &count), RESULT_OK);
    assert_int_equal(count, 2);
    assert_true(xhost_counted()->logs > logs);
    xhost_remove("/local/domain/5/device/vbd/sda");
    xhost_remove("/local/domain/5/device/vbd/99999999999");
    guest_down(&guest);
}

static void a_domain_without_disks(void **state)
{
    struct xhost_options options = xhost_usual(0);
    struct guest guest;
    uint32_t numbers[8];
    size_t count = 7;
    (void)state;

    xhost_plug(&options);
    guest_up(&guest);
    assert_int_equal(xen_list(guest.xen, xhost_door(), numbers, 8, &count), RESULT_OK);
    assert_int_equal(count, 0);

    /* The first one comes while firmware runs. */
    struct xhost_disk disk = xhost_usual(1).disks[0];
    xhost_add_disk(&disk);
    xhost_skip_ms(10);
    assert_true(xen_list_changed(guest.xen));
    assert_int_equal(xen_list(guest.xen, xhost_door(), numbers, 8, &count), RESULT_OK);
    assert_int_equal(count, 1);
    assert_int_equal(guest_disk(&guest, 0), RESULT_OK);
    assert_reads(&guest, 0, 0, 4096, 0);
    guest_down(&guest);
}

/* ---- A disk ---- */

static void what_a_disk_says_of_itself(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    (void)state;

    options.disks[0].physical_size = 4096;
    xhost_plug(&options);
    guest_up(&guest);
    const struct disk_info *info = &disk_of(&guest, 0)->info;
    assert_int_equal(info->block_size, 512);
    assert_int_equal(info->blocks, 4096);
    assert_int_equal(info->blocks_per_physical, 8);
    assert_false(info->read_only);
    assert_false(info->removable);
    assert_true(info->write_cache);
    assert_int_equal(xhost_ring_pages(0), FRONT_RING_PAGES);
    guest_down(&guest);
}

/* Values of the backend's that cannot be, and what comes of them. */
static void a_backend_that_publishes_nonsense(void **state)
{
    static const struct {
        const char *name, *value;
        enum result result;
    } cases[] = {
        {"sector-size", "0", RESULT_UNSUPPORTED},
        {"sector-size", "100", RESULT_UNSUPPORTED},
        {"sector-size", "1000", RESULT_UNSUPPORTED},
        {"sector-size", "8192", RESULT_UNSUPPORTED},
        {"sector-size", "4294967296", RESULT_UNSUPPORTED},
        {"sector-size", "-512", RESULT_UNSUPPORTED},
        {"sector-size", "0x200", RESULT_UNSUPPORTED},
        {"sector-size", "", RESULT_UNSUPPORTED},
        {"sector-size", NULL, RESULT_UNSUPPORTED},
        {"sectors", "0", RESULT_NO_MEDIA},
        {"sectors", NULL, RESULT_NO_MEDIA},
        {"sectors", "many", RESULT_NO_MEDIA},
        {"sectors", "18446744073709551615", RESULT_NO_MEDIA},
        {"sectors", "18446744073709551616", RESULT_NO_MEDIA},
        {"sectors", "99999999999999999999999999", RESULT_NO_MEDIA},
    };
    (void)state;
    for (unsigned i = 0; i < LENGTH(cases); i++) {
        struct xhost_options options = xhost_usual(2);
        options.disks[0].instead[0].name = cases[i].name;
        options.disks[0].instead[0].value = cases[i].value;
        first_disk_fails(&options, cases[i].result);
    }
}

/* And others, which leave a disk that works. */
static void a_backend_that_publishes_what_does_not_matter(void **state)
{
    static char overlong[3000];
    static const struct {
        const char *name, *value;
    } cases[] = {
        {"physical-sector-size", "0"},
        {"physical-sector-size", "100"},
        {"physical-sector-size", "4294967295"},
        {"physical-sector-size", NULL},
        {"physical-sector-size", overlong},
        {"feature-max-indirect-segments", "0"},
        {"feature-max-indirect-segments", "12"},
        {"feature-max-indirect-segments", "4294967295"},
        {"feature-max-indirect-segments", "many"},
        {"feature-max-indirect-segments", overlong},
        {"max-ring-page-order", "1"},
        {"max-ring-page-order", "-1"},
        {"max-ring-page-order", overlong},
        {"feature-flush-cache", "2"},
        {"feature-barrier", "yes"},
        {"info", NULL},
        {"info", overlong},
    };
    (void)state;
    memset(overlong, '1', sizeof(overlong) - 1);
    for (unsigned i = 0; i < LENGTH(cases); i++) {
        struct xhost_options options = xhost_usual(2);
        struct guest guest;
        options.disks[0].instead[0].name = cases[i].name;
        options.disks[0].instead[0].value = cases[i].value;
        xhost_plug(&options);
        assert_int_equal(guest_begin(&guest), RESULT_OK);
        assert_int_equal(guest_disk(&guest, 0), RESULT_OK);
        assert_reads(&guest, 0, 0, 44 * 1024, 0);
        assert_int_equal(xio_run(&guest, 0, DISK_WRITE, 0, 4096, 0), RESULT_OK);
        assert_int_equal(xio_run(&guest, 0, DISK_FLUSH, 0, 0, 0), RESULT_OK);
        other_disk_works(&guest);
        guest_down(&guest);
        xhost_unplug();
    }
}

/* Our own keys about the backend: they are the toolstack's to write, and it may have erred. */
static void a_frontend_without_a_backend(void **state)
{
    static char overlong[400] = "/local/domain/0/backend/vbd/5/";
    static const struct {
        const char *name, *value;
    } cases[] = {
        {"backend", NULL},
        {"backend", ""},
        {"backend", "relative/path"},
        {"backend", overlong},
        {"backend-id", NULL},
        {"backend-id", "none"},
        {"backend-id", "-1"},
        {"backend-id", "4294967296"},
        {"backend-id", "32752"},
        {"backend", "/local/domain/0/backend/vbd/5/nowhere"},
    };
    (void)state;
    memset(overlong + strlen(overlong), '1', sizeof(overlong) - strlen(overlong) - 1);
    for (unsigned i = 0; i < LENGTH(cases); i++) {
        struct xhost_options options = xhost_usual(2);
        struct guest guest;
        char path[100], before[100];
        xhost_plug(&options);
        snprintf(path, sizeof(path), "/local/domain/5/device/vbd/%u/%s", options.disks[0].number,
                 cases[i].name);
        snprintf(before, sizeof(before), "%s", xhost_key(path));
        if (cases[i].value)
            xhost_write(path, cases[i].value);
        else
            xhost_remove(path);
        assert_int_equal(guest_begin(&guest), RESULT_OK);
        uint64_t logs = xhost_counted()->logs;
        assert_int_equal(guest_disk(&guest, 0), RESULT_DEVICE_ERROR);
        assert_true(xhost_counted()->logs > logs);
        other_disk_works(&guest);
        xhost_write(path, before);
        guest_down(&guest);
        xhost_unplug();
    }
}

/* States that a backend may be in before we come. */
static void a_backend_in_any_state(void **state)
{
    (void)state;
    for (unsigned first = 0; first <= 9; first++) {
        struct xhost_options options = xhost_usual(2);
        struct guest guest;
        char text[8];

        snprintf(text, sizeof(text), "%u", first);
        options.disks[0].first_state = first <= 6 ? first : 6;
        options.disks[0].instead[0].name = first > 6 ? "state" : "no such key";
        options.disks[0].instead[0].value = text;
        xhost_plug(&options);
        assert_int_equal(guest_begin(&guest), RESULT_OK);
        uint64_t logs = xhost_counted()->logs;
        enum result result = guest_disk(&guest, 0);
        if (first == 0 || first > 6)
            assert_int_equal(result, RESULT_DEVICE_ERROR);
        else
            assert_int_equal(result, first == 1 ? RESULT_NO_MEDIA : RESULT_OK);
        /* An empty drive is nothing to speak of. */
        assert_true(result == RESULT_OK || result == RESULT_NO_MEDIA ||
                    xhost_counted()->logs > logs);
        if (result == RESULT_OK)
            assert_reads(&guest, 0, 0, 4096, 0);
        other_disk_works(&guest);
        guest_down(&guest);
        xhost_unplug();
    }
}

/* It is closed from the start, and does not move. */
static void a_backend_that_stays_closed(void **state)
{
    struct xhost_options options = xhost_usual(2);
    (void)state;

    options.disks[0].first_state = XenbusStateClosed;
    for (unsigned step = 0; step < 7; step++)
        options.disks[0].step_ms[step] = XHOST_NEVER;
    first_disk_fails(&options, RESULT_DEVICE_ERROR);
}

/* It is closed because the toolstack takes it away: there is nothing to wait for, and nothing to be
 * written, which others would hear of. One that is being attached is not ready yet. */
static void a_disk_that_is_not_there_yet_or_any_more(void **state)
{
    (void)state;
    for (unsigned first = XenbusStateInitialising; first <= XenbusStateClosed; first++) {
        struct xhost_options options = xhost_usual(2);
        struct guest guest;

        options.disks[0].first_state = first;
        options.disks[0].instead[0].name = "online";
        options.disks[0].instead[0].value = "0";
        xhost_plug(&options);
        assert_int_equal(guest_begin(&guest), RESULT_OK);
        uint32_t number = xhost_now()->disks[0].number;
        assert_int_equal(xen_disk_waits(guest.xen, xhost_door(), number),
                         first == XenbusStateInitWait);
        if (first == XenbusStateInitialising || first >= XenbusStateClosing) {
            uint64_t since = xhost_time(), logs = xhost_counted()->logs;
            assert_int_equal(guest_disk(&guest, 0), RESULT_NO_MEDIA);
            assert_true(xhost_time() - since < 1000 * MS);
            assert_int_equal(xhost_counted()->logs, logs);
            assert_int_equal(xhost_backend_state(0), first);
        }
        other_disk_works(&guest);
        guest_leave(&guest);
        xhost_unplug();
    }
}

/* Somebody was connected and has not said goodbye. His disk is had all the same, and its later
 * removal is noticed. */
static void a_disk_that_was_somebody_elses(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    (void)state;

    options.disks[0].taken = true;
    xhost_plug(&options);
    guest_up(&guest);
    assert_reads(&guest, 0, 0, 4096, 0);
    assert_false(blkfront_gone(guest.blk[0]));
    xhost_unplug_disk(0);
    xhost_skip_ms(10);
    assert_true(blkfront_gone(guest.blk[0]));
    guest_leave(&guest);
    assert_no_violation();
}

static void a_backend_that_never_connects(void **state)
{
    struct xhost_options options = xhost_usual(2);
    (void)state;

    options.disks[0].step_ms[XenbusStateConnected] = XHOST_NEVER;
    first_disk_fails(&options, RESULT_TIMEOUT);
}

/* It does not like what it reads of us. */
static void a_backend_that_refuses_to_connect(void **state)
{
    struct xhost_options options = xhost_usual(2);
    struct guest guest;
    (void)state;

    xhost_plug(&options);
    assert_int_equal(guest_begin(&guest), RESULT_OK);
    xhost_now()->disks[0].refuses = true;
    uint64_t logs = xhost_counted()->logs;
    assert_int_equal(guest_disk(&guest, 0), RESULT_DEVICE_ERROR);
    assert_true(xhost_counted()->logs > logs);
    other_disk_works(&guest);
    guest_down(&guest);
}

static void transactions_that_meet_others(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    (void)state;

    options.conflicts = 5;
    xhost_plug(&options);
    guest_up(&guest);
    assert_reads(&guest, 0, 0, 4096, 0);
    guest_down(&guest);
    xhost_unplug();

    options = xhost_usual(2);
    options.conflicts = 8;
    first_disk_fails(&options, RESULT_DEVICE_ERROR);
}

static void no_event_channel_is_left(void **state)
{
    struct xhost_options options = xhost_usual(2);
    struct guest guest;
    (void)state;

    options.channels = 5; /* one */
    xhost_plug(&options);
    assert_int_equal(guest_begin(&guest), RESULT_OK);
    assert_int_equal(guest_disk(&guest, 0), RESULT_OK);
    assert_int_equal(guest_disk(&guest, 1), RESULT_NO_MEMORY);
    assert_non_null(strstr(xhost_last_log(), "event channel"));
    assert_reads(&guest, 0, 0, 4096, 0);
    guest_down(&guest);
}

/* Grants that somebody has left are not ours to give or to end. */
static void a_grant_table_with_others_grants(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    (void)state;

    options.others_grants = true;
    xhost_plug(&options);
    guest_up(&guest);
    assert_reads(&guest, 0, 0, 1u << 20, 0);
    guest_down(&guest);
}

/* ---- Disks that go ---- */

static void a_disk_that_is_unplugged(void **state)
{
    (void)state;
    for (unsigned restart = 0; restart < 2; restart++) {
        struct xhost_options options = xhost_usual(2);
        struct guest guest;
        struct xio *io;

        xhost_plug(&options);
        guest_up(&guest);
        assert_false(blkfront_gone(guest.blk[0]));
        if (restart) {
            io = xio_new(0, DISK_READ, 0, 4096, 0);
            assert_int_equal(xio_submit(&guest, io), RESULT_OK);
            assert_int_equal(disk_of(&guest, 0)->ops->restart(disk_of(&guest, 0), RESULT_ABORTED),
                             RESULT_OK);
            xio_free(io);
            assert_false(blkfront_gone(guest.blk[0]));
        }
        xhost_unplug_disk(0);
        xhost_skip_ms(10);
        assert_true(blkfront_gone(guest.blk[0]));
        assert_false(blkfront_gone(guest.blk[1]));
        assert_int_equal(xio_run(&guest, 0, DISK_READ, 0, 4096, 0), RESULT_DEVICE_ERROR);
        uint64_t since = xhost_time();
        assert_true(guest_drop(&guest, 0));
        assert_true(xhost_time() - since < 500 * MS);
        /* The toolstack waits for this before it removes the keys. */
        assert_int_equal(xhost_frontend_state(0), XenbusStateClosed);
        assert_int_equal(xhost_backend_state(0), XenbusStateClosed);
        assert_reads(&guest, 1, 0, 4096, 0);
        xhost_vanish(0);
        guest_down(&guest);
        xhost_unplug();
    }
}

/* With requests in flight: they end, soon, and not well. */
static void a_backend_that_closes_in_the_middle(void **state)
{
    (void)state;
    for (unsigned vanish = 0; vanish < 2; vanish++) {
        struct xhost_options options = xhost_usual(2);
        struct guest guest;
        struct xio *io[40];

        options.disks[0].pace = XHOST_BY_HAND;
        xhost_plug(&options);
        guest_up(&guest);
        for (unsigned i = 0; i < LENGTH(io); i++) {
            io[i] = xio_new(0, DISK_READ, 8 * i, 4096, i % 2);
            assert_int_equal(xio_submit(&guest, io[i]), RESULT_OK);
        }
        xhost_finish(0, 3);
        if (vanish)
            xhost_vanish(0);
        else
            xhost_unplug_disk(0);
        uint64_t since = xhost_time();
        for (unsigned i = 0; i < LENGTH(io); i++)
            xio_wait(&guest, io[i]);
        assert_true(xhost_time() - since < XEN_BACKEND_MS * MS);
        for (unsigned i = 0; i < LENGTH(io); i++)
            assert_int_equal(xio_free(io[i]), i < 3 ? RESULT_OK : RESULT_DEVICE_ERROR);
        assert_true(blkfront_gone(guest.blk[0]));
        assert_reads(&guest, 1, 0, 4096, 0);
        if (!vanish)
            xhost_finish(0, 64);
        guest_leave(&guest);
        assert_int_equal(guest.leaked, 0);
        assert_no_violation();
        xhost_unplug();
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        xen_test(xen_is_found_wherever_its_leaves_are),
        xen_test(a_domain_without_the_platform_device),
        xen_test(a_small_place),
        xen_test(a_grant_table_of_version_2),
        xen_test(a_ring_that_has_been_used),
        xen_test(a_ring_that_is_out_of_step),
        xen_test(a_xenstore_that_never_answers),
        xen_test(the_list_of_disks),
        xen_test(a_domain_without_disks),
        xen_test(what_a_disk_says_of_itself),
        xen_test(a_backend_that_publishes_nonsense),
        xen_test(a_backend_that_publishes_what_does_not_matter),
        xen_test(a_frontend_without_a_backend),
        xen_test(a_backend_in_any_state),
        xen_test(a_backend_that_stays_closed),
        xen_test(a_disk_that_is_not_there_yet_or_any_more),
        xen_test(a_disk_that_was_somebody_elses),
        xen_test(a_backend_that_never_connects),
        xen_test(a_backend_that_refuses_to_connect),
        xen_test(transactions_that_meet_others),
        xen_test(no_event_channel_is_left),
        xen_test(a_grant_table_with_others_grants),
        xen_test(a_disk_that_is_unplugged),
        xen_test(a_backend_that_closes_in_the_middle),
    };
    return cmocka_run_group_tests_name("Xen disks coming up", tests, NULL, NULL);
}
