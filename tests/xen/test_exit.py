# SPDX-License-Identifier: BSD-2-Clause-Patent
"""ExitBootServices on a real Xen: idle, with reads in flight, with many disks, and with a backend that
is dead. Looked at from inside (memory), and from dom0 (XenStore, grants, event channels, logs)."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from programs import MIB, UEFI_ROM, Ran, name_of, random_bytes, run_program
from shared import WatchedXen

from lab.xen import XenHost
from lab.xen.disks import BlockDevice, StoppableDevice, loop, stoppable
from lab.xen.guest import Guest
from lab.xen.judge import complaints, judge
from lab.xen.store import Store
from lab.xen.store import parse as parse_trace

CLOSING, CLOSED, INITIALISING, INIT_WAIT = "5", "6", "1", "2"
BOUND_MS = 5000
"""XEN_EXIT_BOUND_MS."""

CASES = {
    "1 disk": "disks=1",
    "32 reads in flight, blkback": "disks=2 from=1 depth=32",
    "32 reads in flight, qdisk": "disks=2 from=1 depth=32",
    "32 reads in flight, unaligned": "disks=2 from=1 depth=32 shift=1 bytes=4096",
    "8 disks, 32 reads in flight on each": "disks=8 from=1 depth=32 bytes=16K",
    "stale key": "disks=2 from=1 depth=32 stale",
    "dormant": "disks=2 dormant",
    "dead backend": "disks=2 from=1 depth=32 stop",
}
CLEAN = [name for name in CASES if name != "dead backend"]


@dataclass
class Exit:
    """One guest's exit."""

    ran: Ran = field(default_factory=Ran)
    fronts: dict[str, str] = field(default_factory=dict)
    """What is below device/vbd when the guest has ended."""
    before: dict[str, str] = field(default_factory=dict)
    """And when it had not begun."""
    backs: dict[str, str] = field(default_factory=dict)
    """The backends' states."""
    grants: list[int] = field(default_factory=list)
    """References that are mapped."""
    channels: list[int] = field(default_factory=list)
    channels_before: list[int] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Watches, transactions and requests without an answer, of the whole guest."""
    states: dict[int, list[str]] = field(default_factory=dict)
    """What each frontend's state was, one after the other."""
    messages: int = 0
    """Requests to XenStore from the beginning of the exit on."""


@dataclass
class Seen:
    """What the scenario found."""

    exits: dict[str, Exit] = field(default_factory=dict)


def debug_key(xen: XenHost, key: str, end: str) -> str:
    begin = len(xen.log)
    xen.check(f"xl debug-keys {key}", "asking Xen")
    for _ in range(50):
        if re.search(end, xen.log[begin:]):
            break
        xen.pump(0.1)
    return xen.log[begin:]


def mapped(xen: XenHost, domain: int) -> list[int]:
    """References of the domain's that somebody has mapped."""
    text = debug_key(xen, "g", r"gnttab_usage_print_all \] done")
    part = re.search(rf"for remote d{domain} .*?(?=grant-table for|done)", text, re.DOTALL)
    return [int(ref, 16) for ref in re.findall(r"\[0x([0-9a-f]+)\]", part[0])] if part else []


def channels(xen: XenHost, domain: int) -> list[int]:
    """The domain's event channels."""
    # What domains say comes after it, so that this one is whole when the next key's text begins.
    text = debug_key(xen, "e", rf"information for domain {domain}:\n(?s:.*)\n")
    text += debug_key(xen, "g", r"gnttab_usage_print_all \] done")
    part = re.search(rf"for domain {domain}:(.*?)(?=information for|gnttab)", text, re.DOTALL)
    assert part, text
    return [int(port) for port in re.findall(r"^\(XEN\) +(\d+) \[", part[1], re.MULTILINE)]


def below(store: dict[str, str], folder: str) -> dict[str, str]:
    return {path.removeprefix(f"{folder}/"): value for path, value in store.items()
            if path.startswith(f"{folder}/")}


def left_open(store: Store, domain: int) -> list[str]:
    """What a domain has begun in XenStore and not ended."""
    watches: list[str] = []
    transactions = 0
    left = []
    for message in store.of(domain):
        if message.answered is None:
            left.append(f"{message} has no answer")
        if not message.good:
            continue
        if message.kind == "WATCH":
            watches.append(message.text)
        elif message.kind == "UNWATCH":
            watches.remove(message.text)
        transactions += (message.kind == "TRANSACTION_START") - (message.kind == "TRANSACTION_END")
    return left + [f"watch {watch}" for watch in watches] + ["transaction"] * transactions


def answer_reads(device: StoppableDevice) -> None:
    """Let a device go on, and wait for the late writes: they are what this is about."""
    xen = device.xen
    device.go_on()
    number = xen.check(f"dmsetup info -c --noheadings --separator : -o major,minor {device.name}",
                       "asking").strip()
    for _ in range(100):
        if xen.check(f"cat /sys/dev/block/{number}/inflight", "asking").split() == ["0", "0"]:
            return
        time.sleep(0.1)
    raise AssertionError("the reads do not end")


