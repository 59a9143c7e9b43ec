# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A Xen host in QEMU: its boot, jobs in its dom0, files in and out, and its end.

Emulated, with nested virtualisation, so that no KVM is needed. dom0 shares a folder with us (9p),
in which jobs, their output, and the serial text of guests appear as they are written; a virtio
serial port says when a job begins and ends.
"""

import os
import select
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import NamedTuple, TypeVar

from lab import qemu, tools
from lab.cache import scratch_folder
from lab.errors import LabError
from lab.paths import LAB, LOGS, shown
from lab.progress import Progress
from lab.xen.image import ROOT_UUID, Dom0, dom0

BOOT_TIMEOUT = 240.0
_GRACE = 30.0
"""How much longer than its own limit a job may take to say that it has ended."""

_TRACE = "/run/xenstored.trace"
_JOBS_DISK = 16 << 30
_MEMORY = 4096
_DOM0_MEMORY = 1024

T = TypeVar("T")


class XenBroke(LabError):
    """QEMU's known abort: neither Xen nor what runs on it is at fault. See on_xen()."""


class Answer(NamedTuple):
    """How a job ended, and all it said. Its status is None if its time was up."""

    status: int | None
    text: str


class Job:
    """Something that runs in dom0."""

    def __init__(self, number: int, output: Path, limit: float) -> None:
        self.number = number
        self.limit = limit
        self.start = time.monotonic()
        self.status: int | None = None
        self._output = output

    @property
    def running(self) -> bool:
        return self.status is None

    def text(self) -> str:
        """What it has said so far."""
        try:
            return self._output.read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""


