// SPDX-License-Identifier: BSD-2-Clause-Patent
/* The poor door on a PC: loads, stores, ports, and the time-stamp counter. */

#include "core/regs.h"

static inline uint32_t port_in32(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint16_t port_in16(uint16_t port)
{
    uint16_t value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint8_t port_in8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline void port_out32(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void port_out16(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void port_out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

/* The barriers keep the compiler from moving ring accesses across a register access; the CPU does
 * not move stores across them (uncached memory, or a port). */
#define BARRIER() __asm__ volatile("" ::: "memory")

#define DEFINE_ACCESS(bits)                                                                        \
    uint##bits##_t reg_read##bits(const struct reg_window *window, uint64_t offset)                \
    {                                                                                              \
        uint64_t where = window->base + offset;                                                    \
        if (window->port)                                                                          \
            return port_in##bits((uint16_t)where);                                                 \
        BARRIER();                                                                                 \
        uint##bits##_t value = *(volatile uint##bits##_t *)(uintptr_t)where;                       \
        BARRIER();                                                                                 \
        return value;                                                                              \
    }                                                                                              \
                                                                                                   \
    void reg_write##bits(const struct reg_window *window, uint64_t offset, uint##bits##_t value)   \
    {                                                                                              \
        uint64_t where = window->base + offset;                                                    \
        if (window->port) {                                                                        \
            port_out##bits((uint16_t)where, value);                                                \
            return;                                                                                \
        }                                                                                          \
        BARRIER();                                                                                 \
        *(volatile uint##bits##_t *)(uintptr_t)where = value;                                      \
        BARRIER();                                                                                 \
    }

DEFINE_ACCESS(8)
DEFINE_ACCESS(16)
DEFINE_ACCESS(32)

#define PCI_CONFIG_ADDRESS     0xcf8
#define PCI_CONFIG_DATA        0xcfc
#define PCI_COMMAND            0x04u
#define PCI_COMMAND_BUS_MASTER 0x0004u

void pci_master_off(const struct pci_function *where)
{
    if (where->segment != 0)
        return;

    uint32_t address = 0x80000000u | (uint32_t)where->bus << 16 | (uint32_t)where->device << 11 |
                       (uint32_t)where->function << 8 | PCI_COMMAND;
    uintptr_t flags;

    /* Address and data are two accesses that an interrupt handler could come between. Interrupts
     * come back on only if they were on. */
    __asm__ volatile("pushf; pop %0; cli" : "=r"(flags) : : "memory");
    uint32_t before = port_in32(PCI_CONFIG_ADDRESS);
    port_out32(PCI_CONFIG_ADDRESS, address);
    /* 16 bits wide: the other half of the dword is the status register, where ones clear. */
    uint16_t command = port_in16(PCI_CONFIG_DATA);
    port_out16(PCI_CONFIG_DATA, (uint16_t)(command & ~PCI_COMMAND_BUS_MASTER));
    port_out32(PCI_CONFIG_ADDRESS, before);
    __asm__ volatile("push %0; popf" : : "r"(flags) : "memory", "cc");
}

uint64_t clock_ticks(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

void cpu_relax(void)
{
    __asm__ volatile("pause" ::: "memory");
}
