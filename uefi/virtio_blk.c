// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Driver Binding (UEFI 2.10 §11.1) for virtio-blk: the life of one disk. */

#include "core/virtio/blk.h"
#include "uefi/block_io.h"
#include "uefi/pci.h"

struct virtio_blk_binding {
    struct pci_binding pci;
    struct blk blk;
    struct pci_shared shared;
    struct block_io block_io;
    EFI_EVENT exit_event;
    struct exit_virtio_context exit;
};

#define VIRTIO_VENDOR 0x1af4
static const uint16_t virtio_blk_devices[] = {
    0x1001, /* transitional */
    0x1042, /* modern only */
};

static EFI_STATUS EFIAPI supported(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                                   EFI_DEVICE_PATH *remaining)
{
    (void)remaining;
    return pci_supported(this, controller, VIRTIO_VENDOR, virtio_blk_devices,
                         sizeof(virtio_blk_devices) / sizeof(virtio_blk_devices[0]));
}

static EFI_STATUS EFIAPI start(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                               EFI_DEVICE_PATH *remaining)
{
    struct virtio_blk_binding *binding;
    size_t shared_bytes;
    (void)remaining;

    EFI_STATUS status = bs->AllocatePool(EfiBootServicesData, sizeof(*binding), (void **)&binding);
    if (EFI_ERROR(status))
        return status;
    bs->SetMem(binding, sizeof(*binding), 0);

    status = pci_open(&binding->pci, this, controller);
    if (EFI_ERROR(status))
        goto free;

    /* The event comes before the device wakes up, and finds it dormant until then (C1, C3). */
    binding->exit = (struct exit_virtio_context){&binding->blk.device.exit, exit_shared};
    status = bs->CreateEvent(EVT_SIGNAL_EXIT_BOOT_SERVICES, TPL_NOTIFY, exit_virtio, &binding->exit,
                             &binding->exit_event);
    if (EFI_ERROR(status))
        goto close_pci;

    status = status_of(
        blk_attach(&binding->blk, &binding->pci.door, &binding->pci.where, &shared_bytes));
    if (EFI_ERROR(status))
        goto close_event;

    status = pci_share(&binding->pci, shared_bytes, &binding->shared);
    if (EFI_ERROR(status)) {
        blk_detach(&binding->blk); /* the device has seen no memory that could be lost */
        goto close_event;
    }

    status = status_of(blk_start(&binding->blk, &binding->shared.block));
    if (EFI_ERROR(status))
        goto detach;

    status = block_io_install(&binding->block_io, &binding->blk.disk, controller);
    if (EFI_ERROR(status))
        goto detach;

    driver_bindings++;
    return EFI_SUCCESS;

detach:
    if (blk_detach(&binding->blk))
        pci_unshare(&binding->pci, &binding->shared);
close_event:
    bs->CloseEvent(binding->exit_event);
close_pci:
    pci_close(&binding->pci, binding->blk.device.exit.state != VIRTIO_STUCK);
free:
    bs->FreePool(binding);
    return status;
}

static EFI_STATUS EFIAPI stop(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                              UINTN children, EFI_HANDLE *child_handles)
{
    EFI_BLOCK_IO_PROTOCOL *protocol;
    (void)children;
    (void)child_handles;

    EFI_STATUS status =
        bs->OpenProtocol(controller, &block_io_guid, (void **)&protocol, this->DriverBindingHandle,
                         controller, EFI_OPEN_PROTOCOL_GET_PROTOCOL);
    if (EFI_ERROR(status))
        return status;
    struct block_io *block_io = block_io_from(protocol);
    if (!block_io)
        return EFI_UNSUPPORTED;
    struct virtio_blk_binding *binding =
        CONTAINER_OF(block_io, struct virtio_blk_binding, block_io);

    status = block_io_remove(block_io);
    if (EFI_ERROR(status))
        return EFI_DEVICE_ERROR;

    /* From here on there is no way back, and none is needed. The timer may still be polling. */
    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    bool let_go = blk_detach(&binding->blk);
    bs->RestoreTPL(tpl);
    block_io_finish(block_io);
    if (let_go)
        pci_unshare(&binding->pci, &binding->shared);
    bs->CloseEvent(binding->exit_event);
    pci_close(&binding->pci, let_go);
    bs->FreePool(binding);
    driver_bindings--;
    return EFI_SUCCESS;
}

EFI_DRIVER_BINDING_PROTOCOL virtio_blk_driver_binding = {
    .Supported = supported,
    .Start = start,
    .Stop = stop,
    .Version = DRIVER_VERSION,
};

static EFI_STATUS EFIAPI driver_name(EFI_COMPONENT_NAME2_PROTOCOL *this, CHAR8 *language,
                                     CHAR16 **name)
{
    (void)this;
    return name_in_english(language, L"Baton virtio-blk driver", name);
}

static EFI_STATUS EFIAPI controller_name(EFI_COMPONENT_NAME2_PROTOCOL *this, EFI_HANDLE controller,
                                         EFI_HANDLE child, CHAR8 *language, CHAR16 **name)
{
    (void)this;
    if (!controller || !language || !name)
        return EFI_INVALID_PARAMETER;
    if (child || !driver_manages(&virtio_blk_driver_binding, controller))
        return EFI_UNSUPPORTED;
    return name_in_english(language, L"virtio-blk disk", name);
}

EFI_COMPONENT_NAME2_PROTOCOL virtio_blk_component_name = {
    .GetDriverName = driver_name,
    .GetControllerName = controller_name,
    .SupportedLanguages = (CHAR8 *)"en",
};
