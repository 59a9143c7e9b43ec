// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The host is the attacker (C9): the input says what kind of host it is and what the driver is
 * asked to do, and its rest replaces what the host answers: XenStore's messages and its ring, a
 * backend's keys and states, its answers and its indices, hypercalls.
 *
 * Nothing may crash, go on without an end, reach outside of what is the driver's own, leave a page
 * within a backend's reach that is somebody else's again, or end a request other than once.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/xen/blkfront.h"
#include "tests/model/xen_host.h"

#define MS            ((uint64_t)XHOST_TICKS_PER_MS)
#define DISKS         2u
#define REQUESTS      40u
#define SHAPE         8u /* bytes of input that say what the host is */
#define OPERATIONS    40u
#define MEMORY_MOST   (4u << 20)
#define EXIT_MS       1000u
#define BUFFER_ALIGNS 4u

struct io {
    struct disk_request request;
    unsigned char *buffer;
    struct blkfront *blk;
    bool submitted;
    unsigned done;
};

static struct io ios[REQUESTS];
static unsigned started;
static struct xen *xen;
static struct blkfront *blks[DISKS];
static struct dma_block memory[DISKS];

static void check(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "does not hold: %s\n", what);
        abort();
    }
}

static void *make(size_t bytes)
{
    void *made = malloc(bytes);

    if (!made)
        abort();
    memset(made, 0xcc, bytes);
    return made;
}

static void done(struct io_request *request)
{
    struct io *io = (struct io *)(void *)request;

    check(io->submitted, "only submitted requests are done");
    check(io->done == 0, "a request is done once");
    io->done++;
    /* It is the caller's again, unless the log has said that memory is lost. */
    if (io->blk->front.state != FRONT_STUCK)
        xhost_free(io->buffer);
}

static void submit(struct blkfront *blk, enum disk_op op, uint8_t size)
{
    static const size_t places[BUFFER_ALIGNS] = {0, 0, 512, 3};
    static const size_t blocks[8] = {1, 2, 8, 24, 100, 300, 16, 1};

    if (started == REQUESTS)
        return;
    struct io *io = &ios[started++];
    size_t bytes = op == DISK_FLUSH ? 0 : blk->disk.info.block_size * blocks[size % 8];
    if (bytes > 256 * 1024)
        bytes = blk->disk.info.block_size;
    *io =
        (struct io){.buffer = xhost_alloc(bytes, places[size / 8]), .submitted = true, .blk = blk};
    memset(io->buffer, size, bytes);
    io->request = (struct disk_request){
        .base =
            {
                .buffer = op == DISK_FLUSH ? NULL : io->buffer,
                .bytes = bytes,
                .done = done,
            },
        .op = op,
        .sector = size & 0x18u,
    };
    if (blk->disk.ops->submit(&blk->disk, &io->request) != RESULT_OK) {
        check(io->done == 0, "a refused request is not done");
        io->submitted = false;
        xhost_free(io->buffer);
    }
}

static struct xhost_options shape(const uint8_t *bytes)
{
    static const uint32_t sector_sizes[] = {512, 512, 4096, 1024};
    struct xhost_options options = xhost_usual(1 + bytes[0] % DISKS);

    for (unsigned i = 0; i < options.disk_count; i++) {
        struct xhost_disk *disk = &options.disks[i];
        disk->sectors = 400;
        disk->pace = (enum xhost_pace)(bytes[1] % 4); /* one that is deaf, too */
        disk->sector_size = sector_sizes[(bytes[1] >> 3) % 4];
        disk->ring_order = bytes[1] & 0x20 ? 0 : 1;
        disk->segments = bytes[1] & 0x40 ? 0 : 32;
        disk->copies_operation = bytes[1] & 0x80;
        disk->never_unmaps = bytes[2] > 0xf8;
        if (bytes[2] % 16 < 7)
            disk->step_ms[bytes[2] % 16] = bytes[2] & 0x10 ? XHOST_NEVER : 300;
    }
    options.parallel = bytes[3] & 1;
    options.noise = bytes[3] & 2;
    options.event_first = bytes[3] & 4;
    options.reconnection = bytes[3] & 8;
    options.no_shared_page = bytes[3] & 16;
    options.others_grants = bytes[3] & 32;
    options.store_chunk = bytes[3] & 64 ? 9 : 0;
    if (bytes[4] > 0xf0)
        options.reserve_pages = bytes[4] % 4;
    options.grant_frames = 1 + bytes[4] % 4;
    options.ring_start = bytes[5] < 0x40 ? UINT32_MAX - 300 : 0;
    options.seed = bytes[5];
    options.steps_most = 3000000;
    return options;
}

