# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the host saw: where it places it, and whom it blames for it. And whom not."""

from typing import Any

import pytest

import audits
from audits import (AFTER, CALL, DETAILS, KINDS, NET_PCI, NET_PLACE, NET_VDEV, PLACE, RETURN,
                    AuditLog, booted, let_go, phase)
from lab.audit import host, lines
from lab.audit.host import Seen
from traces import PCI, VDEV


def look(log: AuditLog, said: str = "", kinds: dict[str, str] | None = None) -> Seen:
    devices = {each["device"]: each for each in lines.parse(DETAILS).of("device")}
    return host.look(log.parse(), said, devices, KINDS if kinds is None else kinds)


def verdicts(seen: Seen) -> dict[tuple[str, str], str]:
    return {(finding.device, finding.rule): finding.verdict for finding in seen.findings}


def why(seen: Seen, place: str, rule: str) -> str:
    return next(finding.why for finding in seen.findings
                if (finding.device, finding.rule) == (place, rule))


def of(seen: Seen, kind: str, place: str = PLACE) -> list[dict[str, Any]]:
    return [event for event in seen.events if event["type"] == kind and event["device"] == place]


ALL_HELD = {(place, rule): "pass" for place in (PLACE, NET_PLACE) for rule in ("C4", "C7")}
BOTH_LEFT_ALONE = {(place, "C3"): "pass" for place in (PLACE, NET_PLACE)}


def test_clean() -> None:
    assert verdicts(look(audits.clean())) == ALL_HELD


def test_phases_are_found_across_other_events() -> None:
    log = booted()
    half = len(CALL) // 2
    log.says(CALL[:half]).add("virtio_notify vdev 0x1 vq 0x2")
    log.notify().pop().says(CALL[half:])
    let_go(log).says(RETURN[:1]).notify().says(RETURN[1:] + AFTER)
    seen = look(log)
    assert [mark.phase for mark in seen.marks] == [
        "connect", "busy", "call", "return", "owner", "filled", "watching", "judging"]
    # The bell was rung after the first character of the line that says it is all over.
    assert of(seen, "host-notify")[-1].get("auditor") is True
    assert of(seen, "host-notify")[-1]["us"] >= 800
    assert all(event["us"] < 0 for event in of(seen, "host-notify")[:-1])


# ---- C4 ----

def test_a_request_taken_after_the_exit() -> None:
    log = booted().says(CALL)
    log.let_go(NET_PCI, NET_VDEV)
    log.says(RETURN).notify().pop().flush()
    seen = look(log.says(AFTER))
    assert verdicts(seen) == {**ALL_HELD, (PLACE, "C4"): "fail", (PLACE, "C7"): "fail"}
    assert "took 1 request" in why(seen, PLACE, "C4") and "gave 1 buffer" in why(seen, PLACE, "C4")
    finding = next(each for each in seen.findings if each.rule == "C4" and each.verdict == "fail")
    assert [event["type"] for event in finding.evidence] == ["host-taken", "host-used"]
    assert all(event["us"] > 800 for event in finding.evidence)
    assert "0x0f" in why(seen, PLACE, "C7")


def test_the_same_before_the_return_is_nobodys_fault() -> None:
    log = booted().says(CALL)
    log.notify().pop().flush()
    log.fed()
    assert verdicts(look(let_go(log).says(RETURN + AFTER))) == ALL_HELD


def test_packets_after_the_exit() -> None:
    log = booted().says(CALL)
    log.let_go()
    log.says(RETURN)
    for _ in range(1000):
        log.fed()
    seen = look(log.says(AFTER))
    assert verdicts(seen)[NET_PLACE, "C4"] == "fail"
    assert "put 1000 packets into memory" in why(seen, NET_PLACE, "C4")
    # A thousand packets are one line of the report.
    packets = of(seen, "host-packet", NET_PLACE)
    assert [(event["count"], event["queue"]) for event in packets] == [(1000, 0)]
    assert packets[0]["until"] > packets[0]["us"] > 800


def test_the_sending_queue_gives_buffers_back() -> None:
    log = booted().says(CALL)
    log.says(RETURN).fed(number=1)
    seen = look(log.says(AFTER))
    assert of(seen, "host-used", NET_PLACE) and not of(seen, "host-packet", NET_PLACE)


