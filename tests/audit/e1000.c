// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * Intel's 82540EM, which is no virtio device, with nothing but its receive ring (82540 software
 * developer's manual §3.2, §13.4). Firmware has no driver for it, so it is all ours.
 */

#include "tests/audit/offence.h"
#include "tests/audit/receiver.h"

#include <linux/pci_regs.h>

#define REG_RCTL  0x0100u
#define RCTL_EN   (1u << 1)
#define RCTL_UPE  (1u << 3) /* frames for anybody */
#define RCTL_MPE  (1u << 4)
#define RCTL_BAM  (1u << 15)
#define REG_RDBAL 0x2800u
#define REG_RDBAH 0x2804u
#define REG_RDLEN 0x2808u
#define REG_RDH   0x2810u
#define REG_RDT   0x2818u
#define REG_IMC   0x00d8u

#define BUFFER_BYTES 2048u /* as RCTL has it unless told otherwise */
#define ENTRIES      1024u /* descriptors, a power of two */
#define STATUS_DONE  1u

struct descriptor {
    uint64_t address;
    uint16_t length, checksum;
    uint8_t status, errors;
    uint16_t special;
};

struct receiver {
    struct reg_window registers;
    struct pci_function where;
    const struct rich_door *door;
    volatile struct descriptor *ring;
    uint32_t next; /* the first that the device may have filled */
    bool live;
};

const uint16_t receiver_vendor = 0x8086;
const uint16_t receiver_devices[] = {0x100e};
const size_t receiver_device_count = sizeof(receiver_devices) / sizeof(receiver_devices[0]);
const size_t receiver_bytes = sizeof(struct receiver);

static void set(struct receiver *receiver, uint32_t reg, uint32_t value)
{
    reg_write32(&receiver->registers, reg, value);
}

/* The receiver off, and its ring forgotten: as after power-on, and with all said in registers. */
static void off(struct receiver *receiver)
{
    set(receiver, REG_RCTL, 0);
    set(receiver, REG_RDLEN, 0);
    set(receiver, REG_RDBAL, 0);
    set(receiver, REG_RDBAH, 0);
    set(receiver, REG_RDH, 0);
    set(receiver, REG_RDT, 0);
    /* A register read comes back after what the device has written before. */
    (void)reg_read32(&receiver->registers, REG_RCTL);
    pci_master_off(&receiver->where);
    receiver->live = false;
}

EFI_STATUS receiver_attach(struct receiver *receiver, const struct pci_binding *pci,
                           size_t *shared_bytes)
{
    receiver->where = pci->where;
    receiver->door = &pci->door;
    *shared_bytes = ENTRIES * (sizeof(struct descriptor) + BUFFER_BYTES);
    if (!pci->door.bar(pci->door.context, 0, &receiver->registers) || receiver->registers.port)
        return EFI_UNSUPPORTED;
    set(receiver, REG_IMC, UINT32_MAX);
    return EFI_SUCCESS;
}

EFI_STATUS receiver_start(struct receiver *receiver, const struct dma_block *memory)
{
    uint64_t buffers = memory->address + ENTRIES * sizeof(struct descriptor);

    receiver->ring = memory->cpu;
    for (uint32_t i = 0; i < ENTRIES; i++)
        receiver->ring[i].address = buffers + (uint64_t)i * BUFFER_BYTES;
    if (!receiver->door->bus_master(receiver->door->context, true))
        return EFI_DEVICE_ERROR;
    receiver->live = true;
    set(receiver, REG_RDBAL, (uint32_t)memory->address);
    set(receiver, REG_RDBAH, (uint32_t)(memory->address >> 32));
    set(receiver, REG_RDLEN, ENTRIES * sizeof(struct descriptor));
    set(receiver, REG_RDH, 0);
    set(receiver, REG_RDT, ENTRIES - 1);
    set(receiver, REG_RCTL, RCTL_EN | RCTL_UPE | RCTL_MPE | RCTL_BAM);
    return EFI_SUCCESS;
}

void receiver_poll(struct receiver *receiver)
{
    uint32_t filled = 0;

    if (!receiver->live)
        return;
    for (; filled < ENTRIES - 1; filled++) {
        volatile struct descriptor *descriptor = &receiver->ring[receiver->next];
        if (!(descriptor->status & STATUS_DONE))
            break;
        descriptor->status = 0;
        receiver->next = (receiver->next + 1) % ENTRIES;
    }
    /* The tail is the one that the device must not reach. */
    if (filled)
        set(receiver, REG_RDT, (receiver->next + ENTRIES - 1) % ENTRIES);
}

bool receiver_down(struct receiver *receiver, size_t bytes)
{
    (void)bytes;
    if (receiver->live)
        off(receiver);
    return true;
}

void receiver_exit(struct receiver *receiver, EFI_EVENT event)
{
    (void)event;
    if (!receiver->live || BREAKS(LEAVES_E1000))
        return;
    if (BREAKS(E1000_ONLY_CUTS_BUS))
        pci_master_off(&receiver->where);
    else
        off(receiver);
}
