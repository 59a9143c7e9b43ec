# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Boots an operating system from virtio-blk disks on UEFI firmware, and judges the hand-over.

For tests:

    from lab.boot import Options, boot
    report = boot(Options(transport="legacy", disks=2, write=4 << 20))
    assert report.ok, report.problems

report.hand_over, report.firmware, report.guest and report.result have what each check looked at.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab import gpt, guestlog, qemu, tools, whose
from lab.cache import file_sum
from lab.errors import LabError
from lab.guest import Guest, guest
from lab.handover import judge
from lab.inputs import check_app, check_disk, check_rom, sector_size_of
from lab.paths import LAB, LOGS, ROM, WHOSE, shown
from lab.progress import Progress
from lab.qemu import Disk, Firmware, Machine, Transport
from lab.report import Report

DATA_DISK_SIZE = 8 << 20
DEFAULT_TIMEOUT = 300.0


@dataclass(frozen=True)
class Options:
    """What to run. The defaults are those of `./baton run`."""

    rom: Path | None = ROM
    """None: whatever driver the firmware has."""
    machine: str = "q35"
    accelerator: str = "auto"
    transport: Transport = "modern"
    sector_size: int | None = None
    """None: what the disk was made for; 512 where that is not known."""
    disks: int = 1
    """The guest's, and more with data on them."""
    read_only: bool = False
    write: int = 0
    """Bytes for the guest to write to every disk, read back and compare. A multiple of 4096."""
    device_options: Mapping[str, str] = field(default_factory=dict)
    """More properties of every virtio-blk device."""
    firmware: Firmware = Firmware()
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


def boot(options: Options, progress: Progress | None = None) -> Report:
    """Run it. The report says what held and what did not; a LabError, why it could not be run."""
    progress = progress or Progress(quiet=True)
    _check(options)
    if options.image is not None:
        return _boot_image(options, options.image, progress)
    return _boot_guest(options, progress)


def _check(options: Options) -> None:
    """Everything that can be wrong with what we were given, before anything slow."""
    tools.find(qemu.QEMU)
    LAB.mkdir(parents=True, exist_ok=True)
    if not os.access(LAB, os.W_OK):
        raise LabError(f"{shown(LAB)} cannot be written to, and the lab keeps there what it makes: "
                       "run it as the owner of this tree, or in a clone of your own")
    options.firmware.check()
    if options.rom is not None:
        if options.rom == ROM and not ROM.exists():
            raise LabError(f"{shown(ROM)} is not there: run `make`, or give --rom or --no-rom")
        check_rom(options.rom)
    if options.app is None:
        qemu.require_whose()
    check_app(options.app or WHOSE)
    if options.disks < 1:
        raise LabError("there must be a disk")
    if options.sector_size not in (None, 512, 4096):
        raise LabError(f"a sector size of {options.sector_size}: only 512 and 4096 can be had")
    if options.write % 4096 or not 0 <= options.write <= DATA_DISK_SIZE:
        raise LabError(f"the guest can write up to {DATA_DISK_SIZE >> 20} MiB, a multiple of 4096 "
                       "bytes")
    if options.image is not None and (options.disks != 1 or options.write):
        raise LabError("more disks, and writing to them, are for the lab's own guest only")


def _machine(options: Options, accelerator: str, disks: list[Disk], **more: object) -> Machine:
    return Machine(disks=disks, machine=options.machine, accelerator=accelerator,
                   firmware=options.firmware, kernel=options.app or WHOSE, append=options.append,
                   **more)  # type: ignore[arg-type]


def _device(options: Options, image: Path, sector_size: int, **more: object) -> Disk:
    return Disk(image, rom=options.rom, transport=options.transport, sector_size=sector_size,
                read_only=options.read_only, options=options.device_options,
                **more)  # type: ignore[arg-type]


# ---- The lab's own guest ----

@dataclass
class HostDisk:
    """A disk of the guest's, as the host knows it."""

    before: str
    after: str = ""
    expected: str = ""
    """The sum that a write test should leave behind, where the guest says it has written."""
    size: int = 0


def _boot_guest(options: Options, progress: Progress) -> Report:
    sector_size = options.sector_size or 512
    made = guest(progress, sector_size)
    accelerator = qemu.choose_accelerator(options.accelerator, progress)
    host: list[HostDisk] = []

    def paths(folder: Path) -> list[Path]:
        return [folder / f"disk{index}.img" for index in range(options.disks)]

    def make(folder: Path) -> Machine:
        host.clear()
        for index, path in enumerate(paths(folder)):
            if index == 0:
                tools.run(["cp", "--reflink=auto", "--sparse=always", str(made.disk), str(path)])
            else:
                # Each its own, so that one taken for another is seen.
                path.write_bytes(guestlog.pattern(500_000_000 + index * 1_000_000, DATA_DISK_SIZE))
            host.append(HostDisk(file_sum(path), size=path.stat().st_size))
        disks = [_device(options, path, sector_size) for path in paths(folder)]
        return _machine(options, accelerator, disks, fw_cfg=tasks)

    def after(folder: Path) -> None:
        for index, path in enumerate(paths(folder)):
            host[index].after = file_sum(path)
            if options.write:
                host[index].expected = expected_sum(path, made.disk if index == 0 else None, index,
                                                 sector_size, options.write)

    tasks = {"opt/baton/tasks": f"write={options.write}"} if options.write else {}
    result = qemu.run(make, timeout=options.timeout or DEFAULT_TIMEOUT, progress=progress,
                      name="booting Debian", stage=_stage, after=after)
    report = _report(options, result, accelerator, sector_size, host[0].size)
    report.facts.insert(-1, ("guest", f"{made.kernel}, {made.grub}"))
    judge_end(report, result, options.timeout or DEFAULT_TIMEOUT)
    judge_guest(report, options, made, host, sector_size)
    return report


