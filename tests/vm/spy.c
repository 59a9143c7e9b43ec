/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "tests/vm/spy.h"

struct spy spy;

/* ---- The stubs ---- */

/*
 * Stub i is at spy_stubs + 16 i. It asks spy_note() where to go, with the arguments put aside; all
 * that a caller has put on the stack stays where it is. Address 0 means: fail.
 */
enum { STUBS = 64, STUB_BYTES = 16 };
extern const uint8_t spy_stubs[];
void *spy_note(uint32_t index, uint64_t from);

__asm__(".text\n"
        ".balign 16\n"
        ".globl spy_stubs\n"
        "spy_stubs:\n"
        ".set stub, 0\n"
        ".rept 64\n"
        ".balign 16\n"
        "movl $stub, %eax\n"
        "jmp spy_common\n"
        ".set stub, stub + 1\n"
        ".endr\n"
        "spy_common:\n"
        "pushq %rcx\n"
        "pushq %rdx\n"
        "pushq %r8\n"
        "pushq %r9\n"
        "subq $40, %rsp\n" /* room that the callee may use, and alignment */
        "movl %eax, %ecx\n"
        "movq 72(%rsp), %rdx\n" /* the return address */
        "call spy_note\n"
        "addq $40, %rsp\n"
        "popq %r9\n"
        "popq %r8\n"
        "popq %rdx\n"
        "popq %rcx\n"
        "testq %rax, %rax\n"
        "jz 1f\n"
        "jmpq *%rax\n"
        "1: movabsq $0x8000000000000009, %rax\n" /* EFI_OUT_OF_RESOURCES */
        "retq\n");

struct slot {
    const char *name;
    void *original;
    uint64_t calls; /* by Baton */
    bool can_fail;
    bool tpl; /* the timer interrupt of a firmware calls these */
};

#define BS_FIRST  0u
#define PCI_FIRST 44u
#define BS(member, fails)                                                                          \
    [(offsetof(EFI_BOOT_SERVICES, member) - sizeof(EFI_TABLE_HEADER)) / 8] = {.name = #member,     \
                                                                              .can_fail = fails}
#define PCI(member, fails)                                                                         \
    [PCI_FIRST + offsetof(EFI_PCI_IO_PROTOCOL, member) / 8] = {.name = "PciIo." #member,           \
                                                               .can_fail = fails}

static struct slot slots[STUBS] = {
    BS(RaiseTPL, false),
    BS(RestoreTPL, false),
    BS(AllocatePages, true),
    BS(FreePages, false),
    BS(GetMemoryMap, true),
    BS(AllocatePool, true),
    BS(FreePool, false),
    BS(CreateEvent, true),
    BS(SetTimer, true),
    BS(WaitForEvent, true),
    BS(SignalEvent, false),
    BS(CloseEvent, false),
    BS(CheckEvent, true),
    BS(InstallProtocolInterface, true),
    BS(ReinstallProtocolInterface, true),
    BS(UninstallProtocolInterface, false),
    BS(HandleProtocol, true),
    BS(RegisterProtocolNotify, true),
    BS(LocateHandle, true),
    BS(LocateDevicePath, true),
    BS(InstallConfigurationTable, true),
    BS(LoadImage, true),
    BS(StartImage, true),
    BS(Exit, false),
    BS(UnloadImage, true),
    BS(ExitBootServices, true),
    BS(GetNextMonotonicCount, true),
    BS(Stall, false),
    BS(SetWatchdogTimer, true),
    BS(ConnectController, true),
    BS(DisconnectController, true),
    BS(OpenProtocol, true),
    BS(CloseProtocol, false),
    BS(OpenProtocolInformation, true),
    BS(ProtocolsPerHandle, true),
    BS(LocateHandleBuffer, true),
    BS(LocateProtocol, true),
    BS(InstallMultipleProtocolInterfaces, true),
    BS(UninstallMultipleProtocolInterfaces, false),
    BS(CalculateCrc32, true),
    BS(CopyMem, false),
    BS(SetMem, false),
    BS(CreateEventEx, true),
    PCI(PollMem, true),
    PCI(PollIo, true),
    PCI(Mem.Read, true),
    PCI(Mem.Write, true),
    PCI(Io.Read, true),
    PCI(Io.Write, true),
    PCI(Pci.Read, true),
    PCI(Pci.Write, true),
    PCI(CopyMem, true),
    PCI(Map, true),
    PCI(Unmap, false),
    PCI(AllocateBuffer, true),
    PCI(FreeBuffer, false),
    PCI(Flush, true),
    PCI(GetLocation, true),
    PCI(Attributes, true),
    PCI(GetBarAttributes, true),
    PCI(SetBarAttributes, true),
};

