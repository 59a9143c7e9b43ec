# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The audit's report: what the auditor said and what the host saw, made into one judgement.

Its form as JSON is fixed by docs/audit-format.md ("The report").
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from lab.audit.host import Finding, HostEvent, Seen, counted
from lab.audit.lines import RULES, Line, Said, succeeded
from lab.errors import LabError
from lab.paths import shown

FORMAT, VERSION = "baton-audit", 1
CLEAN, VIOLATIONS, CANNOT = "clean", "violations", "could not audit"

TITLES = {
    "C1": "one event per binding",
    "C2": "clean hands",
    "C3": "alive or dormant",
    "C4": "nothing in flight",
    "C5": "memory outlives the device's view of it",
    "C6": "bounded",
    "C7": "as found",
}

_TIME_LINE = ("phase", "handler", "call", "map-change", "state", "notified", "watch", "change")
_SORTED_OUT = ("image", "device", "region", "shared", "verdict", *_TIME_LINE)
_WORSE = {"unseen": 0, "pass": 1, "fail": 2}
_EVIDENCE_MAX = 1000
_EVIDENCE_SHOWN = 8
_STACK_SHOWN = 4
_HEADINGS = {"fail": "broken", "unseen": "could not be seen", "pass": "held"}

Report = dict[str, Any]


@dataclass
class Facts:
    """How it was run, which the auditor does not know."""

    machine: dict[str, object] = field(default_factory=dict)
    firmware: dict[str, object] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    """What --device said, by PCI place."""


def build(facts: Facts, said: Said, seen: Seen, error: str | None = None) -> Report:
    """The report. `error` is why it could not be audited."""
    start = said.first("start") or {}
    events = _time_line(said, seen)
    verdicts = _merged(said, seen, events)
    if error is None and verdicts:
        verdicts += _unjudged(facts, verdicts)
    verdicts.sort(key=_order)
    counts = {word: sum(verdict["verdict"] == word for verdict in verdicts)
              for word in ("pass", "fail", "unseen")}
    if error is None and not counts["pass"] and not counts["fail"]:
        error = "nothing that is to be judged could be seen"
    result = CANNOT if error is not None else VIOLATIONS if counts["fail"] else CLEAN
    firmware = start.get("firmware", {})
    return {
        "format": FORMAT, "version": VERSION, "result": result, "error": error,
        "machine": {"hypervisor": start.get("hypervisor"), "memory": start.get("memory"),
                    **facts.machine},
        "firmware": {**{name: firmware.get(name) for name in ("vendor", "revision", "uefi")},
                     **facts.firmware},
        "rules": [{"rule": rule, "title": TITLES[rule]} for rule in RULES],
        "images": list(said.of("image")),
        "devices": [{**line, "option": facts.options.get(line["device"])}
                    for line in said.of("device")],
        "regions": list(said.of("region")),
        "shared": list(said.of("shared")),
        "events": events,
        "evidence": [line for line in said.lines if line["type"] not in _SORTED_OUT],
        "verdicts": verdicts,
        "counts": counts,
    }


def _time_line(said: Said, seen: Seen) -> list[Line]:
    """Everything that has a time, in its order."""
    rounds = {line["round"]: line["us"] for line in said.of("watch") if line.get("us") is not None}
    timed: list[tuple[float, Line]] = []
    last = -math.inf
    for line in said.lines:
        if line["type"] not in _TIME_LINE:
            continue
        us = line.get("us")
        if us is None and line["type"] == "change":
            us = rounds.get(line.get("round"))  # seen when its round was over
        if us is None:
            us = last if line["type"] != "phase" else -math.inf
        if line["type"] == "phase":
            last = us
        timed.append((us, line))
    timed += [(event["us"], event) for event in seen.events]
    # Stable: the auditor's phases come before what happened in them, and that in its own order.
    timed.sort(key=lambda item: item[0])
    return [line for _, line in timed]


# ---- Verdicts ----

