// SPDX-License-Identifier: BSD-2-Clause-Patent
/* SCSI commands: whole and in parts, answers of all kinds, giving up, and finding what there is. */

#include "tests/unit/scsi_harness.h"

/* Resets of the device: one to begin with, two for each restart. */
#define AFTER_RESTART 3

static const unsigned forms[] = {6, 10, 12, 16};
static const uint8_t inquiry[6] = {0x12, 0, 0, 0, 96};
static const uint8_t test_unit_ready[6] = {0};
static const uint8_t vendor[10] = {0xc0};

static void plugged(struct binding *binding, const struct vdev_options *options)
{
    vdev_plug(options);
    assert_int_equal(scsi_bind(binding), RESULT_OK);
}

static void unplugged(struct binding *binding)
{
    assert_true(unbind(binding));
    assert_clean();
    vdev_unplug();
}

/* ---- Commands that go well ---- */

static void transfers_move_the_right_bytes(void **state)
{
    static const uint32_t blocks[] = {512, 520, 2048, 4096};
    (void)state;

    for (unsigned transport = VDEV_MODERN; transport <= VDEV_LEGACY; transport++)
        for (size_t b = 0; b < LENGTH(blocks); b++) {
            struct binding binding;
            struct vdev_options options = vscsi_usual();
            options.transport = (enum vdev_transport)transport;
            vscsi.units[0].block_size = blocks[b];
            plugged(&binding, &options);
            for (size_t f = 0; f < LENGTH(forms); f++)
                for (unsigned write = 0; write < 2; write++) {
                    struct scsi_request answer;
                    struct sio *io =
                        sio_transfer(forms[f], write, 100 + 7 * f, 9, blocks[b], f * 3 + write);
                    assert_int_equal(sio_run(&binding, io, &answer), RESULT_OK);
                    assert_int_equal(answer.host, SCSI_HOST_OK);
                    assert_int_equal(answer.status, SCSI_GOOD);
                    assert_int_equal(answer.transferred, 9 * blocks[b]);
                    assert_int_equal(answer.sense_bytes, 0);
                }
            unplugged(&binding);
        }
}

static void commands_without_data_and_short_answers(void **state)
{
    struct binding binding;
    struct scsi_request answer;
    struct vdev_options options = vscsi_usual();
    (void)state;

    plugged(&binding, &options);
    assert_int_equal(sio_run(&binding, sio_new(test_unit_ready, 6, false, 0, 0), NULL), RESULT_OK);
    assert_int_equal(sio_run(&binding, sio_new(test_unit_ready, 6, true, 0, 0), NULL), RESULT_OK);
    assert_int_equal(sio_run(&binding, sio_new(inquiry, 6, false, 96, 1), &answer), RESULT_OK);
    assert_int_equal(answer.transferred, 36);
    unplugged(&binding);
}

static void units_are_addressed_in_their_form(void **state)
{
    static const uint16_t luns[] = {0, 1, 255, 256, 300, 16383};
    struct binding binding;
    struct vdev_options options = vscsi_usual();
    (void)state;

    for (size_t i = 0; i < LENGTH(luns); i++)
        vscsi_add(255, luns[i]);
    plugged(&binding, &options);
    for (size_t i = 0; i < LENGTH(luns); i++) {
        struct sio *io = sio_transfer(10, false, i, 3, 512, 0);
        io->request->target = 255;
        io->request->lun = luns[i];
        assert_int_equal(sio_run(&binding, io, NULL), RESULT_OK);
    }
    unplugged(&binding);
}

