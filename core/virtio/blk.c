// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "core/virtio/blk.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

/* A larger transfer goes out as several requests: enough to keep a device busy, and small enough
 * that an IOMMU's or a bounce pool's mapping of each is likely to succeed. */
#define PIECE_MAX (4u << 20)
/* Where the device limits its segments (SIZE_MAX; where it does not, a piece is one segment and
 * SEG_MAX does not matter). Sixteen of 4 KiB make requests of 64 KiB. */
#define SEGMENTS_MAX 16u
/* The data that a queue of two entries carries at a time, if the blocks are no larger. */
#define BOUNCE_BYTES 4096u
/* The largest block that makes sense: firmware keeps buffers of many blocks for each disk. */
#define BLOCK_MAX (64u << 10)

#define STATUS_NOT_WRITTEN 0xff

/* Each slot's own shared memory: header, room for bounced data (usually none), status. Bounced data
 * lies between the two so that it can share a descriptor with either. */
#define SLOT_HEADER sizeof(struct virtio_blk_outhdr)
#define SLOT_STATUS 16u /* one byte, and what keeps the next header aligned */

static struct blk *blk_of(struct disk *disk)
{
    return (struct blk *)(void *)((char *)disk - offsetof(struct blk, disk));
}

static struct blk *blk_of_pieces(struct pieces *pieces)
{
    return (struct blk *)(void *)((char *)pieces - offsetof(struct blk, pieces));
}

static void blk_log(const struct blk *blk, const char *sentence, uint64_t number)
{
    blk->device.rich->log(blk->device.rich->context, sentence, number);
}

static size_t slot_offset(const struct blk *blk, unsigned slot)
{
    return ring_bytes(&blk->ring) + slot * (SLOT_HEADER + blk->bounce_bytes + SLOT_STATUS);
}

static unsigned char *slot_memory(const struct blk *blk, unsigned slot)
{
    return (unsigned char *)blk->memory.cpu + slot_offset(blk, slot);
}

/* ---- Attach ---- */

static enum result read_config(struct blk *blk)
{
    const struct virtio_device *device = &blk->device;
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
        blk->segment_bytes = 0;
        if (virtio_has(device, VIRTIO_BLK_F_SIZE_MAX))
            blk->segment_bytes =
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

