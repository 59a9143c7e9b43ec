// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * virtio-scsi (virtio 1.2 §5.6).
 *
 *   scsi_attach(), scsi_start()   the adapter comes up
 *   scsi_submit(), scsi_poll(), scsi_ready(), scsi_restart(), scsi_reset_unit()
 *   virtio_quiesce(&scsi.requests.device.exit, …)   the exit, through the poor door
 *   scsi_detach()                 the adapter goes down, its memory comes back
 *
 * One of the request queues is used, and the control queue to give up single commands. Nothing is
 * ever posted to the event queue, which a device has to bear. As with a disk (core/disk.h), none of
 * these functions may be entered while another of the same adapter runs, but for scsi_ready().
 */
#pragma once

#include "core/scsi.h"
#include "core/virtio/requests.h"

/* How long a device may take to give up a command, or to reset a unit, before it is reset itself.
 */
#define SCSI_CONTROL_MS 1000

/* What a slot of the ring, which carries one part of a command, has besides. */
struct scsi_slot {
    size_t offset;      /* of this part in the request's data */
    size_t transferred; /* of this part */
};

struct scsi {
    struct requests requests;        /* a slot's own: request and response */
    struct ring control;             /* size 0 if the device has none */
    struct dma_block control_memory; /* the ring, then request and response */
    size_t control_at;               /* where in the requests' memory it is */
    size_t most_bytes;               /* of data in a command */
    uint32_t commands_per_unit;      /* at a time; 0 for no limit */
    unsigned max_target, max_lun;
    struct scsi_slot slots[RING_SLOTS_MAX];
};

/* As blk_attach(), blk_start() and blk_detach(). */
enum result scsi_attach(struct scsi *scsi, const struct rich_door *rich,
                        const struct pci_function *where, size_t *memory_bytes);
enum result scsi_start(struct scsi *scsi, const struct dma_block *memory);
bool scsi_detach(struct scsi *scsi);

/*
 * Takes a command. RESULT_OK: done() will be called, perhaps before this returns. Anything else: it
 * was refused, and done() will not be called. RESULT_OUT_OF_RANGE: no such command, target or unit
 * can be. RESULT_NO_MEMORY: too long for the device, and not one that can be done in parts;
 * request->most bytes would go.
 */
enum result scsi_submit(struct scsi *scsi, struct scsi_request *request);

/* As a disk's functions of these names: core/disk.h. A restart resets every target. */
void scsi_poll(struct scsi *scsi);
bool scsi_ready(const struct scsi *scsi);
enum result scsi_restart(struct scsi *scsi, enum result why);

/*
 * Resets a logical unit; its commands end with SCSI_HOST_RESET. RESULT_DEVICE_ERROR if the device
 * refuses. RESULT_TIMEOUT if it does not answer within SCSI_CONTROL_MS: then it has been reset as a
 * whole.
 */
enum result scsi_reset_unit(struct scsi *scsi, uint8_t target, uint16_t lun);
