# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Where virtio devices have been told that their queues are, by QEMU's word.

There is no trace of that. So the machine is stopped and QEMU asked, and the stop is in the trace,
which says what came before it and what after.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from lab.qmp import Qmp

PORT = 0x505
"""PVPANIC's. The guest stops the machine by writing 1 to it; in the lab's guest, GRUB does so when
it has read everything."""


@dataclass(frozen=True)
class Queue:
    """A queue of so many entries, and where its three parts are (virtio 1.2, 2.7)."""

    index: int
    entries: int
    descriptors: int
    available: int
    used: int

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Where each begins, and its size."""
        return [(self.descriptors, 16 * self.entries), (self.available, 6 + 2 * self.entries),
                (self.used, 6 + 8 * self.entries)]


@dataclass
class Watch:
    """Looks at the queues whenever the guest stops the machine, and when the text `at` is on the
    serial port. For lab.qemu.Machine.watch."""

    addresses: Sequence[str]
    """The devices', in the machine's order."""
    at: str
    """A regular expression."""
    looks: list[dict[str, list[Queue]]] = field(default_factory=list)
    """By device; one for each time that the machine was stopped."""
    _heard: bool = False
    _stops: int = 0

    def __call__(self, qmp: Qmp, serial: str) -> None:
        stops = sum(event["event"] == "GUEST_PANICKED" for event in qmp.events)
        if stops > self._stops:
            self._stops = stops
            self._look(qmp)
        if not self._heard and re.search(self.at, serial):
            self._heard = True
            qmp.execute("stop")
            self._look(qmp)

    def _look(self, qmp: Qmp) -> None:
        look: dict[str, list[Queue]] = {}
        for device in qmp.execute("x-query-virtio"):
            found = re.fullmatch(r"/machine/peripheral/[a-z]+(\d+)/virtio-backend", device["path"])
            if found is not None:
                look[self.addresses[int(found[1])]] = _queues(qmp, device["path"])
        self.looks.append(look)
        qmp.execute("cont")


def _queues(qmp: Qmp, path: str) -> list[Queue]:
    found = []
    for index in range(qmp.execute("x-query-virtio-status", {"path": path})["num-vqs"]):
        said = qmp.execute("x-query-virtio-queue-status", {"path": path, "queue": index})
        if said["vring-desc"]:
            found.append(Queue(index, said["vring-num"], said["vring-desc"], said["vring-avail"],
                               said["vring-used"]))
    return found
