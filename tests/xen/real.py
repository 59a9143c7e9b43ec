# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Guests of a Xen host with SeaBIOS: the program of tests/real, and boot sectors that only say who
they are."""

import struct
from collections.abc import Mapping
from pathlib import Path

from int13 import SECTOR, Image, Run

from lab.paths import ROM
from lab.xen import GuestConfig, GuestResult, XenHost, run_guest
from lab.xen.disks import loop

MEMORY = 128


def run_real(xen: XenHost, disks: Mapping[str, Image], orders: str, *, rom: Path | None = ROM,
             memory: int = MEMORY, timeout: float = 240) -> Run[GuestResult]:
    """Make the disks, which the guest has by these names, let it boot from the first that its
    BIOS has, and fetch what is on them afterwards."""
    name = f"real{xen.unique('real').suffix[1:]}"
    targets = {disk: f"/jobs/{name}-{disk}.img" for disk in disks}
    for disk, image in disks.items():
        image.make(orders)
        xen.put(image.path, targets[disk])
    devices = {disk: loop(xen, target) for disk, target in targets.items()}
    result = run_guest(xen, GuestConfig(
        name, memory=memory, firmware="seabios", rom=rom,
        disks=[device.spec(disk) for disk, device in devices.items()]), timeout=timeout)
    for disk, image in disks.items():
        devices[disk].remove()
        xen.get(targets[disk], image.path)
        xen.check(f"rm {targets[disk]}", "removing a disk")
    return Run(result, result.lines("real: "))


# ---- Boot sectors ----

CD_SECTOR = 2048
_START = 0x7C00


POWER_OFF = bytes.fromhex("ba04b0" "b80020" "ef")  # movw $0xb004, %dx; movw $0x2000, %ax; outw


def boot_sector(text: str, last: bytes = POWER_OFF) -> bytes:
    """Says this on COM1 and runs these instructions."""
    def code(at: int) -> bytes:
        return b"".join((
            b"\xfc",                                    # cld
            b"\x31\xc0\x8e\xd8",                        # xorw %ax, %ax; movw %ax, %ds
            b"\xbe" + struct.pack("<H", at),            # movw $text, %si
            b"\xb9" + struct.pack("<H", len(text)),     # movw $bytes, %cx
            b"\xba\xf8\x03",                            # movw $0x3f8, %dx
            b"\xf3\x6e",                                # rep outsb
            last,
            b"\xfb\xf4\xeb\xfd",                        # sti; hlt, for ever
        ))
    sector = code(_START + len(code(0))) + text.encode()
    return sector.ljust(SECTOR - 2, b"\0") + b"\x55\xaa"


def boot_disc(sector: bytes) -> bytes:
    """A disc that boots from it: El Torito, without emulation."""
    def descriptor(kind: int, rest: bytes = b"") -> bytes:
        return (bytes([kind]) + b"CD001\x01" + rest).ljust(CD_SECTOR, b"\0")
    catalog_at, boot_at = 19, 20
    record = b"EL TORITO SPECIFICATION".ljust(64, b"\0") + struct.pack("<I", catalog_at)
    # That it is a catalog, with a sum of 0 over its words, and what it starts.
    catalog = struct.pack("<BBH24sHBB", 1, 0, 0, b"", 0x10000 - 0xAA55 - 1, 0x55, 0xAA) + \
        struct.pack("<BBHBBHI", 0x88, 0, 0, 0, 0, 1, boot_at)
    return bytes(16 * CD_SECTOR) + descriptor(1) + descriptor(0, record) + descriptor(255) + \
        catalog.ljust(CD_SECTOR, b"\0") + sector.ljust(CD_SECTOR, b"\0")
