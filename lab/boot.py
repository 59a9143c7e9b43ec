# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Boots an operating system from a virtio device, on UEFI firmware or a PC BIOS, and judges the
hand-over.

For tests:

    from lab.boot import Options, boot
    report = boot(Options(transport="legacy", disks=2, write=4 << 20))
    assert report.ok, report.problems

    report = boot(Options(on="virtio-net"))
    report = boot(Options(firmware=Bios(strict=True), partitions="gpt"))

report.hand_over, report.firmware, report.guest and report.result have what each check looked at.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lab import e820, guestlog, handover, mbr, qemu, tools, whose
from lab.errors import LabError
from lab.handover import HandOver, judge
from lab.inputs import CODE_EFI, CODE_PC, check_app, check_rom
from lab.paths import BIOS_ROM, LAB, LOGS, ROM, WHOSE, shown
from lab.progress import Progress
from lab.qemu import Bios, Device, Machine
from lab.queues import Watch
from lab.report import Report
from lab.scenarios import DATA_DISK_SIZE, SCENARIOS, Disks, Options, Scenario, medium_of

__all__ = ["DEFAULT_TIMEOUT", "Options", "boot", "driver_text", "judge_drivers", "last_line"]

DEFAULT_TIMEOUT = 300.0


def boot(options: Options, progress: Progress | None = None) -> Report:
    """Run it. The report says what held and what did not; a LabError, why it could not be run."""
    progress = progress or Progress(quiet=True)
    if options.on_bios and options.rom == ROM:
        options = replace(options, rom=BIOS_ROM)
    _check(options)
    scenario = SCENARIOS[options.on](options)
    if options.image is not None:
        return _boot_image(options, options.image, scenario, progress)
    return _boot_guest(options, scenario, progress)


def _check(options: Options) -> None:
    """Everything that can be wrong with what we were given, before anything slow."""
    tools.find(qemu.QEMU)
    LAB.mkdir(parents=True, exist_ok=True)
    if not os.access(LAB, os.W_OK):
        raise LabError(f"{shown(LAB)} cannot be written to, and the lab keeps there what it makes: "
                       "run it as the owner of this tree, or in a clone of your own")
    options.firmware.check()
    if options.rom is not None:
        if options.rom in (ROM, BIOS_ROM) and not options.rom.exists():
            raise LabError(f"{shown(options.rom)} is not there: run `make`, or give --rom or "
                           "--no-rom")
        check_rom(options.rom, CODE_PC if options.on_bios else CODE_EFI)
    if options.on_bios:
        _check_for_bios(options)
    else:
        if options.app is None:
            qemu.require_whose()
        check_app(options.app or WHOSE)
    if options.on not in SCENARIOS:
        raise LabError(f"{options.on} cannot be booted from, only {', '.join(SCENARIOS)}")
    if options.disks < 1:
        raise LabError("there must be a disk")
    if options.cdrom and options.on != "virtio-scsi":
        raise LabError(f"there are no CD-ROM drives on {options.on}, only on virtio-scsi")
    if options.cdrom and options.write:
        raise LabError("nothing can be written to a CD-ROM")
    if options.sector_size not in (None, 512, 4096):
        raise LabError(f"a sector size of {options.sector_size}: only 512 and 4096 can be had")
    if options.write % 4096 or not 0 <= options.write <= DATA_DISK_SIZE:
        raise LabError(f"the guest can write up to {DATA_DISK_SIZE >> 20} MiB, a multiple of 4096 "
                       "bytes")
    if options.image is not None and (options.disks != 1 or options.write):
        raise LabError("more disks, and writing to them, are for the lab's own guest only")


def _check_for_bios(options: Options) -> None:
    if options.on == "virtio-net":
        raise LabError("on a PC BIOS there is nothing of Baton's for virtio-net, only for disks")
    if options.app is not None:
        raise LabError("a PC BIOS runs no UEFI program")
    if options.cdrom:
        raise LabError("on a PC BIOS the lab boots from disks, not from CD-ROM drives")
    if options.sector_size not in (None, mbr.SECTOR):
        raise LabError(f"a sector size of {options.sector_size}: a PC BIOS boots from sectors of "
                       f"{mbr.SECTOR} bytes")
    if options.loader == "extlinux" and options.partitions != "mbr":
        raise LabError("the lab's EXTLINUX is on a disk with an MBR, not with "
                       f"{options.partitions.upper()}")
    if options.rom is None and not options.boot_order:
        raise LabError("without the BIOS's own drivers and without a ROM, nobody has the disk")


