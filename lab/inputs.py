# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Looks at every file that a run is given before anything runs, so that a wrong one is a sentence
and not a riddle on a serial console."""

import json
import struct
from pathlib import Path

from lab import tools
from lab.errors import LabError
from lab.paths import shown

_SECTOR = 512
CODE_PC, CODE_EFI = 0, 3
"""What an image in a ROM is for (PCI Firmware Specification 3.0, 5.1.2.1)."""
_WHOLE_FILE_MAX = 64 << 20
"""ROMs, programs and firmware: QEMU's flash itself is smaller."""

# The file system GUID of a firmware volume that holds variables, as it lies in memory.
_NV_DATA = bytes.fromhex("8d2bf1ff96768b4ca9852747075b4f50")


def _bytes_of(path: Path, what: str, limit: int | None = None) -> bytes:
    try:
        if path.is_dir():
            raise LabError(f"{what} {shown(path)} is a folder, not a file")
        if path.exists() and not path.is_file():
            raise LabError(f"{what} {shown(path)} is not a regular file")
        with path.open("rb") as file:
            data = file.read(_WHOLE_FILE_MAX + 1 if limit is None else limit)
        if limit is None and len(data) > _WHOLE_FILE_MAX:
            raise LabError(f"{what} {shown(path)} is larger than any can be "
                           f"({_WHOLE_FILE_MAX >> 20} MiB)")
    except FileNotFoundError:
        raise LabError(f"{what} {shown(path)} does not exist") from None
    except OSError as error:
        raise LabError(f"{what} {shown(path)} cannot be read: {error.strerror}") from None
    if not data:
        raise LabError(f"{what} {shown(path)} is empty")
    return data


def check_rom(path: Path, wanted: int = CODE_EFI) -> None:
    """An option ROM with an x64 UEFI driver somewhere in it, or a PC BIOS's program, complete."""
    rom = _bytes_of(path, "the ROM")
    name = shown(path)
    at = 0
    found = False
    while True:
        image = rom[at:]
        if image[:2] == b"MZ":
            raise LabError(f"{name} is a UEFI program, not a ROM: pack it with `build/baton-pack -o "
                           "FILE.rom`")
        if image[:2] == b"\x55\xaa" and len(image) < 0x1C or at > 0 and not image:
            raise LabError(f"the ROM {name} is truncated: {len(rom)} bytes are there")
        if image[:2] != b"\x55\xaa":
            raise LabError(f"{name} is not an option ROM: no 55 AA at byte {at}")
        pcir = struct.unpack_from("<H", image, 0x18)[0]
        if len(image) < pcir + 0x18:
            raise LabError(f"the ROM {name} is truncated: its PCI data structure is past its end")
        if image[pcir:pcir + 4] != b"PCIR":
            raise LabError(f"{name} is not a PCI option ROM: its image at byte {at} has no PCIR")
        size = struct.unpack_from("<H", image, pcir + 0x10)[0] * _SECTOR
        code, last = image[pcir + 0x14], image[pcir + 0x15] & 0x80
        if size == 0 or len(image) < size:
            raise LabError(f"the ROM {name} is truncated: its image at byte {at} has {size} bytes, "
                           f"and {len(image)} are there")
        if code == CODE_PC == wanted:
            _check_pc_image(image[:size], name)
            found = True
        if code == CODE_EFI == wanted and struct.unpack_from("<I", image, 4)[0] == 0x0EF1 and \
                struct.unpack_from("<H", image, 0x0A)[0] == 0x8664:
            start, compressed = struct.unpack_from("<H", image, 0x16)[0], image[0x0C]
            if not compressed:
                _check_pe(image[start:size], f"the UEFI image in the ROM {name}")
            found = True
        if last:
            break
        at += size
    if not found:
        what = "image for a PC BIOS" if wanted == CODE_PC else "UEFI image for x64"
        raise LabError(f"the ROM {name} has no {what} in it")


def _check_pc_image(image: bytes, name: str) -> None:
    """What a BIOS looks at before it runs it: its bytes, as many as it says, add up to 0."""
    size = image[2] * _SECTOR
    if size == 0 or size > len(image) or sum(image[:size]) % 256:
        raise LabError(f"the image for a PC BIOS in the ROM {name} is damaged: {size} bytes of "
                       f"{len(image)}, with the sum {sum(image[:size]) % 256:#04x}")


def _check_pe(data: bytes, what: str) -> None:
    if data[:2] != b"MZ" or len(data) < 0x40:
        raise LabError(f"{what} is not a PE program")
    at = struct.unpack_from("<I", data, 0x3C)[0]
    if len(data) < at + 24 or data[at:at + 4] != b"PE\0\0":
        raise LabError(f"{what} is not a PE program, or is truncated")
    machine, sections, optional = struct.unpack_from("<HH12xH", data, at + 4)
    if machine != 0x8664:
        raise LabError(f"{what} is not for x64")
    for index in range(sections):
        header = at + 24 + optional + 40 * index
        if len(data) < header + 40:
            raise LabError(f"{what} is truncated")
        size, place = struct.unpack_from("<II", data, header + 16)
        if place + size > len(data):
            raise LabError(f"{what} is truncated")


