// SPDX-License-Identifier: BSD-2-Clause-Patent
/* The grant table and the event channels by themselves (C4, C5, C6). */

#include "tests/unit/xen_harness.h"
#include "tests/model/xen_parts.h"

static struct guest guest;

static struct xen *begin(const struct xhost_options *options)
{
    xhost_plug(options);
    assert_int_equal(guest_begin(&guest), RESULT_OK);
    return guest.xen;
}

/* ---- Grants ---- */

/* All that the table has, and all of it again. */
static void every_entry_is_given_once(void **state)
{
    (void)state;
    for (uint32_t frames = 1; frames <= 64; frames += 21) {
        struct xhost_options options = xhost_usual(0);
        options.grant_frames = frames;
        options.others_grants = frames > 40;
        struct xen *xen = begin(&options);
        static uint8_t given[GRANTS_MAX];
        unsigned char *page = xhost_alloc(4096, 0);
        grant_list list = 0;

        for (unsigned round = 0; round < 2; round++) {
            uint32_t count = 0, ref;
            memset(given, 0, sizeof(given));
            while ((ref = grant_give(&xen->grants, &list, 0, page, ref % 2)) != 0) {
                assert_true(ref >= 8 && ref < frames * 512);
                assert_int_equal(given[ref], 0);
                given[ref] = 1;
                count++;
            }
            assert_true(options.others_grants ? count > frames * 512 / 2
                                              : count == frames * 512 - 8);
            assert_true(xhost_shown(page, 4096));
            assert_true(grants_end(&xen->grants, &list));
            assert_int_equal(list, 0);
            assert_false(xhost_shown(page, 4096));
        }
        xhost_free(page);
        guest_down(&guest);
        xhost_unplug();
    }
}

/* What may be done with a page is what was said. */
static void pages_are_given_for_reading_or_writing(void **state)
{
    struct xhost_options options = xhost_usual(0);
    struct xen *xen = begin(&options);
    unsigned char *pages = xhost_alloc(2 * 4096, 0);
    grant_list list = 0;
    int32_t mfn;
    (void)state;

    uint32_t reading = grant_give(&xen->grants, &list, 0, pages, false);
    uint32_t writing = grant_give(&xen->grants, &list, 0, pages + 4096, true);
    pages[4096 + 5] = 17;
    assert_true(grant_map(writing, true, &mfn));
    assert_int_equal(machine_page(mfn)[5], 17);
    grant_unmap(writing, true);
    assert_true(grant_map(reading, false, &mfn));
    assert_ptr_not_equal(machine_page(mfn), NULL);
    grant_unmap(reading, false);
    assert_no_violation();
    assert_false(grant_map(reading, true, &mfn));
    assert_int_equal(model_violations(),
                     1); /* of the model's, which believes that we asked it to */
    assert_true(grants_end(&xen->grants, &list));
    xhost_free(pages);
    model_forget();
    guest_down(&guest);
}

/* No grant entry can name it, so that it must not name another one. */
static void a_frame_of_more_than_32_bits(void **state)
{
    struct xhost_options options = xhost_usual(0);
    struct xen *xen = begin(&options);
    grant_list list = 0;
    (void)state;

    assert_int_equal(grant_give(&xen->grants, &list, 0, (void *)0x100000020000000, true), 0);
    assert_int_equal(list, 0);
    guest_down(&guest);
}