class _Run:
    """What is run, and what watches it."""

    watch: Watch | None = None

    def __init__(self, options: Options, accelerator: str) -> None:
        self._options = options
        self._accelerator = accelerator

    def machine(self, devices: Sequence[Device], **more: object) -> Machine:
        """Called anew for each try."""
        options = self._options
        machine = Machine(disks=devices, machine=options.machine, accelerator=self._accelerator,
                          append=options.append, **more)  # type: ignore[arg-type]
        if isinstance(options.firmware, Bios):
            self.watch = Watch(machine.addresses, handover.KERNEL_SPEAKS)
            return replace(machine, firmware=replace(options.firmware, rom=options.rom),
                           watch=self.watch)
        return replace(machine, firmware=options.firmware, kernel=options.app or WHOSE)


# ---- The lab's own guest ----

def _boot_guest(options: Options, scenario: Scenario, progress: Progress) -> Report:
    made = scenario.obtain(progress)
    accelerator = qemu.choose_accelerator(options.accelerator, progress)
    tasks = {"opt/baton/tasks": " ".join(scenario.tasks)} if scenario.tasks else {}
    of = _Run(options, accelerator)

    def make(folder: Path) -> Machine:
        return of.machine(scenario.devices(folder), fw_cfg=tasks, pass_fds=scenario.pass_fds())

    try:
        result = qemu.run(make, timeout=options.timeout or DEFAULT_TIMEOUT, progress=progress,
                          name="booting Debian", stage=_stage, after=scenario.after)
    finally:
        scenario.close()
    report = _report(options, result, accelerator, scenario, of.watch)
    report.facts.insert(-1, ("guest", f"{made.kernel}, {made.loader}"))
    judge_end(report, result, options.timeout or DEFAULT_TIMEOUT)
    scenario.judge(report)
    return report


