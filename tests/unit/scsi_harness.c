// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "tests/unit/blk_harness.h"
#include "tests/unit/scsi_harness.h"

#define UNWRITTEN 0x3c
#define WAIT_MS   200000u

/* ---- Commands ---- */

static struct sio *ios;

/* What the adapter may write into. */
static struct held {
    struct held *next;
    void *memory;
} * helds;

static void *hold(size_t bytes)
{
    struct held *held = malloc(sizeof(*held));

    assert_non_null(held);
    *held = (struct held){.next = helds, .memory = malloc(bytes)};
    assert_non_null(held->memory);
    memset(held->memory, 0xcc, bytes);
    helds = held;
    return held->memory;
}

static void clean_held(void)
{
    while (helds) {
        struct held *next = helds->next;
        free(helds->memory);
        free(helds);
        helds = next;
    }
}

static void clean(void)
{
    while (ios) {
        struct sio *next = ios->next;
        if (ios->request)
            free(ios->slot);
        free(ios->allocation);
        free(ios);
        ios = next;
    }
    clean_held();
}

static void sio_done(struct io_request *base)
{
    /* The request lies behind a pointer back to its command. */
    struct sio **slot = (struct sio **)(void *)((char *)base - sizeof(struct sio *) * 2);
    struct sio *io = *slot;

    io->done++;
    io->result = base->result;
    io->answer = *scsi_request_of(base);
    io->done_at = vdev_time();
    check_done(io->done, io->buffer, io->bytes);
    io->request = NULL;
    free(slot);
}

struct sio *sio_new(const uint8_t *cdb, size_t cdb_bytes, bool write, size_t bytes, size_t misalign)
{
    struct sio *io = calloc(1, sizeof(*io));
    struct sio **slot = calloc(1, 2 * sizeof(*slot) + sizeof(struct scsi_request));

    assert_non_null(io);
    assert_non_null(slot);
    *slot = io;
    *io = (struct sio){.write = write, .bytes = bytes, .slot = slot, .next = ios};
    ios = io;
    io->buffer = guarded_buffer(bytes, misalign, &io->allocation);
    for (size_t i = 0; i < bytes; i++)
        io->buffer[i] = write ? (uint8_t)test_chance(256) : UNWRITTEN;
    memset(io->sense, UNWRITTEN, sizeof(io->sense));

    io->request = (struct scsi_request *)(void *)(slot + 2);
    memset(io->request, 0xcc, sizeof(*io->request));
    io->request->base.buffer = bytes ? io->buffer : NULL;
    io->request->base.bytes = bytes;
    io->request->base.timeout_ms = 0;
    io->request->base.done = sio_done;
    io->request->direction = write ? DMA_TO_DEVICE : DMA_FROM_DEVICE;
    io->request->target = 0;
    io->request->lun = 0;
    io->request->cdb_bytes = cdb_bytes;
    memcpy(io->request->cdb, cdb, cdb_bytes < SCSI_CDB_BYTES ? cdb_bytes : SCSI_CDB_BYTES);
    io->request->sense = io->sense;
    io->request->sense_room = sizeof(io->sense);
    return io;
}

static void put(uint8_t *to, unsigned bytes, uint64_t value)
{
    for (unsigned i = bytes; i-- > 0; value >>= 8)
        to[i] = (uint8_t)value;
}

struct sio *sio_transfer(unsigned form, bool write, uint64_t lba, uint32_t blocks, uint32_t block,
                         size_t misalign)
{
    uint8_t cdb[16] = {0};

    switch (form) {
    case 6:
        put(cdb + 1, 3, lba);
        cdb[0] = write ? 0x0a : 0x08;
        cdb[4] = (uint8_t)blocks;
        break;
    case 10:
        cdb[0] = write ? 0x2a : 0x28;
        put(cdb + 2, 4, lba);
        put(cdb + 7, 2, blocks);
        break;
    case 12:
        cdb[0] = write ? 0xaa : 0xa8;
        put(cdb + 2, 4, lba);
        put(cdb + 6, 4, blocks);
        break;
    default:
        cdb[0] = write ? 0x8a : 0x88;
        put(cdb + 2, 8, lba);
        put(cdb + 10, 4, blocks);
        break;
    }
    struct sio *io = sio_new(cdb, form, write, (size_t)blocks * block, misalign);
    io->at = lba * block;
    return io;
}

enum result sio_submit(struct binding *binding, struct sio *io)
{
    enum result result = scsi_submit(scsi_of(binding), io->request);

