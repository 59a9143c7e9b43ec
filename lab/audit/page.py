# SPDX-License-Identifier: BSD-2-Clause-Patent
"""An audit's report as one page of HTML that needs nothing but itself.

Names in a report come from firmware, which may call itself `<script>`. So whatever is put into the
page is text, and becomes markup only by being made of tag(): there is no other way in. The page
also forbids itself every script and every request.

    /usr/bin/python3 -m lab.audit.page report.json page.html
"""

import argparse
import json
import math
import os
import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from lab.errors import LabError
from lab.paths import shown

Line = Mapping[str, object]

RULES = ("C1", "C2", "C3", "C4", "C5", "C6", "C7")
SUBJECTS = {"firmware": "Firmware", "driver": "Drivers", "device": "Devices"}
SIGNS = {"pass": "✔ pass", "fail": "✘ fail", "unseen": "? unseen"}

# What the page shows at most. The embedded JSON holds everything.
EVIDENCE_OF_KIND, EVIDENCE_OF_ALL = 20, 600
LANES = 32
ROWS = 300
REGIONS = 300
NAME, TEXT = 200, 4000


# Markup.

class Html(str):
    """Text that is markup already."""


_UNSEEABLE = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f"
                        "\ufeff\ud800-\udfff\ufff9-\ufffb\ufffe\uffff]")
_VOID = frozenset(("meta", "br"))


def visible(value: object, most: int = NAME) -> str:
    """A value as text, with what would not be seen (or would turn the text around) spelled out."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (str, int, float)):
        value = json.dumps(value)
    text = str(value)
    if len(text) > most:
        text = text[:most] + "…"
    return _UNSEEABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def html(value: object) -> Html:
    """A value as markup."""
    return value if isinstance(value, Html) else Html(escape(visible(value, TEXT)))


def join(parts: Iterable[object], between: str = "") -> Html:
    return Html(between.join(html(part) for part in parts))


def tag(name: str, /, *inner: object, **attributes: object) -> Html:
    """An element. `class_` is class, `stroke_width` stroke-width; None leaves an attribute out."""
    words = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(visible(value, TEXT))}"'
                    for key, value in attributes.items() if value is not None)
    end = "" if name in _VOID else f"</{name}>"
    return Html(f"<{name}{words}>{join(inner)}{end}")


def scrolling(label: str, *inner: object) -> Html:
    """What may be wider than the page scrolls inside itself, with the keyboard too."""
    return tag("div", *inner, class_="scroll", tabindex=0, role="region", aria_label=label)


def table(label: str, heads: Sequence[object], rows: Iterable[Sequence[object]],
          *, first_is_head: bool = True) -> Html:
    """A table; the first cell of a row names it. A cell that is a whole `td` stays as it is."""
    def cell(value: object, head: bool) -> Html:
        if isinstance(value, Html) and value.startswith("<td"):
            return value
        return tag("th", value, scope="row") if head else tag("td", value)
    body = join(tag("tr", *(cell(value, first_is_head and not index)
                            for index, value in enumerate(row))) for row in rows)
    return scrolling(label, tag("table", tag("thead", tag("tr", *(
        tag("th", head, scope="col") for head in heads))), tag("tbody", body)))


def folded(summary: str, *inner: object) -> Html:
    return tag("details", tag("summary", summary), *inner)


# Values, whatever they turn out to be.

def lines(value: object) -> list[Line]:
    return [line for line in value if isinstance(line, dict)] if isinstance(value, list) else []


def mapping(value: object) -> Line:
    return value if isinstance(value, dict) else {}


def number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def address(value: object) -> int | None:
    """An address or register value: "0x7e5a000"."""
    if isinstance(value, str) and re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", value):
        return int(value, 16)
    return None


def key_of(value: object) -> str:
    return value if isinstance(value, str) else ""


def duration(us: float) -> str:
    """A time as people say it."""
    size = abs(us)
    if size < 1000:
        return f"{us:.0f} µs" if size >= 10 or us == int(us) else f"{us:.1f} µs"
    return f"{us / 1000:.3f} ms" if size < 1_000_000 else f"{us / 1_000_000:.3f} s"


def when(us: object) -> str:
    time = number(us)
    return "" if time is None else duration(time)


def size(count: object) -> str:
    length = number(count)
    if length is None:
        return visible(count)
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if length >= scale:
            return f"{length / scale:.4g} {unit}"
    return plural(int(length), "byte")


def either(value: object, yes: str, no: str, neither: str) -> str:
    """Words for what is true, false or not known."""
    return yes if value is True else no if value is False else neither


def capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def plural(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def bits(value: object, names: Mapping[int, str]) -> str:
    """A register with the names of what is set in it."""
    register = address(value)
    if register is None:
        return visible(value)
    known = [name for bit, name in names.items() if register & bit]
    return f"{value} ({', '.join(known) or 'nothing set'})"


STATUS = {1: "ACKNOWLEDGE", 2: "DRIVER", 8: "FEATURES_OK", 4: "DRIVER_OK", 0x40: "NEEDS_RESET",
          0x80: "FAILED"}
COMMAND = {1: "I/O", 2: "memory", 4: "bus master"}
WHENS = {"call": "At the call", "exit": "After the exit", "end": "At the end of the watch"}
PHASES = {
    "connect": "drivers are connected to devices", "busy": "devices are given work",
    "call": "ExitBootServices is called", "before-done": "the before-exit group is through",
    "return": "ExitBootServices returns", "owner": "the auditor owns the machine",
    "filled": "free memory is filled with a pattern", "watching": "the watch begins",
    "judging": "the watch is over",
}
JUDGED = {
    "specification": "The UEFI specification forbids this to an exit handler.",
    "contract": "Rule C2 forbids this to an exit handler; the UEFI specification does not.",
    "allowed": "This is allowed.",
}
# Events that each have something of their own to say, in this order. Of others, a few will do.
TELLING = ("call", "map-change", "state", "change", "handler", "host-error", "host-status",
           "host-command")
# What an operating system may use as it likes after the exit (UEFI 2.10 table 7.10).
REUSED = frozenset(("free", "boot", "loader"))
LETTERS = {"free": "F", "boot": "B", "loader": "L", "runtime": "Ru", "acpi": "A", "reserved": "Re",
           "mmio": "M"}


class Story:
    """A report, looked up from every side."""

    def __init__(self, report: Line) -> None:
        self.report = report
        self.images: dict[int, Line] = {}
        for line in lines(report.get("images")):
            if isinstance(image := line.get("image"), int):
                self.images[image] = line
        self.devices = {key_of(line.get("device")): line for line in lines(report.get("devices"))}
        found = report.get("events")
        self.events: list[Line] = [mapping(event) for event in found] \
            if isinstance(found, list) else []
        self.other = lines(report.get("evidence"))
        self.verdicts = lines(report.get("verdicts"))
        self.failures = [line for line in self.verdicts if line.get("verdict") == "fail"]
        self.shared = lines(report.get("shared"))
        self.titles = {key_of(line.get("rule")): capital(visible(line.get("title")))
                       for line in lines(report.get("rules")) if line.get("title")}
        rules = {key_of(line.get("rule")) for line in self.verdicts} | set(self.titles) | set(RULES)
        self.rules = sorted(rules - {""})

        self.accused: dict[int, int] = {}  # events to the first failure that cites them
        for index, failure in enumerate(self.failures):
            for at in self.evidence_of(failure):
                self.accused.setdefault(at, index)

        self.states: dict[tuple[str, str], Line] = {}
        self.rounds: dict[int, float] = {}  # when a round's damage was found
        returns: list[float] = []
        for event in self.events:
            us, round_ = number(event.get("us")), event.get("round")
            if event.get("type") == "state":
                self.states[key_of(event.get("device")), key_of(event.get("when"))] = event
            elif event.get("type") == "watch" and us is not None and isinstance(round_, int):
                self.rounds[round_] = us
            elif event.get("type") == "phase" and event.get("phase") == "return" and us is not None:
                returns.append(us)
        self.returned = max(returns, default=None)

    def evidence_of(self, verdict: Line) -> list[int]:
        """Indexes of events, only those that there are."""
        found = verdict.get("evidence")
        return [index for index in found if isinstance(index, int) and not isinstance(index, bool)
                and 0 <= index < len(self.events)] if isinstance(found, list) else []

    def image(self, key: object) -> str:
        if not isinstance(key, int):
            return "no known image"
        line = self.images.get(key)
        return visible(line.get("name")) if line and line.get("name") else f"image {key}"

    def device(self, key: object) -> str:
        line = self.devices.get(key_of(key), {})
        kind = line.get("kind")
        return f"{short(key)} ({visible(kind)})" if kind else short(key)

    def time(self, event: Line) -> float | None:
        """When it was, or when it came to light."""
        us, round_ = number(event.get("us")), event.get("round")
        if us is not None:
            return us
        if event.get("type") == "change" and isinstance(round_, int):
            return self.rounds.get(round_)
        if event.get("type") == "phase" and event.get("phase") == "call":
            return 0.0 if event.get("attempt") == 1 else None  # it was told before it was timed
        return self.returned if event.get("type") == "map-change" else None

    def place(self, call: Line) -> str:
        """Where a call came from: image and offset, and the address."""
        if call.get("image") is None:
            return f"{visible(call.get('address'))}, which is nobody's code"
        offset = f" + {visible(call.get('offset'))}" if call.get("offset") is not None else ""
        return f"{self.image(call.get('image'))}{offset} (address {visible(call.get('address'))})"

    def sentence(self, event: Line) -> str:
        """An event in a sentence, without its time."""
        teller = _TELLERS.get(key_of(event.get("type")))
        if teller is not None:
            return teller(self, event)
        rest = {key: value for key, value in event.items() if key not in ("type", "us", "by")}
        return f"{visible(event.get('type'))}: {visible(json.dumps(rest))}"


def short(device: object) -> str:
    """A device's place, without the segment that nearly every machine has but one of."""
    return visible(device).removeprefix("0000:")


