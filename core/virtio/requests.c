// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "core/virtio/requests.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

static struct requests *requests_of(struct pieces *pieces)
{
    return (struct requests *)(void *)((char *)pieces - offsetof(struct requests, pieces));
}

static void requests_log(const struct requests *requests, const char *sentence, uint64_t number)
{
    requests->device.rich->log(requests->device.rich->context, sentence, number);
}

/* ---- Coming up ---- */

static const struct pieces_ops pieces_ops;

enum result requests_attach(struct requests *requests, const struct requests_ops *ops,
                            const struct rich_door *rich, const struct pci_function *where,
                            uint64_t wanted)
{
    *requests = (struct requests){.ops = ops, .wanted = wanted};
    pieces_init(&requests->pieces, &pieces_ops, rich, RING_SLOTS_MAX);

    enum result result = virtio_find(&requests->device, rich, where);
    if (!result)
        result = virtio_begin(&requests->device);
    return result ? result : virtio_negotiate(&requests->device, wanted);
}

enum result requests_plan(struct requests *requests, uint16_t queue, uint16_t offered,
                          uint16_t chain, uint32_t slot_bytes, size_t *memory_bytes)
{
    const struct virtio_device *device = &requests->device;
    enum result result =
        ring_plan(&requests->ring, offered, chain, device->features, device->modern);

    if (result) {
        requests_log(requests, "no request fits the queue; its size is", offered);
        return result;
    }
    requests->queue = queue;
    requests->slot_bytes = slot_bytes;
    *memory_bytes = ring_bytes(&requests->ring) + (size_t)requests->ring.slots * slot_bytes;
    if (*memory_bytes > REQUESTS_MEMORY_MAX) {
        requests_log(requests,
                     "the queue would take more memory than it is worth, bytes:", *memory_bytes);
        return RESULT_UNSUPPORTED;
    }
    return RESULT_OK;
}

static enum result start(struct requests *requests)
{
    ring_init(&requests->ring, &requests->memory);
    enum result result = virtio_queue_start(&requests->device, requests->queue, &requests->ring);
    if (!result && requests->ops->start)
        result = requests->ops->start(requests);
    if (!result)
        result = virtio_go(&requests->device);
    return result;
}

enum result requests_start(struct requests *requests, const struct dma_block *memory)
{
    requests->memory = *memory;
    return start(requests);
}

/* ---- On their way to the device ---- */

void *requests_own(const struct requests *requests, unsigned slot, uint64_t *address)
{
    size_t offset = ring_bytes(&requests->ring) + (size_t)slot * requests->slot_bytes;

    if (address)
        *address = requests->memory.address + offset;
    return (unsigned char *)requests->memory.cpu + offset;
}

size_t requests_map(struct requests *requests, unsigned slot, const struct io_request *request,
                    enum dma_direction direction, size_t grain, size_t most)
{
    const struct rich_door *rich = requests->device.rich;
    struct dma_mapping *mapping = &requests->mappings[slot];
    size_t left = request->bytes - request->issued;
    size_t piece = left < most ? left : most;

    mapping->bytes = 0;
    for (piece -= piece % grain; piece != 0; piece = piece / 2 - piece / 2 % grain) {
        if (rich->map(rich->context, direction, (unsigned char *)request->buffer + request->issued,
                      piece, mapping) == RESULT_OK) {
            size_t whole = mapping->bytes - mapping->bytes % grain;
            if (whole != 0 && whole == mapping->bytes)
                return whole;
            /* Part of a block too much: the next piece begins there, and two mappings of one byte
             * could each bring back their own idea of it. */
            rich->unmap(rich->context, mapping);
            if (whole != 0) {
                piece = 2 * whole; /* which the loop halves */
                continue;
            }
        }
        /* What is in flight will give its mappings back; then there may be more room. */
        if (requests->ring.busy != 0)
            break;
    }
    return 0;
}

unsigned requests_describe(const struct requests *requests, unsigned slot, struct vring_desc *desc,
                           uint16_t flags)
{
    const struct dma_mapping *mapping = &requests->mappings[slot];
    unsigned count = 0;

    for (size_t at = 0; at < mapping->bytes;) {
        size_t left = mapping->bytes - at;
        uint32_t part = left < requests->segment_bytes ? (uint32_t)left : requests->segment_bytes;
        count += ring_describe(&desc[count], mapping->address + at, part, flags);
        at += part;
    }
    return count;
}

void requests_send(struct requests *requests, unsigned slot, struct io_request *request,
                   uint32_t bytes, unsigned count)
{
    pieces_begin(&requests->pieces, slot, request, bytes);
    ring_post(&requests->ring, slot, count);
}