def expected_sum(path: Path, original: Path | None, index: int, sector_size: int, size: int) -> str:
    """The sum of a disk that is as it was but for what the guest was told to write: whoever writes
    anywhere else is found too."""
    data = bytearray(original.read_bytes() if original is not None else guestlog.pattern(
        500_000_000 + index * 1_000_000, path.stat().st_size))
    start = 0
    if original is not None:
        partition = gpt.find(original, sector_size, "scratch")
        if partition is None:
            raise LabError(f"{shown(original)} has no scratch partition")
        start = partition.start
    data[start:start + size] = guestlog.pattern(100_000_000 + index * 10_000_000, size)
    return hashlib.sha256(data).hexdigest()


def _stage(serial: str) -> str:
    for mark, stage in (("baton-guest: end", "switching off"),
                        ("baton-guest: disk", "reading disks"),
                        ("Linux version", "kernel"), ("GRUB", "boot loader"),
                        ("whose: end", "firmware, booting"), ("", "firmware")):
        if mark in serial:
            return stage
    raise AssertionError("not reached")


def judge_end(report: Report, result: qemu.Result, timeout: float) -> None:
    """Whether the machine got to its end in order, and if not, where it stopped."""
    if result.ended == "off" and report.guest.ended:
        report.held.append("the guest came to its end and switched the machine off")
        return
    stage = _stage(result.serial)
    if result.ended == "timeout":
        problem = f"the time was up: ended after {timeout:.0f} s (at: {stage})"
    elif result.ended == "died":
        problem = f"QEMU died (at: {stage}): {last_line(result.said) or result.exit_code}"
    else:
        problem = f"the machine ended too early (at: {stage}; {result.ended})"
    # First, because everything else that is missing is missing for this reason.
    report.problems.insert(0, problem)
    report.problems += report.guest.failures
    lines = qemu.plain(result.serial).splitlines()[-15:]
    report.tail = "\n".join(f"    {line}" for line in lines) + \
        f"\n    (all of it: {shown(LOGS)}/serial.log)"


