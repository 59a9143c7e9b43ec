// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * How every virtio device is let go (C3 to C7). This file and exit.c are all of core/virtio that
 * runs inside ExitBootServices; they know the poor door only.
 */
#pragma once

#include "core/regs.h"

enum virtio_state {
    VIRTIO_DORMANT, /* reset, or never started: nothing to do */
    VIRTIO_LIVE,    /* started: it may read and write what it was shown */
    VIRTIO_STUCK,   /* it did not acknowledge a reset; its memory is not ours any more (C5) */
};

struct virtio_exit {
    enum virtio_state state;
    struct reg_window status; /* device status, one byte: virtio 1.2 §2.1 */
    struct pci_function function;
};

/*
 * Writes 0 to the device's status and waits for it to read back as 0: only then has the device let
 * go (virtio 1.2 §4.1.4.3.2). False if it does not by the deadline. Leaves bus mastering and the
 * state alone, so that a driver may start the device again.
 */
bool virtio_reset(const struct virtio_exit *device, const struct poor_door *door);

/*
 * Takes a device back that may be live: reset, acknowledged, then bus mastering off. Does nothing
 * to a dormant one, and may be called again (C3). True if the device has let go. If it has not, it
 * is stuck: bus mastering is off, and its memory must not be freed (C5).
 */
bool virtio_quiesce(struct virtio_exit *device, const struct poor_door *door);
