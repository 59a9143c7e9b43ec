// SPDX-License-Identifier: BSD-2-Clause-Patent
/* virtio-net: frames both ways, what the device may say and may not, and its restarts (C4, C6, C9).
 */

#include "tests/unit/net_harness.h"

/* How many resets a restart takes: one to stop the device, and one to begin with it again. */
#define RESTART 2u

static const enum vdev_transport transports[] = {VDEV_MODERN, VDEV_TRANSITIONAL, VDEV_LEGACY};

static void begin(struct binding *binding, const struct vdev_options *options)
{
    vdev_plug(options);
    assert_int_equal(bind(binding, &net_test), RESULT_OK);
}

static void end(struct binding *binding)
{
    assert_true(unbind(binding));
    assert_clean();
    vdev_unplug();
    forget_tokens();
}

/* A frame that the driver must find, whatever happened before. */
static void assert_lives(struct binding *binding)
{
    vdev_now()->lie = LIE_NONE;
    vdev_now()->pace = VDEV_IN_ORDER;
    net_work(binding);
    assert_no_violation();
}

/* ---- Frames ---- */

static void frames_of_every_size(void **state)
{
    static const uint64_t layouts[] = {0, feature(VIRTIO_F_ANY_LAYOUT)};
    (void)state;
    for (unsigned k = 0; k < LENGTH(transports) * LENGTH(layouts); k++) {
        struct vdev_options options = vnet_usual();
        struct binding binding;

        options.transport = transports[k % 3];
        options.features |= layouts[k / 3];
        options.pace = VDEV_IN_ORDER;
        begin(&binding, &options);
        for (unsigned bytes = 1; bytes <= 1518; bytes += bytes < 70 || bytes > 1500 ? 1 : 13) {
            unsigned char frame[1518];
            size_t last_bytes;
            assert_int_equal(send_frame(&binding, bytes, bytes), RESULT_OK);
            for (unsigned i = 0; i < 100 && tokens_out(); i++) {
                cpu_relax();
                take_tokens(&binding);
            }
            assert_int_equal(tokens_out(), 0);
            assert_true(frame_is(vnet_last(&last_bytes), bytes, bytes));
            assert_int_equal(last_bytes, bytes);
            frame_fill(frame, bytes, bytes);
            vnet_arrive(frame, bytes);
            receive_frame(&binding, bytes, bytes);
        }
        assert_int_equal(send_frame(&binding, 0, 0), RESULT_OUT_OF_RANGE);
        assert_int_equal(send_frame(&binding, 1519, 0), RESULT_OUT_OF_RANGE);
        assert_int_equal(send_frame(&binding, 100000, 0), RESULT_OUT_OF_RANGE);
        end(&binding);
    }
}

/* A frame stays what and where it is until it is released. Nothing is lost while nobody looks. */
static void a_frame_waits(void **state)
{
    struct vdev_options options = vnet_usual();
    struct binding binding;
    const void *frame, *again;
    unsigned char data[200];
    size_t bytes;
    (void)state;

    options.pace = VDEV_IN_ORDER;
    options.queue_size = 8;
    begin(&binding, &options);
    for (unsigned i = 0; i < 30; i++) {
        frame_fill(data, sizeof(data), i);
        assert_true(vnet_arrive(data, sizeof(data)));
    }
    for (unsigned i = 0; i < 50; i++)
        cpu_relax();
    assert_int_equal(vnet_waiting(), 30 - 8);
    for (unsigned i = 0; i < 30; i++) {
        for (unsigned k = 0; net_received(net_of(&binding), &frame, &bytes) == RESULT_BUSY; k++) {
            assert_true(k < 100);
            cpu_relax();
        }
        for (unsigned k = 0; k < 5; k++) {
            assert_int_equal(net_received(net_of(&binding), &again, &bytes), RESULT_OK);
            assert_ptr_equal(again, frame);
            cpu_relax();
        }
        assert_int_equal(bytes, sizeof(data));
        assert_true(frame_is(frame, bytes, i));
        net_release(net_of(&binding));
        net_release(net_of(&binding)); /* once is enough */
    }
    assert_int_equal(net_received(net_of(&binding), &frame, &bytes), RESULT_BUSY);
    end(&binding);
}

