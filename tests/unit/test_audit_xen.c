// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The auditor's eyes on Xen, against a hypervisor and a XenStore that are played here: one finding
 * after the other, and then answers that make no sense at all (C9).
 */

#include "audit/report.h"
#include "audit/xen.h"
#include "audit/xen/findings.h"
#include "audit/xen/fronts.h"
#include "audit/xen/hypervisor.h"
#include "audit/xen/store.h"
#include "audit/xen/text.h"
#include "audit/xen/watches.h"

#include <setjmp.h>
#include <stdio.h>
#include <cmocka.h>

#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/arch-x86/cpuid.h>

/* ---- What the auditor's parts stand on ---- */

struct app app;

size_t app_handles(const EFI_GUID *protocol, EFI_HANDLE *handles, size_t max)
{
    (void)protocol, (void)handles, (void)max;
    return 0;
}

void *app_protocol(EFI_HANDLE handle, const EFI_GUID *protocol)
{
    (void)handle, (void)protocol;
    return NULL;
}

/* Time passes when somebody looks at the clock, so that waiting in vain does not take long, and the
 * machine's speed does not matter. It begins anew with each answer that XenStore has thought of. */
static uint64_t us;

uint64_t app_us(uint64_t ticks)
{
    (void)ticks;
    return us += 100 * 1000;
}

size_t app_format_args(char *buffer, size_t size, const char *format, va_list args)
{
    int length = vsnprintf(buffer, size, format, args);

    assert_true(length >= 0);
    return (size_t)length < size ? (size_t)length : size - 1;
}

size_t app_format(char *buffer, size_t size, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    size_t length = app_format_args(buffer, size, format, args);
    va_end(args);
    return length;
}

void report_print(const char *format, ...)
{
    char text[1024];
    va_list args;

    va_start(args, format);
    app_format_args(text, sizeof(text), format, args);
    va_end(args);
}

static void text_is_plain(const char *text)
{
    for (; *text != '\0'; text++)
        assert_true(*text >= ' ' && *text < 0x7f);
}

void json_begin(const char *type)
{
    (void)type;
}

void json_text(const char *key, const char *text)
{
    (void)key;
    if (text != NULL)
        text_is_plain(text);
}

void json_number(const char *key, uint64_t number)
{
    (void)key, (void)number;
}

void json_bool(const char *key, bool truth)
{
    (void)key, (void)truth;
}

void json_null(const char *key)
{
    (void)key;
}

void json_list(const char *key)
{
    (void)key;
}

void json_list_end(void)
{
}

void json_end(void)
{
}

static struct {
    char name[64], rule[4], why[256];
    enum verdict verdict;
} verdicts[2 * FRONTS_MAX + 2];
static size_t verdict_count;

void report_verdict(enum subject subject, const char *name, int image, const char *rule,
                    enum verdict verdict, const char *format, ...)
{
    va_list args;

    assert_int_equal(subject, SUBJECT_DEVICE);
    assert_int_equal(image, -1);
    assert_true(verdict_count < sizeof(verdicts) / sizeof(verdicts[0]));
    app_format(verdicts[verdict_count].name, 64, "%s", name);
    app_format(verdicts[verdict_count].rule, 4, "%s", rule);
    verdicts[verdict_count].verdict = verdict;
    va_start(args, format);
    app_format_args(verdicts[verdict_count].why, 256, format, args);
    va_end(args);
    text_is_plain(verdicts[verdict_count].why);
    verdict_count++;
}

static bool contains(const char *text, const char *part)
{
    for (; *text != '\0'; text++)
        if (begins(text, part))
            return true;
    return false;
}

