/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What every EFI program of the lab, the tests and the benchmarks stands on.
 *
 * A program includes this file, defines app_main() and is linked with app.o (and driver.o where it
 * asks who drives a device):
 *
 *     build/tests/vm/hello.efi: build/efi/tests/vm/hello.o build/efi/lab/efi/app.o
 *             $(EFI_LINK_APP)
 *
 * The lab starts it with QEMU's -kernel; -append becomes its options (see app_option()). With the
 * option exit=debug the machine is ended with app_main()'s value; without, the program returns to
 * the firmware, which goes on to boot from disk.
 *
 * All output goes straight to the COM1 port, never through firmware, so printing works at any time,
 * also after ExitBootServices, and never disturbs the memory map.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <efi.h>
/* gnu-efi's headers define it away for this target, and with it what the compiler checks below. */
#undef __attribute__

/* Filled in before app_main() runs. `bs` is NULL once boot services are gone. */
struct app {
    EFI_HANDLE image;
    EFI_SYSTEM_TABLE *st;
    EFI_BOOT_SERVICES *bs;
    EFI_RUNTIME_SERVICES *rt;
    unsigned failures; /* how many app_check()s did not hold */
    bool debug_port;   /* print to a hypervisor's debug port, 0xE9, and not to COM1 */
    bool no_return; /* the firmware holds addresses of the program's: it must not be given back */
    /* What to do, before the end, about an assertion that does not hold; NULL: nothing more. */
    void (*failed)(const char *what);
};
extern struct app app;

/*
 * The program. Its value is the program's result: 0 is success. A failed app_check() makes the
 * result 1 even when app_main() returns 0.
 */
int app_main(void);

/* ---- Ending ---- */

/*
 * End the program now with this result. As the option `exit` says:
 *   exit=debug  end QEMU through its isa-debug-exit device (needs -device isa-debug-exit);
 *   exit=off    power the machine off;
 *   exit=halt   stop the processor, with all that is on the screen;
 *   otherwise   give control back to the firmware (power off, where it is gone).
 * Before that, the line "app: result N" is printed, so that a program that ended can be told from
 * one that was lost.
 */
_Noreturn void app_exit(int result);

/* Power the machine off, whether or not boot services are still there. */
_Noreturn void app_power_off(void);

/* ---- Output ---- */

/*
 * Print on COM1. Understood: %d %i %u %x %X %c %s %p %% and %ls (UTF-16, shown as ASCII); the
 * lengths l, ll, z; a width, a leading 0 or -, and a precision for strings (also given as `*`).
 * A 64-bit number is %llu or %llx: on this target long has 32 bits, and the compiler checks.
 */
__attribute__((format(printf, 1, 2))) void app_print(const char *format, ...);
void app_print_args(const char *format, va_list args);

/* Likewise into a buffer, always terminated. Returns the length, cut to what fits. */
__attribute__((format(printf, 3, 4))) size_t app_format(char *buffer, size_t size,
                                                        const char *format, ...);

__attribute__((format(printf, 3, 0))) size_t app_format_args(char *buffer, size_t size,
                                                             const char *format, va_list args);

/* One byte to COM1, as it is. */
void app_put(char c);

/* ---- Checking ---- */

