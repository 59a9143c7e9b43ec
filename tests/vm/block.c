/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Block I/O and Block I/O 2 (UEFI 2.10 §13.9, §13.10) on every virtio disk of the machine, or every
 * paravirtual disk of a guest of Xen: what the disks say of themselves, reads and writes of every
 * shape, wrong arguments, tokens, and calls from a timer event in the middle of other calls.
 *
 * Options:
 *   disks=N     how many disks there must be
 *   from=N      the first of them, from 0, to try: those before it are left alone
 *   times=N     how many random reads, and as many writes; 400 if not given
 *   seed=N      for the random numbers
 *   high        the buffers are above 4 GiB
 *   seconds=N   how long to read from a timer event; 2 if not given
 *
 * The whole disk is read first, and its CRC is printed: the host has the image. From then on memory
 * holds what the disk should hold, and its CRC is printed again at the end, when the host looks
 * into the image that was written.
 */
#include "tests/vm/vm.h"

enum {
    GUARD = 64, /* bytes around a buffer that nobody may touch */
    GUARD_BYTE = 0xc7,
    MIB = 1 << 20,
    LARGEST = 20 * MIB,
    TOKENS_MAX = 256,
    TOKEN_BYTES = 64 * 1024,
};

static struct vm_disk disks[VM_DISKS_MAX];
static uint8_t *truth;   /* what the disk at hand holds */
static uint8_t *scratch; /* room for the largest transfer, shifts and guards */
static uint8_t *pattern; /* random bytes to write from */
static uint64_t disk_bytes;
static struct vm_disk *disk;

static uint32_t media_id(void)
{
    return disk->media->MediaId;
}

static EFI_STATUS read_blocks(EFI_LBA lba, UINTN bytes, void *buffer)
{
    return disk->block->ReadBlocks(disk->block, media_id(), lba, bytes, buffer);
}

static EFI_STATUS write_blocks(EFI_LBA lba, UINTN bytes, void *buffer)
{
    return disk->block->WriteBlocks(disk->block, media_id(), lba, bytes, buffer);
}

static EFI_STATUS read_token(EFI_BLOCK_IO2_TOKEN *token, EFI_LBA lba, UINTN bytes, void *buffer)
{
    return disk->block2->ReadBlocksEx(disk->block2, media_id(), lba, token, bytes, buffer);
}

static EFI_STATUS write_token(EFI_BLOCK_IO2_TOKEN *token, EFI_LBA lba, UINTN bytes, void *buffer)
{
    return disk->block2->WriteBlocksEx(disk->block2, media_id(), lba, token, bytes, buffer);
}

/* ---- What it says of itself ---- */

/* A bus driver's disk is a child of the bus, and both say so. */
static void check_family(void)
{
    static EFI_GUID device_path_guid = EFI_DEVICE_PATH_PROTOCOL_GUID;
    EFI_OPEN_PROTOCOL_INFORMATION_ENTRY *entries;
    bool as_child = false;
    char path[128];
    UINTN count;

    if (!disk->child)
        return;
    app_assert_ok(
        app.bs->OpenProtocolInformation(disk->pci.handle, &vm_pci_io_guid, &entries, &count));
    for (UINTN i = 0; i < count; i++)
        as_child |= entries[i].Attributes == EFI_OPEN_PROTOCOL_BY_CHILD_CONTROLLER &&
                    entries[i].ControllerHandle == disk->handle &&
                    entries[i].AgentHandle == disk->agent;
    app.bs->FreePool(entries);
    app_check(as_child);
    app_check(app_protocol(disk->pci.handle, &vm_block_io_guid) == NULL);
    app_path_text(app_protocol(disk->handle, &device_path_guid), path, sizeof(path));
    app_print("vm: path=%s number=%u\n", path, disk->number);
}

