/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "audit/calls.h"
#include "audit/devices.h"
#include "audit/report.h"

/* UEFI 2.10 §7.1, at CreateEventEx(). */
static const EFI_GUID before_exit_guid = {
    0x8be0e274, 0x3970, 0x4b44, {0x80, 0xc5, 0x1a, 0xb9, 0x50, 0x2f, 0x3b, 0xfc}};
static const EFI_GUID exit_guid = {
    0x27abf055, 0xb1b8, 0x4c26, {0x80, 0x48, 0x74, 0x8f, 0x37, 0xba, 0xa2, 0xdf}};

enum group { GROUP_NONE, GROUP_BEFORE, GROUP_EXIT };
static const char *const group_names[] = {
    [GROUP_NONE] = "", [GROUP_BEFORE] = "before", [GROUP_EXIT] = "exit"};

/* ---- What may be called, and what may not ---- */

enum judged { ALLOWED, CONTRACT, SPECIFICATION };
static const char *const judged_names[] = {
    [ALLOWED] = "allowed", [CONTRACT] = "contract", [SPECIFICATION] = "specification"};

/*
 * UEFI 2.10 §7.1: a handler must not use memory services, nor whatever uses them, nor depend on
 * timers. Whatever makes, changes or remembers an entry in a database of the firmware's allocates;
 * what only looks one up need not, but C2 wants no protocol service at all.
 */
static enum judged judge(uint32_t service, const uint64_t args[4])
{
    /* To cancel one is not to depend on it. */
    if (service == SERVICE(SetTimer) && args[1] == TimerCancel)
        return CONTRACT;
    switch (service) {
    case SERVICE(AllocatePages):
    case SERVICE(FreePages):
    case SERVICE(GetMemoryMap):
    case SERVICE(AllocatePool):
    case SERVICE(FreePool):
    case SERVICE(CreateEvent):
    case SERVICE(CreateEventEx):
    case SERVICE(CloseEvent):
    case SERVICE(SetTimer):
    case SERVICE(WaitForEvent):
    case SERVICE(InstallProtocolInterface):
    case SERVICE(ReinstallProtocolInterface):
    case SERVICE(UninstallProtocolInterface):
    case SERVICE(InstallMultipleProtocolInterfaces):
    case SERVICE(UninstallMultipleProtocolInterfaces):
    case SERVICE(HandleProtocol):
    case SERVICE(OpenProtocol):
    case SERVICE(CloseProtocol):
    case SERVICE(OpenProtocolInformation):
    case SERVICE(ProtocolsPerHandle):
    case SERVICE(RegisterProtocolNotify):
    case SERVICE(LocateHandleBuffer):
    case SERVICE(LocateDevicePath): /* looks through a buffer of handles */
    case SERVICE(InstallConfigurationTable):
    case SERVICE(LoadImage):
    case SERVICE(StartImage):
    case SERVICE(Exit):
    case SERVICE(UnloadImage):
    case SERVICE(ExitBootServices):
    case SERVICE(ConnectController):
    case SERVICE(DisconnectController):
        return SPECIFICATION;
    case SERVICE(LocateHandle):
    case SERVICE(LocateProtocol):
        return CONTRACT;
    default:
        return ALLOWED;
    }
}

static bool wanted(uint32_t service)
{
    return service != SERVICE(RaiseTPL) && service != SERVICE(RestoreTPL);
}

/* ---- Exit events ---- */

enum { EVENTS_MAX = 1024, RUNS_MAX = 512 };

static struct exit_event {
    EFI_EVENT event;
    EFI_EVENT_NOTIFY notify;
    void *context;
    EFI_TPL tpl;
    int image;
    enum group group;
    bool open, connected; /* made while devices were being connected */
    bool context_freed;
    bool dangling; /* C1: signalled though its context had been freed */
    bool outlived; /* C1: still open when its driver had let go of all devices */
} events[EVENTS_MAX];
static size_t event_count;
static uint64_t events_lost;

static struct run {
    uint64_t start, end;
    const struct exit_event *event;
    unsigned attempt;
    bool map_changed;
} runs[RUNS_MAX];
static size_t run_count;
static uint64_t runs_lost;

static bool connecting, exiting;
static int known_before; /* images from this number on came while devices were being connected */
static unsigned attempt_now;