def _stage(serial: str) -> str:
    for mark, stage in (("baton-guest: end", "switching off"),
                        ("baton-guest: disk", "reading disks"),
                        ("baton-guest: interface", "using the network"),
                        ("Linux version", "kernel"), ("GRUB", "boot loader"),
                        ("SYSLINUX", "boot loader"),
                        (">>Start PXE", "network boot"),
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


# ---- A user's image ----

def _boot_image(options: Options, image: Path, scenario: Scenario, progress: Progress) -> Report:
    if not isinstance(scenario, Disks):
        raise LabError(f"an image is booted from a disk, and {options.on} has none")
    medium, scenario.size = medium_of(options, image)
    if options.on_bios and medium.sector_size != mbr.SECTOR:
        raise LabError(f"{shown(image)} has sectors of {medium.sector_size} bytes, and a PC BIOS "
                       f"boots from a disk's of {mbr.SECTOR} bytes")
    scenario.sector_size = medium.sector_size
    accelerator = qemu.choose_accelerator(options.accelerator, progress)
    devices = scenario.put([medium])
    changes = "" if medium.cdrom else \
        f"; what is written to it is {'forgotten' if options.snapshot else 'kept'}"
    kind = "CD-ROM" if medium.cdrom else medium.format
    progress.say(f"booting {shown(image)} ({kind}{changes}); Ctrl-A X ends the machine, Ctrl-A H "
                 "helps")
    of = _Run(options, accelerator)
    result = qemu.run(of.machine(devices, console=True, memory=1024),
                      timeout=options.timeout, progress=Progress(quiet=True))
    report = _report(options, result, accelerator, scenario, of.watch)
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

def _report(options: Options, result: qemu.Result, accelerator: str, scenario: Scenario,
            watch: Watch | None) -> Report:
    report = Report(result=result)
    serial = qemu.plain(result.serial)
    places = scenario.places(result.addresses)
    report.guest = guestlog.parse(serial)
    report.hand_over = judge(result.trace, result.addresses, quiet=options.image is not None,
                             bios=handover.Bios(e820.parse(serial), watch.looks) if watch else None)
    driven = [device.device for device in report.hand_over.devices if device.driven]
    report.firmware = whose.parse(serial) if watch is None else whose.parse_bios(
        serial, [place for place in places if place.partition("/")[0] in driven])
    describe(report, options, result, accelerator, scenario.describe(),
             driver_text(report, places, scenario.part))
    not_called = _not_called(options, report.hand_over)
    called = [place for place in places if place not in not_called]
    if called:
        judge_drivers(report, options, called, scenario.part)
    if not_called:
        report.held.append(f"nobody ever called the BIOS for {', '.join(not_called)}, which it "
                           "has still")
    report.problems += report.hand_over.problems
    # Of its own guest, the lab has to see everything.
    (report.problems if options.image is None else report.unseen).extend(report.hand_over.unseen)
    if watch is not None:
        _held_on_bios(report.hand_over, report)
        return report
    idle = [device.device for device in report.hand_over.devices if not device.driven]
    if not report.hand_over.problems:
        if len(idle) < len(result.addresses):
            report.held.append("after its last request "
                               f"{'each' if len(result.addresses) > 1 else 'the'} device was reset "
                               "and its bus mastering switched off, before the kernel began")
        if idle:
            report.held.append(f"never set going by the firmware: {', '.join(idle)}")
    return report


def _not_called(options: Options, hand_over: HandOver) -> list[str]:
    """Disks that are the BIOS's own still, rightly: Baton takes them over when they are first called
    for."""
    if options.rom is None or not options.on_bios or not options.boot_order:
        return []
    return [device.device for device in hand_over.devices if not any(device.requests.values())]


def _held_on_bios(hand_over: HandOver, report: Report) -> None:
    if hand_over.problems or hand_over.unseen or not any(device.queues
                                                         for device in hand_over.devices):
        return
    report.held += ["the queues that the BIOS left behind are in memory that it calls reserved",
                    "nothing moved in them after the kernel's first word, until the kernel's own "
                    "driver had reset the device"]


def describe(report: Report, options: Options, result: qemu.Result, accelerator: str,
             device: str, driver: str) -> None:
    """What ran, in words."""
    firmware = options.firmware.code.name
    name = {qemu.OVMF: "ovmf", qemu.SEABIOS: "seabios"}.get(options.firmware.code.parent)
    package = package_version(name) if name else ""
    if package:
        firmware += f" of Debian's {name} {package}"
    if report.firmware is not None and report.firmware.vendor:
        firmware += (f" ({report.firmware.vendor} {report.firmware.revision}"
                     f"{f', UEFI {report.firmware.uefi}' if report.firmware.uefi else ''})")
    if options.on_bios:
        firmware += f", {'with' if options.boot_order else 'without'} drivers of its own"
    place = f"at {result.addresses[0]}" if len(result.addresses) == 1 else \
        f"from {result.addresses[0]} on"
    report.facts += [
        ("firmware", firmware),
        ("hypervisor", f"QEMU {qemu.version()}, {accelerator}, {options.machine}"),
        ("device", f"{device}, {place}"),
        ("driver", driver),
        ("power-on → kernel", f"{report.hand_over.kernel:.1f} s, to its first word"
         if report.hand_over.kernel is not None else "the kernel was not heard"),
    ]
    if result.retries:
        report.facts.append(("note", f"QEMU itself broke {result.retries} times and was run again"))


def _driven(report: Report, part: str) -> Mapping[str, whose.Driven]:
    """What the firmware has of a kind, by place."""
    if report.firmware is None:
        return {}
    if part == "interface":
        return report.firmware.interfaces
    return report.firmware.disks


def driver_text(report: Report, places: Sequence[str], part: str = "disk") -> str:
    seen = _driven(report, part).get(places[0])
    if seen is None or seen.driver is None:
        return "not known"
    driver = seen.driver
    if not driver.image:
        return driver.name
    if driver.name_from == "screen":
        return f"{driver.name}, {driver.image}"
    stack = "".join(f", on {below.name}" for below in reversed(seen.own[:-1]))
    source = "the device's option ROM" if driver.from_option_rom else \
        "the firmware" if re.match(r"(Fv|MemoryMapped)\(", driver.image) else \
        driver.image
    return f"{driver.name}{stack}, version 0x{driver.version:x}, from {source}"


def judge_drivers(report: Report, options: Options, places: Sequence[str],
                  part: str = "disk") -> None:
    """Whether Baton drives every disk, or every interface."""
    answer = report.firmware
    if answer is None and options.app is not None:
        report.unseen.append(f"which driver the firmware has for the {part} (another program was "
                             "run in place of the one that asks)")
        return
    if answer is None or not answer.complete:
        report.problems.append(f"the firmware could not be asked for the {part}'s driver")
        return
    driven = _driven(report, part)
    wrong: dict[str, list[str]] = {}
    for place in places:
        seen = driven.get(place)
        if seen is None or seen.driver is None:
            report.problems.append(f"{place}: the firmware has no driver for this {part}")
        elif not seen.driver.is_baton:
            wrong.setdefault(seen.driver.name, []).append(place)
    for name, where in wrong.items():
        asked = " (as asked: --no-rom)" if options.rom is None else ""
        report.problems.append(f"{', '.join(where)}: the {part}'s driver is {name}, not "
                               f"Baton{asked}")
    if not wrong and all(place in driven for place in places):
        report.held.append(f"Baton drove the {part}" if len(places) == 1 else
                           f"Baton drove all {len(places)} {part}s")


def package_version(name: str) -> str:
    """An installed Debian package's version, "" if that cannot be known."""
    try:
        return tools.run(["dpkg-query", "-W", "-f", "${Version}", name])
    except LabError:
        return ""
