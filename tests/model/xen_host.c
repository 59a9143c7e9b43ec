// SPDX-License-Identifier: BSD-2-Clause-Patent
/* The hypervisor: memory, grants, event channels and time. */

#define _GNU_SOURCE

#include "tests/model/xen_parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <sanitizer/asan_interface.h>
#include <xen/arch-x86/cpuid.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>

/* Where the guest sees what. All below 2 GiB: the address sanitizer has no room for a program's own
 * memory between there and 16 TiB, where a grant entry's frame number ends. */
#define ARENA_BASE  0x20000000u
#define ARENA_PAGES 16384u
#define PLACE_BASE  0x30000000u
#define PLACE_PAGES 4096u
#define STORE_BASE  0x31000000u
#define FIRST_GFN   (ARENA_BASE / PAGE)
#define SPARE_BASE  0x31100000u
#define GFNS        (SPARE_BASE / PAGE + SPARE_MOST - FIRST_GFN)

/* Machine pages. */
#define GRANT_FRAMES_MOST 64u
#define SPARE_MOST        1024u
#define MFN_SHARED        ((int32_t)ARENA_PAGES)
#define MFN_STORE         (MFN_SHARED + 1)
#define MFN_GRANTS        (MFN_STORE + 1)
#define MFN_SPARE         (MFN_GRANTS + (int32_t)GRANT_FRAMES_MOST)
#define MFNS              (MFN_SPARE + (int32_t)SPARE_MOST)

#define ENTRIES_PER_FRAME (PAGE / (uint32_t)sizeof(grant_entry_v1_t))
#define ENTRIES           (GRANT_FRAMES_MOST * ENTRIES_PER_FRAME)
#define PORTS             64u
#define ALLOCATIONS       512u
#define STEPS_MOST        3000000u

#define NOTHING_THERE 0xc7 /* around an allocation */
#define FREED         0xdd

/* What things cost, in ticks. */
#define HYPERCALL_TICKS 2u
#define YIELD_TICKS     300u
/* Xen's clock and the CPU's: they have not begun at the same time. */
#define TSC_START    (1ull << 33)
#define SYSTEM_START 777000000ull

#define XEN_EINVAL (-22)
#define XEN_ENOENT (-2)
#define XEN_ENOSPC (-28)
#define XEN_ENOSYS (-38)

struct xhost_options xhost_options;
struct xhost_counts xhost_counts;
bool xhost_strict;
void (*xhost_hung)(void);

enum port_state { PORT_FREE, PORT_UNBOUND, PORT_BOUND, PORT_OTHERS };

struct pin {
    uint16_t reads, writes;
    uint32_t gfn;
    int32_t mfn;
};

struct allocation {
    unsigned char *memory; /* NULL: none */
    size_t bytes, misalign, pages;
};

/* What somebody else has left in the table. */
static const grant_entry_v1_t others_grant = {
    .flags = GTF_permit_access, .domid = 3, .frame = 0x777};
#define OTHERS_FIRST 10u

static bool is_others(uint32_t ref)
{
    return ref < GNTTAB_NR_RESERVED_ENTRIES ||
           (xhost_options.others_grants && ref >= OTHERS_FIRST && (ref - OTHERS_FIRST) % 3 == 0);
}

static struct {
    bool plugged, poor, working;
    uint64_t now, steps, random;
    size_t fuzz_at;
    char log[256];
    uint32_t grant_frames, grant_version;
    enum port_state ports[PORTS];
    struct pin pins[ENTRIES];
    uint16_t pinned[MFNS]; /* how many mappings there are of a page */
    int32_t p2m[GFNS];
    struct allocation allocations[ALLOCATIONS];
    uint8_t used[ARENA_PAGES];
    uint32_t next_page;
    bool page_seen;         /* the guest has had the shared-info page */
    bool happened;          /* the hypercall that was to fail has */
    uint32_t excused_port;  /* that could not be closed because of it */
    uint64_t excused_frame; /* or taken away */
} h;

static unsigned char *machine; /* all machine pages, as Xen sees them */
static int memory_fd;

/* ---- Small things ---- */

uint32_t xhost_random(uint32_t below)
{
    h.random = h.random * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(h.random >> 33) % below;
}

bool xhost_feed(enum xhost_target target, uint8_t *byte)
{
    if (!(xhost_options.targets & target) || h.fuzz_at >= xhost_options.fuzz_bytes)
        return false;
    *byte = xhost_options.fuzz[h.fuzz_at++];
    return true;
}

