// SPDX-License-Identifier: BSD-2-Clause-Patent
/* XenStore's client by itself: messages in pieces, answers in order, events between them, and
 * answers that cannot be true (C6, C9). */

#include "tests/unit/xen_harness.h"

#define HOME "/local/domain/5"

static struct guest guest;

/* The domain without disks, and its XenStore. */
static struct store *begin(const struct xhost_options *options)
{
    xhost_plug(options);
    assert_int_equal(guest_begin(&guest), RESULT_OK);
    return &guest.xen->store;
}

static struct poor_door within_ms(uint64_t ms)
{
    return (struct poor_door){.deadline = clock_ticks() + ms * MS};
}

static void numbers(void **state)
{
    static const struct {
        const char *text;
        uint64_t most;
        bool good;
        uint64_t value;
    } cases[] = {
        {"0", 0, true, 0},
        {"007", 7, true, 7},
        {"8", 7, false, 0},
        {"18446744073709551615", UINT64_MAX, true, UINT64_MAX},
        {"18446744073709551616", UINT64_MAX, false, 0},
        {"99999999999999999999999", UINT64_MAX, false, 0},
        {"4294967296", UINT32_MAX, false, 0},
        {"4294967295", UINT32_MAX, true, UINT32_MAX},
        {"", 9, false, 0},
        {"-1", 9, false, 0},
        {"+1", 9, false, 0},
        {" 1", 9, false, 0},
        {"1 ", 9, false, 0},
        {"0x1", 9, false, 0},
        {"1:", 99, false, 0},
        {"1/", 99, false, 0},
    };
    char text[STORE_DIGITS];
    (void)state;

    for (unsigned i = 0; i < LENGTH(cases); i++) {
        uint64_t number = 77;
        assert_int_equal(
            store_parse_number(cases[i].text, strlen(cases[i].text), cases[i].most, &number),
            cases[i].good);
        assert_true(number == (cases[i].good ? cases[i].value : 77));
        if (cases[i].good && cases[i].text[0] != '0') {
            char *end = store_put_number(text, number);
            assert_string_equal(text, cases[i].text);
            assert_ptr_equal(end, text + strlen(text));
        }
    }
    store_put_number(text, 0);
    assert_string_equal(text, "0");
}

static void paths(void **state)
{
    char path[STORE_PATH_MAX], folder[STORE_PATH_MAX], name[STORE_PATH_MAX];
    (void)state;

    assert_true(store_path(path, "device/vbd", "51712"));
    assert_string_equal(path, "device/vbd/51712");
    assert_true(store_path(path, "/a", NULL));
    assert_string_equal(path, "/a");
    memset(folder, 'f', sizeof(folder));
    memset(name, 'n', sizeof(name));
    for (unsigned length = 1; length < STORE_PATH_MAX - 2; length++) {
        folder[length] = 0;
        unsigned rest = STORE_PATH_MAX - 2 - length;
        name[rest] = 0;
        assert_true(store_path(path, folder, name));
        assert_int_equal(strlen(path), STORE_PATH_MAX - 1);
        name[rest] = 'n';
        name[rest + 1] = 0;
        assert_false(store_path(path, folder, name));
        name[rest + 1] = 'n';
        folder[length] = 'f';
    }
}

