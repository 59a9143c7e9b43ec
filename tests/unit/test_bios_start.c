// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The start of the ROM on a PC BIOS once per possible failure, with a virtio disk and a virtio SCSI
 * adapter of two units on the bus: allocation k fails, a device fails or dies at its k-th chance,
 * for every k until a start has no k-th one. Afterwards memory that was given back was nobody's any
 * more (C5), all of it was that belongs to no disk, and the disks that are there work.
 *
 * Each start has a process of its own: the ROM keeps what it knows.
 */

#define _GNU_SOURCE

#include "tests/unit/harness.h"

#include <linux/virtio_blk.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bios/door.h"
#include "tests/model/pc_bios.h"
#include "tests/model/virtio_blk.h"
#include "tests/model/virtio_scsi.h"
#include "core/xen/abi.h"

enum { BLK, SCSI, DEVICES };
#define UNITS     2u
#define SECTOR_AT 0x20000u

/* Of a disk: its struct and its ring; of an adapter the same, and of each unit its struct. */
#define BLOCKS_OF_BLK       2u
#define BLOCKS_OF_SCSI      3u
#define BLOCKS_OF_EACH_UNIT 1u

/* One start. */
struct plan {
    const char *name;
    enum fault { NONE, MEMORY, FAULT, GONE_ONCE, GONE, STUCK } fault;
    unsigned k;      /* it is the k-th, from 1 */
    bool for_good;   /* and all after it */
    unsigned device; /* whose, but of memory */
    bool scsi_first; /* on the bus */
    unsigned units;
    enum vdev_transport transport;
    void (*change)(struct vdev_options *options); /* of that device */
};

/* What a start has come to, as its process tells it. */
enum { NOT_HAPPENED, HAPPENED, WRONG };

/* ---- The machine ---- */

void cpuid(uint32_t leaf, uint32_t registers[4])
{
    (void)leaf;
    memset(registers, 0, 4 * sizeof(*registers)); /* Xen is not here */
}

intptr_t hypercall(unsigned number, unsigned command, void *argument, unsigned count)
{
    (void)number, (void)command, (void)argument, (void)count;
    abort();
}

static bool elsewhere(const struct reg_window *window, uint64_t where, bool write, uint32_t *value)
{
    return window == &io_ports && pc_bios_port(where, write, value);
}

