# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A partition table as the IBM PC has it, in the first sector of the disk. Sectors of 512 bytes."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LINUX = 0x83

SECTOR = 512
_SIGNATURE_AT = 440
_TABLE_AT = 446
_ENTRIES = 4
_ENTRY = struct.Struct("<B3sB3sII")
_ACTIVE = 0x80
# What does not fit into cylinder, head and sector is said with these, as fdisk does.
_NO_CHS = b"\xfe\xff\xff"


@dataclass(frozen=True)
class Partition:
    """Where and how big in bytes."""

    kind: int
    start: int
    size: int


def sector(partitions: Sequence[Partition], signature: int, code: bytes = b"") -> bytes:
    """The disk's first sector, with a program in front of the table. The first partition is the
    active one."""
    if len(partitions) > _ENTRIES:
        raise ValueError(f"there is room for {_ENTRIES} partitions")
    if len(code) > _SIGNATURE_AT:
        raise ValueError("the program reaches into the table")
    entries = b""
    for index, partition in enumerate(partitions):
        if partition.start % SECTOR or partition.size % SECTOR:
            raise ValueError("a partition is not of whole sectors")
        entries += _ENTRY.pack(0 if index else _ACTIVE, _NO_CHS, partition.kind, _NO_CHS,
                               partition.start // SECTOR, partition.size // SECTOR)
    return code.ljust(_SIGNATURE_AT, b"\0") + struct.pack("<IH", signature, 0) + \
        entries.ljust(_ENTRIES * _ENTRY.size, b"\0") + b"\x55\xaa"


def read(disk: Path) -> list[Partition]:
    """The partitions of a disk image that has such a table."""
    with disk.open("rb") as file:
        head = file.read(SECTOR)
    if head[510:] != b"\x55\xaa":
        return []
    found = [_ENTRY.unpack_from(head, _TABLE_AT + index * _ENTRY.size)
             for index in range(_ENTRIES)]
    return [Partition(kind, start * SECTOR, size * SECTOR)
            for _, _, kind, _, start, size in found if kind]
