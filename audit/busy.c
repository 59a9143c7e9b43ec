/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "audit/busy.h"
#include "audit/virtio.h"
#include "audit/watch.h"

/* Large, so that on a slow disk what is in flight at the call is so for a while after it. */
enum { DISKS_MAX = 32, DEPTH = 8, READ_BYTES = 256 * 1024 };

static struct disk {
    EFI_BLOCK_IO2_PROTOCOL *io;
    struct device *device;
    uint8_t *buffer;
    EFI_BLOCK_IO2_TOKEN tokens[DEPTH];
    bool under_way[DEPTH]; /* submitted, and not known to be done */
    bool waits;            /* the driver returns only when it has read, or does not read at all */
} disks[DISKS_MAX];
static size_t disk_count;

static struct device *device_of(EFI_HANDLE handle)
{
    struct app_pci place;

    if (!app_pci_of(handle, &place))
        return NULL;
    for (size_t i = 0; i < device_count; i++)
        if (devices[i].handle == place.handle)
            return &devices[i];
    return NULL;
}

static void prepare_disk(EFI_HANDLE handle)
{
    static const EFI_GUID block_guid = EFI_BLOCK_IO_PROTOCOL_GUID;
    static const EFI_GUID block2_guid = EFI_BLOCK_IO2_PROTOCOL_GUID;
    EFI_BLOCK_IO_PROTOCOL *block = app_protocol(handle, &block_guid);
    EFI_BLOCK_IO2_PROTOCOL *block2 = app_protocol(handle, &block2_guid);
    struct device *device = device_of(handle);

    if (device == NULL || block == NULL || !block->Media->MediaPresent ||
        block->Media->BlockSize == 0 || block->Media->BlockSize > READ_BYTES ||
        disk_count == DISKS_MAX)
        return;
    struct disk *disk = &disks[disk_count];
    *disk = (struct disk){.io = block2, .device = device, .buffer = app_pages(DEPTH * READ_BYTES)};
    disk_count++;
    watch_also(disk->buffer, DEPTH * READ_BYTES);
    uint64_t size = (block->Media->LastBlock + 1) * block->Media->BlockSize;
    if (!EFI_ERROR(block->ReadBlocks(block, block->Media->MediaId, 0, block->Media->BlockSize,
                                     disk->buffer)))
        device->busy = "read";
    if (block2 == NULL || READ_BYTES % block->Media->BlockSize != 0 || size < READ_BYTES) {
        disk->io = NULL;
        return;
    }
    for (unsigned i = 0; i < DEPTH; i++)
        app_assert_ok(app.bs->CreateEvent(0, 0, NULL, NULL, &disk->tokens[i].Event));
}

static void start_interface(EFI_HANDLE handle)
{
    static const EFI_GUID network_guid = EFI_SIMPLE_NETWORK_PROTOCOL_GUID;
    EFI_SIMPLE_NETWORK_PROTOCOL *net = app_protocol(handle, &network_guid);
    struct device *device = device_of(handle);

    if (net == NULL || device == NULL || net->Mode == NULL)
        return;
    if (net->Mode->State == EfiSimpleNetworkStopped)
        (void)net->Start(net);
    if (net->Mode->State == EfiSimpleNetworkStarted)
        (void)net->Initialize(net, 0, 0);
    if (net->Mode->State != EfiSimpleNetworkInitialized)
        return;
    UINT32 filters =
        net->Mode->ReceiveFilterMask &
        (EFI_SIMPLE_NETWORK_RECEIVE_UNICAST | EFI_SIMPLE_NETWORK_RECEIVE_BROADCAST |
         EFI_SIMPLE_NETWORK_RECEIVE_PROMISCUOUS | EFI_SIMPLE_NETWORK_RECEIVE_PROMISCUOUS_MULTICAST);
    /* Whether it takes the filters or not, it is initialised, and its buffers are posted. */
    (void)net->ReceiveFilters(net, filters, 0, FALSE, 0, NULL);
    device->busy = "receiving";
}

void busy_prepare(void)
{
    static const EFI_GUID network_guid = EFI_SIMPLE_NETWORK_PROTOCOL_GUID;
    static EFI_HANDLE handles[256];
    size_t count = app_disks(handles, DISKS_MAX);

    for (size_t i = 0; i < count; i++)
        prepare_disk(handles[i]);
    count = app_handles(&network_guid, handles, 256);
    for (size_t i = 0; i < count; i++)
        start_interface(handles[i]);
}

/* Many a driver only puts a request in a list, and looks at the list when its timer ticks. */
enum { UNDER_WAY_US = 50000 };

static bool is_under_way(struct disk *disk, unsigned at)
{
    if (disk->under_way[at])
        disk->under_way[at] = app.bs->CheckEvent(disk->tokens[at].Event) == EFI_NOT_READY;
    return disk->under_way[at];
}

static void submit(struct disk *disk, unsigned at)
{
    if (disk->io == NULL || disk->waits || is_under_way(disk, at))
        return;
    const EFI_BLOCK_IO_MEDIA *media = disk->io->Media;
    uint64_t blocks = READ_BYTES / media->BlockSize;
    uint64_t places = (media->LastBlock + 1) / blocks;
    disk->under_way[at] = !EFI_ERROR(
        disk->io->ReadBlocksEx(disk->io, media->MediaId, at % places * blocks, &disk->tokens[at],
                               READ_BYTES, disk->buffer + at * READ_BYTES));
}

static void submit_all(void)
{
    for (unsigned at = 0; at < DEPTH; at++)
        for (size_t i = 0; i < disk_count; i++)
            submit(&disks[i], at);
}

void busy_go(void)
{
    if (disk_count == 0)
        return;
    /* One for each disk first: drivers that wait do so before the others have all of theirs. */
    for (size_t i = 0; i < disk_count; i++) {
        submit(&disks[i], 0);
        disks[i].waits = !is_under_way(&disks[i], 0);
    }
    submit_all();
    app.bs->Stall(UNDER_WAY_US);
    /* A fast disk has done them all by now. */
    submit_all();
}

void busy_at_call(void)
{
    for (size_t i = 0; i < disk_count; i++)
        for (unsigned at = 0; at < DEPTH; at++) {
            if (!is_under_way(&disks[i], at))
                continue;
            disks[i].device->busy = "reading";
            /* A virtio ring has told where what it holds is to go. */
            if (!kind_is_virtio(disks[i].device->kind))
                shared_add(disks[i].device, (uintptr_t)disks[i].buffer + at * READ_BYTES,
                           READ_BYTES, DEVICE_WRITES, "buffer of a read", 0);
        }
}
