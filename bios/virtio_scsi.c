// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * Disks on a virtio-scsi adapter. One that the BIOS drives itself stays the BIOS's: it tells of the
 * adapter only, not which of its units is behind a number.
 */

#include "bios/drives.h"
#include "bios/log.h"
#include "bios/memory.h"
#include "bios/virtio.h"
#include "core/scan.h"
#include "core/virtio/scsi_adapter.h"

/* One device and all that belongs to it: in memory that no operating system uses (C8). */
struct bios_scsi {
    struct pci_device pci;
    struct scsi scsi;
    struct dma_block shared;
};

/* ---- Its units ---- */

/* Whether it may still write to what it was given (C5). It is kept off the bus, as far as we can.
 */
static bool is_stuck(const struct bios_scsi *own)
{
    return own->scsi.requests.device.exit.state == VIRTIO_STUCK;
}

/* Whether there is a drive now. */
static bool unit_found(struct bios_scsi *own, const struct scan_unit *unit)
{
    const struct scsi_adapter adapter = scsi_adapter_of(&own->scsi);
    const struct pci_function *where = &own->pci.where;
    unsigned mark = memory_mark();
    struct drive *drive = drives_next();
    struct scsi_disk *disk = drive ? memory_get(sizeof(*disk)) : NULL;

    if (!disk) {
        log_text(drive ? "the BIOS has no more memory for disks" : "there are too many disks");
        return false;
    }
    enum result result = scsi_disk_start(disk, &own->pci.door, &adapter, unit->target, unit->lun);
    if (!result)
        result = drives_check(&disk->disk.info, &own->pci.door);
    if (result) {
        if (!is_stuck(own))
            memory_give_back(mark);
        return false;
    }
    drive->disk = &disk->disk;
    drive->physical = disk->geometry;
    drive->path = (struct drive_path){.where = *where, .target = unit->target, .lun = unit->lun};
    char *at = put_decimal(put_text(drive->name, "virtio-scsi "), unit->target);
    at = put_decimal(put_text(at, ":"), unit->lun);
    put_place(put_text(at, " at "), where);
    drives_add(drive);
    return true;
}

/* Whether there is any. The lists are for good as well: what is only lent is the system's in the
 * end, and an adapter that is stuck may still write to it (C5). */
static bool units_found(struct bios_scsi *own)
{
    const struct scsi_adapter adapter = scsi_adapter_of(&own->scsi);
    struct scan *found = memory_get(sizeof(*found));
    bool any = false;

    if (!found) {
        log_line(&own->pci.where, "the BIOS has no memory to look for disks in; bytes",
                 sizeof(*found));
        return false;
    }
    found->context = adapter.context;
    found->submit = adapter.submit;
    found->wait = adapter.poll;
    found->ticks_per_ms = own->pci.door.ticks_per_ms;
    found->max_target = own->scsi.max_target;
    found->max_lun = own->scsi.max_lun;
    scan(found);
    for (size_t i = 0; i < found->count; i++)
        any |= unit_found(own, &found->units[i]);
    return any;
}

void virtio_scsi_found(const struct pci_device *device)
{
    unsigned mark = memory_mark();
    size_t bytes = 0;
    uint16_t entries;
    struct bios_scsi *own = memory_get(sizeof(*own));

    if (!own) {
        log_text("the BIOS has no more memory for disks");
        return;
    }
    own->pci = *device;
    pci_open(&own->pci);
    if (virtio_in_use(&own->pci, &entries) ||
        scsi_attach(&own->scsi, &own->pci.door, &own->pci.where, &bytes)) {
        memory_give_back(mark); /* the device has seen none of it */
        return;
    }
    enum result result =
        memory_share(&own->shared, bytes) ? scsi_start(&own->scsi, &own->shared) : RESULT_NO_MEMORY;
    if (result)
        log_line(&device->where, "the adapter cannot be had; error", result);
    else if (units_found(own))
        return;
    /* What a device does not let go of is not given back (C5). */
    if (scsi_detach(&own->scsi))
        memory_give_back(mark);
}
