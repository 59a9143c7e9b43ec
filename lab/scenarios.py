# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What can be booted from, and what shows that the guest has it in order.

A scenario is what is different from one kind of virtio device to the next. All else (lab.boot) is
the same for each.
"""

import hashlib
import socket
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from lab import guestlog, tools
from lab.audit.network import Flood, Network
from lab.cache import file_sum
from lab.errors import LabError
from lab.guest import (CD_SECTOR, NETWORK_LOADER, Guest, Loader, Partitions, bios_disk, cdrom,
                       guest, network, scratch_start)
from lab.inputs import check_cdrom, check_disk, is_cdrom, sector_size_of
from lab.paths import ROM, shown
from lab.progress import Progress
from lab.qemu import Bios, Device, Disk, Firmware, Interface, ScsiController, Transport, Unit
from lab.report import Report

DATA_DISK_SIZE = 8 << 20


@dataclass(frozen=True)
class Options:
    """What to run. The defaults are those of `./baton run`."""

    on: str = "virtio-blk"
    """The device to boot from, a key of SCENARIOS."""
    rom: Path | None = ROM
    """None: whatever driver the firmware has."""
    machine: str = "q35"
    accelerator: str = "auto"
    transport: Transport = "modern"
    sector_size: int | None = None
    """None: what the disk was made for; 512 where that is not known."""
    disks: int = 1
    """The guest's, and more with data on them: a device each, or units of one SCSI controller."""
    cdrom: bool = False
    """Boot from a CD-ROM drive on the SCSI controller; a user's image may also say so itself."""
    read_only: bool = False
    write: int = 0
    """Bytes for the guest to write to every disk, read back and compare. A multiple of 4096."""
    device_options: Mapping[str, str] = field(default_factory=dict)
    """More properties of every virtio device."""
    firmware: Firmware | Bios = Firmware()
    partitions: Partitions = "mbr"
    """Of the guest's disk, on a PC BIOS."""
    loader: Loader = "grub"
    """On it."""
    timeout: float | None = None
    """None: DEFAULT_TIMEOUT for the lab's own guest, no limit for a user's image."""
    app: Path | None = None
    """A UEFI program to run before the boot instead of the one that asks for drivers. Unless it
    prints the same lines, nothing is known of the drivers, and the report says so."""
    append: str = ""
    """Its options."""
    image: Path | None = None
    """A user's image to boot instead of the lab's own guest, on an interactive console."""
    image_format: str | None = None
    snapshot: bool = True
    """Whether to forget what is written to the user's image."""

    @property
    def on_bios(self) -> bool:
        return isinstance(self.firmware, Bios)

    @property
    def device_rom(self) -> Path | None:
        """The ROM on the device itself."""
        return None if self.on_bios else self.rom

    @property
    def boot_order(self) -> bool:
        """Whether the firmware is told to boot from the device, rather than from the ROM."""
        return not (isinstance(self.firmware, Bios) and self.firmware.strict)


@dataclass
class HostDisk:
    """A disk of the guest's, as the host knows it."""

    before: str
    after: str = ""
    expected: str = ""
    """The sum that a write test should leave behind, where the guest says it has written."""
    size: int = 0
    sector_size: int = 512
    place: str = ""
    """Where the guest has it (see guestlog.GuestLog.disks); "": on the device of its number."""


@dataclass(frozen=True)
class Medium:
    """An image, and what is told of it."""

    path: Path
    sector_size: int
    format: str = "raw"
    snapshot: bool = False
    cdrom: bool = False


