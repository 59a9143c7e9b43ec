/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Drivers and disks that come and go in a guest of Xen. Afterwards the firmware has what it had
 * before; whether the backends have, is for dom0 to look at.
 *
 * Options:
 *   disks=N    how many disks there must be
 *   times=N    how often to disconnect the platform device and connect it again; 0 if not given
 *   busy=N     how often with reads in flight
 *   fail       let each call of Start fail once
 *   claim      somebody else has what edk2's own Xen drivers bind to; and the other way round
 *   plug=N     dom0 attaches and detaches the disk with this number
 *   load=N     load \EFI\BOOT\BATON.EFI, and unload it, so often; the platform device has no ROM
 *              then, and the disks are Baton's only for as long
 *   list       tell of all disks that the firmware has
 */
#include "tests/vm/spy.h"
#include "tests/vm/xen.h"
#include "uefi/protocol/xenio.h"

enum { DEPTH = 32, READ_BYTES = 64 * 1024, WARM_UP = 5, PATIENCE_S = 60 };

static EFI_HANDLE platform;
static struct vm_disk disks[VM_DISKS_MAX];
static size_t disk_count;
static uint8_t *buffer;
static struct {
    UINT32 number, crc;
} first_bytes[VM_DISKS_MAX];

/* ---- What there is ---- */

static void find_platform(void)
{
    static EFI_HANDLE handles[64];
    size_t count = app_handles(&vm_pci_io_guid, handles, 64);

    for (size_t i = 0; i < count; i++) {
        EFI_PCI_IO_PROTOCOL *io = app_protocol(handles[i], &vm_pci_io_guid);
        UINT32 id;
        app_assert_ok(io->Pci.Read(io, EfiPciIoWidthUint32, 0, 1, &id));
        if (id == 0x00015853)
            platform = handles[i];
    }
    app_assert(platform != NULL);
}

static EFI_STATUS connect(void)
{
    return app.bs->ConnectController(platform, NULL, NULL, FALSE);
}

static EFI_STATUS disconnect(void)
{
    return app.bs->DisconnectController(platform, NULL, NULL);
}

static bool held(void)
{
    return vm_held(&(struct vm_disk){.pci.handle = platform});
}

static EFI_STATUS read_first(const struct vm_disk *disk, void *to)
{
    return disk->block->ReadBlocks(disk->block, disk->media->MediaId, 0, READ_BYTES, to);
}

/* All disks, with what they had at first. */
static void check_works(void)
{
    app_assert(vm_disks(disks, VM_DISKS_MAX) == disk_count);
    for (size_t i = 0; i < disk_count; i++) {
        app_assert(disks[i].baton);
        memset(buffer, 0x3c, READ_BYTES);
        app_check_status(read_first(&disks[i], buffer), EFI_SUCCESS);
        UINT32 crc = vm_crc32(buffer, READ_BYTES);
        if (!first_bytes[i].number) {
            first_bytes[i].number = disks[i].number;
            first_bytes[i].crc = crc;
            app_print("vm: disk %u first %08x\n", disks[i].number, crc);
        }
        app_check(first_bytes[i].number == disks[i].number && first_bytes[i].crc == crc);
    }
}

/* After an unbinding: nothing of Baton's is left, as far as the spy has seen it come. */
static void check_nothing_left(void)
{
    app_check(spy.pool_live == 0);
    app_check(spy.exit_events_open == 0);
    app_check(spy.other_events_open == 0);
    app_check(spy_calls_of("AllocatePages") == spy_calls_of("FreePages"));
    app_check(!held());
    app_check(vm_disks(disks, VM_DISKS_MAX) == 0);
}

/* ---- Connect and disconnect ---- */

