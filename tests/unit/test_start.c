// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Devices of any kind that cannot be driven: each ends in the right result, with a sentence in the
 * log, and with the device as after power-on (C5, C7, C9). */

#include "tests/unit/harness.h"

static const struct {
    const char *name;
    enum result result;
    int lie;
    enum vdev_transport transport;
    bool one_entry; /* in each queue */
} bad_starts[] = {
    {.name = "no capabilities", .result = RESULT_UNSUPPORTED, .lie = LIE_NO_CAPABILITIES},
    {.name = "capabilities in a circle", .result = RESULT_UNSUPPORTED, .lie = LIE_CAPABILITY_LOOP},
    {.name = "registers outside their BAR",
     .result = RESULT_UNSUPPORTED,
     .lie = LIE_COMMON_OUTSIDE_BAR},
    {.name = "registers that wrap around", .result = RESULT_UNSUPPORTED, .lie = LIE_COMMON_WRAPS},
    {.name = "too few registers", .result = RESULT_UNSUPPORTED, .lie = LIE_COMMON_SHORT},
    {.name = "registers off their alignment",
     .result = RESULT_UNSUPPORTED,
     .lie = LIE_COMMON_UNALIGNED},
    {.name = "registers in no BAR", .result = RESULT_UNSUPPORTED, .lie = LIE_COMMON_IN_NO_BAR},
    {.name = "a notify window of one byte", .result = RESULT_DEVICE_ERROR, .lie = LIE_NOTIFY_TINY},
    {.name = "a notify register outside", .result = RESULT_DEVICE_ERROR, .lie = LIE_NOTIFY_OUTSIDE},
    {.name = "no VERSION_1", .result = RESULT_UNSUPPORTED, .lie = LIE_NO_VERSION_1},
    {.name = "features refused", .result = RESULT_DEVICE_ERROR, .lie = LIE_FEATURES_REFUSED},
    {.name = "queues of one", .result = RESULT_UNSUPPORTED, .one_entry = true},
    {.name = "queues of one (legacy)",
     .result = RESULT_UNSUPPORTED,
     .one_entry = true,
     .transport = VDEV_LEGACY},
};

static void bad_devices_are_refused(void **state)
{
    const struct test_kind *kind = *state;
    unsigned wrong = 0;

    for (unsigned i = 0; i < LENGTH(bad_starts); i++) {
        struct vdev_options options = kind->usual();

        options.transport = bad_starts[i].transport;
        options.lie = bad_starts[i].lie;
        if (bad_starts[i].one_entry)
            options.queue_size = 1;
        wrong += !refused_start(kind, bad_starts[i].name, &options, bad_starts[i].result);
    }
    assert_int_equal(wrong, 0);
}

static void no_queue_that_is_needed_may_be_missing(void **state)
{
    static const enum vdev_transport transports[] = {VDEV_MODERN, VDEV_LEGACY};
    const struct test_kind *kind = *state;
    unsigned wrong = 0;

    assert_true(kind->queues_needed != 0);
    for (unsigned i = 0; i < LENGTH(transports); i++)
        for (unsigned queue = 0; queue < VDEV_QUEUES_MAX; queue++) {
            struct vdev_options options = kind->usual();

            if (!(kind->queues_needed & 1u << queue))
                continue;
            options.transport = transports[i];
            options.queue_sizes[queue] = VDEV_NO_QUEUE;
            wrong += !refused_start(kind, "no queue", &options, RESULT_UNSUPPORTED);
        }
    assert_int_equal(wrong, 0);
}

/* A transitional device whose modern registers are of no use is still a legacy one. */
static void bad_modern_registers_leave_the_legacy_ones(void **state)
{
    static const int lies[] = {LIE_NO_CAPABILITIES, LIE_CAPABILITY_LOOP, LIE_COMMON_OUTSIDE_BAR,
                               LIE_COMMON_WRAPS,    LIE_COMMON_SHORT,    LIE_COMMON_IN_NO_BAR};
    const struct test_kind *kind = *state;

    for (unsigned i = 0; i < LENGTH(lies); i++) {
        struct vdev_options options = kind->usual();
        struct binding binding;

        options.transport = VDEV_TRANSITIONAL;
        options.lie = lies[i];
        vdev_plug(&options);
        assert_int_equal(bind(&binding, kind), RESULT_OK);
        assert_true(vdev_uses_legacy());
        kind->work(&binding);
        assert_true(unbind(&binding));
        assert_clean();
        vdev_unplug();
    }
}

static void unusable_capabilities_are_passed_over(void **state)
{
    const struct test_kind *kind = *state;
    struct vdev_options options = kind->usual();
    struct binding binding;

    options.lie = LIE_DECOYS;
    vdev_plug(&options);
    assert_int_equal(bind(&binding, kind), RESULT_OK);
    kind->work(&binding);
    assert_true(unbind(&binding));
    assert_clean();
}

static void every_notify_multiplier(void **state)
{
    static const uint32_t scales[] = {0, 2, 4, 64, 1024};
    const struct test_kind *kind = *state;

    for (unsigned i = 0; i < LENGTH(scales); i++) {
        struct vdev_options options = kind->usual();
        struct binding binding;

        options.notify_scale = scales[i];
        vdev_plug(&options);
        assert_int_equal(bind(&binding, kind), RESULT_OK);
        kind->work(&binding);
        assert_true(unbind(&binding));
        assert_clean();
        vdev_unplug();
    }
}

static void a_first_reset_that_is_not_acknowledged(void **state)
{
    const struct test_kind *kind = *state;

    for (unsigned k = 0; k < 2; k++) {
        struct vdev_options options = kind->usual();
        struct binding binding;

        options.transport = k ? VDEV_LEGACY : VDEV_MODERN;
        options.reset_reads = VDEV_NEVER;
        vdev_plug(&options);
        uint64_t since = vdev_time();
        assert_int_equal(bind(&binding, kind), RESULT_TIMEOUT);
        assert_true(vdev_time() - since < (VIRTIO_RESET_MS + 100) * MS);
        assert_true(vdev_counted()->logs != 0);
        assert_int_equal(dma_shared(), 0);
        assert_no_violation();
        /* And if it comes round later, it can be had. */
        vdev_now()->reset_reads = 2;
        assert_int_equal(bind(&binding, kind), RESULT_OK);
        kind->work(&binding);
        assert_true(unbind(&binding));
        assert_clean();
        vdev_unplug();
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_devices_are_refused),
        cmocka_unit_test(no_queue_that_is_needed_may_be_missing),
        cmocka_unit_test(bad_modern_registers_leave_the_legacy_ones),
        cmocka_unit_test(unusable_capabilities_are_passed_over),
        cmocka_unit_test(every_notify_multiplier),
        cmocka_unit_test(a_first_reset_that_is_not_acknowledged),
    };
    return run_for_each_kind("starting", tests, LENGTH(tests));
}
