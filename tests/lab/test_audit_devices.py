# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The audited machine: its devices, its networks, and the drivers that go into it."""

import random
import struct
import time
from pathlib import Path

import pytest

from lab.audit import devices, drivers, network
from lab.audit.devices import KINDS, ask
from lab.audit.drivers import Driver
from lab.errors import LabError
from test_inputs import pe, rom_image, write

HELP = """Storage devices:
name "ich9-ahci", bus PCI, alias "ahci"
name "ide-hd", bus IDE, desc "virtual IDE disk"
name "lsi53c810", bus PCI
name "virtio-blk-pci-transitional", bus PCI

Network devices:
name "e1000", bus PCI, alias "e1000-82540em", desc "Intel Gigabit Ethernet"
name "tulip", bus PCI
name "virtio-net-pci", bus PCI, alias "virtio-net"

USB devices:
name "ich9-usb-uhci3", bus PCI
"""


def words(folder: Path, *asked: str, machine: str = "q35", rom: Path | None = None) -> list[str]:
    placed = devices.place([ask(text, rom, HELP) for text in asked], machine)
    plan = devices.plan(placed, folder)
    plan.close()
    return plan.words


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(tmp_path: Path, kind: str) -> None:
    said = words(tmp_path, kind)
    device = said[said.index("-device") + 1]
    assert device.startswith(f"{KINDS[kind].name},id=audit0,addr=04.0,romfile=")
    assert device.endswith(",disable-legacy=on") == kind.startswith("virtio-")
    assert said.count("-device") == (2 if KINDS[kind].behind else 1)
    assert ("-drive" in said) == KINDS[kind].disk == (len(list(tmp_path.iterdir())) == 1)
    assert ("-netdev" in said) == KINDS[kind].network


def test_places_and_disks(tmp_path: Path) -> None:
    said = " ".join(words(tmp_path, "virtio-blk", "ahci", "virtio-blk,queue-size=8"))
    assert "drive=drive0" in said and "addr=05.0" in said and "queue-size=8" in said
    assert "ide-hd,bus=audit1.0,drive=drive1" in said and said.count("snapshot=on") == 3
    images = [(tmp_path / f"drive{index}.img").read_bytes() for index in range(3)]
    assert len(set(images)) == 3 and {len(image) for image in images} == {devices.DISK_SIZE}


def test_names_of_qemu(tmp_path: Path) -> None:
    said = " ".join(words(tmp_path, "tulip", "lsi53c810", "ich9-usb-uhci3",
                          "virtio-blk-pci-transitional", "e1000-82540em"))
    assert "tulip,id=audit0,addr=04.0,romfile=,netdev=net0" in said
    assert "scsi-hd,bus=audit1.0" in said and "usb-storage,bus=audit2.0" in said
    assert "drive=drive3" in said and "disable-legacy" not in said
    assert "e1000,id=audit4" in said


def test_roms_go_to_virtio_blk(tmp_path: Path) -> None:
    rom = write(tmp_path / "a,b.rom", rom_image(pe()))
    said = words(tmp_path, "virtio-blk", "nvme", "virtio-blk,romfile=",
                 "virtio-blk-pci-transitional", rom=rom)
    assert [word.count("a,,b.rom") for word in said if "addr=" in word] == [1, 0, 0, 1]
    assert all("romfile=" in word for word in said if "addr=" in word)
    assert "romfile=," in words(tmp_path, "virtio-blk")[-1]


def test_a_rom_for_one_device(tmp_path: Path) -> None:
    rom = write(tmp_path / "own.rom", rom_image(pe()))
    said = words(tmp_path, f"e1000e,romfile={rom}", "e1000e")
    assert [word.count("own.rom") for word in said if "addr=" in word] == [1, 0]


def test_properties_of_the_user_come_before_ours(tmp_path: Path) -> None:
    assert "disable-legacy=off" in words(tmp_path, "virtio-net,disable-legacy=off")[-1]
    assert "disable-legacy=on" not in words(tmp_path, "virtio-net,disable-legacy=off")[-1]
    assert "disable-legacy=on" not in words(tmp_path, "virtio-net,disable-modern=on")[-1]


def test_ide_on_pc_is_built_in(tmp_path: Path) -> None:
    said = words(tmp_path, "ide", "nvme", machine="pc")
    assert said[2:4] == ["-device", "ide-hd,bus=ide.0,drive=drive0"]
    assert "addr=04.0" in said[-1]
    placed = devices.place([ask("ide", None, HELP)], "pc")
    assert placed[0].place == "0000:00:01.1"


@pytest.mark.parametrize(("asked", "says"), [
    (["virtio-blok"], "near it come virtio-blk"),
    (["tullip"], "near it come tulip"),
    (["zzzzzz"], "there are virtio-blk, "),
    (["ide-hd"], "no such kind"),
    ([""], "no such kind"),
    (["nvme,addr=5"], "sets addr itself"),
    (["nvme,netdev=x"], "sets netdev itself"),
    (["nvme,serial"], "not a property"),
    (["nvme,"], "not a property"),
    (["nvme,=1"], "not a property"),
    (["nvme,romfile=/none"], "/none"),
    (["ide", "ide"], "there can be one"),
    (["nvme"] * 28, "more than the machine has slots for"),
])
def test_refused(asked: list[str], says: str) -> None:
    with pytest.raises(LabError, match=says):
        devices.check([ask(text, None, HELP) for text in asked], "q35")


