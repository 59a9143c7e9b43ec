# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Runs the auditor in an HVM guest of a real Xen, from one of its disks, and makes the same report as
lab.audit.audit does.

For tests:

    from lab.xen.audit import Options, audit
    outcome = audit(Options(devices=["xen-vbd", "xen-cdrom"]))
    assert outcome.report["error"] is None
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import qemu
from lab.audit import drivers, lines, report
from lab.audit.audit import APP, stage_of
from lab.audit.drivers import Driver
from lab.audit.host import Finding, HostEvent, Seen
from lab.audit.lines import Said
from lab.boot import last_line
from lab.cache import file_sum, scratch_folder
from lab.errors import LabError
from lab.fat import boot_image
from lab.guestlog import pattern
from lab.inputs import check_rom, halves_of
from lab.paths import LOGS, ROM, shown
from lab.progress import Progress
from lab.qemu import plain
from lab.xen import disks
from lab.xen.guest import GuestConfig, GuestResult, run_guest
from lab.xen.host import XenHost, on_xen
from lab.xen.judge import complaints

DEFAULT_TIMEOUT = 600.0
DISK_SIZE = 1 << 20

KINDS = {
    "xen-vbd": "a disk that dom0's kernel serves (blkback)",
    "xen-vbd-qdisk": "a disk that the guest's QEMU serves",
    "xen-vbd-4096": "a disk of blkback's with sectors of 4096 bytes",
    "xen-vbd-read-only": "a disk of blkback's that cannot be written to",
    "xen-cdrom": "a CD-ROM drive with a disc",
    "xen-cdrom-empty": "one without",
}
"""What --device may say. All of them are paravirtual only, from xvde on."""

_STARTS_FROM = ("xen-vbd", "xen-vbd-qdisk", "xen-vbd-read-only")
_TWIN = "hda"
"""Without a ROM no firmware of today's starts from any of these; it does from an emulated disk,
which has a paravirtual twin."""


@dataclass(frozen=True)
class Options:
    """What to audit. The defaults are those of `./baton audit --on xen`."""

    firmware: Path | None = None
    """One file with variables and code, in the place of Debian's."""
    devices: Sequence[str] = ()
    """None named: one xen-vbd; without a ROM, the emulated disk's twin alone."""
    rom: Path | None = ROM
    """For the xen-platform device."""
    drivers: Sequence[Path] = ()
    memory: int = 512
    as_found: bool = False
    stale: bool = False
    rebind: bool = False
    watch: int = 1000
    timeout: float = DEFAULT_TIMEOUT
    app: Path = APP
    twin: bool = False
    """Start from the emulated disk also with a ROM."""


@dataclass
class Outcome:
    """The report, and the end of the serial log where the run broke."""

    report: report.Report
    result: GuestResult | None = None
    tail: str = ""


@dataclass(frozen=True)
class _Device:
    asked: str
    name: str
    """"xvde"; "hda" for the emulated disk."""

    @property
    def place(self) -> str:
        return f"xen:vbd/{disks.number_of(self.name)}"


def audit(options: Options, progress: Progress | None = None) -> Outcome:
    """Boot Xen and run it there. A LabError says why it could not be run; a report that could not
    be made of a run says so itself."""
    check(options)
    return on_xen(lambda xen: audit_on(xen, options), progress)


def check(options: Options) -> None:
    """Everything that can be wrong with what we were given, before anything slow."""
    for text in options.devices:
        if text not in KINDS:
            raise LabError(f"--device {text}: there is no such kind on Xen; there are "
                           f"{', '.join(KINDS)}")
    _plan(options)
    if options.rom is not None:
        if options.rom == ROM and not ROM.exists():
            raise LabError(f"{shown(ROM)} is not there: run `make`, or give --rom or --no-rom")
        check_rom(options.rom)
    if options.firmware is not None and halves_of(options.firmware) is None:
        raise LabError(f"{shown(options.firmware)} is not an OVMF that hvmloader can start: it takes "
                       "variables and code in one file, as OVMF's build makes it (OVMF.fd)")
    drivers.check([Driver(path) for path in options.drivers])
    if not options.app.exists():
        raise LabError(f"{shown(options.app)} is not there: run `make audit`")


def _plan(options: Options) -> list[_Device]:
    """The devices, the one that the auditor starts from first."""
    if options.rom is None or options.twin:
        twin = [_Device("an emulated disk's twin", _TWIN)]
        return twin + [_Device(text, disks.disk_name(index))
                       for index, text in enumerate(options.devices)]
    asked = list(options.devices) or ["xen-vbd"]
    first = next((text for text in asked if text in _STARTS_FROM), None)
    if first is None:
        raise LabError("the auditor starts from one of the disks: add --device xen-vbd")
    asked.remove(first)
    return [_Device(text, disks.disk_name(index)) for index, text in enumerate([first, *asked])]