static void expect(const char *name, const char *rule, enum verdict verdict, const char *why)
{
    for (size_t i = 0; i < verdict_count; i++) {
        if (strcmp(verdicts[i].name, name) != 0 || strcmp(verdicts[i].rule, rule) != 0)
            continue;
        if (verdicts[i].verdict != verdict || !contains(verdicts[i].why, why))
            printf("%s %s: %d, %s\n", name, rule, verdicts[i].verdict, verdicts[i].why);
        assert_int_equal(verdicts[i].verdict, verdict);
        assert_true(contains(verdicts[i].why, why));
        return;
    }
    printf("no verdict on %s, %s\n", name, rule);
    assert_true(false);
}

/* ---- The model ---- */

enum { STORE_PORT = 1, CONSOLE_PORT = 2, XEN_PORT = 3, FREE_PORT = 4, PORTS = 8 };

static struct {
    _Alignas(4096) struct xenstore_domain_interface ring;
    _Alignas(4096) grant_entry_v1_t table[512];
    struct {
        const char *path, *value;
    } keys[24];
    size_t key_count;
    uint32_t leaf;         /* where CPUID tells of Xen; 0: there is none */
    uint32_t ports[PORTS]; /* EVTCHNSTAT_… */
    unsigned watches, watches_max, transactions, transactions_max;
    unsigned jump;               /* the message at which an index goes astray */
    const char *watched, *token; /* one of the watches: a path below which changes are told */
    bool silent, unmapped, limit_changes, reset;
    uint32_t random; /* one byte in so many comes back wrong; 0: none */
    uint64_t seed;
    /* What XenStore has read of a request. */
    struct xsd_sockmsg header;
    char payload[XENSTORE_PAYLOAD_MAX + 1];
    size_t have;
    size_t asked; /* requests that it has read whole */
} model;

static uint32_t model_random(void)
{
    model.seed = model.seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(model.seed >> 33);
}

/* Answers may be bigger than the ring. */
static char sending[1 << 20];
static size_t sending_at, sending_end;

static void send_message(uint32_t type, uint32_t id, const char *payload, size_t size)
{
    struct xsd_sockmsg header = {.type = type, .req_id = id, .len = (uint32_t)size};

    if (sending_at == sending_end)
        sending_at = sending_end = 0;
    assert_true(sending_end + sizeof(header) + size <= sizeof(sending));
    memcpy(sending + sending_end, &header, sizeof(header));
    memcpy(sending + sending_end + sizeof(header), payload, size);
    sending_end += sizeof(header) + size;
}

static void send_error(const char *name)
{
    send_message(XS_ERROR, model.header.req_id, name, strlen(name) + 1);
}

static void send_ok(void)
{
    send_message(model.header.type, model.header.req_id, "OK", 3);
}

static void directory(void)
{
    char names[XENSTORE_PAYLOAD_MAX];
    size_t size = 0, length = strlen(model.payload);

    for (size_t i = 0; i < model.key_count; i++) {
        const char *path = model.keys[i].path;

        if (!begins(path, model.payload) || path[length] != '/')
            continue;
        const char *name = path + length + 1;
        size_t end = 0;
        bool known = false;

        while (name[end] != '/' && name[end] != '\0')
            end++;
        for (size_t at = 0; at < size; at += strlen(names + at) + 1)
            known = known || (strlen(names + at) == end && strncmp(names + at, name, end) == 0);
        if (known)
            continue;
        memcpy(names + size, name, end);
        names[size + end] = '\0';
        size += end + 1;
    }
    if (size == 0)
        send_error("ENOENT");
    else
        send_message(XS_DIRECTORY, model.header.req_id, names, size);
}

static void read_key(void)
{
    for (size_t i = 0; i < model.key_count; i++) {
        if (strcmp(model.keys[i].path, model.payload) == 0) {
            send_message(XS_READ, model.header.req_id, model.keys[i].value,
                         strlen(model.keys[i].value));
            return;
        }
    }
    send_error("ENOENT");
}

static void event(const char *path, const char *token)
{
    char text[256];
    size_t size = app_format(text, sizeof(text), "%s", path) + 1;

    size += app_format(text + size, sizeof(text) - size, "%s", token) + 1;
    send_message(XS_WATCH_EVENT, 0, text, size);
}

