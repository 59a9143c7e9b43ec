# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Block I/O and Block I/O 2 of the disks of a guest of Xen, checked inside and in the images."""

import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from programs import MIB, Ran, name_of, random_bytes, run_program
from shared import WatchedXen

from lab.xen import XenHost
from lab.xen.disks import BlockDevice, file_spec, loop, number_of

SIZE = 24 * MIB + 4096
KINDS = ("512", "4096", "read-only", "cdrom", "qdisk")
WRITABLE = ("512", "4096", "qdisk")


@dataclass
class Seen:
    """What the scenario found."""

    ran: Ran = field(default_factory=Ran)
    before: list[int] = field(default_factory=list)
    """The images' sums."""
    after: list[int] = field(default_factory=list)


def scenario(xen: XenHost) -> Seen:
    seen = Seen()
    specs, devices = [], list[BlockDevice]()
    for index, kind in enumerate(KINDS):
        path, name = f"/jobs/{kind}.img", name_of(index)
        data = random_bytes(SIZE, index)
        seen.before.append(zlib.crc32(data))
        xen.put(data, path)
        if kind == "cdrom":
            specs.append(file_spec(path, name, cdrom=True))
        elif kind == "qdisk":
            specs.append(file_spec(path, name, backend="qdisk"))
        else:
            devices.append(loop(xen, path, sector_size=4096 if kind == "4096" else 512,
                                read_only=kind == "read-only"))
            specs.append(devices[-1].spec(name))
    # A drive without a disc is no disk.
    specs.append(file_spec("", name_of(len(KINDS)), cdrom=True))
    seen.ran = run_program(xen, "block", f"disks={len(KINDS) + 1} from=1 times=60 seconds=1",
                           specs, timeout=600)
    for device in devices:
        device.remove()
    copy = Path(xen.scratch) / "copy.img"
    for kind in KINDS:
        xen.get(f"/jobs/{kind}.img", copy)
        seen.after.append(zlib.crc32(copy.read_bytes()))
    return seen


@pytest.fixture(name="seen", scope="module")
def fixture_seen(xen: WatchedXen) -> Seen:
    return xen.run(scenario)


def test_what_is_seen_inside(seen: Seen) -> None:
    seen.ran.passed()


@pytest.mark.parametrize("kind", KINDS)
def test_the_image(seen: Seen, kind: str) -> None:
    """What was read is what the host has, byte for byte, and what was written is what it has now."""
    index = KINDS.index(kind)
    first = int(seen.ran.said(rf"crc before {index + 1}: ([0-9a-f]+)")[0][1], 16)
    last = int(seen.ran.said(rf"crc after {index + 1}: ([0-9a-f]+)")[0][1], 16)
    assert (first, last) == (seen.before[index], seen.after[index])
    assert (first != last) == (seen.before[index] != seen.after[index]) == (kind in WRITABLE)


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_says_of_itself(seen: Seen, kind: str) -> None:
    index = KINDS.index(kind)
    line = seen.ran.said(rf"disk {index + 1} (.*)")[0][1]
    fields = dict(re.findall(r'(\S+)=("[^"]*"|\S+)', line))
    block = {"4096": 4096, "cdrom": 2048}.get(kind, 512)
    assert (fields["block"], fields["last"]) == (str(block), str(SIZE // block - 1))
    assert fields["read-only"] == ("0" if kind in WRITABLE else "1")
    assert fields["removable"] == ("1" if kind == "cdrom" else "0")
    assert (fields["present"], fields["logical"], fields["baton"]) == ("1", "0", "1")
    assert (fields["align"], fields["name"]) == ("0", '"Baton Xen PV disk driver"')
    path = seen.ran.said(r"path=(\S+) number=(\d+)")[index]
    number = number_of(name_of(index))
    assert path[2] == str(number)
    assert re.fullmatch(rf"PciRoot\(0x0\)/Pci\(0x2,0x0\)/Ctrl\(0x{number:X}\)", path[1])
    child = seen.ran.said(r'child name="(.*)"')[index]
    assert child[1] == ("Xen PV CD-ROM" if kind == "cdrom" else "Xen PV disk")
    assert seen.ran.said(r'controller name="(.*)"')[index][1] == "Xen platform device"


def test_calls_in_the_middle_of_calls(seen: Seen) -> None:
    """From timer events, on all disks, with and without tokens."""
    found = seen.ran.said(r"(\d+) timer events, (\d+) in the middle of one of \d+ calls, .* 0 wrong")
    assert len(found) == 2 * len(KINDS)