#define SLOT_OF(member)                                                                            \
    ((uint32_t)((offsetof(EFI_BOOT_SERVICES, member) - sizeof(EFI_TABLE_HEADER)) / 8))

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

void *spy_note(uint32_t index, uint64_t from)
{
    struct slot *slot = &slots[index];
    bool baton = from_baton(from);

    if (exit_depth > 0 && (baton || (index != SLOT_OF(RaiseTPL) && index != SLOT_OF(RestoreTPL)))) {
        spy.in_exit++;
        app_print("spy: C2: %s is called %s during Baton's exit handler, from 0x%llx\n", slot->name,
                  baton ? "by Baton" : "by others", from);
    }
    if (!baton)
        return slot->original;
    spy.calls++;
    if (slot->can_fail && fail_countdown > 0 && --fail_countdown == 0) {
        spy.failed_name = slot->name;
        return NULL;
    }
    slot->calls++;
    return slot->original;
}

uint64_t spy_calls_of(const char *name)
{
    for (size_t i = 0; i < STUBS; i++)
        if (slots[i].name && strcmp(slots[i].name, name) == 0)
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
    EFI_ALLOCATE_POOL original = (EFI_ALLOCATE_POOL)spy_note(SLOT_OF(AllocatePool), from);

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
    EFI_FREE_POOL original = (EFI_FREE_POOL)spy_note(SLOT_OF(FreePool), from);

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
    EFI_CREATE_EVENT original = (EFI_CREATE_EVENT)spy_note(SLOT_OF(CreateEvent), from);

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
    EFI_CLOSE_EVENT original = (EFI_CLOSE_EVENT)spy_note(SLOT_OF(CloseEvent), from);
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

static void **bs_members(void)
{
    return (void **)(void *)((uint8_t *)app.bs + sizeof(EFI_TABLE_HEADER));
}

static void seal(void)
{
    UINT32 crc = 0;

    app.bs->Hdr.CRC32 = 0;
    app_assert_ok(app.bs->CalculateCrc32(app.bs, app.bs->Hdr.HeaderSize, &crc));
    app.bs->Hdr.CRC32 = crc;
}

void spy_install(void)
{
    static const struct {
        uint32_t index;
        void *function;
    } own[] = {
        {SLOT_OF(AllocatePool), (void *)allocate_pool},
        {SLOT_OF(FreePool), (void *)free_pool},
        {SLOT_OF(CreateEvent), (void *)create_event},
        {SLOT_OF(CloseEvent), (void *)close_event},
    };
    void **members = bs_members();

    app_assert(app.bs->Hdr.HeaderSize >= sizeof(EFI_TABLE_HEADER) + PCI_FIRST * sizeof(*members));
    spy_find_images();
    for (uint32_t i = BS_FIRST; i < PCI_FIRST; i++) {
        slots[i].original = members[i];
        if (slots[i].name)
            members[i] = (void *)(uintptr_t)(spy_stubs + STUB_BYTES * i);
    }
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        members[own[i].index] = own[i].function;
    seal();
}

static EFI_HANDLE watched[VM_DISKS_MAX];
static size_t watched_count;

void spy_watch_pci(EFI_HANDLE controller)
{
    EFI_PCI_IO_PROTOCOL *io = app_protocol(controller, &vm_pci_io_guid);
    void **members = (void **)(void *)io;

    app_assert(io != NULL && watched_count < VM_DISKS_MAX);
    for (uint32_t i = PCI_FIRST; i < STUBS && slots[i].name; i++) {
        void *stub = (void *)(uintptr_t)(spy_stubs + STUB_BYTES * i);
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
    void **members = bs_members();

    for (uint32_t i = BS_FIRST; i < PCI_FIRST; i++)
        members[i] = slots[i].original;
    seal();
    for (size_t at = 0; at < watched_count; at++) {
        members = app_protocol(watched[at], &vm_pci_io_guid);
        for (uint32_t i = PCI_FIRST; i < STUBS && slots[i].name; i++)
            members[i - PCI_FIRST] = slots[i].original;
    }
    watched_count = 0;
}
