// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Data: what is read and written, by which way it goes, and in which order it comes back. */

#include "tests/unit/xen_harness.h"

/* What a disk may be like; each kind has everything tried on it that is tried on one. */
static const char *const kinds[] = {"as Linux has it",    "one page, direct",
                                    "small segments",     "QEMU's answers",
                                    "4096-byte sectors",  "4096-byte sectors, direct",
                                    "out of order",       "one by one",
                                    "on CPUs of its own", "without the shared-info page"};

static struct xhost_options kind(unsigned which)
{
    struct xhost_options options = xhost_usual(1);
    struct xhost_disk *disk = &options.disks[0];

    switch (which) {
    case 1:
        disk->ring_order = 0;
        disk->segments = 0;
        break;
    case 2:
        disk->segments = 20;
        break;
    case 3:
        disk->copies_operation = true;
        break;
    case 4:
    case 5:
        disk->sector_size = disk->physical_size = 4096;
        if (which == 5)
            disk->segments = 0;
        break;
    case 6:
        disk->pace = XHOST_SHUFFLED;
        break;
    case 7:
        disk->pace = XHOST_ONE_BY_ONE;
        break;
    case 8:
        options.parallel = true;
        disk->io_us = 0;
        disk->pace = XHOST_SHUFFLED;
        break;
    case 9:
        options.no_shared_page = true;
        break;
    default:
        break;
    }
    return options;
}

static void data_of_any_size_and_place(void **state)
{
    static const size_t sizes[] = {512, 1024, 4096, 4608, 20480, 45056, 49152, 524288, 1u << 20};
    static const size_t places[] = {0, 1, 4, 512, 1536, 2048, 4095};
    (void)state;

    for (unsigned which = 0; which < LENGTH(kinds); which++) {
        struct xhost_options options = kind(which);
        struct guest guest;

        xhost_plug(&options);
        guest_up(&guest);
        size_t block = disk_of(&guest, 0)->info.block_size;
        for (unsigned s = 0; s < LENGTH(sizes); s++)
            for (unsigned p = 0; p < LENGTH(places); p++) {
                size_t bytes = (sizes[s] + block - 1) / block * block;
                uint64_t sector =
                    (xhost_disk_bytes(0) - bytes) / block * test_chance(100) / 100 * (block / 512);
                assert_reads(&guest, 0, sector, bytes, places[p]);
                struct xio *io = xio_new(0, DISK_WRITE, sector, bytes, places[p]);
                assert_int_equal(xio_submit(&guest, io), RESULT_OK);
                xio_wait(&guest, io);
                assert_int_equal(io->result, RESULT_OK);
                assert_memory_equal(io->buffer, xhost_disk(0) + sector * 512, bytes);
                xio_free(io);
            }
        /* And what was not written is as it was. */
        assert_reads(&guest, 0, 0, 1u << 20, 0);
        guest_down(&guest);
        xhost_unplug();
    }
}

/* A buffer that no grant entry can name: above 16 TiB. */
static void a_buffer_that_cannot_be_granted(void **state)
{
    enum { BYTES = 100 * 1024 };
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    (void)state;

    xhost_plug(&options);
    guest_up(&guest);
    struct xio *io = xio_new(0, DISK_READ, 8, BYTES, 0);
    unsigned char *high = aligned_alloc(4096, BYTES);
    assert_non_null(high);
    assert_true((uintptr_t)high / 4096 > UINT32_MAX);
    io->request->base.buffer = high;
    assert_int_equal(xio_submit(&guest, io), RESULT_OK);
    xio_wait(&guest, io);
    assert_int_equal(io->result, RESULT_OK);
    assert_memory_equal(high, xhost_disk(0) + 8 * 512, BYTES);
    xio_free(io);
    free(high);
    guest_down(&guest);
}

/* Several buffers in one page, and the page itself: each request has a grant of its own. */
static void buffers_that_share_a_page(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    struct xio *io[9];
    (void)state;

    options.disks[0].pace = XHOST_BY_HAND;
    xhost_plug(&options);
    guest_up(&guest);
    unsigned char *page = xhost_alloc(4096, 0);
    for (unsigned i = 0; i < LENGTH(io); i++) {
        io[i] = xio_new(0, DISK_READ, 100 + i % 8, i < 8 ? 512 : 4096, 0);
        io[i]->request->base.buffer = page + i % 8 * 512;
        assert_int_equal(xio_submit(&guest, io[i]), RESULT_OK);
    }
    for (unsigned i = 0; i < LENGTH(io); i++) {
        assert_true(xhost_shown(page, 4096));
        xhost_finish(0, 1);
        disk_poll(&guest, 0);
        assert_int_equal(io[i]->done, 1);
        assert_int_equal(io[i]->result, RESULT_OK);
    }
    assert_false(xhost_shown(page, 4096));
    assert_memory_equal(page, xhost_disk(0) + 100 * 512, 4096);
    xhost_free(page);
    guest_down(&guest);
}

