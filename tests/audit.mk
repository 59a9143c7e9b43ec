# SPDX-License-Identifier: BSD-2-Clause-Patent
# The auditor's own tests: drivers that break one rule each, and what it has to say about them.
#
#   make test-audit               all of them; a quarter of an hour
#   make test-audit AUDIT=WORDS   only what pytest's -k WORDS picks

# Each is a driver of its own, made from the file of its kind with -DOFFENCE=its name.
OFFENDERS_BLK := innocent frees-pool frees-pool-last frees-pool-aside allocates-pages allocates-buffer \
	adds-memory-space disconnects closes-its-event arms-timer locates dawdles leaves-ring-live \
	leaves-read leaves-last-read leaves-master only-cuts-bus frees-live-ring stale-event \
	touches-dormant two-rules asks-little never-exits allocates-before spoils-first-key \
	crashes hangs
OFFENDERS_NET := net-innocent leaves-receive-queue
OFFENDERS_E1000 := e1000-innocent leaves-e1000 e1000-only-cuts-bus

OFFENDERS_BUILD := $(BUILD)/tests/audit
OFFENDERS := $(OFFENDERS_BLK) $(OFFENDERS_NET) $(OFFENDERS_E1000)
OFFENDERS_EFI := $(OFFENDERS:%=$(OFFENDERS_BUILD)/%.efi)

# Baton's image without its drivers, and with another entry point that goes through Baton's own.
OFFENDERS_COMMON := $(filter-out %/uefi/drivers.o,$(UEFI_OBJ))
OFFENDERS_CFLAGS = -DOFFENCE=$(shell echo '$*' | tr a-z- A-Z_) -DOFFENCE_NAME='L"$*"'

$(OFFENDERS_BUILD)/%.image.o: tests/audit/image.c
	@mkdir -p $(@D)
	$(EFI_CC) $(EFI_CFLAGS) $(OFFENDERS_CFLAGS) -MMD -MP -c -o $@ $<

define OFFENDERS_RULE
$(2:%=$(OFFENDERS_BUILD)/%.o): $(OFFENDERS_BUILD)/%.o: tests/audit/$(1).c
	@mkdir -p $$(@D)
	$$(EFI_CC) $$(EFI_CFLAGS) $$(OFFENDERS_CFLAGS) -MMD -MP -c -o $$@ $$<
endef
$(eval $(call OFFENDERS_RULE,blk,$(OFFENDERS_BLK)))
$(eval $(call OFFENDERS_RULE,virtio_net,$(OFFENDERS_NET)))
$(eval $(call OFFENDERS_RULE,e1000,$(OFFENDERS_E1000)))

OFFENDERS_RECEIVE := $(OFFENDERS_NET:%=$(OFFENDERS_BUILD)/%.efi) \
	$(OFFENDERS_E1000:%=$(OFFENDERS_BUILD)/%.efi)
$(OFFENDERS_RECEIVE): $(BUILD)/efi/tests/audit/receiver.o

$(OFFENDERS_EFI): %.efi: %.o %.image.o $(OFFENDERS_COMMON)
	$(EFI_LD) $(filter-out /entry:%,$(EFI_LDFLAGS)) /entry:offender_main \
	    /subsystem:efi_boot_service_driver /out:$@ $^

.PRECIOUS: $(OFFENDERS_BUILD)/%.o $(OFFENDERS_BUILD)/%.image.o

# Plays a firmware that leaves something behind on Xen, and looks at it as the auditor does.
XEN_LOOK := $(BUILD)/tests/vm/xen_look.efi
$(XEN_LOOK): $(BUILD)/efi/tests/vm/xen_look.o \
		$(filter-out %/main.o,$(AUDIT_SRC:%.c=$(BUILD)/efi/%.o)) \
		$(addprefix $(BUILD)/efi/lab/efi/,services.o driver.o app.o)
	@mkdir -p $(@D)
	$(EFI_LINK_APP)

.PHONY: offenders test-audit
offenders: $(OFFENDERS_EFI) $(XEN_LOOK)

test-audit: all lab audit offenders
	@/usr/bin/python3 -m pytest tests/audit -v --no-header --tb=short $(if $(AUDIT),-k '$(AUDIT)')
