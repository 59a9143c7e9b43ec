#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause-Patent
# The guest's init: says on the console what it sees, in lines that the lab reads, does what it was
# asked to do, and switches the machine off.
#
#   baton-guest: root device=/dev/vda2 options=ro,relatime path=/sys/devices/…/0000:00:04.0/…
#   baton-guest: disk name=vda bytes=67108864 sector=512 ro=0 path=/sys/devices/… sha256=…
#   baton-guest: wrote name=vdb at=/dev/vdb bytes=8388608 from=100000000 sha256=…
#   baton-guest: refused name=vdc
#   baton-guest: end
#
# What it is asked comes by QEMU's fw_cfg, as words in opt/baton/tasks; or, where there is none, on
# the kernel's command line, as baton.tasks=WORD,WORD:
#
#   write=BYTES   write a pattern to every disk (of the root's disk: to the partition called
#                 "scratch", or its last one), flush, forget what was cached, and read it back
#   nosum         do not read whole disks
#   run=DISK:BYTES:WORD…   run the program that these first bytes of a disk are, with more words
#                 between colons; what it says goes to the console as it is

PATH=/usr/sbin:/usr/bin

say()
{
    echo "baton-guest: $*"
}

# From here on the kernel keeps quiet, so that it does not speak into the middle of a line.
echo 1 >/proc/sys/kernel/printk

tasks=
if [ -e /sys/firmware/qemu_fw_cfg/by_name/opt/baton/tasks/raw ]; then
    tasks=$(cat /sys/firmware/qemu_fw_cfg/by_name/opt/baton/tasks/raw)
else
    for word in $(cat /proc/cmdline); do
        case $word in
        baton.tasks=*) tasks=$(echo "${word#baton.tasks=}" | tr , ' ') ;;
        esac
    done
fi
write=
run=
sum=yes
for task in $tasks; do
    case $task in
    write=*) write=${task#write=} ;;
    nosum) sum= ;;
    run=*) run=${task#run=} ;;
    *) say "failed unknown task $task" ;;
    esac
done

while read -r device place _ options _; do
    if [ "$place" = / ]; then
        path=$(readlink -f "/sys/class/block/${device#/dev/}")
        say "root device=$device options=$options path=$path"
    fi
done </proc/mounts

# The disks, in the order in which the host has them. SCSI disks get their names as they are found.
disks=
for disk in /sys/block/vd* /sys/block/xvd*; do
    [ ! -e "$disk" ] || disks="$disks $disk"
done
for disk in $(readlink -f /sys/block/s[dr][a-z0-9]* | sort -V); do
    [ ! -e "$disk" ] || disks="$disks /sys/block/${disk##*/}"
done

for disk in $disks; do
    name=${disk##*/}
    read -r sectors <"$disk/size"
    read -r sector <"$disk/queue/logical_block_size"
    read -r ro <"$disk/ro"
    digest=
    if [ -n "$sum" ]; then
        digest=$(sha256sum <"/dev/$name") || digest="unreadable"
    fi
    say "disk name=$name bytes=$((sectors * 512)) sector=$sector ro=$ro" \
        "path=$(readlink -f "$disk") sha256=${digest%% *}"
done

# Which device of a disk may be overwritten: the disk, or the part of the root's disk that is spare.
spare_of()
{
    partitions= unnamed=
    for part in "/sys/block/$1/$1"*/uevent; do
        [ -e "$part" ] || continue
        partitions=yes
        node=${part%/uevent}
        if grep -q '^PARTNAME=scratch$' "$part"; then
            echo "/dev/${node##*/}"
            return
        fi
        grep -q '^PARTNAME=' "$part" || unnamed=/dev/${node##*/}
    done
    # Partitions of a PC BIOS's disk have no names: it is the last one.
    [ -z "$unnamed" ] || echo "$unnamed"
    [ -n "$partitions" ] || echo "/dev/$1"
}

if [ -n "$write" ]; then
    # Numbers of nine digits, one a line: every line says where it belongs, and seq makes them
    # quickly. Each disk begins with a number of its own.
    from=100000000
    for disk in $disks; do
        name=${disk##*/}
        target=$(spare_of "$name")
        [ -n "$target" ] || continue
        if seq "$from" 999999999 2>/dev/null | head -c "$write" 2>/dev/null >"$target"; then
            sync "$target"
        else
            say "refused name=$name"
            continue
        fi
        echo 3 >/proc/sys/vm/drop_caches
        digest=$(head -c "$write" "$target" | sha256sum)
        say "wrote name=$name at=$target bytes=$write from=$from sha256=${digest%% *}"
        from=$((from + 10000000))
    done 2>&1
fi

if [ -n "$run" ]; then
    IFS=:
    # shellcheck disable=SC2086
    set -- $run
    unset IFS
    # /dev is memory, and the one place where a file can be made.
    head -c "$2" "/dev/$1" >/dev/baton-program
    chmod 755 /dev/baton-program
    shift 2
    /dev/baton-program "$@" || say "failed the program, with status $?"
fi

sync
say "end"
# Let the console send its last line.
sleep 0.2
echo o >/proc/sysrq-trigger
sleep 60