class Scenario:
    """The devices that the guest boots from, and what shows that its own drivers found them in
    order."""

    part = "disk"
    """What the firmware's drivers make of it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.tasks: list[str] = []
        """What the guest is asked to do."""

    def obtain(self, progress: Progress) -> Guest:
        """The guest, made if need be."""
        raise NotImplementedError

    def devices(self, folder: Path) -> list[Device]:
        """What the machine has to have. Called anew for each try."""
        raise NotImplementedError

    def pass_fds(self) -> Sequence[int]:
        """Open files that the devices name."""
        return ()

    def after(self, folder: Path) -> None:
        """The machine has ended."""

    def close(self) -> None:
        """Nothing more is to be run."""

    def places(self, addresses: Sequence[str]) -> list[str]:
        """What the firmware and the guest call the disks or interfaces."""
        return list(addresses)

    def describe(self) -> str:
        """The devices, in words."""
        raise NotImplementedError

    def judge(self, report: Report) -> None:
        """What the guest said, against what the host knows."""
        raise NotImplementedError


class Disks(Scenario):
    """Disks of whatever kind."""

    made: Guest
    host: list[HostDisk]
    size = 0
    sector_size = 512

    def put(self, media: Sequence[Medium]) -> list[Device]:
        """The devices that have these for disks, the first one to boot from."""
        raise NotImplementedError

    def obtain(self, progress: Progress) -> Guest:
        self.sector_size = CD_SECTOR if self.options.cdrom else self.options.sector_size or 512
        self.made = bios_disk(progress, self.options.partitions, self.options.loader) \
            if self.options.on_bios else \
            cdrom(progress) if self.options.cdrom else guest(progress, self.sector_size)
        self.size = self.made.disk.stat().st_size
        if self.options.write:
            self.tasks.append(f"write={self.options.write}")
        return self.made

    def _paths(self, folder: Path) -> list[Path]:
        return [folder / f"disk{index}.img" for index in range(self.options.disks)]

    def devices(self, folder: Path) -> list[Device]:
        self.host = []
        media = []
        for index, path in enumerate(self._paths(folder)):
            if index == 0:
                tools.run(["cp", "--reflink=auto", "--sparse=always", self.made.disk, path])
            else:
                # Each its own, so that one taken for another is seen.
                path.write_bytes(guestlog.pattern(500_000_000 + index * 1_000_000, DATA_DISK_SIZE))
            cd = self.options.cdrom and index == 0
            sector_size = CD_SECTOR if cd else self.options.sector_size or 512
            self.host.append(HostDisk(file_sum(path), size=path.stat().st_size,
                                      sector_size=sector_size))
            media.append(Medium(path, sector_size, cdrom=cd))
        return self.put(media)

    def after(self, folder: Path) -> None:
        for index, path in enumerate(self._paths(folder)):
            disk = self.host[index]
            disk.after = file_sum(path)
            if self.options.write:
                disk.expected = expected_sum(path, self.made.disk if index == 0 else None, index,
                                             disk.sector_size, self.options.write)

    def judge(self, report: Report) -> None:
        places = self.places([device.device for device in report.hand_over.devices])
        for place, disk in zip(places, self.host, strict=True):
            disk.place = place
        judge_guest(report, self.options, self.host)

    def _medium(self) -> str:
        read_only = ", read-only" if self.options.read_only else ""
        return f"{self.sector_size}-byte sectors{read_only}; {self.size / (1 << 20):.0f} MiB"


class BlockDevices(Disks):
    """A virtio-blk device for each disk."""

    def put(self, media: Sequence[Medium]) -> list[Device]:
        options = self.options
        return [Disk(medium.path, medium.format, options.device_rom, options.transport,
                     medium.sector_size, options.read_only, medium.snapshot,
                     options.device_options, boot=options.on_bios and options.boot_order
                     and medium is media[0])
                for medium in media]

    def describe(self) -> str:
        count = "" if self.options.disks == 1 else f"{self.options.disks} × "
        return f"{count}virtio-blk, {self.options.transport}, {self._medium()}"


class ScsiUnits(Disks):
    """One virtio-scsi device, on which each disk is a unit of the first target."""

    cdrom = False

    def put(self, media: Sequence[Medium]) -> list[Device]:
        options = self.options
        self.cdrom = media[0].cdrom
        units = [Unit(medium.path, medium.format, medium.sector_size, options.read_only,
                      medium.snapshot, medium.cdrom, lun=lun) for lun, medium in enumerate(media)]
        return [ScsiController(units, options.device_rom, options.transport,
                               options.device_options, boot=options.boot_order)]

    def places(self, addresses: Sequence[str]) -> list[str]:
        return [f"{addresses[0]}/0:{lun}" for lun in range(self.options.disks)]

    def describe(self) -> str:
        more = self.options.disks - 1
        return (f"virtio-scsi, {self.options.transport}; {'CD-ROM' if self.cdrom else 'disk'}, "
                f"{self._medium()}" + (f"; {more} more disk{'' if more == 1 else 's'}" if more
                                       else ""))


class NetworkBoot(Scenario):
    """A virtio-net device. The guest comes from a TFTP server, and on the same network somebody is
    sending all the time: what an interface that still receives would put into memory."""

    part = "interface"
    FILE_SIZE = 4 << 20
    FRAMES_PER_SECOND = 100

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.file = guestlog.pattern(600_000_000, self.FILE_SIZE)
        self.tasks = ["fetch=payload"]
        self.sent: list[float] = []
        """When somebody sent something, in the host's time."""
        self._running = ExitStack()
        self._fds: list[int] = []

    def obtain(self, progress: Progress) -> Guest:
        self.made = network(progress)
        return self.made

    def devices(self, folder: Path) -> list[Device]:
        self.close()
        files = folder / "tftp"
        with tarfile.open(self.made.disk) as archive:
            archive.extractall(files)
        (files / "payload").write_bytes(self.file)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (ours, theirs):
            self._running.enter_context(end)
        self._fds = [theirs.fileno()]
        flood = self._running.enter_context(Flood([Network(ours, Interface.mac)],
                                                  self.FRAMES_PER_SECOND))
        self.sent = flood.times
        return [Interface(files, NETWORK_LOADER, self.options.rom, self.options.transport,
                          self.options.device_options, other_fd=self._fds[0], boot=True)]

    def pass_fds(self) -> Sequence[int]:
        return self._fds

    def after(self, folder: Path) -> None:
        self.close()

    def close(self) -> None:
        self._running.close()

    def describe(self) -> str:
        return (f"virtio-net, {self.options.transport}, {Interface.mac}; {NETWORK_LOADER} and all "
                "that follows by TFTP")

    def judge(self, report: Report) -> None:
        for device in report.hand_over.devices:
            self._judge_firmware(report, device.device)
            self._judge_guest(report, device.device)
            if device.moved_after or device.live:
                continue  # a problem that is told already
            if device.reset is None or device.taken_over is None or report.result is None:
                report.unseen.append("whether the interface still received after the hand-over "
                                     "(the kernel's own driver never set it going)")
                continue
            start = report.result.trace.start
            came = sum(device.reset < at - start < device.taken_over for at in self.sent)
            if came:
                report.held.append(f"{came} packets were on its network between its reset and the "
                                   "kernel's own driver, and none was put into memory")
            else:
                report.unseen.append("whether the interface still received after the hand-over "
                                     "(nothing was sent in that time)")

    def _judge_firmware(self, report: Report, place: str) -> None:
        seen = report.firmware.interfaces.get(place) if report.firmware else None
        if seen is not None and (seen.mac != Interface.mac or not seen.media):
            report.problems.append(
                f"{place}: the firmware's interface has the address {seen.mac} and "
                f"{'a' if seen.media else 'no'} link; the device has {Interface.mac} and a link")

    def _judge_guest(self, report: Report, place: str) -> None:
        net = report.guest.nets.get(place)
        if net is None:
            report.problems.append(f"the guest has no interface on {place}")
            return
        if net.mac != Interface.mac:
            report.problems.append(f"{place}: the guest's interface has the address {net.mac}, not "
                                   f"{Interface.mac}")
        report.check(bool(net.address) and net.received == net.sent > 0,
                     f"the kernel's own driver took the interface over: {net.address} by DHCP, "
                     f"{net.received} of {net.sent} pings of {net.server} answered",
                     f"{place}: the network does not work in the guest: "
                     f"{net.address or 'no address'} by DHCP, {net.received} of {net.sent} pings "
                     f"of {net.server or 'nobody'} answered")
        digest = hashlib.sha256(self.file).hexdigest()
        report.check((net.bytes, net.sha256) == (len(self.file), digest),
                     f"{len(self.file) >> 10} KiB got by TFTP in the guest are what the host has "
                     f"(sha256 {digest[:16]}…)",
                     f"{place}: the file that the guest got by TFTP has {net.bytes} bytes and the "
                     f"checksum {net.sha256[:16] or 'missing'}…, the host's {len(self.file)} and "
                     f"{digest[:16]}…")


