# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Boots an operating system from Xen's paravirtual disks, on stock OVMF or SeaBIOS, and judges the
hand-over.

For tests:

    from lab.xen.boot import Options, boot
    report = boot(Options(disks=2, write=4 << 20, backend="qdisk"))
    assert report.ok, report.problems
    report = boot(Options(bios=True, partitions="gpt"))

Several guests on one boot of Xen, one after the other:

    reports = on_xen(lambda xen: [boot_on(xen, Options()), boot_on(xen, Options(read_only=True))])
"""

import dataclasses
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from lab import e820, gpt, guestlog, mbr, qemu, scenarios, tools, whose
from lab.boot import driver_text, judge_drivers, last_line
from lab.cache import file_sum, scratch_folder
from lab.errors import LabError
from lab.guest import Guest as GuestDisk
from lab.guest import Partitions, bios_disk, tell_loader
from lab.guest import guest as guest_disk
from lab.inputs import (CODE_EFI, CODE_PC, check_app, check_bios, check_disk, check_rom, halves_of,
                        sector_size_of)
from lab.paths import LOGS, ROM, WHOSE, shown
from lab.progress import Progress
from lab.report import Report
from lab.scenarios import DATA_DISK_SIZE, HostDisk, expected_sum, judge_guest
from lab.xen import disks
from lab.xen.disks import Backend, BlockDevice
from lab.xen.guest import Guest, GuestConfig, GuestResult, run_guest
from lab.xen.host import XenHost, on_xen
from lab.xen.judge import Bios, XenHandOver, complaints, judge, takeover
from lab.xen.looks import Look, look, without_dumps
from lab.xen.store import parse as parse_trace

DEFAULT_TIMEOUT = 600.0
CONSOLE = "console=hvc0 loglevel=8"
"""Of the guest's kernel: each character on the serial port would be a way to another process and
back. Its messages for debugging tell in which state it found a disk."""

_NOTHING = r"UEFI Interactive Shell|BdsDxe: No bootable option|^No bootable device"
"""What firmware says that has found nothing to boot."""
_SPEAKS = r"Linux version \d"
_ALL_READ = r"^GRUB$"
"""What the guest's GRUB writes to port 0xE9 last, on a PC BIOS."""
_IN_PLACE = "/EFI/BOOT/NEXT.EFI"
"""Where whose.efi, which stands in the boot loader's place, finds it."""


@dataclass(frozen=True)
class Options:
    """What to run. The defaults are those of `./baton run --on xen`."""

    rom: Path | None = ROM
    """None: whatever driver the firmware has."""
    backend: Backend = "blkback"
    """Who serves the disks: dom0's kernel, from loop devices; or the guest's QEMU, from files."""
    sector_size: int | None = None
    """None: what the disk was made for; 512 where that is not known."""
    disks: int = 1
    read_only: bool = False
    write: int = 0
    """Bytes for the guest to write to every disk, read back and compare. A multiple of 4096."""
    bios: bool = False
    """Whether it is SeaBIOS that boots, not OVMF."""
    partitions: Partitions = "mbr"
    """Of the guest's disk, on a PC BIOS."""
    firmware: Path | None = None
    """In the place of Debian's: a SeaBIOS, or an OVMF for Xen, variables and code in one file."""
    memory: int = 512
    timeout: float = DEFAULT_TIMEOUT
    image: Path | None = None
    """A user's image to boot instead of the lab's own guest. It is worked on as a copy."""
    image_format: str | None = None
    names: Sequence[str] = ()
    """The disks' names, in the place of xvde and so on: "hda" has an emulated twin."""
    ask: bool = True
    """Whether to have OVMF asked for the disks' driver (whose.efi before the boot loader)."""


