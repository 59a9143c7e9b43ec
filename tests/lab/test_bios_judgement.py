# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a PC BIOS leaves behind (C8): who had the disk, where its queues are, and what moved."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from lab import e820, handover, whose
from lab.handover import HandOver, judge
from lab.queues import Queue, Watch
from lab.trace import Paused, Status
from traces import KERNEL, PCI, Log, bios

MAP = """\
[    0.000000] BIOS-provided physical RAM map:
[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable
[    0.000000] BIOS-e820: [mem 0x000000000009fc00-0x000000000009ffff] reserved
[    0.000000] BIOS-e820: [mem 0x00000000000f0000-0x00000000000fffff] reserved
[    0.000000] BIOS-e820: [mem 0x0000000000100000-0x000000001ffdcfff] usable
[    0.000000] BIOS-e820: [mem 0x000000001ffdd000-0x000000001fffefff] reserved
[    0.000000] BIOS-e820: [mem 0x000000001ffff000-0x000000001fffffff] ACPI data
[    0.000000] BIOS-e820: [mem 0x00000000fffc0000-0x00000000ffffffff] reserved
[    0.000000] e820: update [mem 0x1ffdd000-0x1fffefff] usable ==> reserved
"""
QUEUE = Queue(0, 256, 0x1FFDD000, 0x1FFDE000, 0x1FFDF000)


# ---- The memory map ----

def test_map() -> None:
    found = e820.parse(MAP)
    assert found is not None and len(found.ranges) == 7
    assert found.ranges[0] == e820.Range(0, 0x9FC00, "usable")
    assert found.ranges[5] == e820.Range(0x1FFFF000, 0x20000000, "ACPI data")
    assert e820.parse("Linux version 6\n") is None


@pytest.mark.parametrize(("start", "size", "trouble"), [
    (0x1FFDD000, 0x22000, ""),
    (0x9FC00, 0x400, ""),
    # Up to 1 MiB there are no words needed, and it goes on behind them.
    (0xE0000, 0x20000, ""),
    (0x9FC00, 0x100000 - 0x9FC00, ""),
    (0x9FC00, 0x100001 - 0x9FC00, "0x100000 is in 0x100000–0x1ffdcfff, which the memory map calls "
                                  "usable"),
    (0x1FFDCFFF, 2, "calls usable"),
    (0x1FFFEFFF, 2, "0x1ffff000 is in 0x1ffff000–0x1fffffff, which the memory map calls ACPI data"),
    (0x1000, 1, "calls usable"),
    (0x30000000, 1, "0x30000000 is in no range"),
    (0xFFFFFFFF, 2, "0x100000000 is in no range"),
])
def test_trouble(start: int, size: int, trouble: str) -> None:
    found = e820.parse(MAP)
    assert found is not None
    said = found.trouble(start, size)
    assert said is None if trouble == "" else said is not None and trouble in said


def test_overlapping_ranges_are_what_is_worse() -> None:
    found = e820.MemoryMap([e820.Range(0x200000, 0x300000, "reserved"),
                            e820.Range(0x280000, 0x281000, "usable")])
    assert found.trouble(0x200000, 0x80000) is None
    assert "usable" in (found.trouble(0x200000, 0x80001) or "")


# ---- Asking QEMU ----

