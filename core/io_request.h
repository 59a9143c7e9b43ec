// SPDX-License-Identifier: BSD-2-Clause-Patent
/* What a driver that moves data is asked for, whatever it drives: the first member of a disk's or a
 * SCSI request. */
#pragma once

#include <stddef.h>
#include "core/door.h"

/* The caller owns it and keeps it where it is until done() is called. */
struct io_request {
    void *buffer;        /* any alignment */
    size_t bytes;        /* 0 where no data moves */
    uint32_t timeout_ms; /* from when it is first sent; 0 for the driver's own bound */
    /* Called once, from whatever the driver is called for. It must not call back into the driver.
     */
    void (*done)(struct io_request *request);
    enum result result; /* valid once done() is called */

    /* The driver's own. */
    bool alone; /* not sent before all that is ahead of it has come back */
    struct io_request *next;
    size_t issued;
    unsigned in_flight;
    uint32_t since; /* the look before which it was first sent */
};
