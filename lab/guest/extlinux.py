# SPDX-License-Identifier: BSD-2-Clause-Patent
"""EXTLINUX for a PC BIOS. It lies in the root's file system, and its installer has to have that
mounted: so the guest runs it, as a Debian does that changes its own boot loader."""

from pathlib import Path

from lab import guestlog
from lab.errors import LabError
from lab.qemu import Bios, Disk, Machine, plain, run

PACKAGE = "extlinux"
CONFIG = "boot/extlinux/extlinux.conf"
FIRST_SECTOR = "usr/lib/EXTLINUX/mbr.bin"
"""The program in front of the partition table, which starts the active partition's first sector."""

# Nobody unmounts the root when the guest ends. The kernel does, in its own time, what leaves no
# journal to be played back.
_SCRIPT = b"""#!/bin/sh
extlinux --install /boot/extlinux || exit
echo u >/proc/sysrq-trigger
until grep -q ' / ext4 ro' /proc/mounts; do sleep 0.1; done
"""


def install(disk: Path, boot: Path, root: str, scratch: Path) -> None:
    """Run the installer on a disk whose root is `root`, in the kernel's words, and has in /boot what
    the folder `boot` has."""
    script = scratch / "install.sh"
    script.write_bytes(_SCRIPT.ljust(-(-len(_SCRIPT) // 512) * 512, b"\n"))
    result = run(Machine(
        disks=[Disk(disk), Disk(script)], firmware=Bios(), trace_events=(), debug_exit=False,
        fw_cfg={"opt/baton/tasks": f"nosum run=vdb:{len(_SCRIPT)}"},
        extra=["-kernel", str(boot / "vmlinuz"), "-initrd", str(boot / "initrd.img"), "-append",
               f"{root} rw console=ttyS0,115200 quiet panic=-1"]))
    log = guestlog.parse(plain(result.serial))
    if result.ended != "off" or not log.ended or log.failures:
        raise LabError(f"EXTLINUX could not be installed: {result.explain()}")
