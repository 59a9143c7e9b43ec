/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Disks that fail: errors, and requests that get no answer (C6). Then the exit, which has to be as
 * clean as ever.
 *
 * Options:
 *   broken=BYTE  where on the disk every request gets an error
 *   stuck=BYTE   where reads get no answer for a while, somewhat longer than the driver waits
 *   other        while a read is stuck, a timer event goes on reading elsewhere
 *   absent       there is a device that is no disk: Baton must leave it alone
 */
#include "tests/vm/vm.h"

enum { TOKENS = 8, BYTES = 4096, WAIT_MS = 30000 };

static struct vm_disk disks[VM_DISKS_MAX];
static struct vm_disk *disk;
static uint8_t *buffer;
static struct app_map map;

static EFI_STATUS read_at(uint64_t byte, size_t bytes)
{
    return disk->block->ReadBlocks(disk->block, disk->media->MediaId, byte / disk->media->BlockSize,
                                   bytes, buffer);
}

static void check_works(void)
{
    static uint8_t once[BYTES], twice[BYTES];

    vm_random_fill(once, sizeof(once));
    app_check_status(disk->block->WriteBlocks(disk->block, disk->media->MediaId, 0, BYTES, once),
                     EFI_SUCCESS);
    app_check_status(disk->block->ReadBlocks(disk->block, disk->media->MediaId, 0, BYTES, twice),
                     EFI_SUCCESS);
    app_check(memcmp(once, twice, BYTES) == 0);
    app_check_status(disk->block->FlushBlocks(disk->block), EFI_SUCCESS);
}

static void errors(uint64_t broken)
{
    EFI_BLOCK_IO2_TOKEN tokens[TOKENS];
    EFI_BLOCK_IO2_PROTOCOL *io = disk->block2;

    for (int i = 0; i < 3; i++) {
        app_check_status(read_at(broken, BYTES), EFI_DEVICE_ERROR);
        app_check_status(disk->block->WriteBlocks(disk->block, disk->media->MediaId,
                                                  broken / disk->media->BlockSize, BYTES, buffer),
                         EFI_DEVICE_ERROR);
        /* In the middle of a large one. */
        app_check_status(read_at(broken - (1 << 20), 4 << 20), EFI_DEVICE_ERROR);
        check_works();
    }
    for (unsigned i = 0; i < TOKENS; i++) {
        app_assert_ok(app.bs->CreateEvent(0, 0, NULL, NULL, &tokens[i].Event));
        uint64_t at = i == 3 ? broken : i * BYTES;
        app_check_status(io->ReadBlocksEx(io, io->Media->MediaId, at / io->Media->BlockSize,
                                          &tokens[i], BYTES, buffer + i * BYTES),
                         EFI_SUCCESS);
    }
    for (unsigned i = 0; i < TOKENS; i++) {
        UINTN index;
        app_assert_ok(app.bs->WaitForEvent(1, &tokens[i].Event, &index));
        app_check_status(tokens[i].TransactionStatus, i == 3 ? EFI_DEVICE_ERROR : EFI_SUCCESS);
        app_assert_ok(app.bs->CloseEvent(tokens[i].Event));
    }
    check_works();
}

static unsigned others_done;

static void EFIAPI read_elsewhere(EFI_EVENT event, void *context)
{
    static uint8_t block[BYTES];
    (void)event;
    (void)context;

    if (disk->block->ReadBlocks(disk->block, disk->media->MediaId, 0, BYTES, block) == EFI_SUCCESS)
        others_done++;
}

static void no_answer(uint64_t stuck)
{
    EFI_BLOCK_IO2_PROTOCOL *io = disk->block2;
    EFI_BLOCK_IO2_TOKEN token;
    EFI_EVENT timer = NULL;

    if (app_flag("other")) {
        app_assert_ok(app.bs->CreateEvent(EVT_TIMER | EVT_NOTIFY_SIGNAL, TPL_CALLBACK,
                                          read_elsewhere, NULL, &timer));
        app_assert_ok(app.bs->SetTimer(timer, TimerPeriodic, 5000000));
    }
    app_assert_ok(app.bs->CreateEvent(0, 0, NULL, NULL, &token.Event));
    uint64_t start = app_tsc();
    app_check_status(io->ReadBlocksEx(io, io->Media->MediaId, stuck / io->Media->BlockSize, &token,
                                      BYTES, buffer + BYTES),
                     EFI_SUCCESS);
    app_check_status(read_at(stuck, BYTES), EFI_TIMEOUT);
    uint64_t ms = app_us(app_tsc() - start) / 1000;
    app_print("vm: gave up after %llu ms\n", ms);
    /* The machine itself stands still while QEMU takes the device back: see the tests. */
    /* Two clocks, each measured on a machine that may be busy. */
    app_check(ms >= WAIT_MS * 3 / 4 && ms < WAIT_MS + 10000);
    /* And so does whoever waits for the other one. */
    app_check_status(app.bs->CheckEvent(token.Event), EFI_SUCCESS);
    app_check_status(token.TransactionStatus, EFI_TIMEOUT);
    app_assert_ok(app.bs->CloseEvent(token.Event));
    if (timer) {
        app_assert_ok(app.bs->CloseEvent(timer));
        app_print("vm: %u reads elsewhere\n", others_done);
        app_check(others_done > 5);
    }

    /* Usable afterwards, here and there. */
    check_works();
    memset(buffer, 0x3c, BYTES);
    app_check_status(read_at(stuck, BYTES), EFI_SUCCESS);
    app_print("vm: stuck crc %08x\n", vm_crc32(buffer, BYTES));
    check_works();
}

static void leave(size_t count)
{
    static struct vm_virtio devices[VM_DISKS_MAX];

    app_map_read(&map);
    app_print("vm: leaving\n");
    app_assert_ok(app_map_exit(&map));
    app_check(vm_virtio_find(devices, VM_DISKS_MAX) == count);
    for (size_t i = 0; i < count; i++) {
        app_check(vm_virtio_status(&devices[i]) == 0);
        app_check(!vm_virtio_queue_on(&devices[i]));
        app_check(!(vm_pci_command(devices[i].function) & VM_COMMAND_MASTER));
    }
}

int app_main(void)
{
    app_connect_all();
    size_t count = vm_disks(disks, VM_DISKS_MAX);
    buffer = app_pages(8 << 20);
    vm_random_seed(1);

    if (app_flag("absent")) {
        static struct vm_virtio devices[VM_DISKS_MAX];
        size_t all = vm_virtio_find(devices, VM_DISKS_MAX);
        unsigned live = 0;
        for (size_t i = 0; i < count; i++)
            app_check(!disks[i].baton || disks[i].media->LastBlock + 1 != 0);
        for (size_t i = 0; i < all; i++)
            live += (vm_virtio_status(&devices[i]) & 4) != 0; /* DRIVER_OK */
        app_print("vm: %zu devices, %zu disks, %u live\n", all, count, live);
        return 0;
    }
    app_assert(count >= 1);
    disk = &disks[0];
    app_assert(disk->baton);
    check_works();
    if (app_option("broken"))
        errors(app_option_number("broken", 0));
    if (app_option("stuck"))
        no_answer(app_option_number("stuck", 0));
    leave(count);
    return 0;
}
