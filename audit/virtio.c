/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "audit/virtio.h"

void virtio_find(struct device *device)
{
    struct virtio *virtio = &device->virtio;
    const struct pci *pci = &device->pci;

    uint8_t at = 0;
    /* There is room for 48 capabilities; a list that is longer goes round. */
    for (unsigned i = 0; i < 48 && (at = pci_capability(pci, PCI_CAP_ID_VNDR, at)) != 0; i++) {
        uint8_t type = pci_read8(pci, at + VIRTIO_PCI_CAP_CFG_TYPE);
        uint8_t bar = pci_read8(pci, at + VIRTIO_PCI_CAP_BAR);

        if (bar > 5 || device->bar_ports[bar] || device->bar[bar] == 0)
            continue;
        uint64_t base = device->bar[bar] + pci_read32(pci, at + VIRTIO_PCI_CAP_OFFSET);
        if (type == VIRTIO_PCI_CAP_COMMON_CFG && virtio->common == 0) {
            virtio->common = base;
        } else if (type == VIRTIO_PCI_CAP_NOTIFY_CFG && virtio->notify == 0) {
            virtio->notify = base;
            virtio->notify_size = pci_read32(pci, at + VIRTIO_PCI_CAP_LENGTH);
            virtio->multiplier = pci_read32(pci, at + VIRTIO_PCI_NOTIFY_CAP_MULT);
        }
    }
    virtio->modern = virtio->common != 0 && virtio->notify != 0;
    virtio->legacy = device->id < 0x1040 && device->bar_ports[0] && device->bar[0] != 0;
    virtio->port = virtio->legacy ? (uint16_t)device->bar[0] : 0;
}

static uint16_t queue_count(const struct device *device)
{
    const struct virtio *virtio = &device->virtio;

    if (virtio->modern) {
        uint16_t count = mmio_read16(virtio->common + VIRTIO_PCI_COMMON_NUMQ);
        return count > QUEUES_MAX ? QUEUES_MAX : count;
    }
    /* A legacy device does not say how many it has; a queue that is not there has size 0. */
    uint16_t count = 0;
    while (count < QUEUES_MAX) {
        port_write16((uint16_t)(virtio->port + VIRTIO_PCI_QUEUE_SEL), count);
        if (port_read16((uint16_t)(virtio->port + VIRTIO_PCI_QUEUE_NUM)) == 0)
            break;
        count++;
    }
    return count;
}

uint8_t virtio_status(const struct device *device)
{
    if (device->virtio.modern)
        return mmio_read8(device->virtio.common + VIRTIO_PCI_COMMON_STATUS);
    return app_in8((uint16_t)(device->virtio.port + VIRTIO_PCI_STATUS));
}

static void queue_select(const struct device *device, uint16_t queue)
{
    if (device->virtio.modern)
        mmio_write16(device->virtio.common + VIRTIO_PCI_COMMON_Q_SELECT, queue);
    else
        port_write16((uint16_t)(device->virtio.port + VIRTIO_PCI_QUEUE_SEL), queue);
}

static bool queue_enabled(const struct device *device)
{
    if (device->virtio.modern)
        return mmio_read16(device->virtio.common + VIRTIO_PCI_COMMON_Q_ENABLE) != 0;
    return app_in32((uint16_t)(device->virtio.port + VIRTIO_PCI_QUEUE_PFN)) != 0;
}

/* A transitional device driven through its ports has its queues enabled there and not in the modern
 * registers. */
static bool legacy_queue_enabled(const struct device *device, uint16_t queue)
{
    if (!device->virtio.legacy || !device->virtio.modern)
        return false;
    port_write16((uint16_t)(device->virtio.port + VIRTIO_PCI_QUEUE_SEL), queue);
    return app_in32((uint16_t)(device->virtio.port + VIRTIO_PCI_QUEUE_PFN)) != 0;
}

uint64_t virtio_queues(const struct device *device)
{
    uint16_t count = queue_count(device);
    uint64_t queues = 0;

    for (uint16_t queue = 0; queue < count; queue++) {
        queue_select(device, queue);
        if (queue_enabled(device) || legacy_queue_enabled(device, queue))
            queues |= 1ull << queue;
    }
    queue_select(device, 0);
    return queues;
}

unsigned virtio_notify(const struct device *device)
{
    const struct virtio *virtio = &device->virtio;
    uint16_t count = queue_count(device);

    for (uint16_t queue = 0; queue < count; queue++) {
        if (!virtio->modern) {
            port_write16((uint16_t)(virtio->port + VIRTIO_PCI_QUEUE_NOTIFY), queue);
            continue;
        }
        queue_select(device, queue);
        uint64_t offset =
            (uint64_t)mmio_read16(virtio->common + VIRTIO_PCI_COMMON_Q_NOFF) * virtio->multiplier;
        if (offset + 2 <= virtio->notify_size)
            mmio_write16(virtio->notify + offset, queue);
        if (virtio->legacy)
            port_write16((uint16_t)(virtio->port + VIRTIO_PCI_QUEUE_NOTIFY), queue);
    }
    queue_select(device, 0);
    return count;
}

/* ---- Memory ---- */

