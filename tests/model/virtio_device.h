// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * A virtio device on PCI, playing the other side of core/virtio. It stands in for the machine
 * (core/regs.h) and hands out a rich door, so that it sees every register access, every mapping and
 * every look at the clock.
 *
 * It is strict: whatever virtio 1.2 forbids a driver is a violation (dma.h), and so is any use of
 * memory that it was not shown. It can also be slow, deaf, broken or a liar; see vdev_options.
 *
 * There is one device, or one in each slot, of different kinds. Time is simulated: each register
 * access, each look at the clock and each cpu_relax() costs some; the device works when it is
 * notified and while the driver relaxes.
 *
 * This is the transport. What the device is for is a kind (virtio_kind.h). To add one, say "foo":
 *
 *   tests/model/virtio_foo.{c,h}   a struct vdev_kind: PCI ids, queues, features, config_read(),
 *                                  accept() with what the driver may ask for, serve(); ready() if
 *                                  a chain may have to wait for something, as a receive buffer does
 *                                  for a packet; forget() if a chain has state of its own. Lies of
 *                                  its own count from LIE_OF_KIND. vfoo_usual() resets what the
 *                                  device is like, and returns vdev_usual(&vfoo_kind).
 *   tests/unit/foo_harness.{c,h}   a struct test_kind foo_test (harness.h): the driver's attach,
 *                                  start and detach, and what test_start, test_exit and test_faults
 *                                  want done with it. All suites are linked with all harnesses, so
 *                                  global names say whose they are.
 *   tests/unit/kinds.c             &foo_test in the table: start, exit and faults run for it.
 *   tests/unit/test_foo*.c         its own suites: foo, foo_lies, ...
 *   tests/fuzz/virtio_foo.c        its fuzzer.
 *   tests/unit.mk                  foo in UNIT_VIRTIO_KINDS, once all of these are there. A
 *                                  broken build names "Suite: foo_lies", or "Suite: exit" and
 *                                  "Fails: TEST, NAME" with the test_kind's name.
 *
 * Each queue has its own ring state; lies and pace are for all of them, or for lie_queue.
 */
#pragma once

#include <limits.h>
#include "tests/model/dma.h"

#define VDEV_TICKS_PER_MS 1000u
#define VDEV_NEVER        UINT32_MAX

#define VDEV_SLOTS      2u
#define VDEV_QUEUES_MAX 8u
#define VDEV_ANY_QUEUE  UINT_MAX
#define VDEV_NO_QUEUE   UINT16_MAX

/* What the device is: virtio_kind.h. */
struct vdev_kind;

enum vdev_transport { VDEV_MODERN, VDEV_TRANSITIONAL, VDEV_LEGACY };

/* When the device finishes what it was given. */
enum vdev_pace {
    VDEV_AT_ONCE,    /* inside the notification */
    VDEV_IN_ORDER,   /* while the driver relaxes */
    VDEV_ONE_BY_ONE, /* one for each time that the driver relaxes */
    VDEV_SHUFFLED,   /* some of them, in any order */
    VDEV_BY_HAND,    /* in vdev_finish() only */
    VDEV_LAST_FIRST, /* the same, the latest before the others */
};

enum vdev_notices {
    VDEV_WANTS_ALL,      /* notifications */
    VDEV_WANTS_NONE,     /* it polls */
    VDEV_WANTS_WHEN_IDLE /* it asks for none while it has work */
};

/* Lies, and failures that look like them (C9). A kind has more of its own, about requests. */
enum vdev_lie {
    LIE_NONE,
    /* in configuration space */
    LIE_NO_CAPABILITIES,
    LIE_CAPABILITY_LOOP,
    LIE_COMMON_OUTSIDE_BAR,
    LIE_COMMON_WRAPS,
    LIE_COMMON_SHORT,
    LIE_COMMON_UNALIGNED,
    LIE_COMMON_IN_NO_BAR,
    LIE_NOTIFY_TINY,
    LIE_NOTIFY_OUTSIDE,
    LIE_CONFIG_EMPTY,
    LIE_DECOYS, /* bad capabilities before the good ones, and others behind: to be passed over */
    /* while it starts */
    LIE_NO_VERSION_1,
    LIE_FEATURES_REFUSED,
    LIE_CONFIG_RESTLESS,
    LIE_CONFIG_MOVES_ONCE, /* allowed: to be read again */
    /* about what was made available */
    LIE_ID_OUT_OF_RANGE,
    LIE_ID_HUGE,
    LIE_ID_OF_NOBODY,
    LIE_ID_TWICE,
    LIE_ID_NOT_A_HEAD,
    LIE_LENGTH,
    LIE_LENGTH_HUGE,
    LIE_INDEX_JUMPS,
    LIE_INDEX_BACK,
    LIE_NEEDS_RESET,
    /* after a reset, where the first start was honest */
    LIE_OTHER_FEATURES,
    LIE_SMALLER_QUEUE,
    LIE_LARGER_QUEUE,
    LIE_OF_KIND, /* the first of the kind's own */
};