/* Mapped pages stay granted, and are not given again. */
static void what_is_mapped_cannot_be_ended(void **state)
{
    struct xhost_options options = xhost_usual(0);
    options.grant_frames = 1;
    struct xen *xen = begin(&options);
    unsigned char *pages = xhost_alloc(8 * 4096, 0);
    grant_list list = 0, other = 0;
    uint32_t refs[8], ref;
    int32_t mfn;
    (void)state;

    for (unsigned i = 0; i < 8; i++)
        refs[i] = grant_give(&xen->grants, &list, 0, pages + i * 4096, i % 2);
    for (unsigned i = 2; i < 6; i++)
        assert_true(grant_map(refs[i], i % 2, &mfn));
    assert_false(grants_end(&xen->grants, &list));
    while ((ref = grant_give(&xen->grants, &other, 0, pages, false)) != 0)
        for (unsigned i = 2; i < 6; i++)
            assert_int_not_equal(ref, refs[i]);
    assert_true(grants_end(&xen->grants, &other));
    for (unsigned i = 2; i < 6; i++) {
        assert_false(grants_end(&xen->grants, &list));
        grant_unmap(refs[i], i % 2);
    }
    assert_true(grants_end(&xen->grants, &list));
    xhost_free(pages);
    guest_down(&guest);
}

/* Taken back nevertheless: other pages with the same contents, and the old ones out of reach. */
static void pages_are_taken_back(void **state)
{
    struct xhost_options options = xhost_usual(0);
    struct xen *xen = begin(&options);
    unsigned char *pages = xhost_alloc(8 * 4096, 0);
    grant_list list = 0;
    uint32_t refs[8];
    int32_t mfn[8], again;
    (void)state;

    for (unsigned i = 0; i < 8; i++) {
        memset(pages + i * 4096, (int)(i + 1), 4096);
        refs[i] = grant_give(&xen->grants, &list, 0, pages + i * 4096, true);
        if (i < 5)
            assert_true(grant_map(refs[i], true, &mfn[i]));
    }
    assert_true(grants_take_back(&xen->grants, &list));
    assert_int_equal(list, 0);
    assert_int_equal(xen->grants.replaced, 5);
    for (unsigned i = 0; i < 5; i++)
        memset(machine_page(mfn[i]), 0xee, 4096);
    for (unsigned i = 0; i < 8; i++)
        for (unsigned k = 0; k < 4096; k++)
            assert_int_equal(pages[i * 4096 + k], i + 1);
    assert_false(xhost_shown(pages, 8 * 4096));
    /* Once let go, it cannot be had again: by then the page behind it is another one. */
    xhost_now()->no_complaints = true;
    for (unsigned i = 0; i < 5; i++) {
        grant_unmap(refs[i], true);
        assert_false(grant_map(refs[i], true, &again));
    }
    xhost_free(pages);
    guest_down(&guest);
}

/* The reserve is used up: said so, and nothing is changed. */
static void pages_that_cannot_be_taken_back(void **state)
{
    struct xhost_options options = xhost_usual(0);
    options.reserve_pages = 1;
    struct xen *xen = begin(&options);
    unsigned char *pages = xhost_alloc(3 * 4096, 0);
    grant_list list = 0;
    uint32_t refs[3];
    int32_t mfn[3];
    (void)state;

    for (unsigned i = 0; i < 3; i++) {
        refs[i] = grant_give(&xen->grants, &list, 0, pages + i * 4096, true);
        assert_true(grant_map(refs[i], true, &mfn[i]));
        machine_page(mfn[i])[9] = 3;
    }
    assert_false(grants_take_back(&xen->grants, &list));
    assert_int_equal(xen->grants.replaced, 1);
    for (unsigned i = 0; i < 3; i++)
        machine_page(mfn[i])[9] = 4;
    assert_int_equal(pages[9] + pages[4096 + 9] + pages[8192 + 9], 3 + 4 + 4);
    assert_true(xhost_shown(pages, 3 * 4096));
    for (unsigned i = 0; i < 3; i++)
        grant_unmap(refs[i], true);
    xhost_free(pages);
    guest_down(&guest);
}

/* ---- Event channels ---- */

