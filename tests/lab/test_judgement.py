# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The judgement of the hand-over: each thing that can be wrong is found, in a trace where it is."""

from lab.handover import HandOver, judge
from traces import KERNEL, PCI, Log, clean


def verdict(log: Log, quiet: bool = False) -> HandOver:
    return judge(log.parse(), [PCI], quiet=quiet)


def only_problem(log: Log) -> str:
    found = verdict(log)
    assert len(found.problems) == 1, found.problems
    return found.problems[0]


def test_clean() -> None:
    found = verdict(clean())
    assert found.problems == []
    assert found.live == 0
    assert found.seen_by == "console"
    device = found.devices[0]
    assert device.driven and device.live is False
    assert device.requests == {"reads": 2, "writes": 0}
    assert device.taken_over is not None and device.moved_after == 0
    assert device.last_request is not None and device.reset is not None
    assert device.bus_master_off is not None and found.kernel is not None
    assert device.last_request < device.reset < device.bus_master_off < found.kernel


def test_bus_mastering_may_go_off_first() -> None:
    log = Log().power_on().firmware().command(3, status=11).status(0).serial(KERNEL).linux()
    assert verdict(log).problems == []


def test_never_reset() -> None:
    # Linux resets the device itself later. That is no excuse.
    log = Log().power_on().firmware().command(3, status=11).serial(KERNEL).linux()
    assert "still live" in only_problem(log)
    assert "from the OS" in only_problem(log)
    assert verdict(log).live == 1


def test_reset_too_late() -> None:
    log = Log().power_on().firmware().serial(KERNEL).let_go().linux()
    found = verdict(log)
    assert found.live == 1
    assert any("still live" in problem for problem in found.problems)
    assert any("bus mastering was still on" in problem for problem in found.problems)


def test_reset_and_then_set_going_again() -> None:
    log = Log().power_on().firmware().let_go().firmware().command(3, status=11)
    assert "still live" in only_problem(log.serial(KERNEL).linux())


def test_bus_mastering_left_on() -> None:
    log = Log().power_on().firmware().status(0).serial(KERNEL).linux()
    assert "bus mastering was still on" in only_problem(log)
    assert verdict(log).live == 0


def test_bus_mastering_switched_on_again() -> None:
    log = Log().power_on().firmware().let_go().command(7).serial(KERNEL).linux()
    assert "bus mastering was still on" in only_problem(log)


def test_request_after_the_reset() -> None:
    log = Log().power_on().firmware().let_go().read().serial(KERNEL).linux()
    assert "touched 3 times" in only_problem(log)  # the bell, taken, filled


def test_bell_after_the_reset() -> None:
    log = Log().power_on().firmware().let_go()
    log.notify().serial(KERNEL).linux()
    assert "touched 1 times" in only_problem(log)


def test_a_reset_on_the_way_is_not_the_last_one() -> None:
    # The firmware may set a device going several times; only the end counts.
    log = Log().power_on().firmware().status(0).firmware().let_go().serial(KERNEL).linux()
    assert verdict(log).problems == []


def test_requests_in_flight_are_told() -> None:
    log = Log().power_on().firmware().take("0x1").take("0x2").let_go().serial(KERNEL).linux()
    story = " ".join(moment.what for moment in verdict(log).devices[0].story)
    assert "2 requests in flight" in story


def story(log: Log) -> str:
    return " ".join(moment.what for moment in verdict(log).devices[0].story)


def net() -> Log:
    """A network boot as it should be, up to the hand-over."""
    log = Log("virtio-net-pci").power_on().firmware(reads=False).notify()
    return log.send().receive().receive().let_go()


def test_packets_are_counted_each_way() -> None:
    log = net().serial(KERNEL).linux(reads=False).send().receive()
    found = verdict(log)
    assert found.problems == []
    assert found.devices[0].requests == {"packets sent": 1, "received": 2}
    assert "last of the firmware's 1 packets sent and 2 received" in story(log)


def test_the_control_queue_carries_no_packets() -> None:
    log = Log("virtio-net-pci").power_on().firmware(reads=False).send()
    log.notify(number=2).pop(number=2, token="0xe", to_read=2).fill(number=2, token="0xe").let_go().serial(KERNEL)
    assert verdict(log).devices[0].requests == {"packets sent": 1, "received": 0}


def test_a_packet_after_the_reset() -> None:
    assert "touched 2 times" in only_problem(net().receive().serial(KERNEL).linux(reads=False))


def test_packets_after_the_hand_over() -> None:
    # Of an interface that still receives, each packet is a piece of the system's memory.
    log = Log("virtio-net-pci").power_on().firmware(reads=False).notify().receive()
    log.command(3, status=11).serial(KERNEL).receive().receive().linux(reads=False).receive()
    found = verdict(log)
    assert any("still live" in problem for problem in found.problems)
    assert any("took or filled buffers 4 times after the hand-over" in problem
               for problem in found.problems)
    assert found.devices[0].taken_over is not None


def test_what_the_system_itself_does_is_not_held_against_anybody() -> None:
    log = net().serial(KERNEL).linux(reads=False).receive().status(0).receive()
    assert verdict(log).devices[0].moved_after == 0


def test_scsi_commands_are_counted_by_what_they_do() -> None:
    log = Log("virtio-scsi-pci").power_on().firmware(reads=False)
    for code in (0x12, 0x28, 0x88, 0x2A, 0x35):
        log.command_unit(code, lun=3)
    log.let_go().serial(KERNEL).linux(reads=False)
    found = verdict(log)
    assert found.problems == []
    assert found.devices[0].requests == {"reads": 2, "writes": 1, "other commands": 2}
    assert "2 reads, 1 writes and 2 other commands" in story(log)


def test_never_driven() -> None:
    log = Log().power_on().command(0).serial(KERNEL).linux()
    found = verdict(log)
    assert found.live == 0 and found.problems == []
    assert not found.devices[0].driven
    assert "no operating system" in only_problem(Log().power_on().command(0))


def test_no_operating_system() -> None:
    found = verdict(Log().power_on().firmware().let_go())
    assert "no operating system" in found.problems[0]
    assert found.devices[0].live is None


def test_quiet_kernel_is_known_by_its_first_touch() -> None:
    log = Log().power_on().firmware().let_go().linux()
    found = verdict(log, quiet=True)
    assert (found.seen_by, found.kernel, found.problems) == ("takeover", None, [])
    dirty = Log().power_on().firmware().linux()
    assert verdict(dirty, quiet=True).live == 1
    # One that speaks only after it has taken the device over.
    late = Log().power_on().firmware().linux().serial(KERNEL)
    assert verdict(late, quiet=True).live == 1
    assert verdict(clean(), quiet=True).seen_by == "console"


def test_two_devices_one_live() -> None:
    log = Log().power_on().firmware().firmware("00:05.0", "0x55aa00002000").let_go().serial(KERNEL)
    found = judge(log.parse(), [PCI, "00:05.0"])
    assert found.live == 1
    assert [bool(device.problems) for device in found.devices] == [False, True]


def test_device_that_is_not_in_the_trace() -> None:
    found = judge(clean().parse(), ["00:09.0"])
    assert "does not show this device" in found.problems[0]


def test_empty_trace() -> None:
    assert "machine's start" in judge(Log().parse(), [PCI]).problems[0]


def test_a_test_program_may_say_where_the_exit_is() -> None:
    log = Log().power_on().firmware().let_go().serial("exited\n")
    assert judge(log.parse(), [PCI], speaks="^exited").problems == []