static void no_token_is_lost(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 12; k++) {
        static const enum vdev_pace paces[] = {VDEV_BY_HAND, VDEV_SHUFFLED, VDEV_LAST_FIRST};
        struct vdev_options options = vnet_usual();
        struct binding binding;

        options.transport = transports[k % 3];
        options.pace = paces[k / 4];
        options.queue_size = k % 2 ? 16 : 256;
        begin(&binding, &options);
        unsigned slots = net_of(&binding)->tx.slots;
        for (unsigned round = 0; round < 50; round++) {
            unsigned sent = 0;
            while (send_frame(&binding, 60 + round, sent) == RESULT_OK)
                sent++;
            assert_true(sent <= slots);
            assert_int_equal(tokens_out(), options.pace == VDEV_SHUFFLED ? tokens_out() : slots);
            vdev_finish(1 + test_chance(slots));
            take_tokens(&binding);
        }
        vdev_now()->pace = VDEV_IN_ORDER;
        for (unsigned i = 0; i < 200 && tokens_out(); i++) {
            cpu_relax();
            take_tokens(&binding);
        }
        assert_int_equal(tokens_out(), 0);
        end(&binding);
    }
}

/* Each costs a guest under a hypervisor more than the frame itself. */
static void notifications_are_few(void **state)
{
    static const uint64_t events[] = {feature(VIRTIO_RING_F_EVENT_IDX), 0};
    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        struct vdev_options options = vnet_usual();
        struct binding binding;
        unsigned char data[100];

        options.features = (options.features & ~events[0]) | events[k];
        options.pace = VDEV_IN_ORDER;
        options.notices = VDEV_WANTS_WHEN_IDLE;
        begin(&binding, &options);
        uint64_t before = vdev_counted()->notifications;
        for (unsigned i = 0; i < 1000; i++) {
            frame_fill(data, sizeof(data), i);
            vnet_arrive(data, sizeof(data));
            receive_frame(&binding, sizeof(data), i);
        }
        assert_true(vdev_counted()->notifications - before < 3);
        /* Many frames to send cost one while the device has not come to them, if it can say so. */
        if (k != 0) {
            end(&binding);
            continue;
        }
        vdev_now()->pace = VDEV_BY_HAND;
        before = vdev_counted()->notifications;
        for (unsigned i = 0; i < 32; i++)
            assert_int_equal(send_frame(&binding, 100, i), RESULT_OK);
        assert_true(vdev_counted()->notifications - before < 3);
        end(&binding);
    }
}

/* Frames that come while the device is busy are told of together, when it has done what it had; or
 * by whoever asks for it, if nobody calls. None is forgotten. */
static void frames_wait_for_a_busy_device(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 4; k++) {
        struct vdev_options options = vnet_usual();
        struct binding binding;
        struct net *net;

        options.transport = transports[k % 3];
        options.pace = VDEV_BY_HAND;
        if (k == 3)
            options.features &= ~feature(VIRTIO_RING_F_EVENT_IDX);
        begin(&binding, &options);
        net = net_of(&binding);
        uint64_t before = vdev_counted()->notifications;
        for (unsigned i = 0; i < 10; i++)
            assert_int_equal(send_frame(&binding, 100, i), RESULT_OK);
        assert_int_equal(vdev_counted()->notifications, before + 1);
        assert_true(net_untold(net));
        assert_int_equal(vdev_finish(1), 1);
        assert_int_equal(vdev_counted()->notifications, before + 1);
        assert_int_equal(take_tokens(&binding), 1);
        /* It has seen them by now, and can say so if there are events. */
        assert_int_equal(vdev_counted()->notifications, before + 1 + (k == 3));
        assert_false(net_untold(net));
        assert_int_equal(vdev_finish(100), 9);
        assert_int_equal(take_tokens(&binding), 9);

        assert_int_equal(send_frame(&binding, 100, 1), RESULT_OK);
        assert_int_equal(send_frame(&binding, 100, 2), RESULT_OK);
        assert_true(net_untold(net));
        before = vdev_counted()->notifications;
        net_tell(net);
        net_tell(net);
        /* One that has not yet come since it was last told will find them, too. */
        assert_int_equal(vdev_counted()->notifications, before + (k == 3));
        assert_int_equal(vdev_finish(100), 2);
        assert_int_equal(take_tokens(&binding), 2);
        assert_false(net_untold(net));
        assert_lives(&binding);
        assert_int_equal(send_frame(&binding, 100, 1), RESULT_OK);
        assert_true(quiesce(&binding, 100));
        net_tell(net); /* nothing happens (C4) */
        forget_tokens();
        end(&binding);
    }
}

/* The device's wish to hear crosses the frame that it would have heard of: it waits, and so do we.
 * The next look makes up for it, in both directions. */
