# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The judgement: how each device was when the operating system took over, by QEMU's own trace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lab.e820 import MemoryMap
from lab.queues import Queue
from lab.trace import (ConfigWrite, DeviceEvent, Event, Filled, Notify, Paused, PowerOn, Request,
                       ScsiCommand, SerialText, Status, Taken, Trace)

KERNEL_SPEAKS = r"(\[ *\d+\.\d+\] )?Linux version \d|early console in "
"""A kernel's first words on the console. By then boot services are long gone."""

_DRIVER_OK = 4
_BARS = range(0x10, 0x28, 4)

# READ and WRITE of 6, 10, 12 and 16 bytes (SBC-4).
_SCSI_READS = {0x08, 0x28, 0xA8, 0x88}
_SCSI_WRITES = {0x0A, 0x2A, 0xAA, 0x8A}

_WORDS = {"virtio-scsi": ("reads", "writes", "other commands"),
          "virtio-net": ("packets sent", "received")}
_USUAL = ("reads", "writes")
"""What is counted of a device of each kind, by the beginning of QEMU's name for it."""


@dataclass(frozen=True)
class Moment:
    """One line of a device's story."""

    time: float
    what: str


@dataclass
class Device:
    """What the trace says of one device up to the hand-over."""

    device: str
    driven: bool = False
    """Whether anybody in the firmware ever set it going (DRIVER_OK)."""
    live: bool | None = None
    """Whether it was still going at the hand-over; None where that could not be seen. What a PC
    BIOS leaves behind is going by its nature: there, whether it was in the system's way (C8)."""
    requests: dict[str, int] = field(default_factory=dict)
    """What the firmware had of it, as {"reads": 431, "writes": 0}."""
    last_request: float | None = None
    reset: float | None = None
    bus_master_off: float | None = None
    queues: list[Queue] = field(default_factory=list)
    """Where it had them from a PC BIOS when the kernel began."""
    taken_over: float | None = None
    """When the system's own driver first set it going."""
    moved_after: int = 0
    """How often it took or filled a buffer after the hand-over, before the system reset it."""
    unseen: list[str] = field(default_factory=list)
    story: list[Moment] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass
class HandOver:
    """What the trace says of all of them."""

    devices: list[Device]
    kernel: float | None
    """When the kernel first spoke, in seconds after power-on."""
    seen_by: str
    """How the moment was found: "console", "takeover" (the first touch by the OS), or ""."""

    @property
    def live(self) -> int:
        return sum(device.live is True for device in self.devices)

    @property
    def problems(self) -> list[str]:
        return [problem for device in self.devices for problem in device.problems]

    @property
    def unseen(self) -> list[str]:
        return [unseen for device in self.devices for unseen in device.unseen]


@dataclass(frozen=True)
class Bios:
    """What is to be known besides of a PC BIOS, which is never told that it is not needed any more
    (C8): what it leaves behind must be where the system does not go."""

    memory: MemoryMap | None
    """As the system was told."""
    looks: Sequence[Mapping[str, Sequence[Queue]]]
    """Where the devices' queues were, each time that the machine was stopped."""


def _takeover(trace: Trace, device: str) -> int | None:
    """Where an operating system begins with a device, if its console says nothing: every one asks
    first how big the device's BARs are, which firmware does once, before it drives anything."""
    driven = False
    for index, event in enumerate(trace.events):
        if isinstance(event, Status) and event.device == device:
            driven = driven or bool(event.value & _DRIVER_OK)
        elif isinstance(event, ConfigWrite) and event.device == device and driven \
                and event.offset in _BARS and event.value == 0xFFFFFFFF:
            return index
    return None