/* Not on a page's boundary: older specifications do not know how to ask for that. */
static void *take(size_t bytes)
{
    uint8_t *memory = mmap(NULL, bytes + 16, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

    if (memory == MAP_FAILED)
        abort();
    memset(memory, 0xcc, bytes + 16);
    dma_add_plain(memory + 16, bytes);
    return memory + 16;
}

static void give(void *memory, size_t bytes)
{
    dma_end_plain(memory);
    munmap((uint8_t *)memory - 16, bytes + 16);
}

static void open_device(struct pci_device *device)
{
    for (unsigned i = 0; i < DEVICES; i++) {
        vdev_turn_to(i);
        if (memcmp(&device->where, vdev_where(), sizeof(device->where)) == 0)
            device->door = *vdev_door();
    }
}

/* The device works, and time passes, so that one that does not is not waited for too long. */
static void window(void)
{
    cpu_relax();
    vdev_skip_ms(50);
}

static void plug(const struct plan *plan, unsigned device)
{
    struct vdev_options options = device == BLK ? vblk_usual() : vscsi_usual();

    options.transport = plan->transport;
    options.queue_size = 16;
    options.pace = VDEV_AT_ONCE;
    if (device == BLK) {
        vblk.capacity = 1024;
        if (plan->transport == VDEV_MODERN)
            options.features |= feature(VIRTIO_BLK_F_GEOMETRY);
        vblk.cylinders = 16, vblk.heads = 2, vblk.sectors = 32;
    } else {
        vscsi.max_target = 2;
        vscsi.unit_count = 0;
        for (unsigned i = 0; i < plan->units; i++)
            vscsi_add((uint8_t)(2 * i), 0);
    }
    if (device == plan->device) {
        if (plan->fault == FAULT)
            options.fault_at = plan->k;
        if (plan->fault == STUCK)
            options.stuck_reset_at = plan->k;
        if (plan->fault == GONE || plan->fault == GONE_ONCE)
            options.gone_at = plan->k;
        options.gone_for_good = plan->fault == GONE;
        if (plan->change)
            plan->change(&options);
    }
    vdev_turn_to(device);
    vdev_plug(&options);
}

static void machine_on(const struct plan *plan)
{
    static const uint16_t ids[2][DEVICES] = {{0x1042, 0x1048}, {0x1001, 0x1004}};

    vdev_elsewhere = elsewhere;
    if (plan->fault == MEMORY) {
        pc_bios.fails_at = plan->k;
        pc_bios.fails_for_good = plan->for_good;
    }
    pc_bios.take = take;
    pc_bios.give = give;
    pc_bios.open = open_device;
    pc_bios.window = window;
    pc_bios_on();
    for (unsigned i = 0; i < DEVICES; i++)
        plug(plan, i);
    for (unsigned i = 0; i < DEVICES; i++) {
        unsigned device = plan->scsi_first ? DEVICES - 1 - i : i;
        vdev_turn_to(device);
        pc_bios_add(0x1af4, ids[plan->transport == VDEV_LEGACY][device], vdev_where());
    }
}

/* ---- What it has come to ---- */

/* How many drives a device has, and whether each works. A read that fails says so. */
static unsigned drives_of(unsigned device, bool *work)
{
    const char *name = device == BLK ? "virtio-blk" : "virtio-scsi";
    const uint8_t *right = (device == BLK ? vblk_disk() : vscsi_disk()) + 9 * DISK_SECTOR;
    unsigned count = 0;

    *work = true;
    for (unsigned i = 0; i < drives_count; i++) {
        if (strncmp(drives[i].name, name, strlen(name)) != 0)
            continue;
        count++;
        int status = pc_bios_read(drives[i].number, 9, SECTOR_AT);
        if (status == 0 && memcmp(pc_bios_memory(SECTOR_AT), right, DISK_SECTOR) != 0)
            model_violation("%s: what was read is wrong", drives[i].name);
        *work &= status == 0;
    }
    return count;
}

/* Gives how many drives there are. */
static unsigned judge(const struct plan *plan)
{
    const unsigned should[] = {1, plan->units};
    bool stays = pc_bios_start(), stuck = false;
    unsigned blocks = 0;

    if (stays && pc_bios_connect() != drives_count)
        model_violation("not as many boot entries as disks");
    if (stays != (drives_count != 0))
        model_violation("%u disks, and the ROM %s", drives_count, stays ? "stays" : "goes");
    for (unsigned device = 0; device < DEVICES; device++) {
        bool faulty = device == plan->device && plan->fault != MEMORY && plan->fault != NONE;
        bool work;
        unsigned has = drives_of(device, &work);

        vdev_turn_to(device);
        /* A device that is not heard of any more, or has refused to be reset, keeps its memory. */
        bool refuses = faulty && (vdev_now()->gone_at != 0 || vdev_counted()->resets_refused != 0);
        stuck |= refuses;
        if (has != should[device] && !faulty && plan->fault != MEMORY)
            model_violation("device %u has %u disks, and nothing is wrong with it", device, has);
        if (!work && !faulty)
            model_violation("device %u does not work", device);
        if (has != 0)
            blocks += device == BLK ? BLOCKS_OF_BLK : BLOCKS_OF_SCSI + has * BLOCKS_OF_EACH_UNIT;
        else if (!refuses && (vdev_live() || vdev_status() != 0))
            model_violation("device %u is left with status %#x", device, vdev_status());
        if (has < should[device] && !pc_bios.said[0] && vdev_counted()->logs == 0)
            model_violation("device %u has no disk, and nobody says why", device);
    }
    if (stuck ? pc_bios.held < blocks : pc_bios.held != blocks)
        model_violation("%u blocks are held, and not %u", pc_bios.held, blocks);
    return drives_count;
}

/* ---- Each start in its own process ---- */

static void hung(void)
{
    _exit(WRONG);
}

static int in_a_process(int (*start)(const struct plan *), const struct plan *plan)
{
    int status;

    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        vdev_hung = hung;
        int result = start(plan);
        for (unsigned i = 0; model_violations() && i < DEVICES; i++) {
            vdev_turn_to(i);
            fprintf(stderr, "device %u: %s\n%s", i, vdev_last_log(), i ? pc_bios.said : "");
        }
        _exit(model_violations() ? WRONG : result);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : WRONG;
}

/* For every k until there is no k-th; there are more than `least`. */
static void for_every(int (*start)(const struct plan *), struct plan *plan, unsigned least)
{
    int result;

    plan->k = 0;
    do {
        plan->k++;
        result = in_a_process(start, plan);
        if (result == WRONG)
            fail_msg("%s%s: failure %u", plan->name, plan->scsi_first ? ", the adapter first" : "",
                     plan->k);
        assert_true(plan->k < 5000);
    } while (result == HAPPENED);
    print_message("             %s: %u failures\n", plan->name, plan->k - 1);
    assert_true(plan->k > least);
}

/* ---- Nothing fails ---- */

static int start_well(const struct plan *plan)
{
    machine_on(plan);
    if (judge(plan) != 1 + plan->units)
        model_violation("disks are missing");
    return HAPPENED;
}

static void all_disks_are_had(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        struct plan plan = {.scsi_first = i & 1,
                            .transport = i & 2 ? VDEV_LEGACY : VDEV_MODERN,
                            .units = i & 4 ? 0 : UNITS};
        assert_int_equal(in_a_process(start_well, &plan), HAPPENED);
    }
}

