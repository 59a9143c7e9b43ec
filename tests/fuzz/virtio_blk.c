// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The device is the attacker (C9): the input says what kind of device it is and what the driver is
 * asked to do, and its rest replaces what the device answers: in configuration space, in registers,
 * in the rings, in everything that is shared.
 *
 * Nothing may crash, go on without an end, reach outside the device's windows, unmap what is not
 * mapped, or end a request other than once.
 */

#include <linux/virtio_blk.h>

#include "core/virtio/blk.h"
#include "tests/fuzz/virtio.h"
#include "tests/model/virtio_blk.h"

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
    static const uint32_t blocks[] = {512, 512, 4096, 1024};
    struct vdev_options options = vblk_usual();

    started = 0;
    options.queue_size = fuzz_queue_size(bytes[1]);
    vblk.block_size = blocks[(bytes[1] >> 3) % 4];
    options.features = FEATURE(VIRTIO_BLK_F_FLUSH) | FEATURE(VIRTIO_BLK_F_BLK_SIZE);
    fuzz_shape(&options, bytes);
    if (bytes[2] & 4)
        options.features |= FEATURE(VIRTIO_BLK_F_SIZE_MAX) | FEATURE(VIRTIO_BLK_F_SEG_MAX);
    if (bytes[2] & 8)
        options.features |= FEATURE(VIRTIO_F_ANY_LAYOUT);
    if (bytes[2] & 16)
        options.features |= FEATURE(VIRTIO_BLK_F_TOPOLOGY);
    vblk.size_max = 512u << (bytes[3] % 4);
    vblk.seg_max = 1u + bytes[3] / 16;
    options.map_most = bytes[5] < 0xe0 ? 0 : 512u + bytes[5];
    vblk.capacity = 64;
    return options;
}

static void use(void *driver, const uint8_t *operations, size_t count)
{
    struct blk *blk = driver;
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
                fuzz_exit(&blk->requests.device.exit);
            }
            break;
        }
    }
    for (unsigned i = 0; i < 20; i++) {
        disk->ops->poll(disk);
        cpu_relax();
    }
}

static enum result attach(void *driver, size_t *memory_bytes)
{
    return blk_attach(driver, vdev_door(), vdev_where(), memory_bytes);
}

static enum result start(void *driver, const struct dma_block *memory)
{
    return blk_start(driver, memory);
}

static bool detach(void *driver)
{
    return blk_detach(driver);
}

static void ended(void)
{
    for (unsigned i = 0; i < started; i++) {
        check(ios[i].done == ios[i].submitted, "after detach every request is done");
        free(ios[i].buffer);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_kind kind = {
        .shape = SHAPE,
        .operations = OPERATIONS,
        .honesty_at = 6,
        .driver_bytes = sizeof(struct blk),
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