static void tell(size_t index)
{
    const EFI_BLOCK_IO_MEDIA *media = disk->media;

    app_print("vm: disk %zu pci=%02llx:%02llx.%llx baton=%d version=0x%x block=%u last=%llu "
              "read-only=%d cache=%d align=%u lowest=%llu per-physical=%u granularity=%u "
              "present=%d removable=%d logical=%d revision=0x%llx name=\"%s\" image=\"%s\"\n",
              index, disk->pci.bus, disk->pci.device, disk->pci.function, disk->baton,
              disk->driver.version, media->BlockSize, media->LastBlock, media->ReadOnly,
              media->WriteCaching, media->IoAlign, media->LowestAlignedLba,
              media->LogicalBlocksPerPhysicalBlock, media->OptimalTransferLengthGranularity,
              media->MediaPresent, media->RemovableMedia, media->LogicalPartition,
              disk->block->Revision, disk->driver.name, disk->driver.image);
    app_assert(disk->baton && disk->block2);
    app_check(disk->block2->Media == disk->media);
    check_family();
}

static void names(void)
{
    EFI_COMPONENT_NAME2_PROTOCOL *component = app_protocol(disk->agent, &vm_component_name2_guid);
    EFI_DRIVER_BINDING_PROTOCOL *binding = app_protocol(disk->agent, &vm_driver_binding_guid);
    CHAR16 *name = NULL, *same = NULL;
    CHAR8 english[] = "en", french[] = "fr", none[] = "", old[] = "eng";

    app_assert(component && binding);
    app_check(strcmp((char *)component->SupportedLanguages, "en") == 0);
    app_check_status(component->GetDriverName(component, english, &name), EFI_SUCCESS);
    app_check(name && name[0]);
    app_check_status(component->GetDriverName(component, french, &same), EFI_UNSUPPORTED);
    app_check_status(component->GetDriverName(component, none, &same), EFI_UNSUPPORTED);
    app_check_status(component->GetDriverName(component, old, &same), EFI_UNSUPPORTED);
    app_check_status(component->GetDriverName(component, NULL, &same), EFI_INVALID_PARAMETER);
    app_check_status(component->GetDriverName(component, english, NULL), EFI_INVALID_PARAMETER);

    EFI_HANDLE mine = disk->pci.handle;
    app_check_status(component->GetControllerName(component, mine, NULL, english, &name),
                     EFI_SUCCESS);
    app_print("vm: controller name=\"%ls\"\n", name);
    app_check_status(component->GetControllerName(component, mine, NULL, french, &same),
                     EFI_UNSUPPORTED);
    app_check_status(component->GetControllerName(component, mine, mine, english, &same),
                     EFI_UNSUPPORTED);
    if (disk->child) {
        app_check_status(
            component->GetControllerName(component, mine, disk->handle, english, &name),
            EFI_SUCCESS);
        app_print("vm: child name=\"%ls\"\n", name);
        app_check_status(component->GetControllerName(component, mine, disk->handle, french, &same),
                         EFI_UNSUPPORTED);
        app_check_status(
            component->GetControllerName(component, disk->handle, NULL, english, &same),
            EFI_UNSUPPORTED);
    }
    app_check_status(component->GetControllerName(component, app.image, NULL, english, &same),
                     EFI_UNSUPPORTED);
    app_check_status(component->GetControllerName(component, mine, NULL, NULL, &same),
                     EFI_INVALID_PARAMETER);
    app_check_status(component->GetControllerName(component, mine, NULL, english, NULL),
                     EFI_INVALID_PARAMETER);
    app_check_status(component->GetControllerName(component, NULL, NULL, english, &same),
                     EFI_INVALID_PARAMETER);
    /* A PCI device that is somebody else's, or nobody's. */
    static EFI_HANDLE handles[64];
    size_t count = app_handles(&vm_pci_io_guid, handles, 64), strangers = 0;
    for (size_t i = 0; i < count; i++) {
        EFI_PCI_IO_PROTOCOL *io = app_protocol(handles[i], &vm_pci_io_guid);
        UINT16 vendor = 0;
        app_assert_ok(io->Pci.Read(io, EfiPciIoWidthUint16, 0, 1, &vendor));
        if (vendor == 0x1af4 || handles[i] == mine)
            continue;
        strangers++;
        app_check_status(component->GetControllerName(component, handles[i], NULL, english, &same),
                         EFI_UNSUPPORTED);
        EFI_STATUS status = binding->Supported(binding, handles[i], NULL);
        app_check(EFI_ERROR(status));
    }
    app_check(strangers > 0);

    /* Who has the device already says so; who has no PCI device at all is not for us. */
    app_check_status(binding->Supported(binding, mine, NULL), EFI_ALREADY_STARTED);
    app_check_status(binding->Start(binding, mine, NULL), EFI_ALREADY_STARTED);
    app_check_status(binding->Supported(binding, app.image, NULL), EFI_UNSUPPORTED);
    app_check(EFI_ERROR(binding->Stop(binding, app.image, 0, NULL)));

    const UINT32 *version = app_protocol(disk->agent, &vm_supported_version_guid);
    if (app_check(version != NULL)) {
        app_check(version[0] == 8);
        app_check(version[1] >= (2 << 16 | 0) && version[1] <= (2 << 16 | 100));
    }
}

