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

void pieces_submit(struct pieces *pieces, struct io_request *request)
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

void pieces_begin(struct pieces *pieces, unsigned number, struct io_request *request,
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
    if (request->in_flight == 0 && request->issued == 0)
        request->since = pieces->looks;
    request->in_flight++;
    request->issued += bytes;
}

/* Issues what is left of a request. False if it has to wait for room. */
static bool issue_request(struct pieces *pieces, struct io_request *request)
{
    /* The device flushes what it has finished: everything before has to be. */
    if (request->alone && pieces->busy != 0)
        return false;

    while (request->result == RESULT_OK) {
        enum post post = pieces->ops->post(pieces, request);
        /* What is in flight will give back what it has; then there may be more room. */
        if (post == POST_LATER || (post == POST_NEVER && pieces->busy != 0))
            return false;
        if (post == POST_NEVER)
            request->result = RESULT_NO_MEMORY;
        else if (request->issued == request->bytes)
            break;
    }
    return true;
}

void pieces_issue(struct pieces *pieces)
{
    while (pieces->pending) {
        struct io_request *request = pieces->pending;
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
    struct io_request *request = pieces->at[number].request;

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

    struct io_request *request = pieces->pending;
    pieces->pending = NULL;
    pieces->pending_tail = &pieces->pending;
    while (request) {
        struct io_request *next = request->next;
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

static bool overdue(const struct pieces *pieces, const struct piece *piece)
{
    const struct io_request *request = piece->request;

    if (request->timeout_ms == 0)
        return piece->looks >= PIECE_TIMEOUT_MS / PIECE_LOOK_MS;
    /* The first look may have come at any moment after it was sent. */
    return (uint64_t)(pieces->looks - request->since) * PIECE_LOOK_MS >=
           (uint64_t)request->timeout_ms + PIECE_LOOK_MS;
}

struct io_request *pieces_overdue(struct pieces *pieces)
{
    struct io_request *found = NULL;

    pieces->looks++;
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
        if (overdue(pieces, piece))
            found = piece->request;
    }
    return found;
}
