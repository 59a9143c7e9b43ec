# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`./baton audit` from its words to its exit status, with a stand-in for QEMU; above all, each way
in which an audit can fail to be one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import audits
from audits import AFTER, BEFORE, CALL, RETURN, line, said, verdict
from lab import cli, qemu, tools
from lab.audit import audit, devices, page
from lab.audit.devices import Placed, Plan
from lab.errors import LabError
from lab.qemu import Firmware
from test_audit_devices import driver
from test_audit_report import live_card
from test_inputs import NV_DATA, pe, volume, write
from test_machine import ABORT

Go = Callable[..., int]
DONE = "app: result 0\n"


@pytest.fixture(name="go")
def fixture_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    """Runs the command; the first argument is what QEMU plays (see fake_qemu.py)."""
    fake = Path(__file__).with_name("fake_qemu.py")
    find = tools.find
    monkeypatch.setattr(tools, "find", lambda name: str(fake) if name == qemu.QEMU else find(name))
    monkeypatch.setattr(qemu, "LAB", tmp_path / "lab")
    monkeypatch.setattr(qemu, "LOGS", tmp_path / "lab/last-run")
    monkeypatch.setattr(qemu, "version", lambda: "7.2 (fake)")
    monkeypatch.setattr(audit, "trace_names", lambda: {"serial_write"})
    monkeypatch.setattr(audit.Options, "__init__", _options(tmp_path))
    monkeypatch.setenv("FAKE_QEMU_COUNT", str(tmp_path / "starts"))

    def go(play: dict[str, Any] | list[dict[str, Any]], *words: str) -> int:
        plays = play if isinstance(play, list) else [play]
        monkeypatch.setenv("FAKE_QEMU", json.dumps(plays))
        (tmp_path / "starts").unlink(missing_ok=True)
        return cli.main(["audit", "--accel", "tcg", "--no-rom", "--json", str(tmp_path / "r.json"),
                         *words])
    return go


def _options(folder: Path) -> Callable[..., None]:
    """Options with a firmware and a program of the test's own, where none are given."""
    init = audit.Options.__init__
    write(folder / "CODE.fd", volume(4096))
    write(folder / "VARS.fd", volume(4096, NV_DATA))
    write(folder / "app.efi", pe())

    def made(self: audit.Options, **given: Any) -> None:
        if given.get("firmware") == Firmware():
            given["firmware"] = Firmware(folder / "CODE.fd", folder / "VARS.fd")
        given.setdefault("app", folder / "app.efi")
        init(self, **given)
    return made


def play(serial: str = said() + DONE, log: audits.AuditLog | None = None,
         **more: Any) -> dict[str, Any]:
    """A machine that says this and ends as the auditor ends it."""
    result = 1 if '"verdict":"fail"' in serial else 0
    serial = serial.replace("app: result 0", f"app: result {result}")
    return {"serial": serial, "trace": "\n".join((log or audits.clean()).lines),
            "status": result << 1 | 1, **more}


def report(tmp_path: Path) -> dict[str, Any]:
    made = json.loads((tmp_path / "r.json").read_text())
    assert isinstance(made, dict)
    return made


