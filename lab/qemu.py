# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Virtual machines on QEMU, one at a time: what they are made of, running them, what they did.

For a test that runs a UEFI program of ours:

    from lab.qemu import Disk, run_app
    result = run_app(Path("build/tests/vm/hello.efi"), "count=3",
                     [Disk(image, rom=ROM, transport="legacy")])
    assert result.app_result == 0, result.explain()
    assert "hello" in result.serial
    assert not judge(result.trace, result.addresses).problems

Result says how the machine ended and has its serial text and its trace (see lab.trace). Only what
could not be run at all raises an error (LabError); everything that a machine may do is a result.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, Protocol

from lab import tools, trace
from lab.cache import scratch_folder, sweep
from lab.errors import LabError
from lab.inputs import CODE_PC, check_app, check_bios, check_firmware, check_rom
from lab.paths import LAB, LOGS, WHOSE, shown
from lab.progress import Progress
from lab.qmp import Qmp
from lab.trace import Trace

QEMU = "qemu-system-x86_64"
OVMF = Path("/usr/share/OVMF")
SEABIOS = Path("/usr/share/seabios")

Ended = Literal["off", "reset", "debug-exit", "died", "timeout", "quit"]
Transport = Literal["modern", "legacy", "transitional"]
TRANSPORTS: dict[Transport, str] = {
    "modern": "disable-legacy=on,disable-modern=off",
    "legacy": "disable-legacy=off,disable-modern=on",
    "transitional": "disable-legacy=off,disable-modern=off",
}
MACHINES = ("q35", "pc")

# QEMU 7.2 under emulation may abort like this on a loaded machine. It is QEMU that breaks, not what
# runs in it, so the run is made again; nothing else ever is.
TCG_ABORT = "tcg_handle_interrupt: assertion failed: (qemu_mutex_iothread_locked())"
RETRIES = 2
SERIAL_MAX = 8 << 20
"""Bytes that a machine may send to its serial port: a boot of a talkative firmware is less than a
quarter of it, and one that is lost in its own error messages can fill a disk with them."""

FIRST_TO_BOOT = "bootindex=1"
"""Of what firmware boots from. QEMU has given 0 to the program that is run before that."""

FIRST_SLOT = 4
LAST_SLOT = 0x1E  # q35 has its own devices in 0x1f


def quoted(value: str | Path) -> str:
    """For QEMU's option parser, which takes a comma for the end of a value unless it is doubled."""
    return str(value).replace(",", ",,")


class Device(Protocol):
    """What a machine can have in a PCI slot."""

    def check(self) -> None:
        """Refuse what cannot work, before anything is started."""

    def arguments(self, index: int, address: str) -> list[str]:
        """QEMU's words for it; `index` makes its names its own."""


def _virtio(name: str, address: str, rom: Path | None, transport: Transport,
            options: Mapping[str, str], *words: str) -> list[str]:
    """A virtio device on the PCI bus. Without a ROM of ours it has none, not even QEMU's own."""
    slot, _, function = address.split(":")[1].partition(".")
    parts = [f"{name}-pci", *words, f"addr={slot}.{function}",
             f"romfile={quoted(rom) if rom else ''}", TRANSPORTS[transport]]
    return ["-device", ",".join([*parts, *(f"{key}={value}" for key, value in options.items())])]


def _drive(name: str, image: Path, format_: str, *, read_only: bool, snapshot: bool,
           more: Mapping[str, str]) -> list[str]:
    words = [f"if=none,id={name},file={quoted(image)},format={format_}"]
    words += ["read-only=on"] if read_only else []
    words += ["snapshot=on"] if snapshot else []
    return ["-drive", ",".join([*words, *(f"{key}={value}" for key, value in more.items())])]


def _check_image(image: Path) -> None:
    if not image.is_file():
        raise LabError(f"the disk image {shown(image)} does not exist")


