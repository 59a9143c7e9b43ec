// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "bios/int13.h"
#include "bios/log.h"
#include "bios/pci.h"
#include "bios/start.h"

#include <linux/pci_regs.h>

#define PCI_HEADER_TYPE_MULTI 0x80

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA    0xcfc

#define PCI_BIOS_PRESENT 0xb101
#define PCI_BIOS_KEY     0x20494350u /* "PCI " */

const struct reg_window io_ports = {.base = 0, .bytes = 0x10000, .port = true};

/* We may have come in the middle of somebody else's access, who goes on to the data where the
 * address points. Gives what that was. */
static uint32_t point(const struct pci_function *where, uint32_t offset)
{
    uint32_t before = reg_read32(&io_ports, CONFIG_ADDRESS);

    reg_write32(&io_ports, CONFIG_ADDRESS,
                0x80000000u | (uint32_t)where->bus << 16 | (uint32_t)where->device << 11 |
                    (uint32_t)where->function << 8 | (offset & 0xfc));
    return before;
}

uint32_t pci_read32(const struct pci_function *where, uint32_t offset)
{
    uint32_t before = point(where, offset);
    uint32_t value = reg_read32(&io_ports, CONFIG_DATA);

    reg_write32(&io_ports, CONFIG_ADDRESS, before);
    return value;
}

void pci_write32(const struct pci_function *where, uint32_t offset, uint32_t value)
{
    uint32_t before = point(where, offset);

    reg_write32(&io_ports, CONFIG_DATA, value);
    reg_write32(&io_ports, CONFIG_ADDRESS, before);
}

/* The upper half is the status register, where ones clear. */
static void set_command(const struct pci_function *where, uint32_t on, uint32_t off)
{
    uint32_t command = pci_read32(where, PCI_COMMAND) & 0xffff;

    pci_write32(where, PCI_COMMAND, (command | on) & ~off);
}

/* As the BIOS has it (PCI BIOS Specification 2.1, PCI_BIOS_PRESENT). On a guest of Xen's, each look
 * at a device that is not there goes to another process, and all 256 buses take half a minute in
 * the lab. */
static uint32_t last_bus(void)
{
    const uint16_t flags = 0x0002;
    struct registers registers = {.eax = PCI_BIOS_PRESENT};
    uint16_t left = call_real(interrupt_vector(0x1a), &registers, &flags, 1);

    bool told = !(left & FLAG_CARRY) && registers.edx == PCI_BIOS_KEY && !(registers.eax & 0xff00);
    return told ? registers.ecx & 0xff : 0xff;
}

void pci_scan(void (*found)(const struct pci_device *device))
{
    uint32_t end = (last_bus() + 1) << 8;

    for (uint32_t at = 0; at < end; at++) {
        struct pci_device device = {
            .where = {.bus = (uint8_t)(at >> 8), .device = at >> 3 & 0x1f, .function = at & 7}};
        uint32_t id = pci_read32(&device.where, PCI_VENDOR_ID), header = 0;

        if (id != UINT32_MAX && id != 0) {
            device.vendor = (uint16_t)id;
            device.id = (uint16_t)(id >> 16);
            found(&device);
            header = pci_read32(&device.where, PCI_CACHE_LINE_SIZE) >> 16;
        }
        /* Some BIOSes say 0, whatever they have numbered. */
        if ((header & 0x7f) == PCI_HEADER_TYPE_BRIDGE) {
            uint32_t behind = (pci_read32(&device.where, PCI_PRIMARY_BUS) >> 8 & 0xff00) + 0x100;
            if (behind > end)
                end = behind;
        }
        if ((at & 7) == 0 && !(header & PCI_HEADER_TYPE_MULTI))
            at |= 7;
    }
}

/* ---- The door ---- */

static uint32_t config_read32(void *context, uint32_t offset)
{
    const struct pci_device *device = context;

    return pci_read32(&device->where, offset);
}

/* The length of a window is found by writing ones, which is as good as moving it: nobody may be
 * looking. */
static uint32_t size_of(const struct pci_function *where, uint32_t at, uint32_t mask)
{
    uint32_t command = pci_read32(where, PCI_COMMAND) & 0xffff, is = pci_read32(where, at), size;

    set_command(where, 0, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
    pci_write32(where, at, UINT32_MAX);
    size = pci_read32(where, at) & mask;
    pci_write32(where, at, is);
    pci_write32(where, PCI_COMMAND, command);
    return size & (0 - size);
}

static bool bar(void *context, unsigned index, struct reg_window *window)
{
    const struct pci_device *device = context;
    uint32_t at = PCI_BASE_ADDRESS_0 + 4 * index;
    uint32_t is = pci_read32(&device->where, at);
    bool port = is & PCI_BASE_ADDRESS_SPACE_IO;
    uint32_t mask = (uint32_t)(port ? PCI_BASE_ADDRESS_IO_MASK : PCI_BASE_ADDRESS_MEM_MASK);

    if ((is & mask) == 0)
        return false;
    if (!port && (is & PCI_BASE_ADDRESS_MEM_TYPE_MASK) == PCI_BASE_ADDRESS_MEM_TYPE_64 &&
        (index == 5 || pci_read32(&device->where, at + 4) != 0)) {
        log_line(&device->where, "registers above 4 GiB are out of reach; base address register",
                 index);
        return false;
    }
    *window = (struct reg_window){
        .base = is & mask, .bytes = size_of(&device->where, at, mask), .port = port};
    return window->bytes != 0;
}

static bool bus_master(void *context, bool on)
{
    const struct pci_device *device = context;

    set_command(&device->where, on ? PCI_COMMAND_MASTER : 0, on ? 0 : PCI_COMMAND_MASTER);
    return true;
}

/* What a device sees is what we see: there is nothing in between on a PC BIOS. */
static enum result map(void *context, enum dma_direction direction, void *buffer, size_t bytes,
                       struct dma_mapping *mapping)
{
    (void)context;
    (void)direction;
    *mapping = (struct dma_mapping){.address = (uintptr_t)buffer, .bytes = bytes};
    return RESULT_OK;
}

static void unmap(void *context, const struct dma_mapping *mapping)
{
    (void)context;
    (void)mapping;
}

static void log_pci(void *context, const char *sentence, uint64_t number)
{
    const struct pci_device *device = context;

    log_line(&device->where, sentence, number);
}

void pci_open(struct pci_device *device)
{
    /* Nobody is there to answer an interrupt; a system that wants them switches them on again. */
    set_command(&device->where, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE, 0);
    device->door = (struct rich_door){
        .context = device,
        .ticks_per_ms = ticks_per_ms,
        .config_read32 = config_read32,
        .bar = bar,
        .bus_master = bus_master,
        .map = map,
        .unmap = unmap,
        .log = log_pci,
    };
}
