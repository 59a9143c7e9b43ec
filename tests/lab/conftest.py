# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Lets the tests import the lab, from wherever pytest was started."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