SCENARIOS: dict[str, type[BlockDevices] | type[ScsiUnits] | type[NetworkBoot]] = {
    "virtio-blk": BlockDevices,
    "virtio-scsi": ScsiUnits,
    "virtio-net": NetworkBoot,
}


# ---- A user's image ----

def medium_of(options: Options, image: Path) -> tuple[Medium, int]:
    """A user's image as what it can be, and its size."""
    if options.cdrom or options.on == "virtio-scsi" and is_cdrom(image):
        size = check_cdrom(image)
        if options.sector_size is not None:
            raise LabError(f"{shown(image)} is a CD-ROM image, whose sectors have {CD_SECTOR} "
                           f"bytes: leave --sector-size {options.sector_size} away")
        if not options.snapshot:
            raise LabError(f"{shown(image)} is a CD-ROM image, to which nothing is written: leave "
                           "--no-snapshot away")
        if options.image_format == "qcow2":
            raise LabError(f"{shown(image)} is a CD-ROM image, not a qcow2 image: leave --format "
                           "away")
        return Medium(image, CD_SECTOR, cdrom=True), size
    format_, size = check_disk(image, options.image_format)
    made_for = sector_size_of(image, format_)
    if options.sector_size and made_for and options.sector_size != made_for:
        raise LabError(f"the disk image {shown(image)} was made for sectors of {made_for} bytes: "
                       f"leave --sector-size {options.sector_size} away")
    return Medium(image, options.sector_size or made_for or 512, format_, options.snapshot), size


