# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The ROM, byte by byte, and the program that packs it: what it makes and what it refuses."""

import os
import re
import resource
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from lab.paths import BIOS_ROM, BUILD, ROM

PACK = BUILD / "baton-pack"
DRIVER = BUILD / "baton.efi"
BIOS = BUILD / "bios" / "rom.bin"
BAD_INPUT, NOT_DONE = 1, 2

VIRTIO = 0x1AF4
DEVICES = {0x1000, 0x1001, 0x1004, 0x1041, 0x1042, 0x1048}


def pack(*words: str | Path, **more: Callable[[], None]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(PACK), *map(str, words)], capture_output=True, text=True, timeout=20,
                          check=False, preexec_fn=more.get("before"))


def refused(done: subprocess.CompletedProcess[str], status: int, says: str, folder: Path,
            inputs: set[str]) -> None:
    """It said why in one line, and left nothing behind."""
    assert done.returncode == status, done
    assert done.stdout == ""
    assert re.fullmatch(rf"baton-pack: [^\n]*{says}[^\n]*\n", done.stderr), done.stderr
    assert {entry.name for entry in folder.iterdir()} == inputs


def number(data: bytes, offset: int, size: int) -> int:
    return int.from_bytes(data[offset:offset + size], "little")


# ---- What it makes ----

def check_rom(rom: bytes, driver: bytes) -> None:
    assert number(rom, 0, 2) == 0xAA55
    assert number(rom, 2, 2) * 512 == len(rom)
    assert number(rom, 4, 4) == 0x0EF1
    assert number(rom, 8, 2) == 0x0B  # boot service driver
    assert number(rom, 0x0A, 2) == 0x8664
    assert number(rom, 0x0C, 2) == 0  # not compressed
    start, pcir = number(rom, 0x16, 2), number(rom, 0x18, 2)
    assert pcir % 4 == 0 and rom[pcir:pcir + 4] == b"PCIR"
    vendor, device, list_at, length, revision = struct.unpack_from("<HHHHB", rom, pcir + 4)
    assert vendor == VIRTIO and length == 0x1C and revision == 3
    assert rom[pcir + 0x0D:pcir + 0x10] == b"\x00\x00\x01"  # mass storage, SCSI
    assert number(rom, pcir + 0x10, 2) * 512 == len(rom)
    assert rom[pcir + 0x14] == 3  # EFI
    assert rom[pcir + 0x15] & 0x80  # the last image
    devices = [device]
    at = pcir + list_at
    assert list_at >= length
    while number(rom, at, 2):
        devices.append(number(rom, at, 2))
        at += 2
    assert set(devices) == DEVICES and len(devices) == len(DEVICES)
    assert start >= at + 2
    assert rom[start:start + len(driver)] == driver
    assert not any(rom[start + len(driver):])
    assert len(rom) - start - len(driver) < 512


def check_bios(image: bytes, code: bytes, last: int = 0) -> None:
    """The PC-BIOS image, whose lengths and sum are the packer's."""
    assert number(image, 0, 2) == 0xAA55 and image[3] == 0xE9
    assert image[2] * 512 == len(image)
    assert sum(image) % 256 == 0
    pcir, pnp = number(image, 0x18, 2), number(image, 0x1A, 2)
    assert pcir % 4 == 0 and image[pcir:pcir + 4] == b"PCIR"
    assert struct.unpack_from("<HHHHB", image, pcir + 4) == (0x5853, 1, 0, 0x18, 0)
    assert number(image, pcir + 0x10, 2) == image[2]
    assert (image[pcir + 0x14], image[pcir + 0x15]) == (0, last)  # PC-AT
    assert pnp % 16 == 0 and image[pnp:pnp + 4] == b"$PnP"
    assert sum(image[pnp:pnp + 0x20]) % 256 == 0
    told = {2, pcir + 0x10, pcir + 0x11, pcir + 0x15}
    assert [at for at, byte in enumerate(code) if byte != image[at] and at not in told] == []
    assert not any(image[len(code):-1]) and len(image) - len(code) <= 512


