# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Something to receive: frames for every network card of a machine, from its start to its end.

A card that still receives when the operating system owns the memory is the most dangerous of
devices, because it needs nobody to ask it for anything. So somebody has to be sending.
"""

import itertools
import random
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

FRAMES_PER_SECOND = 400
"""To all cards together."""

_BROADCAST = b"\xff" * 6
_EXPERIMENTAL = 0x88B5  # an EtherType for local use: whoever gets it by mistake does nothing
_SHORTEST, _LONGEST = 60, 1514
_TEXT = b"Baton audit: a packet from the network. "


@dataclass(frozen=True)
class Network:
    """Our end of the wire to a card."""

    socket: socket.socket
    mac: str


def frame(number: int, mac: str, rng: random.Random) -> bytes:
    """One frame: to everybody, to this card, or to a random one; its text and number can be
    recognised in the memory where it was put."""
    to = (_BROADCAST, bytes.fromhex(mac.replace(":", "")),
          b"\x52\x54\x00" + rng.randbytes(3))[number % 3]
    head = to + b"\x02\xba\x70\x00\x00\x01" + struct.pack(">HI", _EXPERIMENTAL, number & 0xFFFFFFFF)
    size = rng.randint(_SHORTEST, _LONGEST)
    return (head + _TEXT * (size // len(_TEXT) + 1))[:size]


class Flood:
    """Sends for as long as its with-block lasts, and throws away what the machine sends."""

    def __init__(self, networks: Sequence[Network], per_second: int = FRAMES_PER_SECOND) -> None:
        self._networks = networks
        self._pause = len(networks) / per_second
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent = 0
        self.times: list[float] = []
        """When each was sent, by this host's clock, which QEMU's trace also goes by."""

    def __enter__(self) -> "Flood":
        for network in self._networks:
            network.socket.setblocking(False)
        if self._networks:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._done.set()
        if self._networks:
            self._thread.join()

    def _run(self) -> None:
        rng = random.Random(1)
        for number in itertools.count():
            if self._done.wait(self._pause):
                return
            for network in self._networks:
                self._exchange(network, frame(number, network.mac, rng))

    def _exchange(self, network: Network, data: bytes) -> None:
        try:
            while network.socket.recv(65536):
                pass
        except OSError:
            pass  # nothing more has come
        try:
            network.socket.send(data)
            self.sent += 1
            self.times.append(time.time())
        except OSError:
            pass  # the card does not take them, or the machine is gone: as on any wire, it is lost
