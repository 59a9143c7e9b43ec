# SPDX-License-Identifier: BSD-2-Clause-Patent
# The system that calls a PC BIOS for as long as it lives (see tests/real/real.h), as the beginning
# of a disk.

REAL_BUILD := $(BUILD)/tests/real
REAL_TARGET := --target=i386-unknown-none-elf
REAL_CFLAGS := -std=c11 -O2 $(WARN) -ffreestanding -fno-pic -fno-stack-protector -fno-strict-aliasing \
	-fno-delete-null-pointer-checks -fno-asynchronous-unwind-tables -mgeneral-regs-only -march=i486 -I.
REAL_OBJ := $(patsubst %.S,$(REAL_BUILD)/%.o,boot.S start.S) \
	$(patsubst tests/real/%.c,$(REAL_BUILD)/%.o,$(sort $(wildcard tests/real/*.c))) \
	$(REAL_BUILD)/memory_functions.o

$(REAL_BUILD)/%.o: tests/real/%.S
	@mkdir -p $(@D)
	clang $(REAL_TARGET) -Wa,--fatal-warnings -MMD -MP -c -o $@ $<

$(REAL_BUILD)/%.o: tests/real/%.c
	@mkdir -p $(@D)
	clang $(REAL_TARGET) $(REAL_CFLAGS) -MMD -MP -c -o $@ $<

# What the compiler takes for granted.
$(REAL_BUILD)/memory_functions.o: core/x86/memory.c
	@mkdir -p $(@D)
	clang $(REAL_TARGET) $(REAL_CFLAGS) -MMD -MP -c -o $@ $<

$(REAL_BUILD)/real.elf: tests/real/real.ld $(REAL_OBJ)
	ld.lld -m elf_i386 -nostdlib -static --orphan-handling=error -T $< -e boot -o $@ $(REAL_OBJ)

$(REAL_BUILD)/real.img: $(REAL_BUILD)/real.elf
	objcopy -O binary $< $@

# What looks at its pattern from within the Linux that it starts.
$(REAL_BUILD)/watch: tests/real/linux/watch.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -static -MMD -MP -o $@ $<

.PHONY: real
real: $(REAL_BUILD)/real.img $(REAL_BUILD)/watch
