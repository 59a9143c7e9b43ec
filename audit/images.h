/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* Whose code is it? The images that the firmware has loaded, and what to call them. */
#pragma once

#include "lab/efi/app.h"

enum { IMAGES_MAX = 1024, IMAGE_NONE = -1 };

struct image {
    EFI_HANDLE handle;
    uint64_t base, size;
    char name[64];  /* of the file; else what the driver calls itself, the GUID, the path */
    char guid[40];  /* of the firmware volume's file; "" if it is not from one */
    char path[192]; /* of the loaded image: device and file */
    bool core;      /* the firmware's DXE core */
    bool driver;    /* has a Driver Binding: drives devices */
    bool self, name_is_path;
    bool holds; /* see images_find_holders() */
};

extern struct image images[IMAGES_MAX];
extern size_t image_count;

/* Learns of images that were loaded since the last call; numbers once given stay. Needs boot
 * services, allocates and frees. */
void images_update(void);

/* The image whose memory holds this address, or IMAGE_NONE. Callable at any time. */
int image_at(uint64_t address);

/* The image that stands behind an agent handle (with a Driver Binding, or a loaded image itself).
 */
int image_of_agent(EFI_HANDLE agent);

/* Learns which images hold anything as its driver, now. Asks about each protocol of each handle, so
 * it takes its time. */
void images_find_holders(void);

/* "VirtioBlkDxe", or "nobody's code". */
const char *image_name(int image);

/* Tells of all images, a line each. */
void images_report(void);
