// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Driver Binding for a network device that receives, and throws away what it gets. */

#include "tests/audit/receiver.h"
#include "tests/audit/offence.h"

#define POLL_100NS 10000u

struct binding {
    struct pci_binding pci;
    struct pci_shared shared;
    EFI_EVENT exit_event, timer;
    bool attached;
    struct receiver *receiver;
};

EFI_STATUS offence_loaded(void)
{
    return EFI_SUCCESS;
}

static void EFIAPI at_exit(EFI_EVENT event, void *context)
{
    struct binding *binding = context;

    if (binding->attached)
        receiver_exit(binding->receiver, event);
}

static void EFIAPI tick(EFI_EVENT event, void *context)
{
    struct binding *binding = context;
    (void)event;

    receiver_poll(binding->receiver);
}

EFI_STATUS EFIAPI offence_supported(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                                    EFI_DEVICE_PATH *remaining)
{
    (void)remaining;
    /* One is enough: the others are for other offenders in the same machine. */
    if (driver_bindings != 0)
        return EFI_UNSUPPORTED;
    return pci_supported(this, controller, receiver_vendor, receiver_devices,
                         receiver_device_count);
}

static void take_down(struct binding *binding)
{
    bool let_go = true;

    if (binding->timer)
        bs->CloseEvent(binding->timer);
    if (binding->attached)
        let_go = receiver_down(binding->receiver, binding->shared.block.bytes);
    if (binding->shared.pages && let_go)
        pci_unshare(&binding->pci, &binding->shared);
    if (binding->exit_event)
        bs->CloseEvent(binding->exit_event);
    if (binding->pci.io)
        pci_close(&binding->pci, let_go);
    bs->FreePool(binding);
}

EFI_STATUS EFIAPI offence_start(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller,
                                EFI_DEVICE_PATH *remaining)
{
    UINTN bytes = sizeof(struct binding) + receiver_bytes;
    struct binding *binding;
    size_t shared_bytes = 0;
    (void)remaining;

    EFI_STATUS status = bs->AllocatePool(EfiBootServicesData, bytes, (void **)&binding);
    if (EFI_ERROR(status))
        return status;
    bs->SetMem(binding, bytes, 0);
    binding->receiver = (struct receiver *)(binding + 1);

    status = pci_open(&binding->pci, this, controller);
    if (EFI_ERROR(status)) {
        binding->pci.io = NULL; /* pci_open() has closed it */
        goto fail;
    }
    status = bs->CreateEvent(EVT_SIGNAL_EXIT_BOOT_SERVICES, TPL_NOTIFY, at_exit, binding,
                             &binding->exit_event);
    if (EFI_ERROR(status))
        goto fail;
    status = receiver_attach(binding->receiver, &binding->pci, &shared_bytes);
    if (EFI_ERROR(status))
        goto fail;
    binding->attached = true;
    status = pci_share(&binding->pci, shared_bytes, &binding->shared);
    if (EFI_ERROR(status)) {
        binding->shared.pages = 0;
        goto fail;
    }
    status = receiver_start(binding->receiver, &binding->shared.block);
    if (!EFI_ERROR(status))
        status = bs->CreateEvent(EVT_TIMER | EVT_NOTIFY_SIGNAL, TPL_NOTIFY, tick, binding,
                                 &binding->timer);
    if (!EFI_ERROR(status))
        status = bs->SetTimer(binding->timer, TimerPeriodic, POLL_100NS);
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
    offence_unmark(controller, binding);
    take_down(binding);
    driver_bindings--;
    return EFI_SUCCESS;
}
