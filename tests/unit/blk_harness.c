// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "tests/unit/blk_harness.h"

#define GUARD     0xc7
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

static void io_done(struct disk_request *request)
{
    /* The request lies behind a pointer back to its transfer. */
    struct io **slot = (struct io **)(void *)((char *)request - sizeof(struct io *) * 2);
    struct io *io = *slot;

    io->done++;
    io->result = request->result;
    io->done_at = vdev_time();
    if (io->done != 1)
        model_violation("done() called %u times", io->done);
    /* From here on the caller may do with the buffer what it likes. */
    if (io->bytes != 0 && dma_shown(io->buffer, io->bytes) && vdev_master())
        model_violation("C5: done() while the device can still reach the buffer");
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
    io->allocation = malloc(misalign + bytes + 1);
    assert_non_null(io->allocation);
    /* Shrunk so that the buffer ends where the allocation does. */
    io->allocation = realloc(io->allocation, misalign + bytes + (bytes == 0));
    memset(io->allocation, GUARD, misalign);
    io->buffer = io->allocation + misalign;
    if (op == DISK_WRITE)
        for (size_t i = 0; i < bytes; i++)
            io->buffer[i] = (uint8_t)test_chance(256);
    else
        memset(io->buffer, UNWRITTEN, bytes);

    io->request = (struct disk_request *)(void *)(slot + 2);
    memset(io->request, 0xcc, sizeof(*io->request));
    io->request->op = op;
    io->request->sector = sector;
    io->request->buffer = op == DISK_FLUSH ? NULL : io->buffer;
    io->request->bytes = bytes;
    io->request->done = io_done;
    return io;
}

enum result io_submit(struct binding *binding, struct io *io)
{
    enum result result = disk_of(binding)->ops->submit(disk_of(binding), io->request);

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

void io_wait(struct binding *binding, struct io *io)
{
    uint64_t since = vdev_time();

    while (!io->done) {
        disk_poll(binding);
        if (io->done)
            break;
        if (vdev_time() - since > (uint64_t)WAIT_MS * VDEV_TICKS_PER_MS)
            fail_msg("a request is never done");
        cpu_relax();
    }
}

enum result io_free(struct io *io)
{
    enum result result = io->result;

    assert_int_equal(io->done, 1);
    for (unsigned char *guard = io->allocation; guard < io->buffer; guard++)
        assert_int_equal(*guard, GUARD);
    for (struct io **link = &ios; *link; link = &(*link)->next)
        if (*link == io) {
            *link = io->next;
            break;
        }
    free(io->allocation);
    free(io);
    return result;
}

enum result io_run(struct binding *binding, enum disk_op op, uint64_t sector, size_t bytes,
                   size_t misalign)
{
    struct io *io = io_new(op, sector, bytes, misalign);

    if (io_submit(binding, io) == RESULT_OK)
        io_wait(binding, io);
    return io_free(io);
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
    .device_at = offsetof(struct blk, device),
    .attach = attach_blk,
    .start = start_blk,
    .detach = detach_blk,
    .clean = clean,
};