static void more_requests_than_the_ring_has_room_for(void **state)
{
    enum { REQUESTS = 200 };
    (void)state;
    for (unsigned which = 0; which < LENGTH(kinds); which++) {
        struct xhost_options options = kind(which);
        struct guest guest;
        struct xio *io[REQUESTS];

        xhost_plug(&options);
        guest_up(&guest);
        for (unsigned i = 0; i < REQUESTS; i++) {
            io[i] = xio_new(0, i % 3 ? DISK_READ : DISK_WRITE, 8 * i, 4096, i % 7 ? 0 : 1);
            assert_int_equal(xio_submit(&guest, io[i]), RESULT_OK);
        }
        for (unsigned i = 0; i < REQUESTS; i++) {
            xio_wait(&guest, io[i]);
            assert_int_equal(io[i]->result, RESULT_OK);
            assert_memory_equal(io[i]->buffer, xhost_disk(0) + io[i]->sector * 512, 4096);
            xio_free(io[i]);
        }
        assert_true(xhost_counted()->most_in_flight > 16);
        guest_down(&guest);
        xhost_unplug();
    }
}

/* Both indices go from the end of 32 bits to their beginning with requests in flight. */
static void the_rings_indices_wrap(void **state)
{
    static const enum xhost_pace paces[] = {XHOST_IN_ORDER, XHOST_SHUFFLED, XHOST_ONE_BY_ONE};
    (void)state;
    for (unsigned k = 0; k < LENGTH(paces); k++) {
        struct xhost_options options = xhost_usual(1);
        struct guest guest;
        struct xio *io[60];

        options.disks[0].pace = paces[k];
        xhost_plug(&options);
        guest_up(&guest);
        uint32_t index = UINT32_MAX - 20;
        xhost_wind(0, index);
        guest.blk[0]->consumed = guest.blk[0]->announced = guest.blk[0]->front.produced = index;
        for (unsigned round = 0; round < 3; round++) {
            for (unsigned i = 0; i < LENGTH(io); i++) {
                io[i] = xio_new(0, DISK_READ, 8 * i, 4096, 0);
                assert_int_equal(xio_submit(&guest, io[i]), RESULT_OK);
            }
            for (unsigned i = 0; i < LENGTH(io); i++) {
                xio_wait(&guest, io[i]);
                assert_memory_equal(io[i]->buffer, xhost_disk(0) + io[i]->sector * 512, 4096);
                assert_int_equal(xio_free(io[i]), RESULT_OK);
            }
        }
        assert_true(guest.blk[0]->consumed < 1000);
        guest_down(&guest);
        xhost_unplug();
    }
}

/* A wait ends with the answer, not with its deadline: no event is lost between look and sleep. */
static void waiting_ends_when_the_answer_is_there(void **state)
{
    (void)state;
    for (unsigned parallel = 0; parallel < 2; parallel++)
        for (unsigned us = 0; us < 40; us++) {
            struct xhost_options options = xhost_usual(1);
            struct guest guest;

            options.parallel = parallel;
            options.disks[0].io_us = us;
            xhost_plug(&options);
            guest_up(&guest);
            for (unsigned i = 0; i < 5; i++) {
                uint64_t since = xhost_time(), polls = xhost_counted()->polls;
                assert_reads(&guest, 0, 8 * i, 4096, 0);
                assert_true(xhost_time() - since < us + 100);
                assert_true(xhost_counted()->polls - polls <= 2);
            }
            guest_down(&guest);
            xhost_unplug();
        }
}

static void a_request_that_does_not_fit_is_refused(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    (void)state;

    options.disks[0].sector_size = 4096;
    xhost_plug(&options);
    guest_up(&guest);
    assert_int_equal(disk_of(&guest, 0)->info.block_size, 4096);
    assert_int_equal(disk_of(&guest, 0)->info.blocks, 4096 * 512 / 4096);
    assert_int_equal(xio_run(&guest, 0, DISK_READ, 0, 512, 0), RESULT_OUT_OF_RANGE);
    assert_int_equal(xio_run(&guest, 0, DISK_READ, 1, 4096, 0), RESULT_OUT_OF_RANGE);
    assert_int_equal(xio_run(&guest, 0, DISK_READ, 4096, 4096, 0), RESULT_OUT_OF_RANGE);
    assert_int_equal(xio_run(&guest, 0, DISK_READ, 4088, 8192, 0), RESULT_OUT_OF_RANGE);
    assert_int_equal(xio_run(&guest, 0, DISK_READ, 4088, 4096, 0), RESULT_OK);
    assert_int_equal(xhost_counted()->requests, 1);
    guest_down(&guest);
}

