// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "core/scsi.h"

/* A block without protection information has at most 4 KiB in practice; more than this, and what
 * looks like the command of a disk is one of a tape, which counts in another way. */
#define BLOCK_MIN 256u
#define BLOCK_MAX (64u << 10)

/* Where commands of a length have their first block and their number of blocks. The shortest has
 * other bits above its first block's number. */
struct form {
    uint8_t read, write;
    uint8_t bytes;
    uint8_t lba_at, lba_bytes, count_at, count_bytes;
    uint64_t last_lba;
};

static const struct form forms[] = {
    {0x08, 0x0a, 6, 1, 3, 4, 1, 0x1fffff},
    {0x28, 0x2a, 10, 2, 4, 7, 2, UINT32_MAX},
    {0xa8, 0xaa, 12, 2, 4, 6, 4, UINT32_MAX},
    {0x88, 0x8a, 16, 2, 8, 10, 4, UINT64_MAX},
};

static const struct form *form_of(uint8_t operation)
{
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
        if (operation == forms[i].read || operation == forms[i].write)
            return &forms[i];
    return NULL;
}

static uint64_t get(const uint8_t *from, size_t bytes)
{
    uint64_t value = 0;

    for (size_t i = 0; i < bytes; i++)
        value = value << 8 | from[i];
    return value;
}

static void put(uint8_t *to, size_t bytes, uint64_t value)
{
    for (size_t i = bytes; i-- > 0; value >>= 8)
        to[i] = (uint8_t)value;
}

size_t cdb_block(const uint8_t *cdb, size_t cdb_bytes, enum dma_direction direction, size_t bytes)
{
    const struct form *form = form_of(cdb[0]);

    if (!form || cdb_bytes < form->bytes ||
        cdb[0] != (direction == DMA_FROM_DEVICE ? form->read : form->write))
        return 0;
    uint64_t blocks = get(cdb + form->count_at, form->count_bytes);
    if (blocks == 0 && form->count_bytes == 1)
        blocks = 256;
    if (blocks == 0 || bytes % blocks != 0)
        return 0;
    /* What goes beyond the last block that the form can name is the unit's to refuse, whole: a part
     * of it would begin at the first. */
    uint64_t lba = get(cdb + form->lba_at, form->lba_bytes) & form->last_lba;
    if (blocks - 1 > form->last_lba - lba)
        return 0;
    size_t block = (size_t)(bytes / blocks);
    return block >= BLOCK_MIN && block <= BLOCK_MAX ? block : 0;
}

void cdb_part(uint8_t *cdb, uint64_t skip, uint32_t blocks)
{
    const struct form *form = form_of(cdb[0]);
    uint64_t field = get(cdb + form->lba_at, form->lba_bytes);
    uint64_t lba = (field + skip) & form->last_lba;

    put(cdb + form->lba_at, form->lba_bytes, (field & ~form->last_lba) | lba);
    put(cdb + form->count_at, form->count_bytes, blocks);
}
