# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The Xen host that all tests share, and progress for tests that take a while each: the verdict
comes with the time."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared import WatchedXen

from lab.progress import Progress

# What both kinds of machines are given.
sys.path.append(str(Path(__file__).resolve().parents[1] / "vm"))


@pytest.fixture(name="xen", scope="session")
def fixture_xen() -> Iterator[WatchedXen]:
    xen = WatchedXen(Progress())
    try:
        yield xen
        xen.power_off()
    finally:
        xen.end()


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    if report.when != "call" or report.outcome not in ("passed", "failed"):
        return None
    letter = "." if report.outcome == "passed" else "F"
    return report.outcome, letter, f"{report.outcome.upper()} {report.duration:.1f} s"
