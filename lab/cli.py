# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The command `baton`."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from lab import boot
from lab.errors import Interrupted, LabError
from lab.paths import ROM, shown
from lab.progress import Progress
from lab.qemu import MACHINES, TRANSPORTS, Firmware
from lab.report import Report

HELD, WRONG, CANNOT, INTERRUPTED = 0, 1, 2, 130


def _virtio_blk_on_uefi(arguments: argparse.Namespace, progress: Progress) -> Report:
    usual = Firmware()
    options = boot.Options(
        rom=None if arguments.no_rom else arguments.rom or ROM,
        machine=arguments.machine, accelerator=arguments.accel, transport=arguments.transport,
        sector_size=arguments.sector_size, disks=arguments.disks, read_only=arguments.read_only,
        write=arguments.write << 20, timeout=arguments.timeout, image=arguments.disk,
        image_format=arguments.format, snapshot=not arguments.no_snapshot,
        firmware=Firmware(arguments.firmware_code or usual.code,
                          arguments.firmware_vars or usual.variables))
    return boot.boot(options, progress)


# What can be run: the device that is booted from, and the firmware that boots.
SCENARIOS: dict[tuple[str, str], Callable[[argparse.Namespace, Progress], Report]] = {
    ("virtio-blk", "uefi"): _virtio_blk_on_uefi,
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="baton", description="Boot a virtual machine from its paravirtual disk through Baton, "
        "and see how the disk is handed over.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run", help="boot an operating system and judge the hand-over",
        description="Boot an operating system from a disk that Baton drives, and judge how the "
        "disk was handed over. Without --disk, a small Debian is built (once) and booted, which "
        "also says what it sees from inside.",
        epilog="Exit status: 0 everything held; 1 something did not, the last line says what "
        "(always with --no-rom, since then the driver is not Baton); 2 it could not be run; 130 "
        "interrupted.")
    run.set_defaults(run=_run)

    what = run.add_argument_group("what to boot")
    what.add_argument("--on", default="virtio-blk", choices=sorted({on for on, _ in SCENARIOS}),
                      help="the device to boot from (default: %(default)s)")
    what.add_argument("--firmware", default="uefi", choices=sorted({by for _, by in SCENARIOS}),
                      help="the firmware (default: %(default)s)")
    what.add_argument("--disk", type=Path, metavar="IMAGE",
                      help="boot this image instead, with an interactive serial console")
    what.add_argument("--format", choices=("raw", "qcow2"),
                      help="the image's format (default: as the image says)")
    what.add_argument("--no-snapshot", action="store_true",
                      help="let the guest's writes reach the image (default: they are forgotten)")
    rom = what.add_mutually_exclusive_group()
    rom.add_argument("--rom", type=Path, metavar="FILE",
                     help=f"the disk's option ROM (default: {shown(ROM)})")
    rom.add_argument("--no-rom", action="store_true",
                     help="no ROM: see how the firmware's own driver does it")

    machine = run.add_argument_group("the machine")
    machine.add_argument("--machine", default="q35", choices=MACHINES, help="default: %(default)s")
    machine.add_argument("--transport", default="modern", choices=list(TRANSPORTS),
                         help="the virtio device's interface (default: %(default)s)")
    machine.add_argument("--sector-size", type=int, choices=(512, 4096),
                         help="the disk's sector size (default: what the image was made for)")
    machine.add_argument("--read-only", action="store_true", help="the disks cannot be written to")
    machine.add_argument("--accel", default="auto", choices=("auto", "tcg", "kvm"),
                         help="auto: KVM if it really works here (default)")
    machine.add_argument("--firmware-code", type=Path, metavar="FILE",
                         help="the OVMF to use (default: Debian's)")
    machine.add_argument("--firmware-vars", type=Path, metavar="FILE",
                         help="its variables; a copy is used (default: Debian's)")

    more = run.add_argument_group("with the lab's own guest")
    more.add_argument("--disks", type=_count, default=1, metavar="N",
                      help="so many disks; all but the first have only data (default: 1)")
    more.add_argument("--write", type=int, default=0, choices=range(9), metavar="MIB",
                      help="have the guest write so much to each disk, and compare (up to 8)")

    rest = run.add_argument_group("the run")
    rest.add_argument("--timeout", type=_positive, metavar="SECONDS",
                      help=f"end the machine after so long (default: {boot.DEFAULT_TIMEOUT:.0f}; "
                      "none with --disk)")
    rest.add_argument("--json", type=Path, metavar="FILE", help="also write the report here")
    rest.add_argument("-v", "--verbose", action="store_true", help="say more")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.json is not None:
        Report.check_target(arguments.json)
    if arguments.disk is None and (arguments.format or arguments.no_snapshot):
        raise LabError("--format and --no-snapshot go with --disk")
    report = SCENARIOS[arguments.on, arguments.firmware](arguments, Progress())
    report.write(sys.stdout, verbose=arguments.verbose)
    if arguments.json is not None:
        report.save(arguments.json.resolve())
    return HELD if report.ok else WRONG


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
