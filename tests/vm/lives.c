/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Drivers come and go: connect and disconnect, with reads in flight, with every call failing once,
 * and loading, starting and unloading the image. Afterwards the firmware has what it had before.
 *
 * Options:
 *   disks=N    how many disks there must be
 *   times=N    how often to disconnect and connect; 1000 if not given
 *   busy=N     how often with reads in flight; 50 if not given
 *   fail       let each call of Start fail once
 *   load=N     load the image that QEMU's fw_cfg has as opt/baton/driver, and unload it, so often;
 *              the disks carry no ROM then
 */
#include "tests/vm/spy.h"
#include "tests/vm/vm.h"

enum { DEPTH = 32, READ_BYTES = 64 * 1024, WARM_UP = 30 };

static struct vm_disk disks[VM_DISKS_MAX];
static size_t disk_count;
static uint8_t *buffer;

/* ---- What there is ---- */

/* After an unbinding: nothing of Baton's is left, as far as the spy has seen it come. */
static void check_nothing_left(void)
{
    app_check(spy.pool_live == 0);
    app_check(spy.exit_events_open == 0);
    app_check(spy.other_events_open == 0);
    app_check(spy_calls_of("PciIo.Map") == spy_calls_of("PciIo.Unmap"));
    app_check(spy_calls_of("PciIo.AllocateBuffer") == spy_calls_of("PciIo.FreeBuffer"));
    for (size_t i = 0; i < disk_count; i++)
        app_check(!vm_held(&disks[i]));
}

static uint32_t function_of(const struct vm_disk *disk)
{
    return vm_pci_function(disk->pci.bus, disk->pci.device, disk->pci.function);
}

/* A look at a device that nobody drives; its command register is left as it was. */
static void check_quiet(const struct vm_disk *disk)
{
    uint32_t function = function_of(disk);
    uint16_t command = vm_pci_command(function);
    struct vm_virtio device = vm_virtio_at(function);

    app_check(vm_virtio_status(&device) == 0);
    app_check(!vm_virtio_queue_on(&device));
    vm_pci_set_command(function, command);
}

/* ---- Connect and disconnect ---- */

static void check_works(struct vm_disk *disk)
{
    app_assert(vm_disk_refresh(disk) && disk->baton);
    app_check_status(
        disk->block->ReadBlocks(disk->block, disk->media->MediaId, 0, READ_BYTES, buffer),
        EFI_SUCCESS);
}

static void come_and_go(unsigned times)
{
    for (unsigned i = 0; i < times && app.failures == 0; i++) {
        for (size_t j = 0; j < disk_count; j++) {
            uint16_t command = vm_pci_command(function_of(&disks[j]));
            app_assert_ok(vm_connect(&disks[j]));
            check_works(&disks[j]);
            app_assert_ok(vm_disconnect(&disks[j]));
            /* As found. */
            app_check(vm_pci_command(function_of(&disks[j])) == command);
        }
        check_nothing_left();
        spy_forget();
    }
}

static struct job {
    EFI_BLOCK_IO2_TOKEN token;
    unsigned signals;
} jobs[DEPTH];

static void EFIAPI job_done(EFI_EVENT event, void *context)
{
    struct job *job = context;
    (void)event;
    job->signals++;
}

static void go_while_busy(unsigned times)
{
    unsigned aborted = 0;

    for (size_t i = 0; i < DEPTH; i++)
        app_assert_ok(app.bs->CreateEvent(EVT_NOTIFY_SIGNAL, TPL_CALLBACK, job_done, &jobs[i],
                                          &jobs[i].token.Event));
    for (unsigned round = 0; round < times && app.failures == 0; round++) {
        struct vm_disk *disk = &disks[round % disk_count];
        app_assert_ok(vm_connect(disk));
        check_works(disk);
        for (size_t i = 0; i < DEPTH; i++) {
            jobs[i].signals = 0;
            app_assert_ok(disk->block2->ReadBlocksEx(disk->block2, disk->media->MediaId, 0,
                                                     &jobs[i].token, READ_BYTES,
                                                     buffer + i * READ_BYTES));
        }
        app_assert_ok(vm_disconnect(disk));
        memset(buffer, 0x99, DEPTH * READ_BYTES);
        check_quiet(disk);
        check_nothing_left();
        spy_forget();
        for (size_t i = 0; i < DEPTH; i++) {
            app_check(jobs[i].signals == 1);
            if (jobs[i].token.TransactionStatus == EFI_ABORTED)
                aborted++;
            else
                app_check_status(jobs[i].token.TransactionStatus, EFI_SUCCESS);
        }
        for (size_t i = 0; i < DEPTH * READ_BYTES; i++)
            if (!app_check(buffer[i] == 0x99))
                break;
    }
    for (size_t i = 0; i < DEPTH; i++)
        app_assert_ok(app.bs->CloseEvent(jobs[i].token.Event));
    app_print("vm: %u of %u reads were cut off by a disconnect\n", aborted, times * DEPTH);
    app_check(times == 0 || aborted > 0);
}

