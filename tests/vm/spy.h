/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Stands between Baton's driver and the firmware: every boot service, and every function of the
 * PciIo protocols it is told of, goes through a stub (lab/efi/services.h) that looks at the return
 * address.
 *
 *  - calls by Baton are counted, and one of them can be made to fail;
 *  - Baton's pool memory is followed: what it frees is filled with a pattern, so that a driver
 *    which uses it afterwards falls over;
 *  - Baton's exit events are followed from CreateEvent to CloseEvent, and their notification
 *    function runs between two brackets. Between them nobody at all may call a service: that is
 *    C2, directly or indirectly. A notification whose event is closed, or whose binding is freed,
 *    is caught before it runs: that is C1.
 *
 * It works on the firmware's own table, so it sees every image that has the table's address. Only
 * events and memory that come after spy_install() are known: disconnect before, connect after.
 */
#pragma once

#include "lab/efi/services.h"
#include "tests/vm/vm.h"

enum { SPY_EVENTS_MAX = 256, SPY_POOL_MAX = 256 };

struct spy_event {
    EFI_EVENT event;
    EFI_EVENT_NOTIFY notify;
    void *context;
    EFI_TPL tpl;
    bool open;
    unsigned calls;
    uint64_t ticks; /* of the slowest call */
};

struct spy {
    struct spy_event events[SPY_EVENTS_MAX]; /* all that there ever were: see spy_forget() */
    size_t event_count;
    size_t exit_events_open;
    size_t other_events_open;
    size_t pool_live;        /* Baton's allocations that are not freed */
    uint64_t calls;          /* by Baton */
    unsigned in_exit;        /* calls by anybody while an exit handler of Baton's ran: C2 */
    unsigned dead;           /* exit notifications for a closed event or a freed binding: C1 */
    const char *failed_name; /* the call that was made to fail, or NULL */
};
extern struct spy spy;

void spy_install(void);
void spy_remove(void);

/* Learns where Baton's images are: at spy_install(), and again when one was loaded. */
void spy_find_images(void);
size_t spy_image_count(void);

/* Watches this device's PciIo, too, until spy_remove(). */
void spy_watch_pci(EFI_HANDLE controller);

/* Lets Baton's n-th call from now on that can fail (1 is the next) give EFI_OUT_OF_RESOURCES. 0 is
 * none. spy.failed_name says afterwards what it was. */
void spy_fail(uint64_t nth);

/* Forgets events that are closed. */
void spy_forget(void);

/* How often Baton has called this service or PciIo function since spy_install(), without those
 * that were made to fail. */
uint64_t spy_calls_of(const char *name);

/* Calls every open exit event's function as the firmware would, without an exit. */
void spy_notify_exit(void);
