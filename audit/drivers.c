/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "audit/drivers.h"
#include "audit/images.h"
#include "audit/report.h"

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
        bytes = app_file(path, &size);
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
