# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What QEMU saw of the devices while the auditor ran, and what follows from it for rules C3, C4 and
C7.

QEMU's trace has the characters that the guest sent to the serial port among everything else, so it
is known to the event what came before the auditor's words and what after them. They also tie the
host's clock to the guest's.

After the exit it is the auditor who notifies queues and switches bus mastering on: that is asking,
and no fault. A device that answers is at fault.
"""

import bisect
import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.audit.lines import Line, json_of, parse_line, succeeded
from lab.trace import (ConfigWrite, Event, Notify, SerialText, Status, Taken, Trace, Transfer,
                       Used)

HostEvent = dict[str, Any]

_DRIVER_OK = 4
_BURST = 0.02
"""Events of one kind that are no further apart, in seconds, are one in the report."""
_BEFORE = 0.2
"""The same before the first call, where nobody looks so closely."""
_ERROR_NEAR = 0.05
"""An error of QEMU's belongs to what a device did so many seconds before it, at most."""


@dataclass(frozen=True)
class Mark:
    """A phase line of the auditor's in the trace."""

    index: int
    """The event with its first character."""
    time: float
    end: float
    """When its last character was sent."""
    line: Line

    @property
    def phase(self) -> str:
        return str(self.line["phase"])


@dataclass(frozen=True)
class Finding:
    """What the host says of a device and a rule."""

    device: str
    rule: str
    verdict: str
    why: str
    evidence: Sequence[HostEvent] = ()


@dataclass
class Seen:
    """All that the host saw."""

    events: list[HostEvent] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    silent: float | None = None
    """How long before the machine's end the serial port was last used, in seconds."""


class Clock:
    """The host's time in the guest's microseconds."""

    def __init__(self, marks: Sequence[Mark]) -> None:
        self._points: list[tuple[float, float]] = []
        for mark in marks:
            time, us = mark.time, mark.line.get("us")
            if us is None and mark.phase == "call":
                # The first call comes when this has been said, and is where time begins.
                time, us = mark.end, 0
            if us is not None and (not self._points or time > self._points[-1][0]
                                   and us > self._points[-1][1]):
                self._points.append((time, float(us)))

    @property
    def known(self) -> bool:
        return bool(self._points)

    def us(self, time: float) -> float:
        """Straight lines between the marks; outside of them, a second is a second. What came before
        a mark stays before it."""
        after = bisect.bisect_right(self._points, (time, float("inf")))
        if after == 0:
            first, us = self._points[0]
            return round(us - max((first - time) * 1e6, 0.1), 1)
        begin, us = self._points[after - 1]
        if after == len(self._points):
            return round(us + (time - begin) * 1e6, 1)
        end, last = self._points[after]
        place = us + (time - begin) / (end - begin) * (last - us)
        return round(max(us, min(place, last - 0.1)), 1)


def marks_of(trace: Trace) -> list[Mark]:
    """Where in the trace the auditor said what phase it was in, whatever came in between."""
    marks = []
    text = ""
    pieces: list[tuple[int, int]] = []  # (offset in the line, index of the event)
    for index, event in enumerate(trace.events):
        if not isinstance(event, SerialText):
            continue
        pieces.append((len(text), index))
        text += event.text
        if not text.endswith("\n"):
            continue
        words = json_of(text.strip("\r\n"))
        if words is not None and '"phase"' in words:
            start = text.index(words[:9])
            offset, first = [piece for piece in pieces if piece[0] <= start][-1]
            try:
                line = parse_line(words)
            except ValueError:
                line = {"type": ""}
            if line["type"] == "phase":
                begun = trace.events[first]
                assert isinstance(begun, SerialText)
                share = (start - offset) / len(begun.text)
                marks.append(Mark(first, begun.time + (begun.last - begun.time) * share, event.last,
                                  line))
        text, pieces = "", []
    return marks


def place_of(device: str) -> str | None:
    """A device of the trace in the report's words; None where the trace does not know its place."""
    return f"0000:{device}" if re.fullmatch(r"[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", device) else None


