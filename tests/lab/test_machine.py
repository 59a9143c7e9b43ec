# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Running machines: how each end is told from the others, retries, locks, and leaving nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import qemu, tools
from lab.errors import LabError
from lab.progress import Progress
from lab.qemu import Bios, Device, Disk, Firmware, Interface, Machine, ScsiController, Unit
from lab.qmp import Qmp
from test_inputs import NV_DATA, pe, volume, write
from traces import clean

Play = Callable[..., None]
ABORT = "ERROR:x.c:1:tcg_handle_interrupt: assertion failed: (qemu_mutex_iothread_locked())\n"


@pytest.fixture(name="play")
def fixture_play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Puts the stand-in where QEMU is looked for, and the lab's files into a test's folder."""
    fake = Path(__file__).with_name("fake_qemu.py")
    find = tools.find
    monkeypatch.setattr(tools, "find", lambda name: str(fake) if name == qemu.QEMU else find(name))
    monkeypatch.setattr(qemu, "LAB", tmp_path / "lab")
    monkeypatch.setattr(qemu, "LOGS", tmp_path / "lab/last-run")
    monkeypatch.setenv("FAKE_QEMU_COUNT", str(tmp_path / "starts"))

    def play(*plays: dict[str, Any]) -> None:
        monkeypatch.setenv("FAKE_QEMU", json.dumps(plays))
    return play


@pytest.fixture(name="machine")
def fixture_machine(tmp_path: Path) -> Machine:
    firmware = Firmware(write(tmp_path / "code", volume(4096)),
                        write(tmp_path / "vars", volume(4096, NV_DATA)))
    return Machine(firmware=firmware, kernel=write(tmp_path / "app", pe()),
                   disks=[Disk(write(tmp_path / "disk", bytes(1 << 20)))])


def starts(tmp_path: Path) -> int:
    return int((tmp_path / "starts").read_text())


@pytest.mark.parametrize(("what", "ended", "app_result"), [
    ({"reason": "guest-shutdown"}, "off", None),
    ({"reason": "guest-reset"}, "reset", None),
    ({"reason": "host-qmp-quit"}, "quit", None),
    ({"serial": "x\r\napp: result 0\r\n", "status": 1}, "debug-exit", 0),
    ({"serial": "app: result 3\r\n", "status": 7}, "debug-exit", 3),
    ({"serial": "app: result 0\r\n", "status": 7}, "died", None),
    ({"serial": "", "status": 1, "said": "error: no"}, "died", None),
    ({"signal": 9}, "died", None),
])
def test_ends(play: Play, machine: Machine, tmp_path: Path, what: dict[str, Any], ended: str,
              app_result: int | None) -> None:
    play(what)
    result = qemu.run(machine, timeout=20)
    assert (result.ended, result.app_result) == (ended, app_result)
    assert starts(tmp_path) == 1
    assert list((tmp_path / "lab").glob("*.tmp")) == []


def test_logs_are_read_and_kept(play: Play, machine: Machine, tmp_path: Path) -> None:
    play({"reason": "guest-shutdown", "serial": "\x1b[2Jhello\r\nthere: 1\r\n",
          "trace": "\n".join(clean().lines)})
    result = qemu.run(machine)
    assert qemu.plain(result.serial) == "hello\nthere: 1\n"
    assert result.lines("there: ") == ["1"]
    assert "Linux version" in result.trace.serial
    assert (tmp_path / "lab/last-run/serial.log").read_text().startswith("\x1b[2Jhello")


def test_time_is_bounded(play: Play, machine: Machine, tmp_path: Path) -> None:
    play({"sleep": 60, "serial": "still here\n"})
    result = qemu.run(machine, timeout=0.5)
    assert result.ended == "timeout" and result.seconds < 10
    assert "still here" in result.explain()
    assert list((tmp_path / "lab").glob("*.tmp")) == []


def test_refusal_is_an_error(play: Play, machine: Machine, tmp_path: Path) -> None:
    play({"refuse": "qemu: Property 'virtio-blk-pci.x' not found"})
    with pytest.raises(LabError, match="did not start: qemu: Property"):
        qemu.run(machine)
    assert starts(tmp_path) == 1


def test_known_abort_is_tried_again_and_told(play: Play, machine: Machine, tmp_path: Path,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    play({"said": ABORT, "signal": 6}, {"said": ABORT, "signal": 6}, {"reason": "guest-shutdown"})
    made = []

    def make(folder: Path) -> Machine:
        made.append(folder)
        return machine
    result = qemu.run(make, progress=Progress(sys.stderr))
    assert (result.ended, result.retries, starts(tmp_path)) == ("off", 2, 3)
    assert len(set(made)) == 3
    assert capsys.readouterr().err.count("QEMU itself broke") == 2


def test_known_abort_is_tried_twice_at_most(play: Play, machine: Machine, tmp_path: Path) -> None:
    play({"said": ABORT, "signal": 6})
    assert qemu.run(machine).ended == "died"
    assert starts(tmp_path) == 3


def test_no_other_death_is_tried_again(play: Play, machine: Machine, tmp_path: Path) -> None:
    play({"said": "ERROR: assertion failed: (something else)", "signal": 6})
    assert qemu.run(machine).ended == "died"
    assert starts(tmp_path) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_machine_and_leaves_nothing(play: Play, machine: Machine, tmp_path: Path,
                                                      number: int) -> None:
    play({"sleep": 60})
    assert isinstance(machine.firmware, Firmware)
    program = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from lab import cli, qemu, tools
find = tools.find
fake = {str(Path(__file__).with_name("fake_qemu.py"))!r}
tools.find = lambda name: fake if name == qemu.QEMU else find(name)
qemu.LAB = Path({str(tmp_path / "lab")!r})
qemu.LOGS = qemu.LAB / "last-run"
cli.SCENARIOS["virtio-blk", "uefi"] = lambda arguments, progress: qemu.run(qemu.Machine(
    firmware=qemu.Firmware(Path({str(machine.firmware.code)!r}),
                           Path({str(machine.firmware.variables)!r}))))
sys.exit(cli.main(["run"]))
"""
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    folder: list[Path] = []
    for _ in range(200):
        folder = list((tmp_path / "lab").glob("run.*.tmp/trace.log"))
        if folder:
            break
        time.sleep(0.05)
    assert folder
    time.sleep(0.3)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130, said
    assert said.strip().endswith("baton: interrupted")
    assert list((tmp_path / "lab").glob("*.tmp")) == []
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True,
                          check=False)
    assert left.stdout == ""