static void serve(void)
{
    switch (model.header.type) {
    case XS_DIRECTORY:
        directory();
        break;
    case XS_READ:
        read_key();
        break;
    case XS_WRITE:
        if (model.watched != NULL && begins(model.payload, model.watched))
            event(model.payload, model.token);
        send_ok();
        break;
    case XS_WATCH:
        if (model.watches == model.watches_max) {
            send_error(model.limit_changes && model.reset ? "ENOMEM" : "E2BIG");
            break;
        }
        model.watches++;
        send_ok();
        event(model.payload, model.payload + strlen(model.payload) + 1);
        break;
    case XS_TRANSACTION_START:
        if (model.transactions == model.transactions_max) {
            send_error("ENOSPC");
            break;
        }
        model.transactions++;
        send_message(XS_TRANSACTION_START, model.header.req_id, "5", 2);
        break;
    case XS_RESET_WATCHES:
        model.watches = model.transactions = 0;
        model.watched = NULL;
        model.reset = true;
        send_ok();
        break;
    default:
        send_error("EINVAL");
    }
}

static void xenstored(void)
{
    struct xenstore_domain_interface *ring = &model.ring;

    if (ring->connection == XENSTORE_RECONNECT) {
        model.silent = false;
        model.have = 0;
        model.watches = model.transactions = 0;
        sending_at = sending_end = 0;
        ring->req_cons = ring->req_prod = ring->rsp_cons = ring->rsp_prod = 0;
        ring->connection = XENSTORE_CONNECTED;
    }
    while (ring->req_cons != ring->req_prod && !model.silent) {
        char byte = ring->req[MASK_XENSTORE_IDX(ring->req_cons++)];

        if (model.have < sizeof(model.header))
            ((char *)&model.header)[model.have] = byte;
        else
            model.payload[model.have - sizeof(model.header)] = byte;
        model.have++;
        if (model.have < sizeof(model.header))
            continue;
        if (model.header.len > XENSTORE_PAYLOAD_MAX) {
            model.silent = true; /* the connection is dead */
            break;
        }
        if (model.have == sizeof(model.header) + model.header.len) {
            if (model.jump > 0 && --model.jump == 0)
                ring->rsp_prod += 3000;
            model.payload[model.header.len] = '\0';
            model.have = 0;
            model.asked++;
            us = 0;
            serve();
        }
    }
    while (sending_at < sending_end && ring->rsp_prod - ring->rsp_cons < XENSTORE_RING_SIZE)
        ring->rsp[MASK_XENSTORE_IDX(ring->rsp_prod++)] = sending[sending_at++];
}

/* One that has lost its mind: changes bits of answers, and now and then indexes. */
static void mad_xenstored(void)
{
    uint32_t before = model.ring.rsp_prod;

    xenstored();
    for (uint32_t i = before; i != model.ring.rsp_prod; i++)
        if (model_random() % model.random == 0)
            model.ring.rsp[MASK_XENSTORE_IDX(i)] ^= (char)(1 << model_random() % 8);
    if (model_random() % (8 * model.random) == 0)
        model.ring.rsp_prod += model_random() % 3000;
    if (model_random() % (8 * model.random) == 0)
        model.ring.req_cons -= model_random() % 3000;
}

static int64_t event_channels(uint64_t command, void *argument)
{
    struct evtchn_status *status = argument;

    if (command == EVTCHNOP_send) {
        model.random ? mad_xenstored() : xenstored();
        return model.ports[STORE_PORT] == EVTCHNSTAT_closed ? -22 : 0;
    }
    assert_int_equal(command, EVTCHNOP_status);
    assert_int_equal(status->dom, DOMID_SELF);
    if (status->port >= PORTS)
        return -22;
    if (status->port == XEN_PORT)
        return -13;
    status->status = model.ports[status->port];
    return 0;
}

