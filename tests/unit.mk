# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The drivers, INT 13h and the auditor's eyes on Xen, on the build machine, against models of the other
# side:
#
#   make test-unit     cmocka programs, address and undefined-behaviour sanitizers on
#   make test-fuzz     libFuzzer, a bounded number of runs from a fixed seed
#   make test-broken   builds that break a rule of the contract: the tests have to fail on them

UNIT_VIRTIO_KINDS := blk scsi net
UNIT_VIRTIO_SUITES := ring start exit faults $(patsubst tests/unit/test_%.c,%,$(sort \
	$(wildcard $(foreach kind,$(UNIT_VIRTIO_KINDS),tests/unit/test_$(kind).c tests/unit/test_$(kind)_*.c))))
UNIT_XEN_SUITES := xen_store xen_grants xen_start xen_blk xen_lies xen_exit xen_faults
UNIT_BIOS_SUITES := bios_drives bios_int13 bios_edd
UNIT_CC := gcc
UNIT_SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all
UNIT_CFLAGS := -std=c11 -O1 -g -fno-omit-frame-pointer $(WARN) $(UNIT_SANITIZE)
UNIT_BUILD := $(BUILD)/unit

# The drivers, the model of their other side, and what their suites share. All virtio suites are made
# of the same, whatever kind they are about, so that one that is for each kind has them all.
VIRTIO_MODEL := tests/model/dma.c $(sort $(wildcard tests/model/virtio_*.c))
XEN_MODEL := tests/model/dma.c tests/model/xen_host.c tests/model/xen_store.c \
	tests/model/xen_blkback.c
UNIT_VIRTIO_SRC := $(CORE_VIRTIO_SRC) $(CORE_SCSI_DISK_SRC) $(VIRTIO_MODEL) tests/unit/harness.c \
	tests/unit/one.c tests/unit/kinds.c $(UNIT_VIRTIO_KINDS:%=tests/unit/%_harness.c)
UNIT_XEN_SRC := $(CORE_XEN_SRC) $(XEN_MODEL) tests/unit/xen_harness.c tests/unit/one.c
# INT 13h needs no driver: the model has the disk, too.
BIOS_UNDER_TEST := bios/int13.c bios/drives.c core/disk.c tests/model/pc.c tests/model/dma.c
UNIT_BIOS_SRC := $(BIOS_UNDER_TEST) tests/unit/bios_harness.c tests/unit/one.c
UNIT_VIRTIO := $(UNIT_VIRTIO_SUITES:%=$(UNIT_BUILD)/test_%)
UNIT_XEN := $(UNIT_XEN_SUITES:%=$(UNIT_BUILD)/test_%)
# The start has all drivers, and the way to real mode is the model's.
BIOS_STARTS := $(filter-out bios/pci.c bios/arithmetic.c,$(BIOS_SRC)) $(CORE_SRC) \
	$(CORE_SCSI_DISK_SRC) tests/model/pc_bios.c
UNIT_BIOS_START_SRC := $(BIOS_STARTS) $(VIRTIO_MODEL) tests/unit/one.c
UNIT_BIOS := $(UNIT_BIOS_SUITES:%=$(UNIT_BUILD)/test_%)
UNIT_BIOS_START := $(UNIT_BUILD)/test_bios_start
UNIT_BIOS_START_XEN_SRC := tests/unit/one.c $(filter-out bios/virtio%,$(filter bios/%,$(BIOS_STARTS))) $(CORE_XEN_SRC) \
	tests/model/pc_bios.c $(XEN_MODEL)
UNIT_BIOS_START_XEN := $(UNIT_BUILD)/test_bios_start_xen

# The auditor's part, without the instructions by which it asks Xen: the test plays what they do.
UNIT_AUDIT := $(UNIT_BUILD)/test_audit_xen
UNIT_AUDIT_OBJ := $(patsubst %.c,$(UNIT_BUILD)/%.o,tests/unit/test_audit_xen.c \
	$(filter-out %/hypercall.c,$(AUDIT_XEN_SRC)))

UNIT_PROGRAMS := $(UNIT_VIRTIO) $(UNIT_XEN) $(UNIT_BIOS) $(UNIT_BIOS_START) \
	$(UNIT_BIOS_START_XEN) $(UNIT_AUDIT)

