// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The start: which disks there are, memory for them, a boot entry for each (BIOS Boot Specification
 * 1.01 §3.3), and INT 13h. Then the boot connection vectors, by which the BIOS says in which order
 * it wants them.
 */

#include "bios/drives.h"
#include "bios/int13.h"
#include "bios/log.h"
#include "bios/memory.h"
#include "bios/pci.h"
#include "bios/start.h"
#include "bios/virtio.h"
#include "bios/xen.h"

uint64_t ticks_per_ms;
uint32_t start_pmm;
uint16_t rom_segment;

/* The real-mode stack of whoever has come in. */
static uint32_t stack_ss, stack_esp;
static uint8_t *rom; /* at rom_segment */
static const struct rom_table *table;

/* ---- Real mode ---- */

/* What is at SS:ESP of it. */
static void *on_stack(uint32_t esp)
{
    return at_physical(physical_of((uint16_t)stack_ss, (uint16_t)esp));
}

uint16_t call_real(uint32_t segment_offset, struct registers *registers, const uint16_t *arguments,
                   unsigned count)
{
    uint32_t esp = stack_esp - (uint32_t)sizeof(struct real_call) - count * 2;
    struct real_call *call = on_stack(esp);

    call->registers = *registers;
    call->ip = (uint16_t)segment_offset;
    call->cs = (uint16_t)(segment_offset >> 16);
    call->return_ip = table->called;
    call->return_cs = rom_segment;
    __builtin_memcpy(call->arguments, arguments, count * sizeof(*arguments));
    const struct real_return *left = at_physical(go_real(BACK_CALL, stack_ss, esp));
    *registers = left->registers;
    return left->flags;
}

/* The interrupt's handler before us, with a buffer at DS:SI. */
static uint16_t ask_before_us(struct registers *registers, void *buffer, uint32_t bytes)
{
    const uint16_t flags = 0x0002;
    uint32_t esp = stack_esp;

    stack_esp -= bytes;
    void *there = on_stack(stack_esp);
    __builtin_memcpy(there, buffer, bytes);
    registers->ds = (uint16_t)stack_ss;
    registers->esi = stack_esp & 0xffff;
    uint16_t left =
        call_real(*(const uint32_t *)(const void *)(rom + table->old13), registers, &flags, 1);
    __builtin_memcpy(buffer, there, bytes);
    stack_esp = esp;
    return left;
}

/*
 * Whoever comes in may start another system by INT 19h, and then nobody comes back to the call that
 * we are in. So that is ours meanwhile. (For the rest of the time it is not for an option ROM to
 * have: BIOS Boot Specification 1.01.)
 */
static uint32_t old19;
static uint32_t stack_empty; /* stack_top where nobody is inside */

static volatile uint32_t *vector_at(unsigned number)
{
    return at_physical(number * 4);
}

static uint32_t in_rom(uint16_t offset)
{
    return (uint32_t)rom_segment << 16 | offset;
}

static void end_window(void)
{
    volatile uint32_t *vector = vector_at(0x19);

    if (*vector == in_rom(table->int19))
        *vector = old19;
}

void open_window(void)
{
    volatile uint32_t *vector = vector_at(0x19);

    /* It is, where somebody has kept it and put it back. */
    if (*vector != in_rom(table->int19))
        old19 = *vector;
    *vector = in_rom(table->int19);
    go_real(BACK_WINDOW, stack_ss, stack_esp);
    end_window();
}

/* On to whose it is. That one may yet come back to the call, with an error for it, so that what the
 * call has of the stack stays as it is, unless it has become too much. */
static void int19(struct frame *frame)
{
    end_window();
    int13_abandon();
    if (stack_empty - stack_top > STACK_BYTES / 2)
        stack_top = stack_empty;
    frame->ip = (uint16_t)old19;
    frame->cs = (uint16_t)(old19 >> 16);
}

uint32_t interrupt_vector(unsigned number)
{
    return *vector_at(number);
}

