#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Builds that break the contract where only firmware or the linker can tell, and what catches them.

Each patch in tests/broken/uefi is put on a copy of the drivers, which is built there. It says itself
what has to happen, in lines before the patch:

    Build: REGEX            the build fails, and says this
    Try: PROGRAM OPTIONS    the build succeeds; this program of tests/vm, run on its ROM, fails
    Boot: DEVICE            the build succeeds; Debian on it, booted by a PC BIOS with its ROM, is
                            not handed over cleanly
    Linux: DRIVER           the build succeeds; Linux, which the program of tests/real starts through
                            that driver of int13.py's with its ROM, looks at the program's pattern
    Says: REGEX             and says this; as many lines as wanted

The same programs with the same options succeed on the drivers as they are, and the same boots are clean.
Linux is not started on those: test_int13.py does that.
"""

import contextlib
import io
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP))

from lab.boot import Options, boot  # noqa: E402
from lab.errors import LabError  # noqa: E402
from lab.paths import BUILD, ROM  # noqa: E402
from lab.qemu import Bios, Result  # noqa: E402
import int13  # noqa: E402
from support import MIB, TestDisk, image, run  # noqa: E402

PATCHES = TOP / "tests/broken/uefi"
WORK = BUILD / "broken-uefi"
PARTS = ("Makefile", "core", "uefi", "bios", "rom")


class NotCaught(Exception):
    """Why a broken build was not caught."""


@dataclass(frozen=True)
class Broken:
    """One patch."""

    path: Path

    def fields(self, name: str) -> list[str]:
        head = self.path.read_text().partition("\n--- ")[0]
        return [line.split(": ", 1)[1] for line in head.splitlines() if line.startswith(f"{name}: ")]

    def build(self) -> tuple[Path, subprocess.CompletedProcess[str]]:
        tree = WORK / self.path.stem
        tree.mkdir(parents=True)
        for part in PARTS:
            if (TOP / part).is_dir():
                shutil.copytree(TOP / part, tree / part)
            else:
                shutil.copy(TOP / part, tree / part)
        with self.path.open() as patch:
            done = subprocess.run(["patch", "-p1", "--fuzz=0", "--batch", "-d", str(tree)],
                                  stdin=patch, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotCaught(f"the patch does not apply: {done.stdout}{done.stderr}")
        return tree, subprocess.run(["make", "--no-print-directory", "-C", str(tree),
                                     "build/baton.efi", "build/baton.rom",
                                     "build/baton-bios.rom"],
                                    capture_output=True, text=True, check=False)


_good: dict[str, Result] = {}
_clean: dict[str, str] = {}


def try_on(rom: Path, words: str) -> Result:
    program, _, options = words.partition(" ")
    disk = TestDisk(image(WORK / "disk.img", 4 * MIB), rom=rom, read_only=True,
                    drive={"throttling.iops-total": "100"})
    return run(program, options, [disk], timeout=45, quiet=True)


def problems_of(rom: Path, device: str) -> str:
    report = boot(Options(on=device, firmware=Bios(strict=True), rom=rom))
    return "\n".join(report.problems)


def catch_boot(rom: Path, device: str, says: list[str]) -> str:
    if device not in _clean:
        _clean[device] = problems_of(ROM, device)
    if _clean[device]:
        raise NotCaught(f"{device} is not clean without the patch: {_clean[device]}")
    problems = problems_of(rom, device)
    for regex in says:
        if not re.search(regex, problems):
            raise NotCaught(f"of {device} nobody says {regex!r}, but: {problems or 'clean'}")
    return f"a boot from {device}: {says[0]}"


def catch_linux(rom: Path, name: str, says: list[str]) -> str:
    driver = int13.DRIVERS[name]
    disk, order = int13.linux(WORK / "linux.img")
    with contextlib.redirect_stdout(io.StringIO()):
        made = int13.run(replace(driver, firmware=replace(driver.firmware, rom=rom)), [disk], order,
                         memory=512)
    said = made.result.lines("linux: ")
    for regex in says:
        if not any(re.fullmatch(regex, line) for line in said):
            raise NotCaught(f"Linux does not say {regex!r}: {made.result.explain(40)}")
    return f"Linux: {says[0]}"


def catch(broken: Broken) -> str:
    """What caught it."""
    tree, built = broken.build()
    output = built.stdout + built.stderr
    wanted = broken.fields("Build")
    if wanted:
        if built.returncode == 0:
            raise NotCaught("it builds")
        if not re.search(wanted[0], output):
            raise NotCaught(f"the build fails, but does not say {wanted[0]!r}:\n{output}")
        return f"the build: {wanted[0]}"
    if built.returncode != 0:
        raise NotCaught(f"it does not build:\n{output}")
    says, rom = broken.fields("Says"), tree / "build/baton.rom"
    ways = [(name, words) for name in ("Try", "Boot", "Linux") for words in broken.fields(name)]
    if len(ways) != 1 or not says:
        raise NotCaught("the patch does not say what should happen")
    (way, words), = ways
    if way == "Boot":
        return catch_boot(rom, words, says)
    if way == "Linux":
        return catch_linux(rom.with_name("baton-bios.rom"), words, says)
    if words not in _good:
        _good[words] = try_on(ROM, words)
    if _good[words].app_result != 0:
        raise NotCaught(f"{words!r} fails without the patch: {_good[words].explain()}")
    result = try_on(rom, words)
    if result.app_result == 0:
        raise NotCaught(f"{words!r} succeeds on it")
    for regex in says:
        if not re.search(regex, result.serial):
            raise NotCaught(f"{words!r} fails, but does not say {regex!r}: {result.explain(40)}")
    return f"{words}: {says[0]}"


def main() -> int:
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    patches = [Broken(path) for path in sorted(PATCHES.glob("*.patch"))]
    failed = 0
    for broken in patches:
        start = time.monotonic()
        try:
            what = catch(broken)
            print(f"ok: {broken.path.stem}: caught by {what} ({time.monotonic() - start:.1f} s)",
                  flush=True)
        except (NotCaught, LabError) as error:
            failed += 1
            print(f"not ok: {broken.path.stem}: {error}", flush=True)
    if not patches:
        print("not ok: there are no patches", flush=True)
    print(f"{len(patches)} broken builds, {len(patches) - failed} caught")
    return 0 if patches and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
