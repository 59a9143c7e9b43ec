// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The grant table, version 1: which of our pages another domain may map. On the exit path.
 *
 * Every entry is in one list: of those that are free, or of what it was given for. The lists run
 * through an array outside the table, so that what nobody else can write says what is whose.
 */
#pragma once

#include <stdbool.h>
#include "core/regs.h"
#include "core/xen/abi.h"

#define GRANTS_PER_FRAME (XEN_PAGE / sizeof(grant_entry_v1_t))
/* What Xen gives a domain unless told otherwise. */
#ifndef GRANT_FRAMES_MAX
#define GRANT_FRAMES_MAX 64u
#endif
#define GRANTS_MAX (GRANT_FRAMES_MAX * GRANTS_PER_FRAME)

/* A list of entries, empty if 0: that one is the toolstack's. */
typedef uint16_t grant_list;

struct grants {
    grant_entry_v1_t *table;
    uint32_t frames, frames_max;
    uint32_t replaced;      /* pages that a backend would not let go: see grants_take_back() */
    uint8_t *reserve;       /* pages to use in their place */
    uint32_t reserve_pages; /* that are left, from the first on */
    grant_list unused;
    grant_list next[GRANTS_MAX];
};

/*
 * Takes the table, and maps its first frame. `place` is for `frames` pages that are nobody's
 * memory, where the table appears as it grows. False if Xen refuses, or if the table is of version
 * 2 and cannot be made to be of version 1.
 */
bool grants_start(struct grants *grants, void *place, uint32_t frames);

/*
 * Gives grants_take_back() the pages that it puts in others' places: Xen has no new ones for a
 * domain, which may have as many as it begins with. Each that is used is not memory any more, so
 * all of them must be of a kind that no operating system ever uses. They are used from the last on,
 * and grants->reserve_pages says how many are left. After grants_start().
 */
void grants_reserve(struct grants *grants, void *pages, uint32_t count);

/* Takes the table away again. May be called again. */
void grants_stop(struct grants *grants);

/* Lets `domain` map a page, and puts the entry into the list. 0 if no entry is free, or the page
 * is beyond what an entry can name. */
uint32_t grant_give(struct grants *grants, grant_list *list, domid_t domain, const void *page,
                    bool may_write);

/* Ends all grants in the list, and empties it. False if the other side still has some of the pages
 * mapped: those stay in the list. */
bool grants_end(struct grants *grants, grant_list *list);

/*
 * The same for the last time: pages that the other side has mapped are made to be not ours any
 * more. Each is exchanged for one of the reserve, with the same contents; the other side keeps the
 * old one, which is no longer part of this domain's memory (C4, C5). False if Xen refuses that, or
 * if the reserve is used up.
 */
bool grants_take_back(struct grants *grants, grant_list *list);
