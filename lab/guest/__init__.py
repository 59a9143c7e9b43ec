# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The guest: a small Debian, made from Debian's own packages, without root.

On a disk: GPT; an EFI system partition with Debian's GRUB; an ext4 root with Debian's kernel in
/boot, a few of Debian's programs, and an init of ours; and a partition that tests may write to. On
a disk for a PC BIOS: the same root, GRUB in front of it, and either kind of partition table; or with
EXTLINUX in it. On a CD: El Torito, and the same root as ISO 9660. For the network: what a TFTP
server needs, with the same kernel and the same initramfs, which there is all the system.
"""

import gzip
import os
import re
import shutil
import tarfile
import tempfile
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Literal

from lab import gpt, mbr, tools
from lab.cache import cached
from lab.cpio import Cpio
from lab.errors import LabError
from lab.fat import boot_image
from lab.guest import extlinux, grub_pc
from lab.packages import Archive, Package, unpack
from lab.paths import LAB
from lab.progress import Progress

HERE = Path(__file__).parent

GRUB = "grub-efi-amd64-bin"
BUSYBOX = "busybox-static"
KERNEL_META = "linux-image-amd64"
KERNEL = r"linux-image-[0-9][^ ]*-amd64"
# What the root is made of: the programs that init.sh calls, and the libraries they need.
ROOT = ("base-files", "dash", "coreutils", "grep", "libc6", "libacl1", "libattr1", "libgmp10",
        "libselinux1", "libpcre2-8-0")
_NOT_NEEDED = ("./usr/share/doc", "./usr/share/man", "./usr/share/info", "./usr/share/locale",
               "./usr/share/lintian", "*/gconv")

# Makes CDs. It is only unpacked, like what the guest is made of, and run with these libraries.
GENISOIMAGE = "genisoimage"
ISO_TOOLS = (GENISOIMAGE, "libmagic1", "libbz2-1.0", "zlib1g")

# virtio_pci brings the modern and legacy parts with it. crc32c is what ext4 asks the crypto layer
# for by name, which no dependency of the module tells.
MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "sr_mod", "virtio_net",
           "xen-blkfront", "crc32c_generic", "ext4", "isofs", "qemu_fw_cfg")

CD_SECTOR = 2048

_MIB = 1 << 20
_ESP_SIZE = 8 * _MIB
_BIOS_BOOT_SIZE = _MIB
_SCRATCH_SIZE = 16 * _MIB
# Between the first sector and the first partition.
_GAP = gpt.ALIGNMENT - mbr.SECTOR

_SEED = uuid.UUID("6d2f6a8e-9d2b-4c54-8d0b-2f6ee0a9a1f4")


Partitions = Literal["mbr", "gpt"]
PARTITIONS: tuple[Partitions, ...] = ("mbr", "gpt")
"""What a PC BIOS can boot from: GRUB's core lies in the gap behind the first sector, or in a
partition of its own."""

Loader = Literal["grub", "extlinux"]
LOADERS: tuple[Loader, ...] = ("grub", "extlinux")
"""What a PC BIOS starts."""

NETWORK_LOADER = "grubnetx64.efi"
"""The file of the network's that firmware starts."""


@dataclass(frozen=True)
class Guest:
    """A finished disk, CD, or archive of what a TFTP server needs; and what is on it."""

    disk: Path
    root_uuid: uuid.UUID
    kernel: str
    loader: str


def _own_text() -> list[bytes]:
    """Whatever of ours shapes the disk: when it changes, the disk is made anew."""
    files = [*sorted(HERE.iterdir()), *(HERE.parent / name for name in
                                        ("gpt.py", "mbr.py", "cpio.py", "fat.py"))]
    return [file.read_bytes() for file in files if file.is_file()]


def _made(progress: Progress, what: str, file: str, more: Sequence[str], root_uuid: uuid.UUID,
          sector_size: int, how: Callable[["_Maker", Path], None], loader: str = GRUB,
          keep: Path = LAB) -> Guest:
    """From the cache, or made now. `more` are packages that only this one needs."""
    def names(archive: Archive) -> Sequence[str]:
        return [archive.depends(KERNEL_META, KERNEL), loader, BUSYBOX, *ROOT, *more]

    packages = Archive(progress).obtain(names)
    kernel = next(package for name, package in packages.items() if re.fullmatch(KERNEL, name))
    parts: list[str | bytes] = [f"{what}, sector size {sector_size}"]
    parts += sorted(each.identity for each in packages.values())
    parts += _own_text()

    def make(target: Path, scratch: Path) -> None:
        with progress.step(f"making the guest's {what} ({kernel.name})") as step:
            how(_Maker(packages, kernel, root_uuid, sector_size, scratch, step.tell), target)

    return Guest(cached(keep, file, parts, make), root_uuid, f"{kernel.name} {kernel.version}",
                 f"{loader} {packages[loader].version}")


