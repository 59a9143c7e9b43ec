/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Loaded into the lab's own QEMU (LD_PRELOAD) when it emulates a machine for Xen.
 *
 * QEMU 7.2 forgets its lock in one place: when a guest of the emulated hypervisor writes to CR8
 * while the hypervisor has an interrupt waiting for it, QEMU notes that interrupt without the lock,
 * finds its own assertion broken and aborts ("tcg_handle_interrupt: assertion failed"). 64-bit OVMF
 * writes to CR8 at the end of each timer interrupt, so on a busy machine that is a matter of time.
 * The function that withdraws an interrupt takes the lock where its caller does not have it; this
 * has the one that raises it do the same.
 *
 * Where anything is not as in that QEMU, nothing is done.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void interrupt_function(void *cpu, int mask);

/* QEMU's own, of the program that this is loaded into. */
extern void *object_class_by_name(const char *name) __attribute__((weak));
extern bool qemu_mutex_iothread_locked(void) __attribute__((weak));
extern void qemu_mutex_lock_iothread_impl(const char *file, int line) __attribute__((weak));
extern void qemu_mutex_unlock_iothread(void) __attribute__((weak));

enum { CLASS_WORDS = 28 }; /* of the table of functions, as many as may be looked at */

static interrupt_function *original;

static void with_the_lock(void *cpu, int mask)
{
    bool locked = qemu_mutex_iothread_locked();

    if (!locked)
        qemu_mutex_lock_iothread_impl(__FILE__, __LINE__);
    original(cpu, mask);
    if (!locked)
        qemu_mutex_unlock_iothread();
}

static void put_in(void)
{
    static const char said[] = "cr8: interrupts are raised with QEMU's lock\n";
    void **table;

    if (original != NULL || object_class_by_name == NULL || qemu_mutex_iothread_locked == NULL ||
        qemu_mutex_lock_iothread_impl == NULL || qemu_mutex_unlock_iothread == NULL)
        return;
    table = object_class_by_name("tcg-accel-ops");
    for (size_t i = 0; table != NULL && i < CLASS_WORDS; i++) {
        Dl_info info;

        if (table[i] == NULL || dladdr(table[i], &info) == 0 || info.dli_saddr != table[i] ||
            info.dli_sname == NULL || strcmp(info.dli_sname, "tcg_handle_interrupt") != 0)
            continue;
        memcpy(&original, &table[i], sizeof(original));
        table[i] = (void *)(uintptr_t)with_the_lock;
        (void)!write(STDERR_FILENO, said, sizeof(said) - 1);
        return;
    }
}

/* The last of QEMU's threads that are started before the machine runs is its processor's, and by
 * then the table is there. */
int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes,
                   void *(*start)(void *), void *restrict argument)
{
    typedef int create_function(pthread_t *restrict, const pthread_attr_t *restrict,
                                void *(*)(void *), void *restrict);
    static create_function *create;
    void *next;

    if (create == NULL) {
        next = dlsym(RTLD_NEXT, "pthread_create");
        memcpy(&create, &next, sizeof(create));
    }
    put_in();
    return create(thread, attributes, start, argument);
}
