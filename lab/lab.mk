# SPDX-License-Identifier: BSD-2-Clause-Patent

LAB_EFI := $(BUILD)/lab/whose.efi

$(BUILD)/lab/whose.efi: $(addprefix $(BUILD)/efi/lab/efi/,whose.o next.o driver.o app.o)
	@mkdir -p $(@D)
	$(EFI_LINK_APP)

# The lab's EFI programs, without which ./baton cannot tell whose driver it was.
.PHONY: lab
lab: $(LAB_EFI)

# Debian packages that the project needs; quick and silent where they are there.
.PHONY: deps
deps:
	@lab/install

# In a make of its own, because what this one found out when it started (which tools there are,
# which files) may be out of date once packages have been installed.
.PHONY: run
run: deps
	@$(MAKE) --no-print-directory -s all lab
	@./baton run $(RUN)
