# SPDX-License-Identifier: BSD-2-Clause-Patent
"""INT 13h, held to its contract by a system that calls nothing else for as long as it lives.

The program (tests/real) looks from inside, and what is on the disks afterwards is looked at from
here. SeaBIOS's own drivers are held to the same; where they are known to fall short, that is
named.
"""

import re
from pathlib import Path

import pytest
from int13 import DRIVERS, GIB, MIB, Driver, Image, Run, images, linux, linux_says, must_hold, run
from lab.qemu import Result
from lab.trace import EVENTS, DeviceEvent, Request, ScsiCommand, Status

CALLS = 1500


def some(*names: str) -> list[object]:
    return [pytest.param(DRIVERS[name], id=name) for name in names]


EVERYWHERE = [pytest.param(driver, machine, id=f"{driver.name}-{machine}")
              for driver in DRIVERS.values() for machine in driver.machines]
BATON_EVERYWHERE = [each for each in EVERYWHERE if "baton" in str(each.id)]
ONCE = some(*DRIVERS)
BATON = some(*(name for name, driver in DRIVERS.items() if driver.baton))


# ---- Calls as they should be ----

@pytest.mark.parametrize("driver, machine", EVERYWHERE)
def test_soak(driver: Driver, machine: str, tmp_path: Path) -> None:
    """Also with A20 off, and with segments of 4 GiB, which a caller may have left in the processor."""
    orders = f"{driver.before}soak {CALLS} a20off 500 big 500"
    disks = images(tmp_path, 1)
    made = run(driver, disks, orders, machine=machine)
    must_hold(made, disks, orders)
    assert [(match[1], match[2]) for match in made.said(r"soak: (\d+) calls, (\d+) refused")] == [
        (str(CALLS), "0"), ("500", "0"), ("500", "0")]
    made.said("big: limits of 4 GiB kept 500 times")


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize("driver, machine", BATON_EVERYWHERE)
def test_many_disks(driver: Driver, machine: str, count: int, tmp_path: Path) -> None:
    orders = f"seed {count} soak {CALLS}"
    disks = images(tmp_path, count)
    made = run(driver, disks, orders, machine=machine)
    must_hold(made, disks, orders)
    made.said(rf"soak: {CALLS} calls, 0 refused")


@pytest.mark.parametrize("driver", some(*(name for name, driver in DRIVERS.items()
                                          if 4096 in driver.sectors)))
def test_large_sectors(driver: Driver, tmp_path: Path) -> None:
    """The program boots from a disk with sectors of 4096 bytes, and there is one of 512 beside."""
    orders = f"soak {CALLS} functions"
    disks = [Image(tmp_path / "a.img", 0, 40 * MIB, 4096), Image(tmp_path / "b.img", 1, 12 * MIB)]
    made = run(driver, disks, orders)
    must_hold(made, disks, orders)
    assert {match[1] for match in made.said(r"8.h disk=.* bytes=(\d+) .*")} == {"512", "4096"}


@pytest.mark.parametrize("driver", ONCE)
def test_large_disk(driver: Driver, tmp_path: Path) -> None:
    """Its last sectors have numbers of 33 bits, where the driver has such, and cylinders, heads and
    sectors end far before."""
    orders = f"{driver.before}soak {CALLS} functions"
    disks = [Image(tmp_path / "a.img", 0, driver.largest)]
    made = run(driver, disks, orders)
    must_hold(made, disks, orders)
    assert made.said(r"80h disk=.* chs=1023/255/63")


def test_much_memory(tmp_path: Path) -> None:
    """All memory below 4 GiB, while some is above."""
    disks = images(tmp_path, 1)
    made = run(DRIVERS["baton-blk"], disks, f"soak {CALLS}", memory=4096)
    must_hold(made, disks, f"soak {CALLS}")
    assert int(made.said(r"memory=(\d+) .*")[0][1]) > 2 * GIB


@pytest.mark.parametrize("driver", BATON)
def test_long(driver: Driver, tmp_path: Path) -> None:
    calls = 100000 if driver.name == "baton-blk" else 20000
    disks = images(tmp_path, 2)
    made = run(driver, disks, f"soak {calls}", machine="q35", timeout=600)
    must_hold(made, disks, f"soak {calls}")
    made.said(rf"soak: {calls} calls, 0 refused")


