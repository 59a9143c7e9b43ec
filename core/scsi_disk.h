// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * A disk on one logical unit of a SCSI adapter (SPC-5, SBC-4), for firmware that has no driver of
 * its own for one.
 *
 *   scsi_disk_start()       the unit is asked what it is
 *   scsi_disk.disk.ops      submit, poll, ready, restart: see core/disk.h
 *
 * The disks of one adapter share it: none of these functions may be entered while one of another
 * runs, a poll of any may end requests of all, and a restart of any ends those of all. There is
 * nothing to take down: once the adapter has gone, what still waited to be sent again ends with the
 * next poll.
 */
#pragma once

#include "core/disk.h"
#include "core/pieces.h"
#include "core/scsi.h"

#ifndef SCSI_DISK_COMMANDS
#define SCSI_DISK_COMMANDS 16u /* in flight at a time, of one unit */
#endif

/* How long one question may take, and how long all of them until no more are asked (C6). */
#define SCSI_DISK_ASK_MS   5000
#define SCSI_DISK_START_MS 30000
/* A unit that has no time, or wants attention, is asked again every so often, for so long after the
 * first time; one that says that it is becoming ready, for SCSI_DISK_START_MS. */
#define SCSI_DISK_AGAIN_MS 10
#define SCSI_DISK_RETRY_MS 5000

/* Names that a person knows the unit by: 8 bytes of vendor, 16 of product. */
#define SCSI_DISK_NAME_BYTES (8u + 1u + 16u + 1u)
/* Sense data up to its qualifier, in either format (SPC-5 §4.4). */
#define SCSI_DISK_SENSE_BYTES 18u

/* The adapter's functions, as those of a disk of the same names: core/disk.h. It cuts READs and
 * WRITEs that are too long for it by itself. */
struct scsi_adapter {
    void *context;
    enum result (*submit)(void *context, struct scsi_request *request);
    void (*poll)(void *context);
    bool (*ready)(const void *context);
    enum result (*restart)(void *context, enum result why);
};

struct scsi_disk_command {
    struct scsi_request request;
    struct scsi_disk *owner;
    uint64_t since;    /* when it was first sent */
    uint64_t again_at; /* when to send it again, if it is to be */
    uint8_t sense[SCSI_DISK_SENSE_BYTES];
};

/* It must not be freed while the adapter may still write into it (C5). */
struct scsi_disk {
    struct disk disk;
    char name[SCSI_DISK_NAME_BYTES]; /* printable; ends in a zero */
    /* What the unit says that it is made of, where SeaBIOS would believe it; or zeroes. */
    struct geometry geometry;

    /* The driver's own. */
    const struct rich_door *rich; /* for its clock and its log */
    struct scsi_adapter adapter;
    uint8_t target;
    uint16_t lun;
    unsigned block_shift;
    struct pieces pieces;
    struct scsi_disk_command commands[SCSI_DISK_COMMANDS];
    uint32_t again; /* a bit for each command that is to be sent again */

    /* While it starts. */
    uint64_t deadline;
    struct disk_request request;
    const struct scsi_question *question;
    bool over;
    size_t received;
    uint8_t data[256];
};

/*
 * Asks the unit what disk it is. `rich` and the adapter must outlive the disk. RESULT_UNSUPPORTED:
 * not a disk, or one of blocks that we cannot use. RESULT_NO_MEDIA: nothing in it. Anything else:
 * the unit did not answer in time, or what it said cannot be.
 */
enum result scsi_disk_start(struct scsi_disk *disk, const struct rich_door *rich,
                            const struct scsi_adapter *adapter, uint8_t target, uint16_t lun);
