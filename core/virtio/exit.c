// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "core/virtio/exit.h"

/* A bound for a clock that stands still, for each device by itself: nothing hangs, though it can
 * take seconds. A register read of a virtual device takes a microsecond or more, so that the
 * deadline comes first wherever the clock runs. */
#define RESET_READS_MAX (1u << 22)

bool virtio_reset(const struct virtio_exit *device, const struct poor_door *door)
{
    /* Also when the deadline has passed: the reset is asked for, and looked for once. */
    reg_write8(&device->status, 0, 0);
    for (uint32_t reads = 0; reads < RESET_READS_MAX; reads++) {
        if (reg_read8(&device->status, 0) == 0)
            return true;
        if (deadline_passed(door->deadline))
            return false;
        cpu_relax();
    }
    return false;
}

bool virtio_quiesce(struct virtio_exit *device, const struct poor_door *door)
{
    if (device->state == VIRTIO_DORMANT)
        return true;

    bool acknowledged = virtio_reset(device, door);
    /* After the reset: a device that is still finishing a transfer needs the bus to do so. And even
     * for a device that has not acknowledged: it is then all that can be done. */
    pci_master_off(&device->function);
    device->state = acknowledged ? VIRTIO_DORMANT : VIRTIO_STUCK;
    return acknowledged;
}
