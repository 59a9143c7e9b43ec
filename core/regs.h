// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * What letting go of a device may touch: registers, the PCI command register and a clock.
 *
 * These functions are the poor door (docs/architecture.md). They are plain symbols, not pointers in
 * a table, so that the linker can say what the exit path reaches: its objects leave nothing
 * undefined but the names in this file, and contain no indirect call (C2). The firmware builds
 * link core/x86/regs.c; the host's tests link a device model in its place.
 *
 * All of them may be called at any TPL and in any CPU mode that can reach the addresses.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* A range of device registers, at an address that was learned when the device was bound. */
struct reg_window {
    uint64_t base; /* CPU address, or port number */
    uint64_t bytes;
    bool port; /* I/O ports rather than memory */
};

/* Each reads or writes one naturally aligned register. The caller has checked that it lies inside
 * the window: a window is checked once, when it is found, not at each access. */
uint8_t reg_read8(const struct reg_window *window, uint64_t offset);
uint16_t reg_read16(const struct reg_window *window, uint64_t offset);
uint32_t reg_read32(const struct reg_window *window, uint64_t offset);
void reg_write8(const struct reg_window *window, uint64_t offset, uint8_t value);
void reg_write16(const struct reg_window *window, uint64_t offset, uint16_t value);
void reg_write32(const struct reg_window *window, uint64_t offset, uint32_t value);

/* Where a PCI function's configuration space is. */
struct pci_function {
    uint32_t segment;
    uint8_t bus;
    uint8_t device;
    uint8_t function;
};

/* Turns bus mastering off in the function's command register. Configuration mechanism 1 reaches
 * segment 0 only; on another segment this does nothing. */
void pci_master_off(const struct pci_function *where);

/* A counter that runs at a constant rate; the binding knows how fast (struct rich_door). */
uint64_t clock_ticks(void);

/* Tells the CPU that we are waiting in a loop. */
void cpu_relax(void);

/*
 * The poor door's one piece of data: when to give up (C6). Whoever opens the door sets the time,
 * and one door may serve several devices, so that the bound holds for all of them together.
 */
struct poor_door {
    uint64_t deadline; /* in clock_ticks() */
};

static inline bool deadline_passed(uint64_t deadline)
{
    return (int64_t)(clock_ticks() - deadline) >= 0;
}
