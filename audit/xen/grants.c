/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The table is Xen's, but asking for its frames' addresses tells whether and where they are mapped.
 * Where they are not, they are mapped for as long as this takes, at the end of the platform
 * device's BAR 1, where there is no memory that could be lost.
 */
#include "audit/xen/findings.h"
#include "audit/xen/grants.h"
#include "audit/xen/hypervisor.h"
#include "lab/efi/app.h"

#include <xen/grant_table.h>
#include <xen/memory.h>

enum {
    FRAMES_MAX = 64, /* of the table: as many as Xen gives unless told otherwise */
    GRANT_BUSY = GTF_reading | GTF_writing,
};

/* What Xen reads and writes must look here as it looks there. */
_Static_assert(sizeof(struct gnttab_query_size) == 16, "gnttab_query_size");
_Static_assert(offsetof(struct gnttab_setup_table, frame_list) == 16, "gnttab_setup_table");
_Static_assert(sizeof(grant_entry_v1_t) == 8 && sizeof(grant_entry_v2_t) == 16, "grant entries");

/* XENMEM_add_to_physmap and XENMEM_remove_from_physmap with 64-bit fields. */
struct add_to_physmap {
    uint16_t domid, size;
    uint32_t space;
    uint64_t index, frame;
};
struct remove_from_physmap {
    uint16_t domid, padding[3];
    uint64_t frame;
};

struct grant {
    uint32_t ref;
    uint16_t flags;
    uint16_t domain;
    uint64_t frame;
};

struct grants grants;

#define NOT_MAPPED (~0ull)

static uint32_t frame_count;
static uint64_t frames[FRAMES_MAX]; /* where the firmware has them mapped, as frame numbers */
static uint64_t ours[FRAMES_MAX];   /* where we have mapped them, or 0 */
static struct grant used[GRANTS_MAX];
static uint64_t spare, spare_pages; /* BAR 1: frames of nobody's memory */

/* Where the platform device's BAR 1 is. Nothing is there but a place for pages of Xen's. */
static void find_spare_frames(void)
{
    static const EFI_GUID pci_io_guid = EFI_PCI_IO_PROTOCOL_GUID;
    static EFI_HANDLE handles[256];
    enum { PLATFORM_ID = 0x00015853, QWORD = 0x8a, MEMORY = 0, MIN_AT = 14, LENGTH_AT = 38 };
    size_t count = app_handles(&pci_io_guid, handles, 256);

    for (size_t i = 0; i < count && spare == 0; i++) {
        EFI_PCI_IO_PROTOCOL *io = app_protocol(handles[i], &pci_io_guid);
        uint8_t *bar = NULL;
        UINT32 id = 0;
        uint64_t base, length;

        if (io == NULL || EFI_ERROR(io->Pci.Read(io, EfiPciIoWidthUint32, 0, 1, &id)) ||
            id != PLATFORM_ID || EFI_ERROR(io->GetBarAttributes(io, 1, NULL, (void **)&bar)) ||
            bar == NULL)
            continue;
        memcpy(&base, bar + MIN_AT, sizeof(base));
        memcpy(&length, bar + LENGTH_AT, sizeof(length));
        /* Own page tables reach the first 4 GiB whatever else they do; hvmloader puts it there. */
        if (bar[0] == QWORD && bar[3] == MEMORY && base != 0 && base < 1ull << 32 &&
            length <= (1ull << 32) - base && length >= FRAMES_MAX * 4096ull) {
            spare = base / 4096;
            spare_pages = length / 4096;
        }
        app.bs->FreePool(bar);
    }
}

/* Whose entry these are: the toolstack's own, made when the domain was. */
static bool grant_reserved(uint32_t ref)
{
    return ref == GNTTAB_RESERVED_CONSOLE || ref == GNTTAB_RESERVED_XENSTORE;
}

static bool grant_table_op(uint64_t command, void *argument)
{
    return hypercall(__HYPERVISOR_grant_table_op, command, argument, 1) == 0;
}

