/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Who calls which boot service during ExitBootServices (C1, C2).
 *
 * From calls_begin() on, all boot services but the two for the task priority go through stubs of
 * ours. Exit events that are created meanwhile have a bracket of ours before their notification
 * function, so that it is known whose handler runs, when and for how long. During the exit each
 * call is put down, with the address that it came from and the images on the stack; nothing is
 * printed, allocated or freed then.
 */
#pragma once

#include "audit/images.h"
#include "lab/efi/services.h"

/* Begins to watch; once. Creates events of its own. Needs boot services. */
void calls_begin(void);

/* Begins and ends putting down calls, around each call of ExitBootServices (1, 2, …). */
void calls_exit_begin(unsigned attempt, const struct app_map *map);
void calls_exit_end(bool success);

/* How many events an image has for the exit: those created under our eyes and not closed. */
unsigned calls_exit_events(int image);

/*
 * For C1: drivers have been told to let go of all devices, so an exit event that an image made
 * while devices were being connected must be closed by now. calls_connecting(true) says that what
 * comes is such a time.
 */
void calls_connecting(bool connecting);
void calls_expect_closed(void);

/* Who had this memory allocated, or IMAGE_NONE: known only for what was allocated under our eyes.
 */
int calls_owner(uint64_t address);

/* Whether anybody gave memory back during the exit, or may have. */
bool calls_freed_memory(void);

/* Tells of everything and gives the verdicts: C1, C2 and C6 for every driver that calls_driver()
 * named, made an exit event or called something; C2 for the firmware. After the exit. */
void calls_driver(int image);
void calls_report(void);