def test_clean(go: Go, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert go(play(), "--html", str(tmp_path / "r.html")) == cli.HELD
    assert capsys.readouterr().out.splitlines()[-1] == "audit: clean: 4 of 4 verdicts passed"
    made = report(tmp_path)
    assert made["result"] == "clean" and made["machine"]["qemu"] == "7.2 (fake)"
    assert made["firmware"]["file"] == str(tmp_path / "CODE.fd")
    assert "-kernel" in made["machine"]["command"]
    assert "<html" in (tmp_path / "r.html").read_text()
    assert list((tmp_path / "lab").glob("*.tmp")) == []


def test_violations_of_either_side(go: Go, tmp_path: Path) -> None:
    assert go(play(said(verdict("C5", "fail")) + DONE)) == cli.WRONG
    assert report(tmp_path)["result"] == "violations"
    assert go(play(log=live_card())) == cli.WRONG
    assert report(tmp_path)["counts"]["fail"] == 2


def test_what_qemu_is_told(go: Go, tmp_path: Path) -> None:
    write(tmp_path / "x.efi", driver())
    assert go(play(), "--device", "virtio-blk", "--device", "virtio-net,mq=on", "--driver",
              str(tmp_path / "x.efi"), "--as-found", "--stale", "--rebind", "--watch", "250", "--memory", "300", "--machine",
              "pc") == cli.HELD
    words = report(tmp_path)["machine"]["command"]
    assert words[words.index("-append") + 1] == \
        "exit=debug as-found stale rebind watch=250 driver=x.efi"
    assert f"name=opt/baton/driver/x.efi,file={tmp_path}/x.efi" in words
    assert words[words.index("-m") + 1] == "300" and words[words.index("-machine") + 1] == "pc"
    assert [word for word in words if "mq=on" in word and "netdev=net1" in word]
    assert [word for word in words if word.startswith("virtio-blk-pci") and "romfile=," in word]
    assert report(tmp_path)["devices"][1]["option"] == "virtio-net,mq=on"


CUT = BEFORE + CALL
CASES: list[tuple[dict[str, Any], str]] = [
    # Before the auditor began.
    ({"serial": "", "reason": "guest-reset"}, "never began (the machine was reset"),
    ({"serial": "BdsDxe: no\r\n", "reason": "guest-shutdown"}, "last words are: BdsDxe: no"),
    ({"serial": "", "signal": 6, "said": "KVM internal error. Suberror: 1\n"},
     "QEMU died: KVM internal error"),
    ({"serial": "", "status": 1, "said": "ERROR: assertion failed\n"}, "assertion failed"),
    ({"serial": "\x1b[2J\x1b]0;x\x07no\n", "reason": "guest-reset"}, "never began"),
    # In the middle.
    (play(CUT, reason="guest-reset", status=0), "reset, by somebody or by a crash"),
    (play(CUT, reason="guest-reset", status=0), "last seen in ExitBootServices"),
    (play(CUT + RETURN + AFTER[:60], reason="guest-reset", status=0), "memory that was written to"),
    (play(CUT, reason="guest-shutdown", status=0), "switched off"),
    (play(CUT, signal=11), "QEMU died: exit status -11"),
    (play(BEFORE + line("error", what="there is no ACPI") + "app: result 2\n", status=5),
     "the auditor says: there is no ACPI"),
    (play(BEFORE + line("error", what="there is no ACPI"), reason="guest-reset", status=0),
     "the auditor says: there is no ACPI"),
    (play(CUT + "!!!! X64 Exception Type - 0E(#PF - Page-Fault)  CPU Apic ID - 00000000 !!!!\n",
          reason="guest-reset", status=0), "a fault (X64 Exception Type - 0E(#PF - Page-Fault))"),
    # At the end.
    (play(said().replace('"success"', '"invalid parameter"') + DONE), "never succeeded"),
    (play(said().replace(verdict("C4"), "") + DONE), "lines are missing from the log"),
    (play(said().replace('"image":0,', "", 1) + DONE), "cannot be read"),
    (play(said() + "app: result 0\n", reason="guest-reset", status=0), "did not end with it"),
    (play(said()[:-30] + "\n" + DONE), "cannot be read"),
    (play(said(verdict("C4", "unseen")) + DONE, audits.AuditLog()), "could be seen"),
    (play("app: result 0\n"), "did not start and end once"),
]


@pytest.mark.parametrize(("what", "says"), CASES, ids=[says for _, says in CASES])
def test_could_not_audit(go: Go, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                         what: dict[str, Any], says: str) -> None:
    assert go(what) == cli.CANNOT
    made = report(tmp_path)
    assert made["result"] == "could not audit" and says in made["error"]
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("audit: could not audit: ") and says in out
    assert "\x1b" not in out


@pytest.mark.parametrize(("serial", "says"), [
    ("", "the firmware said nothing on the serial port"),
    ("TianoCore\n", "the firmware's last words are: TianoCore"),
    (CUT, "it was last seen in ExitBootServices"),
    (CUT + RETURN + AFTER, "memory that was written to"),
])
def test_time_is_bounded(go: Go, tmp_path: Path, serial: str, says: str) -> None:
    begin = time.monotonic()
    assert go(play(serial, sleep=60), "--timeout", "0.6") == cli.CANNOT
    assert time.monotonic() - begin < 10
    error = report(tmp_path)["error"]
    assert says in error and "ended after 1 s" in error


def test_seen_before_it_broke(go: Go, tmp_path: Path) -> None:
    assert go(play(CUT + RETURN + audits.DETAILS, live_card(), reason="guest-reset",
                   status=0)) == cli.CANNOT
    made = report(tmp_path)
    assert made["result"] == "could not audit" and made["counts"]["fail"] == 2


def test_refused_by_qemu(go: Go, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.json").write_text("an earlier one")
    assert go({"refuse": "qemu: Property 'nvme.x' not found"}, "--device", "nvme,x=1") == cli.CANNOT
    assert "did not start: qemu: Property" in capsys.readouterr().err
    made = report(tmp_path)
    assert made["result"] == "could not audit" and "Property" in made["error"]


def test_qemus_own_fault_is_tried_again(go: Go, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    story = []
    plan, close = devices.plan, devices.Plan.close

    def planned(placed: Sequence[Placed], folder: Path) -> Plan:
        story.append("plan")
        return plan(placed, folder)

    def closed(made: Plan) -> None:
        story.append("close")
        close(made)
    monkeypatch.setattr(devices, "plan", planned)
    monkeypatch.setattr(devices.Plan, "close", closed)
    assert go([{"said": ABORT, "signal": 6}, play()], "--device", "virtio-net") == cli.HELD
    assert report(tmp_path)["machine"]["retries"] == 1
    assert story == ["plan", "close"] * 2


def test_qemu_is_missing(go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                         capsys: pytest.CaptureFixture[str]) -> None:
    def find(name: str) -> str:
        raise LabError(f"{name} is not installed")
    monkeypatch.setattr(tools, "find", find)
    assert go(play()) == cli.CANNOT
    assert "qemu-system-x86_64 is not installed" in capsys.readouterr().err
    assert report(tmp_path)["result"] == "could not audit"


@pytest.mark.parametrize(("words", "says"), [
    (["--firmware", "/none"], "does not exist"),
    (["--firmware", __file__], "not a UEFI firmware image"),
    (["--firmware", "VARS.fd"], "give it as --vars"),
    (["--vars", "/dev/null"], "not a regular file"),
    (["--vars", "CODE.fd"], "not a store of variables"),
    (["--device", "virtio-blok"], "near it come virtio-blk"),
    (["--driver", "/none"], "does not exist"),
    (["--driver", "app.efi"], "not a PE32+"),
])
def test_bad_input(go: Go, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str],
                   says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "run", lambda command: 'name "nvme", bus PCI\n')
    words = [str(tmp_path / word) if word.endswith((".fd", ".efi")) else word for word in words]
    assert go(play(), *words) == cli.CANNOT
    said_ = capsys.readouterr().err
    assert says in said_ and said_.startswith("baton: ") and said_.count("\n") == 1
    assert not (tmp_path / "starts").exists()


def test_bad_targets(go: Go, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--html", "/none/x"], ["--html", str(tmp_path)], ["--json", "/dev/null"],
                  ["--html", str(tmp_path / "r.json")]):
        assert go(play(), *words) == cli.CANNOT
        assert capsys.readouterr().err.startswith("baton: ")
    assert not (tmp_path / "starts").exists()


def test_the_auditor_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    firmware = Firmware(write(tmp_path / "CODE.fd", volume(4096)),
                        write(tmp_path / "VARS.fd", volume(4096, NV_DATA)))
    monkeypatch.setattr(tools, "find", lambda name: name)
    with pytest.raises(LabError, match="run `make audit`"):
        audit.audit(audit.Options(firmware=firmware, rom=None, app=tmp_path / "none.efi",
                                  accelerator="tcg"))


@pytest.mark.parametrize("words", [
    ["--machine", "mac"], ["--memory", "0"], ["--memory", "x"], ["--memory", "-1"],
    ["--timeout", "0"], ["--rom", "x"], ["--accel", "xen"], ["surplus"], ["--what"],
])
def test_bad_words(go: Go, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        go(play(), *words)
    assert end.value.code == cli.CANNOT and "usage:" in capsys.readouterr().err


def test_variables_that_belong_to_the_code(tmp_path: Path) -> None:
    usual = Firmware()
    assert audit.firmware_of(None, None) == usual
    code = write(tmp_path / "OVMF_CODE_4M.secboot.fd", b"x")
    assert audit.firmware_of(code, None) == Firmware(code, usual.variables)
    near = write(tmp_path / "OVMF_VARS_4M.fd", b"x")
    assert audit.firmware_of(code, None) == Firmware(code, near)
    assert audit.firmware_of(code, Path("v")) == Firmware(code, Path("v"))
    assert audit.firmware_of(None, Path("v")) == Firmware(usual.code, Path("v"))
    plain = write(tmp_path / "bios.fd", b"x")
    assert audit.firmware_of(plain, None) == Firmware(plain, usual.variables)


def test_firmware_in_one_file(tmp_path: Path) -> None:
    code, variables = usual_halves()
    both = write(tmp_path / "OVMF.fd", variables + code)
    found = audit.firmware_of(both, None)
    assert found.file == both
    assert (found.code.read_bytes(), found.variables.read_bytes()) == (code, variables)
    # Named variables are the user's wish; and a store of variables alone is no firmware.
    assert audit.firmware_of(both, Path("v")) == Firmware(both, Path("v"))
    alone = write(tmp_path / "alone.fd", variables)
    assert audit.firmware_of(alone, None).code == alone


def usual_halves() -> tuple[bytes, bytes]:
    usual = Firmware()
    return usual.code.read_bytes(), usual.variables.read_bytes()


def test_the_page_is_only_written_when_asked_for(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("not asked for")
    monkeypatch.setattr(page, "write", fail)
    assert go(play()) == cli.HELD


def test_a_signal_ends_the_machine_and_the_flood(go: Go, tmp_path: Path) -> None:
    # In a process of its own, since it is the process that gets the signal.
    go(play(sleep=60), "--timeout", "0.1")  # puts the plays where the child finds them
    (tmp_path / "r.json").unlink()
    program = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from lab import cli, qemu, tools
from lab.audit import audit
from lab.qemu import Firmware
folder = Path({str(tmp_path)!r})
find = tools.find
fake = {str(Path(__file__).with_name("fake_qemu.py"))!r}
tools.find = lambda name: fake if name == qemu.QEMU else find(name)
qemu.LAB = folder / "lab"
qemu.LOGS = qemu.LAB / "last-run"
audit.trace_names = lambda: set()
audit.firmware_of = lambda code, variables: Firmware(folder / "CODE.fd", folder / "VARS.fd")
audit.APP = folder / "app.efi"
audit.Options.__init__.__defaults__ = tuple(
    folder / "app.efi" if value == {str(audit.APP)!r} or str(value) == {str(audit.APP)!r} else value
    for value in audit.Options.__init__.__defaults__)
sys.exit(cli.main(["audit", "--accel", "tcg", "--no-rom", "--device", "virtio-net",
                   "--json", str(folder / "r.json")]))
"""
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True,
                               env=dict(os.environ))
    for _ in range(200):
        if list((tmp_path / "lab").glob("run.*.tmp/serial.log")):
            break
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == cli.INTERRUPTED, err
    assert err.strip().endswith("baton: interrupted")
    assert list((tmp_path / "lab").glob("*.tmp")) == [] and not (tmp_path / "r.json").exists()
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True,
                          check=False)
    assert left.stdout == ""
