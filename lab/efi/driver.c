/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "lab/efi/driver.h"

static const EFI_GUID pci_io_guid = EFI_PCI_IO_PROTOCOL_GUID;
static const EFI_GUID block_io_guid = EFI_BLOCK_IO_PROTOCOL_GUID;
static const EFI_GUID block_io2_guid = EFI_BLOCK_IO2_PROTOCOL_GUID;
static const EFI_GUID disk_io_guid = EFI_DISK_IO_PROTOCOL_GUID;
static const EFI_GUID disk_io2_guid = EFI_DISK_IO2_PROTOCOL_GUID;
static const EFI_GUID device_path_guid = EFI_DEVICE_PATH_PROTOCOL_GUID;
static const EFI_GUID loaded_image_guid = EFI_LOADED_IMAGE_PROTOCOL_GUID;
static const EFI_GUID driver_binding_guid = EFI_DRIVER_BINDING_PROTOCOL_GUID;
static const EFI_GUID component_name_guid = EFI_COMPONENT_NAME_PROTOCOL_GUID;
static const EFI_GUID component_name2_guid = EFI_COMPONENT_NAME2_PROTOCOL_GUID;

/* Whoever opens one of these uses the disk rather than makes it. */
static bool belongs_to_users(const EFI_GUID *protocol)
{
    return app_guid_equal(protocol, &block_io_guid) || app_guid_equal(protocol, &block_io2_guid) ||
           app_guid_equal(protocol, &disk_io_guid) || app_guid_equal(protocol, &disk_io2_guid) ||
           app_guid_equal(protocol, &device_path_guid);
}

/* Whether a list of languages has this one in it: "en" also stands for "en-US". */
static bool speaks(const CHAR8 *languages, const char *language, char separator)
{
    for (const char *at = (const char *)languages; *at != '\0'; at++) {
        if (strncmp(at, language, strlen(language)) == 0)
            return true;
        while (*at != separator && *at != '\0')
            at++;
        if (*at == '\0')
            break;
    }
    return false;
}

/* Component Name 2 takes the very word that the driver lists ("en" or "en-US"). */
static bool name_by_component2(EFI_HANDLE agent, char *text, size_t size)
{
    EFI_COMPONENT_NAME2_PROTOCOL *names = app_protocol(agent, &component_name2_guid);
    static const char *const languages[] = {"en-US", "en"};
    CHAR16 *name = NULL;

    if (names == NULL || names->SupportedLanguages == NULL)
        return false;
    for (size_t i = 0; i < sizeof(languages) / sizeof(languages[0]); i++) {
        if (!speaks((const CHAR8 *)names->SupportedLanguages, languages[i], ';'))
            continue;
        if (EFI_ERROR(names->GetDriverName(names, (CHAR8 *)(uintptr_t)languages[i], &name)))
            continue;
        app_format(text, size, "%ls", name);
        return true;
    }
    return false;
}

static bool name_by_component(EFI_HANDLE agent, char *text, size_t size)
{
    EFI_COMPONENT_NAME_PROTOCOL *names = app_protocol(agent, &component_name_guid);
    CHAR16 *name = NULL;
    char english[] = "eng";

    if (names == NULL || EFI_ERROR(names->GetDriverName(names, (CHAR8 *)english, &name)))
        return false;
    app_format(text, size, "%ls", name);
    return true;
}

bool app_driver_name(EFI_HANDLE agent, char *text, size_t size)
{
    return name_by_component2(agent, text, size) || name_by_component(agent, text, size);
}

static void describe(EFI_HANDLE agent, struct app_driver *driver)
{
    EFI_DRIVER_BINDING_PROTOCOL *binding = app_protocol(agent, &driver_binding_guid);
    EFI_LOADED_IMAGE *image = NULL;

    memset(driver, 0, sizeof(*driver));
    if (binding != NULL) {
        driver->version = binding->Version;
        image = app_protocol(binding->ImageHandle, &loaded_image_guid);
    }
    if (image != NULL) {
        char device[128], file[128];

        app_path_text(app_protocol(image->DeviceHandle, &device_path_guid), device, sizeof(device));
        app_path_text(image->FilePath, file, sizeof(file));
        app_format(driver->image, sizeof(driver->image), "%s/%s", device, file);
    }
    driver->name_from = "component name 2";
    if (name_by_component2(agent, driver->name, sizeof(driver->name)))
        return;
    driver->name_from = "component name";
    if (!name_by_component(agent, driver->name, sizeof(driver->name))) {
        app_format(driver->name, sizeof(driver->name), "%s", driver->image);
        driver->name_from = "path";
    }
}

/* Whoever holds this protocol of this handle as its driver, after those already known. */
static size_t add_holder(EFI_HANDLE handle, EFI_GUID *protocol, struct app_driver *drivers,
                         size_t count, size_t max)
{
    EFI_OPEN_PROTOCOL_INFORMATION_ENTRY *entries;
    UINTN entry_count;

    if (EFI_ERROR(app.bs->OpenProtocolInformation(handle, protocol, &entries, &entry_count)))
        return count;
    for (UINTN i = 0; i < entry_count && count < max; i++) {
        if ((entries[i].Attributes & EFI_OPEN_PROTOCOL_BY_DRIVER) != 0)
            describe(entries[i].AgentHandle, &drivers[count++]);
    }
    app.bs->FreePool(entries);
    return count;
}

size_t app_drivers_of(EFI_HANDLE disk, struct app_driver *drivers, size_t max)
{
    EFI_GUID pci_io = pci_io_guid;
    EFI_GUID **protocols;
    UINTN protocol_count;
    struct app_pci pci;
    size_t count = 0;

    if (app_pci_of(disk, &pci))
        count = add_holder(pci.handle, &pci_io, drivers, count, max);
    if (EFI_ERROR(app.bs->ProtocolsPerHandle(disk, &protocols, &protocol_count)))
        return count;
    for (UINTN i = 0; i < protocol_count; i++) {
        if (!belongs_to_users(protocols[i]) && !app_guid_equal(protocols[i], &pci_io_guid))
            count = add_holder(disk, protocols[i], drivers, count, max);
    }
    app.bs->FreePool(protocols);
    return count;
}
