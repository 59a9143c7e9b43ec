// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "tests/unit/net_harness.h"

#define PATIENCE 20000u /* relaxations until something that must come counts as lost */

/* ---- Frames and tokens ---- */

void frame_fill(unsigned char *frame, size_t bytes, unsigned number)
{
    for (size_t i = 0; i < bytes; i++)
        frame[i] = (unsigned char)((i * 7 + number * 31 + bytes) >> (i % 3));
}

bool frame_is(const unsigned char *frame, size_t bytes, unsigned number)
{
    for (size_t i = 0; i < bytes; i++)
        if (frame[i] != (unsigned char)((i * 7 + number * 31 + bytes) >> (i % 3)))
            return false;
    return true;
}

static unsigned char tokens[256]; /* 1: with the driver */
static unsigned next_token, out;

void forget_tokens(void)
{
    memset(tokens, 0, sizeof(tokens));
    out = 0;
}

unsigned tokens_out(void)
{
    return out;
}

enum result send_frame(struct binding *binding, size_t bytes, unsigned number)
{
    /* As long as it is said to be, so that a longer look is noticed; and gone at once. */
    unsigned char *frame = malloc(bytes ? bytes : 1);

    assert_non_null(frame);
    frame_fill(frame, bytes, number);
    while (tokens[next_token % LENGTH(tokens)])
        next_token++;
    unsigned char *token = &tokens[next_token++ % LENGTH(tokens)];
    enum result result = net_send(net_of(binding), frame, bytes, token);
    free(frame);
    if (result == RESULT_OK) {
        *token = 1;
        out++;
    }
    return result;
}

unsigned take_tokens(struct binding *binding)
{
    unsigned count = 0;
    void *token;

    while (net_sent(net_of(binding), &token)) {
        unsigned char *at = token;
        if (at < tokens || at >= tokens + sizeof(tokens) || !*at)
            fail_msg("a token that was not out");
        *at = 0;
        out--;
        count++;
        assert_true(count <= LENGTH(tokens));
    }
    return count;
}

static enum result wait_for_frame(struct binding *binding, const void **frame, size_t *bytes)
{
    enum result result = RESULT_BUSY;

    for (unsigned i = 0; i < PATIENCE && result == RESULT_BUSY; i++) {
        result = net_received(net_of(binding), frame, bytes);
        if (result == RESULT_BUSY)
            cpu_relax();
    }
    return result;
}

void receive_frame(struct binding *binding, size_t bytes, unsigned number)
{
    const void *frame;
    size_t got;

    assert_int_equal(wait_for_frame(binding, &frame, &got), RESULT_OK);
    assert_int_equal(got, bytes);
    assert_true(frame_is(frame, got, number));
    net_release(net_of(binding));
}

static void wait_for_tokens(struct binding *binding)
{
    for (unsigned i = 0; i < PATIENCE && out; i++) {
        take_tokens(binding);
        cpu_relax();
    }
    assert_int_equal(out, 0);
}

void net_work(struct binding *binding)
{
    struct net *net = net_of(binding);
    unsigned char frame[1514];

    for (unsigned i = 0; i < 40; i++) {
        size_t bytes = 14 + (i * 97) % (net->mtu + 1u);
        uint64_t before = vnet_sent();
        size_t last_bytes;

        assert_int_equal(send_frame(binding, bytes, i), RESULT_OK);
        wait_for_tokens(binding);
        assert_int_equal(vnet_sent(), before + 1);
        const unsigned char *last = vnet_last(&last_bytes);
        assert_int_equal(last_bytes, bytes);
        assert_true(frame_is(last, bytes, i));

        bytes = bytes < sizeof(frame) ? bytes : sizeof(frame);
        frame_fill(frame, bytes, i + 1);
        assert_true(vnet_arrive(frame, bytes));
        receive_frame(binding, bytes, i + 1);
    }
}

/* ---- For the tests of every kind ---- */

static void busy(struct binding *binding)
{
    for (unsigned i = 0; i < 2; i++)
        if (net_of(binding)->tx.slots > i)
            assert_int_equal(send_frame(binding, 60 + i, i), RESULT_OK);
    vdev_finish(0);
    assert_true(vdev_in_flight_of(VNET_RX) != 0);
    assert_true(vdev_in_flight_of(VNET_TX) != 0);
}

