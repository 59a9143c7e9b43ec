# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Disks for the program of tests/real, the PC that boots from them, and what it did to them.
tests/xen has guests that do."""

import gzip
import hashlib
import os
import re
import struct
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from lab.cpio import Cpio
from lab.guest import network
from lab.paths import BIOS_ROM, BUILD, TOP
from lab.progress import Progress
from lab.qemu import Bios, Device, Disk, Machine, Result, ScsiController, Unit, quoted
from lab.qemu import run as run_machine
from lab.xen import GuestResult

R = TypeVar("R", Result, GuestResult)

MIB = 1 << 20
GIB = 1 << 30
PROGRAM = BUILD / "tests/real/real.img"
LINUX_INIT = TOP / "tests/real/linux/init.sh"
LINUX_WATCH = BUILD / "tests/real/watch"

# As in tests/real/real.h.
SCRATCH = 2048
WINDOW_BYTES = 8 * MIB
WORDS = 1024
ORDERS_MAX = 511
SECTOR = 512
PROGRAM_AT = 2 * SECTOR
PARTITION_AT = 446


def _noise() -> bytes:
    words = []
    value = 1
    for _ in range(WORDS):
        value ^= value << 13 & 0xFFFFFFFF
        value ^= value >> 17
        value ^= value << 5 & 0xFFFFFFFF
        words.append(value)
    return struct.pack(f"<{WORDS}I", *words)


NOISE = _noise()


def content(disk: int, lba: int, counter: int, size: int) -> bytes:
    """What the program writes to a sector the so-manieth time; before it begins, they are 0."""
    head = lba & 0xFFFFFFFF, disk << 24 | counter << 16 | lba >> 32 & 0xFFFF
    key = (((head[0] ^ 0x5BD1E995) * 0x9E3779B1) ^ head[1] * 0x85EBCA6B) & 0xFFFFFFFF
    key ^= key >> 15
    body = int.from_bytes(struct.pack("<I", key) * (size // 4 - 2), "little") ^ \
        int.from_bytes(NOISE[8:size], "little")
    return struct.pack("<II", *head) + body.to_bytes(size - 8, "little")


@dataclass(frozen=True)
class Image:
    """A disk with the program on it."""

    path: Path
    disk: int
    size: int
    sector: int = SECTOR
    files: Sequence[tuple[int, bytes]] = ()
    """What else is on it, and from which LBA on; not where the program writes to."""

    @property
    def sectors(self) -> int:
        return self.size // self.sector

    @property
    def windows(self) -> list[range]:
        """The LBAs that the program writes to."""
        most = WINDOW_BYTES // self.sector
        room = self.sectors - SCRATCH
        first = min(room, most)
        return [range(SCRATCH, SCRATCH + first),
                range(self.sectors - min(room - first, most), self.sectors)]

    def head(self, orders: str) -> bytes:
        """What comes before the scratch area."""
        program = PROGRAM.read_bytes()
        text = f"real {self.disk} {orders}".encode()
        assert len(text) <= ORDERS_MAX
        boot = bytearray(program[:SECTOR])
        # An active partition, of a type that nobody mounts, where the scratch area is.
        boot[PARTITION_AT:PARTITION_AT + 16] = struct.pack(
            "<BBBBBBBBII", 0x80, 0xFE, 0xFF, 0xFF, 0xDA, 0xFE, 0xFF, 0xFF, SCRATCH,
            min(self.sectors - SCRATCH, 0xFFFFFFFF))
        return b"".join(part.ljust(self.sector, b"\0") for part in (boot, text)) + \
            program[PROGRAM_AT:]

    def make(self, orders: str) -> None:
        with self.path.open("wb") as file:
            file.truncate(self.size)
            file.write(self.head(orders))
            for window in self.windows:
                file.seek(window.start * self.sector)
                file.writelines(content(self.disk, lba, 0, self.sector) for lba in window)
            for lba, data in self.files:
                file.seek(lba * self.sector)
                file.write(data)

    def check(self, orders: str) -> int:
        """That there is nothing on it but what the program wrote or we; how many sectors it did."""
        written = 0
        with self.path.open("rb") as file:
            head = self.head(orders)
            assert file.read(len(head)) == head, f"the head of disk {self.disk} was written to"
            for window in self.windows:
                file.seek(window.start * self.sector)
                for lba in window:
                    data = file.read(self.sector)
                    counter = data[6]
                    assert data == content(self.disk, lba, counter, self.sector), \
                        f"disk {self.disk}, sector {lba}: {data[:8].hex()}…"
                    written += counter != 0
            low, high = self.windows
            for start, end in ((len(head), low.start * self.sector),
                               (low.stop * self.sector, high.start * self.sector)):
                for begin, finish in _data(file.fileno(), start, end):
                    assert os.pread(file.fileno(), finish - begin, begin) == \
                        self._rest(begin, finish), \
                        f"disk {self.disk} was written to between bytes {begin} and {finish}"
        return written

    def _rest(self, begin: int, finish: int) -> bytes:
        """What is outside of the scratch area: zeros, but for the files."""
        data = bytearray(finish - begin)
        for lba, text in self.files:
            at = lba * self.sector
            first, last = max(at, begin), min(at + len(text), finish)
            if first < last:
                data[first - begin:last - begin] = text[first - at:last - at]
        return bytes(data)


def _data(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Pieces of a file that have data in them, at most a MiB each."""
    while start < end:
        try:
            begin = os.lseek(fd, start, os.SEEK_DATA)
        except OSError:
            return
        finish = min(os.lseek(fd, begin, os.SEEK_HOLE), end)
        for at in range(begin, finish, MIB):
            yield at, min(at + MIB, finish)
        start = finish


