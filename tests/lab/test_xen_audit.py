# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The audit on Xen, without Xen: what it is asked for, and what becomes of what a run shows."""

import re
from pathlib import Path

import pytest

from lab.audit import lines
from lab.errors import LabError
from lab.xen import GuestResult, audit
from lab.xen.audit import Options


def places(options: Options) -> list[tuple[str, str]]:
    return [(device.place, device.asked) for device in audit._plan(options)]


def test_the_auditor_starts_from_the_first_disk() -> None:
    rom = Path("x.rom")
    assert places(Options(rom=rom)) == [("xen:vbd/51776", "xen-vbd")]
    assert places(Options(rom=rom, devices=["xen-cdrom", "xen-vbd-4096", "xen-vbd-qdisk"])) == [
        ("xen:vbd/51776", "xen-vbd-qdisk"), ("xen:vbd/51792", "xen-cdrom"),
        ("xen:vbd/51808", "xen-vbd-4096")]


def test_without_a_rom_it_starts_from_an_emulated_disk() -> None:
    twin = ("xen:vbd/768", "an emulated disk's twin")
    assert places(Options(rom=None)) == [twin]
    assert places(Options(rom=None, devices=["xen-cdrom"])) == [twin, ("xen:vbd/51776",
                                                                        "xen-cdrom")]
    assert places(Options(rom=Path("x.rom"), twin=True)) == [twin]


@pytest.mark.parametrize(("options", "words"), [
    (Options(rom=None, devices=["nvme"]), "--device nvme: there is no such kind on Xen; there are"),
    (Options(devices=["xen-cdrom"]), "starts from one of the disks: add --device xen-vbd"),
    (Options(rom=Path("/none")), "does not exist"),
    (Options(rom=None, firmware=Path(__file__)), "is not an OVMF that hvmloader can start"),
    (Options(rom=None, drivers=[Path(__file__)]), "is not a PE program"),
    (Options(rom=None, app=Path("/none")), "run `make audit`"),
])
def test_what_cannot_be(options: Options, words: str) -> None:
    with pytest.raises(LabError, match=words):
        audit.check(options)


def result(ended: str, serial: str = "") -> GuestResult:
    return GuestResult(ended, 10.0, serial, "", 3)  # type: ignore[arg-type]


START = '{"type":"start","format":"handover","version":1,"firmware":{}}\n'


@pytest.mark.parametrize(("ended", "serial", "words"), [
    ("timeout", "", "the auditor never began .ended after 60 s; the firmware said nothing"),
    ("timeout", "UEFI Interactive Shell\n", "last words are: UEFI Interactive Shell"),
    ("crash", START, "did not come to its end: Xen crashed the guest; .* before its first one"),
    ("reset", START + '{"type":"phase","phase":"owner"}\n', "in the phase owner"),
    ("off", START, "did not start and end once"),
    ("off", START + '{"type":"error","what":"no memory"}\n', "the auditor says: no memory"),
])
def test_what_is_no_audit(ended: str, serial: str, words: str) -> None:
    trouble = audit.trouble(result(ended, serial), lines.parse(serial), 60)
    assert trouble is not None and re.search(words, trouble), trouble


def test_complaints_break_a_rule() -> None:
    said = lines.parse(START + '{"type":"phase","phase":"return","us":500}\n')
    quiet = audit.host_saw(said, ["[ 1.0] xen-blkback: using 1 queues"], ["(XEN) hello"])
    assert quiet.findings == [] and quiet.events == []
    seen = audit.host_saw(said, [], ["(XEN) common/grant_table.c:803:d0v0 Bad flags (0)"])
    assert [(each.device, each.rule, each.verdict) for each in seen.findings] == [
        ("xen:domain", "C4", "fail")]
    assert seen.events[0]["us"] == 500 and "Xen's log" in seen.events[0]["what"]