def test_one_at_a_time(play: Play, machine: Machine, tmp_path: Path) -> None:
    play({"sleep": 1, "reason": "guest-shutdown"})
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        os._exit(0 if qemu.run(machine).ended == "off" else 1)
    result = qemu.run(machine)
    _, status = os.waitpid(child, 0)
    assert (result.ended, status) == ("off", 0)
    assert time.monotonic() - begin > 2


def test_command_line(machine: Machine, tmp_path: Path) -> None:
    rom = tmp_path / "a,b.rom"
    disk = Disk(tmp_path / "d,1", rom=rom, transport="legacy", sector_size=4096, read_only=True,
                options={"queue-size": "2"})
    words = " ".join(Machine(disks=[disk, disk], firmware=machine.firmware).command(tmp_path, 5))
    assert f"file={tmp_path}/d,,1,format=raw,read-only=on" in words
    assert f"romfile={tmp_path}/a,,b.rom,disable-legacy=off,disable-modern=on" in words
    assert "logical_block_size=4096" in words and "queue-size=2" in words
    assert "addr=04.0" in words and "addr=05.0" in words
    assert "isa-debug-exit" in words


def test_scsi_command_line(machine: Machine, tmp_path: Path) -> None:
    units = [Unit(tmp_path / "d,0", read_only=True), Unit(tmp_path / "cd", cdrom=True, lun=3),
             Unit(tmp_path / "d1", sector_size=4096, target=2, options={"serial": "x"})]
    device = ScsiController(units, transport="legacy", options={"num_queues": "1"}, boot=True)
    words = Machine(disks=[*machine.disks, device], firmware=machine.firmware).command(tmp_path, 5)
    text = " ".join(words)
    assert "virtio-scsi-pci,id=scsi1,addr=05.0,romfile=,disable-legacy=off,disable-modern=on," \
        "num_queues=1" in words
    assert f"file={tmp_path}/d,,0,format=raw,read-only=on" in text
    assert "scsi-hd,bus=scsi1.0,drive=scsi1-drive0,scsi-id=0,lun=0,logical_block_size=512," \
        "physical_block_size=512,bootindex=1" in words
    # Nothing is ever written to a CD, and nobody says how large its sectors are.
    assert f"file={tmp_path}/cd,format=raw,read-only=on" in text
    assert "scsi-cd,bus=scsi1.0,drive=scsi1-drive1,scsi-id=0,lun=3" in words
    assert "scsi-id=2,lun=0,logical_block_size=4096,physical_block_size=4096,serial=x" in text


