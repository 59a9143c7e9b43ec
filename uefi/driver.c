// SPDX-License-Identifier: BSD-2-Clause-Patent
/* The image: entry point, what it installs, and unloading. */

#include "uefi/driver.h"
#include "uefi/protocol/supported_efi_version.h"

EFI_BOOT_SERVICES *bs;
EFI_SYSTEM_TABLE *st;
EFI_HANDLE driver_image;
struct exit_shared *exit_shared;
unsigned driver_bindings;

EFI_GUID block_io_guid = EFI_BLOCK_IO_PROTOCOL_GUID;
EFI_GUID block_io2_guid = EFI_BLOCK_IO2_PROTOCOL_GUID;
EFI_GUID pci_io_guid = EFI_PCI_IO_PROTOCOL_GUID;
static EFI_GUID driver_binding_guid = EFI_DRIVER_BINDING_PROTOCOL_GUID;
static EFI_GUID component_name2_guid = EFI_COMPONENT_NAME2_PROTOCOL_GUID;
static EFI_GUID loaded_image_guid = EFI_LOADED_IMAGE_PROTOCOL_GUID;
static EFI_GUID supported_version_guid = EFI_DRIVER_SUPPORTED_EFI_VERSION_PROTOCOL_GUID;

/* Ours: where struct exit_shared is found. A change of that structure needs a new GUID. */
static EFI_GUID exit_shared_guid = {
    0x6d1c8a53, 0x0f0b, 0x4b7e, {0x9a, 0x53, 0x1e, 0x6c, 0x27, 0xb1, 0x4d, 0x91}};

static EFI_DRIVER_SUPPORTED_EFI_VERSION_PROTOCOL supported_version = {
    .Length = sizeof(supported_version),
    .FirmwareVersion = 2 << 16 | 70,
};

EFI_STATUS status_of(enum result result)
{
    static const EFI_STATUS statuses[] = {
        [RESULT_OK] = EFI_SUCCESS,
        [RESULT_UNSUPPORTED] = EFI_UNSUPPORTED,
        [RESULT_DEVICE_ERROR] = EFI_DEVICE_ERROR,
        [RESULT_TIMEOUT] = EFI_TIMEOUT,
        [RESULT_NO_MEDIA] = EFI_NO_MEDIA,
        [RESULT_WRITE_PROTECTED] = EFI_WRITE_PROTECTED,
        [RESULT_OUT_OF_RANGE] = EFI_INVALID_PARAMETER,
        [RESULT_NO_MEMORY] = EFI_OUT_OF_RESOURCES,
        [RESULT_ABORTED] = EFI_ABORTED,
        [RESULT_BUSY] = EFI_NOT_READY,
    };
    return statuses[result];
}

/* ---- What the exits share ---- */

/* The rate of the time-stamp counter, against the firmware's clock. A wait that is interrupted
 * comes out too long, so the shortest of a few is nearest the truth. */
static uint64_t measure_ticks_per_ms(void)
{
    uint64_t best = UINT64_MAX;

    for (unsigned i = 0; i < 3; i++) {
        uint64_t start = clock_ticks();
        bs->Stall(1000);
        uint64_t ticks = clock_ticks() - start;
        if (ticks < best)
            best = ticks;
    }
    return best ? best : 1;
}

/* Finds the one that an earlier image has made, or makes it. It stays when the image is unloaded,
 * for the next one to find. */
static EFI_STATUS find_exit_shared(void)
{
    EFI_HANDLE handle = NULL;
    void *shared = NULL;

    if (bs->LocateProtocol(&exit_shared_guid, NULL, &shared) == EFI_SUCCESS) {
        exit_shared = shared;
        return EFI_SUCCESS;
    }
    EFI_STATUS status = bs->AllocatePool(EfiBootServicesData, sizeof(*exit_shared), &shared);
    if (EFI_ERROR(status))
        return status;
    exit_shared = shared;
    *exit_shared = (struct exit_shared){.ticks_per_ms = measure_ticks_per_ms()};
    status = bs->InstallProtocolInterface(&handle, &exit_shared_guid, EFI_NATIVE_INTERFACE, shared);
    if (EFI_ERROR(status))
        bs->FreePool(shared);
    return status;
}

/* ---- Component Name 2 (UEFI 2.10 §11.5) ---- */

