/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "audit/images.h"
#include "audit/protocol/firmware_volume2.h"
#include "audit/report.h"
#include "lab/efi/driver.h"

struct image images[IMAGES_MAX];
size_t image_count;

static const EFI_GUID loaded_image_guid = EFI_LOADED_IMAGE_PROTOCOL_GUID;
static const EFI_GUID device_path_guid = EFI_DEVICE_PATH_PROTOCOL_GUID;
static const EFI_GUID driver_binding_guid = EFI_DRIVER_BINDING_PROTOCOL_GUID;
static const EFI_GUID volume_guid = EFI_FIRMWARE_VOLUME2_PROTOCOL_GUID;

/* A file of a firmware volume is named by its GUID (PI 1.7 volume 3 §3.2: the file path node). */
enum { MEDIA = 4, MEDIA_FILE_PATH = 4, MEDIA_VOLUME_FILE = 6, PATH_END = 0x7f };

static const EFI_GUID *volume_file(const EFI_DEVICE_PATH *node)
{
    if (node == NULL || node->Type != MEDIA || node->SubType != MEDIA_VOLUME_FILE)
        return NULL;
    return (const EFI_GUID *)(const void *)((const uint8_t *)node + sizeof(*node));
}

static void guid_text(const EFI_GUID *guid, char *text, size_t size)
{
    app_format(text, size, "%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", guid->Data1,
               guid->Data2, guid->Data3, guid->Data4[0], guid->Data4[1], guid->Data4[2],
               guid->Data4[3], guid->Data4[4], guid->Data4[5], guid->Data4[6], guid->Data4[7]);
}

/* The name that the file carries for people, as "VirtioBlkDxe". */
static bool volume_file_name(EFI_HANDLE volume, const EFI_GUID *file, char *name, size_t size)
{
    EFI_FIRMWARE_VOLUME2_PROTOCOL *protocol =
        volume == NULL ? NULL : app_protocol(volume, &volume_guid);
    void *text = NULL;
    UINTN bytes = 0;
    UINT32 authentication;

    if (protocol == NULL ||
        EFI_ERROR(protocol->ReadSection(protocol, file, EFI_SECTION_USER_INTERFACE, 0, &text,
                                        &bytes, &authentication)))
        return false;
    app_format(name, size, "%.*ls", (int)(bytes / sizeof(CHAR16)), (const CHAR16 *)text);
    app.bs->FreePool(text);
    return name[0] != '\0';
}

/* The last part of the path of a file, as "grubx64.efi". */
static bool file_name(const EFI_DEVICE_PATH *node, char *name, size_t size)
{
    bool found = false;

    if (node == NULL)
        return false;
    for (; node->Type != PATH_END;) {
        unsigned length = node->Length[0] | (unsigned)node->Length[1] << 8;

        if (length < sizeof(*node))
            break;
        if (node->Type == MEDIA && node->SubType == MEDIA_FILE_PATH) {
            const CHAR16 *text = (const CHAR16 *)(const void *)(node + 1), *last = text;
            const CHAR16 *end = text + (length - sizeof(*node)) / sizeof(CHAR16);

            for (const CHAR16 *at = text; at < end && *at != 0; at++)
                if (*at == '\\' || *at == '/')
                    last = at + 1;
            app_format(name, size, "%.*ls", (int)(end - last), last);
            found = name[0] != '\0';
        }
        node = (const EFI_DEVICE_PATH *)(const void *)((const uint8_t *)node + length);
    }
    return found;
}

/* The linker's name for the image, left in the debug directory by edk2's build: all there is for
 * the core, which nobody loads. PE32+ only, and nothing of it is believed. */
static bool debug_name(const struct image *image, char *name, size_t size)
{
    const uint8_t *base = (const uint8_t *)(uintptr_t)image->base;

    if (image->size < 0x1000 || base[0] != 'M' || base[1] != 'Z')
        return false;
    uint32_t header, rva, bytes;
    memcpy(&header, base + 0x3c, 4);
    if (header > 0x400 || memcmp(base + header, "PE\0\0", 4) != 0)
        return false;
    const uint8_t *directory = base + header + 24 + 112 + 6 * 8;
    memcpy(&rva, directory, 4);
    if (rva == 0 || rva > image->size - 28)
        return false;
    memcpy(&rva, base + rva + 20, 4);
    if (rva == 0 || rva > image->size - 512)
        return false;
    const char *record = (const char *)base + rva;
    if (memcmp(record, "NB10", 4) == 0)
        record += 16;
    else if (memcmp(record, "RSDS", 4) == 0)
        record += 24;
    else
        return false;
    const char *last = record;
    for (bytes = 0; bytes < 256 && record[bytes] != '\0'; bytes++)
        if (record[bytes] == '/' || record[bytes] == '\\')
            last = record + bytes + 1;
    size_t length = strlen(last);
    for (size_t i = 0; i < length; i++)
        if (last[i] == '.')
            length = i;
    app_format(name, size, "%.*s", (int)length, last);
    return length > 0;
}

