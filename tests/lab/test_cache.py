# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What is kept is whole."""

import os
from pathlib import Path

import pytest

from lab import packages
from lab.cache import cached, key_of
from lab.errors import LabError


def test_keys() -> None:
    assert key_of(["ab", "c"]) != key_of(["a", "bc"])
    assert key_of(["a", b"b"]) == key_of([b"a", "b"])
    assert key_of(["a", "b"]) != key_of(["b", "a"])


def test_made_once_and_again_when_something_changed(tmp_path: Path) -> None:
    made = []

    def make(target: Path, scratch: Path) -> None:
        made.append(scratch)
        target.write_text(str(len(made)))

    first = cached(tmp_path, "disk.img", ["1"], make)
    assert cached(tmp_path, "disk.img", ["1"], make) == first
    assert len(made) == 1
    second = cached(tmp_path, "disk.img", ["2"], make)
    assert second != first and not first.exists() and second.read_text() == "2"
    assert not made[0].exists()
    assert first.suffix == ".img"


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    def make(target: Path, scratch: Path) -> None:
        target.write_text("half")
        (scratch / "more").write_text("rubbish")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, "disk.img", ["1"], make)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_killed_outright_is_made_again_and_swept(tmp_path: Path) -> None:
    def die(target: Path, scratch: Path) -> None:
        target.write_text("half")
        os._exit(9)

    child = os.fork()
    if child == 0:
        cached(tmp_path, "disk.img", ["1"], die)
    os.waitpid(child, 0)
    assert list(tmp_path.glob("make.*.tmp"))

    def make(target: Path, _: Path) -> None:
        target.write_bytes(b"whole")

    made = cached(tmp_path, "disk.img", ["1"], make)
    assert made.read_bytes() == b"whole"
    assert not list(tmp_path.glob("make.*.tmp"))


def test_what_apt_says() -> None:
    said = ("'http://x/dash_1%3a0.5-2_amd64.deb' dash_1%3a0.5-2_amd64.deb 100 SHA256:ab\n"
            "'http://x/grep_3.8-5_amd64.deb' grep_3.8-5_amd64.deb 200 SHA256:cd\n")
    found = packages.parse_uris(said, ["grep", "dash"])
    assert [(package.name, package.version, package.size) for package in found] == \
        [("grep", "3.8-5", 200), ("dash", "1:0.5-2", 100)]
    with pytest.raises(LabError, match="no package bash"):
        packages.parse_uris(said, ["bash"])