@dataclass
class XenReport(Report):
    """What a run on Xen showed."""

    xen: XenHandOver | None = None
    guest_result: GuestResult | None = None
    dom0_lines: list[str] = field(default_factory=list)
    """What dom0's kernel said in the meantime."""
    xen_lines: list[str] = field(default_factory=list)
    """What Xen said in the meantime."""
    trace: str = ""
    """XenStore's, as it was written."""
    looks: list[Look] = field(default_factory=list)
    """What the backends had mapped of the guest's memory, on a PC BIOS."""

    def write(self, out: TextIO, *, verbose: bool = False) -> None:
        if verbose:
            for title, lines in (("dom0's kernel", self.dom0_lines), ("Xen", self.xen_lines)):
                for index, line in enumerate(lines):
                    out.write(f"{'' if index else title:<20}{line}\n")
        super().write(out, verbose=verbose)

    def as_json(self) -> dict[str, Any]:
        result = self.guest_result
        return {
            **super().as_json(),
            "ended": result.ended if result else None,
            "seconds": result.seconds if result else None,
            "qemu_retries": result.retries if result else 0,
            "xenstore": {
                "messages": self.xen.messages, "exit_messages": self.xen.exit_messages,
                "snapshots": {name: [dataclasses.asdict(each) for each in snapshots]
                              for name, snapshots in self.xen.snapshots.items()},
            } if self.xen else None,
            "mapped": [dataclasses.asdict(each) for each in self.looks],
            "dom0_kernel": self.dom0_lines, "xen_log": self.xen_lines,
        }


def boot(options: Options, progress: Progress | None = None) -> XenReport:
    """Boot Xen, run it there, and switch Xen off again. The report says what held and what did not;
    a LabError, why it could not be run."""
    progress = progress or Progress(quiet=True)
    check(options)
    return on_xen(lambda xen: boot_on(xen, options), progress)


def check(options: Options) -> None:
    """Everything that can be wrong with what we were given, before anything slow."""
    if options.rom is not None:
        if options.rom == ROM and not ROM.exists():
            raise LabError(f"{shown(ROM)} is not there: run `make`, or give --rom or --no-rom")
        check_rom(options.rom, CODE_PC if options.bios else CODE_EFI)
    if options.image is None and options.ask and not options.bios:
        qemu.require_whose()
        check_app(WHOSE)
    if options.disks < 1:
        raise LabError("there must be a disk")
    _names(options)
    if options.sector_size not in (None, 512, 4096):
        raise LabError(f"a sector size of {options.sector_size}: only 512 and 4096 can be had")
    if options.bios and options.sector_size not in (None, mbr.SECTOR):
        raise LabError(f"a sector size of {options.sector_size}: a PC BIOS boots from sectors of "
                       f"{mbr.SECTOR} bytes")
    if options.sector_size == 4096 and options.backend == "qdisk":
        raise LabError("QEMU as a backend (qdisk) serves disks of 512-byte sectors only")
    if options.write % 4096 or not 0 <= options.write <= DATA_DISK_SIZE:
        raise LabError(f"the guest can write up to {DATA_DISK_SIZE >> 20} MiB, a multiple of "
                       "4096 bytes")
    if options.image is not None and (options.disks != 1 or options.write):
        raise LabError("more disks, and writing to them, are for the lab's own guest only")
    if options.firmware is not None:
        if options.bios:
            check_bios(options.firmware)
        elif halves_of(options.firmware) is None:
            raise LabError(f"{shown(options.firmware)} is not an OVMF that hvmloader can start: it "
                           "takes variables and code in one file, as OVMF's build makes it (OVMF.fd)")
    if options.image is not None:
        check_disk(options.image, options.image_format)


def boot_on(xen: XenHost, options: Options) -> XenReport:
    """The same on a Xen host that is running."""
    check(options)
    with scratch_folder(xen.scratch, "disks") as folder:
        run = _Run(xen, options, folder)
        return run.image(options.image) if options.image is not None else run.guest()


def _names(options: Options) -> list[str]:
    return list(options.names) or [disks.disk_name(index) for index in range(options.disks)]


