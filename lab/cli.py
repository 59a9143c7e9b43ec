# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The command `baton`."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from lab import boot, scenarios
from lab.audit import audit, page
from lab.audit import report as audit_report
from lab.errors import Interrupted, LabError
from lab.guest import CD_SECTOR, LOADERS, PARTITIONS
from lab.paths import ROM, shown
from lab.progress import Progress
from lab.qemu import MACHINES, TRANSPORTS, Bios, Firmware
from lab.report import Report
from lab.xen import audit as xen_audit
from lab.xen import boot as xen_boot

HELD, WRONG, CANNOT, INTERRUPTED = 0, 1, 2, 130


def _refuse(arguments: argparse.Namespace, on: str, why: dict[str, str]) -> None:
    """Say no to options that mean nothing there; theirs is None or False where they are not given."""
    for option, reason in why.items():
        if getattr(arguments, option.removeprefix("--").replace("-", "_")) not in (None, False):
            raise LabError(f"{option} is not for {on}: {reason}")


# What means nothing for each kind of virtio device, and why.
_NOT_FOR = {
    "virtio-blk": {
        "--backend": "QEMU itself is the device",
        "--cdrom": "its disks are no CD-ROM drives; give --on virtio-scsi",
    },
    "virtio-scsi": {"--backend": "QEMU itself is the device"},
    "virtio-net": {
        "--backend": "QEMU itself is the device",
        "--disk": "there is no disk; all comes from the lab's TFTP server",
        "--cdrom": "there is no disk",
        "--disks": "there is no disk",
        "--sector-size": "there is no disk",
        "--read-only": "there is no disk",
        "--write": "there is no disk",
    },
}


_NOT_ON_UEFI = {
    "--loader": "the lab's disks for it have GRUB",
    "--partitions": "its disks have GPT, and an EFI system partition",
    "--bios-drivers": "Baton's drivers come before its own",
}


def _virtio(arguments: argparse.Namespace, firmware: Firmware | Bios) -> scenarios.Options:
    """What was asked for, of what all firmware has."""
    return scenarios.Options(
        on=arguments.on, rom=None if arguments.no_rom else arguments.rom or ROM,
        machine=arguments.machine or "q35", accelerator=arguments.accel or "auto",
        transport=arguments.transport or "modern", sector_size=arguments.sector_size,
        disks=arguments.disks or 1, cdrom=arguments.cdrom, read_only=arguments.read_only,
        write=(arguments.write or 0) << 20, timeout=arguments.timeout, image=arguments.disk,
        image_format=arguments.format, snapshot=not arguments.no_snapshot, firmware=firmware,
        partitions=arguments.partitions or PARTITIONS[0], loader=arguments.loader or LOADERS[0])


def _virtio_on_bios(arguments: argparse.Namespace, progress: Progress) -> Report:
    _refuse(arguments, arguments.on, _NOT_FOR[arguments.on])
    _refuse(arguments, "a PC BIOS", {
        "--firmware-vars": "it keeps none",
        "--cdrom": "the lab's CD is for UEFI",
    })
    if arguments.disk is not None:
        _refuse(arguments, "an image", {"--loader": "it has its own",
                                        "--partitions": "it has its own"})
    drivers = arguments.bios_drivers or ("on" if arguments.no_rom else "off")
    return boot.boot(_virtio(arguments, Bios(arguments.firmware_code or Bios().code,
                                             strict=drivers == "off")), progress)


def _virtio_on_uefi(arguments: argparse.Namespace, progress: Progress) -> Report:
    _refuse(arguments, arguments.on, _NOT_FOR[arguments.on])
    _refuse(arguments, "UEFI", _NOT_ON_UEFI)
    if arguments.cdrom:
        _refuse(arguments, "a CD-ROM", {
            "--sector-size": f"its sectors have {CD_SECTOR} bytes",
            "--write": "nothing can be written to it",
            "--no-snapshot": "nothing is written to it",
            "--format": "it is one by itself",
        })
    usual = Firmware()
    return boot.boot(_virtio(arguments, Firmware(arguments.firmware_code or usual.code,
                                                 arguments.firmware_vars or usual.variables)),
                     progress)


