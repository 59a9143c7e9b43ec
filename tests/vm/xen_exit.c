/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * ExitBootServices in a guest of Xen, with reads in flight, and a good look afterwards: has anybody
 * written to memory that is the operating system's (C4)? What XenStore and the grant table show is
 * for dom0 to look at, and for the auditor.
 *
 * Options:
 *   disks=N       how many disks there must be
 *   from=N        the first of them, from 0, that has reads in flight; 0 if not given
 *   depth=N       how many reads each of these has in flight; 0 if not given
 *   bytes=N       of each read; 64K if not given
 *   shift=N       how far off a page the buffers are
 *   stop          have dom0 stop the disks before the reads, and let them go on after the exit
 *   stale         a first ExitBootServices with a stale map key
 *   dormant       the platform device is disconnected before the exit
 */
#include "tests/vm/after.h"
#include "tests/vm/spy.h"
#include "tests/vm/xen.h"
#include "uefi/exit.h"

enum { DEPTH_MAX = 64 };

static struct vm_disk disks[VM_DISKS_MAX];
static size_t disk_count, first;
static EFI_BLOCK_IO2_TOKEN tokens[VM_DISKS_MAX][DEPTH_MAX];
static uint8_t *buffers[VM_DISKS_MAX];
static size_t depth, bytes, shift, stride;
static struct app_map map;

/* ---- Before ---- */

/* Binds the bus again, now under the spy's eyes. */
static void bind_under_spy(void)
{
    app_assert_ok(vm_disconnect(&disks[0]));
    spy_install();
    app_assert(spy_image_count() > 0);
    app_assert_ok(vm_connect(&disks[0]));
    app_assert(vm_disks(disks, VM_DISKS_MAX) == disk_count);
    for (size_t i = 0; i < disk_count; i++)
        app_assert(disks[i].baton);
    /* C1: one for each disk, one for the bus. */
    app_check(spy.exit_events_open == disk_count + 1);
    for (size_t i = 0; i < spy.event_count; i++) {
        app_check(spy.events[i].tpl == TPL_NOTIFY);
        for (size_t j = 0; j < i; j++)
            app_check(spy.events[i].context != spy.events[j].context);
    }
}

static void submit_reads(void)
{
    size_t flying = 0;

    for (size_t i = first; i < disk_count && depth > 0; i++) {
        buffers[i] = app_pages(depth * stride);
        memset(buffers[i], 0x3c, depth * stride);
        for (size_t j = 0; j < depth; j++)
            app_assert_ok(app.bs->CreateEvent(0, 0, NULL, NULL, &tokens[i][j].Event));
    }
    for (size_t j = 0; j < depth; j++) {
        for (size_t i = first; i < disk_count; i++) {
            EFI_BLOCK_IO2_PROTOCOL *io = disks[i].block2;
            app_assert_ok(io->ReadBlocksEx(io, io->Media->MediaId, j * bytes / io->Media->BlockSize,
                                           &tokens[i][j], bytes, buffers[i] + j * stride + shift));
        }
    }
    for (size_t i = first; i < disk_count; i++)
        for (size_t j = 0; j < depth; j++)
            flying += app.bs->CheckEvent(tokens[i][j].Event) == EFI_NOT_READY;
    app_print("vm: in flight at the exit: %zu of %zu\n", flying, (disk_count - first) * depth);
}

static unsigned before_exit, at_exit;

static void EFIAPI note(EFI_EVENT event, void *context)
{
    (void)event;
    ++*(unsigned *)context;
}

/* UEFI 2.9 §7.1: a group that is signalled while everything may still be called. The other one,
 * which every firmware knows, shows that groups work at all. */
static void watch_groups(void)
{
    static EFI_GUID before = {
        0x8be0e274, 0x3970, 0x4b44, {0x80, 0xc5, 0x1a, 0xb9, 0x50, 0x2f, 0x3b, 0xfc}};
    static EFI_GUID at = {
        0x27abf055, 0xb1b8, 0x4c26, {0x80, 0x48, 0x74, 0x8f, 0x37, 0xba, 0xa2, 0xdf}};
    EFI_EVENT event;

    app_assert_ok(app.bs->CreateEventEx(EVT_NOTIFY_SIGNAL, TPL_CALLBACK, note, &before_exit,
                                        &before, &event));
    app_assert_ok(
        app.bs->CreateEventEx(EVT_NOTIFY_SIGNAL, TPL_CALLBACK, note, &at_exit, &at, &event));
}

/* ---- The exit ---- */

static uint64_t leave(void)
{
    app_map_read(&map);
    uint64_t start = app_tsc();
    if (app_flag("stale")) {
        EFI_PHYSICAL_ADDRESS page;
        app_assert_ok(app.bs->AllocatePages(AllocateAnyPages, EfiLoaderData, 1, &page));
        app_check_status(app_map_exit(&map), EFI_INVALID_PARAMETER);
        app_map_read(&map);
    }
    /* One good key is enough: nothing of Baton's changes the map meanwhile. */
    app_assert_ok(app_map_exit(&map));
    return app_us(app_tsc() - start);
}

static void check_handlers(unsigned calls)
{
    for (size_t i = 0; i < spy.event_count; i++)
        app_check(spy.events[i].calls == (spy.events[i].open ? calls : 0));
    app_check(spy.in_exit == 0); /* C2 */
    app_check(spy.dead == 0);    /* C1 */
}

/* What came in before the exit stays in the buffers, until they are filled. */
int app_main(void)
{
    vm_begin();
    depth = app_option_number("depth", 0);
    bytes = app_option_number("bytes", 64 * 1024);
    shift = app_option_number("shift", 0);
    stride = (bytes + shift + 4095) & ~(size_t)4095;
    first = app_option_number("from", 0);
    app_assert(depth <= DEPTH_MAX);
    app_connect_all();
    disk_count = vm_disks(disks, VM_DISKS_MAX);
    app_assert(disk_count == app_option_number("disks", 1));
    for (size_t i = 0; i < disk_count; i++)
        app_assert(disks[i].baton);
    watch_groups();
    bind_under_spy();
    if (app_flag("dormant"))
        app_assert_ok(vm_disconnect(&disks[0]));
    if (app_flag("stop"))
        xen_ask("stop");
    submit_reads();

    uint64_t us = leave();
    app_print("vm: the exit took %llu us\n", us);
    app_print("vm: the before-exit group was signalled %u times\n", before_exit);
    app_check(at_exit == 1);
    app_check(us < XEN_EXIT_BOUND_MS * 1000 + 500000); /* C6 */
    check_handlers(app_flag("dormant") ? 0 : 1);
    spy_notify_exit();
    check_handlers(app_flag("dormant") ? 0 : 2);

    after_take(&map);
    for (size_t i = first; i < disk_count; i++)
        if (buffers[i])
            after_also(buffers[i], depth * stride);
    after_fill();
    if (app_flag("stop"))
        xen_ask("go-on");
    app_delay_us(app_option_number("settle", 200) * 1000);
    after_look();
    return 0;
}
