# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Debian from paravirtual disks alone, on real Xen with stock OVMF: Baton drives them, and hands
them over as found."""

from dataclasses import dataclass, field

import pytest
from shared import WatchedXen, assert_clean, assert_nothing_left

from lab.xen import XenHost
from lab.xen.boot import Options, XenReport, boot_on
from lab.xen.disks import Usage, usage

RUNS = {
    "blkback": Options(write=1 << 20),
    "qdisk, 2 disks": Options(backend="qdisk", disks=2, write=1 << 20),
    # For blkback, xl runs a script for each disk, one after the other, and has only so much time.
    "4 disks of 4096-byte sectors": Options(disks=4, sector_size=4096, write=1 << 20),
    "read-only": Options(read_only=True, write=4096),
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
def fixture_seen(xen: WatchedXen) -> Seen:
    return xen.run(scenario)


@pytest.mark.parametrize("name", list(RUNS))
def test_boots_and_hands_over(seen: Seen, name: str) -> None:
    report = seen.reports[name]
    assert_clean(report, RUNS[name].disks)
    for snapshots in report.xen.snapshots.values() if report.xen else ():
        before, after, connected = snapshots
        assert before.frontend["state"] == before.backend["state"] == "4"
        assert (after.frontend["state"], after.backend["state"]) == ("1", "2")
        assert not {key for key in after.frontend if key.startswith(("ring", "event", "protocol"))}
        assert connected.frontend["state"] == "4"


def test_more_disks_take_more_words_but_not_more_turns(seen: Seen) -> None:
    """Closing four disks overlaps: each step is said for all of them before the next, and each disk
    takes as many words as one alone. The last word is the domain's, about its list of disks."""
    one, four = seen.reports["blkback"].xen, seen.reports["4 disks of 4096-byte sectors"].xen
    assert one is not None and four is not None
    assert one.exit_turns == four.exit_turns == ["Closing", "Closed", "Initialising"]
    assert one.exit_words > 1 and four.exit_words - 1 == 4 * (one.exit_words - 1)


def test_nothing_is_left_in_dom0(seen: Seen) -> None:
    assert_nothing_left(seen.before, seen.after)
