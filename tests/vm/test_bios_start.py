# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The start of the ROM on a PC BIOS: which disks it takes, in which order they boot, and what it leaves
of devices and memory that it does not take.

The disks have a boot sector of ours, which says its geometry (08h) and its name on the serial port.
"""

import random
import re
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from lab.paths import BIOS_ROM as ROM
from lab.paths import BUILD
from lab.qemu import QEMU
from lab.qmp import Qmp

TIMEOUT = 60.0
MIB = 1 << 20

# mov ah,8; mov dl,0x80; int 0x13; mov bx,cx; mov cl,dh; mov dx,0x3f8; mov al,'G'; out dx,al;
# mov al,bh; out dx,al; mov al,bl; out dx,al; mov al,cl; out dx,al
SAYS_ITS_GEOMETRY = bytes.fromhex("b408b280cd1389cb88f1baf803b047ee88f8ee88d8ee88c8ee")
# xor ax,ax; mov ds,ax; mov si,0x7d00; mov dx,0x3f8; 1: lodsb; test al,al; jz 2f; out dx,al; jmp 1b;
# 2: hlt; jmp 2b
SAYS_ITS_NAME = bytes.fromhex("31c08ed8be007dbaf803ac84c07403eeebf8f4ebfd")

# Reads what PACKET says 200 times, and says < before, + after each, and > and the sum of the words read
# in the end: xor ax,ax; mov ds,ax; mov dx,0x3f8; mov al,'<'; out dx,al; mov cx,200; 1: push cx;
# mov si,0x7d80; mov ah,0x42; mov dl,0x80; sti; int 0x13; pop cx; jc 4f; mov dx,0x3f8; mov al,'+';
# out dx,al; loop 1b; mov ax,0x1000; mov ds,ax; xor si,si; xor bx,bx; mov cx,0x7f00; 2: lodsw;
# add bx,ax; loop 2b; mov dx,0x3f8; mov al,'>'; out dx,al; mov al,bh; out dx,al; mov al,bl; out dx,al;
# 4: hlt; jmp 4b
READS = bytes.fromhex(
    "31c08ed8baf803b03ceeb9c80051be807db442b280fbcd13597225baf803b02beee2eab800108ed831f6"
    "31dbb9007fad01c3e2fbbaf803b03eee88f8ee88d8eef4ebfd")
# Reads it for ever, until the timer's third tick in the same read starts the system anew. That one
# goes on with what comes behind: xor ax,ax; mov ds,ax; cmp byte [0x600],0x5a; je 4f;
# mov byte [0x600],0x5a; mov eax,[0x20]; mov [0x604],eax; cli; mov dword [0x20],tick; mov dx,0x3f8;
# mov al,'F'; out dx,al; 1: mov byte [0x601],0; mov si,0x7d80; mov ah,0x42; mov dl,0x80; sti; int 0x13;
# jnc 1b; 2: hlt; jmp 2b; tick: push ax; inc byte [cs:0x601]; cmp byte [cs:0x601],3; je 3f; pop ax;
# jmp far [cs:0x604]; 3: mov eax,[cs:0x604]; mov [cs:0x20],eax; mov al,0x20; out 0x20,al; int 0x19; 4:
STARTS_ANEW = bytes.fromhex(
    "31c08ed8803e00065a7455c60600065a66a1200066a30406fa66c70620003c7c0000baf803b046eec606"
    "010600be807db442b280fbcd1373eff4ebfd502efe0601062e803e0106037406582eff2e0406662ea104"
    "06662ea32000b020e620cd19")
# 127 sectors from the second on, to 1000:0000.
PACKET = struct.pack("<BBHHHQ", 16, 0, 127, 0, 0x1000, 1)

# ROMs that come before Baton's, from their entry on. The first takes all memory that PMM has for good,
# and gives a block of so many paragraphs back as are said at 1F0h: pushad; push ds; push es;
# mov bx,0xe000; 1: mov ds,bx; inc bx; cmp dword [0],'$PMM'; jne 1b; mov eax,[7]; push cs; pop ds;
# jmp 9f; 9: mov bp,sp; push eax; mov ecx,[cs:0x1f0]; call get; push eax; mov ecx,0x100000; 2: call get;
# test eax,eax; jnz 2b; shr ecx,1; cmp ecx,0x100; jae 2b; pop ecx; test ecx,ecx; jz 3f; push ecx;
# push 2; call far [bp-4]; add sp,6; 3: mov sp,bp; pop es; pop ds; popad; retf;
# get: push 10; push dword -1; push ecx; push 0; call far [bp-4]; add sp,12; shl edx,16; mov dx,ax;
# mov eax,edx; ret
TAKES_MEMORY = bytes.fromhex(
    "66601e06bb00e08edb4366813e000024504d4d75f266a107000e1feb0089e566502e668b0ef001e83400"
    "665066b900001000e829006685c075f866d1e96681f90001000073ec66596685c9740a66516a02ff5efc"
    "83c40689ec071f6661cb6a0a666aff66516a00ff5efc83c40c66c1e21089c26689d0c3")
# pushad; push ds; mov bx,0xe000; 1: mov ds,bx; inc bx; cmp dword [0],'$PMM'; jne 1b; mov byte [0],0;
# pop ds; popad; retf
HIDES_PMM = bytes.fromhex("66601ebb00e08edb4366813e000024504d4d75f2c6060000001f6661cb")
# mov byte [es:di],0; retf
HIDES_PNP = bytes.fromhex("26c60500cb")

STRICT = ("-boot", "strict=on", "-option-rom", f"romfile={ROM},bootindex=9")
TAKES_OVER = ("-option-rom", str(ROM))


def disk(path: Path, name: str, size: int = MIB) -> Path:
    sector = bytearray((SAYS_ITS_GEOMETRY + SAYS_ITS_NAME).ljust(512, b"\0"))
    text = f"\nthis is {name}\n".encode()
    sector[0x100:0x100 + len(text)] = text
    sector[510:512] = b"\x55\xaa"
    path.write_bytes(bytes(sector))
    with path.open("r+b") as file:
        file.truncate(size)
    return path


def program(path: Path, code: bytes, name: str = "the system") -> Path:
    """A disk that begins with this, and has something in what PACKET says."""
    disk(path, name)
    with path.open("r+b") as file:
        file.write(code)
        file.seek(0x180)
        file.write(PACKET)
        file.seek(512)
        file.write(random.Random(1).randbytes(127 * 512))
    return path


# xor ax,ax; mov ds,ax; mov word [0x1a*4],1f; mov [0x1a*4+2],cs; retf;
# 1: cmp ax,0xb101; jne 2f; xor ecx,ecx; mov edx,"PCI "; mov ax,1; push bp; mov bp,sp;
# and byte [bp+6],0xfe; pop bp; 2: iret
SAYS_BUS_0 = bytes.fromhex("31c08ed8c70668002f008c0e6a00cb3d01b175146631c966ba50434920b80100"
                           "5589e5806606fe5dcf")


def early_rom(folder: Path, code: bytes, paragraphs: int = 0) -> Path:
    """Without a PnP header it would be left for later; the order is that of the names, from the last."""
    image = bytearray(512)
    image[:6] = b"\x55\xaa\x01\xe9\x1a\x00"  # jmp 0x20
    image[0x1a:0x1c] = b"\xc0\x01"
    image[0x20:0x20 + len(code)] = code
    image[0x1c0:0x1ca] = b"$PnP\x01\x02\0\0\0\xcb"
    image[0x1f0:0x1f4] = paragraphs.to_bytes(4, "little")
    image[511] = -sum(image) & 0xff
    path = folder / "early.rom"
    path.write_bytes(image)
    return path


class Machine:
    """A PC that runs until it has said something."""

    def __init__(self, folder: Path, *words: str, machine: str = "pc", memory: int = 64) -> None:
        self._serial, self._debug = folder / "serial", folder / "debug"
        self._errors = folder / "errors"
        for path in (self._serial, self._debug):  # of a machine before this one
            path.unlink(missing_ok=True)
        ours, theirs = socket.socketpair()
        self._qmp, self._socket = Qmp(ours), ours
        with theirs, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg",
                 "-machine", f"{machine},graphics=off", "-m", str(memory),
                 "-serial", f"file:{self._serial}",
                 "-chardev", f"file,id=debug,path={self._debug}",
                 "-device", "isa-debugcon,iobase=0x402,chardev=debug",
                 "-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon",
                 "chardev=qmp,mode=control", *words],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
                pass_fds=[theirs.fileno()])
        self._qmp.execute("qmp_capabilities")

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._socket.close()

    @property
    def serial(self) -> str:
        return self._serial.read_text("latin-1") if self._serial.exists() else ""

    @property
    def debug(self) -> str:
        """What SeaBIOS has written into its log, and Baton with it."""
        return self._debug.read_text("latin-1") if self._debug.exists() else ""

    def until(self, pattern: str, times: int = 1) -> "Machine":
        """Wait until the serial port has had it so often. If it never has, the machine is ended."""
        end = time.monotonic() + TIMEOUT
        try:
            while len(re.findall(pattern, self.serial)) < times:
                assert self._process.poll() is None, self._errors.read_text()
                assert time.monotonic() < end, f"{self.serial}\n{self.debug}"
                time.sleep(0.05)
        except BaseException:
            self._end()
            raise
        return self

    def reset(self) -> None:
        self._qmp.execute("system_reset")

    def unthrottle(self, drive: str) -> None:
        self._qmp.execute("block_set_io_throttle", {
            "device": drive, "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0,
            "iops_wr": 0})

    def running(self) -> int:
        """How many virtio devices are set going (DRIVER_OK), or have been shown a queue."""
        count = 0
        for device in self._qmp.execute("x-query-virtio"):
            path = {"path": device["path"]}
            status = self._qmp.execute("x-query-virtio-status", path)
            count += status["status"]["statuses"] != [] or any(
                self._qmp.execute("x-query-virtio-queue-status", path | {"queue": queue})
                ["vring-desc"] for queue in range(status["num-vqs"]))
        return count

    def drives(self) -> list[tuple[str, str]]:
        """Baton's numbers, and what they are for."""
        return re.findall(r"Baton: drive (\w+)h: (.*?), \d+ sectors", self.debug)

    def reserved(self) -> int:
        """Bytes below 4 GiB that the E820 map takes away, but for what is the chipset's."""
        found = re.findall(r"  \d+: (\w+) - (\w+) = 2 RESERVED", self.debug)
        return sum(int(end, 16) - int(start, 16) for start, end in found
                   if 0x100000 <= int(start, 16) < 0x80000000)