# ---- Who drives ----

@dataclass(frozen=True)
class AtaDisk:
    """A disk on the machine's own ATA or AHCI controller."""

    image: Path
    bus: str

    def check(self) -> None:
        assert self.image.is_file()

    def arguments(self, index: int, _address: str) -> list[str]:
        return ["-drive", f"if=none,id=ata{index},file={quoted(self.image)},format=raw",
                "-device", f"ide-hd,drive=ata{index},{self.bus}"]


@dataclass(frozen=True)
class Driver:
    """Who is behind INT 13h."""

    name: str
    devices: Callable[[Sequence[Image]], list[Device]]
    firmware: Bios = Bios()
    machines: Sequence[str] = ("pc", "q35")
    most: int = 8
    """How many disks it has."""
    sectors: Sequence[int] = (SECTOR,)
    """Sizes of sectors that it has."""
    before: str = ""
    """Orders that come before all others."""
    largest: int = 3000 * GIB
    """The largest disk that it has, as far as is of interest here."""

    @property
    def baton(self) -> bool:
        return self.firmware.rom is not None


def blk(images: Sequence[Image], **drive: str) -> list[Device]:
    return [Disk(image.path, sector_size=image.sector, drive=drive) for image in images]


def scsi(images: Sequence[Image], **drive: str) -> list[Device]:
    units = [Unit(image.path, sector_size=image.sector, target=number, drive=drive)
             for number, image in enumerate(images)]
    return [ScsiController(units)]


def ide(images: Sequence[Image]) -> list[Device]:
    return [AtaDisk(image.path, f"bus=ide.{number // 2},unit={number % 2}")
            for number, image in enumerate(images)]


DRIVERS = {driver.name: driver for driver in (
    Driver("seabios-blk", blk),
    Driver("seabios-scsi", scsi, largest=1000 * GIB),
    Driver("seabios-ide", ide, machines=("pc",), most=4, before="gently "),
    Driver("baton-blk", blk, Bios(rom=BIOS_ROM, strict=True), sectors=(512, 4096)),
    Driver("baton-scsi", scsi, Bios(rom=BIOS_ROM, strict=True), sectors=(512, 4096)),
    Driver("baton-over-blk", blk, Bios(rom=BIOS_ROM)),  # SeaBIOS drives them before
)}


# ---- The machine ----

