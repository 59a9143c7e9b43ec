# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Traces of XenStore as xenstored writes them, made up: a guest whose firmware drives one disk and
closes it in order, or with one thing wrong."""

import re
from dataclasses import dataclass, field

from lab.report import Report
from lab.xen.boot import judge_all
from lab.xen.judge import XenHandOver

DOMAIN, VBD = 3, 51776
FRONT, BACK = f"device/vbd/{VBD}", f"backend/vbd/{DOMAIN}/{VBD}"
KERNEL, TOOLS, GUEST = "0x5500dc0", "0x5500af0", "0x5500f70"


@dataclass
class Maker:
    """Writes a trace, message by message."""

    lines: list[str] = field(default_factory=list)
    second: int = 0
    token: str = "1"
    """By which the guest hears of the backend."""

    def line(self, text: str) -> None:
        self.lines.append(text)

    def message(self, way: str, who: str, kind: str, text: str) -> None:
        clock = 23 * 3600 + 59 * 60 + 50 + self.second
        clock, minutes, seconds = clock // 3600 % 24, clock // 60 % 60, clock % 60
        self.line(f"{way} {who} 20261124 {clock:02}:{minutes:02}:{seconds:02} {kind} ({text})")
        self.line("wrl: dom    0     11  msec      10000 credit      339800 reserve      0 discard")

    def ask(self, who: str, kind: str, text: str, answer: str = "OK ", error: str = "") -> None:
        self.message("IN", who, kind, text)
        self.message("OUT", who, "ERROR" if error else kind, f"{error} " if error else answer)

    def write(self, who: str, path: str, value: str) -> None:
        self.ask(who, "WRITE", f"{path} {value}")

    def both(self, front: str, back: str) -> None:
        """The frontend goes to a state, and the backend follows."""
        self.write(GUEST, f"{FRONT}/state", front)
        self.switch(back)

    def switch(self, state: str) -> None:
        """The backend's state, as dom0's kernel writes it: in a transaction."""
        self.ask(KERNEL, "TRANSACTION_START", " ", "7 ")
        self.line("CREATE transaction 0x5500e730")
        self.ask(KERNEL, "READ", f"{BACK}/state ", "1")
        self.write(KERNEL, f"{BACK}/state", state)
        self.ask(KERNEL, "TRANSACTION_END", "T ")
        self.line("DESTROY transaction 0x5500e730")
        self.message("OUT", GUEST, "WATCH_EVENT", f"/local/domain/0/{BACK}/state {self.token} ")

    def create(self) -> None:
        """What xl and the backend do before the domain runs."""
        self.line("CREATE connection " + TOOLS)
        home = f"/local/domain/{DOMAIN}"
        for path, value in ((FRONT, ""), (f"{FRONT}/backend", f"/local/domain/0/{BACK}"),
                            (f"{FRONT}/backend-id", "0"), (f"{FRONT}/state", "1"),
                            ("control/platform-feature-xs_reset_watches", "1")):
            self.write(TOOLS, f"{home}/{path}", value)
        self.write(TOOLS, f"/local/domain/0/{BACK}/state", "1")
        self.write(KERNEL, f"{BACK}/feature-max-indirect-segments", "256")
        self.switch("2")
        self.message("IN", TOOLS, "INTRODUCE", f"{DOMAIN} 1044476 1 ")
        self.line("CREATE connection " + GUEST)
        self.message("OUT", TOOLS, "INTRODUCE", "OK ")
        self.line("DESTROY connection " + TOOLS)

    def hvmloader(self) -> None:
        self.ask(GUEST, "READ", "hvmloader/bios ", "ovmf")
        self.ask(GUEST, "READ", "platform/mmio_hole_size ", error="ENOENT")

    def connect(self, ring: str = "8") -> None:
        """As a driver in the firmware does it."""
        self.ask(GUEST, "WATCH", f"/local/domain/0/{BACK}/state 1 ")
        self.ask(GUEST, "TRANSACTION_START", " ", "9 ")
        self.write(GUEST, f"{FRONT}/ring-ref", ring)
        self.write(GUEST, f"{FRONT}/event-channel", "5")
        self.write(GUEST, f"{FRONT}/state", "3")
        self.ask(GUEST, "TRANSACTION_END", "T ")
        self.switch("4")
        self.write(GUEST, f"{FRONT}/state", "4")

    def close(self) -> None:
        self.both("5", "5")
        self.ask(GUEST, "READ", f"/local/domain/0/{BACK}/state ", "5")
        self.both("6", "6")
        self.both("1", "2")

    def clean(self) -> None:
        for key in ("ring-ref", "event-channel"):
            self.ask(GUEST, "RM", f"{FRONT}/{key} ")
        self.ask(GUEST, "UNWATCH", f"/local/domain/0/{BACK}/state 1 ")

    def linux_begins(self, *, drops: bool = True, error: str = "") -> None:
        """Its first words, which also have dropped what was watched before."""
        self.ask(GUEST, "READ", "control/platform-feature-xs_reset_watches ", "1")
        if drops:
            self.ask(GUEST, "RESET_WATCHES", " ", error=error)
        self.token = "FFFF888005780420"
        self.ask(GUEST, "WATCH", "device FFFFFFFF82BB0B60 ")

    def linux(self, *, reset: bool = False, connects: bool = True) -> None:
        """Linux's bus and its blkfront."""
        self.linux_begins()
        if reset:
            self.both("5", "5")
            self.both("6", "6")
            self.both("1", "2")
        if connects:
            self.ask(GUEST, "TRANSACTION_START", " ", "12 ")
            self.write(GUEST, f"{FRONT}/ring-ref", "11")
            self.write(GUEST, f"{FRONT}/event-channel", "8")
            self.ask(GUEST, "TRANSACTION_END", "T ")
            self.write(GUEST, f"{FRONT}/state", "3")
            self.switch("4")
            self.write(GUEST, f"{FRONT}/state", "4")

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


def whole() -> Maker:
    """A run in which nothing is wrong."""
    maker = up_to_connected()
    maker.close()
    maker.clean()
    maker.second = 20
    maker.linux()
    return maker


def up_to_connected() -> Maker:
    maker = Maker()
    maker.create()
    maker.second = 3
    maker.hvmloader()
    maker.second = 5
    maker.connect()
    maker.second = 15
    return maker


def problems_of(seen: XenHandOver) -> str:
    return "; ".join([*seen.hand_over.problems, *seen.problems])


def assert_dirty(seen: XenHandOver, words: str, is_live: bool | None, *, bios: bool = False) -> None:
    """The judgement says these words against a firmware that drove the disk, and so does the report."""
    assert re.search(words, problems_of(seen)), problems_of(seen)
    assert seen.hand_over.devices[0].driven and seen.hand_over.devices[0].live is is_live
    report = Report(hand_over=seen.hand_over)
    judge_all(report, seen, bios=bios)
    assert not report.ok and report.last_line.startswith("not as it should be: ")
