/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Watches are not listed by any request. But there is a limit to them: we set as many as XenStore
 * lets us, have it forget all watches, set as many as it lets us again, and the difference is what
 * was there before. The same goes for open transactions. Which keys were watched is only seen of
 * those that we may write ourselves, by writing their own value to them.
 */
#include "audit/xen/findings.h"
#include "audit/xen/fronts.h"
#include "audit/xen/store.h"
#include "audit/xen/text.h"
#include "audit/xen/watches.h"

enum { COUNT_MAX = 1024 }; /* watches that are set to see how many can be */

size_t watch_events;

static const char token_ours[] = "handover "; /* how it begins */

static bool below(const char *path, const char *parent)
{
    size_t length = strlen(parent);

    return length > 0 && strncmp(path, parent, length) == 0 &&
           (path[length] == '/' || path[length] == '\0');
}

/* A path from this domain's own folder on, whether it came whole or not. */
static const char *relative(const char *path)
{
    static const char folder[] = "/local/domain/";

    if (!begins(path, folder))
        return path;
    path += sizeof(folder) - 1;
    while (*path >= '0' && *path <= '9')
        path++;
    return *path == '/' ? path + 1 : path;
}

void watches_event(void)
{
    char path[128], token[64];
    size_t length = strlen(store.payload);

    if (length >= store.header.len)
        return; /* a path without a token */
    const char *sent = store.payload + length + 1;

    if (begins(sent, token_ours))
        return;
    printable(path, sizeof(path), store.payload, length);
    printable(token, sizeof(token), sent, strlen(sent));
    watch_events++;
    for (size_t i = 0; i < front_count; i++) {
        if (below(relative(path), fronts[i].path) || below(path, fronts[i].backend))
            fronts[i].watched = true;
    }
    if (watch_events <= LINES_MAX)
        say(domain_name, "watch-event", WRONG, "%s, token %s", path, token);
}

void watches_provoke(void)
{
    char path[96], value[32];

    for (size_t i = 0; i < front_count; i++) {
        /* What is not a state is left alone: it would be written back changed. */
        if (fronts[i].state < 0)
            continue;
        app_format(path, sizeof(path), "%s/state", fronts[i].path);
        app_format(value, sizeof(value), "%d", fronts[i].state);
        store_ask_path(XS_WRITE, path, value, strlen(value));
    }
}

struct count {
    bool known; /* the end was reached, and it was XenStore that said so */
    unsigned number;
    char limit[32]; /* how it said so */
};

/* How many more of something XenStore gives to this domain. */
static struct count count_more(uint32_t type)
{
    struct count count = {0};
    enum answer answer = ANSWERED;

    while (count.number < COUNT_MAX) {
        char token[32];

        /* This key never changes, so these watches stay silent but for the first time. */
        app_format(token, sizeof(token), "%s%u", token_ours, count.number);
        answer = type == XS_WATCH ? store_ask_path(type, "domid", token, strlen(token) + 1)
                                  : store_ask(type, "", 1);
        if (answer != ANSWERED)
            break;
        count.number++;
    }
    if (answer == REFUSED) {
        count.known = true;
        printable(count.limit, sizeof(count.limit), store.payload, strlen(store.payload));
    }
    return count;
}

/* How many there were: what can be had now is less by that than what can be had afterwards. */
static void counts_compare(const char *what, const struct count *with, const struct count *without)
{
    if (store.lost != NULL) {
        reason(&domain_unseen, "%s cannot be counted: %s", what, store.lost);
        return;
    }
    if (!with->known || !without->known || strcmp(with->limit, without->limit) != 0 ||
        with->number > without->number) {
        say(domain_name, what, NEITHER, "cannot be counted: %u%s%s, then %u%s%s", with->number,
            with->known ? ", " : "", with->limit, without->number, without->known ? ", " : "",
            without->limit);
        reason(&domain_unseen, "%s cannot be counted", what);
        return;
    }
    unsigned left = without->number - with->number;

    say(domain_name, what, left == 0 ? RIGHT : WRONG, "%u left (XenStore allows %u, and %u more)",
        left, without->number, with->number);
    if (left > 0)
        reason(&domain_wrong, "%s left in XenStore: %u", what, left);
}

void watches_count(void)
{
    struct count watches = count_more(XS_WATCH);
    struct count transactions = count_more(XS_TRANSACTION_START);

    if (store.lost == NULL && store_ask(XS_RESET_WATCHES, "", 1) != ANSWERED) {
        reason(&domain_unseen, "watches cannot be counted: XenStore does not forget them");
        return;
    }
    struct count all_watches = count_more(XS_WATCH);
    struct count all_transactions = count_more(XS_TRANSACTION_START);

    store_ask(XS_RESET_WATCHES, "", 1);
    counts_compare("watches", &watches, &all_watches);
    counts_compare("transactions", &transactions, &all_transactions);
}
