// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The lifetime oracle: what memory a modelled device has been shown, and under which address.
 *
 * Device addresses are handed out from a counter and never used twice, so that neither a CPU
 * address in a descriptor nor a mapping that has ended can pass for one. A mapped buffer has a copy
 * of its own, as behind an IOMMU or a bounce pool: what the device writes reaches the buffer at
 * unmap().
 *
 * A broken rule does not stop the program: it is printed and counted, and the test ends with
 * model_violations() == 0.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "core/door.h"

void model_violation(const char *format, ...) __attribute__((format(printf, 1, 2)));
unsigned model_violations(void);
/* Forgets violations and regions; what was leaked on purpose goes back to the host. */
void model_forget(void);
/* For the fuzzer, which reports nothing but crashes. */
extern bool model_abort_on_violation;

struct dma_region {
    struct dma_region *next;
    uint64_t address;
    size_t bytes;
    unsigned char *cpu;    /* the driver's side */
    unsigned char *device; /* the device's side: the same for shared memory */
    bool shared;
    bool plain; /* memory of a machine: a device may have been shown none of it */
    enum dma_direction direction;
    void *allocation;
};

/* Whether the device may still touch a region; the device model supplies this. */
extern bool (*dma_in_use)(const struct dma_region *region);

/* Memory for a binding: page-aligned and zeroed. */
void dma_share(size_t bytes, struct dma_block *block);
/* Gives it back, overwritten first. */
void dma_unshare(const struct dma_block *block);

/*
 * Memory that somebody else has, of a machine where a device sees what the CPU sees: its address is
 * where it is. Any of it may be shown to a device; when it ends, none of it may be in use.
 */
void dma_add_plain(void *memory, size_t bytes);
void dma_end_plain(void *memory);

struct dma_region *dma_map(enum dma_direction direction, void *buffer, size_t bytes);
void dma_unmap(struct dma_region *region);

/* The region that holds all of an address range; NULL if none does. */
struct dma_region *dma_find(uint64_t address, uint64_t bytes);
/* Whether any of a buffer is mapped. */
bool dma_shown(const void *buffer, size_t bytes);
unsigned dma_mapped(void); /* buffers */
unsigned dma_shared(void); /* blocks */
struct dma_region *dma_first(void);