    if (block_size < DISK_SECTOR || (block_size & (block_size - 1)) != 0 ||
        block_size > BLOCK_MAX) {
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
static enum result plan(struct blk *blk)
{
    const struct virtio_device *device = &blk->device;
    uint32_t block_size = blk->disk.info.block_size;
    uint16_t offered = virtio_queue_size(&blk->device, 0);
    uint32_t segments = 1;

    if (offered < 2) {
        blk_log(blk, "the request queue is too small; its size is", offered);
        return RESULT_UNSUPPORTED;
    }
    if (blk->segment_bytes == 0) {
        blk->segment_bytes = PIECE_MAX;
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
        if (blk->piece_bytes + SLOT_STATUS > blk->segment_bytes)
            blk->piece_bytes =
                blk->segment_bytes > SLOT_STATUS ? blk->segment_bytes - SLOT_STATUS : 0;
        blk->piece_bytes &= ~(block_size - 1);
    } else {
        uint64_t most = (uint64_t)segments * blk->segment_bytes;
        blk->piece_bytes = most < PIECE_MAX ? (uint32_t)most : PIECE_MAX;
        blk->piece_bytes &= ~(block_size - 1);
    }
    if (blk->piece_bytes == 0) {
        blk_log(blk, "a block does not fit the device's segments; their size is",
                blk->segment_bytes);
        return RESULT_UNSUPPORTED;
    }

    enum result result =
        ring_plan(&blk->ring, offered, (uint16_t)(segments + 2), device->features, device->modern);
    if (result)
        blk_log(blk, "no request fits the queue; its size is", offered);
    return result;
}

/* Everything up to the queue, at first and after each reset. */
static enum result negotiate(struct blk *blk)
{
    enum result result = virtio_begin(&blk->device);
    if (result)
        return result;
    return virtio_negotiate(
        &blk->device,
        VIRTIO_FEATURE(VIRTIO_BLK_F_SIZE_MAX) | VIRTIO_FEATURE(VIRTIO_BLK_F_SEG_MAX) |
            VIRTIO_FEATURE(VIRTIO_BLK_F_RO) | VIRTIO_FEATURE(VIRTIO_BLK_F_BLK_SIZE) |
            VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH) | VIRTIO_FEATURE(VIRTIO_BLK_F_TOPOLOGY) |
            VIRTIO_FEATURE(VIRTIO_F_ANY_LAYOUT) | VIRTIO_FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |
            VIRTIO_FEATURE(VIRTIO_RING_F_EVENT_IDX));
}

static const struct disk_ops blk_ops;
static const struct pieces_ops blk_pieces;

enum result blk_attach(struct blk *blk, const struct rich_door *rich,
                       const struct pci_function *where, size_t *memory_bytes)
{
    *blk = (struct blk){.disk = {.ops = &blk_ops}};
    pieces_init(&blk->pieces, &blk_pieces, rich, RING_SLOTS_MAX);

    enum result result = virtio_find(&blk->device, rich, where);
    if (!result)
        result = negotiate(blk);
    if (!result)
        result = read_config(blk);
    if (!result)
        result = plan(blk);
    if (!result) {
        *memory_bytes = slot_offset(blk, blk->ring.slots);
        if (*memory_bytes > BLK_MEMORY_MAX) {
            blk_log(blk,
                    "the queue would take more memory than a disk is worth, bytes:", *memory_bytes);
            result = RESULT_UNSUPPORTED;
        }
    }
    if (result)
        virtio_down(&blk->device, VIRTIO_RESET_MS, 0);
    return result;
}

static enum result start_queue(struct blk *blk)
{
    ring_init(&blk->ring, &blk->memory);
    enum result result = virtio_queue_start(&blk->device, 0, &blk->ring);
    if (!result)
        result = virtio_go(&blk->device);
    return result;
}

enum result blk_start(struct blk *blk, const struct dma_block *memory)
{
    blk->memory = *memory;
    return start_queue(blk);
}

/* ---- Requests on their way to the device ---- */

static uint32_t add_descriptor(struct vring_desc *desc, uint64_t address, uint32_t bytes,
                               uint16_t flags)
{
    *desc = (struct vring_desc){.addr = address, .len = bytes, .flags = flags};
    return 1;
}

/* Sends one device request: a flush, or the next `mapping` of a transfer. */
static void send(struct blk *blk, unsigned slot, struct disk_request *request,
                 const struct dma_mapping *mapping, uint32_t bytes)
{
    static const uint32_t types[] = {
        [DISK_READ] = VIRTIO_BLK_T_IN,
        [DISK_WRITE] = VIRTIO_BLK_T_OUT,
        [DISK_FLUSH] = VIRTIO_BLK_T_FLUSH,
    };
    unsigned char *own = slot_memory(blk, slot);
    unsigned char *status = own + SLOT_HEADER + blk->bounce_bytes;
    uint64_t address = blk->memory.address + slot_offset(blk, slot);
    uint64_t status_address = address + SLOT_HEADER + blk->bounce_bytes;
    uint16_t data_flags = request->op == DISK_READ ? VRING_DESC_F_WRITE : 0;
    struct vring_desc *desc = ring_descriptors(&blk->ring, slot);
    unsigned count = 0;

    *(struct virtio_blk_outhdr *)(void *)own = (struct virtio_blk_outhdr){
        .type = types[request->op],
        .sector = request->op == DISK_FLUSH ? 0 : request->sector + request->issued / DISK_SECTOR,
    };
    *status = STATUS_NOT_WRITTEN;
    blk->slots[slot] = (struct blk_slot){.mapping = *mapping};

    if (blk->bounce_bytes != 0) {
        uint32_t out = SLOT_HEADER, in = 1;
        if (request->op == DISK_WRITE) {
            __builtin_memcpy(own + SLOT_HEADER, (unsigned char *)request->buffer + request->issued,
                             bytes);
            out += bytes;
        } else if (request->op == DISK_READ) {
            /* The status follows the data at once, wherever that ends. */
            blk->slots[slot].bounce_to = (unsigned char *)request->buffer + request->issued;
            in += bytes;
            status_address = address + SLOT_HEADER;
            own[SLOT_HEADER + bytes] = STATUS_NOT_WRITTEN;
        }
        count += add_descriptor(&desc[count], address, out, 0);
        count += add_descriptor(&desc[count], status_address, in, VRING_DESC_F_WRITE);
    } else {
        count += add_descriptor(&desc[count], address, SLOT_HEADER, 0);
        for (uint32_t at = 0; at < bytes;) {
            uint32_t part = bytes - at < blk->segment_bytes ? bytes - at : blk->segment_bytes;
            count += add_descriptor(&desc[count], mapping->address + at, part, data_flags);
            at += part;
        }
        count += add_descriptor(&desc[count], status_address, 1, VRING_DESC_F_WRITE);
    }

    pieces_begin(&blk->pieces, slot, request, bytes);
    ring_post(&blk->ring, slot, count);
}

/* Maps the next piece of a transfer; mapping->bytes tells how much was possible, in whole blocks.
 */
static enum result map_piece(struct blk *blk, const struct disk_request *request,
                             struct dma_mapping *mapping)
{
    const struct rich_door *rich = blk->device.rich;
    size_t block = blk->disk.info.block_size;
    size_t left = request->bytes - request->issued;
    size_t piece = left < blk->piece_bytes ? left : blk->piece_bytes;

