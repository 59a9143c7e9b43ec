// SPDX-License-Identifier: BSD-2-Clause-Patent
/* The drivers in this image. */

#include "uefi/virtio.h"

extern struct virtio_driver virtio_blk_driver;
extern struct virtio_driver virtio_scsi_driver;
extern struct virtio_driver virtio_net_driver;
extern struct driver xen_driver;

struct driver *const drivers[] = {
    &virtio_blk_driver.driver,
    &virtio_scsi_driver.driver,
    &virtio_net_driver.driver,
    &xen_driver,
};
const size_t driver_count = sizeof(drivers) / sizeof(drivers[0]);