static void many_are_in_flight_in_any_order(void **state)
{
    static const uint16_t sizes[] = {4, 8, 16, 256};
    static const uint32_t limits[] = {0, 1, 5, 128};
    enum { COUNT = 90 };
    static struct sio *io[COUNT];
    (void)state;

    for (size_t s = 0; s < LENGTH(sizes); s++)
        for (unsigned indirect = 0; indirect < 2; indirect++) {
            struct binding binding;
            struct vdev_options options = vscsi_usual();
            options.queue_size = sizes[s];
            options.pace = VDEV_SHUFFLED;
            if (!indirect)
                options.features &= ~feature(VIRTIO_RING_F_INDIRECT_DESC);
            vscsi.cmd_per_lun = limits[s];
            vscsi_add(3, 1);
            plugged(&binding, &options);
            for (unsigned i = 0; i < COUNT; i++) {
                io[i] = sio_transfer(10, i % 3 == 0, 11 * i, 1 + i % 10, 512, i % 5);
                if (i % 2) {
                    io[i]->request->target = 3;
                    io[i]->request->lun = 1;
                }
                assert_int_equal(sio_submit(&binding, io[i]), RESULT_OK);
            }
            for (unsigned i = 0; i < COUNT; i++) {
                sio_wait(&binding, io[i]);
                assert_int_equal(io[i]->result, RESULT_OK);
                assert_moved(io[i]);
                sio_free(io[i], NULL);
            }
            assert_int_equal(vdev_counted()->resets, 1);
            unplugged(&binding);
        }
}

/* ---- More than the device takes ---- */

static void long_transfers_go_in_parts(void **state)
{
    static const uint32_t blocks[] = {512, 520, 4096};
    (void)state;

    for (size_t b = 0; b < LENGTH(blocks); b++)
        for (unsigned by_mapping = 0; by_mapping < 2; by_mapping++)
            for (size_t f = 0; f < LENGTH(forms); f++) {
                struct binding binding;
                struct scsi_request answer;
                struct vdev_options options = vscsi_usual();
                uint64_t lba = forms[f] == 6 ? 1234 : 2000;
                options.pace = VDEV_SHUFFLED;
                vscsi.units[0].block_size = blocks[b];
                if (by_mapping)
                    options.map_most = 9000;
                else
                    vscsi.max_sectors = 17;
                plugged(&binding, &options);
                struct sio *io = sio_transfer(forms[f], false, lba, 201, blocks[b], 1);
                assert_int_equal(sio_run(&binding, io, &answer), RESULT_OK);
                assert_int_equal(answer.transferred, 201 * blocks[b]);
                io = sio_transfer(forms[f], true, lba, 203, blocks[b], 0);
                assert_int_equal(sio_run(&binding, io, NULL), RESULT_OK);
                assert_true(vscsi_counted()->largest <= 9000);
                assert_true(vscsi_counted()->largest % blocks[b] == 0);
                unplugged(&binding);
            }
}

/* The bits above the first block's number stay, and it may carry over into all of its bytes; but
 * not beyond them: then a part would be somewhere else on the disk. */
static void parts_of_commands_are_what_they_should_be(void **state)
{
    uint8_t six[6] = {0x08, 0xff, 0xfe, 0xff, 0, 9};
    uint8_t ten[10] = {0x2a, 0x08, 0, 0xff, 0xff, 0xff, 7, 0, 0, 9};
    uint8_t sixteen[16] = {0x88, 0x20, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0, 5, 9};
    static const uint8_t six_then[6] = {0x08, 0xff, 0xff, 4, 200, 9};
    static const uint8_t beyond_six[6] = {0x08, 0xff, 0xff, 0xff, 0, 9};
    static const uint8_t beyond_ten[10] = {0x2a, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0};
    static const uint8_t last_of_ten[10] = {0x2a, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0};
    static const uint8_t ten_then[10] = {0x2a, 0x08, 1, 0, 0, 0x0f, 7, 1, 0, 9};
    static const uint8_t sixteen_then[16] = {0x88, 0x20, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 2, 0, 5, 9};
    (void)state;

    assert_int_equal(cdb_block(six, 6, DMA_FROM_DEVICE, 256 * 512), 512);
    assert_int_equal(cdb_block(beyond_six, 6, DMA_FROM_DEVICE, 256 * 512), 0);
    assert_int_equal(cdb_block(beyond_ten, 10, DMA_TO_DEVICE, 2 * 512), 0);
    assert_int_equal(cdb_block(last_of_ten, 10, DMA_TO_DEVICE, 512), 512);
    cdb_part(six, 5, 200);
    assert_memory_equal(six, six_then, 6);
    assert_int_equal(cdb_block(ten, 10, DMA_TO_DEVICE, 1), 0); /* no blocks */
    cdb_part(ten, 16, 256);
    assert_memory_equal(ten, ten_then, 10);
    assert_int_equal(cdb_block(sixteen, 16, DMA_FROM_DEVICE, 65536ull * 4096), 4096);
    cdb_part(sixteen, 2, 512);
    assert_memory_equal(sixteen, sixteen_then, 16);

    /* Those that cannot be done in parts. */
    static const uint8_t read[10] = {0x28, 0, 0, 0, 0, 0, 0, 0, 8};
    assert_int_equal(cdb_block(read, 10, DMA_FROM_DEVICE, 4096), 512);
    assert_int_equal(cdb_block(read, 10, DMA_TO_DEVICE, 4096), 0);
    assert_int_equal(cdb_block(read, 9, DMA_FROM_DEVICE, 4096), 0);
    assert_int_equal(cdb_block(read, 10, DMA_FROM_DEVICE, 4097), 0);
    assert_int_equal(cdb_block(read, 10, DMA_FROM_DEVICE, 8), 0);
    assert_int_equal(cdb_block(read, 10, DMA_FROM_DEVICE, 8u << 20), 0);
    assert_int_equal(cdb_block(read, 10, DMA_FROM_DEVICE, 0), 0);
    assert_int_equal(cdb_block(inquiry, 6, DMA_FROM_DEVICE, 4096), 0);
}

