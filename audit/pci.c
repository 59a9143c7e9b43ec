/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include <linux/pci_regs.h>

#include "audit/pci.h"

enum { CONFIG_ADDRESS = 0xcf8, CONFIG_DATA = 0xcfc, SEGMENTS_MAX = 16, BUS_BYTES = 1 << 20 };

/* ---- Segments ---- */

static struct segment {
    uint64_t base; /* of bus 0, whether or not it has one */
    uint16_t number;
    uint8_t first, last;
} segments[SEGMENTS_MAX];
static size_t segment_count;

/* ACPI 6.5 §5.2.5.3 and §5.2.8; PCI Firmware 3.2 §4.1.2 for MCFG. */
enum { RSDP_XSDT = 24, TABLE_LENGTH = 4, TABLE_HEADER = 36, MCFG_ENTRIES = 44, MCFG_ENTRY = 16 };

static uint64_t get(const uint8_t *from, size_t size)
{
    uint64_t value = 0;
    memcpy(&value, from, size);
    return value;
}

static void read_mcfg(const uint8_t *table)
{
    size_t length = (size_t)get(table + TABLE_LENGTH, 4);

    for (size_t at = MCFG_ENTRIES; at + MCFG_ENTRY <= length; at += MCFG_ENTRY) {
        struct segment segment = {.base = get(table + at, 8),
                                  .number = (uint16_t)get(table + at + 8, 2),
                                  .first = table[at + 10],
                                  .last = table[at + 11]};
        if (segment.number != 0 && segment_count < SEGMENTS_MAX)
            segments[segment_count++] = segment;
    }
}

void pci_find_segments(void)
{
    static const EFI_GUID acpi_guid = ACPI_20_TABLE_GUID;
    const uint8_t *rsdp = NULL;

    for (UINTN i = 0; i < app.st->NumberOfTableEntries; i++)
        if (app_guid_equal(&app.st->ConfigurationTable[i].VendorGuid, &acpi_guid))
            rsdp = app.st->ConfigurationTable[i].VendorTable;
    if (rsdp == NULL)
        return;
    const uint8_t *xsdt = (const uint8_t *)(uintptr_t)get(rsdp + RSDP_XSDT, 8);
    if (xsdt == NULL)
        return;
    size_t length = (size_t)get(xsdt + TABLE_LENGTH, 4);
    for (size_t at = TABLE_HEADER; at + 8 <= length; at += 8) {
        const uint8_t *table = (const uint8_t *)(uintptr_t)get(xsdt + at, 8);
        if (table != NULL && memcmp(table, "MCFG", 4) == 0)
            read_mcfg(table);
    }
}

void pci_each_window(void (*range)(uint64_t base, uint64_t size))
{
    for (size_t i = 0; i < segment_count; i++)
        range(segments[i].base + (uint64_t)segments[i].first * BUS_BYTES,
              (uint64_t)(segments[i].last - segments[i].first + 1) * BUS_BYTES);
}

/* ---- Configuration space ---- */

/* Address and data are two accesses: the firmware's timer must not come in between. */
static void select(const struct pci *pci, uint32_t offset)
{
    app_out32(CONFIG_ADDRESS, 0x80000000u | (uint32_t)pci->bus << 16 | (uint32_t)pci->device << 11 |
                                  (uint32_t)pci->function << 8 | (offset & 0xfc));
}

uint32_t pci_read32(const struct pci *pci, uint32_t offset)
{
    if (pci->ecam != 0)
        return mmio_read32(pci->ecam + (offset & 0xffc));
    uintptr_t flags = app_interrupts_off();
    select(pci, offset);
    uint32_t value = app_in32(CONFIG_DATA);
    app_interrupts_back(flags);
    return value;
}

uint16_t pci_read16(const struct pci *pci, uint32_t offset)
{
    return (uint16_t)(pci_read32(pci, offset) >> 8 * (offset & 2));
}

