// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Commands through the SCSI driver: requests and buffers, kept as a careful caller does. */
#pragma once

#include <linux/virtio_scsi.h>

#include "core/scan.h"
#include "core/virtio/scsi_adapter.h"
#include "tests/model/virtio_scsi.h"
#include "tests/unit/harness.h"

extern const struct test_kind scsi_test;

/* A command, from its start until it is looked at. */
struct sio {
    struct scsi_request *request; /* NULL once done: the driver must not look at it again */
    struct scsi_request answer;   /* as it was then */
    bool write;
    uint64_t at; /* byte of the disk, for a transfer */
    unsigned char *buffer;
    size_t bytes;
    uint8_t sense[SCSI_SENSE_BYTES];
    unsigned done;
    enum result result;
    uint64_t done_at;
    unsigned char *allocation;
    struct sio **slot;
    struct sio *next;
};

static inline struct scsi *scsi_of(const struct binding *binding)
{
    return binding->driver;
}

static inline enum result scsi_bind(struct binding *binding)
{
    return bind(binding, &scsi_test);
}

/* Any command. `misalign` bytes off a page-ish boundary; contents are chance for a write, poison
 * for a read. */
struct sio *sio_new(const uint8_t *cdb, size_t cdb_bytes, bool write, size_t bytes,
                    size_t misalign);
/* A READ or WRITE in the form of so many bytes: 6, 10, 12, 16. For target 0, unit 0. */
struct sio *sio_transfer(unsigned form, bool write, uint64_t lba, uint32_t blocks, uint32_t block,
                         size_t misalign);
enum result sio_submit(struct binding *binding, struct sio *io);
void sio_wait(struct binding *binding, struct sio *io);
/* Once it is done: gives its result. The answer goes to *answer, if that is not NULL. */
enum result sio_free(struct sio *io, struct scsi_request *answer);
/* All in one. */
enum result sio_run(struct binding *binding, struct sio *io, struct scsi_request *answer);

/* Whether a transfer that went well has the disk's contents. */
void assert_moved(const struct sio *io);

/* Asks for all units, as the firmware's side does. What it gives is there until the end of the
 * test, or held_free(). */
struct scan *scan_units(struct binding *binding);

/* Starts a disk. It is there for as long. */
struct scsi_adapter adapter_of(struct binding *binding);
struct scsi_disk *disk_on(const struct scsi_adapter *adapter, uint8_t target, uint16_t lun,
                          enum result *result);

void held_free(const struct binding *binding);
