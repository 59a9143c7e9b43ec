# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The verdict on a whole run: every way in which it can be wrong is said, and fails it."""

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from lab import boot, guestlog
from lab.errors import LabError
from lab.qemu import Bios, Result, plain
from lab.queues import Queue, Watch
from lab.report import Report
from lab.scenarios import SCENARIOS, Disks, HostDisk, NetworkBoot, Options, Scenario
from test_bios_judgement import LINES, MAP, QUEUE
from test_whose import NET, SAID, SCSI
from traces import KERNEL, Log, bios, clean

SUM = "5" * 64
PLACE = "/sys/devices/pci0000:00/0000:00:04.0/virtio0/block/vda"
GUEST = f"""
baton-guest: root device=/dev/vda2 options=ro,relatime path={PLACE}/vda2
baton-guest: disk name=vda bytes=1048576 sector=512 ro=0 path={PLACE} sha256={SUM}
baton-guest: end
"""
WRITTEN = guestlog.pattern(100000000, 8192)


def report(serial: str = SAID + GUEST, *, trace: Log | None = None, ended: str = "off",
           options: Options = Options(), host: HostDisk | None = None, said: str = "",
           watch: Watch | None = None) -> Report:
    """What boot() makes of a run, without the run."""
    result = Result(ended=ended, exit_code=0, seconds=1, serial=serial,  # type: ignore[arg-type]
                    trace=(trace or clean()).parse(), said=said, addresses=["00:04.0"], command=[])
    scenario: Scenario = SCENARIOS[options.on](options)
    if isinstance(scenario, Disks):
        scenario.host = [host or HostDisk(SUM, SUM, size=1 << 20)]
    elif isinstance(scenario, NetworkBoot):
        scenario.sent = [result.trace.start + at / 1000 for at in range(0, 100_000, 50)]
    made = boot._report(options, result, "tcg", scenario, watch)
    boot.judge_end(made, result, 10)
    scenario.judge(made)
    return made


def test_good() -> None:
    good = report()
    assert good.ok, good.problems
    assert good.last_line == "hand-over clean: 1 device, 0 live"
    out = io.StringIO()
    good.write(out, verbose=True)
    assert out.getvalue().splitlines()[-1] == good.last_line
    assert json.loads(json.dumps(good.as_json()))["hand_over"]["live"] == 0


def wrong(made: Report, words: str) -> None:
    """There is exactly one problem, and it says this; and the verdict does."""
    assert len(made.problems) == 1, made.problems
    assert words in made.problems[0]
    assert not made.ok
    assert words in made.last_line and "clean" not in made.last_line
    assert not made.as_json()["ok"]


def test_another_driver() -> None:
    other = SAID.replace("Baton virtio-blk driver", "Virtio Block Driver")
    wrong(report(other + GUEST), "the disk's driver is Virtio Block Driver, not Baton")


def test_driver_unknown() -> None:
    wrong(report(GUEST), "could not be asked")
    wrong(report(SAID.replace("whose: end disks=1", "") + GUEST), "could not be asked")


def test_disk_without_driver() -> None:
    lines = [line for line in SAID.splitlines() if "driver" not in line]
    wrong(report("\n".join(lines) + GUEST), "no driver for this disk")


def test_another_program_in_place_of_the_question() -> None:
    made = report(GUEST, options=Options(app=Path("test.efi")))
    assert made.ok and "which driver" in made.unseen[0]


def test_live_device() -> None:
    log = Log().power_on().firmware().command(3, status=11)
    dirty = log.serial("Linux version 6\n").linux()
    wrong(report(trace=dirty), "still live")


def test_checksum_differs() -> None:
    wrong(report(host=HostDisk("6" * 64, "6" * 64, size=1 << 20)), "the guest's checksum")


def test_disk_was_written_to() -> None:
    wrong(report(host=HostDisk(SUM, "6" * 64, size=1 << 20)), "contents changed")


def test_checksum_missing() -> None:
    wrong(report(SAID + GUEST.replace(f"sha256={SUM}", "sha256=")), "missing")


def test_root_elsewhere() -> None:
    moved = GUEST.replace(f"path={PLACE}/vda2", "path=/sys/devices/pci0000:00/0000:00:1f.2/sda2")
    wrong(report(SAID + moved), "the root came from 00:1f.2")


def test_root_not_mounted() -> None:
    lines = [line for line in GUEST.splitlines() if "root" not in line]
    wrong(report(SAID + "\n".join(lines)), "did not mount its root")