def check_app(path: Path) -> None:
    """A UEFI program for x64, complete."""
    _check_pe(_bytes_of(path, "the UEFI program"), f"the UEFI program {shown(path)}")


def check_firmware(path: Path, what: str) -> None:
    """An OVMF image: firmware volumes from the beginning, none of them cut short."""
    data = _bytes_of(path, f"the firmware's {what}")
    name = shown(path)
    if data[0x28:0x2C] != b"_FVH":
        raise LabError(f"{name} is not a UEFI firmware image (no firmware volume at its start)")
    if what == "code" and data[0x10:0x20] == _NV_DATA:
        raise LabError(f"{name} is a store of variables, not firmware code: give it as "
                       "--firmware-vars, and the code that it belongs to as --firmware-code")
    if what == "variables" and data[0x10:0x20] != _NV_DATA:
        raise LabError(f"{name} is not a store of variables: give the file that belongs to the "
                       "firmware code, usually named …_VARS….fd")
    if len(data) % 4096 != 0:
        raise LabError(f"the firmware image {name} is truncated: {len(data)} bytes are not a whole "
                       "number of pages")
    at = 0
    while data[at + 0x28:at + 0x2C] == b"_FVH":
        size = struct.unpack_from("<Q", data, at + 0x20)[0]
        if size == 0 or at + size > len(data):
            raise LabError(f"the firmware image {name} is truncated: a volume of {size} bytes "
                           f"begins at byte {at} of {len(data)}")
        at += size


def check_bios(path: Path) -> None:
    """A PC BIOS: it ends where the processor begins, 16 bytes before its end, with a jump."""
    data = _bytes_of(path, "the firmware")
    if data[0x28:0x2C] == b"_FVH":
        raise LabError(f"{shown(path)} is a UEFI firmware image: leave --firmware bios away")
    if len(data) % 65536 or data[-16:-15] not in (b"\xea", b"\xe9", b"\xeb"):
        raise LabError(f"{shown(path)} is not a PC BIOS")


def halves_of(path: Path) -> tuple[bytes, bytes] | None:
    """Variables and code of an OVMF image that has both in one file, as its build also makes it
    (OVMF.fd); None if it is another kind of file."""
    data = _bytes_of(path, "the firmware")
    if data[0x28:0x2C] != b"_FVH" or data[0x10:0x20] != _NV_DATA:
        return None
    size: int = struct.unpack_from("<Q", data, 0x20)[0]
    if data[size + 0x28:size + 0x2C] != b"_FVH":
        return None
    return data[:size], data[size:]


# What a disk image of another kind begins with, and what it is.
_OTHER_KINDS = {
    b"KDMV": "VMDK",
    b"COWD": "VMDK",
    b"vhdxfile": "VHDX",
    b"conectix": "VHD",
    b"QED\0": "QED",
    b"<<< ": "VDI",
    b"\x1f\x8b": "gzip-compressed",
    b"\xfd7zXZ": "xz-compressed",
    b"(\xb5/\xfd": "zstd-compressed",
    b"PK\x03\x04": "ZIP",
}


def check_disk(path: Path, wanted: str | None) -> tuple[str, int]:
    """A disk image to boot from. Gives its format and its size in bytes as the guest sees it."""
    head = _bytes_of(path, "the disk image", 65536)
    name = shown(path)
    is_qcow2 = head[:4] == b"QFI\xfb"
    if wanted == "raw" and is_qcow2:
        raise LabError(f"{name} is a qcow2 image, not raw: give --format qcow2, or leave --format "
                       "away")
    if wanted == "qcow2" and not is_qcow2:
        raise LabError(f"{name} is not a qcow2 image: leave --format away, or give --format raw")
    if is_qcow2:
        return "qcow2", _check_qcow2(path)
    for magic, kind in _OTHER_KINDS.items():
        if head.startswith(magic):
            raise LabError(f"{name} is a {kind} file, neither raw nor qcow2: unpack it, or convert "
                           "it with `qemu-img convert -O qcow2`")
    return "raw", _check_raw(path, head)


