# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The judgement on Xen: how each disk was when the operating system took over, by the trace of
XenStore, and what the kernels and the hypervisor had to say."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lab.e820 import MemoryMap
from lab.handover import Device, HandOver, Moment
from lab.xen.looks import MARK, Look
from lab.xen.store import Change, Message, Store

STATES = ("Unknown", "Initialising", "InitWait", "Initialised", "Connected", "Closing", "Closed",
          "Reconfiguring", "Reconfigured")
_INITIALISING, _INIT_WAIT, _INITIALISED, _CONNECTED, _CLOSING, _CLOSED = "1", "2", "3", "4", "5", "6"

_TOKEN = re.compile(r"FFFF[0-9A-F]{12}")
"""Linux names its watches by where they lie in its memory."""
_FRONT = re.compile(r"/device/vbd/\d+/state$")
_TOOLSTACKS = 8
"""So many grants, from 0 on, are the toolstack's to give (GNTTAB_NR_RESERVED_ENTRIES)."""
_PAGE = 4096


@dataclass(frozen=True)
class Bios:
    """What is to be known besides of a PC BIOS, which is never told that it is not needed any more
    (C8): it leaves its disks connected, and what a backend has of it must be where the system does
    not go."""

    memory: MemoryMap | None
    """As the system was told."""
    looks: Sequence[Look]


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
    unseen: list[str] = field(default_factory=list)
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


def judge(store: Store, domain: int, devices: Sequence[int], bios: Bios | None = None) -> XenHandOver:
    """Judge these disks (51776 is xvde) of a domain whose whole life is in the trace. With `bios`,
    those that the firmware has left connected are judged by what a PC BIOS can do (C8)."""
    names = [f"xen:vbd/{device}" for device in devices]
    mine = list(store.of(domain))
    if domain not in store.introduced or not mine:
        return XenHandOver(HandOver([Device(name, problems=[
            "the trace of XenStore does not show the domain's start"]) for name in names], None, ""))
    start = mine[0]
    end = takeover(store, domain)
    seen = XenHandOver(HandOver([], None, "takeover" if end is not None else ""))
    for device, name in zip(devices, names, strict=True):
        judged = _Disk(store, domain, device, name, start, end, bios)
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
        _judge_domain(seen, store, domain, start, end, bios)
        if bios is not None and any(device.driven for device in seen.hand_over.devices):
            _judge_flight(seen, store, domain, end, bios)
    return seen