@dataclass
class _Run:
    xen: XenHost
    options: Options
    folder: Path
    devices: list[BlockDevice] = field(default_factory=list)
    specs: list[str] = field(default_factory=list)

    def guest(self) -> XenReport:
        """The lab's own guest."""
        options = self.options
        sector_size = options.sector_size or 512
        made = bios_disk(self.xen.progress, options.partitions) if options.bios else \
            guest_disk(self.xen.progress, sector_size)
        images = [self.folder / f"disk{index}.img" for index in range(len(_names(options)))]
        self._make(images, made, sector_size)
        host = [HostDisk(file_sum(path), size=path.stat().st_size, sector_size=sector_size)
                for path in images]
        report, targets = self._run(images, sector_size)
        for path, target, disk, index in zip(images, targets, host, range(len(host)), strict=True):
            after = path.with_suffix(".after")
            self.xen.get(target, after)
            disk.after = file_sum(after)
            if options.write:
                disk.expected = expected_sum(after, path if index == 0 else None, index,
                                                    sector_size, options.write)
            after.unlink()
            self.xen.check(f"rm {target}", "removing a disk")
        report.facts.append(("guest", f"{made.kernel}, {made.loader}"))
        self._judge_end(report)
        judge_guest(report, scenarios.Options(write=options.write, read_only=options.read_only,
                                           disks=len(host)), host)
        return report

    def image(self, image: Path) -> XenReport:
        """A user's image."""
        format_, size = check_disk(image, self.options.image_format)
        made_for = sector_size_of(image, format_)
        if self.options.sector_size and made_for and self.options.sector_size != made_for:
            raise LabError(f"the disk image {shown(image)} was made for sectors of {made_for} bytes: "
                           f"leave --sector-size {self.options.sector_size} away")
        if self.options.bios and made_for not in (None, mbr.SECTOR):
            raise LabError(f"{shown(image)} has sectors of {made_for} bytes, and a PC BIOS boots from "
                           f"a disk's of {mbr.SECTOR} bytes")
        if size > 12 << 30:
            raise LabError(f"the disk image {shown(image)} has {size >> 30} GiB, and dom0 has room "
                           "for 12")
        raw = image
        if format_ != "raw":
            raw = self.folder / "image.raw"
            with self.xen.progress.step(f"unpacking {shown(image)}"):
                tools.run(["qemu-img", "convert", "-O", "raw", image, raw])
        report, targets = self._run([raw], self.options.sector_size or made_for or 512)
        self.xen.check(f"rm {targets[0]}", "removing the disk")
        ended = report.guest_result.ended if report.guest_result else "off"
        if ended not in ("off", "until"):
            report.problems.insert(0, "the time was up before the system had taken its disk over"
                                   if ended == "timeout" else f"the guest ended by {ended}")
        report.unseen += [
            "from which disk the system mounted its root (nothing of ours runs in it)",
            "whether a checksum of the disk read in the guest agrees with the host's",
        ]
        return report

    # ---- Disks ----

    def _make(self, images: Sequence[Path], made: GuestDisk, sector_size: int) -> None:
        for index, path in enumerate(images):
            if index:
                # Each its own, so that one taken for another is seen.
                path.write_bytes(guestlog.pattern(500_000_000 + index * 1_000_000,
                                                  DATA_DISK_SIZE))
                continue
            tools.run(["cp", "--reflink=auto", "--sparse=always", made.disk, path])
            tell_loader(path, made, sector_size, console=CONSOLE, tasks=f"write={self.options.write}"
                        if self.options.write else "")
            if self.options.ask and not self.options.bios:
                put_before_loader(path, sector_size, WHOSE)

    def _put(self, images: Sequence[Path], sector_size: int) -> list[str]:
        """Into dom0, and a device of each where that is wanted."""
        targets = []
        for path, name in zip(images, _names(self.options), strict=True):
            target = f"/jobs/{self.xen.unique('disk').name}"
            targets.append(target)
            self.xen.put(path, target, timeout=600)
            if self.options.backend == "qdisk":
                self.specs.append(disks.file_spec(target, name, backend="qdisk",
                                                  read_only=self.options.read_only))
                continue
            device = disks.loop(self.xen, target, sector_size=sector_size,
                                read_only=self.options.read_only)
            self.devices.append(device)
            self.specs.append(device.spec(name))
        return targets

    # ---- The run ----

    def _run(self, images: Sequence[Path], sector_size: int) -> tuple[XenReport, list[str]]:
        options, xen = self.options, self.xen
        size = images[0].stat().st_size
        targets = self._put(images, sector_size)
        numbers = [disks.number_of(name) for name in _names(options)]
        firmware_file = None
        if options.firmware is not None:
            firmware_file = f"/jobs/{xen.unique('firmware').name}"
            xen.put(options.firmware, firmware_file)
        config = GuestConfig(name=f"guest{xen.unique('guest').suffix[1:]}", memory=options.memory,
                             disks=self.specs, rom=options.rom, firmware_file=firmware_file,
                             firmware="seabios" if options.bios else "ovmf",
                             # SeaBIOS says nothing there. Of a user's image nothing is read there,
                             # and many write all they do.
                             serial=options.image is None and not options.bios)
        log_begin = len(xen.log)
        dom0_before = _dmesg(xen)
        xen.trace_store()
        kernel: list[float] = []
        trace: list[str] = []
        looks = _Looks(xen) if options.bios else None

        def watch(guest: Guest) -> None:
            if not kernel and re.search(_SPEAKS, guest.console):
                kernel.append(guest.seconds)
            if looks is not None:
                looks.watch(guest)

        result = run_guest(xen, config, timeout=options.timeout, until=_NOTHING, stage=_stage,
                           watch=watch,
                           finish=lambda _: trace.append(xen.traced()), xenstore=True,
                           enough=_Taken(xen, numbers, looks) if options.image is not None else None)
        report = XenReport(guest_result=result, trace=trace[0], looks=looks.seen if looks else [])
        report.dom0_lines = [line for line in _dmesg(xen)[len(dom0_before):]
                             if re.search(r"vbd|blkback|xen|grant", line, re.IGNORECASE)]
        report.xen_lines = [line for line in without_dumps(xen.log[log_begin:]).splitlines()
                            if re.match(r"\(XEN\) (?!HVM.* (save|restore): )", line)]
        for device in self.devices:
            device.remove()
        self._judge(report, result, numbers, kernel[0] if kernel else None)
        self._describe(report, sector_size, size)
        return report, targets

    def _judge(self, report: XenReport, result: GuestResult, numbers: Sequence[int],
               kernel: float | None) -> None:
        store = parse_trace(report.trace)
        console = qemu.plain(result.console)
        report.guest = guestlog.parse(console)
        bios = Bios(e820.parse(console) or e820.parse_seabios(result.debug), report.looks) \
            if self.options.bios else None
        report.xen = seen = judge(store, result.domain, numbers, bios)
        report.hand_over = seen.hand_over
        report.hand_over.kernel = kernel
        report.firmware = whose.parse(qemu.plain(result.serial)) if bios is None else \
            whose.parse_bios(result.debug, [
                name for name, device in zip(_names(self.options), seen.hand_over.devices,
                                             strict=True) if device.driven])
        judge_all(report, seen, bios=bios is not None)
        # Of its own guest, the lab has to see everything.
        (report.problems if self.options.image is None else report.unseen).extend(
            seen.hand_over.unseen + seen.unseen)
        self._judge_drivers(report)
        for who, lines in (("the guest's kernel", console.splitlines()),
                           ("dom0's kernel", report.dom0_lines), ("Xen's log", report.xen_lines)):
            bad = complaints(who, lines, takes_over=bios is not None)
            report.check(not bad, f"{who} has nothing to say against a disk or a grant",
                         f"{who} says: {'; '.join(bad[:3])}")
        agree = store.replay({}, 0, None)
        after = result.xenstore_after
        fronts = [f"/local/domain/{result.domain}/device/vbd/{number}" for number in numbers]
        wrong = [path for front in fronts
                 for path in (f"{front}/state", f"{after.get(f'{front}/backend')}/state")
                 if path not in after or after[path] != agree.get(path)]
        if wrong:
            report.problems.append("the trace and XenStore itself do not agree on "
                                   f"{', '.join(wrong)}: this judgement cannot be trusted")

    def _judge_drivers(self, report: XenReport) -> None:
        answer = report.firmware
        names = [device.device for device in report.hand_over.devices]
        if self.options.bios:
            judge_drivers(report, scenarios.Options(rom=self.options.rom), _names(self.options))
            return
        if answer is None and (self.options.image is not None or not self.options.ask):
            driven = [device for device in report.hand_over.devices if device.driven]
            report.unseen.append(
                "which driver the firmware has for the disk (nothing of ours runs there; XenStore "
                f"shows that some driver had {len(driven)} of {len(names)} connected)")
            return
        judge_drivers(report, scenarios.Options(rom=self.options.rom), _places(answer, len(names)))

    def _judge_end(self, report: XenReport) -> None:
        """Whether the guest got to its end in order, and if not, where it stopped."""
        result = report.guest_result
        assert result is not None
        if result.ended == "off" and report.guest.ended:
            report.held.append("the guest came to its end and switched itself off")
            return
        text = (result.debug if self.options.bios else result.serial) + result.console
        stage = _stage(text)
        problem = {"timeout": f"the time was up: ended after {self.options.timeout:.0f} s "
                              f"(at: {stage})",
                   "until": "the firmware found nothing to boot"}.get(
            result.ended, f"the guest ended too early (at: {stage}; {result.ended})")
        # First, because everything else that is missing is missing for this reason.
        report.problems.insert(0, problem)
        report.problems += report.guest.failures
        lines = qemu.plain(text).splitlines()[-15:]
        logs = "serial.log, guest-*.log" if self.options.bios else "guest-*.log"
        report.tail = "\n".join(f"    {line}" for line in lines) + \
            f"\n    (all of it: {shown(LOGS)}/{logs})"

    def _describe(self, report: XenReport, sector_size: int, size: int) -> None:
        """What ran, in words."""
        options, versions = self.options, self.xen.versions
        names = _names(options)
        name, package = ("SeaBIOS", "seabios") if options.bios else ("OVMF", "ovmf")
        firmware = shown(options.firmware) if options.firmware else \
            f"{name} of Debian's {package} {versions.get(package, '')}"
        if report.firmware is not None and report.firmware.vendor:
            firmware += (f" ({report.firmware.vendor} {report.firmware.revision}"
                         f"{f', UEFI {report.firmware.uefi}' if report.firmware.uefi else ''})")
        xen = next((version for name, version in versions.items() if "hypervisor" in name), "")
        count = "" if len(names) == 1 else f"{len(names)} × "
        served = "dom0's kernel (blkback)" if options.backend == "blkback" else \
            "the guest's QEMU (qdisk)"
        report.facts += [
            ("firmware", firmware),
            ("hypervisor", f"Xen {xen}, in QEMU {qemu.version()} (tcg)"),
            ("device", f"{count}Xen vbd, served by {served}, {sector_size}-byte sectors"
                       f"{', read-only' if options.read_only else ''}; {size / (1 << 20):.0f} MiB, "
                       f"{names[0]}{f' to {names[-1]}' if len(names) > 1 else ''}"),
            ("driver", driver_text(report, names if options.bios else
                                   _places(report.firmware, 1))),
            ("power-on → kernel", f"{report.hand_over.kernel:.1f} s, to its first word"
             if report.hand_over.kernel is not None else "the kernel was not heard"),
        ]
        if self.xen.retries:
            report.facts.append(("note", f"QEMU itself broke {self.xen.retries} times and all was "
                                 "run again"))
        if report.xen is not None:
            closing = "" if options.bios else f", {report.xen.exit_messages} of them to close"
            report.facts.append(("XenStore", f"{report.xen.messages} requests before the hand-over"
                                 f"{closing}"))


