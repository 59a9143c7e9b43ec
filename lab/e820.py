# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The memory map that a PC BIOS gives (INT 15h, E820), as Linux prints it, and as SeaBIOS does."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_LINE = re.compile(r"BIOS-e820: \[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\] (\S.*?)\s*$", re.MULTILINE)
_SEABIOS = re.compile(r"^ +\d+: ([0-9a-f]{16}) - ([0-9a-f]{16}) = \d+ (\S+)$", re.MULTILINE)
_LINUX_S = {"RAM": "usable", "RESERVED": "reserved"}

_HIGH = 0xA0000
_END = 0x100000
"""Between these a PC has its display and its ROMs, for which no map is needed: nobody has ever had
memory there, and Linux takes it off whatever a map says."""


@dataclass(frozen=True)
class Range:
    """`end` is the first byte behind it."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class MemoryMap:
    """What is reported, in order."""

    ranges: Sequence[Range]

    def trouble(self, start: int, size: int) -> str | None:
        """Why an operating system may use some of this memory, or None if it may use none of it.
        What is not reported at all is nobody's, and may become anybody's."""
        end = start + size
        for each in self.ranges:
            if each.kind != "reserved" and each.start < end and start < each.end:
                return (f"0x{max(start, each.start):x} is in 0x{each.start:x}–0x{each.end - 1:x}, "
                        f"which the memory map calls {each.kind}")
        reserved = [*self.ranges, Range(_HIGH, _END, "reserved")]
        at = start
        while at < end:
            ends = [each.end for each in reserved if each.start <= at < each.end]
            if not ends:
                return f"0x{at:x} is in no range of the memory map"
            at = max(ends)
        return None


def parse(serial: str) -> MemoryMap | None:
    """The map in a serial log (plain text); None if none was printed."""
    found = [Range(int(start, 16), int(last, 16) + 1, kind)
             for start, last, kind in _LINE.findall(serial)]
    return MemoryMap(found) if found else None


def parse_seabios(log: str) -> MemoryMap | None:
    """The same in SeaBIOS's own log, which has it when it begins to boot."""
    found = [Range(int(start, 16), int(end, 16), _LINUX_S.get(kind, kind))
             for start, end, kind in _SEABIOS.findall(log)]
    return MemoryMap(found) if found else None
