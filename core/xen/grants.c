// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "core/xen/grants.h"

#define IN_USE (GTF_reading | GTF_writing) /* Xen sets these while a page is mapped */

/* How often to try to end a grant which Xen is changing at that very moment. */
#define TRIES_MAX 1000u

static intptr_t memory_op(unsigned command, void *argument)
{
    return hypercall(__HYPERVISOR_memory_op, command, argument, 0);
}

static intptr_t grant_op(unsigned command, void *argument)
{
    return hypercall(__HYPERVISOR_grant_table_op, command, argument, 1);
}

static bool physmap_add(uint32_t space, uintptr_t index, uintptr_t frame)
{
    struct physmap_add add = {.domid = DOMID_SELF, .space = space, .index = index, .frame = frame};
    return memory_op(XENMEM_add_to_physmap, &add) == 0;
}

/* Makes one more frame of the table ours to see. Its entries are free, but for those that are not
 * empty: somebody has left them, or they are the toolstack's. */
static bool grow(struct grants *grants)
{
    if (grants->frames == grants->frames_max)
        return false;
    uint32_t first = grants->frames * GRANTS_PER_FRAME;
    grant_entry_v1_t *entries = &grants->table[first];
    if (!physmap_add(XENMAPSPACE_grant_table, grants->frames, frame_of(entries)))
        return false;
    grants->frames++;

    /* Backwards, so that they are given out from the lowest on. */
    for (uint32_t i = GRANTS_PER_FRAME; i-- > 0;) {
        if (first + i < GNTTAB_NR_RESERVED_ENTRIES || entries[i].flags != GTF_invalid)
            continue;
        grants->next[first + i] = grants->unused;
        grants->unused = (grant_list)(first + i);
    }
    return true;
}

bool grants_start(struct grants *grants, void *place, uint32_t frames)
{
    struct gnttab_query_size size = {.dom = DOMID_SELF};
    struct gnttab_get_version version = {.dom = DOMID_SELF};

    grants->table = place;
    grants->frames = 0;
    grants->frames_max = 0;
    grants->replaced = 0;
    grants->reserve = NULL;
    grants->reserve_pages = 0;
    grants->unused = 0;
    if (grant_op(GNTTABOP_query_size, &size) != 0 || size.status != GNTST_okay)
        return false;
    grants->frames_max = size.max_nr_frames < frames ? size.max_nr_frames : frames;
    if (grants->frames_max > GRANT_FRAMES_MAX)
        grants->frames_max = GRANT_FRAMES_MAX;
    /* A Xen that does not know the question knows one version only. The answer may be refused where
     * somebody else's grants are in use. */
    if (grant_op(GNTTABOP_get_version, &version) == 0 && version.version != 1) {
        struct gnttab_set_version set = {.version = 1};
        if (grant_op(GNTTABOP_set_version, &set) != 0)
            return false;
    }
    return grow(grants);
}

void grants_stop(struct grants *grants)
{
    while (grants->frames > 0) {
        grants->frames--;
        struct physmap_remove remove = {
            .domid = DOMID_SELF,
            .frame = frame_of(&grants->table[grants->frames * GRANTS_PER_FRAME]),
        };
        memory_op(XENMEM_remove_from_physmap, &remove);
    }
    grants->unused = 0;
    grants->frames_max = 0;
}

uint32_t grant_give(struct grants *grants, grant_list *list, domid_t domain, const void *page,
                    bool may_write)
{
    uintptr_t frame = frame_of(page);

    if ((uint32_t)frame != frame || (grants->unused == 0 && !grow(grants)))
        return 0;
    grant_list ref = grants->unused;
    if (ref == 0)
        return 0; /* a frame full of what others have left */
    grants->unused = grants->next[ref];
    grants->next[ref] = *list;
    *list = ref;

    grant_entry_v1_t *entry = &grants->table[ref];
    entry->domid = domain;
    entry->frame = (uint32_t)frame;
    /* It counts as soon as it has flags: the rest comes first. */
    __atomic_store_n(&entry->flags, (uint16_t)(GTF_permit_access | (may_write ? 0 : GTF_readonly)),
                     __ATOMIC_RELEASE);
    return ref;
}

static bool end_one(grant_entry_v1_t *entry)
{
    uint16_t flags = __atomic_load_n(&entry->flags, __ATOMIC_RELAXED);

    for (unsigned tries = 0; !(flags & IN_USE) && tries < TRIES_MAX; tries++)
        if (__atomic_compare_exchange_n(&entry->flags, &flags, GTF_invalid, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_RELAXED))
            return true;
    return false;
}

bool grants_end(struct grants *grants, grant_list *list)
{
    grant_list kept = 0;

    while (*list != 0) {
        grant_list ref = *list, *to = &kept;
        *list = grants->next[ref];
        if (end_one(&grants->table[ref]))
            to = &grants->unused;
        grants->next[ref] = *to;
        *to = ref;
    }
    *list = kept;
    return kept == 0;
}

void grants_reserve(struct grants *grants, void *pages, uint32_t count)
{
    grants->reserve = pages;
    grants->reserve_pages = count;
}

/* A page of the reserve takes the place of an old one in this domain's memory, contents and all. */
static bool replace(struct grants *grants, uintptr_t frame)
{
    if (grants->reserve_pages == 0)
        return false;
    uint8_t *page = grants->reserve + (grants->reserve_pages - 1) * XEN_PAGE;
    __builtin_memcpy(page, (const void *)(frame * XEN_PAGE), XEN_PAGE);
    if (!physmap_add(XENMAPSPACE_gmfn, frame_of(page), frame))
        return false;
    grants->reserve_pages--;
    return true;
}

bool grants_take_back(struct grants *grants, grant_list *list)
{
    bool done = true;

    grants_end(grants, list);
    while (*list != 0) {
        grant_list ref = *list;
        *list = grants->next[ref];
        /* The entry itself stays in use until the other side lets go, and is then as good as ended:
         * to map the page once more would be to map the new one. */
        __atomic_fetch_and(&grants->table[ref].flags, IN_USE, __ATOMIC_SEQ_CST);
        if (replace(grants, grants->table[ref].frame))
            grants->replaced++;
        else
            done = false;
    }
    return done;
}
