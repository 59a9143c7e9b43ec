/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * XenStore: the ring, a page that it shares with this domain, and the questions that go through it.
 * For a domain that has it (xen.ring).
 */
#pragma once

#include "audit/xen/hypervisor.h"
#include "lab/efi/app.h"

#include <xen/io/xs_wire.h>

enum { NAME_MAX = 64 }; /* of a key */

extern struct store {
    const char *lost; /* why nothing can be asked any more, or NULL */
    bool silent;      /* … because there was no answer */
    bool reconnected;
    size_t stale; /* answers to questions that we did not ask */
    /* The message that came last. */
    struct xsd_sockmsg header;
    char payload[XENSTORE_PAYLOAD_MAX + 1]; /* ended by a zero that does not belong to it */
} store;

/* Reads the ring's indexes, and remembers them. */
void store_look(void);

/* Says what they were; where the ring ought to be idle, all else is a reason. */
void store_tell(const char *what, bool idle);

/* Takes the ring over, from where it was left. That it cannot be used is a reason. */
void store_take(void);

enum answer {
    ANSWERED,
    REFUSED, /* an error: its name is the payload */
    LOST,    /* XenStore cannot be talked to: see store.lost */
};

enum answer store_ask(uint32_t type, const void *request, size_t size);

/* A path, and after its zero perhaps something more. */
enum answer store_ask_path(uint32_t type, const char *path, const char *more, size_t size);

/* A key's value as printable text; false when it cannot be read. */
bool store_read(const char *path, char *value, size_t size);

/* The names below a key. */
struct listing {
    char text[XENSTORE_PAYLOAD_MAX + 1];
    size_t size, at;
};

bool store_list(const char *path, struct listing *list);

/* The next name, NULL after the last. One that cannot be a name ends all asking. */
const char *listing_next(struct listing *list);