def blk(path: Path, index: int, *more: str) -> list[str]:
    return ["-drive", f"file={path},format=raw,if=none,id=d{index}", "-device",
            ",".join([f"virtio-blk-pci,drive=d{index},romfile=", *more])]


def lun(path: Path, index: int, *more: str) -> list[str]:
    return ["-drive", f"file={path},format=raw,if=none,id=d{index}", "-device",
            ",".join([f"scsi-hd,drive=d{index}", *more])]


def slow(words: Sequence[str]) -> list[str]:
    """Half a MiB in a second."""
    return [f"{word},throttling.bps-total={MIB // 2}" if word.startswith("file=") else word
            for word in words]


HBA = ("-device", "virtio-scsi-pci,id=hba,romfile=")


# ---- Whose, and in which order ----

@pytest.mark.parametrize("machine", ["pc", "q35"])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_many(tmp_path: Path, machine: str, count: int) -> None:
    words = [word for index in range(count)
             for word in blk(disk(tmp_path / f"{index}", f"disk {index}"), index)]
    with Machine(tmp_path, *STRICT, *words, machine=machine).until("this is disk 0") as pc:
        assert [number for number, _ in pc.drives()] == [f"{0x80 + i:x}" for i in range(count)]


def test_too_many(tmp_path: Path) -> None:
    """Sixteen of seventeen."""
    words = [word for index in range(17)
             for word in blk(disk(tmp_path / f"{index}", f"disk {index}"), index)]
    with Machine(tmp_path, *STRICT, *words).until("this is disk 0") as pc:
        assert len(pc.drives()) == 16 and "there are too many disks" in pc.debug


