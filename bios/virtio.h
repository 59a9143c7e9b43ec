// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Disks on virtio. */
#pragma once

#include "bios/pci.h"

/* Takes the device, if it is one that Baton drives, and makes drives of its disks. */
void virtio_found(const struct pci_device *device);