def judge_all(report: Report, seen: XenHandOver, *, bios: bool = False) -> None:
    """Note what the trace says under what held and what did not."""
    names = [device.device for device in seen.hand_over.devices]
    problems = seen.hand_over.problems
    report.problems += problems + seen.problems
    report.held += seen.held
    idle = [device.device for device in seen.hand_over.devices if not device.driven]
    if problems:
        return
    if bios and len(idle) < len(names):
        _held_on_bios(report, seen)
    elif len(idle) < len(names):
        report.held.append(
            f"after its last use {'each' if len(names) > 1 else 'the'} disk was closed in order, "
            "the backend was back in InitWait, and none of the firmware's keys was left, before "
            "the system spoke")
        report.held.append("the system's own driver connected, and had nothing to reset")
    if idle:
        report.held.append(f"never connected by the firmware: {', '.join(idle)}")


def _held_on_bios(report: Report, seen: XenHandOver) -> None:
    if not seen.hand_over.unseen:
        report.held.append("what the BIOS left connected has its ring in memory that it calls reserved")
    report.held.append("the system's own driver closed each disk (Closing, Closed, Initialising), the "
                       "backend let go of it, and nothing that the BIOS had said of it was left when "
                       "the system connected")


def _places(answer: whose.Answer | None, count: int) -> list[str]:
    """What the firmware calls the disks, as many as there should be. All hang below one PCI device,
    so there is no saying which is which, and no need."""
    there = list(answer.disks) if answer is not None else []
    return [*there, *(f"disk {index + 1}" for index in range(len(there), count))][:max(count, 1)]


