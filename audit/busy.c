/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "audit/busy.h"
#include "audit/devices.h"
#include "audit/watch.h"

enum { DISKS_MAX = 32, DEPTH = 8, READ_BYTES = 64 * 1024 };

static struct disk {
    EFI_BLOCK_IO2_PROTOCOL *io;
    struct device *device;
    uint8_t *buffer;
    EFI_BLOCK_IO2_TOKEN tokens[DEPTH];
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

    if (device == NULL || block == NULL || !block->Media->MediaPresent || disk_count == DISKS_MAX)
        return;
    struct disk *disk = &disks[disk_count];
    *disk = (struct disk){.io = block2, .device = device, .buffer = app_pages(DEPTH * READ_BYTES)};
    disk_count++;
    watch_also(disk->buffer, DEPTH * READ_BYTES);
    UINTN bytes = READ_BYTES - READ_BYTES % block->Media->BlockSize;
    uint64_t size = (block->Media->LastBlock + 1) * block->Media->BlockSize;
    if (size < READ_BYTES)
        bytes = block->Media->BlockSize;
    if (bytes != 0 &&
        !EFI_ERROR(block->ReadBlocks(block, block->Media->MediaId, 0, bytes, disk->buffer)))
        device->busy = "read";
    if (block2 == NULL || bytes != READ_BYTES) {
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

void busy_go(void)
{
    for (size_t i = 0; i < disk_count; i++) {
        struct disk *disk = &disks[i];
        if (disk->io == NULL)
            continue;
        const EFI_BLOCK_IO_MEDIA *media = disk->io->Media;
        uint64_t blocks = READ_BYTES / media->BlockSize;
        uint64_t places = (media->LastBlock + 1) / blocks;
        for (unsigned at = 0; at < DEPTH; at++) {
            EFI_STATUS status = disk->io->ReadBlocksEx(disk->io, media->MediaId,
                                                       at % places * blocks, &disk->tokens[at],
                                                       READ_BYTES, disk->buffer + at * READ_BYTES);
            if (!EFI_ERROR(status))
                disk->device->busy = "reading";
        }
    }
    if (disk_count > 0)
        app.bs->Stall(UNDER_WAY_US);
}
