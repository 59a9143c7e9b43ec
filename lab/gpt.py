# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A GUID partition table, for sectors of any size."""

import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649")
LINUX_ROOT_X86_64 = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
LINUX_DATA = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")

ALIGNMENT = 1 << 20
_ENTRIES = 128
_ENTRY_SIZE = 128
_HEADER_SIZE = 92


@dataclass(frozen=True)
class Partition:
    """Where and how big in bytes; both are multiples of the alignment."""

    name: str
    kind: uuid.UUID
    identity: uuid.UUID
    start: int
    size: int


def layout(sizes: Sequence[tuple[str, uuid.UUID, int]], seed: uuid.UUID) -> list[Partition]:
    """Partitions one after the other from the first aligned place on, sizes rounded up."""
    partitions = []
    start = ALIGNMENT
    for name, kind, size in sizes:
        size = -(-size // ALIGNMENT) * ALIGNMENT
        partitions.append(Partition(name, kind, uuid.uuid5(seed, name), start, size))
        start += size
    return partitions


def disk_size(partitions: Sequence[Partition]) -> int:
    """Room for the partitions and, behind them, the second table."""
    return max(partition.start + partition.size for partition in partitions) + ALIGNMENT


def _protective_mbr(sectors: int) -> bytes:
    # One partition of type 0xEE over the whole disk, or as much of it as 32 bits can say.
    entry = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1,
                        min(sectors - 1, 0xFFFFFFFF))
    return b"\x00" * 446 + entry + b"\x00" * 48 + b"\x55\xaa"


def _entry(partition: Partition, sector: int) -> bytes:
    first = partition.start // sector
    last = (partition.start + partition.size) // sector - 1
    name = partition.name.encode("utf-16-le")
    if len(name) > 70:
        raise ValueError(f"partition name too long: {partition.name}")
    return struct.pack("<16s16sQQQ72s", partition.kind.bytes_le, partition.identity.bytes_le, first,
                       last, 0, name)


def _header(*, sectors: int, here: int, other: int, table_at: int, table_sectors: int,
            disk: uuid.UUID, table_crc: int) -> bytes:
    def pack(crc: int) -> bytes:
        return struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x00010000, _HEADER_SIZE, crc, 0,
                           here, other, 2 + table_sectors, sectors - 2 - table_sectors,
                           disk.bytes_le, table_at, _ENTRIES, _ENTRY_SIZE, table_crc)
    return pack(zlib.crc32(pack(0)))


def tables(partitions: Sequence[Partition], size: int, sector: int,
           disk: uuid.UUID) -> list[tuple[int, bytes]]:
    """The pieces to write: (offset, bytes) for the beginning and the end of the disk."""
    if size % sector != 0:
        raise ValueError("the disk is not a whole number of sectors")
    sectors = size // sector
    table_sectors = -(-_ENTRIES * _ENTRY_SIZE // sector)
    table = b"".join(_entry(partition, sector) for partition in partitions)
    table = table.ljust(_ENTRIES * _ENTRY_SIZE, b"\x00")
    crc = zlib.crc32(table)
    second_table = sectors - 1 - table_sectors
    for partition in partitions:
        if partition.start < (2 + table_sectors) * sector or \
                partition.start + partition.size > second_table * sector:
            raise ValueError(f"partition {partition.name} does not fit the disk")

    def header(here: int, other: int, table_at: int) -> bytes:
        return _header(sectors=sectors, here=here, other=other, table_at=table_at,
                       table_sectors=table_sectors, disk=disk, table_crc=crc).ljust(sector, b"\x00")
    first = _protective_mbr(sectors).ljust(sector, b"\x00") + header(1, sectors - 1, 2) + \
        table.ljust(table_sectors * sector, b"\x00")
    last = table.ljust(table_sectors * sector, b"\x00") + header(sectors - 1, 1, second_table)
    return [(0, first), (second_table * sector, last)]


def find(disk: Path, sector: int, name: str) -> Partition | None:
    """The partition of this name on a disk image."""
    with disk.open("rb") as file:
        file.seek(sector)
        header = file.read(_HEADER_SIZE)
        if header[:8] != b"EFI PART":
            return None
        table_at, count, size = struct.unpack_from("<QII", header, 72)
        file.seek(table_at * sector)
        for _ in range(count):
            entry = struct.unpack_from("<16s16sQQQ72s", file.read(size))
            kind, identity, first, last, _, text = entry
            if text.decode("utf-16-le").rstrip("\0") == name:
                return Partition(name, uuid.UUID(bytes_le=kind), uuid.UUID(bytes_le=identity),
                                 first * sector, (last + 1 - first) * sector)
    return None