def last_line(text: str) -> str:
    """The last line that is not empty."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def judge_guest(report: Report, options: Options, made: Guest, host: list[HostDisk],
                sector_size: int) -> None:
    """What the guest said of its root and its disks, against what the host knows."""
    log = report.guest
    devices = [device.device for device in report.hand_over.devices]
    if log.root is None:
        report.problems.append("the guest did not mount its root")
    else:
        place = guestlog.place_of(log.root.path)
        report.check(place == devices[0],
                     f"root is {log.root.device} on {place}, mounted {log.root.options}",
                     f"the root came from {place or log.root.path}, not from {devices[0]}")
    agreed = wrote = 0
    for device, disk in zip(devices, host, strict=True):
        seen = log.disks.get(device)
        if seen is None:
            report.problems.append(f"the guest has no disk on {device}")
            continue
        if seen.bytes != disk.size or seen.sector != sector_size or \
                seen.read_only != options.read_only:
            report.problems.append(
                f"the guest sees {device} as {seen.bytes} bytes in sectors of {seen.sector}, "
                f"read-only {seen.read_only}; it has {disk.size} in sectors of {sector_size}, "
                f"read-only {options.read_only}")
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


# ---- A user's image ----

def _boot_image(options: Options, image: Path, progress: Progress) -> Report:
    format_, size = check_disk(image, options.image_format)
    made_for = sector_size_of(image, format_)
    if options.sector_size and made_for and options.sector_size != made_for:
        raise LabError(f"the disk image {shown(image)} was made for sectors of {made_for} bytes: "
                       f"leave --sector-size {options.sector_size} away")
    sector_size = options.sector_size or made_for or 512
    accelerator = qemu.choose_accelerator(options.accelerator, progress)
    disk = _device(options, image, sector_size, format=format_, snapshot=options.snapshot)
    changes = "forgotten" if options.snapshot else "kept"
    progress.say(f"booting {shown(image)} ({format_}; what is written to it is {changes}); Ctrl-A "
                 "X ends the machine, Ctrl-A H helps")
    result = qemu.run(_machine(options, accelerator, [disk], console=True, memory=1024),
                      timeout=options.timeout, progress=Progress(quiet=True))
    report = _report(options, result, accelerator, sector_size, size)
    if result.ended in ("timeout", "died"):
        report.problems.insert(0, f"the machine ran out of its {options.timeout} s"
                               if result.ended == "timeout" else
                               f"QEMU died: {last_line(result.said) or result.exit_code}")
    report.unseen += [
        "from which disk the system mounted its root (nothing of ours runs in it)",
        "whether a checksum of the disk read in the guest agrees with the host's",
    ]
    if report.hand_over.seen_by == "takeover":
        report.unseen.append("the kernel's first moments (it does not speak so early on the serial "
                             "port): the hand-over is judged by its first touch of the device")
    return report


# ---- What both have ----

def _report(options: Options, result: qemu.Result, accelerator: str, sector_size: int,
            size: int) -> Report:
    report = Report(result=result)
    report.firmware = whose.parse(qemu.plain(result.serial))
    report.guest = guestlog.parse(qemu.plain(result.serial))
    report.hand_over = judge(result.trace, result.addresses,
                             quiet=options.image is not None)
    describe(report, options, result, accelerator, sector_size, size)
    judge_drivers(report, options, list(result.addresses))
    report.problems += report.hand_over.problems
    idle = [device.device for device in report.hand_over.devices if not device.driven]
    if not report.hand_over.problems:
        if len(idle) < len(result.addresses):
            report.held.append("after its last request "
                               f"{'each' if len(result.addresses) > 1 else 'the'} device was reset "
                               "and its bus mastering switched off, before the kernel began")
        if idle:
            report.held.append(f"never set going by the firmware: {', '.join(idle)}")
    return report


def describe(report: Report, options: Options, result: qemu.Result, accelerator: str,
             sector_size: int, size: int) -> None:
    """What ran, in words."""
    firmware = options.firmware.code.name
    package = package_version("ovmf") if options.firmware.code.parent == qemu.OVMF else ""
    if package:
        firmware += f" of Debian's ovmf {package}"
    if report.firmware is not None and report.firmware.vendor:
        firmware += (f" ({report.firmware.vendor} {report.firmware.revision}, UEFI "
                     f"{report.firmware.uefi})")
    count = "" if options.disks == 1 else f"{options.disks} × "
    report.facts += [
        ("firmware", firmware),
        ("hypervisor", f"QEMU {qemu.version()}, {accelerator}, {options.machine}"),
        ("device", f"{count}virtio-blk, {options.transport}, {sector_size}-byte sectors"
                   f"{', read-only' if options.read_only else ''}; {size / (1 << 20):.0f} MiB, "
                   f"from {result.addresses[0]} on"),
        ("driver", driver_text(report, list(result.addresses))),
        ("power-on → kernel", f"{report.hand_over.kernel:.1f} s, to its first word"
         if report.hand_over.kernel is not None else "the kernel was not heard"),
    ]
    if result.retries:
        report.facts.append(("note", f"QEMU itself broke {result.retries} times and was run again"))


def driver_text(report: Report, addresses: list[str]) -> str:
    disk = report.firmware.disks.get(addresses[0]) if report.firmware else None
    if disk is None or disk.driver is None:
        return "not known"
    driver = disk.driver
    stack = "".join(f", on {below.name}" for below in reversed(disk.drivers[:-1]))
    source = "the device's option ROM" if driver.from_option_rom else \
        "the firmware" if re.match(r"(Fv|MemoryMapped)\(", driver.image) else \
        driver.image
    return f"{driver.name}{stack}, version 0x{driver.version:x}, from {source}"


def judge_drivers(report: Report, options: Options, addresses: list[str]) -> None:
    """Whether Baton drives every disk."""
    answer = report.firmware
    if answer is None and options.app is not None:
        report.unseen.append("which driver the firmware has for the disk (another program was run "
                             "in place of the one that asks)")
        return
    if answer is None or not answer.complete:
        report.problems.append("the firmware could not be asked for the disk's driver")
        return
    wrong: dict[str, list[str]] = {}
    for address in addresses:
        disk = answer.disks.get(address)
        if disk is None or disk.driver is None:
            report.problems.append(f"{address}: the firmware has no driver for this disk")
        elif not disk.driver.is_baton:
            wrong.setdefault(disk.driver.name, []).append(address)
    for name, places in wrong.items():
        asked = " (as asked: --no-rom)" if options.rom is None else ""
        report.problems.append(f"{', '.join(places)}: the disk's driver is {name}, not "
                               f"Baton{asked}")
    if not wrong and all(address in answer.disks for address in addresses):
        report.held.append("Baton drove the disk" if len(addresses) == 1 else
                           f"Baton drove all {len(addresses)} disks")


def package_version(name: str) -> str:
    """An installed Debian package's version, "" if that cannot be known."""
    try:
        return tools.run(["dpkg-query", "-W", "-f", "${Version}", name])
    except LabError:
        return ""
