// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "tests/unit/xen_harness.h"

#define UNWRITTEN 0x3c
#define WAIT_MS   200000u

/* What is there now. */
static struct xio *ios;
static struct guest *now;
static void *allocated[64];

static uint32_t random_state = 0x2545f491;

uint32_t test_chance(uint32_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state % below;
}

static void hung(void)
{
    fail_msg("the driver hangs");
}

/* The driver may not count on zeroes. */
static void *make(size_t bytes)
{
    void *memory = malloc(bytes);

    assert_non_null(memory);
    memset(memory, 0xcc, bytes);
    for (unsigned i = 0; i < LENGTH(allocated); i++)
        if (!allocated[i]) {
            allocated[i] = memory;
            break;
        }
    return memory;
}

static void unmake(void *memory)
{
    for (unsigned i = 0; i < LENGTH(allocated); i++)
        if (allocated[i] == memory)
            allocated[i] = NULL;
    free(memory);
}

enum result guest_begin(struct guest *guest)
{
    struct reg_window place = xhost_place();

    xhost_hung = hung;
    now = guest;
    *guest = (struct guest){.xen = make(sizeof(struct xen))};
    enum result result = xen_begin(guest->xen, xhost_door(), &place);
    if (result) {
        unmake(guest->xen);
        guest->xen = NULL;
    } else {
        grants_reserve(&guest->xen->grants, xhost_reserve(), xhost_now()->reserve_pages);
    }
    return result;
}

enum result guest_disk(struct guest *guest, unsigned i)
{
    size_t bytes = 0;

    guest->blk[i] = make(sizeof(struct blkfront));
    enum result result = blkfront_attach(guest->blk[i], guest->xen, xhost_door(),
                                         xhost_now()->disks[i].number, &bytes);
    if (result) {
        unmake(guest->blk[i]);
        guest->blk[i] = NULL;
        return result;
    }
    assert_true(bytes != 0 && bytes < (4u << 20));
    xhost_share(bytes, &guest->memory[i]);
    result = blkfront_start(guest->blk[i], &guest->memory[i]);
    if (result)
        guest_drop(guest, i);
    return result;
}

void guest_up(struct guest *guest)
{
    assert_int_equal(guest_begin(guest), RESULT_OK);
    for (unsigned i = 0; i < xhost_now()->disk_count; i++)
        assert_int_equal(guest_disk(guest, i), RESULT_OK);
}

bool guest_drop(struct guest *guest, unsigned i)
{
    bool let_go = blkfront_detach(guest->blk[i]);

    if (let_go)
        xhost_unshare(&guest->memory[i]);
    else
        guest->leaked++;
    unmake(guest->blk[i]);
    guest->blk[i] = NULL;
    return let_go;
}

void guest_leave(struct guest *guest)
{
    for (unsigned i = 0; i < XHOST_DISKS_MAX; i++)
        if (guest->blk[i])
            guest_drop(guest, i);
    xen_end(guest->xen, xhost_door());
    unmake(guest->xen);
    guest->xen = NULL;
}

void guest_down(struct guest *guest)
{
    guest_leave(guest);
    assert_int_equal(guest->leaked, 0);
    xhost_check_as_found();
    assert_no_violation();
    xio_free_all();
    assert_int_equal(xhost_allocations(), 0);
}

/* What firmware's events do: uefi/exit.c. */
static void exit_disk(struct guest *guest, unsigned i, const struct poor_door *door)
{
    if (guest->blk[i] && guest->blk[i]->front.state == FRONT_LIVE)
        fronts_quiesce(guest->xen, door);
}

void guest_exit(struct guest *guest, uint64_t bound_ms)
{
    struct poor_door door = {.deadline = clock_ticks() + bound_ms * MS};
    uint64_t since = xhost_time();

    xhost_poor(true);
    for (unsigned i = 0; i < XHOST_DISKS_MAX; i++)
        exit_disk(guest, i, &door);
    if (guest->xen->live)
        xen_quiesce(guest->xen, &door);
    xhost_poor(false);
    /* What takes no waiting may be done after the bound. */
    if (xhost_time() - since > (bound_ms + 20) * MS)
        model_violation("C6: the exit took %llu ms",
                        (unsigned long long)((xhost_time() - since) / MS));
}

void guest_handed_over(struct guest *guest)
{
    unsigned char *copies[XHOST_DISKS_MAX] = {0};

    /* It writes where it likes; backends that can still do something, do it; nothing changes. */
    for (unsigned i = 0; i < XHOST_DISKS_MAX; i++) {
        if (!guest->blk[i] || guest->blk[i]->front.state == FRONT_STUCK)
            continue;
        copies[i] = malloc(guest->memory[i].bytes);
        assert_non_null(copies[i]);
        memset(guest->memory[i].cpu, (int)(0x50 + i), guest->memory[i].bytes);
        memcpy(copies[i], guest->memory[i].cpu, guest->memory[i].bytes);
    }
    xhost_last_gasp();
    xhost_skip_ms(1000);
    for (unsigned i = 0; i < XHOST_DISKS_MAX; i++) {
        if (!guest->blk[i])
            continue;
        if (copies[i]) {
            if (memcmp(copies[i], guest->memory[i].cpu, guest->memory[i].bytes) != 0)
                model_violation("C4: a backend has written into memory after the exit");
            free(copies[i]);
            xhost_unshare(&guest->memory[i]);
        } else {
            guest->leaked++;
        }
        unmake(guest->blk[i]);
        guest->blk[i] = NULL;
    }
    unmake(guest->xen);
    guest->xen = NULL;
    /* Transfers that were cut off are told nothing. */
    for (struct xio *io = ios; io; io = io->next)
        if (io->request) {
            io->done = 1;
            io->request = NULL;
            free(io->slot);
        }
    xio_free_all();
}

