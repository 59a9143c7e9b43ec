// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The SCSI adapter as the attacker (C9). The first bytes say what it is, the next what its user
 * does; all others replace honest answers of the device.
 *
 * Whatever it answers: nothing may touch memory that is not the driver's, hang, leave anything
 * mapped, or end a command other than once.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "core/scan.h"
#include "core/virtio/scsi.h"
#include "tests/model/virtio_scsi.h"

#define FEATURE(bit) (1ull << (bit))
#define COMMANDS     40u
#define SHAPE        8u /* bytes of input that say what the device is */
#define OPERATIONS   40u
#define MEMORY_MOST  (64u << 20)

struct io {
    struct scsi_request request;
    unsigned char *buffer;
    size_t bytes;
    uint8_t sense[40];
    bool submitted;
    unsigned done;
};

static struct io ios[COMMANDS];
static unsigned started;

static void check(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "does not hold: %s\n", what);
        abort();
    }
}

static void done(struct io_request *base)
{
    struct io *io = (struct io *)(void *)base;

    check(io->submitted, "only submitted commands are done");
    check(io->done == 0, "a command is done once");
    check(io->request.transferred <= io->bytes, "no more was transferred than there was");
    check(io->request.sense_bytes <= sizeof(io->sense), "no more sense data than there is room");
    io->done++;
    if (io->buffer && !dma_shown(io->buffer, io->bytes)) {
        free(io->buffer);
        io->buffer = NULL;
    }
}

static void submit(struct scsi *scsi, bool write, uint8_t size)
{
    static const uint8_t codes[] = {0x28, 0x2a, 0x12, 0xa0};
    if (started == COMMANDS)
        return;
    struct io *io = &ios[started++];

    *io = (struct io){.submitted = true, .bytes = size % 8u * 512u};
    if (io->bytes != 0) {
        io->buffer = malloc(io->bytes);
        if (!io->buffer)
            abort();
        memset(io->buffer, size, io->bytes);
    }
    io->request = (struct scsi_request){
        .base =
            {
                .buffer = io->buffer,
                .bytes = io->bytes,
                .timeout_ms = size & 8 ? 200 : 0,
                .done = done,
            },
        .direction = write ? DMA_TO_DEVICE : DMA_FROM_DEVICE,
        .target = size & 16 ? 2 : 0,
        .cdb = {size == 31 ? codes[3] : codes[write], 0, 0, 0, 0, size, 0, 0, size % 8u},
        .cdb_bytes = size == 30 ? 33 : 12,
        .sense = io->sense,
        .sense_room = sizeof(io->sense),
    };
    if (scsi_submit(scsi, &io->request) != RESULT_OK) {
        check(io->done == 0, "a refused command is not done");
        io->submitted = false;
    }
}

static enum result submit_probe(void *context, struct scsi_request *request)
{
    return scsi_submit(context, request);
}

static void wait(void *context)
{
    scsi_poll(context);
    cpu_relax();
}

static struct scan *found;

static void look_around(struct scsi *scsi)
{
    if (found)
        return;
    found = malloc(sizeof(*found));
    if (!found)
        abort();
    found->context = scsi;
    found->submit = submit_probe;
    found->wait = wait;
    found->ticks_per_ms = VDEV_TICKS_PER_MS;
    found->max_target = scsi->max_target;
    found->max_lun = scsi->max_lun;
    scan(found);
    check(found->count <= SCAN_UNITS_MAX, "no more units than there is room for");
    for (size_t i = 0; i < found->count; i++)
        check(found->units[i].lun <= scsi->max_lun && found->units[i].target <= scsi->max_target,
              "units can be addressed");
}

static struct vdev_options shape(const uint8_t *bytes)
{
    static const uint16_t sizes[] = {2, 3, 4, 8, 16, 128, 256, 1024};
    struct vdev_options options = vscsi_usual();

