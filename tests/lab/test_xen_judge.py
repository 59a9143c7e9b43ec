# SPDX-License-Identifier: BSD-2-Clause-Patent
"""XenStore's trace, read and judged: what is clean, and each way not to be."""

import re
from collections.abc import Callable

import pytest

from lab.report import Report
from lab.xen.boot import judge_all
from lab.xen.disks import count_grants, disk_name, number_of
from lab.xen.judge import XenHandOver, complaints, judge, takeover
from lab.xen.store import parse
from xen_traces import (BACK, DOMAIN, FRONT, GUEST, KERNEL, TOOLS, VBD, Maker, assert_dirty,
                        problems_of, up_to_connected, whole)

NAME = f"xen:vbd/{VBD}"


def judged(maker: Maker) -> XenHandOver:
    return judge(parse(maker.text), DOMAIN, [VBD])


def problems(maker: Maker) -> str:
    return problems_of(judged(maker))


# ---- Reading ----

def test_messages_and_whose_they_are() -> None:
    store = parse(whole().text)
    mine = list(store.of(DOMAIN))
    assert (str(mine[0]), mine[0].answer, mine[0].path) == (
        "READ hvmloader/bios", "ovmf", f"/local/domain/{DOMAIN}/hvmloader/bios")
    assert mine[1].error == "ENOENT" and not mine[1].good
    # The day ends in between.
    assert [message.clock for message in mine[:2]] == [3, 3] and mine[-1].clock == 20
    assert {message.domain for message in store.messages} == {0, DOMAIN}
    assert store.events[0].domain == 0 and store.events[-1].domain == DOMAIN
    assert list(store.introduced) == [DOMAIN]


def test_replay() -> None:
    maker = whole()
    store = parse(maker.text)
    front = f"/local/domain/{DOMAIN}/{FRONT}"
    end = store.replay({}, 0, None)
    assert (end[f"{front}/state"], end[f"{front}/ring-ref"]) == ("4", "11")
    at = takeover(store, DOMAIN)
    assert at is not None
    there = store.replay({}, 0, at)
    assert f"{front}/ring-ref" not in there and there[f"/local/domain/0/{BACK}/state"] == "2"


def test_what_a_transaction_does_is_done_at_its_end_or_not_at_all() -> None:
    maker = Maker()
    maker.ask(KERNEL, "TRANSACTION_START", " ", "1 ")
    maker.write(KERNEL, "a", "1")
    assert parse(maker.text).changes == []
    maker.ask(KERNEL, "TRANSACTION_END", "T ", error="EAGAIN")
    assert parse(maker.text).changes == []
    maker.ask(KERNEL, "TRANSACTION_START", " ", "2 ")
    maker.write(KERNEL, "a", "2")
    maker.ask(KERNEL, "TRANSACTION_END", "F ")
    assert parse(maker.text).changes == []
    maker.ask(KERNEL, "TRANSACTION_START", " ", "3 ")
    maker.write(KERNEL, "a", "3")
    maker.ask(KERNEL, "TRANSACTION_END", "T ")
    assert parse(maker.text).replay({}, 0, None) == {"/local/domain/0/a": "3"}


def test_a_write_beside_a_transaction() -> None:
    maker = Maker()
    maker.ask(KERNEL, "TRANSACTION_START", " ", "1 ")
    maker.message("IN", KERNEL, "WRITE", "a 1")
    maker.message("OUT", KERNEL, "WATCH_EVENT", "a token ")
    maker.message("OUT", KERNEL, "WRITE", "OK ")
    maker.write(KERNEL, "b", "1")
    maker.ask(KERNEL, "TRANSACTION_END", "F ")
    assert parse(maker.text).replay({}, 0, None) == {"/local/domain/0/a": "1"}


def test_removed_with_all_below_and_refused() -> None:
    maker = Maker()
    for path in ("/a", "/a/b", "/ab"):
        maker.write(KERNEL, path, "x")
    maker.ask(KERNEL, "WRITE", "/c x", error="EACCES")
    maker.ask(KERNEL, "RM", "/a ")
    assert parse(maker.text).replay({}, 0, None) == {"/ab": "x"}


def test_values_with_line_breaks_and_a_trace_that_is_cut_off() -> None:
    maker = Maker()
    maker.write(KERNEL, "/a", "one\ntwo")
    text = maker.text
    assert parse(text).replay({}, 0, None) == {"/a": "one\ntwo"}
    assert parse(text[:text.index("two")]).messages == []


# ---- Judging ----

