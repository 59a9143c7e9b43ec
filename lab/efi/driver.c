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
static const EFI_GUID interface_identifier_guid = EFI_NETWORK_INTERFACE_IDENTIFIER_PROTOCOL_GUID;
/* UEFI 2.10 §15.6 and §15.4; and edk2's own, between a virtio transport and the device's driver. */
static const EFI_GUID ext_scsi_pass_thru_guid = {
    0x143b7632, 0xb81b, 0x4cb7, {0xab, 0xd3, 0xb6, 0x25, 0xa5, 0xb9, 0xbf, 0xfe}};
static const EFI_GUID scsi_io_guid = {
    0x932f47e6, 0x2362, 0x4002, {0x80, 0x3e, 0x3c, 0xd5, 0x4b, 0x13, 0x8f, 0x85}};
static const EFI_GUID virtio_device_guid = {
    0xfa920010, 0x6785, 0x4941, {0xb6, 0xec, 0x49, 0x8c, 0x57, 0x9f, 0x16, 0x0a}};

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

void app_connect_by(EFI_HANDLE device, bool baton)
{
    static EFI_HANDLE agents[256];
    size_t count = app_handles(&driver_binding_guid, agents, 256);
    char name[96];

    /* Twice: the one on top may be asked first. */
    for (size_t i = 0; i < 2 * count; i++) {
        EFI_HANDLE one[2] = {agents[i % count], NULL};
        EFI_DRIVER_BINDING_PROTOCOL *binding = app_protocol(one[0], &driver_binding_guid);
        if (app_driver_name(one[0], name, sizeof(name)) &&
            (strncmp(name, "Baton", 5) == 0) == baton &&
            binding->Supported(binding, device, NULL) == EFI_SUCCESS)
            app.bs->ConnectController(device, one, NULL, FALSE);
    }
}

static const char *name_of(const EFI_GUID *protocol)
{
    const struct {
        const EFI_GUID *protocol;
        const char *name;
    } known[] = {
        {&pci_io_guid, "pci"},
        {&virtio_device_guid, "virtio"},
        {&ext_scsi_pass_thru_guid, "scsi bus"},
        {&scsi_io_guid, "scsi unit"},
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (app_guid_equal(protocol, known[i].protocol))
            return known[i].name;
    }
    return "";
}

static void describe(EFI_HANDLE agent, const EFI_GUID *held, struct app_driver *driver)
{
    EFI_DRIVER_BINDING_PROTOCOL *binding = app_protocol(agent, &driver_binding_guid);
    EFI_LOADED_IMAGE *image = NULL;

    memset(driver, 0, sizeof(*driver));
    driver->holds = name_of(held);
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
            describe(entries[i].AgentHandle, protocol, &drivers[count++]);
    }
    app.bs->FreePool(entries);
    return count;
}

/* Whoever holds this handle, but for its users. Whoever holds what a SCSI controller's driver has
 * made comes last, also where it is on the controller's own handle. */
static size_t add_holders(EFI_HANDLE handle, bool (*leave_out)(const EFI_GUID *protocol),
                          struct app_driver *drivers, size_t count, size_t max)
{
    EFI_GUID **protocols;
    UINTN protocol_count;

    if (EFI_ERROR(app.bs->ProtocolsPerHandle(handle, &protocols, &protocol_count)))
        return count;
    for (int bus = 0; bus < 2; bus++) {
        for (UINTN i = 0; i < protocol_count; i++) {
            if (app_guid_equal(protocols[i], &ext_scsi_pass_thru_guid) == (bus == 1) &&
                !app_guid_equal(protocols[i], &pci_io_guid) && !leave_out(protocols[i]))
                count = add_holder(handle, protocols[i], drivers, count, max);
        }
    }
    app.bs->FreePool(protocols);
    return count;
}

/* Of an interface's own handle, nearly all is the network stack's. */
static bool belongs_to_stack(const EFI_GUID *protocol)
{
    return !app_guid_equal(protocol, &virtio_device_guid) &&
           !app_guid_equal(protocol, &interface_identifier_guid);
}

static size_t drivers_of(EFI_HANDLE handle, bool (*leave_out)(const EFI_GUID *protocol),
                         struct app_driver *drivers, size_t max)
{
    EFI_GUID pci_io = pci_io_guid;
    struct app_pci pci;
    size_t count = 0;

    if (app_pci_of(handle, &pci)) {
        count = add_holder(pci.handle, &pci_io, drivers, count, max);
        if (pci.handle != handle)
            count = add_holders(pci.handle, belongs_to_users, drivers, count, max);
    }
    return add_holders(handle, leave_out, drivers, count, max);
}

size_t app_drivers_of(EFI_HANDLE disk, struct app_driver *drivers, size_t max)
{
    return drivers_of(disk, belongs_to_users, drivers, max);
}

size_t app_drivers_of_interface(EFI_HANDLE interface, struct app_driver *drivers, size_t max)
{
    return drivers_of(interface, belongs_to_stack, drivers, max);
}
