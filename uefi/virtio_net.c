// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * virtio-net: Simple Network on a handle of its own, whose device path ends in the interface's
 * address. That is where firmware's network stack looks: it binds to a handle with the two, and
 * names its boot options after the path. (A Network Interface Identifier, for callers who drive
 * interfaces through UNDI, would have nothing to point to.)
 */

#include "core/virtio/net.h"
#include "uefi/device_path.h"
#include "uefi/simple_network.h"
#include "uefi/virtio.h"

static EFI_GUID device_path_guid = EFI_DEVICE_PATH_PROTOCOL_GUID;
static EFI_GUID simple_network_guid = EFI_SIMPLE_NETWORK_PROTOCOL_GUID;

struct virtio_net_binding {
    struct virtio_binding virtio;
    struct net net;
    struct simple_network network;
    EFI_DEVICE_PATH *path;
};

static struct virtio_net_binding *net_binding(struct virtio_binding *binding)
{
    return CONTAINER_OF(binding, struct virtio_net_binding, virtio);
}

static enum result attach(struct virtio_binding *binding, size_t *shared_bytes)
{
    return net_attach(&net_binding(binding)->net, &binding->pci.door, &binding->pci.where,
                      shared_bytes);
}

static enum result start(struct virtio_binding *binding)
{
    return net_start(&net_binding(binding)->net, &binding->shared.block);
}

/* UEFI 2.10 §10.3.4.9 */
#pragma pack(push, 1)
struct mac_node {
    EFI_DEVICE_PATH header;
    EFI_MAC_ADDRESS address;
    UINT8 type;
};
#pragma pack(pop)
_Static_assert(sizeof(struct mac_node) == 37, "UEFI 2.10 §10.3.4.9");

static EFI_DEVICE_PATH *path_of(EFI_HANDLE controller, const EFI_SIMPLE_NETWORK_MODE *mode)
{
    const struct mac_node node = {
        .header = {MESSAGING_DEVICE_PATH, MSG_MAC_ADDR_DP, {sizeof(node), 0}},
        .address = mode->PermanentAddress,
        .type = mode->IfType,
    };
    void *parent;

    if (EFI_ERROR(bs->HandleProtocol(controller, &device_path_guid, &parent)))
        return NULL;
    return device_path_append(parent, &node.header);
}

static EFI_STATUS install(struct virtio_binding *binding, EFI_DEVICE_PATH *remaining)
{
    struct virtio_net_binding *own = net_binding(binding);
    void *io;
    (void)remaining; /* there is one child, and it is made at once */

    EFI_STATUS status = simple_network_init(&own->network, &own->net);
    if (EFI_ERROR(status))
        return status;
    own->path = path_of(binding->pci.controller, &own->network.mode);
    if (!own->path) {
        status = EFI_OUT_OF_RESOURCES;
        goto finish;
    }
    status = bs->InstallMultipleProtocolInterfaces(&binding->child, &device_path_guid, own->path,
                                                   &simple_network_guid, &own->network.snp, NULL);
    if (EFI_ERROR(status))
        goto free;
    status = bs->OpenProtocol(binding->pci.controller, &pci_io_guid, &io,
                              binding->pci.driver->DriverBindingHandle, binding->child,
                              EFI_OPEN_PROTOCOL_BY_CHILD_CONTROLLER);
    if (!EFI_ERROR(status))
        return EFI_SUCCESS;

    bs->UninstallMultipleProtocolInterfaces(binding->child, &device_path_guid, own->path,
                                            &simple_network_guid, &own->network.snp, NULL);
free:
    bs->FreePool(own->path);
finish:
    simple_network_finish(&own->network);
    binding->child = NULL;
    return status;
}

static EFI_STATUS remove(struct virtio_binding *binding)
{
    struct virtio_net_binding *own = net_binding(binding);
    EFI_HANDLE driver = binding->pci.driver->DriverBindingHandle;
    void *io;

    bs->CloseProtocol(binding->pci.controller, &pci_io_guid, driver, binding->child);
    EFI_STATUS status =
        bs->UninstallMultipleProtocolInterfaces(binding->child, &device_path_guid, own->path,
                                                &simple_network_guid, &own->network.snp, NULL);
    if (EFI_ERROR(status)) {
        /* What stood above may have been taken down before one of them refused. */
        bs->OpenProtocol(binding->pci.controller, &pci_io_guid, &io, driver, binding->child,
                         EFI_OPEN_PROTOCOL_BY_CHILD_CONTROLLER);
        bs->ConnectController(binding->child, NULL, NULL, TRUE);
        return status;
    }
    simple_network_finish(&own->network);
    bs->FreePool(own->path);
    return EFI_SUCCESS;
}

static bool detach(struct virtio_binding *binding)
{
    return net_detach(&net_binding(binding)->net);
}

struct virtio_driver virtio_net_driver = {
    .driver = VIRTIO_DRIVER(L"Baton virtio-net driver"),
    .device_name = L"virtio-net device",
    .child_name = L"virtio-net interface",
    .devices =
        {
            0x1000, /* transitional */
            0x1041, /* modern only */
        },
    .bytes = sizeof(struct virtio_net_binding),
    .exit_at = offsetof(struct virtio_net_binding, net.device.exit),
    .attach = attach,
    .start = start,
    .install = install,
    .remove = remove,
    .detach = detach,
};
