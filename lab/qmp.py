# SPDX-License-Identifier: BSD-2-Clause-Patent
"""QEMU's monitor protocol, as much of it as the lab needs, over a connected socket."""

import json
import select
import socket
import time
from collections.abc import Mapping
from typing import Any

from lab.errors import LabError


class Qmp:
    """One connection. Events that arrive are kept in `events`."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._text = b""
        self._open = True
        self.events: list[dict[str, Any]] = []
        self._replies: list[dict[str, Any]] = []

    @property
    def open(self) -> bool:
        """Whether QEMU is there, as far as is known."""
        return self._open

    def pump(self, seconds: float) -> None:
        """Take what has arrived; wait for it for so long at most."""
        if not self._open:
            time.sleep(seconds)
            return
        if not select.select([self._socket], [], [], seconds)[0]:
            return
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self._open = bool(data)
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "event" in message:
                self.events.append(message)
            elif "QMP" not in message:
                self._replies.append(message)

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None,
                seconds: float = 10) -> Any:
        """Run a command and give what it returns."""
        request = {"execute": command, "arguments": dict(arguments or {})}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            self._open = False
            raise LabError(f"QEMU is gone ({command} could not be sent)") from error
        end = time.monotonic() + seconds
        while not self._replies:
            if not self._open or time.monotonic() > end:
                raise LabError(f"QEMU does not answer {command}")
            self.pump(0.1)
        reply = self._replies.pop(0)
        if "error" in reply:
            raise LabError(f"QEMU refuses {command}: {reply['error'].get('desc')}")
        return reply["return"]

    def shutdown_reason(self) -> str | None:
        """Why the machine went down, if it says so: guest-shutdown, guest-reset, …"""
        for event in self.events:
            if event["event"] == "SHUTDOWN":
                return str(event["data"]["reason"])
        return None