uint64_t xhost_twist(enum xhost_target target, uint64_t honest)
{
    uint8_t how, more;

    if (!xhost_feed(target, &how) || how < 0xd8)
        return honest;
    if (!xhost_feed(target, &more))
        more = 0;
    switch (how % 8) {
    case 0:
        return more;
    case 1:
        return honest + more;
    case 2:
        return honest - more;
    case 3:
        return (uint64_t)more << 56 | (uint64_t)more << 24 | more;
    case 4:
        return UINT64_MAX - more;
    case 5:
        return honest ^ 1ull << more % 64;
    default:
        return honest;
    }
}

void xhost_complain(const char *format, ...)
{
    char text[256];
    va_list arguments;

    if (!xhost_strict || xhost_options.no_complaints)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    model_violation("%s", text);
}

static void count_step(void)
{
    uint64_t most = xhost_options.steps_most ? xhost_options.steps_most : STEPS_MOST;

    if (++h.steps > most && xhost_hung) {
        h.steps = 0;
        xhost_hung();
    }
}

unsigned char *machine_page(int32_t mfn)
{
    return machine + (size_t)mfn * PAGE;
}

struct xenstore_domain_interface *machine_store(void)
{
    return (struct xenstore_domain_interface *)(void *)machine_page(MFN_STORE);
}

static struct shared_page *shared(void)
{
    return (struct shared_page *)(void *)machine_page(MFN_SHARED);
}

static grant_entry_v1_t *entry_of(uint32_t ref)
{
    return (grant_entry_v1_t *)(void *)machine_page(MFN_GRANTS) + ref;
}

int32_t machine_of(uint64_t gfn)
{
    return gfn >= FIRST_GFN && gfn < FIRST_GFN + GFNS ? h.p2m[gfn - FIRST_GFN] : -1;
}

static bool is_arena(uint64_t gfn)
{
    return gfn >= FIRST_GFN && gfn < FIRST_GFN + ARENA_PAGES;
}

static bool is_ram(int32_t mfn)
{
    return mfn >= 0 && (mfn < MFN_SHARED || mfn >= MFN_SPARE);
}

/* ---- The guest's view of memory ---- */

static void *see(uint64_t gfn, uint64_t pages, int protection, int flags, off_t offset)
{
    void *seen = mmap((void *)(uintptr_t)(gfn * PAGE), pages * PAGE, protection, flags,
                      flags & MAP_ANONYMOUS ? -1 : memory_fd, offset);
    if (seen != (void *)(uintptr_t)(gfn * PAGE)) {
        perror("the modelled guest's memory");
        abort();
    }
    return seen;
}

/* A machine page, or nothing (-1), appears at a frame. */
static void set_frame(uint64_t gfn, int32_t mfn)
{
    h.p2m[gfn - FIRST_GFN] = mfn;
    if (mfn < 0)
        see(gfn, 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, 0);
    else
        see(gfn, 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, (off_t)mfn * PAGE);
}

static void switch_on_memory(void)
{
    size_t bytes = (size_t)MFNS * PAGE;

    memory_fd = memfd_create("machine", 0);
    if (memory_fd < 0 || ftruncate(memory_fd, (off_t)bytes) != 0)
        abort();
    machine = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
    if (machine == MAP_FAILED)
        abort();
    see(FIRST_GFN, GFNS, PROT_NONE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, 0);
    see(FIRST_GFN, ARENA_PAGES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, 0);
    ASAN_POISON_MEMORY_REGION((void *)(uintptr_t)ARENA_BASE, ARENA_PAGES * PAGE);
    for (uint32_t i = 0; i < GFNS; i++)
        h.p2m[i] = i < ARENA_PAGES ? (int32_t)i : -1;
    set_frame(STORE_BASE / PAGE, MFN_STORE);
}

/* ---- Allocations ---- */

static struct allocation *find_allocation(const void *memory)
{
    for (unsigned i = 0; i < ALLOCATIONS; i++)
        if (h.allocations[i].memory && h.allocations[i].memory == memory)
            return &h.allocations[i];
    return NULL;
}

void *xhost_alloc(size_t bytes, size_t misalign)
{
    size_t pages = (misalign + bytes + PAGE - 1) / PAGE + 1, run = 0;
    struct allocation *allocation = NULL;
    uint32_t page = h.next_page;

    for (unsigned i = 0; i < ALLOCATIONS && !allocation; i++)
        if (!h.allocations[i].memory)
            allocation = &h.allocations[i];
    if (!allocation)
        abort();
    /* What was freed is not used again soon. */
    for (uint32_t tries = 0; run < pages; tries++) {
        if (tries > 2 * ARENA_PAGES)
            abort();
        if (page == ARENA_PAGES)
            page = 0, run = 0;
        run = h.used[page] ? 0 : run + 1;
        page++;
    }
    h.next_page = page;
    uint32_t first = page - (uint32_t)pages;
    memset(h.used + first, 1, pages);
    *allocation = (struct allocation){
        .memory = (unsigned char *)(uintptr_t)ARENA_BASE + (size_t)first * PAGE + misalign,
        .bytes = bytes,
        .misalign = misalign,
        .pages = pages,
    };
    for (size_t i = 0; i < pages; i++)
        memset(machine_page(machine_of(FIRST_GFN + first + i)), NOTHING_THERE, PAGE);
    /* Whole pages: one that is exchanged is read from end to end. The last page is behind it all.
     */
    ASAN_UNPOISON_MEMORY_REGION(allocation->memory - misalign, (pages - 1) * PAGE);
    return allocation->memory;
}

