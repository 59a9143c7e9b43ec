// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "tests/model/virtio_blk.h"
#include "tests/model/virtio_kind.h"

#include <stdlib.h>
#include <string.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>

#define DISK_BYTES_MAX (16u << 20)

struct vblk_disk vblk;

static unsigned char *disk, *stable;
static size_t disk_bytes;
static uint64_t flushes;

struct request {
    struct virtio_blk_outhdr header;
    unsigned char *snapshot; /* flush: the disk as it was when the device saw the flush */
};

/* ---- The disk ---- */

uint8_t vblk_pattern(uint64_t place)
{
    uint64_t mixed = (place / 8 + 1) * 0x9e3779b97f4a7c15ull;
    return (uint8_t)(mixed >> (8 * (place % 8)));
}

static void plug(void)
{
    disk_bytes = DISK_BYTES_MAX;
    if (vblk.capacity < DISK_BYTES_MAX / 512)
        disk_bytes = (size_t)vblk.capacity * 512;
    disk = malloc(disk_bytes + 1);
    stable = malloc(disk_bytes + 1);
    if (!disk || !stable)
        abort();
    if (!vdev_now()->fuzz)
        for (size_t i = 0; i < disk_bytes; i++)
            disk[i] = vblk_pattern(i);
    else
        memset(disk, 0x5a, disk_bytes);
    memcpy(stable, disk, disk_bytes);
    flushes = 0;
}

static void unplug(void)
{
    free(disk);
    free(stable);
    disk = NULL;
    stable = NULL;
}

unsigned char *vblk_disk(void)
{
    return disk;
}

unsigned char *vblk_stable(void)
{
    return stable;
}

size_t vblk_disk_bytes(void)
{
    return disk_bytes;
}

uint64_t vblk_flushes(void)
{
    return flushes;
}

/* ---- Configuration (§5.2.4) ---- */

static uint32_t config_read(uint64_t offset, unsigned bytes)
{
    switch (offset) {
    case offsetof(struct virtio_blk_config, capacity):
        return vdev_config_moves()
                   ? 7
                   : vdev_config_field(offset, bytes, 4, -1, (uint32_t)vblk.capacity);
    case offsetof(struct virtio_blk_config, capacity) + 4:
        return vdev_config_field(offset, bytes, 4, -1, (uint32_t)(vblk.capacity >> 32));
    case offsetof(struct virtio_blk_config, size_max):
        return vdev_config_field(offset, bytes, 4, VIRTIO_BLK_F_SIZE_MAX, vblk.size_max);
    case offsetof(struct virtio_blk_config, seg_max):
        return vdev_config_field(offset, bytes, 4, VIRTIO_BLK_F_SEG_MAX, vblk.seg_max);
    case offsetof(struct virtio_blk_config, blk_size):
        return vdev_config_field(offset, bytes, 4, VIRTIO_BLK_F_BLK_SIZE, vblk.block_size);
    case offsetof(struct virtio_blk_config, physical_block_exp):
        return vdev_config_field(offset, bytes, 1, VIRTIO_BLK_F_TOPOLOGY, vblk.physical_exponent);
    case offsetof(struct virtio_blk_config, alignment_offset):
        return vdev_config_field(offset, bytes, 1, VIRTIO_BLK_F_TOPOLOGY, vblk.alignment_offset);
    case offsetof(struct virtio_blk_config, opt_io_size):
        return vdev_config_field(offset, bytes, 4, VIRTIO_BLK_F_TOPOLOGY, vblk.optimal_blocks);
    case offsetof(struct virtio_blk_config, geometry.cylinders):
        return vdev_config_field(offset, bytes, 2, VIRTIO_BLK_F_GEOMETRY, vblk.cylinders);
    case offsetof(struct virtio_blk_config, geometry.heads):
        return vdev_config_field(offset, bytes, 1, VIRTIO_BLK_F_GEOMETRY, vblk.heads);
    case offsetof(struct virtio_blk_config, geometry.sectors):
        return vdev_config_field(offset, bytes, 1, VIRTIO_BLK_F_GEOMETRY, vblk.sectors);
    default:
        vdev_breach("read of configuration %#llx", (unsigned long long)offset);
        return 0;
    }
}

/* ---- Requests ---- */

