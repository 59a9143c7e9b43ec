// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "uefi/waiting.h"

/* How often tokens are completed when nobody calls, in units of 100 ns: each timer tick of the
 * firmware, or this. */
#define TICK_100NS 10000u
/* While waiting, after how many looks at a ring that shows nothing new to look at the device's
 * clock, and to pause. Not more often: under emulation, each pause takes the lock that the device
 * needs to work. */
#define LOOKS_MOST 1024u
/* A device that needs a CPU may need ours: then each look is in vain, and the fewer the better.
 * Every so-many-th wait tries what looking on would have been worth, for CPUs come free, too. */
#define LOOKS_FEWEST    8u
#define WAITS_PER_TRIAL 64u

static void EFIAPI tick(EFI_EVENT event, void *context)
{
    struct waiting *waiting = context;

    waiting->ops->poll(waiting->device); /* the event's TPL is TPL_NOTIFY already */
    if (waiting->tokens == 0) {
        bs->SetTimer(event, TimerCancel, 0);
        waiting->ticking = false;
    }
}

EFI_STATUS waiting_open(struct waiting *waiting, const struct waiting_ops *ops, void *device)
{
    *waiting = (struct waiting){.ops = ops, .device = device, .patience = LOOKS_MOST};
    return bs->CreateEvent(EVT_TIMER | EVT_NOTIFY_SIGNAL, TPL_NOTIFY, tick, waiting,
                           &waiting->timer);
}

void waiting_close(struct waiting *waiting)
{
    bs->CloseEvent(waiting->timer);
}

void waiting_tick(struct waiting *waiting)
{
    if (waiting->tokens != 0 && !waiting->ticking)
        waiting->ticking = !EFI_ERROR(bs->SetTimer(waiting->timer, TimerPeriodic, TICK_100NS));
}

void waiting_poll(struct waiting *waiting)
{
    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    waiting->ops->poll(waiting->device);
    bs->RestoreTPL(tpl);
}

/* Nothing has come back for a while: gives the CPU to a device that needs it. Looks at the flag
 * once more where nobody can come in between, or what is waited for could have come already. */
static void rest(struct waiting *waiting, const volatile bool *flag)
{
    if (!waiting->ops->rest) {
        cpu_relax();
        return;
    }
    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    if (!flag || !*flag)
        waiting->ops->rest(waiting->device);
    bs->RestoreTPL(tpl);
}

void waiting_turn(struct waiting *waiting, const volatile bool *flag)
{
    if (waiting->ops->ready(waiting->device)) {
        waiting_poll(waiting);
    } else if (++waiting->looks >= waiting->patience) {
        waiting->looks = 0;
        waiting->rested = true;
        rest(waiting, flag);
        waiting_poll(waiting);
    }
}

void waiting_until(struct waiting *waiting, const volatile bool *flag)
{
    uint32_t patience = waiting->patience;

    if (++waiting->waits % WAITS_PER_TRIAL == 0)
        waiting->patience = LOOKS_MOST;
    waiting->looks = 0;
    waiting->rested = false;
    while (!*flag)
        waiting_turn(waiting, flag);
    if (!waiting->rested)
        patience = LOOKS_MOST;
    else if (waiting->ops->rest && patience > LOOKS_FEWEST)
        patience /= 2;
    waiting->patience = patience;
}
