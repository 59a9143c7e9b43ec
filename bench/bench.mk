# SPDX-License-Identifier: BSD-2-Clause-Patent

$(BUILD)/bench/disk.efi: $(addprefix $(BUILD)/efi/,bench/disk.o lab/efi/driver.o lab/efi/app.o)
	@mkdir -p $(@D)
	$(EFI_LINK_APP)

# A recursive make, because a package that deps installs may be a tool that make has not found yet.
.PHONY: bench
bench: deps
	@$(MAKE) --no-print-directory all $(BUILD)/bench/disk.efi
	@bench/run $(BENCH)
