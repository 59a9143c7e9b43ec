# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Running other people's programs."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.errors import LabError

# mkfs and friends live here, where the PATH of a plain user does not look.
_PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"

_PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mkfs.vfat": "dosfstools",
    "mcopy": "mtools",
    "mmd": "mtools",
    "mren": "mtools",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "apt-get": "apt",
    "apt-cache": "apt",
    "dpkg-deb": "dpkg",
    "tar": "tar",
    "setpriv": "util-linux",
}


def find(name: str) -> str:
    """Where a program is; a LabError with what to install if it is nowhere."""
    path = shutil.which(name, path=_PATH)
    if path is None:
        package = _PACKAGES.get(name, name)
        raise LabError(f"{name} is not installed: run `make deps`, or install Debian's package "
                       f"{package}")
    return path


def run(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None,
        stdin: str | None = None, cwd: Path | None = None) -> str:
    """Run to the end and give its output. A failure is a LabError with the program's own words."""
    words = [find(str(command[0])), *map(str, command[1:])]
    done = subprocess.run(words, env={**os.environ, "LC_ALL": "C", **(env or {})}, cwd=cwd,
                          input=stdin, stdin=subprocess.DEVNULL if stdin is None else None,
                          text=True, capture_output=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        raise LabError(f"{command[0]} failed: {said}")
    return done.stdout
