# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Bad input is a sentence."""

import os
import shutil
import struct
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from lab import gpt, tools
from lab.errors import LabError
from lab.inputs import (CODE_PC, check_app, check_bios, check_cdrom, check_disk, check_firmware,
                        check_rom, is_cdrom, sector_size_of)
from lab.report import Report
from lab.scenarios import Medium, Options, medium_of


def pe(machine: int = 0x8664, size: int = 512) -> bytes:
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    head += b"PE\0\0" + struct.pack("<HH12xHH", machine, 1, 0, 0)
    section = b".text\0\0\0" + struct.pack("<IIII", 256, 4096, 256, 256)
    return (head + section).ljust(size, b"\0")


def rom_image(body: bytes, *, code: int = 3, last: bool = True, machine: int = 0x8664) -> bytes:
    size = -(-(0x38 + len(body)) // 512)
    head = struct.pack("<HHIHHH8xHH", 0xAA55, size, 0x0EF1 if code == 3 else 0, 0x0B, machine, 0,
                       0x38, 0x1C)
    pcir = b"PCIR" + struct.pack("<HHHHB3xHHBB2x", 0x1AF4, 0x1042, 0, 0x18, 3, size, 0, code,
                                 0x80 if last else 0)
    rom = (head.ljust(0x1C, b"\0") + pcir).ljust(0x38, b"\0") + body
    return rom.ljust(size * 512, b"\0")


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def bad(cases: list[tuple[bytes, str]]) -> list[ParameterSet]:
    """Cases that are called by what should be said of them, not by their bytes."""
    return [pytest.param(data, says, id=f"{index} {says}")
            for index, (data, says) in enumerate(cases)]


def test_rom_good(tmp_path: Path) -> None:
    check_rom(write(tmp_path / "a", rom_image(pe())))
    check_rom(write(tmp_path / "b", rom_image(b"x", code=0, last=False) + rom_image(pe())))


@pytest.mark.parametrize(("data", "says"), bad([
    (b"", "empty"),
    (b"\x7fELF" + bytes(1000), "not an option ROM"),
    (rom_image(pe())[:600], "truncated"),
    (rom_image(pe())[:0x20], "truncated"),
    (rom_image(pe(), last=False), "truncated"),
    (rom_image(pe(), last=False) + b"hello", "not an option ROM"),
    (rom_image(pe())[:20], "truncated"),
    (pe(), "baton-pack"),
    (rom_image(b"x", code=0), "no UEFI image"),
    (rom_image(pe(0xAA64)), "not for x64"),
    (rom_image(pe(), machine=0xAA64), "no UEFI image"),
    (rom_image(b"hello"), "not a PE"),
    (rom_image(pe()).replace(b"PCIR", b"PCIX"), "no PCIR"),
]))
def test_rom_bad(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(LabError, match=says):
        check_rom(write(tmp_path / "rom", data))


def summed(image: bytes) -> bytes:
    """With a last byte that makes the sum 0."""
    return image[:-1] + bytes([-sum(image[:-1]) % 256])


def test_rom_for_a_bios(tmp_path: Path) -> None:
    check_rom(write(tmp_path / "a", summed(rom_image(b"x", code=0))), CODE_PC)
    check_rom(write(tmp_path / "b", rom_image(pe(), last=False)
                    + summed(rom_image(b"x" * 600, code=0))), CODE_PC)


@pytest.mark.parametrize(("data", "says"), bad([
    (rom_image(pe()), "no image for a PC BIOS"),
    (rom_image(b"x", code=0), "is damaged"),
    (summed(b"\x55\xaa\x03" + rom_image(b"x", code=0)[3:]), "is damaged"),
    (summed(b"\x55\xaa\x00" + rom_image(b"x", code=0)[3:]), "is damaged"),
]))
def test_rom_bad_for_a_bios(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(LabError, match=says):
        check_rom(write(tmp_path / "rom", data), CODE_PC)


def test_bios(tmp_path: Path) -> None:
    good = bytes(65520) + b"\xea" + bytes(15)
    check_bios(write(tmp_path / "good", good))
    for index, (data, says) in enumerate([(b"", "empty"), (good[1:], "not a PC BIOS"),
                                          (bytes(65536), "not a PC BIOS"),
                                          (volume(65536), "leave --firmware bios away")]):
        with pytest.raises(LabError, match=says):
            check_bios(write(tmp_path / str(index), data))


def test_missing_and_unreadable(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="does not exist"):
        check_rom(tmp_path / "none")
    with pytest.raises(LabError, match="is a folder"):
        check_app(tmp_path)
    with pytest.raises(LabError, match="does not exist"):
        check_disk(tmp_path / "none", None)
    with pytest.raises(LabError, match="does not exist"):
        check_firmware(tmp_path / "none", "code")


@pytest.mark.parametrize(("data", "says"), bad([
    (b"", "empty"),
    (b"hello", "not a PE"),
    (pe()[:300], "truncated"),
    (pe(0x14C), "not for x64"),
]))
def test_app_bad(tmp_path: Path, data: bytes, says: str) -> None:
    check_app(write(tmp_path / "good", pe()))
    with pytest.raises(LabError, match=says):
        check_app(write(tmp_path / "app", data))


NV_DATA = bytes.fromhex("8d2bf1ff96768b4ca9852747075b4f50")


def volume(size: int, kind: bytes = bytes(16)) -> bytes:
    return (bytes(0x10) + kind + struct.pack("<Q", size) + b"_FVH").ljust(size, b"\0")


@pytest.mark.parametrize(("data", "says"), bad([
    (b"", "empty"),
    (bytes(8192), "not a UEFI firmware"),
    (volume(8192, NV_DATA), "a store of variables"),
    (volume(8192)[:4096], "truncated"),
    (volume(8192)[:5000], "truncated"),
    ((volume(4096) + volume(8192))[:8192], "truncated"),
]))
def test_firmware_bad(tmp_path: Path, data: bytes, says: str) -> None:
    check_firmware(write(tmp_path / "good", volume(4096) + volume(8192)), "code")
    check_firmware(write(tmp_path / "variables", volume(4096, NV_DATA)), "variables")
    with pytest.raises(LabError, match="not a store of variables"):
        check_firmware(write(tmp_path / "code", volume(4096)), "variables")
    with pytest.raises(LabError, match=says):
        check_firmware(write(tmp_path / "firmware", data), "code")


def gpt_disk(path: Path, sector: int = 512) -> Path:
    partitions = gpt.layout([("p", gpt.ESP, 1 << 20)], uuid.UUID(int=1))
    size = gpt.disk_size(partitions)
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in gpt.tables(partitions, size, sector, uuid.UUID(int=1)):
            file.seek(offset)
            file.write(data)
    return path


def test_raw_disk(tmp_path: Path) -> None:
    disk = gpt_disk(tmp_path / "disk")
    assert check_disk(disk, None) == check_disk(disk, "raw") == ("raw", 3 << 20)
    assert sector_size_of(disk, "raw") == 512
    assert sector_size_of(gpt_disk(tmp_path / "big", 4096), "raw") == 4096
    with pytest.raises(LabError, match="not a qcow2 image"):
        check_disk(disk, "qcow2")


def test_raw_disk_truncated(tmp_path: Path) -> None:
    disk = gpt_disk(tmp_path / "disk")
    with disk.open("r+b") as file:
        file.truncate(2 << 20)
    with pytest.raises(LabError, match="truncated"):
        check_disk(disk, None)
    with disk.open("r+b") as file:
        file.truncate((1 << 20) + 7)
    with pytest.raises(LabError, match="truncated"):
        check_disk(disk, None)


@pytest.mark.parametrize(("data", "says"), bad([
    (b"", "empty"),
    (bytes(1 << 20), "no partition table"),
    (b"KDMV".ljust(4096, b"\0"), "VMDK"),
    (b"\xfd7zXZ".ljust(4096, b"\0"), "xz-compressed"),
]))
def test_not_a_disk(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(LabError, match=says):
        check_disk(write(tmp_path / "disk", data), None)


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
def test_qcow2(tmp_path: Path) -> None:
    raw = gpt_disk(tmp_path / "raw")
    with raw.open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"x" * (1 << 20))
    disk = tmp_path / "disk"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, disk], check=True)
    assert check_disk(disk, None) == check_disk(disk, "qcow2") == ("qcow2", 3 << 20)
    with pytest.raises(LabError, match="is a qcow2 image, not raw"):
        check_disk(disk, "raw")
    data = disk.read_bytes()
    for size in (30, 200, 65536 * 3, 65536 * 4):
        with pytest.raises(LabError, match="truncated|cannot be used"):
            check_disk(write(tmp_path / "cut", data[:size]), None)


def iso(*, boot: bool = True, sectors: int = 32, hybrid: bool = False) -> bytes:
    """The descriptors of a CD-ROM image of this size."""
    primary = b"\x01CD001\x01".ljust(80, b"\0") + struct.pack("<I44xH", sectors, 2048)
    record = b"\x00CD001\x01" + b"EL TORITO SPECIFICATION"
    pieces = [primary, *([record] if boot else []), b"\xffCD001\x01"]
    head = (bytes(510) + b"\x55\xaa" if hybrid else b"").ljust(16 * 2048, b"\0")
    return (head + b"".join(piece.ljust(2048, b"\0") for piece in pieces)).ljust(32 * 2048, b"\0")


def test_cdrom(tmp_path: Path) -> None:
    path = write(tmp_path / "cd", iso())
    assert is_cdrom(path) and check_cdrom(path) == 65536
    assert not is_cdrom(gpt_disk(tmp_path / "disk"))
    assert not is_cdrom(write(tmp_path / "small", bytes(2048)))
    # On a disk that is not a CD-ROM drive, one that is both will do, and no other.
    with pytest.raises(LabError, match="give --on virtio-scsi"):
        check_disk(path, None)
    assert check_disk(write(tmp_path / "hybrid", iso(hybrid=True)), None) == ("raw", 65536)


@pytest.mark.parametrize(("data", "says"), bad([
    (b"", "is empty"),
    (bytes(65536), "not a CD-ROM image"),
    (iso()[:16 * 2048 + 100], "not a CD-ROM image"),
    (iso()[:32768 + 4096], "truncated"),
    (iso(sectors=33), "truncated"),
    (iso(boot=False), "no El Torito boot record"),
]))
def test_cdrom_bad(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(LabError, match=says):
        check_cdrom(write(tmp_path / "cd", data))


def test_an_image_is_what_it_is(tmp_path: Path) -> None:
    cd, disk = write(tmp_path / "cd", iso(hybrid=True)), gpt_disk(tmp_path / "disk", 4096)
    scsi = Options(on="virtio-scsi")
    assert medium_of(scsi, cd) == (Medium(cd, 2048, cdrom=True), 65536)
    assert medium_of(Options(), cd) == (Medium(cd, 512, snapshot=True), 65536)
    assert medium_of(scsi, disk) == (Medium(disk, 4096, snapshot=True), 3 << 20)
    with pytest.raises(LabError, match="not a CD-ROM image"):
        medium_of(replace(scsi, cdrom=True), disk)
    with pytest.raises(LabError, match="leave --sector-size 512 away"):
        medium_of(replace(scsi, sector_size=512), cd)
    with pytest.raises(LabError, match="leave --no-snapshot away"):
        medium_of(replace(scsi, snapshot=False), cd)
    with pytest.raises(LabError, match="leave --format away"):
        medium_of(replace(scsi, image_format="qcow2"), cd)
    with pytest.raises(LabError, match="leave --sector-size 512 away"):
        medium_of(replace(scsi, sector_size=512), disk)


def test_special_files(tmp_path: Path) -> None:
    """A pipe is not waited for, and an endless device not read to its end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(LabError, match="not a regular file"):
            check_rom(path)
        with pytest.raises(LabError, match="not a regular file"):
            check_disk(path, None)
        with pytest.raises(LabError, match="not a regular file"):
            check_firmware(path, "code")
    with pytest.raises(LabError, match="not a regular file"):
        Report.check_target(tmp_path / "pipe")
    with pytest.raises(LabError, match="folder"):
        Report.check_target(tmp_path)
    with pytest.raises(LabError, match="folder does not exist"):
        Report.check_target(tmp_path / "none/report.json")
    Report.check_target(tmp_path / "report.json")


def test_qcow2_cut_in_its_data(tmp_path: Path) -> None:
    """All tables are there; what they point to is not."""
    path = tmp_path / "disk.qcow2"
    tools.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "64M"])
    tools.run(["qemu-io", "-c", "write 0 4M", str(path)])
    assert check_disk(path, None) == ("qcow2", 64 << 20)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - (2 << 20))
    with pytest.raises(LabError, match="truncated"):
        check_disk(path, None)
