# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The other end of a network card's wire; and for tests/vm/net.c, who is there: echoes frames, and
does as told."""

import socket
import threading
import time
from types import TracebackType
from typing import Self

from lab.qmp import Qmp

MAC = bytes.fromhex("02ba70000001")
ECHO, COMMAND = b"\x88\xb5", b"\x88\xb6"
DOWN_SECONDS = 1.0


class Wire:
    """From QEMU's network `netdev` to a thread, at work for as long as its with-block lasts. `words`
    are QEMU's arguments for the network, and `fds` the files that they name."""

    def __init__(self, netdev: str) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.fds = [theirs]
        self.words = ["-netdev", f"dgram,id={netdev},local.type=fd,local.str={theirs.fileno()}"]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self.ours.settimeout(0.2)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        for end in (self.ours, *self.fds):
            end.close()

    def _run(self) -> None:
        """What the thread does, until self._done is set."""
        raise NotImplementedError


class Peer(Wire):
    """One card's peer."""

    def __init__(self, number: int) -> None:
        self.netdev = f"net{number}"
        self.card = f"card{number}"
        super().__init__(self.netdev)
        self.monitor, monitor = socket.socketpair()
        for end in (self.ours, *self.fds):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.fds.append(monitor)
        self.words += ["-chardev", f"socket,id=peer{number},fd={monitor.fileno()}",
                       "-mon", f"chardev=peer{number},mode=control"]
        self.flooded = 0
        self._flooding = False

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        self.monitor.close()

    def _run(self) -> None:
        number = 0
        while not self._done.is_set():
            try:
                if self._flooding:
                    number += 1
                    self._flood(number)
                else:
                    self._answer(self.ours.recv(65536))
            except (TimeoutError, BlockingIOError):
                pass
            except OSError:
                time.sleep(0.1)  # the machine is gone

    def _answer(self, frame: bytes) -> None:
        kind = frame[12:14]
        back = frame[6:12] + MAC + frame[12:]
        if kind == COMMAND:
            self._do(frame, frame[14:].split(b"\0")[0].decode().split())
        if kind in (ECHO, COMMAND):
            self._send(back)
        if kind == COMMAND and frame[14:].startswith(b"link\0"):
            self._link()
        self._flooding = kind == COMMAND and frame[14:].startswith(b"flood\0")

    def _send(self, frame: bytes) -> None:
        """Waits while the card takes nothing: on this wire nothing is lost."""
        while not self._done.is_set():
            try:
                self.ours.send(frame)
                return
            except (TimeoutError, BlockingIOError):
                pass

    def _do(self, frame: bytes, words: list[str]) -> None:
        if words[0] == "frame":
            to = frame[6:12] if words[1] == "-" else bytes.fromhex(words[1])
            self._send((to + MAC + b"\x88\xb7" + bytes(range(256)) * 256)[:int(words[2])])

    def _link(self) -> None:
        monitor = Qmp(self.monitor)
        monitor.execute("qmp_capabilities")
        monitor.execute("set_link", {"name": self.card, "up": False})
        time.sleep(DOWN_SECONDS)
        monitor.execute("set_link", {"name": self.card, "up": True})

    def _flood(self, number: int) -> None:
        self._flooding = True
        to = (b"\xff" * 6, b"\x52\x54\x00\x00\x00\x01", b"\x01\x00\x5e\x00\x00\x01")[number % 3]
        self.ours.send(to + MAC + b"\x88\xb8" + (b"Baton flood. " * 116)[:46 + number % 1455])
        self.flooded += 1
