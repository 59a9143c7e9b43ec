// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "tests/model/virtio_net.h"
#include "tests/model/virtio_kind.h"

#include <stdlib.h>
#include <string.h>

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#define WAITING_MAX 256u
#define ETHERNET    14u
#define VLAN        4u

struct vnet_card vnet;

struct frame {
    size_t bytes;
    unsigned char data[];
};

static struct frame *wire[WAITING_MAX]; /* on their way in */
static unsigned wire_first, wire_count;
static unsigned char last[VNET_FRAME_MAX];
static size_t last_bytes;
static uint64_t sent;

/* ---- The wire ---- */

static void plug(void)
{
    sent = 0;
    last_bytes = 0;
}

static struct frame *wire_take(void)
{
    struct frame *frame = wire[wire_first];

    wire[wire_first] = NULL;
    wire_first = (wire_first + 1) % WAITING_MAX;
    wire_count--;
    return frame;
}

static void unplug(void)
{
    while (wire_count)
        free(wire_take());
}

bool vnet_arrive(const void *data, size_t bytes)
{
    struct frame *frame;

    if (wire_count == WAITING_MAX)
        return false;
    frame = malloc(sizeof(*frame) + bytes);
    if (!frame)
        abort();
    frame->bytes = bytes;
    memcpy(frame->data, data, bytes);
    wire[(wire_first + wire_count++) % WAITING_MAX] = frame;
    return true;
}

unsigned vnet_waiting(void)
{
    return wire_count;
}

void vnet_link(bool up)
{
    vnet.status = up ? VIRTIO_NET_S_LINK_UP : 0;
    vdev_config_changed();
}

uint64_t vnet_sent(void)
{
    return sent;
}

const unsigned char *vnet_last(size_t *bytes)
{
    *bytes = last_bytes;
    return last;
}

/* ---- Configuration (§5.1.4) ---- */

static uint32_t config_read(uint64_t offset, unsigned bytes)
{
    if (offset < sizeof(vnet.mac))
        return vdev_config_field(offset, bytes, 1, VIRTIO_NET_F_MAC, vnet.mac[offset]);
    switch (offset) {
    case offsetof(struct virtio_net_config, status):
        return vdev_config_field(offset, bytes, 2, VIRTIO_NET_F_STATUS, vnet.status);
    case offsetof(struct virtio_net_config, mtu):
        return vdev_config_field(offset, bytes, 2, VIRTIO_NET_F_MTU, vnet.mtu);
    default:
        vdev_breach("read of configuration %#llx", (unsigned long long)offset);
        return 0;
    }
}

/* ---- Frames ---- */

/* §5.1.6: a legacy driver that does not merge buffers leaves the last field out. */
static uint32_t header_bytes(void)
{
    return vdev_uses_legacy() && !vdev_accepted(VIRTIO_NET_F_MRG_RXBUF)
               ? sizeof(struct virtio_net_hdr)
               : sizeof(struct virtio_net_hdr_v1);
}

static uint32_t frame_most(void)
{
    return ETHERNET + VLAN + (vdev_accepted(VIRTIO_NET_F_MTU) ? vnet.mtu : 1500u);
}

static bool accept(struct vdev_chain *chain)
{
    uint64_t bytes = chain->readable + chain->writable, header = header_bytes();
    struct virtio_net_hdr_v1 sent_header = {0};

    if (chain->queue > VNET_TX || (chain->queue == VNET_RX ? chain->readable : chain->writable)) {
        vdev_breach("buffers of the wrong kind in queue %u", chain->queue);
        return false;
    }
    if (bytes < header) {
        vdev_breach("a buffer of %llu bytes", (unsigned long long)bytes);
        return false;
    }
    if (!vdev_any_layout() && (chain->segments < 2 || chain->segment[0].bytes != header))
        vdev_breach("a legacy header that shares its descriptor");
    if (chain->queue == VNET_RX) {
        if (bytes < header + frame_most() - VLAN)
            vdev_breach("a buffer that not every frame fits into (§5.1.6.3.1)");
        return true;
    }
    if (bytes > header + frame_most())
        vdev_breach("a frame of %llu bytes", (unsigned long long)(bytes - header));
    vdev_copy(chain, false, 0, &sent_header, header);
    if (sent_header.flags != 0 || sent_header.gso_type != VIRTIO_NET_HDR_GSO_NONE)
        vdev_breach("offloads that were not negotiated");
    return true;
}