class FakeQmp:
    """Answers as QEMU 7.2 does."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.devices = ["/machine/peripheral/disk0/virtio-backend",
                        "/machine/peripheral/scsi1/virtio-backend",
                        "/machine/unattached/device[3]/virtio-backend"]

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        self.asked.append(command)
        if command == "x-query-virtio":
            return [{"path": path, "name": "virtio"} for path in self.devices]
        if command == "x-query-virtio-status":
            assert arguments is not None
            return {"num-vqs": 1 if "disk" in arguments["path"] else 3}
        if command == "x-query-virtio-queue-status":
            assert arguments is not None
            index = arguments["queue"]
            # Only one of the controller's queues has been told where it is.
            base = 0x1FFDD000 if "disk" in arguments["path"] else 0x1FFD0000 if index == 2 else 0
            return {"vring-desc": base, "vring-avail": base + 0x1000 if base else 0,
                    "vring-used": base + 0x2000 if base else 0, "vring-num": 256}
        return {}


def test_watch() -> None:
    qmp = FakeQmp()
    watch = Watch([PCI, "00:05.0"], r"Linux version \d")
    watch(qmp, "GRUB")  # type: ignore[arg-type]
    assert qmp.asked == [] and watch.looks == []
    qmp.events.append({"event": "GUEST_PANICKED"})
    watch(qmp, "GRUB")  # type: ignore[arg-type]
    watch(qmp, "GRUB")  # type: ignore[arg-type]
    assert watch.looks == [{PCI: [QUEUE], "00:05.0": [Queue(2, 256, 0x1FFD0000, 0x1FFD1000,
                                                            0x1FFD2000)]}]
    # The guest has stopped by itself; it is for us to have it go on.
    assert qmp.asked[0] == "x-query-virtio" and qmp.asked[-1] == "cont"
    assert "stop" not in qmp.asked
    qmp.asked.clear()
    watch(qmp, "GRUB\nLinux version 6")  # type: ignore[arg-type]
    watch(qmp, "GRUB\nLinux version 6.1\n")  # type: ignore[arg-type]
    assert len(watch.looks) == 2
    assert qmp.asked[0] == "stop" and qmp.asked[-1] == "cont" and qmp.asked.count("stop") == 1


def test_parts_of_a_queue() -> None:
    assert QUEUE.parts == [(0x1FFDD000, 4096), (0x1FFDE000, 518), (0x1FFDF000, 2054)]


# ---- The trace ----

def test_a_pause_is_in_the_trace() -> None:
    trace = Log().power_on().firmware().pause().pause(state="paused").status(0).parse()
    assert sum(isinstance(event, Paused) for event in trace.events) == 2
    said = [event for event in trace.of(PCI) if isinstance(event, Status)]
    # What QEMU says to the device meanwhile is nobody's word; what the guest says then is its.
    assert [event.echo for event in said[-6:]] == [False, True, True, True, True, False]


def test_the_end_is_no_pause() -> None:
    log = Log().power_on()
    log.add("runstate_set current_run_state 9 (running) new_state 11 (shutdown)", 1)
    assert not any(isinstance(event, Paused) for event in log.parse().events)


# ---- The judgement ----

def verdict(log: Log, *, text: str = MAP, queue: Queue | None = QUEUE, looks: int = 1,
            quiet: bool = False) -> HandOver:
    look = {PCI: [queue] if queue else []}
    return judge(log.parse(), [PCI], quiet=quiet,
                 bios=handover.Bios(e820.parse(text), [look] * looks))


def only_problem(found: HandOver) -> str:
    assert len(found.problems) == 1, found.problems
    assert found.live == 1 and not found.unseen
    return found.problems[0]


def test_clean() -> None:
    found = verdict(bios())
    assert found.problems == [] and found.unseen == [] and found.live == 0
    device = found.devices[0]
    assert device.driven and device.live is False and device.queues == [QUEUE]
    assert device.requests == {"reads": 2, "writes": 0}
    told = [moment.what for moment in device.story]
    assert told == ["first set going (DRIVER_OK)", "last of the firmware's 2 reads and 0 writes",
                    "its queue 0 is at 0x1ffdd000, 256 entries", "the kernel's first word",
                    "reset by the system"]


def test_a_stop_after_the_kernel_s_first_word_will_do() -> None:
    log = Log().power_on().firmware().serial(KERNEL).pause(state="paused").linux()
    assert verdict(log).problems == [] and verdict(log).unseen == []


def test_the_last_stop_before_the_reset_counts() -> None:
    log = Log().power_on().firmware().pause().serial(KERNEL).pause().linux().pause()
    good, wrong = {PCI: [QUEUE]}, {PCI: [replace(QUEUE, used=0x1000)]}
    for looks, problems in (([wrong, good, wrong], 0), ([good, wrong, good], 1)):
        found = judge(log.parse(), [PCI], bios=handover.Bios(e820.parse(MAP), looks))
        assert len(found.problems) == problems


@pytest.mark.parametrize("part", ["descriptors", "available", "used"])
def test_a_queue_in_memory_that_is_the_system_s(part: str) -> None:
    found = verdict(bios(), queue=replace(QUEUE, **{part: 0x100000}))
    assert "queue 0 is where the system may put something else: 0x100000 is in 0x100000–" in \
        only_problem(found)


def test_a_queue_whose_end_is_in_memory_that_is_the_system_s() -> None:
    # The used ring's last entry is behind the end of what is reserved.
    assert verdict(bios(), queue=replace(QUEUE, used=0x1FFFF000 - 2054)).problems == []
    found = verdict(bios(), queue=replace(QUEUE, used=0x1FFFF000 - 2053))
    assert "ACPI data" in only_problem(found)


def test_moved_before_the_reset() -> None:
    log = Log().power_on().firmware().pause().serial(KERNEL).read().linux()
    assert "took or filled buffers 2 times" in only_problem(verdict(log))


def test_filled_before_the_reset() -> None:
    log = Log().power_on().firmware().take().pause().serial(KERNEL).complete().linux()
    found = verdict(log)
    assert found.live == 1 and len(found.problems) == 2
    assert "1 requests were in flight" in found.problems[0]
    assert "took or filled buffers 1 times" in found.problems[1]


def test_never_answered() -> None:
    log = Log().power_on().firmware().take().pause().serial(KERNEL).linux()
    assert "1 requests were in flight" in only_problem(verdict(log))


def test_never_reset() -> None:
    log = Log().power_on().firmware().pause().serial(KERNEL)
    assert "the system never reset it" in only_problem(verdict(log))


def test_used_without_a_reset() -> None:
    log = Log().power_on().firmware().pause().serial(KERNEL).status(1).status(0).status(15)
    assert "set its status to 0x01 without a reset" in only_problem(verdict(log))


def test_what_is_on_by_nature_is_no_fault() -> None:
    """Status not 0, bus mastering on: nobody told the BIOS."""
    log = Log().power_on().firmware().command(3, status=11).command(7).status(15)
    assert verdict(log.pause().serial(KERNEL).linux()).problems == []


@pytest.mark.parametrize("log", [
    Log().power_on().firmware().serial(KERNEL).linux(),
    Log().power_on().pause().firmware().serial(KERNEL).linux(),
    Log().power_on().firmware().serial(KERNEL).linux().pause(),
    Log().power_on().firmware().pause().status(0).status(15).serial(KERNEL).linux(),
], ids=["never", "before", "after", "set up again"])
def test_nobody_looked_in_time(log: Log) -> None:
    found = verdict(log)
    assert found.problems == [] and len(found.unseen) == 1
    assert "where its queues were" in found.unseen[0]


def test_no_map() -> None:
    found = verdict(bios(), text="")
    assert found.problems == [] and len(found.unseen) == 1
    assert "does not tell of the memory map" in found.unseen[0]


def test_no_kernel() -> None:
    found = verdict(Log().power_on().firmware().pause())
    assert any("no operating system was seen" in problem for problem in found.problems)


def test_left_alone() -> None:
    found = verdict(Log().power_on().command(0).command(7).pause(status=0).serial(KERNEL).linux(),
                    queue=None)
    assert found.problems == [] and found.unseen == [] and found.live == 0
    assert not found.devices[0].driven


def test_a_quiet_system() -> None:
    log = Log().power_on().firmware().pause().linux()
    found = verdict(log, quiet=True)
    assert found.seen_by == "takeover" and found.problems == [] and found.unseen == []


# ---- Whose disk it was ----

LINES = ("SeaBIOS (version 1.16.2-debian-1.16.2-1)\n"
         "Baton: drive 80h: virtio-blk at 00:04.0, 126976 sectors of 512 bytes\n"
         "Baton: drive 8ah: virtio-scsi 0:10 at 00:05.0, 16384 sectors of 4096 bytes\n"
         "Baton: drive 8bh: xvde, 8 sectors of 512 bytes\n")


def test_what_baton_says() -> None:
    answer = whose.parse_bios(LINES, ["00:04.0", "00:05.0/0:10", "00:06.0"])
    assert (answer.vendor, answer.revision) == ("SeaBIOS", "1.16.2-debian-1.16.2-1")
    assert answer.complete
    assert {name: (disk.device, disk.blocks, disk.block_size, [driver.name for driver in
                                                                disk.drivers])
            for name, disk in answer.disks.items()} == {
        "00:04.0": ("00:04.0", 126976, 512, ["Baton virtio-blk driver"]),
        "00:05.0/0:10": ("00:05.0", 16384, 4096, ["Baton virtio-scsi driver"]),
        "xvde": ("xvde", 8, 512, ["Baton xen driver"]),
        "00:06.0": ("00:06.0", 0, 0, ["SeaBIOS's own"])}
    assert [disk.driver is not None and disk.driver.is_baton for disk in answer.disks.values()] == \
        [True, True, True, False]


@pytest.mark.parametrize(("old", "new"), [
    ("Baton: drive", "  Baton: drive"), ("80h", "080h"), ("virtio-blk at", "virtio-blk 0:0 at"),
    ("00:04.0,", "04.0,"), ("512 bytes\n", "512 bytes.\n"), ("126976", "about 126976"),
    ("virtio-blk", "nvme"), ("at 00", "at bus 00"), ("virtio-blk at", "xvde at"),
    ("virtio-blk at 00:04.0", "virtio-blk"), ("virtio-blk at 00:04.0", "hda"),
])
def test_other_words_are_not_baton_s(old: str, new: str) -> None:
    lines = "".join(LINES.splitlines(keepends=True)[:2])
    assert old in lines
    answer = whose.parse_bios(lines.replace(old, new), ["00:04.0"])
    assert [disk.driver.name for disk in answer.disks.values() if disk.driver] == ["SeaBIOS's own"]


def test_a_bios_that_did_not_speak() -> None:
    answer = whose.parse_bios("", ["00:04.0"])
    assert not answer.complete
    assert answer.disks["00:04.0"].driver is not None
    assert answer.disks["00:04.0"].driver.name == "the BIOS's own"
