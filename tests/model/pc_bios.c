// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "tests/model/pc_bios.h"

#include <stdlib.h>
#include <string.h>

#include "bios/int13.h"
#include "bios/memory.h"
#include "tests/model/dma.h"

#define MEMORY      0x110000u
#define STACK       0x9000u /* segments */
#define ROM_SEGMENT (PC_BIOS_ROM >> 4)
#define PACKET      0x500u
#define PNP_CHECK   0xf6000u
#define TOP         0x1000u

/* What is called in real mode, all in F000h. */
enum { PMM = 0x1000, INT10 = 0x2000, INT13 = 0x3000, INT19 = 0x4000 };

/* In the ROM. */
enum {
    PCIR = 0x40,
    PNP = 0x60,
    PMM_AT = 0x90,
    OLD13 = 0x94,
    DRIVES = 0x98,
    ENTER = 0x100,
    ISR = 0x110,
    INT19_AT = 0x120,
    HEADERS = 0x200,
    ROM_UNITS = 32,
};

struct pc_bios pc_bios;
const struct reg_window io_ports = {.base = 0, .bytes = 0x10000, .port = true};
uint8_t high_image[16], high_end[1];
uint32_t stack_top, back_offset;

static _Alignas(4096) uint8_t memory[MEMORY];
static struct {
    uint32_t given;
    void *memory;
    size_t bytes;
} blocks[PC_BIOS_BLOCKS];
static struct pci_device bus[8];
static unsigned bus_count;
static bool started; /* PMM is gone */

void *at_physical(uint32_t address)
{
    return address < MEMORY ? memory + address : (void *)(uintptr_t)address;
}

uint8_t *pc_bios_memory(uint32_t address)
{
    return memory + address;
}

static void put16(uint32_t at, unsigned value)
{
    memcpy(memory + at, &(uint16_t){(uint16_t)value}, 2);
}

static uint16_t get16(uint32_t at)
{
    uint16_t value;

    memcpy(&value, memory + at, 2);
    return value;
}

static void put32(uint32_t at, uint32_t value)
{
    memcpy(memory + at, &value, 4);
}

/* ---- Post Memory Manager ---- */

static uint32_t allocate(uint32_t paragraphs)
{
    size_t bytes = (size_t)paragraphs * 16;
    unsigned n = ++pc_bios.allocations;

    if (pc_bios.fails_at != 0 &&
        (n == pc_bios.fails_at || (pc_bios.fails_for_good && n > pc_bios.fails_at)))
        return 0;
    for (unsigned i = 0; i < PC_BIOS_BLOCKS; i++) {
        if (blocks[i].memory)
            continue;
        blocks[i].memory = pc_bios.take(bytes);
        blocks[i].bytes = bytes;
        blocks[i].given = (uint32_t)(uintptr_t)blocks[i].memory;
        if (blocks[i].given != (uintptr_t)blocks[i].memory || bytes == 0)
            abort();
        pc_bios.held++;
        return blocks[i].given;
    }
    return 0;
}

static void give_back(uint32_t address)
{
    if (address == (uint32_t)(uintptr_t)high_image) {
        if (pc_bios.image_back)
            model_violation("the 32-bit part is given back twice");
        pc_bios.image_back = true;
        return;
    }
    for (unsigned i = 0; i < PC_BIOS_BLOCKS; i++)
        if (blocks[i].memory && blocks[i].given == address) {
            pc_bios.give(blocks[i].memory, blocks[i].bytes);
            blocks[i].memory = NULL;
            pc_bios.held--;
            return;
        }
    model_violation("PMM is given back %#x, which it has not given", address);
}

static void post_memory_manager(struct registers *registers, const uint16_t *arguments)
{
    uint32_t number = arguments[1] | (uint32_t)arguments[2] << 16, answer = 0;

    if (arguments[0] == PMM_ALLOCATE)
        answer = allocate(number);
    else if (arguments[0] == PMM_FREE)
        give_back(number);
    else
        answer = PMM_UNSUPPORTED;
    registers->eax = (registers->eax & 0xffff0000u) | (answer & 0xffff);
    registers->edx = (registers->edx & 0xffff0000u) | answer >> 16;
}

/* ---- Real mode ---- */

uint32_t go_real(uint32_t back, uint32_t ss, uint32_t esp)
{
    uint32_t at = physical_of((uint16_t)ss, (uint16_t)esp);
    struct real_call *call = at_physical(at);
    struct real_return left = {.flags = 0x0002};
    size_t length = strlen(pc_bios.said);

    if (back == BACK_WINDOW) {
        uint32_t before = stack_top;
        stack_top -= PC_BIOS_CALL; /* which is high.S's doing, and the call's */
        pc_bios.window();
        if (stack_top != before - PC_BIOS_CALL)
            model_violation("what a call that waits has of the stack is taken from it");
        stack_top = before;
        return at;
    }
    if (back != BACK_CALL || call->cs != 0xf000 || call->return_cs != ROM_SEGMENT) {
        model_violation("real mode is gone to for %u, %04x:%04x", back, call->cs, call->ip);
        return at;
    }
    left.registers = call->registers;
    if (call->ip == PMM && started)
        model_violation("PMM is called after the start");
    else if (call->ip == PMM) {
        struct registers registers = left.registers;
        uint16_t arguments[3];
        memcpy(arguments, call + 1, sizeof(arguments));
        post_memory_manager(&registers, arguments);
        left.registers = registers;
    } else if (call->ip == INT10 && length < sizeof(pc_bios.said) - 1)
        pc_bios.said[length] = (char)left.registers.eax;
    else if (call->ip == INT13)
        left.flags |= FLAG_CARRY; /* it has no drives */
    memcpy(at_physical(at), &left, sizeof(left));
    return at;
}

