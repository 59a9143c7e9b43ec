# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The verdict on a whole run: every way in which it can be wrong is said, and fails it."""

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from lab import boot, guestlog
from lab.boot import HostDisk, Options
from lab.errors import LabError
from lab.guest import Guest
from lab.qemu import Result, plain
from lab.report import Report
from test_whose import SAID
from traces import Log, clean

SUM = "5" * 64
PLACE = "/sys/devices/pci0000:00/0000:00:04.0/virtio0/block/vda"
GUEST = f"""
baton-guest: root device=/dev/vda2 options=ro,relatime path={PLACE}/vda2
baton-guest: disk name=vda bytes=1048576 sector=512 ro=0 path={PLACE} sha256={SUM}
baton-guest: end
"""
MADE = Guest(Path("disk"), UUID(int=1), "linux", "grub")
WRITTEN = guestlog.pattern(100000000, 8192)


def report(serial: str = SAID + GUEST, *, trace: Log | None = None, ended: str = "off",
           options: Options = Options(), host: HostDisk | None = None, said: str = "") -> Report:
    """What boot() makes of a run, without the run."""
    result = Result(ended=ended, exit_code=0, seconds=1, serial=serial,  # type: ignore[arg-type]
                    trace=(trace or clean()).parse(), said=said, addresses=["00:04.0"], command=[])
    made = boot._report(options, result, "tcg", 512, 1 << 20)
    boot.judge_end(made, result, 10)
    boot.judge_guest(made, options, MADE, [host or HostDisk(SUM, SUM, size=1 << 20)], 512)
    return made


def test_good() -> None:
    good = report()
    assert good.ok, good.problems
    assert good.last_line == "hand-over clean: 1 device, 0 live"
    out = io.StringIO()
    good.write(out, verbose=True)
    assert out.getvalue().splitlines()[-1] == good.last_line
    assert json.loads(json.dumps(good.as_json()))["hand_over"]["live"] == 0


def wrong(made: Report, words: str) -> None:
    """There is exactly one problem, and it says this; and the verdict does."""
    assert len(made.problems) == 1, made.problems
    assert words in made.problems[0]
    assert not made.ok
    assert words in made.last_line and "clean" not in made.last_line
    assert not made.as_json()["ok"]


def test_another_driver() -> None:
    other = SAID.replace("Baton virtio-blk driver", "Virtio Block Driver")
    wrong(report(other + GUEST), "the disk's driver is Virtio Block Driver, not Baton")


def test_driver_unknown() -> None:
    wrong(report(GUEST), "could not be asked")
    wrong(report(SAID.replace("whose: end disks=1", "") + GUEST), "could not be asked")


def test_disk_without_driver() -> None:
    lines = [line for line in SAID.splitlines() if "driver" not in line]
    wrong(report("\n".join(lines) + GUEST), "no driver for this disk")


def test_another_program_in_place_of_the_question() -> None:
    made = report(GUEST, options=Options(app=Path("test.efi")))
    assert made.ok and "which driver" in made.unseen[0]


def test_live_device() -> None:
    log = Log().power_on().firmware().command(3, status=11)
    dirty = log.serial("Linux version 6\n").linux()
    wrong(report(trace=dirty), "still live")


def test_checksum_differs() -> None:
    wrong(report(host=HostDisk("6" * 64, "6" * 64, size=1 << 20)), "the guest's checksum")


def test_disk_was_written_to() -> None:
    wrong(report(host=HostDisk(SUM, "6" * 64, size=1 << 20)), "contents changed")


def test_checksum_missing() -> None:
    wrong(report(SAID + GUEST.replace(f"sha256={SUM}", "sha256=")), "missing")


def test_root_elsewhere() -> None:
    moved = GUEST.replace(f"path={PLACE}/vda2", "path=/sys/devices/pci0000:00/0000:00:1f.2/sda2")
    wrong(report(SAID + moved), "the root came from 00:1f.2")


def test_root_not_mounted() -> None:
    lines = [line for line in GUEST.splitlines() if "root" not in line]
    wrong(report(SAID + "\n".join(lines)), "did not mount its root")


def test_disk_not_seen() -> None:
    lines = [line for line in GUEST.splitlines() if "disk" not in line]
    wrong(report(SAID + "\n".join(lines)), "has no disk on 00:04.0")


@pytest.mark.parametrize(("old", "new"), [
    ("bytes=1048576", "bytes=1048064"), ("sector=512", "sector=4096"), ("ro=0", "ro=1")])
def test_disk_looks_different(old: str, new: str) -> None:
    wrong(report(SAID + GUEST.replace(old, new)), "the guest sees 00:04.0 as")


@pytest.mark.parametrize(("ended", "said", "words"), [
    ("timeout", "", "ended after 10 s (at: kernel)"),
    ("died", "warning\nqemu: Fatal: x\n\n", "QEMU died (at: kernel): qemu: Fatal: x"),
    ("reset", "", "ended too early (at: kernel; reset)"),
])
def test_end_too_early(ended: str, said: str, words: str) -> None:
    made = report(SAID + "Linux version 6\npanic\n", ended=ended, said=said)
    assert words in made.problems[0]
    assert "panic" in made.tail and "serial.log" in made.tail


def test_guest_failure_is_told() -> None:
    made = report(SAID + "Linux version 6\nbaton-guest: failed initramfs: mount\n")
    assert "initramfs: mount" in made.problems


def test_no_lines_are_made_of_garbled_ones() -> None:
    made = report(SAID + GUEST.replace("bytes=1048576", "bytes=10x"))
    assert any("has no disk on" in problem for problem in made.problems)


WRITES = Options(write=8192)
WROTE = GUEST.replace("baton-guest: end", "baton-guest: wrote name=vda at=/dev/vda3 bytes=8192 "
                      f"from=100000000 sha256={hashlib.sha256(WRITTEN).hexdigest()}\n"
                      "baton-guest: end")
AFTER = HostDisk(SUM, "7" * 64, "7" * 64, 1 << 20)


def test_write() -> None:
    made = report(SAID + WROTE, options=WRITES, host=AFTER)
    assert made.ok, made.problems
    assert any("8 KiB written" in line for line in made.held)


def test_write_went_wrong() -> None:
    wrong(report(options=WRITES, host=AFTER), "could not write")
    other = WROTE.replace("from=100000000", "from=100000001")
    wrong(report(SAID + other, options=WRITES, host=AFTER), "read back something else")
    wrong(report(SAID + WROTE, options=WRITES, host=replace(AFTER, after="8" * 64)),
          "the host's image")


def test_read_only() -> None:
    options = Options(write=8192, read_only=True)
    refused = GUEST.replace("ro=0", "ro=1").replace(
        "baton-guest: end", "baton-guest: refused name=vda\nbaton-guest: end")
    assert report(SAID + refused, options=options).ok
    wrong(report(SAID + WROTE.replace("ro=0", "ro=1"), options=options), "was not refused")


def test_plain_text() -> None:
    assert plain("\x1b[0m\x1b[37mHello\r\n") == "Hello\n"


@pytest.mark.parametrize(("options", "words"), [
    (Options(rom=Path("/none")), "does not exist"),
    (Options(rom=None, app=Path("/none")), "does not exist"),
    (Options(rom=None, app=Path(__file__)), "not a PE"),
])
def test_bad_options(options: Options, words: str) -> None:
    with pytest.raises(LabError, match=words):
        boot.boot(options)
