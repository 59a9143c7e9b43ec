# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the guest's init says on the console (see lab/guest/init.sh), and the pattern it writes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Root:
    """Where the guest's root file system is."""

    device: str
    options: str
    path: str


@dataclass(frozen=True)
class Seen:
    """A disk as the guest has it, and the sha256 of all of it ("" where it was not asked for)."""

    name: str
    bytes: int
    sector: int
    read_only: bool
    path: str
    sha256: str


@dataclass(frozen=True)
class Wrote:
    """A pattern that was written, and the sha256 of what was read back."""

    name: str
    at: str
    bytes: int
    start: int
    sha256: str


@dataclass
class Net:
    """A network interface as the guest has it, and what it did with it."""

    name: str
    mac: str
    path: str
    address: str = ""
    """From the DHCP server,"""
    server: str = ""
    """which is here."""
    sent: int = 0
    received: int = 0
    """How often it was asked for a sign of life, and how often it gave one."""
    bytes: int = 0
    sha256: str = ""
    """Of the file that was got from it."""


@dataclass
class GuestLog:
    """All it said."""

    root: Root | None = None
    disks: dict[str, Seen] = field(default_factory=dict)
    """By place: PCI address, "00:04.0"; behind that target and LUN for a SCSI disk, "00:04.0/0:1";
    or "xen:vbd/51776"."""
    nets: dict[str, Net] = field(default_factory=dict)
    """By PCI address."""
    wrote: dict[str, Wrote] = field(default_factory=dict)
    """By name, "vda"."""
    refused: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    ended: bool = False
    kernel_lines: list[str] = field(default_factory=list)
    """The kernel's own lines about paravirtual devices."""


def place_of(path: str) -> str:
    """The device that a path in /sys leads through, as "00:04.0", "00:04.0/0:1" for a unit of a
    SCSI controller, or "xen:vbd/51776" for one of Xen's; "" if none."""
    found = re.search(r"/(vbd)-(\d+)/", f"{path}/")
    if found:
        return f"xen:{found[1]}/{found[2]}"
    unit = re.search(r"/target[\d:]+/\d+:\d+:(\d+:\d+)/", path)
    return f"{pci_of(path)}/{unit[1]}" if unit else pci_of(path)


def pci_of(path: str) -> str:
    """The PCI device that a path in /sys leads through, as "00:04.0"; "" if none."""
    found = re.findall(r"/0000:([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])", path)
    return str(found[-1]) if found else ""


def parse(serial: str) -> GuestLog:
    """Read a serial log (plain text, see lab.qemu.plain)."""
    log = GuestLog()
    for line in serial.splitlines():
        if re.match(r"\[ *\d+\.\d+\].*(virtio|xenbus|XENBUS|blkfront|xen:grant|\bx?vbd|xvd"
                    r"|scsi|\bsd [\d:]+|\bsr\d|\beth\d)", line):
            log.kernel_lines.append(line)
        head, _, rest = line.partition("baton-guest: ")
        if head or not rest:
            continue
        kind, _, text = rest.partition(" ")
        words = dict(word.partition("=")[::2] for word in text.split())
        try:
            _take(log, kind, words, text)
        except (KeyError, ValueError):
            log.failures.append(f"a line of the guest's is garbled: {line}")
    return log


def _take(log: GuestLog, kind: str, words: dict[str, str], text: str) -> None:
    if kind == "root":
        log.root = Root(words["device"], words["options"], words["path"])
    elif kind == "disk":
        log.disks[place_of(words["path"])] = Seen(
            words["name"], int(words["bytes"]), int(words["sector"]), words["ro"] == "1",
            words["path"], words["sha256"])
    elif kind == "wrote":
        log.wrote[words["name"]] = Wrote(words["name"], words["at"], int(words["bytes"]),
                                         int(words["from"]), words["sha256"])
    elif kind == "interface":
        log.nets[pci_of(words["path"])] = Net(words["name"], words["mac"], words["path"])
    elif kind in ("lease", "pinged", "fetched"):
        net = next((net for net in log.nets.values() if net.name == words["name"]), None)
        if net is None:
            raise KeyError(words["name"])
        if kind == "lease":
            net.address, net.server = words["address"], words["server"]
        elif kind == "pinged":
            net.sent, net.received = int(words["sent"]), int(words["received"])
        else:
            net.bytes, net.sha256 = int(words["bytes"]), words["sha256"]
    elif kind == "refused":
        log.refused.append(words["name"])
    elif kind == "failed":
        log.failures.append(text)
    elif kind == "end":
        log.ended = True
    else:
        raise KeyError(kind)


def pattern(start: int, size: int) -> bytes:
    """What the guest writes: numbers from `start` on, one a line, cut at `size` bytes."""
    def pieces() -> Iterator[bytes]:
        for at in range(0, -(-size // 10), 65536):
            yield b"".join(b"%d\n" % number for number in range(start + at, start + at + 65536))
    return b"".join(pieces())[:size]