struct ring {
    uint64_t desc, avail, used;
    uint16_t size;
};

static struct ring ring_of(const struct device *device, uint16_t queue)
{
    const struct virtio *virtio = &device->virtio;
    struct ring ring = {0};

    if (virtio->modern && queue_enabled(device)) {
        ring.size = mmio_read16(virtio->common + VIRTIO_PCI_COMMON_Q_SIZE);
        ring.desc = mmio_read64(virtio->common + VIRTIO_PCI_COMMON_Q_DESCLO);
        ring.avail = mmio_read64(virtio->common + VIRTIO_PCI_COMMON_Q_AVAILLO);
        ring.used = mmio_read64(virtio->common + VIRTIO_PCI_COMMON_Q_USEDLO);
        return ring;
    }
    if (!virtio->legacy)
        return ring;
    /* virtio 1.2 §2.7.2: one piece, the used ring on the next page. */
    port_write16((uint16_t)(virtio->port + VIRTIO_PCI_QUEUE_SEL), queue);
    ring.size = port_read16((uint16_t)(virtio->port + VIRTIO_PCI_QUEUE_NUM));
    ring.desc = (uint64_t)app_in32((uint16_t)(virtio->port + VIRTIO_PCI_QUEUE_PFN)) << 12;
    ring.avail = ring.desc + 16ull * ring.size;
    ring.used = (ring.avail + 6 + 2ull * ring.size + 4095) & ~4095ull;
    return ring;
}

static void share_chain(const struct device *device, uint16_t queue, uint64_t table, uint16_t size,
                        uint16_t head, bool indirect)
{
    for (unsigned i = 0; i < size && head < size; i++) {
        struct vring_desc desc;

        memcpy(&desc, (const void *)(uintptr_t)(table + 16ull * head), sizeof(desc));
        if (desc.flags & VRING_DESC_F_INDIRECT) {
            uint32_t count = desc.len / 16;
            shared_add(device, desc.addr, desc.len, DEVICE_OBEYS, "queue %u indirect table", queue);
            if (!indirect && count > 0 && count <= UINT16_MAX &&
                shared_is_memory(desc.addr, desc.len))
                share_chain(device, queue, desc.addr, (uint16_t)count, 0, true);
        } else {
            shared_add(device, desc.addr, desc.len,
                       desc.flags & VRING_DESC_F_WRITE ? DEVICE_WRITES : DEVICE_READS,
                       "queue %u buffer", queue);
        }
        if (!(desc.flags & VRING_DESC_F_NEXT))
            break;
        head = desc.next;
    }
}

/*
 * Each head that the driver has made available and the device has not given back: what was made
 * available last, and of what came before it, whatever has not come back. (Heads may come back in
 * any order.)
 */
static void share_buffers(const struct device *device, uint16_t queue, const struct ring *ring)
{
    static uint8_t out[32768];
    uint16_t avail_index = mmio_read16(ring->avail + 2);
    uint16_t used_index = mmio_read16(ring->used + 2);
    uint16_t outstanding = (uint16_t)(avail_index - used_index);
    /* A ring that has not been round once holds nothing beyond its index. */
    uint16_t known = avail_index < ring->size ? avail_index : ring->size;

    if (outstanding > known)
        return;
    memset(out, 0, ring->size);
    for (uint16_t i = known; i > 0; i--) {
        uint16_t head =
            mmio_read16(ring->avail + 4 + 2ull * ((uint16_t)(avail_index - i) % ring->size));
        if (head < ring->size)
            out[head]++;
    }
    for (uint16_t i = (uint16_t)(known - outstanding); i > 0; i--) {
        uint32_t head =
            mmio_read32(ring->used + 4 + 8ull * ((uint16_t)(used_index - i) % ring->size));
        if (head < ring->size && out[head] > 0)
            out[head]--;
    }
    for (uint16_t head = 0; head < ring->size; head++)
        if (out[head] > 0)
            share_chain(device, queue, ring->desc, ring->size, head, false);
}

void virtio_share(const struct device *device)
{
    uint64_t queues = virtio_queues(device);

    for (uint16_t queue = 0; queue < QUEUES_MAX; queue++) {
        if (!(queues & 1ull << queue))
            continue;
        queue_select(device, queue);
        struct ring ring = ring_of(device, queue);
        if (ring.size == 0 || ring.size > 32768)
            continue;
        shared_add(device, ring.desc, 16ull * ring.size, DEVICE_OBEYS | DEVICE_KEEPS,
                   "queue %u descriptors", queue);
        shared_add(device, ring.avail, 6 + 2ull * ring.size, DEVICE_OBEYS | DEVICE_KEEPS,
                   "queue %u available ring", queue);
        shared_add(device, ring.used, 6 + 8ull * ring.size, DEVICE_WRITES | DEVICE_KEEPS,
                   "queue %u used ring", queue);
        if (shared_is_memory(ring.desc, 16ull * ring.size) &&
            shared_is_memory(ring.avail, 6 + 2ull * ring.size) &&
            shared_is_memory(ring.used, 6 + 8ull * ring.size))
            share_buffers(device, queue, &ring);
    }
    queue_select(device, 0);
}
