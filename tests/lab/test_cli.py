# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The command line: what it refuses, and its exit statuses."""

from pathlib import Path

import pytest

from lab import cli
from lab.errors import LabError
from lab.qemu import Bios
from lab.report import Report
from lab.scenarios import Options
from lab.xen.boot import Options as XenOptions


def refused(*words: str) -> bool:
    """Whether argparse turns this down, with status 2."""
    try:
        cli.main(["run", *words])
    except SystemExit as end:
        return end.code == cli.CANNOT
    return False


@pytest.mark.parametrize("words", [
    ["--on", "floppy"], ["--firmware", "coreboot"], ["--on", "xen", "--backend", "tap"],
    ["--machine", "mac"], ["--transport", "mmio"], ["--partitions", "sun"], ["--bios-drivers", "x"],
    ["--loader", "lilo"],
    ["--sector-size", "513"], ["--disks", "0"], ["--disks", "27"], ["--timeout", "0"],
    ["--timeout", "-1"], ["--write", "9"], ["--rom", "x", "--no-rom"], ["--what"], ["surplus"],
])
def test_bad_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(*words)
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("words", [
    ["--rom", "/none"], ["--rom", "/"], ["--rom", "/dev/null"], ["--no-rom", "--disk", "/none"],
    ["--no-rom", "--format", "raw"], ["--json", "/none/x"],
    ["--no-rom", "--firmware-code", "/none"], ["--no-rom", "--firmware-vars", "/dev/null"],
    ["--no-rom", "--disk", __file__], ["--no-rom", "--disk", __file__, "--disks", "2"],
])
def test_bad_files(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", *words]) == cli.CANNOT
    said = capsys.readouterr().err
    assert said.startswith("baton: ") and "Traceback" not in said and said.count("\n") == 1


@pytest.mark.parametrize("words", [
    ["--machine", "pc"], ["--transport", "legacy"], ["--accel", "kvm"], ["--firmware-vars", "x"],
    ["--no-snapshot", "--disk", "x"], ["--sector-size", "4096", "--backend", "qdisk"],
    ["--disks", "23"], ["--firmware-code", "/dev/null"], ["--disk", "/none"], ["--cdrom"],
    ["--partitions", "mbr"], ["--bios-drivers", "on"], ["--loader", "grub"],
    *(["--firmware", "bios", *words] for words in (
        ["--machine", "pc"], ["--transport", "legacy"], ["--accel", "kvm"], ["--cdrom"],
        ["--firmware-vars", "x"], ["--bios-drivers", "on"], ["--bios-drivers", "off"],
        ["--no-snapshot", "--disk", "x"], ["--partitions", "gpt", "--disk", __file__],
        ["--loader", "extlinux"],
        ["--sector-size", "4096"], ["--disks", "23"], ["--firmware-code", __file__],
        ["--disk", "/none"])),
])
def test_what_makes_no_sense_on_xen(words: list[str], capsys: pytest.CaptureFixture[str],
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    def no_boot(*_: object) -> None:
        raise AssertionError("Xen was booted")
    monkeypatch.setattr("lab.xen.boot.on_xen", no_boot)
    monkeypatch.setattr("lab.qemu.require_whose", lambda: None)
    monkeypatch.setattr("lab.xen.boot.check_app", lambda app: None)
    assert cli.main(["run", "--on", "xen", "--no-rom", *words]) == cli.CANNOT
    said = capsys.readouterr().err
    assert said.startswith("baton: ") and "Traceback" not in said and said.count("\n") == 1


@pytest.mark.parametrize(("on", "words"), [
    ("virtio-blk", ["--backend", "qdisk"]), ("virtio-blk", ["--cdrom"]),
    ("virtio-scsi", ["--backend", "qdisk"]),
    ("virtio-net", ["--backend", "qdisk"]), ("virtio-net", ["--disk", __file__]),
    ("virtio-net", ["--cdrom"]), ("virtio-net", ["--disks", "2"]),
    ("virtio-net", ["--sector-size", "512"]), ("virtio-net", ["--read-only"]),
    ("virtio-net", ["--write", "1"]), ("UEFI", ["--partitions", "gpt"]),
    ("UEFI", ["--bios-drivers", "off"]), ("UEFI", ["--loader", "extlinux"]),
])
def test_what_makes_no_sense_on_virtio(on: str, words: list[str],
                                       capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--on", on] if on != "UEFI" else []
    assert cli.main(["run", "--no-rom", *where, *words]) == cli.CANNOT
    said = capsys.readouterr().err
    assert f"baton: {words[0]} is not for {on}: " in said and said.count("\n") == 1


@pytest.mark.parametrize(("words", "says"), [
    (["--firmware-vars", "x"], "--firmware-vars is not for a PC BIOS: "),
    (["--on", "virtio-scsi", "--cdrom"], "--cdrom is not for a PC BIOS: "),
    (["--backend", "qdisk"], "--backend is not for virtio-blk: "),
    (["--disk", __file__, "--partitions", "gpt"], "--partitions is not for an image: "),
    (["--disk", __file__, "--loader", "grub"], "--loader is not for an image: "),
    (["--loader", "extlinux", "--partitions", "gpt"], "with an MBR, not with GPT"),
    (["--on", "virtio-net"], "virtio-net is not booted from by --firmware bios, only by uefi"),
    (["--sector-size", "4096"], "boots from sectors of 512 bytes"),
    (["--bios-drivers", "off"], "nobody has the disk"),
    (["--firmware-code", __file__], "is not a PC BIOS"),
])
def test_what_makes_no_sense_on_a_bios(words: list[str], says: str,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--no-rom", "--firmware", "bios", *words]) == cli.CANNOT
    said = capsys.readouterr().err
    assert said.startswith("baton: ") and says in said and said.count("\n") == 1


@pytest.mark.parametrize("words", [
    ["--sector-size", "512"], ["--write", "1"], ["--no-snapshot", "--disk", __file__],
    ["--format", "raw", "--disk", __file__],
])
def test_what_makes_no_sense_for_a_cd(words: list[str],
                                      capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--no-rom", "--on", "virtio-scsi", "--cdrom", *words]) == cli.CANNOT
    assert f"baton: {words[0]} is not for a CD-ROM: " in capsys.readouterr().err


@pytest.mark.parametrize(("words", "options"), [
    ([], Options()),
    (["--on", "virtio-scsi", "--disks", "3", "--write", "2", "--sector-size", "4096"],
     Options(on="virtio-scsi", disks=3, write=2 << 20, sector_size=4096)),
    (["--on", "virtio-scsi", "--cdrom", "--transport", "legacy"],
     Options(on="virtio-scsi", cdrom=True, transport="legacy")),
    (["--on", "virtio-scsi", "--read-only", "--disk", "x", "--no-snapshot"],
     Options(on="virtio-scsi", read_only=True, image=Path("x"), snapshot=False)),
    (["--on", "virtio-net", "--machine", "pc", "--no-rom"],
     Options(on="virtio-net", machine="pc", rom=None)),
    # The BIOS's own drivers are for those who have no others.
    (["--firmware", "bios"], Options(firmware=Bios(strict=True))),
    (["--firmware", "bios", "--no-rom", "--partitions", "gpt", "--on", "virtio-scsi"],
     Options(on="virtio-scsi", rom=None, firmware=Bios(), partitions="gpt")),
    (["--firmware", "bios", "--bios-drivers", "on", "--firmware-code", "x"],
     Options(firmware=Bios(Path("x")))),
    (["--firmware", "bios", "--loader", "extlinux"],
     Options(firmware=Bios(strict=True), loader="extlinux")),
])
def test_words_become_options(words: list[str], options: Options,
                              monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def run(options: Options, progress: object) -> Report:
        seen.append(options)
        return Report()
    monkeypatch.setattr("lab.boot.boot", run)
    assert cli.main(["run", *words]) == cli.HELD
    assert seen == [options]


@pytest.mark.parametrize(("words", "options"), [
    ([], XenOptions()),
    (["--backend", "qdisk", "--disks", "3", "--no-rom"],
     XenOptions(backend="qdisk", disks=3, rom=None)),
    (["--firmware", "bios"], XenOptions(bios=True)),
    (["--firmware", "bios", "--partitions", "gpt", "--write", "1", "--backend", "qdisk",
      "--read-only", "--firmware-code", "x", "--timeout", "9"],
     XenOptions(bios=True, partitions="gpt", write=1 << 20, backend="qdisk", read_only=True,
                firmware=Path("x"), timeout=9)),
    (["--firmware", "bios", "--disk", "x", "--format", "raw"],
     XenOptions(bios=True, image=Path("x"), image_format="raw")),
])
def test_words_become_options_on_xen(words: list[str], options: XenOptions,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def run(options: XenOptions, progress: object) -> Report:
        seen.append(options)
        return Report()
    monkeypatch.setattr("lab.xen.boot.boot", run)
    assert cli.main(["run", "--on", "xen", *words]) == cli.HELD
    assert seen == [options]


def test_exit_status_and_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                              capsys: pytest.CaptureFixture[str]) -> None:
    made = Report()

    def run(*_: object) -> Report:
        return made

    monkeypatch.setattr(cli, "SCENARIOS", {("virtio-blk", "uefi"): run})
    assert cli.main(["run", "--json", str(tmp_path / "r")]) == cli.HELD
    assert capsys.readouterr().out.splitlines()[-1] == "hand-over clean: 0 devices, 0 live"
    made.problems.append("it is broken")
    assert cli.main(["run", "--json", str(tmp_path / "r")]) == cli.WRONG
    assert capsys.readouterr().out.splitlines()[-1] == "not as it should be: it is broken"
    assert '"it is broken"' in (tmp_path / "r").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_lab_error_is_status_2(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Report:
        raise LabError("no")
    monkeypatch.setattr(cli, "SCENARIOS", {("virtio-blk", "uefi"): fail})
    assert cli.main(["run"]) == cli.CANNOT