/* ---- Every call fails once ---- */

/* Until Start has no more calls that could fail. Each failure must leave nothing behind, neither
 * memory nor events nor a live device. */
static void fail_each_call(struct vm_disk *disk)
{
    EFI_DRIVER_BINDING_PROTOCOL *binding = NULL;
    unsigned nth = 1, refused = 0;

    app_assert_ok(vm_connect(disk));
    app_assert(vm_disk_refresh(disk) && disk->baton);
    binding = app_protocol(disk->agent, &vm_driver_binding_guid);
    app_assert_ok(vm_disconnect(disk));

    for (;; nth++) {
        uint16_t command = vm_pci_command(function_of(disk));
        app_assert(nth < 1000);
        spy_fail(nth);
        EFI_STATUS status = binding->Start(binding, disk->pci.handle, NULL);
        const char *name = spy.failed_name;
        spy_fail(0);
        bool bound = !EFI_ERROR(status);
        if (bound)
            app_assert_ok(binding->Stop(binding, disk->pci.handle, 0, NULL));
        else
            refused++;
        unsigned failures = app.failures;
        check_nothing_left();
        app_check(app_protocol(disk->pci.handle, &vm_block_io_guid) == NULL);
        app_check(vm_pci_command(function_of(disk)) == command ||
                  (name && strcmp(name, "PciIo.Attributes") == 0));
        check_quiet(disk);
        spy_forget();
        if (app.failures != failures)
            app_print("    when call %u (%s) of Start failed\n", nth, name ? name : "none");
        vm_pci_set_command(function_of(disk), command);
        if (!name) {
            app_check(bound);
            break;
        }
    }
    app_print("vm: %u calls of Start failed, %u of them for Start as well\n", nth - 1, refused);
    app_check(refused >= 8);
}

/* ---- Load and unload ---- */

/* QEMU's fw_cfg device: a selector, and a byte at a time of what it selects. */
enum { FW_CFG_SELECTOR = 0x510, FW_CFG_DATA = 0x511, FW_CFG_DIRECTORY = 0x19, FW_CFG_NAME = 56 };

static void fw_cfg_select(uint16_t what)
{
    __asm__ volatile("outw %0, %1" : : "a"(what), "Nd"((uint16_t)FW_CFG_SELECTOR) : "memory");
}

static void fw_cfg_read(void *to, size_t bytes)
{
    uint8_t *at = to;

    while (bytes-- > 0)
        *at++ = app_in8(FW_CFG_DATA);
}

static uint32_t fw_cfg_number(unsigned bytes) /* big-endian */
{
    uint32_t number = 0;

    while (bytes-- > 0)
        number = number << 8 | app_in8(FW_CFG_DATA);
    return number;
}

/* The driver's image, which QEMU was given as a file. */
static void *driver_file(UINTN *bytes)
{
    fw_cfg_select(FW_CFG_DIRECTORY);
    for (uint32_t left = fw_cfg_number(4); left > 0; left--) {
        char name[FW_CFG_NAME];
        uint32_t size = fw_cfg_number(4);
        uint16_t selector = (uint16_t)fw_cfg_number(2);
        fw_cfg_number(2);
        fw_cfg_read(name, sizeof(name));
        if (strcmp(name, "opt/baton/driver") != 0)
            continue;
        void *data = app_pages(size);
        fw_cfg_select(selector);
        fw_cfg_read(data, size);
        *bytes = size;
        return data;
    }
    app_failed(__FILE__, __LINE__, "QEMU has no file opt/baton/driver");
}

