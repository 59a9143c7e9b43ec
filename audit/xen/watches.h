/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* Watches and transactions that somebody has left in XenStore. */

#include <stddef.h>

extern size_t watch_events; /* of watches that are not ours */

/* A watch event has come, into store.payload: ours, or of a watch that somebody has left behind. */
void watches_event(void);

/* Writes their own values to the keys that a driver may have watched, and that we may write. */
void watches_provoke(void);

/* Counts watches and transactions, and ends them all; those that were left are a reason. */
void watches_count(void);
