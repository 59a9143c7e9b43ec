# SPDX-License-Identifier: BSD-2-Clause-Patent
# Tests on a real Xen, which runs in QEMU: guests that boot from paravirtual disks, and the auditor
# in them, and the EFI programs of tests/vm. One boot of Xen serves many guests.
#
#   make test-xen            all of them
#   make test-xen XEN=WORDS  only what pytest's -k WORDS picks

.PHONY: test-xen
test-xen: all lab audit vm-programs
	@/usr/bin/python3 -m pytest tests/xen -v --no-header --tb=short $(if $(XEN),-k '$(XEN)')