/* ---- Memory that images have allocated ---- */

/* Open addressing; a freed entry stays as a grave, of size 0, until its place is taken again. */
enum { BLOCKS_MAX = 1 << 15 };

static struct block {
    uint64_t base, size;
    int image;
    bool pool;
} blocks[BLOCKS_MAX];
static uint64_t blocks_lost;

static size_t block_place(uint64_t base)
{
    return (size_t)(base * UINT64_C(0x9e3779b97f4a7c15) >> 49);
}

static void block_add(uint64_t base, uint64_t size, int image, bool pool)
{
    for (size_t i = 0; i < 64; i++) {
        struct block *block = &blocks[(block_place(base) + i) % BLOCKS_MAX];
        if (block->size != 0 && block->base != base)
            continue;
        *block = (struct block){.base = base, .size = size, .image = image, .pool = pool};
        return;
    }
    blocks_lost++;
}

static struct block *block_find(uint64_t base)
{
    for (size_t i = 0; i < 64; i++) {
        struct block *block = &blocks[(block_place(base) + i) % BLOCKS_MAX];
        if (block->base == base)
            return block;
    }
    return NULL;
}

static const struct block *block_holding(uint64_t address)
{
    for (size_t i = 0; i < BLOCKS_MAX; i++)
        if (address - blocks[i].base < blocks[i].size)
            return &blocks[i];
    return NULL;
}

int calls_owner(uint64_t address)
{
    const struct block *block = block_holding(address);

    return block == NULL ? IMAGE_NONE : block->image;
}

/* ---- Whose doing a call is ---- */

enum { VIA_MAX = 8, STACK_WORDS = 1024 };

/* The core and those whose services stand between a driver and the memory: they act for others. */
static int servants[4];
static size_t servant_count;

static bool is_servant(int image)
{
    for (size_t i = 0; i < servant_count; i++)
        if (servants[i] == image)
            return true;
    return image != IMAGE_NONE && (images[image].core || images[image].self);
}

static void servant_add(uint64_t address)
{
    int image = image_at(address);

    if (image != IMAGE_NONE && servant_count < sizeof(servants) / sizeof(servants[0]))
        servants[servant_count++] = image;
}

static void servants_find(void)
{
    static const EFI_GUID pci_io_guid = EFI_PCI_IO_PROTOCOL_GUID;
    static const EFI_GUID bridge_guid = EFI_PCI_ROOT_BRIDGE_IO_PROTOCOL_GUID;
    EFI_PCI_IO_PROTOCOL *pci = app_locate(&pci_io_guid);
    EFI_PCI_ROOT_BRIDGE_IO_PROTOCOL *bridge = app_locate(&bridge_guid);

    servant_count = 0;
    if (pci != NULL)
        servant_add((uintptr_t)pci->AllocateBuffer);
    if (bridge != NULL)
        servant_add((uintptr_t)bridge->AllocateBuffer);
}

/* Whether the instruction before this address may have been a call: what is on the stack is often
 * not a return address, though it points at code. */
static bool after_a_call(uint64_t address)
{
    const uint8_t *at = (const uint8_t *)(uintptr_t)address;

    if (at[-5] == 0xe8)
        return true;
    for (int length = 2; length <= 7; length++)
        if (at[-length] == 0xff && (at[1 - length] >> 3 & 7) == 2)
            return true;
    return false;
}

static uint64_t stack_top; /* the auditor's own frame, from which it exits */

/* The images of the return addresses on the stack, innermost first, each once in a row. */
static size_t stack_images(const struct services_frame *frame, int16_t *found, size_t max)
{
    const uint64_t *place = frame->stack;
    size_t count = 0;

    for (size_t i = 0; i < STACK_WORDS && (uintptr_t)(place + i) < stack_top && count < max; i++) {
        uint64_t address = services_return_address(&place[i]);
        int image = image_at(address);
        if (image == IMAGE_NONE || images[image].self || address - images[image].base < 0x200 ||
            (count > 0 && found[count - 1] == image) || !after_a_call(address))
            continue;
        found[count++] = (int16_t)image;
    }
    return count;
}

/* ---- Calls ---- */

enum { CALLS_MAX = 8192 };

