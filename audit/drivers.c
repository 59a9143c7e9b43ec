/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "audit/drivers.h"
#include "audit/images.h"
#include "audit/report.h"

static const EFI_GUID loaded_image_guid = EFI_LOADED_IMAGE_PROTOCOL_GUID;

/* ---- Files of the volume that we came from ---- */

static EFI_FILE_PROTOCOL *volume(void)
{
    static const EFI_GUID volume_guid = EFI_SIMPLE_FILE_SYSTEM_PROTOCOL_GUID;
    EFI_LOADED_IMAGE *image = app_protocol(app.image, &loaded_image_guid);
    EFI_SIMPLE_FILE_SYSTEM_PROTOCOL *system = image == NULL || image->DeviceHandle == NULL
                                                  ? NULL
                                                  : app_protocol(image->DeviceHandle, &volume_guid);
    EFI_FILE_PROTOCOL *root;

    if (system == NULL || EFI_ERROR(system->OpenVolume(system, &root)))
        return NULL;
    return root;
}

/* A whole file, in memory that is kept; NULL if there is none of that name. */
static void *file_read(const CHAR16 *path, UINTN *size)
{
    static const EFI_GUID info_guid = EFI_FILE_INFO_ID;
    static _Alignas(16) uint8_t info[1024];
    EFI_FILE_PROTOCOL *root = volume(), *file;
    UINTN info_size = sizeof(info);
    void *bytes = NULL;

    if (root == NULL ||
        EFI_ERROR(root->Open(root, &file, (CHAR16 *)(uintptr_t)path, EFI_FILE_MODE_READ, 0)))
        return NULL;
    if (!EFI_ERROR(file->GetInfo(file, (EFI_GUID *)(uintptr_t)&info_guid, &info_size, info))) {
        *size = (UINTN)((EFI_FILE_INFO *)(void *)info)->FileSize;
        bytes = app_pages(*size + 1);
        if (EFI_ERROR(file->Read(file, size, bytes)))
            bytes = NULL;
    }
    file->Close(file);
    root->Close(root);
    return bytes;
}

void drivers_read_options(void)
{
    EFI_LOADED_IMAGE *image = app_protocol(app.image, &loaded_image_guid);
    CHAR16 path[256] = {0};
    static const CHAR16 name[] = u"handover.txt";
    size_t length = 0, folder = 0;
    UINTN size;

    /* The folder of our own file, if it is one: a path node with the text after its header. */
    if (image != NULL && image->FilePath != NULL && image->FilePath->Type == 4 &&
        image->FilePath->SubType == 4) {
        const CHAR16 *text = (const CHAR16 *)(const void *)(image->FilePath + 1);
        for (; text[length] != 0 && length < 240; length++) {
            path[length] = text[length];
            if (text[length] == '\\')
                folder = length + 1;
        }
    }
    if (folder == 0)
        path[folder++] = '\\';
    for (size_t i = 0; i < sizeof(name) / sizeof(name[0]); i++)
        path[folder + i < 255 ? folder + i : 255] = name[i];
    uint8_t *text = file_read(path, &size);
    if (text == NULL)
        return;
    /* What an editor may have put in front, and made of the letters. */
    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        size -= 3;
    } else if (size >= 2 && text[0] == 0xff && text[1] == 0xfe) {
        for (UINTN i = 2; i + 1 < size; i += 2)
            text[i / 2 - 1] = text[i + 1] == 0 ? text[i] : '?';
        size = size / 2 - 1;
    }
    app_options_add((const char *)text, size);
}

/* ---- QEMU's firmware configuration (its docs/specs/fw_cfg) ---- */

enum {
    FW_CFG_SELECT = 0x510,
    FW_CFG_DATA = 0x511,
    FW_CFG_SIGNATURE = 0,
    FW_CFG_FILES = 0x19,
    FW_CFG_NAME = 56,
};

static void fw_cfg_select(uint16_t item)
{
    __asm__ volatile("outw %0, %1" : : "a"(item), "d"((uint16_t)FW_CFG_SELECT) : "memory");
}

static void fw_cfg_read(void *bytes, size_t size)
{
    uint8_t *at = bytes;

    while (size-- > 0)
        *at++ = app_in8(FW_CFG_DATA);
}

static uint32_t fw_cfg_number(size_t size)
{
    uint32_t number = 0;

    while (size-- > 0)
        number = number << 8 | app_in8(FW_CFG_DATA);
    return number;
}

static void *fw_cfg_file(const char *wanted, UINTN *size)
{
    char signature[4], name[FW_CFG_NAME];

    fw_cfg_select(FW_CFG_SIGNATURE);
    fw_cfg_read(signature, sizeof(signature));
    if (memcmp(signature, "QEMU", 4) != 0)
        return NULL;
    fw_cfg_select(FW_CFG_FILES);
    for (uint32_t left = fw_cfg_number(4); left > 0; left--) {
        *size = fw_cfg_number(4);
        uint16_t item = (uint16_t)fw_cfg_number(2);
        (void)fw_cfg_number(2);
        fw_cfg_read(name, sizeof(name));
        name[FW_CFG_NAME - 1] = '\0';
        if (strcmp(name, wanted) != 0)
            continue;
        void *bytes = app_pages(*size + 1);
        fw_cfg_select(item);
        fw_cfg_read(bytes, *size);
        return bytes;
    }
    return NULL;
}

/* ---- Loading ---- */

/* A path of one file node, so that the image has a name. */
static EFI_DEVICE_PATH *path_for(const char *name)
{
    static _Alignas(8) uint8_t bytes[4 + 2 * 256 + 4];
    size_t length = strlen(name) < 255 ? strlen(name) : 255;
    size_t node = 4 + 2 * (length + 1);
    const uint8_t end[] = {0x7f, 0xff, 4, 0};

    memset(bytes, 0, sizeof(bytes));
    bytes[0] = bytes[1] = 4;
    bytes[2] = (uint8_t)node;
    bytes[3] = (uint8_t)(node >> 8);
    for (size_t i = 0; i < length; i++)
        bytes[4 + 2 * i] = (uint8_t)name[i];
    memcpy(bytes + node, end, sizeof(end));
    return (EFI_DEVICE_PATH *)(void *)bytes;
}

static void load(const char *name)
{
    EFI_HANDLE image = NULL;
    UINTN size = 0;
    void *bytes;

    if (name[0] == '\\') {
        CHAR16 path[256] = {0};
        for (size_t i = 0; i < 255 && name[i] != '\0'; i++)
            path[i] = (CHAR16)name[i];
        bytes = file_read(path, &size);
    } else {
        char item[FW_CFG_NAME];
        app_format(item, sizeof(item), "opt/baton/driver/%s", name);
        bytes = fw_cfg_file(item, &size);
    }
    if (bytes == NULL)
        report_give_up("the driver %s is not there", name);
    EFI_STATUS status = app.bs->LoadImage(FALSE, app.image, path_for(name), bytes, size, &image);
    if (EFI_ERROR(status))
        report_give_up("the firmware does not load the driver %s: %s", name,
                       app_status_name(status));
    /* So that what it creates and calls from now on is known to be its. */
    images_update();
    status = app.bs->StartImage(image, NULL, NULL);
    if (EFI_ERROR(status))
        report_give_up("the driver %s ends its start with: %s", name, app_status_name(status));
}

void drivers_load(void)
{
    for (const char *name = NULL; (name = app_option_next("driver", name)) != NULL;)
        load(name);
}
