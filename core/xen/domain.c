// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "core/xen/domain.h"

#include <xen/arch-x86/cpuid.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>

static void xen_log(const struct rich_door *rich, const char *sentence, uint64_t number)
{
    rich->log(rich->context, sentence, number);
}

bool xen_found(void)
{
    uint32_t r[4];

    cpuid(1, r);
    if (!(r[2] & 1u << 31)) /* a hypervisor of any kind */
        return false;
    /* Its leaves move up where another hypervisor's come first. */
    for (uint32_t leaf = 0x40000000; leaf < 0x40010000; leaf += 0x100) {
        cpuid(leaf, r);
        if (r[1] == XEN_CPUID_SIGNATURE_EBX && r[2] == XEN_CPUID_SIGNATURE_ECX &&
            r[3] == XEN_CPUID_SIGNATURE_EDX && r[0] >= leaf + 2)
            return true;
    }
    return false;
}

static bool hvm_param(uint32_t index, uint64_t *value)
{
    struct xen_hvm_param param = {.domid = DOMID_SELF, .index = index};

    if (hypercall(__HYPERVISOR_hvm_op, HVMOP_get_param, &param, 0) != 0)
        return false;
    *value = param.value;
    return true;
}

/* The window: shared-info page, grant table. */
#define PLACE_PAGES_MIN 2u

enum result xen_begin(struct xen *xen, const struct rich_door *rich, const struct reg_window *place)
{
    struct poor_door door = {.deadline = deadline_in_ms(rich, XEN_STORE_MS)};
    uint8_t *pages = (uint8_t *)(uintptr_t)place->base;
    uint64_t frame = 0, port = 0, count = place->bytes / XEN_PAGE;
    enum result result = RESULT_UNSUPPORTED;

    xen->fronts = NULL;
    xen->watches = 0;
    xen->in_flight = 0;
    xen->live = false;
    if (!hvm_param(HVM_PARAM_STORE_PFN, &frame) || !hvm_param(HVM_PARAM_STORE_EVTCHN, &port) ||
        frame == 0 || frame > UINTPTR_MAX / XEN_PAGE || port == 0 || port > UINT32_MAX) {
        xen_log(rich, "this domain has no XenStore; its event channel is", port);
        return RESULT_UNSUPPORTED;
    }
    if (count < PLACE_PAGES_MIN || place->base % XEN_PAGE != 0 || place->port) {
        xen_log(rich, "the platform device has no room for the grant table; pages:", count);
        return RESULT_UNSUPPORTED;
    }

    /* Without the page, waiting wastes other domains' time, and all else works. */
    if (!events_start(&xen->events, pages))
        xen_log(rich, "Xen does not give its shared-info page to frame", frame_of(pages));
    if (!grants_start(&xen->grants, pages + XEN_PAGE,
                      (uint32_t)(count - 1 < GRANT_FRAMES_MAX ? count - 1 : GRANT_FRAMES_MAX))) {
        xen_log(rich, "the grant table cannot be had; its frames:", xen->grants.frames_max);
        goto stop;
    }

    void *ring = (void *)(uintptr_t)(frame * XEN_PAGE);
    bool store = store_start(&xen->store, ring, &xen->events, (uint32_t)port, &door);
    if (!store) {
        door.deadline = deadline_in_ms(rich, XEN_STORE_MS);
        store = store_reconnect(&xen->store, &door);
    }
    if (!store) {
        xen_log(rich, xen->store.lost ? xen->store.lost : "XenStore does not answer at channel",
                port);
        result = RESULT_TIMEOUT;
        goto stop;
    }
    xen->live = true;

    if (!store_ask_watch(&xen->store, &door, true, "device/vbd", NULL, WATCH_LIST) ||
        store_answer(&xen->store, &door) != ANSWER_OK)
        xen_log(rich, "XenStore does not let us watch for new disks; watches:", 0);
    else
        xen->watches |= 1ull << WATCH_LIST;
    return RESULT_OK;

stop:
    grants_stop(&xen->grants);
    events_stop(&xen->events);
    return result;
}

void xen_end(struct xen *xen, const struct rich_door *rich)
{
    struct poor_door door = {.deadline = deadline_in_ms(rich, XEN_STORE_MS)};

    xen_quiesce(xen, &door);
}

/* Whether the toolstack also shows this disk as an emulated one (Xen's docs/man/xen-vbd-interface.7
 * has the numbers): the first four that are called xvd or hd, and all that are called sd. */
static bool has_twin(uint32_t number)
{
    uint32_t major = number >> 8, minor = number & 0xff;

    return (major == 202 && minor / 16 < 4) || /* xvda to xvdd */
           major == 3 || major == 22 ||        /* hda to hdd */
           major == 8;                         /* sda, … */
}

/* In the order of their numbers, which is that of their names. */
static void insert(uint32_t *numbers, size_t count, uint32_t number)
{
    for (; count > 0 && numbers[count - 1] > number; count--)
        numbers[count] = numbers[count - 1];
    numbers[count] = number;
}

enum result xen_list(struct xen *xen, const struct rich_door *rich, uint32_t *numbers, size_t room,
                     size_t *count)
{
    struct poor_door door = {.deadline = deadline_in_ms(rich, XEN_STORE_MS)};
    struct store *store = &xen->store;
    static const char path[] = "device/vbd";
    struct store_piece piece = {path, sizeof(path)};
    uint64_t number;

    *count = 0;
    store->fired &= ~(1ull << WATCH_LIST);
    enum answer answer = ANSWER_LOST;
    if (store_ask(store, &door, XS_DIRECTORY, 0, &piece, 1))
        answer = store_answer(store, &door);
    if (answer == ANSWER_REFUSED)
        return RESULT_OK; /* a domain without disks has no such key */
    if (answer == ANSWER_LOST) {
        xen_log(rich, store->lost ? store->lost : "XenStore is lost;", 0);
        return RESULT_TIMEOUT;
    }

    for (uint32_t at = 0; at < store->header.len;) {
        const char *name = store->payload + at;
        size_t length = 0;
        while (at + length < store->header.len && name[length] != 0)
            length++;
        at += (uint32_t)length + 1;
        if (!store_parse_number(name, length, UINT32_MAX, &number)) {
            xen_log(rich, "a disk's name in XenStore is not a number; its length is", length);
            continue;
        }
        if (has_twin((uint32_t)number))
            continue;
        if (*count == room) {
            xen_log(rich, "more disks than can be driven; the first left out is", number);
            break;
        }
        insert(numbers, (*count)++, (uint32_t)number);
    }
    return RESULT_OK;
}

bool xen_disk_waits(struct xen *xen, const struct rich_door *rich, uint32_t number)
{
    struct poor_door door = {.deadline = deadline_in_ms(rich, XEN_STORE_MS)};
    char name[STORE_DIGITS], path[STORE_PATH_MAX], backend[STORE_PATH_MAX];
    uint64_t state = XenbusStateUnknown;

    store_put_number(name, number);
    return store_path(path, "device/vbd", name) &&
           store_read(&xen->store, &door, path, "backend", backend, sizeof(backend)) == ANSWER_OK &&
           store_read_number(&xen->store, &door, backend, "state", XenbusStateReconfigured,
                             &state) == ANSWER_OK &&
           state == XenbusStateInitWait;
}

bool xen_list_changed(struct xen *xen)
{
    store_listen(&xen->store);
    return xen->store.fired & 1ull << WATCH_LIST;
}