/* ---- Plain reads and writes ---- */

/* A buffer of so many bytes, so far off an aligned address, with guards around it. */
static uint8_t *guarded(size_t shift, size_t bytes)
{
    memset(scratch + shift, GUARD_BYTE, GUARD);
    memset(scratch + shift + GUARD + bytes, GUARD_BYTE, GUARD);
    return scratch + shift + GUARD;
}

static bool guards_hold(const uint8_t *buffer, size_t bytes)
{
    for (size_t i = 0; i < GUARD; i++)
        if (buffer[-1 - (ptrdiff_t)i] != GUARD_BYTE || buffer[bytes + i] != GUARD_BYTE)
            return false;
    return true;
}

static void read_whole(void)
{
    for (uint64_t at = 0; at < disk_bytes; at += MIB)
        app_assert_ok(read_blocks(at / disk->media->BlockSize,
                                  disk_bytes - at < MIB ? disk_bytes - at : MIB, truth + at));
}

static void check_read(uint64_t at, size_t bytes, size_t shift)
{
    uint8_t *buffer = guarded(shift, bytes);

    memset(buffer, 0x3c, bytes);
    if (!app_check_status(read_blocks(at / disk->media->BlockSize, bytes, buffer), EFI_SUCCESS) ||
        !app_check(memcmp(buffer, truth + at, bytes) == 0) ||
        !app_check(guards_hold(buffer, bytes)))
        app_print("    reading %zu bytes at %llu, buffer off by %zu\n", bytes, at, shift);
}

static void check_write(uint64_t at, size_t bytes, size_t shift)
{
    uint8_t *buffer = guarded(shift, bytes);

    memcpy(buffer, pattern + vm_random(4096), bytes);
    /* Each write is like no other. */
    uint64_t mark = vm_random(UINT64_MAX >> 12);
    memcpy(buffer, &mark, sizeof(mark));
    memcpy(truth + at, buffer, bytes);
    if (!app_check_status(write_blocks(at / disk->media->BlockSize, bytes, buffer), EFI_SUCCESS) ||
        !app_check(memcmp(buffer, truth + at, bytes) == 0) ||
        !app_check(guards_hold(buffer, bytes)))
        app_print("    writing %zu bytes at %llu, buffer off by %zu\n", bytes, at, shift);
}

static void at_random(bool write, unsigned times)
{
    static const size_t shifts[] = {0, 1, 2, 3, 4, 5, 8, 15, 511, 512, 2049, 4095};
    uint64_t block = disk->media->BlockSize, blocks = disk->media->LastBlock + 1;

    for (unsigned i = 0; i < times; i++) {
        /* Small ones mostly, but some of every size. */
        uint64_t most = (uint64_t)1 << vm_random(12);
        uint64_t count = 1 + vm_random(most < blocks ? most : blocks);
        uint64_t lba = vm_random(blocks - count + 1);
        size_t shift = shifts[vm_random(sizeof(shifts) / sizeof(shifts[0]))];
        if (write)
            check_write(lba * block, count * block, shift);
        check_read(lba * block, count * block, shift);
    }
}

