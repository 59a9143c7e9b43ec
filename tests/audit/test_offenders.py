# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Drivers that break a rule each: the auditor names the driver or its device, and the rule, and has
nothing to say of the same driver without the offence."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.cli import CANNOT, HELD, WRONG
from lab.paths import BUILD, TOP

DRIVERS = BUILD / "tests/audit"
PLACE = "0000:00:04.0"
"""Where the one device of each machine is."""
BLK, NET, E1000 = "virtio-blk", "virtio-net,rx_queue_size=1024", "e1000"

MAP, MEMORY = "firmware memory map C2", "firmware memory C4"

Report = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """What must fail, and nothing else: "driver" and "device" are the ones under test. `evidence`
    are services, for which calls of the driver's are shown, and types of events of its own or of
    its device's."""

    driver: str
    fails: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    device: str = BLK
    options: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    """What may fail as well, as it happens."""


_LIVE = ("device C4", "device C7")
_WRITES = (*_LIVE, MEMORY)

OFFENDERS = [
    # What fails, and what shows it.
    Case("frees-pool", ("driver C2",), ("FreePool",)),
    Case("frees-pool-last", ("driver C2",), ("FreePool",)),
    Case("frees-pool-aside", ("driver C2",), ("FreePool",)),
    Case("allocates-pages", ("driver C2", MAP), ("AllocatePages",)),
    Case("allocates-buffer", ("driver C2", MAP), ("AllocatePages",)),
    Case("adds-memory-space", ("driver C2", MAP), ("handler",)),
    Case("disconnects", ("driver C2", MAP), ("DisconnectController",)),
    Case("closes-its-event", ("driver C2",), ("CloseEvent",)),
    Case("arms-timer", ("driver C2",), ("SetTimer",)),
    Case("locates", ("driver C2",), ("LocateProtocol",)),
    Case("dawdles", ("driver C6",), ("handler",)),
    Case("stale-event", ("driver C1",)),
    Case("stale-event", ("driver C1",), options=("--rebind",)),
    # Notified after the exit, a live queue is looked at, and the device writes to it.
    Case("leaves-ring-live", _WRITES, ("state", "change")),
    Case("leaves-read", _WRITES, ("state", "change")),
    Case("leaves-last-read", _WRITES, ("state", "change")),
    Case("leaves-master", _LIVE, ("state",)),
    Case("only-cuts-bus", _WRITES, ("state", "change")),
    Case("frees-live-ring", ("driver C2", "device C5", MAP), ("FreePages",)),
    Case("touches-dormant", ("device C3",), ("host-status",)),
    Case("two-rules", ("driver C2", MAP, *_WRITES), ("AllocatePages", "change")),
    # Its ring is memory that was given up, too. Once that is filled, the device finds nothing to
    # receive into; whether it has written to what was filled before is a matter of moments.
    Case("leaves-receive-queue", _LIVE, ("state", "host-packet"), NET, may=(MEMORY,)),
    Case("leaves-e1000", ("device C4", MEMORY), ("change",), E1000),
    Case("e1000-only-cuts-bus", ("device C4", MEMORY), ("state", "change"), E1000),
]

INNOCENTS = [
    Case("innocent"),
    Case("innocent", options=("--stale",)),
    Case("asks-little"),
    Case("allocates-before"),
    Case("spoils-first-key"),
    Case("net-innocent", device=NET),
    Case("e1000-innocent", device=E1000),
]


def audit(case: Case, target: Path, timeout: int = 60) -> tuple[int, Report]:
    """As a user does it. The machine is a pc, where what the firmware drives besides the device
    under test lets go as it should."""
    # Calls are seen at the exit; it is devices that take their time.
    watch = "1000" if case.device != BLK or MEMORY in (*case.fails, *case.may) else "100"
    words: list[str | Path] = [
        TOP / "baton", "audit", "--no-rom", "--machine", "pc", "--memory", "256", "--watch", watch,
        "--driver", DRIVERS / f"{case.driver}.efi", "--device", case.device,
        "--timeout", str(timeout), "--json", target, *case.options]
    run = subprocess.run(words, capture_output=True, text=True)
    print(run.stdout, run.stderr)  # pytest shows them for a test that fails
    return run.returncode, json.loads(target.read_text()) if target.exists() else {}


def subject_of(verdict: Report, case: Case) -> str:
    """A verdict's subject in the words of the table above."""
    if (verdict["subject"], verdict["name"]) == ("device", PLACE):
        return "device"
    if (verdict["subject"], verdict["name"]) == ("driver", f"{case.driver}.efi"):
        return "driver"
    return f"{verdict['subject']} {verdict['name']}"


