// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The rich door: what a driver may do while it starts and while it moves data. Whoever uses a
 * driver (uefi/, the tests) supplies it. Nothing on the exit path sees it: see core/regs.h
 * for the poor door.
 */
#pragma once

#include <stddef.h>
#include "core/regs.h"

enum result {
    RESULT_OK,
    RESULT_UNSUPPORTED,     /* not a device that we can drive */
    RESULT_DEVICE_ERROR,    /* the device failed, or answered nonsense (C9) */
    RESULT_TIMEOUT,         /* the device did not answer within the bound (C6) */
    RESULT_NO_MEDIA,        /* a disk of no blocks */
    RESULT_WRITE_PROTECTED, /* a write to a read-only disk */
    RESULT_OUT_OF_RANGE,    /* a request that does not fit the disk or its block size */
    RESULT_NO_MEMORY,       /* no memory, or no mapping for DMA */
    RESULT_ABORTED,         /* given up at the caller's wish */
    RESULT_BUSY,            /* nothing there now, or no room; try again later */
};

enum dma_direction {
    DMA_TO_DEVICE,   /* the device reads the buffer */
    DMA_FROM_DEVICE, /* the device writes the buffer */
};

/* A buffer as the device sees it, from map() until unmap(). */
struct dma_mapping {
    uint64_t address;
    size_t bytes;
    void *cookie; /* the door's own */
};

/* Memory that a device and its driver share for as long as the driver is attached. Page-aligned and
 * zeroed by whoever allocates it. */
struct dma_block {
    void *cpu;
    uint64_t address; /* the same memory as the device sees it */
    size_t bytes;
};

struct rich_door {
    void *context;
    uint64_t ticks_per_ms; /* the rate of clock_ticks() */

    /* One aligned dword of the device's PCI configuration space. All ones if it cannot be read. */
    uint32_t (*config_read32)(void *context, uint32_t offset);

    /* The registers behind base address register `index` (0 to 5, as the header numbers them).
     * False if that register is not in use. */
    bool (*bar)(void *context, unsigned index, struct reg_window *window);

    /* Lets the device master the bus, or stops it from doing so. False if that cannot be done. */
    bool (*bus_master)(void *context, bool on);

    /* Shows `bytes` of `buffer` to the device, or as many from its start as one mapping can hold:
     * the mapping says how many. RESULT_NO_MEMORY if none. */
    enum result (*map)(void *context, enum dma_direction direction, void *buffer, size_t bytes,
                       struct dma_mapping *mapping);

    /* Takes the buffer back; afterwards it holds what the device wrote. */
    void (*unmap)(void *context, const struct dma_mapping *mapping);

    /* A sentence for people about this device, and the number that it is about. */
    void (*log)(void *context, const char *sentence, uint64_t number);
};

static inline uint64_t deadline_in_ms(const struct rich_door *rich, uint64_t ms)
{
    return clock_ticks() + ms * rich->ticks_per_ms;
}
