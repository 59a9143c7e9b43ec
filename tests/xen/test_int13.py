# SPDX-License-Identifier: BSD-2-Clause-Patent
"""INT 13h on a real Xen: Baton's paravirtual disks and SeaBIOS's emulated ones, held to their
contract by a system that calls nothing else (tests/real), and the order in which a guest boots."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from int13 import MIB, Image, Run, images, linux, linux_says, must_hold
from real import boot_disc, boot_sector, run_real
from shared import WatchedXen, assert_nothing_left

from lab.paths import ROM
from lab.xen import GuestConfig, GuestResult, XenHost, run_guest
from lab.xen.disks import Usage, file_spec, loop, usage


@dataclass(frozen=True)
class Soak:
    """Disks of a guest's, and what is done to them."""

    names: tuple[str, ...]
    baton: list[str]
    """What Baton says it has."""
    calls: int
    before: str = ""

    @property
    def orders(self) -> str:
        return f"{self.before}soak {self.calls} functions"


SOAKS = {
    "paravirtual": Soak(("xvde", "xvdf"), ["80h: xvde", "81h: xvdf"], 1500),
    # SeaBIOS's own driver is a slow one here.
    "emulated and paravirtual": Soak(("hda", "xvde"), ["81h: xvde"], 500, "gently "),
}

DISC, DISK = "this is the disc\r\n", "this is the disk\r\n"
_TRY_DISC, _TRY_DISK = "DVD/CD", "Hard Disk"


@dataclass(frozen=True)
class Order:
    """What a guest with a paravirtual disk and a CD-ROM drive is told to boot from, and does."""

    letters: str
    disc: bytes | None
    boots: str
    tries: list[str]
    """As SeaBIOS says it."""


ORDERS = {
    "c": Order("c", boot_disc(boot_sector(DISC)), DISK, [_TRY_DISK]),
    "d": Order("d", boot_disc(boot_sector(DISC)), DISC, [_TRY_DISC]),
    "dc": Order("dc", boot_disc(boot_sector(DISC)), DISC, [_TRY_DISC]),
    "dc, no disc": Order("dc", None, DISK, [_TRY_DISC, _TRY_DISK]),
    "dc, a disc of zeros": Order("dc", bytes(MIB), DISK, [_TRY_DISC, _TRY_DISK]),
}


@dataclass
class Seen:
    """What the scenario found."""

    booted: dict[str, GuestResult] = field(default_factory=dict)
    soaked: dict[str, tuple[Run[GuestResult], list[Image]]] = field(default_factory=dict)
    linux: tuple[Run[GuestResult], Image, str] | None = None
    before: Usage | None = None
    after: Usage | None = None


def boot_by(xen: XenHost, order: Order) -> GuestResult:
    xen.put(order.disc or b"", "/jobs/order.iso")
    xen.put(boot_sector(DISK).ljust(MIB, b"\0"), "/jobs/order.img")
    disk = loop(xen, "/jobs/order.img")
    disc = "" if order.disc is None else "/jobs/order.iso"
    result = run_guest(xen, GuestConfig(
        f"order{xen.unique('order').suffix[1:]}", memory=128, firmware="seabios", rom=ROM,
        disks=[disk.spec("xvde"), file_spec(disc, "hdc", cdrom=True)],
        extra=[f'boot = "{order.letters}"']), timeout=60)
    disk.remove()
    xen.check("rm /jobs/order.*", "removing disks")
    return result


def scenario(xen: XenHost, folder: Path) -> Seen:
    seen = Seen()
    for name, order in ORDERS.items():
        seen.booted[name] = boot_by(xen, order)
        # The first guest brings caches that stay.
        seen.before = seen.before or usage(xen)
    for name, what in SOAKS.items():
        (folder / name).mkdir(exist_ok=True)
        disks = images(folder / name, len(what.names))
        made = run_real(xen, dict(zip(what.names, disks, strict=True)), what.orders)
        seen.soaked[name] = made, disks
    disk, orders = linux(folder / "linux.img")
    seen.linux = run_real(xen, {"xvde": disk}, orders, memory=320), disk, orders
    seen.after = usage(xen)
    return seen


@pytest.fixture(name="seen", scope="module")
def fixture_seen(xen: WatchedXen, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("disks")
    return xen.run(lambda host: scenario(host, folder))


@pytest.mark.parametrize("name", list(SOAKS))
def test_soak(seen: Seen, name: str) -> None:
    (made, disks), what = seen.soaked[name], SOAKS[name]
    must_hold(made, disks, what.orders)
    made.said(rf"soak: {what.calls} calls, 0 refused")
    assert re.findall(r"^Baton: drive (8.h: \w+)", made.result.debug, re.MULTILINE) == what.baton


def test_linux(seen: Seen) -> None:
    """The program starts it with INT 13h alone. It closes the frontend that it finds connected, and
    has its own; and in the memory that is not given to it nothing changes, neither before nor after
    it has done so."""
    assert seen.linux is not None
    made, disk, orders = seen.linux
    assert made.result.ended == "off" and made.lines[-1] == "linux", made.result.explain(40)
    assert disk.check(orders) == 0
    assert made.result.lines("linux: ") == linux_says(disk, made.lines)


@pytest.mark.parametrize("name", list(ORDERS))
def test_boots_in_order(seen: Seen, name: str) -> None:
    result, order = seen.booted[name], ORDERS[name]
    assert result.ended == "off", result.explain()
    assert result.serial == order.boots
    assert re.findall(r"^Booting from ([^.0-9]+)\.\.\.", result.debug, re.MULTILINE) == order.tries


def test_nothing_is_left_in_dom0(seen: Seen) -> None:
    assert_nothing_left(seen.before, seen.after)