static struct call {
    uint64_t ticks;
    uint64_t args[4], from;
    int blame;
    unsigned attempt, depth;
    uint32_t service;
    int16_t via[VIA_MAX]; /* innermost first */
    uint8_t via_count;
    int16_t holder; /* C5: the device that still used the memory that is freed here, or -1 */
} calls[CALLS_MAX];
static size_t call_count;
static uint64_t calls_lost;

static const struct exit_event *running; /* whose handler it is, where that is known */

static void returned(uint32_t service, uint64_t result, uint64_t token)
{
    (void)service;
    (void)result;
    (void)token;
}

/* Whether memory that is being given back is still a live device's. */
static int holder(uint32_t service, const struct services_frame *frame)
{
    uint64_t base = frame->args[0], size = 1;

    if (service == SERVICE(FreePages)) {
        size = frame->args[1] * 4096;
    } else if (service == SERVICE(FreePool)) {
        const struct block *block = block_find(base);
        if (block != NULL && block->size > 0)
            size = block->size;
    } else {
        return -1;
    }
    return devices_holding(base, size);
}

static void call_add(uint32_t service, struct services_frame *frame)
{
    uint64_t from = frame->from;
    int image = image_at(from);

    if (image != IMAGE_NONE && images[image].self) {
        if (running == NULL)
            return;
        /* A handler whose last act this is: it jumped, and what returns is our bracket. All that is
         * known of the place is the handler. */
        from = (uintptr_t)running->notify;
        image = running->image;
    }
    /* The exit itself, handed on by somebody who stands before it in the table. */
    if (service == SERVICE(ExitBootServices) && running == NULL &&
        frame->args[0] == (uintptr_t)app.image)
        return;
    if (call_count == CALLS_MAX) {
        calls_lost++;
        return;
    }
    struct call *call = &calls[call_count++];
    *call = (struct call){.ticks = app_tsc(),
                          .from = from,
                          .attempt = attempt_now,
                          .service = service,
                          .holder = (int16_t)holder(service, frame)};
    memcpy(call->args, frame->args, sizeof(call->args));
    call->via_count = (uint8_t)stack_images(frame, call->via, VIA_MAX);
    if (running != NULL && running->image != IMAGE_NONE) {
        call->blame = running->image;
    } else {
        /* Whoever called; or, where that one only serves, the nearest on the stack who does not. */
        call->blame = image;
        for (size_t i = 0; i < call->via_count && is_servant(call->blame); i++)
            if (!is_servant(call->via[i]))
                call->blame = call->via[i];
    }
    services_on_return(frame, service, returned, 0);
    size_t depth = services_depth();
    call->depth = depth > 0 ? (unsigned)depth - 1 : 0;
}

/* ---- What is followed all the time ---- */

/* Where the answer comes to lie, kept from the call to the return. */
static int allocating_image(const struct services_frame *frame)
{
    int image = image_at(frame->from);
    int16_t found[VIA_MAX];

    /* What the auditor allocates is its own, whoever started it. */
    if (image == IMAGE_NONE || images[image].self || !is_servant(image))
        return image;
    size_t count = stack_images(frame, found, VIA_MAX);
    for (size_t i = 0; i < count; i++)
        if (!is_servant(found[i]))
            return found[i];
    return image;
}

enum { ASKED_MAX = 64 };
static struct asked {
    uint64_t out, size;
    int image;
    struct exit_event *event;
} asked[ASKED_MAX];
static size_t asked_next;

static void allocated(uint32_t service, uint64_t result, uint64_t token)
{
    const struct asked *ask = &asked[token];

    if (EFI_ERROR(result))
        return;
    block_add(*(const uint64_t *)(uintptr_t)ask->out, ask->size, ask->image,
              service == SERVICE(AllocatePool));
}

static void event_created(uint32_t service, uint64_t result, uint64_t token)
{
    const struct asked *ask = &asked[token];

    (void)service;
    if (EFI_ERROR(result))
        return;
    ask->event->event = *(const EFI_EVENT *)(uintptr_t)ask->out;
    ask->event->open = true;
}

static void ask(struct services_frame *frame, uint32_t service, services_returned_hook *after,
                struct asked what)
{
    /* More than 64 calls deep in each other are not to be expected. */
    size_t place = asked_next++ % ASKED_MAX;

    asked[place] = what;
    services_on_return(frame, service, after, place);
}

static void EFIAPI bracket(EFI_EVENT event, void *context);

