// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "core/virtio/blk.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

/* Where the device limits its segments (SIZE_MAX; where it does not, a piece is one segment and
 * SEG_MAX does not matter). Sixteen of 4 KiB make requests of 64 KiB. */
#define SEGMENTS_MAX 16u
/* The data that a queue of two entries carries at a time, if the blocks are no larger. */
#define BOUNCE_BYTES 4096u

#define STATUS_NOT_WRITTEN 0xff

/* Each slot's own shared memory: header, room for bounced data (usually none), status. Bounced data
 * lies between the two so that it can share a descriptor with either. */
#define SLOT_HEADER sizeof(struct virtio_blk_outhdr)
#define SLOT_STATUS 16u /* one byte, and what keeps the next header aligned */

static struct blk *blk_of(struct disk *disk)
{
    return (struct blk *)(void *)((char *)disk - offsetof(struct blk, disk));
}

static struct blk *blk_of_requests(struct requests *requests)
{
    return (struct blk *)(void *)((char *)requests - offsetof(struct blk, requests));
}

static void blk_log(const struct blk *blk, const char *sentence, uint64_t number)
{
    blk->requests.device.rich->log(blk->requests.device.rich->context, sentence, number);
}

/* ---- Attach ---- */

static enum result read_config(struct blk *blk)
{
    const struct virtio_device *device = &blk->requests.device;
    struct disk_info *info = &blk->disk.info;
    uint64_t capacity = UINT64_MAX, before;
    uint32_t block_size, physical_exponent;
    uint8_t generation;
    unsigned tries = 0;

    do {
        if (++tries > 16) {
            blk_log(blk, "the device's configuration does not stand still; reads", tries - 1);
            return RESULT_DEVICE_ERROR;
        }
        generation = virtio_config_generation(device);
        before = capacity;
        capacity = virtio_config32(device, offsetof(struct virtio_blk_config, capacity));
        capacity |=
            (uint64_t)virtio_config32(device, offsetof(struct virtio_blk_config, capacity) + 4)
            << 32;
        block_size = DISK_SECTOR;
        if (virtio_has(device, VIRTIO_BLK_F_BLK_SIZE))
            block_size = virtio_config32(device, offsetof(struct virtio_blk_config, blk_size));
        blk->requests.segment_bytes = 0;
        if (virtio_has(device, VIRTIO_BLK_F_SIZE_MAX))
            blk->requests.segment_bytes =
                virtio_config32(device, offsetof(struct virtio_blk_config, size_max));
        physical_exponent = 0;
        if (virtio_has(device, VIRTIO_BLK_F_TOPOLOGY)) {
            physical_exponent =
                virtio_config8(device, offsetof(struct virtio_blk_config, physical_block_exp));
            info->lowest_aligned_block =
                virtio_config8(device, offsetof(struct virtio_blk_config, alignment_offset));
            info->optimal_transfer_blocks =
                virtio_config32(device, offsetof(struct virtio_blk_config, opt_io_size));
        }
        /* A legacy device has no generation; two equal readings have to do (§2.5.4). */
    } while (generation != virtio_config_generation(device) ||
             (!device->modern && capacity != before));

    if (!disk_block_size(block_size)) {
        blk_log(blk, "the block size is not a power of two from 512 to 65536:", block_size);
        return RESULT_UNSUPPORTED;
    }
    info->block_size = block_size;
    info->blocks = capacity / (block_size / DISK_SECTOR);
    if (info->blocks == 0) {
        blk_log(blk, "the disk is empty; its capacity in sectors is", capacity);
        return RESULT_NO_MEDIA;
    }
    info->blocks_per_physical = physical_exponent < 16 ? 1u << physical_exponent : 1;
    info->read_only = virtio_has(device, VIRTIO_BLK_F_RO);
    info->write_cache = virtio_has(device, VIRTIO_BLK_F_FLUSH);
    return RESULT_OK;
}

/* Decides how a request is cut up: descriptors in a slot, bytes in a descriptor and in a request.
 */
static enum result plan(struct blk *blk, size_t *memory_bytes)
{
    const struct virtio_device *device = &blk->requests.device;
    uint32_t block_size = blk->disk.info.block_size;
    uint16_t offered = virtio_queue_size(&blk->requests.device, 0);
    uint32_t segments = 1;