/* ---- Ports and PCI ---- */

bool pc_bios_port(uint64_t port, bool write, uint32_t *value)
{
    switch (port) {
    case 0x42:
    case 0x43:
        break;
    case 0x61: /* the timer's output is up at once */
        if (!write)
            *value = 0x20;
        break;
    case 0xe9:
    case 0x402:
        if (!write)
            *value = 0xff;
        break;
    default:
        return false;
    }
    return true;
}

void pc_bios_add(uint16_t vendor, uint16_t id, const struct pci_function *where)
{
    bus[bus_count++] = (struct pci_device){.where = *where, .vendor = vendor, .id = id};
}

void pci_scan(void (*found)(const struct pci_device *device))
{
    for (unsigned i = 0; i < bus_count; i++)
        found(&bus[i]);
}

void pci_open(struct pci_device *device)
{
    pc_bios.open(device);
}

/* ---- Running ---- */

void pc_bios_on(void)
{
    const uint32_t rom = ROM_SEGMENT << 4;
    const struct rom_table table = {
        .signature = "Baton",
        .enter = ENTER,
        .back = ENTER + 1,
        .called = ENTER + 2,
        .chain = ENTER + 3,
        .int13 = ISR,
        .drives = DRIVES,
        .headers = HEADERS,
        .pmm = PMM_AT,
        .old13 = OLD13,
        .int19 = INT19_AT,
    };

    put16(rom, 0xaa55);
    memory[rom + 2] = ROM_UNITS;
    put16(rom + ROM_PCIR_POINTER, PCIR);
    put16(rom + 0x1a, PNP);
    memcpy(memory + rom + ROM_TABLE, &table, sizeof(table));
    put32(rom + PMM_AT, 0xf0000000u | PMM);
    put32(4 * 0x10, 0xf0000000u | INT10);
    put32(4 * 0x13, 0xf0000000u | INT13);
    put32(4 * 0x19, 0xf0000000u | INT19);
    if (!pc_bios.no_pnp)
        memcpy(memory + PNP_CHECK, "$PnP", 4);
}

static struct frame enter(uint16_t what, const struct registers *registers)
{
    struct frame frame = {.registers = *registers, .what = what, .flags = FLAG_INTERRUPT | 0x0002};

    entered(&frame, STACK, TOP, ROM_SEGMENT);
    return frame;
}

bool pc_bios_start(void)
{
    const struct registers registers = {.es = PNP_CHECK >> 4};
    struct frame frame = enter(WHAT_INIT, &registers);
    const uint8_t *rom = memory + (ROM_SEGMENT << 4);

    started = true;
    if (frame.what != LEAVE_RETF)
        model_violation("the ROM's entry returns in way %u", frame.what);
    if ((rom[2] == 0) != pc_bios.image_back)
        model_violation("the ROM stays without its 32-bit part, or that without the ROM");
    if ((rom[2] == 0) != (get16(4 * 0x13) == INT13))
        model_violation("the ROM is gone, and INT 13h goes there; or the other way round");
    put16(ROM_SEGMENT << 4, rom[2] ? 0xaa55 : 0); /* a BIOS keeps what has a length */
    return rom[2] != 0;
}

unsigned pc_bios_connect(void)
{
    const uint32_t rom = ROM_SEGMENT << 4;
    const struct registers registers = {.es = PNP_CHECK >> 4};
    unsigned count = 0;

    for (uint32_t at = get16(rom + 0x1a); at != 0; at = get16(rom + at + 6)) {
        const uint8_t *header = memory + rom + at, *vector = memory + rom + get16(rom + at + 22);
        uint8_t sum = 0;
        for (unsigned i = 0; i < PNP_BYTES; i++)
            sum = (uint8_t)(sum + header[i]);
        if (memcmp(header, "$PnP", 4) != 0 || sum != 0)
            model_violation("boot entry %u has a wrong header", count);
        if (get16(rom + at + 22) == 0)
            continue; /* the first is there also if no disk is */
        if (vector[0] != 0x6a || vector[2] != 0xe9)
            model_violation("boot entry %u has a wrong vector", count);
        enter(vector[1], &registers);
        count++;
    }
    return count;
}

int pc_bios_read(uint8_t drive, uint64_t sector, uint32_t address)
{
    struct registers registers = {.eax = 0x4200, .edx = drive, .esi = PACKET};
    const struct {
        uint16_t bytes, blocks, offset, segment;
        uint64_t block, flat;
    } near = {16, 1, address & 0xf, (uint16_t)(address >> 4), sector, 0},
      far = {24, 1, 0xffff, 0xffff, sector, address}, packet = address < MEMORY ? near : far;

    memcpy(memory + PACKET, &packet, sizeof(packet));
    struct frame frame = enter(WHAT_INT13, &registers);
    if (get16(4 * 0x19) != INT19)
        model_violation("INT 19h is still another's after a call");
    return frame.what == LEAVE_CHAIN ? -1 : (int)(frame.registers.eax >> 8 & 0xff);
}

void pc_bios_int19(void)
{
    const struct registers registers = {.eax = 0};

    if (get16(4 * 0x19) != INT19_AT || get16(4 * 0x19 + 2) != ROM_SEGMENT)
        model_violation("INT 19h is not the ROM's");
    const struct frame frame = enter(WHAT_INT19, &registers);
    if (frame.what != LEAVE_RETF || frame.ip != INT19 || frame.cs != 0xf000)
        model_violation("INT 19h does not go to whose it is");
    if (get16(4 * 0x19) != INT19 || get16(4 * 0x19 + 2) != 0xf000)
        model_violation("INT 19h is still the ROM's");
}
