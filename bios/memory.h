// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * Memory, seen from the 32-bit part: addresses are physical, and all that exists can be reached but
 * what is above 4 GiB.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "bios/door.h"
#include "core/door.h"

/* What is at a physical address (high.S; the tests have another). */
void *at_physical(uint32_t address);

static inline uint32_t physical_of(uint16_t segment, uint16_t offset)
{
    return ((uint32_t)segment << 4) + offset;
}

/* The BIOS data area. */
#define BDA_DISKS 0x75

static inline volatile uint8_t *bios_data(unsigned offset)
{
    return (volatile uint8_t *)at_physical(0x400u + offset);
}

/*
 * Memory from the BIOS's PMM for good, which the operating system is told to leave alone (C8):
 * page-aligned and zeroed. NULL if there is none. Only while the BIOS starts the ROM.
 */
void *memory_get(size_t bytes);

/* The same for a block that a device is to see. False if there is none. */
bool memory_share(struct dma_block *block, size_t bytes);

/* Gives back all that memory_get() has given since memory_mark(): what nobody has seen. */
unsigned memory_mark(void);
void memory_give_back(unsigned mark);

/* Gives back the 32-bit part itself, which must not be entered again. */
void memory_give_image_back(void);

/* Whether any of these bytes are Baton's. */
bool memory_is_ours(uint32_t address, uint32_t bytes);

/* Whether any of these bytes are the BIOS's or an option ROM's, where a CPU cannot write, and a
 * device can. */
bool memory_is_rom(uint32_t address, uint32_t bytes);
