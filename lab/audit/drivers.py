# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Drivers that the auditor is to load into the firmware under audit."""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.inputs import check_app
from lab.paths import shown
from lab.qemu import quoted

FW_CFG = "opt/baton/driver/"
_NAME_MAX = 55 - len(FW_CFG)  # a fw_cfg file's name has 56 bytes, with its end
_PE32_PLUS = 0x20B
_SUBSYSTEMS = {10: "an application", 11: "a boot service driver", 12: "a runtime driver",
               13: "a ROM image"}
_DRIVERS = (11, 12)


@dataclass(frozen=True)
class Driver:
    """A driver's file, and the name under which the auditor asks for it."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def words(self) -> list[str]:
        """For QEMU."""
        return ["-fw_cfg", f"name={FW_CFG}{self.name},file={quoted(self.path.resolve())}"]


def check(drivers: Sequence[Driver]) -> None:
    """Refuse what cannot be loaded, before anything is started."""
    names = set()
    for driver in drivers:
        _check_image(driver.path)
        if re.fullmatch(r"[A-Za-z0-9._-]+", driver.name) is None:
            raise LabError(f"the driver {shown(driver.path)} needs a name of letters, digits, "
                           "'.', '_' and '-' only: rename the file")
        if len(driver.name) > _NAME_MAX:
            raise LabError(f"the driver {shown(driver.path)} has too long a name for QEMU: rename "
                           f"the file ({_NAME_MAX} characters at most)")
        if driver.name in names:
            raise LabError(f"two drivers are called {driver.name}: rename one of the files")
        names.add(driver.name)


def _check_image(path: Path) -> None:
    check_app(path)
    with path.open("rb") as file:
        data = file.read(4096)
    at = struct.unpack_from("<I", data, 0x3C)[0] + 24
    if len(data) < at + 70 or struct.unpack_from("<H", data, at)[0] != _PE32_PLUS:
        raise LabError(f"the driver {shown(path)} is not a PE32+ image")
    subsystem = struct.unpack_from("<H", data, at + 68)[0]
    if subsystem not in _DRIVERS:
        what = _SUBSYSTEMS.get(subsystem, f"of subsystem {subsystem}")
        raise LabError(f"{shown(path)} is not a UEFI driver: it is {what}")
