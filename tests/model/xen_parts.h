// SPDX-License-Identifier: BSD-2-Clause-Patent
/* What the parts of the modelled Xen host know of each other. */
#pragma once

#include <string.h>
#include "core/xen/abi.h"
#include "tests/model/xen_host.h"

#define PAGE 4096u

#define STORE_PORT   1u
#define CONSOLE_PORT 2u

extern struct xhost_options xhost_options;
extern struct xhost_counts xhost_counts;
extern bool xhost_strict; /* no fuzz */

/* ---- xen_host.c ---- */

uint32_t xhost_random(uint32_t below);
/* The fuzzer's next byte; false if there are no more, or if this is none of its targets. */
bool xhost_feed(enum xhost_target target, uint8_t *byte);
/* An honest number, or what the fuzzer makes of it. */
uint64_t xhost_twist(enum xhost_target target, uint64_t honest);
/* Only where things can go wrong because the host has gone wrong. */
void xhost_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A machine page, as its owner's memory or not. */
unsigned char *machine_page(int32_t mfn);
int32_t machine_of(uint64_t gfn); /* -1: nothing there */
struct xenstore_domain_interface *machine_store(void);

/* An event for the guest. */
void event_raise(uint32_t port);
/* The other end of a channel is bound; false if the guest has no such channel for us. */
bool event_bind(uint32_t port);
void event_unbind(uint32_t port);

/* A grant is mapped, for as long as it takes. */
bool grant_map(uint32_t ref, bool write, int32_t *mfn);
void grant_unmap(uint32_t ref, bool write);

/* ---- xen_store.c ---- */

void store_plug(void);
void store_unplug(void);
void store_kick(void);
void store_work(void);
uint64_t store_due(void);
/* What it will have to say is excused. */
void store_spoil(void);
/* A path from the root. */
const char *tree_read(const char *path);
void tree_write(const char *path, const char *value, bool guest_may_write);
void tree_remove(const char *path);
/* This is how the keys below a path were found. */
void store_found(const char *path);
void store_check(void);

/* ---- xen_blkback.c ---- */

void back_plug(void);
/* Former owners take the disks that are `taken`. */
void back_take(void);
void back_unplug(void);
void back_kick(uint32_t port);
/* A key of a frontend's has changed. */
void back_heard(const char *path);
void back_work(void);
uint64_t back_due(void);
void back_check(void);
/* A fault of XenStore's with what was asked about this path: what follows from it is excused. */
void back_excuse(const char *path);

#define DUE_NEVER UINT64_MAX