def test_taken_over_in_the_users_order(tmp_path: Path) -> None:
    """The BIOS has both, and starts the second first: number 80h, and Baton behind it."""
    words = [*blk(disk(tmp_path / "a", "the first"), 0, "bootindex=2", "addr=5"),
             *blk(disk(tmp_path / "b", "the second"), 1, "bootindex=1", "addr=6")]
    with Machine(tmp_path, *TAKES_OVER, *words).until("this is the second") as pc:
        assert pc.drives() == [("80", "virtio-blk at 00:06.0")]


def test_behind_a_disk_of_the_bioss(tmp_path: Path) -> None:
    """An IDE disk stays the BIOS's, and what it says of the order counts."""
    words = ["-drive", f"file={disk(tmp_path / 'a', 'IDE')},format=raw,if=none,id=ide",
             "-device", "ide-hd,drive=ide,bootindex=1", *blk(disk(tmp_path / "b", "virtio"), 1)]
    with Machine(tmp_path, *STRICT, *words).until("this is IDE") as pc:
        assert [number for number, _ in pc.drives()] == ["81"]


def test_before_a_disk_of_the_bioss(tmp_path: Path) -> None:
    words = ["-drive", f"file={disk(tmp_path / 'a', 'IDE')},format=raw,if=none,id=ide",
             "-device", "ide-hd,drive=ide,bootindex=10", *blk(disk(tmp_path / "b", "virtio"), 1)]
    with Machine(tmp_path, *STRICT, *words).until("this is virtio") as pc:
        assert [number for number, _ in pc.drives()] == ["80"]