# Events in words.

def _phase(story: Story, event: Line) -> str:
    name = key_of(event.get("phase"))
    words = [PHASES.get(name, visible(name))]
    if event.get("status") is not None:
        words.append(visible(event["status"]))
    about = [f"{key} {visible(event[key])}" for key in ("attempt", "round") if key in event]
    return " ".join(words) + (f" ({', '.join(about)})" if about else "")


def _handler(story: Story, event: Line) -> str:
    group = {"before": "before-exit", "exit": "exit"}.get(key_of(event.get("group")), "exit")
    ran = number(event.get("duration"))
    changed = "; the memory map was not the same afterwards" if event.get("map_changed") else ""
    return (f"a handler of {story.image(event.get('image'))} ran for "
            f"{'an unknown time' if ran is None else duration(ran)} ({group} group, TPL "
            f"{visible(event.get('tpl'))}, attempt {visible(event.get('attempt'))}){changed}")


def _call(story: Story, event: Line) -> str:
    args = event.get("args")
    words = ", ".join(visible(arg) for arg in args) if isinstance(args, list) else ""
    via = event.get("via")
    chain = " → ".join(story.image(image) for image in via) if isinstance(via, list) and via else ""
    depth = number(event.get("depth"))
    return (f"{visible(event.get('service'))}({words}) was called from {story.place(event)}"
            + (", inside another call" if depth else "")
            + (f"; on the stack, outermost first: {chain}" if chain else "")
            + (f"; held responsible: {story.image(event.get('blame'))}"
               if event.get("blame") is not None else ""))


def _map_change(story: Story, event: Line) -> str:
    return (f"{size(event.get('size'))} of memory at {visible(event.get('base'))} had become "
            f"{visible(event.get('is'))} by the end of the exit handlers; the loader's memory map "
            f"says {visible(event.get('was'))}")


def _queues(state: Line) -> str:
    queues = state.get("queues")
    if not isinstance(queues, list) or not queues:
        return ""
    return (f"queue{'' if len(queues) == 1 else 's'} "
            f"{', '.join(visible(queue) for queue in queues)} enabled")


def _state(story: Story, event: Line) -> str:
    live = either(event.get("live"), "live", "not live", "not known to be live or not")
    parts = [f"{story.device(event.get('device'))} was {live}"]
    if event.get("command") is not None:
        parts.append(f"PCI command {bits(event['command'], COMMAND)}")
    if event.get("status") is not None:
        parts.append(f"virtio status {bits(event['status'], STATUS)}")
    if queues := _queues(event):
        parts.append(queues)
    if event.get("what"):
        parts.append(visible(event["what"]))
    moment = WHENS.get(key_of(event.get("when")), visible(event.get("when")))
    return f"{moment.lower()}, {', '.join(parts)}"


def _change(story: Story, event: Line) -> str:
    who = f", most likely by {story.device(event['device'])}" if event.get("device") else ""
    what = f", in {visible(event['what'])}" if event.get("what") else ""
    owner = f", allocated by {story.image(event['owner'])}" if event.get("owner") is not None \
        else ""
    return (f"{size(event.get('size'))} of memory at {visible(event.get('address'))} were written "
            f"by somebody else before the end of round {visible(event.get('round'))}"
            f"{who}{what}{owner}")


def _watch(story: Story, event: Line) -> str:
    return (f"round {visible(event.get('round'))} of the watch is over: "
            f"{size(event.get('bytes'))}, {visible(event.get('ms'))} ms")


def _on_device(words: str) -> Callable[[Story, Line], str]:
    """A sentence with the event's fields in it, in braces. One event may stand for many."""
    def tell(story: Story, event: Line) -> str:
        queue = f", queue {visible(event['queue'])}" if event.get("queue") is not None else ""
        until = f", until {when(event['until'])}" if event.get("until") is not None else ""
        return story.device(event.get("device")) + " " + re.sub(
            r"\{(\w+)\}", lambda found: visible(event.get(str(found[1]))), words) + (
                queue + until + _cause(event))
    return tell


def _cause(event: Line) -> str:
    """Where it was neither the firmware nor its drivers."""
    return " (this was the auditor)" if event.get("auditor") is True else \
        " (QEMU does this when bus mastering goes off)" if event.get("echo") is True else ""


def _host_register(words: str, names: Mapping[int, str]) -> Callable[[Story, Line], str]:
    def tell(story: Story, event: Line) -> str:
        value = event.get("value")
        if isinstance(value, int) and not isinstance(value, bool):
            value = f"{value:#04x}"
        return f"{story.device(event.get('device'))}: {words} {bits(value, names)}{_cause(event)}"
    return tell


def _host_error(story: Story, event: Line) -> str:
    of = f" of {story.device(event['device'])}" if event.get("device") else ""
    return f"QEMU complained{of}: {visible(event.get('what'))}"


_TELLERS: dict[str, Callable[[Story, Line], str]] = {
    "phase": _phase, "handler": _handler, "call": _call, "map-change": _map_change,
    "state": _state, "change": _change, "watch": _watch,
    "notified": _on_device("was notified by the auditor, on {queues} queue(s), with nothing new in "
                           "them"),
    "host-status": _host_register("its status became", STATUS),
    "host-command": _host_register("its PCI command register was written:", COMMAND),
    "host-notify": _on_device("was notified"),
    "host-taken": _on_device("took {count} request(s) or buffer(s)"),
    "host-used": _on_device("gave back {count} buffer(s)"),
    "host-packet": _on_device("put {count} packet(s) into the machine's memory"),
    "host-error": _host_error,
}


# The page from its top.

def headline(story: Story) -> tuple[str, str]:
    """The result in one word for style and one line for people. Nothing is clean by default."""
    report, result = story.report, story.report.get("result")
    count = {kind: sum(line.get("verdict") == kind for line in story.verdicts) for kind in SIGNS}
    unseen = f"; {count['unseen']} could not be seen" if count["unseen"] else ""
    if result not in ("clean", "violations"):
        why = report.get("error") or ("the report gives no reason" if result == "could not audit"
                                      else "the report says no result")
        return "unseen", f"? Could not audit: {visible(why)}"
    if count["fail"]:
        of = plural(len(story.verdicts), "verdict")
        return "fail", f"✘ Violations: {count['fail']} of {of} failed{unseen}"
    if result == "violations":
        return "fail", "✘ Violations, but the report does not say which"
    if not count["pass"]:
        return "unseen", "? Nothing was judged"
    return "pass", f"✔ Clean: {plural(count['pass'], 'verdict')} held, none failed{unseen}"


