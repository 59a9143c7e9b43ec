# SPDX-License-Identifier: BSD-2-Clause-Patent
"""./baton audit --on xen: the auditor, from a disk that Baton drives and from an emulated one."""

import json
import subprocess
from pathlib import Path
from typing import Any

from lab.paths import TOP

Report = dict[str, Any]


def baton_audit(target: Path, *words: str) -> tuple[int, Report]:
    """Exit status and report."""
    run = subprocess.run([TOP / "baton", "audit", "--on", "xen", "--watch", "200", "--json", target,
                          *words], capture_output=True, text=True)
    print(run.stdout, run.stderr)  # pytest shows them for a test that fails
    return run.returncode, json.loads(target.read_text()) if target.exists() else {}


STATUS_ROUTER = {("memory map", "C2"), ("ReportStatusCodeRouterRuntimeDxe", "C2")}
"""What this OVMF does at each exit of a loader that its boot manager has started, on whatever machine:
docs/findings.md."""


def failed(report: Report) -> set[tuple[str, str]]:
    return {key for key, verdict in verdicts(report).items() if verdict == "fail"}


def verdicts(report: Report) -> dict[tuple[str, str], str]:
    return {(str(each["name"]), str(each["rule"])): str(each["verdict"])
            for each in report["verdicts"]}


def test_disks_that_baton_drives(tmp_path: Path) -> None:
    kinds = {"xen:vbd/51776": "xen-vbd", "xen:vbd/51792": "xen-vbd-qdisk",
             "xen:vbd/51808": "xen-vbd-4096", "xen:vbd/51824": "xen-cdrom"}
    words = [word for kind in kinds.values() for word in ("--device", kind)]
    status, report = baton_audit(tmp_path / "a.json", *words, "--html", str(tmp_path / "a.html"))
    assert (status, report["error"], failed(report)) == (1, None, STATUS_ROUTER)
    assert report["machine"]["hypervisor"] == "Xen" and report["machine"]["xen"]
    devices = {each["device"]: each for each in report["devices"]}
    for name, kind in kinds.items():
        assert devices[name]["option"] == kind
        assert [verdicts(report)[name, rule] for rule in ("C4", "C7")] == ["pass", "pass"]
    assert [verdicts(report)["xen:domain", rule] for rule in ("C4", "C7")] == ["pass", "pass"]
    assert (tmp_path / "a.html").stat().st_size > 10_000


def test_firmware_without_a_driver(tmp_path: Path) -> None:
    status, report = baton_audit(tmp_path / "a.json", "--no-rom")
    assert (status, report["error"], failed(report)) == (1, None, STATUS_ROUTER)
    assert verdicts(report)["xen:vbd/768", "C7"] == "pass"


def test_what_there_is_not(tmp_path: Path) -> None:
    """Said before Xen is booted."""
    for words in (["--device", "nvme"], ["--device", "xen-cdrom"], ["--machine", "pc"]):
        status, report = baton_audit(tmp_path / "a.json", *words)
        assert status == 2 and report["result"] == "could not audit"
