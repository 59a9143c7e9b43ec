# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What whose.efi says of the firmware, its disks and their drivers."""

import re
import shlex
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Driver:
    """A driver that has a hand in a disk; level 0 is next to the device."""

    level: int
    name: str
    name_from: str
    version: int
    image: str

    @property
    def from_option_rom(self) -> bool:
        """Firmware names an image that came out of a device's ROM by where it lay in it."""
        return "Pci(" in self.image and "/Offset(" in self.image

    @property
    def is_baton(self) -> bool:
        return self.name.startswith("Baton") and self.name_from != "path"


@dataclass
class Disk:
    """A disk as the firmware has it."""

    device: str
    block_size: int
    blocks: int
    read_only: bool
    drivers: list[Driver] = field(default_factory=list)

    @property
    def driver(self) -> Driver | None:
        """The one that made the disk."""
        return self.drivers[-1] if self.drivers else None


@dataclass
class Answer:
    """Everything it said."""

    vendor: str = ""
    revision: str = ""
    uefi: str = ""
    disks: dict[str, Disk] = field(default_factory=dict)
    """By PCI address. A device that has several disks, as Xen's has, is there several times: the
    second is "00:02.0#2"."""
    complete: bool = False


def parse(serial: str) -> Answer | None:
    """What is found in a serial log, or None if it never spoke."""
    answer = Answer()
    spoke = False
    for kind, rest in re.findall(r"^whose: (\w+) ([^\r\n]*)", serial, re.MULTILINE):
        spoke = True
        try:
            words = dict(word.partition("=")[::2] for word in shlex.split(rest))
            _take(answer, kind, words)
        except (ValueError, KeyError):
            continue  # a garbled line counts as not said, and is missed later
    return answer if spoke else None


def _take(answer: Answer, kind: str, words: dict[str, str]) -> None:
    if kind == "firmware":
        answer.vendor, answer.revision = words["vendor"], words["revision"]
        answer.uefi = words["uefi"]
    elif kind == "disk":
        name = words["pci"]
        same = sum(disk.device == name for disk in answer.disks.values())
        answer.disks[f"{name}#{same + 1}" if same else name] = Disk(
            name, int(words["block"]), int(words["blocks"]), words["read-only"] == "1")
    elif kind == "driver":
        # A disk's drivers are said before the next disk.
        disk = list(answer.disks.values())[-1]
        if disk.device != words["pci"]:
            raise ValueError("a driver of another disk")
        disk.drivers.append(
            Driver(int(words["level"]), words["name"], words["from"], int(words["version"], 16),
                   words["image"]))
    elif kind == "end":
        answer.complete = int(words["disks"]) == len(answer.disks)