    if (blk->bounce_bytes != 0) {
        *mapping = (struct dma_mapping){0};
        return RESULT_OK;
    }
    for (; piece != 0; piece = piece / 2 & ~(block - 1)) {
        enum result result =
            rich->map(rich->context, request->op == DISK_READ ? DMA_FROM_DEVICE : DMA_TO_DEVICE,
                      (unsigned char *)request->buffer + request->issued, piece, mapping);
        if (result == RESULT_OK) {
            size_t whole = mapping->bytes & ~(block - 1);
            if (whole != 0 && whole == mapping->bytes)
                return RESULT_OK;
            /* Part of a block too much: the next piece begins there, and two mappings of one byte
             * could each bring back their own idea of it. */
            rich->unmap(rich->context, mapping);
            if (whole != 0) {
                piece = 2 * whole; /* which the loop halves */
                continue;
            }
        }
        /* What is in flight will give its mappings back; then there may be more room. */
        if (blk->ring.busy != 0)
            break;
    }
    return RESULT_NO_MEMORY;
}

static enum post post(struct pieces *pieces, struct disk_request *request)
{
    struct blk *blk = blk_of_pieces(pieces);
    struct dma_mapping mapping = {0};
    unsigned slot;

    if (!ring_free_slot(&blk->ring, &slot))
        return POST_LATER;
    if (request->op == DISK_FLUSH) {
        if (blk->disk.info.write_cache)
            send(blk, slot, request, &mapping, 0);
        return POSTED;
    }
    if (map_piece(blk, request, &mapping) != RESULT_OK)
        return POST_NEVER;
    size_t bytes = request->bytes - request->issued;
    if (bytes > blk->piece_bytes)
        bytes = blk->piece_bytes;
    if (blk->bounce_bytes == 0)
        bytes = mapping.bytes;
    send(blk, slot, request, &mapping, (uint32_t)bytes);
    return POSTED;
}

static void issue(struct blk *blk)
{
    uint16_t before = blk->ring.avail_next;

    pieces_issue(&blk->pieces);
    if (blk->ring.avail_next != before)
        ring_notify(&blk->ring);
}

static enum result blk_submit(struct disk *disk, struct disk_request *request)
{
    struct blk *blk = blk_of(disk);
    enum result result = disk_check(&disk->info, request);

