// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Disks on virtio. */
#pragma once

#include "bios/drives.h"
#include "bios/pci.h"

/* Takes the device, if it is one that Baton drives, and makes drives of its disks; or remembers it,
 * if the BIOS has it in use. */
void virtio_found(const struct pci_device *device);

/* The same for an adapter, but that one in use is left alone. For virtio_found(). */
void virtio_scsi_found(const struct pci_device *device);

/* Whether the BIOS has the device in use, by a driver of its own which goes on believing so; and
 * the entries of its first queue. */
bool virtio_in_use(const struct pci_device *pci, uint16_t *entries);

/* Whether there are devices that the BIOS has in use, and that may be taken over. */
bool virtio_waits(void);

/*
 * Takes over the device that the BIOS says is behind one of its numbers. Gives the drive, to be
 * given that number; NULL if there is nothing to take over there. Afterwards the BIOS must not hear
 * of the number again.
 */
struct drive *virtio_take_over(const struct pci_function *where);
