// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "uefi/block_io.h"

static void poll_disk(void *disk)
{
    ((struct disk *)disk)->ops->poll(disk);
}

static bool disk_ready(const void *disk)
{
    return ((const struct disk *)disk)->ops->ready(disk);
}

static void rest_for_disk(void *disk)
{
    ((struct disk *)disk)->ops->wait(disk);
}

static const struct waiting_ops while_it_works = {.poll = poll_disk, .ready = disk_ready};
static const struct waiting_ops while_it_needs_us = {
    .poll = poll_disk, .ready = disk_ready, .rest = rest_for_disk};

/* ---- Completion ---- */

static void done(struct io_request *base)
{
    struct block_io_request *entry = CONTAINER_OF(base, struct block_io_request, request.base);
    EFI_BLOCK_IO2_TOKEN *token = entry->token;

    entry->done = true;
    if (!token)
        return; /* somebody is waiting for `done` */
    entry->token = NULL;
    entry->owner->waiting.tokens--;
    token->TransactionStatus = status_of(base->result);
    bs->SignalEvent(token->Event);
}

/* ---- Requests ---- */

/* A free entry, which `token` then holds. At TPL_NOTIFY. */
static struct block_io_request *take_entry(struct block_io *block, EFI_BLOCK_IO2_TOKEN *token)
{
    for (unsigned i = 0; i < BLOCK_IO_TOKENS; i++) {
        struct block_io_request *entry = &block->requests[i];
        if (!entry->token) {
            entry->token = token;
            block->waiting.tokens++;
            return entry;
        }
    }
    return NULL;
}

static EFI_STATUS with_token(struct block_io *block, EFI_BLOCK_IO2_TOKEN *token,
                             const struct disk_request *what)
{
    struct block_io_request *entry;
    EFI_TPL tpl;

    /* Where every entry is in use, one comes free when a token completes. */
    block->waiting.calls++;
    for (;;) {
        tpl = bs->RaiseTPL(TPL_NOTIFY);
        block->disk->ops->poll(block->disk);
        entry = take_entry(block, token);
        if (entry)
            break;
        bs->RestoreTPL(tpl);
        cpu_relax();
    }
    block->waiting.calls--;

    token->TransactionStatus = EFI_NOT_READY;
    entry->owner = block;
    entry->request = *what;
    enum result result = block->disk->ops->submit(block->disk, &entry->request);
    if (result) {
        entry->token = NULL;
        block->waiting.tokens--;
    } else {
        waiting_tick(&block->waiting);
    }
    bs->RestoreTPL(tpl);
    return status_of(result);
}

static EFI_STATUS and_wait(struct block_io *block, const struct disk_request *what)
{
    struct block_io_request entry = {.request = *what, .owner = block};

    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    enum result result = block->disk->ops->submit(block->disk, &entry.request);
    /* Before others get a chance to stop the driver while we are in it. */
    block->waiting.calls++;
    bs->RestoreTPL(tpl);
    if (!result) {
        waiting_until(&block->waiting, &entry.done);
        result = entry.request.base.result;
    }
    block->waiting.calls--;
    return status_of(result);
}

static EFI_STATUS perform(struct block_io *block, EFI_BLOCK_IO2_TOKEN *token,
                          const struct disk_request *what)
{
    return token && token->Event ? with_token(block, token, what) : and_wait(block, what);
}

/* Reads and writes, with or without a token; the checks are those of §13.9 and §13.10. */
static EFI_STATUS transfer(struct block_io *block, enum disk_op op, UINT32 media_id, EFI_LBA lba,
                           EFI_BLOCK_IO2_TOKEN *token, UINTN bytes, const void *buffer)
{
    const EFI_BLOCK_IO_MEDIA *media = &block->media;

    if (media_id != media->MediaId)
        return EFI_MEDIA_CHANGED;
    if (op == DISK_WRITE && media->ReadOnly)
        return EFI_WRITE_PROTECTED;
    if (bytes == 0) {
        /* Nothing to do but what every call does: complete what is complete. */
        waiting_poll(&block->waiting);
        if (token && token->Event) {
            token->TransactionStatus = EFI_SUCCESS;
            bs->SignalEvent(token->Event);
        }
        return EFI_SUCCESS;
    }
    if (!buffer)
        return EFI_INVALID_PARAMETER;
    if (bytes % media->BlockSize != 0)
        return EFI_BAD_BUFFER_SIZE;
    if (lba > media->LastBlock || bytes / media->BlockSize - 1 > media->LastBlock - lba)
        return EFI_INVALID_PARAMETER;

    return perform(block, token,
                   &(struct disk_request){
                       .base =
                           {
                               .buffer = (void *)(uintptr_t)buffer,
                               .bytes = bytes,
                               .done = done,
                           },
                       .op = op,
                       .sector = lba * (media->BlockSize / DISK_SECTOR),
                   });
}

static EFI_STATUS flush(struct block_io *block, EFI_BLOCK_IO2_TOKEN *token)
{
    return perform(block, token, &(struct disk_request){.base = {.done = done}, .op = DISK_FLUSH});
}

static EFI_STATUS reset(struct block_io *block)
{
    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    enum result result = block->disk->ops->restart(block->disk, RESULT_ABORTED);
    bs->RestoreTPL(tpl);
    /* edk2's disk driver resets a disk that it lets go of, and does not let go if that fails: a
     * disk that has failed could never be stopped. Nothing is in flight, which is what it wants. */
    return result && !block->stopping ? EFI_DEVICE_ERROR : EFI_SUCCESS;
}

