#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: BSD-2-Clause-Patent
# All that runs in the Linux that the program of tests/real starts, on top of the lab's initramfs:
# looks at the memory before any driver for the disk is there, has the driver take the disk over,
# reads all of it, and looks again.
#
#   linux: looked when=before bytes=… changed=… first=… last=…
#   linux: disk bytes=… sha256=…
#   linux: looked when=after bytes=… changed=… first=… last=…
#   linux: end

bb=/bin/busybox

end()
{
    echo "linux: $*"
    # Let the console send its last line.
    $bb sleep 0.2
    $bb poweroff -f
}

give_up()
{
    end "failed $*"
}

$bb mount -t devtmpfs dev /dev
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
# From here on the kernel keeps quiet, so that it does not speak into the middle of a line.
echo 1 >/proc/sys/kernel/printk
# The kernel's real-mode code has cleared the screen, without a new line.
echo

for disk in /sys/block/*; do
    [ ! -e "$disk" ] || give_up "${disk##*/} is there before its driver"
done
/watch before || give_up

. /modules/load.sh

# The disk appears when its driver has looked at it, which may be a moment after insmod.
tries=0
until name=$($bb ls /sys/block | $bb grep -E '^(vd|sd|xvd)'); do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || give_up "there is no disk"
    $bb sleep 0.1
done
for disk in $name; do
    digest=$($bb sha256sum <"/dev/$disk")
    read -r sectors <"/sys/block/$disk/size"
    echo "linux: disk bytes=$((sectors * 512)) sha256=${digest%% *}"
done
/watch after || give_up
end "end"
