# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Runs the auditor in a machine of QEMU's, and makes a report of what it and the host saw.

For tests:

    from lab.audit.audit import Options, audit
    outcome = audit(Options(devices=["virtio-net"], drivers=[Path("build/tests/audit/x.efi")]))
    assert outcome.report["result"] == "violations"
"""

import datetime
import hashlib
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from lab import qemu, tools
from lab.audit import devices, drivers, host, lines, report
from lab.audit.devices import Placed
from lab.audit.drivers import Driver
from lab.audit.lines import Said
from lab.audit.network import Flood
from lab.boot import last_line, package_version
from lab.cache import file_sum
from lab.errors import LabError
from lab.inputs import halves_of
from lab.paths import BUILD, LAB, LOGS, ROM, shown
from lab.progress import Progress
from lab.qemu import Firmware, Machine, Result, plain
from lab.trace import AUDIT_EVENTS

APP = BUILD / "audit/handover.efi"
DEFAULT_DEVICES = ("virtio-blk",)
DEFAULT_TIMEOUT = 180.0
MEMORY_MIN = 128

# Without controllers that nobody has asked for, as far as the machine can be had so.
# What OVMF's network drivers ask for before they start.
_NO_IP = [word for version in (4, 6)
          for word in ("-fw_cfg", f"name=opt/org.tianocore/IPv{version}Support,string=no")]
_BARE = {"q35": "q35,sata=off", "pc": "pc"}


@dataclass(frozen=True)
class Options:
    """What to audit. The defaults are those of `./baton audit`."""

    firmware: Firmware = Firmware()
    devices: Sequence[str] = DEFAULT_DEVICES
    rom: Path | None = ROM
    """For each virtio-blk, virtio-scsi and virtio-net device. None: none."""
    drivers: Sequence[Path] = ()
    memory: int = 512
    machine: str = "q35"
    accelerator: str = "auto"
    as_found: bool = False
    stale: bool = False
    rebind: bool = False
    no_ip: bool = False
    """Whether to switch the firmware's IP stack off."""
    watch: int = 1000
    """Milliseconds that a round of the watch lasts."""
    timeout: float = DEFAULT_TIMEOUT
    app: Path = APP
    extra: Sequence[str] = ()
    """More arguments for QEMU."""
    watcher: Callable[[str], None] | None = None
    """Is told the serial log, again and again while the machine runs."""


@dataclass
class Outcome:
    """The report, and the end of the serial log where the run broke."""

    report: report.Report
    result: Result | None = None
    tail: str = ""


@dataclass
class _Asked:
    """The options after a look at each of them."""

    devices: list[Placed] = field(default_factory=list)
    drivers: list[Driver] = field(default_factory=list)


def firmware_of(code: Path | None, variables: Path | None) -> Firmware:
    """The firmware that was asked for. Variables that are not named are those in the same file, or
    that lie beside the code as distributions name them (…_CODE….fd, …_VARS….fd), else Debian's."""
    usual = Firmware()
    if code is None:
        return Firmware(usual.code, variables or usual.variables)
    halves = halves_of(code) if variables is None and code.is_file() else None
    if halves is not None:
        return Firmware(_kept(halves[1], "code"), _kept(halves[0], "variables"), code)
    if variables is None:
        near = code.with_name(f"{code.name.partition('.')[0].replace('CODE', 'VARS')}.fd")
        variables = near if near != code and near.is_file() else usual.variables
    return Firmware(code, variables)


def _kept(data: bytes, what: str) -> Path:
    path = LAB / "firmware" / f"{hashlib.sha256(data).hexdigest()[:16]}-{what}.fd"
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".tmp")
    new.write_bytes(data)
    new.replace(path)
    return path


def audit(options: Options, progress: Progress | None = None) -> Outcome:
    """Run it. A LabError says why it could not be run; a report that could not be made of a run
    says so itself."""
    progress = progress or Progress(quiet=True)
    asked = _check(options)
    accelerator = qemu.choose_accelerator(options.accelerator, progress)
    names = trace_names()
    with ExitStack() as stack:
        def make(folder: Path) -> Machine:
            stack.close()  # what a try before this one had open
            plan = devices.plan(asked.devices, folder)
            stack.callback(plan.close)
            stack.enter_context(Flood(plan.networks))
            words = [word for driver in asked.drivers for word in driver.words]
            # QEMU has room for ten files or so, unless told otherwise, and aborts beyond.
            if options.no_ip:
                words += _NO_IP
            words += ["-global", f"fw_cfg_io.x-file-slots={64 + 2 * len(asked.drivers)}"]
            return Machine(
                machine=_BARE[options.machine], accelerator=accelerator, memory=options.memory,
                firmware=options.firmware, kernel=options.app, append=_append(options, asked),
                trace_events=[name for name in AUDIT_EVENTS if name in names],
                extra=[*plan.words, *words, *options.extra], pass_fds=plan.fds)

        def stage(serial: str) -> str:
            if options.watcher is not None:
                options.watcher(serial)
            return stage_of(serial)

        result = qemu.run(make, timeout=options.timeout, progress=progress, name="auditing",
                          stage=stage)
    return _outcome(options, asked, accelerator, result)


def trace_names() -> set[str]:
    """The trace events that this QEMU has: it complains of others."""
    return set(re.findall(r"^\w+", tools.run([qemu.QEMU, "-trace", "help"]), re.MULTILINE))


