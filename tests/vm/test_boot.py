# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Debian boots from devices that Baton drives, and finds them as they should be."""

import hashlib
import shutil
import zlib
from pathlib import Path

import pytest
from support import MIB, PROGRAMS, ROM, image, said
from lab import guestlog, qemu
from lab.boot import Options, boot
from lab.guest import guest
from lab.handover import judge
from lab.progress import Progress
from lab.qemu import Disk, Machine

WRITE = 2 * MIB

# Each kind of each dimension at least once, and what is likely to go wrong together.
BOOTS = {
    "q35-modern": Options(write=WRITE),
    "pc-legacy-2-disks": Options(machine="pc", transport="legacy", disks=2, write=WRITE),
    "q35-transitional-4096": Options(transport="transitional", sector_size=4096, write=WRITE),
    "pc-modern-4096-read-only": Options(machine="pc", sector_size=4096, read_only=True),
    "q35-legacy-read-only-2-disks": Options(transport="legacy", read_only=True, disks=2),
    "pc-transitional-small-queue": Options(machine="pc", transport="transitional", write=WRITE,
                                           device_options={"queue-size": "4", "num-queues": "1",
                                                           "seg-max-adjust": "off"}),
    "q35-modern-16-disks": Options(disks=16, write=MIB // 4),
    "scsi-q35-modern-12-units": Options(on="virtio-scsi", disks=12, write=MIB // 4),
    "scsi-pc-legacy-4096-read-only-2-units": Options(
        on="virtio-scsi", machine="pc", transport="legacy", sector_size=4096, read_only=True,
        disks=2, device_options={"virtqueue_size": "16", "num_queues": "1"}),
    "scsi-q35-transitional-cdrom-2-units": Options(on="virtio-scsi", transport="transitional",
                                                   cdrom=True, disks=2),
    "net-q35-modern": Options(on="virtio-net"),
    "net-pc-legacy": Options(on="virtio-net", machine="pc", transport="legacy"),
}


@pytest.mark.parametrize("name", BOOTS)
def test_debian(name: str) -> None:
    options = BOOTS[name]
    report = boot(options, Progress())
    print("\n".join(report.held + report.problems))
    assert report.ok, report.problems
    assert len(report.hand_over.devices) == \
        (options.disks if options.on == "virtio-blk" else 1)
    for device in report.hand_over.devices:
        assert device.driven and device.live is False
    assert not report.unseen


def test_data_from_before_the_hand_over(tmp_path: Path) -> None:
    """What the firmware wrote through Baton, the guest reads after the hand-over."""
    made = guest(Progress())
    root = tmp_path / "root.img"
    shutil.copyfile(made.disk, root)
    data = [image(tmp_path / f"data{index}.img", 8 * MIB, index) for index in range(2)]
    disks = [Disk(root, rom=ROM), Disk(data[0], rom=ROM),
             Disk(data[1], rom=ROM, transport="legacy", sector_size=512)]
    result = qemu.run(Machine(disks=disks, kernel=PROGRAMS / "pattern.efi"), timeout=300,
                      progress=Progress(), name="booting Debian")
    assert result.ended == "off", result.explain()
    crcs = [int(match[2], 16) for match in said(result, r"wrote (\d) crc ([0-9a-f]+)")]
    log = guestlog.parse(qemu.plain(result.serial))
    assert log.ended and not log.failures, result.explain()
    assert len(crcs) == len(data)
    for index, path in enumerate(data):
        content = path.read_bytes()
        assert zlib.crc32(content) == crcs[index]
        assert log.disks[result.addresses[1 + index]].sha256 == hashlib.sha256(content).hexdigest()
    assert not judge(result.trace, result.addresses).problems
