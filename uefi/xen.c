// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * Driver Binding (UEFI 2.10 §11.1) for the Xen platform device: a bus, with a child handle for each
 * PV disk of the domain.
 *
 * The platform device stands for the domain: one driver has it, and with it XenStore, the grant
 * table and the event channels. All of core/xen is entered at TPL_NOTIFY, since all disks share
 * these. Disks that come and go while firmware runs are noticed by a timer.
 */

#include "core/xen/blkfront.h"
#include "uefi/block_io.h"
#include "uefi/device_path.h"
#include "uefi/log.h"
#include "uefi/pci.h"
#include "uefi/protocol/xenio.h"

/* How often to look whether disks have come or gone, in units of 100 ns. */
#define TICK_100NS (200u * 10000u)
/* And in how many of these once, whether a disk without a medium has got one. */
#define TICKS_PER_LOOK 5u
/* Handles that edk2's own Xen drivers could bind to: the device's, and a PVH guest's. */
#define XENIO_MAX 4u

static EFI_GUID device_path_guid = EFI_DEVICE_PATH_PROTOCOL_GUID;
static EFI_GUID xenio_guid = XENIO_PROTOCOL_GUID;

struct xen_bus {
    struct pci_binding pci;
    struct xen xen;
    struct xen_disk *disks;
    uint32_t failed[XEN_DISKS_MAX]; /* disks that are listed, and did not come up */
    size_t failures;
    uint32_t absent[XEN_DISKS_MAX]; /* disks that are listed, and have no medium */
    size_t absences;
    unsigned ticks;
    EFI_DEVICE_PATH *path;
    EFI_EVENT exit_event;
    struct exit_xen_context exit;
    EFI_EVENT timer;
    EFI_PHYSICAL_ADDRESS reserve; /* 0: none */
    bool busy;                    /* Start() or Stop() is under way: the timer keeps out */
    EFI_HANDLE claimed[XENIO_MAX];
    unsigned claims;
};

struct xen_disk {
    struct xen_disk *next;
    struct xen_bus *bus;
    struct blkfront blk;
    struct block_io block_io;
    struct rich_door door;
    EFI_PHYSICAL_ADDRESS memory;
    UINTN pages;
    EFI_HANDLE handle;
    EFI_DEVICE_PATH *path;
    EFI_EVENT exit_event;
    struct exit_xen_context exit;
};

/* One image has one platform device at most: a domain has no more. */
static struct xen_bus *the_bus;

static void log_disk(void *context, const char *sentence, uint64_t number)
{
    const struct xen_disk *disk = context;
    CHAR16 about[24];

    put_number(put_text(about, "Xen disk "), disk->blk.number, 10, 1);
    log_line(about, sentence, number);
}

/* A disk's is the platform device's and a Controller node (§10.3.2.5) with the virtual device
 * number: the toolstack's name for the disk, the same at each boot. */
#pragma pack(push, 1)
struct disk_node {
    EFI_DEVICE_PATH header;
    UINT32 number;
};
#pragma pack(pop)
_Static_assert(sizeof(struct disk_node) == 8, "UEFI 2.10 §10.3.2.5");

static EFI_DEVICE_PATH *disk_path(const EFI_DEVICE_PATH *bus, uint32_t number)
{
    const struct disk_node node = {
        .header = {HARDWARE_DEVICE_PATH, HW_CONTROLLER_DP, {sizeof(node), 0}},
        .number = number,
    };
    return device_path_append(bus, &node.header);
}

/* ---- A disk comes, a disk goes ---- */

static void free_memory(struct xen_disk *disk)
{
    if (disk->pages)
        bs->FreePages(disk->memory, disk->pages);
}

/* Brings a disk up as far as core/ is concerned. At TPL_NOTIFY. */
static enum result start_disk(struct xen_disk *disk, uint32_t number)
{
    size_t bytes;

    enum result result = blkfront_attach(&disk->blk, &disk->bus->xen, &disk->door, number, &bytes);
    if (result)
        return result;

