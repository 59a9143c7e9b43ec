// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "core/scan.h"

/* SPC-5 §6.33, §6.6 */
#define REPORT_LUNS  0xa0
#define INQUIRY      0x12
#define INQUIRY_DATA 36u /* the standard data's fixed part */

static void probe_done(struct io_request *base)
{
    struct scan_probe *probe = (struct scan_probe *)(void *)base;
    probe->scan->waiting_for--;
}

/* Asks one question. Whoever asks waits for all of them. */
static void ask(struct scan *scan, struct scan_probe *probe, struct scan_unit unit,
                uint8_t operation, void *buffer, uint32_t bytes)
{
    probe->scan = scan;
    probe->request = (struct scsi_request){
        .base = {.buffer = buffer, .bytes = bytes, .timeout_ms = SCAN_PROBE_MS, .done = probe_done},
        .direction = DMA_FROM_DEVICE,
        .target = unit.target,
        .lun = unit.lun,
        .cdb = {operation},
        .cdb_bytes = operation == INQUIRY ? 6 : 12,
    };
    /* Where each has how much to send; the lengths in between are 0. */
    size_t at = operation == INQUIRY ? 3 : 8;
    probe->request.cdb[at] = (uint8_t)(bytes >> 8);
    probe->request.cdb[at + 1] = (uint8_t)bytes;
    if (operation == REPORT_LUNS) {
        probe->request.cdb[6] = (uint8_t)(bytes >> 24);
        probe->request.cdb[7] = (uint8_t)(bytes >> 16);
    }
    probe->refused = RESULT_TIMEOUT;
    if (deadline_passed(scan->deadline))
        return;
    scan->waiting_for++;
    probe->refused = scan->submit(scan->context, &probe->request);
    if (probe->refused)
        scan->waiting_for--;
}

static void wait_for_all(struct scan *scan)
{
    while (scan->waiting_for != 0)
        scan->wait(scan->context);
}

/* ---- Which units a target says that it has ---- */

static void note(struct scan *scan, unsigned lun)
{
    if (lun <= scan->max_lun && lun <= SCSI_LUN_MAX)
        scan->luns[lun / 64] |= 1ull << lun % 64;
}

/* SAM-5 §4.7: units of one level, by the peripheral or the flat method. Nothing else can be
 * addressed. */
static void read_list(struct scan *scan, const uint8_t *list, size_t bytes)
{
    size_t length = bytes < 8 ? 0 : scsi_be32(list);

    if (length > bytes - 8)
        length = bytes - 8;
    for (size_t at = 8; at + 8 <= 8 + length; at += 8) {
        const uint8_t *entry = list + at;
        if (scsi_be32(entry + 4) != 0 || entry[2] != 0 || entry[3] != 0)
            continue;
        if (entry[0] == 0)
            note(scan, entry[1]);
        else if (entry[0] >> 6 == 1)
            note(scan, (entry[0] & 0x3fu) << 8 | entry[1]);
    }
}

static void add_noted(struct scan *scan, uint8_t target)
{
    for (unsigned lun = 0; lun <= SCSI_LUN_MAX; lun++) {
        if (!(scan->luns[lun / 64] >> lun % 64 & 1))
            continue;
        if (scan->count == SCAN_UNITS_MAX)
            scan->more = true;
        else
            scan->units[scan->count++] = (struct scan_unit){target, (uint16_t)lun};
    }
}

/* What the answer of a target to the first question says. */
static void evaluate(struct scan *scan, struct scan_probe *probe, const uint8_t *list)
{
    const struct scsi_request *answer = &probe->request;
    uint8_t target = answer->target;

    if (probe->refused || answer->host == SCSI_HOST_NO_TARGET ||
        answer->base.result == RESULT_TIMEOUT || answer->base.result == RESULT_ABORTED)
        return;
    __builtin_memset(scan->luns, 0, sizeof(scan->luns));
    if (answer->base.result == RESULT_OK) {
        read_list(scan, list, answer->transferred);
        if (answer->transferred == SCAN_SHORT_LIST && scsi_be32(list) > SCAN_SHORT_LIST - 8) {
            ask(scan, probe, (struct scan_unit){target, 0}, REPORT_LUNS, scan->long_list,
                SCAN_LONG_LIST);
            wait_for_all(scan);
            if (!probe->refused && answer->base.result == RESULT_OK)
                read_list(scan, scan->long_list, answer->transferred);
        }
    }
    /* It is there, though it does not know the question, or will not say. */
    note(scan, 0);
    add_noted(scan, target);
}

/* ---- And which of them are there ---- */

static bool is_there(const struct scan_probe *probe, const uint8_t *data)
{
    const struct scsi_request *answer = &probe->request;

    if (probe->refused)
        return false;
    /* A unit that has no time for questions is there. */
    if (answer->base.result != RESULT_OK)
        return answer->host == SCSI_HOST_BUSY ||
               (answer->host == SCSI_HOST_OK && answer->status != SCSI_GOOD &&
                answer->status != SCSI_CHECK_CONDITION);
    /* The qualifier, in the upper bits: 0 for a unit that is connected. */
    return answer->transferred != 0 && data[0] >> 5 == 0;
}

static void keep_those_there(struct scan *scan)
{
    size_t kept = 0;

    for (size_t first = 0; first < scan->count; first += SCAN_PROBES) {
        size_t batch = scan->count - first < SCAN_PROBES ? scan->count - first : SCAN_PROBES;
        for (size_t i = 0; i < batch; i++)
            ask(scan, &scan->probes[i], scan->units[first + i], INQUIRY, scan->lists[i],
                INQUIRY_DATA);
        wait_for_all(scan);
        for (size_t i = 0; i < batch; i++)
            if (is_there(&scan->probes[i], scan->lists[i]))
                scan->units[kept++] = scan->units[first + i];
    }
    scan->count = kept;
}

void scan(struct scan *scan)
{
    scan->count = 0;
    scan->more = false;
    scan->waiting_for = 0;
    scan->deadline = clock_ticks() + SCAN_MS * scan->ticks_per_ms;
    for (unsigned first = 0; first <= scan->max_target; first += SCAN_PROBES) {
        unsigned left = scan->max_target + 1 - first;
        unsigned batch = left < SCAN_PROBES ? left : SCAN_PROBES;
        for (unsigned i = 0; i < batch; i++)
            ask(scan, &scan->probes[i], (struct scan_unit){(uint8_t)(first + i), 0}, REPORT_LUNS,
                scan->lists[i], SCAN_SHORT_LIST);
        wait_for_all(scan);
        for (unsigned i = 0; i < batch; i++)
            evaluate(scan, &scan->probes[i], scan->lists[i]);
    }
    keep_those_there(scan);
}