static void what_cannot_be_done_in_parts_is_refused_with_a_length(void **state)
{
    struct binding binding;
    struct scsi_request answer;
    struct vdev_options options = vscsi_usual();
    (void)state;

    vscsi.max_sectors = 8;
    plugged(&binding, &options);
    assert_int_equal(sio_run(&binding, sio_new(vendor, 10, false, 4097, 0), &answer),
                     RESULT_NO_MEMORY);
    assert_int_equal(answer.most, 4096);
    assert_int_equal(vscsi_counted()->commands, 0);
    /* It would go: the unit does not know it. */
    assert_int_equal(sio_run(&binding, sio_new(vendor, 10, false, 4096, 0), &answer),
                     RESULT_DEVICE_ERROR);
    assert_int_equal(answer.status, SCSI_CHECK_CONDITION);
    /* A block that does not fit. */
    struct sio *io = sio_transfer(10, false, 0, 2, 8192, 0);
    assert_int_equal(sio_run(&binding, io, &answer), RESULT_NO_MEMORY);
    assert_int_equal(answer.most, 4096);
    unplugged(&binding);

    options = vscsi_usual();
    options.map_most = 1000;
    plugged(&binding, &options);
    assert_int_equal(sio_run(&binding, sio_new(vendor, 10, true, 4096, 0), &answer),
                     RESULT_NO_MEMORY);
    assert_int_equal(answer.most, 1000);
    assert_int_equal(vscsi_counted()->commands, 0);
    unplugged(&binding);
}

static void what_cannot_be_is_refused(void **state)
{
    struct binding binding;
    struct vdev_options options = vscsi_usual();
    (void)state;

    vscsi.max_target = 7;
    vscsi.max_lun = 300;
    plugged(&binding, &options);
    for (unsigned i = 0; i < 4; i++) {
        struct sio *io = sio_transfer(10, false, 0, 1, 512, 0);
        if (i == 0)
            io->request->target = 8;
        if (i == 1)
            io->request->lun = 301;
        if (i == 2)
            io->request->cdb_bytes = 0;
        if (i == 3)
            io->request->cdb_bytes = 33;
        assert_int_equal(sio_run(&binding, io, NULL), RESULT_OUT_OF_RANGE);
    }
    assert_int_equal(vscsi_counted()->commands, 0);
    assert_int_equal(scsi_reset_unit(scsi_of(&binding), 8, 0), RESULT_OUT_OF_RANGE);
    assert_int_equal(scsi_reset_unit(scsi_of(&binding), 0, 301), RESULT_OUT_OF_RANGE);
    uint8_t longest[32] = {0xc0};
    assert_int_equal(sio_run(&binding, sio_new(longest, 32, false, 0, 0), NULL),
                     RESULT_DEVICE_ERROR);
    unplugged(&binding);
}

/* ---- Answers ---- */