def _head(story: Story) -> Html:
    report = story.report
    style, line = headline(story)
    firmware, machine = mapping(report.get("firmware")), mapping(report.get("machine"))
    audited = [device for device in story.devices.values() if device.get("option")] or \
        [device for device in story.devices.values() if device.get("drivers")]
    words = machine.get("command")
    command = " ".join(visible(word) for word in words) if isinstance(words, list) else ""

    def some(*parts: tuple[str, object]) -> str:
        return ", ".join(f"{label}{visible(value)}" for label, value in parts if value)

    facts: list[tuple[str, object]] = [
        ("Firmware", some(("", firmware.get("file")), ("package ", firmware.get("package")))),
        ("Firmware calls itself", some(
            ("", firmware.get("vendor")), ("revision ", firmware.get("revision")),
            ("UEFI ", firmware.get("uefi")))),
        ("SHA-256", tag("code", firmware["sha256"]) if firmware.get("sha256") else ""),
        ("Machine", some(
            ("QEMU ", machine.get("qemu")), ("machine ", machine.get("machine")),
            ("accelerator ", machine.get("accelerator")),
            ("hypervisor ", machine.get("hypervisor")),
            ("", size(machine["memory"]) if machine.get("memory") else None),
            ("started again, so many times: ", machine.get("retries")))),
        ("Devices", "; ".join(f"{short(device.get('device'))} "
                              f"{visible(device.get('option') or device.get('kind'))}"
                              for device in audited)),
        ("Date", some(("", machine.get("date")))),
    ]
    lost = [f"{visible(event.get('count'))} lines of type “{visible(event.get('what'))}” did not "
            "fit and are missing." for event in story.other if event.get("type") == "lost"]
    said = [f"The auditor said: {visible(event.get('what'))}" for event in story.other
            if event.get("type") == "error"]
    return join((
        tag("p", line, class_=f"result {style}", role="status"),
        tag("dl", *(join((tag("dt", label), tag("dd", value))) for label, value in facts if value),
            class_="facts"),
        *(tag("p", text, class_="notice") for text in said + lost),
        folded("The command", tag("pre", Html(escape(command)), class_="wrap"))
        if command else ""))


def _subject(story: Story, verdict: Line) -> str:
    """The name of what was judged."""
    name = verdict.get("name")
    if verdict.get("subject") == "device":
        return story.device(name)
    if name is None and verdict.get("image") is not None:
        return story.image(verdict["image"])
    return visible(name)


def _verdicts(story: Story) -> Html:
    rows: dict[tuple[str, str, str], dict[str, Html]] = {}
    failure = 0
    for line in story.verdicts:
        subject = key_of(line.get("subject"))
        row = rows.setdefault((subject, visible(line.get("image")), _subject(story, line)), {})
        verdict, rule = key_of(line.get("verdict")), key_of(line.get("rule"))
        sign: object = SIGNS.get(verdict, f"? {verdict}")
        if verdict == "fail":
            sign = tag("a", sign, href=f"#failure-{failure}")
            failure += 1
        seen = row.get(rule)
        style = verdict if verdict in SIGNS else "unseen"
        cell = tag("span", sign, class_=f"verdict {style}")
        row[rule] = cell if seen is None else join((seen, " ", cell))
    if not rows:
        return tag("p", "No verdict was reached.")
    groups = [*SUBJECTS, *sorted({subject for subject, _, _ in rows} - set(SUBJECTS))]
    body = []
    for group in groups:
        mine = [(name, row) for (subject, _, name), row in rows.items() if subject == group]
        if mine:
            body.append(tag("tbody", tag("tr", tag(
                "th", SUBJECTS.get(group, group), scope="rowgroup", class_="group",
                colspan=len(story.rules) + 1)), *(
                tag("tr", tag("th", name, scope="row"), *(
                    tag("td", row.get(rule) or tag("span", "·", class_="none",
                                                   aria_label="not judged"))
                    for rule in story.rules)) for name, row in mine)))
    heads = (tag("th", rule, tag("small", story.titles.get(rule, "")), scope="col")
             for rule in story.rules)
    reasons = ((_subject(story, line), line.get("rule"),
                SIGNS.get(key_of(line.get("verdict")), "?"), line.get("by"), line.get("why"))
               for line in story.verdicts)
    return join((
        scrolling("Verdicts", tag("table", tag("thead", tag("tr", tag(
            "th", "Who", scope="col"), *heads)), *body, class_="verdicts")),
        tag("p", "“Unseen” is what could not be looked at; it is never taken for a pass. A dot: "
            "the rule is not judged for this one.", class_="note"),
        folded("Every verdict and its reason", table(
            "Reasons", ("Who", "Rule", "Verdict", "Seen by", "Why"), reasons))))


# Failures and what shows them.

def _bytes(event: Line) -> Html:
    """Expected and found, byte by byte, with what differs marked."""
    expected, found = (key_of(event.get(key)) for key in ("expected", "found"))
    if not all(re.fullmatch(r"(?:[0-9a-fA-F]{2})+", text) for text in (expected, found)):
        return tag("pre", f"expected  {expected}", Html("\n"), f"found     {found}",
                   class_="wrap")
    want, got = bytes.fromhex(expected), bytes.fromhex(found)
    rows: list[object] = []
    base = address(event.get("address"))
    for start in range(0, max(len(want), len(got)), 16):
        label = f"{base + start:#x}" if base is not None else f"+{start:#x}"
        for name, data, other in (("expected", want, got), ("found   ", got, want)):
            cells = (tag("mark", f"{byte:02x}") if other[at:at + 1] != bytes((byte,))
                     else f"{byte:02x}" for at, byte in enumerate(data[start:start + 16], start))
            lead = label if name == "expected" else ""
            rows.append(join((f"{lead:<14}{name}  ", join(cells, " "), Html("\n"))))
    length = number(event.get("size")) or 0
    if length > len(got):
        rows.append(Html(f"(the first {len(got)} of {int(length)} bytes)\n"))
    return scrolling("Changed bytes", tag("pre", *rows))


def _nearby(story: Story, event: Line) -> str:
    """Which device was shown the memory that changed."""
    start, length = address(event.get("address")), number(event.get("size"))
    if start is None:
        return ""
    found = []
    for line in story.shared:
        base, extent = address(line.get("base")), number(line.get("size"))
        if base is not None and extent and base < start + (length or 1) and start < base + extent:
            text = f"{visible(line.get('what'))} of {story.device(line.get('device'))}"
            if text not in found:
                found.append(text)
    return f"At the call, this memory was: {'; '.join(found[:4])}." if found else ""


def _evidence(story: Story, index: int) -> Html:
    event = story.events[index]
    time = story.time(event)
    text = story.sentence(event)
    stamp = join((tag("a", f"#{index}", href=f"#event-{index}"),
                  "" if time is None else f" at {duration(time)}" if event.get("us") is not None
                  else f" came to light at {duration(time)}",
                  ", seen by the host" if event.get("by") == "host" else "", ": "))
    kind, more = event.get("type"), []
    if kind == "call":
        judged = JUDGED.get(key_of(event.get("judged")))
        more = [tag("p", judged)] if judged else []
    elif kind == "change":
        more = [tag("p", near)] if (near := _nearby(story, event)) else []
        more.append(_bytes(event))
    elif kind == "state":
        before = story.states.get((key_of(event.get("device")), "call"))
        if before is not None and event.get("when") == "exit":
            more = [tag("p", "For comparison, ", story.sentence(before), ".", class_="note")]
    return tag("li", tag("p", stamp, text, "."), *more)


def _kinds(story: Story, indexes: Iterable[int]) -> list[list[int]]:
    """Evidence by kind and by who it is about, what says most first."""
    kinds: dict[tuple[str, str], list[int]] = {}
    for index in indexes:
        event = story.events[index]
        kinds.setdefault((key_of(event.get("type")), visible(
            event.get("device", event.get("image")))), []).append(index)
    return [kinds[key] for key in sorted(kinds, key=lambda key: TELLING.index(key[0])
                                         if key[0] in TELLING else len(TELLING))]