static void describe(struct image *image, const EFI_LOADED_IMAGE *loaded)
{
    char device[128] = "", file[128];
    const EFI_GUID *guid = volume_file(loaded->FilePath);

    if (loaded->DeviceHandle != NULL)
        app_path_text(app_protocol(loaded->DeviceHandle, &device_path_guid), device,
                      sizeof(device));
    app_path_text(loaded->FilePath, file, sizeof(file));
    app_format(image->path, sizeof(image->path), "%s%s%s", device,
               device[0] != '\0' && file[0] != '\0' ? "/" : "", file);
    if (guid != NULL)
        guid_text(guid, image->guid, sizeof(image->guid));
    if (guid != NULL &&
        volume_file_name(loaded->DeviceHandle, guid, image->name, sizeof(image->name)))
        return;
    if (file_name(loaded->FilePath, image->name, sizeof(image->name)) ||
        debug_name(image, image->name, sizeof(image->name)))
        return;
    if (image->core)
        app_format(image->name, sizeof(image->name), "DxeCore");
    else if (guid != NULL)
        app_format(image->name, sizeof(image->name), "%s", image->guid);
    else
        app_format(image->name, sizeof(image->name), "%s", image->path);
    image->name_is_path = guid == NULL && !image->core;
}

static int image_by_handle(EFI_HANDLE handle)
{
    for (size_t i = 0; i < image_count; i++)
        if (images[i].handle == handle)
            return (int)i;
    return IMAGE_NONE;
}

int image_of_agent(EFI_HANDLE agent)
{
    EFI_DRIVER_BINDING_PROTOCOL *binding = app_protocol(agent, &driver_binding_guid);

    return image_by_handle(binding != NULL ? binding->ImageHandle : agent);
}

/* Of the name of one driver and that of another in the same image, the words in front that both
 * have; if there are none, the first name stays. */
static void keep_common_words(char *name, const char *other)
{
    size_t whole = 0;

    for (size_t at = 0; name[at] == other[at] && name[at] != '\0'; at++)
        if (name[at + 1] == ' ' && other[at + 1] == ' ')
            whole = at + 1;
    if (whole > 0 && strcmp(name, other) != 0)
        name[whole] = '\0';
}

static void find_drivers(void)
{
    static EFI_HANDLE handles[IMAGES_MAX];
    size_t count = app_handles(&driver_binding_guid, handles, IMAGES_MAX);
    char name[sizeof(images[0].name)];

    for (size_t i = 0; i < count; i++) {
        int image = image_of_agent(handles[i]);
        if (image == IMAGE_NONE)
            continue;
        /* An option ROM's file has no name, but its drivers call themselves something. */
        if (images[image].name_is_path && app_driver_name(handles[i], name, sizeof(name))) {
            if (images[image].driver)
                keep_common_words(images[image].name, name);
            else
                memcpy(images[image].name, name, sizeof(name));
        }
        images[image].driver = true;
    }
}

void images_update(void)
{
    static EFI_HANDLE handles[IMAGES_MAX];
    size_t count = app_handles(&loaded_image_guid, handles, IMAGES_MAX);

    for (size_t i = 0; i < count; i++) {
        EFI_LOADED_IMAGE *loaded = app_protocol(handles[i], &loaded_image_guid);

        if (loaded == NULL || image_by_handle(handles[i]) != IMAGE_NONE)
            continue;
        if (image_count == IMAGES_MAX)
            report_give_up("there are more than %u loaded images", (unsigned)IMAGES_MAX);
        struct image *image = &images[image_count];
        *image = (struct image){.handle = handles[i],
                                .base = (uintptr_t)loaded->ImageBase,
                                .size = loaded->ImageSize,
                                .self = handles[i] == app.image};
        /* The services that end up in the core, whatever stands before them in the table. */
        image->core = (uintptr_t)app.st->BootServices->ExitBootServices - image->base < image->size;
        describe(image, loaded);
        image_count++;
    }
    find_drivers();
}

int image_at(uint64_t address)
{
    /* The latest first: an unloaded image's place may have been taken by another. */
    for (size_t i = image_count; i-- > 0;)
        if (address - images[i].base < images[i].size)
            return (int)i;
    return IMAGE_NONE;
}

static void find_holders_of(EFI_HANDLE handle)
{
    EFI_GUID **protocols;
    UINTN count;

    if (EFI_ERROR(app.bs->ProtocolsPerHandle(handle, &protocols, &count)))
        return;
    for (UINTN i = 0; i < count; i++) {
        EFI_OPEN_PROTOCOL_INFORMATION_ENTRY *entries;
        UINTN entry_count;

        if (EFI_ERROR(
                app.bs->OpenProtocolInformation(handle, protocols[i], &entries, &entry_count)))
            continue;
        for (UINTN at = 0; at < entry_count; at++) {
            int image = entries[at].Attributes & EFI_OPEN_PROTOCOL_BY_DRIVER
                            ? image_of_agent(entries[at].AgentHandle)
                            : IMAGE_NONE;
            if (image != IMAGE_NONE)
                images[image].holds = true;
        }
        app.bs->FreePool(entries);
    }
    app.bs->FreePool(protocols);
}

void images_find_holders(void)
{
    EFI_HANDLE *handles;
    UINTN count;

    for (size_t i = 0; i < image_count; i++)
        images[i].holds = false;
    if (EFI_ERROR(app.bs->LocateHandleBuffer(AllHandles, NULL, NULL, &count, &handles)))
        return;
    for (UINTN i = 0; i < count; i++)
        find_holders_of(handles[i]);
    app.bs->FreePool(handles);
}

const char *image_name(int image)
{
    return image == IMAGE_NONE ? "nobody's code" : images[image].name;
}

void images_report(void)
{
    for (size_t i = 0; i < image_count; i++) {
        const struct image *image = &images[i];

        json_begin("image");
        json_number("image", i);
        json_text("name", image->name);
        json_text("guid", image->guid[0] != '\0' ? image->guid : NULL);
        json_text("path", image->path[0] != '\0' ? image->path : NULL);
        json_hex("base", image->base);
        json_number("size", image->size);
        json_bool("core", image->core);
        json_bool("auditor", image->self);
        json_end();
    }
}
