# SPDX-License-Identifier: BSD-2-Clause-Patent
"""After all the others: what twenty guests and more have left on one boot of Xen. Nothing. And the
command as its users run it, which boots a Xen of its own."""

import subprocess
from dataclasses import dataclass, field

import pytest
from shared import WatchedXen, assert_nothing_left
from test_exit import Exit, exit_once, problems

from lab.paths import TOP
from lab.xen import XenHost
from lab.xen.disks import Usage, loop, stoppable, usage

GUESTS = 20


@dataclass
class Seen:
    """What the scenario found."""

    exits: list[Exit] = field(default_factory=list)
    last: Usage | None = None


def scenario(xen: XenHost) -> Seen:
    seen = Seen()
    xen.put(bytes(1 << 20), "/jobs/spare.img")
    spare = stoppable(xen, loop(xen, "/jobs/spare.img"))
    # Domains are counted from the boot on. Where tests were picked by name, these fill up.
    while not seen.exits or seen.exits[-1].ran.guest.domain < GUESTS:
        seen.exits.append(exit_once(xen, "disks=1 depth=8 settle=0", [], spare, traced=False))
    spare.remove()
    seen.last = usage(xen)
    return seen


@pytest.fixture(name="seen", scope="module")
def fixture_seen(xen: WatchedXen) -> Seen:
    return xen.run(scenario)


def test_the_twentieth_is_like_the_first(seen: Seen) -> None:
    for each in seen.exits:
        assert problems(each) == []


def test_nothing_is_left_in_dom0(xen: WatchedXen, seen: Seen) -> None:
    first, last = xen.first, seen.last
    assert first is not None and last is not None
    assert_nothing_left(first, last)
    # A leak of one guest's part would show as often as there were guests; what the kernel caches is
    # not counted.
    assert first.dom0_available - last.dom0_available < 24 << 10


def test_command(xen: WatchedXen) -> None:
    xen.power_off()
    run = subprocess.run([TOP / "baton", "run", "--on", "xen", "--firmware", "bios"],
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == "hand-over clean: 1 device, 0 live"