# ---- What the guest said of disks ----

def expected_sum(path: Path, original: Path | None, index: int, sector_size: int, size: int) -> str:
    """The sum of a disk that is as it was but for what the guest was told to write: whoever writes
    anywhere else is found too."""
    data = bytearray(original.read_bytes() if original is not None else guestlog.pattern(
        500_000_000 + index * 1_000_000, path.stat().st_size))
    start = scratch_start(original, sector_size) if original is not None else 0
    data[start:start + size] = guestlog.pattern(100_000_000 + index * 10_000_000, size)
    return hashlib.sha256(data).hexdigest()


def judge_guest(report: Report, options: Options, host: Sequence[HostDisk]) -> None:
    """What the guest said of its root and its disks, against what the host knows."""
    log = report.guest
    places = [disk.place for disk in host] if host and host[0].place else \
        [device.device for device in report.hand_over.devices]
    if log.root is None:
        report.problems.append("the guest did not mount its root")
    else:
        place = guestlog.place_of(log.root.path)
        report.check(place == places[0],
                     f"root is {log.root.device} on {place}, mounted {log.root.options}",
                     f"the root came from {place or log.root.path}, not from {places[0]}")
    agreed = wrote = 0
    for device, disk in zip(places, host, strict=True):
        seen = log.disks.get(device)
        if seen is None:
            report.problems.append(f"the guest has no disk on {device}")
            continue
        read_only = options.read_only or disk.sector_size == CD_SECTOR
        if seen.bytes != disk.size or seen.sector != disk.sector_size or \
                seen.read_only != read_only:
            report.problems.append(
                f"the guest sees {device} as {seen.bytes} bytes in sectors of {seen.sector}, "
                f"read-only {seen.read_only}; it has {disk.size} in sectors of {disk.sector_size}, "
                f"read-only {read_only}")
        agreed += judge_sum(report, device, disk, seen.sha256, written=bool(options.write)
                             and not options.read_only)
        if options.write:
            wrote += judge_write(report, options, device, disk, seen)
    if wrote == len(host):
        whom = "the disk" if len(host) == 1 else f"each of {len(host)} disks"
        report.held.append(
            f"writing to {whom} was refused, as it is read-only" if options.read_only else
            f"{options.write >> 10} KiB written by the guest to {whom} were read back by it and by "
            "the host, and nothing else changed")
    if agreed == len(host):
        which = f"sha256 {host[0].before[:16]}…" if len(host) == 1 else f"{len(host)} disks"
        report.held.append(f"all of the disk read in the guest is what the host has ({which})"
                           if len(host) == 1 else
                           f"all {which} read in the guest are what the host has")


def judge_sum(report: Report, device: str, disk: HostDisk, guest_sum: str, *,
              written: bool) -> bool:
    """Whether guest and host agree on a disk's contents; problems are noted."""
    if guest_sum != disk.before:
        report.problems.append(f"{device}: the guest's checksum of the disk is "
                               f"{guest_sum[:16] or 'missing'}…, the host's {disk.before[:16]}…")
        return False
    if not written and disk.after != disk.before:
        report.problems.append(f"{device}: the disk's contents changed during the run, though "
                               "nothing should have written to it")
        return False
    return True


def judge_write(report: Report, options: Options, device: str, disk: HostDisk,
                seen: guestlog.Seen) -> bool:
    """Whether what the guest wrote is what it read back, and what the host then has."""
    wrote = report.guest.wrote.get(seen.name)
    problem = ""
    if options.read_only:
        if wrote is not None or seen.name not in report.guest.refused:
            problem = "writing to the read-only disk was not refused"
    elif wrote is None:
        problem = "the guest could not write"
    elif wrote.bytes != options.write or wrote.sha256 != hashlib.sha256(
            guestlog.pattern(wrote.start, options.write)).hexdigest():
        problem = "the guest read back something else than it wrote"
    elif disk.after != disk.expected:
        problem = "the host's image is not what it was before, with what the guest wrote"
    if problem:
        report.problems.append(f"{device}: {problem}")
    return not problem