static void creating(uint32_t service, struct services_frame *frame)
{
    bool extended = service == SERVICE(CreateEventEx);
    const EFI_GUID *guid = extended ? (const EFI_GUID *)(uintptr_t)frame->stack[4] : NULL;
    UINT32 type = (UINT32)frame->args[0];
    enum group group = GROUP_NONE;

    if (type == EVT_SIGNAL_EXIT_BOOT_SERVICES || (guid && app_guid_equal(guid, &exit_guid)))
        group = GROUP_EXIT;
    else if (guid && app_guid_equal(guid, &before_exit_guid))
        group = GROUP_BEFORE;
    if (group == GROUP_NONE || frame->args[2] == 0)
        return;
    if (event_count == EVENTS_MAX) {
        events_lost++;
        return;
    }
    struct exit_event *new = &events[event_count++];
    *new = (struct exit_event){.notify = (EFI_EVENT_NOTIFY)frame->args[2],
                               .context = (void *)(uintptr_t)frame->args[3],
                               .tpl = frame->args[1],
                               .image = image_at(frame->from),
                               .group = group,
                               .connected = connecting && image_at(frame->from) < known_before};
    frame->args[2] = (uintptr_t)bracket;
    frame->args[3] = (uintptr_t) new;
    ask(frame, service, event_created,
        (struct asked){.out = extended ? frame->stack[5] : frame->stack[4], .event = new});
}

/* What is allocated there later is another thing, so this is put down when it happens. */
static void contexts_freed(uint64_t base, uint64_t size)
{
    for (size_t i = 0; i < event_count; i++)
        if (events[i].open && (uintptr_t)events[i].context - base < size)
            events[i].context_freed = true;
}

static void event_closed(EFI_EVENT event)
{
    for (size_t i = 0; i < event_count; i++)
        if (events[i].open && events[i].event == event)
            events[i].open = false;
}

static void *hook(uint32_t service, struct services_frame *frame)
{
    if (exiting)
        call_add(service, frame);
    switch (service) {
    case SERVICE(AllocatePages):
        if (!exiting)
            ask(frame, service, allocated,
                (struct asked){.out = frame->args[3],
                               .size = frame->args[2] * 4096,
                               .image = allocating_image(frame)});
        break;
    case SERVICE(AllocatePool):
        if (!exiting)
            ask(frame, service, allocated,
                (struct asked){
                    .out = frame->args[2], .size = frame->args[1], .image = image_at(frame->from)});
        break;
    case SERVICE(FreePages):
    case SERVICE(FreePool): {
        struct block *block = block_find(frame->args[0]);
        contexts_freed(frame->args[0], block != NULL && block->size > 0 ? block->size : 1);
        if (block != NULL)
            block->size = 0;
        break;
    }
    case SERVICE(CreateEvent):
    case SERVICE(CreateEventEx):
        creating(service, frame);
        break;
    case SERVICE(CloseEvent):
        event_closed((EFI_EVENT)(uintptr_t)frame->args[0]);
        break;
    default:
        break;
    }
    return services_original(service);
}

/* ---- The map ---- */

static struct app_map map_now;
static const struct app_map *map_held; /* the loader's */

/* By the firmware's own function. In edk2 it may be called at TPL_NOTIFY, and changes nothing. */
static bool map_read(void)
{
    EFI_GET_MEMORY_MAP get = (EFI_GET_MEMORY_MAP)services_original(SERVICE(GetMemoryMap));

    map_now.size = sizeof(map_now.bytes);
    return !EFI_ERROR(get(&map_now.size, (EFI_MEMORY_DESCRIPTOR *)map_now.bytes, &map_now.key,
                          &map_now.entry_size, &map_now.version));
}

static UINTN map_key(void)
{
    return map_read() ? map_now.key : 0;
}

/* ---- Handlers ---- */

static void EFIAPI bracket(EFI_EVENT event, void *context)
{
    struct exit_event *known = context;
    const struct exit_event *outer = running;

    /* Its binding is gone. To run it would be to jump into the dark, and lose the report. */
    if (known->context_freed) {
        known->dangling = true;
        return;
    }
    if (!exiting || run_count == RUNS_MAX) {
        runs_lost += exiting;
        known->notify(event, known->context);
        return;
    }
    struct run *run = &runs[run_count++];
    /* Memory services may be called up to TPL_NOTIFY (UEFI 2.10 §7.1). */
    bool may_look = known->tpl <= TPL_NOTIFY;
    UINTN key = may_look ? map_key() : 0;

    *run = (struct run){.event = known, .attempt = attempt_now};
    running = known;
    run->start = app_tsc();
    known->notify(event, known->context);
    run->end = app_tsc();
    running = outer;
    run->map_changed = may_look && map_key() != key;
}

