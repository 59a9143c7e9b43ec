# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Debian packages, downloaded and unpacked but not installed. No root needed."""

import re
import shlex
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lab import tools
from lab.cache import locked, scratch_folder, sweep
from lab.errors import LabError
from lab.paths import LAB
from lab.progress import Progress

FOLDER = LAB / "packages"

T = TypeVar("T")


class ListsOutOfDate(LabError):
    """The archive no longer has what the system's package lists promise."""


@dataclass(frozen=True)
class Package:
    """One version of one package, as the archive has it."""

    name: str
    file: str
    size: int
    digest: str

    @property
    def version(self) -> str:
        # A file name has the version between underscores, with its colon written as %3a.
        return self.file.split("_")[1].replace("%3a", ":")

    @property
    def identity(self) -> str:
        return f"{self.file} {self.digest}"

    @property
    def path(self) -> Path:
        return FOLDER / self.file


class Archive:
    """What apt knows. The system's package lists are used as they are; where they are missing, or
    so old that the archive has moved on, a set of our own is fetched into the build folder."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._own = LAB / "apt"
        self._options: list[str] = []
        # As root, apt would like to download as another user, who cannot write here.
        self._common = ["-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1"]

    def _apt(self, tool: str, *words: str, cwd: Path | None = None) -> str:
        return tools.run([tool, *self._common, *self._options, *words], cwd=cwd)

    def _use_own_lists(self, reason: str) -> None:
        self._options = ["-o", f"Dir::State::lists={self._own}/lists",
                         "-o", f"Dir::Cache={self._own}/cache"]
        for folder in ("lists/partial", "cache/archives/partial"):
            (self._own / folder).mkdir(parents=True, exist_ok=True)
        with self._progress.step(f"fetching package lists ({reason})"):
            try:
                self._apt("apt-get", "update", "--error-on=any")
            except LabError as error:
                raise LabError("the package lists are missing or out of date, and new ones could "
                               f"not be fetched; run `apt-get update` as root. {error}") from error

    def depends(self, name: str, pattern: str) -> str:
        """The one package among the direct dependencies of `name` whose name fits."""
        def look() -> str:
            found = re.findall(rf"^\s*Depends: ({pattern})$",
                               self._apt("apt-cache", "depends", name), re.MULTILINE)
            if not found:
                raise LabError(f"{name} depends on no package like {pattern}")
            return str(found[0])
        return self._with_lists(f"asking apt for {name}", look)

    def resolve(self, names: Sequence[str]) -> list[Package]:
        """Which version of each package apt would install now. Fast, and fetches nothing."""
        def look() -> list[Package]:
            return parse_uris(self._apt("apt-get", "download", "--print-uris", *names), names)
        return self._with_lists("asking apt for versions", look)

    def _with_lists(self, what: str, look: Callable[[], T]) -> T:
        try:
            with self._progress.step(what):
                return look()
        except LabError as error:
            if self._options:
                raise
            first = error
        self._use_own_lists("the system has none that serve")
        try:
            with self._progress.step(f"{what}, again"):
                return look()
        except LabError as error:
            raise LabError(f"{error} (and before: {first})") from error

    def fetch(self, packages: Sequence[Package]) -> None:
        """Make sure that these packages' files are in FOLDER."""
        with locked(FOLDER / ".lock"):
            missing = [package for package in packages if not package.path.exists()]
            if not missing:
                return
            sweep(FOLDER, "download")
            megabytes = sum(package.size for package in missing) / 1e6
            with self._progress.step(f"downloading {len(missing)} Debian packages, "
                                     f"{megabytes:.0f} MB"):
                try:
                    self._download(missing)
                except LabError as error:
                    if self._options:
                        raise
                    first = error
                else:
                    return
            # The usual reason is that the lists name a version which the archive no longer has.
            self._use_own_lists("a download failed")
            names = [package.name for package in missing]
            if self.resolve(names) == missing:
                raise first
            raise ListsOutOfDate(str(first))

    def _download(self, packages: Sequence[Package]) -> None:
        with scratch_folder(FOLDER, "download") as scratch:
            # apt checks the hash of what it downloads.
            self._apt("apt-get", "download", *[f"{package.name}={package.version}"
                                               for package in packages], cwd=scratch)
            for package in packages:
                got = scratch / package.file
                if not got.exists() or got.stat().st_size != package.size:
                    raise LabError(f"apt-get download did not give {package.file}")
                got.rename(package.path)

    def obtain(self, names: Callable[["Archive"], Sequence[str]]) -> dict[str, Package]:
        """Resolve and fetch, once more with fresh lists if the present ones are out of date."""
        for last in (False, True):
            packages = self.resolve(names(self))
            try:
                self.fetch(packages)
            except ListsOutOfDate:
                if last:
                    raise
                continue
            return {package.name: package for package in packages}
        raise AssertionError("not reached")


def parse_uris(text: str, names: Iterable[str]) -> list[Package]:
    """What `apt-get download --print-uris` says: 'address' file size hash, a line for each."""
    found: dict[str, Package] = {}
    for line in text.splitlines():
        words = shlex.split(line)
        if len(words) == 4 and words[1].endswith(".deb"):
            name = words[1].split("_")[0]
            found[name] = Package(name, words[1], int(words[2]), words[3])
    for name in names:
        if name not in found:
            raise LabError(f"apt knows no package {name}")
    return [found[name] for name in names]


def unpack(package: Package, folder: Path, *, only: Sequence[str] = (),
           without: Sequence[str] = ()) -> None:
    """Unpack a package's files into a folder: only members that fit a pattern, or all but some.

    Patterns are tar's; paths begin with `./`. Symbolic links to folders that are already there are
    kept, as Debian's merged /usr needs.
    """
    filters = [f"--exclude={pattern}" for pattern in without]
    if only:
        filters += ["--wildcards", *only]
    reader = subprocess.Popen([tools.find("dpkg-deb"), "--fsys-tarfile", str(package.path)],
                              stdout=subprocess.PIPE)
    assert reader.stdout is not None
    with reader.stdout:
        done = subprocess.run([tools.find("tar"), "-x", "--no-same-owner",
                               "--keep-directory-symlink", "-C", str(folder), *filters],
                              stdin=reader.stdout, stderr=subprocess.PIPE, text=True, check=False)
    if reader.wait() != 0 or done.returncode != 0:
        raise LabError(f"{package.file} could not be unpacked; remove it and try again. "
                       f"{done.stderr.strip()}")