uint8_t pci_read8(const struct pci *pci, uint32_t offset)
{
    return (uint8_t)(pci_read32(pci, offset) >> 8 * (offset & 3));
}

void pci_write32(const struct pci *pci, uint32_t offset, uint32_t value)
{
    if (pci->ecam != 0) {
        *(volatile uint32_t *)(uintptr_t)(pci->ecam + (offset & 0xffc)) = value;
        return;
    }
    uintptr_t flags = app_interrupts_off();
    select(pci, offset);
    app_out32(CONFIG_DATA, value);
    app_interrupts_back(flags);
}

void pci_set_command(const struct pci *pci, uint16_t command)
{
    if (pci->ecam != 0) {
        mmio_write16(pci->ecam + PCI_COMMAND, command);
        return;
    }
    uintptr_t flags = app_interrupts_off();
    select(pci, PCI_COMMAND);
    port_write16(CONFIG_DATA, command);
    app_interrupts_back(flags);
}

uint64_t pci_bar(const struct pci *pci, unsigned index, bool *ports)
{
    uint32_t low = pci_read32(pci, PCI_BASE_ADDRESS_0 + 4 * index);

    *ports = (low & PCI_BASE_ADDRESS_SPACE_IO) != 0;
    if (*ports)
        return low & PCI_BASE_ADDRESS_IO_MASK & 0xffff;
    uint64_t base = low & (uint32_t)PCI_BASE_ADDRESS_MEM_MASK;
    if ((low & PCI_BASE_ADDRESS_MEM_TYPE_MASK) == PCI_BASE_ADDRESS_MEM_TYPE_64 && index < 5)
        base |= (uint64_t)pci_read32(pci, PCI_BASE_ADDRESS_0 + 4 * (index + 1)) << 32;
    return base;
}

uint8_t pci_capability(const struct pci *pci, uint8_t id, uint8_t after)
{
    if (!(pci_read16(pci, PCI_STATUS) & PCI_STATUS_CAP_LIST))
        return 0;
    uint8_t at = after != 0 ? pci_read8(pci, after + 1u) : pci_read8(pci, PCI_CAPABILITY_LIST);

    /* A list cannot be longer than the space for it, unless it bites its tail. */
    for (unsigned i = 0; i < 48 && at >= 0x40; i++) {
        at &= 0xfc;
        if (pci_read8(pci, at) == id)
            return at;
        at = pci_read8(pci, at + 1u);
    }
    return 0;
}

/* ---- All functions ---- */

static void each_on_bus(struct pci pci, void (*found)(const struct pci *pci))
{
    for (pci.device = 0; pci.device < 32; pci.device++) {
        uint64_t slot = pci.ecam != 0 ? pci.ecam + ((uint64_t)pci.device << 15) : 0;
        for (pci.function = 0; pci.function < 8; pci.function++) {
            struct pci at = pci;
            at.ecam = slot != 0 ? slot + ((uint64_t)pci.function << 12) : 0;
            bool there = pci_read16(&at, PCI_VENDOR_ID) != 0xffff;
            if (there)
                found(&at);
            /* An empty function 0 is an empty slot; and not every slot has eight functions. */
            if (pci.function == 0 && (!there || !(pci_read8(&at, PCI_HEADER_TYPE) & 0x80)))
                break;
        }
    }
}

void pci_each(void (*found)(const struct pci *pci))
{
    for (unsigned bus = 0; bus < 256; bus++)
        each_on_bus((struct pci){.bus = (uint8_t)bus}, found);
    for (size_t i = 0; i < segment_count; i++) {
        for (unsigned bus = segments[i].first; bus <= segments[i].last; bus++)
            each_on_bus((struct pci){.segment = segments[i].number,
                                     .bus = (uint8_t)bus,
                                     .ecam = segments[i].base + (uint64_t)bus * BUS_BYTES},
                        found);
    }
}