/*
 * When the groups are through. Within a group no order can be relied on, but a handler at the
 * lowest level may signal another event of that level, which comes after all that wait already.
 */
static EFI_EVENT before_event, before_last, exit_event, exit_last;
static uint64_t before_done[8], exit_done[8]; /* by attempt; 0: not signalled */
static struct app_map map_last, map_loader;   /* of the first attempt in which they differ */
static bool map_seen, map_differs;

static void EFIAPI pass_on(EFI_EVENT event, void *context)
{
    EFI_SIGNAL_EVENT signal = (EFI_SIGNAL_EVENT)services_original(SERVICE(SignalEvent));

    (void)event;
    if (exiting)
        signal(*(EFI_EVENT *)context);
}

static void EFIAPI before_is_done(EFI_EVENT event, void *context)
{
    (void)event;
    (void)context;
    before_done[attempt_now % 8] = app_tsc();
}

static void EFIAPI exit_is_done(EFI_EVENT event, void *context)
{
    (void)event;
    (void)context;
    exit_done[attempt_now % 8] = app_tsc();
    if (map_differs || !map_read())
        return;
    map_seen = true;
    map_differs = map_now.key != map_held->key || map_now.size != map_held->size;
    if (map_differs) {
        memcpy(&map_last, &map_now, sizeof(map_last));
        memcpy(&map_loader, map_held, sizeof(map_loader));
    }
}

static bool failed[8]; /* by attempt: ExitBootServices refused */

/* Nor is it an exit handler that calls where the firmware refused before it signalled the group. */
static bool in_before_group(uint64_t ticks, unsigned attempt)
{
    return ticks < before_done[attempt % 8] || (failed[attempt % 8] && exit_done[attempt % 8] == 0);
}

/* ---- Beginning and ending ---- */

void calls_begin(void)
{
    EFI_GUID before = before_exit_guid;

    images_update();
    servants_find();
    /* A firmware older than the before-exit group takes the event and never signals it. */
    (void)app.bs->CreateEventEx(EVT_NOTIFY_SIGNAL, TPL_CALLBACK, pass_on, &before_last, &before,
                                &before_event);
    app_assert_ok(
        app.bs->CreateEvent(EVT_NOTIFY_SIGNAL, TPL_CALLBACK, before_is_done, NULL, &before_last));
    app_assert_ok(app.bs->CreateEvent(EVT_SIGNAL_EXIT_BOOT_SERVICES, TPL_CALLBACK, pass_on,
                                      &exit_last, &exit_event));
    app_assert_ok(
        app.bs->CreateEvent(EVT_NOTIFY_SIGNAL, TPL_CALLBACK, exit_is_done, NULL, &exit_last));
    stack_top = UINT64_MAX;
    app.no_return = true;
    services_install(hook, wanted);
}

/*
 * What earlier calls have left on the stack is taken for part of the present ones all too easily.
 * UEFI 2.10 §2.3.4 promises 128 KiB of it. An interrupt would use the part that is being cleared.
 */
static void stack_clear(void)
{
    enum { CLEAR = 32 * 1024, NEAR = 512 };
    uint8_t *here = __builtin_frame_address(0);
    uintptr_t flags;

    __asm__ volatile("pushf; pop %0; cli" : "=r"(flags) : : "memory");
    for (volatile uint8_t *at = here - CLEAR; at < here - NEAR; at++)
        *at = 0;
    __asm__ volatile("push %0; popf" : : "r"(flags) : "memory", "cc");
}

void calls_exit_begin(unsigned attempt, const struct app_map *map)
{
    /* What lies above this is whoever started the auditor. */
    stack_top = (uintptr_t)__builtin_frame_address(0) + 16;
    attempt_now = attempt;
    map_held = map;
    stack_clear();
    before_done[attempt % 8] = exit_done[attempt % 8] = 0;
    exiting = true;
}

