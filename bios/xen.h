// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Disks of a Xen domain. */
#pragma once

#include "bios/pci.h"

/* Takes the domain, if the device is its platform device, and makes drives of its PV disks. */
void xen_platform_found(const struct pci_device *device);
