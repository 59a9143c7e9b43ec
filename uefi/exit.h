// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * ExitBootServices (UEFI 2.10 §7.4.6 and, for the rule, §7.1: EVT_SIGNAL_EXIT_BOOT_SERVICES).
 *
 * exit.c, core/virtio/exit.c and core/x86/regs.c are all the code of ours that runs then. The build
 * checks that nothing else can be reached from it (C2).
 */
#pragma once

#include <stdint.h>
#include <efi.h>

/* How long the exit may take, all devices of all of our images together (C6). */
#define EXIT_BOUND_MS 1000

/*
 * What the exits of all devices share. One for the whole machine, found through a protocol: the
 * same ROM on several devices makes several images of the driver.
 */
struct exit_shared {
    uint64_t ticks_per_ms; /* of clock_ticks() */
    uint64_t deadline;     /* of the exit that is under way; 0 before the first */
};

/* What one binding's event is given. */
struct exit_virtio_context {
    struct virtio_exit *device;
    struct exit_shared *shared;
};

/*
 * Notification function of a binding's exit event, at TPL_NOTIFY: before the handlers at
 * TPL_CALLBACK, one of which may switch off the IOMMU. Takes the device back (C3 to C7). May be
 * called again.
 */
void EFIAPI exit_virtio(EFI_EVENT event, void *context);
