// SPDX-License-Identifier: BSD-2-Clause-Patent
#pragma once

#include "uefi/driver.h"

/* A copy of `parent` with one more node at its end, to be freed with FreePool(). NULL if there is
 * no memory. Both have been checked, or are our own. */
EFI_DEVICE_PATH *device_path_append(const EFI_DEVICE_PATH *parent, const EFI_DEVICE_PATH *node);
