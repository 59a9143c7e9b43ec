# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The judgement on Xen: how each disk was when the operating system took over, by the trace of
XenStore, and what the kernels and the hypervisor had to say."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lab.handover import Device, HandOver, Moment
from lab.xen.store import Change, Message, Store

STATES = ("Unknown", "Initialising", "InitWait", "Initialised", "Connected", "Closing", "Closed",
          "Reconfiguring", "Reconfigured")
_INITIALISING, _INIT_WAIT, _INITIALISED, _CONNECTED, _CLOSING, _CLOSED = "1", "2", "3", "4", "5", "6"

_TOKEN = re.compile(r"FFFF[0-9A-F]{12}")
"""Linux names its watches by where they lie in its memory."""


@dataclass
class Snapshot:
    """A disk in XenStore at one moment: the frontend's nodes and the backend's, by the name that
    they have in its folder."""

    when: str
    frontend: dict[str, str] = field(default_factory=dict)
    backend: dict[str, str] = field(default_factory=dict)


@dataclass
class XenHandOver:
    """What the trace says of a guest, up to the operating system's own driver and beyond."""

    hand_over: HandOver
    snapshots: dict[str, list[Snapshot]] = field(default_factory=dict)
    """By device: before the exit, right after it, and when the system's own driver was connected."""
    messages: int = 0
    """Requests that the firmware sent to XenStore, hvmloader's among them."""
    exit_messages: int = 0
    """Those from the first word of the last closing on."""
    exit_words: int = 0
    """Those of them that say something. How often the firmware looks at a backend's state is for
    the backend's pace to decide; what it says is not."""
    exit_turns: list[str] = field(default_factory=list)
    """The frontends' states in that closing, each once for all disks that follow one another."""
    held: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Those of the whole domain; the devices have their own."""


def takeover(store: Store, domain: int) -> int | None:
    """Where Linux begins to speak to XenStore: before all else it has the watches of whoever was
    there before it dropped, and then sets its own."""
    mine = list(store.of(domain))
    for index, message in enumerate(mine):
        if message.kind != "READ" or not \
                message.path.endswith("/control/platform-feature-xs_reset_watches"):
            continue
        rest = [each for each in mine[index + 1:index + 6] if each.kind in ("RESET_WATCHES",
                                                                            "WATCH")]
        if any(each.kind == "WATCH" and _TOKEN.fullmatch(each.value) for each in rest):
            return message.index
    return None


def judge(store: Store, domain: int, devices: Sequence[int]) -> XenHandOver:
    """Judge these disks (51776 is xvde) of a domain whose whole life is in the trace."""
    names = [f"xen:vbd/{device}" for device in devices]
    mine = list(store.of(domain))
    if domain not in store.introduced or not mine:
        return XenHandOver(HandOver([Device(name, problems=[
            "the trace of XenStore does not show the domain's start"]) for name in names], None, ""))
    start = mine[0]
    end = takeover(store, domain)
    seen = XenHandOver(HandOver([], None, "takeover" if end is not None else ""))
    for device, name in zip(devices, names, strict=True):
        judged = _Disk(store, domain, device, name, start, end)
        judged.judge()
        seen.hand_over.devices.append(judged.seen)
        seen.snapshots[name] = judged.snapshots()
    firmware = [message for message in mine if end is None or message.index < end]
    seen.messages = len(firmware)
    begin = _closing_begins(store, domain, end)
    if begin is not None:
        closing = [message for message in firmware if message.index >= begin]
        seen.exit_messages = len(closing)
        seen.exit_words = sum(message.kind != "READ" for message in closing)
        seen.exit_turns = [STATES[int(state)] for state, _ in itertools.groupby(
            message.value for message in closing
            if message.kind == "WRITE" and message.path.endswith("/state"))]
    if end is not None:
        _judge_domain(seen, store, domain, start, end)
    return seen


def _closing_begins(store: Store, domain: int, end: int | None) -> int | None:
    """Where the firmware's last closing of its disks begins: with the first one after the last
    connection of any."""
    begin = None
    for change in store.changes:
        if end is not None and change.index >= end:
            break
        if change.domain != domain or not re.search(r"/device/vbd/\d+/state$", change.path):
            continue
        if change.value == _CONNECTED:
            begin = None
        elif change.value == _CLOSING and begin is None:
            begin = change.index
    return begin


def _state(value: str | None) -> str:
    if value is None:
        return "missing"
    return STATES[int(value)] if value.isdigit() and int(value) < len(STATES) else repr(value)


class _Disk:
    """One disk's way through the trace."""

    def __init__(self, store: Store, domain: int, device: int, name: str, start: Message,
                 end: int | None) -> None:
        self.seen = Device(name)
        self._store, self._domain, self._start, self._end = store, domain, start, end
        self._front = f"/local/domain/{domain}/device/vbd/{device}"
        self._base = store.replay({}, 0, start.index)
        self._back = self._base.get(f"{self._front}/backend", "")
        self._fronts = self._states(self._front)
        self._backs = self._states(self._back)
        self._moments: list[tuple[int, Moment]] = []

    def _states(self, folder: str) -> list[Change]:
        return [change for change in self._store.changes if change.path == f"{folder}/state"
                and change.index >= self._start.index]

    def _tell(self, at: Change | Message, what: str) -> None:
        """The trace's clock knows seconds only; its order is what counts."""
        self._moments.append((at.index, Moment(float(at.clock - self._start.clock), what)))

    def _wrong(self, what: str) -> None:
        self.seen.problems.append(f"{self.seen.device}: {what}")

    def _before(self, changes: Sequence[Change]) -> list[Change]:
        return [change for change in changes if self._end is None or change.index < self._end]

    def judge(self) -> None:
        """Fill in what is seen."""
        self._judge()
        self._moments.sort(key=lambda each: each[0])
        self.seen.story = [moment for _, moment in self._moments]

    def _judge(self) -> None:
        if not self._back:
            self._wrong("XenStore has no such disk")
            return
        fronts, backs = self._before(self._fronts), self._before(self._backs)
        self._tell_firmware(fronts, backs)
        if self._end is None:
            self._wrong("no operating system was seen taking over")
            return
        there = self._store.replay({}, 0, self._end)
        front, back = there.get(f"{self._front}/state"), there.get(f"{self._back}/state")
        self.seen.live = back in (_INITIALISED, _CONNECTED) or \
            front in (_INITIALISED, _CONNECTED, _CLOSING)
        if front != _INITIALISING:
            self._wrong(f"the frontend was {_state(front)} at the hand-over, not Initialising")
        if back != _INIT_WAIT:
            self._wrong(f"the backend was {_state(back)} at the hand-over, not InitWait")
        left = sorted(path.removeprefix(f"{self._front}/") for path in changed(
            self._base, there, self._front) if path != f"{self._front}/state")
        if left:
            self._wrong(f"left in XenStore at the hand-over: {', '.join(left)}")
        if self.seen.driven and not self.seen.live:
            self._judge_closing(fronts)
        first = next(message for message in self._store.of(self._domain)
                     if message.index == self._end)
        self._tell(first, "the operating system's first word to XenStore"
                   if self.seen.driven else "never connected by the firmware; the operating "
                   "system's first word to XenStore")
        self._judge_system()

    def _tell_firmware(self, fronts: Sequence[Change], backs: Sequence[Change]) -> None:
        """Connected is who has both ends say so."""
        connected = [change for change in fronts if change.value == _CONNECTED
                     and change.domain == self._domain]
        answered = [change for change in backs if change.value == _CONNECTED]
        if not connected or not answered:
            return
        self.seen.driven = True
        self._tell(max(connected[0], answered[0], key=lambda change: change.index),
                   "first connected by the firmware")
        if len(connected) > 1:
            self._tell(connected[-1], f"connected for the last of {len(connected)} times")
        for change in fronts:
            if change.index > connected[-1].index:
                self._tell(change, f"frontend {_state(change.value)}")
        for change in backs:
            if change.index > max(connected[-1].index, answered[-1].index):
                self._tell(change, f"backend {_state(change.value)}")

    def _judge_closing(self, fronts: Sequence[Change]) -> None:
        last = max(index for index, change in enumerate(fronts) if change.value == _CONNECTED)
        after = fronts[last + 1:]
        others = sorted({change.domain for change in after if change.domain != self._domain},
                        key=str)
        if others:
            self._wrong(f"domain {others[0]} had a hand in its closing")
        way = [change.value for change in after]
        if way != [_CLOSING, _CLOSED, _INITIALISING]:
            words = ", ".join(_state(value) for value in way) or "nothing"
            self._wrong("not closed in order (Closing, Closed, Initialising): the frontend went "
                        f"through {words}")

    def _judge_system(self) -> None:
        """What the system's own driver did first: one that finds the frontend as new goes straight
        on to Connected."""
        assert self._end is not None
        after = [change for change in self._fronts if change.index >= self._end]
        way: list[str | None] = []
        for change in after:
            way.append(change.value)
            if change.value == _CONNECTED:
                self._tell(change, "connected by the operating system's own driver")
                break
        else:
            self._wrong("the operating system's own driver never connected")
            return
        if any(value not in (_INITIALISED, _CONNECTED) for value in way):
            self._wrong("the operating system reset the frontend before it connected: "
                        f"{', '.join(_state(value) for value in way)}")

    # ---- Snapshots ----

    def snapshots(self) -> list[Snapshot]:
        """What XenStore had of the disk at the moments that matter, as far as they came."""
        fronts = self._before(self._fronts)
        closing = [change for change in fronts if change.value == _CLOSING]
        moments: list[tuple[str, int | None]] = []
        if closing:
            moments.append(("before the exit", closing[-1].index))
        if self._end is not None:
            moments.append(("right after the exit", self._end))
            connected = [change for change in self._fronts
                         if change.index >= self._end and change.value == _CONNECTED]
            if connected:
                moments.append(("connected by the operating system", connected[0].index + 1))
        return [self._snapshot(when, index) for when, index in moments]

    def _snapshot(self, when: str, index: int | None) -> Snapshot:
        there = self._store.replay({}, 0, index)

        def below(folder: str) -> dict[str, str]:
            return {path.removeprefix(f"{folder}/"): value for path, value in sorted(there.items())
                    if path.startswith(f"{folder}/")}
        return Snapshot(when, below(self._front), below(self._back))


