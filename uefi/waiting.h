// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * Waiting for a device, as every protocol does that has calls which wait and calls which complete
 * later: the device is entered at TPL_NOTIFY only, for as long as it takes to post or to collect,
 * and waiting is done at the caller's TPL. So a timer event that uses the device may come in the
 * middle of another call: it collects the other's completion with its own.
 */
#pragma once

#include "uefi/driver.h"

struct waiting_ops {
    void (*poll)(void *device);        /* at TPL_NOTIFY */
    bool (*ready)(const void *device); /* whether poll() has something to find; at any TPL */
    /* Gives the CPU away until then, or until it is time for a poll() at the latest; at TPL_NOTIFY.
     * NULL: no need to. */
    void (*rest)(void *device);
};

struct waiting {
    const struct waiting_ops *ops;
    void *device;
    EFI_EVENT timer;
    bool ticking;
    bool rested;       /* in this wait */
    uint32_t looks;    /* since the last rest */
    uint32_t patience; /* looks before the CPU is given away: as many as it has been worth */
    uint32_t waits;
    unsigned calls;  /* that are in the middle of a wait */
    unsigned tokens; /* what is to complete while nobody waits for it */
};

EFI_STATUS waiting_open(struct waiting *waiting, const struct waiting_ops *ops, void *device);
void waiting_close(struct waiting *waiting);

/* Lets the device work, once. */
void waiting_poll(struct waiting *waiting);

/* One turn of a wait: looks, and polls if there is something, or from time to time. Until `flag`,
 * if it is not NULL, says what is wanted. */
void waiting_turn(struct waiting *waiting, const volatile bool *flag);

/* Lets the device work until `*flag` says what is wanted. Ends, because the drivers end every
 * request within its bound. */
void waiting_until(struct waiting *waiting, const volatile bool *flag);

/* To be called at TPL_NOTIFY when there may be tokens: lets the timer complete them. It stops when
 * there are none. */
void waiting_tick(struct waiting *waiting);
