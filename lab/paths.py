# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Where things are in the source tree."""

from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
BUILD = TOP / "build"
LAB = BUILD / "lab"
"""Everything that the lab keeps: packages, guest disks, logs. All of it can be made again."""

LOGS = LAB / "last-run"
"""What the last virtual machine said: serial.log, trace.log, qemu.log."""

ROM = BUILD / "baton.rom"
BIOS_ROM = BUILD / "baton-bios.rom"
"""For -option-rom: without the image for UEFI."""
WHOSE = LAB / "whose.efi"


def shown(path: Path) -> str:
    """A path as a reader wants it: relative to where they are, if it is below that."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