@pytest.mark.parametrize("driver, machine", BATON_EVERYWHERE)
def test_virtual_8086(driver: Driver, machine: str, tmp_path: Path) -> None:
    """All is done, or all is refused. SeaBIOS's own drivers go astray there now and then."""
    orders = f"{driver.before}v86 500"
    disks = images(tmp_path, 1)
    made = run(driver, disks, orders, machine=machine)
    assert made.verdict == "ok" and made.result.ended == "off", made.result.explain(40)
    refused = int(made.said(r"soak: 500 calls, (\d+) refused")[0][1])
    assert refused in (0, 500)
    assert (disks[0].check(orders) == 0) == (refused == 500)


# ---- What functions answer ----

def test_functions(tmp_path: Path) -> None:
    """Baton's disks answer as the same disks do under SeaBIOS."""
    for kind in ("blk", "scsi"):
        for size in (12 * MIB, 700 * MIB, 9 * GIB):
            answers = {}
            for who in ("seabios", "baton"):
                disks = images(tmp_path, 2, size=size)
                made = run(DRIVERS[f"{who}-{kind}"], disks, "functions")
                must_hold(made, disks, "functions")
                answers[who] = made
            compare_functions(answers["seabios"], answers["baton"])


def compare_functions(bios: Run[Result], baton: Run[Result]) -> None:
    def functions(made: Run[Result]) -> list[str]:
        # AL is nothing that they say, but for transfers by cylinder, head and sector.
        return [re.sub(r" al=..", "" if match[1] not in ("02", "03") else r"\g<0>", match[0])
                for match in made.said(r"8.h fn=(..) .*")]

    def geometry(made: Run[Result]) -> list[str]:
        return [re.sub(r"size=..", "", match[0])
                for match in made.said(r"8.h parameters room=(1a|1e) .*")]
    assert functions(baton) == functions(bios)
    assert geometry(baton) == geometry(bios)
    paths = baton.said(r'(8.h) path bus="PCI " kind="SCSI    " where=(\w+) what=(\w+) sum=0')
    assert len({match.group(1, 2, 3) for match in paths}) == 2
    assert len({match.group(2, 3) for match in paths}) == 2


# ---- Calls as they should not be ----

# What SeaBIOS does that it need not, and does no harm here: it does not look at a packet's size,
# and does not ask the disk when something is to be verified.
TOLERATED = [r"wrong: size \(size 0[01f], .*\): not refused: .*",
             r"wrong: outside \(.*\): not refused: call \d+, ax=44.*",
             r"wrong: 65535 sectors \(.*\): not refused: call \d+, ax=44.*"]


@pytest.mark.parametrize("driver, machine", EVERYWHERE)
def test_bad_arguments(driver: Driver, machine: str, tmp_path: Path) -> None:
    orders = f"{driver.before}bad 2000"
    disks = images(tmp_path, 2)
    made = run(driver, disks, orders, machine=machine)
    assert made.result.ended == "off", made.result.explain(40)
    made.said(r"bad: refused \d\d+, done \d\d+")
    wrong = [line for line in made.lines if line.startswith("wrong:")]
    if not driver.baton:
        wrong = [line for line in wrong
                 if not any(re.fullmatch(pattern, line) for pattern in TOLERATED)]
    assert wrong == []
    assert all(disk.check(orders) == 0 for disk in disks)


@pytest.mark.parametrize("driver", some("baton-blk", "baton-scsi"))
def test_where_the_bios_is(driver: Driver, tmp_path: Path) -> None:
    """A device's DMA would go behind the write protection, so nothing may be read to there; to memory
    between ROMs it may."""
    disks = images(tmp_path, 1)
    made = run(driver, disks, "rom")
    assert made.verdict == "ok" and made.result.ended == "off", made.result.explain(40)
    assert made.said(r"80h rom: [1-9]\d* places tried, 1 beside")
    assert disks[0].check("rom") == 0


# ---- The end ----

@pytest.mark.parametrize("driver", some("seabios-blk", "seabios-scsi", "baton-blk", "baton-scsi"))
def test_nothing_after_the_last_call(driver: Driver, tmp_path: Path) -> None:
    disks = images(tmp_path, 1)
    made = run(driver, disks, "soak 50", trace_events=EVENTS)
    must_hold(made, disks, "soak 50")
    assert requests(made.result, "before the last call"), "the last call is not in the trace"
    assert events(made.result, "after the last call") == []