static void large_ones(bool write)
{
    static const size_t sizes[] = {4 * MIB, 4 * MIB + 4096, 16 * MIB, LARGEST};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        if (sizes[i] > disk_bytes)
            continue;
        uint64_t at = vm_random((disk_bytes - sizes[i]) / 4096 + 1) * 4096;
        if (write)
            check_write(at, sizes[i], i % 2 ? 3 : 0);
        check_read(at, sizes[i], i % 2 ? 0 : 1);
    }
    check_read(disk_bytes - disk->media->BlockSize, disk->media->BlockSize, 1);
    check_read(0, disk->media->BlockSize, 0);
}

/* ---- Wrong arguments ---- */

static void wrong_arguments(void)
{
    EFI_BLOCK_IO_PROTOCOL *io = disk->block;
    EFI_BLOCK_IO2_PROTOCOL *io2 = disk->block2;
    UINT32 id = media_id();
    UINTN block = disk->media->BlockSize;
    EFI_LBA last = disk->media->LastBlock;
    EFI_STATUS bad = EFI_INVALID_PARAMETER, size = EFI_BAD_BUFFER_SIZE, media = EFI_MEDIA_CHANGED;
    uint8_t *buffer = guarded(0, 4 * block);
    EFI_BLOCK_IO2_TOKEN token = {0}, blocking = {0};

    memset(buffer, 0x3c, 4 * block);
    app_assert_ok(app.bs->CreateEvent(0, 0, NULL, NULL, &token.Event));

    const struct {
        UINT32 id;
        EFI_LBA lba;
        UINTN bytes;
        void *buffer;
        EFI_STATUS status;
    } cases[] = {
        {id + 1, 0, block, buffer, media},
        {0, 0, block, buffer, media},
        /* Media first: so that one can find out with any arguments (§13.9.2). */
        {id + 1, last + 1, block + 1, NULL, media},
        {id, 0, block, NULL, bad},
        {id, 0, 1, buffer, size},
        {id, 0, block - 1, buffer, size},
        {id, 0, block + 1, buffer, size},
        {id, 0, block + block / 2, buffer, size},
        {id, 0, ~(UINTN)0, buffer, size},
        {id, last + 1, block, buffer, bad},
        {id, last, 2 * block, buffer, bad},
        {id, 0, (last + 2) * block, buffer, bad},
        {id, ~0ull, block, buffer, bad},
        {id, ~0ull, 2 * block, buffer, bad},
        {id, ~0ull / block, block, buffer, bad},
        {id, ~0ull / block + 1, block, buffer, bad},
        {id, 1ull << 55, block, buffer, bad},
        {id, 1ull << 63, block, buffer, bad},
        {id, 1, ~(UINTN)0 / block * block, buffer, bad},
        {id, last, ~(UINTN)0 / block * block, buffer, bad},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        EFI_STATUS reading = cases[i].status, writing = cases[i].status;
        unsigned failures = app.failures;
        /* To a disk that cannot be written at all, what is wrong otherwise is open. */
        if (disk->media->ReadOnly && writing != media)
            writing = EFI_WRITE_PROTECTED;
        app_check_status(
            io->ReadBlocks(io, cases[i].id, cases[i].lba, cases[i].bytes, cases[i].buffer),
            reading);
        app_check_status(
            io->WriteBlocks(io, cases[i].id, cases[i].lba, cases[i].bytes, cases[i].buffer),
            writing);
        app_check_status(io2->ReadBlocksEx(io2, cases[i].id, cases[i].lba, &token, cases[i].bytes,
                                           cases[i].buffer),
                         reading);
        app_check_status(io2->WriteBlocksEx(io2, cases[i].id, cases[i].lba, &token, cases[i].bytes,
                                            cases[i].buffer),
                         writing);
        app_check_status(io2->ReadBlocksEx(io2, cases[i].id, cases[i].lba, &blocking,
                                           cases[i].bytes, cases[i].buffer),
                         reading);
        app_check_status(io2->WriteBlocksEx(io2, cases[i].id, cases[i].lba, NULL, cases[i].bytes,
                                            cases[i].buffer),
                         writing);
        /* A call that fails signals nothing. */
        app_check_status(app.bs->CheckEvent(token.Event), EFI_NOT_READY);
        if (app.failures != failures)
            app_print("    in case %zu of the wrong arguments\n", i);
    }
    for (size_t i = 0; i < 4 * block; i++)
        if (!app_check(buffer[i] == 0x3c))
            break;
    app_check(guards_hold(buffer, 4 * block));

    if (disk->media->ReadOnly) {
        app_check_status(io->WriteBlocks(io, id, 0, block, buffer), EFI_WRITE_PROTECTED);
        app_check_status(io2->WriteBlocksEx(io2, id, 0, &token, block, buffer),
                         EFI_WRITE_PROTECTED);
    }

    /* Nothing to do is done at once. */
    app_check_status(io->ReadBlocks(io, id, 0, 0, buffer), EFI_SUCCESS);
    app_check_status(io->ReadBlocks(io, id, 0, 0, NULL), EFI_SUCCESS);
    app_check_status(io2->ReadBlocksEx(io2, id, 0, &token, 0, buffer), EFI_SUCCESS);
    app_check_status(app.bs->CheckEvent(token.Event), EFI_SUCCESS);
    app_check_status(token.TransactionStatus, EFI_SUCCESS);
    app_check_status(app.bs->CheckEvent(token.Event), EFI_NOT_READY);
    app_check_status(io->FlushBlocks(io), EFI_SUCCESS);
    app_check_status(io->Reset(io, FALSE), EFI_SUCCESS);
    app_check_status(io->Reset(io, TRUE), EFI_SUCCESS);
    app_check_status(io2->Reset(io2, FALSE), EFI_SUCCESS);
    app.bs->CloseEvent(token.Event);

    /* And nothing is lost. */
    at_random(false, 10);
}