def judge(trace: Trace, devices: Sequence[str], speaks: str = KERNEL_SPEAKS, *,
          quiet: bool = False, bios: Bios | None = None) -> HandOver:
    """Judge these devices (PCI addresses, as "00:04.0").

    `speaks` is a pattern for the first text after ExitBootServices: a test program that exits by
    itself gives its own. `quiet` is for a system that may have worked for long before it speaks, or
    never does: its first touch of a device counts, if that comes first. With `bios`, they are
    judged by what a PC BIOS can do (C8).
    """
    if not any(isinstance(event, PowerOn) for event in trace.events):
        return HandOver([Device(each, problems=["the trace does not show the machine's start"])
                         for each in devices], None, "")
    spoke = trace.index_of_text(speaks)
    kernel = trace.events[spoke].time if spoke is not None else None
    seen_by = "console" if spoke is not None else ""
    judged = []
    for device in devices:
        takeover = _takeover(trace, device) if quiet else None
        ends = [end for end in (spoke, takeover) if end is not None]
        if takeover is not None and takeover == min(ends):
            seen_by = "takeover"
        judged.append(_judge_device(trace, device, min(ends) if ends else None, bios))
    return HandOver(judged, kernel, seen_by)


def _counted(event: DeviceEvent, kind: str, sent: set[str]) -> str | None:
    """Under which word an event counts, if it is what the firmware asked for, or got."""
    if isinstance(event, Request):
        return "writes" if event.write else "reads"
    if isinstance(event, ScsiCommand):
        return "reads" if event.code in _SCSI_READS else \
            "writes" if event.code in _SCSI_WRITES else "other commands"
    if kind == "virtio-net":
        # What it only reads is sent. What it both reads and writes is for its control queue.
        if isinstance(event, Taken) and not event.to_write:
            return "packets sent"
        if isinstance(event, Filled) and event.size > 0 and event.token not in sent:
            return "received"
    return None


def _judge_device(trace: Trace, name: str, end: int | None, bios: Bios | None) -> Device:
    device = Device(name)
    kind = trace.kinds.get(name, "").removesuffix("-pci")
    device.requests = dict.fromkeys(_WORDS.get(kind, _USUAL), 0)
    status = 0
    bus_master = False
    in_flight: set[str] = set()
    sent: set[str] = set()
    late = 0
    for event in trace.events[:end]:
        if not isinstance(event, DeviceEvent) or event.device != name:
            continue
        if isinstance(event, Status):
            if event.value & _DRIVER_OK:
                if not device.driven:
                    device.story.append(Moment(event.time, "first set going (DRIVER_OK)"))
                device.driven = True
                device.reset = None
                late = 0
            if event.value == 0 and status != 0:
                device.reset = event.time
                if device.driven:
                    device.story.append(Moment(event.time, f"status 0x{status:02x} → 0: reset, "
                                               f"{len(in_flight)} requests in flight"))
                in_flight.clear()
            elif event.echo and event.value != status:
                device.story.append(Moment(event.time, f"status 0x{status:02x} → "
                                           f"0x{event.value:02x}, because bus mastering went off"))
            status = event.value
        elif isinstance(event, ConfigWrite) and event.is_command:
            if bus_master and not event.bus_master:
                device.bus_master_off = event.time
                if device.driven:
                    device.story.append(Moment(event.time, "bus mastering off"))
            elif event.bus_master:
                device.bus_master_off = None
            bus_master = event.bus_master
        elif isinstance(event, Taken):
            in_flight.add(event.token)
            (sent.discard if event.to_write and not event.to_read else sent.add)(event.token)
        elif isinstance(event, Filled):
            in_flight.discard(event.token)
        if isinstance(event, (Taken, Filled, Notify)):
            late += device.reset is not None
        word = _counted(event, kind, sent)
        if word is not None:
            device.requests[word] += 1
            device.last_request = event.time
    if device.last_request is not None:
        *most, last = [f"{count} {word}" for word, count in device.requests.items()]
        device.story.append(Moment(device.last_request, "last of the firmware's "
                                   f"{', '.join(most)} and {last}"))
    # Stable: what has the same stamp stays in the order of the log.
    device.story.sort(key=lambda moment: moment.time)
    _after(device, trace.events[end:] if end is not None else ())
    if _seen(device, trace, end) and end is not None:
        if bios is None:
            _conclude(device, trace, end, status, bus_master, late)
        else:
            _conclude_bios(device, trace, end, bios, len(in_flight))
    return device


