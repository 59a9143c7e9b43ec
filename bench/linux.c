// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * Direct reads of a block device by Linux, of the same sizes, orders and depths as disk.c's, and
 * said in the same lines.
 *
 *   linux DEVICE MS
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DEPTH   32
#define LARGEST (1u << 20)

static int device;
static uint64_t device_bytes;
static uint8_t *buffer;

_Noreturn static void fail(const char *what)
{
    printf("bench: failed %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t random_state = 1;

static uint64_t next_offset(uint32_t size, bool random, uint64_t *at)
{
    uint64_t blocks = device_bytes / size;

    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (random ? random_state % blocks : (*at)++ % blocks) * size;
}

static void result(bool random, uint32_t size, unsigned depth, uint64_t ops, uint64_t ns)
{
    printf("bench: driver=linux op=read order=%s size=%u depth=%u ops=%llu ns=%llu\n",
           random ? "random" : "sequential", size, depth, (unsigned long long)ops,
           (unsigned long long)ns);
}

static void one_at_a_time(uint32_t size, bool random, uint64_t budget)
{
    uint64_t ops = 0, at = 0, ns, start = now();

    do {
        off_t offset = (off_t)next_offset(size, random, &at);
        if (pread(device, buffer, size, offset) != (ssize_t)size)
            fail("reading");
        ops++;
        ns = now() - start;
    } while (ns < budget || ops < 3);
    result(random, size, 1, ops, ns);
}

static void many(uint32_t size, bool random, uint64_t budget)
{
    aio_context_t context = 0;
    static struct iocb blocks[DEPTH];
    static struct io_event events[DEPTH];
    uint64_t ops = 0, at = 0, start;
    unsigned in_flight = 0;
    bool over = false;

    if (syscall(SYS_io_setup, DEPTH, &context) != 0)
        fail("preparing reads");
    start = now();
    for (unsigned i = 0; i < DEPTH; i++)
        blocks[i] = (struct iocb){
            .aio_data = i,
            .aio_lio_opcode = IOCB_CMD_PREAD,
            .aio_fildes = (uint32_t)device,
            .aio_buf = (uintptr_t)(buffer + i * size),
            .aio_nbytes = size,
            .aio_offset = (int64_t)next_offset(size, random, &at),
        };
    for (unsigned i = 0; i < DEPTH; i++) {
        struct iocb *block = &blocks[i];
        if (syscall(SYS_io_submit, context, 1, &block) != 1)
            fail("submitting");
        in_flight++;
    }
    while (in_flight > 0) {
        long count = syscall(SYS_io_getevents, context, 1, DEPTH, events, NULL);
        if (count < 1)
            fail("waiting");
        over = over || now() - start >= budget;
        for (long i = 0; i < count; i++) {
            struct iocb *block = &blocks[events[i].data];
            if (events[i].res != (int64_t)size)
                fail("reading");
            ops++;
            in_flight--;
            if (over)
                continue;
            block->aio_offset = (int64_t)next_offset(size, random, &at);
            if (syscall(SYS_io_submit, context, 1, &block) != 1)
                fail("submitting");
            in_flight++;
        }
    }
    result(random, size, DEPTH, ops, now() - start);
    syscall(SYS_io_destroy, context);
}

int main(int count, char **words)
{
    static const uint32_t sizes[] = {4096, 65536, LARGEST};

    if (count != 3)
        return 2;
    uint64_t budget = strtoull(words[2], NULL, 10) * 1000000;
    device = open(words[1], O_RDONLY | O_DIRECT);
    off_t end = device < 0 ? -1 : lseek(device, 0, SEEK_END);
    if (end < (off_t)LARGEST)
        fail(words[1]);
    device_bytes = (uint64_t)end;
    buffer = aligned_alloc(4096, DEPTH * LARGEST);
    if (!buffer)
        fail("memory");
    memset(buffer, 0, DEPTH * LARGEST);
    for (unsigned random = 0; random < 2; random++)
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            one_at_a_time(sizes[i], random, budget);
            many(sizes[i], random, budget);
        }
    return 0;
}
