# SPDX-License-Identifier: BSD-2-Clause-Patent
# The PC-BIOS image: the 32-bit part, and the ROM that carries it into high memory.

BIOS_SRC := $(wildcard bios/*.c)
# INT 13h has one request at a time, and memory that nobody else gets is dear. And a system that takes a
# Xen disk over writes its own keys over those that it finds, but none for a ring of one page that
# would undo ring-page-order: the backend would go on to take the old pages for the ring.
BIOS_LIMITS := -DPIECES_MAX=2u -DRING_SLOTS_MAX=2u -DPIECE_LOOK_MS=20 -DGRANT_FRAMES_MAX=1u \
	-DBLKFRONT_KEPT_PAGES=0u -DFRONT_RING_PAGES=1u -DSCSI_DISK_COMMANDS=2u \
	-DSCAN_PROBES=2u -DSCAN_LONG_LIST_UNITS=1024u -DSCAN_UNITS_MAX=256u
BIOS_CC := gcc -m32 -march=i686
BIOS_CFLAGS := -std=c11 -Os $(WARN) -ffreestanding -fno-stack-protector -fno-pic -fvisibility=hidden \
	-fno-asynchronous-unwind-tables -mpreferred-stack-boundary=2 -mregparm=3 -mgeneral-regs-only \
	-ffunction-sections -fdata-sections $(BIOS_LIMITS) -I. \
	-idirafter /usr/include -idirafter /usr/include/x86_64-linux-gnu
BIOS_AS := clang --target=i386-unknown-none-elf
BIOS_OBJ := $(patsubst %.c,$(BUILD)/%.bios.o,$(BIOS_SRC) $(CORE_SRC) $(CORE_SCSI_DISK_SRC) $(CORE_X86_SRC)) \
	$(BUILD)/bios/high.bios.o

$(BUILD)/%.bios.o: %.c bios/bios.mk
	@mkdir -p $(@D)
	$(BIOS_CC) $(BIOS_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/bios/high.bios.o: bios/high.S
	@mkdir -p $(@D)
	$(BIOS_AS) -I. -MMD -MP -c -o $@ $<

# Linked at 0; the relocations go along, for rom.S to apply.
$(BUILD)/bios/high.elf: bios/high.lds $(BIOS_OBJ)
	ld.lld -pie -z notext --no-dynamic-linker --hash-style=sysv --gc-sections -e 0 -u entered -T $^ -o $@

$(BUILD)/bios/high.bin: $(BUILD)/bios/high.elf
	objcopy -O binary -j .head -j .text -j .rodata -j .data $< $@

$(BUILD)/bios/high.rel: bios/relocations $(BUILD)/bios/high.elf
	objcopy -O binary -j .rel.dyn $(BUILD)/bios/high.elf $@.elf
	bios/relocations $@.elf $@

$(BUILD)/bios/rom.o: bios/rom.S $(BUILD)/bios/high.bin $(BUILD)/bios/high.rel
	$(BIOS_AS) -I. -DHIGH='"$(BUILD)/bios/high.bin"' -DRELOCATIONS='"$(BUILD)/bios/high.rel"' \
		-MMD -MP -c -o $@ $<

$(BUILD)/bios/rom.elf: $(BUILD)/bios/rom.o
	ld.lld -Ttext=0 -e 0 --section-start=.rom=0 -o $@ $<

$(BUILD)/bios/rom.bin: $(BUILD)/bios/rom.elf
	objcopy -O binary -j .rom $< $@
