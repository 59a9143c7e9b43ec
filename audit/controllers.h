/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* Controllers that are not virtio: whether they run, and what memory they were given, as far as
 * their registers say so. */
#pragma once

#include "audit/devices.h"

/* Fills in `live` and `what`. LIVE_UNKNOWN for a kind that is not known here. */
void controller_look(const struct device *device, struct state *state);

/* Calls shared_add() for rings and lists of a controller that runs. */
void controller_share(const struct device *device);
