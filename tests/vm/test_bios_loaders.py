# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Boot loaders other than GRUB through Baton's INT 13h: EXTLINUX, which reads ext4 by itself; and
iPXE, which EXTLINUX starts, and which hides memory of its own behind INT 15h and, with a disk from
the network, puts itself in front of INT 13h."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support import MIB
from lab import e820, guestlog, handover, mbr, tools, whose
from lab.boot import Options, boot
from lab.cache import file_sum
from lab.guest import BUSYBOX, bios_disk, extlinux, grub_pc
from lab.packages import Archive, unpack
from lab.paths import BIOS_ROM
from lab.progress import Progress
from lab.qemu import Bios, Device, Disk, Machine, ScsiController, Unit, plain, run
from lab.queues import Watch

BATON = Bios(rom=BIOS_ROM, strict=True)
FLOPPY_SIZE = 1440 << 10
STARTS_IPXE = """DEFAULT ipxe
LABEL ipxe
    LINUX /boot/ipxe.lkrn
    INITRD /boot/script
"""
HOOKS_INT13 = """set net0/ip 10.0.2.15
set net0/netmask 255.255.255.0
ifopen net0
sanhook --no-describe --drive 0x82 http://10.0.2.100/san.img
"""
STARTS_DEBIAN = """linux /boot/vmlinuz root=UUID=%s ro console=ttyS0,115200 \
    earlyprintk=ttyS0,115200 panic=-1 baton.stop
initrd /boot/initrd.img
boot
"""


@pytest.mark.parametrize("options", [
    Options(write=MIB // 4),
    Options(on="virtio-scsi", machine="pc", transport="legacy"),
], ids=["q35-modern", "scsi-pc-legacy"])
def test_extlinux(options: Options) -> None:
    report = boot(replace(options, loader="extlinux", firmware=BATON), Progress())
    assert report.ok and not report.unseen, report.problems
    # It calls itself like the whole family.
    said = plain(report.result.serial) if report.result else ""
    assert said.count("SYSLINUX 6.") == 1


def copy(source: Path, target: Path) -> Path:
    tools.run(["cp", "--reflink=auto", "--sparse=always", source, target])
    return target


def ipxe_disk(folder: Path, script: str) -> Path:
    """The guest's disk, but its EXTLINUX starts iPXE, with a script. Its grub.cfg is for a GRUB from
    elsewhere."""
    package = Archive(Progress()).obtain(lambda _: ["ipxe"])["ipxe"]
    unpack(package, folder, only=["./boot/ipxe.lkrn"])
    made = bios_disk(Progress(), "mbr", "extlinux")
    disk = copy(made.disk, folder / "ipxe.img")
    commands = f"rm {extlinux.CONFIG}\nmkdir boot/grub\n"
    for name, data in ((extlinux.CONFIG, STARTS_IPXE), ("boot/script", f"#!ipxe\n{script}\n"),
                       ("boot/grub/grub.cfg", STARTS_DEBIAN % made.root_uuid)):
        source = folder / Path(name).name
        source.write_text(data)
        commands += f"write {source} {name}\n"
    commands += f"write {folder / 'boot/ipxe.lkrn'} boot/ipxe.lkrn\n"
    tools.run(["debugfs", "-w", "-f", "/dev/stdin", f"{disk}?offset={mbr.read(disk)[0].start}"],
              stdin=commands)
    return disk


def grub_floppy(folder: Path, where: str) -> Path:
    """A floppy disk with a GRUB that has its grub.cfg elsewhere."""
    packages = Archive(Progress()).obtain(lambda _: [grub_pc.IMAGES, *grub_pc.TOOLS])
    boot, core = grub_pc.make(packages, folder, where)
    code, core = grub_pc.place(boot, core, grub_pc.SECTOR, FLOPPY_SIZE - grub_pc.SECTOR)
    data = bytearray(code + boot[len(code):] + core)
    # Here, the BIOS's word for the drive counts.
    check = slice(grub_pc.DRIVE_CHECK, grub_pc.DRIVE_CHECK + 2)
    data[check] = boot[check]
    floppy = folder / "floppy.img"
    floppy.write_bytes(data.ljust(FLOPPY_SIZE, b"\0"))
    return floppy


def debian_after_ipxe(devices: Sequence[Device], disks: Sequence[Path], root: str, *,
                      machine: str = "q35", extra: Sequence[str] = ()) -> str:
    """It comes from `root`, finds all disks as they are, and is handed their devices in order. What
    was said."""
    sums = [file_sum(disk) for disk in disks]
    watches: list[Watch] = []

    def make(_: Path) -> Machine:
        pc = Machine(devices, machine, firmware=BATON, extra=extra)
        watches.append(Watch(pc.addresses, handover.KERNEL_SPEAKS))
        return replace(pc, watch=watches[-1])
    result = run(make)
    print(result.explain(60))
    assert result.ended == "off"
    serial = plain(result.serial)
    assert serial.count("iPXE initialising devices") == 1
    judged = handover.judge(result.trace, result.addresses,
                            bios=handover.Bios(e820.parse(serial), watches[-1].looks))
    assert judged.problems == [] and judged.unseen == []
    for device in judged.devices:
        assert device.driven and device.live is False and device.requests["reads"] > 1
    assert len(whose.parse_bios(serial, []).disks) == len(disks)
    said = guestlog.parse(serial)
    assert said.ended and said.failures == []
    assert said.root is not None and guestlog.place_of(said.root.path) == root
    assert [disk.sha256 for disk in said.disks.values()] == sums
    assert [file_sum(disk) for disk in disks] == sums
    return serial


def network_disk(folder: Path) -> list[str]:
    """A machine's network in which an HTTP server has a disk, and nothing else is."""
    unpack(Archive(Progress()).obtain(lambda _: [BUSYBOX])[BUSYBOX], folder, only=["./bin/busybox"])
    (folder / "http").mkdir()
    (folder / "http/san.img").write_bytes(bytes(MIB))
    server = f"{folder}/bin/busybox httpd -i -h {folder}/http"
    return ["-netdev", f"user,id=net,restrict=on,guestfwd=tcp:10.0.2.100:80-cmd:{server}",
            "-device", "e1000,netdev=net,romfile="]


def test_ipxe_starts_the_next_disk(tmp_path: Path) -> None:
    """Whose GRUB calls Baton through iPXE."""
    disks = [ipxe_disk(tmp_path, f"{HOOKS_INT13}sanboot --no-describe --drive 0x81"),
             copy(bios_disk(Progress(), "mbr").disk, tmp_path / "debian.img")]
    said = debian_after_ipxe([Disk(disk) for disk in disks], disks, "00:05.0",
                             extra=network_disk(tmp_path))
    assert "Registered SAN device 0x82" in said


def test_ipxe_goes_back_to_the_bios(tmp_path: Path) -> None:
    """Which next starts a floppy disk: its GRUB reads Debian from the disk that iPXE came from."""
    disk = ipxe_disk(tmp_path, "exit")
    floppy = grub_floppy(tmp_path, "(hd0,msdos1)")
    debian_after_ipxe([ScsiController([Unit(disk)])], [disk], "00:04.0/0:0", machine="pc",
                      extra=["-drive", f"if=none,id=floppy,format=raw,file={floppy}",
                             "-device", "floppy,drive=floppy", "-global", "isa-fdc.bootindexA=2"])
