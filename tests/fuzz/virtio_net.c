// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The network device is the attacker (C9), as in virtio_blk.c: the input says what device it is and
 * what the driver is asked to do, and its rest replaces what the device answers.
 *
 * Nothing may crash, go on without an end, or reach outside the device's windows; a frame that is
 * received lies in the binding's own memory, and a token comes back once at most.
 */

#include <linux/virtio_net.h>

#include "core/virtio/net.h"
#include "tests/fuzz/virtio.h"
#include "tests/model/virtio_net.h"

#define SHAPE       6u /* bytes of input that say what the device is */
#define OPERATIONS  60u
#define MEMORY_MOST (2u << 20)

static unsigned char tokens[256]; /* 1: with the driver */
static unsigned char frame[VNET_FRAME_MAX];

static struct vdev_options shape(const uint8_t *bytes)
{
    static const uint16_t mtus[] = {68, 576, 1500, 65535};
    struct vdev_options options = vnet_usual();

    memset(tokens, 0, sizeof(tokens));
    options.queue_sizes[VNET_RX] = fuzz_queue_size(bytes[1]);
    options.queue_sizes[VNET_TX] = fuzz_queue_size(bytes[1] >> 3u);
    options.features = FEATURE(VIRTIO_NET_F_MAC) | FEATURE(VIRTIO_NET_F_STATUS);
    fuzz_shape(&options, bytes);
    if (bytes[2] & 4)
        options.features |= FEATURE(VIRTIO_NET_F_MTU);
    if (bytes[2] & 8)
        options.features |= FEATURE(VIRTIO_F_ANY_LAYOUT);
    vnet.mtu = mtus[bytes[3] % 4];
    vnet.echo = bytes[3] & 4;
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

static void use(void *driver, const uint8_t *operations, size_t count)
{
    struct net *net = driver;

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
                fuzz_exit(&net->device.exit);
            }
            break;
        }
    }
}

static enum result attach(void *driver, size_t *memory_bytes)
{
    return net_attach(driver, vdev_door(), vdev_where(), memory_bytes);
}

static enum result start(void *driver, const struct dma_block *memory)
{
    enum result result = net_start(driver, memory);

    return result ? result : net_open(driver);
}

static bool detach(void *driver)
{
    return net_detach(driver);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_kind kind = {
        .shape = SHAPE,
        .operations = OPERATIONS,
        .honesty_at = 5,
        .driver_bytes = sizeof(struct net),
        .memory_most = MEMORY_MOST,
        .device = shape,
        .attach = attach,
        .start = start,
        .use = use,
        .detach = detach,
    };
    return fuzz_life(&kind, data, size);
}