/* ---- The clock ---- */

#define PIT_HZ             1193182u
#define PIT_COUNTER2       0x42
#define PIT_CONTROL        0x43
#define SPEAKER            0x61
#define MEASURE_MS         10u
#define USUAL_TICKS_PER_MS 2000000u

/* Ticks of the time-stamp counter while the timer's channel that is for the speaker, which nobody
 * needs now, counts down. UINT32_MAX if it never does: a machine without it must not hang (C6). */
static uint32_t measure_once(void)
{
    const uint16_t count = PIT_HZ * MEASURE_MS / 1000;

    /* Mode 0: the output goes up at the end. */
    reg_write8(&io_ports, PIT_CONTROL, 0xb0);
    reg_write8(&io_ports, PIT_COUNTER2, (uint8_t)count);
    reg_write8(&io_ports, PIT_COUNTER2, (uint8_t)(count >> 8));
    uint64_t begin = clock_ticks();
    for (uint32_t looks = 0; looks < 10000000; looks++)
        if (reg_read8(&io_ports, SPEAKER) & 0x20)
            return (uint32_t)(clock_ticks() - begin);
    return UINT32_MAX;
}

/* The shortest of three: what a host takes away from us makes them longer. */
static uint64_t measure_clock(void)
{
    uint8_t speaker = reg_read8(&io_ports, SPEAKER);
    uint32_t least = UINT32_MAX;

    reg_write8(&io_ports, SPEAKER, (uint8_t)((speaker & 0xfc) | 1)); /* gate on, speaker off */
    for (unsigned i = 0; i < 3; i++) {
        uint32_t ticks = measure_once();
        if (ticks < least)
            least = ticks;
    }
    reg_write8(&io_ports, SPEAKER, speaker);
    return least != UINT32_MAX && least >= MEASURE_MS ? least / MEASURE_MS : USUAL_TICKS_PER_MS;
}

/* ---- The ROM ---- */

#define UNIT          512u
#define BOUNDARY      2048u
#define ROM_SPACE     0xc0000u
#define ROM_SPACE_END 0xf0000u
#define RUNNING       1 /* in the table's signature, after the name */

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

static uint8_t minus_sum(const uint8_t *from, size_t bytes)
{
    uint8_t sum = 0;

    while (bytes--)
        sum = (uint8_t)(sum - *from++);
    return sum;
}

/* A BIOS may run the same ROM for several devices. The first has all disks. */
static bool runs_already(void)
{
    for (uint32_t at = ROM_SPACE; at < ROM_SPACE_END; at += BOUNDARY) {
        const uint8_t *other = at_physical(at);
        const struct rom_table *its = (const struct rom_table *)(const void *)(other + ROM_TABLE);
        if (get16(other) == 0xaa55 && other[2] != 0 && other != rom &&
            !__builtin_memcmp(its->signature, "Baton", 5) && its->signature[5] == RUNNING)
            return true;
    }
    return false;
}

/* The last byte makes the sum of all of them 0. */
static void rom_seal(void)
{
    uint32_t bytes = rom[2] * UNIT;

    rom[bytes - 1] = 0;
    rom[bytes - 1] = minus_sum(rom, bytes);
}

/* The ROM ends here. */
static void rom_shrink(uint8_t *end)
{
    uint32_t bytes = (uint32_t)(end - rom);
    uint8_t *pcir = rom + get16(rom + ROM_PCIR_POINTER);

    while (bytes % UNIT != UNIT - 1)
        rom[bytes++] = 0;
    rom[2] = (uint8_t)((bytes + 1) / UNIT);
    put16(pcir + 16, rom[2]);
    pcir[21] |= 0x80; /* the last image */
    rom_seal();
}

/* ---- Boot entries ---- */

#define PNP_POINTER 0x1a
#define PNP_NEXT    6

