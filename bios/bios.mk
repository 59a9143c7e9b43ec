# SPDX-License-Identifier: BSD-2-Clause-Patent
# The PC-BIOS image: the 32-bit part, and the ROM that carries it into high memory.

BIOS_SRC := $(wildcard bios/*.c)
BIOS_CC := clang --target=i386-unknown-none-elf
# INT 13h has one request at a time, and memory that nobody else gets is dear.
BIOS_LIMITS := -DPIECES_MAX=2u -DRING_SLOTS_MAX=2u -DPIECE_LOOK_MS=20 -DGRANT_FRAMES_MAX=1u \
	-DBLKFRONT_KEPT_PAGES=0u
BIOS_CFLAGS := -std=c11 -Os $(WARN) -ffreestanding -fno-stack-protector -fno-pic -fvisibility=hidden \
	$(BIOS_LIMITS) -mgeneral-regs-only -mno-80387 -ffunction-sections -fdata-sections -I. \
	-idirafter /usr/include -idirafter /usr/include/x86_64-linux-gnu
BIOS_OBJ := $(patsubst %.c,$(BUILD)/%.bios.o,$(BIOS_SRC) $(CORE_SRC) $(CORE_X86_SRC)) \
	$(BUILD)/bios/high.bios.o

$(BUILD)/%.bios.o: %.c
	@mkdir -p $(@D)
	$(BIOS_CC) $(BIOS_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/bios/high.bios.o: bios/high.S
	@mkdir -p $(@D)
	$(BIOS_CC) -I. -MMD -MP -c -o $@ $<

# Linked at 0; the relocations go along, for rom.S to apply.
$(BUILD)/bios/high.elf: bios/high.lds $(BIOS_OBJ)
	ld.lld -pie -z notext --no-dynamic-linker --hash-style=sysv --gc-sections -e 0 -u entered -T $^ -o $@

$(BUILD)/bios/high.bin: $(BUILD)/bios/high.elf
	objcopy -O binary -j .head -j .text -j .rodata -j .data -j .rel.dyn $< $@

$(BUILD)/bios/rom.o: bios/rom.S $(BUILD)/bios/high.bin
	$(BIOS_CC) -I. -DHIGH_IMAGE_FILE='"$(BUILD)/bios/high.bin"' -MMD -MP -c -o $@ $<

$(BUILD)/bios/rom.elf: $(BUILD)/bios/rom.o
	ld.lld -Ttext=0 -e 0 --section-start=.rom=0 -o $@ $<

$(BUILD)/bios/rom.bin: $(BUILD)/bios/rom.elf
	objcopy -O binary -j .rom $< $@
