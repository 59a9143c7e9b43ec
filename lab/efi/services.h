/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Stands between whoever calls boot services and the firmware: puts stubs in the firmware's own
 * table, so that it sees every image that has the table's address.
 *
 * A stub asks the program's hook where the call is to go, with the arguments, which the hook may
 * change, and the stack as they were. All that a caller has put on the stack stays in its place.
 * There are more stubs than services; a program may put the rest elsewhere (services_stub()).
 *
 * Hooks run at any TPL, also inside the firmware's timer interrupt, and call no service except by
 * services_original().
 */
#pragma once

#include "lab/efi/app.h"

enum { SERVICES_MAX = 44, SERVICE_STUBS = 64 };

/* A call as the stub found it. */
struct services_frame {
    uint64_t args[4];
    uint64_t from; /* the return address */
    uint64_t
        stack[]; /* of the caller: [0] to [3] are the callee's to use, [4] the fifth argument */
};

/* Where the call goes: services_original() as a rule. NULL makes it fail, out of resources. */
typedef void *services_hook(uint32_t index, struct services_frame *frame);

/* What a call returned. `token` is the hook's own. */
typedef void services_returned_hook(uint32_t index, uint64_t result, uint64_t token);

/* A service's place in the table. */
#define SERVICE(member)                                                                            \
    ((uint32_t)((offsetof(EFI_BOOT_SERVICES, member) - sizeof(EFI_TABLE_HEADER)) / sizeof(void *)))

/* "AllocatePages", … NULL where the table has no service. */
const char *services_name(uint32_t index);

/* How many arguments it takes; for those that take a list, how many in registers. */
unsigned services_args(uint32_t index);

/* Puts a stub before every service that `wanted` says yes to. */
void services_install(services_hook *hook, bool (*wanted)(uint32_t index));

/* Takes them out again. Only while boot services are there. */
void services_remove(void);

/* The firmware's own function, installed or not. */
void *services_original(uint32_t index);

/* Changes one member of the table, and its checksum with it. For the time of services_install(). */
void services_replace(uint32_t index, void *function);

/* The stub with this number, from SERVICES_MAX on, for use outside the table. */
void *services_stub(uint32_t index);

/* To be called by a hook: have `after` called when this call returns. A call that never returns
 * (somebody jumps out of it) is forgotten as soon as an outer one does. */
void services_on_return(struct services_frame *frame, uint32_t index, services_returned_hook *after,
                        uint64_t token);

/* How many of the calls given to services_on_return() have not returned yet: how deep the present
 * call is in others. */
size_t services_depth(void);

/* The return address that belongs in this place of the stack, where it is ours that stands there.
 */
uint64_t services_return_address(const uint64_t *place);
