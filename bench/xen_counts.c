// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * What Baton's Xen driver costs others, in numbers that depend on no clock: counted by the model of
 * a Xen host that the tests use. Sequential reads of 16 MiB, in requests of different sizes, and
 * the exit with different numbers of disks.
 */
#include "tests/unit/xen_harness.h"

#define READ_BYTES (16u << 20)

static double for_each_mib(uint64_t after, uint64_t before)
{
    return (double)(after - before) * (1 << 20) / READ_BYTES;
}

static void count_reads(size_t bytes)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;

    options.disks[0].sectors = READ_BYTES / DISK_SECTOR;
    xhost_plug(&options);
    guest_up(&guest);
    struct xhost_counts before = *xhost_counted();
    for (uint64_t at = 0; at < READ_BYTES; at += bytes)
        assert_int_equal(xio_run(&guest, 0, DISK_READ, at / DISK_SECTOR, bytes, 0), RESULT_OK);
    const struct xhost_counts *now = xhost_counted();
    printf("count: size=%zu requests=%g segments=%g hypercalls=%g messages=%g\n", bytes,
           for_each_mib(now->requests, before.requests),
           for_each_mib(now->segments, before.segments),
           for_each_mib(now->hypercalls, before.hypercalls),
           for_each_mib(now->messages, before.messages));
    guest_down(&guest);
    xhost_unplug();
}

static void count_exit(unsigned disks)
{
    struct xhost_options options = xhost_usual(disks);
    struct guest guest;

    xhost_plug(&options);
    guest_up(&guest);
    struct xhost_counts before = *xhost_counted();
    guest_exit(&guest, EXIT_MS);
    const struct xhost_counts *now = xhost_counted();
    printf("count: exit=%u waits=%llu hypercalls=%llu messages=%llu\n", disks,
           (unsigned long long)(now->waits - before.waits),
           (unsigned long long)(now->hypercalls - before.hypercalls),
           (unsigned long long)(now->messages - before.messages));
    guest_leave(&guest);
    xhost_unplug();
}

int main(void)
{
    static const size_t sizes[] = {4096, 65536, 1 << 20, 16 << 20};

    for (size_t i = 0; i < LENGTH(sizes); i++)
        count_reads(sizes[i]);
    for (unsigned disks = 1; disks <= XHOST_DISKS_MAX; disks *= 2)
        count_exit(disks);
    return 0;
}
