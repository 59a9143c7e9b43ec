/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "tests/vm/spy.h"

struct spy spy;

/* ---- What is watched ---- */

struct slot {
    const char *name; /* of a PciIo function; boot services' are known */
    void *original;   /* likewise */
    uint64_t calls;   /* by Baton */
};

#define PCI_FIRST SERVICES_MAX
#define PCI(member)                                                                                \
    [PCI_FIRST + offsetof(EFI_PCI_IO_PROTOCOL, member) / 8] = {.name = "PciIo." #member}

static struct slot slots[SERVICE_STUBS] = {
    PCI(PollMem),    PCI(PollIo),           PCI(Mem.Read),         PCI(Mem.Write), PCI(Io.Read),
    PCI(Io.Write),   PCI(Pci.Read),         PCI(Pci.Write),        PCI(CopyMem),   PCI(Map),
    PCI(Unmap),      PCI(AllocateBuffer),   PCI(FreeBuffer),       PCI(Flush),     PCI(GetLocation),
    PCI(Attributes), PCI(GetBarAttributes), PCI(SetBarAttributes),
};

static const char *slot_name(uint32_t index)
{
    return index < PCI_FIRST ? services_name(index) : slots[index].name;
}

/* Whether a call gives a status that tells of failure, so that it may be made to fail. */
static bool can_fail(uint32_t index)
{
    switch (index) {
    case SERVICE(RaiseTPL):
    case SERVICE(RestoreTPL):
    case SERVICE(FreePages):
    case SERVICE(FreePool):
    case SERVICE(SignalEvent):
    case SERVICE(CloseEvent):
    case SERVICE(UninstallProtocolInterface):
    case SERVICE(Exit):
    case SERVICE(Stall):
    case SERVICE(CloseProtocol):
    case SERVICE(UninstallMultipleProtocolInterfaces):
    case SERVICE(CopyMem):
    case SERVICE(SetMem):
    case PCI_FIRST + offsetof(EFI_PCI_IO_PROTOCOL, Unmap) / 8:
    case PCI_FIRST + offsetof(EFI_PCI_IO_PROTOCOL, FreeBuffer) / 8:
        return false;
    default:
        return true;
    }
}

/* ---- Who calls ---- */

enum { IMAGES_MAX = 64 };
static struct {
    uint64_t base, size;
} images[IMAGES_MAX];
static size_t image_count;

static bool from_baton(uint64_t address)
{
    for (size_t i = 0; i < image_count; i++)
        if (address - images[i].base < images[i].size)
            return true;
    return false;
}

size_t spy_image_count(void)
{
    return image_count;
}

void spy_find_images(void)
{
    static EFI_HANDLE handles[256];
    size_t count = app_handles(&vm_component_name2_guid, handles, 256);

    image_count = 0;
    for (size_t i = 0; i < count && image_count < IMAGES_MAX; i++) {
        EFI_COMPONENT_NAME2_PROTOCOL *names = app_protocol(handles[i], &vm_component_name2_guid);
        EFI_LOADED_IMAGE *image = app_protocol(handles[i], &vm_loaded_image_guid);
        char ascii[sizeof(VM_DRIVER_NAME)], english[] = "en";
        CHAR16 *name;

        if (!image || EFI_ERROR(names->GetDriverName(names, (CHAR8 *)english, &name)))
            continue;
        app_format(ascii, sizeof(ascii), "%ls", name);
        if (strcmp(ascii, VM_DRIVER_NAME) != 0)
            continue;
        images[image_count].base = (uintptr_t)image->ImageBase;
        images[image_count].size = image->ImageSize;
        image_count++;
    }
}

/* ---- Every call ---- */

static unsigned exit_depth; /* exit handlers of Baton's that are running */
static uint64_t fail_countdown;

void spy_fail(uint64_t nth)
{
    fail_countdown = nth;
    spy.failed_name = NULL;
}

static void *spy_note(uint32_t index, uint64_t from)
{
    void *original = index < PCI_FIRST ? services_original(index) : slots[index].original;
    bool baton = from_baton(from);

    if (exit_depth > 0 && (baton || (index != SERVICE(RaiseTPL) && index != SERVICE(RestoreTPL)))) {
        spy.in_exit++;
        app_print("spy: C2: %s is called %s during Baton's exit handler, from 0x%llx\n",
                  slot_name(index), baton ? "by Baton" : "by others", from);
    }
    if (!baton)
        return original;
    spy.calls++;
    if (can_fail(index) && fail_countdown > 0 && --fail_countdown == 0) {
        spy.failed_name = slot_name(index);
        return NULL;
    }
    slots[index].calls++;
    return original;
}

static void *spy_hook(uint32_t index, struct services_frame *frame)
{
    return spy_note(index, frame->from);
}

uint64_t spy_calls_of(const char *name)
{
    for (uint32_t i = 0; i < SERVICE_STUBS; i++)
        if (slot_name(i) && strcmp(slot_name(i), name) == 0)
            return slots[i].calls;
    app_failed(__FILE__, __LINE__, name);
}

/* ---- Pool memory ---- */

static struct {
    uint8_t *at;
    UINTN bytes;
} pool[SPY_POOL_MAX];

static EFI_STATUS EFIAPI allocate_pool(EFI_MEMORY_TYPE type, UINTN bytes, void **out)
{
    uint64_t from = (uint64_t)(uintptr_t)__builtin_return_address(0);
    EFI_ALLOCATE_POOL original = (EFI_ALLOCATE_POOL)spy_note(SERVICE(AllocatePool), from);

    if (!original)
        return EFI_OUT_OF_RESOURCES;
    EFI_STATUS status = original(type, bytes, out);
    if (EFI_ERROR(status) || !from_baton(from))
        return status;
    for (size_t i = 0; i < SPY_POOL_MAX; i++) {
        if (!pool[i].at) {
            pool[i].at = *out;
            pool[i].bytes = bytes;
            spy.pool_live++;
            break;
        }
    }
    return status;
}

static EFI_STATUS EFIAPI free_pool(void *at)
{
    uint64_t from = (uint64_t)(uintptr_t)__builtin_return_address(0);
    EFI_FREE_POOL original = (EFI_FREE_POOL)spy_note(SERVICE(FreePool), from);

    for (size_t i = 0; from_baton(from) && i < SPY_POOL_MAX; i++) {
        if (pool[i].at == at) {
            /* Not a canonical address, whichever eight of these bytes are taken for one. */
            memset(at, 0xa5, pool[i].bytes);
            pool[i].at = NULL;
            spy.pool_live--;
        }
    }
    return original(at);
}

static bool in_live_pool(const void *pointer)
{
    for (size_t i = 0; i < SPY_POOL_MAX; i++)
        if (pool[i].at && (uintptr_t)pointer - (uintptr_t)pool[i].at < pool[i].bytes)
            return true;
    return false;
}

/* ---- Events ---- */

static void EFIAPI bracket(EFI_EVENT event, void *context)
{
    struct spy_event *known = context;

    known->calls++;
    if (!known->open || !in_live_pool(known->context)) {
        spy.dead++;
        app_print("spy: C1: an exit event is signalled whose binding is gone\n");
        return;
    }
    uint64_t start = app_tsc();
    exit_depth++;
    known->notify(event, known->context);
    exit_depth--;
    uint64_t ticks = app_tsc() - start;
    if (ticks > known->ticks)
        known->ticks = ticks;
}

/* Somebody's other events: only how many there are. */
static EFI_EVENT others[SPY_EVENTS_MAX];

static EFI_STATUS EFIAPI create_event(UINT32 type, EFI_TPL tpl, EFI_EVENT_NOTIFY notify,
                                      void *context, EFI_EVENT *event)
{
    uint64_t from = (uint64_t)(uintptr_t)__builtin_return_address(0);
    EFI_CREATE_EVENT original = (EFI_CREATE_EVENT)spy_note(SERVICE(CreateEvent), from);

    if (!original)
        return EFI_OUT_OF_RESOURCES;
    if (!from_baton(from))
        return original(type, tpl, notify, context, event);

    if (type != EVT_SIGNAL_EXIT_BOOT_SERVICES) {
        EFI_STATUS status = original(type, tpl, notify, context, event);
        for (size_t i = 0; !EFI_ERROR(status) && i < SPY_EVENTS_MAX; i++) {
            if (!others[i]) {
                others[i] = *event;
                spy.other_events_open++;
                break;
            }
        }
        return status;
    }
    app_assert(spy.event_count < SPY_EVENTS_MAX);
    struct spy_event *known = &spy.events[spy.event_count];
    EFI_STATUS status = original(type, tpl, bracket, known, event);
    if (EFI_ERROR(status))
        return status;
    *known = (struct spy_event){
        .event = *event, .notify = notify, .context = context, .tpl = tpl, .open = true};
    spy.event_count++;
    spy.exit_events_open++;
    return status;
}

static EFI_STATUS EFIAPI close_event(EFI_EVENT event)
{
    uint64_t from = (uint64_t)(uintptr_t)__builtin_return_address(0);
    EFI_CLOSE_EVENT original = (EFI_CLOSE_EVENT)spy_note(SERVICE(CloseEvent), from);
    EFI_STATUS status = original(event);

    if (EFI_ERROR(status))
        return status;
    for (size_t i = 0; i < spy.event_count; i++) {
        if (spy.events[i].open && spy.events[i].event == event) {
            spy.events[i].open = false;
            spy.exit_events_open--;
            return status;
        }
    }
    for (size_t i = 0; i < SPY_EVENTS_MAX; i++) {
        if (others[i] == event) {
            others[i] = NULL;
            spy.other_events_open--;
            break;
        }
    }
    return status;
}

/* An event's record must stay where the firmware knows it: only a tail of closed ones goes. */
void spy_forget(void)
{
    while (spy.event_count > 0 && !spy.events[spy.event_count - 1].open)
        spy.event_count--;
}

void spy_notify_exit(void)
{
    EFI_TPL tpl = app.bs ? app.bs->RaiseTPL(TPL_NOTIFY) : 0;

    for (size_t i = 0; i < spy.event_count; i++)
        if (spy.events[i].open)
            bracket(spy.events[i].event, &spy.events[i]);
    if (app.bs)
        app.bs->RestoreTPL(tpl);
}

/* ---- Coming and going ---- */

static bool every_service(uint32_t index)
{
    (void)index;
    return true;
}

void spy_install(void)
{
    spy_find_images();
    services_install(spy_hook, every_service);
    services_replace(SERVICE(AllocatePool), (void *)allocate_pool);
    services_replace(SERVICE(FreePool), (void *)free_pool);
    services_replace(SERVICE(CreateEvent), (void *)create_event);
    services_replace(SERVICE(CloseEvent), (void *)close_event);
}

static EFI_HANDLE watched[VM_DISKS_MAX];
static size_t watched_count;

void spy_watch_pci(EFI_HANDLE controller)
{
    EFI_PCI_IO_PROTOCOL *io = app_protocol(controller, &vm_pci_io_guid);
    void **members = (void **)(void *)io;

    app_assert(io != NULL && watched_count < VM_DISKS_MAX);
    for (uint32_t i = PCI_FIRST; i < SERVICE_STUBS && slots[i].name; i++) {
        void *stub = services_stub(i);
        void **member = &members[i - PCI_FIRST];
        /* All devices have the same functions behind them. */
        app_assert(*member != stub && (!slots[i].original || slots[i].original == *member));
        slots[i].original = *member;
        *member = stub;
    }
    watched[watched_count++] = controller;
}

void spy_remove(void)
{
    services_remove();
    for (size_t at = 0; at < watched_count; at++) {
        void **members = app_protocol(watched[at], &vm_pci_io_guid);
        for (uint32_t i = PCI_FIRST; i < SERVICE_STUBS && slots[i].name; i++)
            members[i - PCI_FIRST] = slots[i].original;
    }
    watched_count = 0;
}
