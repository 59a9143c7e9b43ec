# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`./baton audit` on small and large machines, and on what cannot be audited: never clean, never
for longer than it was told, and with a sentence that says why. (tests/lab has more of the latter,
with a stand-in for QEMU.)"""

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.cli import CANNOT, HELD, INTERRUPTED
from lab.paths import TOP
from lab.qemu import QEMU, Firmware

Report = dict[str, Any]

GIB = 1 << 30
PLACE = "0000:00:04.0"
BOUND = 10
"""Seconds that a broken firmware is given. Starting and ending take a little more."""
RESET_VECTOR = 16
"""Bytes from the end."""


def words(target: Path, *options: str | Path) -> list[str | Path]:
    return [TOP / "baton", "audit", "--watch", "200", "--json", target / "report", *options]


def audit(target: Path, *options: str | Path) -> tuple[int, str, Report]:
    """Gives the exit status, all that was said, and the report."""
    done = subprocess.run(words(target, *options), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    print(done.stdout)  # pytest shows it for a test that fails
    return done.returncode, done.stdout, json.loads((target / "report").read_text())


def good(target: Path, *options: str | Path) -> Report:
    """An audit that came to its end, of a device that Baton drives and lets go of."""
    status, _, report = audit(target, *options)
    found = {verdict["rule"]: verdict["verdict"] for verdict in report["verdicts"]
             if verdict["name"] == PLACE}
    assert status == HELD
    assert report["result"] == "clean" and report["error"] is None
    assert {rule: found[rule] for rule in ("C4", "C5", "C7")} == dict.fromkeys(
        ("C4", "C5", "C7"), "pass")
    return report


def watched(report: Report) -> list[tuple[int, int]]:
    """Begin and end of each piece of memory that is watched."""
    return [(int(region["base"], 0), int(region["base"], 0) + region["size"])
            for region in report["regions"] if region["watched"]]


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_small(tmp_path: Path, machine: str) -> None:
    report = good(tmp_path, "--machine", machine, "--memory", "128")
    assert report["machine"]["machine"] == machine
    assert report["machine"]["memory"] == 128 << 20
    size = sum(end - begin for begin, end in watched(report))
    assert 32 << 20 < size < 128 << 20
    assert all(event["bytes"] >= size for event in report["events"] if event["type"] == "watch")


def test_firmware_in_one_file(tmp_path: Path) -> None:
    both = tmp_path / "OVMF.fd"
    both.write_bytes(Firmware().variables.read_bytes() + Firmware().code.read_bytes())
    report = good(tmp_path, "--firmware", both)
    assert report["firmware"]["file"] == str(both)
    assert report["firmware"]["sha256"] == hashlib.sha256(both.read_bytes()).hexdigest()


def test_more_than_4_gib(tmp_path: Path) -> None:
    """Part of it has addresses of more than 32 bits, and is watched like the rest."""
    report = good(tmp_path, "--memory", "4608")
    high = sum(end - begin for begin, end in watched(report) if begin >= 4 * GIB)
    # At least what does not fit below, less what the firmware and the auditor have there.
    assert high > 512 << 20
    rounds = [event["bytes"] for event in report["events"] if event["type"] == "watch"]
    assert len(rounds) == 2 and all(size > 4 * GIB for size in rounds)


# ---- What cannot be audited ----

def _code() -> bytearray:
    return bytearray(Firmware().code.read_bytes())


def _no_reset_vector() -> bytes:
    code = _code()
    code[-RESET_VECTOR:] = bytes(RESET_VECTOR)
    return bytes(code)


def _endless() -> bytes:
    code = _code()
    code[-RESET_VECTOR:-RESET_VECTOR + 2] = b"\xeb\xfe"  # jmp to itself
    return bytes(code)


def _resets() -> bytes:
    code = _code()
    # Counts down for a while, so that the machine is seen to run, and resets it by the chipset's
    # port: mov ecx, …; dec ecx; jnz; mov dx, 0xcf9; mov al, 6; out dx, al.
    code[-RESET_VECTOR:] = bytes.fromhex("66b900000030 6649 75fc baf90c b006 ee")
    return bytes(code)


def _header_only() -> bytes:
    """What is looked at before it is run is all that there is."""
    code = _code()
    head = int.from_bytes(code[0x30:0x32], "little")
    return bytes(code[:head]).ljust(len(code), b"\0")


@pytest.mark.parametrize(("make", "says"), [
    (_no_reset_vector, ("the machine was reset", f"ended after {BOUND} s", "QEMU died")),
    (_endless, (f"ended after {BOUND} s; the firmware said nothing on the serial port",)),
    (_resets, ("the machine was reset",)),
    (_header_only, ("the machine was reset", f"ended after {BOUND} s", "QEMU died")),
], ids=["no-reset-vector", "endless", "resets", "header-only"])
def test_broken_firmware(tmp_path: Path, make: Callable[[], bytes], says: tuple[str, ...]) -> None:
    firmware = tmp_path / "firmware.fd"
    firmware.write_bytes(make())
    begin = time.monotonic()
    status, said, report = audit(tmp_path, "--firmware", firmware, "--timeout", str(BOUND))
    # The machine may have to wait for its turn, which the run's own time does not count.
    assert "waiting for another" in said or time.monotonic() - begin < BOUND + 10
    assert status == CANNOT
    assert report["result"] == "could not audit"
    assert str(report["error"]).startswith("the auditor never began (")
    assert any(each in str(report["error"]) for each in says)
    assert said.splitlines()[-1] == f"audit: could not audit: {report['error']}"
    assert "clean" not in said


def test_firmware_that_never_stops_talking(tmp_path: Path) -> None:
    """It is ended long before it has filled the disk, or has said more than anybody can read."""
    code = _code()
    # mov dx, 0x3f8; mov al, 'A'; out dx, al; jmp to the last.
    code[-RESET_VECTOR:-RESET_VECTOR + 8] = bytes.fromhex("baf803 b041 ee ebfd")
    firmware = tmp_path / "firmware.fd"
    firmware.write_bytes(code)
    status, said, report = audit(tmp_path, "--firmware", firmware)
    assert status == CANNOT
    assert report["result"] == "could not audit"
    assert "sent more than 8 MiB to its serial port" in report["error"]
    assert said.splitlines()[-1] == f"baton: {report['error']}"
    assert "clean" not in said


@pytest.mark.parametrize(("option", "content", "says"), [
    ("--firmware", b"I am no firmware.\n", "is not a UEFI firmware image"),
    ("--firmware", bytes(4 << 20), "is not a UEFI firmware image"),
    ("--driver", b"I am no driver.\n", "is not a PE program"),
    ("--device", b"", "virtio-blok"),
], ids=["text-firmware", "zeros-firmware", "text-driver", "device"])
def test_wrong_input(tmp_path: Path, option: str, content: bytes, says: str) -> None:
    """Refused at once, in one line, with nothing started."""
    given = tmp_path / "given.efi"
    given.write_bytes(content)
    begin = time.monotonic()
    status, said, report = audit(tmp_path, option, given if content else "virtio-blok")
    assert time.monotonic() - begin < BOUND
    assert status == CANNOT
    assert said.startswith("baton: ") and said.count("\n") == 1 and says in said
    assert report["result"] == "could not audit" and says in report["error"]


def test_refused_by_qemu(tmp_path: Path) -> None:
    """A property that only QEMU itself knows not to exist."""
    status, said, report = audit(tmp_path, "--device", "nvme,colour=green", "--timeout", str(BOUND))
    assert status == CANNOT
    assert "nvme.colour" in said and "clean" not in said
    assert report["result"] == "could not audit"


# ---- Interrupted ----

def _machines_of(parent: int) -> list[int]:
    """QEMU's processes below this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            program = os.readlink(entry / "exe")
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if Path(program).name == QEMU and int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def _folder_of(machine: int) -> Path | None:
    """Where a machine's files are; None where it is gone again."""
    try:
        words_ = Path(f"/proc/{machine}/cmdline").read_text().split("\0")
    except OSError:
        return None
    logs = [Path(word.partition("logfile=")[2]).parent for word in words_ if "logfile=" in word]
    return logs[0] if logs else None


def _watching(folder: Path | None) -> bool:
    """Whether the machine has come so far."""
    try:
        return folder is not None and \
            '"phase":"watching"' in (folder / "serial.log").read_text("latin-1")
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM],
                         ids=lambda number: signal.Signals(number).name)
def test_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    """In the middle of the watch: the command ends at once, and takes its machine with it."""
    process = subprocess.Popen(words(tmp_path, "--watch", "60000"), stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    try:
        end = time.monotonic() + 300
        machines: list[int] = []
        folder = None
        while not _watching(folder):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.2)
            machines = _machines_of(process.pid)
            folder = _folder_of(machines[0]) if machines else None
        assert len(machines) == 1 and folder is not None
        process.send_signal(number)
        begin = time.monotonic()
        said = process.communicate(timeout=30)[0]
    finally:
        process.kill()
        process.wait()
    assert time.monotonic() - begin < BOUND
    assert process.returncode == INTERRUPTED
    assert said.splitlines()[-1] == "baton: interrupted" and "Traceback" not in said
    assert not Path(f"/proc/{machines[0]}").exists()
    assert not folder.exists()
    # No verdict of it is anywhere, and the next one can begin.
    assert not (tmp_path / "report").exists()
