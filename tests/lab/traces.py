# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Traces as QEMU writes them, made up."""

from lab import trace
from lab.trace import Trace

VDEV = "0x55aa00001000"
PCI = "00:04.0"
KERNEL = "[    0.000000] Linux version 6.1.0-56-amd64 (debian)\n"


class Log:
    """Writes a trace log, a line for each call, a millisecond apart."""

    def __init__(self, kind: str = "virtio-blk-pci") -> None:
        self.kind = kind
        self.lines: list[str] = []
        self._now = 1_000_000_000.0

    def add(self, text: str, thread: int = 2) -> "Log":
        self._now += 0.001
        self.lines.append(f"{thread}@{self._now:.6f}:{text}")
        return self

    def power_on(self) -> "Log":
        self.add(f"virtio_set_status vdev {VDEV} val 0", 1)
        return self.add("runstate_set current_run_state 6 (prelaunch) new_state 9 (running)", 1)

    def serial(self, text: str) -> "Log":
        for char in text:
            self.add(f"serial_write write addr 0x00 val 0x{ord(char):02x}")
        return self

    def status(self, value: int, vdev: str = VDEV) -> "Log":
        return self.add(f"virtio_set_status vdev {vdev} val {value}")

    def config(self, offset: int, value: int, pci: str = PCI) -> "Log":
        return self.add(f"pci_cfg_write {self.kind} {pci} @0x{offset:x} <- 0x{value:x}")

    def command(self, value: int, status: int = 0, pci: str = PCI, vdev: str = VDEV) -> "Log":
        """A write to the PCI command register. Without bus mastering, QEMU sets the status."""
        self.config(4, value, pci)
        return self if value & 4 else self.status(status, vdev)

    def queue(self, vdev: str = VDEV, number: int = 0) -> str:
        """QEMU's pointer to a queue: those of a device are an array."""
        return f"0x{int(vdev, 16) + 0x800 + 0x98 * number:x}"

    def notify(self, vdev: str = VDEV, number: int = 0) -> "Log":
        return self.add(f"virtio_queue_notify vdev {vdev} n {number} vq {self.queue(vdev, number)}")

    def pop(self, vdev: str = VDEV, number: int = 0, token: str = "0xa", to_write: int = 1,
            to_read: int = 1) -> "Log":
        """A device takes a buffer from a queue."""
        return self.add(f"virtqueue_pop vq {self.queue(vdev, number)} elem {token} "
                        f"in_num {to_write} out_num {to_read}")

    def fill(self, vdev: str = VDEV, number: int = 0, token: str = "0xa", size: int = 1) -> "Log":
        """And is done with it."""
        return self.add(f"virtqueue_fill vq {self.queue(vdev, number)} elem {token} len {size} "
                        "idx 0")

    def send(self, vdev: str = VDEV) -> "Log":
        """A packet of the guest's, on a network interface."""
        return self.notify(vdev, 1).pop(vdev, 1, "0xb", 0, 2).fill(vdev, 1, "0xb", 0)

    def receive(self, vdev: str = VDEV) -> "Log":
        """A packet for the guest, on a network interface that has got a buffer for it."""
        return self.pop(vdev, 0, "0xc", 2, 0).fill(vdev, 0, "0xc", 76)

    def command_unit(self, code: int, lun: int = 0, vdev: str = VDEV) -> "Log":
        """A command for a unit of a SCSI controller."""
        self.notify(vdev, 2).pop(vdev, 2, "0xd")
        self.add(f"virtio_scsi_cmd_req virtio_scsi_cmd_req lun={lun} tag=0x0 cmd=0x{code:x}")
        return self.fill(vdev, 2, "0xd", 108)

    def take(self, token: str = "0xa", sector: int = 0, vdev: str = VDEV) -> "Log":
        self.notify(vdev).pop(vdev, token=token)
        return self.add(f"virtio_blk_handle_read vdev {vdev} req {token} sector {sector} "
                        "nsectors 8")

    def complete(self, token: str = "0xa", vdev: str = VDEV) -> "Log":
        self.fill(vdev, token=token)
        return self.add(f"virtio_blk_req_complete vdev {vdev} req {token} status 0")

    def read(self, vdev: str = VDEV) -> "Log":
        return self.take(vdev=vdev).complete(vdev=vdev)

    def firmware(self, pci: str = PCI, vdev: str = VDEV, reads: bool = True) -> "Log":
        """The bus is set up, a driver drives the device, the loader reads."""
        self.command(0, pci=pci, vdev=vdev).config(0x10, 0xFFFFFFFF, pci).config(0x10, 0x6000, pci)
        self.command(7, pci=pci)
        for value in (0, 1, 3, 11, 15):
            self.status(value, vdev)
        return self.read(vdev).read(vdev) if reads else self

    def let_go(self, pci: str = PCI, vdev: str = VDEV) -> "Log":
        """As Baton's exit does it."""
        return self.status(0, vdev).status(0, vdev).command(3, pci=pci, vdev=vdev)

    def pause(self, status: int = 15, state: str = "guest-panicked", vdev: str = VDEV) -> "Log":
        """The machine stops and goes on; QEMU tells the device each time what its status is."""
        for before, after in (("running", state), (state, "running")):
            self.add(f"runstate_set current_run_state 9 ({before}) new_state 4 ({after})", 1)
            self.add(f"virtio_set_status vdev {vdev} val {status}", 1)
        return self

    def linux(self, vdev: str = VDEV, pci: str = PCI, reads: bool = True) -> "Log":
        """The kernel sizes BARs and takes the device over."""
        self.config(0x10, 0xFFFFFFFF, pci).config(0x10, 0x6000, pci).command(7, pci=pci)
        for value in (0, 0, 1, 3, 11, 15):
            self.status(value, vdev)
        return self.read(vdev) if reads else self

    def parse(self) -> Trace:
        return trace.parse(self.lines)


def bios() -> Log:
    """A boot from a PC BIOS as it should be."""
    return Log().power_on().firmware().pause().serial(KERNEL).linux()


def clean() -> Log:
    """A boot as it should be."""
    return Log().power_on().firmware().serial("Loading\r\n\r").let_go().serial(KERNEL).linux()
