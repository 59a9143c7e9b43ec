# SPDX-License-Identifier: BSD-2-Clause-Patent
"""One boot of Xen for all the tests of a run: it takes longer than most guests do, and what many
guests, one after the other, leave behind is only seen on a host that had them all."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

from lab.progress import Progress
from lab.qemu import RETRIES
from lab.xen import XenBroke, XenHost
from lab.xen.disks import Usage, usage

T = TypeVar("T")


class SharedXen:
    """A Xen host that boots when it is first wanted. What a scenario makes there, it takes away."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._xen: XenHost | None = None
        self.first: Usage | None = None
        """What was taken when the first scenario had ended: its guests bring caches that stay."""

    def run(self, scenario: Callable[[XenHost], T]) -> T:
        """Run a scenario. If QEMU breaks in the way that it is known to, the scenario is run again
        on a new host, twice at most. Nothing else is retried."""
        for attempt in range(RETRIES + 1):
            try:
                xen = self._booted()
                result = scenario(xen)
                if self.first is None:
                    self.first = usage(xen)
                return result
            except XenBroke:
                self._forget()
                if attempt == RETRIES:
                    raise
            except BaseException:
                # What it had made is still there, and would be in the way of others.
                self._forget()
                raise
        raise AssertionError("not reached")

    def close(self) -> None:
        """Switch it off in order: for a test that needs the machine, and at the end."""
        if self._xen is not None:
            self._xen.power_off()
        self._forget()

    def _booted(self) -> XenHost:
        if self._xen is None:
            self._xen = self._stack.enter_context(XenHost(Progress()))
        return self._xen

    def _forget(self) -> None:
        self._xen = self.first = None
        self._stack.close()