    if (offered < 2) {
        blk_log(blk, "the request queue is too small; its size is", offered);
        return RESULT_UNSUPPORTED;
    }
    if (blk->requests.segment_bytes == 0) {
        blk->requests.segment_bytes = REQUESTS_PIECE_MAX;
    } else if (virtio_has(device, VIRTIO_BLK_F_SEG_MAX)) {
        segments = virtio_config32(device, offsetof(struct virtio_blk_config, seg_max));
        if (segments > SEGMENTS_MAX)
            segments = SEGMENTS_MAX;
        if (segments == 0)
            segments = 1;
    }
    /* Header and status take a descriptor each. */
    if (segments + 2 > offered)
        segments = offered - 2u;

    if (segments == 0) {
        /* A queue of two: data has to share its descriptor with the header or the status, which
         * needs a device that does not insist on the old framing (§2.7.4). */
        if (!device->modern && !virtio_has(device, VIRTIO_F_ANY_LAYOUT)) {
            blk_log(blk, "a request does not fit the queue; its size is", offered);
            return RESULT_UNSUPPORTED;
        }
        blk->bounce_bytes = block_size > BOUNCE_BYTES ? block_size : BOUNCE_BYTES;
        blk->piece_bytes = blk->bounce_bytes;
        if (blk->piece_bytes + SLOT_STATUS > blk->requests.segment_bytes)
            blk->piece_bytes = blk->requests.segment_bytes > SLOT_STATUS
                                   ? blk->requests.segment_bytes - SLOT_STATUS
                                   : 0;
        blk->piece_bytes &= ~(block_size - 1);
    } else {
        uint64_t most = (uint64_t)segments * blk->requests.segment_bytes;
        blk->piece_bytes = most < REQUESTS_PIECE_MAX ? (uint32_t)most : REQUESTS_PIECE_MAX;
        blk->piece_bytes &= ~(block_size - 1);
    }
    if (blk->piece_bytes == 0) {
        blk_log(blk, "a block does not fit the device's segments; their size is",
                blk->requests.segment_bytes);
        return RESULT_UNSUPPORTED;
    }

    return requests_plan(&blk->requests, 0, offered, (uint16_t)(segments + 2),
                         SLOT_HEADER + blk->bounce_bytes + SLOT_STATUS, memory_bytes);
}

static const struct disk_ops blk_ops;
static const struct requests_ops blk_requests;

enum result blk_attach(struct blk *blk, const struct rich_door *rich,
                       const struct pci_function *where, size_t *memory_bytes)
{
    *blk = (struct blk){.disk = {.ops = &blk_ops}};

    enum result result = requests_attach(
        &blk->requests, &blk_requests, rich, where,
        VIRTIO_FEATURE(VIRTIO_BLK_F_SIZE_MAX) | VIRTIO_FEATURE(VIRTIO_BLK_F_SEG_MAX) |
            VIRTIO_FEATURE(VIRTIO_BLK_F_RO) | VIRTIO_FEATURE(VIRTIO_BLK_F_BLK_SIZE) |
            VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH) | VIRTIO_FEATURE(VIRTIO_BLK_F_TOPOLOGY) |
            VIRTIO_FEATURE(VIRTIO_BLK_F_GEOMETRY) | /* for who asks for it: a PC BIOS */
            VIRTIO_FEATURE(VIRTIO_F_ANY_LAYOUT) | VIRTIO_FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |
            VIRTIO_FEATURE(VIRTIO_RING_F_EVENT_IDX));
    if (!result)
        result = read_config(blk);
    if (!result)
        result = plan(blk, memory_bytes);
    if (result)
        virtio_down(&blk->requests.device, VIRTIO_RESET_MS, 0);
    return result;
}

enum result blk_start(struct blk *blk, const struct dma_block *memory)
{
    return requests_start(&blk->requests, memory);
}

/* ---- Requests on their way to the device ---- */

/* Sends one device request: a flush, or the next part of a transfer, which is mapped, or else
 * bounced. */
