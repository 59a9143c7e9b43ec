// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * A SCSI command, whatever adapter carries it, and what there is to know about commands: which of
 * them can be done in parts. The firmware's side (Extended SCSI Pass Thru) is written against this.
 */
#pragma once

#include "core/io_request.h"

#define SCSI_CDB_BYTES   32u
#define SCSI_SENSE_BYTES 96u
/* What one byte, and the flat form of a logical unit number (SAM-5 §4.7.7.4), can say. */
#define SCSI_TARGET_MAX 255u
#define SCSI_LUN_MAX    16383u

/* How far a command got. */
enum scsi_host {
    SCSI_HOST_OK,        /* to its logical unit, whose status says the rest */
    SCSI_HOST_OVERRUN,   /* it wants to move more, or other, data than its buffer is for */
    SCSI_HOST_ABORTED,   /* given up by somebody's task management */
    SCSI_HOST_NO_TARGET, /* there is no such target or logical unit */
    SCSI_HOST_RESET,     /* cut off by a reset of the bus or the unit */
    SCSI_HOST_BUSY,      /* not taken; it may be sent again */
    SCSI_HOST_TRANSPORT, /* the way to the target has failed */
    SCSI_HOST_TARGET,    /* the target has failed, by whatever way */
    SCSI_HOST_NEXUS,     /* the same, but another way may do */
    SCSI_HOST_FAILURE,
};

#define SCSI_GOOD            0x00
#define SCSI_CHECK_CONDITION 0x02

struct scsi_request {
    struct io_request base;
    enum dma_direction direction; /* of its data, if it has any */
    uint8_t target;
    uint16_t lun;
    uint8_t cdb[SCSI_CDB_BYTES];
    size_t cdb_bytes; /* 1 to SCSI_CDB_BYTES */
    void *sense;      /* where sense data goes */
    size_t sense_room;

    /*
     * The answer. base.result is RESULT_OK for a command that went well. RESULT_TIMEOUT,
     * RESULT_ABORTED: it was given up, and `host` and `status` say nothing. Any other: `host` says
     * how far it got, and if that is SCSI_HOST_OK, `status` what the unit said; if that is
     * SCSI_GOOD, it was never answered.
     */
    enum scsi_host host;
    uint8_t status;
    size_t sense_bytes;
    size_t transferred; /* bytes of data, from the first on */
    size_t most;        /* RESULT_NO_MEMORY, and not 0: it is too long; this many bytes would go */

    /* The driver's own. */
    size_t block;   /* data comes in units of so many bytes; 0 for all in one */
    size_t told_at; /* where in the data the part begins that the answer is about */
};

static inline struct scsi_request *scsi_request_of(struct io_request *base)
{
    return (struct scsi_request *)(void *)base;
}

static inline uint32_t scsi_be32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/*
 * Whether a command with so many bytes of data can be done in parts: the READs and WRITEs of disks
 * (SBC-4 §5) of 6, 10, 12 and 16 bytes. Gives the length of a block, which is the transfer's length
 * divided by the command's; 0 for no.
 */
size_t cdb_block(const uint8_t *cdb, size_t cdb_bytes, enum dma_direction direction, size_t bytes);

/* Makes such a command one for `blocks` blocks, from `skip` blocks after its first on. */
void cdb_part(uint8_t *cdb, uint64_t skip, uint32_t blocks);
