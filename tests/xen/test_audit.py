# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The auditor on Xen as `./baton audit --on xen` runs it: from a disk that Baton drives, and from an
emulated one."""

import subprocess
from typing import Any

from shared import WatchedXen

from lab.paths import TOP
from lab.xen.audit import Options, audit_on

Report = dict[str, Any]

STATUS_ROUTER = {("memory map", "C2"), ("ReportStatusCodeRouterRuntimeDxe", "C2")}
"""What this OVMF does at each exit of a loader that its boot manager has started, on whatever machine:
docs/findings.md."""


def audited(xen: WatchedXen, options: Options) -> Report:
    outcome = xen.run(lambda host: audit_on(host, options))
    print(outcome.tail)  # pytest shows it for a test that fails
    return outcome.report


def failed(report: Report) -> set[tuple[str, str]]:
    return {key for key, verdict in verdicts(report).items() if verdict == "fail"}


def verdicts(report: Report) -> dict[tuple[str, str], str]:
    return {(str(each["name"]), str(each["rule"])): str(each["verdict"])
            for each in report["verdicts"]}


def test_disks_that_baton_drives(xen: WatchedXen) -> None:
    kinds = {"xen:vbd/51776": "xen-vbd", "xen:vbd/51792": "xen-vbd-qdisk",
             "xen:vbd/51808": "xen-vbd-4096", "xen:vbd/51824": "xen-cdrom"}
    report = audited(xen, Options(devices=list(kinds.values()), watch=200))
    assert (report["error"], failed(report)) == (None, STATUS_ROUTER)
    assert report["machine"]["hypervisor"] == "Xen" and report["machine"]["xen"]
    devices = {each["device"]: each for each in report["devices"]}
    for name, kind in kinds.items():
        assert devices[name]["option"] == kind
        assert [verdicts(report)[name, rule] for rule in ("C4", "C7")] == ["pass", "pass"]
    assert [verdicts(report)["xen:domain", rule] for rule in ("C4", "C7")] == ["pass", "pass"]


def test_firmware_without_a_driver(xen: WatchedXen) -> None:
    report = audited(xen, Options(rom=None, watch=200))
    assert (report["error"], failed(report)) == (None, STATUS_ROUTER)
    assert report["machine"]["hypervisor"] == "Xen"
    assert [event["round"] for event in report["events"] if event["type"] == "watch"] == [1, 2]
    assert {key: verdict for key, verdict in verdicts(report).items() if key[0].startswith("xen:")} == {
        (name, rule): "pass" for name in ("xen:domain", "xen:vbd/768") for rule in ("C4", "C7")}


def test_what_there_is_not() -> None:
    """Said before Xen is booted."""
    for words in (["--device", "nvme"], ["--device", "xen-cdrom"], ["--machine", "pc"]):
        run = subprocess.run([TOP / "baton", "audit", "--on", "xen", *words], capture_output=True,
                             text=True)
        assert run.returncode == 2 and run.stderr.startswith("baton: ")
