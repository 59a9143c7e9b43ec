/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "lab/efi/next.h"
#include "lab/efi/app.h"

static const CHAR16 next_file[] = L"\\EFI\\BOOT\\NEXT.EFI";

static bool is_there(EFI_HANDLE volume)
{
    static const EFI_GUID file_system_guid = EFI_SIMPLE_FILE_SYSTEM_PROTOCOL_GUID;
    EFI_SIMPLE_FILE_SYSTEM_PROTOCOL *files = app_protocol(volume, &file_system_guid);
    EFI_FILE_PROTOCOL *root, *file;
    bool there;

    if (files == NULL || EFI_ERROR(files->OpenVolume(files, &root)))
        return false;
    there = !EFI_ERROR(root->Open(root, &file, (CHAR16 *)next_file, EFI_FILE_MODE_READ, 0));
    if (there)
        file->Close(file);
    root->Close(root);
    return there;
}

/* The device path of the file on this volume, in the program's own memory. */
static EFI_DEVICE_PATH *path_of_next(EFI_HANDLE volume)
{
    static const EFI_GUID path_guid = EFI_DEVICE_PATH_PROTOCOL_GUID;
    static _Alignas(16) uint8_t bytes[1024];
    static const uint8_t end[] = {END_DEVICE_PATH_TYPE, END_ENTIRE_DEVICE_PATH_SUBTYPE, 4, 0};
    const uint8_t *path = app_protocol(volume, &path_guid);
    const size_t node = 4 + sizeof(next_file);
    size_t size = 0;

    app_assert(path != NULL);
    while (path[size] != END_DEVICE_PATH_TYPE)
        size += path[size + 2] | (size_t)path[size + 3] << 8;
    app_assert(size + node + sizeof(end) <= sizeof(bytes));
    memcpy(bytes, path, size);
    bytes[size] = MEDIA_DEVICE_PATH;
    bytes[size + 1] = MEDIA_FILEPATH_DP;
    bytes[size + 2] = (uint8_t)node;
    bytes[size + 3] = (uint8_t)(node >> 8);
    memcpy(bytes + size + 4, next_file, sizeof(next_file));
    memcpy(bytes + size + node, end, sizeof(end));
    return (EFI_DEVICE_PATH *)bytes;
}

void app_start_next(void)
{
    static const EFI_GUID loaded_guid = EFI_LOADED_IMAGE_PROTOCOL_GUID;
    EFI_LOADED_IMAGE_PROTOCOL *self = app_protocol(app.image, &loaded_guid);
    EFI_HANDLE next;

    if (self == NULL || self->DeviceHandle == NULL || !is_there(self->DeviceHandle))
        return;
    app_assert_ok(
        app.bs->LoadImage(FALSE, app.image, path_of_next(self->DeviceHandle), NULL, 0, &next));
    (void)app_check_status(app.bs->StartImage(next, NULL, NULL), EFI_SUCCESS);
}
