// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * A PC BIOS around the ROM, for its 32-bit part as a whole: the first MiB with the ROM in it, PMM,
 * the way to real mode and what is called there, a few ports, and a PCI bus. It stands in for
 * bios/high.S and bios/pci.c. There is one start in each process: the ROM keeps what it knows.
 */
#pragma once

#include <stddef.h>
#include "bios/drives.h"
#include "bios/pci.h"

#define PC_BIOS_BLOCKS 64u
#define PC_BIOS_CALL   512u     /* bytes of the 32-bit stack */
#define PC_BIOS_ROM    0xc8000u /* where the ROM is */

extern struct pc_bios {
    /* How it is. */
    unsigned fails_at;   /* allocation k is refused, from 1; 0: none is */
    bool fails_for_good; /* and all after it */
    bool no_pnp;

    /* Where PMM's memory comes from and goes to. The address has to fit into 32 bits. */
    void *(*take)(size_t bytes);
    void (*give)(void *memory, size_t bytes);
    /* The doors of the bus's devices. */
    void (*open)(struct pci_device *device);
    /* Interrupts are let in. */
    void (*window)(void);

    /* What has happened. */
    unsigned allocations; /* asked for */
    unsigned held;        /* blocks that were not given back */
    bool image_back;      /* the 32-bit part was */
    char said[4096];
} pc_bios;

/* Switches it on. */
void pc_bios_on(void);
void pc_bios_add(uint16_t vendor, uint16_t id, const struct pci_function *where);

/* The ROM's entry. Afterwards: whether anything of it has stayed. */
bool pc_bios_start(void);
/* How many boot entries it has; each is called, and whether each is as the specification has it. */
unsigned pc_bios_connect(void);
/* INT 13h: a sector is read to an address. Gives AH, or -1 if nobody has that drive. */
int pc_bios_read(uint8_t drive, uint64_t sector, uint32_t address);

/* INT 19h, by whoever is let in in the middle of a call. */
void pc_bios_int19(void);

uint8_t *pc_bios_memory(uint32_t address); /* below 1 MiB */
/* A port: false if it is none of the PC's. */
bool pc_bios_port(uint64_t port, bool write, uint32_t *value);