@dataclass
class _Device:
    """A device while the trace is gone through."""

    status: int = 0
    virtio: bool = False
    bus_master: bool = False
    live_at_call: bool = False
    at_return: int | None = None
    bus_master_at_return: bool = False
    free: bool = False
    """Since its status was written after the exit: from then on somebody else answers for it."""
    touched: list[HostEvent] = field(default_factory=list)
    asleep: bool = True
    """In each call so far it was touched only if it was live at it."""
    taken: int = 0
    used: int = 0
    packets: int = 0
    reactions: list[HostEvent] = field(default_factory=list)
    errors: list[HostEvent] = field(default_factory=list)


class _Story:
    """Goes through the trace once."""

    def __init__(self, trace: Trace, marks: Sequence[Mark], kinds: Mapping[str, str]) -> None:
        self.clock = Clock(marks)
        self.events: list[HostEvent] = []
        self.devices: dict[str, _Device] = {}
        self._kinds = kinds
        self._marks = {mark.index: mark for mark in marks}
        returns = [mark for mark in marks if succeeded(mark.line)]
        self.released = returns[-1].index if returns else None
        calls = [mark for mark in marks if mark.phase == "call"]
        self._first_call = calls[0].index if calls else len(trace.events)
        self._calling = False
        self._bursts: dict[tuple[object, ...], tuple[HostEvent, float]] = {}
        self._index = 0

    def device(self, place: str) -> _Device:
        return self.devices.setdefault(place, _Device())

    @property
    def after(self) -> bool:
        """Whether ExitBootServices has succeeded."""
        return self.released is not None and self._index >= self.released

    def take(self, index: int, event: Event) -> None:
        self._index = index
        mark = self._marks.get(index)
        if mark is not None:
            self._phase(mark)
        if isinstance(event, Status):
            self._status(event)
        elif isinstance(event, ConfigWrite) and event.is_command:
            self._command(event)
        elif isinstance(event, Notify):
            self._notify(event)
        elif isinstance(event, (Taken, Used)):
            self._queue(event)
        elif isinstance(event, Transfer):
            self._transfer(event)

    def _phase(self, mark: Mark) -> None:
        # An event of the report lies in one phase, not in two.
        self._bursts.clear()
        if mark.phase == "call":
            self._calling = True
            for device in self.devices.values():
                device.live_at_call = device.status != 0
        elif mark.phase == "return":
            self._calling = False
            if self._index == self.released:
                for device in self.devices.values():
                    device.at_return = device.status
                    device.bus_master_at_return = device.bus_master

    def _say(self, what: str, place: str | None, time: float, /, **more: object) -> HostEvent:
        event: HostEvent = {"type": what, "by": "host", "device": place,
                            "us": self.clock.us(time)}
        event |= {name: value for name, value in more.items() if value is not None}
        self.events.append(event)
        return event

    def _burst(self, what: str, place: str | None, time: float, count: int = 1, /,
               **more: object) -> HostEvent:
        """Like _say(), but what follows close upon the like of it is counted with it."""
        key = (what, place, *more.values())
        known = self._bursts.get(key)
        gap = _BURST if self._index >= self._first_call else _BEFORE
        if known is not None and time - known[1] <= gap:
            event = known[0]
            event["count"] += count
            event["until"] = self.clock.us(time)
        else:
            event = self._say(what, place, time, **more, count=count)
        self._bursts[key] = event, time
        return event

    def _touch(self, device: _Device, event: HostEvent) -> None:
        """Somebody's hand on a device: during the exit, only for what was live at the call."""
        if self._calling and not device.live_at_call:
            device.asleep = False
            device.touched.append(event)

    def _status(self, event: Status) -> None:
        place = place_of(event.device)
        if place is None:
            return
        device = self.device(place)
        device.virtio = True
        changed = event.value != device.status
        device.status = event.value
        if self.after and not event.echo:
            device.free = True
        # Firmware resets devices that are reset, time and again, when it looks for them; only a
        # change is worth a line, or a hand on the device during the exit.
        if not changed and (event.echo or not self._calling or device.live_at_call):
            return
        if not changed and device.touched and device.touched[-1]["type"] == "host-status":
            return  # QEMU tells of a reset twice
        for key in [key for key in self._bursts if key[1] == place]:
            del self._bursts[key]
        said = self._say("host-status", place, event.time, value=f"0x{event.value:02x}",
                         **({"echo": True} if event.echo else {}))
        if not event.echo:
            self._touch(device, said)

    def _command(self, event: ConfigWrite) -> None:
        place = place_of(event.device)
        if place is None:
            return
        device = self.device(place)
        changed = event.bus_master != device.bus_master
        device.bus_master = event.bus_master
        if not changed and self._index < self._first_call:
            return  # firmware setting up its bus
        said = self._say("host-command", place, event.time, value=f"0x{event.value & 0xffff:04x}",
                         **({"auditor": True} if self.after else {}))
        self._touch(device, said)

    def _notify(self, event: Notify) -> None:
        place = place_of(event.device)
        if place is None:
            return
        said = self._burst("host-notify", place, event.time, queue=event.queue,
                           **({"auditor": True} if self.after else {}))
        self._touch(self.device(place), said)

    def _queue(self, event: Taken | Used) -> None:
        place = place_of(event.device) or self._only_live()
        network = place is not None and self._kinds.get(place) == "virtio-net"
        # A network device's even queues are for receiving (virtio 1.2 §5.1.2).
        receiving = network and (event.queue < 0 or event.queue % 2 == 0)
        if isinstance(event, Taken):
            what, count = "taken", 1
        else:
            what, count = "packet" if receiving else "used", event.count
        self._did(place, what, event.time, count, queue=event.queue if event.queue >= 0 else None)

    def _transfer(self, event: Transfer) -> None:
        of_kind = [place for place, kind in self._kinds.items() if kind == event.kind]
        self._did(of_kind[0] if len(of_kind) == 1 else None, event.what, event.time, 1,
                  kind=event.kind)

    def _only_live(self) -> str | None:
        """The one virtio device that can have done something, where the trace does not say."""
        live = [place for place, device in self.devices.items() if device.status & _DRIVER_OK]
        return live[0] if len(live) == 1 else None

    def _did(self, place: str | None, what: str, time: float, count: int, /,
             **more: object) -> None:
        said = self._burst(f"host-{what}", place, time, count, **more)
        if place is None or not self.after:
            return
        device = self.device(place)
        # Without bus mastering the device tries, and does not get anywhere.
        if device.free or not device.bus_master:
            return
        device.taken += count if what == "taken" else 0
        device.used += count if what == "used" else 0
        device.packets += count if what == "packet" else 0
        if not any(said is known for known in device.reactions):
            device.reactions.append(said)

    def error(self, place: str | None, time: float, what: str, *, after: bool) -> None:
        """QEMU complained."""
        said = self._say("host-error", place, time, what=what)
        if place is not None and after and not self.device(place).free:
            self.device(place).errors.append(said)