static void sense_data_and_the_bytes_before_an_error(void **state)
{
    (void)state;

    for (unsigned parts = 0; parts < 2; parts++)
        for (unsigned write = 0; write < 2; write++) {
            struct binding binding;
            struct scsi_request answer;
            struct vdev_options options = vscsi_usual();
            options.pace = VDEV_LAST_FIRST;
            vscsi.bad_block = 137;
            vscsi.sense_bytes = 20;
            if (parts)
                vscsi.max_sectors = 10;
            plugged(&binding, &options);
            for (size_t room = 0; room <= 20; room += 10) {
                struct sio *io = sio_transfer(10, write, 100, 100, 512, 0);
                io->request->sense_room = room;
                if (room == 0)
                    io->request->sense = NULL;
                assert_int_equal(sio_submit(&binding, io), RESULT_OK);
                while (!io->done) {
                    vdev_finish(3);
                    scsi_poll(scsi_of(&binding));
                }
                assert_int_equal(io->result, RESULT_DEVICE_ERROR);
                assert_int_equal(io->answer.host, SCSI_HOST_OK);
                assert_int_equal(io->answer.status, SCSI_CHECK_CONDITION);
                assert_int_equal(io->answer.sense_bytes, room);
                assert_int_equal(io->answer.transferred, 37 * 512);
                if (room)
                    assert_int_equal(io->sense[2], 3);
                assert_int_equal(io->sense[room], 0x3c);
                assert_memory_equal(io->buffer, vscsi_disk() + 100 * 512, 37 * 512);
                sio_free(io, &answer);
            }
            unplugged(&binding);
        }
}

static void every_response_has_its_name(void **state)
{
    static const struct {
        uint8_t response;
        enum scsi_host host;
    } names[] = {
        {VIRTIO_SCSI_S_OVERRUN, SCSI_HOST_OVERRUN},
        {VIRTIO_SCSI_S_ABORTED, SCSI_HOST_ABORTED},
        {VIRTIO_SCSI_S_BAD_TARGET, SCSI_HOST_NO_TARGET},
        {VIRTIO_SCSI_S_RESET, SCSI_HOST_RESET},
        {VIRTIO_SCSI_S_BUSY, SCSI_HOST_BUSY},
        {VIRTIO_SCSI_S_TRANSPORT_FAILURE, SCSI_HOST_TRANSPORT},
        {VIRTIO_SCSI_S_TARGET_FAILURE, SCSI_HOST_TARGET},
        {VIRTIO_SCSI_S_NEXUS_FAILURE, SCSI_HOST_NEXUS},
        {VIRTIO_SCSI_S_FAILURE, SCSI_HOST_FAILURE},
        {VIRTIO_SCSI_S_FUNCTION_SUCCEEDED, SCSI_HOST_FAILURE},
        {VIRTIO_SCSI_S_INCORRECT_LUN, SCSI_HOST_NO_TARGET},
        {0xfe, SCSI_HOST_FAILURE},
    };
    struct binding binding;
    struct vdev_options options = vscsi_usual();
    (void)state;

    plugged(&binding, &options);
    for (size_t i = 0; i < LENGTH(names); i++) {
        struct scsi_request answer;
        vscsi.response = names[i].response;
        struct sio *io = sio_transfer(10, i % 2, 0, 8, 512, 0);
        assert_int_equal(sio_run(&binding, io, &answer), RESULT_DEVICE_ERROR);
        assert_int_equal(answer.host, names[i].host);
        assert_int_equal(answer.transferred, 0);
        assert_int_equal(answer.sense_bytes, 0);
    }
    assert_int_equal(vdev_counted()->resets, 1);
    vscsi.response = 0;
    assert_int_equal(sio_run(&binding, sio_transfer(10, false, 0, 8, 512, 0), NULL), RESULT_OK);
    unplugged(&binding);
}

