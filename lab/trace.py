# SPDX-License-Identifier: BSD-2-Clause-Patent
"""QEMU's trace of a run, as events in the order in which they happened.

One log holds what the devices saw and what the serial port was sent, so it says exactly what came
before what: the loader's last read, the reset, the kernel's first word.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

EVENTS = ("runstate_set", "virtio_set_status", "virtio_queue_notify", "virtqueue_pop",
          "virtqueue_fill", "virtio_blk_handle_read", "virtio_blk_handle_write",
          "virtio_blk_req_complete", "virtio_scsi_cmd_req", "pci_cfg_write", "serial_write")
"""What the lab has QEMU trace. Together some 30,000 lines for a boot from a disk, most of them
characters; from the network three times as many, most of them packets."""

AUDIT_EVENTS = (*EVENTS, "virtqueue_flush", "e1000e_rx_written_to_guest", "pci_nvme_admin_cmd",
                "pci_nvme_io_cmd", "pci_nvme_enqueue_req_completion",
                "ahci_pio_transfer", "ahci_dma_prepare_buf", "ahci_cmd_done",
                "usb_uhci_frame_start", "usb_xhci_fetch_trb", "usb_xhci_queue_event")
"""What the audit looks at besides: every time that a device reads or writes the guest's memory, as
far as this QEMU says so."""

COMMAND = 0x04
BUS_MASTER = 0x04


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, so many seconds after power-on."""

    time: float


@dataclass(frozen=True, slots=True)
class PowerOn(Event):
    """The machine's processor begins."""


@dataclass(frozen=True, slots=True)
class Paused(Event):
    """The machine stands still, until it goes on."""


@dataclass(frozen=True, slots=True)
class SerialText(Event):
    """Characters sent to the serial port: at most a line, and nothing else came in between."""

    text: str
    last: float
    """When the last of them was sent."""


@dataclass(frozen=True, slots=True)
class DeviceEvent(Event):
    """`device` is a PCI address, "00:04.0"; or a "0x…" that no address could be found for."""

    device: str


@dataclass(frozen=True, slots=True)
class Status(DeviceEvent):
    """A virtio device's status register takes a value.

    Not always because somebody wrote to it: QEMU takes DRIVER_OK away when bus mastering is
    switched off, and sets what it is once more when the machine stops, and when it goes on. That is
    an echo.
    """

    value: int
    echo: bool


@dataclass(frozen=True, slots=True)
class Notify(DeviceEvent):
    """The guest rings a queue's bell."""

    queue: int


@dataclass(frozen=True, slots=True)
class Request(DeviceEvent):
    """The device takes a request from its ring. Sectors have 512 bytes here, always."""

    token: str
    write: bool
    sector: int
    sectors: int


@dataclass(frozen=True, slots=True)
class Completion(DeviceEvent):
    """The device gives a request back."""

    token: str
    status: int


@dataclass(frozen=True, slots=True)
class ScsiCommand(DeviceEvent):
    """A virtio-scsi device takes a command for one of its logical units; `code` is the first byte
    of the command (SPC-4)."""

    lun: int
    code: int


@dataclass(frozen=True, slots=True)
class Taken(DeviceEvent):
    """A virtio device takes buffers from a queue. `queue` is -1, and the device a "0x…", where it
    is not known whose queue that is."""

    queue: int
    token: str = ""
    to_write: int = 0
    """How many of them it is to write to,"""
    to_read: int = 0
    """and how many to read."""


@dataclass(frozen=True, slots=True)
class Filled(DeviceEvent):
    """A virtio device is done with what it took, and has written so many bytes to it."""

    queue: int
    token: str
    size: int


@dataclass(frozen=True, slots=True)
class Used(DeviceEvent):
    """A virtio device gives buffers back."""

    queue: int
    count: int


@dataclass(frozen=True, slots=True)
class Transfer(Event):
    """Some device of a kind ("nvme", "e1000e", …) reads or writes the guest's memory; QEMU does
    not say which one. `what` is "taken", "used" or "packet"."""

    kind: str
    what: str


@dataclass(frozen=True, slots=True)
class ConfigWrite(DeviceEvent):
    """A write to PCI configuration space."""

    offset: int
    value: int

    @property
    def is_command(self) -> bool:
        return self.offset == COMMAND

    @property
    def bus_master(self) -> bool:
        return bool(self.value & BUS_MASTER)