def test_the_rom() -> None:
    rom = ROM.read_bytes()
    end = rom[2] * 512
    check_bios(rom[:end], BIOS.read_bytes())
    check_rom(rom[end:], DRIVER.read_bytes())


def test_the_rom_for_a_bios() -> None:
    check_bios(BIOS_ROM.read_bytes(), BIOS.read_bytes(), last=0x80)


def test_nothing_to_pack(tmp_path: Path) -> None:
    done = pack("-o", tmp_path / "out.rom")
    assert done.returncode == NOT_DONE and done.stderr.startswith("usage: ")
    assert not any(tmp_path.iterdir())


def test_the_bios_image_is_small() -> None:
    assert 4096 < BIOS.stat().st_size <= 48 << 10


def test_the_driver_is_small() -> None:
    """A ROM of this size fits any device, and any flash that a vendor would put it in."""
    assert 4096 < DRIVER.stat().st_size <= 96 << 10


def test_packed_again(tmp_path: Path) -> None:
    """The same input gives the same ROM, over what was there before."""
    out = tmp_path / "out.rom"
    out.write_bytes(b"old" * 100000)
    done = pack("-o", out, "-b", BIOS, DRIVER)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert out.read_bytes() == ROM.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.rom"]


@pytest.mark.parametrize("extra", [0, 1, 511, 512, 513])
def test_any_length(tmp_path: Path, extra: int) -> None:
    driver = DRIVER.read_bytes() + b"\xcc" * extra
    path = tmp_path / "driver.efi"
    path.write_bytes(driver)
    assert pack("-o", tmp_path / "out.rom", path).returncode == 0
    check_rom((tmp_path / "out.rom").read_bytes(), driver)


@pytest.mark.parametrize("extra", [0, 1, 511, 512, 513])
def test_any_length_of_the_bios_image(tmp_path: Path, extra: int) -> None:
    code = BIOS.read_bytes() + b"\xcc" * extra
    path = tmp_path / "bios.bin"
    path.write_bytes(code)
    assert pack("-o", tmp_path / "out.rom", "-b", path, DRIVER).returncode == 0
    rom = (tmp_path / "out.rom").read_bytes()
    end = rom[2] * 512
    check_bios(rom[:end], code)
    check_rom(rom[end:], DRIVER.read_bytes())


# ---- What it refuses ----

def without_pcir() -> bytes:
    return BIOS.read_bytes().replace(b"PCIR", b"RICP")


def pcir_outside() -> bytes:
    code = bytearray(BIOS.read_bytes())
    code[0x18:0x1A] = b"\xff\xff"
    return bytes(code)


def for_efi() -> bytes:
    code = bytearray(BIOS.read_bytes())
    code[number(code, 0x18, 2) + 0x14] = 3
    return bytes(code)


@pytest.mark.parametrize(("make", "says"), [
    (lambda: b"", "not a PC-BIOS option ROM image"),
    (lambda: b"\x55\xaa", "not a PC-BIOS option ROM image"),
    (lambda: b"MZ" + bytes(100), "not a PC-BIOS option ROM image"),
    (lambda: b"\x55\xaa" + bytes(100), "no PCI data structure"),
    (without_pcir, "no PCI data structure"),
    (pcir_outside, "no PCI data structure"),
    (for_efi, "no PCI data structure"),
    (lambda: BIOS.read_bytes() + bytes(128 << 10), "too large"),
], ids=["empty", "signature", "another", "no-pcir", "not-pcir", "outside", "efi", "large"])
def test_bad_bios_images(tmp_path: Path, make: Callable[[], bytes], says: str) -> None:
    (tmp_path / "bios.bin").write_bytes(make())
    done = pack("-o", tmp_path / "out.rom", "-b", tmp_path / "bios.bin", DRIVER)
    refused(done, BAD_INPUT, says, tmp_path, {"bios.bin"})