def _failures(story: Story) -> Html:
    if not story.failures:
        return tag("p", "None.")
    articles, left = [], EVIDENCE_OF_ALL
    for index, line in enumerate(story.failures):
        rule = key_of(line.get("rule"))
        by = {"guest": "the auditor inside the machine", "host": "the host, from outside",
              "both": "both the auditor inside the machine and the host"}.get(
                  key_of(line.get("by")))
        parts = []
        for kind in _kinds(story, story.evidence_of(line)):
            most = EVIDENCE_OF_KIND if story.events[kind[0]].get("type") in TELLING else 3
            parts += [_evidence(story, at) for at in kind[:min(most, left)]]
            more = kind[min(most, left):]
            left -= len(kind) - len(more)
            if more:
                last = story.time(story.events[more[-1]])
                parts.append(tag("li", f"And {len(more)} more like this"
                                 + (f", the last at {duration(last)}" if last is not None else "")
                                 + ", in the ", tag("a", "list of all events", href="#events"),
                                 "."))
        articles.append(tag(
            "article",
            tag("h3", tag("span", "✘ ", aria_hidden="true"), f"{rule} {story.titles.get(rule, '')}",
                ": ", _subject(story, line)),
            tag("p", line.get("why"), class_="why"),
            tag("p", f"Seen by {by}.", class_="note") if by else "",
            tag("ol", *parts, class_="evidence") if parts else
            tag("p", "The report names no single event for this.", class_="note"),
            id=f"failure-{index}"))
    return join(articles)


# Devices.

def _devices(story: Story) -> Html:
    def live(line: Line | None) -> Html:
        if line is None:
            return html("not looked at")
        state = either(line.get("live"), "live", "not live", "not known")
        parts: list[object] = [state]
        for key, name in (("command", "command"), ("status", "status")):
            if line.get(key) is not None:
                parts.append(f"{name} {visible(line[key])}")
        if queues := _queues(line):
            parts.append(queues)
        return join(parts, "<br>")

    def drivers(line: Line) -> str:
        found = line.get("drivers")
        return " → ".join(story.image(image) for image in found) \
            if isinstance(found, list) and found else "none"

    if not story.devices:
        return tag("p", "None were seen.")
    return table("Devices", ("Device", "Kind", "Asked for as", "Drivers, from the bus upwards",
                             "At work", *WHENS.values()), (
        (short(name), join((line.get("kind"), tag("br"), tag(
            "small", visible(line.get("vendor")), ":", visible(line.get("id"))))),
         line.get("option"), drivers(line), line.get("busy"),
         *(live(story.states.get((name, moment))) for moment in WHENS))
        for name, line in story.devices.items()))


# Drawing.

APART = 36.0
"""How far marks keep from each other, which is what a count of three digits needs."""

CHAR = 7.0
"""About how wide a letter is, in pixels, in whatever font there is."""


def svg(width: float, height: float, label: str, *inner: object) -> Html:
    return tag("svg", tag("title", label), *inner, width=f"{width:.0f}", height=f"{height:.0f}",
               viewBox=f"0 0 {width:.0f} {height:.0f}", role="img")


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _rect(x: float, y: float, width: float, height: float, style: str, *inner: object,
          rounded: float | None = None) -> Html:
    return tag("rect", *inner, x=_px(x), y=_px(y), width=_px(width), height=_px(height),
               class_=style, rx=rounded)


def _text(x: float, y: float, words: object, style: str | None = None,
          anchor: str | None = None) -> Html:
    return tag("text", words, x=_px(x), y=_px(y), class_=style, text_anchor=anchor)


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> Html:
    return tag("line", x1=_px(x1), y1=_px(y1), x2=_px(x2), y2=_px(y2), class_=style)


@dataclass(frozen=True)
class Piece:
    """A stretch of an axis: from one value to another, from one pixel to another."""

    low: float
    high: float
    left: float
    right: float
    folded: bool = False


class Axis:
    """Places times on a line. Stretches without an event that dwarf all the rest are folded."""

    FOLD = 84.0
    MOST_FOLDS = 4

    def __init__(self, points: Iterable[float], low: float, high: float, left: float,
                 width: float, fold: bool) -> None:
        marks = sorted({low, high, *(point for point in points if low < point < high)})
        gaps = sorted(((after - before, before, after)
                       for before, after in zip(marks, marks[1:])), reverse=True)
        folds: list[tuple[float, float]] = []
        rest = sum(gap for gap, _, _ in gaps)
        for count, (gap, before, after) in enumerate(gaps[:self.MOST_FOLDS] if fold else [], 1):
            rest -= gap
            if rest > 0 and gap > 8 * rest:
                folds = [(start, end) for _, start, end in gaps[:count]]
        bounds = sorted({low, high, *(edge for pair in folds for edge in pair)})
        pairs = list(zip(bounds, bounds[1:])) or [(low, high)]
        shares = [0.0 if pair in folds else max((pair[1] - pair[0]), 0.0) for pair in pairs]
        total = sum(shares) or 1.0
        # However short, a stretch between two folds must be seen.
        least = 0.12 * total
        shares = [max(share, least) if pair not in folds else 0.0
                  for pair, share in zip(pairs, shares)]
        scale = (width - self.FOLD * len(folds)) / (sum(shares) or 1.0)
        self.pieces: list[Piece] = []
        for pair, share in zip(pairs, shares):
            right = left + (self.FOLD if pair in folds else share * scale)
            self.pieces.append(Piece(pair[0], pair[1], left, right, pair in folds))
            left = right
        self._lows = [piece.low for piece in self.pieces]
        self.low, self.high = low, high

    def x(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        piece = self.pieces[max(bisect_right(self._lows, value) - 1, 0)]
        span = piece.high - piece.low
        return piece.left + ((value - piece.low) / span if span > 0 else 0.0) * (
            piece.right - piece.left)

    def draw(self, y: float, down: float, width: float) -> Html:
        """Ticks with their times above y, faint lines from there down."""
        span = self.high - self.low
        unit, scale = ("µs", 1.0) if span < 5000 else ("ms", 1e3) if span < 3e7 else ("s", 1e6)
        parts: list[Html] = []
        free = 0.0  # where the next label may begin
        for piece in self.pieces:
            if piece.folded:
                middle = (piece.left + piece.right) / 2
                parts += [_rect(piece.left, y, piece.right - piece.left, down - y, "fold", tag(
                    "title", f"nothing happens for {duration(piece.high - piece.low)}")),
                    _text(middle, y - 4, f"⋯ {duration(piece.high - piece.low)}", "tick", "middle")]
                free = piece.right + 4
                continue
            length = piece.right - piece.left
            step = _step((piece.high - piece.low) / scale / max(length / 95, 1))
            digits = max(0, -math.floor(math.log10(step) + 1e-9))
            at = math.ceil(piece.low / scale / step - 1e-9)
            while at * step * scale <= piece.high + 1e-9 * span and len(parts) < 200:
                x = self.x(at * step * scale)
                label = f"{at * step:.{digits}f} {unit}"
                reach = CHAR * len(label) / 2
                middle = min(max(x, reach), width - reach)
                parts.append(_line(x, y, x, down, "grid"))
                if middle - reach >= free and middle + reach <= piece.right + (
                        0 if piece is not self.pieces[-1] else reach):
                    parts.append(_text(middle, y - 4, label, "tick", "middle"))
                    free = middle + reach + 10
                at += 1
        return join(parts)


def _step(least: float) -> float:
    """The next of 1, 2, 5, 10, …"""
    if not least > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * 0.999)


@dataclass
class Mark:
    """Events that stand at about the same place."""

    x: float
    events: list[int] = field(default_factory=list)


def cluster(places: Iterable[tuple[float, int]], apart: float) -> list[Mark]:
    """Gathers what would overlap: no two marks are nearer than `apart`."""
    marks: list[Mark] = []
    for x, index in sorted(places):
        if not marks or x - marks[-1].x >= apart:
            marks.append(Mark(x))
        marks[-1].events.append(index)
    return marks


