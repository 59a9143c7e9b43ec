/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * ExitBootServices with reads in flight, and a good look afterwards (C1 to C4, C7).
 *
 * Options:
 *   disks=N       how many disks there must be
 *   depth=N       reads in flight for each disk; 32 if not given
 *   stale         a first ExitBootServices with a stale map key
 *   early         before all else, the exit handlers run once without an exit, as firmware does
 *                 that checks the map key late
 *   dormant       every disk is disconnected before the exit
 *   settle=MS     how long to give the devices afterwards; 1000 if not given
 *
 * After the exit this program owns the machine. It fills all memory that the firmware has given up
 * with a pattern, rings the devices' doorbells, waits, and looks whether a byte has changed.
 */
#include "tests/vm/after.h"
#include "tests/vm/spy.h"
#include "tests/vm/vm.h"

enum { DEPTH_MAX = 64, READ_BYTES = 64 * 1024 };

static struct vm_disk disks[VM_DISKS_MAX];
static size_t disk_count;
static EFI_BLOCK_IO2_TOKEN tokens[VM_DISKS_MAX][DEPTH_MAX];
static uint8_t *buffers[VM_DISKS_MAX];
static size_t depth;
static struct app_map map;

/* ---- Before ---- */

static void find_disks(void)
{
    app_connect_all();
    disk_count = vm_disks(disks, VM_DISKS_MAX);
    app_assert(disk_count == app_option_number("disks", 1));
    for (size_t i = 0; i < disk_count; i++)
        app_assert(disks[i].baton);
}

/* Binds all disks again, now under the spy's eyes. */
static void bind_under_spy(void)
{
    for (size_t i = 0; i < disk_count; i++)
        app_assert_ok(vm_disconnect(&disks[i]));
    spy_install();
    app_assert(spy_image_count() > 0);
    for (size_t i = 0; i < disk_count; i++) {
        spy_watch_pci(disks[i].pci.handle);
        app_assert_ok(vm_connect(&disks[i]));
        app_assert(vm_disk_refresh(&disks[i]) && disks[i].baton);
    }
    /* C1: one for each binding, with the binding as its context. */
    app_check(spy.exit_events_open == disk_count);
    for (size_t i = 0; i < spy.event_count; i++) {
        app_check(spy.events[i].tpl == TPL_NOTIFY);
        for (size_t j = 0; j < i; j++)
            app_check(spy.events[i].context != spy.events[j].context);
    }
}

static void unbind(void)
{
    for (size_t i = 0; i < disk_count; i++)
        app_assert_ok(vm_disconnect(&disks[i]));
    app_check(spy.exit_events_open == 0);
    app_check(spy.other_events_open == 0);
    app_check(spy.pool_live == 0);
}

static void prepare_reads(void)
{
    for (size_t i = 0; i < disk_count; i++) {
        buffers[i] = app_pages(depth * READ_BYTES);
        for (size_t j = 0; j < depth; j++)
            app_assert_ok(app.bs->CreateEvent(0, 0, NULL, NULL, &tokens[i][j].Event));
    }
}

static void submit_reads(void)
{
    for (size_t j = 0; j < depth; j++) {
        for (size_t i = 0; i < disk_count; i++) {
            EFI_BLOCK_IO2_PROTOCOL *io = disks[i].block2;
            app_assert_ok(io->ReadBlocksEx(io, io->Media->MediaId,
                                           j * READ_BYTES / io->Media->BlockSize, &tokens[i][j],
                                           READ_BYTES, buffers[i] + j * READ_BYTES));
        }
    }
}

static void count_reads(void)
{
    size_t flying = 0;

    for (size_t i = 0; i < disk_count; i++)
        for (size_t j = 0; j < depth; j++)
            flying += app.bs->CheckEvent(tokens[i][j].Event) == EFI_NOT_READY;
    app_print("vm: in flight at the exit: %zu of %zu\n", flying, disk_count * depth);
}

/* ---- Afterwards ---- */

static struct vm_virtio devices[VM_DISKS_MAX];