def events(result: Result, text: str) -> list[DeviceEvent]:
    """What the devices did after these words. QEMU sets their status anew when the machine ends."""
    at = result.trace.index_of_text(text)
    assert at is not None, f"never said: {text}"
    return [event for event in result.trace.events[at:]
            if isinstance(event, DeviceEvent) and not isinstance(event, Status)]


def requests(result: Result, text: str) -> list[DeviceEvent]:
    return [event for event in events(result, text) if isinstance(event, (Request, ScsiCommand))]


@pytest.mark.parametrize("driver", some("seabios-blk", "baton-blk", "baton-scsi",
                                        "baton-over-blk"))
def test_linux(driver: Driver, tmp_path: Path) -> None:
    """After many calls it is started with INT 13h alone, takes the disk over and reads it; and in
    the memory that is not given to it nothing changes, neither before nor after it has done so."""
    disk, order = linux(tmp_path / "a.img")
    orders = f"soak {CALLS} {order}"
    made = run(driver, [disk], orders, memory=512)
    assert made.result.ended == "off" and made.lines[-1] == "linux", made.result.explain(40)
    assert disk.check(orders) > 0
    assert made.result.lines("linux: ") == linux_says(disk, made.lines)


# ---- How long it takes ----

@pytest.mark.parametrize("driver", ONCE)
def test_time(driver: Driver, tmp_path: Path) -> None:
    """That figures are given; no verdict on them."""
    disks = images(tmp_path, 1)
    made = run(driver, disks, f"{driver.before}time 100")
    assert made.verdict == "ok", made.result.explain(40)
    clock = made.said(r"time: clock=(\d+) tsc=0x(\w+)")[0]
    assert int(clock[1]) >= 9 and int(clock[2], 16) > 0
    times = made.said(r"time: 80h sectors=(\d+) reads=100 median=0x(\w+) total=0x(\w+)")
    assert [match[1] for match in times] == ["1", "8", "64", "127"]
    assert all(0 < int(match[2], 16) <= int(match[3], 16) for match in times)


# ---- The program itself ----

BROKEN = {
    "edi": "EDI was .*",
    "ebx": "EBX was .*",
    "es": "ES was .*",
    "gs": "GS was .*",
    "if": "IF was 200 and is 0, .*",
    "df": "DF was .*",
    "pic": "the first PIC's mask was .*",
    "gdt": "GDTR is another, .*",
    "cr0": "CR0 was .*",
    "a20": "A20 was 1 and is 0, .*",
    "vector": "the vector of interrupt 60h is another, .*",
    "stack": r"memory at 0000.... \(the caller's stack\) is .*",
    "low": r"memory at 00004321 \(.*\) is .*",
    "hma": r"memory at 0010abcd \(.*\) is .*",
    "packet": "the packet is another, .*",
    "data": r"80h: sector .*|memory at .* \(what was to be verified only\) is .*",
    "nothing": "80h: sector .*",
    "lba": "80h: sector .*",
    "cf": "refused with ah=20, .*",
    "ticks": "the clock of INT 08h has stopped",
    "limits": "the limits of FS and GS are ffff and ffffffff, .*",
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_bios_is_seen(how: str, tmp_path: Path) -> None:
    """SeaBIOS, and after some calls it does something that it must not."""
    disks = images(tmp_path, 1)
    order = "big" if how == "limits" else "soak"
    made = run(DRIVERS["seabios-blk"], disks, f"broken {how} 20 {order} 300")
    assert re.fullmatch(BROKEN[how], made.verdict), made.result.explain(40)
    before = made.lines.index(f"order {order}")
    assert made.lines.index(f"wrong: {made.verdict}"[:170]) > before


def test_orders_that_are_none(tmp_path: Path) -> None:
    disks = images(tmp_path, 1)
    assert run(DRIVERS["seabios-blk"], disks, "sing").verdict == "in the orders, no order: sing"
    assert run(DRIVERS["seabios-blk"], disks, "soak").verdict == \
        "a number is missing in the orders"
