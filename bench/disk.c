// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * Two drivers, one disk, in turn: reads and writes through Block I/O, and through Block I/O 2 where
 * the driver has it.
 *
 * Options, also from a file bench.txt beside the program:
 *   rounds=N    how often each driver gets its turn (default 7)
 *   ms=N        about how long one measurement takes (default 40)
 *   only=NAME   only one of the two has turns: baton or firmware
 *   alone       only reads, of the sizes and depths that Linux is measured with, by the driver that
 *               has the last of the disks; then start the boot loader that is beside the program
 *               (lab/efi/next.h)
 *   count       instead of measuring, move a fixed amount once with each driver, so that the host
 *               can count requests and notifications between the lines
 *
 * Prints a line for each measurement; bench/run makes the table.
 */

#include "lab/efi/app.h"
#include "lab/efi/driver.h"
#include "lab/efi/next.h"

#define LARGEST (16u << 20)
#define DEPTH   32u
/* With many in flight: the largest request that is measured so. */
#define DEEP_LARGEST (1u << 20)

static const EFI_GUID block_io_guid = EFI_BLOCK_IO_PROTOCOL_GUID;
static const EFI_GUID block_io2_guid = EFI_BLOCK_IO2_PROTOCOL_GUID;

static const uint32_t sizes[] = {512, 4096, 65536, 1u << 20, LARGEST};
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

enum op { READ, WRITE };
static const char *const op_names[] = {"read", "write"};

static uint8_t *buffer;
static struct app_pci device;
static EFI_HANDLE last_disk;

/* ---- Choosing the driver ---- */

/* Binds the disk to one of the two, and makes sure that it is. */
static EFI_HANDLE bind(bool baton)
{
    static struct app_driver who[4];
    EFI_HANDLE disk;

    app.bs->DisconnectController(device.handle, NULL, NULL);
    app_connect_by(device.handle, baton);
    /* A SCSI adapter is not a disk before the firmware's SCSI drivers are on top of it. */
    if (app_disks(&disk, 1) == 0)
        app.bs->ConnectController(device.handle, NULL, NULL, TRUE);
    app_assert(app_disks(&disk, 1) == 1);
    app_assert(app_drivers_of(disk, who, 4) > 0);
    app_assert((strncmp(who[0].name, "Baton", 5) == 0) == baton);
    return disk;
}

/* ---- One operation ---- */

static uint64_t random_state = 1;

static uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

struct walk {
    uint64_t blocks; /* of the request's size, on the disk */
    uint64_t next;
    uint32_t size;
    bool random;
};

static EFI_LBA walk_next(struct walk *walk, const EFI_BLOCK_IO_MEDIA *media)
{
    uint64_t at = walk->random ? random_next() % walk->blocks : walk->next++ % walk->blocks;
    return at * walk->size / media->BlockSize;
}

static struct walk walk_start(const EFI_BLOCK_IO_MEDIA *media, uint32_t size, bool random)
{
    uint64_t bytes = (media->LastBlock + 1) * media->BlockSize;
    return (struct walk){.blocks = bytes / size, .size = size, .random = random};
}

static void one(EFI_BLOCK_IO_PROTOCOL *io, enum op op, struct walk *walk)
{
    EFI_LBA lba = walk_next(walk, io->Media);
    EFI_STATUS status = op == READ
                            ? io->ReadBlocks(io, io->Media->MediaId, lba, walk->size, buffer)
                            : io->WriteBlocks(io, io->Media->MediaId, lba, walk->size, buffer);
    app_assert(status == EFI_SUCCESS);
}

/* ---- Measuring ---- */

static void result_line(const char *driver, enum op op, bool random, uint32_t size, unsigned depth,
                        uint64_t ops, uint64_t ticks)
{
    app_print("bench: driver=%s op=%s order=%s size=%u depth=%u ops=%llu ns=%llu\n", driver,
              op_names[op], random ? "random" : "sequential", size, depth, (unsigned long long)ops,
              (unsigned long long)app_ns(ticks));
}

static void measure_blocking(EFI_HANDLE disk, const char *driver, enum op op, bool random,
                             uint32_t size, uint64_t budget)
{
    EFI_BLOCK_IO_PROTOCOL *io = app_protocol(disk, &block_io_guid);
    struct walk walk = walk_start(io->Media, size, random);
    uint64_t ops = 0, ticks;

    for (unsigned i = 0; i < 2; i++)
        one(io, op, &walk);
    uint64_t start = app_tsc();
    do {
        one(io, op, &walk);
        ops++;
        ticks = app_tsc() - start;
    } while (ticks < budget || ops < 3);
    result_line(driver, op, random, size, 1, ops, ticks);
}

static EFI_BLOCK_IO2_TOKEN tokens[DEPTH];