def _merged(said: Said, seen: Seen, events: Sequence[Line]) -> list[Line]:
    places = {id(event): index for index, event in enumerate(events)}
    verdicts: dict[tuple[object, ...], Line] = {}
    for line in said.of("verdict"):
        key = (line["subject"], line["name"], line.get("image"), line["rule"])
        known = verdicts.get(key)
        if known is None or _WORSE[line["verdict"]] > _WORSE[known["verdict"]]:
            verdicts[key] = {**line, "by": "guest", "evidence": []}
    for verdict in verdicts.values():
        verdict["evidence"] = _evidence(verdict, events, said)
    for finding in seen.findings:
        key = ("device", finding.device, None, finding.rule)
        mine = [places[id(event)] for event in finding.evidence if id(event) in places]
        verdicts[key] = merge(verdicts.get(key), finding, mine)
    return list(verdicts.values())


def _order(verdict: Line) -> tuple[object, ...]:
    order = {"firmware": 0, "driver": 1, "device": 2}
    return (order.get(verdict["subject"], 3), verdict["name"], verdict.get("image") or 0,
            verdict["rule"])


def _unjudged(facts: Facts, verdicts: Sequence[Line]) -> list[Line]:
    """For each device that was asked for and that nothing is said of: who asked is told so."""
    judged = {verdict["name"] for verdict in verdicts if verdict["subject"] == "device"}
    return [{"type": "verdict", "subject": "device", "name": place, "image": None, "rule": "C4",
             "verdict": "unseen", "why": "no driver held it and it was not live at the call: there "
             "was nothing to let go of", "by": "host", "evidence": []}
            for place in facts.options if place not in judged]


def merge(guest: Line | None, host: Finding, evidence: Sequence[int] = ()) -> Line:
    """One verdict of two: a fail of either is a fail, else a pass of either a pass."""
    told = {"type": "verdict", "subject": "device", "name": host.device, "image": None,
            "rule": host.rule, "verdict": host.verdict, "why": host.why, "by": "host",
            "evidence": list(evidence)}
    if guest is None:
        return told
    mine, theirs = _WORSE[host.verdict], _WORSE[guest["verdict"]]
    if theirs > mine:
        return guest
    if mine > theirs:
        return told
    why = guest["why"] if host.verdict == "pass" else f"{guest['why']}; and QEMU saw: {host.why}"
    return {**guest, "by": "both", "why": why,
            "evidence": sorted({*guest["evidence"], *evidence})}


def _evidence(verdict: Line, events: Sequence[Line], said: Said) -> list[int]:
    """Which of the events a verdict of the auditor's rests on."""
    shared = [(_number(line["base"]), line["size"]) for line in said.of("shared")
              if line["device"] == verdict["name"]]
    found = [index for index, event in enumerate(events)
             if event.get("by") != "host" and _speaks_of(verdict, event, shared)]
    return found[:_EVIDENCE_MAX]


def _speaks_of(verdict: Line, event: Line, shared: Sequence[tuple[int, int]]) -> bool:
    rule, kind = str(verdict["rule"]), str(event["type"])
    if verdict["subject"] == "device":
        if kind == "call":
            return rule == "C5" and _frees(event, shared)
        if event.get("device") != verdict["name"]:
            return False
        if rule == "C4":
            return kind in ("change", "notified") or \
                _state_later(event) and event.get("live") is True
        return rule == "C7" and _state_later(event)
    if verdict["subject"] == "firmware":
        return rule == "C2" and kind == "map-change" or \
            rule == "C4" and kind == "change"
    image = verdict.get("image")
    if image is None:
        return False
    if kind == "call":
        return rule in ("C1", "C2") and bool(event.get("blame") == image
                                             and event.get("judged") != "allowed")
    return kind == "handler" and bool(event["image"] == image) and \
        (rule in ("C1", "C6") or rule == "C2" and event.get("map_changed") is True)


def _state_later(event: Line) -> bool:
    return bool(event["type"] == "state" and event["when"] != "call")


