/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The PCI functions of the machine: what they are, who drives them, what memory they have been
 * shown, and whether they are live. Looking at registers is all that is done to them, but for
 * device_notify() and device_let_master().
 */
#pragma once

#include "audit/images.h"
#include "audit/pci.h"

enum {
    DEVICES_MAX = 1024,
    DEVICE_DRIVERS_MAX = 8,
    REGISTERS_MAX = 1 << 16,
    QUEUES_MAX = 64,
    SHARED_MAX = 4096
};

enum kind {
    KIND_OTHER,
    KIND_BRIDGE,
    KIND_DISPLAY,
    KIND_NETWORK,
    KIND_VIRTIO_BLK,
    KIND_VIRTIO_SCSI,
    KIND_VIRTIO_NET,
    KIND_VIRTIO,
    KIND_NVME,
    KIND_AHCI,
    KIND_IDE,
    KIND_UHCI,
    KIND_OHCI,
    KIND_EHCI,
    KIND_XHCI,
    KIND_E1000,
    KIND_XEN_PLATFORM,
};

enum live { LIVE_UNKNOWN, LIVE_NO, LIVE_YES };

/* What the registers said at one moment. */
struct state {
    bool taken;
    uint64_t ticks;
    uint16_t command;
    enum live live;
    int status;      /* virtio; -1: none */
    uint64_t queues; /* virtio: a bit for each enabled one */
    char what[96];   /* in words */
};

struct virtio {
    bool modern, legacy;
    uint64_t common, notify, notify_size;
    uint32_t multiplier;
    uint16_t port;
    uint16_t queue_count;
};

struct device {
    struct pci pci;
    char name[16]; /* "0000:00:04.0" */
    char path[128];
    uint16_t vendor, id;
    uint32_t class; /* class, subclass, interface */
    enum kind kind;
    EFI_HANDLE handle; /* with PciIo on it, or NULL */
    int drivers[DEVICE_DRIVERS_MAX];
    size_t driver_count;
    const char *busy;
    uint64_t bar[6]; /* addresses; ports have `bar_ports` set */
    bool bar_ports[6];
    struct virtio virtio;
    struct state call, exit, end;
    uint64_t changes; /* bytes of the pattern that it is likely to have written */
    char change[96];  /* the first of them, in words */
};

extern struct device devices[DEVICES_MAX];
extern size_t device_count;

/* What a device does with memory that it was shown. */
enum access {
    DEVICE_READS = 0,
    DEVICE_WRITES = 1,
    DEVICE_OBEYS = 2, /* it finds there where to read and write */
    DEVICE_KEEPS = 4, /* for as long as it is live, where buffers come and go */
};

/* Memory that a device was shown, as it was at the call, and after it for what stayed live. */
struct shared {
    uint64_t base, size;
    uint16_t device;
    uint8_t access;
    char what[37];
};

extern struct shared shared[SHARED_MAX];
extern size_t shared_count;

bool kind_is_virtio(enum kind kind);

/* Finds all functions. Needs boot services; once, when all drivers are connected. */
void devices_find(void);

/* Everything that a device's registers reach: for the page tables. */
void devices_each_window(void (*range)(uint64_t base, uint64_t size));

/* Looks at one device now. Decoding is switched on for the look, where it is off. */
void device_look(struct device *device, struct state *state);

/* Puts down what memory live devices have been shown, and, of those that are live after the exit,
 * what they were shown during it. `map` says which addresses are memory. */
enum share { SHARE_AT_CALL, SHARE_AFTER_EXIT };
void devices_share(const struct app_map *map, enum share when);

/* The live device that has been shown any of this memory, or -1. For the time of the exit. */
int devices_holding(uint64_t base, uint64_t size);

/* The piece that an address lies in, or NULL. */
const struct shared *shared_at(uint64_t address);

/* Notifies every queue of a virtio device; gives how many. */
unsigned device_notify(struct device *device);

/* Switches decoding and bus mastering on. */
void device_let_master(struct device *device);

/* Tells of all devices, and of a state of theirs. */
void devices_report(void);
void device_report_state(const struct device *device, const char *when, const struct state *state);

/* C3 to C7 for every device that somebody drives, or that is live. */
void devices_judge(bool watched);
