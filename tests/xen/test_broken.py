# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Builds that break the contract where only a real Xen can tell, and what catches them.

Each patch in tests/broken/uefi-xen is put on a copy of the drivers. It says itself what has to happen:

    Guest: PROGRAM OPTIONS   this program of tests/vm fails in a guest, or leaves it not as found
    Says: REGEX              and this is said

The same programs succeed on the drivers as they are: see test_exit.py and test_drivers.py.
"""

import re
import shutil
from pathlib import Path

import broken
import pytest
from programs import MIB, name_of, random_bytes, run_program
from shared import WatchedXen
from test_exit import exit_once, problems

from lab.paths import BUILD, TOP
from lab.xen import XenHost
from lab.xen.disks import loop, stoppable

PATCHES = sorted((TOP / "tests/broken/uefi-xen").glob("*.patch"))
NAMES = [path.stem for path in PATCHES]


def build(path: Path) -> Path:
    """The ROM of a broken build."""
    broken.WORK = BUILD / "broken-xen"
    shutil.rmtree(broken.WORK / path.stem, ignore_errors=True)
    tree, done = broken.Broken(path).build()
    assert done.returncode == 0, done.stdout + done.stderr
    return tree / "build/baton.rom"


def scenario(xen: XenHost) -> dict[str, str]:
    """What was said of each."""
    said = {}
    xen.put(random_bytes(4 * MIB, 1), "/jobs/disk.img")
    device = stoppable(xen, loop(xen, "/jobs/disk.img"))
    for path in PATCHES:
        program, _, options = broken.Broken(path).fields("Guest")[0].partition(" ")
        rom = build(path)
        disks = [device.spec(name_of(0))] if "disks=2" in options else []
        if program == "xen_exit":
            said[path.stem] = "\n".join(problems(exit_once(xen, options, disks, device, rom)))
        else:
            ran = run_program(xen, program, options, disks, rom=rom)
            said[path.stem] = "" if ran.app_result == 0 else ran.explain()
    device.remove()
    return said


@pytest.fixture(name="said", scope="module")
def fixture_said(xen: WatchedXen) -> dict[str, str]:
    return xen.run(scenario)


@pytest.mark.parametrize("name", NAMES)
def test_is_caught(said: dict[str, str], name: str) -> None:
    regex = broken.Broken(PATCHES[NAMES.index(name)]).fields("Says")[0]
    assert re.search(regex, said[name]), said[name] or "nothing was said"