/* ---- Tokens ---- */

static struct job {
    EFI_BLOCK_IO2_TOKEN token;
    unsigned signals;
    enum { JOB_READ, JOB_WRITE, JOB_FLUSH } kind;
    uint64_t at;
    uint8_t *buffer;
} jobs[TOKENS_MAX];

static void EFIAPI job_done(EFI_EVENT event, void *context)
{
    struct job *job = context;
    (void)event;
    job->signals++;
}

/* Each job has its own piece of the disk and its own buffer, so that they can end in any order. */
static void job_prepare(size_t i, bool write)
{
    struct job *job = &jobs[i];

    job->kind = write && i % 3 == 1 ? JOB_WRITE : write && i % 11 == 2 ? JOB_FLUSH : JOB_READ;
    job->at = i * TOKEN_BYTES % (disk_bytes & ~(uint64_t)(TOKEN_BYTES - 1));
    job->buffer = scratch + i * (TOKEN_BYTES + GUARD) + (i % 4 == 3);
    job->signals = 0;
    job->token.TransactionStatus = EFI_NOT_STARTED;
    if (job->kind == JOB_WRITE) {
        memcpy(job->buffer, pattern + vm_random(MIB), TOKEN_BYTES);
        job->buffer[TOKEN_BYTES - 1] = (uint8_t)i;
        memcpy(truth + job->at, job->buffer, TOKEN_BYTES);
    } else {
        memset(job->buffer, 0x3c, TOKEN_BYTES);
    }
}

static void job_submit(size_t i)
{
    struct job *job = &jobs[i];
    EFI_LBA lba = job->at / disk->media->BlockSize;

    switch (job->kind) {
    case JOB_READ:
        app_check_status(read_token(&job->token, lba, TOKEN_BYTES, job->buffer), EFI_SUCCESS);
        break;
    case JOB_WRITE:
        app_check_status(write_token(&job->token, lba, TOKEN_BYTES, job->buffer), EFI_SUCCESS);
        break;
    case JOB_FLUSH:
        app_check_status(disk->block2->FlushBlocksEx(disk->block2, &job->token), EFI_SUCCESS);
        break;
    }
}

static void job_verify(size_t i)
{
    const struct job *job = &jobs[i];

    app_check_status(job->token.TransactionStatus, EFI_SUCCESS);
    if (job->kind != JOB_FLUSH)
        app_check(memcmp(job->buffer, truth + job->at, TOKEN_BYTES) == 0);
}