def test_behind_bridges(tmp_path: Path) -> None:
    """On buses that the BIOS has numbered, the last of them another root's."""
    words = ["-device", "pci-bridge,id=bridge,chassis_nr=1", "-device", "pxb,id=root,bus_nr=128",
             *blk(disk(tmp_path / "a", "behind a bridge"), 0, "bus=bridge", "addr=1"),
             *blk(disk(tmp_path / "b", "another root's"), 1, "bus=root", "addr=1")]
    with Machine(tmp_path, *STRICT, *words).until("this is behind a bridge") as pc:
        assert pc.drives() == [("80", "virtio-blk at 01:01.0"), ("81", "virtio-blk at 81:01.0")]


def test_behind_a_bridge_that_the_bios_does_not_tell_of(tmp_path: Path) -> None:
    early = ["-option-rom", str(early_rom(tmp_path, SAYS_BUS_0))]
    words = ["-device", "pci-bridge,id=bridge,chassis_nr=1",
             *blk(disk(tmp_path / "a", "behind a bridge"), 0, "bus=bridge", "addr=1")]
    with Machine(tmp_path, *early, *STRICT, *words).until("this is behind a bridge") as pc:
        assert pc.drives() == [("80", "virtio-blk at 01:01.0")]


def test_units(tmp_path: Path) -> None:
    """Units of an adapter, in their order; a CD among them is not for us."""
    words = [*HBA, *lun(disk(tmp_path / "a", "7:0"), 0, "scsi-id=7", "lun=0"),
             *lun(disk(tmp_path / "b", "3:300"), 1, "scsi-id=3", "lun=300"),
             *lun(disk(tmp_path / "c", "3:2"), 2, "scsi-id=3", "lun=2"),
             "-device", "scsi-cd,scsi-id=1"]
    with Machine(tmp_path, *STRICT, *words).until("this is 3:2") as pc:
        assert [what.split()[1] for _, what in pc.drives()] == ["3:2", "3:300", "7:0"]


def test_units_of_the_bioss(tmp_path: Path) -> None:
    """It does not say which is which, so all of them stay with it."""
    words = [*HBA, *lun(disk(tmp_path / "a", "a unit"), 0, "bootindex=1")]
    with Machine(tmp_path, *TAKES_OVER, *words).until("this is a unit") as pc:
        assert pc.drives() == []


def test_large_sectors(tmp_path: Path) -> None:
    """SeaBIOS has no use for them, so nobody has to be asked."""
    words = blk(disk(tmp_path / "a", "large"), 0, "logical_block_size=4096",
                "physical_block_size=4096")
    with Machine(tmp_path, *TAKES_OVER, *words).until("this is large") as pc:
        assert len(pc.drives()) == 1 and "256 sectors of 4096 bytes" in pc.debug


def test_two_roms(tmp_path: Path) -> None:
    """The second has nothing to do, and takes nothing."""
    words = blk(disk(tmp_path / "a", "the disk"), 0)
    with Machine(tmp_path, *STRICT, *words).until("this is the disk") as pc:
        alone, runs = pc.reserved(), pc.debug.count("Running option rom")
    again = tmp_path / "again.rom"
    shutil.copy(ROM, again)
    with Machine(tmp_path, *STRICT, "-option-rom", str(again), *words).until(
            "this is the disk") as pc:
        assert len(pc.drives()) == 1
        # Each ROM, and the one drive's vector.
        assert pc.debug.count("Running option rom") == runs + 1
        assert pc.reserved() == alone


@pytest.mark.parametrize("how", [STRICT, TAKES_OVER], ids=["strict", "takes-over"])
def test_boots_again(tmp_path: Path, how: Sequence[str]) -> None:
    """And the same each time; a reset comes in the middle of whatever is going on."""
    words = blk(disk(tmp_path / "a", "the disk"), 0,
                *(["bootindex=1"] if how is TAKES_OVER else []))
    with Machine(tmp_path, *how, *words) as pc:
        for boot in range(1, 21):
            pc.until("this is the disk", boot)
            pc.reset()
        pc.until("this is the disk", 21)
        assert len(set(pc.drives())) == 1
        assert len(set(re.findall(r"Returned (\d+) bytes of ZoneHigh", pc.debug))) == 1


