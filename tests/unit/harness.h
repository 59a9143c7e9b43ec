// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * What the tests of all virtio drivers share: a binding, which stands for the firmware's side of
 * core/. It brings the memory, and frees it when it may. What moves data through a driver is in its
 * kind's own harness: blk_harness.h, ...
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

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "core/virtio/device.h"
#include "tests/model/virtio_device.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define feature(bit)  (1ull << (bit))
#define MS            ((uint64_t)VDEV_TICKS_PER_MS)

struct binding {
    const struct test_kind *kind;
    void *driver; /* the kind's struct; allocated, so that a step out of it is noticed */
    struct dma_block memory;
    size_t memory_bytes; /* that attach asked for */
    bool leaked;         /* the device has not let go: freed by nobody */
};

/* A kind of driver, and its line in kinds.c. */
struct test_kind {
    const char *name;
    size_t bytes;     /* of the driver's struct */
    size_t device_at; /* where in it the struct virtio_device is */
    enum result (*attach)(void *driver, const struct rich_door *rich,
                          const struct pci_function *where, size_t *memory_bytes);
    enum result (*start)(void *driver, const struct dma_block *memory);
    bool (*detach)(void *driver);
    /* After each test: frees what a failure has left behind. May be NULL. */
    void (*clean)(void);

    /* test_start.c: the model's usual device of the kind, and a bit for each queue without which
     * the driver does not start. */
    struct vdev_options (*usual)(void);
    uint32_t queues_needed;
    /* Moves data both ways, through an honest device that works by itself, and asserts that it came
     * out right. */
    void (*work)(struct binding *binding);

    /* test_exit.c: has the device hold something in each queue. Its pace is VDEV_BY_HAND. */
    void (*busy)(struct binding *binding);
    /* The exit has been: whatever the driver is asked to do, it refuses, and it ends with
     * RESULT_DEVICE_ERROR what was in flight. */
    void (*refused)(struct binding *binding);
    /* After unbind(): all that busy() began has ended, and with this result, if it has any. */
    void (*ended)(enum result result);

    /* test_faults.c: devices to try, from 0, and their names. */
    unsigned flavours;
    struct vdev_options (*flavour)(unsigned which, const char **name);
    /* A life from bind() to unbind(), on a device that fails at any moment: transfers of all kinds,
     * restarts if there are any, and the exit, if wanted, before the end. What is said to have
     * worked has worked. */
    void (*live)(struct binding *binding, bool by_exit);
    uint64_t life_ms;  /* the most that it may take */
    unsigned mappings; /* more failures than this, where mappings hold little; 0: not tried */
};

extern const struct test_kind *const test_kinds[];
extern const size_t test_kind_count;

/* Attach and start, with the device plugged in before. On failure everything is given back. */
enum result bind(struct binding *binding, const struct test_kind *kind);
/* Attach alone, as a step of its own; unbind() undoes that too. */
enum result attach(struct binding *binding, const struct test_kind *kind);
/* Detach, and free what may be freed. */
bool unbind(struct binding *binding);
struct virtio_device *device_of(const struct binding *binding);

/* Plugs in a device that cannot be driven. Whether bind() says so with this result and a sentence,
 * and leaves the device and the memory as they were; if not, prints what is wrong. */
bool refused_start(const struct test_kind *kind, const char *name,
                   const struct vdev_options *options, enum result result);

/* The device is as after power-on, and the oracle has seen nothing. */
void assert_clean(void);
void assert_no_violation(void);

/* The exit, as firmware does it, through the poor door alone (C2). Whether the device let go. */
bool quiesce(struct binding *binding, uint64_t bound_ms);

/* A buffer to move data in or out of, `misalign` bytes off. Nothing behind it is anybody's, and
 * what is before it is guarded. The allocation is to be freed. */
unsigned char *guarded_buffer(size_t bytes, size_t misalign, unsigned char **allocation);
void assert_guarded(const unsigned char *allocation, const unsigned char *buffer);
/* In a request's done(), which has now been called so many times: its caller may do with the buffer
 * what it likes. */
void check_done(unsigned times, const unsigned char *buffer, size_t bytes);

uint32_t test_chance(uint32_t below);
/* Runs each test once for each kind, which is its *state, and calls it "test, kind". */
int run_for_each_kind(const char *group, const struct CMUnitTest *tests, size_t count);
/* After each test: what a failure left behind is given back, so that the leak check stays true. */
int unplug(void **state);