static void a_notification_that_got_lost(void **state)
{
    static const uint64_t events[] = {feature(VIRTIO_RING_F_EVENT_IDX), 0};
    (void)state;
    for (unsigned k = 0; k < 4; k++) {
        struct vdev_options options = vnet_usual();
        struct binding binding;
        const void *frame;
        size_t bytes;

        options.features = (options.features & ~events[0]) | events[k % 2];
        options.pace = VDEV_BY_HAND;
        begin(&binding, &options);
        vdev_finish(0);
        struct ring *ring = k < 2 ? &net_of(&binding)->tx : &net_of(&binding)->rx;
        uint16_t *event = (uint16_t *)(void *)&ring->used->ring[ring->size];
        uint16_t flags = ring->used->flags, wish = *event;
        /* What we see of the ring is not yet what the device has written there. */
        ring->used->flags = VRING_USED_F_NO_NOTIFY;
        *event = (uint16_t)(wish - 1);
        uint64_t before = vdev_counted()->notifications;
        if (k < 2) {
            assert_int_equal(send_frame(&binding, 60, 1), RESULT_OK);
        } else {
            vnet_arrive("a frame that is long enough", 20);
            vdev_finish(1);
            *event = (uint16_t)(wish - 1);
            ring->used->flags = VRING_USED_F_NO_NOTIFY;
            assert_int_equal(net_received(net_of(&binding), &frame, &bytes), RESULT_OK);
            net_release(net_of(&binding));
        }
        assert_int_equal(vdev_counted()->notifications, before);
        ring->used->flags = flags;
        *event = wish;
        take_tokens(&binding);
        assert_int_equal(vdev_counted()->notifications, before);
        vdev_skip_ms(NET_LOOK_MS);
        take_tokens(&binding);
        /* Without events, a queue in which nothing happens looks the same, and costs one, too. */
        assert_int_equal(vdev_counted()->notifications, before + 1 + k % 2 * (k < 2));
        vdev_finish(1);
        take_tokens(&binding);
        vdev_skip_ms(NET_LOOK_MS);
        net_look(net_of(&binding), false);
        if (options.features & feature(VIRTIO_RING_F_EVENT_IDX))
            assert_int_equal(vdev_counted()->notifications, before + 1);
        assert_lives(&binding);
        end(&binding);
    }
}

static void mtu(void **state)
{
    static const uint16_t mtus[] = {68, 576, 1280, 1492, 1500, 9000, 65535};
    (void)state;
    for (unsigned k = 0; k < LENGTH(mtus); k++) {
        struct vdev_options options = vnet_usual();
        struct binding binding;

        options.features |= feature(VIRTIO_NET_F_MTU);
        vnet.mtu = mtus[k];
        options.pace = VDEV_IN_ORDER;
        begin(&binding, &options);
        assert_int_equal(net_of(&binding)->mtu, mtus[k]);
        assert_true(binding.memory_bytes < 600u << 10);
        assert_true(net_of(&binding)->rx.slots >= 3);
        assert_int_equal(send_frame(&binding, mtus[k] + 14u, 1), RESULT_OK);
        assert_int_equal(send_frame(&binding, mtus[k] + 19u, 1), RESULT_OUT_OF_RANGE);
        for (unsigned i = 0; i < 20; i++) {
            cpu_relax();
            take_tokens(&binding);
        }
        net_work(&binding);
        end(&binding);
    }
}

/* ---- What it is told of the device ---- */

static void the_device_must_have_an_address(void **state)
{
    struct vdev_options options = vnet_usual();
    (void)state;

    memset(vnet.mac, 0, sizeof(vnet.mac));
    assert_true(refused_start(&net_test, "address zero", &options, RESULT_UNSUPPORTED));
    options = vnet_usual();
    vnet.mac[0] |= 1;
    assert_true(refused_start(&net_test, "a group's address", &options, RESULT_UNSUPPORTED));
    options = vnet_usual();
    memset(vnet.mac, 0xff, sizeof(vnet.mac));
    assert_true(refused_start(&net_test, "everybody's address", &options, RESULT_UNSUPPORTED));
    options = vnet_usual();
    options.features &= ~feature(VIRTIO_NET_F_MAC);
    assert_true(refused_start(&net_test, "no address", &options, RESULT_UNSUPPORTED));
    options = vnet_usual();
    options.features |= feature(VIRTIO_NET_F_MTU);
    for (vnet.mtu = 0; vnet.mtu < 68; vnet.mtu++)
        assert_true(refused_start(&net_test, "a tiny MTU", &options, RESULT_UNSUPPORTED));
    /* Half a megabyte of ring for a legacy device's taste. */
    options = vnet_usual();
    options.transport = VDEV_LEGACY;
    options.queue_size = 32768;
    assert_true(refused_start(&net_test, "huge queues", &options, RESULT_UNSUPPORTED));
}