@dataclass(frozen=True)
class Disk:
    """A virtio-blk device and the image behind it. `options` are more properties of the device,
    as in {"queue-size": "2", "num-queues": "1"}."""

    image: Path
    format: str = "raw"
    rom: Path | None = None
    transport: Transport = "modern"
    sector_size: int = 512
    read_only: bool = False
    snapshot: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    drive: Mapping[str, str] = field(default_factory=dict)
    """More properties of the drive behind the device, as in {"aio": "io_uring"}."""
    boot: bool = False
    """Whether the firmware is to boot from it before anything else. UEFI firmware needs no word."""

    def check(self) -> None:
        if self.rom is not None:
            check_rom(self.rom)
        _check_image(self.image)

    def arguments(self, index: int, address: str) -> list[str]:
        size = self.sector_size
        return _drive(f"drive{index}", self.image, self.format, read_only=self.read_only,
                      snapshot=self.snapshot, more=self.drive) + \
            _virtio("virtio-blk", address, self.rom, self.transport,
                    {"logical_block_size": str(size), "physical_block_size": str(size),
                     **self.options}, f"id=disk{index}", f"drive=drive{index}",
                    *([FIRST_TO_BOOT] if self.boot else []))


@dataclass(frozen=True)
class Unit:
    """A logical unit of a SCSI controller: a disk, or a CD-ROM drive with a disc in it."""

    image: Path
    format: str = "raw"
    sector_size: int = 512
    read_only: bool = False
    snapshot: bool = False
    cdrom: bool = False
    target: int = 0
    lun: int = 0
    options: Mapping[str, str] = field(default_factory=dict)
    """More properties of the unit, as in {"scsi_version": "6"}."""
    drive: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its target and number, "0:3"."""
        return f"{self.target}:{self.lun}"


@dataclass(frozen=True)
class ScsiController:
    """A virtio-scsi device and what is behind it."""

    units: Sequence[Unit] = ()
    rom: Path | None = None
    transport: Transport = "modern"
    options: Mapping[str, str] = field(default_factory=dict)
    boot: bool = False
    """Whether the firmware is to boot from the first of the units before anything else."""

    def check(self) -> None:
        if self.rom is not None:
            check_rom(self.rom)
        for unit in self.units:
            _check_image(unit.image)

    def arguments(self, index: int, address: str) -> list[str]:
        words = _virtio("virtio-scsi", address, self.rom, self.transport, self.options,
                        f"id=scsi{index}")
        for number, unit in enumerate(self.units):
            drive = f"scsi{index}-drive{number}"
            device = [f"scsi-{'cd' if unit.cdrom else 'hd'},bus=scsi{index}.0,drive={drive}",
                      f"scsi-id={unit.target},lun={unit.lun}"]
            if not unit.cdrom:
                device.append(f"logical_block_size={unit.sector_size},"
                              f"physical_block_size={unit.sector_size}")
            if self.boot and number == 0:
                device.append(FIRST_TO_BOOT)
            device += [f"{key}={value}" for key, value in unit.options.items()]
            words += _drive(drive, unit.image, unit.format, snapshot=unit.snapshot,
                            read_only=unit.read_only or unit.cdrom, more=unit.drive)
            words += ["-device", ",".join(device)]
        return words


@dataclass(frozen=True)
class Interface:
    """A virtio-net device on a network of QEMU's own, which has a DHCP server and serves the files
    of a folder by TFTP, and from which nothing gets out."""

    folder: Path
    boot_file: str
    """The one of them that the DHCP server names for booting."""
    rom: Path | None = None
    transport: Transport = "modern"
    options: Mapping[str, str] = field(default_factory=dict)
    mac: str = "52:54:00:ba:70:01"
    other_fd: int | None = None
    """A datagram socket of somebody else on the same network, by its number (Machine.pass_fds)."""
    boot: bool = False
    """Whether the firmware is to boot from it before anything else."""

    def check(self) -> None:
        if self.rom is not None:
            check_rom(self.rom)
        if not (self.folder / self.boot_file).is_file():
            raise LabError(f"the folder {shown(self.folder)} has no {self.boot_file}")

    def arguments(self, index: int, address: str) -> list[str]:
        net = f"net{index}"
        words = ["-netdev", f"user,id={net}-user,restrict=on,tftp={quoted(self.folder)},"
                            f"bootfile={quoted(self.boot_file)}"]
        behind = f"{net}-user"
        if self.other_fd is not None:
            words += ["-netdev", f"dgram,id={net}-other,local.type=fd,"
                                 f"local.str={self.other_fd}"]
            for end in (f"{net}-user", f"{net}-other"):
                words += ["-netdev", f"hubport,id={end}-port,hubid={index},netdev={end}"]
            behind = f"{net}-port"
            words += ["-netdev", f"hubport,id={behind},hubid={index}"]
        return words + _virtio("virtio-net", address, self.rom, self.transport, self.options,
                               f"id={net}", f"netdev={behind}", f"mac={self.mac}",
                               *([FIRST_TO_BOOT] if self.boot else []))


@dataclass(frozen=True)
class Firmware:
    """An OVMF build: its code, and a fresh copy of its variables for every run."""

    code: Path = OVMF / "OVMF_CODE_4M.fd"
    variables: Path = OVMF / "OVMF_VARS_4M.fd"
    file: Path | None = None
    """Where both were cut from, if they were one file."""

    def check(self) -> None:
        for path, what in ((self.code, "code"), (self.variables, "variables")):
            if path.parent == OVMF and not path.exists():
                raise LabError(f"{path} does not exist: run `make deps`, or install Debian's "
                               "package ovmf")
            check_firmware(path, what)

    machine_options = ""

    def arguments(self, folder: Path) -> list[str]:
        """QEMU's words for it."""
        variables = folder / "variables.fd"
        shutil.copyfile(self.variables, variables)
        return ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={quoted(self.code)}",
                "-drive", f"if=pflash,unit=1,format=raw,file={quoted(variables)}"]


