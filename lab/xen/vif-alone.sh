#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause-Patent
# shellcheck disable=SC2154
# A hotplug script for network interfaces of guests that lead nowhere: vif = ["script=vif-alone"].
# They are up, as the guest sees it, and what it sends ends in dom0. Nothing of it leaves dom0.

set -e

case $1 in
online)
    ip link set "$vif" up
    # What xl waits for.
    xenstore-write "$XENBUS_PATH/hotplug-status" connected
    ;;
add)
    # The emulated twin, which is the guest's QEMU's.
    ip link set "$INTERFACE" up
    ;;
esac