_NOT_ON_XEN = {
    "--machine": "a guest of Xen's is of one kind",
    "--transport": "its disks are not virtio devices",
    "--accel": "Xen itself runs under emulation",
    "--no-snapshot": "the guest works on a copy in dom0",
    "--cdrom": "hvmloader's firmware boots from its disks; give --on virtio-scsi",
}


def _xen(arguments: argparse.Namespace) -> xen_boot.Options:
    return xen_boot.Options(
        rom=None if arguments.no_rom else arguments.rom or ROM,
        backend=arguments.backend or "blkback", sector_size=arguments.sector_size,
        disks=arguments.disks or 1, read_only=arguments.read_only,
        write=(arguments.write or 0) << 20, firmware=arguments.firmware_code,
        timeout=arguments.timeout or xen_boot.DEFAULT_TIMEOUT,
        image=arguments.disk, image_format=arguments.format)


def _xen_on_uefi(arguments: argparse.Namespace, progress: Progress) -> Report:
    _refuse(arguments, "xen", {
        **_NOT_ON_UEFI, **_NOT_ON_XEN,
        "--firmware-vars": "hvmloader keeps none; give --firmware-code a file with both",
    })
    return xen_boot.boot(_xen(arguments), progress)


def _xen_on_bios(arguments: argparse.Namespace, progress: Progress) -> Report:
    _refuse(arguments, "xen", {
        **_NOT_ON_XEN,
        "--firmware-vars": "a PC BIOS keeps none",
        "--bios-drivers": "SeaBIOS has none for its disks",
        "--loader": "the lab's disk for it has GRUB",
    })
    if arguments.disk is not None:
        _refuse(arguments, "an image", {"--partitions": "it has its own"})
    return xen_boot.boot(replace(_xen(arguments), bios=True,
                                 partitions=arguments.partitions or PARTITIONS[0]), progress)


# What can be run: the device that is booted from, and the firmware that boots.
SCENARIOS: dict[tuple[str, str], Callable[[argparse.Namespace, Progress], Report]] = {
    **{(on, "uefi"): _virtio_on_uefi for on in scenarios.SCENARIOS},
    ("virtio-blk", "bios"): _virtio_on_bios,
    ("virtio-scsi", "bios"): _virtio_on_bios,
    ("xen", "uefi"): _xen_on_uefi,
    ("xen", "bios"): _xen_on_bios,
}


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not value > 0:
        raise argparse.ArgumentTypeError("must be a number, and more than 0")
    return value


