// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * A virtio-blk driver like Baton's own, but for one offence. What is right in it is done by core/
 * and uefi/; what is wrong is all in this file.
 */

#include "core/virtio/blk.h"
#include "tests/audit/offence.h"
#include "uefi/block_io.h"
#include "uefi/pci.h"

#define SPARE_PAGES  2
#define READS        8
#define READ_BYTES   (256u << 10)
#define DAWDLE_MS    1500 /* C6 allows a second */
#define READS_PAGES  (READS * READ_BYTES / EFI_PAGE_SIZE)
#define BINDING_SIGN 0x6f6666656e646572ull

struct binding {
    uint64_t sign; /* BINDING_SIGN while the binding exists */
    struct pci_binding pci;
    struct blk blk;
    struct pci_shared shared;
    struct block_io block_io;
    bool disk; /* Block I/O is there */
    EFI_EVENT exit_event;
    struct exit_virtio_context exit;

    /* What an offence needs. */
    EFI_EVENT timer;
    void *spare;
    EFI_PHYSICAL_ADDRESS buffers;
    struct disk_request reads[READS];
};

static EFI_FREE_POOL free_pool_aside;

/* ---- The offences ---- */

static void read_done(struct io_request *request)
{
    (void)request;
}

/* Reads into memory that the operating system will think is its own. */
static void post_reads(struct binding *binding, bool announce)
{
    struct blk *blk = &binding->blk;
    struct reg_window notify = blk->requests.ring.notify;
    static uint16_t nobody_listens;

    if (!announce) {
        blk->requests.ring.notify =
            (struct reg_window){.base = (uintptr_t)&nobody_listens, .bytes = 2};
        blk->requests.ring.notify_offset = 0;
    }
    for (unsigned i = 0; i < READS; i++) {
        binding->reads[i] = (struct disk_request){
            .base =
                {
                    .buffer = (void *)(uintptr_t)(binding->buffers + i * READ_BYTES),
                    .bytes = READ_BYTES,
                    .done = read_done,
                },
            .op = DISK_READ,
            .sector = 0,
        };
        blk->disk.ops->submit(&blk->disk, &binding->reads[i]);
    }
    blk->requests.ring.notify = notify;
}

#define DXE_SERVICES_TABLE_GUID                                                                    \
    {                                                                                              \
        0x05ad34ba, 0x6f02, 0x4214,                                                                \
        {                                                                                          \
            0x95, 0x2e, 0x4d, 0xa0, 0x39, 0x8e, 0x2b, 0xb9                                         \
        }                                                                                          \
    }

/* The start of the PI specification's table of services (PI 1.7 §II-7.2). */
struct dxe_services {
    EFI_TABLE_HEADER header;
    EFI_STATUS(EFIAPI *add_memory_space)
    (int type, EFI_PHYSICAL_ADDRESS base, UINT64 bytes, UINT64 capabilities);
};
#define GCD_RESERVED 1
#define NO_MANS_LAND 0x400000000ull /* above all memory and below the 64-bit PCI window */

static bool same_guid(const EFI_GUID *a, const EFI_GUID *b)
{
    for (size_t i = 0; i < sizeof(*a); i++)
        if (((const uint8_t *)a)[i] != ((const uint8_t *)b)[i])
            return false;
    return true;
}

static void add_memory_space(void)
{
    EFI_GUID wanted = DXE_SERVICES_TABLE_GUID;

    for (UINTN i = 0; i < st->NumberOfTableEntries; i++) {
        const EFI_CONFIGURATION_TABLE *table = &st->ConfigurationTable[i];
        if (same_guid(&table->VendorGuid, &wanted))
            ((struct dxe_services *)table->VendorTable)
                ->add_memory_space(GCD_RESERVED, NO_MANS_LAND, EFI_PAGE_SIZE, EFI_MEMORY_UC);
    }
}

static void ask_little(void)
{
    static uint8_t from[64], to[64];
    UINT32 crc;

    EFI_TPL tpl = bs->RaiseTPL(TPL_HIGH_LEVEL);
    bs->RestoreTPL(tpl);
    bs->SetMem(from, sizeof(from), 0x5a);
    bs->CopyMem(to, from, sizeof(to));
    bs->CalculateCrc32(to, sizeof(to), &crc);
}