static void submit(EFI_BLOCK_IO2_PROTOCOL *io, unsigned i, struct walk *walk)
{
    app_assert_ok(io->ReadBlocksEx(io, io->Media->MediaId, walk_next(walk, io->Media), &tokens[i],
                                   walk->size, buffer + i * walk->size));
}

/* Keeps DEPTH reads in flight. While none has finished, an empty read lets the driver look. */
static void measure_deep(EFI_HANDLE disk, const char *driver, bool random, uint32_t size,
                         uint64_t budget)
{
    EFI_BLOCK_IO2_PROTOCOL *io = app_protocol(disk, &block_io2_guid);
    EFI_BLOCK_IO2_TOKEN none = {0};
    uint64_t ops = 0, ticks = 0;
    unsigned left = DEPTH;

    if (!io)
        return;
    struct walk walk = walk_start(io->Media, size, random);
    for (unsigned i = 0; i < DEPTH; i++)
        app_assert_ok(app.bs->CreateEvent(0, 0, NULL, NULL, &tokens[i].Event));
    uint64_t start = app_tsc();
    for (unsigned i = 0; i < DEPTH; i++)
        submit(io, i, &walk);
    while (left > 0) {
        bool found = false;
        for (unsigned i = 0; i < DEPTH; i++) {
            if (!tokens[i].Event || app.bs->CheckEvent(tokens[i].Event) != EFI_SUCCESS)
                continue;
            found = true;
            app_assert_ok(tokens[i].TransactionStatus);
            ops++;
            ticks = app_tsc() - start;
            if (ticks < budget) {
                submit(io, i, &walk);
            } else {
                left--;
                app.bs->CloseEvent(tokens[i].Event);
                tokens[i].Event = NULL;
            }
        }
        if (!found)
            io->ReadBlocksEx(io, io->Media->MediaId, 0, &none, 0, buffer);
    }
    result_line(driver, READ, random, size, DEPTH, ops, app_tsc() - start);
}

static void measure(bool baton, uint64_t budget)
{
    const char *name = baton ? "baton" : "firmware";
    EFI_HANDLE disk = bind(baton);

    for (enum op op = READ; op <= WRITE; op++)
        for (unsigned random = 0; random < 2; random++)
            for (size_t i = 0; i < SIZES; i++)
                measure_blocking(disk, name, op, random, sizes[i], budget);
    for (unsigned random = 0; random < 2; random++)
        measure_deep(disk, name, random, 4096, budget);
}

static void measure_alone(uint64_t budget)
{
    static const uint32_t common[] = {4096, 65536, DEEP_LARGEST};

    for (unsigned random = 0; random < 2; random++)
        for (size_t i = 0; i < sizeof(common) / sizeof(common[0]); i++) {
            measure_blocking(last_disk, "baton", READ, random, common[i], budget);
            measure_deep(last_disk, "baton", random, common[i], budget);
        }
}

/* 16 MiB with each size: what the host sees of it does not depend on the machine's mood. */
static void count(bool baton)
{
    const char *name = baton ? "baton" : "firmware";
    EFI_BLOCK_IO_PROTOCOL *io = app_protocol(bind(baton), &block_io_guid);

    for (size_t i = 0; i < SIZES; i++) {
        struct walk walk = walk_start(io->Media, sizes[i], false);
        app_print("count: driver=%s size=%u mib=16 begin\n", name, sizes[i]);
        for (uint32_t moved = 0; moved < 16u << 20; moved += sizes[i])
            one(io, READ, &walk);
        app_print("count: driver=%s size=%u mib=16 end\n", name, sizes[i]);
    }
}

int app_main(void)
{
    static EFI_HANDLE disks[32];

    app_options_file(u"bench.txt");
    uint64_t rounds = app_option_number("rounds", 7);
    uint64_t budget = app_option_number("ms", 40) * 1000 * app_tsc_per_us();

    buffer = app_pages(DEPTH * DEEP_LARGEST);
    app_connect_all();
    size_t found = app_disks(disks, 32);
    bool alone = app_flag("alone");
    app_assert(alone ? found > 0 : found == 1);
    last_disk = disks[found - 1];
    app_assert(app_pci_of(last_disk, &device));

    if (alone) {
        measure_alone(budget);
        app_start_next();
        return 0;
    }
    if (app_flag("count")) {
        count(true);
        count(false);
        return 0;
    }
    const char *only = app_option("only");
    for (uint64_t round = 0; round < rounds; round++) {
        app_print("bench: round=%llu of=%llu\n", (unsigned long long)round + 1,
                  (unsigned long long)rounds);
        if (!only || strcmp(only, "baton") == 0)
            measure(true, budget);
        if (!only || strcmp(only, "firmware") == 0)
            measure(false, budget);
    }
    return 0;
}
