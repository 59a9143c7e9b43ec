// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The domain that we are in: whether it is one, and taking what it has of Xen for our own.
 *
 *   xen_found()                  is this Xen?
 *   xen_begin()                  the page, the grant table, XenStore; see core/xen/exit.h
 *   xen_list()                   which disks there are
 *   xen_quiesce()                the exit, and the end
 */
#pragma once

#include "core/door.h"
#include "core/xen/exit.h"

/* How long XenStore may take to answer when there is no hurry, and a backend to do its part (C6).
 */
#define XEN_STORE_MS   5000
#define XEN_BACKEND_MS 10000

/* Disks of one domain: each takes a watch. */
#define XEN_DISKS_MAX (STORE_WATCHES_MAX - 1)

/* Whether this machine is a domain of Xen's. May be called anywhere. */
bool xen_found(void);

/*
 * Takes over XenStore's ring, the grant table and the event channels, and watches the list of
 * disks. `place` is a range of the platform device's memory window: nothing but a place where pages
 * of Xen's can be seen. On failure everything is as it was, and the log says why. `rich` is
 * used for the log and the clock only.
 */
enum result xen_begin(struct xen *xen, const struct rich_door *rich,
                      const struct reg_window *place);

/* Gives all of it back: xen_quiesce() for whoever is not in the exit. No frontend may be left. */
void xen_end(struct xen *xen, const struct rich_door *rich);

/*
 * Virtual device numbers (Xen's docs/man/xen-vbd-interface.7) of the disks to drive, in order, as
 * many as there is room for; if there are more, the log says so. Clears the mark that the list has
 * changed.
 *
 * A disk that the toolstack emulates as well is left to whoever drives the emulated one. They are
 * two ways to the same data with a cache each, and nothing keeps the two in step; and to take the
 * emulated one away is not for us, since it would be away for an operating system that knows no
 * other.
 */
enum result xen_list(struct xen *xen, const struct rich_door *rich, uint32_t *numbers, size_t room,
                     size_t *count);

/* Whether the backend of a disk that has had no medium waits for us now. The list does not tell of
 * that. */
bool xen_disk_waits(struct xen *xen, const struct rich_door *rich, uint32_t number);

/* Whether disks have come or gone since the list was read. Never waits. */
bool xen_list_changed(struct xen *xen);
