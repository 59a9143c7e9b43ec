// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "core/virtio/net.h"

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>

enum { RX_QUEUE, TX_QUEUE };

/* A frame's tag for virtual LANs, which no MTU counts. */
#define VLAN_BYTES 4u
/* IPv4 needs links of no less (RFC 791); nor may a device say less (§5.1.4.1). */
#define MTU_MIN     68u
#define MTU_DEFAULT 1500u
/* Buffers of one direction. Enough for all slots, but of very large frames. */
#define BUFFERS_BYTES_MAX (256u << 10)
/* The most shared memory that a binding takes. Only legacy queues of many thousand entries, whose
 * size is not ours to choose, could want more. */
#define MEMORY_MAX (1024u << 10)
#define PAGE       4096u

#define FEATURES                                                                                   \
    (VIRTIO_FEATURE(VIRTIO_NET_F_MAC) | VIRTIO_FEATURE(VIRTIO_NET_F_STATUS) |                      \
     VIRTIO_FEATURE(VIRTIO_NET_F_MTU) | VIRTIO_FEATURE(VIRTIO_F_ANY_LAYOUT) |                      \
     VIRTIO_FEATURE(VIRTIO_RING_F_EVENT_IDX))

static void net_log(const struct net *net, const char *sentence, uint64_t number)
{
    net->device.rich->log(net->device.rich->context, sentence, number);
}

/* ---- Where things are ---- */

static size_t page_up(size_t bytes)
{
    return (bytes + PAGE - 1) & ~(size_t)(PAGE - 1);
}

/* num_buffers, the last field, is there on the modern transport, and always 1 where buffers are not
 * merged (§5.1.6). */
static uint32_t header_bytes(const struct net *net)
{
    return net->device.modern ? sizeof(struct virtio_net_hdr_v1) : sizeof(struct virtio_net_hdr);
}

static size_t buffer_bytes(const struct net *net)
{
    return (header_bytes(net) + net->frame_bytes + 15u) & ~15u;
}

static size_t tx_ring_offset(const struct net *net)
{
    return page_up(ring_bytes(&net->rx));
}

static size_t buffer_offset(const struct net *net, const struct ring *ring, unsigned slot)
{
    size_t before = ring == &net->tx ? net->rx.slots : 0;

    return tx_ring_offset(net) + page_up(ring_bytes(&net->tx)) +
           (before + slot) * buffer_bytes(net);
}

static unsigned char *frame_of(const struct net *net, const struct ring *ring, unsigned slot)
{
    return (unsigned char *)net->memory.cpu + buffer_offset(net, ring, slot) + header_bytes(net);
}

/* ---- Attach ---- */

static enum result read_config(struct net *net)
{
    const struct virtio_device *device = &net->device;
    unsigned sum = 0;

    if (!virtio_has(device, VIRTIO_NET_F_MAC)) {
        net_log(net, "the device has no address of its own; its features are", device->features);
        return RESULT_UNSUPPORTED;
    }
    /* Nothing of this changes while a driver is there (§5.1.4): no generations. */
    for (unsigned i = 0; i < NET_MAC_BYTES; i++)
        sum |= net->mac[i] = virtio_config8(device, offsetof(struct virtio_net_config, mac) + i);
    if (sum == 0 || net->mac[0] & 1) {
        net_log(net, "the device's address is zero, or a group's; it begins with", net->mac[0]);
        return RESULT_UNSUPPORTED;
    }
    net->mtu = MTU_DEFAULT;
    if (virtio_has(device, VIRTIO_NET_F_MTU))
        net->mtu = virtio_config16(device, offsetof(struct virtio_net_config, mtu));
    if (net->mtu < MTU_MIN) {
        net_log(net, "the device's MTU is less than any network's; it is", net->mtu);
        return RESULT_UNSUPPORTED;
    }
    net->frame_bytes = net->mtu + NET_HEADER_BYTES + VLAN_BYTES;
    net->link_known = virtio_has(device, VIRTIO_NET_F_STATUS);
    return RESULT_OK;
}

static enum result plan_queue(struct net *net, uint16_t index, struct ring *ring)
{
    struct virtio_device *device = &net->device;
    uint16_t offered = virtio_queue_size(device, index);
    /* Legacy devices may insist on a header that has a descriptor to itself (§5.1.6.6). */
    uint16_t chain = device->modern || virtio_has(device, VIRTIO_F_ANY_LAYOUT) ? 1 : 2;
    size_t fit = BUFFERS_BYTES_MAX / buffer_bytes(net);

    enum result result = ring_plan(ring, offered, chain, device->features, device->modern);
    if (result)
        net_log(net, "no frame fits the queue; its size is", offered);
    else if (ring->slots > fit)
        ring->slots = (uint16_t)fit;
    return result;
}

static void look_at_link(struct net *net)
{
    if (net->link_known)
        net->link_up = virtio_config16(&net->device, offsetof(struct virtio_net_config, status)) &
                       VIRTIO_NET_S_LINK_UP;
}

