# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Guests on a real Xen: hypervisor, dom0 and tools from Debian, in QEMU, without root or KVM.

For a test that runs UEFI programs of ours in HVM guests:

    from lab.fat import boot_image
    from lab.xen import GuestConfig, XenHost, on_xen, run_guest

    def scenario(xen: XenHost) -> GuestResult:
        image = boot_image(tmp_path / "a.img", Path("build/hello.efi"), {"options": b"count=3"})
        xen.put(image, "/jobs/a.img")
        return run_guest(xen, GuestConfig(disks=["/jobs/a.img,raw,hda,w"]), until="^hello: end")

    result = on_xen(scenario, progress)
    assert result.lines("hello: "), result.explain()

One boot of Xen (some ten seconds) serves any number of guests (a few seconds each, and what the
firmware takes: stock OVMF starts a program after some ten). on_xen() begins the scenario anew where
QEMU breaks in the way that it is known to; so a scenario is short, and its guests' disks are put in
place by it. SharedXen keeps the host for more than one scenario.

Beside it: lab.xen.boot boots the lab's Debian or an image and judges the hand-over; lab.xen.audit runs
the auditor; lab.xen.disks has block devices, disks that stop, hotplug, and what dom0 has left;
lab.xen.store and lab.xen.judge read what xenstored wrote while XenHost.trace_store() was on.
"""

from lab.xen.guest import Guest, GuestConfig, GuestResult, parse_xenstore, run_guest
from lab.xen.host import Answer, Job, SharedXen, XenBroke, XenHost, on_xen

__all__ = ["Answer", "Guest", "GuestConfig", "GuestResult", "Job", "SharedXen", "XenBroke",
           "XenHost", "on_xen", "parse_xenstore", "run_guest"]
