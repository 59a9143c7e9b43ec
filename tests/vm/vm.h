/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the EFI programs of tests/vm share: the disks that they were given, and virtio devices as
 * seen by somebody who owns the machine, without firmware.
 *
 * The programs judge what can be seen from inside and print the rest, in lines that begin with
 * "vm:", for the Python side to judge.
 */
#pragma once

#include "lab/efi/app.h"
#include "lab/efi/driver.h"

#define VM_DRIVER_NAME      "Baton virtio-blk driver"
#define VM_SCSI_DRIVER_NAME "Baton virtio-scsi driver"
#define VM_XEN_DRIVER_NAME  "Baton Xen PV disk driver"

enum { VM_DISKS_MAX = 32, VM_DRIVERS_MAX = 4 };

extern EFI_GUID vm_block_io_guid, vm_block_io2_guid, vm_pci_io_guid, vm_driver_binding_guid,
    vm_component_name2_guid, vm_loaded_image_guid, vm_supported_version_guid;

/* A disk, and who made it. The protocols are gone when the driver is disconnected; find them anew
 * with vm_disk_refresh(). */
struct vm_disk {
    EFI_HANDLE handle; /* of the PCI device, too: the drivers of virtio-blk add no child */
    bool child;        /* but this one is one, on the bus that Xen's platform device is … */
    UINT32 number;     /* … and by this number Xen knows it */
    bool scsi;         /* or one of the firmware's SCSI bus, on a virtio-scsi adapter */
    UINT16 target, unit;
    EFI_BLOCK_IO_PROTOCOL *block;
    EFI_BLOCK_IO2_PROTOCOL *block2;
    EFI_BLOCK_IO_MEDIA *media;
    EFI_HANDLE agent; /* the driver's handle, with its Driver Binding */
    bool baton;
    struct app_pci pci;
    struct app_driver driver;
};

/* To be called first: takes the program's options from options.txt beside it where there are no
 * others, and prints to the hypervisor's debug port if they say `debug-port`. */
void vm_begin(void);

/* All virtio disks, in the order of their PCI place; on Xen, all paravirtual disks that somebody
 * drives, in the order in which they came. */
size_t vm_disks(struct vm_disk *disks, size_t max);
bool vm_disk_refresh(struct vm_disk *disk);

/* Boot services, once more than once: connect (this driver and those above it, or none above it)
 * and disconnect everything. On Xen it is the bus that comes and goes, with all its disks. */
EFI_STATUS vm_connect(const struct vm_disk *disk);
EFI_STATUS vm_disconnect(const struct vm_disk *disk);

/* Whether any agent still holds the device's PciIo as its driver. */
bool vm_held(const struct vm_disk *disk);

/* What the firmware has in use, for a look before and after. */
struct vm_inventory {
    uint64_t pages[EfiMaxMemoryType];
    size_t handles, entries;
};
void vm_inventory_take(struct vm_inventory *inventory);
void vm_inventory_compare(const struct vm_inventory *before, const struct vm_inventory *after);

/* Repeatable random numbers. */
uint64_t vm_random(uint64_t below);
void vm_random_seed(uint64_t seed);
void vm_random_fill(void *buffer, size_t bytes);

/* The CRC that Python's zlib.crc32() gives. Works without boot services. */
uint32_t vm_crc32(const void *data, size_t bytes);

/* ---- A virtio device, without firmware ---- */

uint32_t vm_pci_read32(uint32_t function, uint32_t offset);
void vm_pci_write32(uint32_t function, uint32_t offset, uint32_t value);

/* A PCI function as configuration mechanism 1 wants it. */
static inline uint32_t vm_pci_function(UINTN bus, UINTN device, UINTN function)
{
    return 0x80000000u | (uint32_t)bus << 16 | (uint32_t)device << 11 | (uint32_t)function << 8;
}

enum { VM_COMMAND_DECODE = 3, VM_COMMAND_MASTER = 4 };
uint16_t vm_pci_command(uint32_t function);
void vm_pci_set_command(uint32_t function, uint16_t command);

struct vm_virtio {
    uint32_t function;
    bool modern;     /* has the modern registers */
    bool legacy;     /* has the legacy ones: a transitional device has both */
    uint64_t common; /* addresses, below which the CPU reaches the registers */
    uint64_t notify;
    uint32_t notify_multiplier;
    uint16_t port;
};

/* Looks for virtio-blk and virtio-scsi devices on the PCI buses. Decoding is switched on as far as
 * it is needed to look at the registers, and stays on. Bus mastering is left as it is. */
size_t vm_virtio_find(struct vm_virtio *devices, size_t max);
struct vm_virtio vm_virtio_at(uint32_t function);

uint8_t vm_virtio_status(const struct vm_virtio *device);
/* Whether any of the first three queues is one that the device would use, by any of its interfaces.
 */
bool vm_virtio_queue_on(const struct vm_virtio *device);
/* Tells the device, by all its interfaces, that these queues have something to do. */
void vm_virtio_kick(const struct vm_virtio *device);