def _frees(call: Line, shared: Sequence[tuple[int, int]]) -> bool:
    """Whether a call gives memory back that a device was shown."""
    if not str(call["service"]).startswith("Free") or not call.get("args"):
        return False
    base = _number(call["args"][0])
    size = 1
    if call["service"] == "FreePages" and len(call["args"]) > 1:
        size = max(1, _number(call["args"][1]) << 12)
    return any(base < start + length and start < base + size for start, length in shared)


def _number(text: object) -> int:
    try:
        return int(str(text), 0)
    except ValueError:
        return -1


# ---- For people ----

def clean_text(value: object) -> str:
    """Text that came from firmware, without what would move the reader's cursor."""
    return "".join(char if char.isprintable() else "?" for char in str(value))


def last_line(report: Report) -> str:
    """The verdict in one line."""
    counts = report["counts"]
    total = sum(counts.values())
    unseen = f"; {counts['unseen']} could not be seen" if counts["unseen"] else ""
    if report["result"] == CANNOT:
        return f"audit: could not audit: {clean_text(report['error'])}"
    if report["result"] == VIOLATIONS:
        failed = [f"{verdict['rule']} {_subject(verdict, report)}"
                  for verdict in report["verdicts"] if verdict["verdict"] == "fail"]
        names = ", ".join(failed[:6]) + (", …" if len(failed) > 6 else "")
        return f"audit: violations: {counts['fail']} of {total} verdicts failed ({names}){unseen}"
    return f"audit: clean: {counts['pass']} of {total} verdicts passed{unseen}"


def write(report: Report, out: TextIO, *, verbose: bool = False, tail: str = "") -> None:
    """The report as text. `tail` is the end of the serial log, where the run broke."""
    out.write("\n")
    for label, text in _facts(report):
        out.write(f"{label:<20}{clean_text(text)}\n")
    if report["verdicts"]:
        out.write("\n")
        _write_table(report, out)
    wanted = ("fail", "unseen", "pass") if verbose else ("fail",)
    for word in wanted:
        chosen = [verdict for verdict in report["verdicts"] if verdict["verdict"] == word]
        if chosen:
            out.write(f"\n{_HEADINGS[word]}\n")
        for verdict in chosen:
            _write_verdict(report, verdict, out, evidence=word == "fail")
    for line in report["evidence"]:
        if line["type"] == "lost":
            out.write(f"\nnote: {counted(line['count'], 'line')} of type "
                      f"{clean_text(line['what'])} did not fit into the auditor's memory and "
                      "are not in the report\n")
    if tail:
        out.write(f"\nthe end of the serial log:\n{tail}\n")
    out.write(f"\n{last_line(report)}\n")
    out.flush()


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    firmware, machine = report["firmware"], report["machine"]
    package = f" of Debian's {firmware['package']}" if firmware.get("package") else ""
    maker = f" ({firmware['vendor']} {firmware['revision']}, UEFI {firmware['uefi']})" \
        if firmware.get("vendor") else ""
    yield "firmware", f"{firmware.get('file', 'not known')}{package}{maker}"
    memory = f", {machine['memory'] >> 20} MiB" if machine.get("memory") else ""
    kind = ", ".join(str(machine[name]) for name in ("accelerator", "machine") if machine.get(name))
    name = f"QEMU {machine['qemu']}" if machine.get("qemu") else machine.get("hypervisor")
    if machine.get("xen"):
        name = f"Xen {machine['xen']}, in {name}"
    yield "machine", f"{name or 'not known'}{', ' if kind else ''}{kind}{memory}"
    names = {image["image"]: str(image["name"]) for image in report["images"]}
    label = "devices"
    for device in report["devices"]:
        drivers = [names.get(image, f"image {image}") for image in device.get("drivers") or []]
        if not drivers and device["option"] is None:
            continue
        held = f", driven by {', on '.join(reversed(drivers))}" if drivers else ", driven by nobody"
        busy = f", {device['busy']} at the call" if device.get("busy") not in (None, "idle") else ""
        option = f" ({device['option']})" if device["option"] not in (None, device.get("kind")) \
            else ""
        yield label, f"{device['device']} {device.get('kind', '')}{option}{held}{busy}"
        label = ""
    yield from _exit_facts(report)


