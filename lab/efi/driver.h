/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* Which driver stands behind a disk or a network interface. */
#pragma once

#include "lab/efi/app.h"

struct app_driver {
    char name[96];         /* what the driver calls itself, in English */
    const char *name_from; /* where that was found: "component name 2", "component name", "path" */
    const char *holds; /* of what it makes that: "pci", "virtio", "scsi bus", "scsi unit"; or "" */
    UINT32 version;    /* of its Driver Binding */
    char image[256];   /* device path of the image, e.g. …/Offset(0x…,0x…) in an option ROM */
};

/*
 * The drivers that hold a disk's device, from the PCI device upwards, into the caller's array. One
 * that drives the device by itself is alone there; the firmware's virtio drivers are two: the
 * transport's and the disk's. The last one is the one that made the disk; for a disk on a SCSI
 * controller, the two last ones are firmware's own for any such bus and any such disk. What sits on
 * top of the disk (partitions, file systems) is left out. Gives how many there are; 0 when nobody
 * holds it.
 */
size_t app_drivers_of(EFI_HANDLE disk, struct app_driver *drivers, size_t max);

/* The same for a handle with Simple Network on it; the network stack above it is left out. */
size_t app_drivers_of_interface(EFI_HANDLE interface, struct app_driver *drivers, size_t max);

/* What the driver behind an agent handle calls itself in English, by Component Name (2). */
bool app_driver_name(EFI_HANDLE agent, char *text, size_t size);

/*
 * Has the drivers that are Baton's, or all the others, connect a PCI device that nobody holds, one
 * at a time: a list is tried in an order of the firmware's own. Where the firmware's driver is two,
 * one on top of the other, both come. What sits on top of a disk or an interface is not connected.
 */
void app_connect_by(EFI_HANDLE device, bool baton);