static void come_and_go(unsigned times)
{
    for (unsigned i = 0; i < times && app.failures == 0; i++) {
        app_assert_ok(connect());
        check_works();
        app_assert_ok(disconnect());
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
        app_assert_ok(connect());
        check_works();
        for (size_t i = 0; i < DEPTH; i++) {
            const struct vm_disk *disk = &disks[i % disk_count];
            jobs[i].signals = 0;
            app_assert_ok(disk->block2->ReadBlocksEx(disk->block2, disk->media->MediaId, 0,
                                                     &jobs[i].token, READ_BYTES,
                                                     buffer + i * READ_BYTES));
        }
        /* Of one disk alone, and of all of them. */
        if (round % 2)
            app_assert_ok(app.bs->DisconnectController(platform, disks[0].agent, disks[0].handle));
        app_assert_ok(disconnect());
        memset(buffer, 0x99, DEPTH * READ_BYTES);
        check_nothing_left();
        spy_forget();
        app_delay_us(20000);
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
}

/* ---- Every call fails once ---- */

/* Until Start has no more calls that could fail. A bus that cannot bring one of its disks up is a
 * bus all the same. */
static void fail_each_call(void)
{
    unsigned nth = 1, refused = 0, fewer = 0;

    app_assert_ok(connect());
    check_works();
    EFI_HANDLE agent = disks[0].agent;
    EFI_DRIVER_BINDING_PROTOCOL *binding = app_protocol(agent, &vm_driver_binding_guid);
    app_assert_ok(disconnect());

    for (;; nth++) {
        app_assert(nth < 1000);
        unsigned failures = app.failures;
        spy_fail(nth);
        EFI_STATUS status = binding->Start(binding, platform, NULL);
        const char *name = spy.failed_name;
        spy_fail(0);
        if (EFI_ERROR(status)) {
            refused++;
        } else {
            size_t count = vm_disks(disks, VM_DISKS_MAX);
            fewer += count < disk_count;
            app_check(count == disk_count || name != NULL);
            app_assert_ok(app.bs->DisconnectController(platform, agent, NULL));
        }
        check_nothing_left();
        spy_forget();
        if (app.failures != failures) {
            app_print("    when call %u (%s) of Start failed\n", nth, name ? name : "none");
            return;
        }
        if (!name) {
            app_check(!EFI_ERROR(status));
            break;
        }
    }
    app_print("vm: %u calls of Start failed, %u of them for Start as well, %u for a disk\n",
              nth - 1, refused, fewer);
    app_check(refused >= 5 && fewer >= 5);
}

/* ---- Two owners ---- */

static void claim(void)
{
    static EFI_GUID xenio_guid = XENIO_PROTOCOL_GUID;
    static uint64_t xenio[4];
    EFI_HANDLE handle = NULL;
    void *io;

    app_assert_ok(
        app.bs->InstallProtocolInterface(&handle, &xenio_guid, EFI_NATIVE_INTERFACE, xenio));
    app_assert_ok(app.bs->OpenProtocol(handle, &xenio_guid, &io, app.image, handle,
                                       EFI_OPEN_PROTOCOL_BY_DRIVER));
    app_check(EFI_ERROR(connect()));
    check_nothing_left();
    app_assert_ok(app.bs->CloseProtocol(handle, &xenio_guid, app.image, handle));

    app_assert_ok(connect());
    check_works();
    app_check_status(app.bs->OpenProtocol(handle, &xenio_guid, &io, app.image, handle,
                                          EFI_OPEN_PROTOCOL_BY_DRIVER),
                     EFI_ACCESS_DENIED);
    check_works();
    app_assert_ok(disconnect());
    check_nothing_left();
    app_check_status(app.bs->OpenProtocol(handle, &xenio_guid, &io, app.image, handle,
                                          EFI_OPEN_PROTOCOL_BY_DRIVER),
                     EFI_SUCCESS);
    app_assert_ok(app.bs->CloseProtocol(handle, &xenio_guid, app.image, handle));
    app_assert_ok(app.bs->UninstallProtocolInterface(handle, &xenio_guid, xenio));
    app_print("vm: one owner at a time\n");
}

/* ---- Disks that come and go ---- */

static struct vm_disk *find(UINT32 number)
{
    size_t count = vm_disks(disks, VM_DISKS_MAX);

    for (size_t i = 0; i < count; i++)
        if (disks[i].number == number)
            return &disks[i];
    return NULL;
}

static struct vm_disk *wait_for(UINT32 number, bool there)
{
    uint64_t start = app_tsc();
    struct vm_disk *disk;

    do {
        app_delay_us(10000);
        disk = find(number);
        app_assert(app_us(app_tsc() - start) < PATIENCE_S * 1000000ull);
    } while ((disk != NULL) != there);
    return disk;
}

static void check_new(const struct vm_disk *disk)
{
    app_check(disk->baton);
    app_check_status(read_first(disk, buffer), EFI_SUCCESS);
    app_print("vm: new disk crc %08x\n", vm_crc32(buffer, READ_BYTES));
}

static void plug(UINT32 number)
{
    void *io;

    app_assert(find(number) == NULL);
    xen_ask("attach");
    check_new(wait_for(number, true));
    xen_ask("detach");
    wait_for(number, false);
    check_works();

    /* By its name again; and held by somebody whom the firmware cannot disconnect. */
    xen_ask("attach");
    struct vm_disk *disk = wait_for(number, true);
    EFI_HANDLE handle = disk->handle;
    check_new(disk);
    app_assert_ok(app.bs->DisconnectController(handle, NULL, NULL));
    app_assert_ok(app.bs->OpenProtocol(handle, &vm_block_io2_guid, &io, app.image, handle,
                                       EFI_OPEN_PROTOCOL_BY_DRIVER));
    xen_ask("detach-held");
    app_delay_us(1000000);
    disk = find(number);
    if (app_check(disk != NULL && disk->handle == handle)) {
        EFI_STATUS status = read_first(disk, buffer);
        app_print("vm: reading a disk that is gone: %s\n", app_status_name(status));
        app_check(EFI_ERROR(status));
    }
    app_assert_ok(app.bs->CloseProtocol(handle, &vm_block_io2_guid, app.image, handle));
    wait_for(number, false);
    xen_ask("detach-rest");
    check_works();
    app_print("vm: came and went\n");
}

/* ---- Load and unload ---- */

static void load_and_unload(unsigned times)
{
    static struct vm_inventory before, after;
    UINTN bytes;
    void *driver = app_file(u"\\EFI\\BOOT\\BATON.EFI", &bytes), *io;
    EFI_HANDLE image = NULL;

    app_assert(driver != NULL);
    for (unsigned i = 0; i < times && app.failures == 0; i++) {
        if (i == 2)
            vm_inventory_take(&before);
        app_assert_ok(app.bs->LoadImage(FALSE, app.image, NULL, driver, bytes, &image));
        app_assert_ok(app.bs->StartImage(image, NULL, NULL));
        app_assert_ok(connect());
        check_works();
        app_assert_ok(app.bs->UnloadImage(image));
        app_check(!held() && vm_disks(disks, VM_DISKS_MAX) == 0);
    }
    vm_inventory_take(&after);
    vm_inventory_compare(&before, &after);

    /* An image whose disk somebody holds fast is not unloaded, and works on. */
    app_assert_ok(app.bs->LoadImage(FALSE, app.image, NULL, driver, bytes, &image));
    app_assert_ok(app.bs->StartImage(image, NULL, NULL));
    app_assert_ok(connect());
    check_works();
    EFI_HANDLE handle = disks[0].handle;
    app_assert_ok(app.bs->OpenProtocol(handle, &vm_block_io2_guid, &io, app.image, handle,
                                       EFI_OPEN_PROTOCOL_BY_DRIVER));
    app_check(EFI_ERROR(app.bs->UnloadImage(image)));
    struct vm_disk *disk = find(first_bytes[0].number);
    if (app_check(disk != NULL))
        app_check_status(read_first(disk, buffer), EFI_SUCCESS);
    app_assert_ok(app.bs->CloseProtocol(handle, &vm_block_io2_guid, app.image, handle));
    app_check_status(app.bs->UnloadImage(image), EFI_SUCCESS);
    app_check(!held());
    app_print("vm: loaded and unloaded %u times\n", times);
}

/* ---- */

static void list(void)
{
    static EFI_GUID device_path_guid = EFI_DEVICE_PATH_PROTOCOL_GUID;
    static EFI_HANDLE handles[VM_DISKS_MAX];
    static struct app_driver drivers[VM_DRIVERS_MAX];
    size_t count = app_disks(handles, VM_DISKS_MAX);

    for (size_t i = 0; i < count; i++) {
        char path[128];
        size_t driver_count = app_drivers_of(handles[i], drivers, VM_DRIVERS_MAX);
        app_path_text(app_protocol(handles[i], &device_path_guid), path, sizeof(path));
        app_print("vm: disk %s driver \"%s\"\n", path,
                  driver_count ? drivers[driver_count - 1].name : "");
    }
}

static void lives(void)
{
    static struct vm_inventory before, after;
    unsigned times = (unsigned)app_option_number("times", 0);

    app_assert_ok(disconnect());
    spy_install();
    spy_watch_pci(platform);
    app_assert(spy_image_count() > 0);
    come_and_go(WARM_UP);
    vm_inventory_take(&before);
    uint64_t start = app_tsc();
    come_and_go(times);
    if (app.failures > 0)
        return;
    app_print("vm: %u times took %llu ms\n", times, app_us(app_tsc() - start) / 1000);
    if (app_option("busy"))
        go_while_busy((unsigned)app_option_number("busy", 0));
    if (app_flag("claim"))
        claim();
    if (app_flag("fail"))
        fail_each_call();
    vm_inventory_take(&after);
    vm_inventory_compare(&before, &after);
    app_assert_ok(connect());
    check_works();
}

int app_main(void)
{
    vm_begin();
    app_connect_all();
    find_platform();
    buffer = app_pages(DEPTH * READ_BYTES);
    disk_count = app_option_number("disks", 1);
    if (app_flag("list")) {
        list();
        app_check(vm_disks(disks, VM_DISKS_MAX) == disk_count);
    } else if (app_option("load")) {
        load_and_unload((unsigned)app_option_number("load", 0));
    } else {
        check_works();
        if (app_option("plug"))
            plug((UINT32)app_option_number("plug", 0));
        else
            lives();
    }
    /* An exit event that is left would run on memory that is freed. */
    if (app.failures > 0)
        return 1;
    app_exit_boot_services();
    app_check(spy.in_exit == 0 && spy.dead == 0);
    return 0;
}
