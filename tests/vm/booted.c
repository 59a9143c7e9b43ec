/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* Boots from the network, says through what it came, and leaves as a loader does. */
#include "tests/vm/vm.h"

#include <efipxebc.h>

static EFI_GUID pxe_guid = EFI_PXE_BASE_CODE_PROTOCOL_GUID;
static EFI_GUID device_path_guid = EFI_DEVICE_PATH_PROTOCOL_GUID;

int app_main(void)
{
    static const char options[] = "exit=debug";
    struct app_driver drivers[VM_DRIVERS_MAX];
    char text[256];

    app_options_add(options, sizeof(options) - 1);
    EFI_LOADED_IMAGE *image = app_protocol(app.image, &vm_loaded_image_guid);
    EFI_PXE_BASE_CODE_PROTOCOL *pxe = app_protocol(image->DeviceHandle, &pxe_guid);
    EFI_DEVICE_PATH *path = app_protocol(image->DeviceHandle, &device_path_guid);
    app_path_text(path, text, sizeof(text));
    app_print("vm: booted from %s\n", text);
    app_assert(pxe != NULL);
    app_print("vm: over IPv%d\n", pxe->Mode->UsingIpv6 ? 6 : 4);

    /* Who made the interface: the PCI device's driver, by its name. */
    struct app_pci pci;
    app_assert(app_pci_of(image->DeviceHandle, &pci));
    size_t held = app_drivers_of(pci.handle, drivers, VM_DRIVERS_MAX);
    app_assert(held > 0);
    app_print("vm: driver: %s\n", drivers[0].name);

    app_exit_boot_services();
    app_print("vm: left\n");
    return 0;
}