enum result net_attach(struct net *net, const struct rich_door *rich,
                       const struct pci_function *where, size_t *memory_bytes)
{
    *net = (struct net){.link_up = true};

    enum result result = virtio_find(&net->device, rich, where);
    if (!result)
        result = virtio_begin(&net->device);
    if (!result)
        result = virtio_negotiate(&net->device, FEATURES);
    if (!result)
        result = read_config(net);
    if (!result)
        result = plan_queue(net, RX_QUEUE, &net->rx);
    if (!result)
        result = plan_queue(net, TX_QUEUE, &net->tx);
    if (!result) {
        look_at_link(net);
        *memory_bytes = buffer_offset(net, &net->tx, net->tx.slots);
        if (*memory_bytes > MEMORY_MAX) {
            net_log(net,
                    "the queues would take more memory than they are worth, bytes:", *memory_bytes);
            result = RESULT_UNSUPPORTED;
        }
    }
    if (result)
        virtio_down(&net->device, VIRTIO_RESET_MS, 0);
    return result;
}

enum result net_start(struct net *net, const struct dma_block *memory)
{
    net->memory = *memory;
    return RESULT_OK;
}

/* ---- Open, close, restart ---- */

/* Hands a slot to the device, with `bytes` of room, or of frame, behind the header. */
static void post(struct net *net, struct ring *ring, unsigned slot, uint32_t bytes)
{
    struct vring_desc *desc = ring_descriptors(ring, slot);
    uint64_t address = net->memory.address + buffer_offset(net, ring, slot);
    uint16_t flags = ring == &net->rx ? VRING_DESC_F_WRITE : 0;
    uint32_t header = header_bytes(net);

    if (ring->chain == 1) {
        desc[0] = (struct vring_desc){.addr = address, .len = header + bytes, .flags = flags};
    } else {
        desc[0] = (struct vring_desc){.addr = address, .len = header, .flags = flags};
        desc[1] = (struct vring_desc){.addr = address + header, .len = bytes, .flags = flags};
    }
    ring_post(ring, slot, ring->chain);
}

static void next_look(struct net *net)
{
    net->look_at = deadline_in_ms(net->device.rich, NET_LOOK_MS);
}

/* From a device that has just been agreed with to one that moves frames. */
static enum result set_going(struct net *net)
{
    struct dma_block half = net->memory;

    ring_init(&net->rx, &half);
    half.cpu = (unsigned char *)half.cpu + tx_ring_offset(net);
    half.address += tx_ring_offset(net);
    ring_init(&net->tx, &half);
    net->rx_held = false;
    net->looks_in_vain = 0;
    net->tx_seen = 0;
    next_look(net);

    enum result result = virtio_queue_start(&net->device, RX_QUEUE, &net->rx);
    if (!result)
        result = virtio_queue_start(&net->device, TX_QUEUE, &net->tx);
    if (result)
        return result;
    for (unsigned slot = 0; slot < net->rx.slots; slot++)
        post(net, &net->rx, slot, net->frame_bytes);
    result = virtio_go(&net->device);
    if (result)
        return result;
    look_at_link(net);
    ring_notify(&net->rx);
    net->open = true;
    return RESULT_OK;
}

/* Resets the device and agrees with it again; sets it going if it is to be `open`. */
static enum result reset(struct net *net, bool open)
{
    net->open = false;
    if (net->device.exit.state != VIRTIO_LIVE)
        return RESULT_DEVICE_ERROR;
    virtio_let_go(&net->device, net->memory.bytes);
    enum result result = virtio_agree_again(&net->device, FEATURES);
    if (!result && open)
        result = set_going(net);
    if (result)
        virtio_give_up(&net->device, result, net->memory.bytes);
    return result;
}

enum result net_open(struct net *net)
{
    if (net->device.exit.state != VIRTIO_LIVE)
        return RESULT_DEVICE_ERROR;
    net->tx_done = 0;
    enum result result = set_going(net);
    /* What it has seen of the memory by now, a reset takes back. */
    if (result)
        reset(net, false);
    return result;
}

enum result net_close(struct net *net)
{
    net->tx_done = net->tx.busy = 0;
    return reset(net, false);
}

enum result net_restart(struct net *net)
{
    net->tx_done = net->tx.busy = 0;
    return reset(net, true);
}

/* What the device had of ours counts as sent. */
static void give_back(struct net *net)
{
    net->tx_done |= net->tx.busy;
    net->tx.busy = 0;
}

/* A device that has failed, or lied. */
static enum result recover(struct net *net)
{
    give_back(net);
    return reset(net, true);
}

enum result net_look(struct net *net, bool now)
{
    if (net->device.exit.state != VIRTIO_LIVE) {
        give_back(net);
        return RESULT_DEVICE_ERROR;
    }
    bool due = deadline_passed(net->look_at);
    if (!due && !now)
        return RESULT_OK;
    look_at_link(net);
    if (!net->open)
        return RESULT_OK;