class _Looks:
    """Looks at what the backends have, as often as there is reason to."""

    def __init__(self, xen: XenHost) -> None:
        self.seen: list[Look] = []
        self._xen = xen
        self._waiting = [_ALL_READ, _SPEAKS]

    def watch(self, guest: Guest) -> None:
        """Look when GRUB has read everything, and when the kernel first speaks."""
        for words in [*self._waiting]:
            if guest.running and re.search(words, guest.debug + guest.console, re.MULTILINE):
                self._waiting.remove(words)
                self.look(guest, between_calls=True)

    def look(self, guest: Guest, *, between_calls: bool = False) -> None:
        """Look now."""
        self.seen.append(look(self._xen, guest.domain, str(len(self.seen) + 1),
                              between_calls=between_calls))


class _Taken:
    """Whether the guest's own driver has connected all disks. Asks now and then."""

    _EVERY = 5.0

    def __init__(self, xen: XenHost, numbers: Sequence[int], looks: _Looks | None) -> None:
        self._xen, self._numbers, self._looks = xen, numbers, looks
        self._next = 0.0

    def __call__(self, guest: Guest) -> bool:
        if time.monotonic() < self._next:
            return False
        trace = parse_trace(self._xen.traced())
        if self._looks is not None and takeover(trace, guest.domain) is None:
            self._looks.look(guest)
        self._next = time.monotonic() + self._EVERY
        seen = judge(trace, guest.domain, self._numbers)
        return all(any(snapshot.when.startswith("connected") for snapshot in snapshots)
                   for snapshots in seen.snapshots.values())


