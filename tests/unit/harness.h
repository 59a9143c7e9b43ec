// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * What the tests share: a binding, which stands for the firmware's side of core/ (it brings the
 * memory, frees it when it may, and keeps requests and buffers as a careful caller does), and the
 * transfers that go through it.
 */
#pragma once

/* cmocka wants these first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "core/virtio/blk.h"
#include "tests/model/virtio_blk.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

struct binding {
    struct blk *blk; /* allocated, so that a step out of it is noticed */
    struct dma_block memory;
    size_t memory_bytes; /* that attach asked for */
    bool leaked;         /* the device has not let go: freed by nobody */
};

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

/* Attach and start, with the device plugged in before. On failure everything is given back. */
enum result bind(struct binding *binding);
/* Detach, and free what may be freed. */
bool unbind(struct binding *binding);
/* All transfers are looked at; the device is as after power-on, and the oracle has seen nothing. */
void assert_clean(void);
void assert_no_violation(void);

/* `misalign` bytes off a page-ish boundary. Contents are chance for a write, poison for a read. */
struct io *io_new(enum disk_op op, uint64_t sector, size_t bytes, size_t misalign);
enum result io_submit(struct binding *binding, struct io *io);
void io_wait(struct binding *binding, struct io *io);
enum result io_free(struct io *io);
/* All in one. */
enum result io_run(struct binding *binding, enum disk_op op, uint64_t sector, size_t bytes,
                   size_t misalign);
/* Reads and compares with the device's disk. */
void assert_reads_right(struct binding *binding, uint64_t sector, size_t bytes);

void disk_poll(struct binding *binding);
uint32_t test_chance(uint32_t below);
/* After each test: what a failure left behind is given back, so that the leak check stays true. */
int unplug(void **state);

static inline struct disk *disk_of(struct binding *binding)
{
    return &binding->blk->disk;
}

#define feature(bit) (1ull << (bit))
