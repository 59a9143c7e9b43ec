// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * What a kind of virtio device is to the model of the transport (virtio_device.c), and what the
 * transport offers it. See virtio_device.h for how a kind is added.
 */
#pragma once

#include "tests/model/virtio_device.h"

#define VDEV_SEGMENTS_MAX 64u
#define VDEV_FEATURE(bit) (1ull << (bit))

struct vdev_segment {
    uint64_t address;
    uint32_t bytes;
    bool write; /* by the device */
};

/* A chain of descriptors that the device has taken: looked at once, and all of it memory that the
 * device has been shown. Readable segments come before writable ones. */
struct vdev_chain {
    unsigned queue;
    uint16_t head;
    unsigned segments;
    struct vdev_segment segment[VDEV_SEGMENTS_MAX];
    uint64_t readable, writable; /* bytes */
    void *own;                   /* the kind's, from accept() to forget() */
};

struct vdev_kind {
    const char *name;
    uint16_t device_id;       /* modern only */
    uint16_t transitional_id; /* legacy and transitional */
    unsigned queues;          /* the usual number; vdev_options.queues may say another */
    uint32_t config_bytes;    /* 60 at most */
    uint64_t features;        /* offered usually, besides the ring's */
    uint64_t fickle_features; /* of these, what LIE_OTHER_FEATURES takes back after a reset */
    unsigned lies;            /* of the kind's own, from LIE_OF_KIND on: the fuzzer's choice */

    /* The device comes into its slot, and out of it. May be NULL. */
    void (*plug)(void);
    void (*unplug)(void);
    /* A field of the device's configuration, for which there is vdev_config_field(). */
    uint32_t (*config_read)(uint64_t offset, unsigned bytes);
    /* NULL: a write is a breach. */
    void (*config_write)(uint64_t offset, unsigned bytes, uint32_t value);

    /* A chain has been made available: holds it to what the kind's chapter says, by vdev_breach(),
     * and takes what must be taken now. False if it is not to be kept. */
    bool (*accept)(struct vdev_chain *chain);
    /* Whether there is something to do for it. NULL: always. A buffer to receive into is not ready
     * before something comes. */
    bool (*ready)(const struct vdev_chain *chain);
    /* Does it; returns how many bytes that has written. Is also called for a chain that is not
     * ready, by a device that is about to be reset: then it writes whatever it likes into it. And
     * it may be called more than once. */
    uint32_t (*serve)(struct vdev_chain *chain);
    /* Frees chain->own. NULL: nothing to be freed. */
    void (*forget)(struct vdev_chain *chain);
};

/* ---- For the kinds ---- */

/* What a driver does against the rules. Where the device itself does not keep them, nobody can be
 * held to all of them; what touches memory wrongly is a violation always. */
#define vdev_breach(...)                                                                           \
    do {                                                                                           \
        if (vdev_strict())                                                                         \
            model_violation(__VA_ARGS__);                                                          \
    } while (0)
bool vdev_strict(void);

/* Copies between a chain's device-readable (or writable) bytes, from `at` on, and ours. */
void vdev_copy(const struct vdev_chain *chain, bool write, uint64_t at, void *ours, uint64_t bytes);
/* Whether to tell this lie about this chain now. */
bool vdev_lie(const struct vdev_chain *chain, int lie);
/* Whether to fail now: a fault point. */
bool vdev_fault(void);
uint32_t vdev_chance(void);
/* Whether the driver has accepted a feature. */
bool vdev_accepted(unsigned feature);
/* Whether messages may be cut into descriptors in any way (§2.7.4). */
bool vdev_any_layout(void);
/* Whether the value of a first field is to be a wrong one, and the generation moves with it
 * (LIE_CONFIG_MOVES_ONCE). */
bool vdev_config_moves(void);
/* Checks the width, and that the field's feature was accepted (-1: it has none). Gives `value`. */
uint32_t vdev_config_field(uint64_t offset, unsigned bytes, unsigned right, int feature,
                           uint32_t value);
/* The configuration has changed by itself. */
void vdev_config_changed(void);
