# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Debian from paravirtual disks alone, on real Xen with stock SeaBIOS: Baton drives them, leaves them
connected, and Linux takes them over."""

from dataclasses import dataclass, field

import pytest
from shared import WatchedXen, assert_clean, assert_nothing_left

from lab.xen import XenHost
from lab.xen.boot import Options, XenReport, boot_on
from lab.xen.disks import Usage, usage

RUNS = {
    "blkback, MBR": Options(bios=True, write=1 << 20),
    "qdisk, GPT, 2 disks": Options(bios=True, backend="qdisk", partitions="gpt", disks=2,
                                   write=1 << 20),
    # For blkback, xl runs a script for each disk, one after the other, and has only so much time.
    "qdisk, 8 disks": Options(bios=True, backend="qdisk", disks=8, write=1 << 18),
}
WITHOUT = Options(bios=True, rom=None)


@dataclass
class Seen:
    """What the scenario found."""

    reports: dict[str, XenReport] = field(default_factory=dict)
    before: Usage | None = None
    after: Usage | None = None
    without: XenReport | None = None
    store: str = ""


def scenario(xen: XenHost) -> Seen:
    seen = Seen()
    # The first guest brings caches that stay.
    seen.without = boot_on(xen, WITHOUT)
    seen.before = usage(xen)
    for name, options in RUNS.items():
        seen.reports[name] = boot_on(xen, options)
    seen.after = usage(xen)
    seen.store = xen.check("xenstore-ls -f /tool", "xenstore-ls")
    return seen


@pytest.fixture(name="seen", scope="module")
def fixture_seen(xen: WatchedXen) -> Seen:
    return xen.run(scenario)


@pytest.mark.parametrize("name", list(RUNS))
def test_boots_and_hands_over(seen: Seen, name: str) -> None:
    report, count = seen.reports[name], RUNS[name].disks
    assert_clean(report, count)
    assert report.unseen == []
    assert "no watch of the firmware's was left" in report.held
    # When GRUB has read everything, and when the kernel first speaks: the toolstack's two pages, and
    # each disk's ring, on a page of its own.
    assert [each.between_calls for each in report.looks] == [True, True]
    for each in report.looks:
        assert len(each.pages) == len(set(each.pages.values())) == 2 + count
    for device in report.hand_over.devices:
        assert [moment for moment in device.story if moment.what.startswith("its ring is at ")]
    for at, connected in report.xen.snapshots.values() if report.xen else ():
        assert at.frontend["state"] == at.backend["state"] == "4"
        # Nothing of it that the system would not say anew.
        assert {key for key in at.frontend if key.startswith(("ring", "event", "protocol"))} == {
            "ring-ref", "event-channel", "protocol"}
        assert connected.frontend["state"] == "4"


def test_seabios_alone(seen: Seen) -> None:
    report = seen.without
    assert report is not None and report.guest_result is not None
    assert report.guest_result.ended == "until"
    assert report.problems[0] == "the firmware found nothing to boot"
    assert "xvde: the firmware has no driver for this disk" in report.problems
    assert not report.hand_over.devices[0].driven


def test_nothing_is_left_in_dom0(seen: Seen) -> None:
    assert_nothing_left(seen.before, seen.after)
    assert "/tool/baton" not in seen.store and "/tool" in seen.store