/* The nature of the first page in a range that somebody else may touch. */
static const char *whose(const unsigned char *memory, size_t bytes)
{
    uint64_t first = (uintptr_t)memory / PAGE, last = ((uintptr_t)memory + bytes - 1) / PAGE;

    if (bytes == 0)
        return NULL;
    for (uint64_t gfn = first; gfn <= last; gfn++)
        if (machine_of(gfn) >= 0 && h.pinned[machine_of(gfn)])
            return "mapped by a backend";
    for (uint32_t ref = 0; ref < h.grant_frames * ENTRIES_PER_FRAME; ref++)
        if (entry_of(ref)->flags & GTF_type_mask && !h.pins[ref].reads &&
            entry_of(ref)->frame >= first && entry_of(ref)->frame <= last)
            return "granted";
    return NULL;
}

bool xhost_shown(const void *memory, size_t bytes)
{
    return whose(memory, bytes) != NULL;
}

static void drop(struct allocation *allocation)
{
    unsigned char *start = allocation->memory - allocation->misalign;

    ASAN_POISON_MEMORY_REGION(start, allocation->pages * PAGE);
    memset(h.used + (start - (unsigned char *)(uintptr_t)ARENA_BASE) / PAGE, 0, allocation->pages);
    allocation->memory = NULL;
}

/* Nobody has written around an allocation; and what was in it is overwritten. */
static void check_around(const struct allocation *allocation)
{
    static unsigned char untouched[PAGE];
    size_t first = allocation->misalign, end = first + allocation->bytes;
    uint64_t gfn = (uintptr_t)(allocation->memory - first) / PAGE;

    memset(untouched, NOTHING_THERE, PAGE);
    for (size_t i = 0; i < allocation->pages; i++) {
        unsigned char *page = machine_page(machine_of(gfn + i));
        size_t from = first > i * PAGE ? first - i * PAGE : 0;
        size_t to = end > i * PAGE ? end - i * PAGE : 0;
        if (from > PAGE)
            from = PAGE;
        if (to > PAGE)
            to = PAGE;
        if (to > from)
            memset(page + from, FREED, to - from);
        else
            from = to = 0;
        if (memcmp(page, untouched, from) != 0 || memcmp(page + to, untouched, PAGE - to) != 0) {
            model_violation("somebody has written outside of a buffer");
            return;
        }
    }
}

void xhost_free(void *memory)
{
    struct allocation *allocation = find_allocation(memory);

    if (!allocation) {
        model_violation("freed memory that was not allocated");
        return;
    }
    const char *why = whose(allocation->memory, allocation->bytes);
    if (why)
        model_violation("C5: freed memory that is %s", why);
    check_around(allocation);
    drop(allocation);
}

void xhost_share(size_t bytes, struct dma_block *block)
{
    void *memory = xhost_alloc(bytes, 0);

    memset(memory, 0, bytes);
    *block = (struct dma_block){.cpu = memory, .address = (uintptr_t)memory, .bytes = bytes};
}

void xhost_unshare(const struct dma_block *block)
{
    xhost_free(block->cpu);
}

unsigned xhost_allocations(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < ALLOCATIONS; i++)
        count += h.allocations[i].memory != NULL;
    return count;
}

/* ---- Time ---- */

static void work(void)
{
    if (h.working)
        return;
    h.working = true;
    store_work();
    back_work();
    h.working = false;
}

static uint64_t due(void)
{
    uint64_t store = store_due(), back = back_due();
    return store < back ? store : back;
}

/* The others have CPUs of their own: so they have done what they had to do by now. */
static void others(void)
{
    if (xhost_options.parallel && !h.working && due() <= h.now)
        work();
}

uint64_t clock_ticks(void)
{
    count_step();
    h.now++;
    others();
    return h.now;
}

void cpu_relax(void)
{
    count_step();
    h.now += YIELD_TICKS;
    work();
}

uint64_t xhost_time(void)
{
    return h.now;
}