def _after(device: Device, events: Sequence[Event]) -> None:
    """What became of the device after the hand-over, up to where the system's driver has it."""
    touched = False
    for event in events:
        if not isinstance(event, DeviceEvent) or event.device != device.device:
            continue
        if isinstance(event, Status) and not event.echo:
            touched = True
            if event.value & _DRIVER_OK:
                device.taken_over = event.time
                return
        elif isinstance(event, (Taken, Filled)):
            device.moved_after += not touched


def _seen(device: Device, trace: Trace, end: int | None) -> bool:
    """Whether there was a hand-over of something that had been in use."""
    name = device.device
    if not any(True for _ in trace.of(name)):
        device.problems.append(f"{name}: the trace does not show this device")
        return False
    if end is None:
        device.problems.append(f"{name}: no operating system was seen taking over")
        return False
    moment = trace.events[end]
    if not device.driven:
        device.live = False
        device.story.append(Moment(moment.time, "never set going by the firmware"))
        return False
    device.story.append(Moment(moment.time, "the kernel's first word" if
                               isinstance(moment, SerialText) else "first touch by the OS"))
    return True


def _conclude(device: Device, trace: Trace, end: int, status: int, bus_master: bool,
              late: int) -> None:
    name = device.device
    moment = trace.events[end]
    device.live = status != 0
    if device.live:
        after = next((event for event in trace.events[end:] if isinstance(event, Status)
                      and event.device == name and event.value == 0 and not event.echo), None)
        reset = f"the reset came only {after.time - moment.time:.3f} s later, from the OS" \
            if after is not None else "it was never reset"
        device.problems.append(f"{name}: still live at the hand-over (status 0x{status:02x}); "
                               f"{reset}")
    if bus_master:
        device.problems.append(f"{name}: bus mastering was still on at the hand-over")
    if device.moved_after:
        device.problems.append(f"{name}: took or filled buffers {device.moved_after} times after "
                               "the hand-over, before the system reset it")
    if late:
        device.problems.append(f"{name}: touched {late} times between its reset and the hand-over")


def _conclude_bios(device: Device, trace: Trace, end: int, bios: Bios, in_flight: int) -> None:
    """What a PC BIOS leaves behind when the system begins is in order if nothing moves in it, if it
    is in memory that the system does not use, and if the system resets it before it uses it."""
    name = device.device
    own = [(index, event) for index, event in enumerate(trace.events)
           if isinstance(event, Status) and event.device == name and not event.echo]
    # The system's first word to the device has to be: reset.
    at, taken = next((pair for pair in own if pair[0] >= end), (len(trace.events), None))
    if taken is None:
        device.problems.append(f"{name}: the system never reset it")
    elif taken.value != 0:
        device.problems.append(f"{name}: the system set its status to 0x{taken.value:02x} without "
                               "a reset before that")
    else:
        device.story.append(Moment(taken.time, "reset by the system"))
    if in_flight:
        device.problems.append(f"{name}: {in_flight} requests were in flight at the hand-over")
    if device.moved_after:
        device.problems.append(f"{name}: took or filled buffers {device.moved_after} times after "
                               "the hand-over, before the system reset it")
    # Queues are where they are from one word to the next.
    since = max((index for index, _ in own if index < at), default=-1)
    stops = [index for index, event in enumerate(trace.events) if isinstance(event, Paused)]
    looks = [(trace.events[stop].time, look[name])
             for stop, look in zip(stops, bios.looks, strict=False)
             if since < stop < at and name in look]
    if not looks:
        device.unseen.append(f"{name}: where its queues were (the machine was not stopped while "
                             "the BIOS had it)")
    elif bios.memory is None:
        device.unseen.append(f"{name}: whether its queues were in reserved memory (the system does "
                             "not tell of the memory map on the serial port)")
    else:
        looked, queues = looks[-1]
        device.queues = list(queues)
        for queue in queues:
            device.story.append(Moment(looked, f"its queue {queue.index} is at "
                                       f"0x{queue.descriptors:x}, {queue.entries} entries"))
            trouble = next(filter(None, (bios.memory.trouble(*part) for part in queue.parts)), None)
            if trouble is not None:
                device.problems.append(f"{name}: queue {queue.index} is where the system may put "
                                       f"something else: {trouble}")
        device.story.sort(key=lambda moment: moment.time)
    device.live = bool(device.problems)
