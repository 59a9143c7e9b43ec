# SPDX-License-Identifier: BSD-2-Clause-Patent

$(BUILD)/bench/disk.efi: $(addprefix $(BUILD)/efi/,bench/disk.o lab/efi/driver.o lab/efi/next.o lab/efi/app.o)
	@mkdir -p $(@D)
	$(EFI_LINK_APP)

$(BUILD)/bench/net.efi: $(addprefix $(BUILD)/efi/,bench/net.o lab/efi/driver.o lab/efi/app.o)
	@mkdir -p $(@D)
	$(EFI_LINK_APP)

# The same reads by Linux's own driver, as a program that needs nothing of the guest's.
$(BUILD)/bench/linux: bench/linux.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -static -MMD -MP -o $@ $<

# Counted by the tests' model.
$(BUILD)/bench/xen-counts: $(UNIT_BUILD)/bench/xen_counts.o $(UNIT_XEN_SRC:%.c=$(UNIT_BUILD)/%.o)
	@mkdir -p $(@D)
	$(UNIT_CC) $(UNIT_SANITIZE) -o $@ $^ -lcmocka

# All of them; each can be had alone. BENCH is for options that all of them take: --rounds.
# Recursive makes, because a package that deps installs may be a tool that make has not found yet.
.PHONY: bench bench-disks bench-net bench-int13 bench-xen
bench: bench-disks bench-net bench-int13 bench-xen

bench-disks: deps
	@$(MAKE) --no-print-directory all $(BUILD)/bench/disk.efi
	@bench/run $(BENCH)
	@bench/run --on virtio-scsi $(BENCH)

bench-net: deps
	@$(MAKE) --no-print-directory all $(BUILD)/bench/net.efi
	@bench/net $(BENCH)

# On QEMU and on Xen, each turn a boot.
bench-int13: deps-test
	@$(MAKE) --no-print-directory all real
	@bench/int13 $(BENCH)

# Some minutes, for each round is a boot.
bench-xen: deps-test
	@$(MAKE) --no-print-directory all $(addprefix $(BUILD)/bench/,disk.efi linux xen-counts)
	@bench/xen $(BENCH)
