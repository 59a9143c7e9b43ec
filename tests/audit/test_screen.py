# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The screen shows the verdicts: what a person reads from it is what the serial port was sent.

The picture is taken from the machine and read back. The letters' shapes come from the firmware's
font, so they are learned from the first lines of the page, whose text the serial log has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.audit.lines import parse
from lab.qemu import Disk, Machine, Result, plain, run
from lab.qmp import Qmp
from test_starts import AUDITOR, DISK, DRIVERS, ENDED, MEMORY, TIMEOUT, Monitor, Mute, lines_of
from test_starts import machine, medium, text, verdicts_of

WIDTH, HEIGHT = 8, 19
"""Of a letter, in dots."""
PAGE = "Verdicts (?: could not be seen)"
UNKNOWN = "\ufffd"

Cell = bytes
# Devices at places with numbers that make sure that every digit is in the table.
DISKS = [word for slot in (6, 8, 9) for word in (
    "-drive", f"if=none,id=more{slot},format=raw,file=null-co://,file.size=1M,file.read-zeroes=on",
    "-device", f"virtio-blk-pci,drive=more{slot},addr={slot},romfile=")]


@dataclass(frozen=True)
class Picture:
    """The screen, cut into cells of a letter each."""

    columns: int
    rows: int
    cells: Sequence[Sequence[Cell]]
    colours: frozenset[bytes]

    @staticmethod
    def load(path: Path) -> "Picture":
        """From a file of the form "portable pixmap", as QEMU writes it: P6, width, height, 255."""
        kind, width, height, most, dots = path.read_bytes().split(maxsplit=4)
        assert (kind, most) == (b"P6", b"255")
        pitch = int(width) * 3
        assert len(dots) == pitch * int(height)
        columns, rows = int(width) // WIDTH, int(height) // HEIGHT
        cells = [[b"".join(dots[(row * HEIGHT + y) * pitch + column * WIDTH * 3:][:WIDTH * 3]
                           for y in range(HEIGHT)) for column in range(columns)]
                 for row in range(rows)]
        return Picture(columns, rows, cells,
                       frozenset(dots[at:at + 3] for at in range(0, len(dots), 3)))


@dataclass
class Letters:
    """What each letter looks like."""

    known: dict[Cell, str] = field(default_factory=lambda: {bytes(WIDTH * HEIGHT * 3): " "})

    def learn(self, cells: Sequence[Cell], line: str) -> None:
        """A letter always looks the same, and no two look alike."""
        for cell, letter in zip(cells, line.ljust(len(cells)), strict=True):
            assert self.known.setdefault(cell, letter) == letter
        letters = list(self.known.values())
        assert len(letters) == len(set(letters))

    def read(self, cells: Sequence[Cell]) -> str:
        return "".join(self.known.get(cell, UNKNOWN) for cell in cells).rstrip()


def page_of(serial: str, columns: int) -> list[str]:
    """The verdicts' page as the serial log has it, in lines as long as the screen is wide."""
    lines = plain(serial).splitlines()
    begin = next(index for index, line in enumerate(lines) if line.startswith(PAGE))
    kept = [line for line in lines[begin:] if not line.startswith(("{", ENDED))]
    return [piece.rstrip() for line in kept for piece in _pieces(line, columns)]


def _pieces(line: str, columns: int) -> Iterator[str]:
    yield line[:columns]
    for at in range(columns, len(line), columns):
        yield line[at:at + columns]


def shown(given: Machine, monitor: Monitor, picture: Path) -> tuple[Result, Picture]:
    result = run(given, timeout=TIMEOUT, stage=monitor.stage)
    assert result.ended == "quit", result.explain()
    return result, Picture.load(picture)


def photographer(folder: Path) -> tuple[Monitor, Path]:
    picture = folder / "screen.ppm"

    def take(qmp: Qmp) -> None:
        qmp.execute("screendump", {"filename": str(picture)})
    return Monitor(folder / "qmp", take), picture


def read_back(result: Result, picture: Picture) -> tuple[Letters, list[str]]:
    """Learn from the page's table, and read all that is on the screen."""
    page = page_of(result.serial, picture.columns)
    table = page.index("")
    letters = Letters()
    # The page begins with a line that is empty.
    for row, line in enumerate(page[:table], 1):
        letters.learn(picture.cells[row], line)
    return letters, [letters.read(cells) for cells in picture.cells]


@pytest.mark.parametrize(("driver", "last"), [("innocent", "clean: "),
                                              ("leaves-ring-live", "violations: ")])
def test_screen(tmp_path: Path, driver: str, last: str) -> None:
    monitor, picture_file = photographer(tmp_path)
    name = f"opt/baton/driver/{driver}.efi"
    given = Machine(machine="pc", memory=MEMORY, trace_events=(), kernel=AUDITOR,
                    append=f"exit=halt watch=100 driver={driver}.efi", extra=[
                        *monitor.words, "-device", "VGA", *DISKS,
                        "-fw_cfg", f"name={name},file={DRIVERS}/{driver}.efi"])
    result, picture = shown(given, monitor, picture_file)
    lines_of(result)
    assert picture.colours == {b"\0\0\0", b"\xff\xff\xff"}
    _, rows = read_back(result, picture)
    page = page_of(result.serial, picture.columns)
    assert page[-1].startswith(last)
    # The table has no comma.
    assert rows[len(page)].replace(UNKNOWN, ",") == page[-1]
    # Capitals and signs that the table has none of stay unknown; everything else is as it should
    # be, and what was on the screen before is gone.
    for row, line in zip(rows, ["", *page, *[""] * (picture.rows - len(page) - 1)], strict=True):
        assert len(row) == len(line)
        assert all(is_ in (UNKNOWN, should) for is_, should in zip(row, line, strict=True)), row
    assert "".join(rows).count(UNKNOWN) < len("".join(page)) // 20


def test_screen_is_the_only_witness(tmp_path: Path) -> None:
    """On a machine without a serial port, started from a medium. The letters are learned on one
    that has it; it gives the same text, since it is the same audit."""
    disk = medium(tmp_path, text("exit=halt", "watch=100"))
    monitor, picture_file = photographer(tmp_path)
    result, picture = shown(machine(disk, [*monitor.words, "-device", "VGA", *DISKS]), monitor,
                            picture_file)
    letters, expected = read_back(result, picture)
    assert verdicts_of(lines_of(result), DISK)

    def look(qmp: Qmp) -> bool:
        # Nobody says when it is done: look, and look again.
        qmp.execute("screendump", {"filename": str(picture_file)})
        seen = Picture.load(picture_file)
        return [letters.read(cells) for cells in seen.cells] == expected

    blind = Monitor(tmp_path / "qmp", look, blind=True)
    result = run(Mute(machine="pc", memory=MEMORY, trace_events=(), disks=[Disk(disk)],
                      extra=[*blind.words, "-device", "VGA", *DISKS]),
                 timeout=TIMEOUT, stage=blind.stage)
    assert result.serial == ""
    assert result.ended == "quit", f"the screen never showed it: {result.explain()}"


def test_no_display(tmp_path: Path) -> None:
    """Without one, the serial port alone has it all."""
    monitor = Monitor(tmp_path / "qmp", lambda qmp: None)
    disk = medium(tmp_path, text("exit=halt", "watch=100", "screen=both"))
    result = run(machine(disk, monitor.words), timeout=TIMEOUT, stage=monitor.stage)
    assert result.ended == "quit", result.explain()
    assert parse(result.serial).ended
    assert verdicts_of(lines_of(result), DISK)
    assert page_of(result.serial, 1000)[-1].startswith(("clean: ", "violations: "))