static void refused(struct binding *binding)
{
    struct net *net = net_of(binding);
    const void *frame;
    size_t bytes;

    take_tokens(binding);
    assert_int_equal(tokens_out(), 0);
    assert_false(net_any_sent(net));
    assert_int_equal(send_frame(binding, 60, 0), RESULT_DEVICE_ERROR);
    assert_int_equal(net_received(net, &frame, &bytes), RESULT_DEVICE_ERROR);
    assert_int_equal(net_look(net, true), RESULT_DEVICE_ERROR);
    net_release(net);
    assert_int_equal(net_restart(net), RESULT_DEVICE_ERROR);
    assert_int_equal(net_open(net), RESULT_DEVICE_ERROR);
    assert_int_equal(net_close(net), RESULT_DEVICE_ERROR);
    assert_int_equal(net_open(net), RESULT_DEVICE_ERROR);
}

/* Frames are copies, and have nobody who waits for a result. */
static void ended(enum result result)
{
    (void)result;
    forget_tokens();
}

static struct vdev_options flavour(unsigned which, const char **name)
{
    static const char *const names[] = {"modern",
                                        "modern, without events",
                                        "transitional",
                                        "legacy",
                                        "legacy, any layout",
                                        "modern, I/O BAR, queues of 2",
                                        "modern, large frames"};
    struct vdev_options options = vnet_usual();

    *name = names[which];
    options.queue_size = 16;
    options.relax_ticks = 2000;
    switch (which) {
    case 1:
        options.features &= ~feature(VIRTIO_RING_F_EVENT_IDX);
        break;
    case 2:
        options.transport = VDEV_TRANSITIONAL;
        break;
    case 3:
        options.transport = VDEV_LEGACY;
        break;
    case 4:
        options.transport = VDEV_LEGACY;
        options.features |= feature(VIRTIO_F_ANY_LAYOUT);
        break;
    case 5:
        options.io_bar = true;
        options.queue_size = 2;
        break;
    case 6:
        options.features |= feature(VIRTIO_NET_F_MTU);
        vnet.mtu = 9000;
        break;
    default:
        break;
    }
    return options;
}

/* A frame that comes is one that was sent; it may also be lost. */
static void try_frames(struct binding *binding)
{
    struct net *net = net_of(binding);

    vnet.echo = true;
    for (unsigned i = 0; i < 12; i++)
        send_frame(binding, 100 + i, i);
    for (unsigned i = 0; i < 300; i++) {
        const void *frame;
        size_t bytes;
        take_tokens(binding);
        if (net_received(net, &frame, &bytes) == RESULT_OK) {
            if (bytes >= 100 && !frame_is(frame, bytes, (unsigned)bytes - 100))
                fail_msg("a frame that nobody sent");
            net_release(net);
        }
        cpu_relax();
    }
    /* A device that does not send at all is given up on. */
    for (unsigned i = 0; out && i < 2 * NET_TIMEOUT_MS / NET_LOOK_MS; i++) {
        vdev_skip_ms(NET_LOOK_MS);
        take_tokens(binding);
    }
    assert_int_equal(out, 0);
}

static void live(struct binding *binding, bool by_exit)
{
    struct net *net = net_of(binding);

    forget_tokens();
    try_frames(binding);
    if (net_restart(net) == RESULT_OK)
        try_frames(binding);
    net_close(net);
    if (net_open(net) == RESULT_OK) {
        try_frames(binding);
        for (unsigned i = 0; i < 4; i++)
            send_frame(binding, 100 + i, i);
    }
    if (by_exit)
        quiesce(binding, 100);
    unbind(binding);
    forget_tokens();
}

/* ---- The driver ---- */

static enum result attach_net(void *driver, const struct rich_door *rich,
                              const struct pci_function *where, size_t *memory_bytes)
{
    return net_attach(driver, rich, where, memory_bytes);
}

static enum result start_net(void *driver, const struct dma_block *memory)
{
    enum result result = net_start(driver, memory);

    return result ? result : net_open(driver);
}

static bool detach_net(void *driver)
{
    return net_detach(driver);
}

const struct test_kind net_test = {
    .name = "virtio-net",
    .bytes = sizeof(struct net),
    .device_at = offsetof(struct net, device),
    .attach = attach_net,
    .start = start_net,
    .detach = detach_net,
    .clean = forget_tokens,
    .usual = vnet_usual,
    .queues_needed = 3,
    .work = net_work,
    .busy = busy,
    .refused = refused,
    .ended = ended,
    .flavours = 7,
    .flavour = flavour,
    .live = live,
    .life_ms = 3 * 2 * NET_TIMEOUT_MS + 12 * VIRTIO_RESET_MS,
};