def _stage(text: str) -> str:
    for mark, stage in (("baton-guest: end", "switching off"),
                        ("baton-guest: disk", "reading disks"),
                        ("Linux version", "kernel"), ("GRUB", "boot loader"),
                        ("Booting `Debian", "boot loader"), ("Booting from ", "boot loader"),
                        ("whose: end", "firmware, booting"), ("", "firmware")):
        if mark in text:
            return stage
    raise AssertionError("not reached")


def _dmesg(xen: XenHost) -> list[str]:
    return xen.check("dmesg", "reading dom0's kernel log").splitlines()


def put_before_loader(disk: Path, sector_size: int, program: Path) -> None:
    """Put a program in the place of a disk's boot loader, which it finds beside itself."""
    esp = gpt.find(disk, sector_size, "esp")
    if esp is None:
        raise LabError(f"{shown(disk)} has no EFI system partition")
    # mtools believes a disk has 512-byte sectors unless told to look.
    quiet = {"MTOOLS_SKIP_CHECK": "1"}
    image = f"{disk}@@{esp.start}"
    tools.run(["mren", "-i", image, "::/EFI/BOOT/BOOTX64.EFI", f"::{_IN_PLACE}"], env=quiet)
    tools.run(["mcopy", "-i", image, str(program), "::/EFI/BOOT/BOOTX64.EFI"], env=quiet)


__all__ = ["Options", "XenReport", "boot", "boot_on", "check", "judge_all", "last_line",
           "put_before_loader"]
