// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * The start of the ROM on a PC BIOS on Xen, with two disks, once per possible failure: allocation k
 * or hypercall k fails, or an answer of XenStore's is wrong, for every k until a start has no k-th
 * one. Afterwards memory that was given back was no backend's any more (C5), all of it was if there
 * is no disk, and the disks that are there work.
 */

#include "tests/unit/xen_harness.h"

#include <sys/wait.h>
#include <unistd.h>

#include "bios/virtio.h"
#include "tests/model/pc_bios.h"

#define DISKS 2u

/* Of all, the pages that can be exchanged; of a disk, its struct and its ring. */
#define BLOCKS_OF_ALL  1u
#define BLOCKS_OF_EACH 2u

enum { NOT_HAPPENED, HAPPENED, WRONG };

struct plan {
    enum { NONE, MEMORY, HYPERCALL, ANSWER, CDROM } fault; /* the first disk is one */
    unsigned k;
    bool for_good;
    enum xhost_fault answer;
};

/* ---- The machine: no virtio ---- */

void virtio_found(const struct pci_device *device)
{
    (void)device;
}

bool virtio_waits(void)
{
    return false;
}

struct drive *virtio_take_over(const struct pci_function *where)
{
    (void)where;
    return NULL;
}

static uint32_t port(const struct reg_window *window, uint64_t offset, bool write, uint32_t value)
{
    if (window != &io_ports || !pc_bios_port(offset, write, &value))
        model_violation("a register that is none, at %#llx", (unsigned long long)offset);
    return value;
}

uint8_t reg_read8(const struct reg_window *window, uint64_t offset)
{
    return (uint8_t)port(window, offset, false, 0);
}

void reg_write8(const struct reg_window *window, uint64_t offset, uint8_t value)
{
    port(window, offset, true, value);
}

static struct {
    void *memory;
    size_t bytes;
} held[PC_BIOS_BLOCKS];

static void *take(size_t bytes)
{
    unsigned i = 0;

    while (i < PC_BIOS_BLOCKS - 1 && held[i].memory)
        i++;
    held[i].bytes = bytes;
    return held[i].memory = xhost_alloc(bytes, 16);
}

static void give(void *memory, size_t bytes)
{
    (void)bytes;
    for (unsigned i = 0; i < PC_BIOS_BLOCKS; i++)
        if (held[i].memory == memory)
            held[i].memory = NULL;
    xhost_free(memory);
}

/* Blocks that are held and that some backend can still touch. */
static unsigned shown(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < PC_BIOS_BLOCKS; i++)
        count += held[i].memory && xhost_shown(held[i].memory, held[i].bytes);
    return count;
}

static bool bar(void *context, unsigned index, struct reg_window *window)
{
    (void)context;
    *window = xhost_place();
    return index == 1;
}

static void open_device(struct pci_device *device)
{
    device->door = *xhost_door();
    device->door.bar = bar;
}

static void window(void)
{
    xhost_skip_ms(50);
}

/* ---- What it has come to ---- */

static int start(const struct plan *plan)
{
    static const struct pci_function where = {.device = 2};
    struct xhost_options options = xhost_usual(DISKS);

    if (plan->fault == MEMORY) {
        pc_bios.fails_at = plan->k;
        pc_bios.fails_for_good = plan->for_good;
    }
    options.hypercall_fails_at = plan->fault == HYPERCALL ? plan->k : 0;
    options.answer_wrong_at = plan->fault == ANSWER ? plan->k : 0;
    options.fault = plan->answer;
    if (plan->fault == CDROM)
        options.disks[0].info = VDISK_CDROM;
    xhost_plug(&options);
    pc_bios.take = take;
    pc_bios.give = give;
    pc_bios.open = open_device;
    pc_bios.window = window;
    pc_bios_on();
    pc_bios_add(0x5853, 0x0001, &where);

    bool stays = pc_bios_start();
    unsigned blocks = drives_count ? BLOCKS_OF_ALL + drives_count * BLOCKS_OF_EACH : 0;
    bool memory_alone = plan->fault == MEMORY;
    if (stays && pc_bios_connect() != drives_count)
        model_violation("not as many boot entries as disks");
    if (stays != (drives_count != 0))
        model_violation("%u disks, and the ROM %s", drives_count, stays ? "stays" : "goes");
    /* Without its first block it does without. */
    unsigned least = memory_alone && plan->k == 1 && drives_count ? blocks - 1 : blocks;
    /* With what a backend has not let go of, all of that disk's stays (C5); and where nobody can be
     * asked, what it may not have let go of. */
    unsigned most = least + (memory_alone ? 0 : (shown() - drives_count) * BLOCKS_OF_EACH);
    if (pc_bios.held < least || (pc_bios.held > most && !xhost_store_spoilt()))
        model_violation("%u blocks are held, and not %u to %u", pc_bios.held, least, most);
    if (drives_count == 0 && pc_bios.held == 0)
        xhost_check_as_found();
    if (drives_count == 0 && memory_alone && pc_bios.held != 0)
        model_violation("memory was lost");
    if (memory_alone && !plan->for_good && drives_count == 0)
        model_violation("no disk is left");
    /* An error in place of the list is taken for a domain without disks. */
    if (drives_count < DISKS && !pc_bios.said[0] && xhost_counted()->logs == 0 &&
        !(plan->fault == ANSWER && plan->answer == XFAULT_ERROR))
        model_violation("disks are missing, and nobody says why");

    unsigned char *buffer = xhost_alloc(512, 0);
    for (unsigned i = 0; i < drives_count; i++) {
        unsigned disk = (unsigned)(drives[i].path.lun - options.disks[0].number) / 16;
        int status = pc_bios_read(drives[i].number, 9, (uint32_t)(uintptr_t)buffer);
        if (status == 0 && memcmp(buffer, xhost_disk(disk) + 9 * 512, 512) != 0)
            model_violation("%s: what was read is wrong", drives[i].name);
        if (status != 0 && memory_alone)
            model_violation("%s does not work", drives[i].name);
    }
    if (plan->fault == CDROM) {
        if (drives_count != DISKS - 1 || pc_bios.held != least)
            model_violation("%u disks, and %u blocks", drives_count, pc_bios.held);
        return HAPPENED;
    }
    bool happened = memory_alone ? pc_bios.allocations >= plan->k : xhost_fault_happened();
    if (!happened && drives_count != DISKS)
        model_violation("nothing has failed, and there are %u disks", drives_count);
    return happened ? HAPPENED : NOT_HAPPENED;
}

