// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "uefi/log.h"
#include "uefi/pci.h"

#include <efipciio.h>
#include <linux/pci_regs.h>

#define BARS 6u

/* ---- The rich door ---- */

static uint32_t config_read32(void *context, uint32_t offset)
{
    struct pci_binding *pci = context;
    UINT32 value;

    if (EFI_ERROR(pci->io->Pci.Read(pci->io, EfiPciIoWidthUint32, offset, 1, &value)))
        return UINT32_MAX;
    return value;
}

/* An address space descriptor (ACPI 6.4 §6.4.3.5.1), in which GetBarAttributes() answers.
 * (gnu-efi's headers define __attribute__ away.) */
#pragma pack(push, 1)
struct address_space {
    UINT8 tag;
    UINT16 length;
    UINT8 type; /* 0 memory, 1 I/O */
    UINT8 flags;
    UINT8 specific;
    UINT64 granularity;
    UINT64 minimum;
    UINT64 maximum;
    UINT64 translation; /* what to add to get the address on the bus */
    UINT64 bytes;
};
#pragma pack(pop)
_Static_assert(sizeof(struct address_space) == 46, "as the ACPI specification has it");
#define ADDRESS_SPACE_TAG 0x8a

/*
 * Firmware disagrees on what a BAR's index is once a 64-bit BAR has taken two registers: the number
 * of the register, as in the specification, or a count of BARs, as in edk2. So the register itself
 * is read, and the resource looked for that starts where it says.
 */
static bool bar(void *context, unsigned index, struct reg_window *window)
{
    struct pci_binding *pci = context;
    uint32_t low = config_read32(context, PCI_BASE_ADDRESS_0 + 4 * index);
    bool port = low & PCI_BASE_ADDRESS_SPACE_IO;
    uint64_t base =
        low & (port ? PCI_BASE_ADDRESS_IO_MASK : PCI_BASE_ADDRESS_MEM_MASK) & UINT32_MAX;

    if (!port && (low & PCI_BASE_ADDRESS_MEM_TYPE_MASK) == PCI_BASE_ADDRESS_MEM_TYPE_64) {
        if (index + 1 == BARS)
            return false;
        base |= (uint64_t)config_read32(context, PCI_BASE_ADDRESS_0 + 4 * (index + 1)) << 32;
    }
    if (base == 0)
        return false;

    for (UINT8 i = 0; i < BARS; i++) {
        void *resources = NULL;
        if (EFI_ERROR(pci->io->GetBarAttributes(pci->io, i, NULL, &resources)))
            continue;
        const struct address_space *space = resources;
        bool found = space->tag == ADDRESS_SPACE_TAG && space->type == port &&
                     space->minimum + space->translation == base;
        if (found)
            *window =
                (struct reg_window){.base = space->minimum, .bytes = space->bytes, .port = port};
        bs->FreePool(resources);
        if (found)
            return true;
    }
    return false;
}

static bool bus_master(void *context, bool on)
{
    struct pci_binding *pci = context;

    return !EFI_ERROR(pci->io->Attributes(
        pci->io, on ? EfiPciIoAttributeOperationEnable : EfiPciIoAttributeOperationDisable,
        EFI_PCI_IO_ATTRIBUTE_BUS_MASTER, NULL));
}

static enum result map(void *context, enum dma_direction direction, void *buffer, size_t bytes,
                       struct dma_mapping *mapping)
{
    struct pci_binding *pci = context;
    EFI_PHYSICAL_ADDRESS address;
    UINTN mapped = bytes;

    EFI_STATUS status = pci->io->Map(pci->io,
                                     direction == DMA_FROM_DEVICE ? EfiPciIoOperationBusMasterWrite
                                                                  : EfiPciIoOperationBusMasterRead,
                                     buffer, &mapped, &address, &mapping->cookie);
    if (EFI_ERROR(status))
        return RESULT_NO_MEMORY;
    mapping->address = address;
    mapping->bytes = mapped;
    return RESULT_OK;
}

static void unmap(void *context, const struct dma_mapping *mapping)
{
    struct pci_binding *pci = context;
    pci->io->Unmap(pci->io, mapping->cookie);
}

static void log_pci(void *context, const char *sentence, uint64_t number)
{
    const struct pci_binding *pci = context;
    CHAR16 about[24], *at = about; /* "PCI 0000:00:04.0" */

    at = put_text(at, "PCI ");
    at = put_number(at, pci->where.segment, 16, 4);
    at = put_text(at, ":");
    at = put_number(at, pci->where.bus, 16, 2);
    at = put_text(at, ":");
    at = put_number(at, pci->where.device, 16, 2);
    at = put_text(at, ".");
    put_number(at, pci->where.function, 16, 1);
    log_line(about, sentence, number);
}

/* ---- Taking a device and giving it back ---- */