$(UNIT_BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(UNIT_CC) $(UNIT_CFLAGS) -I. -MMD -MP -c -o $@ $<

$(UNIT_VIRTIO): $(UNIT_VIRTIO_SRC:%.c=$(UNIT_BUILD)/%.o)
$(UNIT_XEN): $(UNIT_XEN_SRC:%.c=$(UNIT_BUILD)/%.o)
$(UNIT_BIOS): $(UNIT_BIOS_SRC:%.c=$(UNIT_BUILD)/%.o)
$(UNIT_BIOS_START): $(UNIT_BIOS_START_SRC:%.c=$(UNIT_BUILD)/%.o)
$(UNIT_BIOS_START_XEN): $(UNIT_BIOS_START_XEN_SRC:%.c=$(UNIT_BUILD)/%.o)
$(UNIT_VIRTIO) $(UNIT_XEN) $(UNIT_BIOS) $(UNIT_BIOS_START) $(UNIT_BIOS_START_XEN): $(UNIT_BUILD)/test_%: $(UNIT_BUILD)/tests/unit/test_%.o
	$(UNIT_CC) $(UNIT_SANITIZE) -o $@ $^ -lcmocka

$(UNIT_AUDIT_OBJ): UNIT_CFLAGS += -isystem /usr/include/efi -isystem /usr/include/efi/x86_64
$(UNIT_AUDIT): $(UNIT_AUDIT_OBJ)
	$(UNIT_CC) $(UNIT_SANITIZE) -o $@ $^ -lcmocka

.PHONY: unit-programs test-unit
unit-programs: $(UNIT_PROGRAMS)

# Every suite runs, also after one that failed.
test-unit: $(UNIT_PROGRAMS)
	@failed=; for program in $(UNIT_PROGRAMS); do $$program || failed="$$failed $$program"; done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed" >&2; exit 1; fi

# ---- The device as the attacker, and INT 13h's caller ----

FUZZ_BUILD := $(BUILD)/fuzz
FUZZ_RUNS ?= 20000
FUZZ_SECONDS ?= 30
FUZZ_CFLAGS := -std=c11 -O1 -g $(WARN) -fsanitize=fuzzer,address,undefined \
	-fno-sanitize-recover=all -I.
FUZZERS_VIRTIO := $(UNIT_VIRTIO_KINDS:%=virtio_%)
FUZZERS := $(FUZZERS_VIRTIO) xen int13
# What leads to new ground is what the driver does; the Xen host's own ways are many.
$(patsubst %.c,$(FUZZ_BUILD)/%.o,$(filter %xen_host.c %xen_store.c %xen_blkback.c,$(XEN_MODEL))): \
    FUZZ_CFLAGS := $(filter-out -fsanitize=%,$(FUZZ_CFLAGS)) -fsanitize=address,undefined

$(FUZZ_BUILD)/%.o: %.c
	@mkdir -p $(@D)
	clang $(FUZZ_CFLAGS) -MMD -MP -c -o $@ $<

$(FUZZERS_VIRTIO:%=$(FUZZ_BUILD)/%): $(FUZZ_BUILD)/%: $(FUZZ_BUILD)/tests/fuzz/%.o \
		$(FUZZ_BUILD)/tests/fuzz/virtio.o \
		$(patsubst %.c,$(FUZZ_BUILD)/%.o,$(CORE_VIRTIO_SRC) $(CORE_SCSI_DISK_SRC) $(VIRTIO_MODEL))
	clang $(FUZZ_CFLAGS) -o $@ $^

$(FUZZ_BUILD)/xen: $(patsubst %.c,$(FUZZ_BUILD)/%.o,$(CORE_XEN_SRC) $(XEN_MODEL) tests/fuzz/xen.c)
	clang $(FUZZ_CFLAGS) -o $@ $^

$(FUZZ_BUILD)/int13: $(patsubst %.c,$(FUZZ_BUILD)/%.o,$(BIOS_UNDER_TEST) tests/fuzz/int13.c)
	clang $(FUZZ_CFLAGS) -o $@ $^

.PHONY: test-fuzz $(FUZZERS:%=test-fuzz-%)
test-fuzz: $(FUZZERS:%=test-fuzz-%)

$(FUZZERS:%=test-fuzz-%): test-fuzz-%: $(FUZZ_BUILD)/%
	@$< -runs=$(FUZZ_RUNS) -max_total_time=$(FUZZ_SECONDS) -seed=1 -max_len=600 -len_control=0 \
	    -timeout=10 -artifact_prefix=$(FUZZ_BUILD)/$*- -print_final_stats=1 >$(FUZZ_BUILD)/$*.log \
	    2>&1 || { cat $(FUZZ_BUILD)/$*.log >&2; exit 1; }
	@runs=$$(sed -n 's/^stat::number_of_executed_units: *//p' $(FUZZ_BUILD)/$*.log); \
	    test "$${runs:-0}" -gt 1000 && echo "fuzz $*: $$runs runs, nothing found"

# ---- Builds that break the contract ----

.PHONY: test-broken
test-broken: $(UNIT_PROGRAMS)
	@CC='$(UNIT_CC)' CFLAGS='$(UNIT_CFLAGS) -Wno-error' SANITIZE='$(UNIT_SANITIZE)' \
	    VIRTIO_SRC='$(UNIT_VIRTIO_SRC)' XEN_SRC='$(UNIT_XEN_SRC)' BIOS_SRC='$(UNIT_BIOS_SRC)' \
	    BIOS_START_SRC='$(UNIT_BIOS_START_SRC)' \
	    BIOS_START_XEN_SRC='$(UNIT_BIOS_START_XEN_SRC)' \
	    tests/broken/run.sh $(UNIT_BUILD) $(BUILD)/broken