def audit_on(xen: XenHost, options: Options) -> Outcome:
    """The same on a Xen host that is running."""
    check(options)
    devices = _plan(options)
    given = [Driver(path) for path in options.drivers]
    loops: list[disks.BlockDevice] = []
    log_begin = len(xen.log)
    dom0_before = len(xen.check("dmesg", "reading dom0's kernel log").splitlines())
    with scratch_folder(xen.scratch, "disks") as folder:
        files = {f"/EFI/BOOT/{driver.name}": driver.path.read_bytes() for driver in given}
        image = boot_image(folder / "audit.img", options.app,
                           {**files, "/EFI/BOOT/handover.txt": _words(options, given).encode()})
        specs = [_spec(xen, device, index, image if index == 0 else None, loops)
                 for index, device in enumerate(devices)]
    firmware_file = None
    if options.firmware is not None:
        firmware_file = f"/jobs/{xen.unique('firmware').name}"
        xen.put(options.firmware, firmware_file)
    config = GuestConfig(f"audit{xen.unique('audit').suffix[1:]}", memory=options.memory,
                         disks=specs, rom=options.rom, firmware_file=firmware_file)
    result = run_guest(xen, config, timeout=options.timeout, until="^app: result",
                       stage=stage_of)
    for device in loops:
        device.remove()
    dom0 = xen.check("dmesg", "reading dom0's kernel log").splitlines()[dom0_before:]
    return _outcome(xen, options, config, devices, result, dom0, xen.log[log_begin:].splitlines())


def _spec(xen: XenHost, device: _Device, index: int, image: Path | None,
          loops: list[disks.BlockDevice]) -> str:
    if device.asked == "xen-cdrom-empty":
        return disks.file_spec("", device.name, cdrom=True)
    target = f"/jobs/{xen.unique('disk').name}"
    # Each disk its own bytes, so that one taken for another would be seen.
    xen.put(image or pattern(700_000_000 + index * 1_000_000, DISK_SIZE), target)
    if device.asked == "xen-cdrom":
        return disks.file_spec(target, device.name, cdrom=True)
    if device.asked == "xen-vbd-qdisk":
        return disks.file_spec(target, device.name, backend="qdisk")
    loops.append(disks.loop(xen, target, read_only=device.asked.endswith("read-only"),
                            sector_size=4096 if device.asked.endswith("4096") else 512))
    return loops[-1].spec(device.name)


def _words(options: Options, given: Sequence[Driver]) -> str:
    words = ["exit=off", "debug-port", f"watch={options.watch}"]
    words += ["as-found"] if options.as_found else []
    words += ["stale"] if options.stale else []
    words += ["rebind"] if options.rebind else []
    words += [f"driver=\\EFI\\BOOT\\{driver.name}" for driver in given]
    return " ".join(words)


def _outcome(xen: XenHost, options: Options, config: GuestConfig, devices: Sequence[_Device],
             result: GuestResult, dom0: Sequence[str], log: Sequence[str]) -> Outcome:
    said = lines.parse(result.debug)
    error = trouble(result, said, options.timeout)
    tail = ""
    if error is not None:
        last = [report.clean_text(line) for line in plain(result.serial + result.debug).splitlines()[-15:]]
        tail = "\n".join(f"    {line[:200]}" for line in last) + \
            f"\n    (all of it: {shown(LOGS)}/guest-*.log)"
    firmware = options.firmware or Path("/usr/share/ovmf/OVMF.fd")
    own = options.firmware is not None
    facts = report.Facts(
        machine={"accelerator": "tcg", "machine": "xenfv", "memory": options.memory << 20,
                 "command": config.text("file", None).splitlines(), "qemu": qemu.version(),
                 "xen": next((version for name, version in xen.versions.items()
                              if "hypervisor" in name), None),
                 "retries": result.retries,
                 "date": datetime.datetime.now(datetime.timezone.utc).isoformat(
                     timespec="seconds")},
        firmware={"file": str(firmware),
                  "package": None if own else f"ovmf {xen.versions.get('ovmf', '')}".strip(),
                  "sha256": file_sum(firmware) if firmware.exists() else None},
        options={device.place: device.asked for device in devices})
    return Outcome(report.build(facts, said, host_saw(said, dom0, log), error), result, tail)


def host_saw(said: Said, dom0: Sequence[str], log: Sequence[str]) -> Seen:
    """What dom0's kernel and Xen had to say. A complaint about a grant is about memory that a
    backend reached for, or still held: C4."""
    last = max((line["us"] for line in said.lines if isinstance(line.get("us"), (int, float))),
               default=0)
    seen = Seen()
    for who, text in (("dom0's kernel", dom0), ("Xen's log", log)):
        events: list[HostEvent] = [
            {"type": "host-error", "by": "host", "device": None, "us": last, "what": f"{who}: {line}"}
            for line in complaints(who, text)]
        if events:
            seen.events += events
            seen.findings.append(Finding("xen:domain", "C4", "fail",
                                         f"{who} complains: {events[0]['what']}", events))
    return seen


def trouble(result: GuestResult, said: Said, timeout: float) -> str | None:
    """Why this run is no audit, in a sentence; None if it is one."""
    if result.ended in ("off", "until") and said.started or said.first("error") is not None:
        return lines.whole(said)
    end = {"timeout": f"ended after {timeout:.0f} s", "reset": "the guest was reset, by somebody or "
           "by a crash (a triple fault)", "crash": "Xen crashed the guest", "off": "the guest "
           "switched itself off"}.get(result.ended, f"the guest ended by {result.ended}")
    if not said.started:
        words = report.clean_text(last_line(plain(result.serial)))
        last = f"the firmware's last words are: {words[:120]}" if words else \
            "the firmware said nothing on the serial port"
        return f"the auditor never began ({end}; {last})"
    return (f"the auditor did not come to its end: {end}; it was last seen in the phase "
            f"{said.phase or 'before its first one'}")