/* §5.2.6: what a driver may ask for. */
static void check_request(const struct vdev_chain *chain, const struct virtio_blk_outhdr *header)
{
    const struct vdev_segment *first = &chain->segment[0];
    const struct vdev_segment *last = &chain->segment[chain->segments - 1];
    uint64_t data;

    if (!vdev_any_layout() && (first->bytes != sizeof(*header) || last->bytes != 1))
        vdev_breach("a legacy request whose header or status shares its descriptor");
    if (header->ioprio != 0)
        vdev_breach("a priority of %u", header->ioprio);
    if (vdev_accepted(VIRTIO_BLK_F_SIZE_MAX))
        for (unsigned i = 0; i < chain->segments; i++)
            if (chain->segment[i].bytes > vblk.size_max &&
                chain->segment[i].bytes > sizeof(*header))
                vdev_breach("a segment of %u bytes", chain->segment[i].bytes);
    if (vdev_accepted(VIRTIO_BLK_F_SEG_MAX) && chain->segments > vblk.seg_max + 2)
        vdev_breach("a request of %u segments", chain->segments - 2);

    switch (header->type) {
    case VIRTIO_BLK_T_IN:
        data = chain->writable - 1;
        if (chain->readable != sizeof(*header))
            vdev_breach("a read with data to write");
        break;
    case VIRTIO_BLK_T_OUT:
        data = chain->readable - sizeof(*header);
        if (chain->writable != 1)
            vdev_breach("a write with room to read");
        if (vdev_now()->features & VDEV_FEATURE(VIRTIO_BLK_F_RO))
            vdev_breach("a write to a read-only disk");
        break;
    case VIRTIO_BLK_T_FLUSH:
        if (!vdev_accepted(VIRTIO_BLK_F_FLUSH))
            vdev_breach("a flush, which was not negotiated");
        if (header->sector != 0 || chain->readable != sizeof(*header) || chain->writable != 1)
            vdev_breach("a flush with a sector or data");
        return;
    default:
        vdev_breach("a request of type %u", header->type);
        return;
    }
    if (data == 0 || data % 512 != 0)
        vdev_breach("a transfer of %llu bytes", (unsigned long long)data);
    if (vdev_accepted(VIRTIO_BLK_F_BLK_SIZE) &&
        (data % vblk.block_size != 0 || header->sector % (vblk.block_size / 512) != 0))
        vdev_breach("a transfer of part of a block");
    if (header->sector > vblk.capacity || data / 512 > vblk.capacity - header->sector)
        vdev_breach("a transfer past the end");
}

static bool accept(struct vdev_chain *chain)
{
    struct request *request;

    if (chain->readable < sizeof(request->header) || chain->writable < 1) {
        vdev_breach("a request without a header or a status");
        return false;
    }
    chain->own = request = calloc(1, sizeof(*request));
    if (!request)
        abort();
    vdev_copy(chain, false, 0, &request->header, sizeof(request->header));
    check_request(chain, &request->header);
    if (request->header.type == VIRTIO_BLK_T_FLUSH) {
        flushes++;
        request->snapshot = malloc(disk_bytes + 1);
        if (!request->snapshot)
            abort();
        memcpy(request->snapshot, disk, disk_bytes);
    }
    return true;
}

static void forget(struct vdev_chain *chain)
{
    struct request *request = chain->own;

    if (request)
        free(request->snapshot);
    free(request);
}

static bool span_on_disk(uint64_t from, uint64_t bytes)
{
    return from <= disk_bytes / 512 && bytes <= disk_bytes - from * 512;
}

static uint32_t serve(struct vdev_chain *chain)
{
    const struct request *request = chain->own;
    uint64_t out = chain->readable - sizeof(request->header), in = chain->writable - 1;
    uint64_t sector = request->header.sector, written = 1;
    uint8_t status = VIRTIO_BLK_S_OK;

    if (vdev_lie(chain, LIE_STATUS_IOERR) || vdev_fault())
        status = VIRTIO_BLK_S_IOERR;
    else if (vdev_lie(chain, LIE_STATUS_UNSUPP))
        status = VIRTIO_BLK_S_UNSUPP;
    else if (vdev_lie(chain, LIE_STATUS_UNKNOWN))
        status = 0x77;
    switch (status == VIRTIO_BLK_S_OK ? request->header.type : VIRTIO_BLK_T_GET_ID) {
    case VIRTIO_BLK_T_IN:
        if (!span_on_disk(sector, in)) {
            status = VIRTIO_BLK_S_IOERR;
            break;
        }
        vdev_copy(chain, true, 0, disk + sector * 512, in);
        written += in;
        break;
    case VIRTIO_BLK_T_OUT:
        if (!span_on_disk(sector, out)) {
            status = VIRTIO_BLK_S_IOERR;
            break;
        }
        vdev_copy(chain, false, sizeof(request->header), disk + sector * 512, out);
        break;
    case VIRTIO_BLK_T_FLUSH:
        if (request->snapshot)
            memcpy(stable, request->snapshot, disk_bytes);
        break;
    default:
        break;
    }
    if (!vdev_lie(chain, LIE_STATUS_NOT_WRITTEN))
        vdev_copy(chain, true, chain->writable - 1, &status, 1);
    if (vdev_lie(chain, LIE_LENGTH_CARELESS))
        return out != 0 ? (uint32_t)out + 1 : 0;
    return (uint32_t)written;
}

/* ---- The kind ---- */

const struct vdev_kind vblk_kind = {
    .name = "virtio-blk",
    .device_id = 0x1042,
    .transitional_id = 0x1001,
    .queues = 1,
    .config_bytes = 60,
    .features = VDEV_FEATURE(VIRTIO_BLK_F_FLUSH) | VDEV_FEATURE(VIRTIO_BLK_F_BLK_SIZE) |
                VDEV_FEATURE(VIRTIO_BLK_F_TOPOLOGY) | VDEV_FEATURE(VIRTIO_BLK_F_SEG_MAX) |
                VDEV_FEATURE(VIRTIO_BLK_F_MQ) | VDEV_FEATURE(VIRTIO_BLK_F_DISCARD),
    .fickle_features = VDEV_FEATURE(VIRTIO_BLK_F_FLUSH),
    .lies = LIE_BLK_END - LIE_OF_KIND,
    .plug = plug,
    .unplug = unplug,
    .config_read = config_read,
    .accept = accept,
    .serve = serve,
    .forget = forget,
};

struct vdev_options vblk_usual(void)
{
    vblk = (struct vblk_disk){
        .capacity = 4096,
        .block_size = 512,
        .seg_max = 126,
        .size_max = 65536,
    };
    return vdev_usual(&vblk_kind);
}