void calls_exit_end(bool success)
{
    exiting = false;
    failed[attempt_now % 8] = !success;
}

void calls_connecting(bool now)
{
    connecting = now;
    if (now) {
        images_update();
        known_before = (int)image_count;
        servants_find();
    }
}

unsigned calls_exit_events(int image)
{
    unsigned count = 0;

    for (size_t i = 0; i < event_count; i++)
        count += events[i].open && events[i].image == image && events[i].group == GROUP_EXIT;
    return count;
}

void calls_expect_closed(void)
{
    images_find_holders();
    for (size_t i = 0; i < event_count; i++)
        if (events[i].open && events[i].connected && events[i].image != IMAGE_NONE &&
            !images[events[i].image].holds)
            events[i].outlived = true;
}

bool calls_freed_memory(void)
{
    for (size_t i = 0; i < call_count; i++)
        if (calls[i].service == SERVICE(FreePages) || calls[i].service == SERVICE(FreePool))
            return true;
    return calls_lost > 0;
}

/* ---- The report ---- */

static bool driver_named[IMAGES_MAX];

void calls_driver(int image)
{
    if (image != IMAGE_NONE)
        driver_named[image] = true;
}

static void tell_call(const struct call *call, enum group group, enum judged judged)
{
    int image = image_at(call->from);

    json_begin("call");
    json_signed("us", report_us(call->ticks));
    json_number("attempt", call->attempt);
    json_text("group", group_names[group]);
    json_text("service", services_name(call->service));
    json_list("args");
    for (size_t i = 0; i < 4 && i < services_args(call->service); i++)
        json_hex(NULL, call->args[i]);
    json_list_end();
    json_hex("address", call->from);
    if (image != IMAGE_NONE) {
        json_number("image", (uint64_t)image);
        json_number("offset", call->from - images[image].base);
    } else {
        json_null("image");
        json_null("offset");
    }
    json_list("via");
    for (size_t i = call->via_count; i-- > 0;)
        json_number(NULL, (uint64_t)call->via[i]);
    json_list_end();
    if (call->blame != IMAGE_NONE)
        json_number("blame", (uint64_t)call->blame);
    else
        json_null("blame");
    json_number("depth", call->depth);
    json_text("judged", judged_names[judged]);
    json_end();
    /* For people, the same call made time and again is one. */
    const struct call *before = call > calls ? call - 1 : NULL;
    if (judged != ALLOWED &&
        (before == NULL || before->service != call->service || before->from != call->from))
        report_print("  %6lld us  %s calls %s, from %s+0x%llx%s\n", report_us(call->ticks),
                     image_name(call->blame), services_name(call->service), image_name(image),
                     image == IMAGE_NONE ? call->from : call->from - images[image].base,
                     call->depth > 0 ? ", within the call above" : "");
}

static void judge_c5(const struct call *call)
{
    if (call->holder >= 0)
        report_verdict(SUBJECT_DEVICE, devices[call->holder].name, IMAGE_NONE, "C5", FAIL,
                       "%s gave memory back (%s of 0x%llx) that the device was still using",
                       image_name(call->blame), services_name(call->service), call->args[0]);
}

static bool nobody_to_blame; /* for some forbidden call: the core was the nearest */

static void judge_call(const struct call *call, enum judged judged)
{
    const char *name = image_name(call->blame);

    nobody_to_blame |=
        judged == SPECIFICATION && (call->blame == IMAGE_NONE || is_servant(call->blame));

    /* The contract binds drivers; the rest of the firmware, the specification. */
    bool driver = call->blame == IMAGE_NONE || images[call->blame].driver;
    if (judged == SPECIFICATION || (judged == CONTRACT && driver))
        report_verdict(SUBJECT_DRIVER, name, call->blame, "C2", FAIL,
                       "calls %s during ExitBootServices (from 0x%llx)%s",
                       services_name(call->service), call->from,
                       judged == CONTRACT ? ", which the specification allows and C2 does not"
                                          : "");
    else if (judged == CONTRACT)
        report_verdict(
            SUBJECT_DRIVER, name, call->blame, "C2", PASS,
            "calls %s (from 0x%llx), which the specification allows; it is not a device's "
            "driver, so that C2 does not bind it",
            services_name(call->service), call->from);
}