def _exit_facts(report: Report) -> Iterator[tuple[str, str]]:
    events = report["events"]
    returns = [event for event in events if succeeded(event)]
    if returns and returns[-1].get("us") is not None:
        handlers = sum(event["type"] == "handler" for event in events)
        calls = sum(event["type"] == "call" for event in events)
        attempt = returns[-1].get("attempt", 1)
        yield "exit", (f"{counted(attempt, 'call')} of ExitBootServices, "
                       f"{returns[-1]['us'] / 1000:.3f} ms; {counted(handlers, 'handler')} and "
                       f"{counted(calls, 'service call')} seen")
    rounds = [event for event in events if event["type"] == "watch"]
    if rounds:
        size = max(int(event.get("bytes") or 0) for event in rounds)
        spent = sum(float(event.get("ms") or 0) for event in rounds) / 1000
        yield "watch", f"{counted(len(rounds), 'round')}, {spent:.1f} s, {size >> 20} MiB"


def _subject(verdict: Mapping[str, Any], report: Report) -> str:
    if verdict["subject"] == "firmware":
        return "the firmware"
    name = str(verdict["name"])
    for device in report["devices"] if verdict["subject"] == "device" else ():
        if device["device"] == name:
            # The word by which it was asked for says more than "virtio" or "other".
            option = str(device["option"] or "").partition(",")[0]
            name = f"{name} {option or device.get('kind', '')}".rstrip()
    return clean_text(name)


def _write_table(report: Report, out: TextIO) -> None:
    rows: dict[tuple[object, ...], dict[str, str]] = {}
    for verdict in report["verdicts"]:
        key = (verdict["subject"], verdict.get("image"), _subject(verdict, report))
        rows.setdefault(key, {})[verdict["rule"]] = verdict["verdict"]
    width = max(20, min(44, 2 + max(len(str(name)) for _, _, name in rows)))
    words = {"pass": "pass", "fail": "FAIL", "unseen": "?"}
    rules = [entry["rule"] for entry in report["rules"]]
    out.write(" " * width + "".join(f"{rule:<6}" for rule in rules).rstrip() + "\n")
    for row, marks in rows.items():
        cells = "".join(f"{words.get(marks.get(rule, ''), '-'):<6}" for rule in rules)
        text = str(row[2])
        text = text if len(text) < width else text[:width - 2] + "…"
        out.write(f"{text:<{width}}{cells.rstrip()}\n")
    out.write("(?: could not be seen; -: not judged)\n")


def _write_verdict(report: Report, verdict: Line, out: TextIO, *, evidence: bool) -> None:
    rule = verdict["rule"]
    title = TITLES.get(rule, "")
    subject = _subject(verdict, report)
    out.write(f"  {rule} ({title}), {subject}: {clean_text(verdict['why'])}\n")
    if not evidence:
        return
    chosen = [report["events"][index] for index in verdict["evidence"]]
    for event in _telling(chosen):
        out.write(f"      {clean_text(sentence(event, report))}\n")
    if len(chosen) > _EVIDENCE_SHOWN:
        out.write(f"      … and {len(chosen) - _EVIDENCE_SHOWN} more\n")


def _telling(events: Sequence[Line]) -> list[Line]:
    """A few of many events, in their order: the first of each type, and then whatever comes."""
    types: dict[str, int] = {}
    for index, event in enumerate(events):
        types.setdefault(event["type"], index)
    firsts = list(types.values())[:_EVIDENCE_SHOWN]
    others = [index for index in range(len(events)) if index not in firsts]
    return [events[index] for index in sorted([*firsts, *others][:_EVIDENCE_SHOWN])]


