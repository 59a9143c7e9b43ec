# SPDX-License-Identifier: BSD-2-Clause-Patent
"""HVM guests of a Xen host: what they are made of, running them, what they did."""

import re
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lab import qemu
from lab.errors import LabError
from lab.xen.host import Job, XenHost

Ended = Literal["off", "reset", "suspend", "crash", "watchdog", "until", "timeout"]

# Xen's SHUTDOWN_… codes.
_REASONS: dict[int, Ended] = {0: "off", 1: "reset", 2: "suspend", 3: "crash", 4: "watchdog"}

_CREATE_TIMEOUT = 120.0
_DEBUG_PIECE = 199
"""Xen's DOMAIN_PBUF_SIZE, less the end."""
_HOURS = 6 * 3600.0
"""For xl itself, which lives as long as its guest does; the guest has a limit of its own."""


@dataclass(frozen=True)
class GuestConfig:
    """Everything that makes a guest. Paths in `disks` are dom0's (see XenHost.put), and the lines
    go into xl's configuration as they are: "/jobs/a.img,raw,hda,w" is an emulated disk with a
    paravirtual twin, and from xvde on a disk is paravirtual only. Behind it is dom0's kernel
    (blkback on a loop device), or with "…,backendtype=qdisk" the guest's QEMU."""

    name: str = "guest"
    memory: int = 256
    disks: Sequence[str] = ()
    firmware: Literal["ovmf", "seabios"] = "ovmf"
    firmware_file: str | None = None
    """Of dom0's, in the place of Debian's."""
    rom: Path | None = None
    """The host's; for the xen-platform device."""
    serial: bool = True
    """Whether it has a serial port. A system that writes its log there is slow: each character is a
    way to the guest's QEMU and back."""
    device_model: Sequence[str] = ()
    """More arguments for the guest's QEMU."""
    extra: Sequence[str] = ()
    """More lines for xl's configuration, as in 'vif = ["script=vif-alone"]'."""

    def text(self, serial: str, rom: str | None) -> str:
        """xl's configuration."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.name):
            raise LabError(f"{self.name!r} cannot be the name of a guest")
        words = [*self.device_model]
        if rom is not None:
            words += ["-global", f"xen-platform.romfile={rom}"]
        lines = [
            f"name = {_quoted(self.name)}", 'type = "hvm"', f"memory = {self.memory}", "vcpus = 1",
            f"bios = {_quoted(self.firmware)}", f"disk = {_list(self.disks)}",
            *([f"serial = {_quoted(serial)}"] if self.serial else []), 'vga = "none"', "nographic = 1", "vnc = 0", "usb = 0",
            # So that XenStore can be looked at when the guest has ended.
            *(f'on_{event} = "preserve"' for event in ("poweroff", "reboot", "crash", "watchdog")),
        ]
        if self.firmware_file is not None:
            lines.append(f"bios_path_override = {_quoted(self.firmware_file)}")
        if words:
            lines.append(f"device_model_args_hvm = {_list(words)}")
        return "".join(f"{line}\n" for line in (*lines, *self.extra))


@dataclass(frozen=True)
class GuestResult:
    """What a guest did."""

    ended: Ended
    """Switched itself off, reset or crashed; ended by us because it had said what we waited for
    ("until"), or because its time was up. To Xen a guest that halts with interrupts disabled has
    switched itself off."""
    seconds: float
    serial: str
    """COM1."""
    said: str
    """What xl and the guest's QEMU said."""
    domain: int
    console: str = ""
    """Its paravirtual console, which Linux has as hvc0."""
    debug: str = ""
    """What it wrote to port 0xE9, which goes to Xen's log; hvmloader does too."""
    xenstore_before: dict[str, str] = field(default_factory=dict)
    """All of XenStore before the guest's first instruction, if that was asked for."""
    xenstore_after: dict[str, str] = field(default_factory=dict)
    """And after its last one, with its devices still there."""
    retries: int = 0
    """How often QEMU broke before, see XenHost."""

    def lines(self, prefix: str) -> list[str]:
        """The serial text's lines that begin so, without the prefix."""
        return [line[len(prefix):] for line in qemu.plain(self.serial).splitlines()
                if line.startswith(prefix)]

    def explain(self, lines: int = 15) -> str:
        """How it ended and the last it said: for the message of a failed test."""
        tail = "\n".join(f"    {line}" for line in qemu.plain(self.serial).splitlines()[-lines:])
        return (f"the guest ended by {self.ended} after {self.seconds:.1f} s\nxl and its QEMU "
                f"said:\n{self.said.strip()}\nthe end of its serial log:\n{tail}")