class XenHost:
    """A running Xen host. Use it with `with`: it boots at the beginning and is gone at the end.

    Holds the lock that lets one virtual machine of the lab run at a time, from beginning to end.
    """

    def __init__(self, progress: Progress | None = None, retries: int = 0) -> None:
        self.progress = progress or Progress(quiet=True)
        self.retries = retries
        """How often QEMU broke before this boot of the same scenario."""
        self._stack = ExitStack()
        self._jobs: dict[int, Job] = {}
        self._names = 0
        self._heard = b""
        self._trace = b""
        self._ready = False
        self._off = False
        self.seconds = 0.0
        """How long the boot took."""
        self.versions: dict[str, str] = {}
        """Which Xen, kernel, QEMU and firmware these are: Debian's packages."""

    def __enter__(self) -> "XenHost":
        tools.find(qemu.QEMU)
        files = dom0(self.progress)
        self.versions = files.versions
        with ExitStack() as stack:
            stack.enter_context(qemu.one_at_a_time(self.progress))
            self._folder = stack.enter_context(scratch_folder(LAB, "run"))
            stack.callback(self._keep_logs)
            self._share = self._folder / "share"
            self._share.mkdir()
            self._start(files, stack)
            start = time.monotonic()
            with self.progress.step("booting Xen") as step:
                while not self._ready:
                    self.pump()
                    step.tell(_stage(self.log))
                    if time.monotonic() - start > BOOT_TIMEOUT:
                        raise LabError(f"Xen did not come up within {BOOT_TIMEOUT:.0f} s; the end "
                                       f"of what it said:\n{_tail(self.log)}")
            self.seconds = time.monotonic() - start
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stack.close()

    def _start(self, files: Dom0, stack: ExitStack) -> None:
        disk = self._folder / "jobs.img"
        with disk.open("wb") as image:
            image.truncate(_JOBS_DISK)
        tools.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-N", "4096", "-m", "0",
                   "-L", "baton-jobs", "-E", "root_owner=0:0,nodiscard", disk])
        ours, theirs = socket.socketpair()
        self._port = stack.enter_context(ours)
        with theirs, (self._folder / "qemu.log").open("w") as said:
            self._process = subprocess.Popen(
                self._command(files, disk, theirs.fileno()), stdin=subprocess.DEVNULL, stdout=said,
                stderr=said, pass_fds=[theirs.fileno()],
                env={**os.environ, "LD_PRELOAD": str(files.preload)} if files.preload else None,
                # Ctrl-C on the terminal is for us, who then end the machine in order.
                start_new_session=True)
            stack.callback(qemu.end_process, self._process)

    def _command(self, files: Dom0, disk: Path, port: int) -> list[str]:
        quoted = qemu.quoted
        linux = f"root=UUID={ROOT_UUID} ro console=hvc0"
        return [
            # Should we be killed outright, nobody else would end the machine.
            tools.find("setpriv"), "--pdeathsig", "KILL", tools.find(qemu.QEMU),
            "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            "-name", "baton-xen", "-machine", "q35", "-accel", "tcg",
            # A dom0 does not survive what `max` offers it under emulation.
            "-cpu", "qemu64,+svm,+npt", "-m", str(_MEMORY),
            # With a second CPU QEMU breaks (see XenBroke) more often than not.
            "-smp", "1", "-msg", "timestamp=on",
            "-chardev", f"file,id=serial,path={quoted(self._folder)}/serial.log",
            "-serial", "chardev:serial",
            "-kernel", str(files.hypervisor),
            # What Xen has against a guest's doings, grants above all, it says only if it is told to.
            "-append", f"com1=115200,8n1 console=com1 dom0_mem={_DOM0_MEMORY}M guest_loglvl=all",
            "-initrd", f"{quoted(files.kernel)} {linux},{quoted(files.initramfs)}",
            "-drive", f"if=none,id=root,file={quoted(files.root)},format=raw,read-only=on",
            "-device", "virtio-blk-pci,drive=root,romfile=",
            "-drive", f"if=none,id=jobs,file={quoted(disk)},format=raw,cache=unsafe",
            "-device", "virtio-blk-pci,drive=jobs,romfile=",
            "-fsdev", f"local,id=host,path={quoted(self._share)},security_model=none",
            "-device", "virtio-9p-pci,fsdev=host,mount_tag=host",
            "-device", "virtio-serial-pci", "-chardev", f"socket,id=port,fd={port}",
            "-device", "virtserialport,chardev=port,name=baton.jobs",
        ]

    @property
    def scratch(self) -> Path:
        """A folder of the lab's that is gone when the host is."""
        return self._folder

    @property
    def interrupts_fixed(self) -> bool:
        """Whether this QEMU is one whose lock is taken care of (cr8.c). Elsewhere it may break."""
        return "cr8: " in _text(self._folder / "qemu.log")

    # ---- Watching ----

    @property
    def log(self) -> str:
        """What Xen and dom0's kernel and init have said so far, and guests to port 0xE9."""
        return _text(self._folder / "serial.log")

    def pump(self, seconds: float = 0.2) -> None:
        """Take note of what has happened; wait for it for so long at most. Raises a LabError once
        the machine is gone."""
        if select.select([self._port], [], [], seconds)[0]:
            try:
                data = self._port.recv(4096)
            except ConnectionResetError:
                data = b""
            *lines, self._heard = (self._heard + data).split(b"\n")
            for line in lines:
                self._hear(line.decode("ascii", "replace"))
            if not data:
                # Its status may take a moment.
                try:
                    self._process.wait(5)
                except subprocess.TimeoutExpired:
                    raise LabError("QEMU has closed the lab's port, and goes on") from None
        if self._process.poll() is not None and not self._off:
            said = _text(self._folder / "qemu.log").strip()
            if qemu.TCG_ABORT in said:
                raise XenBroke(f"QEMU itself broke ({qemu.TCG_ABORT.partition(':')[0]}), as it is "
                               "known to")
            raise LabError(f"the Xen host is gone (QEMU's status {self._process.returncode}): "
                           f"{said}\nthe end of what it said:\n{_tail(self.log)}")

    def _hear(self, line: str) -> None:
        if line == "ready":
            self._ready = True
            return
        number, _, status = line.partition(" ")
        if number.isdigit() and status.isdigit() and int(number) in self._jobs:
            self._jobs.pop(int(number)).status = int(status)

    # ---- Jobs ----

    def unique(self, name: str) -> Path:
        """A new file's place in the folder that dom0 has as /host."""
        self._names += 1
        return self._share / f"{name}.{self._names}"

    def start(self, command: str, *, timeout: float) -> Job:
        """Start a shell command in dom0; it is ended when its time is up."""
        script = self.unique("job")
        script.write_text(f"{command}\n")
        number = self._names
        job = Job(number, script.with_name(f"{script.name}.out"), timeout)
        self._jobs[number] = job
        try:
            self._port.sendall(f"{number} {timeout:.1f}\n".encode())
        except OSError:
            self.pump()  # says why, if the machine is gone
            raise LabError("dom0 takes no more jobs") from None
        return job

    def wait(self, job: Job) -> Answer:
        """Wait for a job to end."""
        while job.running:
            self.pump()
            if time.monotonic() - job.start > job.limit + _GRACE:
                raise LabError(f"dom0 does not answer; the end of what it said:\n"
                               f"{_tail(self.log)}")
        # timeout's own status, or that of what it had to kill.
        over = job.status in (124, 137) and time.monotonic() - job.start >= job.limit
        return Answer(None if over else job.status, job.text())

    def shell(self, command: str, *, timeout: float = 60) -> Answer:
        """Run a shell command in dom0 and wait for it."""
        return self.wait(self.start(command, timeout=timeout))

    def check(self, command: str, what: str, *, timeout: float = 60) -> str:
        """The same for one that must succeed; gives what it said."""
        status, text = self.shell(command, timeout=timeout)
        if status != 0:
            why = f"exit status {status}" if status is not None else f"not done in {timeout:.0f} s"
            raise LabError(f"in dom0, {what} failed ({why}): {text.strip()}")
        return text

    # ---- Files ----

    def console_of(self, guest: str) -> Path:
        """Where the paravirtual console of guests of this name is written down."""
        return self._share / "console" / f"guest-{guest}.log"

    def put(self, source: Path | bytes, target: str, *, timeout: float = 120) -> None:
        """Copy a file into dom0; below /jobs is the place for it. Holes stay holes."""
        passing = self.unique("put")
        try:
            if isinstance(source, bytes):
                passing.write_bytes(source)
            else:
                _link_or_copy(source, passing)
            folder = shlex.quote(str(PurePosixPath(target).parent))
            self.check(f"mkdir -p {folder} && cp --sparse=always /host/{passing.name} "
                       f"{shlex.quote(target)}", f"copying to {target}", timeout=timeout)
        finally:
            passing.unlink(missing_ok=True)

    def get(self, source: str, target: Path, *, timeout: float = 120) -> None:
        """Copy a file out of dom0."""
        passing = self.unique("get")
        try:
            self.check(f"cp --sparse=always {shlex.quote(source)} /host/{passing.name}",
                       f"copying {source}", timeout=timeout)
            shutil.move(passing, target)
        finally:
            passing.unlink(missing_ok=True)

    # ---- XenStore ----

    def trace_store(self) -> None:
        """Have xenstored write down every message from now on (lab.xen.store), and none of before. It
        takes its time for that: not for what is to be measured."""
        self.check(f": >{_TRACE}; xenstore-control logfile {_TRACE} && xenstore-control log on",
                   "tracing")

    def traced(self) -> str:
        """What it has written down so far."""
        passing = self.unique("trace")
        try:
            self.check(f"cat {_TRACE} >/host/{passing.name}", "reading XenStore's trace")
            data = passing.read_bytes()
            self._trace = data
            return data.decode("latin-1")
        finally:
            passing.unlink(missing_ok=True)

    # ---- The end ----

    def power_off(self, *, timeout: float = 30) -> None:
        """Switch the host off in order. Not needed before the end of the `with`: nothing that is
        worth keeping is lost when it is ended outright."""
        if self._off:
            return
        self._off = True
        try:
            self._port.sendall(b"off 0\n")
            self._process.wait(timeout)
        except (OSError, subprocess.TimeoutExpired):
            raise LabError(f"the Xen host does not switch off; the end of what it said:\n"
                           f"{_tail(self.log)}") from None

    def _keep_logs(self) -> None:
        qemu.keep_logs(self._folder)
        if self._trace:
            (LOGS / "xenstore.trace").write_bytes(self._trace)
        for old in LOGS.glob("guest-*"):
            old.unlink()
        for log in self._share.glob("serial.*"):
            _, name, number = log.name.split(".")
            os.replace(log, LOGS / f"guest-{number}-{name}.log")
        for log in self._share.glob("console/guest-*.log"):
            os.replace(log, LOGS / f"guest-{log.stem.removeprefix('guest-')}-console.log")