def sentence(event: Mapping[str, Any], report: Report) -> str:
    """An event in words, with its time."""
    us = event.get("us")
    if us is None and event["type"] == "change":
        when = f"round {event.get('round')}"
    else:
        when = "" if us is None else f"{us / 1000:+.3f} ms"
    return f"{when:>14}  {_words(event, report)}"


def _image(report: Report, number: object) -> str:
    for image in report["images"]:
        if image["image"] == number:
            return str(image["name"])
    return "code that is nobody's" if number is None else f"image {number}"


_WHEN = {"call": "at the call", "exit": "right after the exit", "end": "at the end"}


def _words(event: Mapping[str, Any], report: Report) -> str:
    kind = event["type"]
    if kind == "call":
        offset = event.get("offset")
        offset = f"+{offset:#x}" if isinstance(offset, int) else f"+{offset}" if offset else ""
        args = ", ".join(str(each) for each in event.get("args") or [])
        text = f"{event['service']}({args}), called by {_image(report, event.get('image'))}{offset}"
        via = [_image(report, image) for image in event.get("via") or []]
        via = via if len(via) <= _STACK_SHOWN else ["…", *via[-_STACK_SHOWN:]]
        judged = {"specification": "; the UEFI specification forbids it here",
                  "contract": "; the contract forbids it here"}
        return text + (f", on behalf of {' → '.join(via)}" if via else "") + \
            judged.get(str(event.get("judged")), "")
    if kind == "handler":
        took = f" took {event['duration']} µs" if event.get("duration") is not None else " ran"
        return f"the exit handler of {_image(report, event['image'])}{took}"
    if kind == "map-change":
        return f"{event['base']}, {counted(event['size'], 'byte')}: {event.get('was')} when the " \
            f"loader read the map, {event.get('is')} at the end of the exit"
    if kind == "state":
        parts = [str(event["what"])] if event.get("what") else []
        parts += [f"{name} {event[name]}" for name in ("status", "command", "queues")
                  if event.get(name) not in (None, []) and name not in str(event.get("what"))]
        return f"{_WHEN.get(event['when'], event['when'])}: {', '.join(parts)}"
    if kind == "change":
        owner = event.get("owner")
        whose = f", which {_image(report, owner)} had allocated" if owner is not None else ""
        what = event.get("what") or "shown to no device that is known"
        return f"{counted(event['size'], 'byte')} written at {event['address']} ({what}{whose}): " \
            f"expected {event.get('expected')}, found {event.get('found')}"
    if kind == "notified":
        return f"{event.get('queues')} of its queues were notified by the auditor"
    return _host_words(event)


def _host_words(event: HostEvent | Mapping[str, Any]) -> str:
    kind = event["type"]
    times = "" if event.get("count", 1) == 1 else f", {event['count']} times"
    queue = f" of queue {event['queue']}" if event.get("queue") is not None else ""
    if kind == "host-status":
        return f"QEMU: its status became {event['value']}"
    if kind == "host-command":
        return f"QEMU: its PCI command register was set to {event['value']}"
    if kind == "host-notify":
        return f"QEMU: queue {event.get('queue')} was notified{times}"
    if kind == "host-taken":
        return f"QEMU: it read a request or buffer{queue} from memory{times}"
    if kind == "host-used":
        return f"QEMU: it gave {counted(event['count'], 'buffer')}{queue} back"
    if kind == "host-packet":
        return f"QEMU: it put {counted(event['count'], 'packet')} into memory"
    return f"QEMU: {event.get('what', kind)}"


# ---- For programs ----

def save(report: Report, path: Path) -> None:
    """Write as JSON; the file is there whole or not at all."""
    new = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        new.write_text(json.dumps(report, indent=1) + "\n")
        new.replace(path)
    except OSError as error:
        raise LabError(f"{shown(path)} cannot be written: {error.strerror}") from error
    finally:
        new.unlink(missing_ok=True)