static uint8_t *put_name(uint8_t *to, const struct drive *drive)
{
    const struct disk_info *info = &drive->disk->info;
    char *at = put_text(put_text((char *)to, "Baton: "), drive->name);

    at = put_decimal(put_text(at, ", "), info->blocks >> (20 - __builtin_ctz(info->block_size)));
    return (uint8_t *)put_text(at, " MiB") + 1;
}

/* A PnP expansion header for each drive, one pointing to the next, the name, and its vector: push
 * WHAT_BCV + the drive's number, jmp enter. */
static uint8_t *put_entries(void)
{
    uint8_t *at = rom + table->headers, *link = rom + PNP_POINTER;
    uint8_t *header = rom + get16(link);

    for (unsigned i = 0; i < drives_count; i++) {
        if (i != 0) {
            header = (uint8_t *)(((uintptr_t)at + 15) & ~(uintptr_t)15);
            at = header + PNP_BYTES;
        }
        put16(link, (uint32_t)(header - rom));
        link = header + PNP_NEXT;
        __builtin_memset(header, 0, PNP_BYTES);
        __builtin_memcpy(header, "$PnP", 4);
        header[4] = 1;
        header[5] = PNP_BYTES / 16;
        put16(header + 14, (uint32_t)(at - rom)); /* manufacturer, */
        put16(header + 16, (uint32_t)(at - rom)); /* and product */
        header[18] = 0x01;                        /* mass storage */
        header[21] = 0x64;                        /* may be shadowed and cached; can be started */
        at = put_name(at, &drives[i]);
        put16(header + 22, (uint32_t)(at - rom));
        *at++ = 0x6a;
        *at++ = (uint8_t)(WHAT_BCV + i);
        *at++ = 0xe9;
        put16(at, table->enter - (uint32_t)(at + 2 - rom));
        at += 2;
    }
    for (link = rom + PNP_POINTER; get16(link) != 0; link = rom + get16(link) + PNP_NEXT) {
        header = rom + get16(link);
        header[9] = minus_sum(header, PNP_BYTES);
    }
    return at;
}

/* ---- Numbers ---- */

static void set_number(struct drive *drive, uint8_t number)
{
    char line[120], *at;

    drive->number = number;
    at = put_text(put_hex(put_text(line, "drive "), drive->number, 2), "h: ");
    at = put_decimal(put_text(put_text(at, drive->name), ", "), drive->disk->info.blocks);
    at = put_decimal(put_text(at, " sectors of "), drive->disk->info.block_size);
    put_text(at, " bytes");
    log_text(line);
}

static void give_number(struct drive *drive)
{
    volatile uint8_t *disks = bios_data(BDA_DISKS);
    uint8_t index = *disks;
    uint8_t *bits = rom + table->drives;

    if (drive->number != 0 || index >= 0x80)
        return;
    *disks = (uint8_t)(index + 1);
    /* Read-only by now on some BIOSes: then virtual-8086 mode knows nothing of the drive. */
    if (index < 16) {
        put16(bits, get16(bits) | 1u << index);
        rom_seal();
    }
    set_number(drive, (uint8_t)(DRIVE_FIRST + index));
}

/* What 08h says: all are counted from 0 but sectors, and the last cylinder is kept back. */
static struct geometry geometry_told(uint32_t cx, uint32_t dx)
{
    uint32_t last = (cx >> 8 & 0xff) | (cx << 2 & 0x300);

    return (struct geometry){
        .cylinders = last + 2, .heads = (dx >> 8 & 0xff) + 1, .sectors = cx & 0x3f};
}

/* A number of the BIOS's is called for the first time: whether there is one of the devices behind
 * it that we may take over. If so, it is ours now. */