/* Print "file:line: …" and end the program with result 1, unless it holds. */
#define app_assert(condition)                                                                      \
    ((condition) ? (void)0 : app_failed(__FILE__, __LINE__, "assertion failed: " #condition))

/* The same for a call that gives an EFI_STATUS; the status is printed. */
#define app_assert_ok(call) app_require_ok((call), __FILE__, __LINE__, #call)

/* Print "file:line: …" and count a failure, but go on. Gives the condition's value. */
#define app_check(condition)                                                                       \
    ((condition) ? true : app_count_failure(__FILE__, __LINE__, "check failed: " #condition))

/* A check of an EFI_STATUS against the one that is expected; both are printed. */
#define app_check_status(call, expected)                                                           \
    app_count_status((call), (expected), __FILE__, __LINE__, #call)

_Noreturn void app_failed(const char *file, int line, const char *what);
bool app_count_failure(const char *file, int line, const char *what);
void app_require_ok(EFI_STATUS status, const char *file, int line, const char *what);
bool app_count_status(EFI_STATUS status, EFI_STATUS expected, const char *file, int line,
                      const char *what);

/* "success", "not found", …; "error" for one that has no name here. */
const char *app_status_name(EFI_STATUS status);

/* ---- Options ---- */

/*
 * Options are words separated by spaces: NAME or NAME=VALUE.
 * app_option() gives the value, "" for a bare NAME, and NULL when it was not given.
 */
const char *app_option(const char *name);
bool app_flag(const char *name); /* given at all, and not as NAME=0 or NAME=no */

/* The values of an option that may be given more than once, NAME=VALUE each: the first one for
 * `after` NULL, then the one after that. NULL when there are no more. */
const char *app_option_next(const char *name, const char *after);

/* All words, one after the other. */
const char *app_option_word(const char *after);

/* More options, from wherever the program has found them. */
void app_options_add(const char *text, size_t size);

/* More options, from a file of this name beside the program, if there is one: for firmware that
 * starts the program without. */
void app_options_file(const CHAR16 *name);

/* A number, decimal or 0x…, with an optional K, M or G (1024 each). Anything else ends the
 * program with a message. */
uint64_t app_option_number(const char *name, uint64_t otherwise);

/* ---- Time ---- */

static inline uint64_t app_tsc(void)
{
    uint32_t low, high;
    /* lfence: do not read the clock before what came before it is done. */
    __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

/* Ticks of the TSC in a microsecond; measured once, before app_main(), against the firmware's
 * Stall(), so it is known after ExitBootServices as well. */
uint64_t app_tsc_per_us(void);

/* Microseconds and nanoseconds in so many ticks. */
uint64_t app_us(uint64_t ticks);
uint64_t app_ns(uint64_t ticks);

/* Wait by looking at the TSC: no firmware, no timer. */
void app_delay_us(uint64_t us);

/* ---- Ports ---- */

static inline void app_out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t app_in8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline void app_out32(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint32_t app_in32(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

/* ---- Interrupts ---- */

/* Off, and back to what they were: for what the firmware's timer must not come in between. */
static inline uintptr_t app_interrupts_off(void)
{
    uintptr_t flags;
    __asm__ volatile("pushf; pop %0; cli" : "=r"(flags) : : "memory");
    return flags;
}

static inline void app_interrupts_back(uintptr_t flags)
{
    __asm__ volatile("push %0; popf" : : "r"(flags) : "memory", "cc");
}

/* ---- Handles and protocols ---- */

/* Handles that carry a protocol, into the caller's array: nothing is allocated. Gives how many were
 * stored, at most `max`. */
size_t app_handles(const EFI_GUID *protocol, EFI_HANDLE *handles, size_t max);

/* The protocol's interface on a handle, or NULL. Does not count as opening it. */
void *app_protocol(EFI_HANDLE handle, const EFI_GUID *protocol);

/* The one instance of a protocol, wherever it is, or NULL. */
void *app_locate(const EFI_GUID *protocol);

bool app_guid_equal(const EFI_GUID *a, const EFI_GUID *b);

/* Let drivers bind: ConnectController, recursively, on every handle with a device path. */
void app_connect_all(void);

/* Handles of whole disks (Block I/O that is not a partition), at most `max`, in order of their PCI
 * place, so that the order is that of the devices on QEMU's command line. Not the firmware's own
 * RAM disks or floppies: only those under PCI. */
size_t app_disks(EFI_HANDLE *handles, size_t max);

/* Segment, bus, device, function of the PCI device that a handle is, or hangs below. */
struct app_pci {
    UINTN segment, bus, device, function;
    EFI_HANDLE handle; /* the PCI device's own handle, with PciIo on it */
};
bool app_pci_of(EFI_HANDLE handle, struct app_pci *pci);

/* A device path as text, e.g. "PciRoot(0x0)/Pci(0x4,0x0)"; "" for NULL. */
void app_path_text(const EFI_DEVICE_PATH *path, char *text, size_t size);

/* Pages of memory that the program keeps for good; ends the program when there are none. */
void *app_pages(size_t bytes);

/* A whole file of the volume that the program came from, in such pages; NULL if there is none of
 * that name. `path` begins with a backslash. */
void *app_file(const CHAR16 *path, UINTN *size);

/* ---- The memory map and the exit ---- */

/* A snapshot of the memory map. It lives in the program's own memory, so taking one changes
 * nothing. */
struct app_map {
    _Alignas(16) uint8_t bytes[256 * 1024];
    UINTN size, key, entry_size;
    UINT32 version;
};
void app_map_read(struct app_map *map);

/* Entry i, or NULL past the end. */
const EFI_MEMORY_DESCRIPTOR *app_map_entry(const struct app_map *map, size_t i);

/* Pages of one type, summed up. */
uint64_t app_map_pages(const struct app_map *map, UINT32 type);

/* ExitBootServices with this snapshot's key. On success app.bs becomes NULL. */
EFI_STATUS app_map_exit(const struct app_map *map);

/* Read the map and exit, again where the key went stale in between; ends the program when it
 * cannot be done. */
void app_exit_boot_services(void);

/* ---- Memory and strings ---- */

/* The compiler calls the first four by itself. */
void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *a, const void *b, size_t size);
size_t strlen(const char *text);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t size);

/* A pattern that tells where a byte belongs: the same seed and offset always give the same bytes.
 * `offset` and `size` are multiples of 8. */
void app_fill(void *buffer, size_t size, uint64_t seed, uint64_t offset);

/* Whether the buffer holds that pattern. Prints the first byte that differs. */
bool app_filled(const void *buffer, size_t size, uint64_t seed, uint64_t offset);
