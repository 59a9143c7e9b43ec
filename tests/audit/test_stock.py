# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Stock OVMF with its own drivers, a device of each kind: facts about somebody else's software, as
docs/findings.md has them; and Baton's drivers, which must be clean."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import baton_audit, drivers_of, failed, verdicts

from lab.cli import HELD, WRONG
from lab.paths import ROM, TOP

PLACE = "0000:00:04.0"
FINDINGS = TOP / "docs/findings.md"


@dataclass(frozen=True)
class Fact:
    """A device of this kind alone: who drives it, and who breaks what."""

    kind: str
    drivers: tuple[str, ...]
    busy: str
    fails: tuple[tuple[str, str], ...] = ()


MEMORY = ("memory", "C4")
ATA = ("SataController", "AtaAtapiPassThruDxe", "AtaBusDxe", "ScsiBus")
FACTS = [
    Fact("virtio-blk", ("Virtio10", "VirtioBlkDxe"), "read"),
    Fact("virtio-blk,disable-modern=on", ("VirtioPciDeviceDxe", "VirtioBlkDxe"), "read"),
    # It waits for each read, also where it is asked not to.
    Fact("virtio-scsi", ("Virtio10", "VirtioScsiDxe"), "read"),
    Fact("virtio-net", ("Virtio10", "VirtioNetDxe"), "receiving", (("IScsiDxe", "C2"),)),
    Fact("nvme", ("NvmExpressDxe",), "reading", (MEMORY, (PLACE, "C4"))),
    Fact("ahci", ATA, "reading", (MEMORY, (PLACE, "C4"))),
    Fact("ide", ATA, "reading", (MEMORY, (PLACE, "C4"))),
    Fact("e1000e", (), "idle"),
    Fact("usb", ("EhciDxe", "UsbBusDxe"), "read"),
    Fact("uhci", ("UhciDxe", "UsbBusDxe"), "read"),
    Fact("xhci", ("XhciDxe", "UsbBusDxe"), "read", (("XhciDxe", "C2"),)),
]


@pytest.mark.parametrize("fact", FACTS, ids=[fact.kind for fact in FACTS])
def test_stock(tmp_path: Path, fact: Fact) -> None:
    status, report = baton_audit(tmp_path / "report", "--no-rom", "--device", fact.kind)
    assert drivers_of(report, PLACE) == list(fact.drivers)
    assert [device["busy"] for device in report["devices"] if device["device"] == PLACE] == \
        [fact.busy]
    assert failed(report) == set(fact.fails)
    assert status == (WRONG if fact.fails else HELD)
    # A read that was in flight has gone into memory that is no longer the firmware's: the device is
    # named, and so is what it was told to write to, which is the auditor's.
    auditor = [image["image"] for image in report["images"] if image["auditor"]]
    landed = [event for event in report["events"] if event["type"] == "change"
              and event["what"] == "buffer of a read"]
    assert {(event["device"], event["owner"]) for event in landed} == \
        ({(PLACE, *auditor)} if MEMORY in fact.fails else set())
    # With the evidence.
    for verdict in report["verdicts"]:
        assert verdict["verdict"] != "fail" or verdict["evidence"]


def test_findings_are_written_down() -> None:
    """The page says of each kind what was found here, and of no other."""
    rows = re.findall(r"^\| `([\w,=-]+)` \| ([^|]*) \| ([^|]*) \|", FINDINGS.read_text(),
                      re.MULTILINE)
    said = {kind: (who, what) for kind, who, what in rows}
    assert set(said) == {fact.kind for fact in FACTS}
    for fact in FACTS:
        who, what = said[fact.kind]
        assert re.findall(r"\w+", who) == (list(fact.drivers) or ["none"])
        broken = {rule for _, rule in fact.fails}
        assert set(re.findall(r"\bC\d", what)) == broken
        assert ("clean" in what) == (not broken)


@pytest.mark.parametrize("options", [
    (), ("--machine", "pc"), ("--stale",), ("--rebind",), ("--as-found",),
    ("--device", "virtio-blk,disable-modern=on"),
    ("--device", "virtio-blk,disable-legacy=off,disable-modern=off", "--device", "virtio-blk",
     "--device", "virtio-blk,queue-size=4"),
], ids=" ".join)
def test_baton_is_clean(tmp_path: Path, options: tuple[str, ...]) -> None:
    status, report = baton_audit(tmp_path / "report", "--rom", ROM, *options)
    assert failed(report) == set()
    assert status == HELD
    if "--as-found" in options:
        return
    said = verdicts(report)
    count = options.count("--device") or 1
    places = [f"0000:00:{4 + index:02x}.0" for index in range(count)]
    for place in places:
        assert drivers_of(report, place) == ["Baton"]
        assert [said[place, rule] for rule in ("C3", "C4", "C5", "C7")] == \
            ["unseen", "pass", "pass", "pass"]
    assert [device["busy"] for device in report["devices"] if device["device"] in places] == \
        ["reading"] * count
    mine = {(image["image"]) for image in report["images"]
            if image["name"] == "Baton"}
    judged = [verdict for verdict in report["verdicts"] if verdict["image"] in mine]
    assert {(verdict["rule"], verdict["verdict"]) for verdict in judged} == \
        {("C1", "pass"), ("C2", "pass"), ("C6", "unseen")}