def test_only_asking_is_no_answer() -> None:
    log = let_go(booted().says(CALL)).says(RETURN)
    log.notify().notify(NET_VDEV)
    log.command(7)
    assert verdicts(look(log.says(AFTER))) == ALL_HELD


def test_a_reset_before_the_answer_is_only_good_at_the_return() -> None:
    # Cut off from the bus but not reset: it comes to life when bus mastering is switched on.
    log = booted().says(CALL)
    log.command(3, status=11)
    log.command(3, status=11, pci=NET_PCI, vdev=NET_VDEV)
    log.says(RETURN).command(7)
    seen = look(log.pop().flush().says(AFTER))
    assert verdicts(seen)[PLACE, "C4"] == "fail"
    assert (NET_PLACE, "C4") not in verdicts(seen)
    assert verdicts(seen)[NET_PLACE, "C7"] == "fail"


def test_without_bus_mastering_nothing_gets_anywhere() -> None:
    log = booted().says(CALL)
    log.command(3, status=11)
    log.let_go(NET_PCI, NET_VDEV)
    seen = look(log.says(RETURN).pop().says(AFTER))
    assert (PLACE, "C4") not in verdicts(seen)


def test_who_sets_the_device_going_again_answers_for_it() -> None:
    log = let_go(booted().says(CALL)).says(RETURN)
    log.command(7)
    for value in (0, 1, 3, 11, 15):
        log.status(value)
    seen = look(log.notify().pop().flush().says(AFTER))
    assert verdicts(seen)[PLACE, "C4"] == "pass"


def test_no_watch_no_pass() -> None:
    log = let_go(booted().says(CALL)).says(RETURN + phase("owner", 2000))
    assert (PLACE, "C4") not in verdicts(look(log))


def test_a_queue_that_was_never_notified() -> None:
    # Known by where it lies: one step behind another queue of the same device …
    log = booted().says(CALL)
    log.let_go()
    seen = look(log.says(RETURN).fed(number=2).says(AFTER))
    assert verdicts(seen)[NET_PLACE, "C4"] == "fail"
    assert of(seen, "host-packet", NET_PLACE)[-1]["queue"] == 2
    # … or because nobody else can have been it.
    log = AuditLog()
    log.power_on()
    log.command(0, pci=NET_PCI, vdev=NET_VDEV).command(7, pci=NET_PCI)
    log.status(15, NET_VDEV)
    seen = look(log.says(audits.BEFORE + CALL + RETURN).fed().says(AFTER))
    assert verdicts(seen)[NET_PLACE, "C4"] == "fail"


def test_nobody_is_blamed_where_it_could_be_two() -> None:
    log = AuditLog()
    log.power_on()
    for vdev, pci in ((VDEV, PCI), (NET_VDEV, NET_PCI)):
        log.command(0, pci=pci, vdev=vdev).command(7, pci=pci)
        log.status(15, vdev)
    log.says(audits.BEFORE + CALL + RETURN)
    log.add("virtqueue_flush vq 0x99 count 1")
    seen = look(log.says(AFTER))
    assert not any(key[1] == "C4" for key in verdicts(seen))
    assert [event["device"] for event in seen.events if event["type"] == "host-used"] == [None]


@pytest.mark.parametrize(("kind", "event", "says"), [
    ("e1000e", "e1000e_rx_written_to_guest Received packet written to guest (ICR causes 128)",
     "1 packet into memory"),
    ("nvme", "pci_nvme_enqueue_req_completion cid 1 cqid 1 dw0 0x0 dw1 0x0 status 0x0",
     "gave 1 buffer back"),
    ("uhci", "usb_uhci_frame_start nr 7", "took 1 request"),
])
def test_other_devices(kind: str, event: str, says: str) -> None:
    def made(off: bool) -> AuditLog:
        log = AuditLog()
        log.power_on()
        log.config(4, 7, "00:06.0").add(event)
        log.says(audits.BEFORE + CALL)
        if off:
            log.config(4, 3, "00:06.0")
        log.says(RETURN)
        log.add(event)
        return log.says(AFTER)
    kinds = {"0000:00:06.0": kind}
    seen = look(made(False), kinds=kinds)
    assert verdicts(seen) == {("0000:00:06.0", "C4"): "fail"}
    assert says in why(seen, "0000:00:06.0", "C4")
    assert verdicts(look(made(True), kinds=kinds)) == {}
    assert verdicts(look(made(False), kinds={**kinds, "0000:00:07.0": kind})) == {}