static enum post post(struct pieces *pieces, struct io_request *request)
{
    return requests_of(pieces)->ops->post(requests_of(pieces), request);
}

static void issue(struct requests *requests)
{
    uint16_t before = requests->ring.avail_next;

    pieces_issue(&requests->pieces);
    if (requests->ring.avail_next != before)
        ring_notify(&requests->ring);
}

enum result requests_submit(struct requests *requests, struct io_request *request)
{
    /* Given up, or let go by the exit: then nothing may wake it up again (C4). */
    if (requests->device.exit.state != VIRTIO_LIVE)
        return RESULT_DEVICE_ERROR;
    pieces_submit(&requests->pieces, request);
    issue(requests);
    return RESULT_OK;
}

/* ---- And on their way back ---- */

static void release(struct pieces *pieces, unsigned slot, enum result result, bool let_go)
{
    struct requests *requests = requests_of(pieces);
    const struct rich_door *rich = requests->device.rich;

    /* A device that may still use the mapping: then that is left as it is (C5). */
    if (let_go && requests->mappings[slot].bytes != 0)
        rich->unmap(rich->context, &requests->mappings[slot]);
    if (requests->ops->release)
        requests->ops->release(requests, slot, result);
}

static const struct pieces_ops pieces_ops = {.post = post, .release = release};

/* If the exit has let the device go, what it cut off still waits to be told. It may be asked: an
 * ExitBootServices that fails comes back to callers who wait. */
static bool still_live(struct requests *requests)
{
    enum virtio_state state = requests->device.exit.state;

    if (state == VIRTIO_LIVE)
        return true;
    pieces_fail(&requests->pieces, RESULT_DEVICE_ERROR, state == VIRTIO_DORMANT);
    return false;
}

enum result requests_restart(struct requests *requests, enum result why)
{
    struct virtio_device *device = &requests->device;

    if (!still_live(requests))
        return RESULT_DEVICE_ERROR;
    pieces_fail(&requests->pieces, why, virtio_let_go(device, requests->memory.bytes));
    enum result result = virtio_agree_again(device, requests->wanted);
    if (!result)
        result = start(requests);
    if (result)
        virtio_give_up(device, result, requests->memory.bytes);
    return result;
}

bool requests_take(struct requests *requests)
{
    enum ring_event event;
    unsigned slot;
    uint32_t written;

    while ((event = ring_take(&requests->ring, &slot, &written)) == RING_USED) {
        enum result result = RESULT_DEVICE_ERROR;
        if (!requests->ops->collect(requests, slot, written, &result))
            return false;
        pieces_finish(&requests->pieces, slot, result, true);
    }
    if (event == RING_BROKEN)
        requests_log(requests, "the device's used ring makes no sense, at index",
                     requests->ring.used_next);
    return event != RING_BROKEN;
}

/* Whether something in flight gives reason to reset the device, and what its callers are told. */
static bool failing(struct requests *requests, enum result *why)
{
    if (!pieces_look_due(&requests->pieces))
        return false;

    uint8_t status = reg_read8(&requests->device.exit.status, 0);
    if (status & VIRTIO_CONFIG_S_NEEDS_RESET) {
        requests_log(requests, "the device says that it has failed; its status is", status);
        *why = RESULT_DEVICE_ERROR;
        return true;
    }
    struct io_request *late = pieces_overdue(&requests->pieces);
    if (!late) {
        ring_remind(&requests->ring);
        return false;
    }
    requests_log(requests, "a request has not been answered for this many milliseconds:",
                 late->timeout_ms ? late->timeout_ms : PIECE_TIMEOUT_MS);
    *why = RESULT_TIMEOUT;
    return !requests->ops->abort || !requests->ops->abort(requests, late);
}

void requests_poll(struct requests *requests)
{
    enum result why = RESULT_DEVICE_ERROR;

    if (!still_live(requests))
        return;
    bool sane = requests_take(requests);
    if (sane)
        issue(requests);
    if (!sane || failing(requests, &why))
        requests_restart(requests, why);
}

bool requests_ready(const struct requests *requests)
{
    return requests->device.exit.state == VIRTIO_LIVE && ring_ready(&requests->ring);
}

bool requests_detach(struct requests *requests)
{
    bool let_go = virtio_down(&requests->device, VIRTIO_RESET_MS, requests->memory.bytes);

    pieces_fail(&requests->pieces, RESULT_ABORTED, let_go);
    return let_go;
}
