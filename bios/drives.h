// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The disks that INT 13h is served for.
 */
#pragma once

#include "core/disk.h"

#define DRIVES_MAX  16u
#define DRIVE_FIRST 0x80u
/* Bytes of a sector that an INT 13h caller may have room for. */
#define DRIVE_BLOCK_MAX 4096u

/* What EDD says of where a disk is (T13 1572D, EDD-3 §8). */
struct drive_path {
    struct pci_function where;
    uint16_t target;
    uint64_t lun;
};

struct drive {
    struct disk *disk;
    uint8_t number;           /* 80h and up; 0 until the BIOS has asked for it to have one */
    uint8_t status;           /* of the last call: AH */
    struct geometry physical; /* all 0 where the device does not say */
    struct geometry logical;  /* what cylinders, heads and sectors mean in a call */
    struct drive_path path;
    char name[40]; /* for people */
};

extern struct drive drives[DRIVES_MAX];
extern unsigned drives_count;

/* Whether INT 13h can have a disk: RESULT_UNSUPPORTED, and the log says why. */
enum result drives_check(const struct disk_info *info, const struct rich_door *rich);

/* The next one, to be filled in but for number and logical; NULL if there are too many. It counts
 * once drives_add() is called. */
struct drive *drives_next(void);
void drives_add(struct drive *drive);

/* The drive with this number; NULL if it is none of ours. */
struct drive *drives_find(uint8_t number);
