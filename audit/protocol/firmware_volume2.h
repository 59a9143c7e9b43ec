/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* Firmware Volume 2 Protocol (PI 1.7 volume 3 §3.4), as far as it is needed to read a file's name.
 */
#pragma once

#include <efi.h>

#define EFI_FIRMWARE_VOLUME2_PROTOCOL_GUID                                                         \
    {                                                                                              \
        0x220e73b6, 0x6bdb, 0x4413,                                                                \
        {                                                                                          \
            0x84, 0x05, 0xb9, 0x74, 0xb1, 0x08, 0x61, 0x9a                                         \
        }                                                                                          \
    }

enum { EFI_SECTION_USER_INTERFACE = 0x15 };

typedef struct EFI_FIRMWARE_VOLUME2_PROTOCOL EFI_FIRMWARE_VOLUME2_PROTOCOL;
struct EFI_FIRMWARE_VOLUME2_PROTOCOL {
    void *GetVolumeAttributes;
    void *SetVolumeAttributes;
    void *ReadFile;
    /* With *buffer NULL, the firmware allocates it and the caller frees it. */
    EFI_STATUS(EFIAPI *ReadSection)
    (const EFI_FIRMWARE_VOLUME2_PROTOCOL *this, const EFI_GUID *file, UINT8 type, UINTN instance,
     void **buffer, UINTN *size, UINT32 *authentication);
};
