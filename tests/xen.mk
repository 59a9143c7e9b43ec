# SPDX-License-Identifier: BSD-2-Clause-Patent
# Tests on a real Xen, which runs in QEMU: guests that boot from paravirtual disks, and the auditor
# in them, and the EFI programs of tests/vm. One boot of Xen serves many guests.
#
#   make test-xen            what `make test` runs: Block I/O, Debian from PV disks, and the auditor
#   make test-xen-all        all of them: also each kind of exit, twenty in a row, hot plug, broken
#                            builds; three quarters of an hour more
#   make test-xen-all XEN=WORDS  only what pytest's -k WORDS picks

XEN_SHORT := tests/xen/test_io.py tests/xen/test_run.py tests/xen/test_audit.py
XEN_PYTEST := /usr/bin/python3 -m pytest -v --no-header --tb=short

.PHONY: test-xen test-xen-all
test-xen: all lab audit vm-programs
	@$(XEN_PYTEST) $(XEN_SHORT)

test-xen-all: all lab audit vm-programs
	@$(XEN_PYTEST) tests/xen $(if $(XEN),-k '$(XEN)')
