/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* The grant table: what other domains are allowed to map, and have mapped. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GRANTS_MAX = 512 };

/* As it was when last looked at. */
extern struct grants {
    const char *unseen; /* why the table cannot be seen, or NULL */
    uint32_t version;
    size_t used_count; /* entries that are not empty; may be more than GRANTS_MAX, which are kept */
} grants;

/* Finds a place where the table may be mapped later, with boot services, and looks at the table
 * where the firmware has it mapped. */
void grants_before(void);

/* Looks at all of the table, mapping what the firmware has not; only after the exit. */
void grants_exit(void);

/* Puts the address space back as it was. */
void grants_unmap(void);

/* Says where the table is. */
void grants_tell_place(void);

/* The same, and which grants there are; each is a reason. */
void grants_tell(void);

/* Entries that a domain (or with DOMID_INVALID any) has mapped just now. */
size_t grants_busy(uint32_t domain);

bool grant_ref_busy(uint32_t ref);