_ERROR = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?)Z \S*qemu-system\S*: (.*)")
_NO_ERROR = re.compile(r"terminating on signal|warning: TCG doesn't support")


def errors_of(said: str, trace: Trace) -> list[tuple[float, str]]:
    """QEMU's complaints while the machine ran: (seconds after power-on, what)."""
    found = []
    for stamp, what in _ERROR.findall(said):
        when = datetime.datetime.fromisoformat(stamp).replace(tzinfo=datetime.timezone.utc)
        time = when.timestamp() - trace.start
        if time >= 0 and _NO_ERROR.search(what) is None:
            found.append((time, what))
    return found


def _culprit(trace: Trace, times: Sequence[float], time: float,
             what: str) -> tuple[str | None, int]:
    """Which device an error of QEMU's is about, and after which event it came. QEMU names the kind
    ("virtio: …") but not the device: it is the one that did something just before."""
    at = bisect.bisect_right(times, time) - 1
    index = at
    if not re.match(r"virtio|Virtqueue|Guest |Looped|Desc|Invalid size for indirect", what, re.I):
        return None, at
    while index >= 0 and time - times[index] <= _ERROR_NEAR:
        event = trace.events[index]
        if isinstance(event, (Notify, Taken, Used)):
            return place_of(event.device), at
        index -= 1
    return None, at