/* ---- EFI_BLOCK_IO_PROTOCOL ---- */

static struct block_io *of_block_io(EFI_BLOCK_IO_PROTOCOL *this)
{
    return CONTAINER_OF(this, struct block_io, block_io);
}

static EFI_STATUS EFIAPI block_io_reset(EFI_BLOCK_IO_PROTOCOL *this, BOOLEAN extended)
{
    (void)extended;
    return reset(of_block_io(this));
}

static EFI_STATUS EFIAPI block_io_read(EFI_BLOCK_IO_PROTOCOL *this, UINT32 media_id, EFI_LBA lba,
                                       UINTN bytes, void *buffer)
{
    return transfer(of_block_io(this), DISK_READ, media_id, lba, NULL, bytes, buffer);
}

static EFI_STATUS EFIAPI block_io_write(EFI_BLOCK_IO_PROTOCOL *this, UINT32 media_id, EFI_LBA lba,
                                        UINTN bytes, void *buffer)
{
    return transfer(of_block_io(this), DISK_WRITE, media_id, lba, NULL, bytes, buffer);
}

static EFI_STATUS EFIAPI block_io_flush(EFI_BLOCK_IO_PROTOCOL *this)
{
    return flush(of_block_io(this), NULL);
}

/* ---- EFI_BLOCK_IO2_PROTOCOL ---- */

static struct block_io *of_block_io2(EFI_BLOCK_IO2_PROTOCOL *this)
{
    return CONTAINER_OF(this, struct block_io, block_io2);
}

static EFI_STATUS EFIAPI block_io2_reset(EFI_BLOCK_IO2_PROTOCOL *this, BOOLEAN extended)
{
    (void)extended;
    return reset(of_block_io2(this));
}

static EFI_STATUS EFIAPI block_io2_read(EFI_BLOCK_IO2_PROTOCOL *this, UINT32 media_id, EFI_LBA lba,
                                        EFI_BLOCK_IO2_TOKEN *token, UINTN bytes, void *buffer)
{
    return transfer(of_block_io2(this), DISK_READ, media_id, lba, token, bytes, buffer);
}

static EFI_STATUS EFIAPI block_io2_write(EFI_BLOCK_IO2_PROTOCOL *this, UINT32 media_id, EFI_LBA lba,
                                         EFI_BLOCK_IO2_TOKEN *token, UINTN bytes, void *buffer)
{
    return transfer(of_block_io2(this), DISK_WRITE, media_id, lba, token, bytes, buffer);
}

static EFI_STATUS EFIAPI block_io2_flush(EFI_BLOCK_IO2_PROTOCOL *this, EFI_BLOCK_IO2_TOKEN *token)
{
    return flush(of_block_io2(this), token);
}

/* ---- Install and remove ---- */

EFI_STATUS block_io_install(struct block_io *block, struct disk *disk, EFI_HANDLE handle)
{
    const struct disk_info *info = &disk->info;

    *block = (struct block_io){
        .block_io =
            {
                .Revision = EFI_BLOCK_IO_PROTOCOL_REVISION3,
                .Media = &block->media,
                .Reset = block_io_reset,
                .ReadBlocks = block_io_read,
                .WriteBlocks = block_io_write,
                .FlushBlocks = block_io_flush,
            },
        .block_io2 =
            {
                .Media = &block->media,
                .Reset = block_io2_reset,
                .ReadBlocksEx = block_io2_read,
                .WriteBlocksEx = block_io2_write,
                .FlushBlocksEx = block_io2_flush,
            },
        .media =
            {
                .MediaId = 1,
                .RemovableMedia = info->removable,
                .MediaPresent = TRUE,
                .ReadOnly = info->read_only,
                .WriteCaching = info->write_cache,
                .BlockSize = info->block_size,
                .IoAlign = 0, /* any buffer will do */
                .LastBlock = info->blocks - 1,
                .LowestAlignedLba = info->lowest_aligned_block,
                .LogicalBlocksPerPhysicalBlock = info->blocks_per_physical,
                .OptimalTransferLengthGranularity = info->optimal_transfer_blocks,
            },
        .disk = disk,
        .handle = handle,
    };

    EFI_STATUS status =
        waiting_open(&block->waiting, disk->ops->wait ? &while_it_needs_us : &while_it_works, disk);
    if (EFI_ERROR(status))
        return status;
    status = bs->InstallMultipleProtocolInterfaces(&block->handle, &block_io_guid, &block->block_io,
                                                   &block_io2_guid, &block->block_io2, NULL);
    if (EFI_ERROR(status))
        waiting_close(&block->waiting);
    return status;
}

EFI_STATUS block_io_remove(struct block_io *block)
{
    if (block->waiting.calls)
        return EFI_ACCESS_DENIED;
    block->stopping = true;
    EFI_STATUS status = bs->UninstallMultipleProtocolInterfaces(
        block->handle, &block_io_guid, &block->block_io, &block_io2_guid, &block->block_io2, NULL);
    block->stopping = false;
    if (!EFI_ERROR(status))
        return EFI_SUCCESS;
    /* What stood above one of the two may have been taken down before the other was refused. */
    bs->ConnectController(block->handle, NULL, NULL, TRUE);
    return EFI_ACCESS_DENIED;
}

void block_io_finish(struct block_io *block)
{
    waiting_close(&block->waiting);
}