void xhost_skip_ms(uint64_t ms)
{
    uint64_t end = h.now + ms * XHOST_TICKS_PER_MS;

    for (unsigned i = 0; i < 100000 && due() <= end; i++) {
        if (due() > h.now)
            h.now = due();
        work();
    }
    h.now = end;
    work();
}

/* ---- Event channels ---- */

static bool port_pending(uint32_t port)
{
    return shared()->pending[port / 32] >> port % 32 & 1;
}

void event_raise(uint32_t port)
{
    if (port >= PORTS || h.ports[port] != PORT_BOUND)
        return;
    shared()->pending[port / 32] |= 1u << port % 32;
    /* Nothing is masked; a domain of 64 bits has a selector twice as wide, of which that is half.
     */
    shared()->selectors[0] |= 1u << port / 64;
    shared()->upcall_pending = 1;
}

bool event_bind(uint32_t port)
{
    if (port >= PORTS || h.ports[port] != PORT_UNBOUND)
        return false;
    h.ports[port] = PORT_BOUND;
    return true;
}

void event_unbind(uint32_t port)
{
    if (port < PORTS && h.ports[port] == PORT_BOUND)
        h.ports[port] = PORT_UNBOUND;
}

static void send(uint32_t port)
{
    xhost_counts.sends++;
    if (port == STORE_PORT)
        store_kick();
    else if (h.ports[port] == PORT_BOUND)
        back_kick(port);
    others();
}

static bool port_is_ours(uint32_t port, const char *what)
{
    if (port < PORTS && port != 0 && h.ports[port] != PORT_FREE && h.ports[port] != PORT_OTHERS)
        return true;
    xhost_complain("%s event channel %u, which is none of ours", what, port);
    return false;
}

static intptr_t channel_op(unsigned command, void *argument, bool fails)
{
    switch (command) {
    case EVTCHNOP_alloc_unbound: {
        struct evtchn_alloc_unbound *unbound = argument;
        if (unbound->dom != DOMID_SELF || unbound->remote_dom != 0)
            xhost_complain("an event channel for domain %u", unbound->remote_dom);
        if (fails)
            return XEN_ENOSPC;
        for (uint32_t port = 1; port < PORTS && port < xhost_options.channels; port++)
            if (h.ports[port] == PORT_FREE) {
                h.ports[port] = PORT_UNBOUND;
                unbound->port = (uint32_t)port;
                return 0;
            }
        return XEN_ENOSPC;
    }
    case EVTCHNOP_send: {
        const struct evtchn_send *sent = argument;
        if (!port_is_ours(sent->port, "sent an event to"))
            return XEN_EINVAL;
        if (fails) {
            if (sent->port == STORE_PORT)
                store_spoil(); /* it may never learn that it was asked */
            return XEN_EINVAL;
        }
        send(sent->port);
        return 0;
    }
    case EVTCHNOP_close: {
        const struct evtchn_close *close = argument;
        if (!port_is_ours(close->port, "closed"))
            return XEN_EINVAL;
        if (close->port <= CONSOLE_PORT)
            model_violation("C7: closed event channel %u, which is the toolstack's", close->port);
        if (fails) {
            h.excused_port = close->port;
            return XEN_EINVAL;
        }
        h.ports[close->port] = PORT_FREE;
        shared()->pending[close->port / 32] &= ~(1u << close->port % 32);
        return 0;
    }
    case EVTCHNOP_status: {
        struct evtchn_status *status = argument;
        if (fails || status->port >= PORTS)
            return XEN_EINVAL;
        status->status = h.ports[status->port] == PORT_FREE      ? EVTCHNSTAT_closed
                         : h.ports[status->port] == PORT_UNBOUND ? EVTCHNSTAT_unbound
                                                                 : EVTCHNSTAT_interdomain;
        return 0;
    }
    default:
        xhost_complain("event channel operation %u", command);
        return XEN_ENOSYS;
    }
}

/* ---- Giving the CPU away ---- */

/* A time of Xen's, in ticks, rounded up. */
static uint64_t ticks_of(uint64_t ns)
{
    return ns < SYSTEM_START ? 0 : TSC_START + (ns - SYSTEM_START + 999) / 1000;
}

