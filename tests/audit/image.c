// SPDX-License-Identifier: BSD-2-Clause-Patent
/* What all offenders have in common: the image around their binding. */

#include "tests/audit/offence.h"

/* uefi/driver.c's entry point, which ours goes through. */
EFI_STATUS EFIAPI efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *system_table);
EFI_STATUS EFIAPI offender_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *system_table);

EFI_STATUS EFIAPI offender_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *system_table)
{
    EFI_STATUS status = efi_main(image, system_table);
    return EFI_ERROR(status) ? status : offence_loaded();
}

/* An image's own, so that two of them never take each other's bindings for theirs. */
static EFI_GUID mark_guid = {
    0x3b9a7f10, 0x52d4, 0x4c1e, {0x8f, 0x60, 0x17, 0xa4, 0x5c, 0x93, 0xd2, (UINT8)OFFENCE}};

EFI_STATUS offence_mark(EFI_HANDLE controller, void *binding)
{
    return bs->InstallProtocolInterface(&controller, &mark_guid, EFI_NATIVE_INTERFACE, binding);
}

EFI_STATUS offence_unmark(EFI_HANDLE controller, void *binding)
{
    return bs->UninstallProtocolInterface(controller, &mark_guid, binding);
}

EFI_STATUS offence_find(EFI_DRIVER_BINDING_PROTOCOL *this, EFI_HANDLE controller, void **binding)
{
    return bs->OpenProtocol(controller, &mark_guid, binding, this->DriverBindingHandle, controller,
                            EFI_OPEN_PROTOCOL_GET_PROTOCOL);
}

static CHAR16 *name_of(const struct driver *driver, EFI_HANDLE controller, EFI_HANDLE child)
{
    (void)driver;
    (void)controller;
    return child ? NULL : L"device of offender " OFFENCE_NAME;
}

static struct driver offender = {
    /* Before Baton's own, which takes every device of a kind that it knows. */
    .binding = {.Supported = offence_supported,
                .Start = offence_start,
                .Stop = offence_stop,
                .Version = DRIVER_VERSION + 1},
    .name = L"offender " OFFENCE_NAME,
    .name_of = name_of,
};

struct driver *const drivers[] = {&offender};
const size_t driver_count = 1;
