/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Drivers that break one rule of the contract each, for the auditor to catch (tests/audit.mk builds
 * one image an offence, with OFFENCE defined as one of these), and the same drivers breaking none.
 *
 * An image is uefi/driver.c with a driver of ours in the place of Baton's, so all that Baton's
 * image does to come and go is done here as well.
 */
#pragma once

#include "uefi/driver.h"

enum offence {
    /* A virtio-blk disk (blk.c). */
    INNOCENT,
    FREES_POOL,
    FREES_POOL_LAST,  /* as the last it does: a jump, whose return address is not the driver's */
    FREES_POOL_ASIDE, /* by a pointer that it took from the table when it was loaded */
    ALLOCATES_PAGES,
    ALLOCATES_BUFFER,  /* by way of PciIo */
    ADDS_MEMORY_SPACE, /* by way of the DXE services, which are no boot services */
    DISCONNECTS,
    CLOSES_ITS_EVENT,
    ARMS_TIMER,
    LOCATES,
    DAWDLES,
    LEAVES_RING_LIVE,
    LEAVES_READ,
    LEAVES_LAST_READ, /* posted, not yet announced */
    LEAVES_MASTER,    /* set going, with no queue */
    ONLY_CUTS_BUS,
    FREES_LIVE_RING,
    STALE_EVENT,
    TOUCHES_DORMANT,
    TWO_RULES,
    ASKS_LITTLE, /* innocent: services that the specification and the contract leave a handler */
    NEVER_EXITS,
    ALLOCATES_BEFORE, /* innocent: allowed in the before-exit group */
    SPOILS_FIRST_KEY, /* innocent: no handler does it, and the second call succeeds */
    CRASHES,
    HANGS,

    /* A network device that receives (virtio_net.c, e1000.c). */
    NET_INNOCENT,
    LEAVES_RECEIVE_QUEUE,
    E1000_INNOCENT,
    LEAVES_E1000,
    E1000_ONLY_CUTS_BUS,
};

#define BREAKS(what) (OFFENCE == (what))

/* What the binding's file does once, right after the image has installed its binding. */
EFI_STATUS offence_loaded(void);

/* Its Driver Binding. */
EFI_STATUS EFIAPI offence_supported(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                                    EFI_DEVICE_PATH *remaining);
EFI_STATUS EFIAPI offence_start(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                                EFI_DEVICE_PATH *remaining);
EFI_STATUS EFIAPI offence_stop(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                               UINTN children, EFI_HANDLE *child_handles);

/* Marks the handle of a device as bound, and finds what was bound there: a protocol of ours. */
EFI_STATUS offence_mark(EFI_HANDLE controller, void *binding);
EFI_STATUS offence_unmark(EFI_HANDLE controller, void *binding);
EFI_STATUS offence_find(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller, void **binding);
