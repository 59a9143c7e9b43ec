# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What is running, and for how long: a ticking line on a terminal, else a line now and then."""

import io
import sys
import threading
import time
from types import TracebackType
from typing import TextIO

TICK_TERMINAL = 0.5
TICK_LOG = 10.0


class Step:
    """One piece of work. Use it with `with`; tell() says what it is busy with now."""

    def __init__(self, name: str, out: TextIO, terminal: bool) -> None:
        self._name = name
        self._detail = ""
        self._out = out
        self._terminal = terminal
        self._start = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def tell(self, detail: str) -> None:
        self._detail = detail

    def _line(self) -> str:
        detail = f": {self._detail}" if self._detail else ""
        return f"{self._name}{detail} ({self.seconds:.0f} s)"

    def _tick(self) -> None:
        while not self._done.wait(TICK_TERMINAL if self._terminal else TICK_LOG):
            if self._terminal:
                self._out.write(f"\r\x1b[K  {self._line()}")
            else:
                self._out.write(f"  … {self._line()}\n")
            self._out.flush()

    def __enter__(self) -> "Step":
        if not self._terminal:
            self._out.write(f"  {self._name}\n")
            self._out.flush()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        if self._terminal:
            self._out.write("\r\x1b[K")
            if kind is None:
                self._out.write(f"  {self._name}: {self.seconds:.1f} s\n")
        self._out.flush()


class Progress:
    """Hands out steps. `quiet` is for tests and for the interactive console."""

    def __init__(self, out: TextIO | None = None, quiet: bool = False) -> None:
        self._out = out if out is not None else sys.stderr
        self._quiet = quiet

    def step(self, name: str) -> Step:
        if self._quiet:
            return Step(name, _Nowhere(), False)
        return Step(name, self._out, self._out.isatty())

    def say(self, text: str) -> None:
        """One line that stays."""
        if not self._quiet:
            self._out.write(f"  {text}\n")
            self._out.flush()


class _Nowhere(io.StringIO):
    """A stream that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False
