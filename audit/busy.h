/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* Makes devices busy in the ways that matter at the exit: asynchronous reads in flight, network
 * interfaces that receive. Sets each device's `busy`. Needs boot services, allocates. */
#pragma once

/* Everything that may take its time: buffers, events, one read from each disk, interfaces started.
 */
void busy_prepare(void);

/* Submits the reads. Right before the memory map is read. */
void busy_go(void);