static void the_link(void **state)
{
    (void)state;
    for (unsigned k = 0; k < LENGTH(transports); k++) {
        struct vdev_options options = vnet_usual();
        struct binding binding;
        struct net *net;

        options.transport = transports[k];
        options.pace = VDEV_IN_ORDER;
        begin(&binding, &options);
        net = net_of(&binding);
        assert_true(net->link_known && net->link_up);
        vnet_link(false);
        uint64_t reads = vdev_counted()->reads;
        assert_int_equal(net_look(net, false), RESULT_OK);
        assert_true(net->link_up); /* looking costs, and it is not time yet */
        assert_int_equal(vdev_counted()->reads, reads);
        assert_int_equal(net_look(net, true), RESULT_OK);
        assert_false(net->link_up);
        vnet_link(true);
        vdev_skip_ms(NET_LOOK_MS);
        take_tokens(&binding);
        assert_true(net->link_up);
        assert_int_equal(net_close(net), RESULT_OK);
        vnet_link(false);
        assert_int_equal(net_look(net, true), RESULT_OK);
        assert_false(net->link_up);
        vnet_link(true);
        assert_int_equal(net_open(net), RESULT_OK);
        assert_true(net->link_up);
        assert_lives(&binding);
        end(&binding);

        options.features &= ~feature(VIRTIO_NET_F_STATUS);
        vnet_link(false);
        begin(&binding, &options);
        assert_false(net_of(&binding)->link_known);
        assert_true(net_of(&binding)->link_up);
        end(&binding);
    }
}

/* ---- Lies and failures ---- */

static void lies(void **state)
{
    static const int told[] = {LIE_ID_OUT_OF_RANGE, LIE_ID_HUGE,     LIE_ID_OF_NOBODY,
                               LIE_ID_TWICE,        LIE_INDEX_JUMPS, LIE_INDEX_BACK,
                               LIE_LENGTH,          LIE_LENGTH_HUGE, LIE_SHORTER_THAN_HEADER,
                               LIE_NOTHING_WRITTEN, LIE_NEEDS_RESET};
    (void)state;
    for (unsigned k = 0; k < LENGTH(told) * LENGTH(transports) * 2; k++) {
        struct vdev_options options = vnet_usual();
        struct binding binding;
        unsigned char data[300];
        const void *frame;
        size_t bytes;

        options.transport = transports[k % 3];
        options.lie_queue = k / 3 % 2 ? VNET_TX : VNET_RX;
        options.lie = told[k / 6];
        options.lies = 1;
        options.pace = VDEV_IN_ORDER;
        /* A receive buffer is given back to the device before its second id is seen: nobody can
         * tell that from another frame. */
        if (options.lie == LIE_ID_TWICE && options.lie_queue == VNET_RX)
            continue;
        /* How much was written into what is only read is nobody's business. */
        bool matters =
            options.lie_queue == VNET_RX ||
            (options.lie != LIE_LENGTH && options.lie != LIE_LENGTH_HUGE &&
             options.lie != LIE_SHORTER_THAN_HEADER && options.lie != LIE_NOTHING_WRITTEN);
        begin(&binding, &options);
        uint64_t resets = vdev_counted()->resets;
        for (unsigned i = 0; i < 3; i++) {
            frame_fill(data, sizeof(data), i);
            vnet_arrive(data, sizeof(data));
            assert_int_equal(send_frame(&binding, 100, i), RESULT_OK);
        }
        for (unsigned i = 0; i < 200; i++) {
            cpu_relax();
            take_tokens(&binding);
            enum result result = net_received(net_of(&binding), &frame, &bytes);
            if (result == RESULT_OK) {
                assert_true(bytes <= net_of(&binding)->frame_bytes);
                net_release(net_of(&binding));
            } else {
                assert_int_equal(result, RESULT_BUSY);
            }
            if (i == 100)
                vdev_skip_ms(NET_LOOK_MS);
        }
        /* However it lied, what it was given to send has come back. */
        assert_int_equal(tokens_out(), 0);
        if (vdev_counted()->resets - resets != (matters ? RESTART : 0))
            fail_msg("lie %u in queue %u: %llu resets", options.lie, options.lie_queue,
                     (unsigned long long)(vdev_counted()->resets - resets));
        assert_true(!matters || vdev_counted()->logs > 0);
        while (vnet_waiting() || net_received(net_of(&binding), &frame, &bytes) == RESULT_OK) {
            net_release(net_of(&binding));
            cpu_relax();
        }
        assert_lives(&binding);
        end(&binding);
    }
}