EFI_STATUS pci_supported(EFI_DRIVER_BINDING_PROTOCOL *driver, EFI_HANDLE controller,
                         uint16_t vendor, const uint16_t *devices, size_t count)
{
    EFI_PCI_IO_PROTOCOL *io;
    UINT16 id[2];

    EFI_STATUS status =
        bs->OpenProtocol(controller, &pci_io_guid, (void **)&io, driver->DriverBindingHandle,
                         controller, EFI_OPEN_PROTOCOL_BY_DRIVER);
    if (EFI_ERROR(status))
        return status;

    status = io->Pci.Read(io, EfiPciIoWidthUint16, PCI_VENDOR_ID, 2, id);
    if (!EFI_ERROR(status)) {
        status = EFI_UNSUPPORTED;
        for (size_t i = 0; i < count; i++)
            if (id[0] == vendor && id[1] == devices[i])
                status = EFI_SUCCESS;
    }
    bs->CloseProtocol(controller, &pci_io_guid, driver->DriverBindingHandle, controller);
    return status;
}

EFI_STATUS pci_open(struct pci_binding *pci, EFI_DRIVER_BINDING_PROTOCOL *driver,
                    EFI_HANDLE controller)
{
    UINT64 supported = 0;
    UINTN segment, bus, device, function;

    *pci = (struct pci_binding){
        .driver = driver,
        .controller = controller,
        .door =
            {
                .context = pci,
                .ticks_per_ms = exit_shared->ticks_per_ms,
                .config_read32 = config_read32,
                .bar = bar,
                .bus_master = bus_master,
                .map = map,
                .unmap = unmap,
                .log = log_pci,
            },
    };
    EFI_STATUS status =
        bs->OpenProtocol(controller, &pci_io_guid, (void **)&pci->io, driver->DriverBindingHandle,
                         controller, EFI_OPEN_PROTOCOL_BY_DRIVER);
    if (EFI_ERROR(status))
        return status;

    status = pci->io->GetLocation(pci->io, &segment, &bus, &device, &function);
    if (!EFI_ERROR(status))
        status =
            pci->io->Attributes(pci->io, EfiPciIoAttributeOperationGet, 0, &pci->attributes_found);
    if (!EFI_ERROR(status))
        status = pci->io->Attributes(pci->io, EfiPciIoAttributeOperationSupported, 0, &supported);
    if (EFI_ERROR(status))
        goto close;

    pci->where = (struct pci_function){
        .segment = (uint32_t)segment,
        .bus = (uint8_t)bus,
        .device = (uint8_t)device,
        .function = (uint8_t)function,
    };
    /* Dual address cycles: without them, firmware copies everything above 4 GiB through a buffer
     * below. Not every bridge can. */
    status =
        pci->io->Attributes(pci->io, EfiPciIoAttributeOperationEnable,
                            supported & (EFI_PCI_IO_ATTRIBUTE_IO | EFI_PCI_IO_ATTRIBUTE_MEMORY |
                                         EFI_PCI_IO_ATTRIBUTE_DUAL_ADDRESS_CYCLE),
                            NULL);
    if (!EFI_ERROR(status))
        return EFI_SUCCESS;
    pci->io->Attributes(pci->io, EfiPciIoAttributeOperationSet, pci->attributes_found, NULL);

close:
    bs->CloseProtocol(controller, &pci_io_guid, driver->DriverBindingHandle, controller);
    return status;
}

void pci_close(struct pci_binding *pci, bool let_go)
{
    UINT64 attributes = pci->attributes_found;

    if (!let_go)
        attributes &= ~(UINT64)EFI_PCI_IO_ATTRIBUTE_BUS_MASTER;
    pci->io->Attributes(pci->io, EfiPciIoAttributeOperationSet, attributes, NULL);
    bs->CloseProtocol(pci->controller, &pci_io_guid, pci->driver->DriverBindingHandle,
                      pci->controller);
}

EFI_STATUS pci_share(struct pci_binding *pci, size_t bytes, struct pci_shared *shared)
{
    EFI_PHYSICAL_ADDRESS address;
    UINTN mapped;

    *shared = (struct pci_shared){.pages = (bytes + EFI_PAGE_SIZE - 1) / EFI_PAGE_SIZE};
    EFI_STATUS status = pci->io->AllocateBuffer(pci->io, AllocateAnyPages, EfiBootServicesData,
                                                shared->pages, &shared->block.cpu, 0);
    if (EFI_ERROR(status))
        return status;

    shared->block.bytes = mapped = shared->pages * EFI_PAGE_SIZE;
    status = pci->io->Map(pci->io, EfiPciIoOperationBusMasterCommonBuffer, shared->block.cpu,
                          &mapped, &address, &shared->mapping);
    if (!EFI_ERROR(status) && mapped < shared->block.bytes) {
        pci->io->Unmap(pci->io, shared->mapping);
        status = EFI_OUT_OF_RESOURCES;
    }
    if (EFI_ERROR(status)) {
        pci->io->FreeBuffer(pci->io, shared->pages, shared->block.cpu);
        return status;
    }
    shared->block.address = address;
    bs->SetMem(shared->block.cpu, shared->block.bytes, 0);
    return EFI_SUCCESS;
}

void pci_unshare(struct pci_binding *pci, struct pci_shared *shared)
{
    pci->io->Unmap(pci->io, shared->mapping);
    pci->io->FreeBuffer(pci->io, shared->pages, shared->block.cpu);
}