/* Completed by the timer alone: between submitting and the end, only CheckEvent is called. */
static void tokens_polled(size_t count, bool write)
{
    size_t done = 0;
    uint64_t start = app_tsc();

    for (size_t i = 0; i < count; i++) {
        job_prepare(i, write);
        app_assert_ok(app.bs->CreateEvent(0, 0, NULL, NULL, &jobs[i].token.Event));
    }
    for (size_t i = 0; i < count; i++)
        job_submit(i);
    while (done < count && app_us(app_tsc() - start) < 20000000) {
        for (size_t i = 0; i < count; i++) {
            if (jobs[i].signals > 0 || app.bs->CheckEvent(jobs[i].token.Event) != EFI_SUCCESS)
                continue;
            jobs[i].signals++;
            done++;
        }
    }
    app_check(done == count);
    app_delay_us(50000);
    for (size_t i = 0; i < count; i++) {
        /* Checking has reset the event: it would be signalled again only if it were twice. */
        app_check_status(app.bs->CheckEvent(jobs[i].token.Event), EFI_NOT_READY);
        job_verify(i);
        app.bs->CloseEvent(jobs[i].token.Event);
    }
}

static bool all_signalled(size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (jobs[i].signals == 0)
            return false;
    return true;
}

static void notified_jobs(size_t count, bool write)
{
    for (size_t i = 0; i < count; i++) {
        job_prepare(i, write);
        app_assert_ok(app.bs->CreateEvent(EVT_NOTIFY_SIGNAL, TPL_CALLBACK, job_done, &jobs[i],
                                          &jobs[i].token.Event));
    }
}

static void wait_for_jobs(size_t count)
{
    uint64_t start = app_tsc();

    while (!all_signalled(count) && app_us(app_tsc() - start) < 20000000)
        app_delay_us(1000);
    app_delay_us(50000);
}

/* Signalled once each, with calls that wait in between. */
static void tokens_notified(size_t count, bool write)
{
    notified_jobs(count, write);
    for (size_t i = 0; i < count; i++) {
        job_submit(i);
        if (i % 8 == 5) {
            /* Above what the jobs use. */
            uint64_t at = disk_bytes - (1 + i % 16) * TOKEN_BYTES;
            uint8_t *buffer = scratch + LARGEST;
            if (write) {
                memset(buffer, (int)i, TOKEN_BYTES);
                memcpy(truth + at, buffer, TOKEN_BYTES);
                app_check_status(write_blocks(at / disk->media->BlockSize, TOKEN_BYTES, buffer),
                                 EFI_SUCCESS);
            }
            memset(buffer, 0x3c, TOKEN_BYTES);
            app_check_status(read_blocks(at / disk->media->BlockSize, TOKEN_BYTES, buffer),
                             EFI_SUCCESS);
            app_check(memcmp(buffer, truth + at, TOKEN_BYTES) == 0);
        }
    }
    wait_for_jobs(count);
    for (size_t i = 0; i < count; i++) {
        app_check(jobs[i].signals == 1);
        job_verify(i);
        app.bs->CloseEvent(jobs[i].token.Event);
    }
}

/* A reset in the middle ends every token: with an error, unless it was done before. */
static void tokens_reset(void)
{
    enum { COUNT = 32, ROUNDS = 5 };
    unsigned aborted = 0;

    for (unsigned round = 0; round < ROUNDS; round++) {
        notified_jobs(COUNT, false);
        for (size_t i = 0; i < COUNT; i++)
            job_submit(i);
        if (round % 2)
            app_check_status(disk->block->Reset(disk->block, FALSE), EFI_SUCCESS);
        else
            app_check_status(disk->block2->Reset(disk->block2, FALSE), EFI_SUCCESS);
        /* Not afterwards, by and by: when it returns, nothing is in flight. */
        app_check(all_signalled(COUNT));
        for (size_t i = 0; i < COUNT; i++)
            memset(jobs[i].buffer, 0x99, TOKEN_BYTES);
        app_delay_us(50000);
        for (size_t i = 0; i < COUNT; i++) {
            app_check(jobs[i].signals == 1);
            aborted += EFI_ERROR(jobs[i].token.TransactionStatus);
            for (size_t j = 0; j < TOKEN_BYTES; j++)
                if (!app_check(jobs[i].buffer[j] == 0x99))
                    break;
            app.bs->CloseEvent(jobs[i].token.Event);
        }
        at_random(false, 3);
    }
    app_print("vm: %u of %u tokens ended by a reset\n", aborted, COUNT * ROUNDS);
    app_check(aborted > 0);
}

