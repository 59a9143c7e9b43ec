// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * Every start-up, transfer and shutdown once per possible failure: call k fails, for every k, until
 * a run has no k-th call. Afterwards nothing is shown that was not leaked on purpose, and the
 * device is as after power-on unless it refused to be reset (C5, C6, C7).
 */

#include "tests/unit/blk_harness.h"

static const char *flavour_names[] = {"modern",
                                      "modern, direct",
                                      "transitional",
                                      "legacy",
                                      "modern, I/O BAR, queue of 2",
                                      "modern, small segments"};

static struct vdev_options flavour(unsigned which)
{
    struct vdev_options options = vblk_usual();

    vblk.capacity = 1024;
    options.queue_size = 16;
    options.relax_ticks = 2000;
    switch (which) {
    case 1:
        options.features &= ~feature(VIRTIO_RING_F_INDIRECT_DESC);
        break;
    case 2:
        options.transport = VDEV_TRANSITIONAL;
        break;
    case 3:
        options.transport = VDEV_LEGACY;
        break;
    case 4:
        options.io_bar = true;
        options.queue_size = 2;
        break;
    case 5:
        options.features |= feature(VIRTIO_BLK_F_SIZE_MAX);
        vblk.size_max = 1024;
        vblk.seg_max = 3;
        break;
    default:
        break;
    }
    return options;
}

/* A life: start, transfers of all kinds, a restart, more transfers, and the end (by the exit first,
 * every other time). Results may be anything but a lie: what is said to have worked has worked. */
static void live(struct binding *binding, bool by_exit)
{
    enum { COUNT = 12 };
    struct io *io[COUNT];

    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < COUNT; i++) {
            io[i] = i % 5 == 4
                        ? io_new(DISK_FLUSH, 0, 0, 0)
                        : io_new(i % 2 ? DISK_WRITE : DISK_READ, 40 * i, 512 * (1 + i * 2), i);
            io_submit(binding, io[i]);
        }
        for (unsigned i = 0; i < COUNT; i++) {
            io_wait(binding, io[i]);
            if (io[i]->result == RESULT_OK && io[i]->op != DISK_FLUSH)
                assert_memory_equal(io[i]->buffer, vblk_disk() + io[i]->sector * 512, io[i]->bytes);
            io_free(io[i]);
        }
        if (round == 0) {
            for (unsigned i = 0; i < COUNT; i++) {
                io[i] = io_new(i % 2 ? DISK_WRITE : DISK_READ, i * 20, 4096, 0);
                io_submit(binding, io[i]);
            }
            disk_of(binding)->ops->restart(disk_of(binding), RESULT_ABORTED);
            for (unsigned i = 0; i < COUNT; i++) {
                io_wait(binding, io[i]);
                io_free(io[i]);
            }
        }
    }
    for (unsigned i = 0; i < COUNT; i++) {
        io[i] = io_new(i % 2 ? DISK_WRITE : DISK_READ, i * 20, 4096, 0);
        io_submit(binding, io[i]);
    }
    if (by_exit)
        quiesce(binding, 100);
    unbind(binding);
    for (unsigned i = 0; i < COUNT; i++)
        io_free(io[i]);
}

/* One run; returns whether the failure came to pass. */
static bool run_with(const struct vdev_options *options, const char *name, uint64_t k, bool by_exit)
{
    struct binding binding;

    vdev_plug(options);
    uint64_t since = vdev_time();
    bool bound = blk_bind(&binding) == RESULT_OK;
    if (bound)
        live(&binding, by_exit);
    /* Nothing takes longer than a few resets and one time-out. */
    assert_true(vdev_time() - since < (PIECE_TIMEOUT_MS + 12 * VIRTIO_RESET_MS) * MS);
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
    (void)state;
    for (unsigned which = 0; which < LENGTH(flavour_names); which++) {
        uint64_t k = 0;
        struct vdev_options options = flavour(which);
        do {
            options.fault_at = ++k;
            options.pace = k % 2 ? VDEV_IN_ORDER : VDEV_SHUFFLED;
            options.seed = (uint32_t)k;
            runs++;
            assert_true(k < 5000);
        } while (run_with(&options, flavour_names[which], k, k % 3 == 0));
        assert_true(k > 30);
        print_message("             %s: %llu failures\n", flavour_names[which],
                      (unsigned long long)k - 1);
    }
}

/* With a mapping that holds little, so that there are many. */
static void each_mapping_fails_once(void **state)
{
    static const size_t most[] = {512, 1000, 1536, 4096};
    (void)state;
    for (unsigned i = 0; i < LENGTH(most); i++) {
        uint64_t k = 0;
        struct vdev_options options = flavour(0);
        options.map_most = most[i];
        do {
            options.fault_at = ++k;
            runs++;
            assert_true(k < 5000);
        } while (run_with(&options, "short mappings", k, false));
        assert_true(k > 60);
    }
}

static void each_reset_is_refused_once(void **state)
{
    (void)state;
    for (unsigned which = 0; which < LENGTH(flavour_names); which++) {
        struct vdev_options options = flavour(which);
        uint32_t k = 0;
        do {
            options.stuck_reset_at = ++k;
            runs++;
        } while (run_with(&options, flavour_names[which], k, k % 2 == 0));
        assert_true(k > 3);
    }
}

/* One register read gives all ones, then the device is itself again. */
static void each_register_read_is_all_ones_once(void **state)
{
    (void)state;
    for (unsigned which = 0; which < LENGTH(flavour_names); which++) {
        struct vdev_options options = flavour(which);
        uint64_t k = 0;
        do {
            options.gone_at = ++k;
            runs++;
            assert_true(k < 5000);
        } while (run_with(&options, flavour_names[which], k, k % 2 == 0));
        assert_true(k > 20);
    }
}

/* The device is pulled out, at every moment. */
static void the_device_is_gone_from_each_register_read_on(void **state)
{
    (void)state;
    for (unsigned which = 0; which < LENGTH(flavour_names); which++) {
        struct vdev_options options = flavour(which);
        uint64_t k = 0;
        options.gone_for_good = true;
        do {
            options.gone_at = ++k;
            runs++;
            assert_true(k < 5000);
        } while (run_with(&options, flavour_names[which], k, k % 2 == 0));
    }
    print_message("             %llu runs in all\n", runs);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(each_call_fails_once, unplug),
        cmocka_unit_test_teardown(each_mapping_fails_once, unplug),
        cmocka_unit_test_teardown(each_reset_is_refused_once, unplug),
        cmocka_unit_test_teardown(each_register_read_is_all_ones_once, unplug),
        cmocka_unit_test_teardown(the_device_is_gone_from_each_register_read_on, unplug),
    };
    return cmocka_run_group_tests_name("virtio-blk, call k fails", tests, NULL, NULL);
}
