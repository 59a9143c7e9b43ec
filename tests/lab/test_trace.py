# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Reading QEMU's trace."""

from lab import trace
from lab.trace import ConfigWrite, Filled, PowerOn, ScsiCommand, SerialText, Status, Taken
from traces import KERNEL, PCI, VDEV, Log, clean


def test_times_count_from_power_on() -> None:
    events = Log().power_on().add("serial_write write addr 0x00 val 0x41").parse().events
    assert [type(event) for event in events] == [Status, PowerOn, SerialText]
    assert events[1].time == 0
    assert abs(events[2].time - 0.001) < 1e-5


def test_devices_get_their_pci_address() -> None:
    events = clean().parse()
    assert {event.device for event in events.of(PCI)} == {PCI}
    assert not list(events.of(VDEV))


def test_the_echo_is_known_by_its_thread() -> None:
    # Another thread's work between the two lines does not hide whose status it is.
    log = Log().power_on().config(4, 3)
    log.add("virtio_blk_req_complete vdev 0x99 req 0x1 status 0", thread=1)
    log.status(11)
    status = [event for event in log.parse().events if isinstance(event, Status)][-1]
    assert (status.device, status.value, status.echo) == (PCI, 11, True)


def test_a_status_that_follows_something_else_is_no_echo() -> None:
    log = Log().power_on().command(0).status(1)
    last = [event for event in log.parse().events if isinstance(event, Status)][-1]
    assert not last.echo


def test_serial_text_is_put_together_and_cut_at_lines() -> None:
    parsed = Log().power_on().serial("one\ntwo").parse()
    assert [event.text for event in parsed.events if isinstance(event, SerialText)] == \
        ["one\n", "two"]
    assert parsed.serial == "one\ntwo"
    parsed = Log().power_on().serial("a\r\nb\n\rc").parse()
    assert [event.text for event in parsed.events if isinstance(event, SerialText)] == \
        ["a\r\n", "b\n", "\r", "c"]


def test_baud_rate_is_not_text() -> None:
    log = Log().power_on().add("serial_write write addr 0x03 val 0x83")
    log.serial("\x01").add("serial_write write addr 0x03 val 0x03").serial("x")
    assert log.parse().serial == "x"


def test_text_is_found_across_other_events() -> None:
    log = Log().power_on().serial("\r[    0.000000] Lin").read().serial("ux version 6.1\n")
    parsed = log.parse()
    index = parsed.index_of_text(r"Linux version \d")
    assert index is not None
    text = parsed.events[index]
    assert isinstance(text, SerialText) and text.text.endswith("Lin")


def test_text_begins_where_it_begins_not_where_its_line_does() -> None:
    log = Log().power_on().serial("booting\r").status(15).serial(KERNEL)
    parsed = log.parse()
    index = parsed.index_of_text(r"\[ .*Linux version \d")
    assert index is not None
    text = parsed.events[index]
    assert isinstance(text, SerialText) and text.text.startswith("[")


def test_requests_and_notifications_are_counted() -> None:
    parsed = clean().parse()
    assert len(parsed.requests(PCI)) == len(parsed.notifications(PCI)) == 3


def test_buffers_are_known_by_their_device() -> None:
    # The queue for receiving was never rung: it lies where the others say that it must.
    log = Log("virtio-net-pci").power_on().command(0).notify(number=1).notify(number=3).receive().send()
    events = [event for event in log.parse().of(PCI) if isinstance(event, (Taken, Filled))]
    assert [(type(event), event.queue, event.token) for event in events] == [
        (Taken, 0, "0xc"), (Filled, 0, "0xc"), (Taken, 1, "0xb"), (Filled, 1, "0xb")]
    assert [(event.to_write, event.to_read) for event in events if isinstance(event, Taken)] == [
        (2, 0), (0, 2)]


def test_a_scsi_command_is_of_the_controller_that_has_just_taken_it() -> None:
    other = "0x55aa00002000"
    log = Log("virtio-scsi-pci").power_on().command(0).command(0, pci="00:05.0", vdev=other)
    log.command_unit(0x28, 7).command_unit(0x12, vdev=other)
    commands = [event for event in log.parse().events if isinstance(event, ScsiCommand)]
    assert [(event.device, event.lun, event.code) for event in commands] == [
        (PCI, 7, 0x28), ("00:05.0", 0, 0x12)]
    # One that nobody has taken is nobody's.
    log = Log().add("virtio_scsi_cmd_req virtio_scsi_cmd_req lun=0 tag=0x0 cmd=0x12")
    assert log.parse().events == ()


def test_devices_say_what_they_are() -> None:
    assert Log("virtio-net-pci").command(0).parse().kinds == {PCI: "virtio-net-pci"}


def test_rubbish_is_passed_over() -> None:
    parsed = trace.parse(["", "warning: something", "2@1.0:unknown event", "2@x:serial_write y"])
    assert parsed.events == ()


def test_config_write() -> None:
    write = [event for event in Log().config(4, 0x407).parse().events][0]
    assert isinstance(write, ConfigWrite)
    assert write.is_command and write.bus_master