def _check(options: Options) -> _Asked:
    """Everything that can be wrong with what we were given, before anything slow."""
    tools.find(qemu.QEMU)
    try:
        options.firmware.check()
    except LabError as error:
        text = str(error).replace("--firmware-vars", "--vars")
        raise LabError(text.replace("--firmware-code", "--firmware")) from None
    if options.rom == ROM and not ROM.exists() and \
            any(text.startswith("virtio-blk") for text in options.devices):
        raise LabError(f"{shown(ROM)} is not there: run `make`, or give --rom or --no-rom")
    placed = [devices.ask(text, options.rom) for text in options.devices]
    devices.check(placed, options.machine)
    given = [Driver(path) for path in options.drivers]
    drivers.check(given)
    if not options.app.exists():
        raise LabError(f"{shown(options.app)} is not there: run `make audit`")
    return _Asked(devices.place(placed, options.machine), given)


def could_not(error: str) -> report.Report:
    """The report of an audit that did not get so far as to run."""
    return report.build(report.Facts(), Said(), host.Seen(), error)


def _append(options: Options, asked: _Asked) -> str:
    words = ["exit=debug"]
    words += ["as-found"] if options.as_found else []
    words += ["stale"] if options.stale else []
    words += ["rebind"] if options.rebind else []
    words += [f"watch={options.watch}"]
    words += [f"driver={driver.name}" for driver in asked.drivers]
    return " ".join(words)


_PHASES = {
    "connect": "connecting drivers",
    "busy": "setting devices to work",
    "call": "in ExitBootServices",
    "before-done": "in ExitBootServices, after the before-exit group",
    "return": "after ExitBootServices returned",
    "owner": "owner of the machine",
    "filled": "memory filled",
    "watching": "watching the memory",
    "judging": "judging",
}


def stage_of(serial: str) -> str:
    at = serial.rfind('{"type":"phase"')
    found = re.match(r'\{"type":"phase","phase":"([a-z-]+)"', serial[at:]) if at >= 0 else None
    if found is not None:
        return _PHASES.get(found[1], found[1])
    return "the auditor begins" if '{"type":"start"' in serial else "firmware"


def _outcome(options: Options, asked: _Asked, accelerator: str, result: Result) -> Outcome:
    said = lines.parse(result.serial)
    lines_of = {str(line["device"]): line for line in said.of("device")}
    options_of: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for device in asked.devices:
        options_of.setdefault(device.place, device.asked.text)
        kinds[device.place] = device.asked.kind
    seen = host.look(result.trace, result.said, lines_of, kinds)
    error = trouble(result, said, seen, options.timeout)
    tail = ""
    if error is not None:
        last = [report.clean_text(line) for line in plain(result.serial).splitlines()[-15:]]
        tail = "\n".join(f"    {line[:200]}" for line in last) + \
            f"\n    (all of it: {shown(LOGS)}/serial.log)"
    facts = report.Facts(
        machine={"accelerator": accelerator, "machine": options.machine,
                 "memory": options.memory << 20, "command": list(result.command),
                 "qemu": qemu.version(), "retries": result.retries,
                 "date": datetime.datetime.now(datetime.timezone.utc).isoformat(
                     timespec="seconds")},
        firmware=_firmware_facts(options.firmware), options=options_of)
    return Outcome(report.build(facts, said, seen, error), result, tail)


def _firmware_facts(firmware: Firmware) -> dict[str, object]:
    file = firmware.file or firmware.code
    version = package_version("ovmf") if file.parent in (qemu.OVMF, Path("/usr/share/ovmf")) else ""
    return {"file": str(file), "package": f"ovmf {version}" if version else None,
            "sha256": file_sum(file)}


def trouble(result: Result, said: Said, seen: host.Seen, timeout: float) -> str | None:
    """Why this run is no audit, in a sentence; None if it is one."""
    if result.ended == "debug-exit" or said.first("error") is not None:
        return lines.whole(said)
    if result.ended == "timeout":
        end = f"ended after {timeout:.0f} s"
        if said.started and seen.silent is not None:
            end += f", {max(seen.silent, 0):.0f} s after the machine's last word"
    elif result.ended == "died":
        end = f"QEMU died: {last_line(result.said) or f'exit status {result.exit_code}'}"
    else:
        end = {"reset": "the machine was reset, by somebody or by a crash (a triple fault)",
               "off": "the machine was switched off", "quit": "QEMU was told to quit"}[result.ended]
    if not said.started:
        words = report.clean_text(last_line(plain(result.serial)))
        last = f"the firmware's last words are: {words[:120]}" if words else \
            "the firmware said nothing on the serial port"
        return f"the auditor never began ({end}; {last})"
    if said.ended:
        return f"the auditor came to its end, but the machine did not end with it ({end})"
    text = f"the auditor did not come to its end: {end}; it was last seen " \
        f"{_PHASES.get(said.phase or '', 'before its first phase')}"
    fault = re.search(r"!{2,} *(\w+ Exception Type - .*?)(?:\s+CPU|\s*!|$)", plain(result.serial),
                      re.MULTILINE)
    if fault is not None:
        text += f"; the firmware caught a fault ({report.clean_text(fault[1])[:80]})"
    if any(lines.succeeded(line) for line in said.lines):
        text += (". This is after the exit, so it can itself come of memory that was written to by "
                 "what had not let go")
    return text
