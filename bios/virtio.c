// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "bios/drives.h"
#include "bios/log.h"
#include "bios/memory.h"
#include "bios/virtio.h"
#include "core/virtio/blk.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>

#define VENDOR           0x1af4
#define BLK_TRANSITIONAL 0x1001
#define BLK              0x1042

/* One device and all that belongs to it: in memory that no operating system uses (C8). */
struct bios_blk {
    struct pci_device pci;
    struct blk blk;
    struct dma_block shared;
};

static void add_drive(struct bios_blk *own)
{
    const struct virtio_device *device = &own->blk.requests.device;
    const struct pci_function *where = &own->pci.where;
    struct drive *drive = drives_next();

    drive->disk = &own->blk.disk;
    drive->physical = (struct geometry){
        .cylinders =
            virtio_config16(device, offsetof(struct virtio_blk_config, geometry.cylinders)),
        .heads = virtio_config8(device, offsetof(struct virtio_blk_config, geometry.heads)),
        .sectors = virtio_config8(device, offsetof(struct virtio_blk_config, geometry.sectors)),
    };
    drive->path = (struct drive_path){
        .bus = where->bus, .device = where->device, .function = where->function};
    put_place(put_text(drive->name, "virtio-blk at "), where);
    drives_add(drive);
}

/* Whether the BIOS has the device in use by a driver of its own, which would go on believing so. */
static bool is_taken(const struct pci_device *pci)
{
    struct virtio_device device;

    return virtio_find(&device, &pci->door, &pci->where) == RESULT_OK &&
           (reg_read8(&device.exit.status, 0) & VIRTIO_CONFIG_S_DRIVER_OK) != 0;
}

static void blk_found(const struct pci_device *device)
{
    unsigned mark = memory_mark();
    size_t bytes;
    struct bios_blk *own = memory_get(sizeof(*own));
    enum result result;

    if (!own || !drives_next()) {
        log_text(own ? "there are too many disks" : "the BIOS has no more memory for disks");
        memory_give_back(mark);
        return;
    }
    own->pci = *device;
    pci_open(&own->pci);
    if (is_taken(&own->pci)) {
        memory_give_back(mark);
        return;
    }
    result = blk_attach(&own->blk, &own->pci.door, &own->pci.where, &bytes);
    if (result) {
        memory_give_back(mark); /* the device has seen none of it */
        return;
    }
    own->shared.cpu = memory_get(bytes);
    own->shared.address = (uintptr_t)own->shared.cpu;
    own->shared.bytes = bytes;
    result = own->shared.cpu ? blk_start(&own->blk, &own->shared) : RESULT_NO_MEMORY;
    if (!result) {
        add_drive(own);
        return;
    }
    log_line(&device->where, "the disk cannot be had; error", result);
    /* What a device does not let go of is not given back (C5). */
    if (blk_detach(&own->blk))
        memory_give_back(mark);
}

void virtio_found(const struct pci_device *device)
{
    if (device->vendor != VENDOR)
        return;
    if (device->id == BLK_TRANSITIONAL || device->id == BLK)
        blk_found(device);
}
