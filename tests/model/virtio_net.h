// SPDX-License-Identifier: BSD-2-Clause-Patent
/* A virtio network device (virtio 1.2 §5.1) and its wire, for the model in virtio_device.h. */
#pragma once

#include "tests/model/virtio_device.h"

extern const struct vdev_kind vnet_kind;

/* Lies about frames, besides those of every kind. */
enum {
    LIE_SHORTER_THAN_HEADER = LIE_OF_KIND,
    LIE_NOTHING_WRITTEN,
    LIE_NET_END,
};

enum { VNET_RX, VNET_TX };

#define VNET_FRAME_MAX 65600u

/* What the next device says of itself, and this one. vnet_usual() sets it anew. */
extern struct vnet_card {
    uint8_t mac[6];
    uint16_t status, mtu;
    bool echo; /* what is sent comes back */
} vnet;

struct vdev_options vnet_usual(void);

/* A frame comes in. It waits until there is a buffer; false if too many do. */
bool vnet_arrive(const void *frame, size_t bytes);
unsigned vnet_waiting(void);
/* The link's state changes, and the device says so. */
void vnet_link(bool up);

/* The frames that went out: how many there were, and the last one. */
uint64_t vnet_sent(void);
const unsigned char *vnet_last(size_t *bytes);