static void dawdle(const struct binding *binding)
{
    uint64_t end = deadline_in_ms(&binding->pci.door, DAWDLE_MS);

    while (!deadline_passed(end))
        cpu_relax();
}

/* What the handler does that it should not, with the device still live. */
static void offend_live(struct binding *binding)
{
    static bool done;

    if (BREAKS(CRASHES))
        ((void(EFIAPI *)(void))(uintptr_t)0x00dead0000000000ull)();
    if (BREAKS(HANGS))
        for (;;)
            cpu_relax();
    if (done)
        return; /* an exit that comes again finds it freed, posted or added already */
    done = true;
    if (BREAKS(FREES_LIVE_RING))
        bs->FreePages((uintptr_t)binding->shared.block.cpu, binding->shared.pages);
    if (BREAKS(LEAVES_READ) || BREAKS(LEAVES_LAST_READ))
        post_reads(binding, BREAKS(LEAVES_READ));
}

/* The same, with the device let go. False if the binding is gone. */
static bool offend(struct binding *binding, EFI_EVENT event)
{
    static bool done;

    if (done)
        return true;
    done = true;
    switch (OFFENCE) {
    case FREES_POOL:
        bs->FreePool(binding->spare);
        break;
    case FREES_POOL_ASIDE:
        free_pool_aside(binding->spare);
        break;
    case ALLOCATES_PAGES:
    case TWO_RULES: {
        EFI_PHYSICAL_ADDRESS pages;
        bs->AllocatePages(AllocateAnyPages, EfiBootServicesData, SPARE_PAGES, &pages);
        break;
    }
    case ALLOCATES_BUFFER: {
        EFI_PCI_IO_PROTOCOL *io = binding->pci.io;
        void *buffer;
        io->AllocateBuffer(io, AllocateAnyPages, EfiBootServicesData, SPARE_PAGES, &buffer, 0);
        break;
    }
    case ADDS_MEMORY_SPACE:
        add_memory_space();
        break;
    case DISCONNECTS:
        bs->DisconnectController(binding->pci.controller, NULL, NULL);
        return false;
    case CLOSES_ITS_EVENT:
        bs->CloseEvent(event);
        break;
    case ARMS_TIMER:
        bs->SetTimer(binding->timer, TimerRelative, 10000);
        break;
    case LOCATES: {
        void *found;
        bs->LocateProtocol(&block_io_guid, NULL, &found);
        break;
    }
    case DAWDLES:
        dawdle(binding);
        break;
    case ASKS_LITTLE:
        ask_little();
        break;
    default:
        break;
    }
    return true;
}

static void let_go(struct binding *binding, EFI_EVENT event)
{
    switch (OFFENCE) {
    case LEAVES_RING_LIVE:
    case LEAVES_READ:
    case LEAVES_LAST_READ:
    case LEAVES_MASTER:
    case TWO_RULES:
        break;
    case ONLY_CUTS_BUS:
        pci_master_off(&binding->pci.where);
        break;
    case TOUCHES_DORMANT:
        reg_write8(&binding->blk.requests.device.exit.status, 0, 0);
        break;
    default:
        exit_virtio(event, &binding->exit);
        break;
    }
}

static void EFIAPI at_exit(EFI_EVENT event, void *context)
{
    struct binding *binding = context;

    /* The event that STALE_EVENT leaves behind finds whatever has become of its binding. */
    if (binding->sign != BINDING_SIGN)
        return;
    offend_live(binding);
    let_go(binding, event);
    if (!offend(binding, event))
        return;
    if (BREAKS(FREES_POOL_LAST)) {
        bs->FreePool(binding->spare);
        return;
    }
    /* Something to come back for, or the compiler makes a jump of the offence's call as well. */
    cpu_relax();
}

/* ---- Before the exit ---- */

