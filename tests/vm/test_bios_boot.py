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
TAKES_OVER = Options(firmware=Bios())

# Each kind of each dimension at least once, and what is likely to go wrong together.
BOOTS = {
    "q35-modern-mbr": Options(write=MIB),
    "q35-transitional-gpt-3-disks": Options(partitions="gpt", transport="transitional", disks=3,
                                            write=MIB // 4),
    "pc-legacy-gpt": Options(machine="pc", transport="legacy", partitions="gpt", write=MIB),
    "pc-modern-mbr-read-only": Options(machine="pc", read_only=True),
    "q35-scsi-gpt-2-disks": Options(on="virtio-scsi", partitions="gpt", disks=2, write=MIB),
}
QUEUES = {"virtio-blk": [0], "virtio-scsi": [0, 2]}
"""Those that Baton sets up. A BIOS may do without the control queue."""


def run(options: Options) -> Report:
    report = boot(options, Progress())
    print("\n".join(report.held + report.problems))
    assert not report.unseen
    assert len(report.hand_over.devices) == (options.disks if options.on == "virtio-blk" else 1)
    for device in report.hand_over.devices:
        assert device.driven and device.live is False
        queues = [queue.index for queue in device.queues]
        assert queues == (QUEUES[options.on] if options.rom else QUEUES[options.on][-1:])
    return report


@pytest.mark.parametrize("name", BOOTS)
def test_debian(name: str) -> None:
    report = run(replace(BOOTS[name], firmware=BATON.firmware))
    assert report.ok, report.problems


@pytest.mark.parametrize("name", ["q35-modern-mbr", "pc-legacy-gpt"])
def test_debian_taken_over(name: str) -> None:
    """From the BIOS's own driver, which had the disk before."""
    report = run(replace(BOOTS[name], firmware=TAKES_OVER.firmware))
    assert report.ok, report.problems


@pytest.mark.parametrize("name", BOOTS)
def test_debian_by_the_bios(name: str) -> None:
    """The same evidence for another's driver, of which nothing is wrong but whose it is."""
    report = run(replace(BOOTS[name], firmware=OWN.firmware, rom=None))
    assert report.hand_over.problems == []
    assert len(report.problems) == 1 and "driver is SeaBIOS's own" in report.problems[0]
