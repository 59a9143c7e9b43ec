/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* The event channels: which of them somebody has left bound. */
#pragma once

#include <stddef.h>

/* Asks for all of them; gives how many there are beside XenStore's and the console's. */
size_t channels_read(void);

/* Says what was read; what ought not to be so is a reason. */
void channels_tell(void);