static intptr_t poll(const struct sched_poll *poll, bool fails)
{
    uint32_t port;

    if (fails || poll->nr_ports != 1)
        return XEN_EINVAL;
    memcpy(&port, poll->ports.p, sizeof(port));
    if (!port_is_ours(port, "waited for"))
        return XEN_EINVAL;
    xhost_counts.polls++;
    work();
    if (port_pending(port))
        return 0;
    xhost_counts.waits++;
    uint64_t end = poll->timeout == 0 ? DUE_NEVER : ticks_of(poll->timeout);
    if (xhost_options.spurious && xhost_random(xhost_options.spurious) == 0)
        return 0;
    for (;;) {
        uint64_t next = due();
        if (next > end || next == DUE_NEVER) {
            if (end == DUE_NEVER) {
                h.steps = DUE_NEVER / 2; /* nothing will ever end this */
                count_step();
                return 0;
            }
            if (end > h.now)
                h.now = end;
            return 0;
        }
        if (next > h.now)
            h.now = next;
        count_step();
        work();
        if (port_pending(port))
            return 0;
    }
}

static intptr_t yield(void)
{
    xhost_counts.yields++;
    xhost_counts.waits++;
    h.now += YIELD_TICKS;
    work();
    return 0;
}

static intptr_t sched_op(unsigned command, void *argument, bool fails)
{
    switch (command) {
    case SCHEDOP_poll:
        return poll(argument, fails);
    default:
        xhost_complain("scheduler operation %u", command);
        return XEN_ENOSYS;
    }
}

/* ---- The guest's frames ---- */

/* Somewhere else in the guest's memory it is no more. */
static void unhook(int32_t mfn)
{
    for (uint64_t gfn = PLACE_BASE / PAGE; gfn < FIRST_GFN + GFNS; gfn++)
        if (machine_of(gfn) == mfn)
            set_frame(gfn, -1);
}

static intptr_t add(const struct physmap_add *add, bool fails)
{
    int32_t mfn, old = machine_of(add->frame);
    bool exchange = add->space == XENMAPSPACE_gmfn;

    if (add->domid != DOMID_SELF || add->frame < FIRST_GFN || add->frame >= FIRST_GFN + GFNS) {
        xhost_complain("a page is to appear at frame %#lx", (unsigned long)add->frame);
        return XEN_EINVAL;
    }
    if (fails)
        return XEN_EINVAL;
    switch (add->space) {
    case XENMAPSPACE_shared_info:
        if (xhost_options.no_shared_page)
            return XEN_EINVAL;
        mfn = MFN_SHARED;
        h.page_seen = true;
        break;
    case XENMAPSPACE_grant_table:
        if (add->index >= xhost_options.grant_frames)
            return XEN_EINVAL;
        if (add->index >= h.grant_frames)
            h.grant_frames = (uint32_t)add->index + 1;
        mfn = MFN_GRANTS + (int32_t)add->index;
        break;
    case XENMAPSPACE_gmfn:
        mfn = machine_of(add->index);
        if (!is_ram(mfn))
            return XEN_EINVAL;
        break;
    default:
        xhost_complain("a page from space %u", add->space);
        return XEN_ENOSYS;
    }
    if (!exchange && is_arena(add->frame))
        model_violation("a page of Xen's hides memory of the guest's");
    if (exchange && (old < 0 || !h.pinned[old]))
        xhost_complain("a page is exchanged which nobody else has");
    if (exchange)
        xhost_counts.replaced++;
    unhook(mfn);
    set_frame(add->frame, mfn);
    return 0;
}

static intptr_t take_away(const struct physmap_remove *remove, bool fails)
{
    int32_t mfn = machine_of(remove->frame);

    if (remove->domid != DOMID_SELF || mfn < 0) {
        xhost_complain("frame %#lx is to be emptied, and is empty", (unsigned long)remove->frame);
        return XEN_ENOENT;
    }
    if (is_arena(remove->frame) || mfn == MFN_STORE)
        model_violation("memory of the guest's is taken out of it");
    if (fails) {
        h.excused_frame = remove->frame;
        return XEN_EINVAL;
    }
    if (mfn >= MFN_GRANTS && mfn < MFN_SPARE) {
        uint32_t first = (uint32_t)(mfn - MFN_GRANTS) * ENTRIES_PER_FRAME;
        for (uint32_t ref = first; ref < first + ENTRIES_PER_FRAME; ref++)
            if (!is_others(ref) && entry_of(ref)->flags & GTF_type_mask && !h.pins[ref].reads)
                model_violation("C7: grant %u has not been ended, and is out of sight", ref);
    }
    set_frame(remove->frame, -1);
    return 0;
}

static intptr_t memory_op(unsigned command, void *argument, bool fails)
{
    switch (command) {
    case XENMEM_add_to_physmap:
        return add(argument, fails);
    case XENMEM_remove_from_physmap:
        return take_away(argument, fails);
    default:
        xhost_complain("memory operation %u", command);
        return XEN_ENOSYS;
    }
}

/* ---- Grants ---- */