static int64_t grant_table(uint64_t command, void *argument)
{
    struct gnttab_query_size *size = argument;
    struct gnttab_get_version *version = argument;
    struct gnttab_setup_table *setup = argument;

    switch (command) {
    case GNTTABOP_query_size:
        size->nr_frames = 1;
        size->status = GNTST_okay;
        return 0;
    case GNTTABOP_get_version:
        version->version = 1;
        return 0;
    case GNTTABOP_setup_table:
        assert_int_equal(setup->nr_frames, 1);
        *(uint64_t *)(void *)setup->frame_list.p =
            model.unmapped ? ~0ull : (uintptr_t)model.table / 4096;
        setup->status = GNTST_okay;
        return 0;
    default:
        return -38;
    }
}

/* In the place of audit/xen/hypercall.c. */
int64_t hypercall(uint64_t number, uint64_t command, void *argument, uint64_t more)
{
    (void)more;
    switch (number) {
    case __HYPERVISOR_event_channel_op:
        return event_channels(command, argument);
    case __HYPERVISOR_grant_table_op:
        return grant_table(command, argument);
    case __HYPERVISOR_sched_op:
        model.random ? mad_xenstored() : xenstored();
        return 0;
    default:
        return -38;
    }
}

void cpuid(uint32_t leaf, uint32_t out[4])
{
    memset(out, 0, 4 * sizeof(out[0]));
    if (leaf == 1 && model.leaf != 0) {
        out[2] = 1u << 31;
    } else if (leaf == model.leaf) {
        out[0] = leaf + 4;
        out[1] = XEN_CPUID_SIGNATURE_EBX;
        out[2] = XEN_CPUID_SIGNATURE_ECX;
        out[3] = XEN_CPUID_SIGNATURE_EDX;
    } else if (leaf == model.leaf + 1) {
        out[0] = 0x40011; /* 4.17 */
    }
}

static void set(const char *path, const char *value)
{
    for (size_t i = 0; i < model.key_count; i++) {
        if (strcmp(model.keys[i].path, path) == 0) {
            model.keys[i].value = value;
            return;
        }
    }
    assert_true(model.key_count < sizeof(model.keys) / sizeof(model.keys[0]));
    model.keys[model.key_count].path = path;
    model.keys[model.key_count++].value = value;
}

#define VBD     "device/vbd/51712"
#define BACKEND "/local/domain/0/backend/vbd/3/51712"

/* A domain as the toolstack makes it, with one disk. */
static int fresh(void **state)
{
    (void)state;
    memset(&model, 0, sizeof(model));
    memset(&xen, 0, sizeof(xen));
    memset(&store, 0, sizeof(store));
    memset(&domain_wrong, 0, sizeof(domain_wrong));
    memset(&domain_unseen, 0, sizeof(domain_unseen));
    memset(fronts, 0, sizeof(fronts));
    front_count = watch_events = verdict_count = 0;
    sending_at = sending_end = 0;
    us = 0;
    /* What xen_before() would have found. */
    xen.known = true;
    xen.ring = &model.ring;
    xen.store_port = STORE_PORT;
    xen.console_port = CONSOLE_PORT;
    model.ports[STORE_PORT] = model.ports[CONSOLE_PORT] = EVTCHNSTAT_interdomain;
    model.watches_max = 20;
    model.transactions_max = 5;
    model.table[0].flags = model.table[1].flags = GTF_permit_access;
    set("domid", "3");
    set("device/suspend/event-channel", "");
    set(VBD "/backend", BACKEND);
    set(VBD "/backend-id", "0");
    set(VBD "/state", "1");
    set(VBD "/virtual-device", "51712");
    set(VBD "/device-type", "disk");
    set(VBD "/trusted", "1");
    set(BACKEND "/state", "2");
    return 0;
}

static void look(void)
{
    xen_exit();
    xen_end();
}

/* ---- The tests ---- */

/* On a processor that says that it is in no virtual machine. */
static void test_no_xen(void **state)
{
    (void)state;
    xen.known = false;
    model.leaf = 0;
    assert_false(xen_before());
    look();
    assert_int_equal(verdict_count, 0);
}