/* ---- In the middle of something ---- */

static struct {
    bool busy, use_tokens;
    unsigned fired, nested, wrong, submitted;
    uint8_t *buffer;
    struct job jobs[8];
} inner;

static void EFIAPI inner_done(EFI_EVENT event, void *context)
{
    struct job *job = context;
    (void)event;
    if (EFI_ERROR(job->token.TransactionStatus) ||
        memcmp(job->buffer, truth + job->at, TOKEN_BYTES / 8) != 0)
        inner.wrong++;
    job->signals++;
}

/* The lower quarter of the disk is the timer's, to read; the rest is for what it interrupts. */
static void EFIAPI inner_tick(EFI_EVENT event, void *context)
{
    uint64_t block = disk->media->BlockSize;
    (void)event;
    (void)context;

    inner.fired++;
    inner.nested += inner.busy;
    if (!inner.use_tokens) {
        uint64_t bytes = block * (1 + vm_random(8));
        uint64_t at = vm_random(disk_bytes / 4 / block - 8) * block;
        if (EFI_ERROR(read_blocks(at / block, bytes, inner.buffer)) ||
            memcmp(inner.buffer, truth + at, bytes) != 0)
            inner.wrong++;
        return;
    }
    for (size_t i = 0; i < sizeof(inner.jobs) / sizeof(inner.jobs[0]); i++) {
        struct job *job = &inner.jobs[i];
        if (job->signals == 0)
            continue;
        job->signals = 0;
        job->at = vm_random(disk_bytes / 4 / block - TOKEN_BYTES / block) * block;
        inner.submitted++;
        if (EFI_ERROR(read_token(&job->token, job->at / block, TOKEN_BYTES / 8, job->buffer)))
            inner.wrong++;
    }
}

static void in_the_middle(bool use_tokens, bool write)
{
    uint64_t length = app_option_number("seconds", 2) * 1000000;
    uint64_t start, rounds = 0;
    EFI_EVENT timer;

    memset(&inner, 0, sizeof(inner));
    inner.use_tokens = use_tokens;
    inner.buffer = scratch + LARGEST;
    for (size_t i = 0; i < sizeof(inner.jobs) / sizeof(inner.jobs[0]); i++) {
        inner.jobs[i].signals = 1;
        inner.jobs[i].buffer = scratch + LARGEST + (i + 1) * TOKEN_BYTES;
        app_assert_ok(app.bs->CreateEvent(EVT_NOTIFY_SIGNAL, TPL_CALLBACK, inner_done,
                                          &inner.jobs[i], &inner.jobs[i].token.Event));
    }
    app_assert_ok(
        app.bs->CreateEvent(EVT_TIMER | EVT_NOTIFY_SIGNAL, TPL_CALLBACK, inner_tick, NULL, &timer));
    app_assert_ok(app.bs->SetTimer(timer, TimerPeriodic, 10000));

    uint64_t base = (disk_bytes / 4 + 4095) & ~(uint64_t)4095;
    for (start = app_tsc(); app_us(app_tsc() - start) < length; rounds++) {
        uint64_t bytes = (1 + vm_random(1024)) * 4096;
        uint64_t at = base + vm_random((disk_bytes - base - bytes) / 4096) * 4096;
        /* check_read() fills and compares, in which time the timer strikes as well: only the call
         * itself counts as the middle. */
        uint8_t *buffer = guarded(rounds & 1, bytes);
        if (write && rounds % 2) {
            memcpy(buffer, pattern + vm_random(4096), bytes);
            memcpy(truth + at, buffer, bytes);
            inner.busy = true;
            EFI_STATUS status = write_blocks(at / disk->media->BlockSize, bytes, buffer);
            inner.busy = false;
            app_check_status(status, EFI_SUCCESS);
        }
        memset(buffer, 0x3c, bytes);
        inner.busy = true;
        EFI_STATUS status = read_blocks(at / disk->media->BlockSize, bytes, buffer);
        inner.busy = false;
        app_check_status(status, EFI_SUCCESS);
        if (!app_check(memcmp(buffer, truth + at, bytes) == 0) ||
            !app_check(guards_hold(buffer, bytes)))
            break;
    }
    app_assert_ok(app.bs->CloseEvent(timer));
    start = app_tsc();
    for (size_t i = 0; i < sizeof(inner.jobs) / sizeof(inner.jobs[0]);) {
        if (inner.jobs[i].signals > 0)
            app_assert_ok(app.bs->CloseEvent(inner.jobs[i++].token.Event));
        else
            app_assert(app_us(app_tsc() - start) < 10000000);
    }
    app_print("vm: %u timer events, %u in the middle of one of %llu calls, %u tokens, %u wrong\n",
              inner.fired, inner.nested, rounds, inner.submitted, inner.wrong);
    app_check(inner.nested >= 5);
    app_check(!use_tokens || inner.submitted >= 5);
    app_check(inner.wrong == 0);
}