static void send(struct blk *blk, unsigned slot, struct disk_request *request, uint32_t bytes)
{
    static const uint32_t types[] = {
        [DISK_READ] = VIRTIO_BLK_T_IN,
        [DISK_WRITE] = VIRTIO_BLK_T_OUT,
        [DISK_FLUSH] = VIRTIO_BLK_T_FLUSH,
    };
    uint64_t address;
    unsigned char *own = requests_own(&blk->requests, slot, &address);
    unsigned char *status = own + SLOT_HEADER + blk->bounce_bytes;
    uint64_t status_address = address + SLOT_HEADER + blk->bounce_bytes;
    uint32_t out = SLOT_HEADER, in = 1;
    struct vring_desc *desc = ring_descriptors(&blk->requests.ring, slot);
    unsigned count = 0;

    *(struct virtio_blk_outhdr *)(void *)own = (struct virtio_blk_outhdr){
        .type = types[request->op],
        .sector =
            request->op == DISK_FLUSH ? 0 : request->sector + request->base.issued / DISK_SECTOR,
    };
    blk->bounce_to[slot] = NULL;
    if (blk->bounce_bytes != 0 && request->op == DISK_WRITE) {
        __builtin_memcpy(own + SLOT_HEADER,
                         (unsigned char *)request->base.buffer + request->base.issued, bytes);
        out += bytes;
    } else if (blk->bounce_bytes != 0 && request->op == DISK_READ) {
        /* The status follows the data at once, wherever that ends. */
        blk->bounce_to[slot] = (unsigned char *)request->base.buffer + request->base.issued;
        in += bytes;
        status_address = address + SLOT_HEADER;
        status = own + SLOT_HEADER + bytes;
    }
    *status = STATUS_NOT_WRITTEN;

    count += ring_describe(&desc[count], address, out, 0);
    count += requests_describe(&blk->requests, slot, &desc[count],
                               request->op == DISK_READ ? VRING_DESC_F_WRITE : 0);
    count += ring_describe(&desc[count], status_address, in, VRING_DESC_F_WRITE);
    requests_send(&blk->requests, slot, &request->base, bytes, count);
}

static enum post post(struct requests *requests, struct io_request *base)
{
    struct blk *blk = blk_of_requests(requests);
    struct disk_request *request = disk_request_of(base);
    size_t bytes = 0;
    unsigned slot;

    if (!ring_free_slot(&requests->ring, &slot))
        return POST_LATER;
    requests->mappings[slot].bytes = 0;
    if (request->op == DISK_FLUSH) {
        if (!blk->disk.info.write_cache)
            return POSTED;
    } else if (blk->bounce_bytes != 0) {
        bytes = base->bytes - base->issued;
        if (bytes > blk->piece_bytes)
            bytes = blk->piece_bytes;
    } else {
        bytes = requests_map(requests, slot, base,
                             request->op == DISK_READ ? DMA_FROM_DEVICE : DMA_TO_DEVICE,
                             blk->disk.info.block_size, blk->piece_bytes);
        if (bytes == 0)
            return POST_NEVER;
    }
    send(blk, slot, request, (uint32_t)bytes);
    return POSTED;
}

static enum result blk_submit(struct disk *disk, struct disk_request *request)
{
    enum result result = disk_check(&disk->info, request);

    return result ? result : requests_submit(&blk_of(disk)->requests, &request->base);
}

/* ---- And on their way back ---- */

static bool collect(struct requests *requests, unsigned slot, uint32_t written, enum result *result)
{
    const struct blk *blk = blk_of_requests(requests);
    uint32_t bytes = requests->pieces.at[slot].bytes;
    size_t at = SLOT_HEADER + (blk->bounce_to[slot] ? bytes : blk->bounce_bytes);
    uint8_t status = *((volatile uint8_t *)requests_own(requests, slot, NULL) + at);

    /* Anything less is common, also the length of what was read from us: devices have always been
     * careless with this field. */
    if (written > 1 + bytes) {
        blk_log(blk, "the device says that it wrote more than it was given room for; bytes",
                written);
        return false;
    }
    *result = status == VIRTIO_BLK_S_OK ? RESULT_OK : RESULT_DEVICE_ERROR;
    return true;
}

static void release(struct requests *requests, unsigned slot, enum result result)
{
    const struct blk *blk = blk_of_requests(requests);

    if (result == RESULT_OK && blk->bounce_to[slot])
        __builtin_memcpy(blk->bounce_to[slot],
                         (unsigned char *)requests_own(requests, slot, NULL) + SLOT_HEADER,
                         requests->pieces.at[slot].bytes);
}

static const struct requests_ops blk_requests = {
    .post = post,
    .collect = collect,
    .release = release,
};

static void blk_poll(struct disk *disk)
{
    requests_poll(&blk_of(disk)->requests);
}

static bool blk_ready(const struct disk *disk)
{
    const struct blk *blk =
        (const struct blk *)(const void *)((const char *)disk - offsetof(struct blk, disk));
    return requests_ready(&blk->requests);
}

static enum result blk_restart(struct disk *disk, enum result why)
{
    return requests_restart(&blk_of(disk)->requests, why);
}

static const struct disk_ops blk_ops = {
    .submit = blk_submit,
    .poll = blk_poll,
    .ready = blk_ready,
    .restart = blk_restart,
};

bool blk_detach(struct blk *blk)
{
    return requests_detach(&blk->requests);
}
