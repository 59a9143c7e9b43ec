# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The audit: any firmware, its drivers and some devices, held to the contract of the hand-over."""