static void report_calls(void)
{
    for (size_t i = 0; i < call_count; i++) {
        const struct call *call = &calls[i];
        enum group group = in_before_group(call->ticks, call->attempt) ? GROUP_BEFORE : GROUP_EXIT;
        enum judged judged = group == GROUP_BEFORE ? ALLOWED : judge(call->service, call->args);

        tell_call(call, group, judged);
        judge_c5(call);
        if (judged == SPECIFICATION)
            judge_call(call, judged);
        if (judged != ALLOWED)
            calls_driver(call->blame);
    }
    /* The reason that is given should be the worse. */
    for (size_t i = 0; i < call_count; i++)
        if (!in_before_group(calls[i].ticks, calls[i].attempt) &&
            judge(calls[i].service, calls[i].args) == CONTRACT)
            judge_call(&calls[i], CONTRACT);
}

static void report_runs(void)
{
    for (size_t i = 0; i < run_count; i++) {
        const struct run *run = &runs[i];

        json_begin("handler");
        json_signed("us", report_us(run->start));
        json_number("duration", app_us(run->end - run->start));
        json_number("attempt", run->attempt);
        if (run->event->image != IMAGE_NONE)
            json_number("image", (uint64_t)run->event->image);
        else
            json_null("image");
        json_number("tpl", run->event->tpl);
        json_text("group", group_names[run->event->group]);
        json_bool("map_changed", run->map_changed);
        json_end();
        if (run->map_changed && run->event->group == GROUP_EXIT)
            report_verdict(SUBJECT_DRIVER, image_name(run->event->image), run->event->image, "C2",
                           FAIL, "the memory map changed while its exit handler ran");
    }
}

static const char *memory_type(UINT32 type)
{
    static const char *const names[] = {"reserved",   "loader code",  "loader data",  "boot code",
                                        "boot data",  "runtime code", "runtime data", "free",
                                        "unusable",   "acpi",         "acpi nvs",     "mmio",
                                        "mmio ports", "pal",          "persistent"};

    return type < sizeof(names) / sizeof(names[0]) ? names[type] : "other";
}

static const EFI_MEMORY_DESCRIPTOR *map_at(const struct app_map *map, uint64_t address)
{
    const EFI_MEMORY_DESCRIPTOR *entry;

    for (size_t i = 0; (entry = app_map_entry(map, i)) != NULL; i++)
        if (address - entry->PhysicalStart < entry->NumberOfPages * 4096)
            return entry;
    return NULL;
}

/* Each piece of the later map that is of another type in the one that the loader holds. */
static unsigned report_map_changes(void)
{
    const EFI_MEMORY_DESCRIPTOR *entry;
    unsigned changes = 0;

    for (size_t i = 0; (entry = app_map_entry(&map_last, i)) != NULL; i++) {
        uint64_t end = entry->PhysicalStart + entry->NumberOfPages * 4096;
        for (uint64_t at = entry->PhysicalStart; at < end;) {
            const EFI_MEMORY_DESCRIPTOR *was = map_at(&map_loader, at);
            uint64_t stop =
                was == NULL ? at + 4096 : was->PhysicalStart + was->NumberOfPages * 4096;
            if (stop > end)
                stop = end;
            if (was == NULL || was->Type != entry->Type) {
                changes++;
                json_begin("map-change");
                json_hex("base", at);
                json_number("size", stop - at);
                json_text("was", was == NULL ? "nothing" : memory_type(was->Type));
                json_text("is", memory_type(entry->Type));
                json_end();
                report_print("  the memory map changed: 0x%llx, %llu bytes: %s, was %s\n", at,
                             stop - at, memory_type(entry->Type),
                             was == NULL ? "nothing" : memory_type(was->Type));
            }
            at = stop;
        }
    }
    return changes;
}

static void judge_map(void)
{
    if (!map_seen) {
        report_verdict(SUBJECT_FIRMWARE, "memory map", IMAGE_NONE, "C2", UNSEEN,
                       "it could not be read at the end of the exit handlers");
        return;
    }
    unsigned changes = map_differs ? report_map_changes() : 0;
    if (changes > 0)
        report_verdict(SUBJECT_FIRMWARE, "memory map", IMAGE_NONE, "C2", FAIL,
                       "in %u places not as the loader was told, when all handlers had run",
                       changes);
    else if (map_differs)
        report_verdict(SUBJECT_FIRMWARE, "memory map", IMAGE_NONE, "C2", FAIL,
                       "its key is another one after the handlers (%llu, was %llu): it changed",
                       map_last.key, map_loader.key);
    else
        report_verdict(SUBJECT_FIRMWARE, "memory map", IMAGE_NONE, "C2", PASS,
                       "the same when all handlers had run as when the loader read it");
}

