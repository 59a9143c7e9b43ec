// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * A Xen host, playing the other side of core/xen: the hypervisor (xen_host.c), XenStore
 * (xen_store.c) and a backend like Linux's for each disk (xen_blkback.c). It stands in for the
 * machine (core/regs.h, core/xen/abi.h): it sees every hypercall and every look at the clock.
 *
 * Guest memory is an arena whose frames fit a grant entry. Behind a guest frame is a machine page,
 * as on Xen, and the backends reach machine pages: exchanging a guest's page takes it from its
 * owner, not from who has it mapped. Where no page is, an access is caught.
 *
 * It is strict: what Xen's interfaces forbid a guest is a violation (dma.h), and so is freeing,
 * granting anew or moving what a backend may still touch. It can also be slow, deaf, broken or a
 * liar; see xhost_options.
 *
 * There is one host at a time. Time is simulated: each hypercall and each look at the clock costs
 * some; the others work while the guest waits, or, if they have CPUs of their own, at any time.
 */
#pragma once

#include "core/disk.h"
#include "tests/model/dma.h"

#define XHOST_TICKS_PER_MS 1000u
#define XHOST_NEVER        UINT32_MAX
#define XHOST_DISKS_MAX    8u
#define XHOST_GUEST        5u /* our domain's number */

/* When a backend finishes what it was given. */
enum xhost_pace {
    XHOST_IN_ORDER,   /* while the guest waits */
    XHOST_ONE_BY_ONE, /* one for each time that the guest waits */
    XHOST_SHUFFLED,   /* some of them, in any order */
    XHOST_BY_HAND,    /* in xhost_finish() only */
    XHOST_LAST_FIRST, /* the same, the latest before the others */
};

/* Lies of a backend's about requests, and failures that look like them (C9). */
enum xhost_lie {
    XLIE_NONE,
    XLIE_ID_OUT_OF_RANGE,
    XLIE_ID_HUGE,
    XLIE_ID_OF_NOBODY,
    XLIE_ID_TWICE,
    XLIE_OPERATION,
    XLIE_STATUS_ERROR,
    XLIE_STATUS_UNKNOWN,
    XLIE_UNSUPPORTED, /* of a flush only */
    XLIE_INDEX_JUMPS,
    XLIE_INDEX_BACK,
    XLIE_KEEPS_PAGES, /* answers, and has the pages mapped all the same */
    XLIE_LOST,        /* no answer */
};

/* What is wrong with an answer of XenStore's. */
enum xhost_fault {
    XFAULT_ERROR,     /* an error, and nothing was done */
    XFAULT_LOST,      /* done, and no answer */
    XFAULT_DEAD,      /* XenStore stops reading */
    XFAULT_WRONG_ID,  /* an answer to something else */
    XFAULT_TOO_LONG,  /* longer than any message can be */
    XFAULT_OVERLONG,  /* a value of 2000 bytes */
    XFAULT_NO_NUMBER, /* a text where a number should be */
    XFAULT_EMPTY,
    XFAULT_ZEROES,
    XFAULT_TWICE,
    XFAULT_INDEX, /* the ring's index goes astray */
    XFAULT_SLOW,  /* two seconds late */
    XFAULTS,
};

/* What the fuzzer's bytes are spent on: any of them together. */
enum xhost_target {
    TARGET_STORE = 1, /* XenStore's messages */
    TARGET_KEYS = 2,  /* what backends publish */
    TARGET_RING = 4,  /* their answers */
    TARGET_WILD = 8,  /* memory that is shared, and states at any time */
    TARGET_XEN = 16,  /* hypercalls */
};

struct xhost_disk {
    uint32_t number; /* of the virtual device */
    uint64_t sectors;
    uint32_t sector_size, physical_size, info;
    unsigned ring_order; /* max-ring-page-order; 0: no such key */
    uint32_t segments;   /* feature-max-indirect-segments; 0: no such key */
    bool flush, barrier;
    bool copies_operation; /* answers an indirect request as such, as QEMU does */
    bool cycles;           /* goes on from Closed to InitWait by itself, as QEMU does */

    enum xhost_pace pace;
    uint32_t io_us;      /* until a request may be finished */
    uint32_t step_ms[7]; /* how long it takes to go to each state, or XHOST_NEVER */
    unsigned first_state;
    bool refuses;      /* goes to Closing instead of Connected */
    bool taken;        /* another frontend was connected, and is gone without a word */
    bool never_unmaps; /* says that it is closed, and is not */
    enum xhost_lie lie;
    uint32_t lies; /* about how many requests; then the backend is honest */
    /* Keys of the backend's that have another value, or none (NULL). */
    struct {
        const char *name, *value;
    } instead[2];
};

struct xhost_options {
    unsigned disk_count;
    struct xhost_disk disks[XHOST_DISKS_MAX];

    uint32_t leaf;       /* where CPUID tells of Xen; 0: nowhere */
    bool other_too;      /* and of another hypervisor before it */
    bool parallel;       /* the others have CPUs of their own */
    bool no_shared_page; /* it cannot be mapped */
    bool no_time;        /* the shared-info page does not tell the time */
    uint32_t spurious;   /* one wait in so many ends for no reason; 0: none */
    uint32_t grant_frames;
    uint32_t grant_version;
    bool others_grants;     /* every third entry is taken by somebody else */
    uint32_t reserve_pages; /* that the guest has for grants_reserve() */
    uint32_t channels;      /* event channels that there can be */

