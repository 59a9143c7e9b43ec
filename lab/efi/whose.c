/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Says which drivers the firmware has for its disks, one line each, and returns to the firmware,
 * which then boots. Where a file EFI\BOOT\NEXT.EFI lies on the disk that it was itself read from,
 * it starts that, so that it can stand in the place of a disk's boot loader. The lab reads these
 * lines:
 *
 *     whose: firmware vendor="…" revision=0x… uefi=2.70
 *     whose: disk pci=00:04.0 id=1af4:1042 block=512 blocks=262144 read-only=0
 *     whose: driver pci=00:04.0 level=0 version=0x10 name="…" from="component name 2" image="…"
 *     whose: end disks=1
 */
#include "lab/efi/app.h"
#include "lab/efi/driver.h"
#include "lab/efi/next.h"

static const EFI_GUID block_io_guid = EFI_BLOCK_IO_PROTOCOL_GUID;

enum { MAX_DISKS = 64, MAX_LEVELS = 4 };

static uint32_t pci_id(const struct app_pci *pci)
{
    static const EFI_GUID pci_io_guid = EFI_PCI_IO_PROTOCOL_GUID;
    EFI_PCI_IO_PROTOCOL *io = app_protocol(pci->handle, &pci_io_guid);
    UINT32 id = 0;

    if (io == NULL || EFI_ERROR(io->Pci.Read(io, EfiPciIoWidthUint32, 0, 1, &id)))
        return 0;
    return id;
}

static void tell_disk(EFI_HANDLE disk)
{
    EFI_BLOCK_IO_PROTOCOL *block = app_protocol(disk, &block_io_guid);
    static struct app_driver drivers[MAX_LEVELS];
    struct app_pci pci;
    char place[16];

    app_assert(block != NULL && app_pci_of(disk, &pci));
    app_format(place, sizeof(place), "%02llx:%02llx.%llx", pci.bus, pci.device, pci.function);
    uint32_t id = pci_id(&pci);

    app_print("whose: disk pci=%s id=%04x:%04x block=%u blocks=%llu read-only=%d\n", place,
              id & 0xffff, id >> 16, block->Media->BlockSize,
              block->Media->MediaPresent ? block->Media->LastBlock + 1 : 0,
              block->Media->ReadOnly ? 1 : 0);

    size_t count = app_drivers_of(disk, drivers, MAX_LEVELS);

    for (size_t i = 0; i < count; i++) {
        app_print("whose: driver pci=%s level=%zu version=0x%x name=\"%s\" from=\"%s\" "
                  "image=\"%s\"\n",
                  place, i, drivers[i].version, drivers[i].name, drivers[i].name_from,
                  drivers[i].image);
    }
}

int app_main(void)
{
    static EFI_HANDLE disks[MAX_DISKS];

    app_print("whose: firmware vendor=\"%ls\" revision=0x%x uefi=%u.%u\n", app.st->FirmwareVendor,
              app.st->FirmwareRevision, app.st->Hdr.Revision >> 16, app.st->Hdr.Revision & 0xffff);
    app_connect_all();

    size_t count = app_disks(disks, MAX_DISKS);

    for (size_t i = 0; i < count; i++)
        tell_disk(disks[i]);
    app_print("whose: end disks=%zu\n", count);
    app_start_next();
    return 0;
}
