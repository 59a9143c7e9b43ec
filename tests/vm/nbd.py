# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A disk that misbehaves: an NBD server for one QEMU, on a Unix socket.

It keeps its disk in memory. Requests that touch the `broken` range get an error; reads that touch
the `stuck` range get no answer until `stuck_for` seconds after the first of them, and from then on
like all others. The protocol is https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md,
as little of it as QEMU needs.
"""

import socket
import struct
import threading
import time
from pathlib import Path
from types import TracebackType

_INIT_MAGIC, _OPT_MAGIC, _REPLY_MAGIC = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
_OPT_EXPORT_NAME, _OPT_ABORT, _OPT_GO = 1, 2, 7
_REP_ACK, _REP_INFO, _REP_ERR_UNSUP = 1, 3, 2**31 + 1
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_HAS_FLAGS, _SEND_FLUSH = 1, 4
_REQUEST, _SIMPLE_REPLY = 0x25609513, 0x67446698
_READ, _WRITE, _DISCONNECT, _FLUSH = 0, 1, 2, 3
_EIO, _EINVAL = 5, 22


class Gone(Exception):
    """The other side has closed the connection."""


class Server:
    """Use it with `with`; `path` is the socket."""

    def __init__(self, path: Path, size: int, *, broken: range = range(0), stuck: range = range(0),
                 stuck_for: float = 0) -> None:
        self.path = path
        self.disk = bytearray(size)
        self.reads: list[tuple[int, int]] = []
        self.held = 0
        """How many requests had to wait."""
        self._broken = broken
        self._stuck = stuck
        self._stuck_for = stuck_for
        self._free_at: float | None = None
        self._send_lock = threading.Lock()
        self._over = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "Server":
        self._listener.bind(str(self.path))
        self._listener.listen(1)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._over.set()
        self._listener.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            with connection:
                try:
                    if self._negotiate(connection):
                        self._transmit(connection)
                except (Gone, OSError):
                    pass

    @staticmethod
    def _take(connection: socket.socket, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = connection.recv(count - len(data))
            if not piece:
                raise Gone
            data += piece
        return data

    def _negotiate(self, connection: socket.socket) -> bool:
        connection.sendall(struct.pack(">QQH", _INIT_MAGIC, _OPT_MAGIC,
                                       _FIXED_NEWSTYLE | _NO_ZEROES))
        self._take(connection, 4)
        export = struct.pack(">QH", len(self.disk), _HAS_FLAGS | _SEND_FLUSH)
        while True:
            _, option, length = struct.unpack(">QII", self._take(connection, 16))
            self._take(connection, length)

            def reply(kind: int, data: bytes = b"", option: int = option) -> None:
                connection.sendall(struct.pack(">QIII", _REPLY_MAGIC, option, kind, len(data)) + data)
            if option == _OPT_EXPORT_NAME:
                connection.sendall(export)
                return True
            if option == _OPT_GO:
                reply(_REP_INFO, struct.pack(">H", 0) + export)
                reply(_REP_ACK)
                return True
            if option == _OPT_ABORT:
                reply(_REP_ACK)
                return False
            reply(_REP_ERR_UNSUP)

    def _transmit(self, connection: socket.socket) -> None:
        while True:
            magic, _, kind, handle, offset, length = \
                struct.unpack(">IHHQQI", self._take(connection, 28))
            assert magic == _REQUEST
            data = self._take(connection, length) if kind == _WRITE else b""
            if kind == _DISCONNECT:
                return
            touched = range(offset, offset + length)

            def touches(where: range, touched: range = touched) -> bool:
                return touched.start < where.stop and where.start < touched.stop
            error, answer = 0, b""
            if kind in (_READ, _WRITE) and touches(self._broken):
                error = _EIO
            elif kind == _READ:
                self.reads.append((offset, length))
                answer = bytes(self.disk[offset:offset + length])
            elif kind == _WRITE:
                self.disk[offset:offset + length] = data
            elif kind != _FLUSH:
                error = _EINVAL
            message = struct.pack(">IIQ", _SIMPLE_REPLY, error, handle) + answer
            if kind == _READ and touches(self._stuck) and self._delay() > 0:
                self.held += 1
                timer = threading.Timer(self._delay(), self._send, [connection, message])
                timer.daemon = True
                timer.start()
            else:
                self._send(connection, message)

    def _delay(self) -> float:
        """How long the stuck range is going to be so."""
        now = time.monotonic()
        if self._free_at is None:
            self._free_at = now + self._stuck_for
        return self._free_at - now

    def _send(self, connection: socket.socket, message: bytes) -> None:
        try:
            with self._send_lock:
                connection.sendall(message)
        except OSError:
            pass