def look(trace: Trace, said: str, devices: Mapping[str, Line], kinds: Mapping[str, str]) -> Seen:
    """Judge a run. `said` are QEMU's own messages, `devices` the auditor's lines for the devices,
    and `kinds` those of the machine that we made; both by PCI place."""
    marks = marks_of(trace)
    seen = Seen(marks=marks)
    texts = [event.last for event in trace.events if isinstance(event, SerialText)]
    if texts:
        seen.silent = max(trace.events[-1].time, texts[-1]) - texts[-1]
    story = _Story(trace, marks, kinds)
    if not story.clock.known:
        return seen
    for index, event in enumerate(trace.events):
        story.take(index, event)
    times = [event.time for event in trace.events]
    for time, what in errors_of(said, trace):
        place, at = _culprit(trace, times, time, what)
        story.error(place, time, what,
                    after=story.released is not None and at >= story.released)
    seen.events = sorted(story.events, key=lambda event: float(event["us"]))
    if story.released is not None:
        watched = any(mark.phase == "judging" for mark in marks)
        for place, device in sorted(story.devices.items()):
            line = devices.get(place, {})
            held = bool(line.get("drivers")) or device.live_at_call or bool(device.at_return)
            seen.findings += _judge(place, device, held=held, watched=watched)
    return seen


def _judge(place: str, device: _Device, *, held: bool, watched: bool) -> list[Finding]:
    """What one device's story comes to. What held counts only for a device that a driver holds or
    that is live; what did not, for every one."""
    found = []
    if device.virtio:
        if not device.asleep:
            found.append(Finding(place, "C3", "fail", "it was not live at the call, and during the "
                                 f"exit {_hands(device.touched)}", device.touched))
        elif held and not device.live_at_call:
            found.append(Finding(place, "C3", "pass", "it was not live at the call, and nobody "
                                 "touched it during the exit"))
        if device.at_return:
            found.append(Finding(place, "C7", "fail", f"its status was 0x{device.at_return:02x} "
                                 "when ExitBootServices returned"))
        elif held and device.at_return == 0 and not device.bus_master_at_return:
            found.append(Finding(place, "C7", "pass", "its status was 0 and its bus mastering off "
                                 "when ExitBootServices returned"))
    if device.reactions or device.errors:
        found.append(Finding(place, "C4", "fail", _reaction(device),
                             [*device.reactions, *device.errors]))
    elif device.virtio and held and watched and device.at_return == 0:
        found.append(Finding(place, "C4", "pass", "it had been reset when ExitBootServices "
                             "returned, and took and gave nothing afterwards"))
    return found


def _hands(touched: Sequence[HostEvent]) -> str:
    words = {"host-status": "its status was written",
             "host-command": "its PCI command register was written",
             "host-notify": "its queues were notified"}
    return " and ".join(dict.fromkeys(words[event["type"]] for event in touched))


def _reaction(device: _Device) -> str:
    parts = []
    if device.taken:
        parts.append(f"took {counted(device.taken, 'request or buffer', 'requests or buffers')}")
    if device.used:
        parts.append(f"gave {counted(device.used, 'buffer')} back")
    if device.packets:
        parts.append(f"put {counted(device.packets, 'packet')} into memory")
    if device.errors:
        parts.append(f"made QEMU complain ({device.errors[0]['what']})")
    first = min(float(event["us"]) for event in [*device.reactions, *device.errors])
    last = parts.pop()
    text = f"{', '.join(parts)} and {last}" if parts else last
    return f"after ExitBootServices it {text}, first at {first / 1000:.3f} ms"


def counted(count: int, one: str, many: str | None = None) -> str:
    """"1 packet", "3 packets"."""
    return f"{count} {one if count == 1 else many or one + 's'}"
