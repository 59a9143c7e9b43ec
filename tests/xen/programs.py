# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Runs the EFI programs of tests/vm in guests of a Xen host.

A program is started from its guest's first disk, with its options in a file beside it. It can ask
dom0 to do something ("vm: please WORD"), and goes on when dom0 has pressed its power button.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.cache import scratch_folder
from lab.fat import boot_image
from lab.paths import BUILD
from lab.qemu import plain
from lab.xen import GuestConfig, GuestResult, XenHost, run_guest
from lab.xen.disks import disk_name, loop
from lab.xen.guest import Guest

MIB = 1 << 20
PROGRAMS = BUILD / "tests/vm"
UEFI_ROM = BUILD / "tests/xen/uefi.rom"
"""Baton's without the part for a PC BIOS."""

Answers = Mapping[str, Callable[[Guest], None]]


def random_bytes(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def name_of(index: int) -> str:
    """The so-many-th disk behind the one that a program is started from."""
    return disk_name(index + 1)


@dataclass
class Ran:
    """A program's run."""

    guest: GuestResult = field(default_factory=lambda: GuestResult("crash", 0, "", "", 0))
    text: str = ""
    dom0: list[str] = field(default_factory=list)
    """What dom0's kernel said in the meantime."""
    log: str = ""
    """What Xen said."""

    @property
    def app_result(self) -> int | None:
        match = re.search(r"^app: result (\d+)$", self.text, re.MULTILINE)
        return int(match[1]) if match else None

    def passed(self) -> None:
        assert self.app_result == 0, self.explain()

    def said(self, pattern: str) -> list[re.Match[str]]:
        """The program's lines that fit a pattern; there is at least one."""
        found = list(re.finditer(rf"^vm: (?:{pattern})$", self.text, re.MULTILINE))
        assert found, f"nothing said like {pattern!r}: {self.explain()}"
        return found

    def number(self, pattern: str) -> int:
        """The number that the pattern has in brackets."""
        return int(self.said(pattern)[-1][1])

    def explain(self) -> str:
        tail = "\n".join(f"    {line}" for line in self.text.splitlines()[-40:])
        return f"{self.guest.explain()}\nthe end of what it wrote to the debug port:\n{tail}"


def dmesg(xen: XenHost) -> list[str]:
    return xen.check("dmesg", "reading dom0's kernel log").splitlines()


def run_program(xen: XenHost, program: str, options: str = "", disks: Sequence[str] = (), *,
                answers: Answers | None = None, rom: Path | None = UEFI_ROM, memory: int = 256,
                timeout: float = 240, boot_from: str = "",
                prepare: Callable[[Guest], None] | None = None, finish: Callable[[Guest], None] |
                None = None, files: Mapping[str, Path | bytes] | None = None,
                device_model: Sequence[str] = ()) -> Ran:
    """Run a program of tests/vm. It is on the disk xvde, or another name; more disks come after it,
    as lab.xen.disks describes them."""
    name = f"{program.replace('_', '-')}{xen.unique('program').suffix[1:]}"
    words = f"exit=off debug-port {options}"
    target = f"/jobs/{name}.img"
    with scratch_folder(xen.scratch, "program") as folder:
        xen.put(boot_image(folder / "boot.img", PROGRAMS / f"{program}.efi",
                           {"/EFI/BOOT/options.txt": words.encode(), **(files or {})}), target)
    boot = loop(xen, target)
    config = GuestConfig(name, memory=memory, rom=rom, device_model=device_model,
                         disks=[boot.spec(boot_from or disk_name(0)), *disks])
    before, log_begin = len(dmesg(xen)), len(xen.log)
    answered = 0

    def watch(guest: Guest) -> None:
        nonlocal answered
        asked = re.findall(r"^vm: please (\S+)$", plain(guest.debug), re.MULTILINE)
        for word in asked[answered:]:
            answered += 1
            assert answers is not None and word in answers, f"asked for {word}"
            answers[word](guest)
            xen.check(f"xl trigger {guest.domain} power", "pressing the power button")

    result = run_guest(xen, config, timeout=timeout, until=r"^app: result \d+", watch=watch,
                       prepare=prepare, finish=finish)
    boot.remove()
    xen.check(f"rm {target}", "removing a disk")
    return Ran(result, plain(result.debug), dmesg(xen)[before:], xen.log[log_begin:])
