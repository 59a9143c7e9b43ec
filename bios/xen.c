// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The domain's XenStore, grant table and event channels are Baton's from the start of the ROM on,
 * for good: an operating system resets what it finds before it uses it (C8). Linux does: it closes
 * each frontend that is connected, and has all watches dropped.
 */

#include "bios/drives.h"
#include "bios/log.h"
#include "bios/memory.h"
#include "bios/xen.h"
#include "core/xen/blkfront.h"

#define VENDOR    0x5853
#define PLATFORM  0x0001
#define XENSERVER 0x0002

/* BAR 1 is memory space for pages of Xen's to appear in, and nothing else. */
#define PLACE_BAR 1

/* For the pages of one request of 127 sectors, wherever it begins in one, and of those that list
 * them. Rings are not counted: they stay where they are if a backend does not let go. */
#define RESERVE_PAGES 20u

struct vbd {
    struct blkfront blk;
    struct rich_door door;
    char name[16];
};

static struct pci_device platform;
static struct xen xen;

static void log_vbd(void *context, const char *sentence, uint64_t number)
{
    const struct vbd *vbd = context;
    char line[200];

    put_text(put_text(put_text(line, vbd->name), ": "), sentence);
    log_line(NULL, line, number);
}

/* As the toolstack calls it (Xen's docs/man/xen-vbd-interface.7): xvda has 202 << 8, the next
 * 16 more; from xvdq on, 1 << 28 and 256 more for each. */
static void put_disk_name(char *at, uint32_t number)
{
    bool extended = number >> 28 & 1;
    uint32_t index = extended ? (number & 0x0fffffff) >> 8 : (number & 0xff) >> 4;

    if (!extended && number >> 8 != 202) {
        put_decimal(put_text(at, "vbd "), number);
        return;
    }
    at = put_text(at, "xvd");
    if (index >= 26)
        *at++ = (char)('a' + index / 26 % 26 - 1);
    *at++ = (char)('a' + index % 26);
    *at = 0;
}

static bool add_drive(struct vbd *vbd)
{
    struct drive *drive = drives_next();

    if (vbd->blk.cdrom || drives_check(&vbd->blk.disk.info, &vbd->door))
        return false;
    drive->disk = &vbd->blk.disk;
    drive->path = (struct drive_path){.where = platform.where, .lun = vbd->blk.number};
    put_text(drive->name, vbd->name);
    drives_add(drive);
    return true;
}

static void disk_found(uint32_t number)
{
    unsigned mark = memory_mark();
    struct vbd *vbd = memory_get(sizeof(*vbd));
    struct dma_block memory;
    size_t bytes;

    if (!vbd || !drives_next()) {
        log_line(&platform.where,
                 vbd ? "too many disks; left alone is vbd"
                     : "the BIOS has no more memory for disks; left alone is vbd",
                 number);
        memory_give_back(mark);
        return;
    }
    put_disk_name(vbd->name, number);
    vbd->door = platform.door;
    vbd->door.context = vbd;
    vbd->door.log = log_vbd;
    if (blkfront_attach(&vbd->blk, &xen, &vbd->door, number, &bytes)) {
        memory_give_back(mark);
        return;
    }
    enum result result =
        memory_share(&memory, bytes) ? blkfront_start(&vbd->blk, &memory) : RESULT_NO_MEMORY;
    if (!result && add_drive(vbd))
        return;
    if (result)
        log_vbd(vbd, "the disk cannot be had; error", result);
    /* What a backend does not let go of is not given back (C5). */
    if (blkfront_detach(&vbd->blk))
        memory_give_back(mark);
}

/* What XenStore would go on to tell is for nobody to hear: between calls its ring is idle, and
 * stays in step for whoever takes it over. A backend that goes away is noticed by the next request.
 */
static void end_watches(void)
{
    struct poor_door door = {.deadline = deadline_in_ms(&platform.door, XEN_STORE_MS)};

    for (struct xen_front *front = xen.fronts; front; front = front->next)
        front_end_watch(&xen, &door, front);
    if (xen.watches & 1ull << WATCH_LIST)
        store_ask_watch(&xen.store, &door, false, "device/vbd", NULL, WATCH_LIST);
    /* Nor is one begun when a disk is brought up anew: there is no number left for it. */
    xen.watches = ~(1ull << WATCH_LIST);
    store_settle(&xen.store, &door);
    store_listen(&xen.store);
}

void xen_platform_found(const struct pci_device *device)
{
    uint32_t numbers[DRIVES_MAX];
    struct reg_window place;
    size_t count;

    if (device->vendor != VENDOR || (device->id != PLATFORM && device->id != XENSERVER) ||
        xen.live || !xen_found())
        return;
    platform = *device;
    pci_open(&platform);
    if (!platform.door.bar(&platform, PLACE_BAR, &place)) {
        log_line(&platform.where, "the platform device has no memory window; BAR", PLACE_BAR);
        return;
    }
    if (xen_begin(&xen, &platform.door, &place))
        return;

    unsigned mark = memory_mark(), before = drives_count;
    void *reserve = memory_get(RESERVE_PAGES * XEN_PAGE);
    unsigned disks = memory_mark();
    if (reserve)
        grants_reserve(&xen.grants, reserve, RESERVE_PAGES);
    if (!xen_list(&xen, &platform.door, numbers, DRIVES_MAX, &count))
        for (size_t i = 0; i < count; i++)
            disk_found(numbers[i]);
    end_watches();
    if (drives_count != before || memory_mark() != disks)
        return;
    xen_end(&xen, &platform.door);
    /* Pages of it that were exchanged are no memory any more. */
    if (xen.grants.replaced == 0)
        memory_give_back(mark);
}
