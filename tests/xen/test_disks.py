# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the tests on Xen stand on: disks in dom0, disks that stop, and what dom0 has left."""

from dataclasses import dataclass, field

import pytest
from shared import WatchedXen, assert_nothing_left

from lab.errors import LabError
from lab.xen import GuestConfig, GuestResult, XenHost, run_guest
from lab.xen.disks import (Usage, attach, detach, eject, file_spec, insert, loop, stoppable, usage)
from lab.xen.guest import Guest
from lab.xen.store import Store
from lab.xen.store import parse as parse_trace

READ = "dd if={path} of=/dev/null bs=4096 count=64 iflag=direct"


@dataclass
class Seen:
    """What the scenario found."""

    fixed: bool = False
    sector: str = ""
    read_only: str = ""
    stopped: int | None = 0
    went_on: int | None = None
    before: Usage | None = None
    within: Usage | None = None
    after: Usage | None = None
    guest: GuestResult | None = None
    store: Store = field(default_factory=Store)
    attached: dict[str, str] = field(default_factory=dict)
    ejected: str = ""
    inserted: str = ""
    errors: list[str] = field(default_factory=list)


def scenario(xen: XenHost) -> Seen:
    seen = Seen(fixed=xen.interrupts_fixed)
    xen.put(bytes(8 << 20), "/jobs/a.img")
    xen.put(bytes(1 << 20), "/jobs/cd.iso")
    xen.shell("sync")
    seen.before = usage(xen)
    big = loop(xen, "/jobs/a.img", sector_size=4096, read_only=True)
    seen.sector = xen.check(f"blockdev --getss {big.path}", "asking").strip()
    seen.read_only = xen.check(f"blockdev --getro {big.path}", "asking").strip()
    big.remove()

    disk = stoppable(xen, loop(xen, "/jobs/a.img"), delay=5)
    read = READ.format(path=disk.path)
    xen.check(read, "reading")
    disk.stop()
    job = xen.start(read, timeout=60)
    seen.stopped = xen.wait(xen.start("sleep 5", timeout=20)).status if job.running else -1
    seen.stopped = None if job.running else job.status
    disk.go_on()
    seen.went_on = xen.wait(job).status
    seen.within = usage(xen)

    xen.trace_store()

    def prepare(guest: Guest) -> None:
        attach(xen, guest.domain, file_spec("/jobs/cd.iso", "xvdg"))
        seen.attached = guest.xenstore()
        # The guest is paused, so it does not give it back.
        try:
            if detach(xen, guest.domain, "xvdg", force=True):
                seen.attached["detached"] = "yes"
        except LabError as error:
            seen.errors.append(str(error))
        # A CD-ROM drive's backend is the guest's QEMU.
        node = f"/local/domain/0/backend/qdisk/{guest.domain}/5632/params"
        seen.attached["disc"] = guest.xenstore().get(node, "missing")
        eject(xen, guest.domain, "hdc")
        seen.ejected = guest.xenstore().get(node, "missing")
        insert(xen, guest.domain, "hdc", "/jobs/cd.iso")
        seen.inserted = guest.xenstore().get(node, "missing")

    seen.guest = run_guest(xen, GuestConfig("a", firmware="seabios", disks=[
        disk.spec("xvde"), file_spec("/jobs/cd.iso", "hdc", cdrom=True)]), timeout=5,
        prepare=prepare, finish=lambda _: setattr(seen, "store", parse_trace(xen.traced())))
    disk.remove()
    seen.after = usage(xen)
    return seen


@pytest.fixture(name="seen", scope="module")
def fixture_seen(xen: WatchedXen) -> Seen:
    return xen.run(scenario)


def test_qemus_lock_is_taken(seen: Seen) -> None:
    assert seen.fixed


def test_sectors_and_read_only(seen: Seen) -> None:
    assert (seen.sector, seen.read_only) == ("4096", "1")


def test_a_stopped_disk_answers_when_it_goes_on(seen: Seen) -> None:
    assert (seen.stopped, seen.went_on) == (None, 0)


def test_disks_come_and_go(seen: Seen) -> None:
    assert seen.guest is not None and not seen.errors
    back = f"/local/domain/0/backend/vbd/{seen.guest.domain}"
    assert f"{back}/51808/state" in seen.attached and seen.attached["detached"] == "yes"
    assert seen.attached["disc"].endswith("/jobs/cd.iso")
    assert seen.ejected in ("", "missing") and seen.inserted.endswith("/jobs/cd.iso")


def test_the_trace_has_the_guest(seen: Seen) -> None:
    assert seen.guest is not None
    first = next(seen.store.of(seen.guest.domain))
    assert str(first) == "READ hvmloader/bios" and first.answer == "seabios"


def test_nothing_is_left(seen: Seen) -> None:
    before, within = seen.before, seen.within
    assert before is not None and within is not None
    assert (within.loops, within.domains) == (before.loops + 1, 1)
    assert_nothing_left(before, seen.after)