    uint32_t store_us;    /* until XenStore looks at a request */
    uint32_t store_chunk; /* bytes that it moves at a time; 0: all */
    uint32_t ring_start;  /* its ring's indices at first */
    bool relic;           /* an answer and an event of a former owner's are in the ring */
    bool half_answer;     /* the former owner has left in the middle of an answer */
    bool half_request;    /* … or of a request */
    bool reconnection;    /* is offered */
    bool event_first;     /* a watch's first event comes before the answer */
    bool noise;           /* events that nobody asked for between answers */
    bool flood;           /* … as many as there is room for, without an end */
    uint32_t read_errors; /* that many reads fail, as where XenStore has no memory */
    uint32_t conflicts;   /* that many transactions fail because of others */

    uint32_t seed;
    /* Hypercall k fails, from 1, and answer k of XenStore's is wrong; 0 for none. */
    uint64_t hypercall_fails_at;
    uint64_t answer_wrong_at;
    enum xhost_fault fault;

    /* Bytes that replace honest answers. With them the host is no longer strict about what it
     * hears, only about memory. */
    const uint8_t *fuzz;
    size_t fuzz_bytes;
    unsigned targets;

    bool no_complaints; /* about what is asked for, only about memory, as with the fuzzer */

    uint64_t steps_most; /* calls into the model before the driver counts as hung; 0: the usual */
};

struct xhost_counts {
    uint64_t hypercalls; /* but yields */
    uint64_t sends, polls, yields;
    uint64_t waits; /* polls and yields that did not return at once */
    uint64_t messages, answers, watch_events;
    uint64_t requests, indirect, segments, flushes, responses;
    uint64_t grants_mapped, logs, replaced;
    uint32_t most_in_flight;
};

struct xhost_options xhost_usual(unsigned disks);

/* The machine is switched on. Each disk holds xhost_pattern() of every byte's place. */
void xhost_plug(const struct xhost_options *options);
/* And off, all violations forgotten. */
void xhost_unplug(void);
/* May be changed while it runs. */
struct xhost_options *xhost_now(void);
const struct xhost_counts *xhost_counted(void);

const struct rich_door *xhost_door(void);
struct reg_window xhost_place(void);
const char *xhost_last_log(void);
uint64_t xhost_time(void);
/* Time passes, and the others work. */
void xhost_skip_ms(uint64_t ms);
/* While set, a call through the rich door is a violation (C2). */
void xhost_poor(bool poor);

/* Guest memory. Not a byte beyond what was asked for may be touched, by anybody. */
void *xhost_alloc(size_t bytes, size_t misalign);
void xhost_free(void *memory);
/* Page-aligned and zeroed. */
void xhost_share(size_t bytes, struct dma_block *block);
void xhost_unshare(const struct dma_block *block);
unsigned xhost_allocations(void);
/* Whether some other domain can still touch any of it. */
bool xhost_shown(const void *memory, size_t bytes);

/* Pages for grants_reserve(), as many as the options say. */
void *xhost_reserve(void);

/* Disks. */
uint8_t xhost_pattern(unsigned disk, uint64_t place);
unsigned char *xhost_disk(unsigned disk);
unsigned char *xhost_stable(unsigned disk); /* what would survive a loss of power */
size_t xhost_disk_bytes(unsigned disk);
unsigned xhost_finish(unsigned disk, unsigned most);
unsigned xhost_in_flight(unsigned disk);
bool xhost_connected(unsigned disk);
unsigned xhost_backend_state(unsigned disk);
unsigned xhost_frontend_state(unsigned disk);
/* Ring pages of a connected backend. */
unsigned xhost_ring_pages(unsigned disk);
/* The backend begins to close by itself; is told to go for good (xl block-detach); dies with all
 * that it has; all its keys and ours are gone. */
void xhost_close(unsigned disk);
void xhost_unplug_disk(unsigned disk);
void xhost_kill(unsigned disk);
void xhost_vanish(unsigned disk);
void xhost_add_disk(const struct xhost_disk *disk);
/* An idle ring's indices become `index`, on the backend's side. */
void xhost_wind(unsigned disk, uint32_t index);

/* XenStore, as the toolstack sees it. NULL: no such key. */
const char *xhost_key(const char *path);
void xhost_write(const char *path, const char *value);
void xhost_remove(const char *path);
unsigned xhost_watches(void);
/* XenStore does not answer any more, until the ring is made anew. */
void xhost_break_store(void);

/* Whatever the backends can still do to memory, they do now. */
void xhost_last_gasp(void);

/*
 * Each thing that the guest has not left as it found it is a violation (C4, C5, C7). What a fault
 * of the host's own has made impossible is excused: a backend that does not take a step, a channel
 * that could not be closed.
 */
void xhost_check_as_found(void);
/* Whether some answer of XenStore's has been such that nothing more can be asked of it. */
bool xhost_store_spoilt(void);
/* Whether the k-th thing has failed. */
bool xhost_fault_happened(void);

/* Called when a driver has made an absurd number of calls without an end (C6). */
extern void (*xhost_hung)(void);
