// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * virtio-net (virtio 1.2 §5.1): one receive queue, one transmit queue, frames as they are.
 *
 *   net_attach(), net_start()     the device is met, and given its memory
 *   net_open()                    it receives and transmits
 *   net_received(), net_send(), … frames
 *   net_close()                   it does neither, and has let go of the memory
 *   virtio_quiesce(&net.device.exit, …)   the exit, through the poor door
 *   net_detach()                  the device goes down, its memory comes back
 *
 * Frames are copied into and out of the binding's own memory: nothing is mapped for a frame, the
 * device never sees a caller's buffer, and what it writes too late hits nobody else's memory.
 *
 * None of these functions may be entered while another of the same device runs: the caller keeps
 * them apart (under UEFI, by TPL_NOTIFY).
 *
 * Every function but net_sent() answers RESULT_DEVICE_ERROR, for good, once the exit has let the
 * device go (C4), or when it did not come back after a reset.
 */
#pragma once

#include "core/virtio/device.h"
#include "core/virtio/ring.h"

#define NET_MAC_BYTES    6u
#define NET_HEADER_BYTES 14u /* Ethernet's: destination, source, type */

struct net {
    struct virtio_device device;
    struct ring rx, tx;
    struct dma_block memory; /* rx ring, tx ring, rx buffers, tx buffers */
    bool open;

    uint8_t mac[NET_MAC_BYTES];
    uint16_t mtu;         /* bytes after the Ethernet header */
    bool link_known;      /* the device says whether the link is up */
    bool link_up;         /* as it said when last looked at; true where it does not say */
    uint32_t frame_bytes; /* the longest frame that a buffer has room for, VLAN tag included */

    bool rx_held; /* a frame is with the caller, or waits for it: */
    unsigned rx_slot;
    uint32_t rx_bytes;

    uint64_t tx_done;                /* slots that are over, and whose token is still to be told */
    void *tx_tokens[RING_SLOTS_MAX]; /* whose frame is in which slot */

    uint64_t look_at; /* when to look next at the link, and whether the device has failed */
    uint16_t looks_in_vain;
    uint16_t tx_seen; /* tx.used_next at the last look */
};

/*
 * Meets the device: finds its registers, agrees on features, reads its address, and plans the
 * queues. On success *memory_bytes is what net_start() needs. The device has seen no memory yet.
 * On failure the device has been reset, if it could be found and would let itself be.
 * RESULT_UNSUPPORTED for, among others, a device without an address of its own: one that was made
 * up would be another one at each start, and so would be the firmware's boot options that name it.
 * `rich` must outlive the binding.
 */
enum result net_attach(struct net *net, const struct rich_door *rich,
                       const struct pci_function *where, size_t *memory_bytes);

/* Gives the driver its memory until net_detach() returns it. The device does not see it yet. */
enum result net_start(struct net *net, const struct dma_block *memory);

/* Shows the device its rings and posts every receive buffer. On failure it may have seen them. */
enum result net_open(struct net *net);

/* Resets the device; frames on their way are lost, tokens with them. It is as after net_attach().
 */
enum result net_close(struct net *net);

/* Resets the device and opens it again. If it fails, it is down for good. */
enum result net_restart(struct net *net);

/*
 * The frame that has waited longest: stays where it is, and the same one, until net_release() gives
 * its buffer back to the device. The device should not write there any more, but could: read once
 * (C9). RESULT_BUSY if there is none. A frame may be of any length up to frame_bytes, even 0.
 */
enum result net_received(struct net *net, const void **frame, size_t *bytes);
void net_release(struct net *net);

/*
 * Sends a frame, which the caller may then forget; the token comes back from net_sent() when the
 * device is done. RESULT_BUSY if neither the device nor net_sent() has left room: then net_sent()
 * makes some. RESULT_OUT_OF_RANGE if it is longer than frame_bytes or empty.
 */
enum result net_send(struct net *net, const void *frame, size_t bytes, void *token);

/*
 * While the device is busy with frames, it is not told of more: each time costs more than a frame.
 * It finds them by itself, or is told by the next call for a frame when it has done what it had.
 * Whoever makes no such call sees to it here, a moment after net_untold() was true.
 */
bool net_untold(const struct net *net);
void net_tell(struct net *net);

/* Whether a frame has been sent, and its token. Frames that were lost because the device had to be
 * reset, or was let go by the exit, count as sent: the network loses some as well. */
bool net_sent(struct net *net, void **token);
/* Whether net_sent() has something to tell. */
bool net_any_sent(const struct net *net);

/*
 * Sees to what needs time: whether the link is up, whether the device has failed, whether a frame
 * that it was given is overdue (C6), in which case it is restarted. Costs two register reads, but
 * not more often than each NET_LOOK_MS, unless it is to be done `now`. The functions for frames
 * call it.
 */
enum result net_look(struct net *net, bool now);

/* How old net.link_up may get while frames move. */
#define NET_LOOK_MS 20
/* How long the device may take over a frame. */
#define NET_TIMEOUT_MS 5000

/*
 * Takes the device down: reset within the bound. Returns whether the device has let go. If not, its
 * memory must never be reused (C5), and the log has said so.
 */
bool net_detach(struct net *net);
