# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The watch sees every byte that changes, wherever it is, and none that does not.

The machine's memory is a file that we have open as well. While the auditor watches, we are the
device that was not let go of: we turn a bit here and there, and it has to name each place.
"""

import collections
import mmap
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.audit.lines import Line, parse, whole
from lab.paths import BUILD
from lab.qemu import Machine, Result, run

AUDITOR = BUILD / "audit/handover.efi"
MEMORY = 192
"""In MiB. As long as it is less than 2 GiB, there is no hole in it, and an address is a place in
the file."""
PAGE = mmap.PAGESIZE
POKES = 40
ROUNDS = 2


def _word(memory: mmap.mmap, at: int) -> int:
    return int(struct.unpack_from("<Q", memory, at)[0])


def _filled(memory: mmap.mmap) -> list[tuple[int, int]]:
    """Which runs of pages hold the auditor's pattern, found without asking it: nearly all of memory
    does, and everywhere the same number tells a word from its address."""
    masks = collections.Counter(_word(memory, at) ^ at for at in range(0, len(memory), PAGE))
    mask, _ = masks.most_common(1)[0]
    runs: list[tuple[int, int]] = []
    for at in range(0, len(memory), PAGE):
        if any(_word(memory, at + offset) ^ (at + offset) != mask for offset in (0, PAGE - 8)):
            continue
        if runs and runs[-1][1] == at:
            runs[-1] = runs[-1][0], at + PAGE
        else:
            runs.append((at, at + PAGE))
    return runs


@dataclass
class Poker:
    """Turns bits in the machine's memory once in each round of the watch."""

    path: Path
    seed: int
    pokes: int = POKES
    done: dict[int, dict[int, tuple[int, int]]] = field(default_factory=dict)
    """By round, by address: the byte that was there, and what it is now."""
    late: list[int] = field(default_factory=list)

    def look(self, serial: str) -> str:
        """Called a few times in a second with all that the auditor has said so far."""
        said = [line for line in parse(serial).lines if line["type"] in ("phase", "watch")]
        for line in said:
            if line.get("phase") != "watching" or line["round"] in self.done:
                continue
            number = int(line["round"])
            self.done[number] = self._poke(number)
            if said[-1] is not line:
                self.late.append(number)
        return ""

    def _poke(self, number: int) -> dict[int, tuple[int, int]]:
        chance = random.Random(self.seed * 10 + number)
        poked = {}
        with self.path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            for at in self._places(chance, _filled(memory)):
                before = memory[at]
                memory[at] = before ^ 1 << chance.randrange(8)
                poked[at] = before, memory[at]
        return poked

    def _places(self, chance: random.Random, runs: list[tuple[int, int]]) -> list[int]:
        """Anywhere, and both ends of some pieces. No two next to each other, since those would be
        told as one."""
        places: set[int] = set()
        edges = [place for begin, end in runs for place in (begin, end - 1)]
        pool: Iterator[int] = iter(chance.sample(edges, min(len(edges), self.pokes // 2)))
        weights = [end - begin for begin, end in runs]
        while len(places) < self.pokes:
            place = next(pool, None)
            if place is None:
                begin, end = chance.choices(runs, weights)[0]
                place = chance.randrange(begin, end)
            if not places & {place - 1, place, place + 1}:
                places.add(place)
        return sorted(places)


def watch(folder: Path, stage: Callable[[str], str] | None) -> tuple[Result, list[Line]]:
    """The machine is a pc without devices: nobody but us writes, and nothing else fails."""
    memory = folder / "memory"
    machine = Machine(
        machine="pc", memory=MEMORY, kernel=AUDITOR, append="exit=debug", trace_events=(), extra=[
            "-object", f"memory-backend-file,id=ram,size={MEMORY}M,mem-path={memory},share=on",
            "-machine", "memory-backend=ram"])
    memory.unlink(missing_ok=True)
    result = run(machine, timeout=120, stage=stage, name="handover.efi")
    said = parse(result.serial)
    assert whole(said) is None, f"{whole(said)}: {result.explain()}"
    return result, said.lines


def watched(lines: list[Line], address: int) -> bool:
    return any(line["type"] == "region" and line["watched"]
               and 0 <= address - int(line["base"], 0) < line["size"] for line in lines)


@pytest.mark.parametrize("seed", [1, 2])
def test_every_byte(tmp_path: Path, seed: int) -> None:
    poker = Poker(tmp_path / "memory", seed)
    result, lines = watch(tmp_path, poker.look)
    assert not poker.late, f"this machine was too slow to poke in time: {result.explain()}"
    assert sorted(poker.done) == list(range(1, ROUNDS + 1)), result.explain()
    for number, poked in poker.done.items():
        found = {int(line["address"], 0): line for line in lines
                 if line["type"] == "change" and line["round"] == number}
        assert sorted(found) == sorted(poked)
        for address, (before, after) in poked.items():
            line = found[address]
            assert line["size"] == 1, line
            assert (int(line["expected"], 16), int(line["found"], 16)) == (before, after), line
            assert watched(lines, address), line
    assert result.app_result == 1, result.explain()
    failed = {(line["subject"], line["rule"]) for line in lines
              if line["type"] == "verdict" and line["verdict"] == "fail"}
    assert failed == {("firmware", "C4")}


def test_no_byte(tmp_path: Path) -> None:
    """Nobody writes, and nothing is seen; all memory that was given up has been watched."""
    result, lines = watch(tmp_path, None)
    assert not [line for line in lines if line["type"] == "change"], result.explain()
    assert result.app_result == 0, result.explain()
    rounds = {line["round"]: line["bytes"] for line in lines if line["type"] == "watch"}
    given_up = sum(line["size"] for line in lines if line["type"] == "region"
                   and line["memory"] in ("free", "boot"))
    assert sorted(rounds) == list(range(1, ROUNDS + 1))
    # What the firmware keeps of so small a machine is little.
    assert given_up > MEMORY << 19
    assert all(size >= given_up for size in rounds.values())