/* What docs/handover.md gives all handlers together: none that does not wait for a dead device
 * comes near it, on however slow a machine. */
enum { C6_BOUND_US = 1000000 };

static void judge_c6(int image)
{
    uint64_t us[8] = {0}, longest = 0;
    unsigned ran = 0;

    for (size_t i = 0; i < run_count; i++) {
        if (runs[i].event->image != image || runs[i].event->group != GROUP_EXIT)
            continue;
        ran++;
        us[runs[i].attempt % 8] += app_us(runs[i].end - runs[i].start);
    }
    for (size_t i = 0; i < 8; i++)
        longest = us[i] > longest ? us[i] : longest;
    if (longest > C6_BOUND_US)
        report_verdict(SUBJECT_DRIVER, image_name(image), image, "C6", FAIL,
                       "its exit handlers took %llu us; the bound is %u", longest, C6_BOUND_US);
    else if (ran > 0)
        report_verdict(SUBJECT_DRIVER, image_name(image), image, "C6", UNSEEN,
                       "no device was made to hang; its exit handlers took %llu us", longest);
    else
        report_verdict(SUBJECT_DRIVER, image_name(image), image, "C6", UNSEEN,
                       "no device was made to hang");
}

static void judge_driver(int image)
{
    const char *name = image_name(image);

    if (calls_lost > 0)
        report_verdict(SUBJECT_DRIVER, name, image, "C2", UNSEEN,
                       "there were more calls than the auditor has room for");
    else if (nobody_to_blame && !images[image].core && calls_exit_events(image) == 0)
        report_verdict(SUBJECT_DRIVER, name, image, "C2", UNSEEN,
                       "there were forbidden calls that nobody could be held responsible for");
    else
        report_verdict(SUBJECT_DRIVER, name, image, "C2", PASS,
                       "called no boot service that the rule forbids");
    judge_c6(image);

    unsigned open = 0, bad = 0;
    for (size_t i = 0; i < event_count; i++) {
        const struct exit_event *event = &events[i];
        if (event->image != image || event->group != GROUP_EXIT)
            continue;
        open += event->open;
        bad += event->dangling || event->outlived;
        if (event->dangling)
            report_verdict(SUBJECT_DRIVER, name, image, "C1", FAIL,
                           "an exit event was signalled whose context (%p) had been freed",
                           event->context);
        else if (event->outlived)
            report_verdict(SUBJECT_DRIVER, name, image, "C1", FAIL,
                           "an exit event stayed open after the driver had let go of its devices");
    }
    if (bad == 0 && open > 0 && events_lost == 0)
        report_verdict(SUBJECT_DRIVER, name, image, "C1", PASS,
                       "%u exit events, each open with its context in place", open);
    else if (bad == 0)
        report_verdict(SUBJECT_DRIVER, name, image, "C1", UNSEEN,
                       "no exit event of its, made under the auditor's eyes, was open at the exit");
}

void calls_report(void)
{
    report_print("\nBoot services called during ExitBootServices:\n");
    report_calls();
    report_runs();
    for (size_t i = 0; i < 8; i++) {
        if (before_done[i] == 0)
            continue;
        json_begin("phase");
        json_text("phase", "before-done");
        json_signed("us", report_us(before_done[i]));
        json_number("attempt", i);
        json_end();
    }
    judge_map();
    for (size_t i = 0; i < event_count; i++)
        if (events[i].group == GROUP_EXIT && (events[i].open || events[i].outlived) &&
            events[i].image != IMAGE_NONE && !images[events[i].image].self)
            calls_driver(events[i].image);
    for (size_t i = 0; i < image_count; i++)
        if (driver_named[i])
            judge_driver((int)i);
    if (calls_lost + runs_lost + blocks_lost + events_lost > 0) {
        json_begin("lost");
        json_text("what", "call");
        json_number("count", calls_lost + runs_lost + blocks_lost + events_lost);
        json_end();
    }
}
