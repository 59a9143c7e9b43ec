// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * Requests on their way through a driver, cut into the pieces that its device can take. What is the
 * same for every disk and every SCSI adapter stands here: the order, flushes, ends, and who has
 * waited too long. The driver knows how to send one piece.
 *
 * A piece has a number, below `count`; the driver keeps what it needs for each in its own array.
 */
#pragma once

#include "core/io_request.h"

/* One bit each in pieces.busy. More would not make a disk faster, and each costs memory. */
#ifndef PIECES_MAX
#define PIECES_MAX 64u
#endif

/* How long a request without a time-out of its own may wait, nothing before it being finished
 * either, until the device is given up (C6). */
#define PIECE_TIMEOUT_MS 30000
/* How often to ask a device that is slow whether it has failed. */
#ifndef PIECE_LOOK_MS
#define PIECE_LOOK_MS 100
#endif

enum post {
    POSTED,
    POST_LATER, /* no room now; there will be when something comes back */
    POST_NEVER, /* cannot be shown to the device, now or, if nothing is in flight, ever */
};

struct pieces;

struct pieces_ops {
    /* Sends the next piece of a request, from `issued` on. Calls pieces_begin() if anything was
     * sent; a flush with nothing to flush needs nothing. */
    enum post (*post)(struct pieces *pieces, struct io_request *request);
    /* A piece is over. `let_go` is false for a device that may still use its memory: then that is
     * left as it is (C5). `result` is how the piece went. */
    void (*release)(struct pieces *pieces, unsigned number, enum result result, bool let_go);
};

struct piece {
    struct io_request *request;
    uint32_t bytes; /* of data in this piece */
    uint32_t order; /* counts up from one to the next */
    uint32_t ahead; /* how many sent before this one were busy at the last look */
    uint32_t looks; /* how often in a row that number had not become smaller */
};

struct pieces {
    const struct pieces_ops *ops;
    const struct rich_door *rich;
    unsigned count; /* how many there may be in flight */
    uint64_t busy;  /* a bit for each that is */
    uint32_t begun;
    uint32_t looks;   /* that were due, so far */
    uint64_t look_at; /* when to look next whether the device has failed */
    struct piece at[PIECES_MAX];
    struct io_request *pending, **pending_tail; /* in order; the first may be partly issued */
};

void pieces_init(struct pieces *pieces, const struct pieces_ops *ops, const struct rich_door *rich,
                 unsigned count);

/* Puts a request behind all others. It is sent by pieces_issue(). */
void pieces_submit(struct pieces *pieces, struct io_request *request);

/* Sends what there is room for. */
void pieces_issue(struct pieces *pieces);

/* A number that is free. False if none is. */
bool pieces_free(const struct pieces *pieces, unsigned *number);

/* A piece of `bytes` is on its way. */
void pieces_begin(struct pieces *pieces, unsigned number, struct io_request *request,
                  uint32_t bytes);

/* A piece has come back: released, and its request done if it was the last. */
void pieces_finish(struct pieces *pieces, unsigned number, enum result result, bool let_go);

/* Ends everything that is not done. */
void pieces_fail(struct pieces *pieces, enum result why, bool let_go);

/* Whether it is time for a look at a device with something in flight. */
bool pieces_look_due(struct pieces *pieces);

/*
 * A request that has waited for too long, or NULL; to be asked once for each look that is due. A
 * slow device keeps the later ones waiting for those ahead of them, so only the time counts in
 * which none ahead was finished; and no stream of others that overtake it can keep a lost one
 * waiting for ever (C6). A request with a time-out has that, and not a moment less. Time is counted
 * in looks: a machine that was stopped for an hour and goes on does not blame its disk.
 */
struct io_request *pieces_overdue(struct pieces *pieces);
