// SPDX-License-Identifier: BSD-2-Clause-Patent
/* What all of the UEFI side knows: boot services, this image, and small helpers. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <efi.h>
#include "core/door.h"
#include "uefi/exit.h"

/* Set at the entry point, before anything else runs. */
extern EFI_BOOT_SERVICES *bs;
extern EFI_SYSTEM_TABLE *st;
extern EFI_HANDLE driver_image;
extern struct exit_shared *exit_shared;

/* How many devices are bound. An image with bindings cannot be unloaded. */
extern unsigned driver_bindings;

/* IHVs' drivers have versions from 0x10 (UEFI 2.10 §11.1); edk2's virtio drivers are at 0x10. A
 * higher one is asked first for a device that carries no ROM of its own. */
#define DRIVER_VERSION 0x20

/* One driver of this image: what is on the handle that firmware knows it by. */
struct driver {
    EFI_DRIVER_BINDING_PROTOCOL binding; /* the driver's functions, and version; driver.c's rest */
    EFI_COMPONENT_NAME2_PROTOCOL component_name; /* driver.c fills it in */
    CHAR16 *name;                                /* of the driver, in English */
    /* The English name of a controller that the driver manages, or of the child on it; NULL if the
     * child is not the driver's. `child` may be NULL. */
    CHAR16 *(*name_of)(const struct driver *driver, EFI_HANDLE controller, EFI_HANDLE child);
};

/* All of them: drivers.c. The first is on the image's own handle, each other on one of its own
 * (UEFI 2.10 §11.1: a handle can have one Driver Binding). */
extern struct driver *const drivers[];
extern const size_t driver_count;

extern EFI_GUID block_io_guid;
extern EFI_GUID block_io2_guid;
extern EFI_GUID pci_io_guid;

/* Says so if this is a Xen domain whose disks cannot be reached. */
void xen_look_for_platform(void);

/* The structure that a protocol or member is part of. */
#define CONTAINER_OF(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* How the UEFI specification names what went wrong. */
EFI_STATUS status_of(enum result result);
