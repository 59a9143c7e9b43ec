# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The lab: guest images, virtual machines, and the judgement of what they did."""
