# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the auditor says: its lines of JSON, as docs/audit-format.md has them.

Where it ran does not matter here; all that is asked for is the text that came out of it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lab.qemu import plain

FORMAT, VERSION = "handover", 1
VERDICTS = ("pass", "fail", "unseen")
RULES = ("C1", "C2", "C3", "C4", "C5", "C6", "C7")

Line = dict[str, Any]
_Kinds = type | tuple[type, ...]

_NULL: type = type(None)
_BEGIN = '{"type":"'

# What each type of line must have for anything to be made of it. Fields that only go on into the
# report are not looked at, and neither is what is not named here.
_NEEDED: dict[str, dict[str, _Kinds]] = {
    "start": {"format": str, "version": int, "firmware": dict},
    "phase": {"phase": str},
    "image": {"image": int, "name": str},
    "device": {"device": str},
    "shared": {"device": str, "base": str, "size": int},
    "region": {"base": str, "size": int},
    "handler": {"us": (int, float), "image": (int, _NULL)},
    "call": {"us": (int, float), "service": str},
    "map-change": {"base": str, "size": int},
    "state": {"device": str, "when": str},
    "notified": {"device": str},
    "watch": {"round": int},
    "change": {"address": str, "size": int},
    "xen": {"device": str},
    "lost": {"what": str, "count": int},
    "error": {"what": str},
    "verdict": {"subject": str, "name": str, "rule": str, "verdict": str, "why": str},
    "end": {"pass": int, "fail": int, "unseen": int},
}


@dataclass
class Said:
    """All that the auditor said, and why it is no audit, if it is none."""

    lines: list[Line] = field(default_factory=list)
    trouble: str | None = None
    """The first thing that is wrong with the text itself: a line that cannot be read, one that is
    missing, an error that the auditor reports. None: it is whole, from start to end."""

    def of(self, kind: str) -> Iterator[Line]:
        """The lines of a type, in their order."""
        return (line for line in self.lines if line["type"] == kind)

    def first(self, kind: str) -> Line | None:
        return next(self.of(kind), None)

    @property
    def started(self) -> bool:
        return self.first("start") is not None

    @property
    def ended(self) -> bool:
        return self.first("end") is not None

    @property
    def phase(self) -> str | None:
        """The last phase that it said it was in."""
        phases = [str(line["phase"]) for line in self.of("phase")]
        return phases[-1] if phases else None


def succeeded(line: Line) -> bool:
    """Whether this is the return of a call of ExitBootServices that did it."""
    return line["type"] == "phase" and line["phase"] == "return" and \
        str(line.get("status", "")).lower() in ("0", "0x0", "success", "efi_success")


def json_of(text: str) -> str | None:
    """The JSON in a line of the log, None for text. Firmware that moves its cursor about leaves
    text in front of a line that we began."""
    at = 0 if text.startswith('{"') else text.find(_BEGIN)
    return text[at:] if at >= 0 else None


def parse_line(text: str) -> Line:
    """One line of JSON. ValueError says what is wrong with it."""
    line = json.loads(text)
    if not isinstance(line, dict) or not isinstance(line.get("type"), str):
        raise ValueError("it has no type")
    for name, kinds in _NEEDED.get(line["type"], {}).items():
        # For Python, a truth is a number.
        if name not in line or not isinstance(line[name], kinds) or isinstance(line[name], bool):
            raise ValueError(f"its {name} is {'wrong' if name in line else 'missing'}")
    for name in ("us", "round", "attempt", "duration"):
        if not isinstance(line.get(name), (int, float, _NULL)):
            raise ValueError(f"its {name} is wrong")
    if line["type"] == "verdict" and line["verdict"] not in VERDICTS:
        raise ValueError(f"there is no verdict {line['verdict']!r}")
    return line


def parse(serial: str) -> Said:
    """The auditor's lines in a serial log."""
    said = Said()
    for number, text in enumerate(plain(serial).split("\n"), 1):
        words = json_of(text)
        if words is None:
            continue
        try:
            said.lines.append(parse_line(words))
        except (ValueError, RecursionError) as error:
            shown = words if len(words) <= 60 else f"{words[:57]}…"
            said.trouble = said.trouble or \
                f"line {number} of what the auditor said cannot be read ({error}): {shown}"
    said.trouble = _trouble(said) or said.trouble
    return said


def _trouble(said: Said) -> str | None:
    """What the auditor itself says is wrong, which counts for more than a line that was cut."""
    error = said.first("error")
    if error is not None:
        return f"the auditor says: {error['what']}"
    start = said.first("start")
    if start is not None and (start["format"], start["version"]) != (FORMAT, VERSION):
        return (f"the auditor writes {start['format']} {start['version']}, and this command reads "
                f"{FORMAT} {VERSION}")
    return None


def whole(said: Said) -> str | None:
    """Why these lines are no audit, for a program that came to its end; None if they are one."""
    if said.trouble is not None:
        return said.trouble
    if len(list(said.of("start"))) != 1 or len(list(said.of("end"))) != 1:
        return "the auditor did not start and end once"
    if said.lines[0]["type"] != "start" or said.lines[-1]["type"] != "end":
        return "the auditor's lines are not in their order: start comes first and end last"
    if not any(succeeded(line) for line in said.lines):
        return "ExitBootServices never succeeded"
    end = said.lines[-1]
    for verdict in VERDICTS:
        count = sum(line["verdict"] == verdict for line in said.of("verdict"))
        if count != end[verdict]:
            return (f"lines are missing from the log: the auditor counts {end[verdict]} verdicts "
                    f"{verdict!r}, and {count} arrived")
    if not any(True for _ in said.of("verdict")):
        return "the auditor judged nothing"
    return None