    if (result)
        return result;
    /* Given up, or let go by the exit: then nothing may wake it up again (C4). */
    if (blk->device.exit.state != VIRTIO_LIVE)
        return RESULT_DEVICE_ERROR;
    pieces_submit(&blk->pieces, request);
    issue(blk);
    return RESULT_OK;
}

/* ---- And on their way back ---- */

static void release(struct pieces *pieces, unsigned slot, enum result result, bool let_go)
{
    struct blk *blk = blk_of_pieces(pieces);
    const struct blk_slot *done = &blk->slots[slot];
    const struct rich_door *rich = blk->device.rich;

    /* A device that may still use the mapping: then that is left as it is (C5). */
    if (let_go && done->mapping.bytes != 0)
        rich->unmap(rich->context, &done->mapping);
    if (result == RESULT_OK && done->bounce_to)
        __builtin_memcpy(done->bounce_to, slot_memory(blk, slot) + SLOT_HEADER,
                         pieces->at[slot].bytes);
}

static const struct pieces_ops blk_pieces = {.post = post, .release = release};

/* Whether what the device says about a slot can be true, and whether it says that all went well. */
static bool check_slot(const struct blk *blk, unsigned slot, uint32_t written, enum result *result)
{
    uint32_t bytes = blk->pieces.at[slot].bytes;
    size_t at = SLOT_HEADER + (blk->slots[slot].bounce_to ? bytes : blk->bounce_bytes);
    uint8_t status = *(volatile uint8_t *)(slot_memory(blk, slot) + at);

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

/* If the exit has let the device go, what it cut off still waits to be told. It may be asked: an
 * ExitBootServices that fails comes back to callers who wait. */
static bool still_live(struct blk *blk)
{
    if (blk->device.exit.state == VIRTIO_LIVE)
        return true;
    pieces_fail(&blk->pieces, RESULT_DEVICE_ERROR, blk->device.exit.state == VIRTIO_DORMANT);
    return false;
}

static enum result blk_restart(struct disk *disk, enum result why)
{
    struct blk *blk = blk_of(disk);
    struct poor_door door = {.deadline = deadline_in_ms(blk->device.rich, VIRTIO_RESET_MS)};
    uint64_t features = blk->device.features;
    enum result result = RESULT_DEVICE_ERROR;

    if (!still_live(blk))
        return RESULT_DEVICE_ERROR;

    bool acknowledged = virtio_reset(&blk->device.exit, &door);
    /* If not, bus mastering goes off before anybody hears that their buffer is theirs again (C5).
     */
    bool let_go = acknowledged || virtio_down(&blk->device, 0, blk->memory.bytes);
    pieces_fail(&blk->pieces, why, let_go);
    if (acknowledged) {
        result = negotiate(blk);
        /* The ring was planned for these features. */
        if (!result && blk->device.features != features)
            result = RESULT_DEVICE_ERROR;
        if (!result)
            result = start_queue(blk);
    }
    if (result) {
        blk_log(blk, "the device does not come back after a reset; given up with error",
                (uint64_t)result);
        if (blk->device.exit.state == VIRTIO_LIVE)
            virtio_down(&blk->device, VIRTIO_RESET_MS, blk->memory.bytes);
    }
    return result;
}

static void blk_poll(struct disk *disk)
{
    struct blk *blk = blk_of(disk);
    enum ring_event event;
    unsigned slot;
    uint32_t written;

    if (!still_live(blk))
        return;

    while ((event = ring_take(&blk->ring, &slot, &written)) == RING_USED) {
        enum result result = RESULT_DEVICE_ERROR;
        bool sane = check_slot(blk, slot, written, &result);
        if (!sane) {
            blk_restart(disk, RESULT_DEVICE_ERROR);
            return;
        }
        pieces_finish(&blk->pieces, slot, result, true);
    }
    if (event == RING_BROKEN) {
        blk_log(blk, "the device's used ring makes no sense, at index", blk->ring.used_next);
        blk_restart(disk, RESULT_DEVICE_ERROR);
        return;
    }
    issue(blk);

    if (!pieces_look_due(&blk->pieces))
        return;
    uint8_t status = reg_read8(&blk->device.exit.status, 0);
    if (status & VIRTIO_CONFIG_S_NEEDS_RESET) {
        blk_log(blk, "the device says that it has failed; its status is", status);
        blk_restart(disk, RESULT_DEVICE_ERROR);
    } else if (pieces_overdue(&blk->pieces)) {
        blk_log(blk,
                "a request has not been answered for this many milliseconds:", PIECE_TIMEOUT_MS);
        blk_restart(disk, RESULT_TIMEOUT);
    }
}

static bool blk_ready(const struct disk *disk)
{
    const struct blk *blk =
        (const struct blk *)(const void *)((const char *)disk - offsetof(struct blk, disk));
    return blk->device.exit.state == VIRTIO_LIVE && ring_ready(&blk->ring);
}

static const struct disk_ops blk_ops = {
    .submit = blk_submit,
    .poll = blk_poll,
    .ready = blk_ready,
    .restart = blk_restart,
};

/* ---- Detach ---- */

bool blk_detach(struct blk *blk)
{
    bool let_go = virtio_down(&blk->device, VIRTIO_RESET_MS, blk->memory.bytes);

    pieces_fail(&blk->pieces, RESULT_ABORTED, let_go);
    return let_go;
}