@dataclass(frozen=True)
class Run(Generic[R]):
    """What the program said, in a machine or in a guest of Xen's."""

    result: R
    lines: list[str]

    @property
    def verdict(self) -> str:
        """"ok", or what was wrong."""
        last = self.lines[-1] if self.lines else "nothing was said"
        return last if last == "ok" else last.removeprefix("failed: ")

    def said(self, pattern: str) -> list[re.Match[str]]:
        """Its lines that fit a pattern; there is at least one."""
        found = [match for line in self.lines if (match := re.fullmatch(pattern, line))]
        assert found, f"nothing said like {pattern!r}: {self.result.explain(40)}"
        return found


def must_hold(made: Run[R], disks: Sequence[Image], orders: str) -> int:
    """Nothing was wrong, inside or outside; how many sectors were written, at least one."""
    assert made.verdict == "ok" and made.result.ended == "off", made.result.explain(40)
    assert len(made.said(r"(8.h) disk=\d+ .*")) == len(disks), made.result.explain(40)
    written = sum(disk.check(orders) for disk in disks)
    assert written > 0
    return written


def images(folder: Path, count: int, *, size: int = 12 * MIB, sector: int = SECTOR) -> list[Image]:
    return [Image(folder / f"disk{disk}.img", disk, size, sector) for disk in range(count)]


def run(driver: Driver, disks: Sequence[Image], orders: str, *, machine: str = "",
        memory: int = 64, timeout: float = 240, trace_events: Sequence[str] = (),
        extra: Sequence[str] = (), accelerator: str = "tcg", quiet: bool = False) -> Run[Result]:
    """Make the disks, boot from one of them, and look at what is on them afterwards."""
    for disk in disks:
        disk.make(orders)
    result = run_machine(
        Machine(disks=driver.devices(disks), machine=machine or driver.machines[0],
                memory=memory, debug_exit=False, accelerator=accelerator,
                firmware=driver.firmware, trace_events=trace_events, extra=extra),
        timeout=timeout)
    if not quiet:
        print(result.explain(60))  # pytest shows this for a test that fails
    return Run(result, result.lines("real: "))


# ---- Linux, started by the program ----

def linux(path: Path) -> tuple[Image, str]:
    """A disk with a kernel and an initrd on it, and the order that starts them. The initrd is the
    lab's with an init on top, which looks at the program's pattern and reads all of the disk."""
    with tarfile.open(network(Progress()).disk) as archive:
        kernel, initrd = (taken.read() for name in ("./vmlinuz", "./initrd.img")
                          if (taken := archive.extractfile(name)))
    cpio = Cpio()
    cpio.file("init.sh", LINUX_INIT.read_bytes(), 0o755)
    cpio.file("watch", LINUX_WATCH.read_bytes(), 0o755)
    initrd += gzip.compress(cpio.archive(), mtime=0)
    kernel_at = SCRATCH + WINDOW_BYTES // SECTOR
    initrd_at = kernel_at + -(-len(kernel) // SECTOR)
    return (Image(path, 0, 32 * MIB, files=((kernel_at, kernel), (initrd_at, initrd))),
            f"linux {kernel_at} {len(kernel)} {initrd_at} {len(initrd)} "
            "console=ttyS0 panic=-1 quiet rdinit=/init.sh")


def linux_says(disk: Image, lines: Sequence[str]) -> list[str]:
    """What that init says when all is well, after the program has said this: what is on the disk,
    and that in the memory kept from Linux there is one other word, which the program has spoilt."""
    said = re.search(r"^memory=(\d+) .*^kept=(\d+) spoilt=(0x\w+)$", "\n".join(lines), re.M | re.S)
    assert said, lines
    assert int(said[2]) > int(said[1]) // 2
    looked = f"bytes={said[2]} changed=1 first={said[3]} last={said[3]}"
    digest = hashlib.sha256(disk.path.read_bytes()).hexdigest()
    return [f"looked when=before {looked}", f"disk bytes={disk.size} sha256={digest}",
            f"looked when=after {looked}", "end"]