/* How big the table is and where it is mapped; changes nothing. */
static void grants_find(void)
{
    static struct gnttab_query_size size;
    static struct gnttab_get_version version;
    static struct gnttab_setup_table setup;

    grants.unseen = NULL;
    frame_count = 0;
    size = (struct gnttab_query_size){.dom = DOMID_SELF};
    if (!grant_table_op(GNTTABOP_query_size, &size) || size.status != GNTST_okay) {
        grants.unseen = "Xen does not say how big the grant table is";
        return;
    }
    version = (struct gnttab_get_version){.dom = DOMID_SELF};
    if (!grant_table_op(GNTTABOP_get_version, &version))
        version.version = 1; /* a Xen that has never heard of another */
    if (version.version > 2) {
        grants.unseen = "the grant table is of a version not known here";
        return;
    }
    grants.version = version.version == 2 ? 2 : 1;
    if (size.nr_frames > FRAMES_MAX) {
        grants.unseen = "the grant table is too big";
        return;
    }
    frame_count = size.nr_frames;
    for (size_t i = 0; i < FRAMES_MAX; i++)
        frames[i] = NOT_MAPPED;
    if (size.nr_frames == 0)
        return;
    /* Not more frames than there are: that would make the table grow. */
    setup = (struct gnttab_setup_table){.dom = DOMID_SELF, .nr_frames = size.nr_frames};
    setup.frame_list.p = (void *)frames;
    if (!grant_table_op(GNTTABOP_setup_table, &setup) || setup.status != GNTST_okay)
        grants.unseen = "Xen does not say where the grant table is";
    /* An address beyond any processor's is Xen's word for "nowhere". */
    for (size_t i = 0; i < FRAMES_MAX; i++)
        if (frames[i] >> 40 != 0)
            frames[i] = NOT_MAPPED;
}

/* Maps what the firmware has not; only after the exit. */
static void grants_map(void)
{
    static struct add_to_physmap add;

    for (uint32_t i = 0; i < frame_count && grants.unseen == NULL; i++) {
        if (frames[i] != NOT_MAPPED || ours[i] != 0)
            continue;
        if (spare == 0) {
            grants.unseen = "nobody has the grant table mapped, and without the platform device "
                            "there is no place to map it";
            return;
        }
        add = (struct add_to_physmap){.domid = DOMID_SELF,
                                      .space = XENMAPSPACE_grant_table,
                                      .index = i,
                                      .frame = spare + spare_pages - 1 - i};
        if (hypercall(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, &add, 0) != 0) {
            grants.unseen = "Xen does not map the grant table";
            return;
        }
        ours[i] = add.frame;
    }
}

/* One entry, read once. */
static struct grant grant_read(const volatile void *table, uint32_t index)
{
    struct grant grant = {0};

    if (grants.version == 2) {
        const volatile grant_entry_v2_t *entry = (const volatile grant_entry_v2_t *)table + index;

        grant.flags = entry->hdr.flags;
        grant.domain = entry->hdr.domid;
        if ((grant.flags & GTF_type_mask) != GTF_transitive)
            grant.frame = entry->full_page.frame;
        /* Here these two bits mean nothing: Xen keeps them elsewhere. */
        grant.flags &= (uint16_t)~GRANT_BUSY;
    } else {
        const volatile grant_entry_v1_t *entry = (const volatile grant_entry_v1_t *)table + index;

        grant.flags = entry->flags;
        grant.domain = entry->domid;
        grant.frame = entry->frame;
    }
    return grant;
}

