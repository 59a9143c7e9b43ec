/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Looks, from within Linux, at the memory that the program of tests/real has kept from Linux with
 * memmap= on the command line, and left its pattern in. Says how much that is, how many words of it
 * are others now, and where the first and the last of those are.
 *
 *   watch WHEN
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* As in tests/real/memory.c. */
static const uint32_t FACTOR = 0x9e3779b1, OFFSET = 0x7f4a7c15;

static uint64_t bytes, changed, first, last;

_Noreturn static void fail(const char *what)
{
    printf("linux: failed %s: %s\n", what, strerror(errno));
    exit(1);
}

static void look(int memory, uint64_t start, uint64_t size)
{
    const uint32_t *words = mmap(NULL, size, PROT_READ, MAP_SHARED, memory, (off_t)start);

    if (words == MAP_FAILED)
        fail("mapping memory");
    uint32_t value = (uint32_t)start * FACTOR + OFFSET;
    for (uint64_t i = 0; i < size / 4; i++, value += 4 * FACTOR) {
        if (words[i] == value)
            continue;
        last = start + 4 * i;
        if (changed++ == 0)
            first = last;
    }
    bytes += size;
    munmap((void *)words, size);
}

int main(int count, char **words)
{
    static char line[4096];
    FILE *file = fopen("/proc/cmdline", "r");
    int memory = open("/dev/mem", O_RDONLY);

    if (count != 2)
        return 2;
    if (!file || !fgets(line, sizeof(line), file) || memory < 0)
        fail("looking");
    for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n")) {
        if (strncmp(word, "memmap=", 7) != 0)
            continue;
        char *start;
        uint64_t size = strtoull(word + 7, &start, 0);
        if (*start != '$')
            fail(word);
        look(memory, strtoull(start + 1, NULL, 0), size);
    }
    printf("linux: looked when=%s bytes=%llu changed=%llu first=0x%llx last=0x%llx\n", words[1],
           (unsigned long long)bytes, (unsigned long long)changed, (unsigned long long)first,
           (unsigned long long)last);
    return 0;
}