def guest(progress: Progress, sector_size: int = 512) -> Guest:
    """The guest's disk for this sector size."""
    return _made(progress, "disk", f"guest-{sector_size}.img", (),
                 uuid.uuid5(_SEED, f"root {sector_size}"), sector_size, _Maker.make_disk)


def bios_disk(progress: Progress, partitions: Partitions, loader: Loader = "grub") -> Guest:
    """The guest's disk for a PC BIOS, with sectors of 512 bytes."""
    if loader == "extlinux":
        # In a folder with a lock of its own: to make it a machine is run, and whoever runs one may
        # be waiting for the lock of the others.
        return _made(progress, "disk for a PC BIOS, EXTLINUX", "guest-extlinux.img", (),
                     uuid.uuid5(_SEED, "root extlinux"), mbr.SECTOR, _Maker.make_extlinux_disk,
                     extlinux.PACKAGE, LAB / "extlinux")
    return _made(progress, f"disk for a PC BIOS, {partitions.upper()}", f"guest-{partitions}.img",
                 grub_pc.TOOLS, uuid.uuid5(_SEED, f"root {partitions}"), mbr.SECTOR,
                 lambda maker, target: maker.make_bios_disk(target, partitions), grub_pc.IMAGES)


def cdrom(progress: Progress) -> Guest:
    """The guest's CD."""
    return _made(progress, "CD", "guest.iso", ISO_TOOLS, uuid.uuid5(_SEED, "cd"), CD_SECTOR,
                 _Maker.make_cdrom)


def network(progress: Progress) -> Guest:
    """A tar archive of the folder from which the guest boots over the network."""
    return _made(progress, "network image", "guest-net.tar", (), uuid.uuid5(_SEED, "net"), 0,
                 _Maker.make_network)


