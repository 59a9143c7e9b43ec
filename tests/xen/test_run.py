# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Debian from paravirtual disks alone, on real Xen with stock OVMF: Baton drives them, and hands
them over as found."""

import subprocess
from dataclasses import dataclass, field

import pytest

from lab.paths import TOP
from lab.progress import Progress
from lab.xen import XenHost, on_xen
from lab.xen.boot import Options, XenReport, boot_on
from lab.xen.disks import Usage, usage

RUNS = {
    "blkback": Options(write=1 << 20),
    "qdisk, 8 disks": Options(backend="qdisk", disks=8, write=1 << 20),
    "8 disks": Options(disks=8),
    "read-only": Options(read_only=True, write=4096),
    "4096-byte sectors": Options(sector_size=4096, write=1 << 20),
}


@dataclass
class Seen:
    """What the scenario found."""

    reports: dict[str, XenReport] = field(default_factory=dict)
    before: Usage | None = None
    after: Usage | None = None


def scenario(xen: XenHost) -> Seen:
    seen = Seen()
    for name, options in RUNS.items():
        if name != "blkback" and seen.before is None:
            seen.before = usage(xen)  # the first guest brings caches that stay
        seen.reports[name] = boot_on(xen, options)
    seen.after = usage(xen)
    return seen


@pytest.fixture(name="seen", scope="module")
def fixture_seen() -> Seen:
    return on_xen(scenario, Progress())


@pytest.mark.parametrize("name", list(RUNS))
def test_boots_and_hands_over(seen: Seen, name: str) -> None:
    report = seen.reports[name]
    assert report.ok, f"{report.problems}\n{report.tail}"
    count = RUNS[name].disks
    assert report.last_line == \
        f"hand-over clean: {count} device{'' if count == 1 else 's'}, 0 live"
    assert all(device.driven for device in report.hand_over.devices)
    assert [line for line in report.held if line.startswith("Baton drove ")]
    for snapshots in report.xen.snapshots.values() if report.xen else ():
        before, after, connected = snapshots
        assert before.frontend["state"] == before.backend["state"] == "4"
        assert (after.frontend["state"], after.backend["state"]) == ("1", "2")
        assert not {key for key in after.frontend if key.startswith(("ring", "event", "protocol"))}
        assert connected.frontend["state"] == "4"


def test_more_disks_take_more_words_but_not_more_turns(seen: Seen) -> None:
    """Closing eight disks overlaps: no more than eight times the requests of one."""
    one, eight = seen.reports["blkback"].xen, seen.reports["8 disks"].xen
    assert one is not None and eight is not None
    assert 0 < one.exit_messages < eight.exit_messages <= 8 * one.exit_messages


def test_nothing_is_left_in_dom0(seen: Seen) -> None:
    before, after = seen.before, seen.after
    assert before is not None and after is not None
    assert (after.loops, after.domains, after.grants, after.mapped) == (
        before.loops, 1, before.grants, before.mapped)
    assert abs(after.free_memory - before.free_memory) <= 2


def test_command() -> None:
    """As its users run it."""
    run = subprocess.run([TOP / "baton", "run", "--on", "xen"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == "hand-over clean: 1 device, 0 live"
