// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "uefi/exit.h"
#include "core/virtio/exit.h"
#include "core/xen/exit.h"

/* The first device to be asked starts the clock for all. Those that come after the deadline, in the
 * same exit, must not start it again, for which they have as long as the longest bound; an exit
 * that comes later still is another one, after one that was refused for a stale map key. */
static uint64_t exit_start(struct exit_shared *shared)
{
    uint64_t longest = (uint64_t)XEN_EXIT_BOUND_MS * shared->ticks_per_ms;

    if (shared->start == 0 || deadline_passed(shared->start + 2 * longest))
        shared->start = clock_ticks();
    return shared->start;
}

static struct poor_door open_door(struct exit_shared *shared, uint64_t bound_ms)
{
    return (struct poor_door){
        .deadline = exit_start(shared) + bound_ms * shared->ticks_per_ms,
    };
}

void EFIAPI exit_virtio(EFI_EVENT event, void *context)
{
    const struct exit_virtio_context *exit = context;
    (void)event;

    /* Only a device that is live, or stuck, is worth starting the clock for. */
    if (exit->device->state == VIRTIO_DORMANT)
        return;
    struct poor_door door = open_door(exit->shared, EXIT_BOUND_MS);
    virtio_quiesce(exit->device, &door);
}

void EFIAPI exit_xen_disk(EFI_EVENT event, void *context)
{
    const struct exit_xen_context *exit = context;
    (void)event;

    /* Nothing of this disk is left, or nothing was ever begun: nothing to start the clock for. */
    if (exit->front->state != FRONT_LIVE)
        return;
    struct poor_door door = open_door(exit->shared, XEN_EXIT_BOUND_MS);
    fronts_quiesce(exit->xen, &door);
}

void EFIAPI exit_xen_bus(EFI_EVENT event, void *context)
{
    const struct exit_xen_context *exit = context;
    (void)event;

    if (!exit->xen->live)
        return;
    struct poor_door door = open_door(exit->shared, XEN_EXIT_BOUND_MS);
    xen_quiesce(exit->xen, &door);
}
