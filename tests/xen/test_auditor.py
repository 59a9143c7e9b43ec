# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The auditor in a domain of a real Xen: each thing that a firmware could leave is seen. What a real one
leaves, test_audit.py looks at."""

import re
from pathlib import Path

import pytest
from shared import WatchedXen

from lab.audit import lines
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


def run(xen: WatchedXen, folder: Path, name: str, options: str) -> Said:
    def scenario(host: XenHost) -> GuestResult:
        image = boot_image(folder / "a.img", LOOK, {"/EFI/BOOT/handover.txt": options.encode()})
        host.put(image, "/jobs/a.img")
        return run_guest(host, GuestConfig(name, disks=DISK), timeout=480, until="^app: result")
    result = xen.run(scenario)
    assert "app: result" in result.debug, result.explain()
    return lines.parse(result.debug)


def xen_verdicts(said: Said) -> dict[tuple[str, str], str]:
    return {(str(line["name"]), str(line["rule"])): str(line["verdict"])
            for line in said.of("verdict") if str(line["name"]).startswith("xen:")}


@pytest.mark.parametrize("name", list(LEFT))
def test_what_is_left(xen: WatchedXen, tmp_path: Path, name: str) -> None:
    options, expected, words = LEFT[name]
    said = run(xen, tmp_path, name, f"{options} exit=off debug-port")
    failed = {key for key, verdict in xen_verdicts(said).items() if verdict == "fail"}
    assert failed == expected
    why = " ".join(str(line["why"]) for line in said.of("verdict") if line["verdict"] == "fail")
    assert re.search(words, why)