def test_refused_on_pc_and_bad_roms(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="takes no properties"):
        devices.check([ask("ide,x=1", None, HELP)], "pc")
    with pytest.raises(LabError, match="not an option ROM"):
        devices.check([ask("virtio-blk", write(tmp_path / "rom", b"nothing"), HELP)], "q35")
    devices.check([ask("nvme", tmp_path / "rom", HELP)], "q35")


def test_as_many_as_there_are_slots() -> None:
    placed = devices.place([ask("nvme", None, HELP)] * 27, "q35")
    assert len({each.place for each in placed}) == 27


# ---- The network ----

def test_frames() -> None:
    rng = random.Random(1)
    made = [network.frame(number, "52:54:00:ba:70:01", rng) for number in range(300)]
    assert all(60 <= len(each) <= 1514 for each in made) and len({len(each) for each in made}) > 100
    to = {each[:6] for each in made}
    assert b"\xff" * 6 in to and bytes.fromhex("525400ba7001") in to and len(to) > 50
    assert all(b"Baton audit"[:5] in each for each in made)


def test_the_flood_reaches_each_card_and_ends(tmp_path: Path) -> None:
    plan = devices.plan(devices.place([ask(kind, None, HELP) for kind in ("e1000", "virtio-net")],
                                      "q35"), tmp_path)
    theirs = [plan._open[1], plan._open[3]]
    assert plan.fds == [end.fileno() for end in theirs]
    with network.Flood(plan.networks, per_second=2000) as flood:
        theirs[0].settimeout(5)
        theirs[1].settimeout(5)
        theirs[0].send(b"what the machine sends is thrown away")
        assert all(len(end.recv(4096)) >= 60 for end in theirs for _ in range(20))
        time.sleep(0.2)
    sent = flood.sent
    time.sleep(0.1)
    assert flood.sent == sent >= 40
    plan.close()


def test_the_flood_is_bounded(tmp_path: Path) -> None:
    plan = devices.plan(devices.place([ask("e1000", None, HELP)], "q35"), tmp_path)
    theirs = plan._open[1]
    begin, got = time.monotonic(), 0
    with network.Flood(plan.networks, per_second=100):
        while time.monotonic() < begin + 0.5:
            theirs.settimeout(0.5)
            got += bool(theirs.recv(4096))
    assert 5 <= got <= 100 * (time.monotonic() - begin) + 1
    plan.close()


def test_the_flood_does_not_mind_a_dead_machine(tmp_path: Path) -> None:
    plan = devices.plan(devices.place([ask("e1000", None, HELP)], "q35"), tmp_path)
    plan._open[1].close()
    with network.Flood(plan.networks) as flood:
        time.sleep(0.2)
    assert flood.sent == 0
    plan.close()
    with network.Flood([]):
        pass


# ---- Drivers ----

def driver(subsystem: int = 11, magic: int = 0x20B) -> bytes:
    """A PE image with an optional header, of no use otherwise."""
    optional = struct.pack("<H", magic).ljust(68, b"\0") + struct.pack("<H", subsystem)
    optional = optional.ljust(112, b"\0")
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    head += b"PE\0\0" + struct.pack("<HH12xHH", 0x8664, 1, len(optional), 0) + optional
    section = b".text\0\0\0" + struct.pack("<IIII", 256, 4096, 256, 512)
    return (head + section).ljust(1024, b"\0")


def test_drivers(tmp_path: Path) -> None:
    made = [Driver(write(tmp_path / name, driver(subsystem)))
            for name, subsystem in (("a.efi", 11), ("b-1_x.efi", 12))]
    drivers.check(made)
    assert made[0].name == "a.efi"
    assert made[0].words == ["-fw_cfg", f"name=opt/baton/driver/a.efi,file={tmp_path}/a.efi"]


@pytest.mark.parametrize(("name", "data", "says"), [
    ("a.efi", driver(10), "is an application"),
    ("a.efi", driver(13), "is a ROM image"),
    ("a.efi", driver(99), "of subsystem 99"),
    ("a.efi", driver(11, 0x10B), "not a PE32+"),
    ("a.efi", driver()[:700], "truncated"),
    ("a.efi", b"hello", "not a PE"),
    ("a.efi", b"", "empty"),
    ("a b.efi", driver(), "needs a name of letters"),
    ("ü.efi", driver(), "needs a name of letters"),
    ("a,b.efi", driver(), "needs a name of letters"),
    ("a" * 40, driver(), "too long a name"),
])
def test_bad_drivers(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    with pytest.raises(LabError, match=says.replace("+", r"\+")):
        drivers.check([Driver(write(tmp_path / name, data))])


def test_two_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(LabError, match="two drivers are called a.efi"):
        drivers.check([Driver(write(tmp_path / "a.efi", driver())),
                       Driver(write(tmp_path / "x/a.efi", driver()))])
    with pytest.raises(LabError, match="does not exist"):
        drivers.check([Driver(tmp_path / "none.efi")])
