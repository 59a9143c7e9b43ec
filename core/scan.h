// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * What logical units a SCSI adapter has. All targets are asked at once which they have (REPORT
 * LUNS), and then each of these what it is (INQUIRY): only those that answer count, whatever the
 * lists say. Where a target does not know the question, its unit 0 is asked.
 */
#pragma once

#include "core/scsi.h"

/* How many are asked at a time, and how long a list each of these may send at first. Who has more
 * is asked once more, alone. */
#ifndef SCAN_PROBES
#define SCAN_PROBES 64u
#endif
#define SCAN_SHORT_LIST (8u + 64u * 8u)
#ifndef SCAN_LONG_LIST_UNITS
#define SCAN_LONG_LIST_UNITS (SCSI_LUN_MAX + 1u)
#endif
#define SCAN_LONG_LIST (8u + SCAN_LONG_LIST_UNITS * 8u)
/* The most units that are found: more than firmware can do anything with. */
#ifndef SCAN_UNITS_MAX
#define SCAN_UNITS_MAX 4096u
#endif
/* How long one question may take, and how long all of them until no more are asked (C6). */
#define SCAN_PROBE_MS 5000
#define SCAN_MS       30000

struct scan_unit {
    uint8_t target;
    uint16_t lun;
};

struct scan_probe {
    struct scsi_request request;
    struct scan *scan;
    enum result refused; /* RESULT_OK if the driver has taken it */
};

/* 200 KiB, as it comes: not for a stack. It must not be freed while the adapter may still write
 * into it (C5). */
struct scan {
    /* By the caller: the adapter, and how to give it a command and the CPU. */
    void *context;
    enum result (*submit)(void *context, struct scsi_request *request);
    void (*wait)(void *context);
    uint64_t ticks_per_ms;
    unsigned max_target, max_lun;

    /* What was found, in order of target and unit. */
    struct scan_unit units[SCAN_UNITS_MAX];
    size_t count;
    bool more; /* than there is room for */

    /* The scan's own. */
    uint64_t deadline;
    volatile unsigned waiting_for;
    struct scan_probe probes[SCAN_PROBES];
    uint8_t lists[SCAN_PROBES][SCAN_SHORT_LIST];
    uint8_t long_list[SCAN_LONG_LIST];
    uint64_t luns[(SCSI_LUN_MAX + 1) / 64]; /* of the target at hand: a bit each */
};

/* May take as long as the adapter takes, within the above bounds. */
void scan(struct scan *scan);