static void reading_and_writing(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 32; k++) {
        struct xhost_options options = xhost_usual(0);
        char value[40];
        uint64_t number;

        options.store_chunk = k & 1 ? 1 + k / 2 : 0;
        options.noise = k & 2;
        options.parallel = k & 4;
        options.ring_start = k & 8 ? UINT32_MAX - 500 : 0;
        options.no_shared_page = k & 16;
        struct store *store = begin(&options);
        struct poor_door door = within_ms(1000);

        xhost_write(HOME "/data/text", "as it is");
        xhost_write(HOME "/data/long", "0123456789012345678901234567890123456789");
        xhost_write(HOME "/data/number", "4711");
        assert_int_equal(store_read(store, &door, "data", "text", value, sizeof(value)), ANSWER_OK);
        assert_string_equal(value, "as it is");
        assert_int_equal(store_read(store, &door, HOME "/data", "text", value, 9), ANSWER_OK);
        assert_int_equal(store_read(store, &door, "data", "text", value, 8), ANSWER_REFUSED);
        assert_int_equal(store_read(store, &door, "data", "long", value, sizeof(value)),
                         ANSWER_REFUSED);
        assert_int_equal(store_read(store, &door, "data", "none", value, sizeof(value)),
                         ANSWER_REFUSED);
        assert_true(store_says(store, "ENOENT"));
        assert_false(store_says(store, "ENOEN"));
        assert_false(store_says(store, "ENOENTS"));
        assert_string_equal(value, "");
        assert_int_equal(store_read_number(store, &door, "data", "number", 4711, &number),
                         ANSWER_OK);
        assert_int_equal(number, 4711);
        assert_int_equal(store_read_number(store, &door, "data", "number", 4710, &number),
                         ANSWER_REFUSED);
        assert_int_equal(store_read_number(store, &door, "data", "text", 4710, &number),
                         ANSWER_REFUSED);

        assert_true(store_ask_write(store, &door, 0, "data", "ours", "value"));
        assert_true(store_settle(store, &door));
        assert_string_equal(xhost_key(HOME "/data/ours"), "value");
        assert_true(store_ask_write(store, &door, 0, HOME, "name", "mine"));
        assert_false(store_settle(store, &door));
        assert_string_equal(xhost_key(HOME "/name"), "guest");
        assert_true(store_ask_remove(store, &door, "data", "ours"));
        assert_true(store_ask_remove(store, &door, "data", "ours")); /* no error */
        assert_true(store_settle(store, &door));
        assert_null(xhost_key(HOME "/data/ours"));
        assert_true(store->in_step);
        assert_true(store_idle(store));
        xhost_remove(HOME "/data/text");
        xhost_remove(HOME "/data/long");
        xhost_remove(HOME "/data/number");
        guest_down(&guest);
        xhost_unplug();
    }
}

/* More on their way than there is room for: each has its own answer, in order. */
static void many_requests_ahead(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 8; k++) {
        struct xhost_options options = xhost_usual(0);
        char name[STORE_DIGITS], path[100];

        options.store_chunk = k & 1 ? 7 : 0;
        options.noise = k & 2;
        options.parallel = k & 4;
        struct store *store = begin(&options);
        struct poor_door door = within_ms(5000);
        for (unsigned i = 0; i < 100; i++) {
            store_put_number(name, i);
            snprintf(path, sizeof(path), HOME "/data/%u", i);
            xhost_write(path, name);
        }
        for (unsigned first = 0; first < 100; first += STORE_AHEAD_MAX) {
            for (unsigned i = first; i < first + STORE_AHEAD_MAX; i++) {
                store_put_number(name, i);
                assert_true(store_ask_read(store, &door, "data", name));
            }
            for (unsigned i = first; i < first + STORE_AHEAD_MAX; i++) {
                enum answer answer = store_answer(store, &door);
                store_put_number(name, i);
                assert_int_equal(answer, i < 100 ? ANSWER_OK : ANSWER_REFUSED);
                assert_string_equal(store->payload, i < 100 ? name : "ENOENT");
            }
        }
        /* Where nobody fetches answers, the first are thrown away. */
        for (unsigned i = 0; i < 90; i++) {
            store_put_number(name, i);
            assert_true(store_ask_write(store, &door, 0, "data", name, "written"));
        }
        assert_true(store_settle(store, &door));
        for (unsigned i = 0; i < 100; i++) {
            snprintf(path, sizeof(path), HOME "/data/%u", i);
            assert_true((strcmp(xhost_key(path), "written") == 0) == (i < 90));
            xhost_remove(path);
        }
        guest_down(&guest);
        xhost_unplug();
    }
}

static void ids_that_wrap(void **state)
{
    struct xhost_options options = xhost_usual(0);
    struct store *store = begin(&options);
    struct poor_door door = within_ms(5000);
    char value[20];
    (void)state;

    for (unsigned where = 0; where < 2; where++) {
        store->asked = store->answered = where ? 0u - 0xba700000u - 5 : UINT32_MAX - 5;
        for (unsigned i = 0; i < 12; i++) {
            assert_true(store_ask_read(store, &door, "name", NULL));
            assert_int_equal(store_read(store, &door, "domid", NULL, value, sizeof(value)),
                             ANSWER_OK); /* the first one's */
            assert_string_equal(value, "guest");
            assert_true(store_settle(store, &door));
            assert_string_equal(store->payload, "5");
        }
    }
    guest_down(&guest);
}

