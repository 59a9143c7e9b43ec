# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Disks that fail, and disks that do not answer (C6)."""

import random
import zlib
from pathlib import Path

import pytest
from nbd import Server
from support import MIB, ROM, TestDisk, assert_let_go, image, must_pass, run, said
from lab.qemu import Transport

SIZE = 16 * MIB
BAD = 8 * MIB
BAD_RANGE = range(BAD, BAD + 4096)
PATIENCE = 30
"""How long the driver waits for a device that finishes nothing, in seconds."""


def served(tmp: Path, server: Server, transport: Transport) -> TestDisk:
    stand_in = image(tmp / "stand-in.img", MIB)  # the lab wants to see a file
    return TestDisk(stand_in, rom=ROM, transport=transport,
                    instead=f"format=raw,file=nbd+unix:///?socket={server.path}")


def test_errors(tmp_path: Path) -> None:
    with Server(tmp_path / "nbd", SIZE, broken=BAD_RANGE) as server:
        result = must_pass(run("faults", f"broken={BAD}", [served(tmp_path, server, "modern")]))
    assert_let_go(result.trace, result.addresses[0], "vm: leaving")


@pytest.mark.parametrize("transport", ["modern", "legacy"])
def test_no_answer(tmp_path: Path, transport: Transport) -> None:
    """The server answers a little after the driver has given up: QEMU resets a device only when
    all its requests are back, and the whole machine stands still until then."""
    with Server(tmp_path / "nbd", SIZE, stuck=BAD_RANGE, stuck_for=PATIENCE + 2) as server:
        server.disk[BAD:BAD + 4096] = random.Random(1).randbytes(4096)
        result = must_pass(run("faults", f"stuck={BAD}", [served(tmp_path, server, transport)]))
        assert server.held >= 1
        expected = zlib.crc32(server.disk[BAD:BAD + 4096])
    assert int(said(result, r"stuck crc ([0-9a-f]+)")[0][1], 16) == expected
    assert_let_go(result.trace, result.addresses[0], "vm: leaving")


def test_one_stuck_among_others(tmp_path: Path) -> None:
    """A read that gets no answer must not wait for ever because others get theirs."""
    with Server(tmp_path / "nbd", SIZE, stuck=BAD_RANGE, stuck_for=PATIENCE + 5) as server:
        result = must_pass(run("faults", f"stuck={BAD} other",
                               [served(tmp_path, server, "modern")]))
    assert_let_go(result.trace, result.addresses[0], "vm: leaving")


def test_empty_disk(tmp_path: Path) -> None:
    """A disk of no blocks: Baton says so and leaves the device as found; the one beside it works."""
    empty = tmp_path / "empty.img"
    empty.touch()
    disks = [TestDisk(empty, rom=ROM), TestDisk(image(tmp_path / "disk.img", MIB), rom=ROM)]
    result = must_pass(run("faults", "absent", disks))
    assert "the disk is empty" in result.serial, result.explain()
    devices, found, live = said(result, r"(\d+) devices, (\d+) disks, (\d+) live")[0].groups()
    assert (devices, found, live) == ("2", "1", "1")