    UINTN pages = (bytes + EFI_PAGE_SIZE - 1) / EFI_PAGE_SIZE;
    EFI_STATUS status =
        bs->AllocatePages(AllocateAnyPages, EfiBootServicesData, pages, &disk->memory);
    if (EFI_ERROR(status)) {
        blkfront_detach(&disk->blk); /* the backend has seen no memory that could be lost */
        return RESULT_NO_MEMORY;
    }
    disk->pages = pages;
    bs->SetMem((void *)(uintptr_t)disk->memory, pages * EFI_PAGE_SIZE, 0);
    struct dma_block block = {
        .cpu = (void *)(uintptr_t)disk->memory,
        .address = disk->memory,
        .bytes = pages * EFI_PAGE_SIZE,
    };
    result = blkfront_start(&disk->blk, &block);
    if (result && blkfront_detach(&disk->blk))
        free_memory(disk);
    /* Of a disk that has connected, no size is not for lack of a medium: it is not looked at again.
     */
    return result == RESULT_NO_MEDIA ? RESULT_DEVICE_ERROR : result;
}

static enum result start_at_notify(struct xen_disk *disk, uint32_t number)
{
    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    enum result result = start_disk(disk, number);
    bs->RestoreTPL(tpl);
    return result;
}

static bool detach_at_notify(struct xen_disk *disk)
{
    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    bool let_go = blkfront_detach(&disk->blk);
    bs->RestoreTPL(tpl);
    return let_go;
}

static struct xen_disk *find_disk(struct xen_bus *bus, uint32_t number)
{
    struct xen_disk *disk = bus->disks;

    while (disk && disk->blk.number != number)
        disk = disk->next;
    return disk;
}

static EFI_STATUS add_disk(struct xen_bus *bus, uint32_t number)
{
    struct xen_disk *disk;
    void *io;

    EFI_STATUS status = bs->AllocatePool(EfiBootServicesData, sizeof(*disk), (void **)&disk);
    if (EFI_ERROR(status))
        return status;
    bs->SetMem(disk, sizeof(*disk), 0);
    disk->bus = bus;
    disk->blk.number = number;
    disk->door = bus->pci.door;
    disk->door.context = disk;
    disk->door.log = log_disk;
    disk->path = disk_path(bus->path, number);
    if (!disk->path) {
        status = EFI_OUT_OF_RESOURCES;
        goto free;
    }

    /* The event comes before the disk wakes up, and finds it dormant until then (C1, C3). */
    disk->exit = (struct exit_xen_context){&bus->xen, &disk->blk.front, exit_shared};
    status = bs->CreateEvent(EVT_SIGNAL_EXIT_BOOT_SERVICES, TPL_NOTIFY, exit_xen_disk, &disk->exit,
                             &disk->exit_event);
    if (EFI_ERROR(status))
        goto free_path;

    status = status_of(start_at_notify(disk, number));
    if (EFI_ERROR(status))
        goto close_event;

    status =
        bs->InstallMultipleProtocolInterfaces(&disk->handle, &device_path_guid, disk->path, NULL);
    if (EFI_ERROR(status))
        goto detach;
    status = block_io_install(&disk->block_io, &disk->blk.disk, disk->handle);
    if (EFI_ERROR(status))
        goto remove_path;
    status = bs->OpenProtocol(bus->pci.controller, &pci_io_guid, &io,
                              bus->pci.driver->DriverBindingHandle, disk->handle,
                              EFI_OPEN_PROTOCOL_BY_CHILD_CONTROLLER);
    if (EFI_ERROR(status))
        goto remove_block;
    disk->next = bus->disks;
    bus->disks = disk;
    return EFI_SUCCESS;

remove_block:
    block_io_remove(&disk->block_io);
    block_io_finish(&disk->block_io);
remove_path:
    bs->UninstallMultipleProtocolInterfaces(disk->handle, &device_path_guid, disk->path, NULL);
detach:
    if (detach_at_notify(disk))
        free_memory(disk);
close_event:
    bs->CloseEvent(disk->exit_event);
free_path:
    bs->FreePool(disk->path);
free:
    bs->FreePool(disk);
    return status;
}