/* Another hypervisor's leaf comes first, and Xen knows nothing of a XenStore. */
static void test_no_store(void **state)
{
    (void)state;
    memset(&xen, 0, sizeof(xen));
    model.leaf = 0x40000100;
    model.ports[STORE_PORT] = model.ports[CONSOLE_PORT] = EVTCHNSTAT_closed;
    assert_true(xen_before());
    assert_int_equal(xen.version, 0x40011);
    look();
    expect("xen:domain", "C7", UNSEEN, "no XenStore");
    expect("xen:domain", "C4", PASS, "");
    assert_int_equal(verdict_count, 2);
}

static void test_as_found(void **state)
{
    (void)state;
    look();
    expect("xen:domain", "C7", PASS, "");
    expect("xen:domain", "C4", PASS, "");
    expect("xen:vbd/51712", "C7", PASS, "");
    expect("xen:vbd/51712", "C4", PASS, "");
    assert_int_equal(verdict_count, 4);
    assert_int_equal(model.watches, 0);
    assert_int_equal(model.transactions, 0);
}

static void test_connected(void **state)
{
    (void)state;
    set(VBD "/state", "4");
    set(BACKEND "/state", "4");
    set(VBD "/ring-ref", "9");
    set(VBD "/event-channel", "5");
    model.table[9] = (grant_entry_v1_t){.flags = GTF_permit_access | GTF_reading | GTF_writing};
    model.ports[5] = EVTCHNSTAT_interdomain;
    look();
    expect("xen:vbd/51712", "C4", FAIL, "Connected");
    expect("xen:vbd/51712", "C7", FAIL, "ring-ref; event-channel");
    expect("xen:domain", "C7", FAIL, "grants left: 1; event channels left: 1");
    expect("xen:domain", "C4", FAIL, "domains: 1");
}

static void test_backend_still_maps(void **state)
{
    (void)state;
    model.table[9] = (grant_entry_v1_t){.flags = GTF_permit_access | GTF_reading};
    look();
    expect("xen:vbd/51712", "C4", FAIL, "pages mapped");
    expect("xen:vbd/51712", "C7", PASS, "");
}

/* The pages are the other disk's. */
static void test_other_disk_maps(void **state)
{
    (void)state;
    set("device/vbd/51728/backend", "/local/domain/0/backend/vbd/3/51728");
    set("device/vbd/51728/backend-id", "0");
    set("device/vbd/51728/state", "4");
    set("/local/domain/0/backend/vbd/3/51728/state", "4");
    model.table[9] = (grant_entry_v1_t){.flags = GTF_permit_access | GTF_reading};
    look();
    expect("xen:vbd/51712", "C4", PASS, "");
    expect("xen:vbd/51728", "C4", FAIL, "Connected");
}

static void test_grant_left(void **state)
{
    (void)state;
    model.table[8] = (grant_entry_v1_t){.flags = GTF_permit_access};
    look();
    expect("xen:domain", "C7", FAIL, "grants left: 1");
    expect("xen:domain", "C4", PASS, "");
    expect("xen:vbd/51712", "C4", PASS, "");
}

static void test_table_unseen(void **state)
{
    (void)state;
    model.unmapped = true;
    look();
    expect("xen:domain", "C7", UNSEEN, "no place");
    expect("xen:domain", "C4", UNSEEN, "no place");
    expect("xen:vbd/51712", "C4", UNSEEN, "no place");
    expect("xen:vbd/51712", "C7", PASS, "");
}

static void test_channel_left(void **state)
{
    (void)state;
    model.ports[FREE_PORT] = EVTCHNSTAT_unbound;
    look();
    expect("xen:domain", "C7", FAIL, "event channels left: 1");
}

static void test_store_channel_closed(void **state)
{
    (void)state;
    model.ports[STORE_PORT] = EVTCHNSTAT_closed;
    look();
    expect("xen:domain", "C7", FAIL, "XenStore's event channel is closed");
}

