/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "lab/efi/services.h"

/*
 * Stub i is at services_stubs + 16 i. Address 0 from the hook means: fail.
 *
 * A call whose return is of interest has services_back in place of its return address; what belongs
 * there is kept aside. The result is in rax, and nothing else is the caller's to look at.
 */
enum { STUB_BYTES = 16 };
extern const uint8_t services_stubs[], services_back[];
void *services_enter(uint32_t index, struct services_frame *frame);
uint64_t services_leave(uint64_t result, uint64_t stack);

__asm__(".text\n"
        ".balign 16\n"
        ".globl services_stubs\n"
        "services_stubs:\n"
        ".set stub, 0\n"
        ".rept 64\n"
        ".balign 16\n"
        "movl $stub, %eax\n"
        "jmp services_common\n"
        ".set stub, stub + 1\n"
        ".endr\n"
        "services_common:\n"
        "pushq %r9\n"
        "pushq %r8\n"
        "pushq %rdx\n"
        "pushq %rcx\n"
        "movl %eax, %ecx\n"
        "movq %rsp, %rdx\n"
        "subq $40, %rsp\n" /* room that the callee may use, and alignment */
        "call services_enter\n"
        "addq $40, %rsp\n"
        "popq %rcx\n"
        "popq %rdx\n"
        "popq %r8\n"
        "popq %r9\n"
        "testq %rax, %rax\n"
        "jz 1f\n"
        "jmpq *%rax\n"
        "1: movabsq $0x8000000000000009, %rax\n" /* EFI_OUT_OF_RESOURCES */
        "retq\n"
        ".globl services_back\n"
        "services_back:\n"
        "pushq %rax\n"
        "movq %rax, %rcx\n"
        "leaq 8(%rsp), %rdx\n"
        "subq $40, %rsp\n"
        "call services_leave\n"
        "movq %rax, %r11\n"
        "addq $40, %rsp\n"
        "popq %rax\n"
        "jmpq *%r11\n");

#define ENTRY(member, count) [SERVICE(member)] = {#member, count}
static const struct {
    const char *name;
    unsigned args;
} table[SERVICES_MAX] = {
    ENTRY(RaiseTPL, 1),
    ENTRY(RestoreTPL, 1),
    ENTRY(AllocatePages, 4),
    ENTRY(FreePages, 2),
    ENTRY(GetMemoryMap, 5),
    ENTRY(AllocatePool, 3),
    ENTRY(FreePool, 1),
    ENTRY(CreateEvent, 5),
    ENTRY(SetTimer, 3),
    ENTRY(WaitForEvent, 3),
    ENTRY(SignalEvent, 1),
    ENTRY(CloseEvent, 1),
    ENTRY(CheckEvent, 1),
    ENTRY(InstallProtocolInterface, 4),
    ENTRY(ReinstallProtocolInterface, 4),
    ENTRY(UninstallProtocolInterface, 3),
    ENTRY(HandleProtocol, 3),
    ENTRY(RegisterProtocolNotify, 3),
    ENTRY(LocateHandle, 5),
    ENTRY(LocateDevicePath, 3),
    ENTRY(InstallConfigurationTable, 2),
    ENTRY(LoadImage, 6),
    ENTRY(StartImage, 3),
    ENTRY(Exit, 4),
    ENTRY(UnloadImage, 1),
    ENTRY(ExitBootServices, 2),
    ENTRY(GetNextMonotonicCount, 1),
    ENTRY(Stall, 1),
    ENTRY(SetWatchdogTimer, 4),
    ENTRY(ConnectController, 4),
    ENTRY(DisconnectController, 3),
    ENTRY(OpenProtocol, 6),
    ENTRY(CloseProtocol, 4),
    ENTRY(OpenProtocolInformation, 4),
    ENTRY(ProtocolsPerHandle, 3),
    ENTRY(LocateHandleBuffer, 5),
    ENTRY(LocateProtocol, 3),
    ENTRY(InstallMultipleProtocolInterfaces, 4),
    ENTRY(UninstallMultipleProtocolInterfaces, 4),
    ENTRY(CalculateCrc32, 3),
    ENTRY(CopyMem, 3),
    ENTRY(SetMem, 3),
    ENTRY(CreateEventEx, 6),
};

