/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Says which drivers the firmware has for its disks and network interfaces, one line each, and
 * returns to the firmware, which then boots. Where a file EFI\BOOT\NEXT.EFI lies on the disk that
 * it was itself read from, it starts that, so that it can stand in the place of a disk's boot
 * loader. The lab reads these lines:
 *
 *     whose: firmware vendor="…" revision=0x… uefi=2.70
 *     whose: disk pci=00:04.0 id=1af4:1042 block=512 blocks=262144 read-only=0
 *     whose: driver pci=00:04.0 level=0 version=0x10 holds="pci" name="…" from="component name 2" \
 *            image="…"
 *     whose: disk pci=00:05.0 unit=0:3 …           (target and LUN, on a SCSI controller)
 *     whose: interface pci=00:06.0 id=1af4:1041 mac=52:54:00:12:34:56 media=1
 *     whose: end disks=2 interfaces=1
 */
#include "lab/efi/app.h"
#include "lab/efi/driver.h"
#include "lab/efi/next.h"

static const EFI_GUID block_io_guid = EFI_BLOCK_IO_PROTOCOL_GUID;
static const EFI_GUID network_guid = EFI_SIMPLE_NETWORK_PROTOCOL_GUID;

enum { MAX_DISKS = 512, MAX_INTERFACES = 128, MAX_LEVELS = 6 };

static uint32_t pci_id(const struct app_pci *pci)
{
    static const EFI_GUID pci_io_guid = EFI_PCI_IO_PROTOCOL_GUID;
    EFI_PCI_IO_PROTOCOL *io = app_protocol(pci->handle, &pci_io_guid);
    UINT32 id = 0;

    if (io == NULL || EFI_ERROR(io->Pci.Read(io, EfiPciIoWidthUint32, 0, 1, &id)))
        return 0;
    return id;
}

/* The place and the id of the PCI device below which a handle is. */
static void tell_place(EFI_HANDLE handle, char place[16])
{
    struct app_pci pci;

    app_assert(app_pci_of(handle, &pci));
    app_format(place, 16, "%02llx:%02llx.%llx", pci.bus, pci.device, pci.function);
    uint32_t id = pci_id(&pci);

    app_print("pci=%s id=%04x:%04x", place, id & 0xffff, id >> 16);
}

/* Target and LUN, where a path has a SCSI node (UEFI 2.10 §10.3.4.2). */
static void tell_unit(EFI_HANDLE disk)
{
    static const EFI_GUID device_path_guid = EFI_DEVICE_PATH_PROTOCOL_GUID;
    const uint8_t *node = app_protocol(disk, &device_path_guid);

    for (; node != NULL && node[0] != END_DEVICE_PATH_TYPE; node += node[2] | node[3] << 8) {
        if (node[0] == MESSAGING_DEVICE_PATH && node[1] == MSG_SCSI_DP)
            app_print(" unit=%u:%u", node[4] | node[5] << 8, node[6] | node[7] << 8);
    }
}

static void tell_drivers(const char *place, const struct app_driver *drivers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        app_print("whose: driver pci=%s level=%zu version=0x%x holds=\"%s\" name=\"%s\" "
                  "from=\"%s\" image=\"%s\"\n",
                  place, i, drivers[i].version, drivers[i].holds, drivers[i].name,
                  drivers[i].name_from, drivers[i].image);
    }
}

static void tell_disk(EFI_HANDLE disk)
{
    EFI_BLOCK_IO_PROTOCOL *block = app_protocol(disk, &block_io_guid);
    static struct app_driver drivers[MAX_LEVELS];
    char place[16];

    app_assert(block != NULL);
    app_print("whose: disk ");
    tell_place(disk, place);
    tell_unit(disk);
    app_print(" block=%u blocks=%llu read-only=%d\n", block->Media->BlockSize,
              block->Media->MediaPresent ? block->Media->LastBlock + 1 : 0,
              block->Media->ReadOnly ? 1 : 0);
    tell_drivers(place, drivers, app_drivers_of(disk, drivers, MAX_LEVELS));
}

/* PXE hands the interface that it uses on to handles of its own, below it: those are no others. */
static bool told_before(EFI_HANDLE *interfaces, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (app_protocol(interfaces[i], &network_guid) ==
            app_protocol(interfaces[count], &network_guid))
            return true;
    }
    return false;
}

static void tell_interface(EFI_HANDLE interface)
{
    EFI_SIMPLE_NETWORK_PROTOCOL *network = app_protocol(interface, &network_guid);
    static struct app_driver drivers[MAX_LEVELS];
    char place[16];

    app_assert(network != NULL && network->Mode != NULL);
    const uint8_t *mac = network->Mode->CurrentAddress.Addr;

    app_print("whose: interface ");
    tell_place(interface, place);
    app_print(" mac=%02x:%02x:%02x:%02x:%02x:%02x media=%d\n", mac[0], mac[1], mac[2], mac[3],
              mac[4], mac[5], network->Mode->MediaPresent ? 1 : 0);
    tell_drivers(place, drivers, app_drivers_of_interface(interface, drivers, MAX_LEVELS));
}

int app_main(void)
{
    static EFI_HANDLE disks[MAX_DISKS], interfaces[MAX_INTERFACES];

    app_print("whose: firmware vendor=\"%ls\" revision=0x%x uefi=%u.%u\n", app.st->FirmwareVendor,
              app.st->FirmwareRevision, app.st->Hdr.Revision >> 16, app.st->Hdr.Revision & 0xffff);
    app_connect_all();

    size_t disk_count = app_disks(disks, MAX_DISKS), interface_count = 0;

    for (size_t i = 0; i < disk_count; i++)
        tell_disk(disks[i]);

    size_t all = app_handles(&network_guid, interfaces, MAX_INTERFACES);

    for (size_t i = 0; i < all; i++) {
        struct app_pci pci;

        if (!app_pci_of(interfaces[i], &pci) || told_before(interfaces, i))
            continue;
        tell_interface(interfaces[i]);
        interface_count++;
    }
    app_print("whose: end disks=%zu interfaces=%zu\n", disk_count, interface_count);
    app_start_next();
    return 0;
}
