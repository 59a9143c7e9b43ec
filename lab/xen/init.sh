#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause-Patent
# The init of dom0: brings up what Xen's tools need, tells the lab, and then runs the jobs that the
# lab sends, until it is told to switch off.
#
# Jobs come through a virtio serial port, a line each: NUMBER SECONDS. What to run is in the folder
# that the host shares, as job.NUMBER; the output goes to job.NUMBER.out beside it, and when it has
# ended its number and exit status go back through the port. Several may run at a time.

PATH=/usr/lib/xen-4.17/bin:/usr/sbin:/usr/bin
HOME=/jobs
export PATH HOME

say()
{
    echo "baton-dom0: $*"
}

give_up()
{
    say "failed: $*"
    sleep 1
    poweroff -f
}

# Modules complain of nothing that matters here, and Xen's console is where failures are looked for.
echo 4 >/proc/sys/kernel/printk

while read -r module; do
    insmod "/modules/$module" || give_up "insmod $module"
done </modules/order

mkdir -p /dev/pts /dev/shm
# The kernel does not make these; the lock of the hotplug scripts spins for ever without them.
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
mount -t devpts devpts /dev/pts || give_up "mount /dev/pts"
mount -t xenfs xenfs /proc/xen || give_up "mount /proc/xen"
for folder in /dev/shm /run /tmp /var; do
    mount -t tmpfs tmpfs $folder || give_up "mount $folder"
done
mkdir -p /run/xen /run/lock /var/lib/xen /var/log/xen /var/lib/xen/dump
ln -s /run /var/run
ln -s /run/lock /var/lock
mount -t ext4 /dev/vdb /jobs || give_up "mount /jobs"
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=none host /host ||
    give_up "mount /host"

xenstored --pid-file /run/xen/xenstored.pid || give_up "xenstored"
xen-init-dom0 >/dev/null || give_up "xen-init-dom0"
# What guests say on their paravirtual consoles, as it comes, into console/guest-NAME.log.
mkdir -p /host/console
xenconsoled --pid-file=/run/xen/xenconsoled.pid --log=guest --log-dir=/host/console ||
    give_up "xenconsoled"

port=
for entry in /sys/class/virtio-ports/*; do
    if [ "$(cat "$entry/name")" = baton.jobs ]; then
        port=/dev/${entry##*/}
    fi
done
[ -n "$port" ] || give_up "there is no port for jobs"

run_job()
{
    # The time is up for everything that the job has started: timeout makes it a process group.
    timeout --kill-after=3 "$2" sh "/host/job.$1" >"/host/job.$1.out" 2>&1 </dev/null 3>&-
    # One write, so that jobs that end together do not mix their words.
    echo "$1 $?" >&3
}

exec 3<>"$port" || give_up "open $port"
echo "ready" >&3
while read -r number seconds <&3; do
    if [ "$number" = off ]; then
        break
    fi
    run_job "$number" "$seconds" &
done
sync
poweroff -f
