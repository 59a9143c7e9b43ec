# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Block I/O and Block I/O 2 on Baton's disks, judged from both sides."""

from pathlib import Path

from support import MIB, ROM, TestDisk, assert_let_go, crc_of, image, lives, must_pass, run, said

# Uneven on purpose: the last block is nobody's favourite.
SIZE = 33 * MIB + 5 * 4096


def check(disks: list[TestDisk], machine: str, expected: list[dict[str, str]], seed: int,
          memory: int = 512) -> None:
    before = [crc_of(disk.image) for disk in disks]
    result = must_pass(run("block", f"disks={len(disks)} seed={seed}{' high' if memory > 4096 else ''}",
                           disks, machine=machine, memory=memory, timeout=240))
    high = int(said(result, r"buffers at (0x[0-9a-f]+)")[0][1], 16) >= 1 << 32
    assert high == (memory > 4096)
    fields = [dict(pair.split("=", 1) for pair in match[1].split(" name=")[0].split())
              for match in said(result, r"disk \d+ (pci=.*)")]
    images = [match[1] for match in said(result, r'disk \d+ pci=.* image="(.*)"')]
    first = [int(match[2], 16) for match in said(result, r"crc before (\d+): ([0-9a-f]+)")]
    last = [int(match[2], 16) for match in said(result, r"crc after (\d+): ([0-9a-f]+)")]

    assert len(fields) == len(disks)
    for index, disk in enumerate(disks):
        assert fields[index]["pci"] == result.addresses[index]
        assert fields[index]["baton"] == "1"
        # Whatever image drives it, it came out of a ROM: nothing else has loaded one.
        assert "Pci(" in images[index] and "Offset(" in images[index]
        if disk.rom is not None:
            slot = int(result.addresses[index][3:5], 16)
            assert f"Pci(0x{slot:X},0x0)/" in images[index], "driven by another device's ROM"
        for name, value in {**expected[index], "present": "1", "removable": "0", "logical": "0",
                            "align": "0", "revision": "0x2001f",
                            "last": str(SIZE // disk.sector_size - 1)}.items():
            assert fields[index][name] == value, f"disk {index}: {name}"
        assert first[index] == before[index], f"disk {index}: read wrong"
        assert last[index] == crc_of(disk.image), f"disk {index}: written wrong"
        assert (last[index] == before[index]) == disk.read_only
        assert lives(result.trace, result.addresses[index]) >= 1
        assert_let_go(result.trace, result.addresses[index], "vm: leaving")


def test_modern(tmp_path: Path) -> None:
    """512 and 4096-byte sectors, read-only, topology; and a disk that carries no ROM."""
    disks = [
        TestDisk(image(tmp_path / "a.img", SIZE, 1), rom=ROM, physical=4096,
                 options={"opt_io_size": "65536", "min_io_size": "8192"}),
        TestDisk(image(tmp_path / "b.img", SIZE, 2), rom=ROM, sector_size=4096),
        TestDisk(image(tmp_path / "c.img", SIZE, 3), rom=ROM, read_only=True),
        TestDisk(image(tmp_path / "d.img", SIZE, 4), rom=None),
    ]
    plain = {"block": "512", "read-only": "0", "per-physical": "1", "cache": "1", "lowest": "0"}
    check(disks, "q35", [
        {**plain, "per-physical": "8", "granularity": "128"},
        {**plain, "block": "4096"},
        {**plain, "read-only": "1"},
        plain,
    ], 1)


def test_legacy(tmp_path: Path) -> None:
    disks = [
        TestDisk(image(tmp_path / "a.img", SIZE, 5), rom=ROM, transport="legacy"),
        TestDisk(image(tmp_path / "b.img", SIZE, 6), rom=ROM, transport="legacy",
                 sector_size=4096, options={"num-queues": "1", "queue-size": "8"}),
    ]
    plain = {"block": "512", "read-only": "0", "per-physical": "1"}
    check(disks, "pc", [plain, {**plain, "block": "4096"}], 2)


def test_transitional_and_small_queues(tmp_path: Path) -> None:
    """And with buffers above 4 GiB."""
    disks = [
        TestDisk(image(tmp_path / "a.img", SIZE, 7), rom=ROM, transport="transitional"),
        TestDisk(image(tmp_path / "b.img", SIZE, 8), rom=ROM, transport="modern",
                 options={"num-queues": "1", "queue-size": "4", "seg-max-adjust": "off"}),
        TestDisk(image(tmp_path / "c.img", SIZE, 9), rom=ROM, transport="modern",
                 options={"num-queues": "1", "queue-size": "1024", "indirect_desc": "off",
                          "iommu_platform": "on"}),
    ]
    plain = {"block": "512", "read-only": "0", "per-physical": "1"}
    check(disks, "pc", [plain] * 3, 3, memory=6 << 10)
