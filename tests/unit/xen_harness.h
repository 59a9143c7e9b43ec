// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * What the tests of core/xen share: a guest, which stands for the firmware's side (it brings the
 * memory, frees it when it may, calls the exit as firmware does), and the transfers that go through
 * its disks.
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

#include "core/xen/blkfront.h"
#include "tests/model/xen_host.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define MS            ((uint64_t)XHOST_TICKS_PER_MS)

/* What uefi/exit.h allows the exit of all Xen disks together. */
#define EXIT_MS 5000u

struct guest {
    struct xen *xen; /* allocated, so that a step out of it is noticed */
    struct blkfront *blk[XHOST_DISKS_MAX];
    struct dma_block memory[XHOST_DISKS_MAX];
    unsigned leaked; /* disks whose memory was not given back */
};

struct xio {
    struct disk_request *request; /* NULL once done: the driver must not look at it again */
    enum disk_op op;
    uint64_t sector;
    unsigned char *buffer;
    size_t bytes;
    unsigned disk, done;
    enum result result;
    struct xio **slot;
    struct xio *next;
};

/* Begins with the host as it is. On failure nothing is left. */
enum result guest_begin(struct guest *guest);
/* Attach and start of the host's disk `i`. On failure everything is given back. */
enum result guest_disk(struct guest *guest, unsigned i);
/* All in one, with all disks; it has to work. */
void guest_up(struct guest *guest);
/* Detach, and free what may be freed. */
bool guest_drop(struct guest *guest, unsigned i);
/* All disks' detach, and the domain's end. Everything is as found. */
void guest_down(struct guest *guest);
/* The same, but what is left is for the caller to judge. */
void guest_leave(struct guest *guest);

/* The exit, as firmware does it: every disk's handler, then the bus's, with one bound. */
void guest_exit(struct guest *guest, uint64_t bound_ms);
/* The operating system after the exit: all memory that was not lost on purpose is its own. */
void guest_handed_over(struct guest *guest);

struct disk *disk_of(struct guest *guest, unsigned i);
void disk_poll(struct guest *guest, unsigned i);

/* `misalign` bytes off a page boundary. Contents are chance for a write, poison for a read. */
struct xio *xio_new(unsigned disk, enum disk_op op, uint64_t sector, size_t bytes, size_t misalign);
enum result xio_submit(struct guest *guest, struct xio *io);
void xio_wait(struct guest *guest, struct xio *io);
enum result xio_free(struct xio *io);
/* All that there are; they have to be done. */
void xio_free_all(void);
enum result xio_run(struct guest *guest, unsigned disk, enum disk_op op, uint64_t sector,
                    size_t bytes, size_t misalign);
void assert_reads(struct guest *guest, unsigned disk, uint64_t sector, size_t bytes,
                  size_t misalign);

void assert_no_violation(void);
uint32_t test_chance(uint32_t below);
/* After each test: what a failure left behind is given back. */
int switch_off(void **state);

#define xen_test(name) cmocka_unit_test_teardown(name, switch_off)
