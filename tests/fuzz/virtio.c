// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "tests/fuzz/virtio.h"

void check(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "does not hold: %s\n", what);
        abort();
    }
}

uint16_t fuzz_queue_size(unsigned bits)
{
    static const uint16_t sizes[] = {2, 3, 4, 8, 16, 128, 256, 1024};
    return sizes[bits % 8];
}

void fuzz_shape(struct vdev_options *options, const uint8_t *shape)
{
    options->transport = (enum vdev_transport)(shape[0] % 3);
    options->io_bar = shape[0] & 0x40;
    options->notices = (enum vdev_notices)((shape[0] >> 2) % 3);
    if (shape[2] & 1)
        options->features |= FEATURE(VIRTIO_RING_F_INDIRECT_DESC);
    if (shape[2] & 2)
        options->features |= FEATURE(VIRTIO_RING_F_EVENT_IDX);
    options->reset_reads = shape[4] < 0xf0 ? shape[4] % 4 : VDEV_NEVER;
    options->relax_ticks = 5000;
    options->steps_most = 3000000;
}

void fuzz_exit(struct virtio_exit *exit)
{
    struct poor_door door = {.deadline = clock_ticks() + 50 * VDEV_TICKS_PER_MS};

    vdev_poor(true);
    (void)virtio_quiesce(exit, &door);
    vdev_poor(false);
}

int fuzz_life(const struct fuzz_kind *kind, const uint8_t *data, size_t size)
{
    size_t before = kind->shape + kind->operations;

    if (size < before)
        return 0;
    struct vdev_options options = kind->device(data);
    options.fuzz = data + before;
    size_t fuzz_bytes = size - before;
    /* Three times of four the start is honest, so that much is left to lie about later. */
    options.fuzz_bytes = data[kind->honesty_at] % 4 ? 0 : fuzz_bytes;
    model_abort_on_violation = true;
    vdev_hung = abort;
    vdev_plug(&options);

    void *driver = malloc(kind->driver_bytes);
    size_t memory_bytes = 0;
    if (!driver)
        abort();
    memset(driver, 0xcc, kind->driver_bytes);
    if (kind->attach(driver, &memory_bytes) == RESULT_OK) {
        struct dma_block memory;
        check(memory_bytes != 0 && memory_bytes < kind->memory_most,
              "a binding's memory is bounded");
        dma_share(memory_bytes, &memory);
        if (kind->start(driver, &memory) == RESULT_OK) {
            vdev_now()->fuzz_bytes = fuzz_bytes;
            kind->use(driver, data + kind->shape, kind->operations);
        }
        if (kind->detach(driver))
            dma_unshare(&memory);
    }
    free(driver);
    if (kind->ended)
        kind->ended();
    vdev_unplug();
    return 0;
}
