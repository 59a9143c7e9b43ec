// SPDX-License-Identifier: BSD-2-Clause-Patent
/* edk2's private protocol on a handle where a domain's Xen drivers may be bound. Whoever has it
 * open BY_DRIVER has XenStore. */
#pragma once

#include <efi.h>

#define XENIO_PROTOCOL_GUID                                                                        \
    {                                                                                              \
        0x6efac84f, 0x0ab0, 0x4747,                                                                \
        {                                                                                          \
            0x81, 0xbe, 0x85, 0x55, 0x62, 0x59, 0x04, 0x49                                         \
        }                                                                                          \
    }
