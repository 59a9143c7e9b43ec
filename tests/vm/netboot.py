# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A server to boot from over IPv6, on the other end of one network card's wire: router
advertisements, neighbours, DHCPv6 and TFTP, of each as much as a firmware asks for.

QEMU's own network hands out no addresses over DHCPv6, without which UEFI's PXE does not begin.
"""

import itertools
import socket
import struct
from collections.abc import Iterator

from peer import Wire

MAC = bytes.fromhex("02ba70000006")
_PREFIX = bytes.fromhex("fd00ba70000000000000000000000000")
SERVER = _PREFIX[:15] + b"\x06"
CLIENT = _PREFIX[:14] + b"\x01\x05"
_LINK_LOCAL = bytes.fromhex("fe8000000000000000ba70fffe000006")
_ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
_SERVER_ID = struct.pack(">HH", 3, 1) + MAC  # DUID-LL: RFC 8415 §11.4

_IPV6, _UDP, _ICMPV6 = 0x86DD, 17, 58
_SOLICIT_ROUTER, _ADVERTISE_ROUTER, _SOLICIT, _ADVERTISE = 133, 134, 135, 136


def _checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _option(code: int, data: bytes) -> bytes:
    return struct.pack(">HH", code, len(data)) + data


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        code, length = struct.unpack(">HH", data[:4])
        yield code, data[4:4 + length]
        data = data[4 + length:]


class Server(Wire):
    """The server. `seen` tells what it was asked."""

    def __init__(self, file: bytes, netdev: str = "net0") -> None:
        super().__init__(netdev)
        self.seen: list[str] = []
        self._file = file
        self._downloads: dict[int, tuple[int, int]] = {}
        """By our port: the client's, and the size of a block."""
        self._ports = itertools.count(2000)

    def _run(self) -> None:
        while not self._done.is_set():
            try:
                frame = self.ours.recv(65536)
            except OSError:
                continue
            if len(frame) < 62 or frame[12:14] != struct.pack(">H", _IPV6):
                continue
            length, following = struct.unpack(">HB", frame[18:21])
            source, payload = frame[22:38], frame[54:54 + length]
            if following == _ICMPV6:
                self._neighbour(frame[6:12], source, payload)
            elif following == _UDP and len(payload) >= 8:
                ours, theirs = struct.unpack(">HH", payload[2:4] + payload[:2])
                self._udp(frame[6:12], source, ours, theirs, payload[8:])

    # ---- Below ----

    def _send(self, mac: bytes, source: bytes, to: bytes, following: int, payload: bytes,
              checksum_at: int) -> None:
        pseudo = source + to + struct.pack(">IxxxB", len(payload), following)
        total = _checksum(pseudo + payload) or 0xFFFF
        payload = payload[:checksum_at] + struct.pack(">H", total) + payload[checksum_at + 2:]
        head = struct.pack(">IHBB", 6 << 28, len(payload), following, 255) + source + to
        try:
            self.ours.send(mac + MAC + struct.pack(">H", _IPV6) + head + payload)
        except OSError:
            pass  # lost, as on any wire

    def _send_udp(self, mac: bytes, source: bytes, to: bytes, ours: int, theirs: int,
                  data: bytes) -> None:
        head = struct.pack(">HHHH", ours, theirs, 8 + len(data), 0)
        self._send(mac, source, to, _UDP, head + data, 6)

    def _neighbour(self, mac: bytes, source: bytes, message: bytes) -> None:
        ours = b"\x02\x01" + MAC
        if message[0] == _SOLICIT_ROUTER:
            self.seen.append("router")
            # Addresses are managed (M); the prefix is on this link, and not for making some (RFC
            # 4861 §4.2, §4.6.2).
            prefix = struct.pack(">BBBBIII", 3, 4, 64, 0x80, 86400, 14400, 0) + _PREFIX
            head = struct.pack(">BBHBBHII", _ADVERTISE_ROUTER, 0, 0, 64, 0x80, 1800, 0, 0)
            self._send(b"\x33\x33\0\0\0\x01", _LINK_LOCAL, _ALL_NODES, _ICMPV6,
                       head + ours.replace(b"\x02", b"\x01", 1) + prefix, 2)
        elif message[0] == _SOLICIT and message[8:24] in (SERVER, _LINK_LOCAL) and any(source):
            head = struct.pack(">BBHI", _ADVERTISE, 0, 0, 0xE0000000) + message[8:24]
            self._send(mac, message[8:24], source, _ICMPV6, head + ours, 2)

    # ---- Above ----

    def _udp(self, mac: bytes, source: bytes, ours: int, theirs: int, data: bytes) -> None:
        if ours == 547 and len(data) >= 4:
            self._dhcp(mac, source, data)
        elif ours == 69 and data[:2] == b"\0\x01":
            self._tftp_read(mac, source, theirs, data)
        elif ours in self._downloads and data[:2] == b"\0\x04":
            self._tftp_block(mac, source, ours, struct.unpack(">H", data[2:4])[0] + 1)

    def _dhcp(self, mac: bytes, source: bytes, data: bytes) -> None:
        """RFC 8415: Solicit is answered with Advertise, Request and Renew with Reply."""
        kind, options = data[0], dict(_options(data[4:]))
        if kind not in (1, 3, 5, 11) or 1 not in options:
            return
        self.seen.append({1: "solicit", 3: "request", 5: "renew", 11: "information"}[kind])
        answer = _option(1, options[1]) + _option(2, _SERVER_ID)
        if 3 in options:
            address = _option(5, CLIENT + struct.pack(">II", 7200, 14400))
            answer += _option(3, options[3][:4] + struct.pack(">II", 3600, 5400) + address)
        url = f"tftp://[{socket.inet_ntop(socket.AF_INET6, SERVER)}]/booted.efi"
        answer += _option(59, url.encode())  # RFC 5970 §3.1
        self._send_udp(mac, _LINK_LOCAL, source, 547, 546,
                       bytes([2 if kind == 1 else 7]) + data[1:4] + answer)

    def _tftp_read(self, mac: bytes, source: bytes, theirs: int, data: bytes) -> None:
        """RFC 1350, with the options of RFC 2347 to 2349."""
        name, _, *rest = data[2:].split(b"\0")
        asked = {key.lower(): value for key, value in zip(rest[::2], rest[1::2])}
        self.seen.append(f"tftp {name.decode()}")
        ours = next(self._ports)
        block = min(int(asked.get(b"blksize", b"512")), 1400)
        self._downloads[ours] = (theirs, block)
        agreed = b""
        if b"tsize" in asked:
            agreed += b"tsize\0" + str(len(self._file)).encode() + b"\0"
        if b"blksize" in asked:
            agreed += b"blksize\0" + str(block).encode() + b"\0"
        if agreed:
            self._send_udp(mac, SERVER, source, ours, theirs, b"\0\x06" + agreed)
        else:
            self._tftp_block(mac, source, ours, 1)

    def _tftp_block(self, mac: bytes, source: bytes, ours: int, number: int) -> None:
        theirs, block = self._downloads[ours]
        at = (number - 1) * block
        if at <= len(self._file):  # else that was the acknowledgement of the last
            self._send_udp(mac, SERVER, source, ours, theirs,
                           struct.pack(">HH", 3, number) + self._file[at:at + block])