static void lies_end_the_command(void **state)
{
    static const struct {
        int lie;
        enum result result;
        enum scsi_host host;
        unsigned resets;
    } lies[] = {
        {LIE_SCSI_CARELESS, RESULT_OK, SCSI_HOST_OK, 1},
        {LIE_SCSI_NOT_WRITTEN, RESULT_DEVICE_ERROR, SCSI_HOST_FAILURE, 1},
        {LIE_SCSI_UNKNOWN, RESULT_DEVICE_ERROR, SCSI_HOST_FAILURE, 1},
        {LIE_SCSI_RESIDUAL, RESULT_DEVICE_ERROR, SCSI_HOST_FAILURE, 1},
        {LIE_SCSI_SENSE, RESULT_DEVICE_ERROR, SCSI_HOST_FAILURE, 1},
        {LIE_SCSI_GOOD_FOR_NOTHING, RESULT_DEVICE_ERROR, SCSI_HOST_OVERRUN, 1},
        {LIE_LENGTH, RESULT_DEVICE_ERROR, SCSI_HOST_OK, AFTER_RESTART},
        {LIE_LENGTH_HUGE, RESULT_DEVICE_ERROR, SCSI_HOST_OK, AFTER_RESTART},
        {LIE_ID_OF_NOBODY, RESULT_DEVICE_ERROR, SCSI_HOST_OK, AFTER_RESTART},
    };
    (void)state;

    for (size_t i = 0; i < LENGTH(lies); i++)
        for (unsigned write = 0; write < 2; write++) {
            struct binding binding;
            struct scsi_request answer;
            struct vdev_options options = vscsi_usual();
            plugged(&binding, &options);
            vdev_now()->lie = lies[i].lie;
            vdev_now()->lies = 1;
            vdev_now()->lie_queue = VDEV_ANY_QUEUE;
            struct sio *io = sio_transfer(10, write, 0, 8, 512, 0);
            assert_int_equal(sio_run(&binding, io, &answer), lies[i].result);
            assert_int_equal(answer.host, lies[i].host);
            if (lies[i].result)
                assert_int_equal(answer.sense_bytes, 0);
            assert_int_equal(vdev_counted()->resets, lies[i].resets);
            /* And nothing else is lost. */
            vdev_now()->lie = LIE_NONE;
            assert_int_equal(sio_run(&binding, sio_transfer(16, false, 9, 8, 512, 0), NULL),
                             RESULT_OK);
            unplugged(&binding);
        }
}

static void a_short_transfer_says_how_much(void **state)
{
    struct binding binding;
    struct scsi_request answer;
    struct vdev_options options = vscsi_usual();
    (void)state;

    vscsi.max_sectors = 8;
    vscsi.short_by = 100;
    plugged(&binding, &options);
    assert_int_equal(sio_run(&binding, sio_transfer(10, false, 0, 40, 512, 0), &answer), RESULT_OK);
    assert_int_equal(answer.transferred, 8 * 512 - 100);
    unplugged(&binding);
}

/* ---- Giving up ---- */

static void a_command_that_is_late_is_given_up_alone(void **state)
{
    static const uint32_t timeouts[] = {1, 50, 500, 7000};
    (void)state;

    for (unsigned parts = 0; parts < 2; parts++)
        for (size_t t = 0; t < LENGTH(timeouts); t++) {
            struct binding binding;
            struct vdev_options options = vscsi_usual();
            vscsi_add(1, 0);
            if (parts)
                vscsi.max_sectors = 2;
            plugged(&binding, &options);
            vscsi.deaf = true;
            vscsi.only_target = 0;

            struct sio *io = sio_transfer(10, false, 0, 8, 512, 0);
            io->request->base.timeout_ms = timeouts[t];
            uint64_t start = vdev_time();
            assert_int_equal(sio_submit(&binding, io), RESULT_OK);
            struct sio *other = sio_transfer(10, true, 0, 8, 512, 0);
            other->request->target = 1;
            assert_int_equal(sio_run(&binding, other, NULL), RESULT_OK);
            sio_wait(&binding, io);
            uint64_t took = io->done_at - start;
            assert_true(took >= timeouts[t] * MS);
            assert_true(took <= (timeouts[t] + 3 * PIECE_LOOK_MS) * MS);
            assert_int_equal(sio_free(io, NULL), RESULT_TIMEOUT);
            assert_int_equal(vscsi_counted()->aborts, parts ? 4 : 1);
            assert_int_equal(vdev_counted()->resets, 1);

            vscsi.deaf = false;
            assert_int_equal(sio_run(&binding, sio_transfer(10, false, 0, 8, 512, 0), NULL),
                             RESULT_OK);
            unplugged(&binding);
        }
}

