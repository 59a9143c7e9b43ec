# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The lab's Xen host: its dom0, and guests of all the ways to end."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from real import POWER_OFF, boot_sector
from shared import WatchedXen

from lab import whose
from lab.fat import boot_image
from lab.paths import WHOSE
from lab.xen import Answer, Guest, GuestConfig, GuestResult, XenHost, run_guest

IDE = "/jobs/a.img,raw,hda,w"
PV_ONLY = "/jobs/a.img,raw,xvde,w"


SECTORS = {
    "off": POWER_OFF,
    "reset": bytes.fromhex("baf90c" "b006" "ee"),
    "timeout": b"",
}


@dataclass
class Seen:
    """What the scenario found."""

    dom0: Answer
    slow: Answer
    slow_seconds: float
    came_back: bool = False
    programs: list[GuestResult] = field(default_factory=list)
    at_once: list[tuple[float, str, bool]] = field(default_factory=list)
    pv_only: GuestResult | None = None
    sectors: dict[str, GuestResult] = field(default_factory=dict)
    domains: str = ""


def scenario(xen: XenHost, folder: Path) -> Seen:
    begin = time.monotonic()
    slow = xen.shell("echo begun; sleep 60 & sleep 60; echo done", timeout=2)
    seen = Seen(xen.shell("xl info; exit 3"), slow, time.monotonic() - begin)

    image = boot_image(folder / "a.img", WHOSE, {"options": b"nothing to say\n"})
    xen.put(image, "/jobs/a.img")
    xen.get("/jobs/a.img", folder / "back.img")
    seen.came_back = (folder / "back.img").read_bytes() == image.read_bytes()

    def watch(guest: Guest) -> None:
        state = guest.xenstore().get(f"/local/domain/{guest.domain}/device/vbd/768/state")
        seen.at_once.append((guest.seconds, guest.serial, state == "1"))

    seen.programs.append(run_guest(xen, GuestConfig("first", disks=[IDE]), xenstore=True,
                                   until="^app: result", watch=watch))
    seen.programs.append(run_guest(xen, GuestConfig("second", disks=[IDE]), until="^app: result"))
    seen.pv_only = run_guest(xen, GuestConfig("pv-only", disks=[PV_ONLY]), xenstore=True,
                             timeout=180, until="map: No mapping found")
    for name, last in SECTORS.items():
        xen.put(boot_sector("sector: hello\r\n", last).ljust(1 << 20, b"\0"), "/jobs/sector.img")
        config = GuestConfig(name, firmware="seabios", disks=["/jobs/sector.img,raw,hda,w"])
        seen.sectors[name] = run_guest(xen, config, timeout=12 if name == "timeout" else 60)
    seen.domains = xen.check("xl list", "xl list")
    return seen


@pytest.fixture(name="seen", scope="module")
def fixture_seen(xen: WatchedXen, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("xen")
    return xen.run(lambda host: scenario(host, folder))


def test_dom0_answers(seen: Seen) -> None:
    status, text = seen.dom0
    assert status == 3 and "xen_caps               : xen-3.0-x86_64 hvm-3.0-x86_32" in text


def test_a_job_ends_at_its_limit(seen: Seen) -> None:
    assert seen.slow == (None, "begun\n")
    assert seen.slow_seconds < 10


def test_files_go_in_and_come_out(seen: Seen) -> None:
    assert seen.came_back


@pytest.mark.parametrize("which", [0, 1])
def test_a_program_runs_from_an_emulated_disk(seen: Seen, which: int) -> None:
    result = seen.programs[which]
    assert result.ended == "until", result.explain()
    answer = whose.parse(result.serial)
    assert answer is not None and answer.complete, result.explain()
    assert list(answer.disks) == ["00:01.1"]
    assert result.lines("app: result") == [" 0"]


def test_its_serial_text_is_seen_while_it_runs(seen: Seen) -> None:
    early = [text for _, text, _ in seen.at_once if "EDK II" in text or "BdsDxe" in text]
    assert early and "app: result" not in early[0]
    assert len({text for _, text, _ in seen.at_once}) > 2


def test_xenstore_before_and_after(seen: Seen) -> None:
    result = seen.programs[0]
    front = f"/local/domain/{result.domain}/device/vbd/768"
    back = f"/local/domain/0/backend/vbd/{result.domain}/768"
    assert all(idle for _, _, idle in seen.at_once)
    for when in (result.xenstore_before, result.xenstore_after):
        assert when[f"{front}/backend"] == back
        assert (when[f"{front}/state"], when[f"{back}/state"]) == ("1", "2")
    assert not seen.programs[1].xenstore_before


def test_a_disk_that_is_paravirtual_only(seen: Seen) -> None:
    """Stock OVMF has no driver for it, which is what Baton is there for."""
    result = seen.pv_only
    assert result is not None and result.ended == "until", result and result.explain()
    back = f"/local/domain/0/backend/vbd/{result.domain}/51776"
    assert result.xenstore_after[f"{back}/state"] == "2"
    assert result.xenstore_after[f"{back}/feature-max-indirect-segments"] == "256"


@pytest.mark.parametrize("name", SECTORS)
def test_ends(seen: Seen, name: str) -> None:
    result = seen.sectors[name]
    assert result.ended == name, result.explain()
    assert result.lines("sector: ") == ["hello"]
    assert result.seconds < 40


def test_nothing_stays_of_a_guest(seen: Seen) -> None:
    assert [line.split()[0] for line in seen.domains.splitlines()] == ["Name", "Domain-0"]
