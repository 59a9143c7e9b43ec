# SPDX-License-Identifier: BSD-2-Clause-Patent
# Tests on a real Xen, which runs in QEMU: guests that boot from paravirtual disks, and the auditor
# in them, and the programs of tests/vm and tests/real. One boot of Xen serves them all.
#
#   make test-xen            what `make test` runs
#   make test-xen-all        also builds that are broken where only Xen can tell, and what takes minutes
#   make test-xen-all XEN=WORDS  only what pytest's -k WORDS picks

# In this order: what all of them have left is looked at in the end, beside what there was after the
# guests of io, which have disks of each kind.
XEN_TESTS := interrupt io host run bios int13 audit auditor exit drivers disks
XEN_PYTEST := /usr/bin/python3 -m pytest -v --no-header --tb=short

# OVMF reads all of a ROM four bytes at a time, in a guest each a way to QEMU and back. Where it is about
# the drivers alone, theirs has nothing else in it.
$(BUILD)/tests/xen/uefi.rom: $(BUILD)/baton.efi $(BUILD)/baton-pack
	@mkdir -p $(@D)
	$(BUILD)/baton-pack -o $@ $<

.PHONY: test-xen test-xen-all
test-xen test-xen-all: all lab audit vm-programs offenders real $(BUILD)/tests/xen/uefi.rom

test-xen:
	@$(XEN_PYTEST) $(patsubst %,tests/xen/test_%.py,$(XEN_TESTS) left)

test-xen-all:
	@$(XEN_PYTEST) $(patsubst %,tests/xen/test_%.py,$(XEN_TESTS) twin broken left) \
	    $(if $(XEN),-k '$(XEN)')
