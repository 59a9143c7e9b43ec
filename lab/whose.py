# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What whose.efi says of the firmware, its disks and network interfaces, and their drivers; and
what a PC BIOS and Baton in it say by themselves."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field


# As Baton says it when it gives a disk to the BIOS.
_DRIVE = re.compile(r"^Baton: drive ([0-9a-f]{2})h: "
                    r"(?:(?:(virtio-blk)|(virtio-scsi) (\d+:\d+)) "
                    r"at ([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])|(xvd[a-z]+)), "
                    r"(\d+) sectors of (\d+) bytes$",
                    re.MULTILINE)
_BIOS = re.compile(r"(SeaBIOS) \(version (\S+)\)")


@dataclass(frozen=True)
class Driver:
    """A driver that has a hand in a disk or an interface; level 0 is next to the device."""

    level: int
    name: str
    name_from: str
    version: int
    image: str
    holds: str = ""

    @property
    def from_option_rom(self) -> bool:
        """Firmware names an image that came out of a device's ROM by where it lay in it."""
        return "Pci(" in self.image and "/Offset(" in self.image

    @property
    def is_baton(self) -> bool:
        return self.name.startswith("Baton") and self.name_from != "path"

    @property
    def is_for_any(self) -> bool:
        """Firmware's own for a bus or a unit of any SCSI controller, whoever drives that."""
        return self.holds in ("scsi bus", "scsi unit")


@dataclass
class Driven:
    """What the firmware has drivers for."""

    device: str
    drivers: list[Driver] = field(default_factory=list)

    @property
    def driver(self) -> Driver | None:
        """The device's own, which made the disk or interface or the bus that the disk is on."""
        return self.own[-1] if self.own else None

    @property
    def own(self) -> list[Driver]:
        """The device's own, and those that it is built on."""
        return [driver for driver in self.drivers if not driver.is_for_any]


@dataclass
class Disk(Driven):
    """A disk as the firmware has it."""

    block_size: int = 0
    blocks: int = 0
    read_only: bool = False


@dataclass
class Interface(Driven):
    """A network interface as the firmware has it."""

    mac: str = ""
    media: bool = False


@dataclass
class Answer:
    """Everything it said."""

    vendor: str = ""
    revision: str = ""
    uefi: str = ""
    disks: dict[str, Disk] = field(default_factory=dict)
    """By PCI address. A unit of a SCSI controller has its target and number behind that,
    "00:04.0/0:1". A device that has several disks otherwise, as Xen's has, is there several times:
    the second is "00:02.0#2". On a PC BIOS, Xen's disks have their names, "xvde"."""
    interfaces: dict[str, Interface] = field(default_factory=dict)
    """By PCI address."""
    complete: bool = False


def parse(serial: str) -> Answer | None:
    """What is found in a serial log, or None if it never spoke."""
    answer = Answer()
    spoke = False
    last: Driven | None = None  # what the line before was about
    for kind, rest in re.findall(r"^whose: (\w+) ([^\r\n]*)", serial, re.MULTILINE):
        spoke = True
        try:
            words = dict(word.partition("=")[::2] for word in shlex.split(rest))
            last = _take(answer, kind, words, last)
        except (ValueError, KeyError):
            continue  # a garbled line counts as not said, and is missed later
    return answer if spoke else None


def _take(answer: Answer, kind: str, words: dict[str, str], last: Driven | None) -> Driven | None:
    if kind == "firmware":
        answer.vendor, answer.revision = words["vendor"], words["revision"]
        answer.uefi = words["uefi"]
    elif kind == "disk":
        name = words["pci"] + (f"/{words['unit']}" if "unit" in words else "")
        same = sum(key.partition("#")[0] == name for key in answer.disks)
        last = answer.disks[f"{name}#{same + 1}" if same else name] = Disk(
            words["pci"], block_size=int(words["block"]), blocks=int(words["blocks"]),
            read_only=words["read-only"] == "1")
    elif kind == "interface":
        last = answer.interfaces[words["pci"]] = Interface(words["pci"], mac=words["mac"],
                                                           media=words["media"] == "1")
    elif kind == "driver":
        # The drivers of each are said before the next one.
        if last is None or last.device != words["pci"]:
            raise ValueError("a driver of something else")
        last.drivers.append(
            Driver(int(words["level"]), words["name"], words["from"], int(words["version"], 16),
                   words["image"], words.get("holds", "")))
    elif kind == "end":
        answer.complete = int(words["disks"]) == len(answer.disks) and \
            int(words.get("interfaces", "0")) == len(answer.interfaces)
    return last


def parse_bios(serial: str, driven: Iterable[str]) -> Answer:
    """What is found in a PC BIOS's log. Of the disks that somebody drove, the BIOS has those
    that Baton does not say it has. It is complete if the BIOS gave its name."""
    answer = Answer()
    named = _BIOS.search(serial)
    if named is not None:
        answer.vendor, answer.revision = named[1], named[2]
        answer.complete = True
    for number, blk, scsi, unit, pci, xen, sectors, size in _DRIVE.findall(serial):
        # Xen's disks are all at one place, and have names.
        name = xen or "/".join(word for word in (pci, unit) if word)
        answer.disks[name] = Disk(
            xen or pci, [Driver(0, f"Baton {blk or scsi or 'xen'} driver", "screen", 0,
                                f"drive {number}h")], block_size=int(size), blocks=int(sectors))
    for place in driven:
        own = Driver(0, f"{answer.vendor or 'the BIOS'}'s own", "silence", 0, "")
        answer.disks.setdefault(place, Disk(place.partition("/")[0], [own]))
    return answer
