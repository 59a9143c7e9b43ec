# SPDX-License-Identifier: BSD-2-Clause-Patent
"""One boot of Xen for all the tests of a run: it takes longer than most guests do, and what many
guests, one after the other, leave behind is only seen on a host that had them all."""

from collections.abc import Callable
from typing import TypeVar

from lab.xen import SharedXen, XenHost
from lab.xen.boot import XenReport
from lab.xen.disks import Usage, usage

T = TypeVar("T")


class WatchedXen(SharedXen):
    """Remembers what was taken in the beginning."""

    first: Usage | None = None
    """When the first scenario of a boot had ended: its guests bring caches that stay."""

    def run(self, scenario: Callable[[XenHost], T]) -> T:
        def and_look(xen: XenHost) -> T:
            result = scenario(xen)
            if self.first is None:
                self.first = usage(xen)
            return result
        return super().run(and_look)

    def end(self) -> None:
        self.first = None
        super().end()


def assert_clean(report: XenReport, disks: int) -> None:
    """Baton drove so many disks, and handed all of them over as they should be."""
    assert report.ok, f"{report.problems}\n{report.tail}"
    assert report.last_line == \
        f"hand-over clean: {disks} device{'' if disks == 1 else 's'}, 0 live"
    assert all(device.driven for device in report.hand_over.devices)
    assert [line for line in report.held if line.startswith("Baton drove ")]


def assert_nothing_left(before: Usage | None, after: Usage | None) -> None:
    """Dom0 has what it had before the guests."""
    assert before is not None and after is not None
    assert (after.loops, after.domains, after.grants, after.mapped) == (
        before.loops, 1, before.grants, before.mapped)
    assert abs(after.free_memory - before.free_memory) <= 2