def _check_qcow2(path: Path) -> int:
    try:
        info = json.loads(tools.run(["qemu-img", "info", "--output=json", "-U", "--backing-chain",
                                     str(path)]))
        tools.run(["qemu-img", "info", "-U", str(path)])
    except LabError as error:
        raise LabError(f"the disk image {shown(path)} cannot be used: {error}") from error
    size = int(info[0]["virtual-size"])
    if size == 0:
        raise LabError(f"the disk image {shown(path)} has no sectors")
    # Tables that point past the file's end are how a truncated one is known.
    end = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(80)
        l1_size, l1_offset = struct.unpack_from(">IQ", header, 36)
        file.seek(l1_offset)
        table = file.read(8 * l1_size)
    tables = [entry & 0x00FFFFFFFFFFFE00 for entry, in struct.iter_unpack(">Q", table[:len(table)
                                                                                     // 8 * 8])]
    if len(table) < 8 * l1_size or any(entry >= end for entry in tables) or \
            not _clusters_within(path, header, tables, end):
        raise LabError(f"the disk image {shown(path)} is truncated")
    return size


def _clusters_within(path: Path, header: bytes, tables: list[int], end: int) -> bool:
    """Whether all clusters of data that a qcow2's second-level tables name are in the file."""
    version, cluster_bits = struct.unpack_from(">I", header, 4)[0], \
        struct.unpack_from(">I", header, 20)[0]
    extended = version >= 3 and struct.unpack_from(">Q", header, 72)[0] & 1 << 4
    if extended:
        return True  # entries of another form; nothing that people's tools make by default
    with path.open("rb") as file:
        for offset in filter(None, tables):
            file.seek(offset)
            table = file.read(1 << cluster_bits)
            for entry, in struct.iter_unpack(">Q", table[:len(table) // 8 * 8]):
                if not entry >> 62 & 1 and entry & 0x00FFFFFFFFFFFE00 >= end:
                    return False
    return True


def _check_raw(path: Path, head: bytes) -> int:
    size = path.stat().st_size
    name = shown(path)
    if size % _SECTOR != 0:
        raise LabError(f"the disk image {name} is truncated, or no disk image: {size} bytes are "
                       "not a whole number of sectors")
    if head[510:512] != b"\x55\xaa" and is_cdrom(path):
        raise LabError(f"{name} is a CD-ROM image, and no disk image as well: give --on "
                       "virtio-scsi, which has CD-ROM drives")
    if head[510:512] != b"\x55\xaa":
        raise LabError(f"{name} is not a disk image: there is no partition table at its start")
    for sector in (512, 4096):
        if head[sector:sector + 8] == b"EFI PART":
            last = struct.unpack_from("<Q", head, sector + 32)[0]
            if (last + 1) * sector > size:
                raise LabError(f"the disk image {name} is truncated: its partition table is for a "
                               f"disk of {(last + 1) * sector} bytes, and {size} are there")
    return size


# ISO 9660 (ECMA-119): volume descriptors of 2048 bytes begin after 16 sectors; the last one has the
# type 255. A boot record (type 0) of this system says that the CD can be booted (El Torito).
_CD_SECTOR = 2048
_CD_DESCRIPTORS = 16
_CD_PRIMARY, _CD_BOOT, _CD_END = 1, 0, 255
_EL_TORITO = b"EL TORITO SPECIFICATION"


def is_cdrom(path: Path) -> bool:
    """Whether a file is a CD-ROM image; it may be a disk image as well."""
    return _descriptors(path)[:1] != []


def _descriptors(path: Path) -> list[bytes]:
    found: list[bytes] = []
    data = _bytes_of(path, "the CD-ROM image", 65536)
    for at in range(_CD_DESCRIPTORS * _CD_SECTOR, len(data), _CD_SECTOR):
        descriptor = data[at:at + _CD_SECTOR]
        if descriptor[1:6] != b"CD001" or descriptor[0] == _CD_END:
            break
        found.append(descriptor)
    return found


def check_cdrom(path: Path) -> int:
    """A CD-ROM image to boot from. Gives its size in bytes."""
    found = _descriptors(path)
    size = path.stat().st_size
    name = shown(path)
    primary = next((each for each in found if each[0] == _CD_PRIMARY), b"")
    if len(primary) < 132:
        raise LabError(f"{name} is not a CD-ROM image: it has no ISO 9660 file system")
    sectors = struct.unpack_from("<I", primary, 80)[0]
    block = struct.unpack_from("<H", primary, 128)[0]
    if size < sectors * block:
        raise LabError(f"the CD-ROM image {name} is truncated: its file system has "
                       f"{sectors * block} bytes, and {size} are there")
    if not any(each[0] == _CD_BOOT and each[7:7 + len(_EL_TORITO)] == _EL_TORITO for each in found):
        raise LabError(f"the CD-ROM image {name} cannot be booted: it has no El Torito boot record")
    return size


def sector_size_of(path: Path, format_: str) -> int | None:
    """The sector size that a raw image's partition table was made for, where it says so."""
    if format_ != "raw":
        return None
    head = _bytes_of(path, "the disk image", 8192)
    for sector in (512, 4096):
        if head[sector:sector + 8] == b"EFI PART":
            return sector
    return None