static void *originals[SERVICES_MAX];
static bool installed;
static services_hook *hook;

static void **members(void)
{
    return (void **)(void *)((uint8_t *)app.bs + sizeof(EFI_TABLE_HEADER));
}

/* By the firmware's own function: the table's may be ours. */
static void seal(void)
{
    EFI_CALCULATE_CRC32 checksum = (EFI_CALCULATE_CRC32)services_original(SERVICE(CalculateCrc32));
    UINT32 crc = 0;

    app.bs->Hdr.CRC32 = 0;
    app_assert_ok(checksum(app.bs, app.bs->Hdr.HeaderSize, &crc));
    app.bs->Hdr.CRC32 = crc;
}

const char *services_name(uint32_t index)
{
    return index < SERVICES_MAX ? table[index].name : NULL;
}

unsigned services_args(uint32_t index)
{
    return index < SERVICES_MAX ? table[index].args : 0;
}

void *services_original(uint32_t index)
{
    return installed ? originals[index] : members()[index];
}

void *services_stub(uint32_t index)
{
    return (void *)(uintptr_t)(services_stubs + STUB_BYTES * index);
}

void services_replace(uint32_t index, void *function)
{
    members()[index] = function;
    seal();
}

void services_install(services_hook *new_hook, bool (*wanted)(uint32_t index))
{
    app_assert(app.bs->Hdr.HeaderSize >= sizeof(EFI_TABLE_HEADER) + SERVICES_MAX * sizeof(void *));
    hook = new_hook;
    for (uint32_t i = 0; i < SERVICES_MAX; i++)
        originals[i] = members()[i];
    installed = true;
    for (uint32_t i = 0; i < SERVICES_MAX; i++)
        if (table[i].name != NULL && wanted(i))
            members()[i] = services_stub(i);
    seal();
}

void services_remove(void)
{
    for (uint32_t i = 0; i < SERVICES_MAX; i++)
        members()[i] = originals[i];
    seal();
    installed = false;
}

/* ---- Calls that will return ---- */

enum { PENDING_MAX = 256 };

static struct pending {
    uint64_t stack, from; /* where the stack is after the return, and where that goes */
    services_returned_hook *after;
    uint64_t token;
    uint32_t index;
} pending[PENDING_MAX];
/* Interrupts make calls, too: they are off while the list is changed. */
static size_t pending_count;

size_t services_depth(void)
{
    return pending_count;
}

void services_on_return(struct services_frame *frame, uint32_t index, services_returned_hook *after,
                        uint64_t token)
{
    uint64_t stack = (uintptr_t)frame->stack;
    uintptr_t flags = app_interrupts_off();

    /* What lies deeper in the stack than its caller's caller has been jumped out of. */
    while (pending_count > 0 && pending[pending_count - 1].stack <= stack)
        pending_count--;
    if (pending_count < PENDING_MAX) {
        pending[pending_count++] = (struct pending){
            .stack = stack, .from = frame->from, .after = after, .token = token, .index = index};
        frame->from = (uintptr_t)services_back;
    }
    app_interrupts_back(flags);
}

uint64_t services_leave(uint64_t result, uint64_t stack)
{
    struct pending done;
    uintptr_t flags = app_interrupts_off();

    do {
        app_assert(pending_count > 0);
        done = pending[--pending_count];
    } while (done.stack != stack);
    app_interrupts_back(flags);
    done.after(done.index, result, done.token);
    return done.from;
}

uint64_t services_return_address(const uint64_t *place)
{
    if (*place != (uintptr_t)services_back)
        return *place;
    for (size_t i = pending_count; i-- > 0;)
        if (pending[i].stack == (uintptr_t)(place + 1))
            return pending[i].from;
    return *place;
}

void *services_enter(uint32_t index, struct services_frame *frame)
{
    return hook(index, frame);
}