class SharedXen:
    """A Xen host that boots when it is first wanted, and stays for scenarios that come later. What a
    scenario makes there, it takes away. Use it with `with`: the host is gone at the end."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress or Progress(quiet=True)
        self._stack = ExitStack()
        self._xen: XenHost | None = None

    def __enter__(self) -> "SharedXen":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.end()

    def run(self, scenario: Callable[[XenHost], T]) -> T:
        """Run a scenario. If QEMU breaks in the way that it is known to, all of it is done again,
        twice at most, from a new host's boot on. Nothing else is retried; but what went wrong on a
        host has left something there, and the next scenario has a new one."""
        for attempt in range(qemu.RETRIES + 1):
            try:
                if self._xen is None:
                    self._xen = self._stack.enter_context(XenHost(self._progress, attempt))
                return scenario(self._xen)
            except XenBroke as error:
                self.end()
                if attempt == qemu.RETRIES:
                    raise
                self._progress.say(f"{error}; trying again ({attempt + 1} of at most "
                                   f"{qemu.RETRIES})")
            except BaseException:
                self.end()
                raise
        raise AssertionError("not reached")

    def power_off(self) -> None:
        """Switch it off in order, if it is on; the next scenario boots it again."""
        if self._xen is not None:
            self._xen.power_off()
        self.end()

    def end(self) -> None:
        """End it outright."""
        self._xen = None
        self._stack.close()


def on_xen(scenario: Callable[[XenHost], T], progress: Progress | None = None) -> T:
    """Boot a Xen host and run one scenario on it: see SharedXen.run()."""
    with SharedXen(progress) as xen:
        return xen.run(scenario)


def _text(path: Path) -> str:
    # In bytes: a console that sends "\r\r\n" has not sent two lines.
    try:
        return qemu.plain(path.read_bytes().decode("latin-1"))
    except FileNotFoundError:
        return ""


def _link_or_copy(source: Path, target: Path) -> None:
    # dom0 only reads it; where the file can have a second name there is nothing to copy.
    try:
        os.link(source.resolve(), target)
        return
    except FileNotFoundError:
        raise LabError(f"{shown(source)} does not exist") from None
    except OSError:
        pass
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise LabError(f"{shown(source)} cannot be copied: {error.strerror}") from None


def _stage(log: str) -> str:
    for words, stage in (("baton-dom0: ", "dom0's init"), ("Linux version", "dom0's kernel"),
                         ("(XEN) ", "hypervisor")):
        if words in log:
            return stage
    return ""


def _tail(text: str, lines: int = 15) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])
