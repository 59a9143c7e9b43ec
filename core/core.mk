# SPDX-License-Identifier: BSD-2-Clause-Patent
# The drivers themselves. Every object of CORE is built for each firmware and for the host's tests;
# core/x86 is the machine, which the tests replace with a model.

CORE_VIRTIO_SRC := core/pieces.c core/disk.c core/virtio/exit.c core/virtio/device.c \
	core/virtio/ring.c core/virtio/requests.c core/virtio/blk.c core/virtio/scsi.c core/virtio/net.c \
	core/cdb.c core/scan.c
CORE_XEN_SRC := core/pieces.c core/disk.c core/xen/events.c core/xen/store.c core/xen/grants.c core/xen/exit.c \
	core/xen/domain.c core/xen/blkfront.c
# For firmware that has no SCSI disk driver of its own.
CORE_SCSI_DISK_SRC := core/scsi_disk.c core/virtio/scsi_adapter.c
CORE_SRC := $(sort $(CORE_VIRTIO_SRC) $(CORE_XEN_SRC))
CORE_X86_SRC := core/x86/regs.c core/x86/memory.c core/x86/hypercall.c
