// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Transfers through the block driver: requests and buffers, kept as a careful caller does. */
#pragma once

#include <linux/virtio_blk.h>

#include "core/virtio/blk.h"
#include "tests/model/virtio_blk.h"
#include "tests/unit/harness.h"

extern const struct test_kind blk_test;

/* A transfer, from its start until it is looked at. */
struct io {
    struct disk_request *request; /* NULL once done: the driver must not look at it again */
    enum disk_op op;
    uint64_t sector;
    unsigned char *buffer;
    size_t bytes;
    unsigned done;
    enum result result;
    uint64_t done_at;
    unsigned char *allocation;
    struct io **slot;
    struct io *next;
};

static inline enum result blk_bind(struct binding *binding)
{
    return bind(binding, &blk_test);
}

/* `misalign` bytes off a page-ish boundary. Contents are chance for a write, poison for a read. */
struct io *io_new(enum disk_op op, uint64_t sector, size_t bytes, size_t misalign);
enum result io_submit(struct binding *binding, struct io *io);
void io_wait(struct binding *binding, struct io *io);
enum result io_free(struct io *io);
/* On any disk. */
enum result io_submit_to(struct disk *disk, struct io *io);
void io_wait_on(struct disk *disk, struct io *io);
enum result io_run_on(struct disk *disk, struct io *io);
/* Reads, every fourth a write, of 4096 bytes each. */
void io_start_many(struct binding *binding, struct io **io, unsigned count);
void io_all_ended(struct io **io, unsigned count, enum result result);
/* All in one. */
enum result io_run(struct binding *binding, enum disk_op op, uint64_t sector, size_t bytes,
                   size_t misalign);
/* Reads and compares with the device's disk. */
void assert_reads_right(struct binding *binding, uint64_t sector, size_t bytes);

void disk_poll(struct binding *binding);

static inline struct disk *disk_of(const struct binding *binding)
{
    return &((struct blk *)binding->driver)->disk;
}