def _tooltip(texts: Sequence[str], count: int) -> Html:
    words = list(texts)
    if count > len(words):
        words.append(f"and {count - len(words)} more")
    return Html(f"<title>{join(words, chr(10))}</title>")


def _shape(x: float, y: float, level: str) -> Html:
    """A mark whose form alone says what it is: a cross, a triangle or a ring."""
    if level == "bad":
        return join((_rect(x - 7, y - 7, 14, 14, "mark bad", rounded=2), tag(
            "path", d=f"M{_px(x - 3.5)} {_px(y - 3.5)}l7 7m0 -7l-7 7", class_="cross")))
    if level == "odd":
        return tag("path", d=f"M{_px(x)} {_px(y - 7)}l7.5 13h-15z", class_="mark odd")
    return tag("circle", cx=_px(x), cy=_px(y), r=5, class_="mark calm")


class TimeLine:
    """The exit and the watch, a lane for each who did something."""

    WIDTH = 914.0
    LANE = 36.0
    EDGE = 18.0
    TOP = 60.0

    def __init__(self, story: Story) -> None:
        self.story = story
        self.placed = [(time, index) for index, event in enumerate(story.events)
                       if (time := story.time(event)) is not None and time >= 0]
        ends = [time + (number(story.events[index].get("duration")) or 0.0)
                for time, index in self.placed if story.events[index].get("type") == "handler"]
        calls = [time for time, index in self.placed
                 if story.events[index].get("type") == "call"]
        returned = story.returned
        self.edge = returned if returned is not None else max(ends + calls, default=0.0)

    def lane_of(self, event: Line) -> str:
        kind = event.get("type")
        if kind in ("handler", "call"):
            who = event.get("image") if event.get("blame") is None else event.get("blame")
            return f"image {who}" if isinstance(who, int) else ""
        return f"device {event['device']}" if key_of(event.get("device")) else ""

    def level(self, index: int) -> str:
        """How much a mark should stand out: evidence, not as it should be, or just so."""
        event = self.story.events[index]
        if index in self.story.accused:
            return "bad"
        suspicious = event.get("type") in ("change", "map-change", "host-error") or \
            event.get("judged") in ("specification", "contract") and event.get("group") != "before"
        return "odd" if suspicious else "calm"

    def lanes(self, present: Iterable[tuple[float, int]]) -> dict[str, str]:
        """Keys and names, in their order. Devices that matter are there even if silent."""
        used = dict.fromkeys(self.lane_of(self.story.events[index]) for _, index in present)
        names = {"": "Firmware"}
        for key in used:
            if key.startswith("image "):
                image = key.removeprefix("image ")
                names[key] = self.story.image(int(image)) if image.isdigit() else key
        for device, line in self.story.devices.items():
            if f"device {device}" in used or line.get("option") or line.get("drivers"):
                names[f"device {device}"] = self.story.device(device)
        for key in used:
            names.setdefault(key, self.story.device(key.removeprefix("device ")))
        return names

    def told(self, indexes: Sequence[int], most: int = 8) -> Html:
        events = self.story.events
        return _tooltip([f"{when(self.story.time(events[index]))}  #{index} "
                         f"{self.story.sentence(events[index])}" for index in indexes[:most]],
                        len(indexes))

    def marks(self, axis: Axis, y: float, mine: Iterable[tuple[float, int]]) -> Html:
        parts: list[Html] = []
        for mark in cluster(((axis.x(time), index) for time, index in mine), APART):
            levels = [self.level(index) for index in mark.events]
            level = next(name for name in ("bad", "odd", "calm") if name in levels)
            first = sorted(mark.events, key=lambda index: ("bad", "odd", "calm").index(
                self.level(index)))
            x = mark.x
            inner: list[Html] = [self.told(first)]
            if len(mark.events) == 1:
                inner.append(_shape(x, y, level))
            else:
                count = len(mark.events)
                words = str(count) if count < 1000 else f"{count // 1000}k"
                words = {"bad": "✘", "odd": "▲", "calm": ""}[level] + words
                width = 6.5 * len(words) + 8
                inner += [_rect(x - width / 2, y - 8, width, 16, f"mark {level}", rounded=8),
                          _text(x, y + 4, words, f"count {level}", "middle")]
            group = tag("g", *inner)
            accused = next((index for index in first if index in self.story.accused), None)
            parts.append(group if accused is None else tag(
                "a", group, href=f"#failure-{self.story.accused[accused]}"))
        return join(parts)

    def bars(self, axis: Axis, y: float, mine: Iterable[tuple[float, int]]) -> Html:
        """Handlers, as long as they ran; those too short to tell apart become one."""
        parts: list[Html] = []
        open_: tuple[float, float, list[int]] | None = None

        def close() -> None:
            if open_ is not None:
                left, right, indexes = open_
                style = "bar bad" if any(self.level(at) == "bad" for at in indexes) else "bar"
                parts.append(_rect(left, y, max(right - left - 1, 3), 8, style, self.told(indexes),
                                   rounded=1))
        for time, index in sorted(mine):
            left = axis.x(time)
            right = axis.x(time + (number(self.story.events[index].get("duration")) or 0.0))
            if open_ is not None and (left - open_[0] < 4 or right <= open_[1] - 4):
                open_ = (open_[0], max(open_[1], right), [*open_[2], index])
                continue
            close()
            open_ = (left, right, [index])
        close()
        return join(parts)

    def phases(self, axis: Axis, mine: Iterable[tuple[float, int]], down: float) -> Html:
        """A line through all lanes for each phase, and its name where there is room."""
        parts: list[Html] = []
        free = [0.0, 0.0]
        for mark in cluster(((axis.x(time), index) for time, index in mine), 3):
            events = [self.story.events[index] for index in mark.events]
            names = list(dict.fromkeys(visible(event.get("phase")) for event in events))
            words = " / ".join(names[:3])
            about = events[0].get("attempt", events[0].get("round"))
            if len(events) == 1 and isinstance(about, int) and about > 1:
                words += f" {about}"
            width = CHAR * len(words) + 8
            left = mark.x + 3 if mark.x + width < self.WIDTH else mark.x - width
            row = next((row for row in (0, 1) if free[row] <= left), None)
            top = self.TOP if row is None else 18.0 + 15 * row
            parts.append(tag("g", self.told(mark.events), _line(mark.x, top - 9, mark.x, down,
                                                                "phase")))
            if row is not None:
                parts.append(_text(left, top, words, "name"))
                free[row] = left + width
        return join(parts)

    def panel(self, title: str, low: float, high: float, present: list[tuple[float, int]],
              fold: bool) -> Html:
        events = self.story.events
        ends = [time + (number(events[index].get("duration")) or 0.0) for time, index in present
                if events[index].get("type") == "handler"]
        axis = Axis([time for time, _ in present] + ends, low, max(high, *ends, low), self.EDGE,
                    self.WIDTH - 2 * self.EDGE, fold)
        lanes = list(self.lanes(present).items())
        weight = dict.fromkeys((key for key, _ in lanes), 0)
        for _, index in present:
            weight[self.lane_of(events[index])] += 100_000 if index in self.story.accused else 1
        others = set(sorted(weight, key=lambda key: (key != "", -weight[key]))[LANES:])
        lanes = [lane for lane in lanes if lane[0] not in others]
        lanes += [("…", f"{len(others)} more")] if others else []
        height = self.TOP + self.LANE * len(lanes) + 4
        parts = [_rect(0, self.TOP + self.LANE * row, self.WIDTH, self.LANE, "lane")
                 for row in range(0, len(lanes), 2)]
        parts += [axis.draw(self.TOP, height, self.WIDTH)]
        by_lane: dict[str, list[tuple[float, int]]] = {}
        steps: list[tuple[float, int]] = []
        for time, index in present:
            if events[index].get("type") == "phase":
                steps.append((time, index))
            else:
                key = self.lane_of(events[index])
                by_lane.setdefault("…" if key in others else key, []).append((time, index))
        parts.append(self.phases(axis, steps, height))
        for row, (key, _) in enumerate(lanes):
            mine, y = by_lane.get(key, []), self.TOP + self.LANE * row
            handlers = [at for at in mine if events[at[1]].get("type") == "handler"]
            parts.append(self.bars(axis, y + 25, handlers))
            parts.append(self.marks(axis, y + 13, [at for at in mine if at not in set(handlers)]))
        names = tag("ul", *(tag("li", name, title=name) for _, name in lanes), class_="lanes",
                    style=f"padding-top:{_px(self.TOP)}px")
        return join((tag("h3", title), tag("div", names, scrolling(title, svg(
            self.WIDTH, height, title, *parts)), class_="chart")))

    def draw(self) -> Html:
        exit_ = [at for at in self.placed if at[0] <= self.edge]
        watch = [at for at in self.placed if at[0] > self.edge]
        if not self.placed:
            return tag("p", "Nothing is known of the time after the call of ExitBootServices.")
        parts = []
        if exit_:
            parts.append(self.panel(f"The exit: {duration(self.edge)}", 0.0, self.edge or 1.0,
                                    exit_, True))
        if watch:
            end = max(time for time, _ in watch)
            parts.append(self.panel(f"The watch: {duration(end - self.edge)} after it", self.edge,
                                    end, watch, False))
        unplaced = sum(self.story.time(event) is None for event in self.story.events)

        def sample(level: str) -> Html:
            return tag("svg", _shape(9, 9, level), width=18, height=18, viewBox="0 0 18 18",
                       aria_hidden="true")
        legend = tag("ul", *(tag("li", sign, " ", words) for sign, words in (
            (sample("bad"), "evidence of a failure (leads there)"),
            (sample("odd"), "against the rules, or a change in memory"),
            (sample("calm"), "anything else"),
            (tag("svg", _rect(0, 5, 26, 8, "bar", rounded=1), width=26, height=18,
                 viewBox="0 0 26 18", aria_hidden="true"), "an exit handler while it ran"),
            (tag("svg", _rect(1, 1, 22, 16, "mark calm", rounded=8),
                 _text(12, 13, "12", "count calm", "middle"), width=24, height=18,
                 viewBox="0 0 24 18", aria_hidden="true"), "so many events in one place"))),
            class_="legend")
        note = tag("p", "Rest the pointer on a mark to read it; the list at the end has all of "
                   "them.", class_="note")
        time_less = tag("p", f"{plural(unplaced, 'event')} without a time, in the list only.",
                        class_="note") if unplaced else ""
        return join((*parts, legend, note, time_less))


