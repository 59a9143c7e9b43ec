// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The Simple Network Protocol (UEFI 2.10 §24.1) over a network interface of core/.
 *
 * All of its functions may be called at TPL_NOTIFY and below; the specification promises callers
 * TPL_CALLBACK. None of them waits.
 */
#pragma once

#include "core/virtio/net.h"
#include "uefi/driver.h"

#include <efinet.h>

struct simple_network {
    EFI_SIMPLE_NETWORK_PROTOCOL snp;
    EFI_SIMPLE_NETWORK_MODE mode;
    EFI_NETWORK_STATISTICS statistics;
    struct net *net;
    EFI_EVENT timer; /* for frames that the device has not been told of */
    bool ticking;
};

/* Makes the protocol, which the caller then installs; the interface is stopped. `net` has been
 * started, and stays until simple_network_finish(). */
EFI_STATUS simple_network_init(struct simple_network *network, struct net *net);

/* Frees what was made, once the protocol is uninstalled. The device is left as it is. */
void simple_network_finish(struct simple_network *network);
