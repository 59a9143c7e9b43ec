/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* HII Font Protocol (UEFI 2.10 §34.1), as far as it is needed to ask for one letter's picture. */
#pragma once

#include <efi.h>

#define EFI_HII_FONT_PROTOCOL_GUID                                                                 \
    {                                                                                              \
        0xe9ca4775, 0x8657, 0x47fc,                                                                \
        {                                                                                          \
            0x97, 0xe7, 0x7e, 0xd6, 0x5a, 0x08, 0x43, 0x24                                         \
        }                                                                                          \
    }

typedef struct {
    UINT16 Width, Height;
    EFI_GRAPHICS_OUTPUT_BLT_PIXEL *Bitmap; /* the caller frees it, and this structure */
} EFI_IMAGE_OUTPUT;

typedef struct EFI_HII_FONT_PROTOCOL EFI_HII_FONT_PROTOCOL;
struct EFI_HII_FONT_PROTOCOL {
    void *StringToImage;
    void *StringIdToImage;
    /* `info` NULL: the system's own font and colours. */
    EFI_STATUS(EFIAPI *GetGlyph)
    (const EFI_HII_FONT_PROTOCOL *this, CHAR16 letter, const void *info, EFI_IMAGE_OUTPUT **image,
     UINTN *baseline);
    void *GetFontInfo;
};
