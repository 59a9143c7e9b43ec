// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * Driver Binding (UEFI 2.10 §11.1) for virtio devices: the life of a binding, the same for every
 * kind of device. What is special to a kind is a struct virtio_driver in a file of its own, and a
 * line in drivers.c.
 */
#pragma once

#include "core/virtio/exit.h"
#include "uefi/pci.h"

/* One device that is bound. Comes first in the kind's own structure. */
struct virtio_binding {
    struct virtio_binding *next;
    const struct virtio_driver *driver;
    struct pci_binding pci;
    struct pci_shared shared; /* of the size that attach() has asked for */
    EFI_EVENT exit_event;
    struct exit_virtio_context exit;
    bool installed;   /* from install() to remove() */
    EFI_HANDLE child; /* set by install(), where the protocols are on a handle of their own */
};

/*
 * A kind of device. The functions are called in this order; where one fails, those before it are
 * undone in reverse. All are called at the caller's TPL but for detach(), which is at TPL_NOTIFY.
 */
struct virtio_driver {
    struct driver driver; /* VIRTIO_DRIVER(), and a name */
    CHAR16 *device_name;  /* of a controller, in English */
    CHAR16 *child_name;   /* of what install() puts on a handle of its own */
    uint16_t devices[2];  /* PCI device ids, of vendor 0x1af4 */
    size_t bytes;         /* of the kind's binding, which begins as zeroes */
    size_t exit_at;       /* where in it the device's struct virtio_exit is */

    /* Meets the device, and says how much memory it is to share; on failure has reset it. */
    enum result (*attach)(struct virtio_binding *binding, size_t *shared_bytes);
    /* Shows it binding->shared.block. After a failure comes detach(). */
    enum result (*start)(struct virtio_binding *binding);
    /* Installs the protocols, on the controller's handle or on a child's. `remaining` is Start()'s.
     * On failure nothing is installed. */
    EFI_STATUS (*install)(struct virtio_binding *binding, EFI_DEVICE_PATH *remaining);
    /* Takes them away again. On failure all works on. */
    EFI_STATUS (*remove)(struct virtio_binding *binding);
    /* Takes the device down; whether it has let go of the shared memory (C5). */
    bool (*detach)(struct virtio_binding *binding);
    /* What remains to be done after Stop() has detached. NULL: nothing. */
    void (*finish)(struct virtio_binding *binding);
};

#define VIRTIO_DRIVER(english)                                                                     \
    {                                                                                              \
        .binding = {.Supported = virtio_supported,                                                 \
                    .Start = virtio_start,                                                         \
                    .Stop = virtio_stop,                                                           \
                    .Version = DRIVER_VERSION},                                                    \
        .name = (english), .name_of = virtio_name_of                                               \
    }

EFI_STATUS EFIAPI virtio_supported(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                                   EFI_DEVICE_PATH *remaining);
EFI_STATUS EFIAPI virtio_start(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                               EFI_DEVICE_PATH *remaining);
/* With the child among `child_handles`, takes its protocols away; without children, ends the
 * binding. EFI_DEVICE_ERROR if somebody does not let go, or if the child is still there. */
EFI_STATUS EFIAPI virtio_stop(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                              UINTN children, EFI_HANDLE *child_handles);
CHAR16 *virtio_name_of(const struct driver *driver, EFI_HANDLE controller, EFI_HANDLE child);
