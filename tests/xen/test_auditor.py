# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The auditor in a domain of a real Xen: what a firmware without Xen drivers leaves is as found, and
each thing that one could leave is seen."""

import re
from pathlib import Path

import pytest
from shared import WatchedXen

from lab.audit import lines
from lab.audit.audit import APP
from lab.audit.lines import Said
from lab.fat import boot_image
from lab.paths import BUILD
from lab.xen import GuestConfig, GuestResult, XenHost, run_guest

LOOK = BUILD / "tests/vm/xen_look.efi"
"""Leaves what it is told to, exits, and looks with the auditor's eyes."""

LEFT = {
    "nothing": ("", set(), ""),
    "connection": ("leave=connection", {("xen:domain", "C4"), ("xen:domain", "C7"),
                                        ("xen:vbd/768", "C4"), ("xen:vbd/768", "C7")},
                   r"grants left: 1.*event channels left: 1"),
    "watch": ("leave=watch", {("xen:domain", "C7")}, r"watches left in XenStore: 1"),
    "key": ("leave=key", {("xen:vbd/768", "C7")}, r"keys are left"),
    "answer": ("leave=answer", {("xen:domain", "C7")}, ""),
}
"""What is left, who is then judged to have broken which rule, and words of the reasons."""

DISK = ["/jobs/a.img,raw,hda,w"]


def run(xen: WatchedXen, folder: Path, name: str, program: Path, options: str) -> GuestResult:
    def scenario(host: XenHost) -> GuestResult:
        image = boot_image(folder / "a.img", program,
                           {"/EFI/BOOT/handover.txt": options.encode()})
        host.put(image, "/jobs/a.img")
        return run_guest(host, GuestConfig(name, disks=DISK), timeout=480, until="^app: result")
    return xen.run(scenario)


def said_by(result: GuestResult) -> Said:
    assert "app: result" in result.serial, result.explain()
    return lines.parse(result.serial)


def xen_verdicts(said: Said) -> dict[tuple[str, str], str]:
    return {(str(line["name"]), str(line["rule"])): str(line["verdict"])
            for line in said.of("verdict") if str(line["name"]).startswith("xen:")}


def test_auditor(xen: WatchedXen, tmp_path: Path) -> None:
    """The whole auditor, with its page tables and its watch, on stock OVMF."""
    said = said_by(run(xen, tmp_path, "auditor", APP, "exit=off rounds=1 watch=100"))
    assert lines.whole(said) is None
    start = said.first("start")
    assert start is not None and start["hypervisor"] == "Xen"
    assert len(list(said.of("watch"))) == 1
    assert xen_verdicts(said) == {("xen:domain", "C4"): "pass", ("xen:domain", "C7"): "pass",
                                  ("xen:vbd/768", "C4"): "pass", ("xen:vbd/768", "C7"): "pass"}


@pytest.mark.parametrize("name", list(LEFT))
def test_what_is_left(xen: WatchedXen, tmp_path: Path, name: str) -> None:
    options, expected, words = LEFT[name]
    said = said_by(run(xen, tmp_path, name, LOOK, f"{options} exit=off"))
    failed = {key for key, verdict in xen_verdicts(said).items() if verdict == "fail"}
    assert failed == expected
    why = " ".join(str(line["why"]) for line in said.of("verdict") if line["verdict"] == "fail")
    assert re.search(words, why)
