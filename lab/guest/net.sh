#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: BSD-2-Clause-Patent
# What the guest does that was booted over the network: has the kernel's own driver take over each
# interface, uses it, says on the console what it sees, in lines that the lab reads, and switches the
# machine off.
#
#   baton-guest: interface name=eth0 mac=52:54:00:ba:70:01 mtu=1500 path=/sys/devices/…
#   baton-guest: lease name=eth0 address=10.0.2.15 server=10.0.2.2
#   baton-guest: pinged name=eth0 address=10.0.2.2 sent=3 received=3
#   baton-guest: fetched name=eth0 file=payload bytes=4194304 sha256=…
#   baton-guest: end
#
# What it is asked comes by QEMU's fw_cfg, as words in opt/baton/tasks:
#
#   fetch=FILE    get a file from the TFTP server

bb=/bin/busybox

# udhcpc calls this very script to tell what it was offered.
if [ -n "$interface" ]; then
    if [ "$1" = bound ]; then
        $bb ip address add "$ip/${mask:-24}" dev "$interface"
        echo "$ip $serverid ${siaddr:-$serverid}" >/lease
    fi
    exit
fi

say()
{
    echo "baton-guest: $*"
}

# From here on the kernel keeps quiet, so that it does not speak into the middle of a line.
echo 1 >/proc/sys/kernel/printk

fetch=
for task in $($bb cat /sys/firmware/qemu_fw_cfg/by_name/opt/baton/tasks/raw 2>/dev/null); do
    case $task in
    fetch=*) fetch=${task#fetch=} ;;
    *) say "failed unknown task $task" ;;
    esac
done

use()
{
    $bb ip link set "$1" up || return
    $bb rm -f /lease
    $bb udhcpc -i "$1" -n -q -t 10 -T 1 -s /net.sh >/dev/null 2>&1
    if ! read -r address server files </lease; then
        say "failed $1 has got no address"
        return
    fi
    say "lease name=$1 address=$address server=$server"
    received=$($bb ping -c 3 -W 3 "$server" | $bb sed -n 's/.* \([0-9]*\) packets received.*/\1/p')
    say "pinged name=$1 address=$server sent=3 received=${received:-0}"
    if [ -n "$fetch" ]; then
        # Blocks as large as fit a packet.
        $bb tftp -g -b 1428 -r "$fetch" -l /fetched "$files" || say "failed $fetch could not be got"
        digest=$($bb sha256sum </fetched)
        say "fetched name=$1 file=$fetch bytes=$($bb stat -c %s /fetched) sha256=${digest%% *}"
    fi
}

for at in /sys/class/net/*; do
    # What has a device behind it.
    [ -e "$at/device" ] || continue
    name=${at##*/}
    say "interface name=$name mac=$($bb cat "$at/address") mtu=$($bb cat "$at/mtu")" \
        "path=$($bb readlink -f "$at")"
    use "$name"
done

say "end"
# Let the console send its last line.
$bb sleep 0.2
$bb poweroff -f