static void leave(void)
{
    struct poor_door door = {.deadline = clock_ticks() + EXIT_MS * MS};
    uint64_t since = xhost_time();

    xhost_poor(true);
    fronts_quiesce(xen, &door);
    xen_quiesce(xen, &door);
    xhost_poor(false);
    check(xhost_time() - since < (EXIT_MS + 100) * MS, "the exit is bounded");
}

static void use(const uint8_t *operations)
{
    for (size_t i = 0; i < OPERATIONS; i++) {
        uint8_t size = operations[i] >> 3;
        struct blkfront *blk = blks[i % DISKS];
        uint32_t numbers[4];
        size_t count;
        if (!blk)
            continue;
        struct disk *disk = &blk->disk;
        switch (operations[i] % 8) {
        case 0:
        case 1:
            submit(blk, DISK_READ, size);
            break;
        case 2:
            submit(blk, DISK_WRITE, size);
            break;
        case 3:
            submit(blk, DISK_FLUSH, size);
            break;
        case 4:
            disk->ops->wait(disk);
            disk->ops->poll(disk);
            break;
        case 5:
            (void)disk->ops->ready(disk);
            (void)blkfront_gone(blk);
            if (size < 8 && xen_list_changed(xen))
                (void)xen_list(xen, xhost_door(), numbers, 4, &count);
            break;
        case 6:
            xhost_skip_ms(size < 30 ? 40 : PIECE_TIMEOUT_MS);
            disk->ops->poll(disk);
            break;
        default:
            if (size < 20)
                cpu_relax();
            else if (size < 26)
                (void)disk->ops->restart(disk, RESULT_ABORTED);
            else if (size < 28)
                xhost_close((unsigned)(i % DISKS));
            else if (size < 29)
                xhost_vanish((unsigned)(i % DISKS));
            else
                leave();
            break;
        }
    }
    for (unsigned i = 0; i < 10 * DISKS; i++)
        if (blks[i % DISKS]) {
            struct disk *disk = &blks[i % DISKS]->disk;
            disk->ops->poll(disk);
            disk->ops->wait(disk);
        }
}

static void begin_disk(unsigned i)
{
    size_t bytes = 0;

    blks[i] = make(sizeof(struct blkfront));
    if (blkfront_attach(blks[i], xen, xhost_door(), xhost_now()->disks[i].number, &bytes) !=
        RESULT_OK) {
        free(blks[i]);
        blks[i] = NULL;
        return;
    }
    check(bytes != 0 && bytes < MEMORY_MOST, "a binding's memory is bounded");
    xhost_share(bytes, &memory[i]);
    if (blkfront_start(blks[i], &memory[i]) == RESULT_OK)
        return;
    if (blkfront_detach(blks[i]))
        xhost_unshare(&memory[i]);
    free(blks[i]);
    blks[i] = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reg_window place = xhost_place();

    if (size < SHAPE + OPERATIONS)
        return 0;
    struct xhost_options options = shape(data);
    size_t fuzz_bytes = size - SHAPE - OPERATIONS;
    options.fuzz = data + SHAPE + OPERATIONS;
    options.targets = data[7] >> 1;
    /* Three times of four the start is honest, so that much is left to lie about later. */
    options.fuzz_bytes = data[6] % 4 ? 0 : fuzz_bytes;
    model_abort_on_violation = true;
    xhost_hung = abort;
    xhost_plug(&options);
    started = 0;
    memset(ios, 0, sizeof(ios));

    xen = make(sizeof(*xen));
    if (xen_begin(xen, xhost_door(), &place) == RESULT_OK) {
        grants_reserve(&xen->grants, xhost_reserve(), options.reserve_pages);
        for (unsigned i = 0; i < options.disk_count; i++)
            begin_disk(i);
        xhost_now()->fuzz_bytes = fuzz_bytes;
        use(data + SHAPE);
        if (data[7] & 1)
            leave();
        for (unsigned i = 0; i < DISKS; i++) {
            if (!blks[i])
                continue;
            bool let_go = blkfront_detach(blks[i]);
            for (unsigned k = 0; k < started; k++)
                check(ios[k].blk != blks[i] || ios[k].done == ios[k].submitted,
                      "after detach every request is done");
            if (let_go)
                xhost_unshare(&memory[i]);
            free(blks[i]);
            blks[i] = NULL;
        }
        xen_end(xen, xhost_door());
    }
    free(xen);
    xhost_unplug();
    return 0;
}