    if (result != RESULT_OK) {
        if (io->done)
            model_violation("a refused request was done");
        else {
            io->answer = *io->request;
            free(io->slot);
            io->request = NULL;
        }
        io->result = result;
        io->done = 1;
    }
    return result;
}

void sio_wait(struct binding *binding, struct sio *io)
{
    uint64_t since = vdev_time();

    while (!io->done) {
        scsi_poll(scsi_of(binding));
        if (io->done)
            break;
        if (vdev_time() - since > (uint64_t)WAIT_MS * VDEV_TICKS_PER_MS)
            fail_msg("a command is never done");
        cpu_relax();
    }
}

enum result sio_free(struct sio *io, struct scsi_request *answer)
{
    enum result result = io->result;

    assert_int_equal(io->done, 1);
    assert_guarded(io->allocation, io->buffer);
    for (struct sio **link = &ios; *link; link = &(*link)->next)
        if (*link == io) {
            *link = io->next;
            break;
        }
    if (answer)
        *answer = io->answer;
    free(io->allocation);
    free(io);
    return result;
}

enum result sio_run(struct binding *binding, struct sio *io, struct scsi_request *answer)
{
    if (sio_submit(binding, io) == RESULT_OK)
        sio_wait(binding, io);
    if (io->result == RESULT_OK && io->at + io->bytes <= vscsi_disk_bytes() &&
        io->answer.transferred == io->bytes && io->answer.block != 0)
        assert_moved(io);
    return sio_free(io, answer);
}

void assert_moved(const struct sio *io)
{
    assert_memory_equal(io->buffer, vscsi_disk() + io->at, io->bytes);
}

/* ---- Scans ---- */

static void wait(void *context)
{
    scsi_poll(context);
    cpu_relax();
}

struct scan *scan_units(struct binding *binding)
{
    struct scan *found = hold(sizeof(*found));

    found->context = scsi_of(binding);
    found->submit = adapter_of(binding).submit;
    found->wait = wait;
    found->ticks_per_ms = VDEV_TICKS_PER_MS;
    found->max_target = scsi_of(binding)->max_target;
    found->max_lun = scsi_of(binding)->max_lun;
    scan(found);
    return found;
}

/* ---- Disks ---- */

struct scsi_adapter adapter_of(struct binding *binding)
{
    return scsi_adapter_of(scsi_of(binding));
}

struct scsi_disk *disk_on(const struct scsi_adapter *adapter, uint8_t target, uint16_t lun,
                          enum result *result)
{
    struct scsi_disk *disk = hold(sizeof(*disk));

    *result = scsi_disk_start(disk, vdev_door(), adapter, target, lun);
    return disk;
}

void held_free(const struct binding *binding)
{
    /* What a stuck device has been shown is not given back (C5). */
    if (scsi_of(binding)->requests.device.exit.state != VIRTIO_STUCK)
        clean_held();
}

/* ---- What the tests of every kind want done ---- */

static struct sio *in_flight[24];

static void work(struct binding *binding)
{
    assert_int_equal(sio_run(binding, sio_transfer(10, false, 5, 16, 512, 1), NULL), RESULT_OK);
    assert_int_equal(sio_run(binding, sio_transfer(16, true, 9, 16, 512, 3), NULL), RESULT_OK);
    static const uint8_t test_unit_ready[6] = {0};
    assert_int_equal(sio_run(binding, sio_new(test_unit_ready, 6, false, 0, 0), NULL), RESULT_OK);
}

static void busy(struct binding *binding)
{
    for (unsigned i = 0; i < LENGTH(in_flight); i++) {
        in_flight[i] = sio_transfer(i % 2 ? 10 : 16, i % 4 == 3, 8 * i, 8, 512, i);
        assert_int_equal(sio_submit(binding, in_flight[i]), RESULT_OK);
    }
}

static void refused(struct binding *binding)
{
    assert_int_equal(sio_run(binding, sio_transfer(10, false, 0, 1, 512, 0), NULL),
                     RESULT_DEVICE_ERROR);
    scsi_poll(scsi_of(binding));
    assert_int_not_equal(scsi_restart(scsi_of(binding), RESULT_ABORTED), RESULT_OK);
    assert_int_not_equal(scsi_reset_unit(scsi_of(binding), 0, 0), RESULT_OK);
}

static void ended(enum result result)
{
    for (unsigned i = 0; i < LENGTH(in_flight); i++)
        assert_int_equal(sio_free(in_flight[i], NULL), result);
}

