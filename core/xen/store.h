// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * XenStore, as a client sees it: a page that it shares with this domain, with a ring for requests
 * and one for answers (xen/io/xs_wire.h; docs/misc/xenstore.txt of Xen's source). On the exit path.
 *
 * There is one ring for the whole domain, and one owner of it, at all times. Answers come in the
 * order of the requests, so that several can be on their way: each costs XenStore's domain a turn
 * on the CPU, and many disks are closed in the time of one.
 *
 * Memory that XenStore sees is the ring's own page, which is the toolstack's; nothing else.
 */
#pragma once

#include "core/xen/events.h"
#include <xen/io/xs_wire.h>

/* A path below this domain's own, or from the root; and a value. Longer ones are refused. */
#define STORE_PATH_MAX  128u
#define STORE_VALUE_MAX 128u

/* Requests that may be on their way at once. The ring for answers has room for all of theirs, so
 * that neither side ever waits for the other to make room first. */
#define STORE_AHEAD_MAX 16u

/* Watches are told apart by a number, below this. */
#define STORE_WATCHES_MAX 64u

struct store {
    volatile struct xenstore_domain_interface *ring;
    const struct events *events;
    uint32_t port;

    bool in_step;     /* false: answers are not known to be ours any more */
    const char *lost; /* why that is so, for people */
    uint64_t
        fired; /* a bit for each watch that has told of something; whoever reads it, clears it */

    uint32_t asked, answered; /* counts of requests, and their ids */

    /* The message that is coming in, or has come in and was not looked at. */
    uint32_t have; /* bytes of it */
    struct xsd_sockmsg header;
    char payload[XENSTORE_PAYLOAD_MAX + 1]; /* ended by a zero that is not part of it */
};

enum answer {
    ANSWER_OK,
    ANSWER_REFUSED, /* XenStore says no; its word for why is the payload */
    ANSWER_LOST,    /* no answer within the bound, or one that cannot be true */
};

/* What a request contains is sent in pieces, one after the other. */
struct store_piece {
    const void *bytes;
    size_t count;
};

/* Takes over the ring where the last owner left it. Every answer that is not ours is thrown away.
 * False if that leaves nothing: the last owner left it out of step, or nobody is there. */
bool store_start(struct store *store, volatile struct xenstore_domain_interface *ring,
                 const struct events *events, uint32_t port, const struct poor_door *door);

/* Makes a ring that is out of step anew, if the server offers that. All watches are gone then. */
bool store_reconnect(struct store *store, const struct poor_door *door);

/*
 * Sends a request on its way, its contents in `count` pieces. Each has an answer, to be fetched
 * with store_answer() in the same order; where STORE_AHEAD_MAX are on their way already, that of
 * the first is thrown away. False if it could not be sent: then the ring is out of step.
 */
bool store_ask(struct store *store, const struct poor_door *door, uint32_t type,
               uint32_t transaction, const struct store_piece *pieces, size_t count);

/* The answer to the request that was sent first. Its contents are in store->payload until the next
 * call. */
enum answer store_answer(struct store *store, const struct poor_door *door);

/* Whether the contents of the last answer are this text: of one that was ANSWER_REFUSED, why. */
bool store_says(const struct store *store, const char *text);

/* Throws the answers away that have not been fetched. False if one was not ANSWER_OK. */
bool store_settle(struct store *store, const struct poor_door *door);

/* Takes in what has come by itself: watch events. Never waits. */
void store_listen(struct store *store);

/* Whether the ring is empty both ways. */
bool store_idle(const struct store *store);

/* ---- Requests ---- */

/* A path in two parts, with a slash between them; the second may be NULL. False if too long. */
bool store_path(char path[STORE_PATH_MAX], const char *folder, const char *name);

/* Sends the question what a key's value is, or sends away a new value or the key. */
bool store_ask_read(struct store *store, const struct poor_door *door, const char *folder,
                    const char *name);
bool store_ask_write(struct store *store, const struct poor_door *door, uint32_t transaction,
                     const char *folder, const char *name, const char *value);
bool store_ask_remove(struct store *store, const struct poor_door *door, const char *folder,
                      const char *name);
/* Begins or ends a watch. The token is `watch`, as a number. */
bool store_ask_watch(struct store *store, const struct poor_door *door, bool begin,
                     const char *folder, const char *name, unsigned watch);

/* Reads a key and waits for its value: text of at most size - 1 bytes. A longer one is refused. */
enum answer store_read(struct store *store, const struct poor_door *door, const char *folder,
                       const char *name, char *value, size_t size);

/* The same for a number, decimal. A value that is none, or more than `most`, is refused. */
enum answer store_read_number(struct store *store, const struct poor_door *door, const char *folder,
                              const char *name, uint64_t most, uint64_t *number);

/* A number as text: at most 20 digits and a zero. Gives the end. */
#define STORE_DIGITS 21
char *store_put_number(char *at, uint64_t number);

/* All of a payload of `count` bytes as a number; false if it is not one, or more than `most`. */
bool store_parse_number(const char *text, size_t count, uint64_t most, uint64_t *number);
