# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Drivers that come and go: what the firmware had before, it has afterwards."""

from pathlib import Path

from support import MIB, ROM, TestDisk, image, lives, must_pass, run, said
from lab.paths import BUILD
from lab.qemu import Transport

TIMES = 1000


def test_connect_and_disconnect(tmp_path: Path) -> None:
    """A thousand times; then with reads in flight; then with each call of Start failing once."""
    path = image(tmp_path / "disk.img", 4 * MIB)
    transports: list[Transport] = ["modern", "legacy"]
    disks = [TestDisk(path, rom=ROM, transport=transport, read_only=True)
             for transport in transports]
    result = must_pass(run("lives", f"disks=2 times={TIMES} fail", disks, machine="pc",
                           timeout=300))
    failed = said(result, r"(\d+) calls of Start failed, (\d+) of them .*")
    assert len(failed) == 2
    for device in result.addresses:
        assert lives(result.trace, device) > TIMES


def test_load_and_unload(tmp_path: Path) -> None:
    """The image by itself, for devices that carry no ROM."""
    path = image(tmp_path / "disk.img", 4 * MIB)
    transports: list[Transport] = ["modern", "transitional"]
    disks = [TestDisk(path, transport=transport, read_only=True) for transport in transports]
    driver = f"name=opt/baton/driver,file={BUILD / 'baton.efi'}"
    result = must_pass(run("lives", "disks=2 load=100", disks, timeout=300,
                           extra=["-fw_cfg", driver]))
    for device in result.addresses:
        assert lives(result.trace, device) > 100
