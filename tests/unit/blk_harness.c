// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "tests/unit/blk_harness.h"

#define UNWRITTEN 0x3c
#define WAIT_MS   100000u

/* ---- Transfers ---- */

static struct io *ios;

static void clean(void)
{
    while (ios) {
        struct io *next = ios->next;
        if (ios->request)
            free(ios->slot);
        free(ios->allocation);
        free(ios);
        ios = next;
    }
}

static void io_done(struct io_request *request)
{
    /* The request lies behind a pointer back to its transfer. */
    struct io **slot = (struct io **)(void *)((char *)request - sizeof(struct io *) * 2);
    struct io *io = *slot;

    io->done++;
    io->result = request->result;
    io->done_at = vdev_time();
    check_done(io->done, io->buffer, io->bytes);
    io->request = NULL;
    free(slot);
}

struct io *io_new(enum disk_op op, uint64_t sector, size_t bytes, size_t misalign)
{
    struct io *io = calloc(1, sizeof(*io));
    struct io **slot = calloc(1, 2 * sizeof(*slot) + sizeof(struct disk_request));

    assert_non_null(io);
    assert_non_null(slot);
    *slot = io;
    *io = (struct io){.op = op, .sector = sector, .bytes = bytes, .slot = slot, .next = ios};
    ios = io;
    io->buffer = guarded_buffer(bytes, misalign, &io->allocation);
    if (op == DISK_WRITE)
        for (size_t i = 0; i < bytes; i++)
            io->buffer[i] = (uint8_t)test_chance(256);
    else
        memset(io->buffer, UNWRITTEN, bytes);

    io->request = (struct disk_request *)(void *)(slot + 2);
    memset(io->request, 0xcc, sizeof(*io->request));
    io->request->op = op;
    io->request->sector = sector;
    io->request->base.buffer = op == DISK_FLUSH ? NULL : io->buffer;
    io->request->base.bytes = bytes;
    io->request->base.timeout_ms = 0;
    io->request->base.done = io_done;
    return io;
}

enum result io_submit_to(struct disk *disk, struct io *io)
{
    enum result result = disk->ops->submit(disk, io->request);

    if (result != RESULT_OK) {
        if (io->done)
            model_violation("a refused request was done");
        else {
            free(io->slot);
            io->request = NULL;
        }
        io->result = result;
        io->done = 1;
    }
    return result;
}

void disk_poll(struct binding *binding)
{
    disk_of(binding)->ops->poll(disk_of(binding));
}

enum result io_submit(struct binding *binding, struct io *io)
{
    return io_submit_to(disk_of(binding), io);
}

void io_wait_on(struct disk *disk, struct io *io)
{
    uint64_t since = vdev_time();

    while (!io->done) {
        disk->ops->poll(disk);
        if (io->done)
            break;
        if (vdev_time() - since > (uint64_t)WAIT_MS * VDEV_TICKS_PER_MS)
            fail_msg("a request is never done");
        cpu_relax();
    }
}

void io_wait(struct binding *binding, struct io *io)
{
    io_wait_on(disk_of(binding), io);
}

enum result io_free(struct io *io)
{
    enum result result = io->result;

    assert_int_equal(io->done, 1);
    assert_guarded(io->allocation, io->buffer);
    for (struct io **link = &ios; *link; link = &(*link)->next)
        if (*link == io) {
            *link = io->next;
            break;
        }
    free(io->allocation);
    free(io);
    return result;
}

enum result io_run_on(struct disk *disk, struct io *io)
{
    if (io_submit_to(disk, io) == RESULT_OK)
        io_wait_on(disk, io);
    return io_free(io);
}

enum result io_run(struct binding *binding, enum disk_op op, uint64_t sector, size_t bytes,
                   size_t misalign)
{
    return io_run_on(disk_of(binding), io_new(op, sector, bytes, misalign));
}

void assert_reads_right(struct binding *binding, uint64_t sector, size_t bytes)
{
    struct io *io = io_new(DISK_READ, sector, bytes, 0);

    assert_int_equal(io_submit(binding, io), RESULT_OK);
    io_wait(binding, io);
    assert_int_equal(io->result, RESULT_OK);
    assert_memory_equal(io->buffer, vblk_disk() + sector * 512, bytes);
    io_free(io);
}

void io_start_many(struct binding *binding, struct io **io, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        io[i] = io_new(i % 4 == 3 ? DISK_WRITE : DISK_READ, 8 * i, 4096, i);
        assert_int_equal(io_submit(binding, io[i]), RESULT_OK);
    }
}

void io_all_ended(struct io **io, unsigned count, enum result result)
{
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(io_free(io[i]), result);
}

/* ---- What the tests of every kind want done ---- */

static struct io *in_flight[32];

static void work(struct binding *binding)
{
    assert_reads_right(binding, 5, 8192);
}

static void busy(struct binding *binding)
{
    io_start_many(binding, in_flight, LENGTH(in_flight));
}

static void refused(struct binding *binding)
{
    assert_int_equal(io_run(binding, DISK_READ, 0, 512, 0), RESULT_DEVICE_ERROR);
    disk_poll(binding);
    assert_int_not_equal(disk_of(binding)->ops->restart(disk_of(binding), RESULT_ABORTED),
                         RESULT_OK);
}

static void ended(enum result result)
{
    io_all_ended(in_flight, LENGTH(in_flight), result);
}

static const char *flavour_names[] = {"modern",
                                      "modern, direct",
                                      "transitional",
                                      "legacy",
                                      "modern, I/O BAR, queue of 2",
                                      "modern, small segments"};

static struct vdev_options flavour(unsigned which, const char **name)
{
    struct vdev_options options = vblk_usual();

    *name = flavour_names[which];
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

/* ---- The driver ---- */

static enum result attach_blk(void *driver, const struct rich_door *rich,
                              const struct pci_function *where, size_t *memory_bytes)
{
    return blk_attach(driver, rich, where, memory_bytes);
}

static enum result start_blk(void *driver, const struct dma_block *memory)
{
    return blk_start(driver, memory);
}

static bool detach_blk(void *driver)
{
    return blk_detach(driver);
}

const struct test_kind blk_test = {
    .name = "virtio-blk",
    .bytes = sizeof(struct blk),
    .device_at = offsetof(struct blk, requests.device),
    .attach = attach_blk,
    .start = start_blk,
    .detach = detach_blk,
    .clean = clean,
    .usual = vblk_usual,
    .queues_needed = 1,
    .work = work,
    .busy = busy,
    .refused = refused,
    .ended = ended,
    .flavours = LENGTH(flavour_names),
    .flavour = flavour,
    .live = live,
    .life_ms = PIECE_TIMEOUT_MS + 12 * VIRTIO_RESET_MS,
    .mappings = 60,
};
