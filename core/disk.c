// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "core/disk.h"

bool disk_block_size(uint32_t bytes)
{
    return bytes >= DISK_SECTOR && (bytes & (bytes - 1)) == 0 && bytes <= DISK_BLOCK_MAX;
}

enum result disk_check(const struct disk_info *info, struct disk_request *request)
{
    uint64_t sectors_per_block = info->block_size / DISK_SECTOR;
    uint64_t sectors = info->blocks * sectors_per_block;

    request->base.alone = request->op == DISK_FLUSH;
    if (request->op == DISK_FLUSH) {
        request->base.bytes = 0;
        return RESULT_OK;
    }
    if (request->base.bytes == 0 || request->base.bytes % info->block_size != 0 ||
        request->sector % sectors_per_block != 0 || request->sector >= sectors ||
        request->base.bytes / DISK_SECTOR > sectors - request->sector)
        return RESULT_OUT_OF_RANGE;
    return request->op == DISK_WRITE && info->read_only ? RESULT_WRITE_PROTECTED : RESULT_OK;
}
