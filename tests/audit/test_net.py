# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Baton's network cards under the auditor, with packets that arrive before the exit, during it and
for two seconds after it; and a machine with all kinds of devices."""

from pathlib import Path

import pytest
from support import baton_audit, drivers_of, failed, verdicts
from lab.paths import ROM

FIRMWARES = {("IScsiDxe", "C2")}
"""OVMF's own iSCSI driver sits on every interface, and frees memory in the exit."""

CARDS = ("virtio-net", "virtio-net,disable-modern=on", "virtio-net,disable-legacy=off")


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_flood(tmp_path: Path, machine: str) -> None:
    words: list[str | Path] = ["--rom", ROM, "--machine", machine, "--watch", "2000"]
    for card in CARDS:
        words += ["--device", card]
    _, report = baton_audit(tmp_path / "report", *words)
    said = verdicts(report)
    for slot in range(4, 4 + len(CARDS)):
        place = f"0000:00:{slot:02x}.0"
        assert any("Baton" in driver or "Offset" in driver for driver in drivers_of(report, place))
        assert [said[place, rule] for rule in ("C4", "C5", "C7")] == ["pass"] * 3
        packets = [event["us"] for event in report["events"]
                   if event["type"] == "host-packet" and event["device"] == place]
        assert any(us < 0 for us in packets)
    assert failed(report) == FIRMWARES


def test_all_kinds_at_once(tmp_path: Path) -> None:
    kinds = ("virtio-blk", "virtio-blk", "virtio-scsi", "virtio-scsi", "virtio-net", "virtio-net")
    words: list[str | Path] = ["--rom", ROM]
    for kind in kinds:
        words += ["--device", kind]
    _, report = baton_audit(tmp_path / "report", *words)
    said = verdicts(report)
    for slot in range(4, 4 + len(kinds)):
        place = f"0000:00:{slot:02x}.0"
        assert drivers_of(report, place)
        assert [said[place, rule] for rule in ("C4", "C5", "C7")] == ["pass"] * 3
    assert failed(report) == FIRMWARES
