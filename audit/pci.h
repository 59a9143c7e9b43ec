/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * PCI functions, by configuration and register access of our own: no firmware is asked, so all of
 * it but pci_find_segments() works after the exit. Segment 0 is reached by configuration mechanism
 * 1, others by the memory-mapped one that ACPI tells of.
 */
#pragma once

#include "lab/efi/app.h"

struct pci {
    uint16_t segment;
    uint8_t bus, device, function;
    uint64_t ecam; /* of the function, or 0 for mechanism 1 */
};

enum { PCI_DECODE_IO = 1, PCI_DECODE_MEMORY = 2, PCI_MASTER = 4 };

/* Reads ACPI's MCFG table. Needs boot services' view of the system table, so before the exit. */
void pci_find_segments(void);

/* Calls `found` for every function that answers. */
void pci_each(void (*found)(const struct pci *pci));

/* The whole of it that must be mapped to reach configuration space: call `range` for each piece. */
void pci_each_window(void (*range)(uint64_t base, uint64_t size));

uint32_t pci_read32(const struct pci *pci, uint32_t offset);
uint16_t pci_read16(const struct pci *pci, uint32_t offset);
uint8_t pci_read8(const struct pci *pci, uint32_t offset);
void pci_write32(const struct pci *pci, uint32_t offset, uint32_t value);
/* The command register alone: to write the status register with it would clear bits there. */
void pci_set_command(const struct pci *pci, uint16_t command);

/* Address of the register block behind BAR `index` (counted in registers), and whether it is I/O
 * ports. 0: there is none. */
uint64_t pci_bar(const struct pci *pci, unsigned index, bool *ports);

/* A capability's offset, looking behind `after` (0: from the start); 0: no more. */
uint8_t pci_capability(const struct pci *pci, uint8_t id, uint8_t after);

/* ---- Registers ---- */

static inline uint32_t mmio_read32(uint64_t address)
{
    return *(volatile uint32_t *)(uintptr_t)address;
}

static inline uint16_t mmio_read16(uint64_t address)
{
    return *(volatile uint16_t *)(uintptr_t)address;
}

static inline uint8_t mmio_read8(uint64_t address)
{
    return *(volatile uint8_t *)(uintptr_t)address;
}

static inline void mmio_write16(uint64_t address, uint16_t value)
{
    *(volatile uint16_t *)(uintptr_t)address = value;
}

static inline uint64_t mmio_read64(uint64_t address)
{
    return mmio_read32(address) | (uint64_t)mmio_read32(address + 4) << 32;
}

static inline uint16_t port_read16(uint16_t port)
{
    uint16_t value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline void port_write16(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
