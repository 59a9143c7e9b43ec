# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a PC BIOS leaves behind on Xen (C8): where the rings are, what was in flight, and how the
system takes the disks over."""

import re
from collections.abc import Callable, Mapping

import pytest

from lab import e820
from lab.errors import LabError
from lab.report import Report
from lab.xen.boot import judge_all
from lab.xen.judge import Bios, XenHandOver, complaints, judge
from lab.xen.looks import MARK, Look, mapped, without_dumps
from lab.xen.store import parse
from xen_traces import (BACK, DOMAIN, FRONT, GUEST, TOOLS, VBD, Maker, assert_dirty, problems_of,
                        up_to_connected)

NAME = f"xen:vbd/{VBD}"
RING = 8
"""The grant that up_to_connected() gives."""
PAGES = {0: 0xFEFFF, 1: 0xFEFFC, RING: 0x1FFC6}
"""The toolstack's two, and the ring's."""
SEABIOS = """\
(d3) before
e820 map has 4 items:
  0: 0000000000000000 - 000000000009fc00 = 1 RAM
  1: 0000000000100000 - 000000001ffc4000 = 1 RAM
  2: 000000001ffc4000 - 0000000020000000 = 2 RESERVED
  3: 00000000fc000000 - 00000000fc00b000 = 4 NVS
"""
MEMORY = e820.parse_seabios(SEABIOS)


def look(mark: str = "1", pages: Mapping[int, int] | None = None, *,
         between_calls: bool = True) -> Look:
    return Look(mark, between_calls, PAGES if pages is None else pages)


def marked(maker: Maker, mark: str = "1") -> Maker:
    """As dom0 does it, beside a guest that is paused."""
    maker.write(TOOLS, MARK, mark)
    maker.ask(TOOLS, "RM", f"{MARK.rpartition('/')[0]} ")
    return maker


def left() -> Maker:
    """A BIOS that has one disk connected, somebody who looks at that, and no system yet."""
    return marked(up_to_connected())


def whole() -> Maker:
    """A run in which nothing is wrong."""
    maker = left()
    system(maker)
    return maker


def system(maker: Maker, *, states: str = "556612", keys: str = "ring-ref event-channel") -> None:
    """Linux, which resets what it finds connected, and then connects. Every other state is the
    backend's, and "-" is none."""
    maker.linux_begins()
    takes_over(maker, states, keys)


def takes_over(maker: Maker, states: str = "556612", keys: str = "ring-ref event-channel") -> None:
    for front, back in zip(states[::2], states[1::2], strict=True):
        maker.write(GUEST, f"{FRONT}/state", front)
        if back != "-":
            maker.switch(back)
    for key in keys.split():
        maker.write(GUEST, f"{FRONT}/{key}", "11")
    maker.both("3", "4")
    maker.write(GUEST, f"{FRONT}/state", "4")


def judged(maker: Maker, *looks: Look, memory: e820.MemoryMap | None = MEMORY) -> XenHandOver:
    return judge(parse(maker.text), DOMAIN, [VBD], Bios(memory, looks or [look()]))


def unseen(seen: XenHandOver) -> list[str]:
    return seen.hand_over.unseen + seen.unseen


# ---- What is judged ----

def test_clean() -> None:
    seen = judged(whole())
    device = seen.hand_over.devices[0]
    assert (problems_of(seen), unseen(seen)) == ("", [])
    assert (device.device, device.driven, device.live) == (NAME, True, False)
    assert [moment.what for moment in device.story] == [
        "first connected by the firmware", "its ring is at 0x1ffc6000 (grant 8)",
        "the operating system's first word to XenStore", "frontend Closing", "backend Closing",
        "frontend Closed", "backend Closed", "frontend Initialising", "backend InitWait",
        "frontend Initialised", "backend Connected", "connected by the operating system's own driver"]
    assert any("1 watches that the BIOS left were dropped" in line for line in seen.held)
    assert any("nothing was in flight" in line for line in seen.held)
    at, connected = seen.snapshots[NAME]
    assert (at.when, at.frontend["state"], at.backend["state"]) == ("at the hand-over", "4", "4")
    assert (connected.frontend["state"], connected.frontend["ring-ref"]) == ("4", "11")
    report = Report(hand_over=seen.hand_over)
    judge_all(report, seen, bios=True)
    assert report.ok and report.last_line == "hand-over clean: 1 device, 0 live"
    assert any("memory that it calls reserved" in line for line in report.held)