static int read_to_roms(const struct plan *plan)
{
    static const struct {
        uint32_t address;
        int status;
    } places[] = {
        {0xc0000, 0},
        {0xefe00, 0},
        {0xefe01, 0x09},
        {PC_BIOS_ROM, 0x09},
        {PC_BIOS_ROM - 511, 0x09},
        {PC_BIOS_ROM - 512, 0},
        {0xf0000, 0x09},
        {0xfff00, 0x09},
        {0xffff0, 0x09},
    };

    machine_on(plan);
    judge(plan);
    for (unsigned i = 0; i < LENGTH(places); i++)
        if (pc_bios_read(0x80, 9, places[i].address) != places[i].status)
            model_violation("a read to %#x is refused, or is not", places[i].address);
    return HAPPENED;
}

static void nothing_is_read_to_where_the_bios_is(void **state)
{
    const struct plan plan = {.units = UNITS};

    (void)state;
    assert_int_equal(in_a_process(read_to_roms, &plan), HAPPENED);
}

/* ---- A call that nobody comes back to ---- */

static jmp_buf out_of_the_call;

static void another_system(void)
{
    pc_bios.window = window;
    pc_bios_int19();
    longjmp(out_of_the_call, 1);
}

/* With a stack of which all is left. */
static const uint32_t empty = 2 * STACK_BYTES;

static void start_to_be_called(const struct plan *plan)
{
    machine_on(plan);
    stack_top = empty;
    judge(plan);
}

static void must_work(unsigned device, enum vdev_pace pace)
{
    bool work;

    vdev_turn_to(device);
    vdev_now()->pace = pace;
    drives_of(device, &work);
    if (!work)
        model_violation("device %u does not work", device);
}

static void abandon_a_call(unsigned device)
{
    vdev_turn_to(device);
    vdev_now()->pace = VDEV_BY_HAND;
    pc_bios.window = another_system;
    if (setjmp(out_of_the_call) == 0) {
        pc_bios_read((uint8_t)(0x80 + device), 9, SECTOR_AT);
        model_violation("nobody is let in");
    }
    vdev_turn_to(device);
    if (vdev_in_flight() != 0)
        model_violation("C8: what nobody waits for is in flight");
    pc_bios.window = window;
    must_work(device, VDEV_AT_ONCE);
}

static int abandon_calls(const struct plan *plan)
{
    start_to_be_called(plan);
    for (unsigned device = 0; device < DEVICES; device++) {
        must_work(device, VDEV_IN_ORDER); /* in the window, and all is well */
        for (unsigned i = 0; i < 2 * STACK_BYTES / PC_BIOS_CALL; i++) {
            abandon_a_call(device);
            if (stack_top > empty || stack_top <= empty - STACK_BYTES)
                model_violation("after %u calls the stack is at %#x", i, stack_top);
        }
    }
    return HAPPENED;
}

static void a_call_that_is_abandoned_leaves_nothing_behind(void **state)
{
    const struct plan plan = {.units = UNITS};

    (void)state;
    assert_int_equal(in_a_process(abandon_calls, &plan), HAPPENED);
}

static void nobody_else(void)
{
    pc_bios.window = window;
    pc_bios_int19();
}

static int go_on_after_int19(const struct plan *plan)
{
    start_to_be_called(plan);
    for (unsigned device = 0; device < DEVICES; device++) {
        vdev_turn_to(device);
        vdev_now()->pace = VDEV_BY_HAND;
        pc_bios.window = nobody_else;
        if (pc_bios_read((uint8_t)(0x80 + device), 9, SECTOR_AT) != 0x20)
            model_violation("a read that was given up is said to have been done");
        if (stack_top != empty)
            model_violation("the stack is at %#x", stack_top);
        must_work(device, VDEV_AT_ONCE);
    }
    return HAPPENED;
}

static void an_int19_that_comes_back_finds_an_error(void **state)
{
    const struct plan plan = {.units = UNITS};

    (void)state;
    assert_int_equal(in_a_process(go_on_after_int19, &plan), HAPPENED);
}

/* ---- Memory ---- */

static int start_without_memory(const struct plan *plan)
{
    machine_on(plan);
    unsigned count = judge(plan);
    bool happened = pc_bios.allocations >= plan->k;
    /* One allocation is one device's, or one unit's. */
    if (happened && !plan->for_good && count == 0)
        model_violation("no disk is left");
    if (happened && count == 1 + UNITS)
        model_violation("all disks are there, without memory");
    return happened ? HAPPENED : NOT_HAPPENED;
}

