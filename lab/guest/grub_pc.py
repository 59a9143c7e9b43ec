# SPDX-License-Identifier: BSD-2-Clause-Patent
"""GRUB for a PC BIOS, as grub-bios-setup puts it on a disk: a program of 440 bytes in the first
sector, which reads the first sector of another one, which reads the rest of itself."""

import struct
from collections.abc import Mapping
from pathlib import Path

from lab import tools
from lab.errors import LabError
from lab.packages import Package, unpack

IMAGES = "grub-pc-bin"
"""The package with GRUB itself."""

# Puts it together. Only unpacked, and run with these libraries.
_MKIMAGE = "grub-common"
TOOLS = (_MKIMAGE, "libdevmapper1.02.1", "liblzma5", "libselinux1", "libpcre2-8-0", "libudev1")

# All that the guest's grub.cfg needs, so that nothing has to be there but the kernel.
_MODULES = ("biosdisk", "part_msdos", "part_gpt", "ext2", "normal", "test", "linux", "iorw")

SECTOR = 512
CODE_SIZE = 440
"""Of the first sector, what is in front of the disk's signature and its partitions."""

# boot.img, by its source: the place of the sector to read (64 bits), and the jump that is taken
# where the BIOS's word for the disk is believed. grub-bios-setup makes it two NOPs on hard disks,
# for BIOSes that do not say 80h.
_KERNEL_SECTOR = 0x5C
DRIVE_CHECK = 0x66
# diskboot.img, core.img's first sector: its last 12 bytes are a run of sectors: where it begins (64
# bits), how many (16 bits), and the segment that they are read to (16 bits).
_FIRST_RUN = SECTOR - 12


def make(packages: Mapping[str, Package], scratch: Path, where: str) -> tuple[bytes, bytes]:
    """boot.img and core.img. `where` is the partition that /boot/grub is on, in GRUB's words:
    "(hd0,gpt2)", or "(,msdos1)" on the disk that the BIOS has booted."""
    folder = scratch / "grub-pc"
    folder.mkdir()
    for name in (IMAGES, *TOOLS):
        unpack(packages[name], folder, without=["./usr/share/*"])
    images = folder / "usr/lib/grub/i386-pc"
    libraries = ":".join(str(folder / each) for each in
                         ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"))
    core = scratch / "core.img"
    tools.run([folder / "usr/bin/grub-mkimage", "-O", "i386-pc", "-d", images, "-o", core, "-p",
               f"{where}/boot/grub", *_MODULES], env={"LD_LIBRARY_PATH": libraries})
    return (images / "boot.img").read_bytes(), core.read_bytes()


def place(boot: bytes, core: bytes, at: int, room: int) -> tuple[bytes, bytes]:
    """What goes in front of the first sector's table, and what goes to the disk at byte `at`, where
    there is so much room."""
    if len(core) > room:
        raise LabError(f"GRUB's core has {len(core)} bytes, and there is room for {room}")
    first, sectors = at // SECTOR, -(-len(core) // SECTOR)
    code = bytearray(boot[:CODE_SIZE])
    struct.pack_into("<Q", code, _KERNEL_SECTOR, first)
    code[DRIVE_CHECK:DRIVE_CHECK + 2] = b"\x90\x90"
    placed = bytearray(core.ljust(sectors * SECTOR, b"\0"))
    struct.pack_into("<QH", placed, _FIRST_RUN, first + 1, sectors - 1)
    return bytes(code), bytes(placed)
