// SPDX-License-Identifier: BSD-2-Clause-Patent
/* PCI by configuration mechanism 1, and the rich door (core/door.h) of a device on it. */
#pragma once

#include "core/door.h"

/* All ports, by their numbers. */
extern const struct reg_window io_ports;

struct pci_device {
    struct pci_function where; /* segment 0 */
    uint16_t vendor, id;
    struct rich_door door; /* set by pci_open() */
};

/* Calls found() for each function of each device, by rising address. */
void pci_scan(void (*found)(const struct pci_device *device));

uint32_t pci_read32(const struct pci_function *where, uint32_t offset);
void pci_write32(const struct pci_function *where, uint32_t offset, uint32_t value);

/* Lets the device answer at its addresses, and makes its door. It must stay where it is. */
void pci_open(struct pci_device *device);
