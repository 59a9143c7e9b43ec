# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The formats that the lab writes itself: GPT, cpio, and the guest's pattern."""

import struct
import uuid
import zlib
from pathlib import Path

import pytest

from lab import gpt, guestlog
from lab.cpio import Cpio
from lab.guest import modules_in_order
from lab.errors import LabError

SEED = uuid.UUID(int=1)


def disk_with(tmp_path: Path, sector: int) -> tuple[Path, list[gpt.Partition], int]:
    partitions = gpt.layout([("esp", gpt.ESP, 3_000_000), ("root", gpt.LINUX_ROOT_X86_64, 1 << 22)],
                            SEED)
    size = gpt.disk_size(partitions)
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in gpt.tables(partitions, size, sector, SEED):
            file.seek(offset)
            file.write(data)
    return path, partitions, size


@pytest.mark.parametrize("sector", [512, 4096])
def test_gpt_headers_hold(tmp_path: Path, sector: int) -> None:
    path, _, size = disk_with(tmp_path, sector)
    data = path.read_bytes()
    assert data[510:512] == b"\x55\xaa" and data[446 + 4] == 0xEE
    last = size // sector - 1
    for here, other in ((1, last), (last, 1)):
        header = data[here * sector:here * sector + 92]
        fields = struct.unpack("<8sIIIIQQQQ16sQIII", header)
        assert fields[0] == b"EFI PART" and fields[5:7] == (here, other)
        assert zlib.crc32(header[:16] + b"\0\0\0\0" + header[20:]) == fields[3]
        table = data[fields[10] * sector:][:fields[11] * fields[12]]
        assert zlib.crc32(table) == fields[13]
        first_usable, last_usable = fields[7], fields[8]
        assert first_usable * sector >= 2 * sector + len(table)
        assert last_usable < size // sector - 1 - len(table) // sector


@pytest.mark.parametrize("sector", [512, 4096])
def test_gpt_partition_is_found_again(tmp_path: Path, sector: int) -> None:
    path, partitions, _ = disk_with(tmp_path, sector)
    assert gpt.find(path, sector, "root") == partitions[1]
    assert gpt.find(path, sector, "home") is None
    assert gpt.find(path, 4608 - sector, "root") is None


def test_gpt_refuses_what_does_not_fit() -> None:
    partition = gpt.Partition("p", gpt.ESP, SEED, 1 << 20, 1 << 20)
    with pytest.raises(ValueError, match="does not fit"):
        gpt.tables([partition], 2 << 20, 512, SEED)
    with pytest.raises(ValueError, match="whole number"):
        gpt.tables([partition], (4 << 20) + 512, 4096, SEED)


def test_cpio_is_newc() -> None:
    cpio = Cpio()
    cpio.folder("dev")
    cpio.character_device("dev/console", 5, 1)
    cpio.file("init", b"#!/bin/sh\n", 0o755)
    data = cpio.archive()
    members = {}
    at = 0
    while True:
        assert data[at:at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i:at + 14 + 8 * i], 16) for i in range(13)]
        name = data[at + 110:at + 110 + fields[11] - 1].decode()
        begin = -(-(at + 110 + fields[11]) // 4) * 4
        if name == "TRAILER!!!":
            break
        members[name] = (fields[1], fields[9:11], data[begin:begin + fields[6]])
        at = -(-(begin + fields[6]) // 4) * 4
    assert members == {"dev": (0o40755, [0, 0], b""), "dev/console": (0o20600, [5, 1], b""),
                       "init": (0o100755, [0, 0], b"#!/bin/sh\n")}


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    for name, needs in {"a": "b,c", "b": "c", "c": "", "odd-one": "a"}.items():
        (tmp_path / f"{name}.ko").write_bytes(b"\0license=GPL\0depends=" + needs.encode() + b"\0")
    order = [path.stem for path in modules_in_order(tmp_path, ["odd_one"])]
    assert order == ["c", "b", "a", "odd-one"]
    with pytest.raises(LabError, match="no module d"):
        modules_in_order(tmp_path, ["d"])


def test_pattern_is_what_seq_prints() -> None:
    assert guestlog.pattern(100000000, 25) == b"100000000\n100000001\n10000"
    whole = guestlog.pattern(110000000, 1 << 20)
    assert len(whole) == 1 << 20
    assert whole[65536 * 10:65536 * 10 + 10] == b"110065536\n"