def test_the_same_is_not_clean_on_uefi() -> None:
    assert "frontend was Connected" in problems_of(judge(parse(whole().text), DOMAIN, [VBD]))


def system_does_not_close(maker: Maker) -> None:
    system(maker, states="")


def system_leaves_a_step_out(maker: Maker) -> None:
    system(maker, states="6612")


def backend_does_not_answer(maker: Maker) -> None:
    system(maker, states="5-6-1-")


def backend_is_not_waited_for(maker: Maker) -> None:
    system(maker, states="55661-")


def another_closes(maker: Maker) -> None:
    maker.linux_begins()
    maker.both("5", "5")
    maker.both("6", "6")
    maker.write(TOOLS, f"/local/domain/{DOMAIN}/{FRONT}/state", "1")
    maker.switch("2")
    takes_over(maker, states="")


def a_key_is_left(maker: Maker) -> None:
    system(maker, keys="ring-ref")


def watches_are_left(maker: Maker) -> None:
    maker.linux_begins(drops=False)
    takes_over(maker)


def watches_are_not_dropped(maker: Maker) -> None:
    maker.linux_begins(error="EINVAL")
    takes_over(maker)


def a_watch_is_heard(maker: Maker) -> None:
    system(maker)
    maker.message("OUT", GUEST, "WATCH_EVENT", f"/local/domain/0/{BACK}/state 1 ")


def request_left(maker: Maker) -> None:
    maker.message("IN", GUEST, "READ", "name ")
    system(maker)


def transaction_left(maker: Maker) -> None:
    maker.ask(GUEST, "TRANSACTION_START", " ", "21 ")
    system(maker)


def node_elsewhere(maker: Maker) -> None:
    maker.write(GUEST, "data/baton", "was here")
    system(maker)


def backend_has_left(maker: Maker) -> None:
    maker.switch("5")
    system(maker)


def system_does_not_connect(maker: Maker) -> None:
    maker.linux(reset=True, connects=False)


def half_closed(maker: Maker) -> None:
    maker.both("5", "5")
    system(maker)


def no_system(maker: Maker) -> None:
    pass


# A disk's own problems make it live; and what is not answered, or not yet done, may be about it.
@pytest.mark.parametrize(("what", "words", "is_live"), [
    (system_does_not_close, r"system did not close it in order.*through Initialised, Connected.*backend "
                            "did not let go.*through Connected$", True),
    (system_leaves_a_step_out, "system did not close it in order.*through Closed, Initialising, "
                               "Initialised, Connected.*backend did not let go", True),
    (backend_does_not_answer, r"^[^;]*backend did not let go of the BIOS's connection \(Closing, Closed, "
                              r"InitWait\): it went through Connected$", True),
    (backend_is_not_waited_for, "^[^;]*through Closing, Closed, Connected$", True),
    (another_closes, "^[^;]*domain 0 had a hand in its closing$", True),
    (a_key_is_left, "^[^;]*still in XenStore when the system connected: event-channel$", True),
    (watches_are_left, "^the 1 watches that the BIOS left were not dropped before the system set its own:"
                       f" /local/domain/0/{BACK}/state 1$", False),
    (watches_are_not_dropped, "^the 1 watches that the BIOS left were not dropped", False),
    (a_watch_is_heard, "^the system heard of 1 changes by the 1 watches", False),
    (request_left, "1 requests to XenStore were not answered", True),
    (transaction_left, "1 transactions were left open$", True),
    (node_elsewhere, "^left in XenStore, outside of the disks: data/baton$", False),
    (backend_has_left, "backend was Closing at the hand-over, and the BIOS's frontend Connected", True),
    (system_does_not_connect, "^[^;]*the operating system's own driver never connected$", True),
    (half_closed, "frontend was Closing at the hand-over, not Initialising", True),
    (no_system, "^[^;]*no operating system was seen taking over$", None),
])
def test_dirty(what: Callable[[Maker], None], words: str, is_live: bool | None) -> None:
    maker = left()
    what(maker)
    assert_dirty(judged(maker), words, is_live, bios=True)


