# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The auditor as people start it: from removable media, the UEFI shell and a boot entry, with its
options and drivers from there, on machines that nobody has prepared for it."""

import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.audit.lines import Said, parse, whole
from lab.fat import boot_image, fat_image
from lab.paths import BUILD
from lab.qemu import Disk, Firmware, Machine, Result, run
from lab.qmp import Qmp

AUDITOR = BUILD / "audit/handover.efi"
DRIVERS = BUILD / "tests/audit"
MEMORY = 256
BROKEN = 2
"""The result of an audit that could not be made."""
ENDED = "app: result "
DISK, CARD, IDE = "0000:00:04.0", "0000:00:05.0", "0000:00:01.1"
TIMEOUT = 60

Files = Mapping[str, Path | bytes]


def text(*lines: str) -> bytes:
    """A text file as editors for DOS leave it."""
    return "".join(f"{line}\r\n" for line in lines).encode()


def medium(target: Path, options: bytes, files: Files | None = None) -> Path:
    """A disk from which any firmware starts the auditor."""
    return boot_image(target / "medium", AUDITOR, {"/EFI/BOOT/handover.txt": options,
                                                   **(files or {})})


def shell_disk(target: Path, *commands: str, files: Files | None = None) -> Path:
    """A disk that is no boot disk, and whose commands the shell runs."""
    return fat_image(target / "medium", {"/handover.efi": AUDITOR, **(files or {}),
                                         "/startup.nsh": text("@echo -off", *commands)})


def machine(disk: Path | None, extra: Sequence[str] = (), firmware: Firmware = Firmware()) \
        -> Machine:
    """Nothing in it but this disk, and what is named."""
    return Machine(machine="pc", memory=MEMORY, trace_events=(), firmware=firmware, extra=extra,
                   disks=[] if disk is None else [Disk(disk)])


def lines_of(result: Result) -> Said:
    """What the auditor said in a run in which it came to its end."""
    said = parse(result.serial)
    assert whole(said) is None, f"{whole(said)}: {result.explain()}"
    return said


def options_of(said: Said) -> list[str]:
    start = said.first("start")
    assert start is not None
    return list(start["options"])


def drivers_of(said: Said, device: str) -> list[str]:
    """The names of the images that hold a device."""
    names = {line["image"]: str(line["name"]) for line in said.of("image")}
    lines = [line for line in said.of("device") if line["device"] == device]
    assert len(lines) == 1, f"lines for {device}: {lines}"
    return [names[image] for image in lines[0]["drivers"]]


def verdicts_of(said: Said, name: str) -> dict[str, str]:
    """By rule."""
    return {line["rule"]: line["verdict"] for line in said.of("verdict") if line["name"] == name}


def rounds_of(said: Said) -> list[tuple[int, int]]:
    return [(line["round"], line["ms"]) for line in said.of("watch")]


def judged(said: Said, device: str) -> None:
    """It was really audited: the device was somebody's, was busy, and is judged by its registers,
    and so is the memory around it."""
    assert drivers_of(said, device)
    assert [line["busy"] for line in said.of("device") if line["device"] == device] != ["idle"]
    assert verdicts_of(said, device)["C4"] in ("pass", "fail")
    assert verdicts_of(said, "memory")["C4"] in ("pass", "fail")


@dataclass
class Monitor:
    """A second monitor of the machine's, for a test that has something to do there once the auditor
    has come to its end. Then the machine is told to quit."""

    path: Path
    then: Callable[[Qmp], bool | None]
    """False: it is to be done again, a little later."""
    blind: bool = False
    """There is no serial log that says when the end has come."""
    done: bool = field(default=False, init=False)

    @property
    def words(self) -> list[str]:
        return ["-qmp", f"unix:{self.path},server=on,wait=off"]

    def stage(self, serial: str) -> str:
        """For run()."""
        if not self.done and (self.blind or ENDED in serial):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self.path))
                qmp = Qmp(connection)
                qmp.execute("qmp_capabilities")
                self.done = self.then(qmp) is not False
                if self.done:
                    qmp.execute("quit")
        return ""


@pytest.mark.parametrize(("device", "words"), [
    (DISK, ["-device", "virtio-blk-pci,drive=medium,addr=4,romfile="]),
    (IDE, ["-device", "ide-hd,bus=ide.0,drive=medium"]),
    (DISK, ["-device", "qemu-xhci,id=usb,addr=4", "-device",
            "usb-storage,bus=usb.0,drive=medium,removable=on"]),
], ids=["virtio-blk", "ide", "usb"])
def test_removable_media(tmp_path: Path, device: str, words: list[str]) -> None:
    options = ["exit=debug", "watch=150", "rounds=3"]
    disk = medium(tmp_path, text(*options))
    before = disk.read_bytes()
    drive = ["-drive", f"if=none,id=medium,format=raw,file={disk}"]
    result = run(machine(None, [*drive, *words]), timeout=TIMEOUT)
    said = lines_of(result)
    assert options_of(said) == options
    assert rounds_of(said) == [(1, 150), (2, 150), (3, 150)]
    judged(said, device)
    assert result.app_result == (1 if "fail" in {line["verdict"] for line in said.of("verdict")}
                                 else 0)
    assert disk.read_bytes() == before, "the medium was written to"


def test_shell(tmp_path: Path) -> None:
    disk = shell_disk(tmp_path, r"fs0:\handover.efi exit=debug watch=200")
    said = lines_of(run(machine(disk), timeout=TIMEOUT))
    assert options_of(said)[-2:] == ["exit=debug", "watch=200"]
    assert rounds_of(said) == [(1, 200), (2, 200)]
    judged(said, DISK)
    assert [line["name"] for line in said.of("image") if line["auditor"]] == ["handover.efi"]


def test_boot_entry(tmp_path: Path) -> None:
    """Made in one run, used in the next. What makes it is gone by then, so that nothing else can
    have started the auditor; and the options come from the entry alone."""
    disk = shell_disk(tmp_path, r'bcfg boot add 0 fs0:\handover.efi "handover"',
                      'bcfg boot -opt 0x0 ^"exit=debug watch=120 rounds=1^"', "reset -s")
    kept = tmp_path / "variables.fd"

    def keep(folder: Path) -> None:
        shutil.copyfile(folder / "variables.fd", kept)
    made = run(machine(disk), timeout=TIMEOUT, after=keep)
    assert made.ended == "off", made.explain()
    assert not parse(made.serial).started
    disk = fat_image(tmp_path / "medium", {"/handover.efi": AUDITOR})
    said = lines_of(run(machine(disk, firmware=Firmware(variables=kept)), timeout=TIMEOUT))
    assert options_of(said) == ["exit=debug", "watch=120", "rounds=1"]
    assert rounds_of(said) == [(1, 120)]
    judged(said, DISK)


# ---- Drivers from the volume ----

def test_driver_from_the_volume(tmp_path: Path) -> None:
    """For a device that the firmware has no driver for."""
    disk = medium(tmp_path, text(r"driver=\X64\e1000-innocent.efi", "exit=debug watch=100"),
                  {"/X64/e1000-innocent.efi": DRIVERS / "e1000-innocent.efi"})
    said = lines_of(run(machine(disk, ["-device", "e1000,addr=5,romfile="]), timeout=TIMEOUT))
    held = drivers_of(said, CARD)
    assert len(held) == 1 and held[0].endswith("e1000-innocent.efi")
    assert verdicts_of(said, CARD)["C4"] == "pass"
    assert verdicts_of(said, held[0])["C2"] == "pass"


def test_driver_takes_over(tmp_path: Path) -> None:
    """For the device that the volume is on, and that the firmware has connected by then."""
    disk = medium(tmp_path, text(r"driver=\innocent.efi", "rebind", "exit=debug watch=100"),
                  {"/innocent.efi": DRIVERS / "innocent.efi"})
    said = lines_of(run(machine(disk), timeout=TIMEOUT))
    held = [name for name in drivers_of(said, DISK) if name != "Fat"]
    assert len(held) == 1 and held[0].endswith("innocent.efi")
    assert verdicts_of(said, DISK)["C4"] == "pass"
    assert verdicts_of(said, held[0])["C1"] == "pass"


def _first_half(driver: Path) -> bytes:
    data = driver.read_bytes()
    return data[:len(data) // 2]


@pytest.mark.parametrize(("name", "says"), [
    (r"\none.efi", "is not there"),
    (r"\text.efi", "does not load"),
    (r"\half.efi", "does not load"),
    (r"\EFI", "does not load"),
    ("innocent.efi", "is not there"),
])
def test_no_driver(tmp_path: Path, name: str, says: str) -> None:
    """Without what was to be audited there is no audit. (A name without a backslash asks for a file
    that QEMU hands in.)"""
    disk = medium(tmp_path, text(f"driver={name}", "exit=debug", "watch=100"), {
        "/text.efi": b"I am no driver.\n" * 100,
        "/half.efi": _first_half(DRIVERS / "innocent.efi"),
        "/innocent.efi": DRIVERS / "innocent.efi",
    })
    result = run(machine(disk), timeout=TIMEOUT)
    assert result.app_result == BROKEN, result.explain()
    said = parse(result.serial)
    errors = [str(line["what"]) for line in said.of("error")]
    assert len(errors) == 1 and says in errors[0] and name in errors[0]
    assert not said.ended and not list(said.of("verdict"))


def test_back_to_the_shell(tmp_path: Path) -> None:
    """An audit that could not be made, and that was not told how to end, leaves a machine that
    works as before, or switches it off."""
    disk = shell_disk(tmp_path, r"fs0:\handover.efi driver=\none.efi", "reset -s")
    result = run(machine(disk), timeout=30)
    assert result.ended == "off", result.explain()
    assert parse(result.serial).first("error") is not None


# ---- How it ends ----

@pytest.mark.parametrize("option", ["exit=off", ""])
def test_switches_off(tmp_path: Path, option: str) -> None:
    result = run(machine(medium(tmp_path, text(option, "watch=100"))), timeout=TIMEOUT)
    assert result.ended == "off", result.explain()
    lines_of(result)


def test_halts(tmp_path: Path) -> None:
    said: list[str] = []

    def look(qmp: Qmp) -> None:
        said.append(qmp.execute("query-status")["status"])
        said.append(qmp.execute("human-monitor-command", {"command-line": "info registers"}))

    monitor = Monitor(tmp_path / "qmp", look)
    disk = medium(tmp_path, text("exit=halt", "watch=100"))
    result = run(machine(disk, monitor.words), timeout=TIMEOUT, stage=monitor.stage)
    assert result.ended == "quit", result.explain()
    lines_of(result)
    # It is on, and stays where it is: halted, with interrupts off.
    assert said[0] == "running"
    assert "HLT=1" in said[1]
    flags = int(said[1].partition("RFL=")[2].split()[0], 16)
    assert not flags & 1 << 9


# ---- Odd machines and wishes ----

class Mute(Machine):
    """Without a serial port."""

    def command(self, folder: Path, qmp_fd: int) -> list[str]:
        words = super().command(folder, qmp_fd)
        words[words.index("chardev:serial")] = "none"
        return words


def test_no_serial_port(tmp_path: Path) -> None:
    """It is only told from a firmware that gave up by what it was told to do: to end so."""
    disk = medium(tmp_path, text("exit=debug", "watch=100", r"driver=\none.efi"))
    result = run(Mute(machine="pc", memory=MEMORY, trace_events=(), disks=[Disk(disk)]),
                 timeout=TIMEOUT)
    assert result.serial == ""
    assert result.exit_code == BROKEN << 1 | 1, result.explain()
    disk = medium(tmp_path, text("exit=off", "watch=100"))
    result = run(Mute(machine="pc", memory=MEMORY, trace_events=(), disks=[Disk(disk)]),
                 timeout=TIMEOUT)
    assert result.serial == ""
    assert result.ended == "off", result.explain()


def _phases(said: Said) -> list[str]:
    return [str(line["phase"]) for line in said.of("phase")]


def test_as_found_by_the_boot_manager(tmp_path: Path) -> None:
    """What the firmware has connected is judged as it is, and a driver that was loaded gets
    nothing."""
    disk = medium(tmp_path, text("as-found", "exit=debug watch=100", r"driver=\e1000-innocent.efi"),
                  {"/e1000-innocent.efi": DRIVERS / "e1000-innocent.efi"})
    said = lines_of(run(machine(disk, ["-device", "e1000,addr=5,romfile="]), timeout=TIMEOUT))
    assert "connect" not in _phases(said)
    judged(said, DISK)
    assert drivers_of(said, CARD) == []
    assert [line for line in said.of("image") if str(line["name"]).endswith("e1000-innocent.efi")]


def test_as_found_unconnected(tmp_path: Path) -> None:
    """A firmware that connects only what it boots from has left this disk alone, and so do we."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    for more in ("", " as-found"):
        result = run(Machine(machine="pc", memory=MEMORY, trace_events=(), disks=[Disk(disk)],
                             kernel=AUDITOR, append=f"exit=debug watch=100{more}"), timeout=TIMEOUT)
        said = lines_of(result)
        assert ("connect" in _phases(said)) == (not more)
        assert bool(drivers_of(said, DISK)) == (not more)
        assert bool(verdicts_of(said, DISK)) == (not more)
