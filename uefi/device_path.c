// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "uefi/device_path.h"

static UINTN node_bytes(const EFI_DEVICE_PATH *node)
{
    return (UINTN)node->Length[0] | (UINTN)node->Length[1] << 8;
}

EFI_DEVICE_PATH *device_path_append(const EFI_DEVICE_PATH *parent, const EFI_DEVICE_PATH *node)
{
    static const EFI_DEVICE_PATH end = {
        END_DEVICE_PATH_TYPE, END_ENTIRE_DEVICE_PATH_SUBTYPE, {sizeof(end), 0}};
    UINTN before = 0, own = node_bytes(node);
    UINT8 *path;

    for (const EFI_DEVICE_PATH *at = parent; at->Type != END_DEVICE_PATH_TYPE;
         at = (const void *)((const UINT8 *)parent + before))
        before += node_bytes(at);
    if (EFI_ERROR(
            bs->AllocatePool(EfiBootServicesData, before + own + sizeof(end), (void **)&path)))
        return NULL;
    __builtin_memcpy(path, parent, before);
    __builtin_memcpy(path + before, node, own);
    __builtin_memcpy(path + before + own, &end, sizeof(end));
    return (void *)path;
}
