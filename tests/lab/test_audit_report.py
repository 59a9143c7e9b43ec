# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The report: two sides' verdicts made one, their evidence, and what people get to read."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

import audits
from audits import (AFTER, CALL, DETAILS, KINDS, NET_PLACE, NET_VDEV, PLACE, RETURN, AuditLog,
                    booted, line, said, verdict)
from lab.audit import host, lines, report
from lab.audit.host import Finding
from lab.audit.report import Facts, Report
from lab.errors import LabError

FACTS = Facts(machine={"accelerator": "tcg", "machine": "q35", "memory": 512 << 20,
                       "command": ["q"], "qemu": "7.2"},
              firmware={"file": "/fw/CODE.fd", "package": "ovmf 1", "sha256": "00"},
              options={PLACE: "virtio-blk", NET_PLACE: "virtio-net,mq=on"})


def made(text: str, log: AuditLog | None = None, error: str | None = None) -> Report:
    heard = lines.parse(text)
    devices = {each["device"]: each for each in heard.of("device")}
    seen = host.look((log or audits.clean()).parse(), "", devices, KINDS)
    return report.build(FACTS, heard, seen, error)


def find(made: Report, name: str, rule: str) -> dict[str, Any]:
    return next(each for each in made["verdicts"]
                if (each["name"], each["rule"]) == (name, rule))


def evidence(made: Report, name: str, rule: str) -> list[dict[str, Any]]:
    return [made["events"][index] for index in find(made, name, rule)["evidence"]]


def written(made: Report, **more: Any) -> str:
    out = io.StringIO()
    report.write(made, out, **more)
    return out.getvalue()


def live_card() -> AuditLog:
    log = booted().says(CALL)
    log.let_go()
    log.says(RETURN)
    for _ in range(3):
        log.fed(NET_VDEV)
    return log.says(AFTER)


# ---- Merging ----

@pytest.mark.parametrize(("guest", "mine", "both"), [
    ("pass", "pass", ("pass", "both")), ("pass", "fail", ("fail", "host")),
    ("fail", "pass", ("fail", "guest")), ("fail", "fail", ("fail", "both")),
    ("unseen", "pass", ("pass", "host")), ("unseen", "fail", ("fail", "host")),
    ("pass", None, ("pass", "guest")), ("unseen", None, ("unseen", "guest")),
    ("fail", None, ("fail", "guest")), (None, "fail", ("fail", "host")),
    (None, "pass", ("pass", "host")),
])
def test_verdicts_of_two(guest: str | None, mine: str | None, both: tuple[str, str]) -> None:
    heard = lines.parse(verdict("C4", guest, why="so said the guest") if guest else "")
    seen = host.Seen(findings=[Finding(PLACE, "C4", mine, "so saw the host")] if mine else [])
    built = report.build(Facts(), heard, seen)
    only, = built["verdicts"]
    assert (only["verdict"], only["by"]) == both
    assert ("so said the guest" in only["why"]) == (both[1] != "host")
    assert ("so saw the host" in only["why"]) == (both[1] == "host" or mine == guest == "fail")


def test_a_verdict_that_is_given_twice_is_the_worse_one() -> None:
    for text in (verdict("C4", "pass") + verdict("C4", "fail"),
                 verdict("C4", "fail") + verdict("C4", "unseen")):
        only, = report.build(Facts(), lines.parse(text), host.Seen())["verdicts"]
        assert only["verdict"] == "fail"


def test_drivers_of_one_name_are_two() -> None:
    text = verdict("C2", "fail", "Net", "driver", 3) + verdict("C2", "pass", "Net", "driver", 4)
    built = report.build(Facts(), lines.parse(text), host.Seen())
    assert [each["verdict"] for each in built["verdicts"]] == ["fail", "pass"]


def test_results() -> None:
    assert made(said())["result"] == "clean"
    assert made(said(verdict("C5", "fail")))["result"] == "violations"
    assert made(said(), live_card())["result"] == "violations"
    broken = made(said(verdict("C5", "fail")), error="it broke")
    assert (broken["result"], broken["error"]) == ("could not audit", "it broke")
    nothing = report.build(FACTS, lines.parse(said(verdict("C4", "unseen"))), host.Seen())
    assert nothing["result"] == "could not audit" and "could be seen" in nothing["error"]


def test_a_device_that_was_asked_for_is_spoken_of() -> None:
    """Though nobody drove it, so that there is nothing to be judged."""
    facts = Facts(options={PLACE: "virtio-blk", "0000:00:0a.0": "e1000e"})
    built = report.build(facts, lines.parse(said(verdict("C4"))), host.Seen())
    told = find(built, "0000:00:0a.0", "C4")
    assert (told["verdict"], told["by"], told["subject"]) == ("unseen", "host", "device")
    assert "no driver held it" in told["why"]
    assert built["counts"]["unseen"] == 1 and built["result"] == "clean"
    assert [each["rule"] for each in built["verdicts"] if each["name"] == PLACE] == ["C4"]
    # Of a run that broke, nobody knows what would have been.
    broken = report.build(facts, lines.parse(said(verdict("C4"))), host.Seen(), "it broke")
    assert "0000:00:0a.0" not in {each["name"] for each in broken["verdicts"]}


