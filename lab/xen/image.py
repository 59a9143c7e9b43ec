# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a Xen host is made of: the hypervisor, and a dom0 from Debian's own packages, without root.

dom0's root file system is never written to. It has Debian's Xen tools, the QEMU that they start for
each guest, firmware for guests, and an init of ours that takes jobs (init.sh).
"""

import gzip
import re
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import guest, tools
from lab.cache import cached
from lab.errors import LabError
from lab.packages import Archive, Package, unpack
from lab.paths import LAB
from lab.progress import Progress

HERE = Path(__file__).parent

HYPERVISOR = "xen-hypervisor-4.17-amd64"
# Everything that Xen's tools and the QEMU of a guest load: the programs, what hotplug scripts
# call, firmware, and then the libraries. Whole packages, but not all that installing them wants.
PROGRAMS = ("xen-utils-4.17", "xen-utils-common", "xenstore-utils", "qemu-system-xen",
            "qemu-system-data", "ipxe-qemu", "seabios", "ovmf", "bash", "dash", "coreutils",
            "mount", "util-linux", "dmsetup")
LIBRARIES = (
    "libacl1", "libattr1", "libbz2-1.0", "libc6", "libdevmapper1.02.1", "libdw1", "libelf1", "libfdt1", "libffi8",
    "libgcc-s1", "libglib2.0-0", "libgmp10", "libgstreamer-plugins-base1.0-0", "libgstreamer1.0-0",
    "libjpeg62-turbo", "liblz4-1", "liblzma5", "libopus0", "liborc-0.4-0", "libpcre2-8-0",
    "libpixman-1-0", "libsasl2-2", "libselinux1", "libsmartcols1", "libspice-server1", "libssl3",
    "libstdc++6", "libtinfo6", "libudev1", "libunwind8", "libusb-1.0-0", "libuuid1", "libxencall1",
    "libxendevicemodel1", "libxenevtchn1", "libxenforeignmemory1", "libxengnttab1", "libxenhypfs1",
    "libxenmisc4.17", "libxenstore4", "libxentoolcore1", "libxentoollog1", "libyajl2", "libzstd1",
    "zlib1g")

# What the initramfs loads to find the root file system, and what init.sh loads after that.
ROOT_MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
MODULES = ("virtio_console", "9pnet_virtio", "9p", "loop", "dm-mod", "dm-delay", "tun",
           "xen-evtchn", "xen-gntdev", "xen-gntalloc", "xen-privcmd", "xenfs", "xen-blkback",
           "xen-netback")

# What init.sh and Xen's hotplug scripts call and no package above has.
_APPLETS = ("awk", "cmp", "find", "free", "grep", "hexdump", "insmod", "ip", "mount", "poweroff", "ps", "sed",
            "umount", "xxd")
# Programs that need more libraries than they are worth here, and have an applet instead.
_WITHOUT = {"mount": ("./bin/*mount*",)}
_SCRIPTS = {"init.sh": "usr/sbin/baton-init", "vif-alone.sh": "etc/xen/scripts/vif-alone"}
_NOT_NEEDED = ("./usr/share/doc", "./usr/share/man", "./usr/share/info", "./usr/share/locale",
               "./usr/share/lintian", "./usr/share/bug", "./usr/share/icons", "*/gconv")

ROOT_UUID = uuid.UUID("0b7b0a50-2a51-4a8b-9b0f-6a0d3a35d0a0")
_MIB = 1 << 20


@dataclass(frozen=True)
class Dom0:
    """The files that a Xen host boots from, and what is in them."""

    hypervisor: Path
    kernel: Path
    initramfs: Path
    root: Path
    versions: dict[str, str]
    """Of the packages that matter to whoever reads a result, by name."""
    preload: Path | None = None
    """What the QEMU around it is to be started with (see cr8.c)."""


def _names(archive: Archive) -> Sequence[str]:
    kernel = archive.depends(guest.KERNEL_META, guest.KERNEL)
    return [kernel, HYPERVISOR, guest.BUSYBOX, *PROGRAMS, *LIBRARIES]


def dom0(progress: Progress) -> Dom0:
    """What a Xen host boots from: from the cache, or made now."""
    packages = Archive(progress).obtain(_names)
    kernel = next(package for name, package in packages.items()
                  if re.fullmatch(guest.KERNEL, name))
    parts: list[str | bytes] = [each.identity for _, each in sorted(packages.items())]
    parts += [(HERE / name).read_bytes() for name in ("image.py", *_SCRIPTS)]
    parts += [(guest.HERE / name).read_bytes() for name in ("__init__.py", "initramfs.sh", "load.sh",
                                                            "../cpio.py")]
    maker = _Maker(packages, kernel)

    def make(name: str, what: str, build: Callable[[Path, Path], None]) -> Path:
        def with_progress(target: Path, scratch: Path) -> None:
            with progress.step(f"making {what}"):
                build(target, scratch)
        return cached(LAB, name, [name, *parts], with_progress)

    return Dom0(hypervisor=make("xen-hypervisor.elf", "the hypervisor's image", maker.hypervisor),
                kernel=make("xen-dom0-kernel", "dom0's kernel", maker.linux),
                initramfs=make("xen-dom0-initramfs", "dom0's initramfs", maker.initramfs),
                root=make("xen-dom0.img", "dom0's root file system", maker.root),
                versions={name: packages[name].version for name in
                          (HYPERVISOR, kernel.name, "qemu-system-xen", "ovmf", "seabios")},
                preload=_preload())


def _preload() -> Path:
    source = HERE / "cr8.c"

    def build(target: Path, scratch: Path) -> None:
        tools.run(["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-shared", "-x", "c", "-o", target, source])
    return cached(LAB, "xen-cr8.so", [source.read_bytes()], build)


@dataclass
class _Maker:
    packages: dict[str, Package]
    kernel: Package

    def hypervisor(self, target: Path, scratch: Path) -> None:
        unpack(self.packages[HYPERVISOR], scratch, only=["./boot/xen-*-amd64.gz"])
        packed = guest.one_of(scratch.glob("boot/xen-*.gz"), "hypervisor")
        # QEMU's multiboot loader takes no compressed one.
        target.write_bytes(gzip.decompress(packed.read_bytes()))

    def linux(self, target: Path, scratch: Path) -> None:
        unpack(self.kernel, scratch, only=["./boot/vmlinuz-*"])
        guest.one_of(scratch.glob("boot/vmlinuz-*"), "kernel").rename(target)

    def initramfs(self, target: Path, scratch: Path) -> None:
        unpack(self.packages[guest.BUSYBOX], scratch)
        unpack(self.kernel, scratch, only=["./lib/modules/*"])
        target.write_bytes(guest.initramfs(scratch / "bin/busybox", scratch / "lib/modules",
                                           ROOT_MODULES))

    def root(self, target: Path, scratch: Path) -> None:
        tree = scratch / "root"
        for name in ("bin", "sbin", "lib", "lib64"):
            (tree / "usr" / name).mkdir(parents=True)
            (tree / name).symlink_to(f"usr/{name}")
        for name in (*PROGRAMS, *LIBRARIES, guest.BUSYBOX):
            unpack(self.packages[name], tree, without=(*_NOT_NEEDED, *_WITHOUT.get(name, ())))
        # Packages bring some of these, with contents or as links that the tmpfs takes the place of.
        for name in ("dev", "host", "jobs", "modules", "proc", "run", "sys", "tmp", "var"):
            (tree / name).mkdir(exist_ok=True)
        if not (tree / "usr/bin/sh").exists():
            (tree / "usr/bin/sh").symlink_to("dash")
        applets = (tree / "usr/bin/busybox").read_bytes()
        for name in _APPLETS:
            if b"\0" + name.encode() + b"\0" not in applets:
                raise LabError(f"{guest.BUSYBOX} has no applet {name}")
            (tree / "usr/bin" / name).symlink_to("busybox")
        # Without a system log, what hotplug scripts say goes to their own one.
        (tree / "usr/bin/logger").symlink_to("false")
        # In the place of a wrapper that asks dpkg which Xen is running.
        (tree / "usr/sbin/xl").unlink()
        (tree / "usr/sbin/xl").symlink_to("../lib/xen-4.17/bin/xl")
        for name, place in _SCRIPTS.items():
            shutil.copyfile(HERE / name, tree / place)
            (tree / place).chmod(0o755)
        self._modules(tree / "modules", scratch / "kernel")
        size = sum(path.lstat().st_size + 4096 for path in tree.rglob("*")) * 11 // 10 + 8 * _MIB
        # No journal: nothing is ever written.
        tools.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-b", "4096", "-m", "0",
                   "-L", "baton-dom0", "-U", str(ROOT_UUID),
                   "-E", f"root_owner=0:0,lazy_itable_init=0,hash_seed={ROOT_UUID}",
                   "-d", tree, target, f"{size // _MIB}M"])

    def _modules(self, target: Path, scratch: Path) -> None:
        scratch.mkdir()
        unpack(self.kernel, scratch, only=["./lib/modules/*"])
        there = set(guest.modules_in_order(scratch / "lib/modules", ROOT_MODULES))
        order = [module for module in guest.modules_in_order(scratch / "lib/modules", MODULES)
                 if module not in there]
        for module in order:
            shutil.copyfile(module, target / module.name)
        (target / "order").write_text("".join(f"{module.name}\n" for module in order))
