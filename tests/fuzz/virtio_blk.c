// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The device is the attacker (C9): the input says what kind of device it is and what the driver is
 * asked to do, and its rest replaces what the device answers: in configuration space, in registers,
 * in the rings, in everything that is shared.
 *
 * Nothing may crash, go on without an end, reach outside the device's windows, unmap what is not
 * mapped, or end a request other than once.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "core/virtio/blk.h"
#include "tests/model/virtio_blk.h"

#define FEATURE(bit)  (1ull << (bit))
#define REQUESTS      40u
#define SHAPE         8u /* bytes of input that say what the device is */
#define OPERATIONS    40u
#define MEMORY_MOST   (64u << 20)
#define REQUEST_BYTES 16384u

struct io {
    struct disk_request request;
    unsigned char *buffer;
    bool submitted;
    unsigned done;
};

static struct io ios[REQUESTS];
static unsigned started;

static void check(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "does not hold: %s\n", what);
        abort();
    }
}

static void done(struct io_request *request)
{
    struct io *io = (struct io *)(void *)request;

    check(io->submitted, "only submitted requests are done");
    check(io->done == 0, "a request is done once");
    io->done++;
    if (!dma_shown(io->buffer, request->bytes) && io->buffer) {
        free(io->buffer);
        io->buffer = NULL;
    }
}

static void submit(struct blk *blk, enum disk_op op, uint8_t size)
{
    if (started == REQUESTS)
        return;
    struct io *io = &ios[started++];
    size_t block = blk->disk.info.block_size;
    size_t bytes = block * (1 + size % 8u);

    if (bytes > REQUEST_BYTES)
        bytes = block > REQUEST_BYTES ? 512 : block; /* the former is refused */
    *io = (struct io){.buffer = malloc(bytes), .submitted = true};
    if (!io->buffer)
        abort();
    memset(io->buffer, size, bytes);
    io->request = (struct disk_request){
        .base = {.buffer = io->buffer, .bytes = bytes, .done = done},
        .op = op,
        .sector = size & 0xf8u,
    };
    if (op == DISK_FLUSH) {
        io->request.base.buffer = NULL;
        io->request.base.bytes = 0;
    }
    if (blk->disk.ops->submit(&blk->disk, &io->request) != RESULT_OK) {
        check(io->done == 0, "a refused request is not done");
        io->submitted = false;
    }
}

static struct vdev_options shape(const uint8_t *bytes)
{
    static const uint16_t sizes[] = {2, 3, 4, 8, 16, 128, 256, 1024};
    static const uint32_t blocks[] = {512, 512, 4096, 1024};
    struct vdev_options options = vblk_usual();

    options.transport = (enum vdev_transport)(bytes[0] % 3);
    options.io_bar = bytes[0] & 0x40;
    options.notices = (enum vdev_notices)((bytes[0] >> 2) % 3);
    options.queue_size = sizes[bytes[1] % 8];
    vblk.block_size = blocks[(bytes[1] >> 3) % 4];
    options.features = FEATURE(VIRTIO_BLK_F_FLUSH) | FEATURE(VIRTIO_BLK_F_BLK_SIZE);
    if (bytes[2] & 1)
        options.features |= FEATURE(VIRTIO_RING_F_INDIRECT_DESC);
    if (bytes[2] & 2)
        options.features |= FEATURE(VIRTIO_RING_F_EVENT_IDX);
    if (bytes[2] & 4)
        options.features |= FEATURE(VIRTIO_BLK_F_SIZE_MAX) | FEATURE(VIRTIO_BLK_F_SEG_MAX);
    if (bytes[2] & 8)
        options.features |= FEATURE(VIRTIO_F_ANY_LAYOUT);
    if (bytes[2] & 16)
        options.features |= FEATURE(VIRTIO_BLK_F_TOPOLOGY);
    vblk.size_max = 512u << (bytes[3] % 4);
    vblk.seg_max = 1u + bytes[3] / 16;
    options.reset_reads = bytes[4] < 0xf0 ? bytes[4] % 4 : VDEV_NEVER;
    options.map_most = bytes[5] < 0xe0 ? 0 : 512u + bytes[5];
    vblk.capacity = 64;
    options.relax_ticks = 5000;
    options.steps_most = 3000000;
    return options;
}

static void use(struct blk *blk, const uint8_t *operations, size_t count)
{
    struct disk *disk = &blk->disk;

    for (size_t i = 0; i < count; i++) {
        uint8_t size = operations[i] >> 3;
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
            cpu_relax();
            disk->ops->poll(disk);
            break;
        case 5:
            cpu_relax();
            (void)disk->ops->ready(disk);
            break;
        case 6:
            vdev_skip_ms(size < 30 ? 40 : PIECE_TIMEOUT_MS + 1);
            disk->ops->poll(disk);
            break;
        default:
            if (size < 20) {
                cpu_relax();
            } else if (size < 28) {
                (void)disk->ops->restart(disk, RESULT_ABORTED);
            } else {
                struct poor_door door = {.deadline = clock_ticks() + 50 * VDEV_TICKS_PER_MS};
                vdev_poor(true);
                (void)virtio_quiesce(&blk->requests.device.exit, &door);
                vdev_poor(false);
            }
            break;
        }
    }
    for (unsigned i = 0; i < 20; i++) {
        disk->ops->poll(disk);
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

    struct blk *blk = malloc(sizeof(*blk));
    size_t memory_bytes = 0;
    if (!blk)
        abort();
    memset(blk, 0xcc, sizeof(*blk));
    if (blk_attach(blk, vdev_door(), vdev_where(), &memory_bytes) == RESULT_OK) {
        struct dma_block memory;
        check(memory_bytes != 0 && memory_bytes < MEMORY_MOST, "a binding's memory is bounded");
        dma_share(memory_bytes, &memory);
        if (blk_start(blk, &memory) == RESULT_OK) {
            vdev_now()->fuzz_bytes = fuzz_bytes;
            use(blk, data + SHAPE, OPERATIONS);
        }
        bool let_go = blk_detach(blk);
        for (unsigned i = 0; i < started; i++)
            check(ios[i].done == ios[i].submitted, "after detach every request is done");
        if (let_go)
            dma_unshare(&memory);
    }
    free(blk);
    for (unsigned i = 0; i < started; i++)
        free(ios[i].buffer);
    vdev_unplug();
    return 0;
}