RESETS = 5
# The BIOS may not have written all of its own yet.
TWO_READS = r"<[^<+]*\+[^<+]*\+"
SUM = r">([\s\S]{2})"


@pytest.mark.parametrize("how, make", [(STRICT, blk), (TAKES_OVER, blk), (STRICT, lun)],
                         ids=["blk", "blk-taken-over", "scsi"])
def test_reset_in_the_middle_of_a_read(
        tmp_path: Path, how: Sequence[str], make: Callable[..., list[str]]) -> None:
    """The disk is slow, and some of the reads are done when the reset comes. In the end all are."""
    path = program(tmp_path / "a", READS)
    words = slow(make(path, 0, *(["bootindex=1"] if how is TAKES_OVER else [])))
    data = path.read_bytes()[512:128 * 512]
    with Machine(tmp_path, *how, *(HBA if make is lun else ()), *words) as pc:
        for boot in range(1, RESETS + 1):
            pc.until(TWO_READS, boot)
            pc.reset()
            assert ">" not in pc.serial
        pc.until(TWO_READS, RESETS + 1)
        pc.unthrottle("d0")
        pc.until(SUM)
        found = re.findall(SUM, pc.serial)[0]
        assert int.from_bytes(found.encode("latin-1"), "big") == \
            sum(struct.unpack(f"<{len(data) // 2}H", data)) & 0xffff
        assert len(set(pc.drives())) == 1


@pytest.mark.parametrize("make", [blk, lun])
def test_started_anew_in_the_middle_of_a_read(
        tmp_path: Path, make: Callable[..., list[str]]) -> None:
    """By INT 19h from the timer: nobody comes back to that read, and the disk is there all the same."""
    words = slow(make(program(tmp_path / "a", STARTS_ANEW + SAYS_ITS_NAME), 0))
    with Machine(tmp_path, *STRICT, *(HBA if make is lun else ()), *words).until(
            "F(.|\n)*this is the system") as pc:
        assert len(pc.drives()) == 1


@pytest.mark.parametrize("card", ["VGA", "cirrus-vga", "qxl-vga"])
def test_beside_a_graphics_card(tmp_path: Path, card: str) -> None:
    """Whose own ROM takes most of the room below 1 MiB."""
    words = blk(disk(tmp_path / "a", "the disk"), 0, "bootindex=1")
    with Machine(tmp_path, *TAKES_OVER, "-device", card, *words).until("this is the disk") as pc:
        assert [number for number, _ in pc.drives()] == ["80"]


@pytest.mark.parametrize("how", [
    ["cyls=16", "heads=4", "secs=32"], ["lcyls=100", "lheads=4", "lsecs=40"],
    ["cyls=8000", "heads=16", "secs=63"], [],
], ids=["physical", "logical", "large", "usual"])
def test_geometry(tmp_path: Path, how: Sequence[str]) -> None:
    """Cylinders, heads and sectors mean the same whoever has the disk: partition tables rely on it."""
    words = blk(disk(tmp_path / "a", "the disk", size=4032 * MIB), 0, "bootindex=1", *how)
    said = []
    for rom in ((), TAKES_OVER):
        with Machine(tmp_path, *rom, *words).until("this is the disk") as pc:
            assert bool(pc.drives()) == bool(rom)
            said += re.findall(r"G(...)\nthis", pc.serial, re.DOTALL)
    assert len(said) == 2 and said[0] == said[1]


# ---- What it leaves alone ----

def nothing_taken(tmp_path: Path, *words: str) -> None:
    """The ROM comes to nothing: all of its memory is given back, and the machine boots from what else
    it has."""
    ide = ["-drive", f"file={disk(tmp_path / 'ide', 'IDE')},format=raw,if=none,id=ide",
           "-device", "ide-hd,drive=ide,bootindex=1"]
    with Machine(tmp_path, *ide, "-boot", "strict=on", *words).until("this is IDE") as pc:
        without, space = pc.reserved(), rom_space(pc)
    with Machine(tmp_path, *ide, *STRICT, *words).until("this is IDE") as pc:
        assert pc.drives() == [] and pc.running() == 0
        assert "Running option rom" in pc.debug
        assert (pc.reserved(), rom_space(pc)) == (without, space)


