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
class GuestLog:
    """All it said."""

    root: Root | None = None
    disks: dict[str, Seen] = field(default_factory=dict)
    """By place: PCI address, "00:04.0", or "xen:vbd/51776"."""
    wrote: dict[str, Wrote] = field(default_factory=dict)
    """By name, "vda"."""
    refused: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    ended: bool = False
    kernel_lines: list[str] = field(default_factory=list)
    """The kernel's own lines about paravirtual disks."""


def place_of(path: str) -> str:
    """The device that a path in /sys leads through, as "00:04.0", or "xen:vbd/51776" for one of
    Xen's; "" if none."""
    found = re.search(r"/(vbd)-(\d+)/", f"{path}/")
    return f"xen:{found[1]}/{found[2]}" if found else pci_of(path)


def pci_of(path: str) -> str:
    """The PCI device that a path in /sys leads through, as "00:04.0"; "" if none."""
    found = re.findall(r"/0000:([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])", path)
    return str(found[-1]) if found else ""


def parse(serial: str) -> GuestLog:
    """Read a serial log (plain text, see lab.qemu.plain)."""
    log = GuestLog()
    for line in serial.splitlines():
        if re.match(r"\[ *\d+\.\d+\].*(virtio|xenbus|XENBUS|blkfront|xen:grant|\bx?vbd|xvd)", line):
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
