# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The lab's own errors, each with one sentence that says what to do about it."""


class LabError(Exception):
    """The run could not be made: bad input, a missing tool. Exit status 2."""


class Interrupted(Exception):
    """Somebody asked us to stop. Exit status 130."""
