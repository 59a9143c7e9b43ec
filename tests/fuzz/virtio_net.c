// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The network device is the attacker (C9), as in virtio_blk.c: the input says what device it is and
 * what the driver is asked to do, and its rest replaces what the device answers.
 *
 * Nothing may crash, go on without an end, or reach outside the device's windows; a frame that is
 * received lies in the binding's own memory, and a token comes back once at most.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>

#include "core/virtio/net.h"
#include "tests/model/virtio_net.h"

#define FEATURE(bit) (1ull << (bit))
#define SHAPE        6u /* bytes of input that say what the device is */
#define OPERATIONS   60u
#define MEMORY_MOST  (2u << 20)

static unsigned char tokens[256]; /* 1: with the driver */
static unsigned char frame[VNET_FRAME_MAX];

static void check(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "does not hold: %s\n", what);
        abort();
    }
}

static struct vdev_options shape(const uint8_t *bytes)
{
    static const uint16_t sizes[] = {2, 3, 4, 8, 16, 128, 256, 1024};
    static const uint16_t mtus[] = {68, 576, 1500, 65535};
    struct vdev_options options = vnet_usual();

    options.transport = (enum vdev_transport)(bytes[0] % 3);
    options.io_bar = bytes[0] & 0x40;
    options.notices = (enum vdev_notices)((bytes[0] >> 2) % 3);
    options.queue_sizes[VNET_RX] = sizes[bytes[1] % 8];
    options.queue_sizes[VNET_TX] = sizes[(bytes[1] >> 3) % 8];
    options.features = FEATURE(VIRTIO_NET_F_MAC) | FEATURE(VIRTIO_NET_F_STATUS);
    if (bytes[2] & 1)
        options.features |= FEATURE(VIRTIO_RING_F_INDIRECT_DESC);
    if (bytes[2] & 2)
        options.features |= FEATURE(VIRTIO_RING_F_EVENT_IDX);
    if (bytes[2] & 4)
        options.features |= FEATURE(VIRTIO_NET_F_MTU);
    if (bytes[2] & 8)
        options.features |= FEATURE(VIRTIO_F_ANY_LAYOUT);
    vnet.mtu = mtus[bytes[3] % 4];
    vnet.echo = bytes[3] & 4;
    options.reset_reads = bytes[4] < 0xf0 ? bytes[4] % 4 : VDEV_NEVER;
    options.relax_ticks = 5000;
    options.steps_most = 3000000;
    return options;
}

static void send(struct net *net, uint8_t size)
{
    unsigned at = 0;

    while (at < sizeof(tokens) && tokens[at])
        at++;
    check(at < sizeof(tokens), "no more tokens are out than there are slots");
    if (net_send(net, frame, 1 + size * 50u, &tokens[at]) == RESULT_OK)
        tokens[at] = 1;
}

static void take_sent(struct net *net)
{
    void *token;

    while (net_sent(net, &token)) {
        unsigned char *at = token;
        check(at >= tokens && at < tokens + sizeof(tokens), "a token is one that was given");
        check(*at == 1, "a token comes back once");
        *at = 0;
    }
}

static void receive(struct net *net, bool release)
{
    const unsigned char *memory = net->memory.cpu;
    const void *at;
    size_t bytes;

    if (net_received(net, &at, &bytes) != RESULT_OK)
        return;
    const unsigned char *got = at;
    check(bytes <= net->frame_bytes && got >= memory && got + bytes <= memory + net->memory.bytes,
          "a frame lies in the binding's memory");
    memcpy(frame, got, bytes);
    if (release)
        net_release(net);
}

static void use(struct net *net, const uint8_t *operations, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t size = operations[i] >> 3;
        switch (operations[i] % 8) {
        case 0:
        case 1:
            send(net, size);
            break;
        case 2:
            take_sent(net);
            break;
        case 3:
            receive(net, size % 4);
            break;
        case 4:
            vnet_arrive(frame, 1 + size * 60u);
            cpu_relax();
            break;
        case 5:
            for (unsigned k = 0; k < 1u + size * 10u; k++) {
                vdev_skip_ms(NET_LOOK_MS);
                net_look(net, size & 1);
            }
            break;
        case 6:
            cpu_relax();
            break;
        default:
            if (size < 8) {
                (void)net_restart(net);
                memset(tokens, 0, sizeof(tokens));
            } else if (size < 16) {
                (void)net_close(net);
                memset(tokens, 0, sizeof(tokens));
            } else if (size < 29) {
                if (!net->open)
                    (void)net_open(net);
            } else {
                struct poor_door door = {.deadline = clock_ticks() + 50 * VDEV_TICKS_PER_MS};
                vdev_poor(true);
                (void)virtio_quiesce(&net->device.exit, &door);
                vdev_poor(false);
            }
            break;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < SHAPE + OPERATIONS)
        return 0;
    struct vdev_options options = shape(data);
    options.fuzz = data + SHAPE + OPERATIONS;
    size_t fuzz_bytes = size - SHAPE - OPERATIONS;
    /* Three times of four the start is honest, so that much is left to lie about later. */
    options.fuzz_bytes = data[5] % 4 ? 0 : fuzz_bytes;
    model_abort_on_violation = true;
    vdev_hung = abort;
    vdev_plug(&options);
    memset(tokens, 0, sizeof(tokens));

    struct net *net = malloc(sizeof(*net));
    size_t memory_bytes = 0;
    if (!net)
        abort();
    memset(net, 0xcc, sizeof(*net));
    if (net_attach(net, vdev_door(), vdev_where(), &memory_bytes) == RESULT_OK) {
        struct dma_block memory;
        check(memory_bytes != 0 && memory_bytes < MEMORY_MOST, "a binding's memory is bounded");
        dma_share(memory_bytes, &memory);
        if (net_start(net, &memory) == RESULT_OK && net_open(net) == RESULT_OK) {
            vdev_now()->fuzz_bytes = fuzz_bytes;
            use(net, data + SHAPE, OPERATIONS);
        }
        if (net_detach(net))
            dma_unshare(&memory);
    }
    free(net);
    vdev_unplug();
    return 0;
}