    options.transport = (enum vdev_transport)(bytes[0] % 3);
    options.io_bar = bytes[0] & 0x40;
    options.notices = (enum vdev_notices)((bytes[0] >> 2) % 3);
    options.queue_size = sizes[bytes[1] % 8];
    if (bytes[2] & 1)
        options.features |= FEATURE(VIRTIO_RING_F_INDIRECT_DESC);
    if (bytes[2] & 2)
        options.features |= FEATURE(VIRTIO_RING_F_EVENT_IDX);
    if (bytes[2] & 4)
        vscsi.deaf = true;
    if (bytes[2] & 8)
        vscsi.max_sectors = 3;
    vscsi.cmd_per_lun = bytes[3] % 8;
    vscsi.max_target = 3;
    vscsi_add(2, 0);
    options.reset_reads = bytes[4] < 0xf0 ? bytes[4] % 4 : VDEV_NEVER;
    options.map_most = bytes[5] < 0xe0 ? 0 : 512u + bytes[5];
    options.relax_ticks = 5000;
    options.steps_most = 30000000;
    return options;
}

static void use(struct scsi *scsi, const uint8_t *operations, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t size = operations[i] >> 3;
        switch (operations[i] % 8) {
        case 0:
        case 1:
        case 2:
            submit(scsi, false, size);
            break;
        case 3:
            submit(scsi, true, size);
            break;
        case 4:
            cpu_relax();
            scsi_poll(scsi);
            break;
        case 5:
            cpu_relax();
            (void)scsi_ready(scsi);
            if (size == 0)
                look_around(scsi);
            break;
        case 6:
            vdev_skip_ms(size < 30 ? 150 : PIECE_TIMEOUT_MS + 1);
            scsi_poll(scsi);
            break;
        default:
            if (size < 16) {
                cpu_relax();
            } else if (size < 22) {
                (void)scsi_reset_unit(scsi, size % 2 ? 2 : 0, 0);
            } else if (size < 28) {
                (void)scsi_restart(scsi, RESULT_ABORTED);
            } else {
                struct poor_door door = {.deadline = clock_ticks() + 50 * VDEV_TICKS_PER_MS};
                vdev_poor(true);
                (void)virtio_quiesce(&scsi->requests.device.exit, &door);
                vdev_poor(false);
            }
            break;
        }
    }
    for (unsigned i = 0; i < 20; i++) {
        scsi_poll(scsi);
        cpu_relax();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < SHAPE + OPERATIONS)
        return 0;
    struct vdev_options options = shape(data);
    options.fuzz = data + SHAPE + OPERATIONS;
    size_t fuzz_bytes = size - SHAPE - OPERATIONS;
    /* Three times of four the start is honest, so that much is left to lie about later. */
    options.fuzz_bytes = data[6] % 4 ? 0 : fuzz_bytes;
    model_abort_on_violation = true;
    vdev_hung = abort;
    vdev_plug(&options);
    started = 0;

    struct scsi *scsi = malloc(sizeof(*scsi));
    size_t memory_bytes = 0;
    if (!scsi)
        abort();
    memset(scsi, 0xcc, sizeof(*scsi));
    if (scsi_attach(scsi, vdev_door(), vdev_where(), &memory_bytes) == RESULT_OK) {
        struct dma_block memory;
        check(memory_bytes != 0 && memory_bytes < MEMORY_MOST, "a binding's memory is bounded");
        dma_share(memory_bytes, &memory);
        if (scsi_start(scsi, &memory) == RESULT_OK) {
            vdev_now()->fuzz_bytes = fuzz_bytes;
            use(scsi, data + SHAPE, OPERATIONS);
        }
        bool let_go = scsi_detach(scsi);
        for (unsigned i = 0; i < started; i++)
            check(ios[i].done == ios[i].submitted, "after detach every command is done");
        if (let_go)
            dma_unshare(&memory);
    }
    free(scsi);
    for (unsigned i = 0; i < started; i++)
        free(ios[i].buffer);
    free(found);
    found = NULL;
    vdev_unplug();
    return 0;
}