static intptr_t grant_op(unsigned command, void *argument, unsigned count, bool fails)
{
    if (count != 1)
        xhost_complain("%u grant table operations at once", count);
    if (fails)
        return XEN_EINVAL;
    switch (command) {
    case GNTTABOP_query_size: {
        struct gnttab_query_size *size = argument;
        size->nr_frames = h.grant_frames;
        size->max_nr_frames = (uint32_t)xhost_twist(TARGET_XEN, xhost_options.grant_frames);
        size->status = GNTST_okay;
        return 0;
    }
    case GNTTABOP_get_version: {
        struct gnttab_get_version *version = argument;
        version->version = h.grant_version;
        return 0;
    }
    case GNTTABOP_set_version: {
        struct gnttab_set_version *version = argument;
        for (uint32_t ref = GNTTAB_NR_RESERVED_ENTRIES; ref < ENTRIES; ref++)
            if (entry_of(ref)->flags != 0)
                return -16; /* EBUSY */
        h.grant_version = version->version;
        return 0;
    }
    default:
        xhost_complain("grant table operation %u", command);
        return XEN_ENOSYS;
    }
}

bool grant_map(uint32_t ref, bool write, int32_t *mfn)
{
    if (ref >= h.grant_frames * ENTRIES_PER_FRAME) {
        xhost_complain("a backend is given grant %u, which is beyond the table", ref);
        return false;
    }
    grant_entry_v1_t *entry = entry_of(ref);
    if ((entry->flags & GTF_type_mask) != GTF_permit_access || entry->domid != 0 ||
        (write && entry->flags & GTF_readonly)) {
        /* If it has not been told to stop, it may come too late. */
        if (!xhost_store_spoilt())
            xhost_complain("a backend may not map grant %u: flags %#x, domain %u", ref,
                           entry->flags, entry->domid);
        return false;
    }
    *mfn = machine_of(entry->frame);
    if (!is_ram(*mfn)) {
        xhost_complain("grant %u is of no memory: frame %#x", ref, entry->frame);
        return false;
    }
    struct pin *pin = &h.pins[ref];
    pin->gfn = entry->frame;
    pin->mfn = *mfn;
    pin->reads++;
    pin->writes = (uint16_t)(pin->writes + write);
    h.pinned[*mfn]++;
    entry->flags = (uint16_t)(entry->flags | GTF_reading | (write ? GTF_writing : 0));
    xhost_counts.grants_mapped++;
    return true;
}

/* What the guest must leave alone while a page is mapped. That it may be mapped again it can
 * take back. */
static void check_pin(uint32_t ref)
{
    const struct pin *pin = &h.pins[ref];
    const grant_entry_v1_t *entry = entry_of(ref);
    unsigned in_use = GTF_reading | (pin->writes ? GTF_writing : 0u);

    if (entry->frame != pin->gfn || entry->domid != 0 || (entry->flags & in_use) != in_use)
        model_violation("C5: grant %u was changed while a backend had it mapped", ref);
}

void grant_unmap(uint32_t ref, bool write)
{
    struct pin *pin = &h.pins[ref];
    grant_entry_v1_t *entry = entry_of(ref);

    check_pin(ref);
    pin->reads--;
    pin->writes = (uint16_t)(pin->writes - write);
    h.pinned[pin->mfn]--;
    if (pin->writes == 0)
        entry->flags = (uint16_t)(entry->flags & ~GTF_writing);
    if (pin->reads == 0)
        entry->flags = (uint16_t)(entry->flags & ~GTF_reading);
}

/* ---- The doors ---- */

void cpuid(uint32_t leaf, uint32_t registers[4])
{
    static const uint32_t other[4] = {0x40000005, 0x7263694d, 0x666f736f, 0x76482074};

    memset(registers, 0, 4 * sizeof(*registers));
    if (leaf == 1 && (xhost_options.leaf || xhost_options.other_too))
        registers[2] = 1u << 31;
    else if (leaf == 0x40000000 && xhost_options.other_too)
        memcpy(registers, other, sizeof(other));
    else if (leaf == xhost_options.leaf && leaf != 0)
        memcpy(registers,
               (uint32_t[]){leaf + 5, XEN_CPUID_SIGNATURE_EBX, XEN_CPUID_SIGNATURE_ECX,
                            XEN_CPUID_SIGNATURE_EDX},
               4 * sizeof(*registers));
}

static intptr_t hvm_op(unsigned command, void *argument, bool fails)
{
    struct xen_hvm_param *param = argument;

    if (command != HVMOP_get_param || param->domid != DOMID_SELF) {
        xhost_complain("HVM operation %u", command);
        return XEN_ENOSYS;
    }
    if (fails)
        return XEN_EINVAL;
    switch (param->index) {
    case HVM_PARAM_STORE_PFN:
        param->value = STORE_BASE / PAGE;
        return 0;
    case HVM_PARAM_STORE_EVTCHN:
        param->value = xhost_twist(TARGET_XEN, STORE_PORT);
        return 0;
    default:
        return XEN_EINVAL;
    }
}