static void a_device_that_does_not_give_up_is_reset(void **state)
{
    (void)state;

    for (unsigned how = 0; how < 4; how++) {
        struct binding binding;
        struct vdev_options options = vscsi_usual();
        if (how == 3)
            options.queue_sizes[VSCSI_CONTROL_QUEUE] = VDEV_NO_QUEUE;
        plugged(&binding, &options);
        vscsi.deaf = true;
        vscsi.control_deaf = how == 0;
        vscsi.control_refuses = how == 1;
        vscsi.control_forgets = how == 2;
        struct sio *io[2];
        for (unsigned i = 0; i < 2; i++) {
            io[i] = sio_transfer(10, i, 0, 8, 512, 0);
            io[i]->request->base.timeout_ms = 300;
            assert_int_equal(sio_submit(&binding, io[i]), RESULT_OK);
        }
        uint64_t start = vdev_time();
        for (unsigned i = 0; i < 2; i++) {
            sio_wait(&binding, io[i]);
            assert_true(io[i]->done_at - start < (600 + SCSI_CONTROL_MS) * MS);
            assert_int_equal(sio_free(io[i], NULL), RESULT_TIMEOUT);
        }
        assert_int_equal(vdev_counted()->resets, AFTER_RESTART);
        vscsi.deaf = false;
        vscsi.control_deaf = vscsi.control_refuses = vscsi.control_forgets = false;
        assert_int_equal(sio_run(&binding, sio_transfer(10, false, 0, 8, 512, 0), NULL), RESULT_OK);
        /* And the control queue is as new. */
        if (how != 3)
            assert_int_equal(scsi_reset_unit(scsi_of(&binding), 0, 0), RESULT_OK);
        unplugged(&binding);
    }
}

static void without_a_time_out_there_is_one(void **state)
{
    struct binding binding;
    struct vdev_options options = vscsi_usual();
    (void)state;

    plugged(&binding, &options);
    vscsi.deaf = true;
    uint64_t start = vdev_time();
    assert_int_equal(sio_run(&binding, sio_transfer(10, false, 0, 8, 512, 0), NULL),
                     RESULT_TIMEOUT);
    assert_true(vdev_time() - start >= PIECE_TIMEOUT_MS * MS);
    assert_true(vdev_time() - start < (PIECE_TIMEOUT_MS + 1000) * MS);
    assert_int_equal(vdev_counted()->resets, 1);
    unplugged(&binding);
}

static void a_reset_of_a_unit_ends_its_commands(void **state)
{
    struct binding binding;
    struct scsi_request answer;
    struct vdev_options options = vscsi_usual();
    struct sio *io[6];
    (void)state;

    vscsi_add(0, 1);
    plugged(&binding, &options);
    vscsi.deaf = true;
    for (unsigned i = 0; i < LENGTH(io); i++) {
        io[i] = sio_transfer(10, false, 8 * i, 8, 512, 0);
        io[i]->request->lun = i % 2;
        assert_int_equal(sio_submit(&binding, io[i]), RESULT_OK);
    }
    assert_int_equal(scsi_reset_unit(scsi_of(&binding), 0, 0), RESULT_OK);
    for (unsigned i = 0; i < LENGTH(io); i += 2) {
        assert_int_equal(sio_free(io[i], &answer), RESULT_DEVICE_ERROR);
        assert_int_equal(answer.host, SCSI_HOST_RESET);
    }
    /* There is no such unit: nothing else happens. */
    assert_int_equal(scsi_reset_unit(scsi_of(&binding), 0, 2), RESULT_DEVICE_ERROR);
    assert_int_equal(scsi_reset_unit(scsi_of(&binding), 9, 0), RESULT_DEVICE_ERROR);
    assert_int_equal(vdev_counted()->resets, 1);
    assert_int_equal(vdev_in_flight(), 3);
    /* A device that does not answer is reset as a whole. */
    vscsi.control_deaf = true;
    assert_int_equal(scsi_reset_unit(scsi_of(&binding), 0, 1), RESULT_TIMEOUT);
    assert_int_equal(vdev_counted()->resets, AFTER_RESTART);
    for (unsigned i = 1; i < LENGTH(io); i += 2)
        assert_int_equal(sio_free(io[i], NULL), RESULT_ABORTED);
    vscsi.deaf = false;
    assert_int_equal(sio_run(&binding, sio_transfer(10, false, 0, 8, 512, 0), NULL), RESULT_OK);
    unplugged(&binding);
}

