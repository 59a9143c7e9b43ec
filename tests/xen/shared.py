# SPDX-License-Identifier: BSD-2-Clause-Patent
"""One boot of Xen for all the tests of a run: it takes longer than most guests do, and what many
guests, one after the other, leave behind is only seen on a host that had them all."""

from collections.abc import Callable
from typing import TypeVar

from lab.xen import SharedXen, XenHost
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