intptr_t hypercall(unsigned number, unsigned command, void *argument, unsigned count)
{
    uint8_t how;

    count_step();
    if (!h.plugged || xhost_options.leaf == 0)
        model_violation("a hypercall where Xen is not");
    h.now += HYPERCALL_TICKS;
    others();
    if (number == __HYPERVISOR_sched_op && command == SCHEDOP_yield)
        return yield(); /* which cannot fail */
    bool fails = ++xhost_counts.hypercalls == xhost_options.hypercall_fails_at;
    h.happened |= fails;
    if (xhost_options.fuzz && number != __HYPERVISOR_sched_op && xhost_feed(TARGET_XEN, &how))
        fails |= how > 0xfc;
    switch (number) {
    case __HYPERVISOR_memory_op:
        return memory_op(command, argument, fails);
    case __HYPERVISOR_grant_table_op:
        return grant_op(command, argument, count, fails);
    case __HYPERVISOR_event_channel_op:
        return channel_op(command, argument, fails);
    case __HYPERVISOR_sched_op:
        return sched_op(command, argument, fails);
    case __HYPERVISOR_hvm_op:
        return hvm_op(command, argument, fails);
    default:
        xhost_complain("hypercall %u", number);
        return XEN_ENOSYS;
    }
}

static void rich(const char *what)
{
    if (h.poor)
        model_violation("C2: %s through the rich door", what);
}

static void log_line(void *context, const char *sentence, uint64_t number)
{
    (void)context;
    rich("a log line");
    xhost_counts.logs++;
    snprintf(h.log, sizeof(h.log), "%s %llu", sentence, (unsigned long long)number);
}

const struct rich_door *xhost_door(void)
{
    /* Nothing else may be used: PCI is not what a PV disk is on. */
    static const struct rich_door door = {
        .ticks_per_ms = XHOST_TICKS_PER_MS,
        .log = log_line,
    };
    return &door;
}

struct reg_window xhost_place(void)
{
    return (struct reg_window){.base = PLACE_BASE, .bytes = (uint64_t)PLACE_PAGES * PAGE};
}

const char *xhost_last_log(void)
{
    return h.log;
}

void xhost_poor(bool poor)
{
    h.poor = poor;
}

struct xhost_options *xhost_now(void)
{
    return &xhost_options;
}

const struct xhost_counts *xhost_counted(void)
{
    return &xhost_counts;
}

/* ---- On and off ---- */

struct xhost_options xhost_usual(unsigned disks)
{
    struct xhost_options options = {
        .disk_count = disks,
        .leaf = 0x40000000,
        .grant_frames = 64,
        .grant_version = 1,
        .reserve_pages = SPARE_MOST,
        .channels = PORTS,
        .store_us = 50,
        .seed = 1,
    };

    for (unsigned i = 0; i < disks; i++)
        options.disks[i] = (struct xhost_disk){
            .number = 51776 + 16 * i,
            .sectors = 4096,
            .sector_size = 512,
            .physical_size = 512,
            .ring_order = 4,
            .segments = 256,
            .flush = true,
            .barrier = true,
            .io_us = 100,
            .step_ms = {1, 1, 1, 1, 1, 1, 1},
            .first_state = 2, /* InitWait */
        };
    return options;
}

