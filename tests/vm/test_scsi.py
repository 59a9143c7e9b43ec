# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Extended SCSI Pass Thru on Baton's adapters, judged from both sides."""

import re
from pathlib import Path

from support import MIB, ROM, assert_let_go, crc_of, image, lives, must_pass, run, said
from lab.qemu import Result, ScsiController, Unit

SIZE = 3 * MIB + 5 * 4096
SMALL = 64 * 1024


def check(adapters: list[ScsiController], machine: str, seed: int, options: str = "",
          extra: list[str] | None = None) -> Result:
    """Each adapter has just the units that it is given, and each unit the bytes of its image."""
    before = {unit.image: crc_of(unit.image) for adapter in adapters for unit in adapter.units}
    result = must_pass(run("scsi", f"adapters={len(adapters)} seed={seed} {options}", adapters,
                           machine=machine, timeout=300, extra=extra or []))
    found: list[tuple[str, dict[str, dict[str, str]]]] = []
    for line in result.lines("vm: "):
        if match := re.match(r"adapter pci=(\S+) ", line):
            found.append((match[1], {}))
        elif match := re.match(r"unit (\S+) (.*)", line):
            found[-1][1][match[1]] = dict(pair.split("=", 1) for pair in match[2].split())
    assert len(found) == len(adapters)
    for adapter, address in zip(adapters, result.addresses, strict=True):
        units = dict(found)[address]
        assert list(units) == [unit.name for unit in
                               sorted(adapter.units, key=lambda unit: (unit.target, unit.lun))]
        for unit in adapter.units:
            fields = units[unit.name]
            block = 2048 if unit.cdrom else unit.sector_size
            assert fields["type"] == ("5" if unit.cdrom else "0")
            assert fields["block"] == str(block)
            assert fields["blocks"] == str(unit.image.stat().st_size // block)
            assert int(fields["crc"], 16) == before[unit.image], f"{unit.name}: read wrong"
            assert int(fields["after"], 16) == crc_of(unit.image), f"{unit.name}: written wrong"
            read_only = unit.read_only or unit.cdrom
            assert fields["writes"] == ("0" if read_only else "1")
            assert (before[unit.image] == crc_of(unit.image)) == read_only
        assert lives(result.trace, address) >= 1
        assert_let_go(result.trace, address, "vm: leaving")
    assert len(said(result, r"the scan took (\d+) us")) >= len(adapters)
    return result


def test_units_of_all_kinds(tmp_path: Path) -> None:
    """Several adapters: targets with gaps, numbers in both forms, disks, CDs, one that may not be
    written to, small transfers; and one adapter with nothing on it."""
    disc = image(tmp_path / "disc.iso", SIZE, 3)
    check([
        ScsiController([
            Unit(image(tmp_path / "a.img", SIZE, 1)),
            Unit(image(tmp_path / "b.img", SIZE, 2), sector_size=4096, lun=255),
            Unit(image(tmp_path / "c.img", SMALL, 4), target=3, lun=256),
            Unit(disc, target=17, cdrom=True),
            Unit(image(tmp_path / "d.img", SIZE, 5), target=200, lun=16383, read_only=True),
            Unit(image(tmp_path / "e.img", SMALL, 6), target=255, lun=1),
        ], rom=ROM),
        ScsiController([Unit(image(tmp_path / "f.img", SIZE, 7), target=1)], rom=ROM,
                       options={"max_sectors": "16", "cmd_per_lun": "3"}),
        ScsiController([], rom=None),
    ], "q35", 1)


def test_64_units_legacy(tmp_path: Path) -> None:
    check([
        ScsiController([Unit(image(tmp_path / f"{lun}.img", SMALL, lun + 10), lun=lun)
                        for lun in range(64)], rom=ROM, transport="legacy"),
        ScsiController([Unit(image(tmp_path / "x.img", SIZE, 9))], rom=ROM,
                       transport="transitional", options={"virtqueue_size": "16",
                                                          "seg_max_adjust": "off"}),
    ], "pc", 2)


def test_a_unit_is_unplugged(tmp_path: Path) -> None:
    """In the middle of everything, at the program's own wish: a port of the guest's is a terminal of
    QEMU's monitor."""
    monitor = tmp_path / "monitor"
    result = check([
        ScsiController([
            Unit(image(tmp_path / "a.img", SMALL, 1)),
            Unit(image(tmp_path / "b.img", SMALL, 2), target=5, options={"id": "gone"}),
            Unit(image(tmp_path / "c.img", SMALL, 3), target=6),
        ], rom=ROM),
    ], "q35", 3, "unplug=5", [
        "-chardev", f"socket,id=hears,path={monitor},server=on,wait=off",
        "-mon", "chardev=hears,mode=readline",
        "-chardev", f"socket,id=speaks,path={monitor}",
        "-device", "isa-debugcon,iobase=0xe9,chardev=speaks",
    ])
    said(result, "unplugged")
