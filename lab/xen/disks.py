# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Disks for guests of a Xen host: on loop devices or files, and such as answer late or not at all.

    disk = loop(xen, "/jobs/a.img", sector_size=4096)
    run_guest(xen, GuestConfig(disks=[disk.spec("xvde")]))
    disk.remove()

A disk whose backend is to be stopped while requests are in flight goes through the device mapper:

    disk = stoppable(xen, loop(xen, "/jobs/a.img"), delay=20)
    …
    disk.stop()        # from now on blkback gets no answer, and neither does the guest
    disk.go_on()
"""

import re
import shlex
from dataclasses import dataclass
from typing import Literal

from lab.errors import LabError
from lab.xen.host import XenHost

Backend = Literal["blkback", "qdisk"]

FIRST_PV_ONLY = 4
"""xvde: the first disk of an HVM guest that has no emulated twin."""
_DISKS_MAX = 26 - FIRST_PV_ONLY


def disk_name(index: int) -> str:
    """The name of the so-many-th disk that is paravirtual only, from 0: "xvde"."""
    if not 0 <= index < _DISKS_MAX:
        raise LabError(f"{index + 1} disks are more than the lab gives a guest on Xen "
                       f"({_DISKS_MAX})")
    return f"xvd{chr(ord('a') + FIRST_PV_ONLY + index)}"


def number_of(name: str) -> int:
    """The number by which XenStore knows a disk (Xen's vbd-interface(7)): 51776 for "xvde"."""
    index = ord(name[-1]) - ord("a")
    if name.startswith("hd"):
        return (3 << 8 | index << 6) if index < 2 else (22 << 8 | (index - 2) << 6)
    return 202 << 8 | index << 4 if index < 16 else 1 << 28 | index << 8


@dataclass(frozen=True)
class BlockDevice:
    """A block device of dom0's."""

    xen: XenHost
    path: str
    read_only: bool = False

    def spec(self, name: str, *, cdrom: bool = False) -> str:
        """For GuestConfig.disks. blkback serves it."""
        kind = ",devtype=cdrom" if cdrom else ""
        return f"{self.path},raw,{name},{'r' if self.read_only or cdrom else 'w'}{kind}"

    def remove(self) -> None:
        """Give it back. No guest may have it."""
        self.xen.check(f"losetup -d {shlex.quote(self.path)}", f"giving back {self.path}")


def loop(xen: XenHost, file: str, *, sector_size: int = 512, read_only: bool = False) -> BlockDevice:
    """A block device that is a file of dom0's, with sectors of this size."""
    ro = "-r " if read_only else ""
    path = xen.check(f"losetup {ro}-b {sector_size} -f --show {shlex.quote(file)}",
                     f"making a block device of {file}").strip()
    return BlockDevice(xen, path, read_only)


def file_spec(file: str, name: str, *, backend: Backend = "blkback", read_only: bool = False,
              cdrom: bool = False) -> str:
    """For GuestConfig.disks: a file of dom0's. With blkback, xl makes a loop device of it; with
    qdisk, the guest's QEMU reads it. An empty file name is an empty CD-ROM drive."""
    words = [file, "raw", name, "r" if read_only or cdrom else "w"]
    words += ["devtype=cdrom"] if cdrom else []
    words += ["backendtype=qdisk"] if backend == "qdisk" else []
    return ",".join(words)


@dataclass(frozen=True)
class StoppableDevice(BlockDevice):
    """A block device that can be told to answer no more."""

    name: str = ""
    below: BlockDevice | None = None

    def stop(self) -> None:
        """From now on requests wait in dom0, and nobody is told. Those that are on their way to the
        device below are let through first."""
        self.xen.check(f"dmsetup suspend --noflush --nolockfs {self.name}", f"stopping {self.name}")

    def go_on(self) -> None:
        """Answer all that have waited."""
        self.xen.check(f"dmsetup resume {self.name}", f"letting {self.name} go on")

    def remove(self) -> None:
        self.xen.shell(f"dmsetup resume {self.name}")
        self.xen.check(f"dmsetup remove --retry {self.name}", f"giving back {self.name}")
        if self.below is not None:
            self.below.remove()


def stoppable(xen: XenHost, below: BlockDevice, *, delay: int = 0) -> StoppableDevice:
    """A device that passes everything on to this one, each request so many milliseconds later,
    until it is told to stop."""
    name = f"baton{xen.unique('dm').suffix[1:]}"
    sectors = int(xen.check(f"blockdev --getsz {below.path}", "asking for its size"))
    table = f"0 {sectors} delay {below.path} 0 {delay}" if delay else \
        f"0 {sectors} linear {below.path} 0"
    xen.check(f"dmsetup create {name} --noudevsync --table {shlex.quote(table)} && "
              "dmsetup mknodes", f"making {name}")
    return StoppableDevice(xen, f"/dev/mapper/{name}", below.read_only, name, below)


# ---- While a guest runs ----

def attach(xen: XenHost, domain: int, spec: str) -> None:
    """Give a running guest one more disk."""
    xen.check(f"xl block-attach {domain} {shlex.quote(spec)}", "xl block-attach", timeout=120)


def detach(xen: XenHost, domain: int, name: str, *, force: bool = False) -> bool:
    """Take a disk away. False if the guest did not give it back in the time that xl allows it."""
    word = "--force " if force else ""
    status, text = xen.shell(f"xl block-detach {word}{domain} {name}", timeout=120)
    if status != 0 and force or status != 0 and not re.search("timed out|did not|unable to|still", text):
        raise LabError(f"in dom0, xl block-detach failed: {text.strip()}")
    return status == 0


def eject(xen: XenHost, domain: int, name: str) -> None:
    """Take the medium out of a CD-ROM drive that has an emulated twin ("hdc"): xl first asks the
    guest's QEMU, which knows no others."""
    xen.check(f"xl cd-eject {domain} {name}", "xl cd-eject", timeout=120)


def insert(xen: XenHost, domain: int, name: str, file: str) -> None:
    """Put one in; likewise."""
    xen.check(f"xl cd-insert {domain} {name} {shlex.quote(file)}", "xl cd-insert", timeout=120)


# ---- What dom0 has left ----

@dataclass(frozen=True)
class Usage:
    """What is taken of dom0 and of Xen. Two of these, before and after, show what a guest cost."""

    free_memory: int
    """Of the machine, in MiB, as Xen has it."""
    dom0_available: int
    """Of dom0's kernel, in KiB. It moves by itself, with what is cached."""
    grants: int
    """Grant entries of all domains that are in use, xenstored's and xenconsoled's among them."""
    mapped: int
    """Grants that dom0 has mapped."""
    loops: int
    domains: int
    ballooned: int
    """Pages that dom0's kernel holds in reserve for mapping others' (unpopulated or ballooned)."""


def usage(xen: XenHost) -> Usage:
    """Look. Has Xen write its grant tables to its log."""
    before = len(xen.log)
    text = xen.check("""
xl debug-keys g
xl info | sed -n 's/^free_memory *: */free /p'
awk '/^MemAvailable/ { print "dom0", $2 }' /proc/meminfo
echo "loops $(losetup -n -l -O NAME | wc -l)"
echo "domains $(xl list | tail -n +2 | wc -l)"
for file in /sys/devices/system/xen_memory/xen_memory0/info/current_kb; do
    echo "balloon $(cat $file)"
done
""", "looking at dom0")
    found = dict(re.findall(r"^(\w+) (\d+)$", text, re.MULTILINE))
    log = grants_since(xen, before)
    active, mapped = count_grants(log)
    return Usage(free_memory=int(found["free"]), dom0_available=int(found["dom0"]), grants=active,
                 mapped=mapped, loops=int(found["loops"]), domains=int(found["domains"]),
                 ballooned=int(found["balloon"]))


def grants_since(xen: XenHost, begin: int) -> str:
    """Xen's log from there on, when its grant tables are in it."""
    for _ in range(50):
        log = xen.log[begin:]
        if "gnttab_usage_print_all ] done" in log:
            return log
        xen.pump()
    raise LabError("Xen does not show its grant tables")


def count_grants(log: str) -> tuple[int, int]:
    """Entries in use, and how many of them are mapped, in what `xl debug-keys g` writes:

    [0x000]      0 0x0ff000 0x00000001          0 0x0ff000 0x19
    """
    entries = re.findall(r"\[0x[0-9a-f]+\] +(\S+) +0x[0-9a-f]+ +0x([0-9a-f]+)", log)
    return len(entries), sum(int(pins, 16) != 0 for _, pins in entries)
