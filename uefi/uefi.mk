# SPDX-License-Identifier: BSD-2-Clause-Patent
# The UEFI driver image, and the proof that its exit path reaches nothing (C2).

UEFI_SRC := uefi/driver.c uefi/drivers.c uefi/log.c uefi/pci.c uefi/device_path.c uefi/waiting.c \
	uefi/block_io.c uefi/scsi_pass_thru.c uefi/simple_network.c uefi/virtio.c uefi/virtio_blk.c \
	uefi/virtio_scsi.c uefi/virtio_net.c uefi/xen.c uefi/exit.c
UEFI_OBJ := $(patsubst %.c,$(BUILD)/efi/%.o,$(UEFI_SRC) $(CORE_SRC) $(CORE_X86_SRC))

# Everything that runs inside ExitBootServices.
EXIT_SRC := uefi/exit.c core/virtio/exit.c core/xen/exit.c core/xen/store.c core/xen/grants.c \
	core/xen/events.c core/x86/regs.c core/x86/memory.c core/x86/hypercall.c
EXIT_OBJ := $(EXIT_SRC:%.c=$(BUILD)/efi/%.o)

$(BUILD)/exit-path.ok: uefi/check-exit-path $(EXIT_OBJ)
	uefi/check-exit-path $(EXIT_OBJ)
	@touch $@

$(BUILD)/baton.efi: $(UEFI_OBJ) $(BUILD)/exit-path.ok
	$(EFI_LD) $(EFI_LDFLAGS) /subsystem:efi_boot_service_driver /out:$@ $(UEFI_OBJ)