static void a_frame_that_is_never_sent(void **state)
{
    (void)state;
    for (unsigned k = 0; k < LENGTH(transports); k++) {
        struct vdev_options options = vnet_usual();
        struct binding binding;

        options.transport = transports[k];
        options.pace = VDEV_BY_HAND;
        begin(&binding, &options);
        for (unsigned i = 0; i < 5; i++)
            assert_int_equal(send_frame(&binding, 60, i), RESULT_OK);
        uint64_t since = vdev_time(), resets = vdev_counted()->resets;
        while (take_tokens(&binding) == 0) {
            assert_true(vdev_time() - since < 3 * NET_TIMEOUT_MS * MS);
            assert_int_equal(vdev_counted()->resets, resets);
            vdev_skip_ms(1);
        }
        assert_true(vdev_time() - since >= NET_TIMEOUT_MS * MS);
        assert_int_equal(vdev_counted()->resets, resets + RESTART);
        assert_int_equal(tokens_out(), 0);
        assert_lives(&binding);
        end(&binding);
    }
}

/* One that sends slowly is not given up, nor one that was stopped together with the machine; and
 * what it has done counts, even if nobody has asked. */
static void a_slow_device_is_left_alone(void **state)
{
    struct vdev_options options = vnet_usual();
    struct binding binding;
    (void)state;

    options.pace = VDEV_BY_HAND;
    begin(&binding, &options);
    uint64_t resets = vdev_counted()->resets;
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(send_frame(&binding, 60, i), RESULT_OK);
    for (unsigned i = 0; i < 20; i++) {
        for (unsigned ms = 0; ms < NET_TIMEOUT_MS - 500; ms += NET_LOOK_MS) {
            vdev_skip_ms(NET_LOOK_MS);
            net_look(net_of(&binding), false);
        }
        assert_int_equal(vdev_finish(1), 1);
        assert_int_equal(take_tokens(&binding), 1);
    }
    assert_int_equal(send_frame(&binding, 60, 0), RESULT_OK);
    for (unsigned i = 0; i < 10; i++) {
        vdev_skip_ms(3600000);
        net_look(net_of(&binding), true);
    }
    assert_int_equal(vdev_finish(1), 1);
    for (unsigned i = 0; i < 2 * NET_TIMEOUT_MS / NET_LOOK_MS; i++) {
        vdev_skip_ms(NET_LOOK_MS);
        net_look(net_of(&binding), false);
    }
    assert_int_equal(vdev_counted()->resets, resets);
    assert_int_equal(take_tokens(&binding), 1);
    end(&binding);
}

static void a_device_that_comes_back_as_another(void **state)
{
    static const int told[] = {LIE_OTHER_FEATURES, LIE_SMALLER_QUEUE};
    (void)state;
    for (unsigned k = 0; k < LENGTH(told); k++) {
        struct vdev_options options = vnet_usual();
        struct binding binding;
        const void *frame;
        size_t bytes;

        options.lie = told[k];
        options.pace = VDEV_BY_HAND;
        begin(&binding, &options);
        assert_int_equal(send_frame(&binding, 60, 1), RESULT_OK);
        vdev_break();
        vdev_skip_ms(NET_LOOK_MS);
        assert_int_equal(net_received(net_of(&binding), &frame, &bytes), RESULT_DEVICE_ERROR);
        assert_int_equal(vdev_status(), 0);
        assert_false(vdev_live());
        /* Even so: what was given away comes back. */
        assert_int_equal(take_tokens(&binding), 1);
        assert_int_equal(send_frame(&binding, 60, 1), RESULT_DEVICE_ERROR);
        end(&binding);
    }
}

/* ---- Open and closed ---- */