# ---- C3 ----

def dormant() -> AuditLog:
    """The disk was never set going, or let go before the call."""
    log = booted()
    log.let_go()
    return log.says(CALL)


def finish(log: AuditLog) -> Seen:
    log.let_go(NET_PCI, NET_VDEV)
    return look(log.says(RETURN + AFTER))


def test_a_dormant_device_is_left_alone() -> None:
    assert verdicts(finish(dormant())) == {**ALL_HELD, (PLACE, "C3"): "pass"}


def test_a_dormant_device_is_reset() -> None:
    log = dormant()
    log.status(0).status(0)
    seen = finish(log)
    assert verdicts(seen) == {**ALL_HELD, (PLACE, "C3"): "fail"}
    finding = next(each for each in seen.findings if each.verdict == "fail")
    assert [event["value"] for event in finding.evidence] == ["0x00"]
    assert "its status was written" in why(seen, PLACE, "C3")


def test_a_dormant_device_is_notified() -> None:
    seen = finish(dormant().notify())
    assert verdicts(seen)[PLACE, "C3"] == "fail"
    assert "notified" in why(seen, PLACE, "C3")


def test_a_dormant_devices_command_register_is_written() -> None:
    log = dormant()
    log.command(3)
    seen = finish(log)
    assert verdicts(seen)[PLACE, "C3"] == "fail"
    finding = next(each for each in seen.findings if each.verdict == "fail")
    assert [event["type"] for event in finding.evidence] == ["host-command"]


def test_a_second_call_finds_the_devices_dormant() -> None:
    again = phase("return", 700, attempt=1, status="invalid parameter") + \
        phase("call", 900, attempt=2)
    done = phase("return", 1800, attempt=2, status="success") + AFTER
    log = let_go(booted().says(CALL)).says(again)
    assert verdicts(look(log.says(done))) == {**ALL_HELD, **BOTH_LEFT_ALONE}
    log = let_go(let_go(booted().says(CALL)).says(again))
    seen = look(log.says(done))
    assert verdicts(seen) == {**ALL_HELD, (PLACE, "C3"): "fail", (NET_PLACE, "C3"): "fail"}


def test_between_two_calls_is_not_in_the_exit() -> None:
    again = phase("return", 700, attempt=1, status="invalid parameter")
    log = dormant()
    log.let_go(NET_PCI, NET_VDEV)
    log.says(again).status(0)
    log.says(phase("call", 900, attempt=2) + phase("return", 1800, attempt=2, status="success"))
    assert verdicts(look(log.says(AFTER))) == {**ALL_HELD, **BOTH_LEFT_ALONE}


def test_an_event_of_the_report_lies_on_one_side_of_the_exit() -> None:
    log = booted().says(CALL)
    log.pace = 0.00001
    log.let_go()
    seen = look(log.fed().says(RETURN).fed().says(AFTER))
    packets = of(seen, "host-packet", NET_PLACE)
    assert [event["count"] for event in packets] == [1, 1]
    assert packets[0]["us"] < 800 < packets[1]["us"]
    finding = next(each for each in seen.findings if (each.rule, each.verdict) == ("C4", "fail"))
    assert packets[0] not in finding.evidence and packets[1] in finding.evidence


# ---- C7 ----

def test_bus_mastering_that_stays_on_is_not_for_the_host_to_pass() -> None:
    log = booted().says(CALL)
    log.status(0)
    log.let_go(NET_PCI, NET_VDEV)
    seen = look(log.says(RETURN + AFTER))
    assert (PLACE, "C7") not in verdicts(seen) and verdicts(seen)[PLACE, "C4"] == "pass"


def test_no_exit_no_findings() -> None:
    log = let_go(booted().says(CALL)).says(RETURN.replace("success", "not ready"))
    assert look(log).findings == []
    assert look(booted()).events == []


