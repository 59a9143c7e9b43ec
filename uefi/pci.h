// SPDX-License-Identifier: BSD-2-Clause-Patent
/* A PCI device as UEFI hands it out: the rich door over EFI_PCI_IO_PROTOCOL (UEFI 2.10 §14.4). */
#pragma once

#include "uefi/driver.h"

struct pci_binding {
    EFI_PCI_IO_PROTOCOL *io;
    EFI_DRIVER_BINDING_PROTOCOL *driver;
    EFI_HANDLE controller;
    UINT64 attributes_found; /* to be restored */
    struct pci_function where;
    struct rich_door door; /* what core/ drivers are given */
};

/* Memory that is shared with the device for the life of a binding. */
struct pci_shared {
    struct dma_block block;
    void *mapping;
    UINTN pages;
};

/* Whether the device behind `controller` is free for this driver and has one of the device ids of
 * the vendor. The body of a driver's Supported(). */
EFI_STATUS pci_supported(EFI_DRIVER_BINDING_PROTOCOL *driver, EFI_HANDLE controller,
                         uint16_t vendor, const uint16_t *devices, size_t count);

/* Takes the device for the driver and switches its registers on. */
EFI_STATUS pci_open(struct pci_binding *pci, EFI_DRIVER_BINDING_PROTOCOL *driver,
                    EFI_HANDLE controller);

/* Gives it back with its attributes as found. If it has not `let_go` of memory, bus mastering stays
 * off all the same. */
void pci_close(struct pci_binding *pci, bool let_go);

/* Zeroed, page-aligned memory that both sides see, and its release. */
EFI_STATUS pci_share(struct pci_binding *pci, size_t bytes, struct pci_shared *shared);
void pci_unshare(struct pci_binding *pci, struct pci_shared *shared);
