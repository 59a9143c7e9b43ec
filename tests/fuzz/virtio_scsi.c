// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The SCSI adapter as the attacker (C9). The first bytes say what it is, the next what its user
 * does; all others replace honest answers of the device.
 *
 * Whatever it answers: nothing may touch memory that is not the driver's, hang, leave anything
 * mapped, or end a command other than once.
 */

#include "core/scan.h"
#include "core/virtio/scsi_adapter.h"
#include "tests/fuzz/virtio.h"
#include "tests/model/virtio_scsi.h"

#define COMMANDS    40u
#define SHAPE       8u /* bytes of input that say what the device is */
#define OPERATIONS  40u
#define MEMORY_MOST (64u << 20)

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
    found->submit = scsi_adapter_of(scsi).submit;
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

static struct scsi_disk *unit;
static unsigned char *block;
static struct disk_io {
    struct disk_request request;
    unsigned done;
} disk_io;

static void disk_done(struct io_request *base)
{
    ((struct disk_io *)(void *)base)->done++;
}

/* Starts a disk, or moves a block of it; with an end, either way. */
static void use_disk(struct scsi *scsi, uint8_t size)
{
    const struct scsi_adapter adapter = scsi_adapter_of(scsi);

    if (!unit) {
        unit = malloc(sizeof(*unit));
        if (!unit)
            abort();
        if (scsi_disk_start(unit, vdev_door(), &adapter, size % 2 ? 2 : 0, 0) == RESULT_OK)
            block = malloc(unit->disk.info.block_size);
        return;
    }
    struct disk *disk = &unit->disk;
    if (!block)
        return;
    check((disk->info.block_size & (disk->info.block_size - 1)) == 0 &&
              disk->info.block_size >= 512 && disk->info.block_size <= 65536 &&
              disk->info.blocks - 1 < UINT64_MAX / disk->info.block_size,
          "a disk has a size");
    memset(block, size, disk->info.block_size);
    disk_io = (struct disk_io){
        .request = {.base = {.buffer = block, .bytes = disk->info.block_size, .done = disk_done},
                    .op = (enum disk_op)(size % 3),
                    .sector = (disk->info.blocks - 1) * (disk->info.block_size / 512)},
    };
    if (disk->ops->submit(disk, &disk_io.request) == RESULT_OK) {
        for (unsigned i = 0; i < size && disk_io.done == 0; i++) {
            disk->ops->poll(disk);
            cpu_relax();
        }
        (void)disk->ops->restart(disk, RESULT_ABORTED);
        check(disk_io.done == 1, "a restart ends what is not done, once");
    }
}

static struct vdev_options shape(const uint8_t *bytes)
{
    struct vdev_options options = vscsi_usual();

    started = 0;
    options.queue_size = fuzz_queue_size(bytes[1]);
    fuzz_shape(&options, bytes);
    if (bytes[2] & 4)
        vscsi.deaf = true;
    if (bytes[2] & 8)
        vscsi.max_sectors = 3;
    vscsi.cmd_per_lun = bytes[3] % 8;
    vscsi.max_target = 3;
    vscsi_add(2, 0);
    options.map_most = bytes[5] < 0xe0 ? 0 : 512u + bytes[5];
    options.steps_most = 30000000;
    return options;
}

static void use(void *driver, const uint8_t *operations, size_t count)
{
    struct scsi *scsi = driver;

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
            else if (size < 16)
                use_disk(scsi, size);
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
                fuzz_exit(&scsi->requests.device.exit);
            }
            break;
        }
    }
    for (unsigned i = 0; i < 20; i++) {
        scsi_poll(scsi);
        cpu_relax();
    }
}

static enum result attach(void *driver, size_t *memory_bytes)
{
    return scsi_attach(driver, vdev_door(), vdev_where(), memory_bytes);
}

static enum result start(void *driver, const struct dma_block *memory)
{
    return scsi_start(driver, memory);
}

static bool detach(void *driver)
{
    return scsi_detach(driver);
}

static void ended(void)
{
    for (unsigned i = 0; i < started; i++) {
        check(ios[i].done == ios[i].submitted, "after detach every command is done");
        free(ios[i].buffer);
    }
    free(found);
    free(unit);
    free(block);
    found = NULL;
    unit = NULL;
    block = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_kind kind = {
        .shape = SHAPE,
        .operations = OPERATIONS,
        .honesty_at = 6,
        .driver_bytes = sizeof(struct scsi),
        .memory_most = MEMORY_MOST,
        .device = shape,
        .attach = attach,
        .start = start,
        .use = use,
        .detach = detach,
        .ended = ended,
    };
    return fuzz_life(&kind, data, size);
}