    uint8_t status = reg_read8(&net->device.exit.status, 0);
    if (status & VIRTIO_CONFIG_S_NEEDS_RESET) {
        net_log(net, "the device says that it has failed; its status is", status);
        return recover(net);
    }
    if (!due)
        return RESULT_OK;
    next_look(net);
    if (!ring_ready(&net->rx))
        ring_remind(&net->rx);
    /* Time is counted in looks: a machine that was stopped for an hour and goes on does not blame
     * its network card. What has come back, and nobody has taken, is not missed either. */
    if (net->tx.busy == 0 || ring_ready(&net->tx) || net->tx.used_next != net->tx_seen) {
        net->looks_in_vain = 0;
    } else if (++net->looks_in_vain == NET_TIMEOUT_MS / NET_LOOK_MS) {
        net_log(net, "a frame has not been sent for this many milliseconds:", NET_TIMEOUT_MS);
        return recover(net);
    } else {
        ring_remind(&net->tx);
    }
    net->tx_seen = net->tx.used_next;
    return RESULT_OK;
}

/* ---- Frames ---- */

static enum result usable(struct net *net)
{
    enum result result = net_look(net, false);

    if (result || !net->open)
        return RESULT_DEVICE_ERROR;
    if (ring_untold(&net->tx) && ring_idle(&net->tx))
        ring_notify(&net->tx);
    return RESULT_OK;
}

enum result net_received(struct net *net, const void **frame, size_t *bytes)
{
    enum result result = usable(net);
    uint32_t written = 0;

    if (result)
        return result;
    if (!net->rx_held) {
        enum ring_event event = ring_take(&net->rx, &net->rx_slot, &written);
        if (event == RING_EMPTY)
            return RESULT_BUSY;
        if (event == RING_BROKEN) {
            net_log(net, "the receive queue makes no sense, at index", net->rx.used_next);
            result = recover(net);
            return result ? result : RESULT_BUSY;
        }
        if (written < header_bytes(net) || written - header_bytes(net) > net->frame_bytes) {
            net_log(net, "the device says that it received a frame of an impossible length; bytes",
                    written);
            result = recover(net);
            return result ? result : RESULT_BUSY;
        }
        net->rx_held = true;
        net->rx_bytes = written - header_bytes(net);
    }
    *frame = frame_of(net, &net->rx, net->rx_slot);
    *bytes = net->rx_bytes;
    return RESULT_OK;
}

void net_release(struct net *net)
{
    if (!net->rx_held || !net->open || net->device.exit.state != VIRTIO_LIVE)
        return;
    net->rx_held = false;
    post(net, &net->rx, net->rx_slot, net->frame_bytes);
    ring_notify(&net->rx);
}

enum result net_send(struct net *net, const void *frame, size_t bytes, void *token)
{
    enum result result = usable(net);

    if (result)
        return result;
    if (bytes == 0 || bytes > net->frame_bytes)
        return RESULT_OUT_OF_RANGE;
    uint64_t room = ~(net->tx.busy | net->tx_done);
    unsigned slot = room ? (unsigned)__builtin_ctzll(room) : RING_SLOTS_MAX;
    if (slot >= net->tx.slots)
        return RESULT_BUSY;

    unsigned char *to = frame_of(net, &net->tx, slot);
    /* No offloads: a header of zeroes (§5.1.6.2). */
    __builtin_memset(to - header_bytes(net), 0, header_bytes(net));
    __builtin_memcpy(to, frame, bytes);
    net->tx_tokens[slot] = token;
    bool idle = ring_idle(&net->tx);
    post(net, &net->tx, slot, (uint32_t)bytes);
    if (idle)
        ring_notify(&net->tx);
    return RESULT_OK;
}

bool net_untold(const struct net *net)
{
    return net->open && net->device.exit.state == VIRTIO_LIVE && ring_untold(&net->tx);
}

void net_tell(struct net *net)
{
    if (net_untold(net))
        ring_notify(&net->tx);
}

bool net_any_sent(const struct net *net)
{
    return net->tx_done != 0 ||
           (net->open && net->device.exit.state == VIRTIO_LIVE && ring_ready(&net->tx));
}

bool net_sent(struct net *net, void **token)
{
    unsigned slot;
    uint32_t written; /* by a device that had nothing to write: of no interest */

    if (net->tx_done == 0 && usable(net) == RESULT_OK) {
        enum ring_event event = ring_take(&net->tx, &slot, &written);
        if (event == RING_USED) {
            net->tx_done |= 1ull << slot;
        } else if (event == RING_BROKEN) {
            net_log(net, "the transmit queue makes no sense, at index", net->tx.used_next);
            recover(net);
        }
    }
    if (net->tx_done == 0)
        return false;
    slot = (unsigned)__builtin_ctzll(net->tx_done);
    net->tx_done &= net->tx_done - 1;
    *token = net->tx_tokens[slot];
    return true;
}

/* ---- Detach ---- */

bool net_detach(struct net *net)
{
    net->open = false;
    return virtio_down(&net->device, VIRTIO_RESET_MS, net->memory.bytes);
}
