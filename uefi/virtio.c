// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "uefi/virtio.h"

#define VIRTIO_VENDOR 0x1af4

/* All bindings of this image. Start() and Stop() may come in the middle of each other, from a timer
 * event, so the list is changed at TPL_NOTIFY. */
static struct virtio_binding *bindings;

static const struct virtio_driver *driver_of(EFI_DRIVER_BINDING_PROTOCOL *this)
{
    return CONTAINER_OF(this, struct virtio_driver, driver.binding);
}

static struct virtio_binding *find(const struct virtio_driver *driver, EFI_HANDLE controller)
{
    struct virtio_binding *binding = bindings;

    while (binding && (binding->driver != driver || binding->pci.controller != controller))
        binding = binding->next;
    return binding;
}

static void link_binding(struct virtio_binding *binding)
{
    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    binding->next = bindings;
    bindings = binding;
    driver_bindings++;
    bs->RestoreTPL(tpl);
}

static void unlink_binding(const struct virtio_binding *binding)
{
    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    struct virtio_binding **link = &bindings;
    while (*link != binding)
        link = &(*link)->next;
    *link = binding->next;
    driver_bindings--;
    bs->RestoreTPL(tpl);
}

static bool detach(struct virtio_binding *binding)
{
    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    bool let_go = binding->driver->detach(binding);
    bs->RestoreTPL(tpl);
    return let_go;
}

EFI_STATUS EFIAPI virtio_supported(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                                   EFI_DEVICE_PATH *remaining)
{
    const struct virtio_driver *driver = driver_of(this);
    (void)remaining;

    return pci_supported(this, controller, VIRTIO_VENDOR, driver->devices,
                         sizeof(driver->devices) / sizeof(driver->devices[0]));
}

EFI_STATUS EFIAPI virtio_start(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                               EFI_DEVICE_PATH *remaining)
{
    const struct virtio_driver *driver = driver_of(this);
    struct virtio_binding *binding;
    size_t shared_bytes;

    EFI_STATUS status = bs->AllocatePool(EfiBootServicesData, driver->bytes, (void **)&binding);
    if (EFI_ERROR(status))
        return status;
    bs->SetMem(binding, driver->bytes, 0);
    binding->driver = driver;

    status = pci_open(&binding->pci, this, controller);
    if (EFI_ERROR(status))
        goto free;

    /* The event comes before the device wakes up, and finds it dormant until then (C1, C3). */
    struct virtio_exit *exit = (struct virtio_exit *)(void *)((char *)binding + driver->exit_at);
    binding->exit = (struct exit_virtio_context){exit, exit_shared};
    status = bs->CreateEvent(EVT_SIGNAL_EXIT_BOOT_SERVICES, TPL_NOTIFY, exit_virtio, &binding->exit,
                             &binding->exit_event);
    if (EFI_ERROR(status))
        goto close_pci;

    status = status_of(driver->attach(binding, &shared_bytes));
    if (EFI_ERROR(status))
        goto close_event;

    status = pci_share(&binding->pci, shared_bytes, &binding->shared);
    if (EFI_ERROR(status)) {
        detach(binding); /* the device has seen no memory that could be lost */
        goto close_event;
    }

    status = status_of(driver->start(binding));
    if (EFI_ERROR(status))
        goto detach;

    status = driver->install(binding, remaining);
    if (EFI_ERROR(status))
        goto detach;

    binding->installed = true;
    link_binding(binding);
    return EFI_SUCCESS;

detach:
    if (detach(binding))
        pci_unshare(&binding->pci, &binding->shared);
close_event:
    bs->CloseEvent(binding->exit_event);
close_pci:
    pci_close(&binding->pci, exit->state != VIRTIO_STUCK);
free:
    bs->FreePool(binding);
    return status;
}

static EFI_STATUS remove(struct virtio_binding *binding)
{
    if (binding->installed && EFI_ERROR(binding->driver->remove(binding)))
        return EFI_DEVICE_ERROR;
    binding->installed = false;
    binding->child = NULL;
    return EFI_SUCCESS;
}

EFI_STATUS EFIAPI virtio_stop(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                              UINTN children, EFI_HANDLE *child_handles)
{
    struct virtio_binding *binding = find(driver_of(this), controller);

    if (!binding)
        return EFI_UNSUPPORTED;
    for (UINTN i = 0; i < children; i++)
        if (binding->child && child_handles[i] == binding->child)
            return remove(binding);
    if (children)
        return EFI_SUCCESS;
    if (binding->child || EFI_ERROR(remove(binding)))
        return EFI_DEVICE_ERROR;

    /* From here on there is no way back, and none is needed. A timer of the kind's may still be
     * polling. */
    unlink_binding(binding);
    bool let_go = detach(binding);
    if (binding->driver->finish)
        binding->driver->finish(binding);
    if (let_go)
        pci_unshare(&binding->pci, &binding->shared);
    bs->CloseEvent(binding->exit_event);
    pci_close(&binding->pci, let_go);
    bs->FreePool(binding);
    return EFI_SUCCESS;
}

CHAR16 *virtio_name_of(const struct driver *driver, EFI_HANDLE controller, EFI_HANDLE child)
{
    const struct virtio_driver *kind = CONTAINER_OF(driver, struct virtio_driver, driver);
    const struct virtio_binding *binding = find(kind, controller);

    if (!child)
        return kind->device_name;
    return binding && child == binding->child ? kind->child_name : NULL;
}