static void each_allocation_fails(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct plan plan = {.name = i & 1 ? "no memory from there on" : "no memory once",
                            .fault = MEMORY,
                            .for_good = i & 1,
                            .scsi_first = i & 2,
                            .units = UNITS};
        for_every(start_without_memory, &plan, 6);
    }
}

/* ---- Devices ---- */

static int start_with_fault(const struct plan *plan)
{
    machine_on(plan);
    judge(plan);
    vdev_turn_to(plan->device);
    uint64_t times = plan->fault == FAULT   ? vdev_counted()->points
                     : plan->fault == STUCK ? vdev_counted()->resets
                                            : vdev_counted()->reads;
    return times >= plan->k ? HAPPENED : NOT_HAPPENED;
}

static void each_fault(const char *name, enum fault fault, unsigned least,
                       void (*change)(struct vdev_options *options))
{
    for (unsigned i = 0; i < 4; i++) {
        struct plan plan = {.name = name,
                            .fault = fault,
                            .device = i & 1 ? SCSI : BLK,
                            .scsi_first = i & 1,
                            .transport = i & 2 ? VDEV_LEGACY : VDEV_MODERN,
                            .units = UNITS,
                            .change = change};
        for_every(start_with_fault, &plan, least);
    }
}

static void each_chance_to_fail_is_taken(void **state)
{
    (void)state;
    each_fault("a refusal", FAULT, 10, NULL);
}

static void each_register_is_read_as_all_ones_once(void **state)
{
    (void)state;
    each_fault("all ones", GONE_ONCE, 10, NULL);
}

static void the_device_is_gone_from_each_read_on(void **state)
{
    (void)state;
    each_fault("gone", GONE, 10, NULL);
    /* And nothing else is there. */
    struct plan plan = {.name = "gone alone", .fault = GONE, .device = BLK};
    for_every(start_with_fault, &plan, 10);
}

static void refuse_features(struct vdev_options *options)
{
    options->lie = LIE_FEATURES_REFUSED;
}

static void small_queues(struct vdev_options *options)
{
    options->queue_size = 1;
}

/* Once it is running, and something has been given to it. */
static void deaf(struct vdev_options *options)
{
    options->pace = VDEV_BY_HAND;
}

/* After what went wrong, as the one before the start is the first. */
static void second_reset(struct vdev_options *options)
{
    options->stuck_reset_at = 2;
}

static int start_with_refusal(const struct plan *plan)
{
    machine_on(plan);
    if (judge(plan) != (plan->device == BLK ? plan->units : 1))
        model_violation("what cannot be had is had");
    return HAPPENED;
}

static void a_device_that_cannot_be_had_is_left_as_it_was(void **state)
{
    static void (*const changes[])(struct vdev_options *) = {refuse_features, small_queues};

    (void)state;
    for (unsigned i = 0; i < 2 * LENGTH(changes); i++) {
        struct plan plan = {.name = "a refusal",
                            .fault = FAULT,
                            .device = i & 1 ? SCSI : BLK,
                            .units = UNITS,
                            .change = changes[i / 2]};
        assert_int_equal(in_a_process(start_with_refusal, &plan), HAPPENED);
    }
}

static void each_reset_is_refused(void **state)
{
    (void)state;
    each_fault("a reset", STUCK, 1, NULL);
    each_fault("a reset of one that is deaf", STUCK, 1, deaf);
    each_fault("a refusal, and then a reset", FAULT, 10, second_reset);
}

static void adapters_without_units_are_given_back(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct plan plan = {.name = "no units", .fault = i ? STUCK : NONE, .device = SCSI};
        if (i)
            for_every(start_with_fault, &plan, 1);
        else
            assert_int_equal(in_a_process(start_well, &plan), HAPPENED);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_disks_are_had),
        cmocka_unit_test(nothing_is_read_to_where_the_bios_is),
        cmocka_unit_test(a_call_that_is_abandoned_leaves_nothing_behind),
        cmocka_unit_test(an_int19_that_comes_back_finds_an_error),
        cmocka_unit_test(each_allocation_fails),
        cmocka_unit_test(each_chance_to_fail_is_taken),
        cmocka_unit_test(each_register_is_read_as_all_ones_once),
        cmocka_unit_test(the_device_is_gone_from_each_read_on),
        cmocka_unit_test(a_device_that_cannot_be_had_is_left_as_it_was),
        cmocka_unit_test(each_reset_is_refused),
        cmocka_unit_test(adapters_without_units_are_given_back),
    };
    return cmocka_run_group_tests_name("the start on a PC BIOS", tests, NULL, NULL);
}