static void nothing_moves_while_it_is_closed(void **state)
{
    (void)state;
    for (unsigned k = 0; k < LENGTH(transports); k++) {
        struct vdev_options options = vnet_usual();
        struct binding binding;
        unsigned char data[100] = {0};
        const void *frame;
        size_t bytes;

        options.transport = transports[k];
        options.pace = VDEV_BY_HAND;
        begin(&binding, &options);
        assert_int_equal(send_frame(&binding, 60, 1), RESULT_OK);
        vnet_arrive(data, sizeof(data));
        vdev_finish(100);
        assert_int_equal(net_close(net_of(&binding)), RESULT_OK);
        forget_tokens();
        /* The device has let go: what it still tries, it tries in vain. */
        uint64_t changes = vdev_counted()->shown_changes;
        vdev_master_on();
        vnet_arrive(data, sizeof(data));
        vdev_last_gasp();
        assert_false(vdev_live());
        assert_int_equal(vdev_counted()->shown_changes, changes);
        assert_int_equal(take_tokens(&binding), 0);
        assert_false(net_any_sent(net_of(&binding)));
        assert_int_equal(send_frame(&binding, 60, 1), RESULT_DEVICE_ERROR);
        assert_int_equal(net_received(net_of(&binding), &frame, &bytes), RESULT_DEVICE_ERROR);
        net_release(net_of(&binding));
        assert_int_equal(net_open(net_of(&binding)), RESULT_OK);
        vdev_finish(1);
        assert_int_equal(net_received(net_of(&binding), &frame, &bytes), RESULT_OK);
        net_release(net_of(&binding));
        assert_lives(&binding);

        /* And the exit finds it closed. */
        assert_int_equal(net_close(net_of(&binding)), RESULT_OK);
        assert_true(quiesce(&binding, 100));
        assert_int_equal(vdev_status(), 0);
        net_test.refused(&binding);
        assert_int_equal(vdev_status(), 0);
        end(&binding);
    }
}

static void open_and_close_a_thousand_times(void **state)
{
    struct vdev_options options = vnet_usual();
    struct binding binding;
    (void)state;

    options.pace = VDEV_IN_ORDER;
    begin(&binding, &options);
    for (unsigned i = 0; i < 1000; i++) {
        if (i % 100 == 0)
            net_work(&binding);
        assert_int_equal(send_frame(&binding, 60, i), RESULT_OK);
        if (i % 3 == 0) {
            assert_int_equal(net_restart(net_of(&binding)), RESULT_OK);
        } else {
            assert_int_equal(net_close(net_of(&binding)), RESULT_OK);
            assert_int_equal(net_open(net_of(&binding)), RESULT_OK);
        }
        /* What was on its way is lost, and its token is not told. */
        forget_tokens();
        assert_int_equal(take_tokens(&binding), 0);
    }
    assert_lives(&binding);
    end(&binding);
}

/* Closing takes a reset. If that is refused, the memory is the device's for good (C5). */
static void a_device_that_does_not_close(void **state)
{
    struct vdev_options options = vnet_usual();
    struct binding binding;
    (void)state;

    begin(&binding, &options);
    vdev_now()->reset_reads = VDEV_NEVER;
    assert_int_equal(net_close(net_of(&binding)), RESULT_DEVICE_ERROR);
    assert_int_equal(device_of(&binding)->exit.state, VIRTIO_STUCK);
    assert_false(vdev_master());
    assert_int_equal(net_open(net_of(&binding)), RESULT_DEVICE_ERROR);
    assert_false(unbind(&binding));
    assert_no_violation();
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(frames_of_every_size, unplug),
        cmocka_unit_test_teardown(a_frame_waits, unplug),
        cmocka_unit_test_teardown(no_token_is_lost, unplug),
        cmocka_unit_test_teardown(notifications_are_few, unplug),
        cmocka_unit_test_teardown(frames_wait_for_a_busy_device, unplug),
        cmocka_unit_test_teardown(a_notification_that_got_lost, unplug),
        cmocka_unit_test_teardown(mtu, unplug),
        cmocka_unit_test_teardown(the_device_must_have_an_address, unplug),
        cmocka_unit_test_teardown(the_link, unplug),
        cmocka_unit_test_teardown(lies, unplug),
        cmocka_unit_test_teardown(a_frame_that_is_never_sent, unplug),
        cmocka_unit_test_teardown(a_slow_device_is_left_alone, unplug),
        cmocka_unit_test_teardown(a_device_that_comes_back_as_another, unplug),
        cmocka_unit_test_teardown(nothing_moves_while_it_is_closed, unplug),
        cmocka_unit_test_teardown(open_and_close_a_thousand_times, unplug),
        cmocka_unit_test_teardown(a_device_that_does_not_close, unplug),
    };
    return cmocka_run_group_tests_name("virtio-net", tests, NULL, NULL);
}