def _closing_begins(store: Store, domain: int, end: int | None) -> int | None:
    """Where the firmware's last closing of its disks begins: with the first one after the last
    connection of any."""
    begin = None
    for change in store.changes:
        if end is not None and change.index >= end:
            break
        if change.domain != domain or not _FRONT.search(change.path):
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
                 end: int | None, bios: Bios | None) -> None:
        self.seen = Device(name)
        self._store, self._domain, self._start, self._end = store, domain, start, end
        self._bios = bios
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
        if self._bios is not None and self.seen.driven and front == _CONNECTED:
            self._judge_connected(back, self._bios, self._end)
            return
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
        self._tell_first_word(self._end)
        self._judge_system(self._end)

    def _tell_first_word(self, end: int) -> None:
        first = next(message for message in self._store.of(self._domain) if message.index == end)
        self._tell(first, "the operating system's first word to XenStore"
                   if self.seen.driven else "never connected by the firmware; the operating "
                   "system's first word to XenStore")

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
            self._wrong("not closed in order (Closing, Closed, Initialising): the frontend went "
                        f"through {_words(after)}")

    def _judge_system(self, end: int) -> None:
        """What the system's own driver did first: one that finds the frontend as new goes straight
        on to Connected."""
        way, connected = self._way_on(end)
        if connected is None:
            self._wrong("the operating system's own driver never connected")
            return
        self._tell(connected, "connected by the operating system's own driver")
        if any(change.value not in (_INITIALISED, _CONNECTED) for change in way):
            self._wrong("the operating system reset the frontend before it connected: "
                        f"{_words(way)}")

    def _way_on(self, end: int) -> tuple[list[Change], Change | None]:
        """How the frontend went on from the hand-over, up to where it is connected."""
        after = [change for change in self._fronts if change.index >= end]
        for count, change in enumerate(after, 1):
            if change.value == _CONNECTED:
                return after[:count], change
        return after, None

    # ---- What a PC BIOS leaves (C8) ----

    def _judge_connected(self, back: str | None, bios: Bios, end: int) -> None:
        if back != _CONNECTED:
            self._wrong(f"the backend was {_state(back)} at the hand-over, and the BIOS's frontend "
                        "Connected")
        self._judge_ring(bios, end)
        self._tell_first_word(end)
        self._judge_takeover(end)
        self.seen.live = bool(self.seen.problems)

    def _judge_ring(self, bios: Bios, end: int) -> None:
        """The ring is where it is from the firmware's last word about it to the system's first."""
        name = self.seen.device
        since = self._before(self._fronts)[-1].index
        until = next((change.index for change in self._fronts if change.index >= end), None)
        looks = [(mark, each) for mark, each in _marked(self._store, bios.looks)
                 if since < mark.index and (until is None or mark.index < until)]
        if not looks:
            self.seen.unseen.append(f"{name}: where its ring was (nobody looked while the BIOS had "
                                    "it)")
            return
        if bios.memory is None:
            self.seen.unseen.append(f"{name}: whether its ring was in reserved memory (no memory map "
                                    "was heard of)")
            return
        mark, seen = looks[-1]
        for ref in _ring_refs(self._store.replay({}, 0, mark.index), self._front):
            if ref not in seen.pages:
                self._wrong(f"its ring's grant {ref} is not mapped by the backend")
                continue
            at = seen.pages[ref] * _PAGE
            self._tell(mark, f"its ring is at 0x{at:x} (grant {ref})")
            trouble = bios.memory.trouble(at, _PAGE)
            if trouble is not None:
                self._wrong(f"its ring is where the system may put something else: {trouble}")

    def _judge_takeover(self, end: int) -> None:
        """The system has to end the BIOS's connection before it makes its own."""
        way, connected = self._way_on(end)
        for change in way:
            self._tell(change, "connected by the operating system's own driver"
                       if change is connected else f"frontend {_state(change.value)}")
        if connected is None:
            self._wrong("the operating system's own driver never connected")
            return
        others = sorted({change.domain for change in way if change.domain != self._domain}, key=str)
        if others:
            self._wrong(f"domain {others[0]} had a hand in its closing")
        if [change.value for change in way if change.value not in (_INITIALISED, _CONNECTED)] != \
                [_CLOSING, _CLOSED, _INITIALISING]:
            self._wrong("the operating system did not close it in order (Closing, Closed, "
                        f"Initialising): the frontend went through {_words(way)}")
        backs = [change for change in self._backs if end <= change.index < connected.index]
        for change in backs:
            self._tell(change, f"backend {_state(change.value)}")
        if [change.value for change in backs][:3] != [_CLOSING, _CLOSED, _INIT_WAIT]:
            self._wrong("the backend did not let go of the BIOS's connection (Closing, Closed, "
                        f"InitWait): it went through {_words(backs)}")
        self._judge_keys(end, connected.index)

    def _judge_keys(self, end: int, connected: int) -> None:
        """What the BIOS has said of its ring, and the system not in its turn, the backend takes for
        a word about the system's ring."""
        there = self._store.replay({}, 0, connected)
        said = {change.path for change in self._store.changes if change.domain == self._domain
                and change.index < end and change.path.startswith(f"{self._front}/")}
        anew = {change.path for change in self._store.changes if change.domain == self._domain
                and end <= change.index <= connected}
        left = sorted(path.removeprefix(f"{self._front}/") for path in said - anew if path in there)
        if left:
            self._wrong("said by the BIOS, and still in XenStore when the system connected: "
                        f"{', '.join(left)}")

    # ---- Snapshots ----

    def snapshots(self) -> list[Snapshot]:
        """What XenStore had of the disk at the moments that matter, as far as they came."""
        fronts = self._before(self._fronts)
        closing = [change for change in fronts if change.value == _CLOSING]
        moments: list[tuple[str, int | None]] = []
        if closing:
            moments.append(("before the exit", closing[-1].index))
        if self._end is not None:
            moments.append(("right after the exit" if self._bios is None else "at the hand-over",
                            self._end))
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


def _words(way: Sequence[Change]) -> str:
    return ", ".join(_state(change.value) for change in way) or "nothing"


def _marked(store: Store, looks: Sequence[Look]) -> list[tuple[Change, Look]]:
    """The looks that the trace knows of, each with its place there."""
    marks = {change.value: change for change in store.changes if change.path == MARK}
    return [(marks[each.mark], each) for each in looks if each.mark in marks]


def _ring_refs(there: Mapping[str, str], folder: str) -> list[int]:
    """The grants of all rings below a folder."""
    return [int(value) for path, value in sorted(there.items()) if value.isdigit()
            and path.startswith(f"{folder}/") and re.search(r"/ring-ref\d*$", path)]


