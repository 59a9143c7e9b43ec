/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* The frontends: what XenStore says of each, and of its backend. */
#pragma once

#include "audit/xen/findings.h"

#include <stdbool.h>
#include <stdint.h>

enum { FRONTS_MAX = 64, REFS_MAX = 32 };

/* In the place of a XenbusState…. */
enum { STATE_UNREAD = -2, STATE_ODD = -1 };

struct front {
    char kind[16], name[48]; /* "vbd", "xen:vbd/51712" */
    char path[64];           /* "device/vbd/51712" */
    char backend[160];       /* its path; "" if it cannot be had */
    uint32_t backend_domain; /* DOMID_INVALID: not known */
    int state, backend_state;
    const char *const *toolstack_keys; /* of this kind; NULL: it is not known here how it begins */
    struct reasons keys;               /* that no toolstack writes */
    uint32_t refs[REFS_MAX];           /* grants that they name */
    size_t ref_count;
    bool watched;
    bool complete; /* everything was read */
};

extern struct front fronts[FRONTS_MAX];
extern size_t front_count;
extern bool fronts_complete; /* there are no others */

/* Reads all that there are, and says what is not as the toolstack makes it. */
void fronts_read(void);

/* "Connected", … */
const char *state_name(int state);
