# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Reading what whose.efi says."""

from lab import whose

SAID = '''
whose: firmware vendor="EDK II" revision=0x10000 uefi=2.70
whose: disk pci=00:04.0 id=1af4:1042 block=512 blocks=126976 read-only=0
whose: driver pci=00:04.0 level=0 version=0x20 name="Baton virtio-blk driver" \
from="component name 2" image="PciRoot(0x0)/Pci(0x4,0x0)/Offset(0x0,0x55FF)"
whose: end disks=1
'''


def test_baton() -> None:
    answer = whose.parse(SAID)
    assert answer is not None and answer.complete
    assert (answer.vendor, answer.uefi) == ("EDK II", "2.70")
    disk = answer.disks["00:04.0"]
    assert (disk.block_size, disk.blocks, disk.read_only) == (512, 126976, False)
    assert disk.driver is not None
    assert disk.driver.is_baton and disk.driver.from_option_rom
    assert disk.driver.version == 0x20


def test_the_driver_nearest_the_disk_counts() -> None:
    said = SAID.replace("whose: end", '''whose: driver pci=00:04.0 level=1 version=0x10 \
name="Virtio Block Driver" from="component name 2" image="Fv(1)/FvFile(2)"
whose: end''')
    answer = whose.parse(said)
    assert answer is not None
    driver = answer.disks["00:04.0"].driver
    assert driver is not None and not driver.is_baton and not driver.from_option_rom


def test_a_file_name_is_not_a_name() -> None:
    answer = whose.parse(SAID.replace('"component name 2"', '"path"'))
    assert answer is not None
    driver = answer.disks["00:04.0"].driver
    assert driver is not None and not driver.is_baton


SCSI = '''
whose: firmware vendor="EDK II" revision=0x10000 uefi=2.70
whose: disk pci=00:04.0 id=1af4:1048 unit=0:0 block=512 blocks=126976 read-only=0
whose: driver pci=00:04.0 level=0 version=0x20 holds="pci" name="Baton virtio-scsi driver" \
from="component name 2" image="PciRoot(0x0)/Pci(0x4,0x0)/Offset(0x0,0x55FF)"
whose: driver pci=00:04.0 level=1 version=0xa holds="scsi bus" name="Scsi Bus Driver" \
from="component name 2" image="Fv(1)/FvFile(2)"
whose: driver pci=00:04.0 level=2 version=0xa holds="scsi unit" name="Scsi Disk Driver" \
from="component name 2" image="Fv(1)/FvFile(3)"
whose: disk pci=00:04.0 id=1af4:1048 unit=0:10 block=512 blocks=16384 read-only=0
whose: end disks=2 interfaces=0
'''
NET = '''
whose: firmware vendor="EDK II" revision=0x10000 uefi=2.70
whose: interface pci=00:04.0 id=1af4:1041 mac=52:54:00:ba:70:01 media=1
whose: driver pci=00:04.0 level=0 version=0x20 holds="pci" name="Baton virtio-net driver" \
from="component name 2" image="PciRoot(0x0)/Pci(0x4,0x0)/Offset(0x0,0x55FF)"
whose: end disks=0 interfaces=1
'''


def test_units_of_a_scsi_controller() -> None:
    answer = whose.parse(SCSI)
    assert answer is not None and answer.complete
    assert list(answer.disks) == ["00:04.0/0:0", "00:04.0/0:10"]
    disk = answer.disks["00:04.0/0:0"]
    # Whoever drives any disk on any such bus has nothing to do with the device.
    assert disk.driver is not None and disk.driver.is_baton
    assert [driver.name for driver in disk.own] == ["Baton virtio-scsi driver"]
    assert answer.disks["00:04.0/0:10"].driver is None


def test_interface() -> None:
    answer = whose.parse(NET)
    assert answer is not None and answer.complete and not answer.disks
    interface = answer.interfaces["00:04.0"]
    assert (interface.mac, interface.media) == ("52:54:00:ba:70:01", True)
    assert interface.driver is not None and interface.driver.is_baton
    again = whose.parse(NET.replace("interfaces=1", "interfaces=2"))
    assert again is not None and not again.complete


def test_silence() -> None:
    assert whose.parse("BdsDxe: starting\n") is None


def test_cut_short() -> None:
    answer = whose.parse(SAID.replace("whose: end disks=1", ""))
    assert answer is not None and not answer.complete
    answer = whose.parse(SAID.replace("disks=1", "disks=2"))
    assert answer is not None and not answer.complete


def test_garbled_line() -> None:
    answer = whose.parse(SAID.replace('II" rev', 'II rev'))
    assert answer is not None and answer.vendor == "" and answer.complete


def test_several_disks_below_one_device() -> None:
    text = "whose: firmware vendor=\"EDK II\" revision=0x1 uefi=2.70\n"
    for blocks in (8, 9):
        text += (f"whose: disk pci=00:02.0 id=5853:0001 block=512 blocks={blocks} read-only=0\n"
                 f"whose: driver pci=00:02.0 level=0 version=0x20 name=\"Baton {blocks}\" "
                 "from=\"component name 2\" image=\"x\"\n")
    answer = whose.parse(text + "whose: end disks=2\n")
    assert answer is not None and answer.complete
    assert {name: (disk.blocks, [driver.name for driver in disk.drivers])
            for name, disk in answer.disks.items()} == {
        "00:02.0": (8, ["Baton 8"]), "00:02.0#2": (9, ["Baton 9"])}
