/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* Which driver stands behind a disk. */
#pragma once

#include "lab/efi/app.h"

struct app_driver {
    char name[96];         /* what the driver calls itself, in English */
    const char *name_from; /* where that was found: "component name 2", "component name", "path" */
    UINT32 version;        /* of its Driver Binding */
    char image[256]; /* device path of the image, e.g. …/Offset(0x…,0x…) in an option ROM */
};

/*
 * The drivers that hold a disk's device, from the PCI device upwards, into the caller's array. One
 * that drives the device by itself is alone there; the firmware's virtio drivers are two: the
 * transport's and the disk's. The last one is the one that made the disk. What sits on top of the
 * disk (partitions, file systems) is left out. Gives how many there are; 0 when nobody holds it.
 */
size_t app_drivers_of(EFI_HANDLE disk, struct app_driver *drivers, size_t max);

/* What the driver behind an agent handle calls itself in English, by Component Name (2). */
bool app_driver_name(EFI_HANDLE agent, char *text, size_t size);
