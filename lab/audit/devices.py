# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The devices that an audited machine has: from what --device said to QEMU's words.

Each device gets a slot of its own, so that its PCI place is known before the machine starts and a
verdict on "0000:00:05.0" can be told to the reader in the words in which the device was asked for.
"""

import difflib
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab import tools
from lab.audit.network import Network
from lab.errors import LabError
from lab.guestlog import pattern
from lab.inputs import check_rom
from lab.qemu import FIRST_SLOT, LAST_SLOT, QEMU, quoted

DISK_SIZE = 1 << 20
DISK_RATE = 256 << 10
"""Bytes per second: a disk that answers at once has nothing in flight at the exit. Of the auditor's
reads of 256 KiB, OVMF's ATA driver makes two each: QEMU lets the first pass, and the second waits
for 0.4 s, in the middle of which is the exit."""
BUILT_IN_IDE = "0000:00:01.1"
"""Where the machine type "pc" has its IDE controller."""


@dataclass(frozen=True)
class Model:
    """A kind of device: QEMU's name for it, and what has to be behind it to be of use.

    In `behind` and `disk`, {bus} is the device's first bus and {drive} its disk.
    """

    name: str
    behind: str = ""
    """A device on the device's own bus."""
    disk: bool = False
    network: bool = False
    properties: str = ""


_SCSI = "scsi-hd,bus={bus},drive={drive}"
_IDE = "ide-hd,bus={bus},drive={drive}"
_USB = "usb-storage,bus={bus},drive={drive}"

KINDS: dict[str, Model] = {
    "virtio-blk": Model("virtio-blk-pci", disk=True),
    "virtio-scsi": Model("virtio-scsi-pci", _SCSI, disk=True),
    "virtio-net": Model("virtio-net-pci", network=True),
    "virtio-rng": Model("virtio-rng-pci"),
    "virtio-serial": Model("virtio-serial-pci"),
    "virtio-gpu": Model("virtio-gpu-pci"),
    "virtio-balloon": Model("virtio-balloon-pci"),
    "virtio-keyboard": Model("virtio-keyboard-pci"),
    "nvme": Model("nvme", disk=True, properties="serial=audit"),
    "ahci": Model("ich9-ahci", _IDE, disk=True),
    "ide": Model("piix3-ide", _IDE, disk=True),
    "sdhci": Model("sdhci-pci", "sd-card,bus={bus},drive={drive}", disk=True),
    "lsi": Model("lsi53c895a", _SCSI, disk=True),
    "megasas": Model("megasas", _SCSI, disk=True),
    "mptsas": Model("mptsas1068", _SCSI, disk=True),
    "pvscsi": Model("pvscsi", _SCSI, disk=True),
    "am53c974": Model("am53c974", _SCSI, disk=True),
    "e1000": Model("e1000", network=True),
    "e1000e": Model("e1000e", network=True),
    "rtl8139": Model("rtl8139", network=True),
    "vmxnet3": Model("vmxnet3", network=True),
    "usb": Model("usb-ehci", _USB, disk=True),
    "uhci": Model("ich9-usb-uhci1", _USB, disk=True),
    "ohci": Model("pci-ohci", _USB, disk=True),
    "xhci": Model("qemu-xhci", _USB, disk=True),
}
"""The kinds that have a short name. Any other PCI device of QEMU's can be had by QEMU's name."""

_FAMILIES = (
    # What QEMU calls a device, and which of the kinds above shows how it is used.
    (r"virtio-net-pci.*", "virtio-net"), (r"virtio-blk-pci.*", "virtio-blk"),
    (r"virtio-scsi-pci.*", "virtio-scsi"),
    (r"ich9-ahci", "ahci"), (r"piix[34]-ide", "ide"), (r"sdhci-pci", "sdhci"),
    (r"lsi53c\w+", "lsi"), (r"megasas.*", "megasas"), (r"mptsas\w+", "mptsas"),
    (r"dc390|am53c974", "am53c974"), (r"ich9-usb-ehci\d|usb-ehci", "usb"),
    (r"(ich9|piix\d)-usb-uhci\d?", "uhci"), (r"pci-ohci", "ohci"),
    (r"(nec-usb|qemu)-xhci", "xhci"),
)
_OURS = ("id", "addr", "bus", "drive", "netdev", "mac", "multifunction")
"""Properties that the audit sets itself."""


