// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * Every start-up, transfer and shutdown once per possible failure: call k fails, for every k, until
 * a run has no k-th call. Afterwards nothing is shown that was not leaked on purpose, and the
 * device is as after power-on unless it refused to be reset (C5, C6, C7).
 */

#include "tests/unit/harness.h"

/* One run; returns whether the failure came to pass. */
static bool run_with(const struct test_kind *kind, const struct vdev_options *options,
                     const char *name, uint64_t k, bool by_exit)
{
    struct binding binding;

    vdev_plug(options);
    uint64_t since = vdev_time();
    bool bound = bind(&binding, kind) == RESULT_OK;
    if (bound)
        kind->live(&binding, by_exit);
    /* Nothing takes longer than a few resets and one time-out. */
    assert_true(vdev_time() - since < kind->life_ms * MS);
    if (model_violations() != 0)
        fail_msg("violations with %s, failure %llu", name, (unsigned long long)k);
    bool stuck = binding.leaked;
    if (!stuck) {
        /* Only buffers that it held through a reset that it refused may have stayed mapped. */
        if (options->gone_at == 0 && vdev_counted()->resets_refused == 0)
            assert_int_equal(dma_mapped(), 0);
        assert_int_equal(dma_shared(), 0);
        assert_false(vdev_live());
    }
    bool happened = options->fault_at != 0  ? vdev_counted()->points >= options->fault_at
                    : options->gone_at != 0 ? vdev_counted()->reads >= options->gone_at
                                            : vdev_counted()->resets >= options->stuck_reset_at;
    /* A device that was not pulled out, and that took every reset, is as it was found. */
    if (options->gone_at == 0 && vdev_counted()->resets_refused == 0) {
        assert_int_equal(vdev_status(), 0);
        assert_false(stuck);
        assert_false(vdev_counted()->resets > 1 && vdev_master());
    }
    vdev_unplug();
    return happened;
}

static unsigned long long runs;

static void each_call_fails_once(void **state)
{
    const struct test_kind *kind = *state;

    for (unsigned which = 0; which < kind->flavours; which++) {
        uint64_t k = 0;
        const char *name;
        struct vdev_options options = kind->flavour(which, &name);
        do {
            options.fault_at = ++k;
            options.pace = k % 2 ? VDEV_IN_ORDER : VDEV_SHUFFLED;
            options.seed = (uint32_t)k;
            runs++;
            assert_true(k < 5000);
        } while (run_with(kind, &options, name, k, k % 3 == 0));
        assert_true(k > 20);
        print_message("             %s: %llu failures\n", name, (unsigned long long)k - 1);
    }
}

/* With a mapping that holds little, so that there are many. */
static void each_mapping_fails_once(void **state)
{
    static const size_t most[] = {512, 1000, 1536, 4096};
    const struct test_kind *kind = *state;

    if (kind->mappings == 0)
        skip();
    for (unsigned i = 0; i < LENGTH(most); i++) {
        uint64_t k = 0;
        const char *name;
        struct vdev_options options = kind->flavour(0, &name);
        options.map_most = most[i];
        do {
            options.fault_at = ++k;
            runs++;
            assert_true(k < 5000);
        } while (run_with(kind, &options, "short mappings", k, false));
        assert_true(k > kind->mappings);
    }
}

static void each_reset_is_refused_once(void **state)
{
    const struct test_kind *kind = *state;

    for (unsigned which = 0; which < kind->flavours; which++) {
        const char *name;
        struct vdev_options options = kind->flavour(which, &name);
        uint32_t k = 0;
        do {
            options.stuck_reset_at = ++k;
            runs++;
        } while (run_with(kind, &options, name, k, k % 2 == 0));
        assert_true(k >= 3);
    }
}

/* One register read gives all ones, then the device is itself again. */
static void each_register_read_is_all_ones_once(void **state)
{
    const struct test_kind *kind = *state;

    for (unsigned which = 0; which < kind->flavours; which++) {
        const char *name;
        struct vdev_options options = kind->flavour(which, &name);
        uint64_t k = 0;
        do {
            options.gone_at = ++k;
            runs++;
            assert_true(k < 5000);
        } while (run_with(kind, &options, name, k, k % 2 == 0));
        assert_true(k > 10);
    }
}

/* The device is pulled out, at every moment. */
static void the_device_is_gone_from_each_register_read_on(void **state)
{
    const struct test_kind *kind = *state;

    for (unsigned which = 0; which < kind->flavours; which++) {
        const char *name;
        struct vdev_options options = kind->flavour(which, &name);
        uint64_t k = 0;
        options.gone_for_good = true;
        do {
            options.gone_at = ++k;
            runs++;
            assert_true(k < 5000);
        } while (run_with(kind, &options, name, k, k % 2 == 0));
    }
    print_message("             %llu runs in all\n", runs);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_call_fails_once),
        cmocka_unit_test(each_mapping_fails_once),
        cmocka_unit_test(each_reset_is_refused_once),
        cmocka_unit_test(each_register_read_is_all_ones_once),
        cmocka_unit_test(the_device_is_gone_from_each_register_read_on),
    };
    return run_for_each_kind("call k fails", tests, LENGTH(tests));
}