@dataclass
class _Maker:
    packages: dict[str, Package]
    kernel: Package
    root_uuid: uuid.UUID
    sector_size: int
    scratch: Path
    tell: Callable[[str], None]

    def _kernel(self) -> tuple[Path, bytes]:
        """The kernel's package, unpacked, and the initramfs for it."""
        self.tell("kernel")
        kernel = self._unpacked(self.kernel, only=["./boot/*", "./lib/modules/*"])
        self.tell("initramfs")
        return kernel, self._initramfs(kernel)

    def make_network(self, target: Path) -> None:
        kernel, initramfs = self._kernel()
        self.tell("archive")
        folder = self.scratch / "tftp"
        (folder / "grub").mkdir(parents=True)
        shutil.copyfile(self._loader(NETWORK_LOADER), folder / NETWORK_LOADER)
        shutil.copyfile(one_of(kernel.glob("boot/vmlinuz-*"), "kernel"), folder / "vmlinuz")
        (folder / "initrd.img").write_bytes(initramfs)
        # Where that GRUB looks, as it is built into it.
        (folder / "grub/grub.cfg").write_text(self._config("grub.cfg", folder="", root="baton.net"))
        with tarfile.open(target, "w") as archive:
            archive.add(folder, ".")

    def make_cdrom(self, target: Path) -> None:
        root = self._root_tree(*self._kernel(), where="root=/dev/sr0 rootfstype=iso9660")
        self.tell("CD")
        # By this file its GRUB knows the CD that it came from.
        (root / ".disk").mkdir()
        (root / ".disk/info").write_text("Baton's lab\n")
        boot_image(root / "boot/grub/efi.img", self._loader("gcdx64.efi"))
        tool = self.scratch / "iso"
        tool.mkdir()
        for name in ISO_TOOLS:
            unpack(self.packages[name], tool, without=_NOT_NEEDED)
        libraries = ":".join(str(folder) for folder in
                             (tool / "usr/lib/x86_64-linux-gnu", tool / "lib/x86_64-linux-gnu"))
        tools.run([tool / "usr/bin/genisoimage", "-quiet", "-rational-rock", "-V", "BATON",
                   "-eltorito-alt-boot", "-e", "boot/grub/efi.img", "-no-emul-boot", "-o", target,
                   root], env={"LD_LIBRARY_PATH": libraries})

    def make_disk(self, target: Path) -> None:
        root = self._root_tree(*self._kernel(), where=f"root=UUID={self.root_uuid}")
        root_image = self._file_system(root)
        self.tell("EFI system partition")
        esp_image = self._esp()
        self.tell("disk")
        partitions = gpt.layout([("esp", gpt.ESP, _ESP_SIZE),
                                 ("root", gpt.LINUX_ROOT_X86_64, root_image.stat().st_size),
                                 ("scratch", gpt.LINUX_DATA, _SCRATCH_SIZE)], self.root_uuid)
        size = gpt.disk_size(partitions)
        _write_disk(target, size, [
            *gpt.tables(partitions, size, self.sector_size, self.root_uuid),
            *((partition.start, image.read_bytes())
              for partition, image in zip(partitions, (esp_image, root_image), strict=False))])

    def make_bios_disk(self, target: Path, partitions: Partitions) -> None:
        root = self._file_system(self._root_tree(*self._kernel(),
                                                 where=f"root=UUID={self.root_uuid}")).read_bytes()
        self.tell("disk")
        boot, core = grub_pc.make(self.packages, self.scratch,
                                  {"mbr": "(,msdos1)", "gpt": "(,gpt2)"}[partitions])
        if partitions == "gpt":
            size, pieces = self._gpt_for_bios(boot, core, root)
        else:
            size, pieces = self._mbr_for_bios(*grub_pc.place(boot, core, mbr.SECTOR, _GAP), root)
        _write_disk(target, size, pieces)

    def make_extlinux_disk(self, target: Path) -> None:
        where = f"root=UUID={self.root_uuid}"
        root = self._root_tree(*self._kernel(), where=where, config=extlinux.CONFIG)
        unpack(self.packages[extlinux.PACKAGE], root, without=_NOT_NEEDED)
        code = (root / extlinux.FIRST_SECTOR).read_bytes()
        size, pieces = self._mbr_for_bios(code, b"", self._file_system(root).read_bytes())
        _write_disk(target, size, pieces)
        self.tell("EXTLINUX's installer")
        extlinux.install(target, root / "boot", where, self.scratch)

    def _gpt_for_bios(self, boot: bytes, core: bytes,
                      root: bytes) -> tuple[int, list[tuple[int, bytes]]]:
        """A disk's size, and what is where on it."""
        parts = gpt.layout([("bios", gpt.BIOS_BOOT, _BIOS_BOOT_SIZE),
                            ("root", gpt.LINUX_ROOT_X86_64, len(root)),
                            ("scratch", gpt.LINUX_DATA, _SCRATCH_SIZE)], self.root_uuid)
        size = gpt.disk_size(parts)
        code, core = grub_pc.place(boot, core, parts[0].start, parts[0].size)
        return size, [*gpt.tables(parts, size, mbr.SECTOR, self.root_uuid), (0, code),
                      (parts[0].start, core), (parts[1].start, root)]

    def _mbr_for_bios(self, code: bytes, core: bytes,
                      root: bytes) -> tuple[int, list[tuple[int, bytes]]]:
        parts = [mbr.Partition(mbr.LINUX, gpt.ALIGNMENT, len(root)),
                 mbr.Partition(mbr.LINUX, gpt.ALIGNMENT + len(root), _SCRATCH_SIZE)]
        table = mbr.sector(parts, self.root_uuid.fields[0], code)
        return parts[1].start + parts[1].size, [(0, table), (mbr.SECTOR, core),
                                                (parts[0].start, root)]

    def _unpacked(self, package: Package, only: Sequence[str] = ()) -> Path:
        folder = self.scratch / package.name
        folder.mkdir()
        unpack(package, folder, only=only)
        return folder

    def _initramfs(self, kernel: Path) -> bytes:
        busybox = self._unpacked(self.packages[BUSYBOX]) / "bin/busybox"
        return initramfs(busybox, kernel / "lib/modules", MODULES, "net.sh")

    def _root_tree(self, kernel: Path, initramfs: bytes, where: str,
                   config: str = "boot/grub/grub.cfg") -> Path:
        """The root file system; `where` is what the kernel is told of it, and `config` where the boot
        loader looks."""
        self.tell("root")
        root = self.scratch / "root"
        # Debian has /bin and its like as links into /usr; the packages are unpacked through them.
        for name in ("bin", "sbin", "lib", "lib64"):
            (root / "usr" / name).mkdir(parents=True)
            (root / name).symlink_to(f"usr/{name}")
        for name in ROOT:
            unpack(self.packages[name], root, without=_NOT_NEEDED)
        for name in ("dev", "proc", "sys", "run", "tmp", str(Path(config).parent)):
            (root / name).mkdir(parents=True, exist_ok=True)
        shell = root / "usr/bin/sh"
        if not shell.exists():
            shell.symlink_to("dash")
        init = root / "usr/sbin/baton-init"
        shutil.copyfile(HERE / "init.sh", init)
        init.chmod(0o755)
        vmlinuz = one_of(kernel.glob("boot/vmlinuz-*"), "kernel")
        shutil.copyfile(vmlinuz, root / "boot/vmlinuz")
        (root / "boot/initrd.img").write_bytes(initramfs)
        (root / config).write_text(self._config(Path(config).name, folder="/boot", root=where))
        return root

    def _config(self, name: str, *, folder: str, root: str) -> str:
        """A boot loader's: where the kernel lies, and how it is told where its root is."""
        text = (HERE / name).read_text()
        return text.replace("@FOLDER@", folder).replace("@ROOT@", root)

    def _loader(self, name: str) -> Path:
        """One of the GRUBs that Debian has put together."""
        grub = self.scratch / name
        grub.mkdir()
        unpack(self.packages[GRUB], grub, only=[f"*/monolithic/{name}"])
        return one_of(grub.rglob(name), "GRUB")

    def _file_system(self, tree: Path) -> Path:
        blocks = inodes = 0
        for folder, _, files in os.walk(tree):
            for path in (Path(folder), *(Path(folder, file) for file in files)):
                inodes += 1
                blocks += -(-path.lstat().st_size // 4096)
        # The contents, the journal and tables, and some air.
        size = blocks * 4096 * 105 // 100 + 12 * _MIB
        image = self.scratch / "root.img"
        tools.run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-m", "0", "-N", str(inodes + 256),
                   "-J", "size=4", "-L", "baton-root", "-U", str(self.root_uuid), "-E",
                   f"root_owner=0:0,lazy_itable_init=0,hash_seed={self.root_uuid}", "-d", str(tree),
                   str(image), f"{size // _MIB}M"])
        if os.geteuid() != 0:
            self._own_by_root(tree, image)
        return image

    def _own_by_root(self, tree: Path, image: Path) -> None:
        """Files copied by a plain user are that user's: give them to root inside the image."""
        commands = []
        for folder, folders, files in os.walk(tree):
            for name in (*folders, *files):
                path = Path("/", Path(folder, name).relative_to(tree))
                commands += [f'sif "{path}" uid 0\n', f'sif "{path}" gid 0\n']
        tools.run(["debugfs", "-w", "-f", "/dev/stdin", str(image)], stdin="".join(commands))

    def _esp(self) -> Path:
        loader = self._loader("grubx64.efi")
        config = self.scratch / "esp-grub.cfg"
        config.write_text((HERE / "esp-grub.cfg").read_text().replace("@ROOT@",
                                                                      str(self.root_uuid)))
        image = self.scratch / "esp.img"
        with image.open("wb") as file:
            file.truncate(_ESP_SIZE)
        tools.run(["mkfs.vfat", "-S", str(self.sector_size), "-n", "ESP", "-i", "ba700001",
                   "--invariant", str(image)])
        # mtools believes a disk has 512-byte sectors unless told to look.
        quiet = {"MTOOLS_SKIP_CHECK": "1"}
        for folder in ("::/EFI", "::/EFI/BOOT", "::/EFI/debian"):
            tools.run(["mmd", "-i", str(image), folder], env=quiet)
        tools.run(["mcopy", "-i", str(image), str(loader), "::/EFI/BOOT/BOOTX64.EFI"], env=quiet)
        # Where Debian's GRUB looks, as it is built into it.
        tools.run(["mcopy", "-i", str(image), str(config), "::/EFI/debian/grub.cfg"], env=quiet)
        return image