/* Whether a driver manages the handle, through PciIo. */
static bool driver_manages(EFI_DRIVER_BINDING_PROTOCOL *driver, EFI_HANDLE controller)
{
    void *io;
    EFI_STATUS status = bs->OpenProtocol(controller, &pci_io_guid, &io, driver->DriverBindingHandle,
                                         controller, EFI_OPEN_PROTOCOL_BY_DRIVER);

    if (status == EFI_SUCCESS)
        bs->CloseProtocol(controller, &pci_io_guid, driver->DriverBindingHandle, controller);
    return status == EFI_ALREADY_STARTED;
}

static EFI_STATUS name_in_english(const CHAR8 *language, CHAR16 *name, CHAR16 **out)
{
    if (!language || !out)
        return EFI_INVALID_PARAMETER;
    if (language[0] != 'e' || language[1] != 'n' || language[2] != 0)
        return EFI_UNSUPPORTED;
    *out = name;
    return EFI_SUCCESS;
}

static EFI_STATUS EFIAPI driver_name(EFI_COMPONENT_NAME2_PROTOCOL *this, CHAR8 *language,
                                     CHAR16 **name)
{
    return name_in_english(language, CONTAINER_OF(this, struct driver, component_name)->name, name);
}

static EFI_STATUS EFIAPI controller_name(EFI_COMPONENT_NAME2_PROTOCOL *this, EFI_HANDLE controller,
                                         EFI_HANDLE child, CHAR8 *language, CHAR16 **name)
{
    struct driver *driver = CONTAINER_OF(this, struct driver, component_name);

    if (!controller || !language || !name)
        return EFI_INVALID_PARAMETER;
    if (!driver_manages(&driver->binding, controller))
        return EFI_UNSUPPORTED;
    CHAR16 *english = driver->name_of(driver, controller, child);
    return english ? name_in_english(language, english, name) : EFI_UNSUPPORTED;
}

/* ---- Coming and going ---- */

static EFI_STATUS uninstall(size_t count)
{
    EFI_STATUS status = EFI_SUCCESS;

    for (size_t i = count; i-- > 0 && !EFI_ERROR(status);) {
        struct driver *driver = drivers[i];
        status = bs->UninstallMultipleProtocolInterfaces(
            driver->binding.DriverBindingHandle, &driver_binding_guid, &driver->binding,
            &component_name2_guid, &driver->component_name, &supported_version_guid,
            &supported_version, NULL);
    }
    return status;
}

static EFI_STATUS install(void)
{
    for (size_t i = 0; i < driver_count; i++) {
        struct driver *driver = drivers[i];
        driver->binding.ImageHandle = driver_image;
        driver->binding.DriverBindingHandle = i == 0 ? driver_image : NULL;
        driver->component_name = (EFI_COMPONENT_NAME2_PROTOCOL){
            .GetDriverName = driver_name,
            .GetControllerName = controller_name,
            .SupportedLanguages = (CHAR8 *)"en",
        };
        EFI_STATUS status = bs->InstallMultipleProtocolInterfaces(
            &driver->binding.DriverBindingHandle, &driver_binding_guid, &driver->binding,
            &component_name2_guid, &driver->component_name, &supported_version_guid,
            &supported_version, NULL);
        if (EFI_ERROR(status)) {
            uninstall(i);
            return status;
        }
    }
    return EFI_SUCCESS;
}

static EFI_STATUS EFIAPI unload(EFI_HANDLE image)
{
    EFI_HANDLE *handles = NULL;
    UINTN count = 0;
    (void)image;

    EFI_STATUS status = bs->LocateHandleBuffer(ByProtocol, &pci_io_guid, NULL, &count, &handles);
    if (EFI_ERROR(status))
        count = 0;
    for (UINTN i = 0; i < count; i++)
        for (size_t k = 0; k < driver_count; k++)
            bs->DisconnectController(handles[i], drivers[k]->binding.DriverBindingHandle, NULL);
    if (handles)
        bs->FreePool(handles);

    /* Somebody will not let go of one of our disks. */
    if (driver_bindings != 0)
        return EFI_ACCESS_DENIED;
    return uninstall(driver_count);
}

EFI_STATUS EFIAPI efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *system_table);

EFI_STATUS EFIAPI efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *system_table)
{
    void *loaded;

    st = system_table;
    bs = system_table->BootServices;
    driver_image = image;

    EFI_STATUS status = bs->HandleProtocol(image, &loaded_image_guid, &loaded);
    if (EFI_ERROR(status))
        return status;
    status = find_exit_shared();
    if (EFI_ERROR(status))
        return status;
    status = install();
    if (EFI_ERROR(status))
        return status;
    ((EFI_LOADED_IMAGE *)loaded)->Unload = unload;
    xen_look_for_platform();
    return EFI_SUCCESS;
}
