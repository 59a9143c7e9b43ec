# shellcheck shell=dash disable=SC2154
# SPDX-License-Identifier: BSD-2-Clause-Patent
# Loads the drivers of an initramfs, for its init, which has give_up.
# The list is in order of dependence. Xen's drivers do not load elsewhere.

while read -r module; do
    case $module in
    xen*) [ -e /sys/hypervisor/type ] || continue ;;
    esac
    $bb insmod "/modules/$module" || give_up "insmod $module"
done </modules/order