def test_disk_not_seen() -> None:
    lines = [line for line in GUEST.splitlines() if "disk" not in line]
    wrong(report(SAID + "\n".join(lines)), "has no disk on 00:04.0")


@pytest.mark.parametrize(("old", "new"), [
    ("bytes=1048576", "bytes=1048064"), ("sector=512", "sector=4096"), ("ro=0", "ro=1")])
def test_disk_looks_different(old: str, new: str) -> None:
    wrong(report(SAID + GUEST.replace(old, new)), "the guest sees 00:04.0 as")


@pytest.mark.parametrize(("ended", "said", "words"), [
    ("timeout", "", "ended after 10 s (at: kernel)"),
    ("died", "warning\nqemu: Fatal: x\n\n", "QEMU died (at: kernel): qemu: Fatal: x"),
    ("reset", "", "ended too early (at: kernel; reset)"),
])
def test_end_too_early(ended: str, said: str, words: str) -> None:
    made = report(SAID + "Linux version 6\npanic\n", ended=ended, said=said)
    assert words in made.problems[0]
    assert "panic" in made.tail and "serial.log" in made.tail


def test_guest_failure_is_told() -> None:
    made = report(SAID + "Linux version 6\nbaton-guest: failed initramfs: mount\n")
    assert "initramfs: mount" in made.problems


def test_no_lines_are_made_of_garbled_ones() -> None:
    made = report(SAID + GUEST.replace("bytes=1048576", "bytes=10x"))
    assert any("has no disk on" in problem for problem in made.problems)


WRITES = Options(write=8192)
WROTE = GUEST.replace("baton-guest: end", "baton-guest: wrote name=vda at=/dev/vda3 bytes=8192 "
                      f"from=100000000 sha256={hashlib.sha256(WRITTEN).hexdigest()}\n"
                      "baton-guest: end")
AFTER = HostDisk(SUM, "7" * 64, "7" * 64, 1 << 20)


def test_write() -> None:
    made = report(SAID + WROTE, options=WRITES, host=AFTER)
    assert made.ok, made.problems
    assert any("8 KiB written" in line for line in made.held)


def test_write_went_wrong() -> None:
    wrong(report(options=WRITES, host=AFTER), "could not write")
    other = WROTE.replace("from=100000000", "from=100000001")
    wrong(report(SAID + other, options=WRITES, host=AFTER), "read back something else")
    wrong(report(SAID + WROTE, options=WRITES, host=replace(AFTER, after="8" * 64)),
          "the host's image")


def test_read_only() -> None:
    options = Options(write=8192, read_only=True)
    refused = GUEST.replace("ro=0", "ro=1").replace(
        "baton-guest: end", "baton-guest: refused name=vda\nbaton-guest: end")
    assert report(SAID + refused, options=options).ok
    wrong(report(SAID + WROTE.replace("ro=0", "ro=1"), options=options), "was not refused")


UNITS = Options(on="virtio-scsi")
UNIT_PLACE = ("/sys/devices/pci0000:00/0000:00:04.0/virtio0/host0/target0:0:0/0:0:0:0/"
              "block/sda")
ONE_UNIT = SCSI.replace("disks=2", "disks=1").replace(
    "whose: disk pci=00:04.0 id=1af4:1048 unit=0:10 block=512 blocks=16384 read-only=0\n", "")


def scsi() -> Log:
    log = Log("virtio-scsi-pci").power_on().firmware(reads=False).command_unit(0x28)
    return log.let_go().serial(KERNEL).linux(reads=False)


def test_scsi() -> None:
    guest = GUEST.replace(PLACE, UNIT_PLACE).replace("vda", "sda")
    made = report(ONE_UNIT + guest, trace=scsi(), options=UNITS)
    assert made.ok, made.problems
    assert made.last_line == "hand-over clean: 1 device, 0 live"
    assert any("on 00:04.0/0:0" in line for line in made.held)
    assert dict(made.facts)["driver"].startswith("Baton virtio-scsi driver, version 0x20")
    # The disk of another unit is not this one.
    other = guest.replace("0:0:0:0", "0:0:0:1").replace(f"root device=/dev/sda2 options="
                                                        f"ro,relatime path={UNIT_PLACE}",
                                                        "x")
    made = report(ONE_UNIT + other, trace=scsi(), options=UNITS)
    assert any("has no disk on 00:04.0/0:0" in problem for problem in made.problems)


