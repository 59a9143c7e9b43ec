// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * Disks on virtio, and whose they are.
 *
 * A device that nobody has set going is Baton's from the start of the ROM. One that the BIOS drives
 * itself is in the BIOS's list of disks already, in the place that the user gave it, and has a
 * number there. That is left as it is: when the number is first called, the BIOS is asked which
 * device is behind it, and Baton takes that over. From then on the BIOS hears of it no more.
 */

#include "bios/drives.h"
#include "bios/log.h"
#include "bios/memory.h"
#include "bios/start.h"
#include "bios/virtio.h"
#include "core/virtio/blk.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>

#define VENDOR            0x1af4
#define BLK_TRANSITIONAL  0x1001
#define BLK               0x1042
#define SCSI_TRANSITIONAL 0x1004
#define SCSI              0x1048

/* For a device that is taken over later, when there is no more memory to be had: enough for any
 * queue of this many entries. */
#define TAKE_BYTES   (40u << 10)
#define TAKE_ENTRIES 1024u

/* One device and all that belongs to it: in memory that no operating system uses (C8). */
struct bios_blk {
    struct bios_blk *next; /* that waits to be taken over */
    struct pci_device pci;
    struct blk blk;
    struct dma_block shared;
};

static struct bios_blk *waiting;

/* ---- virtio-blk ---- */

static struct drive *add_drive(struct bios_blk *own)
{
    const struct virtio_device *device = &own->blk.requests.device;
    const struct pci_function *where = &own->pci.where;
    struct drive *drive = drives_next();

    drive->disk = &own->blk.disk;
    /* It counts in sectors of 512 bytes, whatever the disk has. */
    if (drive->disk->info.block_size == DISK_SECTOR && virtio_has(device, VIRTIO_BLK_F_GEOMETRY))
        drive->physical = (struct geometry){
            .cylinders =
                virtio_config16(device, offsetof(struct virtio_blk_config, geometry.cylinders)),
            .heads = virtio_config8(device, offsetof(struct virtio_blk_config, geometry.heads)),
            .sectors = virtio_config8(device, offsetof(struct virtio_blk_config, geometry.sectors)),
        };
    drive->path.where = *where;
    put_place(put_text(drive->name, "virtio-blk at "), where);
    drives_add(drive);
    return drive;
}

/* ---- Taking over ---- */

bool virtio_in_use(const struct pci_device *pci, uint16_t *entries)
{
    struct virtio_device device;

    if (virtio_find(&device, &pci->door, &pci->where))
        return false;
    uint8_t status = reg_read8(&device.exit.status, 0);
    if (!(status & VIRTIO_CONFIG_S_DRIVER_OK) || status == UINT8_MAX) /* all ones: it is gone */
        return false;
    *entries = virtio_queue_size(&device, 0);
    return true;
}

/* Remembers it for later. False if there is no memory for that: then it stays the BIOS's. */
static bool remember(struct bios_blk *own, uint16_t entries)
{
    if (entries > TAKE_ENTRIES || !memory_share(&own->shared, TAKE_BYTES))
        return false;
    own->next = waiting;
    waiting = own;
    return true;
}

bool virtio_waits(void)
{
    return waiting != NULL;
}

static struct bios_blk *waiting_at(const struct pci_function *at)
{
    struct bios_blk **link = &waiting, *own;

    while ((own = *link)) {
        const struct pci_function *where = &own->pci.where;
        if (where->bus == at->bus && where->device == at->device &&
            where->function == at->function) {
            *link = own->next;
            return own;
        }
        link = &own->next;
    }
    return NULL;
}

struct drive *virtio_take_over(const struct pci_function *where)
{
    struct bios_blk *own = waiting_at(where);
    size_t bytes;

    if (!own || !drives_next())
        return NULL;
    enum result result = blk_attach(&own->blk, &own->pci.door, &own->pci.where, &bytes);
    if (!result)
        result = drives_check(&own->blk.disk.info, &own->pci.door);
    if (!result)
        result = bytes > own->shared.bytes ? RESULT_NO_MEMORY : blk_start(&own->blk, &own->shared);
    if (result) {
        log_line(&own->pci.where, "the disk cannot be taken over; error", result);
        blk_detach(&own->blk);
        own->blk.disk.info = (struct disk_info){.block_size = DISK_SECTOR, .blocks = 1};
    }
    /* With or without success the BIOS's driver would wait for ever for a device that has been
     * reset. So this is ours now, and its calls fail if it cannot be had. */
    return add_drive(own);
}

/* ---- The start ---- */

static void blk_found(const struct pci_device *device)
{
    unsigned mark = memory_mark();
    size_t bytes = 0;
    uint16_t entries;
    struct bios_blk *own = memory_get(sizeof(*own));

    if (!own || !drives_next()) {
        log_text(own ? "there are too many disks" : "the BIOS has no more memory for disks");
        memory_give_back(mark);
        return;
    }
    own->pci = *device;
    pci_open(&own->pci);
    if (virtio_in_use(&own->pci, &entries)) {
        if (!remember(own, entries))
            memory_give_back(mark);
        return;
    }
    enum result result = blk_attach(&own->blk, &own->pci.door, &own->pci.where, &bytes);
    if (result) {
        memory_give_back(mark); /* the device has seen none of it */
        return;
    }
    result = drives_check(&own->blk.disk.info, &own->pci.door);
    if (!result)
        result = memory_share(&own->shared, bytes) ? blk_start(&own->blk, &own->shared)
                                                   : RESULT_NO_MEMORY;
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
    if (device->id == SCSI_TRANSITIONAL || device->id == SCSI)
        virtio_scsi_found(device);
}
