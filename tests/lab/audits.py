# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Audits, made up: what the auditor would say, and QEMU's trace of it."""

import datetime
import json
from typing import Any

from traces import PCI, VDEV, Log

PLACE = f"0000:{PCI}"
NET_PCI, NET_VDEV, NET_PLACE = "00:05.0", "0x55aa00002000", "0000:00:05.0"
_STEP = 0x98
KINDS = {PLACE: "virtio-blk", NET_PLACE: "virtio-net"}


def line(kind: str, /, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields}, separators=(",", ":")) + "\n"


def phase(name: str, us: int | None = None, /, **fields: Any) -> str:
    return line("phase", phase=name, **({} if us is None else {"us": us}), **fields)


def verdict(rule: str, word: str = "pass", name: str = PLACE, subject: str = "device",
            image: int | None = None, why: str = "as it should be") -> str:
    return line("verdict", subject=subject, name=name, image=image, rule=rule, verdict=word,
                why=why)


START = line("start", format="handover", version=1, options=["exit=debug"], firmware={
    "vendor": "ACME", "revision": "0x10000", "uefi": "2.7"}, memory=512 << 20, hypervisor="TCG")
DEVICE = line("device", device=PLACE, vendor="0x1af4", id="0x1042", **{"class": "010000"},
              kind="virtio-blk", path=None, drivers=[1, 2], busy="reading")
NET_DEVICE = line("device", device=NET_PLACE, vendor="0x1af4", id="0x1041", **{"class": "020000"},
                  kind="virtio-net", path=None, drivers=[3], busy="receiving")
IMAGES = "".join(line("image", image=number, name=name, guid=None, path=None, base="0x7e000000",
                      size=65536, core=number == 0, auditor=False)
                 for number, name in enumerate(("DxeCore", "VirtioPci", "VirtioBlk", "VirtioNet")))
BEFORE = START + phase("connect") + phase("busy")
CALL, RETURN = phase("call", attempt=1), phase("return", 800, attempt=1, status="success")
AFTER = (phase("owner", 2000) + phase("filled", 5000, round=1) + phase("watching", 9000, round=1)
         + phase("judging", 30000))
DETAILS = IMAGES + DEVICE + NET_DEVICE + line(
    "watch", round=1, us=29000, ms=20, bytes=400 << 20)


def said(verdicts: str = verdict("C4") + verdict("C7"), details: str = DETAILS) -> str:
    """All that the auditor says, with the counts that belong to these verdicts."""
    counts = {word: verdicts.count(f'"verdict":"{word}"') for word in ("pass", "fail", "unseen")}
    return BEFORE + CALL + RETURN + AFTER + details + verdicts + line("end", **counts)


class AuditLog(Log):
    """A trace with the auditor in it."""

    pace = 0.001
    """Seconds from one line to the next."""

    def add(self, text: str, thread: int = 2) -> "AuditLog":
        self._now += self.pace - 0.001
        super().add(text, thread)
        return self

    def queue(self, vdev: str = VDEV, number: int = 0) -> str:
        """QEMU's pointer to a queue."""
        return f"0x{int(vdev, 16) + 0x100000 + number * _STEP:x}"

    def take(self, token: str = "0xa", sector: int = 0, vdev: str = VDEV) -> "AuditLog":
        self.notify(vdev)
        self.add(f"virtio_blk_handle_read vdev {vdev} req {token} sector {sector} nsectors 8")
        return self

    def notify(self, vdev: str = VDEV, number: int = 0) -> "AuditLog":
        super().notify(vdev, number)
        return self

    def pop(self, vdev: str = VDEV, number: int = 0, token: str = "0x7f01", to_write: int = 1,
            to_read: int = 1) -> "AuditLog":
        super().pop(vdev, number, token, to_write, to_read)
        return self

    def flush(self, vdev: str = VDEV, number: int = 0, count: int = 1) -> "AuditLog":
        self.add(f"virtqueue_flush vq {self.queue(vdev, number)} count {count}")
        return self

    def fed(self, vdev: str = NET_VDEV, number: int = 0) -> "AuditLog":
        """A packet for the card."""
        return self.pop(vdev, number).flush(vdev, number)

    def says(self, text: str) -> "AuditLog":
        self.serial(text.replace("\n", "\r\n"))
        return self


def booted() -> AuditLog:
    """Up to the call, with a disk and a card that are driven."""
    log = AuditLog()
    log.power_on()
    log.add(f"virtio_set_status vdev {NET_VDEV} val 0", 1)
    log.firmware()
    log.firmware(NET_PCI, NET_VDEV)
    log.notify().notify(NET_VDEV, 0).notify(NET_VDEV, 1)
    log.says(BEFORE)
    return log


def let_go(log: AuditLog) -> AuditLog:
    log.let_go()
    log.let_go(NET_PCI, NET_VDEV)
    return log


def stamp(log: AuditLog, back: float = 0.0) -> str:
    """The time of a log's last line, as QEMU's messages have it."""
    now = float(log.lines[-1].split("@")[1].split(":")[0]) - back
    return datetime.datetime.fromtimestamp(now, datetime.timezone.utc).strftime(
        "%Y-%m-%dT%H:%M:%S.%fZ")


def clean() -> AuditLog:
    """An audit as it should be."""
    return let_go(booted().says(CALL)).says(RETURN + AFTER)