/* Events tell of watches by their number, wherever they come in between. */
static void watches_fire(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 8; k++) {
        struct xhost_options options = xhost_usual(0);
        options.store_chunk = k & 1 ? 3 : 0;
        options.event_first = k & 2;
        options.noise = k & 4;
        struct store *store = begin(&options);
        struct poor_door door = within_ms(5000);
        char value[20];

        xhost_skip_ms(5);
        store_listen(store); /* the list of disks' watch has told of itself */
        assert_true(store->fired == 1ull << WATCH_LIST);
        for (unsigned watch = 1; watch < STORE_WATCHES_MAX; watch += 31) {
            store->fired = 0;
            assert_true(store_ask_watch(store, &door, true, "data", "key", watch));
            assert_int_equal(store_answer(store, &door), ANSWER_OK);
            xhost_skip_ms(5);
            store_listen(store);
            assert_true(store->fired == 1ull << watch); /* the first event comes by itself */

            store->fired = 0;
            assert_true(store_ask_read(store, &door, "name", NULL));
            xhost_write(HOME "/data/key", "1");
            xhost_write(HOME "/data/key/below", "1");
            xhost_write(HOME "/data/keys", "1");
            store_listen(store); /* not what is asked for */
            assert_int_equal(store_answer(store, &door), ANSWER_OK);
            assert_string_equal(store->payload, "guest");
            xhost_skip_ms(5);
            store_listen(store);
            assert_true(store->fired == 1ull << watch);

            assert_true(store_ask_watch(store, &door, false, "data", "key", watch));
            assert_int_equal(store_answer(store, &door), ANSWER_OK);
            store->fired = 0;
            xhost_write(HOME "/data/key", "2");
            assert_int_equal(store_read(store, &door, "name", NULL, value, sizeof(value)),
                             ANSWER_OK);
            assert_true(store->fired == 0);
            xhost_remove(HOME "/data/key");
            xhost_remove(HOME "/data/keys");
        }
        guest_down(&guest);
        xhost_unplug();
    }
}

/* A flood of events, more than the ring holds, does not keep an answer from coming. */
static void a_flood_of_events(void **state)
{
    struct xhost_options options = xhost_usual(0);
    struct store *store = begin(&options);
    struct poor_door door = within_ms(5000);
    char value[20];
    (void)state;

    assert_true(store_ask_watch(store, &door, true, "data", NULL, 5));
    assert_int_equal(store_answer(store, &door), ANSWER_OK);
    for (unsigned i = 0; i < 500; i++)
        xhost_write(HOME "/data/key", i % 2 ? "odd" : "even");
    xhost_skip_ms(5);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(store_read(store, &door, "name", NULL, value, sizeof(value)), ANSWER_OK);
        assert_string_equal(value, "guest");
    }
    assert_true(store_ask_watch(store, &door, false, "data", NULL, 5));
    assert_true(store_settle(store, &door));
    xhost_remove(HOME "/data/key");
    guest_down(&guest);
}

/* One without an end does, and a listener hears the others out some time. */
static void a_flood_without_an_end(void **state)
{
    struct xhost_options options = xhost_usual(0);
    options.parallel = true;
    options.store_us = 0;
    struct store *store = begin(&options);
    struct poor_door door = within_ms(1000);
    char value[20];
    (void)state;

    xhost_now()->flood = true;
    uint64_t since = xhost_time();
    store_listen(store);
    assert_true(xhost_time() - since < 10 * MS);
    enum answer answer = store_read(store, &door, "name", NULL, value, sizeof(value));
    assert_true(answer == ANSWER_OK);
    /* No answer at all: then it is an end that has to be found. */
    xhost_now()->answer_wrong_at = xhost_counted()->answers + 1;
    xhost_now()->fault = XFAULT_LOST;
    door = within_ms(1000);
    since = xhost_time();
    assert_int_equal(store_read(store, &door, "name", NULL, value, sizeof(value)), ANSWER_LOST);
    assert_true(xhost_time() - since <= 1010 * MS);
    guest_leave(&guest);
    assert_no_violation();
}