@dataclass(frozen=True)
class Asked:
    """A device as it was asked for, "virtio-blk,queue-size=8", and what QEMU is to make of it."""

    text: str
    model: Model
    properties: tuple[str, ...] = ()
    rom: Path | None = None

    @property
    def is_virtio(self) -> bool:
        return self.model.name.startswith("virtio-")

    @property
    def kind(self) -> str:
        """The name of its family, which is what QEMU's trace is sorted by."""
        for form, kind in _FAMILIES:
            if re.fullmatch(form, self.model.name):
                return kind
        return self.model.name.removesuffix("-pci")

    @property
    def takes_rom(self) -> bool:
        return self.model.name.startswith(("virtio-blk-pci", "virtio-scsi-pci", "virtio-net-pci"))


@dataclass(frozen=True)
class Placed:
    """A device in its place, "0000:00:05.0"."""

    asked: Asked
    place: str
    index: int

    @property
    def mac(self) -> str:
        return f"52:54:00:ba:70:{self.index:02x}"


@dataclass
class Plan:
    """QEMU's words for some devices, and what has to be kept open while it runs."""

    words: list[str] = field(default_factory=list)
    networks: list[Network] = field(default_factory=list)
    fds: list[int] = field(default_factory=list)
    _open: list[socket.socket] = field(default_factory=list)

    def close(self) -> None:
        for end in self._open:
            end.close()

    def add_network(self, name: str, mac: str) -> None:
        """A network of one card: a pair of connected sockets, one end QEMU's. There is no port and
        no address, so nothing can come in from elsewhere or get out."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._open += [ours, theirs]
        self.fds.append(theirs.fileno())
        self.networks.append(Network(ours, mac))
        self.words += ["-netdev", f"dgram,id={name},local.type=fd,local.str={theirs.fileno()}"]


def available(text: str) -> tuple[dict[str, str], set[str]]:
    """From `qemu -device help`: the PCI devices, names and aliases, each with QEMU's name for it;
    and which of them are network cards."""
    names: dict[str, str] = {}
    networks: set[str] = set()
    heading = ""
    for line in text.splitlines():
        found = re.match(r'name "([^"]+)", bus PCI(?:, alias "([^"]+)")?', line)
        if found is None:
            heading = line if line.endswith(":") else heading
            continue
        for name in filter(None, found.groups()):
            names[name] = found[1]
        if heading == "Network devices:":
            networks.add(found[1])
    return names, networks


def ask(text: str, rom: Path | None, help_text: str | None = None) -> Asked:
    """What --device said. `rom` goes to each device that Baton drives; a property romfile=FILE, to the
    device that has it. `help_text` is what QEMU says of
    its devices, asked for only where a kind has no short name."""
    kind, *properties = text.split(",")
    model = KINDS.get(kind)
    if model is None:
        model = _other(kind, help_text if help_text is not None else
                       tools.run([QEMU, "-device", "help"]))
    for item in properties:
        name, equals, _ = item.partition("=")
        if not equals or not name:
            raise LabError(f"--device {text}: {item or 'nothing'!r} is not a property, as in "
                           "NAME=VALUE")
        if name in _OURS:
            raise LabError(f"--device {text}: the audit sets {name} itself")
    asked = Asked(text, model, tuple(item for item in properties
                                     if not item.startswith("romfile=")))
    own = [item.partition("=")[2] for item in properties if item.startswith("romfile=")]
    if own:
        rom = Path(own[-1]) if own[-1] else None
    elif not asked.takes_rom:
        rom = None
    return Asked(text, model, asked.properties, rom)


def _other(kind: str, help_text: str) -> Model:
    names, networks = available(help_text)
    if kind not in names:
        near = difflib.get_close_matches(kind, [*KINDS, *names], n=4, cutoff=0.5)
        rest = f"; near it come {', '.join(dict.fromkeys(near))}" if near else \
            f"; there are {', '.join(KINDS)}, and the PCI devices of `{QEMU} -device help`"
        raise LabError(f"--device {kind}: there is no such kind of PCI device{rest}")
    name = names[kind]
    if name in networks:
        return Model(name, network=True)
    for form, like in _FAMILIES:
        if re.fullmatch(form, name):
            model = KINDS[like]
            return Model(name, model.behind, model.disk, model.network, model.properties)
    return Model(name)


def check(devices: Sequence[Asked], machine: str) -> None:
    """Refuse what cannot work, before anything is started."""
    for asked in devices:
        if asked.rom is not None:
            check_rom(asked.rom)
    ide = [asked for asked in devices if asked.model.name == "piix3-ide"]
    if len(ide) > 1:
        raise LabError(f"{len(ide)} devices of kind ide: there can be one, because its ports are "
                       "always the same")
    if machine == "pc" and ide and ide[0].properties:
        raise LabError(f"--device {ide[0].text}: on the machine pc it is the built-in controller, "
                       "which takes no properties")
    place(devices, machine)


def place(devices: Sequence[Asked], machine: str) -> list[Placed]:
    """The devices in their slots, in their order."""
    placed = []
    slot = FIRST_SLOT
    for index, asked in enumerate(devices):
        if machine == "pc" and asked.model.name == "piix3-ide":
            placed.append(Placed(asked, BUILT_IN_IDE, index))
            continue
        if slot > LAST_SLOT:
            raise LabError(f"{len(devices)} devices are more than the machine has slots for "
                           f"({LAST_SLOT - FIRST_SLOT + 1})")
        placed.append(Placed(asked, f"0000:00:{slot:02x}.0", index))
        slot += 1
    return placed


def plan(devices: Sequence[Placed], folder: Path) -> Plan:
    """QEMU's words. Disks are made in `folder`; what is written to them is forgotten."""
    made = Plan()
    for device in devices:
        _add(made, device, folder)
    return made