/* Collects the entries that are not empty. */
static void grants_read(void)
{
    bool v2 = grants.version == 2;
    uint32_t each = 4096 / (uint32_t)(v2 ? sizeof(grant_entry_v2_t) : sizeof(grant_entry_v1_t));

    grants.used_count = 0;
    for (uint32_t i = 0; i < frame_count && grants.unseen == NULL; i++) {
        uint64_t frame = ours[i] != 0 ? ours[i] : frames[i];

        if (frame == NOT_MAPPED)
            continue;
        for (uint32_t j = 0; j < each; j++) {
            struct grant grant = grant_read((void *)(uintptr_t)(frame * 4096), j);

            grant.ref = i * each + j;
            if (grant.flags == 0 || grant_reserved(grant.ref))
                continue;
            if (grants.used_count < GRANTS_MAX)
                used[grants.used_count] = grant;
            grants.used_count++;
        }
    }
}

void grants_before(void)
{
    find_spare_frames();
    grants_find();
    grants_read();
}

void grants_exit(void)
{
    grants_find();
    grants_map();
    grants_read();
}

void grants_unmap(void)
{
    static struct remove_from_physmap remove;

    for (size_t i = 0; i < FRAMES_MAX; i++) {
        if (ours[i] == 0)
            continue;
        remove = (struct remove_from_physmap){.domid = DOMID_SELF, .frame = ours[i]};
        if (hypercall(__HYPERVISOR_memory_op, XENMEM_remove_from_physmap, &remove, 0) != 0)
            say(domain_name, "grant-table", NEITHER, "frame %zu stays at 0x%llx", i,
                (unsigned long long)ours[i] * 4096);
        ours[i] = 0;
    }
}

static size_t grants_kept(void)
{
    return grants.used_count < GRANTS_MAX ? grants.used_count : GRANTS_MAX;
}

size_t grants_busy(uint32_t domain)
{
    size_t busy = 0;

    for (size_t i = 0; i < grants_kept(); i++)
        busy += (used[i].flags & GRANT_BUSY) != 0 &&
                (domain == DOMID_INVALID || used[i].domain == domain);
    return busy;
}

bool grant_ref_busy(uint32_t ref)
{
    for (size_t i = 0; i < grants_kept(); i++)
        if (used[i].ref == ref)
            return (used[i].flags & GRANT_BUSY) != 0;
    return false;
}

static const char *grant_use(uint16_t flags)
{
    if (grants.version == 2)
        return "whether it is mapped, version 2 does not say";
    switch (flags & GRANT_BUSY) {
    case 0:
        return "not mapped";
    case GTF_reading:
        return "mapped for reading";
    default:
        return "mapped for writing";
    }
}

void grants_tell_place(void)
{
    uint32_t mapped = 0;

    if (grants.unseen != NULL) {
        say(domain_name, "grant-table", NEITHER, "%s", grants.unseen);
        return;
    }
    for (uint32_t i = 0; i < frame_count; i++)
        mapped += frames[i] != NOT_MAPPED;
    if (frames[0] != NOT_MAPPED)
        say(domain_name, "grant-table", NEITHER,
            "version %u, %u pages, %u of them mapped by the firmware, the first at 0x%llx",
            grants.version, frame_count, mapped, (unsigned long long)frames[0] * 4096);
    else
        say(domain_name, "grant-table", NEITHER, "version %u, %u pages, %u mapped by the firmware",
            grants.version, frame_count, mapped);
}

void grants_tell(void)
{
    size_t told = 0;

    grants_tell_place();
    for (size_t i = 0; i < grants_kept() && told < LINES_MAX; i++, told++) {
        const struct grant *grant = &used[i];

        say(domain_name, "grant", WRONG, "%u: frame 0x%llx to domain %u, flags 0x%x, %s%s",
            grant->ref, (unsigned long long)grant->frame, grant->domain, grant->flags,
            (grant->flags & GTF_readonly) != 0 ? "read-only, " : "", grant_use(grant->flags));
    }
    say_lost("grants", grants.used_count - told);
    if (grants.unseen != NULL)
        reason(&domain_unseen, "%s", grants.unseen);
    else if (grants.used_count > 0)
        reason(&domain_wrong, "grants left: %zu", grants.used_count);
}