static void look_at_devices(void)
{
    uint16_t commands[VM_DISKS_MAX];

    /* Before vm_virtio_find(), which touches the command register. */
    for (size_t i = 0; i < disk_count; i++)
        commands[i] = vm_pci_command(
            vm_pci_function(disks[i].pci.bus, disks[i].pci.device, disks[i].pci.function));

    size_t count = vm_virtio_find(devices, VM_DISKS_MAX);
    app_check(count == disk_count);
    for (size_t i = 0; i < disk_count; i++) {
        const struct vm_virtio *device = &devices[i];
        app_check(device->modern || device->legacy);
        app_print("vm: device %zu after the exit: modern=%d legacy=%d status=%u queue=%d "
                  "master=%d\n",
                  i, device->modern, device->legacy, vm_virtio_status(device),
                  vm_virtio_queue_on(device), (commands[i] & VM_COMMAND_MASTER) != 0);
        app_check(vm_virtio_status(device) == 0);
        app_check(!vm_virtio_queue_on(device));
        /* Firmware may have had it on before any driver came; then that is as found. */
        app_check(app_flag("dormant") || !(commands[i] & VM_COMMAND_MASTER));
    }
}

static void kick_and_wait(uint64_t ms)
{
    for (size_t i = 0; i < disk_count; i++)
        vm_virtio_kick(&devices[i]);
    app_delay_us(ms * 1000);
}

static void afterwards(void)
{
    uint64_t settle = app_option_number("settle", 1000);

    after_take(&map);
    for (size_t i = 0; i < disk_count; i++)
        if (buffers[i])
            after_also(buffers[i], depth * READ_BYTES);
    look_at_devices();
    after_fill();
    kick_and_wait(settle / 4);
    /* Only a device that was reset stays quiet now. */
    for (size_t i = 0; i < disk_count; i++)
        vm_pci_set_command(devices[i].function,
                           vm_pci_command(devices[i].function) | VM_COMMAND_MASTER);
    kick_and_wait(settle);
    after_look();
    for (size_t i = 0; i < disk_count; i++)
        app_check(vm_virtio_status(&devices[i]) == 0);
}

/* ---- The exit ---- */

static void check_handlers(unsigned calls)
{
    uint64_t slowest = 0;

    for (size_t i = 0; i < spy.event_count; i++) {
        const struct spy_event *event = &spy.events[i];
        app_check(event->calls == (event->open ? calls : 0));
        slowest = event->ticks > slowest ? event->ticks : slowest;
    }
    app_print("vm: handlers: %zu, of which the slowest took %llu us\n", spy.exit_events_open,
              app_us(slowest));
    app_check(app_us(slowest) < 1000000); /* C6 */
    app_check(spy.in_exit == 0);          /* C2 */
    app_check(spy.dead == 0);             /* C1 */
}

/* Firmware may run the handlers and find the map key stale afterwards. Nothing must wake a device
 * that has been let go. */
static void exit_early(void)
{
    static uint8_t block[4096];

    spy_notify_exit();
    for (size_t i = 0; i < disk_count; i++) {
        EFI_BLOCK_IO_PROTOCOL *io = disks[i].block;
        struct vm_virtio device = vm_virtio_at(
            vm_pci_function(disks[i].pci.bus, disks[i].pci.device, disks[i].pci.function));
        app_check(vm_virtio_status(&device) == 0);
        app_check_status(io->ReadBlocks(io, io->Media->MediaId, 0, io->Media->BlockSize, block),
                         EFI_DEVICE_ERROR);
        app_check_status(io->Reset(io, FALSE), EFI_DEVICE_ERROR);
        app_check(vm_virtio_status(&device) == 0);
        app_check(!(vm_pci_command(device.function) & VM_COMMAND_MASTER));
    }
}

static void exit_stale(void)
{
    EFI_PHYSICAL_ADDRESS page;

    app_map_read(&map);
    app_assert_ok(app.bs->AllocatePages(AllocateAnyPages, EfiLoaderData, 1, &page));
    app_check_status(app_map_exit(&map), EFI_INVALID_PARAMETER);
    /* From here on: memory services only (UEFI 2.10 §7.4.6). */
}

int app_main(void)
{
    depth = app_option_number("depth", 32);
    app_assert(depth <= DEPTH_MAX);
    find_disks();
    bind_under_spy();
    unsigned handler_calls = 1;

    if (app_flag("dormant")) {
        unbind();
        app_map_read(&map);
        app_assert_ok(app_map_exit(&map));
    } else {
        prepare_reads();
        submit_reads();
        count_reads();
        if (app_flag("early")) {
            exit_early();
            handler_calls++;
        }
        if (app_flag("stale"))
            exit_stale();
        app_map_read(&map);
        /* One good key is enough: nothing of Baton's changes the map meanwhile. */
        app_assert_ok(app_map_exit(&map));
    }
    check_handlers(handler_calls);
    /* And once more, as if the exit had failed after all. Now nothing at all may happen. */
    spy_notify_exit();
    check_handlers(handler_calls + 1);
    afterwards();
    return 0;
}
