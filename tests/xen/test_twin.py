# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Debian from a disk that has an emulated twin, which is left to the firmware's own driver: minutes, where
each word of the kernel and the initramfs comes through an emulated port. (That Baton leaves it alone,
test_drivers.py has as well.)"""

from shared import WatchedXen

from lab.xen.boot import Options, boot_on


def test_debian(xen: WatchedXen) -> None:
    """It boots from the emulated disk; then its own driver has the paravirtual one, which nobody had
    touched."""
    report = xen.run(lambda host: boot_on(host, Options(names=["hda"], write=1 << 20)))
    assert report.guest.ended and report.xen is not None
    assert report.firmware is not None
    assert not [device for device in report.hand_over.devices if device.driven]
    assert [problem for problem in report.problems if "not Baton" not in problem] == []
