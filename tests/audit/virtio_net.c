// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * A virtio-net device with nothing but its receive queue: it takes what comes, and throws it away.
 * Left as it is at the exit, it writes every packet that arrives into memory that was its buffers.
 */

#include "core/virtio/device.h"
#include "core/virtio/ring.h"
#include "tests/audit/offence.h"
#include "tests/audit/receiver.h"

#include <linux/virtio_ring.h>

#define BUFFER_BYTES 2048u /* the header, and the largest frame that comes without offloads */
#define BUFFERS_MAX  1024u
#define ONE_FOR_ALL  1 /* descriptors in a chain */

struct receiver {
    struct virtio_device device;
    struct ring ring;
    struct exit_virtio_context exit;
    size_t buffers_at;
};

const uint16_t receiver_vendor = 0x1af4;
const uint16_t receiver_devices[] = {0x1000, 0x1041};
const size_t receiver_device_count = sizeof(receiver_devices) / sizeof(receiver_devices[0]);
const size_t receiver_bytes = sizeof(struct receiver);

EFI_STATUS receiver_attach(struct receiver *receiver, const struct pci_binding *pci,
                           size_t *shared_bytes)
{
    struct virtio_device *device = &receiver->device;

    receiver->exit = (struct exit_virtio_context){&device->exit, exit_shared};
    enum result result = virtio_find(device, &pci->door, &pci->where);
    if (!result)
        result = virtio_begin(device);
    if (!result)
        result = virtio_negotiate(device, 0);
    if (!result)
        result = ring_plan(&receiver->ring, virtio_queue_size(device, 0), ONE_FOR_ALL,
                           device->features, device->modern);
    if (!result && receiver->ring.size > BUFFERS_MAX)
        result = RESULT_UNSUPPORTED;
    receiver->buffers_at =
        (ring_bytes(&receiver->ring) + EFI_PAGE_SIZE - 1) & ~(size_t)(EFI_PAGE_SIZE - 1);
    *shared_bytes = receiver->buffers_at + (size_t)receiver->ring.size * BUFFER_BYTES;
    return status_of(result);
}

/* core's ring counts its slots in 64 bits. More buffers than that are what makes this offence one
 * that lasts, so they are posted by hand: entry i is always descriptor i. */
static void post(struct ring *ring, uint16_t count)
{
    ring->avail_next = (uint16_t)(ring->avail_next + count);
    __atomic_store_n(&ring->avail->idx, ring->avail_next, __ATOMIC_RELEASE);
    ring_notify(ring);
}

EFI_STATUS receiver_start(struct receiver *receiver, const struct dma_block *memory)
{
    struct ring *ring = &receiver->ring;

    ring_init(ring, memory);
    for (uint16_t i = 0; i < ring->size; i++) {
        ring->desc[i] = (struct vring_desc){
            .addr = memory->address + receiver->buffers_at + (uint64_t)i * BUFFER_BYTES,
            .len = BUFFER_BYTES,
            .flags = VRING_DESC_F_WRITE,
        };
        ring->avail->ring[i] = i;
    }
    enum result result = virtio_queue_start(&receiver->device, 0, ring);
    if (!result)
        result = virtio_go(&receiver->device);
    if (!result)
        post(ring, ring->size);
    return status_of(result);
}

/* The device gives buffers back in the order in which it got them. */
void receiver_poll(struct receiver *receiver)
{
    struct ring *ring = &receiver->ring;
    uint16_t used = __atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE);
    uint16_t count = (uint16_t)(used - ring->used_next);

    if (receiver->device.exit.state != VIRTIO_LIVE || count == 0)
        return;
    ring->used_next = used;
    post(ring, count);
}

bool receiver_down(struct receiver *receiver, size_t bytes)
{
    return virtio_down(&receiver->device, VIRTIO_RESET_MS, bytes);
}

void receiver_exit(struct receiver *receiver, EFI_EVENT event)
{
    if (!BREAKS(LEAVES_RECEIVE_QUEUE))
        exit_virtio(event, &receiver->exit);
}