static void test_key_left(void **state)
{
    (void)state;
    set(VBD "/feature-persistent", "1");
    look();
    expect("xen:vbd/51712", "C7", FAIL, "keys are left: feature-persistent");
}

/* A network interface with several queues has a folder for each. */
static void test_queue_left(void **state)
{
    (void)state;
    set("device/vif/0/backend", "/local/domain/0/backend/vif/3/0");
    set("device/vif/0/backend-id", "0");
    set("device/vif/0/state", "1");
    set("device/vif/0/mac", "00:16:3e:00:00:01");
    set("device/vif/0/queue-0", "");
    set("device/vif/0/queue-0/tx-ring-ref", "9");
    set("/local/domain/0/backend/vif/3/0/state", "2");
    model.table[9] = (grant_entry_v1_t){.flags = GTF_permit_access | GTF_reading};
    look();
    expect("xen:vif/0", "C7", FAIL, "keys are left: queue-0; queue-0/tx-ring-ref");
    expect("xen:vif/0", "C4", FAIL, "the ring mapped");
}

static void test_closed(void **state)
{
    (void)state;
    set(VBD "/state", "6");
    set(BACKEND "/state", "6");
    look();
    expect("xen:vbd/51712", "C7", FAIL,
           "frontend's state is Closed; the backend's state is Closed");
    expect("xen:vbd/51712", "C4", PASS, "");
}

static void test_backend_not_begun(void **state)
{
    (void)state;
    set(BACKEND "/state", "1");
    look();
    expect("xen:vbd/51712", "C7", PASS, "not begun");
}

static void test_watch_left(void **state)
{
    (void)state;
    model.watches = 3;
    look();
    expect("xen:domain", "C7", FAIL, "watches left in XenStore: 3");
    expect("xen:vbd/51712", "C7", PASS, "");
}

static void test_watch_seen(void **state)
{
    (void)state;
    model.watches = 1;
    model.watched = VBD;
    model.token = "17\n";
    look();
    expect("xen:domain", "C7", FAIL, "watches left in XenStore: 1");
    expect("xen:vbd/51712", "C7", FAIL, "a watch on it");
}

static void test_transaction_left(void **state)
{
    (void)state;
    model.transactions = 2;
    look();
    expect("xen:domain", "C7", FAIL, "transactions left in XenStore: 2");
}

static void test_no_limit_to_watches(void **state)
{
    (void)state;
    model.watches_max = 1000000;
    look();
    expect("xen:domain", "C7", UNSEEN, "watches cannot be counted");
}

static void test_answer_unread(void **state)
{
    (void)state;
    send_message(XS_READ, 12, "3", 1);
    xenstored();
    look();
    expect("xen:domain", "C7", FAIL, "nobody has read; answers that came for the former owner: 1");
    expect("xen:vbd/51712", "C7", PASS, "");
}

static void test_request_unread(void **state)
{
    (void)state;
    model.silent = true;
    model.ring.req_prod = 40;
    look();
    expect("xen:domain", "C7", FAIL, "requests that XenStore has not read");
}

static void test_half_an_answer_read(void **state)
{
    (void)state;
    send_message(XS_READ, 0x12345, "a value of some length", 22);
    xenstored();
    model.ring.rsp_cons += 19;
    look();
    expect("xen:domain", "C7", FAIL, "out of step");
    assert_int_equal(verdict_count, 2);
}

static void test_half_a_request(void **state)
{
    struct xsd_sockmsg half = {.type = XS_READ, .req_id = 5, .len = 100};

    (void)state;
    memcpy(model.ring.req, &half, sizeof(half));
    model.ring.req_prod = sizeof(half);
    xenstored();
    assert_int_equal(model.ring.req_cons, sizeof(half));
    look();
    expect("xen:domain", "C7", FAIL, "is dead");
}