@dataclass(frozen=True)
class Trace:
    """All events of a run."""

    events: tuple[Event, ...]
    start: float = 0.0
    """Power-on by the host's clock, from which all times count."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """What QEMU calls each PCI device that was configured, by its address: "virtio-blk-pci"."""

    @property
    def serial(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, SerialText))

    def of(self, device: str) -> Iterator[DeviceEvent]:
        """A device's events."""
        for event in self.events:
            if isinstance(event, DeviceEvent) and event.device == device:
                yield event

    def requests(self, device: str) -> list[Request]:
        return [event for event in self.of(device) if isinstance(event, Request)]

    def notifications(self, device: str) -> list[Notify]:
        return [event for event in self.of(device) if isinstance(event, Notify)]

    def index_of_text(self, pattern: str) -> int | None:
        """Index of the event with the first character of the first text that fits the pattern; the
        text is looked for line by line, whatever other events came in between."""
        line = ""
        pieces: list[tuple[int, int]] = []  # (offset in the line, index of the event)
        for index, event in enumerate(self.events):
            if not isinstance(event, SerialText):
                continue
            pieces.append((len(line), index))
            line += event.text
            found = re.search(pattern, line)
            if found:
                return [index for offset, index in pieces if offset <= found.start()][-1]
            if line.endswith("\n"):
                line, pieces = "", []
        return None


_LINE = re.compile(r"(\d+)@(\d+\.\d+):(\w+) (.*)")
_SERIAL = re.compile(r"write addr 0x([0-9a-f]+) val 0x([0-9a-f]+)")
_STATUS = re.compile(r"vdev (\w+) val (\d+)")
_NOTIFY = re.compile(r"vdev (\w+) n (\d+)")
_REQUEST = re.compile(r"vdev (\w+) req (\w+) sector (\d+) nsectors (\d+)")
_COMPLETION = re.compile(r"vdev (\w+) req (\w+) status (\d+)")
_COMMAND = re.compile(r"\S+ lun=(\d+) tag=\S+ cmd=0x([0-9a-f]+)")
_CONFIG = re.compile(r"(\S+) ([0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) @0x([0-9a-f]+) <- 0x([0-9a-f]+)")
_QUEUE = re.compile(r"vdev (\w+) n (\d+) vq (\w+)")
_POP = re.compile(r"vq (\w+) elem (\w+) in_num (\d+) out_num (\d+)")
_FILL = re.compile(r"vq (\w+) elem (\w+) len (\d+)")
_FLUSH = re.compile(r"vq (\w+) count (\d+)")
_RUNSTATE = re.compile(r".* new_state \d+ \(([\w-]+)\)")

_TRANSFERS = {
    "e1000e_rx_written_to_guest": ("e1000e", "packet"),
    "pci_nvme_admin_cmd": ("nvme", "taken"), "pci_nvme_io_cmd": ("nvme", "taken"),
    "pci_nvme_enqueue_req_completion": ("nvme", "used"),
    "ahci_pio_transfer": ("ahci", "taken"), "ahci_dma_prepare_buf": ("ahci", "taken"),
    "ahci_cmd_done": ("ahci", "used"),
    "usb_uhci_frame_start": ("uhci", "taken"),
    "usb_xhci_fetch_trb": ("xhci", "taken"), "usb_xhci_queue_event": ("xhci", "used"),
}

_QUEUES_MAX = 1024
_DATA, _LINE_CONTROL, _DIVISOR_LATCH = 0, 3, 0x80


