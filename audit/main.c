/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * handover.efi: holds any UEFI firmware and its drivers to the contract of docs/handover.md at
 * ExitBootServices. docs/auditing.md says how to use it, docs/audit-format.md what it prints.
 *
 * Options, from the command line, the boot entry, or a file handover.txt beside the program:
 *   as-found      connect nothing: leave drivers and devices as the loader found them
 *   rebind        when all drivers are connected, disconnect them from PCI devices and connect them
 *                 again: so exit events are created under the auditor's eyes
 *   driver=…      load this driver first; may be repeated (audit/drivers.h)
 *   stale         call ExitBootServices with a stale map key first
 *   watch=MS      how long a round of the watch lasts; 1000
 *   rounds=N      how many rounds; 2
 *   screen=…      what the screen shows: text, json, both or none
 *   debug-port     write to port 0xE9, a hypervisor's, and not to the serial port
 *   exit=off|halt|debug   how to end; off
 */
#include "audit/busy.h"
#include "audit/calls.h"
#include "audit/devices.h"
#include "audit/drivers.h"
#include "audit/owner.h"
#include "audit/report.h"
#include "audit/watch.h"
#include "audit/xen.h"

enum { ATTEMPTS_MAX = 4 };

static struct app_map map;
static bool is_xen;

/* ---- Before ---- */

static const char *hypervisor(void)
{
    static char name[13];
    uint32_t a = 1, b, c, d;

    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
    if (!(c & 1u << 31))
        return NULL;
    a = 0x40000000;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
    memcpy(name, &b, 4);
    memcpy(name + 4, &c, 4);
    memcpy(name + 8, &d, 4);
    return memcmp(name, "XenVMMXenVMM", 12) == 0   ? "Xen"
           : memcmp(name, "KVMKVMKVM", 9) == 0     ? "KVM"
           : memcmp(name, "TCGTCGTCGTCG", 12) == 0 ? "TCG"
                                                   : name;
}

static void tell_start(void)
{
    char text[64];
    const EFI_MEMORY_DESCRIPTOR *entry;
    uint64_t pages = 0;
    const char *machine = hypervisor();

    app_map_read(&map);
    for (size_t i = 0; (entry = app_map_entry(&map, i)) != NULL; i++)
        if (entry->Type != EfiMemoryMappedIO && entry->Type != EfiMemoryMappedIOPortSpace &&
            entry->Type != EfiReservedMemoryType)
            pages += entry->NumberOfPages;
    json_begin("start");
    json_text("format", "handover");
    json_number("version", 1);
    json_list("options");
    for (const char *word = NULL; (word = app_option_word(word)) != NULL;)
        json_text(NULL, word);
    json_list_end();
    json_object("firmware");
    app_format(text, sizeof(text), "%ls", app.st->FirmwareVendor);
    json_text("vendor", text);
    json_hex("revision", app.st->FirmwareRevision);
    app_format(text, sizeof(text), "%u.%u", app.st->Hdr.Revision >> 16,
               (app.st->Hdr.Revision & 0xffff) / 10);
    json_text("uefi", text);
    json_object_end();
    json_number("memory", pages * 4096);
    json_text("hypervisor", machine);
    json_end();
    report_print("handover.efi: auditing %ls, UEFI %s, on %s\n", app.st->FirmwareVendor, text,
                 machine == NULL ? "a machine without a hypervisor" : machine);
}

static void disconnect_pci(void)
{
    static const EFI_GUID pci_io_guid = EFI_PCI_IO_PROTOCOL_GUID;
    static EFI_HANDLE handles[1024];
    size_t count = app_handles(&pci_io_guid, handles, 1024);

    for (size_t i = 0; i < count; i++)
        (void)app.bs->DisconnectController(handles[i], NULL, NULL);
}

static void connect(void)
{
    if (app_flag("as-found"))
        return;
    report_phase("connect", NULL, 0);
    calls_connecting(true);
    app_connect_all();
    if (app_flag("rebind")) {
        /* Twice: what the first disconnection leaves behind was created under our eyes only if the
         * first connection was, too. */
        disconnect_pci();
        app_connect_all();
        disconnect_pci();
        calls_expect_closed();
        app_connect_all();
    }
    calls_connecting(false);
}

/* ---- The exit ---- */

static void tell_return(unsigned attempt, EFI_STATUS status, uint64_t ticks)
{
    json_begin("phase");
    json_text("phase", "return");
    json_signed("us", report_us(ticks));
    json_number("attempt", attempt);
    json_text("status", app_status_name(status));
    json_end();
}

static uint64_t exit_ticks; /* from the last call to its return */

