# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Interrupting a Xen host that comes up. Before all tests that have one: it takes the lab's lock."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from lab.paths import TOP


def test_interrupt_leaves_no_machine() -> None:
    # A shell's job in the background has been told to ignore it, and so have its children.
    program = f"""
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {str(TOP)!r})
from lab.xen import XenHost
with XenHost() as xen:
    xen.shell("sleep 600", timeout=600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE,
                          text=True) as process:
        try:
            machine = _machine_of(process)
            time.sleep(2)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert said.rstrip().endswith("KeyboardInterrupt"), said
    assert not Path(f"/proc/{machine}").exists()


def _machine_of(process: "subprocess.Popen[str]") -> int:
    """The process of the QEMU that this process has started, once it has."""
    end = time.monotonic() + 900  # others may hold the lock
    while time.monotonic() < end:
        assert process.poll() is None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        for child in map(int, children.split()):
            try:
                if "qemu-system" in os.readlink(f"/proc/{child}/exe"):
                    return child
            except OSError:
                pass  # gone again
        time.sleep(0.1)
    raise AssertionError("no QEMU was started")