static void a_wait_ends_at_once_where_an_event_is_pending(void **state)
{
    struct xhost_options options = xhost_usual(0);
    struct xen *xen = begin(&options);
    uint32_t port = 0;
    (void)state;

    assert_true(event_open(0, &port));
    assert_true(event_bind(port));
    event_raise(port);
    uint64_t since = xhost_time();
    event_wait(&xen->events, port, xhost_time() + 1000 * MS);
    assert_true(xhost_time() - since < MS);
    /* Until it is cleared. */
    event_clear(&xen->events, port);
    since = xhost_time();
    event_wait(&xen->events, port, since + 1000 * MS);
    assert_true(xhost_time() - since >= 999 * MS && xhost_time() - since <= 1001 * MS);
    event_close(&xen->events, port);
    guest_down(&guest);
}

static void a_wait_ends_at_its_deadline(void **state)
{
    struct xhost_options options = xhost_usual(0);
    struct xen *xen = begin(&options);
    uint32_t port = 0;
    (void)state;

    assert_true(event_open(0, &port));
    for (uint64_t us = 1; us < 40000000; us *= 3) {
        uint64_t since = xhost_time();
        event_wait(&xen->events, port, since + us);
        assert_true(xhost_time() - since + 1 >= us && xhost_time() - since <= us + 10);
    }
    for (uint64_t past = 0; past < 1000 * MS; past = 3 * past + 1) {
        uint64_t since = xhost_time();
        event_wait(&xen->events, port, since - past);
        assert_true(xhost_time() - since < MS);
    }
    /* Before Xen's own clock began, even. */
    event_wait(&xen->events, port, 5);
    event_close(&xen->events, port);
    guest_down(&guest);
}

/* Without the page, or with one that does not tell the time, the CPU is given away all the same. */
static void a_wait_without_the_page(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 3; k++) {
        struct xhost_options options = xhost_usual(0);
        uint32_t port = 0;
        options.no_shared_page = k == 0;
        options.no_time = k == 1;
        struct xen *xen = begin(&options);

        assert_true(event_open(0, &port));
        if (k == 2)
            xen->events.page->time.version = 7; /* somebody is writing it, for ever */
        uint64_t yields = xhost_counted()->yields, polls = xhost_counted()->polls;
        event_wait(&xen->events, port, xhost_time() + 1000 * MS);
        assert_int_equal(xhost_counted()->yields, yields + 1);
        assert_int_equal(xhost_counted()->polls, polls);
        event_clear(&xen->events, port);
        event_close(&xen->events, port);
        guest_down(&guest);
        xhost_unplug();
    }
}

static void channels_are_opened_and_closed(void **state)
{
    struct xhost_options options = xhost_usual(0);
    options.channels = 20;
    struct xen *xen = begin(&options);
    uint32_t ports[20], port;
    (void)state;

    for (unsigned round = 0; round < 3; round++) {
        unsigned count = 0;
        while (event_open(0, &port))
            ports[count++] = port;
        assert_int_equal(count, 16);
        assert_false(event_send(30));
        for (unsigned i = 0; i < count; i++) {
            assert_true(event_bind(ports[i]));
            event_raise(ports[i]);
            assert_true(event_send(ports[i]));
            event_close(&xen->events, ports[i]);
        }
        assert_int_equal(model_violations(), round + 1); /* the one send to nobody */
    }
    event_close(&xen->events, 0); /* none */
    model_forget();
    guest_down(&guest);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        xen_test(every_entry_is_given_once),
        xen_test(pages_are_given_for_reading_or_writing),
        xen_test(a_frame_of_more_than_32_bits),
        xen_test(what_is_mapped_cannot_be_ended),
        xen_test(pages_are_taken_back),
        xen_test(pages_that_cannot_be_taken_back),
        xen_test(a_wait_ends_at_once_where_an_event_is_pending),
        xen_test(a_wait_ends_at_its_deadline),
        xen_test(a_wait_without_the_page),
        xen_test(channels_are_opened_and_closed),
    };
    return cmocka_run_group_tests_name("grants and event channels", tests, NULL, NULL);
}
