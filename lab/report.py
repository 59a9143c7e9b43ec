# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a run found, for people and for programs."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from lab.errors import LabError
from lab.guestlog import GuestLog
from lab.handover import HandOver
from lab.paths import shown
from lab.qemu import Result
from lab.whose import Answer


@dataclass
class Report:
    """Everything that a run of an operating system showed."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    """What ran, in the order in which it is shown."""
    hand_over: HandOver = field(default_factory=lambda: HandOver([], None, ""))
    firmware: Answer | None = None
    guest: GuestLog = field(default_factory=GuestLog)
    held: list[str] = field(default_factory=list)
    """Checks that were made and held, a sentence each."""
    unseen: list[str] = field(default_factory=list)
    """Checks that could not be made, and why."""
    problems: list[str] = field(default_factory=list)
    """What did not hold. Empty is success."""
    result: Result | None = None
    tail: str = ""
    """The end of the serial log, where the run went wrong before its end."""

    @property
    def ok(self) -> bool:
        return not self.problems

    def check(self, holds: bool, held: str, problem: str) -> bool:
        """Note a check under what held or under the problems."""
        if holds:
            self.held.append(held)
        else:
            self.problems.append(problem)
        return holds

    @property
    def last_line(self) -> str:
        """The verdict in one line."""
        count, live = len(self.hand_over.devices), self.hand_over.live
        if self.ok:
            return f"hand-over clean: {count} device{'' if count == 1 else 's'}, {live} live"
        first, others = self.problems[0], len(self.problems) - 1
        more = f" (and {others} more, above)" if others else ""
        return f"not as it should be: {first}{more}"

    def write(self, out: TextIO, *, verbose: bool = False) -> None:
        """The report as text."""
        width = 20

        def row(label: str, text: str) -> None:
            out.write(f"{label:<{width}}{text}\n")

        out.write("\n")
        for label, text in self.facts:
            row(label, text)
        for device in self.hand_over.devices:
            # Many devices tell the same story; a few, or one that went wrong, are worth reading.
            if len(self.hand_over.devices) <= 2 or device.problems or verbose:
                out.write(f"hand-over of {device.device}\n")
                for moment in device.story:
                    row("", f"{moment.time:8.3f} s  {moment.what}")
        for title, lines in (("holds", self.held), ("could not be seen", self.unseen),
                             ("wrong", self.problems)):
            for index, line in enumerate(lines):
                row("" if index else title, line)
        if verbose:
            for index, line in enumerate(self.guest.kernel_lines):
                row("" if index else "kernel log", line)
        if self.tail:
            out.write(f"the end of the serial log:\n{self.tail}\n")
        out.write(f"\n{self.last_line}\n")
        out.flush()

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "ok": self.ok,
            "verdict": self.last_line,
            "facts": dict(self.facts),
            "hand_over": {**dataclasses.asdict(self.hand_over), "live": self.hand_over.live},
            "firmware": dataclasses.asdict(self.firmware) if self.firmware else None,
            "guest": dataclasses.asdict(self.guest),
            "held": self.held,
            "unseen": self.unseen,
            "problems": self.problems,
            "ended": self.result.ended if self.result else None,
            "seconds": self.result.seconds if self.result else None,
            "qemu_retries": self.result.retries if self.result else 0,
        }

    @staticmethod
    def check_target(path: Path) -> None:
        """Refuse a file that save() could not write, before the run and not after it."""
        if path.is_dir():
            raise LabError(f"{shown(path)} cannot be written: it is a folder")
        if path.exists() and not path.is_file():
            raise LabError(f"{shown(path)} cannot be written: it is not a regular file")
        if not path.resolve().parent.is_dir():
            raise LabError(f"{path} cannot be written: its folder does not exist")
        if not os.access(path.resolve().parent, os.W_OK):
            raise LabError(f"{shown(path)} cannot be written: its folder is not yours to write to")

    def save(self, path: Path) -> None:
        """Write as JSON; the file is there whole or not at all."""
        new = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            new.write_text(json.dumps(self.as_json(), indent=2) + "\n")
            new.replace(path)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise LabError(f"{shown(path)} cannot be written: {error.strerror}") from error