static bool ready(const struct vdev_chain *chain)
{
    return chain->queue == VNET_TX || wire_count != 0;
}

static uint32_t receive(struct vdev_chain *chain)
{
    struct virtio_net_hdr_v1 header = {.num_buffers = 1};
    uint32_t head = header_bytes();
    size_t room = (size_t)chain->writable - head;

    if (wire_count == 0) { /* it is about to be reset, and does what it likes */
        static const unsigned char junk[64] = {0xba, 0xdf, 0x00, 0xd5};
        vdev_copy(chain, true, 0, (void *)(uintptr_t)junk, head);
        return head;
    }
    struct frame *frame = wire_take();
    /* A frame that does not fit is dropped, and the buffer used for something else. */
    size_t bytes = frame->bytes < room ? frame->bytes : 0;
    if (frame->bytes == room)
        bytes = room;
    vdev_copy(chain, true, 0, &header, head);
    if (bytes)
        vdev_copy(chain, true, head, frame->data, bytes);
    free(frame);
    if (vdev_lie(chain, LIE_SHORTER_THAN_HEADER))
        return head - 1;
    if (vdev_lie(chain, LIE_NOTHING_WRITTEN))
        return 0;
    return head + (uint32_t)bytes;
}

static uint32_t transmit(struct vdev_chain *chain)
{
    uint32_t head = header_bytes();
    size_t bytes = (size_t)chain->readable - head;

    if (bytes > sizeof(last))
        bytes = sizeof(last);
    vdev_copy(chain, false, head, last, bytes);
    last_bytes = bytes;
    sent++;
    if (vnet.echo && vnet.status & VIRTIO_NET_S_LINK_UP)
        vnet_arrive(last, bytes);
    return 0;
}

static uint32_t serve(struct vdev_chain *chain)
{
    return chain->queue == VNET_RX ? receive(chain) : transmit(chain);
}

/* ---- The kind ---- */

const struct vdev_kind vnet_kind = {
    .name = "virtio-net",
    .device_id = 0x1041,
    .transitional_id = 0x1000,
    .queues = 3, /* one for control, which no driver has to use */
    .config_bytes = sizeof(struct virtio_net_config),
    .features = VDEV_FEATURE(VIRTIO_NET_F_MAC) | VDEV_FEATURE(VIRTIO_NET_F_STATUS) |
                VDEV_FEATURE(VIRTIO_NET_F_CSUM) | VDEV_FEATURE(VIRTIO_NET_F_GUEST_CSUM) |
                VDEV_FEATURE(VIRTIO_NET_F_GUEST_TSO4) | VDEV_FEATURE(VIRTIO_NET_F_MRG_RXBUF) |
                VDEV_FEATURE(VIRTIO_NET_F_CTRL_VQ),
    .fickle_features = VDEV_FEATURE(VIRTIO_NET_F_STATUS),
    .lies = LIE_NET_END - LIE_OF_KIND,
    .plug = plug,
    .unplug = unplug,
    .config_read = config_read,
    .accept = accept,
    .ready = ready,
    .serve = serve,
};

struct vdev_options vnet_usual(void)
{
    vnet = (struct vnet_card){
        .mac = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56},
        .status = VIRTIO_NET_S_LINK_UP,
        .mtu = 1500,
    };
    return vdev_usual(&vnet_kind);
}