def _add(made: Plan, device: Placed, folder: Path) -> None:
    model, name = device.asked.model, f"audit{device.index}"
    built_in = device.place == BUILT_IN_IDE
    words = [model.name, f"id={name}", f"addr={device.place.split(':')[2]}",
             f"romfile={quoted(device.asked.rom or '')}"]
    drive = f"drive{device.index}"
    if model.disk:
        image = folder / f"{drive}.img"
        # Each disk its own bytes, so that one taken for another would be seen.
        image.write_bytes(pattern(700_000_000 + device.index * 1_000_000, DISK_SIZE))
        made.words += ["-drive", f"if=none,id={drive},file={quoted(image)},format=raw,snapshot=on,"
                       f"throttling.bps-read={DISK_RATE}"]
        if not model.behind:
            words.append(f"drive={drive}")
    if model.network:
        made.add_network(f"net{device.index}", device.mac)
        words += [f"netdev=net{device.index}", f"mac={device.mac}"]
    if model.properties:
        words.append(model.properties)
    given = {item.partition("=")[0] for item in device.asked.properties}
    if device.asked.is_virtio and not model.name.endswith("transitional") and \
            not given & {"disable-legacy", "disable-modern"}:
        words.append("disable-legacy=on")
    words += device.asked.properties
    if not built_in:
        made.words += ["-device", ",".join(words)]
    if model.behind:
        bus = "ide.0" if built_in else f"{name}.0"
        if model.name == "sdhci-pci":
            bus = "sd-bus"
        made.words += ["-device", model.behind.format(bus=bus, drive=drive)]
