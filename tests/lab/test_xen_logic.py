# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The lab on Xen, without Xen: what is retried and what not, jobs, files for guests."""

import subprocess
import sys
from pathlib import Path

import pytest

from lab import qemu
from lab.errors import LabError
from lab.fat import boot_image, fat_image
from lab.progress import Progress
from lab.xen import GuestConfig, XenBroke, XenHost, on_xen, parse_xenstore
from lab.xen import host
from lab.xen.guest import debug_text
from lab.xen.image import Dom0

ABORT = "ERROR:x.c:1:tcg_handle_interrupt: assertion failed: (qemu_mutex_iothread_locked())"

# In the place of QEMU and all that runs in it: takes jobs and runs them here. The job `abort` ends
# it as QEMU's fault would, `die` in another way.
FAKE = """
import socket, subprocess, sys
port, share, play = socket.socket(fileno=int(sys.argv[1])), sys.argv[2], sys.argv[3]
def end(said):
    print(said, file=sys.stderr, flush=True)
    sys.exit(134)
if play == "abort":
    end(ABORT)
port.sendall(b"ready\\n")
for line in port.makefile():
    number, seconds = line.split()
    if number == "off":
        sys.exit(0)
    job = f"{share}/job.{number}"
    command = open(job).read().strip()
    if command == "abort":
        end(ABORT)
    if command == "die":
        end("Killed")
    if command == "silence":
        continue
    with open(f"{job}.out", "w") as out:
        status = subprocess.call(["timeout", seconds, "sh", job], stdout=out, stderr=out)
    port.sendall(f"{number} {status}\\n".encode())
""".replace("ABORT", repr(ABORT))