/* Takes a disk away. EFI_ACCESS_DENIED if somebody will not let go of it: all works on, then. */
static EFI_STATUS remove_disk(struct xen_bus *bus, struct xen_disk *disk)
{
    EFI_STATUS status = block_io_remove(&disk->block_io);
    if (EFI_ERROR(status))
        return status;

    /* From here on there is no way back, and none is needed. The timer may still be polling. */
    bool let_go = detach_at_notify(disk);
    block_io_finish(&disk->block_io);
    bs->CloseProtocol(bus->pci.controller, &pci_io_guid, bus->pci.driver->DriverBindingHandle,
                      disk->handle);
    bs->UninstallMultipleProtocolInterfaces(disk->handle, &device_path_guid, disk->path, NULL);
    bs->CloseEvent(disk->exit_event);
    for (struct xen_disk **at = &bus->disks; *at; at = &(*at)->next)
        if (*at == disk) {
            *at = disk->next;
            break;
        }
    if (let_go)
        free_memory(disk);
    bs->FreePool(disk->path);
    bs->FreePool(disk);
    return EFI_SUCCESS;
}

static bool contains(const uint32_t *numbers, size_t count, uint32_t number)
{
    while (count > 0)
        if (numbers[--count] == number)
            return true;
    return false;
}

/* Makes the children what XenStore's list says. With `connect`, drivers are called for new ones. */
static void follow_list(struct xen_bus *bus, bool connect)
{
    uint32_t numbers[XEN_DISKS_MAX];
    size_t count;

    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    enum result result = xen_list(&bus->xen, &bus->pci.door, numbers, XEN_DISKS_MAX, &count);
    bs->RestoreTPL(tpl);
    if (result)
        return;
    bus->absences = 0;
    for (size_t i = bus->failures; i-- > 0;)
        if (!contains(numbers, count, bus->failed[i]))
            bus->failed[i] = bus->failed[--bus->failures];
    for (size_t i = 0; i < count; i++) {
        if (find_disk(bus, numbers[i]) || contains(bus->failed, bus->failures, numbers[i]))
            continue;
        EFI_STATUS status = add_disk(bus, numbers[i]);
        /* What went wrong has been said. A drive without a medium is no reason to speak, and may
         * get one; so may a disk that is just being attached. The others are left alone: to try has
         * changed the list, for whoever watches it, so that we would try for ever, and each time
         * wait. */
        if (status == EFI_NO_MEDIA)
            bus->absent[bus->absences++] = numbers[i];
        else if (EFI_ERROR(status))
            bus->failed[bus->failures++] = numbers[i];
        if (!EFI_ERROR(status) && connect)
            bs->ConnectController(find_disk(bus, numbers[i])->handle, NULL, NULL, TRUE);
    }
}

static void EFIAPI tick(EFI_EVENT event, void *context)
{
    struct xen_bus *bus = context;
    (void)event;

    if (bus->busy || !bus->xen.live)
        return;
    bus->busy = true;
    for (struct xen_disk *disk = bus->disks, *next; disk; disk = next) {
        next = disk->next;
        EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
        bool gone = blkfront_gone(&disk->blk);
        bs->RestoreTPL(tpl);
        if (gone)
            remove_disk(bus, disk); /* later, if somebody is in the middle of a call */
    }
    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    bool changed = xen_list_changed(&bus->xen);
    if (++bus->ticks % TICKS_PER_LOOK == 0)
        for (size_t i = 0; i < bus->absences && !changed; i++)
            changed = xen_disk_waits(&bus->xen, &bus->pci.door, bus->absent[i]);
    bs->RestoreTPL(tpl);
    if (changed)
        follow_list(bus, true);
    bus->busy = false;
}

/* ---- The reserve ---- */

/* Memory of a kind that the operating system leaves alone, because some of it may be no memory any
 * more by then. Without it all works, slowly: one small request at a time for each disk. */
static void take_reserve(struct xen_bus *bus)
{
    if (EFI_ERROR(bs->AllocatePages(AllocateAnyPages, EfiReservedMemoryType, BLKFRONT_RESERVE_PAGES,
                                    &bus->reserve))) {
        bus->pci.door.log(&bus->pci, "no memory for the reserve; pages:", BLKFRONT_RESERVE_PAGES);
        bus->reserve = 0;
        return;
    }
    grants_reserve(&bus->xen.grants, (void *)(uintptr_t)bus->reserve, BLKFRONT_RESERVE_PAGES);
}

/* What of it has been used stays out of everybody's reach. */
static void free_reserve(struct xen_bus *bus)
{
    if (bus->reserve && bus->xen.grants.reserve_pages)
        bs->FreePages(bus->reserve, bus->xen.grants.reserve_pages);
}