static bool take_over(uint8_t number)
{
    static uint32_t asked[4]; /* a bit for each number from 80h on */
    uint32_t bit = 1u << (number & 31), *word = &asked[number >> 5 & 3];
    struct parameters told = {.bytes = sizeof(told)};
    struct registers registers = {.eax = 0x4800, .edx = number};

    if (!virtio_waits() || number < DRIVE_FIRST || *word & bit)
        return false;
    if (ask_before_us(&registers, &told, sizeof(told)) & FLAG_CARRY)
        return false; /* no such drive, as yet */
    *word |= bit;
    /* How much it has filled in is not to be believed: SeaBIOS gives a path, and the length of an
     * answer without. */
    if (told.key != PARAMETERS_KEY || __builtin_memcmp(told.host_bus, "PCI ", 4) != 0)
        return false;
    const struct pci_function where = {
        .bus = told.bus, .device = told.device, .function = told.function};
    struct registers geometry = {.eax = 0x0800, .edx = number};
    bool has_geometry = !(ask_before_us(&geometry, &told, sizeof(told)) & FLAG_CARRY);
    struct drive *drive = virtio_take_over(&where);
    if (!drive)
        return false;
    /* What the user or the BIOS has decided on, partition tables may rely on. */
    if (has_geometry && geometry.ecx & 0x3f)
        drive->logical = geometry_told(geometry.ecx, geometry.edx);
    set_number(drive, number);
    return true;
}

static bool boot_specification(const struct frame *frame)
{
    const uint8_t *check =
        at_physical(physical_of(frame->registers.es, (uint16_t)frame->registers.edi));

    return !__builtin_memcmp(check, "$PnP", 4);
}

static void device_found(const struct pci_device *device)
{
    virtio_found(device);
    xen_platform_found(device);
}

static void start(struct frame *frame)
{
    uint8_t *end = rom;

    start_pmm = *(const uint32_t *)(const void *)(rom + table->pmm);
    ticks_per_ms = measure_clock();
    if (!runs_already())
        pci_scan(device_found);
    if (drives_count != 0 || virtio_waits()) {
        *(uint32_t *)(void *)(rom + table->old13) = *vector_at(0x13);
        *vector_at(0x13) = in_rom(table->int13);
        rom[ROM_TABLE + 5] = RUNNING;
        end = put_entries();
        /* Which numbers those will have nobody knows yet; and virtual-8086 mode must not have a
         * driver of the BIOS's wait for a device that is not its own any more. So it has none at
         * all. */
        if (virtio_waits())
            put16(rom + table->drives, 0xffff);
        if (!boot_specification(frame))
            for (unsigned i = 0; i < drives_count; i++)
                give_number(&drives[i]);
    }
    if (end != rom) {
        rom_shrink(end);
        return;
    }
    /* Nothing to do, and nothing of the ROM to stay. What has not been given back yet is what some
     * device has not let go of (C5). */
    rom[2] = 0;
    memory_give_image_back();
}

/* ---- Every entry ---- */

/* Of struct frame's `what`. */
static uint16_t serve(struct frame *frame)
{
    unsigned what = frame->what;

    if (what == WHAT_INT13) {
        if (!int13(frame) && !(take_over((uint8_t)frame->registers.edx) && int13(frame)))
            return LEAVE_CHAIN;
        log_leave_screen(); /* somebody is being started */
        return LEAVE_IRET;
    }
    if (what == WHAT_INIT) {
        stack_empty = stack_top;
        start(frame);
    } else if (what == WHAT_INT19) {
        int19(frame);
    } else if (what - WHAT_BCV < drives_count) {
        give_number(&drives[what - WHAT_BCV]);
    }
    return LEAVE_RETF;
}

__attribute__((regparm(0))) void entered(struct frame *frame, uint32_t ss, uint32_t esp,
                                         uint32_t segment)
{
    uint32_t ss_before = stack_ss, esp_before = stack_esp;

    rom_segment = (uint16_t)segment;
    rom = at_physical(segment << 4);
    table = (const struct rom_table *)(const void *)(rom + ROM_TABLE);
    back_offset = table->back;
    stack_ss = ss;
    stack_esp = esp;
    frame->what = serve(frame);
    stack_ss = ss_before;
    stack_esp = esp_before;
}
