# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Files that are made once and kept, named by a hash of all they were made from."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def key_of(parts: Iterable[str | bytes]) -> str:
    """A name for exactly these parts, in this order."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        # The length in front keeps ("ab", "c") and ("a", "bc") apart.
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()[:16]


def file_sum(path: Path) -> str:
    """sha256 of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for, and hold, an advisory lock. It is gone when the process is, however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """A folder that is gone afterwards, whatever happens in between."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}.", suffix=".tmp", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(parent: Path, name: str) -> None:
    """Remove the folders of this name that others left behind because they were killed outright.
    Only for the holder of a lock without which nobody makes such folders."""
    for left in parent.glob(f"{name}.*.tmp"):
        shutil.rmtree(left, ignore_errors=True)


def cached(folder: Path, name: str, parts: Iterable[str | bytes],
           make: Callable[[Path, Path], None]) -> Path:
    """The file `name`-KEY in `folder`, made by make(target, scratch folder) if it is not there.

    It gets its name only when it is complete and on the disk, so whatever has that name can be
    believed, also after Ctrl-C, a full disk or a power cut. Earlier versions are removed.
    """
    stem, dot, suffix = name.partition(".")
    final = folder / f"{stem}-{key_of(parts)}{dot}{suffix}"
    if final.exists():
        return final
    with locked(folder / ".lock"):
        if final.exists():  # somebody else made it while we waited
            return final
        sweep(folder, "make")
        with scratch_folder(folder, "make") as scratch:
            target = scratch / "target"
            make(target, scratch)
            with target.open("rb") as file:
                os.fsync(file.fileno())
            for old in folder.glob(f"{stem}-????????????????{dot}{suffix}"):
                old.unlink()
            target.rename(final)
    return final
