// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * INT 13h: the disk services of a PC BIOS, as the BIOSes of IBM had them, and Enhanced Disk Drive
 * services 3.0 (T13 1572D) with packets, 64-bit block numbers and device paths.
 */
#pragma once

#include <stdbool.h>
#include "bios/door.h"

#define FLAG_CARRY     0x0001u
#define FLAG_INTERRUPT 0x0200u

/* The answer to 48h: T13 1572D table 7. */
struct parameters {
    uint16_t bytes;
    uint16_t flags;
    uint32_t cylinders, heads, sectors;
    uint64_t blocks;
    uint16_t block_size;
    uint32_t configuration; /* EDD 2.0: of an ATA drive; all ones for none */
    uint16_t key;
    uint8_t path_bytes;
    uint8_t reserved[3];
    char host_bus[4];
    char interface[8];
    uint8_t bus, device, function, channel;
    uint8_t reserved_too[4];
    uint8_t rest[18]; /* the device path, a zero, and a checksum: of 8 bytes, or of 16 */
} __attribute__((packed));
_Static_assert(sizeof(struct parameters) == 74, "T13 1572D table 7");

#define PARAMETERS_1       26u
#define PARAMETERS_2       30u
#define PARAMETERS_PHOENIX 66u /* of EDD 3.0 as Phoenix has it, and */
#define PARAMETERS_T13     74u /* as T13 has it */
#define PARAMETERS_KEY     0xbeddu

/*
 * Serves a call, whose registers are the frame's, and whose flags tell whether interrupts may come
 * in while it waits. False if it is for somebody else; then nothing has been changed.
 */
bool int13(struct frame *frame);

/* A call that has let interrupts in will not be gone back to: what it has asked a disk for is given
 * up, so that nothing is written to where its buffer was, and the next call is served. */
void int13_abandon(void);