def changed(offset: int, data: bytes) -> bytes:
    """The driver with something in its PE headers changed; the offset counts from "PE"."""
    driver = bytearray(DRIVER.read_bytes())
    at = number(driver, 0x3C, 4) + offset
    driver[at:at + len(data)] = data
    return bytes(driver)


def with_pe_at(offset: int) -> bytes:
    driver = bytearray(DRIVER.read_bytes())
    driver[0x3C:0x40] = offset.to_bytes(4, "little")
    return bytes(driver)


# Offsets from the PE signature: 4 machine, 6 sections, 20 size of the optional header, 24 magic,
# 92 subsystem.
WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "empty"),
    "text": (lambda: b"this is no image\n" * 100, "not a PE image"),
    "zeros": (lambda: bytes(100000), "not a PE image"),
    "elf": (lambda: Path("/bin/true").read_bytes(), "not a PE image"),
    "a ROM": (ROM.read_bytes, "not a PE image"),
    "only MZ": (lambda: b"MZ" + bytes(62), "not a PE image"),
    "pe beyond": (lambda: with_pe_at(0x7FFFFFFF), "not a PE image, or cut short"),
    "pe at the very end": (lambda: with_pe_at(len(DRIVER.read_bytes()) - 4), "cut short"),
    "pe far beyond": (lambda: with_pe_at(0xFFFFFFFF), "cut short"),
    "no signature": (lambda: changed(0, b"NE\0\0"), "not a PE image"),
    "aarch64": (lambda: changed(4, b"\x64\xaa"), "0xaa64, not for x64"),
    "ia32": (lambda: changed(4, b"\x4c\x01"), "0x014c, not for x64"),
    "pe32": (lambda: changed(24, b"\x0b\x01"), r"not a PE32\+ image"),
    "application": (lambda: changed(92, b"\x0a\x00"), "subsystem 10, not an EFI boot service"),
    "runtime driver": (lambda: changed(92, b"\x0c\x00"), "subsystem 12, not an EFI boot service"),
    "windows program": (lambda: changed(92, b"\x03\x00"), "subsystem 3, not an EFI boot service"),
    "too many sections": (lambda: changed(6, b"\xff\xff"), "cut short"),
    "huge optional header": (lambda: changed(20, b"\xff\xff"), "cut short"),
    "too large": (lambda: DRIVER.read_bytes() + bytes(32 << 20), "too large"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input(tmp_path: Path, name: str) -> None:
    make, says = WRONG[name]
    path = tmp_path / "input"
    path.write_bytes(make())
    done = pack("-o", tmp_path / "out.rom", path)
    refused(done, BAD_INPUT, says, tmp_path, {"input"})
    assert str(path) in done.stderr


def test_a_real_application(tmp_path: Path) -> None:
    done = pack("-o", tmp_path / "out.rom", BUILD / "lab/whose.efi")
    refused(done, BAD_INPUT, "subsystem 10", tmp_path, set())


def end_of_sections(driver: bytes) -> int:
    pe = number(driver, 0x3C, 4)
    table = pe + 24 + number(driver, pe + 20, 2)
    ends = [number(driver, at + 20, 4) + number(driver, at + 16, 4)
            for at in range(table, table + 40 * number(driver, pe + 6, 2), 40)]
    return max(ends)


def test_cut_short_anywhere(tmp_path: Path) -> None:
    """Whatever is missing at the end, it is noticed."""
    driver = DRIVER.read_bytes()
    end = end_of_sections(driver)
    assert end <= len(driver)
    path, out = tmp_path / "input", tmp_path / "out.rom"
    for length in [*range(1, 0x240), *range(0x240, end, 509), end - 1]:
        path.write_bytes(driver[:length])
        done = pack("-o", out, path)
        assert done.returncode == BAD_INPUT, f"{length} bytes: {done}"
        assert re.fullmatch(r"baton-pack: .*(not a PE image|cut short).*\n", done.stderr)
        assert not out.exists()
    path.write_bytes(driver[:end])
    assert pack("-o", out, path).returncode == 0


def test_missing_input(tmp_path: Path) -> None:
    done = pack("-o", tmp_path / "out.rom", tmp_path / "nothing")
    refused(done, NOT_DONE, "No such file or directory", tmp_path, set())


def test_input_is_a_folder(tmp_path: Path) -> None:
    done = pack("-o", tmp_path / "out.rom", "/")
    refused(done, NOT_DONE, "[Dd]irectory", tmp_path, set())


@pytest.mark.parametrize("words", [[], ["-o"], ["-o", "x.rom"], [str(DRIVER)], ["-q", str(DRIVER)],
                                   ["-o", "x.rom", str(DRIVER), str(DRIVER)]])
def test_wrong_usage(tmp_path: Path, words: list[str]) -> None:
    done = subprocess.run([str(PACK), *words], cwd=tmp_path, capture_output=True, text=True,
                          check=False)
    assert done.returncode == NOT_DONE
    assert done.stderr
    assert not list(tmp_path.iterdir())


# ---- What it cannot do ----

def test_output_folder_is_missing(tmp_path: Path) -> None:
    refused(pack("-o", tmp_path / "none/out.rom", DRIVER), NOT_DONE, "No such file or directory",
            tmp_path, set())


def test_output_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out.rom").mkdir()
    (tmp_path / "out.rom/full").touch()
    refused(pack("-o", tmp_path / "out.rom", DRIVER), NOT_DONE, "[Dd]irectory", tmp_path,
            {"out.rom"})


def test_full_disk(tmp_path: Path) -> None:
    """The write fails: the old ROM stays, whole, and nothing half-written beside it."""
    out = tmp_path / "out.rom"
    out.write_bytes(b"old")
    (tmp_path / "out.rom.part").symlink_to("/dev/full")
    refused(pack("-o", out, DRIVER), NOT_DONE, "No space left on device", tmp_path, {"out.rom"})
    assert out.read_bytes() == b"old"


def test_no_room_for_all_of_it(tmp_path: Path) -> None:
    """It fails in the middle, as on a disk that fills up."""
    out = tmp_path / "out.rom"
    out.write_bytes(b"old")

    def limit() -> None:
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    refused(pack("-o", out, DRIVER, before=limit), NOT_DONE, "File too large", tmp_path, {"out.rom"})
    assert out.read_bytes() == b"old"


def test_unwritable(tmp_path: Path) -> None:
    """Root may write anywhere but where nobody may."""
    target = Path("/proc/out.rom") if os.geteuid() == 0 else tmp_path / "locked/out.rom"
    if os.geteuid() != 0:
        target.parent.mkdir()
        target.parent.chmod(0o555)
    done = pack("-o", target, DRIVER)
    assert done.returncode == NOT_DONE
    assert re.fullmatch(r"baton-pack: [^\n]+: [^\n]+\n", done.stderr)
    assert not target.exists()


def test_special_files(tmp_path: Path) -> None:
    """A pipe is not waited for and not replaced; a link stays, and what it points to is written."""
    os.mkfifo(tmp_path / "pipe")
    refused(pack("-o", tmp_path / "out.rom", tmp_path / "pipe"), NOT_DONE, "not a regular file",
            tmp_path, {"pipe"})
    refused(pack("-o", tmp_path / "pipe", DRIVER), NOT_DONE, "not a regular file", tmp_path, {"pipe"})
    (tmp_path / "real.rom").write_bytes(b"old")
    (tmp_path / "link.rom").symlink_to("real.rom")
    assert pack("-o", tmp_path / "link.rom", DRIVER).returncode == 0
    assert (tmp_path / "link.rom").is_symlink()
    check_rom((tmp_path / "real.rom").read_bytes(), DRIVER.read_bytes())