static void a_disk_that_is_read_only(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    (void)state;

    options.disks[0].info = VDISK_READONLY;
    xhost_plug(&options);
    guest_up(&guest);
    assert_true(disk_of(&guest, 0)->info.read_only);
    assert_int_equal(xio_run(&guest, 0, DISK_WRITE, 0, 512, 0), RESULT_WRITE_PROTECTED);
    assert_int_equal(xhost_counted()->requests, 0);
    assert_reads(&guest, 0, 0, 4096, 0);
    guest_down(&guest);
}

static void a_cd_rom(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    (void)state;

    options.disks[0].info = VDISK_CDROM | VDISK_REMOVABLE | VDISK_READONLY;
    options.disks[0].sectors = 4095; /* an image's end need not be that of a block */
    xhost_plug(&options);
    guest_up(&guest);
    const struct disk_info *info = &disk_of(&guest, 0)->info;
    assert_int_equal(info->block_size, 2048);
    assert_int_equal(info->blocks, 1023);
    assert_true(info->read_only);
    assert_true(info->removable);
    assert_true(guest.blk[0]->cdrom);
    assert_reads(&guest, 0, 64, 2048, 0);
    assert_reads(&guest, 0, 0, 1023 * 2048, 2);
    assert_int_equal(xio_run(&guest, 0, DISK_WRITE, 0, 2048, 0), RESULT_WRITE_PROTECTED);
    guest_down(&guest);
}

/* What a flush promises: that everything written before is there for good. */
static void a_flush_makes_writes_last(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 3; how++) {
        struct xhost_options options = xhost_usual(1);
        struct guest guest;

        options.disks[0].flush = how == 0;
        options.disks[0].barrier = how == 1;
        options.disks[0].pace = XHOST_SHUFFLED;
        xhost_plug(&options);
        guest_up(&guest);
        assert_int_equal(disk_of(&guest, 0)->info.write_cache, how < 2);
        struct xio *io[30];
        for (unsigned i = 0; i < LENGTH(io); i++) {
            bool flush = i % 10 == 9;
            io[i] =
                xio_new(0, flush ? DISK_FLUSH : DISK_WRITE, flush ? 0 : 8 * i, flush ? 0 : 4096, 0);
            assert_int_equal(xio_submit(&guest, io[i]), RESULT_OK);
        }
        for (unsigned i = 0; i < LENGTH(io); i++) {
            xio_wait(&guest, io[i]);
            if (io[i]->op == DISK_FLUSH && how < 2)
                for (unsigned k = i - 9; k < i; k++) {
                    assert_int_equal(io[k]->done, 1);
                    assert_memory_equal(io[k]->buffer, xhost_stable(0) + 8 * k * 512, 4096);
                }
        }
        for (unsigned i = 0; i < LENGTH(io); i++)
            assert_int_equal(xio_free(io[i]), RESULT_OK);
        assert_int_equal(xhost_counted()->flushes, how < 2 ? 3 : 0);
        guest_down(&guest);
        xhost_unplug();
    }
}

/* It has offered flushes, and then says that it cannot do them: nothing to flush, says Xen's own
 * description. It is not asked again. */
static void a_flush_that_is_not_supported(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    (void)state;

    options.disks[0].lie = XLIE_UNSUPPORTED;
    options.disks[0].lies = UINT32_MAX;
    xhost_plug(&options);
    guest_up(&guest);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(xio_run(&guest, 0, DISK_WRITE, i, 512, 0), RESULT_OK);
        assert_int_equal(xio_run(&guest, 0, DISK_FLUSH, 0, 0, 0), RESULT_OK);
    }
    assert_int_equal(xhost_counted()->flushes, 1);
    assert_false(disk_of(&guest, 0)->info.write_cache);
    guest_down(&guest);
}