/* Each of these ends the ring's being in step, within the bound, and nothing is asked after it. */
static void answers_that_cannot_be_true(void **state)
{
    static const enum xhost_fault faults[] = {XFAULT_LOST, XFAULT_DEAD, XFAULT_WRONG_ID,
                                              XFAULT_TOO_LONG, XFAULT_INDEX};
    (void)state;
    for (unsigned k = 0; k < 2 * LENGTH(faults); k++) {
        struct xhost_options options = xhost_usual(0);
        char value[20];
        options.fault = faults[k / 2];
        options.answer_wrong_at = 3;
        options.parallel = k & 1;
        struct store *store = begin(&options);
        struct poor_door door = within_ms(1000);
        uint64_t since = xhost_time();

        assert_int_equal(store_read(store, &door, "name", NULL, value, sizeof(value)), ANSWER_LOST);
        assert_true(xhost_time() - since <= 1001 * MS);
        assert_false(store->in_step);
        assert_non_null(store->lost);
        /* Nonsense is seen when it comes; only for nothing there has to be a wait. */
        if (options.fault == XFAULT_TOO_LONG || options.fault == XFAULT_INDEX)
            assert_true(xhost_time() - since < 10 * MS);
        uint64_t messages = xhost_counted()->messages;
        door = within_ms(1000);
        since = xhost_time();
        assert_int_equal(store_read(store, &door, "name", NULL, value, sizeof(value)), ANSWER_LOST);
        assert_false(store_ask_remove(store, &door, "data", "x"));
        assert_false(store_settle(store, &door));
        assert_true(xhost_time() - since < MS);
        xhost_skip_ms(10);
        assert_int_equal(xhost_counted()->messages, messages);
        guest_leave(&guest);
        xhost_check_as_found();
        assert_no_violation();
        xhost_unplug();
    }
}

/* XenStore does not read: the ring fills up, and then there is an end. */
static void nobody_reads_the_ring(void **state)
{
    struct xhost_options options = xhost_usual(0);
    struct store *store = begin(&options);
    static char value[STORE_VALUE_MAX];
    (void)state;

    memset(value, 'v', sizeof(value) - 1);
    xhost_break_store();
    struct poor_door door = within_ms(500);
    uint64_t since = xhost_time();
    unsigned sent = 0;
    while (store_ask_write(store, &door, 0, "data", "key", value))
        sent++;
    assert_int_equal(sent, 1024 / (16 + 9 + 127));
    assert_true(xhost_time() - since <= 501 * MS);
    assert_false(store->in_step);
    guest_leave(&guest);
    xhost_check_as_found();
    assert_no_violation();
}

static void a_path_that_is_too_long(void **state)
{
    struct xhost_options options = xhost_usual(0);
    struct store *store = begin(&options);
    struct poor_door door = within_ms(500);
    char path[STORE_PATH_MAX + 1];
    (void)state;

    memset(path, 'p', sizeof(path));
    path[STORE_PATH_MAX] = 0;
    assert_false(store_ask_read(store, &door, path, NULL));
    assert_int_equal(xhost_counted()->messages, 2); /* those of the start */
    guest_leave(&guest);
    assert_no_violation();
}

static void the_ring_is_made_anew(void **state)
{
    (void)state;
    for (unsigned offered = 0; offered < 2; offered++) {
        struct xhost_options options = xhost_usual(0);
        char value[20];
        options.reconnection = offered;
        struct store *store = begin(&options);
        struct poor_door door = within_ms(500);

        xhost_break_store();
        assert_int_equal(store_read(store, &door, "name", NULL, value, sizeof(value)), ANSWER_LOST);
        door = within_ms(500);
        assert_int_equal(store_reconnect(store, &door), offered);
        assert_int_equal(store->in_step, offered);
        if (offered) {
            assert_int_equal(store_read(store, &door, "name", NULL, value, sizeof(value)),
                             ANSWER_OK);
            assert_string_equal(value, "guest");
            assert_int_equal(xhost_watches(), 0);
            guest.xen->watches = 0;
        }
        guest_leave(&guest);
        xhost_check_as_found();
        assert_no_violation();
        xhost_unplug();
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        xen_test(numbers),
        xen_test(paths),
        xen_test(reading_and_writing),
        xen_test(many_requests_ahead),
        xen_test(ids_that_wrap),
        xen_test(watches_fire),
        xen_test(a_flood_of_events),
        xen_test(a_flood_without_an_end),
        xen_test(answers_that_cannot_be_true),
        xen_test(nobody_reads_the_ring),
        xen_test(a_path_that_is_too_long),
        xen_test(the_ring_is_made_anew),
    };
    return cmocka_run_group_tests_name("XenStore's client", tests, NULL, NULL);
}
