# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Baton's network cards under the auditor, with packets that arrive before the exit, during it and
for two seconds after it; and a machine with all kinds of devices."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from support import Report, baton_audit, drivers_of, failed, verdicts
from lab.paths import ROM

FIRMWARES = {("IScsiDxe", "C2")}
"""OVMF's own iSCSI driver sits on every interface, and frees memory in the exit."""

CARDS = ("virtio-net", "virtio-net,disable-modern=on", "virtio-net,disable-legacy=off")


def audited(tmp_path: Path, devices: Sequence[str], *words: str) -> tuple[Report, list[str]]:
    """The report on devices that Baton drives and lets go of, and their places."""
    asked = [word for device in devices for word in ("--device", device)]
    _, report = baton_audit(tmp_path / "report", "--rom", ROM, *asked, *words)
    said = verdicts(report)
    places = [f"0000:00:{slot:02x}.0" for slot in range(4, 4 + len(devices))]
    for place in places:
        assert any("Baton" in driver or "Offset" in driver for driver in drivers_of(report, place))
        assert [said[place, rule] for rule in ("C4", "C5", "C7")] == ["pass"] * 3
    assert failed(report) == (set() if "--no-ip" in words else FIRMWARES)
    return report, places


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_flood(tmp_path: Path, machine: str) -> None:
    report, places = audited(tmp_path, CARDS, "--machine", machine, "--watch", "2000")
    for place in places:
        packets = [event["us"] for event in report["events"]
                   if event["type"] == "host-packet" and event["device"] == place]
        assert any(us < 0 for us in packets)


@pytest.mark.parametrize("words", [(), ("--no-ip",)], ids=["as-is", "no-ip"])
def test_all_kinds_at_once(tmp_path: Path, words: Sequence[str]) -> None:
    """Nobody breaks anything, but for what comes with the firmware's IP stack, where that is on."""
    audited(tmp_path, [kind for kind in ("virtio-blk", "virtio-scsi", "virtio-net")
                       for _ in range(2)], *words)