static void load_and_unload(unsigned times)
{
    UINTN bytes;
    void *driver = driver_file(&bytes);
    struct vm_inventory before = {0}, after;

    for (unsigned i = 0; i < times && app.failures == 0; i++) {
        EFI_HANDLE image = NULL;
        if (i == WARM_UP)
            vm_inventory_take(&before);
        app_assert_ok(app.bs->LoadImage(FALSE, app.image, NULL, driver, bytes, &image));
        app_assert_ok(app.bs->StartImage(image, NULL, NULL));
        for (size_t j = 0; j < disk_count; j++) {
            /* Whoever had it goes, and Baton, with the higher version, comes. */
            app_assert_ok(vm_disconnect(&disks[j]));
            app_assert_ok(vm_connect(&disks[j]));
            check_works(&disks[j]);
            app_check(disks[j].agent == image);
        }
        app_assert_ok(app.bs->UnloadImage(image));
        for (size_t j = 0; j < disk_count; j++) {
            app_check(!vm_held(&disks[j]));
            check_quiet(&disks[j]);
        }
        if (i % 16 == 0) {
            /* The firmware's own driver finds a disk in order. */
            for (size_t j = 0; j < disk_count; j++) {
                app_assert_ok(app.bs->ConnectController(disks[j].handle, NULL, NULL, TRUE));
                app_assert(vm_disk_refresh(&disks[j]) && !disks[j].baton);
                app_check_status(disks[j].block->ReadBlocks(disks[j].block, disks[j].media->MediaId,
                                                            0, READ_BYTES, buffer),
                                 EFI_SUCCESS);
                app_assert_ok(vm_disconnect(&disks[j]));
            }
        }
    }
    vm_inventory_take(&after);
    if (times > WARM_UP)
        vm_inventory_compare(&before, &after);

    /* An image whose disk somebody holds fast is not unloaded, and works on. */
    EFI_HANDLE image = NULL;
    void *io;
    app_assert_ok(app.bs->LoadImage(FALSE, app.image, NULL, driver, bytes, &image));
    app_assert_ok(app.bs->StartImage(image, NULL, NULL));
    EFI_DRIVER_BINDING_PROTOCOL *binding = app_protocol(image, &vm_driver_binding_guid);
    app_assert_ok(binding->Start(binding, disks[0].handle, NULL));
    check_works(&disks[0]);
    /* Held by somebody whom the firmware cannot disconnect: no driver, but BY_DRIVER. */
    app_assert_ok(app.bs->OpenProtocol(disks[0].handle, &vm_block_io2_guid, &io, app.image,
                                       disks[0].handle, EFI_OPEN_PROTOCOL_BY_DRIVER));
    app_check(EFI_ERROR(app.bs->UnloadImage(image)));
    check_works(&disks[0]);
    app_assert_ok(
        app.bs->CloseProtocol(disks[0].handle, &vm_block_io2_guid, app.image, disks[0].handle));
    app_check_status(app.bs->UnloadImage(image), EFI_SUCCESS);
    check_quiet(&disks[0]);
}

/* ---- */

int app_main(void)
{
    static struct vm_inventory before, after;
    unsigned times = (unsigned)app_option_number("times", 1000);
    unsigned load = (unsigned)app_option_number("load", 0);

    app_connect_all();
    disk_count = vm_disks(disks, VM_DISKS_MAX);
    app_assert(disk_count == app_option_number("disks", 1));
    buffer = app_pages(DEPTH * READ_BYTES);
    if (load) {
        load_and_unload(load);
        return 0;
    }
    for (size_t i = 0; i < disk_count; i++) {
        app_assert(disks[i].baton);
        app_assert_ok(vm_disconnect(&disks[i]));
    }
    spy_install();
    for (size_t i = 0; i < disk_count; i++)
        spy_watch_pci(disks[i].pci.handle);
    app_assert(spy_image_count() > 0);

    uint64_t start = app_tsc();
    come_and_go(WARM_UP);
    vm_inventory_take(&before);
    come_and_go(times);
    vm_inventory_take(&after);
    app_print("vm: %u times took %llu ms; the map has %zu entries, had %zu\n", times,
              app_us(app_tsc() - start) / 1000, after.entries, before.entries);
    vm_inventory_compare(&before, &after);
    go_while_busy((unsigned)app_option_number("busy", 50));
    if (app_flag("fail")) {
        for (size_t i = 0; i < disk_count; i++)
            fail_each_call(&disks[i]);
        come_and_go(3);
    }
    vm_inventory_take(&after);
    vm_inventory_compare(&before, &after);
    app_check(spy.in_exit == 0 && spy.dead == 0);
    return 0;
}