def test_clean() -> None:
    seen = judged(whole())
    device = seen.hand_over.devices[0]
    assert problems(whole()) == ""
    assert (device.device, device.driven, device.live) == (NAME, True, False)
    assert [moment.what for moment in device.story] == [
        "first connected by the firmware", "frontend Closing", "backend Closing",
        "frontend Closed", "backend Closed", "frontend Initialising", "backend InitWait",
        "the operating system's first word to XenStore",
        "connected by the operating system's own driver"]
    assert seen.messages > seen.exit_messages == 7
    assert seen.exit_words == 6
    assert seen.exit_turns == ["Closing", "Closed", "Initialising"]
    before, after, connected = seen.snapshots[NAME]
    assert before.frontend["state"] == before.backend["state"] == "4"
    assert before.frontend["ring-ref"] == "8"
    assert after.frontend == {"backend": f"/local/domain/0/{BACK}", "backend-id": "0", "state": "1"}
    assert after.backend["state"] == "2"
    assert connected.frontend["state"] == "4" and connected.frontend["ring-ref"] == "11"
    report = Report(hand_over=seen.hand_over)
    judge_all(report, seen)
    assert report.ok and report.last_line == "hand-over clean: 1 device, 0 live"


def live(maker: Maker) -> None:
    maker.linux(reset=True)


def only_closing(maker: Maker) -> None:
    maker.both("5", "5")
    maker.clean()
    maker.linux()


def stays_closed(maker: Maker) -> None:
    maker.both("5", "5")
    maker.both("6", "6")
    maker.clean()
    maker.linux(reset=True)


def backend_stays_closed(maker: Maker) -> None:
    maker.both("5", "5")
    maker.both("6", "6")
    maker.write(GUEST, f"{FRONT}/state", "1")
    maker.clean()
    maker.linux()


def no_way(maker: Maker) -> None:
    maker.both("1", "2")
    maker.clean()
    maker.linux()


def key_left(maker: Maker) -> None:
    maker.close()
    maker.ask(GUEST, "RM", f"{FRONT}/event-channel ")
    maker.ask(GUEST, "UNWATCH", f"/local/domain/0/{BACK}/state 1 ")
    maker.linux()


def another_key_left(maker: Maker) -> None:
    maker.close()
    maker.clean()
    maker.write(GUEST, f"{FRONT}/protocol", "x86_64-abi")
    maker.linux()


def node_elsewhere(maker: Maker) -> None:
    maker.close()
    maker.clean()
    maker.write(GUEST, "data/baton", "was here")
    maker.linux()


def watch_left(maker: Maker) -> None:
    maker.close()
    for key in ("ring-ref", "event-channel"):
        maker.ask(GUEST, "RM", f"{FRONT}/{key} ")
    maker.linux()


def watch_not_taken_away(maker: Maker) -> None:
    maker.close()
    for key in ("ring-ref", "event-channel"):
        maker.ask(GUEST, "RM", f"{FRONT}/{key} ")
    maker.ask(GUEST, "UNWATCH", f"/local/domain/0/{BACK}/state 1 ", error="ENOENT")
    maker.linux()


def transaction_left(maker: Maker) -> None:
    maker.close()
    maker.clean()
    maker.ask(GUEST, "TRANSACTION_START", " ", "21 ")
    maker.linux()


def request_left(maker: Maker) -> None:
    maker.close()
    maker.clean()
    maker.message("IN", GUEST, "READ", "name ")
    maker.linux()


def closed_by_another(maker: Maker) -> None:
    maker.both("5", "5")
    maker.both("6", "6")
    maker.line("CREATE connection " + TOOLS)
    maker.write(TOOLS, f"/local/domain/{DOMAIN}/{FRONT}/state", "1")
    maker.switch("2")
    maker.clean()
    maker.linux()


def system_resets(maker: Maker) -> None:
    maker.close()
    maker.clean()
    maker.linux(reset=True)


def system_does_not_connect(maker: Maker) -> None:
    maker.close()
    maker.clean()
    maker.linux(connects=False)


def no_system(maker: Maker) -> None:
    maker.close()
    maker.clean()


@pytest.mark.parametrize(("what", "words", "is_live"), [
    (live, "frontend was Connected.*backend was Connected.*ring-ref.*reset the frontend.*"
           "1 watches left", True),
    (only_closing, "frontend was Closing.*backend was Closing", True),
    (stays_closed, "frontend was Closed.*backend was Closed", False),
    (backend_stays_closed, "backend was Closed at the hand-over, not InitWait$", False),
    (no_way, r"not closed in order \(Closing, Closed, Initialising\).*through Initialising$", False),
    (key_left, "left in XenStore at the hand-over: ring-ref$", False),
    (another_key_left, "left in XenStore at the hand-over: protocol$", False),
    (node_elsewhere, "outside of the disks: data/baton$", False),
    (watch_left, f"1 watches left: /local/domain/0/{BACK}/state 1$", False),
    (watch_not_taken_away, "1 watches left", False),
    (transaction_left, "1 transactions were left open$", False),
    (request_left, "1 requests to XenStore were not answered", False),
    (closed_by_another, "domain 0 had a hand in its closing$", False),
    (system_resets, "the operating system reset the frontend before it connected", False),
    (system_does_not_connect, "the operating system's own driver never connected$", False),
    (no_system, "no operating system was seen taking over$", None),
])
def test_dirty(what: Callable[[Maker], None], words: str, is_live: bool | None) -> None:
    maker = up_to_connected()
    what(maker)
    assert_dirty(judged(maker), words, is_live)