def failures(report: Report, case: Case) -> dict[str, list[Report]]:
    """What failed, "device C4", with its evidence."""
    return {f"{subject_of(verdict, case)} {verdict['rule']}":
            [report["events"][index] for index in verdict["evidence"]]
            for verdict in report["verdicts"] if verdict["verdict"] == "fail"}


def ours(report: Report, case: Case) -> int:
    """The number of the driver's image."""
    name = f"{case.driver}.efi"
    numbers = [image["image"] for image in report["images"] if image["name"] == name]
    assert len(numbers) == 1, f"images of {case.driver}: {numbers}"
    return int(numbers[0])


def shows(event: Report, what: str, image: int) -> bool:
    """Whether an event is that call of the image's, or an event of that type of its own or of the
    device's."""
    if event["type"] == "call":
        return bool(event["service"] == what and event["blame"] == image)
    return bool(event["type"] == what and (event.get("image") == image
                                           or event.get("device") == PLACE))


def held(report: Report, image: int) -> list[str]:
    """Which devices the driver holds."""
    return [device["device"] for device in report["devices"] if image in device["drivers"]]


@pytest.mark.parametrize("case", OFFENDERS,
                         ids=[" ".join((case.driver, *case.options)) for case in OFFENDERS])
def test_offender(tmp_path: Path, case: Case) -> None:
    status, report = audit(case, tmp_path / "report")
    assert status == WRONG
    assert report["result"] == "violations"
    found = failures(report, case)
    assert set(found) - set(case.may) == set(case.fails)
    image = ours(report, case)
    assert held(report, image) == [PLACE]
    for what in case.evidence:
        assert [event for events in found.values() for event in events
                if shows(event, what, image)], f"nothing shows {what}"


@pytest.mark.parametrize("case", INNOCENTS,
                         ids=["".join([case.driver, *case.options]) for case in INNOCENTS])
def test_innocent(tmp_path: Path, case: Case) -> None:
    """The driver is there, does its work, and is cleared, not merely overlooked."""
    status, report = audit(case, tmp_path / "report")
    assert failures(report, case) == {}
    assert (status, report["result"]) == (HELD, "clean")
    image = ours(report, case)
    assert held(report, image) == [PLACE]
    passed = {f"{subject_of(verdict, case)} {verdict['rule']}" for verdict in report["verdicts"]
              if verdict["verdict"] == "pass"}
    assert passed >= {"driver C1", "driver C2", "device C4", MAP}
    handlers = [event for event in report["events"] if event["type"] == "handler"
                and event["image"] == image and event["group"] == "exit"]
    assert len(handlers) == 1
    states = {event["when"]: event["live"] for event in report["events"]
              if event["type"] == "state" and event["device"] == PLACE}
    assert states == {"call": True, "exit": False, "end": False}


def test_many(tmp_path: Path) -> None:
    """Many offenders in one machine, a device for each: nobody is blamed for another's doing."""
    names = ("arms-timer", "innocent", "frees-pool", "leaves-ring-live", "closes-its-event",
             "locates", "only-cuts-bus", "frees-pool-last")
    words: list[str | Path] = [TOP / "baton", "audit", "--no-rom", "--machine", "pc",
                               "--timeout", "90", "--json", tmp_path / "report"]
    for name in names:
        words += ["--driver", DRIVERS / f"{name}.efi", "--device", BLK]
    run = subprocess.run(words, capture_output=True, text=True)
    print(run.stdout, run.stderr)
    assert run.returncode == WRONG
    report = json.loads((tmp_path / "report").read_text())
    images = {image["image"]: image["name"] for image in report["images"]}
    holders = {device["device"]: [images[image].removesuffix(".efi") for image in device["drivers"]]
               for device in report["devices"]}
    expected = {("" if rule.startswith("firmware") else case.driver, rule)
                for case in OFFENDERS if case.driver in names for rule in case.fails}
    found = set()
    for verdict in report["verdicts"]:
        if verdict["verdict"] != "fail":
            continue
        holding = [name for name in holders.get(verdict["name"], []) if name in names]
        if verdict["subject"] == "firmware":
            found.add(("", f"firmware {verdict['name']} {verdict['rule']}"))
        else:
            who = holding[0] if holding else verdict["name"].removesuffix(".efi")
            found.add((who, f"{verdict['subject']} {verdict['rule']}"))
    assert found == expected


@pytest.mark.parametrize("driver", ["never-exits", "crashes", "hangs"])
def test_no_audit(tmp_path: Path, driver: str) -> None:
    """What cannot be audited is not clean, and ends within its bound."""
    status, report = audit(Case(driver), tmp_path / "report", timeout=40)
    assert status == CANNOT
    assert report["result"] == "could not audit"
    assert report["error"]