static void hung(void)
{
    _exit(WRONG);
}

static void somebody(void)
{
    pc_bios.window = window;
    pc_bios_int19();
}

static int start_and_abandon(const struct plan *plan)
{
    int result = start(plan);

    for (unsigned i = 0; i < drives_count; i++) {
        unsigned char *buffer = xhost_alloc(512, 0);
        uint32_t address = (uint32_t)(uintptr_t)buffer;
        xhost_now()->disks[i].io_us = 1000000;
        pc_bios.window = somebody;
        if (pc_bios_read(drives[i].number, 9, address) != 0x20)
            model_violation("a read that was given up is said to have been done");
        if (xhost_shown(buffer, 512))
            model_violation("C8: the buffer of a call that was given up is a backend's");
        xhost_now()->disks[i].io_us = 0;
        if (pc_bios_read(drives[i].number, 9, address) != 0)
            model_violation("%s does not work afterwards", drives[i].name);
    }
    if (xhost_watches() != 0)
        model_violation("%u watches are left", xhost_watches());
    return result;
}

static int in_a_process(int (*start)(const struct plan *), const struct plan *plan)
{
    int status;

    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        xhost_hung = hung;
        int result = start(plan);
        if (model_violations())
            fprintf(stderr, "%s\n%s", xhost_last_log(), pc_bios.said);
        _exit(model_violations() ? WRONG : result);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : WRONG;
}

static void for_every(struct plan plan, unsigned least)
{
    int result;

    do {
        plan.k++;
        result = in_a_process(start, &plan);
        if (result == WRONG)
            fail_msg("failure %u", plan.k);
        assert_true(plan.k < 5000);
    } while (result == HAPPENED);
    print_message("             %u failures\n", plan.k - 1);
    assert_true(plan.k > least);
}

static void each_allocation_fails(void **state)
{
    (void)state;
    for_every((struct plan){.fault = MEMORY}, 4);
    for_every((struct plan){.fault = MEMORY, .for_good = true}, 4);
}

static void each_hypercall_fails(void **state)
{
    (void)state;
    for_every((struct plan){.fault = HYPERCALL}, 40);
}

static void a_cd_is_closed(void **state)
{
    (void)state;
    assert_int_equal(in_a_process(start, &(struct plan){.fault = CDROM}), HAPPENED);
}

static void each_answer_of_xenstore_is_wrong(void **state)
{
    (void)state;
    for_every((struct plan){.fault = ANSWER, .answer = XFAULT_ERROR}, 20);
    for_every((struct plan){.fault = ANSWER, .answer = XFAULT_DEAD}, 20);
}

static void a_call_that_is_abandoned_leaves_nothing_behind(void **state)
{
    (void)state;
    assert_int_not_equal(in_a_process(start_and_abandon, &(struct plan){.fault = NONE}), WRONG);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_allocation_fails),
        cmocka_unit_test(each_hypercall_fails),
        cmocka_unit_test(a_cd_is_closed),
        cmocka_unit_test(each_answer_of_xenstore_is_wrong),
        cmocka_unit_test(a_call_that_is_abandoned_leaves_nothing_behind),
    };
    return cmocka_run_group_tests_name("the start on a PC BIOS on Xen", tests, NULL, NULL);
}
