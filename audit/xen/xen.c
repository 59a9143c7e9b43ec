/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * How a former owner's traces are found:
 *
 *  - The grant table (grants.c) and the event channels (channels.c) are looked at in Xen itself.
 *  - The XenStore ring (store.c) is a page of ours, and its indexes say what was asked and not
 *    read.
 *  - Keys and states (fronts.c) are read through XenStore, from the end of the audit on.
 *  - Watches and transactions (watches.c) are counted there: no request lists them.
 *
 * What is found is said at once (findings.c), and judged here.
 */
#include "audit/report.h"
#include "audit/xen.h"
#include "audit/xen/channels.h"
#include "audit/xen/findings.h"
#include "audit/xen/fronts.h"
#include "audit/xen/grants.h"
#include "audit/xen/hypervisor.h"
#include "audit/xen/store.h"
#include "audit/xen/watches.h"

#include <xen/io/xenbus.h>

/* ---- Judgement ---- */

#define judge(name, rule, verdict, ...)                                                            \
    report_verdict(SUBJECT_DEVICE, name, -1, rule, verdict, __VA_ARGS__)

static bool backend_is_live(int state)
{
    return state == XenbusStateConnected || state == XenbusStateReconfiguring ||
           state == XenbusStateReconfigured;
}

/* In these states a backend has nothing of the frontend's mapped. */
static bool backend_is_away(int state)
{
    return state == XenbusStateInitialising || state == XenbusStateInitWait ||
           state == XenbusStateClosed;
}

static bool front_ref_busy(const struct front *front)
{
    for (size_t i = 0; i < front->ref_count; i++)
        if (grant_ref_busy(front->refs[i]))
            return true;
    return false;
}

/* Whether another frontend accounts for the pages that this one's backend domain has mapped. */
static bool others_are_live(const struct front *front)
{
    for (size_t i = 0; i < front_count; i++)
        if (&fronts[i] != front && fronts[i].backend_domain == front->backend_domain &&
            (backend_is_live(fronts[i].backend_state) || front_ref_busy(&fronts[i])))
            return true;
    return false;
}

/* Could the backend still reach into memory? What is mapped was seen right after the exit. */
static void judge_c4(const struct front *front)
{
    size_t busy = grants_busy(front->backend_domain);
    const char *state = state_name(front->backend_state);

    if (backend_is_live(front->backend_state))
        judge(front->name, "C4", FAIL, "its backend is %s", state);
    else if (front_ref_busy(front))
        judge(front->name, "C4", FAIL, "its backend has the ring mapped");
    else if (busy > 0 && !(backend_is_away(front->backend_state) && others_are_live(front)))
        judge(front->name, "C4", FAIL, "its backend's domain had %zu pages mapped after the exit",
              busy);
    else if (front->backend_state < 0)
        judge(front->name, "C4", UNSEEN, "its backend's state cannot be read");
    else if (grants.unseen != NULL)
        judge(front->name, "C4", UNSEEN, "%s", grants.unseen);
    else
        judge(front->name, "C4", PASS, "its backend is %s, and has mapped nothing", state);
}

/* Is it as the toolstack made it? */
static void judge_c7(const struct front *front)
{
    struct reasons wrong = {0};
    bool known = front->complete && store.lost == NULL;

    /* What was read before XenStore fell silent still counts. */
    if (front->state >= 0 ? front->state != XenbusStateInitialising : known)
        reason(&wrong, "the frontend's state is %s", state_name(front->state));
    if (front->backend_state >= 0 && front->backend_state != XenbusStateInitWait &&
        !(front->backend_state == XenbusStateInitialising &&
          front->state == XenbusStateInitialising))
        reason(&wrong, "the backend's state is %s", state_name(front->backend_state));
    if (front->keys.text[0] != '\0')
        reason(&wrong, "keys are left: %s", front->keys.text);
    if (front->watched)
        reason(&wrong, "a watch on it is left");

    if (wrong.text[0] != '\0')
        judge(front->name, "C7", FAIL, "%s", wrong.text);
    else if (!known)
        judge(front->name, "C7", UNSEEN, "%s",
              store.lost != NULL ? store.lost : "not all of its keys can be read");
    else if (front->backend_state == XenbusStateInitialising)
        /* An empty CD-ROM drive's stays there. No backend ever comes back to it. */
        judge(front->name, "C7", PASS, "Initialising, and its backend has not begun either");
    else if (front->backend_state < 0)
        judge(front->name, "C7", UNSEEN, "its backend's state cannot be read");
    else
        judge(front->name, "C7", PASS,
              "Initialising, backend InitWait, no keys but the toolstack's");
}

