# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Ten audits of a machine say ten times the same; and ten of a machine that lets go, with traffic on
every device, never say that it does not."""

from pathlib import Path

from support import Report, baton_audit, drivers_of, failed, verdicts

from lab.cli import HELD, WRONG
from lab.paths import BUILD, ROM

TIMES = 10
OFFENDERS = BUILD / "tests/audit"


def busy(report: Report) -> dict[str, str]:
    """What each device was doing. Whether a disk had answered its last reads when the exit came is
    chance."""
    return {str(device["device"]): str(device["busy"]).replace("reading", "read")
            for device in report["devices"] if device["busy"] != "idle"}


def test_ten_say_the_same(tmp_path: Path) -> None:
    """A machine with a device of each kind, where some break rules and some keep them."""
    kinds = ["virtio-blk", "virtio-blk,romfile=", "virtio-scsi", "virtio-net", "virtio-net", "nvme",
             "ahci", "ide", "xhci", "usb"]
    words = [word for kind in kinds for word in ("--device", kind)]
    first = None
    for _ in range(TIMES):
        status, report = baton_audit(tmp_path / "report", "--rom", ROM, *words)
        said = (status, verdicts(report), busy(report))
        assert status == WRONG
        first = first or said
        assert said == first
    assert first is not None and len(first[2]) == len(kinds)


def test_ten_clean(tmp_path: Path) -> None:
    """Disks that are read, and network cards on which packets arrive all the while."""
    words: list[str | Path] = ["--rom", ROM]
    for device, driver in (("virtio-blk", ""), ("virtio-blk", ""), ("virtio-net,romfile=", "net-innocent"),
                           ("e1000", "e1000-innocent"), ("virtio-scsi", "")):
        words += ["--device", device]
        words += ["--driver", OFFENDERS / f"{driver}.efi"] if driver else []
    for _ in range(TIMES):
        status, report = baton_audit(tmp_path / "report", *words)
        assert failed(report) == set()
        assert status == HELD
        assert drivers_of(report, "0000:00:06.0") == ["net-innocent.efi"]
        assert drivers_of(report, "0000:00:07.0") == ["e1000-innocent.efi"]
        said = verdicts(report)
        assert [said[f"0000:00:{slot:02x}.0", "C4"] for slot in range(4, 9)] == ["pass"] * 5
        # The packets were there before the exit, and would have been put into memory after it.
        assert [event for event in report["events"] if event["type"] == "host-packet"
                and event["device"] == "0000:00:06.0" and event["us"] < 0]