static void a_restart_ends_everything(void **state)
{
    struct binding binding;
    struct vdev_options options = vscsi_usual();
    struct sio *io[100];
    (void)state;

    plugged(&binding, &options);
    vscsi.deaf = true;
    for (unsigned i = 0; i < LENGTH(io); i++) {
        io[i] = sio_transfer(10, i % 2, 8 * i, 8, 512, 0);
        assert_int_equal(sio_submit(&binding, io[i]), RESULT_OK);
    }
    assert_int_equal(scsi_restart(scsi_of(&binding), RESULT_ABORTED), RESULT_OK);
    for (unsigned i = 0; i < LENGTH(io); i++)
        assert_int_equal(sio_free(io[i], NULL), RESULT_ABORTED);
    vscsi.deaf = false;
    assert_int_equal(sio_run(&binding, sio_transfer(10, false, 0, 8, 512, 0), NULL), RESULT_OK);
    unplugged(&binding);
}

/* ---- Starting ---- */

static void adapters_that_cannot_be_driven(void **state)
{
    struct vdev_options options = vscsi_usual();
    struct binding binding;
    (void)state;

    vscsi.num_queues = 0;
    assert_true(refused_start(&scsi_test, "no queues", &options, RESULT_UNSUPPORTED));
    options = vscsi_usual();
    options.queue_sizes[VSCSI_REQUEST_QUEUE] = 2;
    assert_true(refused_start(&scsi_test, "a queue of two", &options, RESULT_UNSUPPORTED));
    options = vscsi_usual();
    vscsi.cdb_size = 16;
    vscsi.size_fixed = true;
    assert_true(refused_start(&scsi_test, "small CDBs", &options, RESULT_UNSUPPORTED));
    options = vscsi_usual();
    vscsi.sense_size = 252;
    vscsi.size_fixed = true;
    assert_true(refused_start(&scsi_test, "much sense", &options, RESULT_UNSUPPORTED));

    options = vscsi_usual();
    vscsi.sense_size = 252;
    vscsi.cdb_size = 16;
    vscsi.max_sectors = 0;
    vscsi.max_target = 65535;
    vscsi.max_lun = UINT32_MAX;
    plugged(&binding, &options);
    assert_int_equal(scsi_of(&binding)->max_target, 255);
    assert_int_equal(scsi_of(&binding)->max_lun, 16383);
    assert_int_equal(sio_run(&binding, sio_transfer(10, false, 0, 8, 512, 0), NULL), RESULT_OK);
    unplugged(&binding);
}

/* ---- What there is ---- */

static void assert_found(const struct scan *found, const struct scan_unit *units, size_t count)
{
    assert_int_equal(found->count, count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(found->units[i].target, units[i].target);
        assert_int_equal(found->units[i].lun, units[i].lun);
    }
    assert_false(found->more);
}

static void units_are_found_in_order(void **state)
{
    static const struct scan_unit there[] = {{0, 0}, {0, 3}, {0, 255}, {0, 256}, {5, 0},
                                             {7, 0}, {9, 0}, {200, 1}, {255, 0}, {255, 16383}};
    struct binding binding;
    struct vdev_options options = vscsi_usual();
    (void)state;

    options.pace = VDEV_SHUFFLED;
    vscsi_add(0, 256);
    vscsi_add(0, 3);
    vscsi_add(0, 255);
    vscsi_add(255, 16383);
    vscsi_add(255, 0);
    vscsi_add(200, 1); /* without a unit 0 */
    vscsi_add(200, 2)->absent = true;
    vscsi_add(5, 0)->old = true;
    vscsi_add(7, 0)->status = 0x08; /* BUSY */
    vscsi_add(8, 0)->status = 0x02;
    vscsi_add(9, 0);
    vscsi_add(10, 0)->absent = true;
    plugged(&binding, &options);
    assert_found(scan_units(&binding), there, LENGTH(there));
    assert_true(vscsi_counted()->most_at_once == SCAN_PROBES);
    /* One comes, one goes. */
    vscsi.units[1].lun = 257;
    struct scan *again = scan_units(&binding);
    assert_int_equal(again->count, LENGTH(there));
    assert_int_equal(again->units[3].lun, 257);
    assert_int_equal(vdev_counted()->resets, 1);
    unplugged(&binding);
}