def _count(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= value <= 26:
        raise argparse.ArgumentTypeError("must be a number between 1 and 26")
    return value


def _mebibytes(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else 0
    if not audit.MEMORY_MIN <= value <= 1 << 20:
        raise argparse.ArgumentTypeError(f"must be a number of MiB, at least {audit.MEMORY_MIN}")
    return value


def _milliseconds(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= value <= 3_600_000:
        raise argparse.ArgumentTypeError("must be a number of milliseconds, up to an hour")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="baton", description="Boot a virtual machine from its paravirtual disk or network "
        "through Baton, and see how the device is handed over.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run", help="boot an operating system and judge the hand-over",
        description="Boot an operating system from a device that Baton drives, and judge how that "
        "was handed over. Without --disk, a small Debian is built (once) and booted, which also "
        "says what it sees from inside.",
        epilog="Exit status: 0 everything held; 1 something did not, the last line says what "
        "(always with --no-rom, since then the driver is not Baton); 2 it could not be run; 130 "
        "interrupted.")
    run.set_defaults(run=_run)

    what = run.add_argument_group("what to boot")
    what.add_argument("--on", default="virtio-blk", choices=sorted({on for on, _ in SCENARIOS}),
                      help="the device to boot from (default: %(default)s); virtio-net: over the "
                      "network, from the lab's own TFTP server; xen: a paravirtual disk of a guest "
                      "on a real Xen, which is booted for it")
    what.add_argument("--firmware", default="uefi", choices=sorted({by for _, by in SCENARIOS}),
                      help="the firmware; bios: a PC BIOS, with Debian on a disk made for it "
                      "(default: %(default)s)")
    what.add_argument("--disk", type=Path, metavar="IMAGE",
                      help="boot this image instead, with an interactive serial console (on Xen, "
                      "without one, until its own driver has taken the disk over)")
    what.add_argument("--cdrom", action="store_true",
                      help="with --on virtio-scsi: boot from a CD-ROM drive, the lab's own CD or "
                      "IMAGE (which need not be said of an image that is a CD's)")
    what.add_argument("--format", choices=("raw", "qcow2"),
                      help="the image's format (default: as the image says)")
    what.add_argument("--no-snapshot", action="store_true",
                      help="let the guest's writes reach the image (default: they are forgotten)")
    rom = what.add_mutually_exclusive_group()
    rom.add_argument("--rom", type=Path, metavar="FILE",
                     help=f"the device's option ROM (default: {shown(ROM)})")
    rom.add_argument("--no-rom", action="store_true",
                     help="no ROM: see how the firmware's own driver does it")

    machine = run.add_argument_group("the machine")
    machine.add_argument("--machine", choices=MACHINES, help="default: q35")
    machine.add_argument("--transport", choices=list(TRANSPORTS),
                         help="the virtio device's interface (default: modern)")
    machine.add_argument("--backend", choices=("blkback", "qdisk"),
                         help="with --on xen: who serves the disks, dom0's kernel or the guest's "
                         "QEMU (default: blkback)")
    machine.add_argument("--sector-size", type=int, choices=(512, 4096),
                         help="the disk's sector size (default: what the image was made for)")
    machine.add_argument("--read-only", action="store_true", help="the disks cannot be written to")
    machine.add_argument("--accel", choices=("auto", "tcg", "kvm"),
                         help="auto: KVM if it really works here (default)")
    machine.add_argument("--firmware-code", type=Path, metavar="FILE",
                         help="the OVMF to use (default: Debian's); on Xen, one with its variables "
                         "in the same file; with --firmware bios, the PC BIOS")
    machine.add_argument("--firmware-vars", type=Path, metavar="FILE",
                         help="its variables; a copy is used (default: Debian's)")

    machine.add_argument("--bios-drivers", choices=("on", "off"),
                         help="with --firmware bios: whether the BIOS has drivers of its own for "
                         "virtio disks. They would have them before the ROM (default: off; with "
                         "--no-rom on)")

    more = run.add_argument_group("with the lab's own guest")
    more.add_argument("--partitions", choices=PARTITIONS,
                      help="with --firmware bios: GRUB behind the first sector, or in a partition "
                      "of its own (default: mbr)")
    more.add_argument("--loader", choices=LOADERS,
                      help="with --firmware bios, and an MBR: what is started from the disk (default: "
                      "grub)")
    more.add_argument("--disks", type=_count, metavar="N",
                      help="so many disks, on virtio-scsi units of one controller; all but the "
                      "first have only data (default: 1)")
    more.add_argument("--write", type=int, choices=range(9), metavar="MIB",
                      help="have the guest write so much to each disk, and compare (up to 8)")

    rest = run.add_argument_group("the run")
    rest.add_argument("--timeout", type=_positive, metavar="SECONDS",
                      help=f"end the machine after so long (default: {boot.DEFAULT_TIMEOUT:.0f}; "
                      f"none with --disk; on Xen {xen_boot.DEFAULT_TIMEOUT:.0f})")
    rest.add_argument("--json", type=Path, metavar="FILE", help="also write the report here")
    rest.add_argument("-v", "--verbose", action="store_true", help="say more")
    _add_audit(commands)
    return parser


def _add_audit(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "audit", help="hold any firmware and its drivers to the contract of the hand-over",
        description="Run an auditor in the firmware, with these devices. It connects every driver, "
        "sets the devices to work, calls ExitBootServices as an operating system does, and watches "
        "the memory that is now its own. The verdict is on each device, driver and rule "
        "(docs/handover.md).",
        epilog="Exit status: 0 no rule was seen broken; 1 one was; 2 it could not be audited; 130 "
        "interrupted.")
    parser.set_defaults(run=_audit)

    what = parser.add_argument_group("what to audit")
    what.add_argument("--on", default="qemu", choices=("qemu", "xen"),
                      help="the hypervisor: QEMU, or a guest on a real Xen, which is booted for it "
                      "(default: %(default)s)")
    what.add_argument("--firmware", type=Path, metavar="FILE",
                      help="the firmware's code (default: Debian's OVMF)")
    what.add_argument("--vars", type=Path, metavar="FILE",
                      help="its variables; a copy is used (default: those beside it, or Debian's)")
    what.add_argument("--device", action="append", metavar="KIND[,NAME=VALUE…]",
                      help="a device, as often as wanted: virtio-blk, virtio-net, nvme, ahci, "
                      "e1000, xhci and so on, or any PCI device of QEMU's (default: virtio-blk); "
                      f"on Xen: {', '.join(xen_audit.KINDS)} (default: xen-vbd, or with --no-rom "
                      "the twin of an emulated disk)")
    what.add_argument("--driver", action="append", type=Path, default=[], metavar="FILE",
                      help="a UEFI driver to load first, as often as wanted")
    rom = what.add_mutually_exclusive_group()
    rom.add_argument("--rom", type=Path, metavar="FILE",
                     help="the option ROM of each virtio-blk and virtio-net device (default: "
                     f"{shown(ROM)})")
    rom.add_argument("--no-rom", action="store_true", help="no option ROM anywhere")
    what.add_argument("--as-found", action="store_true",
                      help="connect no drivers: leave drivers and devices as the firmware has left "
                      "them")
    what.add_argument("--stale", action="store_true",
                      help="first call ExitBootServices with a map key that is out of date")

    what.add_argument("--rebind", action="store_true",
                      help="disconnect all drivers and connect them again, twice, first: shows exit "
                      "events that outlive their binding (not every firmware survives it)")
    what.add_argument("--watch", type=_milliseconds, default=1000, metavar="MS",
                      help="how long each of the two rounds of the watch lasts (default: "
                      "%(default)s)")

    machine = parser.add_argument_group("the machine")
    machine.add_argument("--no-ip", action="store_true",
                         help="switch the firmware's own IP stack off, and what sits on it, such as "
                         "its iSCSI driver (OVMF only)")
    machine.add_argument("--machine", choices=MACHINES,
                         help="q35 comes without its SATA controller, pc with its IDE controller "
                         "(default: q35)")
    machine.add_argument("--memory", type=_mebibytes, default=512, metavar="MIB",
                         help="default: %(default)s")
    machine.add_argument("--accel", choices=("auto", "tcg", "kvm"),
                         help="auto: KVM if it really works here (default)")

    rest = parser.add_argument_group("the run")
    rest.add_argument("--timeout", type=_positive, metavar="SECONDS",
                      help=f"end the machine after so long (default: {audit.DEFAULT_TIMEOUT:.0f}; "
                      f"on Xen {xen_audit.DEFAULT_TIMEOUT:.0f})")
    rest.add_argument("--json", type=Path, metavar="FILE",
                      help="also write the report here (docs/audit-format.md)")
    rest.add_argument("--html", type=Path, metavar="FILE", help="and here, as a page to look at")
    rest.add_argument("-v", "--verbose", action="store_true", help="also say what held")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.json is not None:
        Report.check_target(arguments.json)
    if arguments.disk is None and (arguments.format or arguments.no_snapshot):
        raise LabError("--format and --no-snapshot go with --disk")
    what = SCENARIOS.get((arguments.on, arguments.firmware))
    if what is None:
        raise LabError(f"{arguments.on} is not booted from by --firmware {arguments.firmware}, only "
                       "by " + ", ".join(by for on, by in SCENARIOS if on == arguments.on))
    report = what(arguments, Progress())
    report.write(sys.stdout, verbose=arguments.verbose)
    if arguments.json is not None:
        report.save(arguments.json.resolve())
    return HELD if report.ok else WRONG


def _audit_on_qemu(arguments: argparse.Namespace,
                   progress: Progress) -> audit.Outcome | xen_audit.Outcome:
    return audit.audit(audit.Options(
        firmware=audit.firmware_of(arguments.firmware, arguments.vars),
        devices=arguments.device or audit.DEFAULT_DEVICES,
        rom=None if arguments.no_rom else arguments.rom or ROM, drivers=arguments.driver,
        memory=arguments.memory, machine=arguments.machine or "q35",
        accelerator=arguments.accel or "auto", as_found=arguments.as_found, stale=arguments.stale,
        rebind=arguments.rebind, watch=arguments.watch, no_ip=arguments.no_ip,
        timeout=arguments.timeout or audit.DEFAULT_TIMEOUT), progress)


def _audit_on_xen(arguments: argparse.Namespace,
                  progress: Progress) -> audit.Outcome | xen_audit.Outcome:
    _refuse(arguments, "xen", {
        "--machine": "a guest of Xen's is of one kind",
        "--accel": "Xen itself runs under emulation",
        "--vars": "hvmloader keeps none; give --firmware a file with both",
        "--no-ip": "hvmloader's firmware has no such switch",
    })
    return xen_audit.audit(xen_audit.Options(
        firmware=arguments.firmware, devices=arguments.device or (),
        rom=None if arguments.no_rom else arguments.rom or ROM, drivers=arguments.driver,
        memory=arguments.memory, as_found=arguments.as_found, stale=arguments.stale,
        rebind=arguments.rebind, watch=arguments.watch,
        timeout=arguments.timeout or xen_audit.DEFAULT_TIMEOUT), progress)


# Where a firmware can be audited.
AUDITS = {"qemu": _audit_on_qemu, "xen": _audit_on_xen}


def _audit(arguments: argparse.Namespace) -> int:
    for target in (arguments.json, arguments.html):
        if target is not None:
            Report.check_target(target)
    if arguments.json is not None and arguments.html is not None and \
            arguments.json.resolve() == arguments.html.resolve():
        raise LabError("--json and --html name the same file")
    try:
        outcome = AUDITS[arguments.on](arguments, Progress())
    except LabError as error:
        # Whoever reads the files is not to find those of an earlier audit.
        _write_files(arguments, audit.could_not(str(error)))
        raise
    audit_report.write(outcome.report, sys.stdout, verbose=arguments.verbose, tail=outcome.tail)
    _write_files(arguments, outcome.report)
    return {audit_report.CLEAN: HELD, audit_report.VIOLATIONS: WRONG}.get(
        outcome.report["result"], CANNOT)


def _write_files(arguments: argparse.Namespace, made: audit_report.Report) -> None:
    if arguments.json is not None:
        audit_report.save(made, arguments.json.resolve())
    if arguments.html is not None:
        page.write(made, arguments.html.resolve())


def _stop(number: int, frame: FrameType | None) -> None:
    raise Interrupted(signal.Signals(number).name)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        arguments = _parser().parse_args(words)
        return int(arguments.run(arguments))
    except LabError as error:
        print(f"baton: {error}", file=sys.stderr)
        return CANNOT
    except OSError as error:
        # A full disk, most likely. What was being made is gone again.
        print(f"baton: {error}", file=sys.stderr)
        return CANNOT
    except Interrupted:
        print("baton: interrupted", file=sys.stderr)
        return INTERRUPTED
