/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* Makes devices busy in the ways that matter at the exit: asynchronous reads in flight, network
 * interfaces that receive. Sets each device's `busy`. Needs boot services, allocates. */
#pragma once

/* Everything that may take its time: buffers, events, one read from each disk, interfaces started.
 */
void busy_prepare(void);

/* Submits the reads. */
void busy_go(void);

/* Which of them are still in flight, and puts down where they go. Right before the exit, after
 * devices_share(); allocates nothing. */
void busy_at_call(void);
