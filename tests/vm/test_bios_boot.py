# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Debian boots from a PC BIOS: by Baton behind INT 13h, and by SeaBIOS's own drivers."""

from dataclasses import replace

import pytest
from support import MIB
from lab.boot import Options, boot
from lab.progress import Progress
from lab.qemu import Bios
from lab.report import Report

OWN = Options(firmware=Bios(), rom=None)
BATON = Options(firmware=Bios(strict=True))

# Each kind of each dimension at least once, and what is likely to go wrong together.
BOOTS = {
    "q35-modern-mbr": Options(write=MIB),
    "q35-transitional-gpt-3-disks": Options(partitions="gpt", transport="transitional", disks=3,
                                            write=MIB // 4),
    "pc-legacy-gpt": Options(machine="pc", transport="legacy", partitions="gpt", write=MIB),
    "pc-modern-mbr-read-only": Options(machine="pc", read_only=True),
    "scsi-q35-modern-mbr-3-units": Options(on="virtio-scsi", disks=3, write=MIB // 4),
    "scsi-pc-legacy-gpt": Options(on="virtio-scsi", machine="pc", transport="legacy",
                                  partitions="gpt", write=MIB),
}


def run(options: Options) -> Report:
    report = boot(options, Progress())
    print("\n".join(report.held + report.problems))
    assert not report.unseen
    assert len(report.hand_over.devices) == (options.disks if options.on == "virtio-blk" else 1)
    for device in report.hand_over.devices:
        assert device.driven and device.live is False
        # Of a SCSI controller, that of the requests; one for its control is nobody's duty.
        assert {queue.index for queue in device.queues} - {0} == \
            ({2} if options.on == "virtio-scsi" else set())
        assert device.queues
    return report


@pytest.mark.parametrize("name", BOOTS)
def test_debian(name: str) -> None:
    report = run(replace(BOOTS[name], firmware=BATON.firmware))
    assert report.ok, report.problems


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_taken_over_from_the_bios(machine: str) -> None:
    """SeaBIOS has set both disks going. The one that is called for becomes Baton's."""
    report = run(Options(firmware=Bios(), machine=machine, disks=2, write=MIB // 4))
    assert report.ok, report.problems
    called, other = report.hand_over.devices
    assert called.requests["reads"] and not other.requests["reads"]
    assert any("Baton drove the disk" in line for line in report.held)
    assert any("called the BIOS for 00:05.0" in line for line in report.held)


@pytest.mark.parametrize("name", ["q35-transitional-gpt-3-disks", "scsi-pc-legacy-gpt"])
def test_debian_by_the_bios(name: str) -> None:
    """The same evidence for another's driver, of which nothing is wrong but whose it is."""
    report = run(replace(BOOTS[name], firmware=OWN.firmware, rom=None))
    assert report.hand_over.problems == []
    assert len(report.problems) == 1 and "driver is SeaBIOS's own" in report.problems[0]