struct disk *disk_of(struct guest *guest, unsigned i)
{
    return &guest->blk[i]->disk;
}

void disk_poll(struct guest *guest, unsigned i)
{
    disk_of(guest, i)->ops->poll(disk_of(guest, i));
}

void assert_no_violation(void)
{
    assert_int_equal(model_violations(), 0);
}

int switch_off(void **state)
{
    (void)state;
    while (ios) {
        struct xio *next = ios->next;
        if (ios->request)
            free(ios->slot);
        free(ios);
        ios = next;
    }
    for (unsigned i = 0; i < LENGTH(allocated); i++) {
        free(allocated[i]);
        allocated[i] = NULL;
    }
    now = NULL;
    xhost_unplug();
    return 0;
}

/* ---- Transfers ---- */

static void xio_done(struct io_request *request)
{
    /* The request lies behind a pointer back to its transfer. */
    struct xio **slot = (struct xio **)(void *)((char *)request - sizeof(struct xio *) * 2);
    struct xio *io = *slot;

    io->done++;
    io->result = request->result;
    if (io->done != 1)
        model_violation("done() called %u times", io->done);
    /* From here on the caller may do with the buffer what it likes: unless the log has said that
     * the backend has not let go. */
    if (now && now->blk[io->disk] && now->blk[io->disk]->front.state != FRONT_STUCK && io->bytes &&
        xhost_shown(io->buffer, io->bytes))
        model_violation("C5: done() while the backend can still reach the buffer");
    io->request = NULL;
    free(slot);
}

struct xio *xio_new(unsigned disk, enum disk_op op, uint64_t sector, size_t bytes, size_t misalign)
{
    struct xio *io = calloc(1, sizeof(*io));
    struct xio **slot = calloc(1, 2 * sizeof(*slot) + sizeof(struct disk_request));

    assert_non_null(io);
    assert_non_null(slot);
    *slot = io;
    *io = (struct xio){
        .op = op, .sector = sector, .bytes = bytes, .slot = slot, .next = ios, .disk = disk};
    ios = io;
    io->buffer = xhost_alloc(bytes, misalign);
    if (op == DISK_WRITE)
        for (size_t i = 0, seed = test_chance(1u << 30); i < bytes; i++)
            io->buffer[i] = (uint8_t)(seed + i * i / 5);
    else
        memset(io->buffer, UNWRITTEN, bytes);
    io->request = (struct disk_request *)(void *)(slot + 2);
    memset(io->request, 0xcc, sizeof(*io->request));
    io->request->op = op;
    io->request->sector = sector;
    io->request->base.buffer = op == DISK_FLUSH ? NULL : io->buffer;
    io->request->base.bytes = bytes;
    io->request->base.timeout_ms = 0;
    io->request->base.done = xio_done;
    return io;
}

enum result xio_submit(struct guest *guest, struct xio *io)
{
    struct disk *disk = disk_of(guest, io->disk);
    enum result result = disk->ops->submit(disk, io->request);

    if (result != RESULT_OK) {
        if (io->done)
            model_violation("a refused request was done");
        else
            free(io->slot);
        io->request = NULL;
        io->result = result;
        io->done = 1;
    }
    return result;
}

void xio_wait(struct guest *guest, struct xio *io)
{
    uint64_t since = xhost_time();

    while (!io->done) {
        struct disk *disk = disk_of(guest, io->disk);
        disk->ops->poll(disk);
        if (io->done)
            break;
        if (xhost_time() - since > WAIT_MS * MS)
            fail_msg("a request is never done");
        if (!disk->ops->ready(disk))
            disk->ops->wait(disk);
    }
}

enum result xio_free(struct xio *io)
{
    enum result result = io->result;

    assert_int_equal(io->done, 1);
    for (struct xio **link = &ios; *link; link = &(*link)->next)
        if (*link == io) {
            *link = io->next;
            break;
        }
    /* A buffer that the backend has kept is lost with the disk's memory. */
    if (!(now && now->leaked && xhost_shown(io->buffer, io->bytes)))
        xhost_free(io->buffer);
    free(io);
    return result;
}

void xio_free_all(void)
{
    while (ios)
        xio_free(ios);
}

enum result xio_run(struct guest *guest, unsigned disk, enum disk_op op, uint64_t sector,
                    size_t bytes, size_t misalign)
{
    struct xio *io = xio_new(disk, op, sector, bytes, misalign);

    if (xio_submit(guest, io) == RESULT_OK)
        xio_wait(guest, io);
    return xio_free(io);
}

void assert_reads(struct guest *guest, unsigned disk, uint64_t sector, size_t bytes,
                  size_t misalign)
{
    struct xio *io = xio_new(disk, DISK_READ, sector, bytes, misalign);

    assert_int_equal(xio_submit(guest, io), RESULT_OK);
    xio_wait(guest, io);
    assert_int_equal(io->result, RESULT_OK);
    assert_memory_equal(io->buffer, xhost_disk(disk) + sector * 512, bytes);
    xio_free(io);
}
