# SPDX-License-Identifier: BSD-2-Clause-Patent
"""virtio-net under stock OVMF: the Simple Network Protocol in every state, and its exit."""

import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
from netboot import Server
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


def boot(network: list[str], properties: str = "", *, fds: tuple[int, ...] = (),
         fw_cfg: dict[str, str] | None = None) -> Result:
    """A machine that has nothing to boot from but a card."""
    result = run(Machine(trace_events=(), fw_cfg=fw_cfg or {}, pass_fds=fds, extra=[
        *network, "-device", "virtio-net-pci,id=card0,netdev=net0,mac=52:54:00:00:00:01,addr=4,"
        f"bootindex=1,romfile={quoted(ROM)}{properties}"]), timeout=150, name="network boot")
    print(result.explain(60))
    must_pass(result)
    assert said(result, r"booted from PciRoot\(0x0\)/Pci\(0x4,0x0\)/MAC\(525400000001,0x1\)/.*")
    assert said(result, r"driver: Baton virtio-net driver")
    return result


@pytest.mark.parametrize("transport", ["modern", "legacy"])
def test_boot_over_ipv4(tmp_path: Path, transport: Transport) -> None:
    """OVMF's own PXE on top of Baton, from QEMU's TFTP server."""
    shutil.copy(PROGRAMS / "booted.efi", tmp_path)
    result = boot(["-netdev", f"user,id=net0,restrict=on,tftp={quoted(tmp_path)},"
                   "bootfile=booted.efi"], f",{TRANSPORTS[transport]}")
    assert said(result, r"over IPv4")


def test_boot_over_ipv6() -> None:
    with Server((PROGRAMS / "booted.efi").read_bytes()) as server:
        result = boot(server.words, fds=tuple(fd.fileno() for fd in server.fds),
                      fw_cfg={"opt/org.tianocore/IPv4PXESupport": "n"})
    print(server.seen)
    assert said(result, r"over IPv6")
    assert {"solicit", "request", "tftp booted.efi"} <= set(server.seen)
