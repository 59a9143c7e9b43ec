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

extern EFI_DRIVER_BINDING_PROTOCOL virtio_blk_driver_binding;
extern EFI_COMPONENT_NAME2_PROTOCOL virtio_blk_component_name;
extern EFI_DRIVER_BINDING_PROTOCOL xen_driver_binding;
extern EFI_COMPONENT_NAME2_PROTOCOL xen_component_name;

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

/* Whether a driver made by us manages the handle through PciIo: for Component Name 2. */
bool driver_manages(EFI_DRIVER_BINDING_PROTOCOL *driver, EFI_HANDLE controller);

/* The answer of a Component Name 2 function that knows one name in one language. */
EFI_STATUS name_in_english(const CHAR8 *language, CHAR16 *name, CHAR16 **out);