/* Frontends of other kinds: only whether somebody has begun with them. */
static void judge_other(const struct front *front)
{
    if (front->state > XenbusStateInitialising || front->watched)
        judge(front->name, "C7", FAIL, "the frontend's state is %s%s", state_name(front->state),
              front->watched ? "; a watch on it is left" : "");
}

static void judge_domain(void)
{
    if (domain_wrong.text[0] != '\0')
        judge(domain_name, "C7", FAIL, "%s", domain_wrong.text);
    else if (domain_unseen.text[0] != '\0')
        judge(domain_name, "C7", UNSEEN, "%s", domain_unseen.text);
    else
        judge(domain_name, "C7", PASS,
              "the XenStore ring is idle and in step; no grants, event channels, watches "
              "or transactions are left");

    size_t busy = grants_busy(DOMID_INVALID);

    if (busy > 0)
        judge(domain_name, "C4", FAIL, "pages mapped by other domains: %zu", busy);
    else if (grants.unseen != NULL)
        judge(domain_name, "C4", UNSEEN, "%s", grants.unseen);
    else if (grants.version == 2 && grants.used_count > 0)
        judge(domain_name, "C4", UNSEEN,
              "whether %zu granted pages are mapped, version 2 of the table does not say",
              grants.used_count);
    else if (grants.used_count > GRANTS_MAX)
        judge(domain_name, "C4", UNSEEN, "there are more grants than the auditor can keep");
    else
        judge(domain_name, "C4", PASS, "no other domain has a page of this one mapped");
}

/* ---- The three moments ---- */

bool xen_before(void)
{
    if (!hypervisor_find())
        return false;
    if (xen.ring == NULL) {
        say(domain_name, "version", NEITHER, "%u.%u, and no XenStore", xen.version >> 16,
            xen.version & 0xffff);
    } else {
        say(domain_name, "version", NEITHER, "%u.%u, XenStore's ring at 0x%llx", xen.version >> 16,
            xen.version & 0xffff, (unsigned long long)(uintptr_t)xen.ring);
        store_look();
        store_tell("ring-before", false);
    }
    grants_before();
    size_t bound = channels_read();

    grants_tell_place();
    say(domain_name, "before", NEITHER,
        "grants seen: %zu, of them mapped: %zu; event channels: %zu", grants.used_count,
        grants_busy(DOMID_INVALID), bound);
    return true;
}

void xen_exit(void)
{
    if (!xen.known)
        return;
    if (xen.ring != NULL)
        store_look();
    grants_exit();
    channels_read();

    if (xen.ring != NULL)
        store_tell("ring-exit", true);
    grants_tell();
    channels_tell();
}

/* All that is asked of XenStore. */
static void ask_store(void)
{
    store_take();
    fronts_read();
    watches_provoke();
    if (store.reconnected)
        reason(&domain_unseen, "watches are gone with the reconnection");
    else
        watches_count();
    if (store.stale > 0) {
        say(domain_name, "answers", WRONG, "%zu came to questions that the auditor did not ask",
            store.stale);
        reason(&domain_wrong, "answers that came for the former owner: %zu", store.stale);
    }
    if (watch_events > 0) {
        say_lost("watch events", watch_events > LINES_MAX ? watch_events - LINES_MAX : 0);
        reason(&domain_wrong, "watch events came for the former owner");
    }
    if (!fronts_complete)
        reason(&domain_unseen, "not all frontends could be listed%s%s",
               store.lost != NULL ? ": " : "", store.lost != NULL ? store.lost : "");
}

void xen_end(void)
{
    if (!xen.known)
        return;
    if (xen.ring == NULL)
        reason(&domain_unseen, "the domain has no XenStore");
    else
        ask_store();
    for (size_t i = 0; i < front_count; i++) {
        if (fronts[i].toolstack_keys != NULL) {
            judge_c4(&fronts[i]);
            judge_c7(&fronts[i]);
        } else {
            judge_other(&fronts[i]);
        }
    }
    judge_domain();
    grants_unmap();
}