def rom_space(pc: Machine) -> str:
    """Where the BIOS has room for more ROMs: what each takes is missing there."""
    found: list[str] = re.findall(r"Space available for UMB: (\w+)-", pc.debug)
    return found[-1] if found else ""


def test_no_devices(tmp_path: Path) -> None:
    nothing_taken(tmp_path)


def test_no_units_behind_the_adapter(tmp_path: Path) -> None:
    nothing_taken(tmp_path, *HBA)


def test_a_cd_alone(tmp_path: Path) -> None:
    nothing_taken(tmp_path, *HBA, "-device", "scsi-cd")


def test_an_empty_disk(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    nothing_taken(tmp_path, *blk(path, 0))


def test_sectors_that_are_too_large(tmp_path: Path) -> None:
    nothing_taken(tmp_path, *blk(disk(tmp_path / "a", "large"), 0, "logical_block_size=8192",
                                 "physical_block_size=8192"))


# For the 32-bit part, on a page's boundary, and nothing more.
IMAGE = (int.from_bytes((BUILD / "bios/high.bin").read_bytes()[4:8], "little") + 0x1fff & ~0xfff) // 16


@pytest.mark.parametrize("what, paragraphs, said", [
    (TAKES_MEMORY, 1, "no memory from the BIOS's PMM"),
    (TAKES_MEMORY, IMAGE, "the BIOS has no more memory for disks"),
    (HIDES_PMM, 0, "no memory from the BIOS's PMM"),
], ids=["no-memory", "for-itself-alone", "no-pmm"])
def test_no_memory(tmp_path: Path, what: bytes, paragraphs: int, said: str) -> None:
    """It says so, takes nothing, and leaves the disks alone."""
    early = ["-option-rom", str(early_rom(tmp_path, what, paragraphs))]
    ide = ["-drive", f"file={disk(tmp_path / 'ide', 'IDE')},format=raw,if=none,id=ide",
           "-device", "ide-hd,drive=ide,bootindex=1"]
    words = [*ide, *HBA, *lun(disk(tmp_path / "b", "b"), 1),
             *blk(disk(tmp_path / "a", "a"), 0)]
    with Machine(tmp_path, *early, *STRICT, *words).until("this is IDE") as pc:
        assert said in pc.debug + pc.serial and pc.drives() == [] and pc.running() == 0


def test_no_plug_and_play(tmp_path: Path) -> None:
    """Nobody to ask for the order, so the disks have their numbers at once."""
    early = ["-option-rom", str(early_rom(tmp_path, HIDES_PNP))]
    words = [*blk(disk(tmp_path / "a", "disk 0"), 0), *blk(disk(tmp_path / "b", "disk 1"), 1)]
    with Machine(tmp_path, *early, *STRICT, *words).until("this is disk 0") as pc:
        assert [number for number, _ in pc.drives()] == ["80", "81"]


# ---- How much it takes ----

def taken(tmp_path: Path, make: Callable[[int], Sequence[str]], count: int) -> int:
    with Machine(tmp_path, *STRICT, *make(count)).until("this is disk 0") as pc:
        assert len(pc.drives()) == count and pc.running() > 0
        # From C000h on are the ROMs: QEMU's own for the APIC, and ours.
        space = int(rom_space(pc), 16) - 0xc0000
        assert space <= 0x2800 + 4096
        return pc.reserved()


def blks(tmp_path: Path) -> Callable[[int], Sequence[str]]:
    return lambda count: [word for index in range(count) for word in blk(
        disk(tmp_path / f"{index}", f"disk {index}"), index)]


def luns(tmp_path: Path) -> Callable[[int], Sequence[str]]:
    return lambda count: [*HBA, *[word for index in range(count) for word in lun(
        disk(tmp_path / f"{index}", f"disk {index}"), index, f"lun={index}")]]


@pytest.mark.parametrize("kind", [blks, luns])
def test_memory(tmp_path: Path, kind: Callable[[Path], Callable[[int], Sequence[str]]]) -> None:
    """No more than 256 KiB for one disk and 64 KiB for each further one."""
    with Machine(tmp_path, "-boot", "strict=on").until("No bootable device") as pc:
        without = pc.reserved()
    one, eight = (taken(tmp_path, kind(tmp_path), count) for count in (1, 8))
    assert 64 << 10 < one - without <= 256 << 10
    assert 0 < eight - one <= 7 * (64 << 10)