/* ---- One owner ---- */

/* Takes what edk2's own Xen drivers would bind to, wherever it is. False if they have: then
 * XenStore has an owner, who does not expect another. */
static bool claim_xen(struct xen_bus *bus)
{
    EFI_HANDLE *handles = NULL, agent = bus->pci.driver->DriverBindingHandle;
    UINTN count = 0;
    bool ours = true;
    void *xenio;

    if (EFI_ERROR(bs->LocateHandleBuffer(ByProtocol, &xenio_guid, NULL, &count, &handles)))
        return true;
    for (UINTN i = 0; i < count && ours; i++) {
        ours = bus->claims < XENIO_MAX &&
               !EFI_ERROR(bs->OpenProtocol(handles[i], &xenio_guid, &xenio, agent, handles[i],
                                           EFI_OPEN_PROTOCOL_BY_DRIVER));
        if (ours)
            bus->claimed[bus->claims++] = handles[i];
    }
    bs->FreePool(handles);
    return ours;
}

static void unclaim_xen(struct xen_bus *bus)
{
    while (bus->claims > 0) {
        EFI_HANDLE handle = bus->claimed[--bus->claims];
        bs->CloseProtocol(handle, &xenio_guid, bus->pci.driver->DriverBindingHandle, handle);
    }
}

/* ---- Driver Binding ---- */

#define XEN_VENDOR 0x5853
static const uint16_t xen_devices[] = {
    0x0001, /* the platform device */
    0x0002, /* the same, as XenServer has it for some guests */
};
#define XEN_DEVICES (sizeof(xen_devices) / sizeof(xen_devices[0]))

void xen_look_for_platform(void)
{
    EFI_HANDLE *handles = NULL;
    UINTN count = 0, seen = 0;
    bool found = false;

    if (!xen_found() ||
        EFI_ERROR(bs->LocateHandleBuffer(ByProtocol, &pci_io_guid, NULL, &count, &handles)))
        return;
    for (UINTN i = 0; i < count; i++) {
        EFI_PCI_IO_PROTOCOL *io;
        UINT16 id[2];
        if (EFI_ERROR(bs->HandleProtocol(handles[i], &pci_io_guid, (void **)&io)) ||
            EFI_ERROR(io->Pci.Read(io, EfiPciIoWidthUint16, 0, 2, id)))
            continue;
        seen++;
        for (size_t k = 0; k < XEN_DEVICES; k++)
            found |= id[0] == XEN_VENDOR && id[1] == xen_devices[k];
    }
    bs->FreePool(handles);
    /* Before firmware has looked for any, nothing is known. */
    if (seen > 0 && !found)
        log_line(
            L"Xen",
            "this domain has no platform device (xen_platform_pci), without which its PV disks "
            "cannot be driven; PCI devices:",
            seen);
}

/* BAR 1 of the platform device is memory space for pages of Xen's to appear in, and nothing else.
 */
#define PLACE_BAR 1

static EFI_STATUS EFIAPI supported(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                                   EFI_DEVICE_PATH *remaining)
{
    (void)remaining;
    EFI_STATUS status = pci_supported(this, controller, XEN_VENDOR, xen_devices, XEN_DEVICES);
    return !EFI_ERROR(status) && !xen_found() ? EFI_UNSUPPORTED : status;
}