/* ---- */

static void step(const char *name)
{
    static uint64_t before;
    uint64_t now = app_tsc();

    if (before)
        app_print("vm: that took %llu ms\n", app_us(now - before) / 1000);
    before = now;
    app_print("vm: %s\n", name);
}

static void try_disk(size_t index)
{
    bool write = !disk->media->ReadOnly;
    unsigned times = (unsigned)app_option_number("times", 400);

    tell(index);
    names();
    disk_bytes = (disk->media->LastBlock + 1) * disk->media->BlockSize;
    app_assert(disk_bytes <= 48 * MIB);
    read_whole();
    app_print("vm: crc before %zu: %08x\n", index, vm_crc32(truth, disk_bytes));

    step("random reads");
    at_random(false, times);
    if (write) {
        step("random writes");
        at_random(true, times);
    }
    step("large ones");
    large_ones(write);
    step("wrong arguments");
    wrong_arguments();
    step("tokens");
    tokens_polled(32, write);
    tokens_polled(200, write);
    tokens_notified(32, write);
    tokens_notified(TOKENS_MAX, write);
    step("reset with tokens in flight");
    tokens_reset();
    step("calls in the middle of calls");
    in_the_middle(false, write);
    in_the_middle(true, write);
    step("the end");

    app_check_status(disk->block->FlushBlocks(disk->block), EFI_SUCCESS);
    uint32_t crc = vm_crc32(truth, disk_bytes);
    read_whole();
    app_check(vm_crc32(truth, disk_bytes) == crc);
    app_print("vm: crc after %zu: %08x\n", index, crc);
}

/* Memory above 4 GiB, where the firmware would not put us by itself. */
static void *pages_high(size_t bytes)
{
    static struct app_map map;
    const EFI_MEMORY_DESCRIPTOR *entry;
    uint64_t pages = (bytes + 4095) / 4096;

    app_map_read(&map);
    for (size_t i = 0; (entry = app_map_entry(&map, i)) != NULL; i++) {
        EFI_PHYSICAL_ADDRESS at = entry->PhysicalStart;
        if (entry->Type != EfiConventionalMemory || at < 1ull << 32 || entry->NumberOfPages < pages)
            continue;
        app_assert_ok(app.bs->AllocatePages(AllocateAddress, EfiLoaderData, pages, &at));
        return (void *)(uintptr_t)at;
    }
    app_failed(__FILE__, __LINE__, "there is no memory above 4 GiB");
}

int app_main(void)
{
    vm_begin();
    app_connect_all();
    size_t count = vm_disks(disks, VM_DISKS_MAX);
    app_assert(count == app_option_number("disks", 1));
    vm_random_seed(app_option_number("seed", 1));
    truth = app_pages(48 * MIB);
    scratch = app_flag("high") ? pages_high(LARGEST + MIB) : app_pages(LARGEST + MIB);
    pattern = app_pages(LARGEST + MIB);
    app_print("vm: buffers at %p\n", scratch);
    vm_random_fill(pattern, LARGEST + MIB);
    for (size_t i = app_option_number("from", 0); i < count; i++) {
        disk = &disks[i];
        try_disk(i);
    }
    app_print("vm: leaving\n");
    app_exit_boot_services();
    return 0;
}
