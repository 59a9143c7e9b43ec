# SPDX-License-Identifier: BSD-2-Clause-Patent
# Tests in virtual machines: EFI programs that try Baton from inside, and pytest, which drives them
# and looks from outside. Beside them the lab's own tests, which need no machine.
#
#   make test-lab           what the lab makes of what it sees
#   make test-vm            all in virtual machines; a quarter of an hour
#   make test-vm VM=WORDS   only what pytest's -k WORDS picks
#   make test-broken-uefi   builds that break C1, C2, C4 and C8, and what catches them

VM_PROGRAMS := block booted exit faults lives net pattern scsi xen_exit xen_lives
VM_EFI := $(VM_PROGRAMS:%=$(BUILD)/tests/vm/%.efi)
VM_COMMON := $(addprefix $(BUILD)/efi/,tests/vm/vm.o tests/vm/spy.o tests/vm/after.o tests/vm/xen.o lab/efi/app.o lab/efi/driver.o \
	lab/efi/services.o)

$(VM_EFI): $(BUILD)/tests/vm/%.efi: $(BUILD)/efi/tests/vm/%.o $(VM_COMMON)
	@mkdir -p $(@D)
	$(EFI_LINK_APP)

.PHONY: vm-programs test-lab test-vm test-broken-uefi
vm-programs: $(VM_EFI)

test-lab: all lab
	@/usr/bin/python3 -m pytest tests/lab -v --no-header --tb=short

test-vm: all lab vm-programs real
	@/usr/bin/python3 -m pytest tests/vm -v --no-header --tb=short $(if $(VM),-k '$(VM)')

test-broken-uefi: all lab vm-programs real
	@/usr/bin/python3 tests/vm/broken.py