# ---- The form ----

def test_form() -> None:
    built = made(said(verdict("C4") + verdict("C1", "unseen", "VirtioBlk", "driver", 2),
                      DETAILS + line("region", base="0x1000", size=4096, memory="free",
                                     watched=True)
                      + line("shared", device=PLACE, what="ring", base="0x1000", size=4096,
                             write=True) + line("weather", rain=1) + line("lost", what="call",
                                                                          count=1 << 62)))
    assert list(built) == ["format", "version", "result", "error", "machine", "firmware", "rules",
                           "images", "devices", "regions", "shared", "events", "evidence",
                           "verdicts", "counts"]
    assert (built["format"], built["version"], built["error"]) == ("baton-audit", 1, None)
    assert built["machine"]["hypervisor"] == "TCG" and built["machine"]["memory"] == 512 << 20
    assert built["firmware"] == {"vendor": "ACME", "revision": "0x10000", "uefi": "2.7",
                                 "file": "/fw/CODE.fd", "package": "ovmf 1", "sha256": "00"}
    assert [rule["rule"] for rule in built["rules"]] == ["C1", "C2", "C3", "C4", "C5", "C6", "C7"]
    assert [device["option"] for device in built["devices"]] == ["virtio-blk", "virtio-net,mq=on"]
    assert len(built["images"]) == 4 and len(built["regions"]) == len(built["shared"]) == 1
    assert {each["type"] for each in built["evidence"]} == {"start", "weather", "lost", "end"}
    assert built["counts"] == {"pass": 4, "fail": 0, "unseen": 1}
    assert json.loads(json.dumps(built)) == built


def test_memory_that_is_nobodys_is_called_so() -> None:
    change = line("change", round=1, address="0x1000", size=1, expected="00", found="01",
                  device=None, what=None, owner=None)
    text = written(made(said(line("verdict", subject="firmware", name="memory", image=None,
                                  rule="C4", verdict="fail", why="it changed"),
                             DETAILS + change)))
    assert "1 byte written at 0x1000 (shown to no device that is known): expected 00" in text


def test_events_are_in_the_order_of_their_time() -> None:
    details = DETAILS + line("handler", us=300, duration=5, attempt=1, image=2, tpl=16,
                             group="exit", map_changed=False)
    details += line("change", round=1, address="0x1000", size=1, expected="00", found="01",
                    device=None, what="free", owner=None)
    events = made(said(details=details))["events"]
    kinds = [(each["type"], each.get("phase")) for each in events]
    assert kinds[:2] == [("phase", "connect"), ("phase", "busy")]
    order = [kinds.index(("phase", "call")), kinds.index(("handler", None)),
             kinds.index(("phase", "return")), kinds.index(("watch", None)),
             kinds.index(("change", None)), kinds.index(("phase", "judging"))]
    assert order == sorted(order)
    resets = [index for index, each in enumerate(events)
              if each["type"] == "host-status" and each["value"] == "0x00"]
    assert order[0] < resets[-1] < order[2]
    assert {each["by"] for each in events if each["type"].startswith("host-")} == {"host"}


# ---- Evidence ----

CALLS = "".join(line("call", us=200, attempt=1, group="exit", service=service, args=args,
                     address="0x7e001000", image=3, offset="0x1000", via=[0, 3], blame=3, depth=0,
                     judged=judged)
                for service, args, judged in (("FreePages", ["0x1000", "0x2"], "specification"),
                                              ("LocateProtocol", ["0x1"], "contract"),
                                              ("RaiseTPL", ["0x10"], "allowed")))
STATES = "".join(line("state", device=NET_PLACE, when=when, us=us, command="0x7", live=True,
                      status="0xf", queues=[0, 1], what="driven")
                 for when, us in (("call", 0), ("exit", 900), ("end", 29500)))
CHANGE = line("change", round=1, address="0x2000", size=2, expected="aabb", found="0102",
              device=NET_PLACE, what="free", owner=3)
SHARED = line("shared", device=NET_PLACE, what="receive ring", base="0x2000", size=4096, write=True)
BROKEN = (verdict("C2", "fail", "VirtioNet", "driver", 3, "it frees memory") + "".join(
    verdict(rule, "fail", NET_PLACE, why="broken") for rule in ("C4", "C5", "C7"))
    + verdict("C2", "fail", "firmware", "firmware", why="the map changed"))


def broken() -> Report:
    details = DETAILS + CALLS + STATES + CHANGE + SHARED + line(
        "map-change", base="0x2000", size=4096, was="boot", **{"is": "free"})
    return made(said(BROKEN, details), live_card())