def test_devices_that_nobody_drives_pass_nothing() -> None:
    seen = host.look(audits.clean().parse(), "", {}, KINDS)
    # The card and the disk were live at the call, so they count without the auditor's word.
    assert verdicts(seen) == ALL_HELD
    log = AuditLog()
    log.power_on()
    log.command(0).command(3)
    log.status(0)
    assert host.look(log.says(audits.BEFORE + CALL + RETURN + AFTER).parse(),
                     "", {}, KINDS).findings == []


# ---- QEMU's words ----

def test_errors_are_placed_and_held_against_the_device() -> None:
    log = booted().says(CALL)
    log.let_go(NET_PCI, NET_VDEV)
    log.says(RETURN).notify()
    said = f"{audits.stamp(log)} qemu-system-x86_64: virtio: bogus descriptor or out of resources\n"
    seen = look(log.says(AFTER), said)
    assert verdicts(seen)[PLACE, "C4"] == "fail"
    assert "bogus descriptor" in why(seen, PLACE, "C4")
    assert [event["what"] for event in of(seen, "host-error")] == [
        "virtio: bogus descriptor or out of resources"]


def test_errors_before_the_exit_are_only_told() -> None:
    log = booted().notify()
    said = f"{audits.stamp(log)} qemu-system-x86_64: virtio: zero sized buffers are not allowed\n"
    seen = look(let_go(log.says(CALL)).says(RETURN + AFTER), said)
    assert verdicts(seen) == ALL_HELD
    assert len(of(seen, "host-error")) == 1


def test_errors_that_name_no_device() -> None:
    log = audits.clean()
    said = "".join(f"{audits.stamp(log)} qemu-system-x86_64: {what}\n" for what in (
        "something else", "terminating on signal 15 from pid 1 (baton)",
        "warning: TCG doesn't support requested feature: CPUID.01H"))
    said += "2001-01-01T00:00:00.000000Z qemu-system-x86_64: before power-on\nnot a stamp\n"
    seen = look(log, said)
    assert verdicts(seen) == ALL_HELD
    assert [(event["device"], event["what"]) for event in seen.events
            if event["type"] == "host-error"] == [(None, "something else")]


# ---- The clock ----

def test_times_stay_on_their_side_of_a_mark() -> None:
    # The guest's clock and the host's disagree: 800 µs here, several milliseconds there.
    seen = look(audits.clean())
    resets = [event for event in of(seen, "host-status") if event["value"] == "0x00"]
    assert 0 < resets[-1]["us"] < 800
    assert [event["us"] for event in seen.events] == sorted(event["us"] for event in seen.events)


def test_clock_of_one_mark() -> None:
    clock = host.Clock([host.Mark(0, 1.0, 1.5, {"phase": "call"})])
    assert clock.known and clock.us(1.5) == 0 and clock.us(2.5) == 1e6 and clock.us(0.5) == -1e6


def test_what_comes_just_before_a_mark_stays_before_it() -> None:
    marks = [host.Mark(index, time, time, {"phase": "return", "us": us})
             for index, (time, us) in enumerate(((1.0, 0), (2.0, 10)))]
    clock = host.Clock(marks)
    assert clock.us(1.9999999) < 10 and clock.us(0.99999999) < 0
    assert clock.us(2.0) == 10


def test_a_clock_that_goes_backwards_is_not_believed() -> None:
    marks = [host.Mark(index, time, time, {"phase": "return", "us": us})
             for index, (time, us) in enumerate(((1.0, 100), (2.0, 50), (3.0, 300)))]
    clock = host.Clock(marks)
    times = [clock.us(1 + step / 10) for step in range(30)]
    assert times == sorted(times) and clock.us(3.0) == 300


def test_hundreds_of_thousands_of_events() -> None:
    log = booted().says(CALL)
    log.let_go()
    log.says(RETURN)
    packet = [f"virtqueue_pop vq {log.queue(NET_VDEV)} elem 0x1 in_num 1 out_num 0",
              f"virtqueue_flush vq {log.queue(NET_VDEV)} count 1"]
    log.pace = 0.00001
    for number in range(100_000):
        log.add(packet[number % 2])
    seen = look(log.says(AFTER))
    assert "put 50000 packets" in why(seen, NET_PLACE, "C4")
    assert len(seen.events) < 100