static void test_reconnected(void **state)
{
    model.ring.server_features = XENSTORE_SERVER_FEATURE_RECONNECTION;
    test_half_a_request(state);
    expect("xen:vbd/51712", "C7", PASS, "");
    assert_int_equal(model.ring.connection, XENSTORE_CONNECTED);
}

static void test_indexes(void **state)
{
    (void)state;
    model.ring.rsp_prod = 5000;
    look();
    expect("xen:domain", "C7", FAIL, "cannot be true");
}

/* Nobody has used it, and it does not answer: that is not the firmware's doing. */
static void test_silent(void **state)
{
    (void)state;
    model.silent = true;
    look();
    expect("xen:domain", "C7", UNSEEN, "does not answer");
}

static void test_silent_after_use(void **state)
{
    (void)state;
    model.silent = true;
    model.ring.req_cons = model.ring.req_prod = 40;
    look();
    expect("xen:domain", "C7", FAIL, "is dead");
}

static void test_backend_path_is_nonsense(void **state)
{
    (void)state;
    set(VBD "/backend", "/not a path");
    set("/not a path/state", "2");
    look();
    expect("xen:vbd/51712", "C7", UNSEEN, "backend");
    expect("xen:vbd/51712", "C4", UNSEEN, "backend");
}

static void test_name_is_nonsense(void **state)
{
    (void)state;
    set("device/v\n{d/1/state", "1");
    look();
    expect("xen:domain", "C7", UNSEEN, "a name that cannot be one");
}

static void test_limit_changes(void **state)
{
    (void)state;
    model.limit_changes = true;
    look();
    expect("xen:domain", "C7", UNSEEN, "watches cannot be counted");
}

static void test_message_too_long(void **state)
{
    static const char much[100000];

    (void)state;
    send_message(XS_READ, 12, much, sizeof(much));
    look();
    expect("xen:domain", "C7", FAIL, "is no message");
}

/* Once the auditor has begun to ask. */
static void test_index_later(void **state)
{
    (void)state;
    model.jump = 10;
    look();
    expect("xen:domain", "C7", UNSEEN, "index for answers cannot be true");
}

static void test_mad(void **state)
{
    size_t asked = 0, ended = 0;

    for (uint64_t seed = 1; seed <= 3000; seed++) {
        fresh(state);
        model.seed = seed;
        model.random = 64u << seed % 10;
        look();
        assert_true(verdict_count >= 2);
        asked += model.asked;
        ended += store.lost == NULL;
    }
    /* It was mad enough to be given up, and not so mad that it was given up at once. */
    printf("%zu questions, %zu of 3000 to the end\n", asked, ended);
    assert_in_range(ended, 1, 2900);
    assert_in_range(asked, 3000 * 10, 3000 * 100);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup(function, fresh)
    const struct CMUnitTest tests[] = {
        TEST(test_no_xen),
        TEST(test_no_store),
        TEST(test_as_found),
        TEST(test_connected),
        TEST(test_backend_still_maps),
        TEST(test_other_disk_maps),
        TEST(test_grant_left),
        TEST(test_table_unseen),
        TEST(test_channel_left),
        TEST(test_store_channel_closed),
        TEST(test_key_left),
        TEST(test_queue_left),
        TEST(test_closed),
        TEST(test_backend_not_begun),
        TEST(test_watch_left),
        TEST(test_watch_seen),
        TEST(test_transaction_left),
        TEST(test_no_limit_to_watches),
        TEST(test_answer_unread),
        TEST(test_request_unread),
        TEST(test_half_an_answer_read),
        TEST(test_half_a_request),
        TEST(test_reconnected),
        TEST(test_indexes),
        TEST(test_silent),
        TEST(test_silent_after_use),
        TEST(test_backend_path_is_nonsense),
        TEST(test_name_is_nonsense),
        TEST(test_limit_changes),
        TEST(test_message_too_long),
        TEST(test_index_later),
        TEST(test_mad),
    };
    return cmocka_run_group_tests_name("the auditor on Xen", tests, NULL, NULL);
}