@pytest.fixture(name="plays")
def fixture_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Puts the stand-in where QEMU would be. What it plays at each start is taken from this list;
    once that is empty, it plays along."""
    plays: list[str] = []
    none = Dom0(tmp_path, tmp_path, tmp_path, tmp_path, {})
    monkeypatch.setattr(host, "dom0", lambda progress: none)
    for module in (qemu, host):
        monkeypatch.setattr(module, "LAB", tmp_path / "lab")
        monkeypatch.setattr(module, "LOGS", tmp_path / "lab/last-run")

    def command(self: XenHost, files: Dom0, disk: Path, port: int) -> list[str]:
        return [sys.executable, "-c", FAKE, str(port), str(disk.parent / "share"),
                plays.pop(0) if plays else "along"]
    monkeypatch.setattr(XenHost, "_command", command)
    return plays


def nothing_left(tmp_path: Path) -> bool:
    return not list((tmp_path / "lab").glob("*.tmp"))


def test_jobs(plays: list[str], tmp_path: Path) -> None:
    with XenHost() as xen:
        assert xen.shell("echo one; echo two >&2; exit 4") == (4, "one\ntwo\n")
        assert xen.shell("echo begun; sleep 20", timeout=0.5) == (None, "begun\n")
        # A status is the time-out's only when the time is up.
        assert xen.shell("exit 124", timeout=20).status == 124
        assert xen.check("echo fine", "an echo") == "fine\n"
        both = [xen.start("sleep 1; echo slow", timeout=20), xen.start("echo quick", timeout=20)]
        assert [xen.wait(job).text for job in reversed(both)] == ["quick\n", "slow\n"]
        with pytest.raises(LabError, match=r"in dom0, a thing failed \(exit status 1\): no"):
            xen.check("echo no; false", "a thing")
        xen.power_off()
        with pytest.raises(LabError, match="takes no more jobs"):
            xen.shell("true")
    assert nothing_left(tmp_path)


def test_silence_is_an_error(plays: list[str], tmp_path: Path,
                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_GRACE", 0.5)
    with pytest.raises(LabError, match="dom0 does not answer"), XenHost() as xen:
        xen.shell("silence", timeout=0.5)
    assert nothing_left(tmp_path)


def test_known_abort_is_tried_again_from_the_beginning(plays: list[str], tmp_path: Path,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    plays += ["abort", "along", "along"]
    begun = []

    def scenario(xen: XenHost) -> str:
        begun.append(xen)
        return xen.check("abort" if len(begun) == 1 else "echo fine", "it")
    assert on_xen(scenario, Progress(sys.stderr)) == "fine\n"
    assert len(begun) == 2 and not plays
    assert capsys.readouterr().err.count("QEMU itself broke") == 2
    assert nothing_left(tmp_path)


def test_known_abort_is_tried_twice_at_most(plays: list[str]) -> None:
    plays += ["along"] * 3 + ["never reached"]
    with pytest.raises(XenBroke):
        on_xen(lambda xen: xen.shell("abort"))
    assert plays == ["never reached"]


def test_no_other_death_is_tried_again(plays: list[str], tmp_path: Path) -> None:
    plays += ["along", "never reached"]
    with pytest.raises(LabError, match=r"is gone \(QEMU's status 134\): Killed") as error:
        on_xen(lambda xen: xen.shell("die"))
    assert not isinstance(error.value, XenBroke)
    assert plays == ["never reached"] and nothing_left(tmp_path)


def test_configuration() -> None:
    config = GuestConfig("a-1", disks=["/jobs/a.img,raw,hda,w", 'b"'], firmware="seabios",
                         firmware_file="/jobs/x.fd", device_model=["-trace", "x"],
                         extra=["vcpus = 2"])
    lines = config.text("file:/host/s", "/jobs/baton.rom").splitlines()
    assert 'disk = ["/jobs/a.img,raw,hda,w", "b\\""]' in lines
    assert 'device_model_args_hvm = ["-trace", "x", "-global", ' \
        '"xen-platform.romfile=/jobs/baton.rom"]' in lines
    assert 'bios = "seabios"' in lines and 'bios_path_override = "/jobs/x.fd"' in lines
    assert 'serial = "file:/host/s"' in lines
    assert "serial" not in GuestConfig(serial=False).text("file:/host/s", None)
    assert lines[-1] == "vcpus = 2"
    assert not any("device_model" in line for line in GuestConfig().text("null", None).splitlines())


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-x", "a;b"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(LabError, match="cannot be the name of a guest"):
        GuestConfig(name).text("null", None)


def test_xenstore_is_read() -> None:
    assert parse_xenstore('/local = ""\n/local/domain/1/name = "a \\"b\\""\nnoise\n') == {
        "/local": "", "/local/domain/1/name": 'a \\"b\\"'}


def test_what_went_to_the_debug_port() -> None:
    long = "x" * 199
    log = f"(XEN) one\n(d1) HVM Loader\n(d12) other\n(d1) {long}\n(d1) yz\n(d1) {long}\n(d1) \nend\n"
    assert debug_text(log, 1) == f"HVM Loader\n{long}yz\n{long}\n"


def test_fat_image(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(bytes(range(256)) * 1000)
    image = boot_image(tmp_path / "a.img", program, {"/EFI/BOOT/options.txt": b"a=1\n",
                                                     "deep/er/b": b""}, size=16 << 20)
    assert image.stat().st_size == 16 << 20

    def read(name: str) -> bytes:
        return subprocess.run(["mtype", "-i", str(image), f"::{name}"], check=True,
                              stdout=subprocess.PIPE, env={"MTOOLS_SKIP_CHECK": "1"}).stdout
    assert read("/EFI/BOOT/BOOTX64.EFI") == program.read_bytes()
    assert read("/EFI/BOOT/options.txt") == b"a=1\n"
    assert read("/deep/er/b") == b""
    assert {path.name for path in tmp_path.iterdir()} == {"program", "a.img"}


def test_fat_image_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="too small for these files"):
        fat_image(tmp_path / "a.img", {"a": bytes(1 << 20)}, size=1 << 20)
    with pytest.raises(LabError, match="nowhere cannot be read: No such file"):
        boot_image(tmp_path / "a.img", tmp_path / "nowhere")
