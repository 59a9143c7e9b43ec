# SPDX-License-Identifier: BSD-2-Clause-Patent
"""./baton audit as its users run it."""

import json
import subprocess
from pathlib import Path
from typing import Any

from lab.paths import TOP

Report = dict[str, Any]


def baton_audit(target: Path, *words: str | Path) -> tuple[int, Report]:
    """Exit status and report. Half of the memory of an audit as it comes is filled in half of the
    time, and as good a witness."""
    run = subprocess.run([TOP / "baton", "audit", "--memory", "256", "--json", target, *words],
                         capture_output=True, text=True)
    print(run.stdout, run.stderr)  # pytest shows them for a test that fails
    return run.returncode, json.loads(target.read_text()) if target.exists() else {}


def verdicts(report: Report) -> dict[tuple[str, str], str]:
    """What was said of whom, by name and rule."""
    return {(str(each["name"]), str(each["rule"])): str(each["verdict"])
            for each in report["verdicts"]}


def failed(report: Report) -> set[tuple[str, str]]:
    """Who broke what."""
    return {key for key, verdict in verdicts(report).items() if verdict == "fail"}


def drivers_of(report: Report, place: str) -> list[str]:
    """Names of the images that drive a device."""
    names = {image["image"]: str(image["name"]) for image in report["images"]}
    return [names[image] for device in report["devices"] if device["device"] == place
            for image in device["drivers"]]
