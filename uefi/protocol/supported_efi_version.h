// SPDX-License-Identifier: BSD-2-Clause-Patent
/* UEFI 2.10 §11.9, EFI_DRIVER_SUPPORTED_EFI_VERSION_PROTOCOL: which specification a driver on a
 * plug-in card was written for. gnu-efi does not have it. */
#pragma once

#include <efi.h>

#define EFI_DRIVER_SUPPORTED_EFI_VERSION_PROTOCOL_GUID                                             \
    {                                                                                              \
        0x5c198761, 0x16a8, 0x4e69,                                                                \
        {                                                                                          \
            0x97, 0x2c, 0x89, 0xd6, 0x79, 0x54, 0xf8, 0x1d                                         \
        }                                                                                          \
    }

typedef struct {
    UINT32 Length; /* of this structure */
    UINT32 FirmwareVersion;
} EFI_DRIVER_SUPPORTED_EFI_VERSION_PROTOCOL;
