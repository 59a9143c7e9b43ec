# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Drivers and disks that come and go on a real Xen, and who else may want them."""

import re
import zlib
from dataclasses import dataclass, field

import pytest
from programs import MIB, Ran, name_of, random_bytes, run_program
from shared import WatchedXen

from lab.errors import LabError
from lab.paths import BUILD
from lab.qemu import plain
from lab.xen import XenHost
from lab.xen.disks import attach, detach, disk_name, loop, number_of, stoppable
from lab.xen.guest import Guest
from lab.xen.judge import complaints
from lab.xen.store import Store
from lab.xen.store import parse as parse_trace

TIMES = 100
FIRST_BYTES = 64 << 10


@dataclass
class Seen:
    """What the scenario found."""

    runs: dict[str, Ran] = field(default_factory=dict)
    stores: dict[str, Store] = field(default_factory=dict)
    backs: dict[str, list[str]] = field(default_factory=dict)
    """The backends' states when the guest has ended."""
    held_detached: bool | None = None
    errors: list[str] = field(default_factory=list)


def scenario(xen: XenHost) -> Seen:
    seen = Seen()
    for index in range(2):
        xen.put(random_bytes(4 * MIB, index), f"/jobs/disk{index}.img")
    devices = [loop(xen, f"/jobs/disk{index}.img") for index in range(2)]
    slow = stoppable(xen, devices[1], delay=5)
    disk, plugged = devices[0].spec(name_of(0)), slow.spec(name_of(1))

    def run(name: str, options: str, disks: list[str], *, traced: bool = True, **more: object
            ) -> None:
        def finish(guest: Guest) -> None:
            folder = f"/local/domain/0/backend/vbd/{guest.domain}/"
            seen.backs[name] = [value for path, value in guest.xenstore().items()
                                if path.startswith(folder) and path.endswith("/state")]
            if traced:
                seen.stores[name] = parse_trace(xen.traced())
        if traced:
            xen.trace_store()
        seen.runs[name] = run_program(xen, "xen_lives", options, disks, timeout=600,
                                      finish=finish, **more)  # type: ignore[arg-type]

    def detach_held(guest: Guest) -> None:
        seen.held_detached = detach(xen, guest.domain, name_of(1))

    def detach_rest(guest: Guest) -> None:
        try:
            detach(xen, guest.domain, name_of(1))
        except LabError as error:
            seen.errors.append(str(error))  # xl may have noticed by itself

    run("plug", f"disks=2 plug={number_of(name_of(1))}", [disk], answers={
        "attach": lambda guest: attach(xen, guest.domain, plugged),
        "detach": lambda guest: xen.check(f"xl block-detach {guest.domain} {name_of(1)}",
                                          "xl block-detach", timeout=120),
        "detach-held": detach_held, "detach-rest": detach_rest})
    run("busy", "disks=2 busy=10 claim", [slow.spec(name_of(0))])
    run("lives", f"disks=1 times={TIMES} fail", [], traced=False)
    run("load", "disks=1 load=5", [disk], rom=None, boot_from="hda",
        files={"/EFI/BOOT/BATON.EFI": BUILD / "baton.efi"})
    run("twin", "disks=1 list", [disk], boot_from="hda")
    slow.remove()
    devices[0].remove()
    return seen


@pytest.fixture(name="seen", scope="module")
def fixture_seen(xen: WatchedXen) -> Seen:
    return xen.run(scenario)


@pytest.mark.parametrize("name", ["plug", "busy", "lives", "load", "twin"])
def test_inside(seen: Seen, name: str) -> None:
    """What the program has checked, backends as found, and nothing to complain of."""
    ran = seen.runs[name]
    ran.passed()
    assert seen.backs[name] and set(seen.backs[name]) == {"2"}
    assert not complaints("dom0's kernel", ran.dom0)
    assert not complaints("Xen's log", ran.log.splitlines())


@pytest.mark.parametrize("name", ["busy", "load"])
def test_every_closing_is_whole(seen: Seen, name: str) -> None:
    """Each time: Closing, Closed, Initialising, as often as it was connected."""
    domain = seen.runs[name].guest.domain
    folder = f"/local/domain/{domain}/device/vbd/"
    ways: dict[str, str] = {}
    for change in seen.stores[name].changes:
        if change.domain == domain and change.path.startswith(folder) and \
                change.path.endswith("/state"):
            ways[change.path] = ways.get(change.path, "") + (change.value or "-")
    assert ways
    for path, way in ways.items():
        assert re.fullmatch("(34561)+", way) and len(way) > 5 * 5, f"{path}: {way}"


def test_busy(seen: Seen) -> None:
    cut, of = seen.runs["busy"].said(r"(\d+) of (\d+) reads were cut off by a disconnect")[0].groups()
    # A disk that is given back is drained first, within its bound; what was queued behind the ring
    # may be cut off.
    assert 0 <= int(cut) <= int(of)


def test_two_owners(seen: Seen) -> None:
    """Who comes second is refused, and told why."""
    seen.runs["busy"].said("one owner at a time")
    assert "the firmware's own Xen drivers have the domain already" in \
        plain(seen.runs["busy"].guest.serial)


def test_every_call_of_start_fails(seen: Seen) -> None:
    failed = seen.runs["lives"].said(r"(\d+) calls of Start failed, (\d+) of them .*, (\d+) for .*")
    assert int(failed[0][1]) > 20


def test_plugged(seen: Seen) -> None:
    ran = seen.runs["plug"]
    ran.said("came and went")
    crc = zlib.crc32(random_bytes(4 * MIB, 1)[:FIRST_BYTES])
    assert [int(match[1], 16) for match in ran.said(r"new disk crc ([0-9a-f]+)")] == [crc, crc]
    # While somebody holds it, the guest does not give it back.
    assert seen.held_detached is False


def test_a_twin_is_left_to_the_firmware(seen: Seen) -> None:
    """hda has one Block I/O, and it is the IDE driver's; the disk beside it is Baton's."""
    found = {match[1]: match[2] for match in
             seen.runs["twin"].said(r'disk (\S+) driver "(.*)"')}
    assert len(found) == 2
    paths = sorted(found)
    assert "/Pci(0x1,0x1)/" in paths[0] and not found[paths[0]].startswith("Baton")
    number = number_of(name_of(0))
    assert paths[1].endswith(f"/Ctrl(0x{number:X})")
    assert found[paths[1]] == "Baton Xen PV disk driver"
    assert number != number_of(disk_name(0))
