/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Puts the auditor's eyes on Xen (audit/xen.h) to the test: plays a driver that leaves something
 * behind at ExitBootServices, and has them look. Runs in an HVM domain of Xen with firmware that
 * does not use XenStore itself.
 *
 * Option leave=WORD, as often as wanted, from a file handover.txt beside the program:
 *
 *   connection   the first vbd, connected: ring granted and mapped, event channel, keys, state
 *   grant        a page granted to domain 0, which does not map it
 *   channel      an event channel for domain 0
 *   key          a key beside the frontend's own
 *   closed       the frontend's state is Closed, and so becomes the backend's
 *   watch        a watch on the backend's state; no event of it is unread
 *   own-watch    one on the frontend's own state
 *   transaction  one that is not ended
 *   answer       one that nobody has read
 *   half         half a request
 *   mapping      the grant table, mapped
 *
 * Without any, nothing is touched. Talks to XenStore with code of its own, so that a mistake in the
 * auditor's is not made twice.
 */
#include "audit/drivers.h"
#include "audit/report.h"
#include "audit/xen.h"

#define __XEN_INTERFACE_VERSION__ 0x00040e00
#include <xen/xen.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/io/xenbus.h>
#include <xen/io/xs_wire.h>

static bool leaves(const char *word)
{
    const char *value = NULL;

    while ((value = app_option_next("leave", value)) != NULL)
        if (strcmp(value, word) == 0)
            return true;
    return false;
}

/* ---- Xen ---- */

static int64_t xen_call(uint64_t number, uint64_t command, void *argument, uint64_t more)
{
    static int amd = -1;
    uint64_t result = number;

    if (amd < 0) {
        uint32_t leaf = 0, b, c = 0, d;

        __asm__("cpuid" : "+a"(leaf), "=b"(b), "+c"(c), "=d"(d));
        amd = c == 0x444d4163; /* "cAMD" */
    }
    if (amd)
        __asm__ volatile("vmmcall"
                         : "+a"(result), "+D"(command), "+S"(argument), "+d"(more)
                         :
                         : "memory");
    else
        __asm__ volatile("vmcall"
                         : "+a"(result), "+D"(command), "+S"(argument), "+d"(more)
                         :
                         : "memory");
    return (int64_t)result;
}

static uint64_t xen_param(uint32_t index)
{
    struct xen_hvm_param param = {.domid = DOMID_SELF, .index = index};

    app_assert(xen_call(__HYPERVISOR_hvm_op, HVMOP_get_param, &param, 0) == 0);
    return param.value;
}

/* ---- XenStore ---- */

static volatile struct xenstore_domain_interface *ring;
static uint32_t store_port;
static char answer[XENSTORE_PAYLOAD_MAX + 1];

static void notify(void)
{
    struct evtchn_send send = {.port = store_port};

    app_assert(xen_call(__HYPERVISOR_event_channel_op, EVTCHNOP_send, &send, 0) == 0);
}

static void put(const void *from, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        while (ring->req_prod - ring->req_cons == XENSTORE_RING_SIZE)
            xen_call(__HYPERVISOR_sched_op, SCHEDOP_yield, NULL, 0);
        ring->req[MASK_XENSTORE_IDX(ring->req_prod)] = ((const char *)from)[i];
        ring->req_prod++;
    }
}

static void get(void *to, size_t size)
{
    uint64_t start = app_tsc();

    for (size_t i = 0; i < size; i++) {
        while (ring->rsp_prod == ring->rsp_cons) {
            app_assert(app_us(app_tsc() - start) < 20000000);
            xen_call(__HYPERVISOR_sched_op, SCHEDOP_yield, NULL, 0);
        }
        ((char *)to)[i] = ring->rsp[MASK_XENSTORE_IDX(ring->rsp_cons)];
        ring->rsp_cons++;
    }
}

static void get_message(struct xsd_sockmsg *message)
{
    get(message, sizeof(*message));
    app_assert(message->len <= XENSTORE_PAYLOAD_MAX);
    get(answer, message->len);
    answer[message->len] = '\0';
    notify();
}

static void send_request(uint32_t type, const void *payload, size_t size)
{
    struct xsd_sockmsg message = {.type = type, .req_id = 7, .len = (uint32_t)size};

    put(&message, sizeof(message));
    put(payload, size);
    notify();
}

/* The answer is in `answer`; its size is the value. */
static uint32_t ask(uint32_t type, const void *payload, size_t size)
{
    struct xsd_sockmsg message;

    send_request(type, payload, size);
    do
        get_message(&message);
    while (message.type == XS_WATCH_EVENT);
    if (message.type != type)
        app_print("XenStore: %s\n", answer);
    app_assert(message.type == type);
    return message.len;
}

static void write_key(const char *path, const char *value)
{
    char payload[256];
    size_t length = app_format(payload, sizeof(payload), "%s", path) + 1;

    length += app_format(payload + length, sizeof(payload) - length, "%s", value);
    ask(XS_WRITE, payload, length);
}

static void write_number(const char *folder, const char *key, uint64_t number)
{
    char path[128], value[24];

    app_format(path, sizeof(path), "%s/%s", folder, key);
    app_format(value, sizeof(value), "%llu", number);
    write_key(path, value);
}

static const char *read_key(const char *folder, const char *key)
{
    char path[192];
    size_t length = app_format(path, sizeof(path), "%s/%s", folder, key) + 1;

    ask(XS_READ, path, length);
    return answer;
}

static void wait_for_state(const char *folder, char state)
{
    uint64_t start = app_tsc();

    while (read_key(folder, "state")[0] != state)
        app_assert(app_us(app_tsc() - start) < 20000000);
}