static EFI_STATUS EFIAPI start(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                               EFI_DEVICE_PATH *remaining)
{
    struct xen_bus *bus;
    struct reg_window place;
    void *path;
    (void)remaining; /* all disks come up together: the list has to be read anyway */

    if (the_bus)
        return the_bus->pci.controller == controller ? EFI_ALREADY_STARTED : EFI_UNSUPPORTED;
    EFI_STATUS status = bs->AllocatePool(EfiBootServicesData, sizeof(*bus), (void **)&bus);
    if (EFI_ERROR(status))
        return status;
    bs->SetMem(bus, sizeof(*bus), 0);

    status = pci_open(&bus->pci, this, controller);
    if (EFI_ERROR(status))
        goto free;
    status = bs->HandleProtocol(controller, &device_path_guid, &path);
    if (EFI_ERROR(status))
        goto close_pci;
    bus->path = path;
    if (!claim_xen(bus)) {
        bus->pci.door.log(&bus->pci,
                          "the firmware's own Xen drivers have the domain already;"
                          " handles taken:",
                          bus->claims);
        status = EFI_ACCESS_DENIED;
        goto unclaim;
    }
    if (!bus->pci.door.bar(&bus->pci, PLACE_BAR, &place)) {
        bus->pci.door.log(&bus->pci, "the platform device has no memory window; BAR", PLACE_BAR);
        status = EFI_DEVICE_ERROR;
        goto unclaim;
    }

    /* As for a disk: the events come before there is anything for them to do. */
    bus->exit = (struct exit_xen_context){&bus->xen, NULL, exit_shared};
    status = bs->CreateEvent(EVT_SIGNAL_EXIT_BOOT_SERVICES, TPL_NOTIFY, exit_xen_bus, &bus->exit,
                             &bus->exit_event);
    if (EFI_ERROR(status))
        goto unclaim;
    status = bs->CreateEvent(EVT_TIMER | EVT_NOTIFY_SIGNAL, TPL_CALLBACK, tick, bus, &bus->timer);
    if (EFI_ERROR(status))
        goto close_event;

    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    status = status_of(xen_begin(&bus->xen, &bus->pci.door, &place));
    bs->RestoreTPL(tpl);
    if (EFI_ERROR(status))
        goto close_timer;
    take_reserve(bus);

    bus->busy = true;
    bs->SetTimer(bus->timer, TimerPeriodic, TICK_100NS);
    follow_list(bus, false);
    bus->busy = false;
    the_bus = bus;
    driver_bindings++;
    return EFI_SUCCESS;

close_timer:
    bs->CloseEvent(bus->timer);
close_event:
    bs->CloseEvent(bus->exit_event);
unclaim:
    unclaim_xen(bus);
close_pci:
    pci_close(&bus->pci, true);
free:
    bs->FreePool(bus);
    return status;
}

static EFI_STATUS stop_children(struct xen_bus *bus, UINTN count, const EFI_HANDLE *handles)
{
    EFI_STATUS status = EFI_SUCCESS;

    for (UINTN i = 0; i < count; i++)
        for (struct xen_disk *disk = bus->disks; disk; disk = disk->next)
            if (disk->handle == handles[i]) {
                if (EFI_ERROR(remove_disk(bus, disk)))
                    status = EFI_DEVICE_ERROR;
                break;
            }
    return status;
}

static EFI_STATUS EFIAPI stop(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                              UINTN children, EFI_HANDLE *child_handles)
{
    struct xen_bus *bus = the_bus;
    (void)this;

    if (!bus || bus->pci.controller != controller)
        return EFI_UNSUPPORTED;
    if (bus->busy)
        return EFI_DEVICE_ERROR; /* called from what we have called ourselves */
    bus->busy = true;
    if (children) {
        EFI_STATUS status = stop_children(bus, children, child_handles);
        bus->busy = false;
        return status;
    }
    if (bus->disks) {
        bus->busy = false;
        return EFI_DEVICE_ERROR;
    }

    bs->CloseEvent(bus->timer);
    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    xen_end(&bus->xen, &bus->pci.door);
    bs->RestoreTPL(tpl);
    free_reserve(bus);
    bs->CloseEvent(bus->exit_event);
    unclaim_xen(bus);
    pci_close(&bus->pci, true);
    bs->FreePool(bus);
    the_bus = NULL;
    driver_bindings--;
    return EFI_SUCCESS;
}

static CHAR16 *name_of(const struct driver *driver, EFI_HANDLE controller, EFI_HANDLE child)
{
    (void)driver;
    (void)controller;
    if (!child)
        return L"Xen platform device";
    for (struct xen_disk *disk = the_bus ? the_bus->disks : NULL; disk; disk = disk->next)
        if (disk->handle == child)
            return disk->blk.cdrom ? L"Xen PV CD-ROM" : L"Xen PV disk";
    return NULL;
}

struct driver xen_driver = {
    .binding = {.Supported = supported, .Start = start, .Stop = stop, .Version = DRIVER_VERSION},
    .name = L"Baton Xen PV disk driver",
    .name_of = name_of,
};
