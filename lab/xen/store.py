# SPDX-License-Identifier: BSD-2-Clause-Patent
"""XenStore as its daemon saw it: every message of a run, in one order, with its answer.

xenstored writes each message that it receives and sends into a trace file (its option -T, or
`xenstore-control logfile` and `log on` later). As it does one thing after another, that file is a
total order of all that guests, dom0's kernel and the tools said to each other. So who had a disk
when, and what was left behind, is not guessed from snapshots.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Message:
    """A request, and the answer to it."""

    index: int
    """Its place in the order: the number of its line."""
    clock: int
    """Seconds since the trace began, by dom0's clock; it tells no less."""
    domain: int | None
    """Whose connection it came by; 0 for everything in dom0, None where the trace does not show the
    connection's beginning."""
    connection: int
    """Which of all connections that was, counted from 1."""
    kind: str
    """"READ", "WRITE", "WATCH", …"""
    text: str
    """Its contents. The zeros that end strings are spaces here."""
    answered: int | None = None
    """The answer's place in the order."""
    answer: str = ""
    error: str = ""
    """"ENOENT" and the like, if the answer is one."""
    transaction: bool = False
    """Whether the connection had a transaction open, which the message most likely belongs to."""

    @property
    def good(self) -> bool:
        return self.answered is not None and not self.error

    @property
    def path(self) -> str:
        """The node that it is about, from the root on."""
        return absolute(self.text.split(" ")[0], self.domain)

    @property
    def value(self) -> str:
        """What follows the path: the value written, the watch's token."""
        return self.text.partition(" ")[2]

    def __str__(self) -> str:
        return f"{self.kind} {self.text.strip()}".strip()


@dataclass(frozen=True, slots=True)
class Change:
    """A node that was written (to this value) or removed (None, with all below it)."""

    index: int
    clock: int
    domain: int | None
    path: str
    value: str | None


@dataclass
class Store:
    """A whole trace."""

    messages: list[Message] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    """In the order in which they took effect: those of a transaction at its end."""
    events: list[Message] = field(default_factory=list)
    """Watch events, as the daemon sent them: `domain` is whom they were sent to."""
    introduced: dict[int, int] = field(default_factory=dict)
    """Where in the order each domain's connection begins."""

    def of(self, domain: int) -> Iterator[Message]:
        """A domain's requests."""
        return (message for message in self.messages if message.domain == domain)

    def replay(self, nodes: Mapping[str, str], start: int, end: int | None) -> dict[str, str]:
        """What was in the store before line `end`, if `nodes` is what was there before `start`."""
        there = dict(nodes)
        for change in self.changes:
            if change.index < start or end is not None and change.index >= end:
                continue
            if change.value is not None:
                there[change.path] = change.value
            else:
                for path in [path for path in there if path == change.path
                             or path.startswith(f"{change.path}/")]:
                    del there[path]
        return there


def absolute(path: str, domain: int | None) -> str:
    """A path from the root on: one that does not begin there is the speaker's own."""
    return path if path.startswith(("/", "@")) else f"/local/domain/{domain}/{path}"


_LINE = re.compile(r"(IN|OUT) (0x[0-9a-f]+) (\d{8}) (\d\d):(\d\d):(\d\d) (\w+) \((.*)\)", re.DOTALL)
_CONNECTION = re.compile(r"(CREATE|DESTROY) connection (0x[0-9a-f]+)")
# What else xenstored notes down, each at the beginning of a line.
_OTHER = re.compile(r"(CREATE|DESTROY) |wrl: |\*\*\*$|TRACE|Connecting |$")
_DAY = 24 * 3600


@dataclass
class _Connection:
    number: int
    domain: int | None
    waiting: list[Message] = field(default_factory=list)
    transactions: int = 0
    changes: list[Change] = field(default_factory=list)
    """Those that wait for the end of a transaction."""


