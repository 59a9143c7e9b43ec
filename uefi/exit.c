// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "uefi/exit.h"
#include "core/virtio/exit.h"

/* The first device to be asked starts the clock for all. Those that come after the deadline, in the
 * same exit, must not start it again, for which they have as long again; an exit that comes later
 * still is another one, after one that was refused for a stale map key. */
static uint64_t exit_deadline(struct exit_shared *shared)
{
    uint64_t bound = EXIT_BOUND_MS * shared->ticks_per_ms;

    if (shared->deadline == 0 || deadline_passed(shared->deadline + bound))
        shared->deadline = clock_ticks() + bound;
    return shared->deadline;
}

void EFIAPI exit_virtio(EFI_EVENT event, void *context)
{
    const struct exit_virtio_context *exit = context;
    (void)event;

    /* Only a device that is live, or stuck, is worth starting the clock for. */
    if (exit->device->state == VIRTIO_DORMANT)
        return;
    struct poor_door door = {.deadline = exit_deadline(exit->shared)};
    virtio_quiesce(exit->device, &door);
}
