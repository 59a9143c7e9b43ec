/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* A network device that receives, as receiver.c binds it: virtio_net.c and e1000.c are two. */
#pragma once

#include "uefi/pci.h"

struct receiver;

extern const uint16_t receiver_vendor, receiver_devices[];
extern const size_t receiver_device_count, receiver_bytes;

/* Finds the registers, and says how much memory it wants to share. */
EFI_STATUS receiver_attach(struct receiver *receiver, const struct pci_binding *pci,
                           size_t *shared_bytes);
/* Begins to receive into that memory. */
EFI_STATUS receiver_start(struct receiver *receiver, const struct dma_block *memory);
/* Gives the device back the buffers that it has filled. At TPL_NOTIFY. */
void receiver_poll(struct receiver *receiver);
/* Stops it, also where it was never started. False if it has not let go of its memory. */
bool receiver_down(struct receiver *receiver, size_t bytes);
/* What is done in the exit. */
void receiver_exit(struct receiver *receiver, EFI_EVENT event);