struct vdev_options {
    const struct vdev_kind *kind;
    enum vdev_transport transport;
    bool io_bar;           /* modern registers behind an I/O BAR */
    uint32_t notify_scale; /* the notify capability's multiplier */
    unsigned queues;
    uint16_t queue_size;                   /* of each queue */
    uint16_t queue_sizes[VDEV_QUEUES_MAX]; /* of this one; 0: as above; or VDEV_NO_QUEUE */
    uint64_t features;                     /* offered, besides VERSION_1 */

    enum vdev_pace pace;
    enum vdev_notices notices;
    uint32_t seed;
    uint32_t relax_ticks;    /* what cpu_relax() costs */
    uint32_t reset_reads;    /* reads of the status until a reset is acknowledged, or VDEV_NEVER */
    uint32_t stuck_resets;   /* how many resets, from the first, are never acknowledged */
    uint32_t stuck_reset_at; /* or just this one, from 1 */
    bool clock_stands;
    bool no_dma_drain; /* does not finish anything between the reset and its acknowledgement */

    int lie;            /* enum vdev_lie, or one of the kind's */
    uint32_t lies;      /* about how many requests; then the device is honest */
    unsigned lie_queue; /* about requests of which queue */

    size_t map_most; /* the most that one mapping holds; 0 for no limit */

    /* Fault point k answers with a failure, from 1; 0 for none. See vdev_counts.points. */
    uint64_t fault_at;
    /* Register read k, and all of them from then on if `gone_for_good`, reads as all ones. */
    uint64_t gone_at;
    bool gone_for_good;

    /* Bytes that replace honest answers. With them the device is no longer strict. */
    const uint8_t *fuzz;
    size_t fuzz_bytes;

    uint64_t steps_most; /* calls into the model before the driver counts as hung; 0: the usual */
};

struct vdev_counts {
    uint64_t points; /* rich-door calls and moments at which the device could refuse */
    uint64_t reads;  /* of registers */
    uint64_t maps, unmaps, logs;
    uint64_t notifications, requests, resets;
    uint64_t master_off, master_off_live, dma_without_master;
    uint64_t resets_refused;
    uint64_t shown_changes; /* writes into memory by the device */
    uint32_t most_in_flight;
};

/* A modern device of a kind, with its usual features. */
struct vdev_options vdev_usual(const struct vdev_kind *kind);

/* To slot 0 or 1: all below is about the device in the slot that was turned to last. Whoever talks
 * to a device turns to it. The first is plugged in first. */
void vdev_turn_to(unsigned which);
/* Puts the device into its slot. */
void vdev_plug(const struct vdev_options *options);
/* Takes it out again, and forgets all violations. */
void vdev_unplug(void);
/* May be changed while the device runs. */
struct vdev_options *vdev_now(void);

const struct rich_door *vdev_door(void);
const struct pci_function *vdev_where(void);
const struct vdev_counts *vdev_counted(void);
const char *vdev_last_log(void);

uint8_t vdev_status(void);    /* as it is, without a read */
uint64_t vdev_features(void); /* that the driver has accepted */
uint16_t vdev_queue_size(unsigned queue);
bool vdev_uses_legacy(void);
bool vdev_live(void);   /* it can reach memory: a queue enabled, no reset acknowledged */
bool vdev_master(void); /* bus mastering is on */
void vdev_master_on(void);
uint64_t vdev_time(void);
void vdev_skip_ms(uint64_t ms);

/* The device finishes up to `most` of what is ready, as its pace has it; returns how many. */
unsigned vdev_finish(unsigned most);
unsigned vdev_in_flight(void); /* in all queues, ready or not */
unsigned vdev_in_flight_of(unsigned queue);
/* Whatever the device can still do to memory, it does now. */
void vdev_last_gasp(void);
/* From here on the device's answers to status reads have NEEDS_RESET set, until a reset. */
void vdev_break(void);
/* Surprise removal. */
void vdev_vanish(void);

/* While set, any call through the rich door is a violation (C2). */
void vdev_poor(bool poor);

/* Registers that are none of the devices': whether an access is to one, and then it is done here.
 */
extern bool (*vdev_elsewhere)(const struct reg_window *window, uint64_t where, bool write,
                              uint32_t *value);

/* Called when a driver has made an absurd number of calls without an end (C6). */
extern void (*vdev_hung)(void);
