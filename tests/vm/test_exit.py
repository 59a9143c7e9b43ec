# SPDX-License-Identifier: BSD-2-Clause-Patent
"""ExitBootServices with reads in flight: C1 to C4, C6 and C7."""

from pathlib import Path

import pytest
from support import MIB, ROM, TestDisk, assert_let_go, image, lives, must_pass, run, said
from lab.qemu import Device, ScsiController, Transport, Unit
from lab.trace import Request, ScsiCommand

# Slow enough that the reads really are in flight at the exit, fast enough for the firmware's own.
SLOW = {"throttling.iops-total": "100"}

LEAVING = r"vm: in flight at the exit"


def slow_disks(tmp: Path, transports: list[Transport]) -> list[TestDisk]:
    path = image(tmp / "disk.img", 4 * MIB)
    return [TestDisk(path, rom=ROM, transport=transport, read_only=True, drive=SLOW)
            for transport in transports]


CASES: dict[str, tuple[str, list[Transport], str]] = {
    "q35-modern-stale-key": ("q35", ["modern"], "stale"),
    "pc-2-legacy-early-and-stale-key": ("pc", ["legacy", "legacy"], "stale early"),
    "q35-one-of-each": ("q35", ["transitional", "modern", "legacy"], ""),
    "pc-transitional": ("pc", ["transitional"], ""),
    "q35-legacy": ("q35", ["legacy"], ""),
    "pc-2-modern-early": ("pc", ["modern", "modern"], "early"),
    "q35-16-modern-stale-key": ("q35", ["modern"] * 16, "stale"),
    "pc-16-legacy-and-transitional": ("pc", ["legacy", "transitional"] * 8, ""),
}


def slow_scsi(tmp: Path, transports: list[Transport]) -> list[Device]:
    """The same behind adapters, whose disks are the firmware's own."""
    path = image(tmp / "scsi.img", 4 * MIB)
    return [ScsiController([Unit(path, read_only=True, drive=SLOW)], rom=ROM, transport=transport)
            for transport in transports]


SCSI_CASES: dict[str, tuple[str, list[Transport], str]] = {
    "q35-modern-early-and-stale-key": ("q35", ["modern"], "stale early"),
    "pc-legacy-and-transitional": ("pc", ["legacy", "transitional"], ""),
}


@pytest.mark.parametrize("name", CASES)
def test_in_flight(tmp_path: Path, name: str) -> None:
    machine, transports, options = CASES[name]
    in_flight(list(slow_disks(tmp_path, transports)), machine, options)


@pytest.mark.parametrize("name", SCSI_CASES)
def test_scsi_in_flight(tmp_path: Path, name: str) -> None:
    machine, transports, options = SCSI_CASES[name]
    in_flight(slow_scsi(tmp_path, transports), machine, options)


def in_flight(disks: list[Device], machine: str, options: str) -> None:
    result = must_pass(run("exit", f"disks={len(disks)} {options}", disks, machine=machine))
    flying = said(result, r"in flight at the exit: (\d+) of (\d+)")[0]
    # How many the disks get done meanwhile is a matter of the machine's speed. That some are left, one
    # for each disk at least on the average, is what makes this a test.
    assert int(flying[1]) >= len(disks)
    for device in result.addresses:
        assert_let_go(result.trace, device, LEAVING)
        assert lives(result.trace, device) >= 1
        assert any(isinstance(event, (Request, ScsiCommand)) for event in result.trace.of(device))


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_dormant(tmp_path: Path, machine: str) -> None:
    """Nothing is bound at the exit: no handler runs, no register is touched."""
    disks = slow_disks(tmp_path, ["modern", "legacy"])
    result = must_pass(run("exit", f"disks={len(disks)} dormant", disks, machine=machine))
    handlers = said(result, r"handlers: (\d+), .*")
    assert [match[1] for match in handlers] == ["0", "0"]
    for device in result.addresses:
        assert lives(result.trace, device) >= 1