# Memory.

@dataclass(frozen=True)
class Region:
    base: int
    end: int
    kind: str

    @property
    def reused(self) -> bool:
        return self.kind in REUSED


def regions_of(story: Story) -> list[Region]:
    """In order, neighbours of a kind as one, overlaps cut."""
    found = sorted((base, base + int(length), visible(line.get("memory")))
                   for line in lines(story.report.get("regions"))
                   if (base := address(line.get("base"))) is not None
                   and (length := number(line.get("size"))) is not None and length > 0)
    regions: list[Region] = []
    for base, end, kind in found:
        if regions:
            base = max(base, regions[-1].end)
        if end <= base:
            continue
        if regions and regions[-1].end == base and regions[-1].kind == kind:
            regions[-1] = Region(regions[-1].base, end, kind)
        else:
            regions.append(Region(base, end, kind))
    return regions


def kinds_at(regions: Sequence[Region], starts: Sequence[int], base: int, end: int) -> list[str]:
    """What kinds of memory a range lies in."""
    kinds: dict[str, None] = {}
    for region in regions[max(bisect_right(starts, base) - 1, 0):]:
        if region.base >= end:
            break
        if region.end > base:
            kinds[region.kind] = None
    return list(kinds)


class MemoryMap:
    """Memory from 0 up. A piece's width is the logarithm of its size, so that no piece vanishes and
    none takes everything."""

    WIDTH = 1110.0

    def __init__(self, story: Story) -> None:
        self.story = story
        self.regions = regions_of(story)
        self.starts = [region.base for region in self.regions]
        self.shared = [(base, base + int(length), line) for line in story.shared
                       if (base := address(line.get("base"))) is not None
                       and (length := number(line.get("size"))) is not None and length > 0]
        self.changed = [(base, index) for index, event in enumerate(story.events)
                        if event.get("type") in ("change", "map-change") and (base := address(
                            event.get("address", event.get("base")))) is not None]
        self.pieces = self._pieces()
        self._lows = [base for base, *_ in self.pieces]

    def _pieces(self) -> list[tuple[int, int, str, float, float]]:
        """Base, end, kind, left, right."""
        parts = [(region.base, region.end, region.kind) for region in self.regions]
        if len(parts) > REGIONS:
            marked = sorted({base for base, _, _ in self.shared} | {at for at, _ in self.changed})
            large = set(sorted(parts, key=lambda part: part[0] - part[1])[:REGIONS // 3])
            large |= {part for part in parts if bisect_right(marked, part[1] - 1)
                      > bisect_right(marked, part[0] - 1)}
            merged: list[tuple[int, int, str]] = []
            for part in parts:
                if merged and part not in large and merged[-1][2] == "several kinds":
                    merged[-1] = (merged[-1][0], part[1], "several kinds")
                else:
                    merged.append(part if part in large else (*part[:2], "several kinds"))
            parts = merged
        whole: list[tuple[int, int, str]] = []
        for part in parts:
            if whole and part[0] > whole[-1][1]:
                whole.append((whole[-1][1], part[0], "nothing"))
            whole.append(part)
        weights = [2.0 if kind == "nothing" else 2 + math.log2(1 + (end - base) / 4096)
                   for base, end, kind in whole]
        scale = self.WIDTH / (sum(weights) or 1.0)
        placed, left = [], 0.0
        for (base, end, kind), weight in zip(whole, weights):
            placed.append((base, end, kind, left, left + weight * scale))
            left += weight * scale
        return placed

    def x(self, at: int) -> float | None:
        piece = bisect_right(self._lows, at) - 1
        if piece < 0 or at > self.pieces[piece][1]:
            return None
        base, end, _, left, right = self.pieces[piece]
        return left + (at - base) / (end - base) * (right - left)

    def _live(self, device: object, moment: str) -> object:
        return self.story.states.get((key_of(device), moment), {}).get("live")

    def bands(self, top: float) -> list[Html]:
        parts = []
        free = 0.0
        for base, end, kind, left, right in self.pieces:
            width = right - left
            if kind == "nothing":
                continue
            known = kind in LETTERS
            half = 0 if kind in REUSED else 20
            parts.append(_rect(left, top + half, max(width - 0.3, 0.5), 40 - half,
                               f"m-{kind}" if known else "m-other", tag(
                f"title", f"{base:#x} to {end:#x}: {size(end - base)}, {kind}")))
            if width > 18 and known:
                parts.append(_text(left + 3, top + 36, LETTERS[kind], "letter"))
            label = f"{base:#x}"
            if left >= free and left + CHAR * len(label) < self.WIDTH:
                parts += [_line(left, top + 40, left, top + 45, "tickmark"),
                          _text(left, top + 56, label, "tick")]
                free = left + CHAR * len(label) + 14
        return parts

    def labels(self, top: float) -> tuple[list[Html], float]:
        """The shared memory: blocks upon the bands, and lines down to names that keep clear of each
        other."""
        groups: dict[tuple[str, int], list[tuple[float, float, Line]]] = {}
        by_device: dict[str, list[tuple[float, float, Line]]] = {}
        for base, end, line in self.shared:
            x, right = self.x(base), self.x(end)
            if x is not None:
                by_device.setdefault(key_of(line.get("device")), []).append(
                    (x, max(right or x, x + 3), line))
        for device, blocks in by_device.items():
            blocks.sort(key=lambda block: block[0])
            start, count = -math.inf, -1
            for block in blocks:
                if block[0] - start > 24:
                    start, count = block[0], count + 1
                groups.setdefault((device, count), []).append(block)
        parts, names = [], []
        rows: list[float] = []
        # From right to left, and each row below the last: so no line down crosses a name.
        for (device, _), blocks in sorted(groups.items(), key=lambda item: -item[1][0][0]):
            live = self._live(device, "call")
            style = either(live, "hot", "cold", "warm")
            x, right = blocks[0][0], max(block[1] for block in blocks)
            whats = list(dict.fromkeys(visible(block[2].get("what")) for block in blocks))
            text = f"{short(device)} {whats[0]}" + (f" +{len(blocks) - 1}" if len(blocks) > 1
                                                    else "")
            text = text if len(text) <= 34 else text[:33] + "…"
            width = CHAR * len(text) + 12
            left = x if x + width < self.WIDTH else self.WIDTH - width
            row = next((at for at, start in enumerate(rows) if left + width <= start), len(rows))
            if row == len(rows):
                rows.append(0.0)
            rows[row] = left
            y = top + 80 + 16 * row
            told = _tooltip([f"{self.story.device(device)}: {visible(line.get('what'))}, "
                             f"{visible(line.get('base'))}, {size(line.get('size'))}"
                             for _, _, line in blocks[:8]], len(blocks))
            parts.append(tag("g", told, _rect(x, top + 4, right - x, 32, f"block {style}"),
                             _line(x, top + 36, x, y - 4, "leader")))
            names.append(_text(left + 3, y, text, f"name {style}"))
        return parts + names, 16.0 * len(rows)

    def changes(self, y: float) -> list[Html]:
        parts = []
        for mark in cluster(((x, index) for at, index in self.changed
                             if (x := self.x(at)) is not None), APART):
            story = self.story
            x = min(max(mark.x, 8), self.WIDTH - 8)
            inner = [_tooltip([f"#{index} {story.sentence(story.events[index])}"
                               for index in mark.events[:8]], len(mark.events))]
            if len(mark.events) == 1:
                inner.append(_shape(x, y, "bad"))
            else:
                words = f"✘{len(mark.events)}"
                width = 6.5 * len(words) + 8
                x = min(max(x, width / 2), self.WIDTH - width / 2)
                inner += [_rect(x - width / 2, y - 8, width, 16, "mark bad", rounded=8),
                          _text(x, y + 4, words, "count bad", "middle")]
            inner.append(_line(x, y + 8, x, y + 16, "leader"))
            accused = next((index for index in mark.events if index in story.accused), None)
            group = tag("g", *inner)
            parts.append(group if accused is None else tag(
                "a", group, href=f"#failure-{story.accused[accused]}"))
        return parts

    def draw(self) -> Html:
        if not self.regions:
            return tag("p", "The memory map is not in the report.")
        top = 28.0
        labels, more = self.labels(top)
        title = "Map of memory at the call of ExitBootServices"
        picture = svg(self.WIDTH, top + 64 + (20 if more else 0) + more, title, *self.bands(top),
                      *labels, *self.changes(12))
        totals: dict[str, int] = {}
        for region in self.regions:
            totals[region.kind] = totals.get(region.kind, 0) + region.end - region.base
        kinds = tag("ul", *(tag("li", tag("span", LETTERS.get(kind, "?"),
                                          class_=f"swatch m-{kind if kind in LETTERS else 'other'}",
                                          aria_hidden="true"),
                                f" {kind}: {size(total)}"
                                + (", which the OS may reuse" if kind in REUSED else ""))
                            for kind, total in totals.items()), class_="legend")
        note = tag("p", "A piece's width grows with the logarithm of its size: small pieces are "
                   "seen, and huge ones stay small. High pieces are memory that the operating "
                   "system may reuse; low ones are not. The framed blocks were shared with a "
                   "device at the call (thick frame: the device was live). A cross marks what "
                   "changed, be it bytes or the map.", class_="note")
        return join((scrolling(title, picture), kinds, note, self.table()))

    def table(self) -> Html:
        if not self.shared:
            return tag("p", "No memory is known to have been shared with a device at the call.")

        def row(base: int, end: int, line: Line) -> tuple[object, ...]:
            kinds = kinds_at(self.regions, self.starts, base, end)
            reused = [kind for kind in kinds if kind in REUSED]
            device = line.get("device")
            hits = sum(base <= at < end for at, _ in self.changed)
            return (self.story.device(device), line.get("what"), tag("code", line.get("base")),
                    size(end - base), line.get("write"), ", ".join(kinds) or "not in the map",
                    "yes" if reused else "no" if kinds else "–",
                    either(self._live(device, "call"), "live", "not live", "–"),
                    either(self._live(device, "exit"), "live", "not live", "–"), hits or "none")
        rows = [row(*part) for part in self.shared[:ROWS]]
        rest = len(self.shared) - len(rows)
        listed = table("Shared memory", (
            "Device", "What", "At", "Size", "Device may write", "Kind of memory", "OS may reuse it",
            "Device at the call", "Device after the exit", "Changes seen in it"), rows)
        more = tag("p", f"And {rest} more, in the report below.") if rest else ""
        if len(rows) > 12:
            return folded(f"All {len(self.shared)} pieces of shared memory", listed, more)
        return join((listed, more))


# The rest, for the record.

def _others(story: Story) -> Html:
    xen = [(short(line.get("device")), line.get("what"), line.get("value"),
            either(line.get("ok"), "✔ as it should be", "✘ not as it should be", "–"))
           for line in story.other if line.get("type") == "xen"]
    return join((tag("h2", "Xen"), tag("p", "What XenStore, the grant table and the event channels "
                                       "held."),
                 table("Xen", ("Of", "What", "Value", "Judgement"), xen[:ROWS]))) if xen else Html()


def _record(story: Story) -> Html:
    events = (Html(f'<tr id="event-{index}"><td>{index}</td><td>{when(event.get("us"))}</td>'
                   f'<td>{"host" if event.get("by") == "host" else "guest"}</td>'
                   f'<td>{html(event.get("type"))}</td><td>{html(story.sentence(event))}</td></tr>')
              for index, event in enumerate(story.events))
    heads = (tag("th", head, scope="col") for head in ("#", "Time", "By", "Type", "What"))
    listed = scrolling("Events", tag("table", tag("thead", tag("tr", *heads)),
                                     tag("tbody", *events)))
    images = ((key, line.get("name"), tag("code", line.get("base")), size(line.get("size")),
               line.get("guid"), line.get("path"))
              for key, line in list(story.images.items())[:ROWS])
    return join((
        tag("h2", "For the record", id="events"),
        tag("p", "Times begin at the first call of ExitBootServices."),
        folded(f"All {plural(len(story.events), 'event')}", listed),
        folded(f"{plural(len(story.images), 'image')} that were loaded", table(
            "Images", ("#", "Name", "Base", "Size", "GUID", "Path"), images))
        if story.images else ""))


_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#555d66;--rule:#c8cfd6;--soft:#f3f5f7;
--pass:#0f5b27;--pass-bg:#e2f3e6;--fail:#a11616;--fail-bg:#fde6e4;--unseen:#694a00;
--unseen-bg:#fcf0cf;--bar:#3667a6;--link:#0b57a8}
@media (prefers-color-scheme:dark){:root{--bg:#15181b;--fg:#e7e9eb;--dim:#a5adb5;--rule:#3c444c;
--soft:#1e2226;--pass:#7ad795;--pass-bg:#14301d;--fail:#ff9c94;--fail-bg:#411b19;--unseen:#ecc25e;
--unseen-bg:#362b10;--bar:#7fb0ee;--link:#86bbff}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:1150px;background:var(--bg);color:var(--fg);
font:1rem/1.5 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
h1{font-size:1.5rem;margin:.3rem 0}h2{font-size:1.25rem;margin:2.2rem 0 .6rem;
border-bottom:1px solid var(--rule);padding-bottom:.2rem}h3{font-size:1rem;margin:1rem 0 .4rem}
h1,h2,h3,p,li,dd,summary,.wrap{overflow-wrap:anywhere}p{margin:.4rem 0}
a{color:var(--link)}code,pre{font:.86rem/1.45 ui-monospace,"DejaVu Sans Mono",monospace}
pre{margin:.3rem 0}pre.wrap{white-space:pre-wrap}dd code{overflow-wrap:anywhere}
.result{font-size:1.2rem;font-weight:700;padding:.7rem .9rem;border:2px solid;border-radius:6px}
.pass{color:var(--pass)}.fail{color:var(--fail)}.unseen{color:var(--unseen)}
.result.pass,.verdict.pass{background:var(--pass-bg)}.result.fail,.verdict.fail{background:
var(--fail-bg)}.result.unseen,.verdict.unseen{background:var(--unseen-bg)}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:1rem 0}
dt{color:var(--dim)}dd{margin:0;min-width:0}
.note,.legend{color:var(--dim);font-size:.875rem}
.notice{border-left:4px solid var(--unseen);padding:.2rem .7rem;background:var(--unseen-bg)}
.scroll{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.875rem;min-width:100%}
th,td{border-bottom:1px solid var(--rule);padding:.3rem .6rem .3rem 0;text-align:left;
vertical-align:top;min-width:3rem;max-width:36rem;overflow-wrap:break-word}
thead th{vertical-align:bottom;color:var(--dim)}
th small{display:block;font-weight:400;max-width:7.5rem}
tbody th{font-weight:600}th.group{color:var(--dim);font-weight:400;padding-top:.9rem}
.verdicts tbody th[scope=row]{position:sticky;left:0;background:var(--bg);min-width:7rem;
max-width:16rem}
.verdict{display:inline-block;padding:0 .45rem;border-radius:4px;white-space:nowrap}
.verdict.fail{font-weight:700;border:1px solid var(--fail)}.verdict a{color:inherit}
.none{color:var(--dim)}
article{border-left:4px solid var(--fail);padding:.1rem 0 .1rem .9rem;margin:1.2rem 0}
article:target{background:var(--fail-bg)}tr:target{background:var(--unseen-bg)}
.why{font-weight:600}.evidence{padding-left:1.2rem}.evidence li{margin:.6rem 0}
.evidence p{margin:.15rem 0}
mark{background:var(--fail-bg);color:var(--fail);font-weight:700;text-decoration:underline}
details{margin:.6rem 0}summary{cursor:pointer}
.chart{display:flex;align-items:flex-start}.chart .scroll{flex:1 1 0;min-width:0}
.lanes{list-style:none;margin:0;flex:0 0 11.5rem;width:11.5rem;font-size:.8rem}
ul.lanes{padding:0 .5rem 0 0}
.lanes li{height:36px;line-height:36px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
svg{display:block;font:11px system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;
fill:var(--fg)}
.legend svg{display:inline-block;vertical-align:middle}
ul.legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1.2rem}
.lane{fill:var(--soft)}.grid,.tickmark{stroke:var(--rule);stroke-width:1}.tick{fill:var(--dim)}
.fold{fill:var(--rule);opacity:.45}.phase{stroke:var(--dim);stroke-width:1;stroke-dasharray:3 2}
.mark.bad{fill:#b3201b;stroke:var(--bg);stroke-width:1}.cross{stroke:#fff;stroke-width:2;fill:none}
.mark.odd{fill:#e8a400;stroke:#4a3500;stroke-width:1}
.mark.calm{fill:var(--bg);stroke:var(--bar);stroke-width:2}
.count{font-size:10px;font-weight:700}.count.bad{fill:#fff}.count.odd{fill:#2b1f00}
.bar{fill:var(--bar)}.bar.bad{fill:#b3201b;stroke:var(--fail);stroke-width:1}
.m-free{fill:#b7d7ee}.m-boot{fill:#f3c793}.m-loader{fill:#d3c5ea}.m-runtime{fill:#a9d8a6}
.m-acpi{fill:#efe08f}.m-reserved{fill:#b9bec4}.m-mmio{fill:#8f99a3}.m-other{fill:#e0e0e0}
.letter{fill:#17191c;font-size:10px}
.block{fill:#fff;fill-opacity:.45;stroke:#17191c;stroke-width:1}.block.hot{stroke:#b3201b;
stroke-width:2.5}.block.cold{stroke-dasharray:2 2}
.name{paint-order:stroke;stroke:var(--bg);stroke-width:3px}
.leader{stroke:var(--dim);stroke-width:1;fill:none}.name.hot{font-weight:700}
.swatch{display:inline-block;width:1.3rem;text-align:center;color:#17191c;border-radius:3px;
font-size:.75rem}
.swatch.m-free{background:#b7d7ee}.swatch.m-boot{background:#f3c793}
.swatch.m-loader{background:#d3c5ea}.swatch.m-runtime{background:#a9d8a6}
.swatch.m-acpi{background:#efe08f}.swatch.m-reserved{background:#b9bec4}
.swatch.m-mmio{background:#8f99a3}.swatch.m-other{background:#e0e0e0}
@media (max-width:640px){body{padding:.7rem}.facts{grid-template-columns:1fr;gap:0}
dd{margin-bottom:.5rem}.lanes{flex-basis:7.5rem;width:7.5rem;
font-size:.72rem}
.verdicts tbody th[scope=row]{max-width:9rem}}
@page{size:A4 landscape;margin:10mm}
@media print{:root{color-scheme:light;--bg:#fff;--fg:#000;--dim:#444;--rule:#bbb;--soft:#f3f5f7;
--pass:#0f5b27;--pass-bg:#e2f3e6;--fail:#a11616;--fail-bg:#fde6e4;--unseen:#694a00;
--unseen-bg:#fcf0cf;--bar:#3667a6;--link:#000}body{padding:0;max-width:none;font-size:.85rem}
.scroll{overflow:visible}.scroll>svg{max-width:100%;height:auto}.chart svg{max-width:none}
.lanes{flex-basis:8.2rem;width:8.2rem}*{print-color-adjust:exact}
article,.chart,tr{break-inside:avoid}h2,h3{break-after:avoid}}
"""


def render(report: Mapping[str, object]) -> str:
    """The whole page."""
    story = Story(report)
    firmware = mapping(report.get("firmware"))
    name = visible(firmware.get("file") or firmware.get("vendor") or "unknown firmware")
    title = f"Hand-over audit of {name.rsplit('/', 1)[-1]}"
    # In JSON these three only occur inside strings, so they can be spelled otherwise.
    data = json.dumps(report, separators=(",", ":"))
    for char in "<>&":
        data = data.replace(char, f"\\u{ord(char):04x}")
    return "<!DOCTYPE html>\n" + tag(
        "html",
        tag("head", tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy",
                content="default-src 'none'; style-src 'unsafe-inline'"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", f"{title}: {headline(story)[1][2:].split(':')[0].lower()}"),
            tag("style", Html(_STYLE))), Html("\n"),
        tag("body", tag(
            "main", tag("h1", title), _head(story), Html("\n"),
            tag("h2", "Verdicts"), _verdicts(story), Html("\n"),
            tag("h2", "Failures"), _failures(story), Html("\n"),
            tag("h2", "Time line"), TimeLine(story).draw(), Html("\n"),
            tag("h2", "Memory"), MemoryMap(story).draw(), Html("\n"),
            tag("h2", "Devices"), _devices(story), _others(story), Html("\n"),
            _record(story)), Html("\n"),
            tag("script", Html(data), type="application/json", id="report")), Html("\n"),
        lang="en") + "\n"


def write(report: dict[str, object], target: Path) -> None:
    """Write the page; the file is there whole or not at all."""
    new = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        new.write_text(render(report), encoding="utf-8")
        new.replace(target)
    except OSError as error:
        raise LabError(f"{shown(target)} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            new.unlink()


def load(source: Path) -> dict[str, object]:
    """A report that was saved as JSON."""
    try:
        report = json.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise LabError(f"{shown(source)} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise LabError(f"{shown(source)} is not JSON: {error}") from error
    if not isinstance(report, dict) or report.get("format") != "baton-audit":
        raise LabError(f"{shown(source)} is not the report of an audit")
    if report.get("version") != 1:
        raise LabError(f"{shown(source)} is a report of version {visible(report.get('version'))}; "
                       "this program knows version 1")
    return report


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m lab.audit.page",
                                     description="Make a page of an audit's report.")
    parser.add_argument("report", type=Path, help="what ./baton audit --json wrote")
    parser.add_argument("page", type=Path, help="the HTML file to write")
    arguments = parser.parse_args(words)
    try:
        write(load(arguments.report), arguments.page)
    except LabError as error:
        print(f"baton: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
