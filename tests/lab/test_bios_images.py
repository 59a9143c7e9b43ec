# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Disks for a PC BIOS: the partition table, GRUB in its places, and EXTLINUX's installer."""

import struct
import uuid
from pathlib import Path

import pytest

from lab import gpt, mbr, tools, trace
from lab.errors import LabError
from lab.guest import Guest, extlinux, grub_pc, scratch_start, tell_loader
from lab.qemu import Ended, Result

PARTS = [mbr.Partition(mbr.LINUX, 1 << 20, 5 << 20), mbr.Partition(mbr.LINUX, 6 << 20, 16 << 20)]


def test_sector() -> None:
    data = mbr.sector(PARTS, 0xBA700001, b"\xeb\x63" + b"\xcc" * 438)
    assert len(data) == 512 and data[510:] == b"\x55\xaa"
    assert data[:440] == b"\xeb\x63" + b"\xcc" * 438
    assert data[440:446] == struct.pack("<IH", 0xBA700001, 0)
    # Active, cylinder, head and sector, kind, the same again, first sector, sectors.
    assert data[446:462] == bytes.fromhex("80 feffff 83 feffff 00080000 00280000")
    assert data[462:478] == bytes.fromhex("00 feffff 83 feffff 00300000 00800000")
    assert data[478:510] == bytes(32)


def test_partitions_are_found_again(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(mbr.sector(PARTS, 1).ljust(4096, b"\0"))
    assert mbr.read(disk) == PARTS
    disk.write_bytes(bytes(4096))
    assert mbr.read(disk) == []


@pytest.mark.parametrize(("parts", "code", "says"), [
    ([*PARTS] * 3, b"", "room for 4"),
    (PARTS, bytes(441), "into the table"),
    ([mbr.Partition(mbr.LINUX, 513, 512)], b"", "whole sectors"),
    ([mbr.Partition(mbr.LINUX, 512, 511)], b"", "whole sectors"),
])
def test_what_does_not_fit(parts: list[mbr.Partition], code: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        mbr.sector(parts, 1, code)


def test_where_tests_may_write(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(mbr.sector(PARTS, 1).ljust(4096, b"\0"))
    assert scratch_start(disk, 512) == 6 << 20
    parts = gpt.layout([("bios", gpt.BIOS_BOOT, 1), ("scratch", gpt.LINUX_DATA, 1),
                        ("more", gpt.LINUX_DATA, 1)], uuid.UUID(int=1))
    size = gpt.disk_size(parts)
    with disk.open("wb") as file:
        for offset, data in gpt.tables(parts, size, 512, uuid.UUID(int=1)):
            file.seek(offset)
            file.write(data)
    assert scratch_start(disk, 512) == 2 << 20
    for other in (bytes(4096), mbr.sector([], 1)):
        disk.write_bytes(other)
        with pytest.raises(LabError, match="no scratch partition"):
            scratch_start(disk, 512)


def test_bios_boot_partition() -> None:
    assert gpt.BIOS_BOOT.bytes_le == b"Hah!IdontNeedEFI"


BOOT = bytes(range(256)) * 2
CORE = b"\xaa" * 500 + struct.pack("<QHH", 2, 7, 0x820) + b"\xbb" * 1000


def test_grub_is_placed() -> None:
    code, core = grub_pc.place(BOOT, CORE, 1 << 20, 1 << 20)
    # The first sector knows where the second program is, and takes the BIOS's word for no disk.
    assert len(code) == 440
    assert code[0x5C:0x64] == struct.pack("<Q", 2048)
    assert code[0x66:0x68] == b"\x90\x90"
    assert code[:0x5C] + code[0x64:0x66] + code[0x68:] == \
        BOOT[:0x5C] + BOOT[0x64:0x66] + BOOT[0x68:440]
    # That knows where its rest is, in whole sectors.
    assert core == b"\xaa" * 500 + struct.pack("<QHH", 2049, 2, 0x820) + b"\xbb" * 1000 + bytes(24)


def test_grub_without_room() -> None:
    grub_pc.place(BOOT, CORE, 512, len(CORE))
    with pytest.raises(LabError, match="there is room for 1511"):
        grub_pc.place(BOOT, CORE, 512, len(CORE) - 1)


@pytest.mark.parametrize("partitions", ["mbr", "gpt"])
def test_grub_is_told_on_the_root(tmp_path: Path, partitions: str) -> None:
    """What is on the root stays, and stands behind what is said."""
    tree, root = tmp_path / "tree", tmp_path / "root"
    (tree / "boot/grub").mkdir(parents=True)
    (tree / "boot/grub/grub.cfg").write_text("menuentry 'x' {\n}\n")
    tools.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, root, "4M"])
    parts = gpt.layout([("bios", gpt.BIOS_BOOT, 1 << 20), ("root", gpt.LINUX_DATA, 4 << 20)],
                       uuid.UUID(int=1))
    pieces = gpt.tables(parts, gpt.disk_size(parts), 512, uuid.UUID(int=1))
    start = parts[1].start
    if partitions == "mbr":
        start = 1 << 20
        pieces = [(0, mbr.sector([mbr.Partition(mbr.LINUX, start, 4 << 20)], 1))]
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(gpt.disk_size(parts))
        for offset, data in [*pieces, (start, root.read_bytes())]:
            file.seek(offset)
            file.write(data)
    tell_loader(disk, Guest(disk, uuid.UUID(int=1), "", ""), 512, console="console=hvc0 quiet",
                tasks="write=4096")
    assert tools.run(["debugfs", "-R", "cat /boot/grub/grub.cfg", f"{disk}?offset={start}"]) == (
        "set console='console=hvc0 quiet'\nexport console\n"
        "set tasks='baton.tasks=write=4096'\nexport tasks\nmenuentry 'x' {\n}\n")


@pytest.mark.parametrize(("ended", "said", "good"), [
    ("off", "baton-guest: end\n", True),
    ("off", "baton-guest: failed the program, with status 1\nbaton-guest: end\n", False),
    ("off", "baton-guest: failed initramfs: mount /dev/vda1\n", False),
    ("off", "", False),
    ("timeout", "baton-guest: end\n", False),
])
def test_extlinux_is_installed_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: Ended,
                                      said: str, good: bool) -> None:
    """The guest's word counts, and that it came to its end, with the root made read-only."""
    result = Result(ended=ended, exit_code=0, seconds=1, serial=said, trace=trace.parse([]), said="",
                    addresses=[], command=[])
    monkeypatch.setattr("lab.guest.extlinux.run", lambda machine: result)
    if good:
        extlinux.install(tmp_path, tmp_path, "", tmp_path)
    else:
        with pytest.raises(LabError, match="EXTLINUX could not be installed"):
            extlinux.install(tmp_path, tmp_path, "", tmp_path)
