# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the tests in virtual machines share: disks with more knobs, and runs that must succeed."""

import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.paths import BUILD, ROM
from lab.qemu import Device, Disk, Result, run_app
from lab.trace import ConfigWrite, DeviceEvent, Request, ScsiCommand, Status, Trace

MIB = 1 << 20
PROGRAMS = BUILD / "tests/vm"
DRIVER_OK = 4


@dataclass(frozen=True)
class TestDisk(Disk):
    """A disk that is something else than a file, `instead`, or that says more of itself."""

    __test__ = False  # pytest: this is no test

    instead: str = ""
    physical: int = 0

    def arguments(self, index: int, address: str) -> list[str]:
        words = super().arguments(index, address)
        if self.instead:
            words[1] = f"if=none,id=drive{index},{self.instead}"
        if self.physical:
            words[3] = re.sub(r"physical_block_size=\d+", f"physical_block_size={self.physical}",
                              words[3])
        return words


def image(path: Path, size: int, seed: int = 1) -> Path:
    """A disk image of random bytes, the same each time."""
    source = random.Random(seed)
    with path.open("wb") as file:
        for at in range(0, size, MIB):
            file.write(source.randbytes(min(MIB, size - at)))
    return path


def crc_of(path: Path) -> int:
    return zlib.crc32(path.read_bytes())


def run(program: str, options: str, disks: Sequence[Device], *, machine: str = "q35",
        memory: int = 512, timeout: float = 120, extra: Sequence[str] = (),
        quiet: bool = False) -> Result:
    """Run a program of tests/vm; what it found wrong is in the result."""
    result = run_app(PROGRAMS / f"{program}.efi", options, disks, machine=machine, memory=memory,
                     timeout=timeout, extra=extra, accelerator="tcg")
    # pytest shows this for a test that fails.
    if not quiet:
        print(result.explain(60))
    return result


def must_pass(result: Result) -> Result:
    assert result.app_result == 0, result.explain(40)
    return result


def said(result: Result, pattern: str) -> list[re.Match[str]]:
    """The program's lines that fit a pattern; there is at least one."""
    found = [match for line in result.lines("vm: ") if (match := re.fullmatch(pattern, line))]
    assert found, f"nothing said like {pattern!r}: {result.explain(40)}"
    return found


def events_after(trace: Trace, text: str, device: str) -> list[DeviceEvent]:
    """What happened to a device once the program had said this."""
    at = trace.index_of_text(text)
    assert at is not None, f"never said: {text}"
    return [event for event in trace.events[at:]
            if isinstance(event, DeviceEvent) and event.device == device]


def assert_let_go(trace: Trace, device: str, text: str) -> None:
    """From these words on: the device is reset, then bus mastering is switched off, in this order,
    and from the reset on it takes no request and is not set going again."""
    events = events_after(trace, text, device)
    resets = [index for index, event in enumerate(events)
              if isinstance(event, Status) and not event.echo and event.value == 0]
    assert resets, f"{device}: not reset after {text!r}"
    reset = resets[0]
    later = events[reset:]
    assert not [event for event in later if isinstance(event, (Request, ScsiCommand))], \
        f"{device}: requests after the reset"
    assert not [event for event in later if isinstance(event, Status) and event.value != 0], \
        f"{device}: set going after the reset"
    masters = [event.bus_master for event in events
               if isinstance(event, ConfigWrite) and event.is_command]
    assert masters and not masters[0], f"{device}: bus mastering not switched off"
    first_off = next(index for index, event in enumerate(events)
                     if isinstance(event, ConfigWrite) and event.is_command)
    assert reset < first_off, f"{device}: bus mastering off before the reset"


def lives(trace: Trace, device: str) -> int:
    """How often the device was set going. After each time, its status has gone back to 0 before
    anything else was written to it."""
    count = 0
    going = False
    for event in trace.of(device):
        if not isinstance(event, Status) or event.echo:
            continue
        if event.value & DRIVER_OK:
            count += not going
            going = True
        elif event.value == 0:
            going = False
        else:
            assert not going, f"{device}: status {event.value} while it was going"
    assert not going, f"{device}: still going at the end"
    return count


__all__ = ["MIB", "PROGRAMS", "ROM", "Disk", "TestDisk", "assert_let_go", "crc_of", "events_after",
           "image", "lives", "must_pass", "run", "said"]