static void leave(void)
{
    bool stale = app_flag("stale");
    EFI_STATUS status = EFI_ABORTED;

    for (unsigned attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
        report_phase("call", "attempt", attempt);
        /* After a call that failed, memory services only (UEFI 2.10 §7.4.6). */
        if (attempt == 1)
            busy_at_call();
        app_map_read(&map);
        if (stale && attempt == 1) {
            EFI_PHYSICAL_ADDRESS page;
            app_assert_ok(app.bs->AllocatePages(AllocateAnyPages, EfiLoaderData, 1, &page));
        }
        report_time_zero();
        uint64_t start = app_tsc();
        calls_exit_begin(attempt, &map);
        status = app_map_exit(&map);
        calls_exit_end(!EFI_ERROR(status));
        uint64_t end = app_tsc();
        exit_ticks = end - start;
        tell_return(attempt, status, end);
        if (!EFI_ERROR(status))
            return;
        report_print("ExitBootServices, call %u: %s\n", attempt, app_status_name(status));
    }
    report_give_up(
        "ExitBootServices did not succeed in %u calls, each with a fresh memory map; the "
        "last one: %s",
        ATTEMPTS_MAX, app_status_name(status));
}

/* ---- After ---- */

static void notify_all(void)
{
    for (size_t i = 0; i < device_count; i++) {
        uint64_t now = app_tsc();
        unsigned queues = device_notify(&devices[i]);
        if (queues == 0)
            continue;
        json_begin("notified");
        json_text("device", devices[i].name);
        json_signed("us", report_us(now));
        json_number("queues", queues);
        json_end();
    }
}

/* As an operating system has it when it comes to resetting a device: one that was only cut off from
 * the bus comes to life then. */
static void let_master(void)
{
    for (size_t i = 0; i < device_count; i++)
        if (kind_is_virtio(devices[i].kind) || devices[i].exit.live == LIVE_YES ||
            (devices[i].exit.live == LIVE_UNKNOWN && devices[i].driver_count > 0 &&
             devices[i].kind != KIND_BRIDGE))
            device_let_master(&devices[i]);
}

static void spare_orders(void)
{
    for (size_t i = 0; i < shared_count; i++)
        if ((shared[i].access & DEVICE_OBEYS) && devices[shared[i].device].exit.live == LIVE_YES)
            watch_spare(shared[i].base, shared[i].size);
}

/* The first round finds devices that go on with what they were told to do; in the second there is
 * nothing left of that, and all of them may reach memory. */
static void watch(unsigned round, uint64_t ms)
{
    uint64_t bytes = watch_fill(&map, round);

    report_phase("filled", "round", round);
    if (round > 1)
        let_master();
    notify_all();
    report_phase("watching", "round", round);
    app_delay_us(ms * 500);
    notify_all();
    app_delay_us(ms * 500);
    watch_look(&map, round);
    json_begin("watch");
    json_number("round", round);
    json_signed("us", report_us(app_tsc()));
    json_number("ms", ms);
    json_number("bytes", bytes);
    json_end();
}

static void tell_everything(void)
{
    report_phase("judging", NULL, 0);
    report_print("\nDevices:\n");
    devices_report();
    for (size_t i = 0; i < device_count; i++) {
        device_report_state(&devices[i], "call", &devices[i].call);
        device_report_state(&devices[i], "exit", &devices[i].exit);
        device_report_state(&devices[i], "end", &devices[i].end);
    }
    watch_report_regions(&map);
    calls_report();
    report_print("\nExitBootServices took %llu us.\nMemory that changed after the exit:\n",
                 app_us(exit_ticks));
    watch_report();
    devices_judge(changes_lost == 0);
}

static _Noreturn void afterwards(void)
{
    uint64_t rounds = app_option_number("rounds", 2), ms = app_option_number("watch", 1000);

    report_phase("owner", NULL, 0);
    devices_share(&map, SHARE_AFTER_EXIT);
    spare_orders();
    for (unsigned round = 1; round <= rounds; round++)
        watch(round, ms);
    for (size_t i = 0; i < device_count; i++)
        device_look(&devices[i], &devices[i].end);
    if (is_xen)
        xen_end();
    tell_everything();
    app_exit(report_end() > 0 ? 1 : 0);
}

static void failed(const char *what)
{
    report_give_up("%s", what);
}

int app_main(void)
{
    app.failed = failed;
    app_options_file(u"handover.txt");
    app.debug_port = app_flag("debug-port");
    if (app_option_number("rounds", 2) < 1 || app_option_number("watch", 1000) < 1)
        report_give_up("without a watch there is no audit: rounds and watch must be at least 1");
    tell_start();
    calls_begin();
    drivers_load();
    connect();
    images_update();
    devices_find();
    is_xen = xen_before();
    report_screen();
    report_phase("busy", NULL, 0);
    busy_prepare();
    images_report();
    app_map_read(&map);
    owner_prepare(&map, devices_each_window);
    busy_go();
    app_map_read(&map);
    for (size_t i = 0; i < device_count; i++)
        device_look(&devices[i], &devices[i].call);
    devices_share(&map, SHARE_AT_CALL);
    leave();
    if (is_xen)
        xen_exit();
    for (size_t i = 0; i < device_count; i++)
        device_look(&devices[i], &devices[i].exit);
    owner_take(afterwards);
}
