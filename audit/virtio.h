/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* A virtio device's registers, modern and legacy (virtio 1.2 §4.1), as an onlooker reads them. */
#pragma once

#include "audit/devices.h"

/* Finds the register blocks. Reads configuration space only. */
void virtio_find(struct device *device);

uint8_t virtio_status(const struct device *device);
/* A bit for each queue that the device would use. Leaves queue 0 selected. */
uint64_t virtio_queues(const struct device *device);
unsigned virtio_notify(const struct device *device);

/* Calls shared_add() for the rings of the enabled queues, and for the buffers that the device has
 * been given and not given back. */
void virtio_share(const struct device *device);

/* By devices.c: puts down one piece, if it lies in memory. */
void shared_add(const struct device *device, uint64_t base, uint64_t size, unsigned access,
                const char *what, unsigned number);

/* Whether this range is memory, so that it may be read. */
bool shared_is_memory(uint64_t base, uint64_t size);