void xhost_plug(const struct xhost_options *options)
{
    if (!machine)
        switch_on_memory();
    if (h.plugged)
        xhost_unplug();
    xhost_options = *options;
    xhost_counts = (struct xhost_counts){0};
    xhost_strict = options->fuzz == NULL;
    h.plugged = true;
    h.poor = false;
    h.now = TSC_START + 1000;
    h.steps = 0;
    h.random = options->seed;
    h.fuzz_at = 0;
    h.log[0] = 0;
    h.grant_frames = 1;
    h.grant_version = options->grant_version;
    h.happened = h.page_seen = false;
    h.excused_port = 0;
    h.excused_frame = 0;
    memset(h.ports, 0, sizeof(h.ports));
    h.ports[0] = PORT_OTHERS;
    h.ports[STORE_PORT] = h.ports[CONSOLE_PORT] = PORT_BOUND;
    h.ports[CONSOLE_PORT + 1] = PORT_OTHERS;
    see(SPARE_BASE / PAGE, SPARE_MOST, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
        (off_t)MFN_SPARE * PAGE);
    for (int32_t i = 0; i < (int32_t)SPARE_MOST; i++)
        h.p2m[SPARE_BASE / PAGE - FIRST_GFN + (uint64_t)i] = MFN_SPARE + i;
    for (int32_t mfn = MFN_SHARED; mfn < MFN_SPARE; mfn++)
        memset(machine_page(mfn), 0, PAGE);
    /* What the toolstack has granted to the console and to XenStore. */
    for (uint32_t ref = 0; ref < 2; ref++)
        *entry_of(ref) = (grant_entry_v1_t){.flags = GTF_permit_access, .frame = 0xfeffc + ref};
    for (uint32_t ref = OTHERS_FIRST; options->others_grants && ref < ENTRIES; ref += 3)
        *entry_of(ref) = others_grant;
    if (!options->no_time)
        shared()->time = (struct vcpu_time_info){
            .version = 4,
            .tsc_timestamp = TSC_START,
            .system_time = SYSTEM_START,
            .tsc_to_system_mul = 4194304000u, /* a tick is a microsecond: 1000 / 1024, … */
            .tsc_shift = 10,                  /* … times 1024 */
        };
    store_plug();
    back_plug();
    store_found("/local/domain/5");
    back_take();
}

void xhost_unplug(void)
{
    if (!h.plugged)
        return;
    back_unplug();
    store_unplug();
    for (unsigned i = 0; i < ALLOCATIONS; i++)
        if (h.allocations[i].memory)
            drop(&h.allocations[i]);
    for (uint32_t i = 0; i < ARENA_PAGES; i++)
        if (h.p2m[i] != (int32_t)i)
            set_frame(FIRST_GFN + i, (int32_t)i);
    for (uint64_t gfn = PLACE_BASE / PAGE; gfn < PLACE_BASE / PAGE + PLACE_PAGES; gfn++)
        if (machine_of(gfn) >= 0)
            set_frame(gfn, -1);
    memset(h.pins, 0, sizeof(h.pins));
    memset(h.pinned, 0, sizeof(h.pinned));
    h.plugged = false;
    model_forget();
}

void *xhost_reserve(void)
{
    return (void *)(uintptr_t)SPARE_BASE;
}

bool xhost_fault_happened(void)
{
    return xhost_options.hypercall_fails_at ? h.happened
                                            : xhost_counts.answers >= xhost_options.answer_wrong_at;
}

void xhost_last_gasp(void)
{
    for (uint32_t ref = 0; ref < ENTRIES; ref++)
        if (h.pins[ref].writes)
            memset(machine_page(h.pins[ref].mfn), 0xee, PAGE);
}

void xhost_check_as_found(void)
{
    for (uint32_t ref = 0; ref < ENTRIES; ref++) {
        const struct pin *pin = &h.pins[ref];
        uint16_t flags = entry_of(ref)->flags;
        if (pin->reads) {
            check_pin(ref);
            if (machine_of(pin->gfn) == pin->mfn)
                model_violation("C4: a backend still has a page of the guest's, by grant %u", ref);
            if (flags & GTF_type_mask)
                model_violation("C4: a backend may map a page anew, by grant %u", ref);
        } else if (!is_others(ref) && flags != 0) {
            model_violation("C7: grant %u is left with flags %#x", ref, flags);
        } else if (ref >= GNTTAB_NR_RESERVED_ENTRIES && is_others(ref) &&
                   memcmp(entry_of(ref), &others_grant, sizeof(others_grant)) != 0) {
            model_violation("grant %u, which is somebody else's, was changed", ref);
        }
    }
    for (uint32_t port = 0; port < PORTS; port++) {
        enum port_state found = port == 0 || port == CONSOLE_PORT + 1 ? PORT_OTHERS
                                : port <= CONSOLE_PORT                ? PORT_BOUND
                                                                      : PORT_FREE;
        if (h.ports[port] != found && (port != h.excused_port || port == 0))
            model_violation("C7: event channel %u is left", port);
    }
    for (uint64_t gfn = PLACE_BASE / PAGE; gfn < PLACE_BASE / PAGE + PLACE_PAGES; gfn++)
        if (machine_of(gfn) >= 0 && gfn != h.excused_frame)
            model_violation("C7: frame %#llx is left, with machine page %d",
                            (unsigned long long)gfn, machine_of(gfn));
    if (h.page_seen && !xhost_store_spoilt()) {
        const struct shared_page *page = shared();
        uint32_t bits = page->upcall_pending | page->selectors[0] | page->selectors[1];
        for (unsigned i = 0; i < 32; i++)
            bits |= page->pending[i];
        if (bits && h.excused_frame != PLACE_BASE / PAGE)
            model_violation("C7: an event is left pending");
    }
    store_check();
    back_check();
}
