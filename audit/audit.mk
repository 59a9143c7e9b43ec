# SPDX-License-Identifier: BSD-2-Clause-Patent

AUDIT_XEN_SRC := $(wildcard audit/xen/*.c)
AUDIT_SRC := $(wildcard audit/*.c) $(AUDIT_XEN_SRC)

$(BUILD)/audit/handover.efi: $(AUDIT_SRC:%.c=$(BUILD)/efi/%.o) \
		$(addprefix $(BUILD)/efi/lab/efi/,services.o driver.o app.o)
	@mkdir -p $(@D)
	$(EFI_LINK_APP)

.PHONY: audit
audit: $(BUILD)/audit/handover.efi