def changed(before: Mapping[str, str], after: Mapping[str, str], folder: str) -> list[str]:
    """Nodes below a folder that are new, gone, or have another value."""
    return [path for path in sorted({*before, *after}) if path.startswith(f"{folder}/")
            and before.get(path) != after.get(path)]


# ---- The domain ----

def _judge_domain(seen: XenHandOver, store: Store, domain: int, start: Message, end: int) -> None:
    mine = [message for message in store.of(domain) if message.index < end]
    watches: list[str] = []
    open_: int = 0
    for message in mine:
        if not message.good:
            continue
        name = f"{message.text}"
        if message.kind == "WATCH":
            watches.append(name)
        elif message.kind == "UNWATCH" and name in watches:
            watches.remove(name)
        elif message.kind == "RESET_WATCHES":
            watches.clear()
        open_ += (message.kind == "TRANSACTION_START") - (message.kind == "TRANSACTION_END")
    _check(seen, not watches, "no watch of the firmware's was left", f"{len(watches)} watches left: "
           f"{', '.join(watches)}")
    unanswered = [message for message in mine if message.answered is None or message.answered > end]
    _check(seen, not unanswered, "every request to XenStore was answered before the system spoke",
           f"{len(unanswered)} requests to XenStore were not answered when the system spoke")
    if open_:
        seen.problems.append(f"{open_} transactions were left open")
    folder = f"/local/domain/{domain}"
    base, there = store.replay({}, 0, start.index), store.replay({}, 0, end)
    own = {change.path for change in store.changes if change.domain == domain
           and change.index < end}
    left = [path.removeprefix(f"{folder}/") for path in changed(base, there, folder)
            if path in own and not re.search(r"/device/vbd/\d+/", path)]
    if left:
        seen.problems.append(f"left in XenStore, outside of the disks: {', '.join(left)}")