@dataclass(frozen=True)
class Bios:
    """A PC BIOS. It does not run the ROM of a device that it has a driver for, so its option ROM is
    no device's."""

    code: Path = SEABIOS / "bios-256k.bin"
    rom: Path | None = None
    strict: bool = False
    """Whether it boots only what is marked for booting, and that is the option ROM. SeaBIOS then
    leaves all other disks alone."""

    machine_options = ",graphics=off"
    """What would be on the screen is on the serial port."""

    def check(self) -> None:
        if self.code.parent == SEABIOS and not self.code.exists():
            raise LabError(f"{self.code} does not exist: run `make deps`, or install Debian's "
                           "package seabios")
        check_bios(self.code)
        if self.rom is not None:
            check_rom(self.rom, CODE_PC)

    def arguments(self, folder: Path) -> list[str]:
        """QEMU's words for it."""
        words = ["-bios", str(self.code), *(["-boot", "strict=on"] if self.strict else [])]
        if self.rom is not None:
            order = f",{FIRST_TO_BOOT}" if self.strict else ""
            words += ["-option-rom", quoted(self.rom) + order]
        return words


@dataclass(frozen=True)
class Machine:
    """Everything that makes a machine. `kernel` is a UEFI program that the firmware runs before it
    boots, with `append` as its options; when it returns, the firmware boots from disk."""

    disks: Sequence[Device] = ()
    """Its devices, most often disks, in their slots' order."""
    machine: str = "q35"
    accelerator: str = "tcg"
    memory: int = 512
    firmware: Firmware | Bios = Firmware()
    kernel: Path | None = None
    append: str = ""
    fw_cfg: Mapping[str, str] = field(default_factory=dict)
    trace_events: Sequence[str] = trace.EVENTS
    debug_exit: bool = True
    console: bool = False
    """Interactive: the serial port is this terminal (leave with Ctrl-A X)."""
    extra: Sequence[str] = ()
    """More arguments for QEMU."""
    pass_fds: Sequence[int] = ()
    """Open files that those arguments name by number."""
    watch: Callable[[Qmp, str], None] | None = None
    """Called time and again while the machine runs, with its serial text so far. The machine then
    has a PVPANIC device, by which the guest can stop it."""

    @property
    def addresses(self) -> list[str]:
        """PCI addresses of the devices, in their order: one slot each on the root bus, where they
        may have I/O ports and so a legacy interface, on both machine types."""
        if len(self.disks) > LAST_SLOT - FIRST_SLOT + 1:
            raise LabError(f"{len(self.disks)} devices are more than the machine has slots for "
                           f"({LAST_SLOT - FIRST_SLOT + 1})")
        return [f"00:{FIRST_SLOT + index:02x}.0" for index in range(len(self.disks))]

    def check(self) -> None:
        """Refuse what cannot work, before anything is started."""
        tools.find(QEMU)
        self.firmware.check()
        for device in self.disks:
            device.check()
        if self.kernel is not None:
            check_app(self.kernel)

    def command(self, folder: Path, qmp_fd: int) -> list[str]:
        """QEMU's command line. What it writes goes to `folder`."""
        (folder / "events").write_text("".join(f"{name}\n" for name in self.trace_events))
        serial = f"id=serial,logfile={quoted(folder)}/serial.log"
        words = [
            # Should we be killed outright, nobody else would end the machine.
            tools.find("setpriv"), "--pdeathsig", "KILL", tools.find(QEMU),
            "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            "-name", "baton-lab", "-machine", self.machine + self.firmware.machine_options,
            "-accel", self.accelerator,
            "-cpu", "host" if self.accelerator == "kvm" else "qemu64",
            "-m", str(self.memory), "-smp", "1", "-msg", "timestamp=on",
            *self.firmware.arguments(folder),
            "-chardev", f"socket,id=qmp,fd={qmp_fd}", "-mon", "chardev=qmp,mode=control",
            "-chardev", f"stdio,mux=on,signal=off,{serial}" if self.console else f"null,{serial}",
            "-serial", "chardev:serial",
        ]
        if self.console:
            words += ["-mon", "chardev=serial,mode=readline"]
        if self.trace_events:
            words += ["-trace", f"events={quoted(folder)}/events,file={quoted(folder)}/trace.log"]
        if self.debug_exit:
            words += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        if self.watch is not None:
            words += ["-device", "pvpanic", "-action", "panic=pause"]
        for index, (device, address) in enumerate(zip(self.disks, self.addresses, strict=True)):
            words += device.arguments(index, address)
        if self.kernel is not None:
            words += ["-kernel", str(self.kernel), "-append", self.append]
        for name, text in self.fw_cfg.items():
            words += ["-fw_cfg", f"name={name},string={quoted(text)}"]
        return [*words, *self.extra]


