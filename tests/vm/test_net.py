# SPDX-License-Identifier: BSD-2-Clause-Patent
"""virtio-net under stock OVMF: the Simple Network Protocol in every state, and its exit."""

from contextlib import ExitStack

import pytest
from peer import Peer
from support import PROGRAMS, ROM, must_pass, said
from lab.paths import shown
from lab.qemu import TRANSPORTS, Machine, Result, Transport, quoted, run

ALL: tuple[Transport, ...] = ("modern", "legacy", "transitional")


def run_net(options: str, transports: tuple[Transport, ...] = ALL, *, machine: str = "q35",
            properties: str = "", timeout: float = 240) -> tuple[Result, list[Peer]]:
    """A machine with one card for each transport, each with a peer of its own."""
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(number)) for number in range(len(transports))]
        words: list[str] = []
        for number, (peer, transport) in enumerate(zip(peers, transports, strict=True)):
            words += peer.words
            words += ["-device", f"virtio-net-pci,id={peer.card},netdev={peer.netdev},"
                      f"mac=52:54:00:00:00:{number + 1:02x},addr={4 + number:#x},"
                      f"romfile={quoted(ROM)},{TRANSPORTS[transport]}{properties}"]
        result = run(Machine(
            machine=machine, kernel=PROGRAMS / "net.efi", trace_events=(), extra=words,
            append=f"exit=debug nics={len(transports)} {options}",
            pass_fds=[fd.fileno() for peer in peers for fd in peer.fds]),
            timeout=timeout, name=shown(PROGRAMS / "net.efi"))
    print(result.explain(60))
    return result, peers


def test_protocol() -> None:
    """Every call in every state, every parameter, frames of every size, every filter."""
    result, _ = run_net("states frames filters link faults")
    must_pass(result)
    paths = said(result, r"interface at (.*)")
    assert [path[1] for path in paths] == [
        f"PciRoot(0x0)/Pci(0x{4 + number:X},0x0)/MAC(52540000000{number + 1},0x1)"
        for number in range(len(ALL))]


def test_many() -> None:
    """Nothing is lost in 10,000 cycles, nor by 1,000 starts and stops."""
    result, _ = run_net("echo=10000 cycles=1000")
    must_pass(result)
    assert len(said(result, r"10000 there, 10000 given back, 10000 came back")) == len(ALL)
    assert len(said(result, r"1000 times up and down")) == len(ALL)


def test_small_queues() -> None:
    """The smallest queues that QEMU makes, without event indices."""
    result, _ = run_net("states frames echo=2000", machine="pc",
                        properties=",rx_queue_size=256,tx_queue_size=256,event_idx=off,"
                                   "indirect_desc=off,any_layout=off,mrg_rxbuf=off")
    must_pass(result)


@pytest.mark.parametrize("options", ["as=running", "as=running early", "as=each early"])
def test_exit(options: str) -> None:
    """Frames come in as fast as they can, before the exit, during it and after it."""
    result, peers = run_net(f"leave {options}")
    must_pass(result)
    assert said(result, r"(\d+) pages watched, 0 changed")
    assert all(peer.flooded > 100 for number, peer in enumerate(peers)
               if "running" in options or number % 3 == 2)