def _check(seen: XenHandOver, holds: bool, held: str, problem: str) -> None:
    (seen.held if holds else seen.problems).append(held if holds else problem)


# ---- Logs ----

_COMPLAINTS = {
    "the guest's kernel": re.compile(
        r"g\.e\. .*(still|in use)|xen:grant.*(WARN|fail|bad|deferr)|blkfront.*(fail|error)|"
        r"vbd-?\d* .*(fail|error|reset)|XENBUS: (timeout|error|backend|reconnect|frontend)|"
        r"xenbus.*(fail|error)|I/O error|\bBUG\b|Oops|Call Trace"),
    "dom0's kernel": re.compile(
        r"xen-?_?blkback.*(invalid|fail|error|bad|trying|cannot|leak)|vbd.*(fail|error)|"
        r"g\.e\. .*(still|in use)|grant.*(fail|error|invalid|bad|leak)|xenbus.*(fail|error)|"
        r"I/O error|\bBUG\b|Oops|Call Trace"),
    "Xen's log": re.compile(
        r"^\(XEN\).*([Gg]rant|gnttab|GNTTAB|[Mm]apping .*(bad|count)|p2m|domain_crash|"
        r"[Bb]ad (flags|ref|frame))"),
}


def complaints(who: str, lines: Iterable[str]) -> list[str]:
    """The lines of a log that speak of something gone wrong with a disk or its grants. `who` is
    "the guest's kernel", "dom0's kernel" or "Xen's log"."""
    return [line.strip() for line in lines if _COMPLAINTS[who].search(line)]
