// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "uefi/block_io.h"

/* How often tokens are completed when nobody calls, in units of 100 ns: each timer tick of the
 * firmware, or this. */
#define TICK_100NS 10000u
/* While waiting, after how many looks at a ring that shows nothing new to look at the disk's clock,
 * and to pause. Not more often: under emulation, each pause takes the lock that the device needs to
 * work. */
#define LOOKS_MOST 1024u
/* A disk that needs a CPU may need ours: then each look is in vain, and the fewer the better. Every
 * so-many-th wait tries what looking on would have been worth, for CPUs come free, too. */
#define LOOKS_FEWEST    8u
#define WAITS_PER_TRIAL 64u

static void poll(struct block_io *block)
{
    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    block->disk->ops->poll(block->disk);
    bs->RestoreTPL(tpl);
}

/* Nothing has come back for a while: gives the CPU to a disk that needs it. Looks at the flag once
 * more where nobody can come in between, or what is waited for could have come already. */
static void rest(struct block_io *block, const volatile bool *flag)
{
    const struct disk_ops *ops = block->disk->ops;

    if (!ops->wait) {
        cpu_relax();
        return;
    }
    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    if (!*flag)
        ops->wait(block->disk);
    bs->RestoreTPL(tpl);
}

/* Lets the disk work until `*flag` says what is wanted. Ends, because the disk ends every request
 * within its bound. */
static void wait_until(struct block_io *block, const volatile bool *flag)
{
    bool trial = block->waits++ % WAITS_PER_TRIAL == 0, rested = false;
    uint32_t most = trial ? LOOKS_MOST : block->patience, looks = 0;

    while (!*flag) {
        if (!block->disk->ops->ready(block->disk)) {
            if (++looks < most)
                continue;
            rest(block, flag);
            rested = true;
            looks = 0;
        }
        poll(block);
    }
    if (!rested)
        block->patience = LOOKS_MOST;
    else if (block->disk->ops->wait && block->patience > LOOKS_FEWEST)
        block->patience /= 2;
}

/* ---- Completion ---- */

static void done(struct io_request *base)
{
    struct block_io_request *entry = CONTAINER_OF(base, struct block_io_request, request.base);
    EFI_BLOCK_IO2_TOKEN *token = entry->token;

    entry->done = true;
    if (!token)
        return; /* somebody is waiting for `done` */
    entry->token = NULL;
    entry->owner->with_token--;
    token->TransactionStatus = status_of(base->result);
    bs->SignalEvent(token->Event);
}

static void EFIAPI tick(EFI_EVENT event, void *context)
{
    struct block_io *block = context;

    block->disk->ops->poll(block->disk); /* the event's TPL is TPL_NOTIFY already */
    if (block->with_token == 0) {
        bs->SetTimer(event, TimerCancel, 0);
        block->ticking = false;
    }
}

/* ---- Requests ---- */

/* A free entry, which `token` then holds. At TPL_NOTIFY. */
static struct block_io_request *take_entry(struct block_io *block, EFI_BLOCK_IO2_TOKEN *token)
{
    for (unsigned i = 0; i < BLOCK_IO_TOKENS; i++) {
        struct block_io_request *entry = &block->requests[i];
        if (!entry->token) {
            entry->token = token;
            block->with_token++;
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
    block->waiting++;
    for (;;) {
        tpl = bs->RaiseTPL(TPL_NOTIFY);
        block->disk->ops->poll(block->disk);
        entry = take_entry(block, token);
        if (entry)
            break;
        bs->RestoreTPL(tpl);
        cpu_relax();
    }
    block->waiting--;

    token->TransactionStatus = EFI_NOT_READY;
    entry->owner = block;
    entry->request = *what;
    enum result result = block->disk->ops->submit(block->disk, &entry->request);
    if (result) {
        entry->token = NULL;
        block->with_token--;
    } else if (block->with_token != 0 && !block->ticking) {
        block->ticking = !EFI_ERROR(bs->SetTimer(block->timer, TimerPeriodic, TICK_100NS));
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
    block->waiting++;
    bs->RestoreTPL(tpl);
    if (!result) {
        wait_until(block, &entry.done);
        result = entry.request.base.result;
    }
    block->waiting--;
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
        poll(block);
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
        .patience = LOOKS_MOST,
    };

    EFI_STATUS status =
        bs->CreateEvent(EVT_TIMER | EVT_NOTIFY_SIGNAL, TPL_NOTIFY, tick, block, &block->timer);
    if (EFI_ERROR(status))
        return status;
    status = bs->InstallMultipleProtocolInterfaces(&block->handle, &block_io_guid, &block->block_io,
                                                   &block_io2_guid, &block->block_io2, NULL);
    if (EFI_ERROR(status))
        bs->CloseEvent(block->timer);
    return status;
}

EFI_STATUS block_io_remove(struct block_io *block)
{
    if (block->waiting)
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
    bs->CloseEvent(block->timer);
}
