// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Frames through the network driver, with tokens that are told apart. */
#pragma once

#include <linux/virtio_net.h>

#include "core/virtio/net.h"
#include "tests/model/virtio_net.h"
#include "tests/unit/harness.h"

extern const struct test_kind net_test;

static inline struct net *net_of(const struct binding *binding)
{
    return binding->driver;
}

/* A frame of this number and length; every byte depends on both. */
void frame_fill(unsigned char *frame, size_t bytes, unsigned number);
bool frame_is(const unsigned char *frame, size_t bytes, unsigned number);

/* Sends a frame; its token is taken back by take_tokens(), which knows what is out. */
enum result send_frame(struct binding *binding, size_t bytes, unsigned number);
/* Takes back what there is; each token must be out. Returns how many. */
unsigned take_tokens(struct binding *binding);
unsigned tokens_out(void);
void forget_tokens(void);

/* Waits for a frame, compares it, and releases it. */
void receive_frame(struct binding *binding, size_t bytes, unsigned number);

/* Both ways, on a device that works by itself. */
void net_work(struct binding *binding);
