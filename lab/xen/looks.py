# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What backends have mapped of a guest's memory, by Xen's own tables; and when that was, by a mark in
XenStore's trace."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lab.errors import LabError
from lab.xen.disks import grants_since
from lab.xen.host import XenHost

MARK = "/tool/baton/look"
"""The key in XenStore that is written at each look."""

_DUMP = re.compile(r"^\(XEN\) gnttab_usage_print_all \[.*?^\(XEN\) gnttab_usage_print_all \] done$\n?",
                   re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Look:
    """What was seen."""

    mark: str
    """What was written to MARK meanwhile."""
    between_calls: bool
    """Whether the firmware is known to have had nothing to do at that moment."""
    pages: Mapping[int, int]
    """The guest's frame behind each of its grants that somebody had mapped."""


def look(xen: XenHost, domain: int, mark: str, *, between_calls: bool) -> Look:
    """Look, while the guest does not run."""
    begin = len(xen.log)
    xen.check(f"""
xl pause {domain} || exit
xenstore-write {MARK} {mark} && xl debug-keys g && xenstore-rm {MARK.rpartition("/")[0]}
status=$?
xl unpause {domain} && exit $status
""", "looking at the guest's grants")
    return Look(mark, between_calls, mapped(grants_since(xen, begin), domain))


def mapped(log: str, domain: int) -> dict[int, int]:
    """The frames by grant reference, in what `xl debug-keys g` has Xen write of a domain:

    (XEN)       -------- active --------       -------- shared --------
    (XEN) [ref] localdom mfn      pin          localdom gmfn     flags
    (XEN) grant-table for remote d1 (v1)
    (XEN)   1 frames (64 max), 0 maptrack frames (1024 max)
    (XEN) [0x008]      0 0x203c6 0x00000001          0 0x01ffc6 0x19
    """
    found = re.search(rf"grant-table for remote d{domain} \(v\d\)$(.*?)(grant-table for remote|\] done)",
                      log, re.DOTALL | re.MULTILINE)
    if found is None:
        raise LabError(f"Xen does not show the grant table of domain {domain}")
    return {int(ref, 16): int(frame, 16) for ref, frame in re.findall(
        r"\[0x([0-9a-f]+)\] +\d+ +0x[0-9a-f]+ +0x[0-9a-f]+ +\d+ +0x([0-9a-f]+)", found[1])}


def without_dumps(log: str) -> str:
    """Xen's log without what it was asked to write there."""
    return _DUMP.sub("", log)