def test_evidence() -> None:
    built = broken()
    assert [each["service"] for each in evidence(built, "VirtioNet", "C2")] == [
        "FreePages", "LocateProtocol"]
    assert [each["type"] for each in evidence(built, "firmware", "C2")] == ["map-change"]
    assert [each["service"] for each in evidence(built, NET_PLACE, "C5")] == ["FreePages"]
    assert [each["when"] for each in evidence(built, NET_PLACE, "C7")] == ["exit", "end"]
    assert {each["type"] for each in evidence(built, NET_PLACE, "C4")} == {
        "state", "change", "host-packet", "host-taken"}
    assert find(built, NET_PLACE, "C4")["by"] == "both"
    assert "put 3 packets into memory" in find(built, NET_PLACE, "C4")["why"]


def test_a_free_elsewhere_is_no_evidence() -> None:
    details = DETAILS + CALLS.replace('"0x1000","0x2"', '"0x1000","0x1"') + SHARED
    assert evidence(made(said(BROKEN, details)), NET_PLACE, "C5") == []


# ---- For people ----

def test_text() -> None:
    text = written(broken())
    assert "CODE.fd of Debian's ovmf 1 (ACME 0x10000, UEFI 2.7)" in text
    assert "0000:00:05.0 virtio-net (virtio-net,mq=on), driven by VirtioNet, receiving at the " \
        "call\n" in text
    assert "C2 (clean hands), VirtioNet: it frees memory" in text
    assert "FreePages(0x1000, 0x2), called by VirtioNet+0x1000, on behalf of DxeCore → VirtioNet" \
        "; the UEFI specification forbids it here" in text
    assert "2 bytes written at 0x2000 (free, which VirtioNet had allocated): expected aabb, " \
        "found 0102" in text
    assert "QEMU: it put 3 packets into memory" in text
    assert text.splitlines()[-1] == (
        "audit: violations: 5 of 7 verdicts failed (C2 the firmware, C2 VirtioNet, "
        "C4 0000:00:05.0 virtio-net, C5 0000:00:05.0 virtio-net, C7 0000:00:05.0 virtio-net)")
    row = next(each for each in text.splitlines() if each.startswith("0000:00:05.0 virtio-net  "))
    assert row.split()[2:] == ["-", "-", "-", "FAIL", "FAIL", "-", "FAIL"]


def test_text_of_a_clean_audit() -> None:
    text = written(made(said(verdict("C4") + verdict("C6", "unseen"))))
    assert text.splitlines()[-1] == "audit: clean: 4 of 5 verdicts passed; 1 could not be seen"
    assert "FAIL" not in text and "broken" not in text
    loud = written(made(said(verdict("C4"))), verbose=True)
    assert "held\n  C4 (nothing in flight), 0000:00:04.0" in loud


def test_much_evidence_is_cut_and_counted() -> None:
    details = DETAILS + CALLS * 20
    text = written(made(said(BROKEN, details)))
    assert "… and 32 more" in text


def test_the_first_of_each_kind_is_shown() -> None:
    states = STATES + STATES.replace('"us":900', '"us":901') * 20
    text = written(made(said(BROKEN, DETAILS + states + CHANGE + SHARED), live_card()))
    assert "2 bytes written at 0x2000" in text and "QEMU: it put 3 packets" in text
    assert "… and " in text


def test_hostile_names() -> None:
    name = "\x1b[2JEvil\r\n\u202e"
    text = written(made(said(verdict("C2", "fail", name, "driver", 3, "\x1b]0;x\x07"), DETAILS
                             + line("image", image=9, name=name))))
    assert "\x1b" not in text and "\x07" not in text and "\r" not in text and "\u202e" not in text
    assert "?[2JEvil??" in text


def test_lost_lines_are_told() -> None:
    text = written(made(said(details=DETAILS + line("lost", what="change", count=1 << 63))))
    assert f"{1 << 63} lines of type change did not fit" in text


def test_could_not_audit_still_shows_what_was_seen() -> None:
    text = written(made(audits.BEFORE + CALL + RETURN + DETAILS, live_card(), "it crashed"),
                   tail="    last words")
    assert "C4 (nothing in flight), 0000:00:05.0 virtio-net: " in text and "last words" in text
    assert text.splitlines()[-1] == "audit: could not audit: it crashed"


def test_an_empty_report_can_be_written() -> None:
    assert written(report.build(Facts(), lines.parse(""), host.Seen(), "no QEMU")).splitlines()[
        -1] == "audit: could not audit: no QEMU"


def test_saved_whole_or_not_at_all(tmp_path: Path) -> None:
    built = made(said())
    report.save(built, tmp_path / "r")
    assert json.loads((tmp_path / "r").read_text()) == built
    with pytest.raises(LabError, match="cannot be written"):
        report.save(built, tmp_path / "none/r")
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