#define BEFORE_EXIT_GUID                                                                           \
    {                                                                                              \
        0x8be0e274, 0x3970, 0x4b44,                                                                \
        {                                                                                          \
            0x80, 0xc5, 0x1a, 0xb9, 0x50, 0x2f, 0x3b, 0xfc                                         \
        }                                                                                          \
    }

/* The map key that the caller holds is stale from here on. */
static void spoil_key(bool always)
{
    static unsigned calls;
    EFI_PHYSICAL_ADDRESS page;

    if (always || calls++ == 0)
        bs->AllocatePages(AllocateAnyPages, EfiBootServicesData, 1, &page);
}

static void EFIAPI before_exit(EFI_EVENT event, void *context)
{
    (void)event;
    (void)context;
    spoil_key(false);
}

/* Not every firmware signals the before-exit group: Debian 12's does not. So this one stands in
 * front of ExitBootServices itself, as boot loaders that guard it do. */
static EFI_EXIT_BOOT_SERVICES firmwares_exit;

static EFI_STATUS EFIAPI exit_with_stale_key(EFI_HANDLE image, UINTN key)
{
    spoil_key(BREAKS(NEVER_EXITS));
    return firmwares_exit(image, key);
}

/* Binds a disk and lets it go again, as a user does who types `reconnect`. */
static void bind_and_stop(void)
{
    EFI_HANDLE *handles, agents[] = {driver_image, NULL};
    UINTN count;
    bool stopped = false;

    if (EFI_ERROR(bs->LocateHandleBuffer(ByProtocol, &pci_io_guid, NULL, &count, &handles)))
        return;
    for (UINTN i = 0; i < count && !stopped; i++) {
        if (EFI_ERROR(offence_supported(&drivers[0]->binding, handles[i], NULL)))
            continue;
        bs->ConnectController(handles[i], agents, NULL, FALSE);
        stopped = !EFI_ERROR(bs->DisconnectController(handles[i], driver_image, NULL));
    }
    bs->FreePool(handles);
}

EFI_STATUS offence_loaded(void)
{
    EFI_GUID group = BEFORE_EXIT_GUID;
    EFI_EVENT event;

    free_pool_aside = bs->FreePool;
    if (BREAKS(STALE_EVENT))
        bind_and_stop();
    if (BREAKS(NEVER_EXITS) || BREAKS(SPOILS_FIRST_KEY)) {
        firmwares_exit = bs->ExitBootServices;
        bs->ExitBootServices = exit_with_stale_key;
    }
    if (BREAKS(ALLOCATES_BEFORE))
        return bs->CreateEventEx(EVT_NOTIFY_SIGNAL, TPL_CALLBACK, before_exit, NULL, &group,
                                 &event);
    return EFI_SUCCESS;
}

/* ---- Driver Binding ---- */

#define VIRTIO_VENDOR 0x1af4
static const uint16_t virtio_blk_devices[] = {0x1001, 0x1042};

EFI_STATUS EFIAPI offence_supported(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                                    EFI_DEVICE_PATH *remaining)
{
    (void)remaining;
    /* One is enough: the others are for other offenders in the same machine. */
    if (driver_bindings != 0)
        return EFI_UNSUPPORTED;
    return pci_supported(this, controller, VIRTIO_VENDOR, virtio_blk_devices,
                         sizeof(virtio_blk_devices) / sizeof(virtio_blk_devices[0]));
}

static EFI_STATUS prepare(struct binding *binding)
{
    EFI_STATUS status = bs->AllocatePool(EfiBootServicesData, 64, &binding->spare);

    if (!EFI_ERROR(status))
        status = bs->CreateEvent(EVT_TIMER, TPL_CALLBACK, NULL, NULL, &binding->timer);
    if (!EFI_ERROR(status))
        status = bs->AllocatePages(AllocateAnyPages, EfiBootServicesData, READS_PAGES,
                                   &binding->buffers);
    return status;
}