@dataclass(frozen=True)
class Result:
    """What a machine did."""

    ended: Ended
    """Switched off or reset by the guest, ended through the debug-exit port, dead by QEMU's own
    hand, ended by us because its time was up, or by the user."""
    exit_code: int
    seconds: float
    serial: str
    trace: Trace
    said: str
    """QEMU's own messages."""
    addresses: Sequence[str]
    command: Sequence[str]
    retries: int = 0

    @property
    def app_result(self) -> int | None:
        """The value of the program's app_main(), if it ended the machine (option exit=debug)."""
        return self.exit_code >> 1 if self.ended == "debug-exit" else None

    def lines(self, prefix: str) -> list[str]:
        """The serial log's lines that begin so, without the prefix."""
        return [line[len(prefix):] for line in plain(self.serial).splitlines()
                if line.startswith(prefix)]

    def explain(self, lines: int = 15) -> str:
        """How it ended and the last it said: for the message of a failed test."""
        tail = "\n".join(f"    {line}" for line in plain(self.serial).splitlines()[-lines:])
        said = f"\nQEMU said: {self.said.strip()}" if self.said.strip() else ""
        return (f"the machine ended by {self.ended} (QEMU's status {self.exit_code}) after "
                f"{self.seconds:.1f} s{said}\nthe end of its serial log:\n{tail}")


def plain(serial: str) -> str:
    """Serial text without terminal escapes and carriage returns."""
    return re.sub(r"\x1b\[[0-9;=?]*[A-Za-z]", "", serial).replace("\r", "")


def run(make: Machine | Callable[[Path], Machine], *, timeout: float | None = 120,
        progress: Progress | None = None, name: str = "virtual machine",
        stage: Callable[[str], str] | None = None,
        after: Callable[[Path], None] | None = None) -> Result:
    """Run a machine until it ends, at most `timeout` seconds.

    `make` is the machine, or a function that prepares one in the (temporary) folder it is given; it
    is called anew where QEMU's own fault makes a second try necessary, so that each try finds the
    same. `stage` says for the serial log so far what the machine is at, for the progress line.
    `after` is called with that folder when the machine has ended.
    """
    progress = progress or Progress(quiet=True)
    for attempt in range(RETRIES + 1):
        with one_at_a_time(progress), scratch_folder(LAB, "run") as folder:
            machine = make if isinstance(make, Machine) else make(folder)
            machine.check()
            with progress.step(name) as step:
                def tell(serial: str) -> None:
                    if stage is not None:
                        step.tell(stage(serial))
                result = _run_once(machine, folder, timeout, tell, attempt)
            keep_logs(folder)
            if after is not None:
                after(folder)
        if TCG_ABORT not in result.said or attempt == RETRIES:
            return result
        progress.say(f"QEMU itself broke ({TCG_ABORT.partition(':')[0]}), as it is known to; "
                     f"trying again ({attempt + 1} of at most {RETRIES})")
    raise AssertionError("not reached")


