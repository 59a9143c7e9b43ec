#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Stands in for QEMU in the lab's own tests: same arguments, same monitor, same logs, no machine.

What it plays comes from the environment: FAKE_QEMU is a list of JSON objects, one for each start
(the last for all further ones), FAKE_QEMU_COUNT a file that counts the starts.
"""

import json
import os
import re
import socket
import sys
import time
from pathlib import Path


def main() -> None:
    words = " ".join(sys.argv[1:])
    count = Path(os.environ["FAKE_QEMU_COUNT"])
    starts = int(count.read_text()) if count.exists() else 0
    count.write_text(str(starts + 1))
    plays = json.loads(os.environ["FAKE_QEMU"])
    play = plays[min(starts, len(plays) - 1)]

    if "refuse" in play:
        print(play["refuse"], file=sys.stderr)
        sys.exit(1)

    for what, pattern in (("serial", r"logfile=(\S+)"), ("trace", r"file=(\S+/trace\.log)")):
        found = re.search(pattern, words)
        if found:
            Path(found[1]).write_text(play.get(what, ""))

    found = re.search(r"fd=(\d+)", words)
    assert found is not None
    monitor = socket.socket(fileno=int(found[1]))
    monitor.sendall(b'{"QMP": {}}\n')
    monitor.recv(4096)
    monitor.sendall(b'{"return": {}}\n')
    if "reason" in play:
        event = {"event": "SHUTDOWN", "data": {"guest": True, "reason": play["reason"]}}
        monitor.sendall(json.dumps(event).encode() + b"\n")
    if play.get("write"):
        drive = re.search(r"id=drive0,file=([^, ]+)", words)
        assert drive is not None
        with open(drive[1], "r+b") as file:
            file.seek(4096)
            file.write(b"something")
    time.sleep(play.get("sleep", 0))
    sys.stderr.write(play.get("said", ""))
    sys.stderr.flush()
    if "signal" in play:
        os.kill(os.getpid(), play["signal"])
    sys.exit(play.get("status", 0))


main()