def test_scsi_by_another_driver() -> None:
    guest = GUEST.replace(PLACE, UNIT_PLACE).replace("vda", "sda")
    other = ONE_UNIT.replace("Baton virtio-scsi driver", "Virtio SCSI Host Driver")
    wrong(report(other + guest, trace=scsi(), options=UNITS),
          "00:04.0/0:0: the disk's driver is Virtio SCSI Host Driver, not Baton")


def test_cdrom() -> None:
    guest = GUEST.replace(PLACE, UNIT_PLACE).replace("vda2", "sr0").replace("vda", "sr0").replace(
        "sector=512 ro=0", "sector=2048 ro=1")
    disk = HostDisk(SUM, SUM, size=1 << 20, sector_size=2048)
    options = Options(on="virtio-scsi", cdrom=True)
    made = report(ONE_UNIT + guest, trace=scsi(), options=options, host=disk)
    assert made.ok, made.problems
    # A CD that can be written to is none.
    made = report(ONE_UNIT + guest.replace("ro=1", "ro=0"), trace=scsi(), options=options,
                  host=disk)
    wrong(made, "the guest sees 00:04.0/0:0 as")


NETWORK = Options(on="virtio-net")
FILE = NetworkBoot(NETWORK).file
NET_GUEST = f"""
baton-guest: interface name=eth0 mac=52:54:00:ba:70:01 mtu=1500 \
path=/sys/devices/pci0000:00/0000:00:04.0/virtio0/net/eth0
baton-guest: lease name=eth0 address=10.0.2.15 server=10.0.2.2
baton-guest: pinged name=eth0 address=10.0.2.2 sent=3 received=3
baton-guest: fetched name=eth0 file=payload bytes={len(FILE)} \
sha256={hashlib.sha256(FILE).hexdigest()}
baton-guest: end
"""


def net() -> Log:
    log = Log("virtio-net-pci").power_on().firmware(reads=False).notify().send().receive()
    return log.let_go().serial(KERNEL).linux(reads=False)


def net_report(serial: str = NET + NET_GUEST, trace: Log | None = None) -> Report:
    return report(serial, trace=trace or net(), options=NETWORK)


def test_network() -> None:
    made = net_report()
    assert made.ok, made.problems
    assert made.last_line == "hand-over clean: 1 device, 0 live" and not made.unseen
    held = " ".join(made.held)
    assert "Baton drove the interface" in held and "10.0.2.15 by DHCP, 3 of 3 pings" in held
    # The kernel takes 0.07 s here, and somebody sends each 0.05 s.
    assert "1 packets were on its" in held or "2 packets were on its" in held


@pytest.mark.parametrize(("old", "new", "words"), [
    ("Baton virtio-net driver", "Virtio Network Driver", "the interface's driver is Virtio"),
    ("whose: interface pci=00:04.0", "whose: interface pci=00:05.0",
     "no driver for this interface"),
    ("mac=52:54:00:ba:70:01 media=1", "mac=00:00:00:00:00:00 media=1", "has the address 00:00"),
    ("media=1", "media=0", "and no link"),
    ("mac=52:54:00:ba:70:01 mtu", "mac=52:54:00:ba:70:02 mtu", "address 52:54:00:ba:70:02, not"),
    ("received=3", "received=2", "2 of 3 pings"),
    ("baton-guest: lease", "baton-guest: end", "no address by DHCP"),
    ("bytes=4194304", "bytes=4194303", "has 4194303 bytes"),
    ("bytes=4194304 sha256=3", "bytes=4194304 sha256=4", "checksum 4cf7025d"),
    ("0000:00:04.0/virtio0/net", "0000:00:05.0/virtio0/net", "has no interface on 00:04.0"),
])
def test_network_went_wrong(old: str, new: str, words: str) -> None:
    serial = NET + NET_GUEST
    assert old in serial
    made = net_report(serial.replace(old, new))
    assert any(words in problem for problem in made.problems), made.problems


def test_network_that_is_still_live() -> None:
    log = Log("virtio-net-pci").power_on().firmware(reads=False).notify().send().receive()
    log.command(3, status=11).serial(KERNEL).receive().linux(reads=False)
    made = net_report(trace=log)
    assert any("took or filled buffers 2 times" in problem for problem in made.problems)
    assert not any("put into memory" in line for line in made.held)
    assert not made.unseen


def test_network_on_which_nobody_spoke() -> None:
    log = Log("virtio-net-pci").power_on().firmware(reads=False).let_go().serial(KERNEL)
    assert any("never set it going" in line for line in net_report(trace=log).unseen)


