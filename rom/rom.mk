# SPDX-License-Identifier: BSD-2-Clause-Patent
# The program that packs images into the option ROM, and the ROM.

$(BUILD)/baton-pack: rom/pack.c
	@mkdir -p $(@D)
	gcc $(CFLAGS) -MMD -MP -o $@ $<

$(BUILD)/baton.rom: $(BUILD)/baton.efi $(BUILD)/bios/rom.bin $(BUILD)/baton-pack
	$(BUILD)/baton-pack -o $@ -b $(BUILD)/bios/rom.bin $(BUILD)/baton.efi

# For -option-rom: SeaBIOS has room for all of such a file below 1 MiB, or for none of it.
$(BUILD)/baton-bios.rom: $(BUILD)/bios/rom.bin $(BUILD)/baton-pack
	$(BUILD)/baton-pack -o $@ -b $(BUILD)/bios/rom.bin