@pytest.mark.parametrize(("pages", "words"), [
    ({RING: 0x1FFC3}, "ring is where the system may put something else: 0x1ffc3000 is in.*usable"),
    ({RING: 0x30000}, "ring is where the system may put something else: 0x30000000 is in no range"),
    ({0: 0xFEFFF, 9: 0x1FFC6}, "ring's grant 8 is not mapped by the backend"),
])
def test_ring_in_the_wrong_place(pages: Mapping[int, int], words: str) -> None:
    seen = judged(whole(), look(pages=pages))
    assert re.search(words, problems_of(seen)) and seen.hand_over.live == 1


def test_in_flight() -> None:
    """Wherever it is: a page of the BIOS's own, too, is one that a backend writes to."""
    seen = judged(whole(), look(pages={**PAGES, 20: 0x1FFC9, 21: 0x5000}))
    assert problems_of(seen) == ("2 pages besides the rings were mapped by backends when the system "
                                 "began: 0x1ffc9000, 0x5000000")
    assert seen.hand_over.live == 0


def test_a_key_without_which_a_backend_sees_another_ring() -> None:
    """A ring of two pages, and a system that has one."""
    maker = Maker()
    maker.create()
    maker.hvmloader()
    for key in ("ring-page-order 1", "ring-ref0 8", "ring-ref1 9", "event-channel 5"):
        maker.write(GUEST, f"{FRONT}/{key.split()[0]}", key.split()[1])
    maker.both("3", "4")
    maker.write(GUEST, f"{FRONT}/state", "4")
    system(marked(maker))
    seen = judged(maker, look(pages={8: 0x1FFC6, 9: 0x1FFC7}))
    assert problems_of(seen) == (f"{NAME}: said by the BIOS, and still in XenStore when the system "
                                 "connected: ring-page-order, ring-ref0, ring-ref1")
    # Both pages are looked at.
    seen = judged(maker, look(pages={8: 0x1FFC6, 9: 0x1000}))
    assert "0x1000000 is in 0x100000" in problems_of(seen)


# ---- What is seen ----

def too_early() -> Maker:
    maker = Maker()
    maker.lines = [*marked(Maker()).lines, *up_to_connected().lines]
    system(maker)
    return maker


def too_late() -> Maker:
    maker = up_to_connected()
    system(maker)
    return marked(maker)


@pytest.mark.parametrize("made", [too_early, too_late])
def test_nobody_looked_in_time(made: Callable[[], Maker]) -> None:
    seen = judged(made())
    assert problems_of(seen) == "" and len(unseen(seen)) == 2
    assert f"{NAME}: where its ring was" in unseen(seen)[0]
    assert "whether anything was in flight" in unseen(seen)[1]


def test_a_look_when_the_system_has_begun_but_not_with_the_disk() -> None:
    maker = up_to_connected()
    maker.linux_begins()
    marked(maker)
    takes_over(maker)
    seen = judged(maker)
    assert "its ring is at 0x1ffc6000" in str(seen.hand_over.devices[0].story)
    # What the system has had mapped by then is its own.
    assert problems_of(seen) == "" and len(unseen(seen)) == 1 and "in flight" in unseen(seen)[0]


def test_the_last_look_counts() -> None:
    maker = marked(left(), "2")
    system(maker)
    marked(maker, "3")
    good, bad = look("1"), look("2", {RING: 0x1000})
    assert "usable" in problems_of(judged(maker, good, bad))
    assert problems_of(judged(maker, look("1", {RING: 0x1000}), look("2"), look("3", {}))) == ""
    # A look in the middle of a call says where the ring is, and not what is in flight.
    seen = judged(maker, look("1", between_calls=False, pages={**PAGES, 20: 0x1000}))
    assert problems_of(seen) == "" and len(unseen(seen)) == 1 and "in flight" in unseen(seen)[0]
    # Of looks that the trace does not know, nobody knows when they were.
    assert len(unseen(judged(maker, look("7")))) == 2


def test_no_map() -> None:
    seen = judged(whole(), memory=None)
    assert problems_of(seen) == "" and len(unseen(seen)) == 1
    assert "no memory map" in unseen(seen)[0]
    report = Report(hand_over=seen.hand_over)
    judge_all(report, seen, bios=True)
    assert not any("reserved" in line for line in report.held)


def test_never_driven() -> None:
    """Without a ROM, by another system: nothing to look at, and nothing to reset."""
    maker = Maker()
    maker.create()
    maker.hvmloader()
    maker.linux()
    seen = judged(maker)
    assert (problems_of(seen), unseen(seen)) == ("", []) and not seen.hand_over.devices[0].driven


