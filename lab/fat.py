# SPDX-License-Identifier: BSD-2-Clause-Patent
"""FAT images for firmware to boot from, made with mtools and without root."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from lab import tools
from lab.errors import LabError
from lab.paths import shown

BOOT_PATH = "/EFI/BOOT/BOOTX64.EFI"
"""What UEFI firmware starts from a disk that no boot option names."""

_MIB = 1 << 20
# Room for the file system's own tables, generously.
_SPARE = 4 * _MIB


def fat_image(target: Path, files: Mapping[str, Path | bytes], *, size: int | None = None) -> Path:
    """Make a FAT file system of these files, named by their paths in it: "/EFI/BOOT/BOOTX64.EFI".

    What it holds is a file of the host's or the bytes themselves. `size` is in bytes; by default
    the image is as big as the files need. It has no partition table: the whole disk is the file
    system. Gives `target`.
    """
    contents = {PurePosixPath("/", name): _bytes_of(content) for name, content in files.items()}
    needed = sum(-(-len(data) // 4096) * 4096 for data in contents.values()) + _SPARE
    if size is not None and size < needed:
        raise LabError(f"a file system of {size} bytes is too small for these files, which need "
                       f"{needed}")
    with target.open("wb") as image:
        image.truncate(-(-(size or needed) // _MIB) * _MIB)
    tools.run(["mkfs.vfat", "-n", "BATON", "-i", "ba700002", "--invariant", target])
    # mtools wants whole tracks, which no disk has had for long.
    quiet = {"MTOOLS_SKIP_CHECK": "1"}
    folders = {parent for path in contents for parent in path.parents if parent.name}
    for folder in sorted(folders, key=lambda path: len(path.parts)):
        tools.run(["mmd", "-i", target, f"::{folder}"], env=quiet)
    for index, (path, data) in enumerate(contents.items()):
        # mcopy would take standard input, but as text of ours, which a program is not.
        piece = target.with_name(f"{target.name}.{index}.part")
        try:
            piece.write_bytes(data)
            tools.run(["mcopy", "-i", target, piece, f"::{path}"], env=quiet)
        finally:
            piece.unlink(missing_ok=True)
    return target


def boot_image(target: Path, program: Path, extra: Mapping[str, Path | bytes] | None = None,
               *, size: int | None = None) -> Path:
    """A disk from which UEFI firmware starts this program, with more files beside it."""
    return fat_image(target, {BOOT_PATH: program, **(extra or {})}, size=size)


def _bytes_of(content: Path | bytes) -> bytes:
    if isinstance(content, bytes):
        return content
    try:
        return content.read_bytes()
    except OSError as error:
        raise LabError(f"{shown(content)} cannot be read: {error.strerror}") from None