class Guest:
    """A guest that has been created, and is paused until resume()."""

    def __init__(self, xen: XenHost, config: GuestConfig) -> None:
        self._xen = xen
        self._serial = xen.unique(f"serial.{config.name}")
        self._serial.touch()
        self._file = xen.unique(f"{config.name}.cfg")
        self.name = config.name
        self._console = xen.console_of(config.name)
        # An earlier guest of this name has left what it said.
        self._console_begin = self._console.stat().st_size if self._console.exists() else 0
        rom = None
        if config.rom is not None:
            rom = f"/jobs/{xen.unique('rom').name}"
            xen.put(config.rom, rom)
        self._file.write_text(config.text(f"file:/host/{self._serial.name}", rom))
        # In the foreground xl stays with the guest, and says how it ended.
        self._xl: Job = xen.start(f"exec xl create -p -F /host/{self._file.name}", timeout=_HOURS)
        self.domain = self._created()
        self._began = time.monotonic()

    def _created(self) -> int:
        while True:
            match = re.search(r"Waiting for domain \S+ \(domid (\d+)\) to die", self._xl.text())
            if match:
                return int(match[1])
            if not self._xl.running or time.monotonic() - self._xl.start > _CREATE_TIMEOUT:
                # What hotplug scripts say against a disk is nowhere else.
                hotplug = self._xen.shell("cd /var/log/xen && tail -n 5 xen-hotplug.log").text
                said = f"{self.said()}{hotplug}"
                self._xen.shell(f"xl destroy {shlex.quote(self.name)}", timeout=_CREATE_TIMEOUT)
                raise LabError(f"xl could not create the guest {self.name}: {said}")
            self._xen.pump()

    @property
    def running(self) -> bool:
        return self._xl.running

    @property
    def seconds(self) -> float:
        """Since it was created."""
        return time.monotonic() - self._began

    @property
    def serial(self) -> str:
        """What it has written to COM1 so far."""
        return self._serial.read_bytes().decode("latin-1")

    @property
    def console(self) -> str:
        """What it has said on its paravirtual console so far."""
        try:
            return self._console.read_bytes()[self._console_begin:].decode("latin-1")
        except FileNotFoundError:
            return ""

    @property
    def debug(self) -> str:
        """What it has written to port 0xE9 so far."""
        return debug_text(self._xen.log, self.domain)

    def said(self) -> str:
        """What xl and the guest's QEMU have said so far."""
        log = f"/var/log/xen/qemu-dm-{self.name}.log"
        return self._xl.text() + self._xen.shell(f"[ ! -e {log} ] || cat {log}").text

    def xenstore(self) -> dict[str, str]:
        """All of XenStore, now."""
        return parse_xenstore(self._xen.check("xenstore-ls -f", "xenstore-ls"))

    def resume(self) -> None:
        """Let it run."""
        self._xen.check(f"xl unpause {self.domain}", "xl unpause")
        self._began = time.monotonic()

    def wait_for(self, pattern: str, timeout: float) -> "re.Match[str] | None":
        """Wait until its serial text, its console or its debug port has had this regular expression
        (lines begin at ^); None if it ends or the time is up before."""
        end = time.monotonic() + timeout
        while True:
            running = self.running
            texts = (qemu.plain(self.serial), qemu.plain(self.console), self.debug)
            found = (re.search(pattern, text, re.MULTILINE) for text in texts)
            match = next((each for each in found if each), None)
            if match or not running or time.monotonic() > end:
                return match
            self._xen.pump()

    def reason(self) -> Ended | None:
        """How it has ended by itself, if it has."""
        match = re.search(r"has shut down, reason code (\d+)", self._xl.text())
        if self.running or match is None:
            return None
        return _REASONS.get(int(match[1]), "crash")

    def destroy(self) -> None:
        """End it, if need be, and clear it away."""
        self._xen.check(f"xl destroy {self.domain}", "xl destroy", timeout=_CREATE_TIMEOUT)
        self._xen.wait(self._xl)


def run_guest(xen: XenHost, config: GuestConfig, *, timeout: float = 180,
              until: str | None = None, xenstore: bool = False,
              stage: Callable[[str], str] | None = None,
              watch: Callable[[Guest], None] | None = None,
              prepare: Callable[[Guest], None] | None = None,
              enough: Callable[[Guest], bool] | None = None,
              finish: Callable[[Guest], None] | None = None) -> GuestResult:
    """Run a guest until it ends, or what it says matches `until`, or `enough` says so (asked again
    and again), at most `timeout` seconds.

    `prepare` is called while it is still paused, `finish` when it has ended and its devices are
    still there. `stage` says for the text so far, of its serial
    port, its console and its debug port, what the guest is at, for the progress line. `watch` is called
    whenever there is more of that text, and once more at the end, before the guest is cleared away;
    it may run jobs in dom0, as the others may. With `xenstore`, the result has what was in XenStore
    before and after.
    """
    with xen.progress.step(f"{config.name} on Xen") as step:
        guest = Guest(xen, config)
        if prepare is not None:
            prepare(guest)
        before = guest.xenstore() if xenstore else {}
        guest.resume()
        seen = 0
        over = False
        while guest.running and not over and guest.seconds < timeout:
            xen.pump()
            over = enough is not None and enough(guest)
            text = guest.serial + guest.console + guest.debug
            if len(text) == seen:
                continue
            seen = len(text)
            if stage is not None:
                step.tell(stage(text))
            if watch is not None:
                watch(guest)
            over = over or until is not None and guest.wait_for(until, 0) is not None
        seconds = guest.seconds
        if not guest.running and guest.reason() is None:
            raise LabError(f"xl has lost the guest {config.name}: {guest.said()}")
        after = guest.xenstore() if xenstore else {}
        if watch is not None:
            watch(guest)
        if finish is not None:
            finish(guest)
        said = guest.said()
        ended: Ended = guest.reason() or ("until" if over else "timeout")
        guest.destroy()
        return GuestResult(ended, seconds, guest.serial, said, guest.domain, guest.console,
                           guest.debug, before, after, xen.retries)


def debug_text(log: str, domain: int) -> str:
    """What a domain has written to port 0xE9, out of Xen's log. Xen puts its name before each line,
    and breaks lines that are too long for it."""
    text = []
    for line in re.findall(rf"^\(d{domain}\) (.*)", log, re.MULTILINE):
        text.append(line)
        if len(line) != _DEBUG_PIECE:
            text.append("\n")
    return "".join(text)


def parse_xenstore(text: str) -> dict[str, str]:
    """What `xenstore-ls -f` says, as values by path."""
    return dict(re.findall(r'^(/\S*) = "(.*)"', text, re.MULTILINE))


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _list(values: Sequence[str]) -> str:
    return "[" + ", ".join(map(_quoted, values)) + "]"
