/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Writes a pattern to every disk but the first, with many tokens in flight, reads it back, and
 * gives control back to the firmware, which boots. The guest then says what it finds.
 */
#include "tests/vm/vm.h"

enum { PIECE = 64 * 1024, MOST = 16 << 20 };

static struct vm_disk disks[VM_DISKS_MAX];
static uint8_t *data, *again;

static void write_disk(const struct vm_disk *disk, size_t index)
{
    EFI_BLOCK_IO2_PROTOCOL *io = disk->block2;
    UINT32 block = io->Media->BlockSize, id = io->Media->MediaId;
    UINTN bytes = (io->Media->LastBlock + 1) * block, pieces = bytes / PIECE, which;
    static EFI_BLOCK_IO2_TOKEN tokens[MOST / PIECE];
    EFI_BLOCK_IO2_TOKEN flush = {0};

    app_assert(disk->baton && bytes <= MOST && bytes % PIECE == 0);
    app_fill(data, bytes, index, 0);
    for (UINTN i = 0; i < pieces; i++) {
        app_assert_ok(app.bs->CreateEvent(0, 0, NULL, NULL, &tokens[i].Event));
        app_assert_ok(
            io->WriteBlocksEx(io, id, i * PIECE / block, &tokens[i], PIECE, data + i * PIECE));
    }
    for (UINTN i = 0; i < pieces; i++) {
        app_assert_ok(app.bs->WaitForEvent(1, &tokens[i].Event, &which));
        app_assert_ok(tokens[i].TransactionStatus);
        app_assert_ok(app.bs->CloseEvent(tokens[i].Event));
    }
    app_assert_ok(io->FlushBlocksEx(io, &flush));
    app_assert_ok(disk->block->ReadBlocks(disk->block, id, 0, bytes, again));
    app_assert(memcmp(data, again, bytes) == 0);
    app_print("vm: wrote %zu crc %08x\n", index, vm_crc32(data, bytes));
}

int app_main(void)
{
    app_connect_all();
    size_t count = vm_disks(disks, VM_DISKS_MAX);
    app_assert(count >= 2);
    data = app_pages(MOST);
    again = app_pages(MOST);
    for (size_t i = 1; i < count; i++)
        write_disk(&disks[i], i);
    return 0;
}