def exit_once(xen: XenHost, options: str, disks: Sequence[str], device: StoppableDevice,
              rom: Path = UEFI_ROM, *, traced: bool = True) -> Exit:
    """Run a guest. `device` is what it can have stopped."""
    seen = Exit()
    if traced:
        xen.trace_store()
    else:
        xen.check("xenstore-control log off", "tracing")

    def prepare(guest: Guest) -> None:
        seen.channels_before = channels(xen, guest.domain)
        seen.before = below(guest.xenstore(), f"/local/domain/{guest.domain}/device/vbd")

    def finish(guest: Guest) -> None:
        text = guest.xenstore()
        seen.fronts = below(text, f"/local/domain/{guest.domain}/device/vbd")
        seen.backs = {path: value for kind in ("vbd", "qdisk") for path, value in below(
            text, f"/local/domain/0/backend/{kind}/{guest.domain}").items()
            if path.endswith("/state")}
        seen.grants = mapped(xen, guest.domain)
        seen.channels = channels(xen, guest.domain)
        if not traced:
            return
        store = parse_trace(xen.traced())
        seen.left = left_open(store, guest.domain)
        numbers = {int(path.split("/")[0]) for path in seen.fronts}
        for number in numbers:
            path = f"/local/domain/{guest.domain}/device/vbd/{number}/state"
            seen.states[number] = [change.value or "" for change in store.changes
                                   if change.path == path and change.domain == guest.domain]
        seen.messages = judge(store, guest.domain, sorted(numbers)).exit_messages

    seen.ran = run_program(xen, "xen_exit", options, disks, prepare=prepare, finish=finish,
                           rom=rom,
                           answers={"stop": lambda _: device.stop(),
                                    "go-on": lambda _: answer_reads(device)})
    return seen


def scenario(xen: XenHost) -> Seen:
    seen = Seen()
    for index in range(7):
        xen.put(random_bytes(4 * MIB, index), f"/jobs/disk{index}.img")
    loops = [loop(xen, f"/jobs/disk{index}.img") for index in range(7)]
    slow = stoppable(xen, loops[0], delay=20)

    def disks_of(name: str) -> list[str]:
        count = int(re.findall(r"disks=(\d+)", CASES[name])[0]) - 1
        devices: list[BlockDevice] = [slow, *loops[1:]]
        specs = [device.spec(name_of(index)) for index, device in enumerate(devices[:count])]
        # xl's hotplug scripts for eight block devices at a time take too long for its patience on a
        # busy machine; QEMU as a backend needs none.
        kernels = 0 if "qdisk" in name else 3
        return specs[:kernels] + [f"{spec},backendtype=qdisk" for spec in specs[kernels:]]

    for name, options in CASES.items():
        # What is said to XenStore at such an exit, test_run.py looks at.
        seen.exits[name] = exit_once(xen, options, disks_of(name), slow,
                                     traced=not name.startswith("8"))
    slow.remove()
    for device in loops[1:]:
        device.remove()
    return seen


@pytest.fixture(name="seen", scope="module")
def fixture_seen(xen: WatchedXen) -> Seen:
    return xen.run(scenario)


def problems(seen: Exit) -> list[str]:
    """What is not as found (C7), and what anybody has to say against it."""
    found = [] if seen.ran.app_result == 0 else [seen.ran.explain()]
    found += [f"left in XenStore: {key}" for key in seen.fronts.keys() - seen.before.keys()]
    found += [f"missing in XenStore: {key}" for key in seen.before.keys() - seen.fronts.keys()]
    found += [f"{key} is {value}" for key, value in seen.fronts.items()
              if seen.before.get(key, value) != value]
    states = [value for path, value in seen.fronts.items() if path.endswith("/state")]
    if not states or set(states) != {INITIALISING}:
        found.append(f"the frontends' states are {states}")
    if len(seen.backs) != len(states) or set(seen.backs.values()) != {INIT_WAIT}:
        found.append(f"the backends' states are {seen.backs}")
    # The toolstack's: XenStore's page and the console's.
    found += [f"grant {ref} is mapped" for ref in seen.grants if ref > 1]
    if seen.channels != seen.channels_before:
        found.append(f"event channels {seen.channels}, were {seen.channels_before}")
    found += [f"left in XenStore: {what}" for what in seen.left]
    found += [f"disk {disk} went {way}" for disk, way in seen.states.items()
              if not re.fullmatch(f"(34{CLOSING}{CLOSED}{INITIALISING})+", "".join(way))]
    found += complaints("dom0's kernel", seen.ran.dom0)
    # Without what it was asked for.
    log = re.sub(r"\(XEN\) gnttab_usage_print_all \[.*?\] done", "", seen.ran.log, flags=re.DOTALL)
    return found + complaints("Xen's log", log.splitlines())


@pytest.mark.parametrize("name", CLEAN)
def test_clean(seen: Seen, name: str) -> None:
    assert problems(seen.exits[name]) == []
    flying = re.search(r"in flight at the exit: (\d+) of (\d+)", seen.exits[name].ran.text)
    if "in flight" in name or "stale" in name:
        assert flying and int(flying[1]) >= 16


def test_a_dead_backend(seen: Seen) -> None:
    """The exit ends in time, and when the backend goes on, not a byte changes that is the guest's."""
    dead = seen.exits["dead backend"]
    dead.ran.passed()
    assert int(dead.ran.said(r"in flight at the exit: (\d+) of 32")[0][1]) == 32
    assert dead.ran.number(r"the exit took (\d+) us") < (BOUND_MS + 500) * 1000
    assert dead.ran.number(r"(\d+) pages watched, 0 changed") > 10000
    # It was dead indeed.
    assert dead.ran.number(r"the exit took (\d+) us") > BOUND_MS * 1000 // 4
    # And in the end it has let go of all data. blkback, which was told to close with requests in
    # flight, has the ring's two pages until the next frontend connects; they are the guest's no more.
    assert len(set(dead.grants) - {0, 1}) <= 2


def test_little_is_said(seen: Seen) -> None:
    """How many words many disks take, test_run.py looks at."""
    assert 0 < seen.exits["1 disk"].messages <= 20


def test_the_group_before_the_exit(seen: Seen) -> None:
    """Debian 12's OVMF does not signal it; should another one do, nothing depends on it."""
    for each in seen.exits.values():
        assert each.ran.number(r"the before-exit group was signalled (\d+) times") in (0, 1)
