#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: BSD-2-Clause-Patent
# The first program in the guest: loads the drivers, finds the root file system that the kernel's
# command line names, mounts it (read-only, but for where it says rw) and goes there. Where it says
# baton.net, there is none, and net.sh is what the guest does. Where it says baton.stop, the lab's
# machine is stopped first (PVPANIC), while all devices are as the firmware left them.

bb=/bin/busybox

give_up()
{
    echo "baton-guest: failed initramfs: $*"
    $bb sleep 1
    $bb poweroff -f
}

$bb mount -t devtmpfs dev /dev
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys

if $bb grep -qw baton.stop /proc/cmdline; then
    $bb printf '\001' | $bb dd of=/dev/port bs=1 seek=$((0x505)) 2>/dev/null
fi

. /modules/load.sh

root=
type=ext4
access=ro
for word in $($bb cat /proc/cmdline); do
    case $word in
    baton.net) exec $bb sh /net.sh ;;
    rw) access=rw ;;
    rootfstype=*) type=${word#rootfstype=} ;;
    root=*) root=${word#root=} ;;
    esac
done
[ -n "$root" ] || give_up "no root= on the command line"

# findfs gives back the name of a device as it is, whether or not that is there.
find_root()
{
    case $root in
    /dev/*) device=$root && [ -b "$device" ] ;;
    *) device=$($bb findfs "$root" 2>/dev/null) ;;
    esac
}

# The disk appears when its driver has looked at it, which may be a moment after insmod.
tries=0
until find_root; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || give_up "nothing is $root; there are: $($bb ls /sys/block | $bb xargs)"
    $bb sleep 0.1
done

$bb mount -t "$type" -o $access "$device" /root || give_up "mount $device"
for folder in dev proc sys; do
    $bb mount --move /$folder /root/$folder || give_up "move $folder"
done
exec $bb switch_root /root /usr/sbin/baton-init
