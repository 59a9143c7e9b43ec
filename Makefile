# SPDX-License-Identifier: BSD-2-Clause-Patent
#
#   make            baton.efi, baton.rom and handover.efi
#   make run        install what is missing, build, boot Debian from a virtio-blk disk, report
#   make test       install what is missing, run every test
#   make bench      Baton against other drivers, side by side

BUILD := build
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:

WARN := -Wall -Wextra -Wconversion -Werror
CFLAGS := -std=c11 -O2 -g $(WARN)

# Firmware code: a PE32+ target, no C library, no red zone (interrupts run on our stack), and no
# stack probes (nobody supplies __chkstk).
EFI_CC := clang --target=x86_64-unknown-windows
EFI_LD := lld-link
EFI_CFLAGS := -std=c11 -O2 $(WARN) -ffreestanding -fshort-wchar -fno-stack-protector \
	-mno-red-zone -mno-stack-arg-probe -mgeneral-regs-only -ffunction-sections -I. \
	-isystem /usr/include/efi -isystem /usr/include/efi/x86_64 \
	-idirafter /usr/include -idirafter /usr/include/x86_64-linux-gnu
EFI_LDFLAGS := /nodefaultlib /entry:efi_main /dynamicbase /nxcompat /opt:ref \
	/opt:noicf /timestamp:0

# Any C file of ours, compiled for firmware: build/efi/<path>.o
$(BUILD)/efi/%.o: %.c
	@mkdir -p $(@D)
	$(EFI_CC) $(EFI_CFLAGS) -MMD -MP -c -o $@ $<

# An application: list its objects as prerequisites of build/<path>.efi.
EFI_LINK_APP = $(EFI_LD) $(EFI_LDFLAGS) /subsystem:efi_application /out:$@ $(filter %.o,$^)

include $(wildcard core/*.mk uefi/*.mk bios/*.mk rom/*.mk audit/*.mk lab/*.mk tests/*.mk bench/*.mk)

.PHONY: all
all: $(addprefix $(BUILD)/,baton.efi baton.rom baton-bios.rom audit/handover.efi)

.PHONY: clean
clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
