// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "bios/drives.h"

struct drive drives[DRIVES_MAX];
unsigned drives_count;

enum result drives_check(const struct disk_info *info, const struct rich_door *rich)
{
    if (info->block_size <= DRIVE_BLOCK_MAX)
        return RESULT_OK;
    rich->log(rich->context, "INT 13h cannot have sectors of so many bytes:", info->block_size);
    return RESULT_UNSUPPORTED;
}

struct drive *drives_next(void)
{
    if (drives_count == DRIVES_MAX)
        return NULL;
    struct drive *drive = &drives[drives_count];
    *drive = (struct drive){0};
    return drive;
}

/* The most that a call can say. */
#define CYLINDERS_MAX 1024u
#define HEADS_MAX     255u
#define SECTORS_MAX   63u

/*
 * How a disk is cut into cylinders, heads and sectors for those who know no better. Boot loaders
 * and partition tables have to go on meaning the same disk whoever drives it, so this is how
 * SeaBIOS does it: as the device says, if that can be said; with more heads for fewer cylinders, if
 * that makes it fit; else by the size alone.
 */
static struct geometry translate(const struct geometry *physical, uint64_t blocks)
{
    struct geometry logical = *physical;
    uint64_t covers = (uint64_t)physical->cylinders * physical->heads * physical->sectors;

    if (covers != 0 && covers <= blocks && physical->cylinders * physical->heads <= 131072) {
        while (logical.cylinders > CYLINDERS_MAX) {
            logical.cylinders /= 2;
            logical.heads *= 2;
            if (logical.heads > 127)
                break;
        }
    } else {
        static const uint16_t heads[] = {16, 32, 64, 128};
        logical.sectors = SECTORS_MAX;
        logical.heads = HEADS_MAX;
        logical.cylinders = CYLINDERS_MAX;
        if (blocks <= CYLINDERS_MAX * HEADS_MAX * SECTORS_MAX) {
            uint32_t tracks = (uint32_t)blocks / SECTORS_MAX;
            for (unsigned i = 4; i-- != 0;)
                if (tracks / CYLINDERS_MAX <= heads[i])
                    logical.heads = heads[i];
            logical.cylinders = tracks / logical.heads;
        }
    }
    if (logical.cylinders > CYLINDERS_MAX)
        logical.cylinders = CYLINDERS_MAX;
    /* Less than one is none at all to SeaBIOS, and then nothing could be read of the disk. */
    if (logical.cylinders == 0)
        logical.cylinders = 1;
    return logical;
}

void drives_add(struct drive *drive)
{
    drive->logical = translate(&drive->physical, drive->disk->info.blocks);
    drives_count++;
}

struct drive *drives_find(uint8_t number)
{
    for (unsigned i = 0; i < drives_count; i++)
        if (drives[i].number == number && number != 0)
            return &drives[i];
    return NULL;
}