def test_closed_by_the_bios_itself() -> None:
    """A disk that it had connected, and then did not want, is as found."""
    maker = up_to_connected()
    maker.close()
    maker.clean()
    marked(maker)
    maker.linux()
    assert problems_of(judged(maker, look(pages={}))) == ""


# ---- Xen's grant tables ----

DUMP = """\
(XEN) gnttab_usage_print_all [ key 'g' pressed
(XEN)       -------- active --------       -------- shared --------
(XEN) [ref] localdom mfn      pin          localdom gmfn     flags
(XEN) grant-table for remote d0 (v1)
(XEN)   1 frames (64 max), 1 maptrack frames (1024 max)
(XEN) no active grant table entries
(XEN)       -------- active --------       -------- shared --------
(XEN) [ref] localdom mfn      pin          localdom gmfn     flags
(XEN) grant-table for remote d1 (v1)
(XEN)   1 frames (64 max), 0 maptrack frames (1024 max)
(XEN) [0x000]      0 0x17fc95 0x00000002          0 0x0fefff 0x19
(XEN) [0x00a]      0 0x203c6 0x00000001          0 0x01ffc6 0x19
(XEN)       -------- active --------       -------- shared --------
(XEN) [ref] localdom mfn      pin          localdom gmfn     flags
(XEN) grant-table for remote d12 (v1)
(XEN)   1 frames (64 max), 0 maptrack frames (1024 max)
(XEN) [0x00b]      0 0x203c7 0x00000001          0 0x01ffc7 0x19
(XEN) gnttab_usage_print_all ] done
"""


def test_grant_tables() -> None:
    assert mapped(DUMP, 0) == {}
    assert mapped(DUMP, 1) == {0: 0xFEFFF, 10: 0x1FFC6}
    assert mapped(DUMP, 12) == {11: 0x1FFC7}
    with pytest.raises(LabError, match="does not show the grant table of domain 2"):
        mapped(DUMP, 2)


def test_they_are_no_complaint() -> None:
    log = f"(XEN) one\n{DUMP}(XEN) d1v0 gnttab: bad ref 8\n{DUMP}"
    assert complaints("Xen's log", without_dumps(log).splitlines()) == ["(XEN) d1v0 gnttab: bad ref 8"]


# ---- Logs ----

TAKEN_OVER = """\
[   15.7] XENBUS: frontend device/vbd/51776 Connected
[   15.8] XENBUS: backend /local/domain/0/backend/vbd/1/51776 Connected
[   15.8] xenbus_probe_frontend: triggering reconnect on /local/domain/0/backend/vbd/1/51776
[   15.8] XENBUS: backend /local/domain/0/backend/vbd/1/51776/state Closing
[   15.9] XENBUS: backend /local/domain/0/backend/vbd/1/51776/state Closed
[   15.9] XENBUS: backend /local/domain/0/backend/vbd/1/51776/state InitWait
[   15.9] xenbus_probe_frontend: reconnect done on /local/domain/0/backend/vbd/1/51776
"""


def test_what_linux_says_of_a_connected_disk() -> None:
    who, lines = "the guest's kernel", TAKEN_OVER.splitlines()
    assert complaints(who, lines, takes_over=True) == []
    assert len(complaints(who, lines)) == 5
    for bad in ("[ 1.1] XENBUS: backend /local/domain/0/backend/vbd/1/51776/state Unknown",
                "[ 1.1] xenbus_probe_frontend: backend /local/domain/0/backend/vbd/1/51776 timed out",
                "[ 1.1] xen:xenbus_comms: response ring is not quiescent (00000010:00000000): fixing up",
                "[ 1.1] xenbus_probe_frontend: Timeout connecting to device: device/vbd/51776"):
        assert complaints(who, [bad], takes_over=True) == [bad]


def test_seabios_s_map() -> None:
    assert MEMORY is not None and e820.parse_seabios("e820 map has 0 items:\n") is None
    assert [(each.start, each.end, each.kind) for each in MEMORY.ranges[1:]] == [
        (0x100000, 0x1FFC4000, "usable"), (0x1FFC4000, 0x20000000, "reserved"),
        (0xFC000000, 0xFC00B000, "NVS")]
