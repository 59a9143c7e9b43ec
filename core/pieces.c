// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "core/pieces.h"

void pieces_init(struct pieces *pieces, const struct pieces_ops *ops, const struct rich_door *rich,
                 unsigned count)
{
    *pieces = (struct pieces){
        .ops = ops,
        .rich = rich,
        .count = count < PIECES_MAX ? count : PIECES_MAX,
        .pending_tail = &pieces->pending,
    };
}

/* ---- On their way to the device ---- */

enum result disk_check(const struct disk_info *info, struct disk_request *request)
{
    uint64_t sectors_per_block = info->block_size / DISK_SECTOR;
    uint64_t sectors = info->blocks * sectors_per_block;

    if (request->op == DISK_FLUSH) {
        request->bytes = 0;
        return RESULT_OK;
    }
    if (request->bytes == 0 || request->bytes % info->block_size != 0 ||
        request->sector % sectors_per_block != 0 || request->sector >= sectors ||
        request->bytes / DISK_SECTOR > sectors - request->sector)
        return RESULT_OUT_OF_RANGE;
    return request->op == DISK_WRITE && info->read_only ? RESULT_WRITE_PROTECTED : RESULT_OK;
}

void pieces_submit(struct pieces *pieces, struct disk_request *request)
{
    request->result = RESULT_OK;
    request->next = NULL;
    request->issued = 0;
    request->in_flight = 0;
    *pieces->pending_tail = request;
    pieces->pending_tail = &request->next;
}

bool pieces_free(const struct pieces *pieces, unsigned *number)
{
    if (~pieces->busy == 0)
        return false;
    *number = (unsigned)__builtin_ctzll(~pieces->busy);
    return *number < pieces->count;
}

void pieces_begin(struct pieces *pieces, unsigned number, struct disk_request *request,
                  uint32_t bytes)
{
    if (pieces->busy == 0)
        pieces->look_at = deadline_in_ms(pieces->rich, PIECE_LOOK_MS);
    pieces->busy |= 1ull << number;
    pieces->at[number] = (struct piece){
        .request = request,
        .bytes = bytes,
        .order = pieces->begun++,
        .ahead = UINT32_MAX,
    };
    request->in_flight++;
    request->issued += bytes;
}

/* Issues what is left of a request. False if it has to wait for room. */
static bool issue_request(struct pieces *pieces, struct disk_request *request)
{
    /* The device flushes what it has finished: everything before has to be. */
    if (request->op == DISK_FLUSH)
        return pieces->busy == 0 && pieces->ops->post(pieces, request) == POSTED;

    while (request->result == RESULT_OK && request->issued < request->bytes) {
        enum post post = pieces->ops->post(pieces, request);
        /* What is in flight will give back what it has; then there may be more room. */
        if (post == POST_LATER || (post == POST_NEVER && pieces->busy != 0))
            return false;
        if (post == POST_NEVER)
            request->result = RESULT_NO_MEMORY;
    }
    return true;
}

void pieces_issue(struct pieces *pieces)
{
    while (pieces->pending) {
        struct disk_request *request = pieces->pending;
        if (!issue_request(pieces, request))
            break;
        pieces->pending = request->next;
        if (!pieces->pending)
            pieces->pending_tail = &pieces->pending;
        if (request->in_flight == 0)
            request->done(request);
    }
}

/* ---- And on their way back ---- */

void pieces_finish(struct pieces *pieces, unsigned number, enum result result, bool let_go)
{
    struct disk_request *request = pieces->at[number].request;

    pieces->ops->release(pieces, number, result, let_go);
    pieces->busy &= ~(1ull << number);
    pieces->at[number].request = NULL;
    if (request->result == RESULT_OK)
        request->result = result;
    request->in_flight--;
    /* The first of the pending has more to issue, or to be told that it need not. */
    if (request->in_flight == 0 && request != pieces->pending)
        request->done(request);
}

void pieces_fail(struct pieces *pieces, enum result why, bool let_go)
{
    for (unsigned i = 0; i < pieces->count; i++)
        if (pieces->busy & 1ull << i)
            pieces_finish(pieces, i, why, let_go);

    struct disk_request *request = pieces->pending;
    pieces->pending = NULL;
    pieces->pending_tail = &pieces->pending;
    while (request) {
        struct disk_request *next = request->next;
        request->result = why;
        request->done(request);
        request = next;
    }
}

/* ---- Waiting too long ---- */

bool pieces_look_due(struct pieces *pieces)
{
    if (pieces->busy == 0 || !deadline_passed(pieces->look_at))
        return false;
    pieces->look_at = deadline_in_ms(pieces->rich, PIECE_LOOK_MS);
    return true;
}

bool pieces_overdue(struct pieces *pieces)
{
    bool found = false;

    for (unsigned i = 0; i < pieces->count; i++) {
        struct piece *piece = &pieces->at[i];
        uint32_t ahead = 0;
        if (!(pieces->busy & 1ull << i))
            continue;
        for (unsigned k = 0; k < pieces->count; k++)
            if (pieces->busy & 1ull << k && (int32_t)(pieces->at[k].order - piece->order) < 0)
                ahead++;
        piece->looks = ahead < piece->ahead ? 0 : piece->looks + 1;
        piece->ahead = ahead;
        found |= piece->looks >= PIECE_TIMEOUT_MS / PIECE_LOOK_MS;
    }
    return found;
}
