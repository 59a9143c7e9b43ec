// SPDX-License-Identifier: BSD-2-Clause-Patent
/* virtio-scsi: Extended SCSI Pass Thru on the controller's own handle. */

#include "uefi/scsi_pass_thru.h"
#include "uefi/virtio.h"

struct virtio_scsi_binding {
    struct virtio_binding virtio;
    struct scsi scsi;
    struct scsi_pass_thru pass_thru;
};

static struct virtio_scsi_binding *scsi_binding(struct virtio_binding *binding)
{
    return CONTAINER_OF(binding, struct virtio_scsi_binding, virtio);
}

static enum result attach(struct virtio_binding *binding, size_t *shared_bytes)
{
    return scsi_attach(&scsi_binding(binding)->scsi, &binding->pci.door, &binding->pci.where,
                       shared_bytes);
}

static enum result start(struct virtio_binding *binding)
{
    return scsi_start(&scsi_binding(binding)->scsi, &binding->shared.block);
}

static EFI_STATUS install(struct virtio_binding *binding, EFI_DEVICE_PATH *remaining)
{
    struct virtio_scsi_binding *own = scsi_binding(binding);
    (void)remaining;

    return scsi_pass_thru_install(&own->pass_thru, &own->scsi, binding->pci.controller);
}

static EFI_STATUS remove(struct virtio_binding *binding)
{
    return scsi_pass_thru_remove(&scsi_binding(binding)->pass_thru);
}

static bool detach(struct virtio_binding *binding)
{
    return scsi_detach(&scsi_binding(binding)->scsi);
}

static void finish(struct virtio_binding *binding)
{
    scsi_pass_thru_finish(&scsi_binding(binding)->pass_thru);
}

struct virtio_driver virtio_scsi_driver = {
    .driver = VIRTIO_DRIVER(L"Baton virtio-scsi driver"),
    .device_name = L"virtio-scsi adapter",
    .devices =
        {
            0x1004, /* transitional */
            0x1048, /* modern only */
        },
    .bytes = sizeof(struct virtio_scsi_binding),
    .exit_at = offsetof(struct virtio_scsi_binding, scsi.requests.device.exit),
    .attach = attach,
    .start = start,
    .install = install,
    .remove = remove,
    .detach = detach,
    .finish = finish,
};