static void long_lists_are_read_to_the_end(void **state)
{
    struct binding binding;
    struct vdev_options options = vscsi_usual();
    (void)state;

    for (unsigned i = 1; i < 300; i++)
        vscsi_add(0, (uint16_t)i);
    vscsi_add(1, 0);
    plugged(&binding, &options);
    struct scan *found = scan_units(&binding);
    assert_int_equal(found->count, 301);
    for (unsigned i = 0; i < 300; i++)
        assert_int_equal(found->units[i].lun, i);
    assert_int_equal(found->units[300].target, 1);
    unplugged(&binding);
}

static void nonsense_in_lists_is_survived(void **state)
{
    static const struct scan_unit all[] = {{0, 0}, {0, 1}, {0, 2}, {3, 0}, {3, 400}};
    static const struct scan_unit first_only[] = {{0, 0}, {3, 0}};
    (void)state;

    for (int lie = LIE_SCSI_LIST_LENGTH; lie <= LIE_SCSI_LIST_GARBAGE; lie++) {
        struct binding binding;
        struct vdev_options options = vscsi_usual();
        vscsi_add(0, 1);
        vscsi_add(0, 2);
        vscsi_add(3, 0);
        vscsi_add(3, 400);
        plugged(&binding, &options);
        vdev_now()->lie = lie;
        vdev_now()->lies = UINT32_MAX;
        vdev_now()->lie_queue = VDEV_ANY_QUEUE;
        struct scan *found = scan_units(&binding);
        if (lie == LIE_SCSI_LIST_METHODS)
            assert_found(found, first_only, LENGTH(first_only));
        else if (lie == LIE_SCSI_LIST_GARBAGE)
            assert_true(found->count >= 2 && found->count <= LENGTH(all));
        else if (lie == LIE_SCSI_LIST_HUGE)
            assert_true(found->more && found->count >= 3 && found->count <= LENGTH(all));
        else
            assert_found(found, all, LENGTH(all));
        unplugged(&binding);
    }
}

static void a_scan_of_the_deaf_ends(void **state)
{
    struct binding binding;
    struct vdev_options options = vscsi_usual();
    (void)state;

    options.pace = VDEV_BY_HAND;
    options.relax_ticks = 2000;
    plugged(&binding, &options);
    uint64_t start = vdev_time();
    struct scan *found = scan_units(&binding);
    assert_int_equal(found->count, 0);
    assert_true(vdev_time() - start < (SCAN_MS + 2 * SCAN_PROBE_MS) * MS);
    unplugged(&binding);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, unplug)
    static const struct CMUnitTest tests[] = {
        TEST(transfers_move_the_right_bytes),
        TEST(commands_without_data_and_short_answers),
        TEST(units_are_addressed_in_their_form),
        TEST(many_are_in_flight_in_any_order),
        TEST(long_transfers_go_in_parts),
        TEST(parts_of_commands_are_what_they_should_be),
        TEST(what_cannot_be_done_in_parts_is_refused_with_a_length),
        TEST(what_cannot_be_is_refused),
        TEST(sense_data_and_the_bytes_before_an_error),
        TEST(every_response_has_its_name),
        TEST(lies_end_the_command),
        TEST(a_short_transfer_says_how_much),
        TEST(a_command_that_is_late_is_given_up_alone),
        TEST(a_device_that_does_not_give_up_is_reset),
        TEST(without_a_time_out_there_is_one),
        TEST(a_reset_of_a_unit_ends_its_commands),
        TEST(a_restart_ends_everything),
        TEST(adapters_that_cannot_be_driven),
        TEST(units_are_found_in_order),
        TEST(long_lists_are_read_to_the_end),
        TEST(nonsense_in_lists_is_survived),
        TEST(a_scan_of_the_deaf_ends),
    };
    return cmocka_run_group_tests_name("scsi", tests, NULL, NULL);
}
