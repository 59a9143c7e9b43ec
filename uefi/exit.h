// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * ExitBootServices (UEFI 2.10 §7.4.6 and, for the rule, §7.1: EVT_SIGNAL_EXIT_BOOT_SERVICES).
 *
 * exit.c and the objects of EXIT_SRC (uefi/uefi.mk) are all the code of ours that runs then. The
 * build checks that nothing else can be reached from it (C2).
 */
#pragma once

#include <stdint.h>
#include <efi.h>

/* How long the exit may take, all virtio devices of all of our images together (C6). */
#define EXIT_BOUND_MS 1000
/* And with a Xen domain's disks, from the same start: those are closed in a conversation with other
 * domains, each of which needs its turn on a CPU to answer. */
#define XEN_EXIT_BOUND_MS 5000

/*
 * What the exits of all devices share. One for the whole machine, found through a protocol: the
 * same ROM on several devices makes several images of the driver.
 */
struct exit_shared {
    uint64_t ticks_per_ms; /* of clock_ticks() */
    uint64_t start;        /* of the exit that is under way, by that clock; 0 before the first */
};

/* What one binding's event is given. */
struct exit_virtio_context {
    struct virtio_exit *device;
    struct exit_shared *shared;
};

struct exit_xen_context {
    struct xen *xen;
    const struct xen_front *front; /* of a disk; NULL for the bus */
    struct exit_shared *shared;
};

/*
 * Notification function of a binding's exit event, at TPL_NOTIFY: before the handlers at
 * TPL_CALLBACK, one of which may switch off the IOMMU. Takes the device back (C3 to C7). May be
 * called again.
 */
void EFIAPI exit_virtio(EFI_EVENT event, void *context);

/*
 * The same for one of a Xen domain's disks, and for the bus that they are on. Firmware may call
 * them in any order: that of the first disk closes all disks, because all take as long as one if
 * they are closed together, and that of the bus closes what disks are left before it lets go
 * itself.
 */
void EFIAPI exit_xen_disk(EFI_EVENT event, void *context);
void EFIAPI exit_xen_bus(EFI_EVENT event, void *context);