def changed(before: Mapping[str, str], after: Mapping[str, str], folder: str) -> list[str]:
    """Nodes below a folder that are new, gone, or have another value."""
    return [path for path in sorted({*before, *after}) if path.startswith(f"{folder}/")
            and before.get(path) != after.get(path)]


# ---- The domain ----

def _judge_domain(seen: XenHandOver, store: Store, domain: int, start: Message, end: int,
                  bios: Bios | None) -> None:
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
    if bios is not None and watches:
        _judge_watches(seen, store, domain, end, watches)
    else:
        _check(seen, not watches, "no watch of the firmware's was left",
               f"{len(watches)} watches left: {', '.join(watches)}")
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


def _judge_watches(seen: XenHandOver, store: Store, domain: int, end: int,
                   watches: Sequence[str]) -> None:
    """A BIOS leaves them, so the system must have them dropped before all else, and then hear of
    none of them."""
    first = next((message for message in store.of(domain) if message.index >= end
                  and message.kind in ("RESET_WATCHES", "WATCH")), None)
    left = f"{len(watches)} watches that the BIOS left"
    if first is None or first.kind != "RESET_WATCHES" or first.answered is None or first.error:
        seen.problems.append(f"the {left} were not dropped before the system set its own: "
                             f"{', '.join(watches)}")
        return
    tokens = {watch.partition(" ")[2] for watch in watches}
    late = [event for event in store.events if event.domain == domain and event.value in tokens
            and event.index > first.answered]
    _check(seen, not late, f"the {left} were dropped before the system set its own, and it heard of "
           "none of them", f"the system heard of {len(late)} changes by the {left}")


def _judge_flight(seen: XenHandOver, store: Store, domain: int, end: int, bios: Bios) -> None:
    """Between the BIOS's calls, the backends have its rings and nothing else."""
    since = max(change.index for change in store.changes if change.domain == domain
                and change.index < end and _FRONT.search(change.path))
    looks = [(mark, each) for mark, each in _marked(store, bios.looks)
             if since < mark.index < end and each.between_calls]
    if not looks:
        seen.unseen.append("whether anything was in flight when the system began (nobody looked "
                           "between the BIOS's calls)")
        return
    mark, last = looks[-1]
    rings = _ring_refs(store.replay({}, 0, mark.index),
                       f"/local/domain/{domain}/device/vbd")
    more = [frame * _PAGE for ref, frame in sorted(last.pages.items())
            if ref >= _TOOLSTACKS and ref not in rings]
    _check(seen, not more, "nothing was in flight when the system began: no backend had more of the "
           "guest's memory than the rings", f"{len(more)} pages besides the rings were mapped by "
           f"backends when the system began: {', '.join(f'0x{at:x}' for at in more[:8])}")


def _check(seen: XenHandOver, holds: bool, held: str, problem: str) -> None:
    (seen.held if holds else seen.problems).append(held if holds else problem)


# ---- Logs ----

_COMPLAINTS = {
    "the guest's kernel": re.compile(
        r"g\.e\. .*(still|in use)|xen:grant.*(WARN|fail|bad|deferr)|blkfront.*(fail|error)|"
        r"vbd-?\d* .*(fail|error|reset)|XENBUS: (timeout|error|backend|reconnect|frontend)|"
        r"xenbus.*(fail|error|timed out|Timeout|not quiescent)|I/O error|\bBUG\b|Oops|Call Trace"),
    "dom0's kernel": re.compile(
        r"xen-?_?blkback.*(invalid|fail|error|bad|trying|cannot|leak)|vbd.*(fail|error)|"
        r"g\.e\. .*(still|in use)|grant.*(fail|error|invalid|bad|leak)|xenbus.*(fail|error)|"
        r"I/O error|\bBUG\b|Oops|Call Trace"),
    "Xen's log": re.compile(
        r"^\(XEN\).*([Gg]rant|gnttab|GNTTAB|[Mm]apping .*(bad|count)|p2m|domain_crash|"
        r"[Bb]ad (flags|ref|frame))"),
}


_TAKES_OVER = re.compile(r"XENBUS: (frontend|backend) \S+ (Connected|Closing|Closed|InitWait)$")
"""What Linux says when it ends a connection that it has found."""


def complaints(who: str, lines: Iterable[str], *, takes_over: bool = False) -> list[str]:
    """The lines of a log that speak of something gone wrong with a disk or its grants. `who` is
    "the guest's kernel", "dom0's kernel" or "Xen's log". With `takes_over`, the guest's kernel is to
    find connected disks, as a PC BIOS leaves them."""
    return [line.strip() for line in lines if _COMPLAINTS[who].search(line)
            and not (takes_over and _TAKES_OVER.search(line.strip()))]