static void an_error_is_the_requests_own(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    (void)state;

    options.disks[0].pace = XHOST_IN_ORDER;
    xhost_plug(&options);
    guest_up(&guest);
    assert_reads(&guest, 0, 0, 4096, 0);
    for (unsigned unknown = 0; unknown < 2; unknown++) {
        xhost_now()->disks[0].lie = unknown ? XLIE_STATUS_UNKNOWN : XLIE_STATUS_ERROR;
        xhost_now()->disks[0].lies = 1;
        assert_int_equal(xio_run(&guest, 0, DISK_READ, 0, 4096, 0), RESULT_DEVICE_ERROR);
        assert_reads(&guest, 0, 0, 4096, 0);
        /* One part of it has failed, so all of it has. */
        xhost_now()->disks[0].lies = 1;
        assert_int_equal(xio_run(&guest, 0, DISK_READ, 0, 1u << 20, 1), RESULT_DEVICE_ERROR);
    }
    assert_int_equal(xhost_backend_state(0), XenbusStateConnected);
    guest_down(&guest);
}

/* Few grants are left: a large request goes in small parts, and disks that have nothing left but
 * their own pages work with these. */
static void few_grants(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    struct xio *io[40];
    (void)state;

    options.grant_frames = 1;
    xhost_plug(&options);
    guest_up(&guest);
    assert_reads(&guest, 0, 0, 1u << 20, 0);
    assert_reads(&guest, 0, 0, 1u << 20, 1);
    for (unsigned i = 0; i < LENGTH(io); i++) {
        io[i] = xio_new(0, DISK_READ, 8 * i, 100 * 4096, 0);
        assert_int_equal(xio_submit(&guest, io[i]), RESULT_OK);
    }
    for (unsigned i = 0; i < LENGTH(io); i++) {
        xio_wait(&guest, io[i]);
        assert_memory_equal(io[i]->buffer, xhost_disk(0) + 8 * i * 512, 100 * 4096);
        assert_int_equal(xio_free(io[i]), RESULT_OK);
    }
    guest_down(&guest);
}

/* A disk that gets none at all says so, and the other one works. */
static void too_few_grants_for_two_disks(void **state)
{
    struct xhost_options options = xhost_usual(2);
    struct guest guest;
    (void)state;

    options.grant_frames = 1;
    xhost_plug(&options);
    assert_int_equal(guest_begin(&guest), RESULT_OK);
    assert_int_equal(guest_disk(&guest, 0), RESULT_OK);
    assert_int_equal(guest_disk(&guest, 1), RESULT_NO_MEMORY);
    assert_non_null(strstr(xhost_last_log(), "grants"));
    assert_reads(&guest, 0, 0, 1u << 20, 0);
    assert_true(guest_drop(&guest, 0));
    assert_int_equal(guest_disk(&guest, 1), RESULT_OK);
    assert_reads(&guest, 1, 0, 1u << 20, 0);
    guest_down(&guest);
}

/* Eight disks, all busy: what belongs to one does not end up with another. */
static void eight_disks_at_once(void **state)
{
    struct xhost_options options = xhost_usual(8);
    struct guest guest;
    struct xio *io[8][20];
    (void)state;

    for (unsigned i = 0; i < 8; i++)
        options.disks[i].pace = XHOST_SHUFFLED;
    xhost_plug(&options);
    guest_up(&guest);
    for (unsigned k = 0; k < 20; k++)
        for (unsigned i = 0; i < 8; i++) {
            io[i][k] = xio_new(i, k % 4 ? DISK_READ : DISK_WRITE, 16 * k, 8192, k % 5 ? 0 : 7);
            assert_int_equal(xio_submit(&guest, io[i][k]), RESULT_OK);
        }
    for (unsigned i = 0; i < 8; i++)
        for (unsigned k = 0; k < 20; k++) {
            xio_wait(&guest, io[i][k]);
            assert_memory_equal(io[i][k]->buffer, xhost_disk(i) + 16 * k * 512, 8192);
            assert_int_equal(xio_free(io[i][k]), RESULT_OK);
        }
    guest_down(&guest);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        xen_test(data_of_any_size_and_place),
        xen_test(a_buffer_that_cannot_be_granted),
        xen_test(buffers_that_share_a_page),
        xen_test(more_requests_than_the_ring_has_room_for),
        xen_test(the_rings_indices_wrap),
        xen_test(waiting_ends_when_the_answer_is_there),
        xen_test(a_request_that_does_not_fit_is_refused),
        xen_test(a_disk_that_is_read_only),
        xen_test(a_cd_rom),
        xen_test(a_flush_makes_writes_last),
        xen_test(a_flush_that_is_not_supported),
        xen_test(an_error_is_the_requests_own),
        xen_test(few_grants),
        xen_test(too_few_grants_for_two_disks),
        xen_test(eight_disks_at_once),
    };
    return cmocka_run_group_tests_name("Xen disks' data", tests, NULL, NULL);
}