def test_never_driven() -> None:
    """By the firmware, that is: Linux connects all the same, and is not taken for it."""
    maker = Maker()
    maker.create()
    maker.hvmloader()
    maker.linux()
    seen = judged(maker)
    assert problems(maker) == "" and not seen.hand_over.devices[0].driven
    assert seen.exit_messages == 0 and not seen.exit_turns
    report = Report(hand_over=seen.hand_over)
    judge_all(report, seen)
    assert f"never connected by the firmware: {NAME}" in report.held
    assert not any("closed in order" in line for line in report.held)


def test_a_frontend_that_no_backend_has_answered_is_not_driven() -> None:
    maker = Maker()
    maker.create()
    maker.hvmloader()
    maker.write(GUEST, f"{FRONT}/state", "4")
    maker.write(GUEST, f"{FRONT}/state", "1")
    maker.linux()
    assert not judged(maker).hand_over.devices[0].driven


def test_driven_twice() -> None:
    maker = up_to_connected()
    maker.close()
    maker.clean()
    maker.connect("9")
    maker.close()
    maker.clean()
    maker.linux()
    assert problems(maker) == ""
    assert "connected for the last of 2 times" in [
        moment.what for moment in judged(maker).hand_over.devices[0].story]


def test_a_disk_that_is_not_there() -> None:
    seen = judge(parse(whole().text), DOMAIN, [VBD, VBD + 16])
    assert seen.hand_over.problems == [f"xen:vbd/{VBD + 16}: XenStore has no such disk"]


def test_a_domain_that_is_not_there() -> None:
    seen = judge(parse(whole().text), DOMAIN + 1, [VBD])
    assert "does not show the domain's start" in seen.hand_over.problems[0]
    assert judge(parse(""), DOMAIN, [VBD]).hand_over.problems


def test_firmware_that_resets_watches_is_not_taken_for_linux() -> None:
    maker = up_to_connected()
    maker.ask(GUEST, "READ", "control/platform-feature-xs_reset_watches ", "1")
    maker.ask(GUEST, "RESET_WATCHES", " ")
    maker.ask(GUEST, "WATCH", f"/local/domain/0/{BACK}/state 1 ")
    maker.close()
    maker.clean()
    maker.linux()
    assert problems(maker) == ""
    assert judged(maker).hand_over.devices[0].driven


# ---- Logs ----

@pytest.mark.parametrize(("who", "line"), [
    ("the guest's kernel", "[    2.1] xen:grant_table: WARNING: g.e. 0x8 still in use!"),
    ("the guest's kernel", "[    2.1] vbd vbd-51776: 22 failed to map"),
    ("the guest's kernel", "[    2.1] XENBUS: backend backend/vbd/3/51776 InitWait"),
    ("the guest's kernel", "[    2.1] I/O error, dev xvde, sector 8 op 0x0:(READ)"),
    ("dom0's kernel", "[   80.1] xen-blkback: invalid buffer -- could not remap it"),
    ("dom0's kernel", "[   80.1] vbd vbd-3-51776: 22 failed mapping ring-ref 8"),
    ("Xen's log", "(XEN) common/grant_table.c:803:d0v0 Bad flags (0) or dom (0); expected d0"),
    ("Xen's log", "(XEN) d3v0 gnttab: bad ref 8"),
])
def test_complaints(who: str, line: str) -> None:
    assert complaints(who, ["nothing", line]) == [line]


@pytest.mark.parametrize(("who", "line"), [
    ("the guest's kernel", "[    2.1] blkfront: xvde: flush diskcache: enabled; persistent grants"),
    ("the guest's kernel", "[    0.1] Grant table initialized"),
    ("the guest's kernel", "[    0.1] xen:grant_table: Grant tables using version 1 layout"),
    ("dom0's kernel", "[   80.1] xen-blkback: backend/vbd/3/51776: using 1 queues, protocol 1"),
    ("Xen's log", "(XEN) HVM d3v0 save: CPU"),
])
def test_no_complaints(who: str, line: str) -> None:
    assert complaints(who, [line]) == []


def test_names_of_disks() -> None:
    assert [number_of(name) for name in ("hda", "hdc", "xvda", "xvde", "xvdp", "xvdq")] == [
        768, 5632, 51712, 51776, 51952, (1 << 28) + (16 << 8)]
    assert [disk_name(index) for index in (0, 21)] == ["xvde", "xvdz"]


def test_grants_are_counted() -> None:
    log = """(XEN)       -------- active --------       -------- shared --------
(XEN) [ref] localdom mfn      pin          localdom gmfn     flags
(XEN) grant-table for remote d3 (v1)
(XEN)   1 frames (64 max), 0 maptrack frames (1024 max)
(XEN) [0x000]      0 0x0ff000 0x00000002          0 0x0ff000 0x19
(XEN) [0x008]      0 0x0fe123 0x00000000          0 0x0fe123 0x19
"""
    assert count_grants(log) == (2, 1)
