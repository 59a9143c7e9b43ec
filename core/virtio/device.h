// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * A virtio device on PCI, of whatever kind: finding its registers (modern and legacy transport),
 * and the start-up conversation of virtio 1.2 §3.1.1. Shared by every virtio driver.
 *
 * A driver calls, in this order: virtio_find, virtio_begin, virtio_negotiate, virtio_queue_size and
 * virtio_queue_start for each queue, virtio_go. On any failure, and at the end, virtio_down.
 */
#pragma once

#include "core/door.h"
#include "core/virtio/exit.h"

struct ring;

struct virtio_device {
    struct virtio_exit exit; /* how it is let go: all that the exit path sees */
    const struct rich_door *rich;
    bool modern;
    struct reg_window common; /* modern: the common structure; legacy: all of BAR 0 */
    struct reg_window notify;
    struct reg_window config; /* what belongs to the kind of device */
    uint32_t notify_multiplier;
    uint64_t features; /* those that both sides have agreed to */
};

/* How long a device may take to acknowledge a reset when there is no hurry. */
#define VIRTIO_RESET_MS 1000

#define VIRTIO_FEATURE(bit) (1ull << (bit))

static inline bool virtio_has(const struct virtio_device *device, unsigned feature)
{
    return (device->features & VIRTIO_FEATURE(feature)) != 0;
}

/*
 * Finds the registers of a device: the modern transport where it is offered, else the legacy one.
 * Touches nothing but configuration space. `rich` must outlive the device.
 * RESULT_UNSUPPORTED if there is neither, or if a capability lies about where it is.
 */
enum result virtio_find(struct virtio_device *device, const struct rich_door *rich,
                        const struct pci_function *where);

/*
 * Resets the device, whatever state it was left in, and says hello (ACKNOWLEDGE, DRIVER). From here
 * on it counts as live, and virtio_quiesce takes it back.
 * RESULT_TIMEOUT if it does not acknowledge the reset.
 */
enum result virtio_begin(struct virtio_device *device);

/*
 * Agrees on features: those of `wanted` that the device offers, besides VERSION_1, ACCESS_PLATFORM
 * and ORDER_PLATFORM, which every driver takes where offered.
 * RESULT_UNSUPPORTED if a modern device does not offer VERSION_1; RESULT_DEVICE_ERROR if it does
 * not accept what it has offered.
 */
enum result virtio_negotiate(struct virtio_device *device, uint64_t wanted);

/* The number of entries that the device offers for queue `index`; 0 if it has no such queue. */
uint16_t virtio_queue_size(struct virtio_device *device, uint16_t index);

/*
 * Shows the device a ring. From here on it may use the memory (C5).
 * RESULT_DEVICE_ERROR if the device offers another queue than the ring was made for.
 */
enum result virtio_queue_start(struct virtio_device *device, uint16_t index, struct ring *ring);

/* The device may begin: bus mastering on, DRIVER_OK. Not before: a device that was left running, or
 * stuck, has acknowledged a reset before it gets at memory again. RESULT_DEVICE_ERROR if bus
 * mastering cannot be had. */
enum result virtio_go(struct virtio_device *device);

/*
 * virtio_quiesce() for whoever is not in the exit: waits at most `ms` milliseconds, and leaves no
 * way untried to keep a stuck device off the bus, before anybody hears that their buffers are
 * theirs again (C5). Returns whether the device has let go; if not, the log says that `bytes` of
 * memory are lost.
 */
bool virtio_down(struct virtio_device *device, uint64_t ms, size_t bytes);

/*
 * For a restart: resets a live device. Returns whether it has let go of memory. If it acknowledged
 * in time, it counts as live still, and virtio_agree_again() is next; if not, it is down, as after
 * virtio_down().
 */
bool virtio_let_go(struct virtio_device *device, size_t bytes);

/* Agrees on the same features as before, for which the queues were planned; `wanted` is what was
 * asked for then. RESULT_DEVICE_ERROR if the device was not stopped, or offers others now. */
enum result virtio_agree_again(struct virtio_device *device, uint64_t wanted);

/* A restart has failed with `why`: says so, and takes the device down for good. */
void virtio_give_up(struct virtio_device *device, enum result why, size_t bytes);

/* Changes when the device changes its configuration while it is being read: read the value, then
 * the fields, then the value again (virtio 1.2 §2.5.3). Always 0 on the legacy transport. */
uint8_t virtio_config_generation(const struct virtio_device *device);

/* A field of the device's own configuration; 0 if the device's window ends before it. */
uint8_t virtio_config8(const struct virtio_device *device, uint64_t offset);
uint16_t virtio_config16(const struct virtio_device *device, uint64_t offset);
uint32_t virtio_config32(const struct virtio_device *device, uint64_t offset);