def tell_loader(disk: Path, made: Guest, sector_size: int, *, console: str = "",
                tasks: str = "") -> None:
    """Have a copy of the guest's disk boot with another console, and with tasks: for a machine on
    which the serial port is slow, and which has no fw_cfg."""
    lines = [f"set console='{console}'\nexport console\n"] if console else []
    lines += [f"set tasks='baton.tasks={tasks}'\nexport tasks\n"] if tasks else []
    with tempfile.NamedTemporaryFile("w") as file:
        esp = gpt.find(disk, sector_size, "esp")
        if esp is None:
            _tell_loader_on_root(disk, "".join(lines), file)
            return
        config = (HERE / "esp-grub.cfg").read_text().replace("@ROOT@", str(made.root_uuid))
        file.write("".join(lines) + config)
        file.flush()
        # mtools believes a disk has 512-byte sectors unless told to look.
        tools.run(["mcopy", "-o", "-i", f"{disk}@@{esp.start}", file.name,
                   "::/EFI/debian/grub.cfg"], env={"MTOOLS_SKIP_CHECK": "1"})


def _tell_loader_on_root(disk: Path, lines: str, file: IO[str]) -> None:
    """A PC BIOS's disk has no more of GRUB's configuration than what is on the root."""
    named = gpt.find(disk, mbr.SECTOR, "root")
    starts = [named.start] if named else [each.start for each in mbr.read(disk)]
    if not starts:
        raise LabError(f"{disk.name} has no root partition")
    image, config = f"{disk}?offset={starts[0]}", "/boot/grub/grub.cfg"
    file.write(lines + tools.run(["debugfs", "-R", f"cat {config}", image]))
    file.flush()
    tools.run(["debugfs", "-w", "-f", "/dev/stdin", image],
              stdin=f"rm {config}\nwrite {file.name} {config}\n"
                    f"sif {config} uid 0\nsif {config} gid 0\n")