def run_app(app: Path, append: str = "", disks: Sequence[Device] = (), *, machine: str = "q35",
            accelerator: str = "auto", memory: int = 512, timeout: float = 120,
            trace_events: Sequence[str] = trace.EVENTS, fw_cfg: Mapping[str, str] | None = None,
            firmware: Firmware = Firmware(), extra: Sequence[str] = (),
            progress: Progress | None = None) -> Result:
    """Run a UEFI program of ours (see lab/efi/app.h) with these disks until it ends the machine.

    The option exit=debug is put before `append`, so that app_main()'s value is result.app_result.
    Disks are used as they are: what the program writes is in the image afterwards, unless the disk
    has `snapshot` set.
    """
    return run(Machine(disks=disks, machine=machine, memory=memory, firmware=firmware,
                       accelerator=choose_accelerator(accelerator, progress), kernel=app,
                       append=f"exit=debug {append}".strip(), fw_cfg=fw_cfg or {},
                       trace_events=trace_events, extra=extra),
               timeout=timeout, progress=progress, name=app.name)


class one_at_a_time:  # a with-statement's word, so written like one
    """Holds the lock that lets one machine run at a time; says so if that takes a while."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __enter__(self) -> None:
        path = LAB / "machine.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = path.open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with self._progress.step("waiting for another virtual machine of the lab to end"):
                fcntl.flock(self._file, fcntl.LOCK_EX)
        sweep(LAB, "run")

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _run_once(machine: Machine, folder: Path, timeout: float | None, tell: Callable[[str], None],
              attempt: int) -> Result:
    ours, theirs = socket.socketpair()
    start = time.monotonic()
    command = machine.command(folder, theirs.fileno())
    with ours, (folder / "qemu.log").open("w") as said:
        with theirs:
            process = subprocess.Popen(
                command, stdin=None if machine.console else subprocess.DEVNULL,
                stdout=None if machine.console else said, stderr=said,
                pass_fds=[theirs.fileno(), *machine.pass_fds],
                # Ctrl-C on the terminal is for us, who then end the machine in order. On the
                # interactive console it is for the guest, and QEMU must stay in the foreground.
                start_new_session=not machine.console)
        try:
            qmp = Qmp(ours)
            ended = _watch(machine, process, qmp, folder, start, timeout, tell)
        finally:
            end_process(process)
    lines = _read(folder / "trace.log").splitlines()
    return Result(ended=ended, exit_code=process.returncode, seconds=time.monotonic() - start,
                  serial=_read(folder / "serial.log"), trace=trace.parse(lines),
                  said=_read(folder / "qemu.log"), addresses=machine.addresses, command=command,
                  retries=attempt)


def _watch(machine: Machine, process: subprocess.Popen[bytes], qmp: Qmp, folder: Path, start: float,
           timeout: float | None, tell: Callable[[str], None]) -> Ended:
    try:
        qmp.execute("qmp_capabilities")
    except LabError:
        # It did not come up: its own words say why, and nothing of ours has run yet.
        end_process(process)
        said = _read(folder / "qemu.log").strip()
        if TCG_ABORT in said:
            return "died"
        why = said or f"exit status {process.returncode}"
        raise LabError(f"QEMU did not start: {why}") from None
    while process.poll() is None:
        if timeout is not None and time.monotonic() - start > timeout:
            return "timeout"
        qmp.pump(0.2)
        if machine.watch is not None:
            try:
                machine.watch(qmp, _read(folder / "serial.log"))
            except LabError:
                # It may have come to its end just now.
                if qmp.open:
                    raise
        if not machine.console:
            _check_serial(folder / "serial.log", start)
            tell(_read(folder / "serial.log"))
    qmp.pump(0)
    reason = qmp.shutdown_reason()
    if process.returncode == 0:
        if reason in ("guest-shutdown", "guest-reset"):
            return "off" if reason == "guest-shutdown" else "reset"
        return "quit"
    # A program that succeeds makes QEMU's status 1, which is also how QEMU fails. The program's
    # last words tell them apart.
    words = re.findall(r"^app: result (\d+)", plain(_read(folder / "serial.log")), re.MULTILINE)
    if machine.debug_exit and words and process.returncode == (int(words[-1]) << 1 | 1) & 0xFF:
        return "debug-exit"
    return "died"


def _check_serial(log: Path, start: float) -> None:
    if not log.exists() or log.stat().st_size <= SERIAL_MAX:
        return
    with log.open("rb") as file:
        file.seek(-60, os.SEEK_END)
        last = file.read().decode("latin-1")
    raise LabError(f"the machine sent more than {SERIAL_MAX >> 20} MiB to its serial port in "
                   f"{time.monotonic() - start:.0f} s, and was ended; the end of it: {last!r}")


def end_process(process: subprocess.Popen[bytes]) -> None:
    """End the machine that we started, and only it, whatever happens to us meanwhile."""
    if process.poll() is not None:
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN), signal.signal(signal.SIGTERM,
                                                                         signal.SIG_IGN)
    try:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])


def _read(path: Path) -> str:
    try:
        return path.read_text("latin-1")
    except FileNotFoundError:
        return ""


def keep_logs(folder: Path) -> None:
    LOGS.mkdir(parents=True, exist_ok=True)
    for name in ("serial.log", "trace.log", "qemu.log"):
        if (folder / name).exists():
            os.replace(folder / name, LOGS / name)
        else:
            (LOGS / name).unlink(missing_ok=True)


# ---- Versions and accelerators ----

def version() -> str:
    """What QEMU says of itself, as "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)"."""
    first = tools.run([QEMU, "--version"]).splitlines()[0]
    return first.removeprefix("QEMU emulator version ")


def choose_aio(wanted: str, image: Path, progress: Progress) -> str:
    """How QEMU is to read a raw image whose speed matters: "auto" is through io_uring, if the host
    lets it. QEMU's pool of threads takes longer over a read than most drivers, and would be most of
    what is measured."""
    if wanted == "threads":
        return wanted
    try:
        tools.run(["qemu-img", "bench", "-i", "io_uring", "-c", "1", "-f", "raw", str(image)])
        return "io_uring"
    except LabError as error:
        if wanted == "io_uring":
            raise
        progress.say(f"with threads, since io_uring cannot be used: {error}")
        return "threads"


def choose_accelerator(wanted: str = "auto", progress: Progress | None = None) -> str:
    """"tcg" or "kvm". For "auto", KVM if it really runs the firmware here."""
    if wanted == "tcg":
        return "tcg"
    reason = _kvm_trouble(progress or Progress(quiet=True))
    if reason is None:
        return "kvm"
    if wanted == "kvm":
        raise LabError(f"KVM cannot be used: {reason}")
    if progress is not None:
        progress.say(f"emulating, since KVM cannot be used: {reason}")
    return "tcg"


def _kvm_trouble(progress: Progress) -> str | None:
    """Why KVM does not serve, or None. That /dev/kvm opens proves little, so the firmware is run on
    it up to a program of ours. The answer is kept until the host boots anew or QEMU changes."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as error:
        return f"/dev/kvm: {error.strerror}"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    key = f"{boot} {version()} {os.geteuid()}"
    note = LAB / "kvm.json"
    try:
        known = json.loads(note.read_text())
        if known["key"] == key:
            return None if known["trouble"] is None else str(known["trouble"])
    except (OSError, ValueError, KeyError):
        pass
    require_whose()
    try:
        result = run(Machine(accelerator="kvm", kernel=WHOSE, append="exit=debug"), timeout=15,
                     progress=progress, name="trying KVM")
        trouble = None if result.app_result == 0 else \
            f"/dev/kvm is there, but the firmware does not run on it ({result.ended})"
    except LabError as error:
        # The first line, without the time stamp: the rest is QEMU's last breath.
        first = str(error).splitlines()[0]
        trouble = re.sub(r"\d{4}-\d\d-\d\dT\S+Z \S+: ", "", first)
    # Only a whole answer is kept, in one step.
    new = note.with_suffix(".tmp")
    new.write_text(json.dumps({"key": key, "trouble": trouble}))
    new.replace(note)
    return trouble


def require_whose() -> None:
    """The program that asks the firmware whose driver it is, built by make."""
    if not WHOSE.exists():
        raise LabError(f"{shown(WHOSE)} is not there: run `make lab`")