static void watch(const char *folder, const char *key, const char *token)
{
    char payload[256];
    struct xsd_sockmsg message;
    size_t length = app_format(payload, sizeof(payload), "%s/%s", folder, key) + 1;

    length += app_format(payload + length, sizeof(payload) - length, "%s", token) + 1;
    ask(XS_WATCH, payload, length);
    /* The first event comes by itself, after the answer. */
    get_message(&message);
    app_assert(message.type == XS_WATCH_EVENT);
}

/* ---- Grants and event channels ---- */

static volatile grant_entry_v1_t *table;
static uint32_t next_ref = GNTTAB_NR_RESERVED_ENTRIES;
static uint64_t table_frame;

static void map_table(void)
{
    static const EFI_GUID pci_io_guid = EFI_PCI_IO_PROTOCOL_GUID;
    static EFI_HANDLE handles[256];
    size_t count = app_handles(&pci_io_guid, handles, 256);
    struct {
        uint16_t domid, size;
        uint32_t space;
        uint64_t index, frame;
    } add = {.domid = DOMID_SELF, .space = XENMAPSPACE_grant_table};

    for (size_t i = 0; i < count; i++) {
        EFI_PCI_IO_PROTOCOL *io = app_protocol(handles[i], &pci_io_guid);
        UINT32 id, bar;

        app_assert_ok(io->Pci.Read(io, EfiPciIoWidthUint32, 0, 1, &id));
        app_assert_ok(io->Pci.Read(io, EfiPciIoWidthUint32, 0x14, 1, &bar));
        if (id == 0x00015853)
            add.frame = bar / 4096;
    }
    app_assert(add.frame != 0);
    app_assert(xen_call(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, &add, 0) == 0);
    table_frame = add.frame;
    table = (volatile grant_entry_v1_t *)(uintptr_t)(table_frame * 4096);
}

static void unmap_table(void)
{
    struct {
        uint16_t domid, padding[3];
        uint64_t frame;
    } remove = {.domid = DOMID_SELF, .frame = table_frame};

    app_assert(xen_call(__HYPERVISOR_memory_op, XENMEM_remove_from_physmap, &remove, 0) == 0);
    table = NULL;
}

static uint32_t grant(const void *page)
{
    uint32_t ref = next_ref++;

    table[ref].domid = 0;
    table[ref].frame = (uint32_t)((uintptr_t)page / 4096);
    __asm__ volatile("" : : : "memory");
    table[ref].flags = GTF_permit_access;
    return ref;
}

static uint32_t open_channel(void)
{
    struct evtchn_alloc_unbound open = {.dom = DOMID_SELF};

    app_assert(xen_call(__HYPERVISOR_event_channel_op, EVTCHNOP_alloc_unbound, &open, 0) == 0);
    return open.port;
}

/* ---- The driver ---- */

static _Alignas(4096) uint8_t ring_page[4096], other_page[4096];
static char folder[64], backend[128];

static void find_disk(void)
{
    static const char parent[] = "device/vbd";
    uint32_t size = ask(XS_DIRECTORY, parent, sizeof(parent));

    app_assert(size > 1);
    app_format(folder, sizeof(folder), "%s/%s", parent, answer);
    app_format(backend, sizeof(backend), "%s", read_key(folder, "backend"));
    app_print("look: %s, %s\n", folder, backend);
}

static void connect(void)
{
    uint32_t *shared = (uint32_t *)(void *)ring_page;
    char path[96];

    wait_for_state(backend, '0' + XenbusStateInitWait);
    shared[1] = shared[3] = 1; /* req_event, rsp_event */
    write_number(folder, "ring-ref", grant(ring_page));
    write_number(folder, "event-channel", open_channel());
    app_format(path, sizeof(path), "%s/protocol", folder);
    write_key(path, "x86_64-abi");
    write_number(folder, "state", XenbusStateConnected);
    wait_for_state(backend, '0' + XenbusStateConnected);
}

static void leave_things(void)
{
    static const char domid[] = "domid";
    struct xsd_sockmsg half = {.type = XS_READ, .req_id = 8, .len = 100};

    ring = (volatile void *)(uintptr_t)(xen_param(HVM_PARAM_STORE_PFN) * 4096);
    store_port = (uint32_t)xen_param(HVM_PARAM_STORE_EVTCHN);
    find_disk();
    map_table();
    if (leaves("connection"))
        connect();
    if (leaves("grant"))
        grant(other_page);
    if (leaves("channel"))
        open_channel();
    if (leaves("key"))
        write_number(folder, "feature-persistent", 1);
    if (leaves("closed")) {
        write_number(folder, "state", XenbusStateClosed);
        wait_for_state(backend, '0' + XenbusStateClosed);
    }
    if (leaves("watch"))
        watch(backend, "state", "left behind");
    if (leaves("own-watch"))
        watch(folder, "state", "left behind, too");
    if (leaves("transaction"))
        ask(XS_TRANSACTION_START, "", 1);
    if (!leaves("mapping"))
        unmap_table();
    if (leaves("answer")) {
        uint32_t before = ring->rsp_prod;

        send_request(XS_READ, domid, sizeof(domid));
        while (ring->rsp_prod == before)
            xen_call(__HYPERVISOR_sched_op, SCHEDOP_yield, NULL, 0);
    }
    if (leaves("half")) {
        put(&half, sizeof(half));
        notify();
        while (ring->req_prod != ring->req_cons)
            xen_call(__HYPERVISOR_sched_op, SCHEDOP_yield, NULL, 0);
    }
}

int app_main(void)
{
    app_options_file(u"handover.txt");
    app.debug_port = app_flag("debug-port");
    if (app_option("leave") != NULL)
        leave_things();
    app_assert(xen_before());
    report_time_zero();
    app_exit_boot_services();
    __asm__ volatile("cli");
    xen_exit();
    xen_end();
    report_end();
    return 0;
}