def scratch_start(disk: Path, sector_size: int) -> int:
    """Where the part of the guest's disk begins that tests may write to: the partition of that
    name, or the last one where partitions have no names."""
    named = gpt.find(disk, sector_size, "scratch")
    if named is not None:
        return named.start
    unnamed = [partition for partition in mbr.read(disk) if partition.kind == mbr.LINUX]
    if not unnamed:
        raise LabError(f"{disk.name} has no scratch partition")
    return unnamed[-1].start


def one_of(paths: Iterable[Path], what: str) -> Path:
    """The only one of these paths."""
    found = list(paths)
    if len(found) != 1:
        raise LabError(f"the package holds {len(found)} files that could be the {what}")
    return found[0]


def initramfs(busybox: Path, modules: Path, wanted: Sequence[str], *scripts: str) -> bytes:
    """Loads these modules of a kernel's, in order of dependence, and goes to the root that its command
    line names (initramfs.sh). More scripts of this folder are in it."""
    cpio = Cpio()
    for folder in ("bin", "dev", "modules", "proc", "root", "sys"):
        cpio.folder(folder)
    cpio.character_device("dev/console", 5, 1)
    cpio.file("bin/busybox", busybox.read_bytes(), 0o755)
    cpio.file("init", (HERE / "initramfs.sh").read_bytes(), 0o755)
    for name in scripts:
        cpio.file(name, (HERE / name).read_bytes(), 0o755)
    order = modules_in_order(modules, wanted)
    for module in order:
        cpio.file(f"modules/{module.name}", module.read_bytes())
    cpio.file("modules/order", "".join(f"{module.name}\n" for module in order).encode())
    cpio.file("modules/load.sh", (HERE / "load.sh").read_bytes())
    return gzip.compress(cpio.archive(), compresslevel=6, mtime=0)


def modules_in_order(tree: Path, wanted: Sequence[str]) -> list[Path]:
    """The files of these kernel modules and all that they depend on, each after what it needs."""
    files = {path.name.partition(".")[0].replace("-", "_"): path for path in tree.rglob("*.ko")}
    order: list[Path] = []

    def add(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None:
            raise LabError(f"the kernel package has no module {name}")
        if path in order:
            return
        found = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
        for needed in found[1].decode().split(",") if found else []:
            if needed:
                add(needed)
        order.append(path)

    for name in wanted:
        add(name)
    return order


def _write_disk(target: Path, size: int, pieces: Iterable[tuple[int, bytes]]) -> None:
    """Make a disk image of this size with these bytes at these places, and zeros elsewhere."""
    with target.open("wb") as disk:
        disk.truncate(size)
        for offset, data in pieces:
            disk.seek(offset)
            _copy_sparse(data, disk)


def _copy_sparse(data: bytes, disk: BinaryIO) -> None:
    """Write what is not zero, and skip what is: the file stays small on the host."""
    step = 64 * 1024
    for at in range(0, len(data), step):
        piece = data[at:at + step]
        if piece.count(0) == len(piece):
            disk.seek(len(piece), os.SEEK_CUR)
        else:
            disk.write(piece)