def test_network_command_line(machine: Machine, tmp_path: Path) -> None:
    rom = tmp_path / "a.rom"
    interface = Interface(tmp_path / "x,y", "loader.efi", rom=rom, boot=True)
    words = Machine(disks=[interface], firmware=machine.firmware).command(tmp_path, 5)
    assert f"user,id=net0-user,restrict=on,tftp={tmp_path}/x,,y,bootfile=loader.efi" in words
    device = next(word for word in words if word.startswith("virtio-net-pci"))
    assert "netdev=net0-user," in device and device.endswith("disable-modern=off")
    assert f"romfile={rom}," in device and "bootindex=1" in device
    # With somebody else on the wire, all three ends are on one hub.
    shared = replace(interface, rom=None, other_fd=9)
    words = Machine(disks=[shared], firmware=machine.firmware).command(tmp_path, 5)
    device = next(word for word in words if word.startswith("virtio-net-pci"))
    assert "netdev=net0-port," in device and "romfile=," in device
    assert "dgram,id=net0-other,local.type=fd,local.str=9" in words
    assert [word for word in words if word.startswith("hubport,")] == [
        "hubport,id=net0-user-port,hubid=0,netdev=net0-user",
        "hubport,id=net0-other-port,hubid=0,netdev=net0-other", "hubport,id=net0-port,hubid=0"]
    with pytest.raises(LabError, match="has no loader.efi"):
        shared.check()


def test_bios_command_line(tmp_path: Path) -> None:
    rom = tmp_path / "a,b.rom"
    devices: list[Device] = [Disk(tmp_path / "d", boot=True),
                             ScsiController([Unit(tmp_path / "u")], boot=True)]
    words = Machine(disks=devices, machine="pc", firmware=Bios(rom=rom)).command(tmp_path, 5)
    text = " ".join(words)
    assert "-machine pc,graphics=off " in text and "pflash" not in text and "-kernel" not in text
    assert "-bios /usr/share/seabios/bios-256k.bin" in text and "strict" not in text
    # Two cannot be the first to boot, and it is for the disks to say.
    assert words[words.index("-option-rom") + 1] == f"{tmp_path}/a,,b.rom"
    assert text.count("romfile=,") == 2 and text.count("bootindex=1") == 2
    # With the BIOS's own drivers off, only the ROM is to be booted.
    devices = [Disk(tmp_path / "d"), ScsiController([Unit(tmp_path / "u")])]
    firmware = Bios(rom=rom, strict=True)
    words = Machine(disks=devices, firmware=firmware).command(tmp_path, 5)
    assert "-boot strict=on" in " ".join(words)
    assert [word for word in words if "bootindex" in word] == [f"{tmp_path}/a,,b.rom,bootindex=1"]
    assert "pvpanic" not in words
    watched = Machine(firmware=firmware, watch=lambda qmp, serial: None).command(tmp_path, 5)
    assert "pvpanic" in watched and "panic=pause" in watched


def test_a_watch_is_called_while_the_machine_runs(play: Play, machine: Machine) -> None:
    seen = []

    def watch(qmp: Qmp, serial: str) -> None:
        seen.append(serial)
        if len(seen) > 1:
            raise LabError("too much")
    play({"serial": "hello\n", "sleep": 60})
    with pytest.raises(LabError, match="too much"):
        qemu.run(replace(machine, watch=watch), timeout=20)
    assert seen == ["hello\n"] * 2


def test_a_watch_may_come_too_late(play: Play, machine: Machine) -> None:
    """A machine that has ended while it was looked at has still ended as it has."""
    asked = []

    def watch(qmp: Qmp, serial: str) -> None:
        asked.append(serial)
        qmp.execute("stop")
    play({"reason": "guest-shutdown", "sleep": 1})
    assert qemu.run(replace(machine, watch=watch), timeout=20).ended == "off"
    assert asked


def test_a_monitor_that_is_gone() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        qmp = Qmp(ours)
        with pytest.raises(LabError, match="QEMU is gone"):
            qmp.execute("stop")
        assert not qmp.open


def test_too_many_disks(machine: Machine) -> None:
    with pytest.raises(LabError, match="more than the machine has slots"):
        _ = Machine(disks=[*machine.disks] * 28).addresses


def test_missing_pieces(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="does not exist"):
        qemu.run(Machine(firmware=machine.firmware, disks=[Disk(tmp_path / "none")]))
    with pytest.raises(LabError, match="does not exist"):
        qemu.run(Machine(firmware=Firmware(tmp_path / "none", tmp_path / "none")))