static const char *flavour_names[] = {"modern", "modern, direct, no control queue", "transitional",
                                      "legacy", "modern, I/O BAR, small transfers"};

static struct vdev_options flavour(unsigned which, const char **name)
{
    struct vdev_options options = vscsi_usual();

    *name = flavour_names[which];
    options.queue_size = 16;
    options.relax_ticks = 2000;
    vscsi.max_target = 2;
    vscsi_add(2, 300);
    switch (which) {
    case 1:
        options.features &= ~feature(VIRTIO_RING_F_INDIRECT_DESC);
        options.queue_sizes[VSCSI_CONTROL_QUEUE] = VDEV_NO_QUEUE;
        break;
    case 2:
        options.transport = VDEV_TRANSITIONAL;
        break;
    case 3:
        options.transport = VDEV_LEGACY;
        break;
    case 4:
        options.io_bar = true;
        vscsi.max_sectors = 5;
        vscsi.cmd_per_lun = 3;
        break;
    default:
        break;
    }
    return options;
}

/* Results may be anything but a lie: what is said to have worked has worked. */
static void live_as_disk(struct binding *binding)
{
    enum { COUNT = 6 };
    struct scsi_adapter adapter = adapter_of(binding);
    struct io *io[COUNT];
    enum result result;
    struct disk *disk = &disk_on(&adapter, 2, 300, &result)->disk;

    for (unsigned round = 0; result == RESULT_OK && round < 2; round++) {
        for (unsigned i = 0; i < COUNT; i++) {
            io[i] =
                io_new(i == 2 ? DISK_FLUSH : (enum disk_op)(i % 2), 40 * i, i == 2 ? 0 : 4096, i);
            io_submit_to(disk, io[i]);
        }
        if (round == 1)
            disk->ops->restart(disk, RESULT_ABORTED);
        for (unsigned i = 0; i < COUNT; i++) {
            io_wait_on(disk, io[i]);
            if (io[i]->result == RESULT_OK)
                assert_memory_equal(io[i]->buffer, vscsi_disk() + io[i]->sector * 512,
                                    io[i]->bytes);
            io_free(io[i]);
        }
    }
}

static void live(struct binding *binding, bool by_exit)
{
    enum { COUNT = 8 };
    struct sio *io[COUNT];

    scan_units(binding);
    live_as_disk(binding);
    held_free(binding);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < COUNT; i++) {
            io[i] = sio_transfer(i % 3 ? 10 : 16, i % 2, 40 * i, 1 + i * 2, 512, i);
            if (i % 3 == 1) {
                io[i]->request->target = 2;
                io[i]->request->lun = 300;
            }
            io[i]->request->base.timeout_ms = i % 4 == 2 ? 500 : 0;
            sio_submit(binding, io[i]);
        }
        if (round == 0)
            scsi_reset_unit(scsi_of(binding), 2, 300);
        if (round == 1)
            scsi_restart(scsi_of(binding), RESULT_ABORTED);
        if (round == 2)
            break;
        for (unsigned i = 0; i < COUNT; i++) {
            sio_wait(binding, io[i]);
            if (io[i]->result == RESULT_OK)
                assert_moved(io[i]);
            sio_free(io[i], NULL);
        }
    }
    if (by_exit)
        quiesce(binding, 100);
    unbind(binding);
    for (unsigned i = 0; i < COUNT; i++)
        sio_free(io[i], NULL);
}

/* ---- The driver ---- */

static enum result attach_scsi(void *driver, const struct rich_door *rich,
                               const struct pci_function *where, size_t *memory_bytes)
{
    return scsi_attach(driver, rich, where, memory_bytes);
}

static enum result start_scsi(void *driver, const struct dma_block *memory)
{
    return scsi_start(driver, memory);
}

static bool detach_scsi(void *driver)
{
    return scsi_detach(driver);
}

const struct test_kind scsi_test = {
    .name = "virtio-scsi",
    .bytes = sizeof(struct scsi),
    .device_at = offsetof(struct scsi, requests.device),
    .attach = attach_scsi,
    .start = start_scsi,
    .detach = detach_scsi,
    .clean = clean,
    .usual = vscsi_usual,
    .queues_needed = 1u << VSCSI_REQUEST_QUEUE,
    .work = work,
    .busy = busy,
    .refused = refused,
    .ended = ended,
    .flavours = LENGTH(flavour_names),
    .flavour = flavour,
    .live = live,
    .life_ms = 3 * PIECE_TIMEOUT_MS + 12 * VIRTIO_RESET_MS,
    .mappings = 60,
};