class _Parser:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.start: float | None = None
        self.addresses: dict[str, str] = {}  # of QEMU's pointers
        self.queues: dict[str, tuple[str, int]] = {}  # of QEMU's pointers: the device, and which
        self.kinds: dict[str, str] = {}
        self._latch = False
        # The queue from which each thread has taken something last: what it says next of a SCSI
        # command is of that.
        self._taken: dict[str, str] = {}
        # The last thing each thread did, if that was to switch bus mastering off: the device's
        # status follows at once, from the same thread, which tells whose pointer it is.
        self._off: dict[str, str] = {}
        # The thread that has stopped the machine. It is none in which the guest runs.
        self._stopper = ""

    def line(self, line: str) -> None:
        found = _LINE.match(line)
        if found is None:
            return
        thread, stamp, name, text = found.groups()
        time = float(stamp)
        off = self._off.pop(thread, None)
        if name == "runstate_set":
            found = _RUNSTATE.match(text)
            if found is not None and found[1] == "running" and self.start is None:
                self.start = time
                self.events.append(PowerOn(time))
            elif found is not None and found[1] in ("paused", "guest-panicked"):
                self._stopper = thread
                self.events.append(Paused(time))
        elif name == "serial_write":
            self._serial(time, text)
        elif name == "virtio_set_status" and (at := _STATUS.match(text)):
            if off is not None:
                self.addresses[at[1]] = off
            self.events.append(Status(time, at[1], int(at[2]),
                                      off is not None or thread == self._stopper))
        elif name == "virtio_queue_notify" and (at := _NOTIFY.match(text)):
            if queue := _QUEUE.match(text):
                self.queues[queue[3]] = queue[1], int(queue[2])
            self.events.append(Notify(time, at[1], int(at[2])))
        elif name == "virtqueue_pop" and (at := _POP.match(text)):
            self._taken[thread] = at[1]
            self.events.append(Taken(time, at[1], -1, at[2], int(at[3]), int(at[4])))
        elif name == "virtqueue_fill" and (at := _FILL.match(text)):
            self.events.append(Filled(time, at[1], -1, at[2], int(at[3])))
        elif name == "virtqueue_flush" and (at := _FLUSH.match(text)):
            self.events.append(Used(time, at[1], -1, int(at[2])))
        elif name in _TRANSFERS:
            self.events.append(Transfer(time, *_TRANSFERS[name]))
        elif name.startswith("virtio_blk_handle_") and (at := _REQUEST.match(text)):
            self.events.append(Request(time, at[1], at[2], name.endswith("write"), int(at[3]),
                                       int(at[4])))
        elif name == "virtio_blk_req_complete" and (at := _COMPLETION.match(text)):
            self.events.append(Completion(time, at[1], at[2], int(at[3])))
        elif name == "virtio_scsi_cmd_req" and (at := _COMMAND.match(text)):
            if thread in self._taken:
                self.events.append(ScsiCommand(time, self._taken[thread], int(at[1]),
                                               int(at[2], 16)))
        elif name == "pci_cfg_write" and (at := _CONFIG.match(text)):
            self.kinds[at[2]] = at[1]
            write = ConfigWrite(time, at[2], int(at[3], 16), int(at[4], 16))
            self.events.append(write)
            if write.is_command and not write.bus_master:
                self._off[thread] = write.device

    def _serial(self, time: float, text: str) -> None:
        found = _SERIAL.match(text)
        if found is None:
            return
        register, value = int(found[1], 16), int(found[2], 16)
        if register == _LINE_CONTROL:
            self._latch = bool(value & _DIVISOR_LATCH)
        elif register == _DATA and not self._latch:
            char = chr(value)
            last = self.events[-1] if self.events else None
            # A boot loader may leave a line at "\r": what comes next, much later, is another text.
            if isinstance(last, SerialText) and (not last.text.endswith(("\n", "\r"))
                                                 or last.text.endswith("\r") and char == "\n"):
                self.events[-1] = SerialText(last.time, last.text + char, time)
            else:
                self.events.append(SerialText(time, char, time))

    def trace(self) -> Trace:
        start = self.start if self.start is not None else \
            self.events[0].time if self.events else 0.0

        owner = self._owners()

        def finished(event: Event) -> Event:
            if isinstance(event, SerialText):
                return replace(event, time=event.time - start, last=event.last - start)
            if isinstance(event, (Taken, Filled, Used, ScsiCommand)):
                device, queue = owner(event.device)
                device = self.addresses.get(device, device)
                if isinstance(event, ScsiCommand):
                    return replace(event, time=event.time - start, device=device)
                return replace(event, time=event.time - start, queue=queue, device=device)
            if isinstance(event, DeviceEvent):
                return replace(event, time=event.time - start,
                               device=self.addresses.get(event.device, event.device))
            return replace(event, time=event.time - start)
        return Trace(tuple(finished(event) for event in self.events), start, self.kinds)

    def _owners(self) -> Callable[[str], tuple[str, int]]:
        """Says whose a queue is, by QEMU's pointer to it. A notification names both; a queue that
        was never notified lies at a distance from one that was, in the same array."""
        known = {int(pointer, 16): whose for pointer, whose in self.queues.items()
                 if pointer.startswith("0x")}
        steps = {(other - at) // (queue_b - queue_a)
                 for at, (device_a, queue_a) in known.items()
                 for other, (device_b, queue_b) in known.items()
                 if device_a == device_b and queue_b > queue_a}
        step = steps.pop() if len(steps) == 1 else 0
        found = dict(self.queues)

        def owner(pointer: str) -> tuple[str, int]:
            if pointer not in found:
                found[pointer] = pointer, -1
                place = int(pointer, 16) if pointer.startswith("0x") and step > 0 else 0
                # Of arrays that lie one behind the other, the nearest before it is the one.
                near = [((place - at) // step + queue, device)
                        for at, (device, queue) in known.items()
                        if place and (place - at) % step == 0]
                near = [(index, device) for index, device in near if 0 <= index < _QUEUES_MAX]
                if near:
                    index, device = min(near)
                    found[pointer] = device, index
            return found[pointer]
        return owner


def parse(lines: Iterable[str]) -> Trace:
    """The trace that QEMU's log backend wrote, with time stamps (-msg timestamp=on)."""
    parser = _Parser()
    for line in lines:
        parser.line(line)
    return parser.trace()


def with_lines(events: Iterable[Event]) -> Iterator[Event | str]:
    """The events, with what was sent to the serial port as whole lines, each where it ends."""
    line = ""
    for event in events:
        if not isinstance(event, SerialText):
            yield event
            continue
        line += event.text
        if line.endswith("\n"):
            yield line
            line = ""