class _Parser:
    def __init__(self, own: int | None) -> None:
        self.store = Store()
        self._own = own
        self._connections: dict[str, _Connection] = {}
        self._count = 0
        self._introducing: int | None = None
        self._first: int | None = None
        self._told: dict[str, int] = {}  # of a node's change: when the last was sent
        self._index = 0

    def line(self, line: str) -> None:
        self._index += 1
        if at := _CONNECTION.match(line):
            self._connection(at[1] == "CREATE", at[2])
        elif at := _LINE.fullmatch(line):
            second = int(at[4]) * 3600 + int(at[5]) * 60 + int(at[6])
            self._first = second if self._first is None else self._first
            clock = (second - self._first) % _DAY
            connection = self._connections.get(at[2])
            if connection is None:
                # Older than the trace. dom0's kernel and its daemons are; guests are not.
                connection = self._open(at[2], self._own)
            if at[1] == "IN":
                self._request(connection, clock, at[7], at[8])
            else:
                self._answer(connection, clock, at[7], at[8])

    def _open(self, pointer: str, domain: int | None) -> _Connection:
        self._count += 1
        self._connections[pointer] = _Connection(self._count, domain)
        return self._connections[pointer]

    def _connection(self, begins: bool, pointer: str) -> None:
        if not begins:
            self._connections.pop(pointer, None)
            return
        domain, self._introducing = self._introducing, None
        self._open(pointer, 0 if domain is None else domain)
        if domain is not None:
            self.store.introduced[domain] = self._index

    def _request(self, connection: _Connection, clock: int, kind: str, text: str) -> None:
        message = Message(self._index, clock, connection.domain, connection.number, kind,
                          # Values are not terminated; all else is.
                          text if kind == "WRITE" else text.removesuffix(" "))
        message.transaction = connection.transactions > 0
        connection.waiting.append(message)
        self.store.messages.append(message)
        if kind == "INTRODUCE" and connection.domain == 0 and (found := re.match(r"\d+", text)):
            self._introducing = int(found[0])

    def _answer(self, connection: _Connection, clock: int, kind: str, text: str) -> None:
        if kind == "WATCH_EVENT":
            self._told[absolute(text.split(" ")[0], connection.domain)] = self._index
            self.store.events.append(Message(self._index, clock, connection.domain,
                                             connection.number, kind, text.removesuffix(" ")))
            return
        if not connection.waiting:
            return
        message = connection.waiting.pop(0)
        message.answered = self._index
        if kind == "ERROR":
            message.error = text.strip()
        else:
            message.answer = text
        self._effect(connection, message)

    def _effect(self, connection: _Connection, message: Message) -> None:
        kind = message.kind
        if kind == "INTRODUCE":
            self._introducing = None
        elif kind == "TRANSACTION_START" and message.good:
            connection.transactions += 1
        elif kind == "TRANSACTION_END":
            # A connection may have several open, and the trace does not say which of them a message
            # is part of. The last one's end settles what is left.
            connection.transactions = max(0, connection.transactions - 1)
            done, connection.changes = connection.changes, []
            if message.good and message.text.startswith("T"):
                self.store.changes += [Change(message.index, message.clock, each.domain, each.path,
                                              each.value) for each in done]
            else:
                # Linux has several at work, and one writes while another has a transaction open:
                # what others were told of at once was not part of it.
                self.store.changes += [each for each in done
                                       if self._told.get(each.path, -1) > each.index]
        elif kind in ("WRITE", "MKDIR", "RM") and message.good:
            change = Change(message.index, message.clock, message.domain, message.path,
                            None if kind == "RM" else message.value if kind == "WRITE" else "")
            if message.transaction and connection.transactions:
                connection.changes.append(change)
            else:
                self.store.changes.append(change)


def parse(text: str, own: int | None = 0) -> Store:
    """Read a trace. `own` is whose the connections are that are older than it."""
    parser = _Parser(own)
    for line in _whole_lines(text):
        parser.line(line)
    # An answer may be sent when another connection's request has been taken already; stable, so
    # that what one transaction has done stays in its order.
    parser.store.changes.sort(key=lambda change: change.index)
    return parser.store


def _whole_lines(text: str) -> Iterable[str]:
    """Lines, where a value that has line breaks in it does not make it several."""
    pending = ""
    for line in text.split("\n"):
        if pending:
            pending += f"\n{line}"
        elif line.startswith(("IN 0x", "OUT 0x")):
            pending = line
        else:
            yield line
            continue
        if pending.endswith(")"):
            yield pending
            pending = ""
    # What is left has been cut off in the middle, and says nothing that can be believed.
