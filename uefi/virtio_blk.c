// SPDX-License-Identifier: BSD-2-Clause-Patent
/* virtio-blk: Block I/O on the controller's own handle. */

#include "core/virtio/blk.h"
#include "uefi/block_io.h"
#include "uefi/virtio.h"

struct virtio_blk_binding {
    struct virtio_binding virtio;
    struct blk blk;
    struct block_io block_io;
};

static struct virtio_blk_binding *blk_binding(struct virtio_binding *binding)
{
    return CONTAINER_OF(binding, struct virtio_blk_binding, virtio);
}

static enum result attach(struct virtio_binding *binding, size_t *shared_bytes)
{
    return blk_attach(&blk_binding(binding)->blk, &binding->pci.door, &binding->pci.where,
                      shared_bytes);
}

static enum result start(struct virtio_binding *binding)
{
    return blk_start(&blk_binding(binding)->blk, &binding->shared.block);
}

static EFI_STATUS install(struct virtio_binding *binding, EFI_DEVICE_PATH *remaining)
{
    struct virtio_blk_binding *own = blk_binding(binding);
    (void)remaining;

    return block_io_install(&own->block_io, &own->blk.disk, binding->pci.controller);
}

static EFI_STATUS remove(struct virtio_binding *binding)
{
    return block_io_remove(&blk_binding(binding)->block_io);
}

static bool detach(struct virtio_binding *binding)
{
    return blk_detach(&blk_binding(binding)->blk);
}

static void finish(struct virtio_binding *binding)
{
    block_io_finish(&blk_binding(binding)->block_io);
}

struct virtio_driver virtio_blk_driver = {
    .driver = VIRTIO_DRIVER(L"Baton virtio-blk driver"),
    .device_name = L"virtio-blk disk",
    .devices =
        {
            0x1001, /* transitional */
            0x1042, /* modern only */
        },
    .bytes = sizeof(struct virtio_blk_binding),
    .exit_at = offsetof(struct virtio_blk_binding, blk.requests.device.exit),
    .attach = attach,
    .start = start,
    .install = install,
    .remove = remove,
    .detach = detach,
    .finish = finish,
};
