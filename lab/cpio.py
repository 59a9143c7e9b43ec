# SPDX-License-Identifier: BSD-2-Clause-Patent
"""An initramfs: a cpio archive in the "newc" format. Devices need no privileges here."""

import stat
from dataclasses import dataclass, field


@dataclass
class Cpio:
    """Collects members; bytes() gives the archive. Nothing in it depends on the time of day."""

    _parts: list[bytes] = field(default_factory=list)
    _count: int = 0

    def _add(self, name: str, mode: int, data: bytes = b"",
             device: tuple[int, int] = (0, 0)) -> None:
        self._count += 1
        raw = name.encode() + b"\x00"
        fields = (self._count, mode, 0, 0, 2 if stat.S_ISDIR(mode) else 1, 0, len(data), 0, 0,
                  *device, len(raw), 0)
        header = b"070701" + b"".join(b"%08x" % value for value in fields) + raw
        for part in (header, data):
            self._parts.append(part + b"\x00" * (-len(part) % 4))

    def folder(self, name: str) -> None:
        self._add(name, stat.S_IFDIR | 0o755)

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        self._add(name, stat.S_IFREG | mode, data)

    def character_device(self, name: str, major: int, minor: int) -> None:
        self._add(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def archive(self) -> bytes:
        """The whole archive so far, with its trailer."""
        end = Cpio()
        end._add("TRAILER!!!", 0)
        return b"".join(self._parts + end._parts)