ON_BIOS = Options(firmware=Bios(strict=True))
SAID_BIOS = "".join(LINES.splitlines(keepends=True)[:2]) + MAP


def bios_report(serial: str = SAID_BIOS + GUEST, trace: Log | None = None, queue: Queue = QUEUE,
                options: Options = ON_BIOS) -> Report:
    watch = Watch(["00:04.0"], "", [{"00:04.0": [queue]}])
    return report(serial, trace=trace or bios(), options=options, watch=watch)


def test_bios() -> None:
    made = bios_report()
    assert made.ok and not made.unseen, made.problems
    assert made.last_line == "hand-over clean: 1 device, 0 live"
    facts = dict(made.facts)
    assert facts["driver"] == "Baton virtio-blk driver, drive 80h"
    assert facts["firmware"].endswith("(SeaBIOS 1.16.2-debian-1.16.2-1), without drivers of its own")
    assert any("in memory that it calls reserved" in line for line in made.held)
    assert json.loads(json.dumps(made.as_json()))["hand_over"]["devices"][0]["queues"] == \
        [{"index": 0, "entries": 256, "descriptors": 0x1FFDD000, "available": 0x1FFDE000,
          "used": 0x1FFDF000}]


def test_bios_by_its_own_driver() -> None:
    silent = SAID_BIOS.replace("Baton: drive", "Something: drive")
    options = Options(firmware=Bios(), rom=None)
    made = bios_report(silent + GUEST, options=options)
    wrong(made, "00:04.0: the disk's driver is SeaBIOS's own, not Baton (as asked: --no-rom)")
    assert dict(made.facts)["driver"] == "SeaBIOS's own"
    assert dict(made.facts)["firmware"].endswith(", with drivers of its own")
    # That it is not Baton is no reason to judge it otherwise.
    assert made.hand_over.live == 0
    assert any("in memory that it calls reserved" in line for line in made.held)


def test_bios_whose_disk_nobody_called() -> None:
    """With drivers of its own, it keeps a disk until Baton is called for it."""
    idle = Log().power_on().firmware(reads=False).pause().serial(KERNEL).linux()
    silent = SAID_BIOS.replace("Baton: drive", "Something: drive") + GUEST
    both = replace(ON_BIOS, firmware=Bios())
    made = bios_report(silent, trace=idle, options=both)
    assert made.ok and any("called the BIOS for 00:04.0" in line for line in made.held)
    assert not any("Baton drove" in line for line in made.held)
    wrong(bios_report(silent, options=both), "driver is SeaBIOS's own, not Baton")
    wrong(bios_report(silent, trace=idle), "driver is SeaBIOS's own, not Baton")
    wrong(bios_report(silent, trace=idle, options=replace(both, rom=None)), "as asked: --no-rom")


def test_bios_that_leaves_its_queues_in_the_way() -> None:
    made = bios_report(queue=replace(QUEUE, used=0x5000))
    wrong(made, "queue 0 is where the system may put something else")
    assert made.hand_over.live == 1
    assert not any("calls reserved" in line for line in made.held)


def test_bios_that_nobody_looked_at() -> None:
    """Of its own guest, the lab has to see that; of another one it tells that it has not."""
    log = Log().power_on().firmware().serial(KERNEL).linux()
    made = bios_report(trace=log)
    wrong(made, "where its queues were")
    assert not any("calls reserved" in line for line in made.held)
    made = bios_report(trace=log, options=replace(ON_BIOS, image=Path("x")))
    assert made.ok and "where its queues were" in made.unseen[0]


def test_bios_with_nobody_s_disk() -> None:
    """The ROM did not run, and the BIOS was not to drive it."""
    made = bios_report("SeaBIOS (version 1)\nNo bootable device.\n",
                       trace=Log().power_on().command(0).command(7).serial("No bootable\n"))
    assert any("no driver for this disk" in problem for problem in made.problems)
    assert not made.ok


def test_plain_text() -> None:
    assert plain("\x1b[0m\x1b[37mHello\r\n") == "Hello\n"


@pytest.mark.parametrize(("options", "words"), [
    (Options(rom=Path("/none")), "does not exist"),
    (Options(rom=None, app=Path("/none")), "does not exist"),
    (Options(rom=None, app=Path(__file__)), "not a PE"),
])
def test_bad_options(options: Options, words: str) -> None:
    with pytest.raises(LabError, match=words):
        boot.boot(options)