/* Takes back what there is; the exit's own disconnect (DISCONNECTS) comes through here, too. */
static void take_down(struct binding *binding)
{
    bool let_go = true;

    if (binding->disk)
        block_io_finish(&binding->block_io);
    if (binding->shared.pages) {
        let_go = blk_detach(&binding->blk);
        if (let_go)
            pci_unshare(&binding->pci, &binding->shared);
    } else if (binding->blk.requests.device.exit.state == VIRTIO_LIVE) {
        let_go = virtio_down(&binding->blk.requests.device, VIRTIO_RESET_MS, 0);
    }
    if (binding->exit_event && !BREAKS(STALE_EVENT))
        bs->CloseEvent(binding->exit_event);
    if (binding->pci.io)
        pci_close(&binding->pci, let_go);
    if (binding->buffers)
        bs->FreePages(binding->buffers, READS_PAGES);
    if (binding->timer)
        bs->CloseEvent(binding->timer);
    if (binding->spare)
        bs->FreePool(binding->spare);
    binding->sign = 0;
    bs->FreePool(binding);
}

/* As far up as the offence wants the device. */
static EFI_STATUS wake(struct binding *binding, EFI_HANDLE controller)
{
    struct virtio_device *device = &binding->blk.requests.device;
    size_t shared_bytes;

    if (BREAKS(TOUCHES_DORMANT))
        return status_of(virtio_find(device, &binding->pci.door, &binding->pci.where));
    if (BREAKS(LEAVES_MASTER)) {
        enum result result = virtio_find(device, &binding->pci.door, &binding->pci.where);
        if (!result)
            result = virtio_begin(device);
        if (!result)
            result = virtio_negotiate(device, 0);
        return status_of(result ? result : virtio_go(device));
    }

    EFI_STATUS status = status_of(
        blk_attach(&binding->blk, &binding->pci.door, &binding->pci.where, &shared_bytes));
    if (!EFI_ERROR(status))
        status = pci_share(&binding->pci, shared_bytes, &binding->shared);
    if (!EFI_ERROR(status))
        status = status_of(blk_start(&binding->blk, &binding->shared.block));
    if (!EFI_ERROR(status)) {
        status = block_io_install(&binding->block_io, &binding->blk.disk, controller);
        binding->disk = !EFI_ERROR(status);
    }
    return status;
}

EFI_STATUS EFIAPI offence_start(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                                EFI_DEVICE_PATH *remaining)
{
    struct binding *binding;
    (void)remaining;

    EFI_STATUS status = bs->AllocatePool(EfiBootServicesData, sizeof(*binding), (void **)&binding);
    if (EFI_ERROR(status))
        return status;
    bs->SetMem(binding, sizeof(*binding), 0);

    status = prepare(binding);
    if (!EFI_ERROR(status))
        status = pci_open(&binding->pci, this, controller);
    if (EFI_ERROR(status)) {
        binding->pci.io = NULL; /* pci_open() has closed it */
        goto fail;
    }
    binding->sign = BINDING_SIGN;
    binding->exit = (struct exit_virtio_context){&binding->blk.requests.device.exit, exit_shared};
    /* What a disconnect calls wants a low TPL. */
    status = bs->CreateEvent(EVT_SIGNAL_EXIT_BOOT_SERVICES,
                             BREAKS(DISCONNECTS) ? TPL_CALLBACK : TPL_NOTIFY, at_exit, binding,
                             &binding->exit_event);
    if (!EFI_ERROR(status))
        status = wake(binding, controller);
    if (!EFI_ERROR(status))
        status = offence_mark(controller, binding);
    if (EFI_ERROR(status))
        goto fail;
    driver_bindings++;
    return EFI_SUCCESS;

fail:
    take_down(binding);
    return status;
}

EFI_STATUS EFIAPI offence_stop(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                               UINTN children, EFI_HANDLE *child_handles)
{
    struct binding *binding;
    (void)children;
    (void)child_handles;

    EFI_STATUS status = offence_find(this, controller, (void **)&binding);
    if (EFI_ERROR(status))
        return status;
    if (binding->disk && EFI_ERROR(block_io_remove(&binding->block_io)))
        return EFI_DEVICE_ERROR;
    offence_unmark(controller, binding);
    take_down(binding);
    driver_bindings--;
    return EFI_SUCCESS;
}
