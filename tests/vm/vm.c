/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "tests/vm/vm.h"

#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>

EFI_GUID vm_block_io_guid = EFI_BLOCK_IO_PROTOCOL_GUID;
EFI_GUID vm_block_io2_guid = EFI_BLOCK_IO2_PROTOCOL_GUID;
EFI_GUID vm_pci_io_guid = EFI_PCI_IO_PROTOCOL_GUID;
EFI_GUID vm_driver_binding_guid = EFI_DRIVER_BINDING_PROTOCOL_GUID;
EFI_GUID vm_component_name2_guid = EFI_COMPONENT_NAME2_PROTOCOL_GUID;
EFI_GUID vm_loaded_image_guid = EFI_LOADED_IMAGE_PROTOCOL_GUID;
EFI_GUID vm_supported_version_guid = {
    0x5c198761, 0x16a8, 0x4e69, {0x97, 0x2c, 0x89, 0xd6, 0x79, 0x54, 0xf8, 0x1d}};

void vm_begin(void)
{
    if (app_option_word(NULL) == NULL)
        app_options_file(u"options.txt");
    app.debug_port = app_flag("debug-port");
}

/* ---- Disks ---- */

static EFI_HANDLE holder_of(EFI_HANDLE controller)
{
    EFI_OPEN_PROTOCOL_INFORMATION_ENTRY *entries;
    EFI_HANDLE agent = NULL;
    UINTN count;

    if (EFI_ERROR(app.bs->OpenProtocolInformation(controller, &vm_pci_io_guid, &entries, &count)))
        return NULL;
    for (UINTN i = 0; i < count; i++)
        if (entries[i].Attributes & EFI_OPEN_PROTOCOL_BY_DRIVER)
            agent = entries[i].AgentHandle;
    app.bs->FreePool(entries);
    return agent;
}

bool vm_held(const struct vm_disk *disk)
{
    return holder_of(disk->pci.handle) != NULL;
}

/* The last node of a handle's path, or NULL. */
static const uint8_t *last_node(EFI_HANDLE handle)
{
    static const EFI_GUID device_path_guid = EFI_DEVICE_PATH_PROTOCOL_GUID;
    const uint8_t *node = app_protocol(handle, &device_path_guid), *last = NULL;

    while (node != NULL && node[0] != END_DEVICE_PATH_TYPE) {
        last = node;
        node += node[2] | node[3] << 8;
    }
    return last;
}

/* Target and unit, if that is a Scsi node (UEFI 2.10 §10.3.4.2). */
static bool scsi_address(EFI_HANDLE handle, UINT16 *target, UINT16 *unit)
{
    const uint8_t *node = last_node(handle);

    if (node == NULL || node[0] != MESSAGING_DEVICE_PATH || node[1] != MSG_SCSI_DP)
        return false;
    memcpy(target, node + 4, sizeof(*target));
    memcpy(unit, node + 6, sizeof(*unit));
    return true;
}

/* The handle of a SCSI disk is another one each time that its adapter is connected. */
static void find_scsi_disk(struct vm_disk *disk)
{
    static EFI_HANDLE handles[VM_DISKS_MAX * 8];
    size_t all = app_disks(handles, VM_DISKS_MAX * 8);

    disk->handle = NULL;
    for (size_t i = 0; i < all; i++) {
        struct app_pci pci;
        UINT16 target, unit;
        if (app_pci_of(handles[i], &pci) && pci.handle == disk->pci.handle &&
            scsi_address(handles[i], &target, &unit) && target == disk->target &&
            unit == disk->unit)
            disk->handle = handles[i];
    }
}

bool vm_disk_refresh(struct vm_disk *disk)
{
    if (disk->scsi) {
        find_scsi_disk(disk);
        if (disk->handle == NULL) {
            disk->block = NULL;
            return false;
        }
    }
    disk->block = app_protocol(disk->handle, &vm_block_io_guid);
    disk->block2 = app_protocol(disk->handle, &vm_block_io2_guid);
    disk->media = disk->block ? disk->block->Media : NULL;
    disk->agent = holder_of(disk->pci.handle);
    disk->baton = false;
    if (!disk->block)
        return false;

    static struct app_driver drivers[VM_DRIVERS_MAX];
    size_t count = app_drivers_of(disk->handle, drivers, VM_DRIVERS_MAX);
    if (count == 0)
        return false;
    /* The one that has the device is the lowest; on it are the firmware's own for SCSI. */
    disk->driver = drivers[disk->scsi ? 0 : count - 1];
    disk->baton = strcmp(disk->driver.name, disk->child  ? VM_XEN_DRIVER_NAME
                                            : disk->scsi ? VM_SCSI_DRIVER_NAME
                                                         : VM_DRIVER_NAME) == 0;
    return true;
}

/* The number in the last node of a path, if that is a Controller node (UEFI 2.10 §10.3.2.5). */
static bool controller_number(EFI_HANDLE handle, UINT32 *number)
{
    const uint8_t *last = last_node(handle);

    if (last == NULL || last[0] != HARDWARE_DEVICE_PATH || last[1] != HW_CONTROLLER_DP)
        return false;
    memcpy(number, last + 4, sizeof(*number));
    return true;
}

size_t vm_disks(struct vm_disk *disks, size_t max)
{
    static EFI_HANDLE handles[VM_DISKS_MAX * 2];
    size_t all = app_disks(handles, VM_DISKS_MAX * 2), count = 0;

    for (size_t i = 0; i < all && count < max; i++) {
        struct vm_disk *disk = &disks[count];
        EFI_PCI_IO_PROTOCOL *io;
        UINT16 id[2];

        memset(disk, 0, sizeof(*disk));
        disk->handle = handles[i];
        if (!app_pci_of(handles[i], &disk->pci))
            continue;
        io = app_protocol(disk->pci.handle, &vm_pci_io_guid);
        if (EFI_ERROR(io->Pci.Read(io, EfiPciIoWidthUint16, 0, 2, id)))
            continue;
        disk->child = id[0] == 0x5853 && controller_number(disk->handle, &disk->number);
        if (id[0] != 0x1af4 && !disk->child)
            continue;
        disk->scsi = id[0] == 0x1af4 && (id[1] == 0x1004 || id[1] == 0x1048) &&
                     scsi_address(disk->handle, &disk->target, &disk->unit);
        vm_disk_refresh(disk);
        count++;
    }
    return count;
}

EFI_STATUS vm_connect(const struct vm_disk *disk)
{
    /* An adapter is a disk with the firmware's drivers on top only. */
    return app.bs->ConnectController(disk->pci.handle, NULL, NULL, disk->scsi);
}

EFI_STATUS vm_disconnect(const struct vm_disk *disk)
{
    return app.bs->DisconnectController(disk->pci.handle, NULL, NULL);
}

/* ---- What there is ---- */

void vm_inventory_take(struct vm_inventory *inventory)
{
    const EFI_MEMORY_DESCRIPTOR *entry;
    static EFI_HANDLE handles[1024];
    static struct app_map map;
    UINTN bytes = sizeof(handles);

    app_map_read(&map);
    memset(inventory, 0, sizeof(*inventory));
    for (size_t i = 0; (entry = app_map_entry(&map, i)) != NULL; i++) {
        if (entry->Type < EfiMaxMemoryType)
            inventory->pages[entry->Type] += entry->NumberOfPages;
        inventory->entries++;
    }
    app_assert_ok(app.bs->LocateHandle(AllHandles, NULL, NULL, &bytes, handles));
    inventory->handles = bytes / sizeof(handles[0]);
}

void vm_inventory_compare(const struct vm_inventory *before, const struct vm_inventory *after)
{
    for (unsigned type = 0; type < EfiMaxMemoryType; type++) {
        if (!app_check(before->pages[type] == after->pages[type]))
            app_print("    memory of type %u: %llu pages, were %llu\n", type, after->pages[type],
                      before->pages[type]);
    }
    app_check(before->handles == after->handles);
}

/* ---- Numbers ---- */

static uint64_t random_state = 1;

void vm_random_seed(uint64_t seed)
{
    random_state = seed * 2 + 1;
}

static uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

uint64_t vm_random(uint64_t below)
{
    return (random_next() >> 11) % below;
}

void vm_random_fill(void *buffer, size_t bytes)
{
    app_fill(buffer, bytes & ~(size_t)7, random_next(), 0);
}

uint32_t vm_crc32(const void *data, size_t bytes)
{
    static uint32_t table[256];
    const uint8_t *at = data;
    uint32_t crc = UINT32_MAX;

    if (table[1] == 0) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++)
                value = value & 1 ? value >> 1 ^ 0xedb88320u : value >> 1;
            table[i] = value;
        }
    }
    while (bytes-- > 0)
        crc = crc >> 8 ^ table[(crc ^ *at++) & 0xff];
    return ~crc;
}

/* ---- PCI ---- */

enum { CONFIG_ADDRESS = 0xcf8, CONFIG_DATA = 0xcfc };

static void out16(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

/* Address and data are two accesses: with interrupts on, the firmware could come in between. */
uint32_t vm_pci_read32(uint32_t function, uint32_t offset)
{
    uintptr_t flags = app_interrupts_off();
    app_out32(CONFIG_ADDRESS, function | offset);
    uint32_t value = app_in32(CONFIG_DATA);
    app_interrupts_back(flags);
    return value;
}

void vm_pci_write32(uint32_t function, uint32_t offset, uint32_t value)
{
    uintptr_t flags = app_interrupts_off();
    app_out32(CONFIG_ADDRESS, function | offset);
    app_out32(CONFIG_DATA, value);
    app_interrupts_back(flags);
}

uint16_t vm_pci_command(uint32_t function)
{
    return (uint16_t)vm_pci_read32(function, PCI_COMMAND);
}

void vm_pci_set_command(uint32_t function, uint16_t command)
{
    uintptr_t flags = app_interrupts_off();
    app_out32(CONFIG_ADDRESS, function | PCI_COMMAND);
    out16(CONFIG_DATA, command);
    app_interrupts_back(flags);
}

/* ---- virtio ---- */

enum { QUEUES = 3 }; /* of a virtio-scsi device; others have fewer */

static uint64_t bar_base(uint32_t function, uint32_t index)
{
    uint32_t low = vm_pci_read32(function, PCI_BASE_ADDRESS_0 + 4 * index);

    if (low & PCI_BASE_ADDRESS_SPACE_IO)
        return low & ~3u;
    uint64_t base = low & ~15u;
    if ((low & PCI_BASE_ADDRESS_MEM_TYPE_MASK) == PCI_BASE_ADDRESS_MEM_TYPE_64)
        base |= (uint64_t)vm_pci_read32(function, PCI_BASE_ADDRESS_0 + 4 * (index + 1)) << 32;
    return base;
}

struct vm_virtio vm_virtio_at(uint32_t function)
{
    struct vm_virtio device = {.function = function};
    uint32_t at = vm_pci_read32(function, PCI_CAPABILITY_LIST) & 0xfc;

    while (at != 0) {
        uint32_t head = vm_pci_read32(function, at);
        if ((head & 0xff) == PCI_CAP_ID_VNDR) {
            uint64_t base =
                bar_base(function, vm_pci_read32(function, at + VIRTIO_PCI_CAP_BAR) & 0xff) +
                vm_pci_read32(function, at + VIRTIO_PCI_CAP_OFFSET);
            if (head >> 24 == VIRTIO_PCI_CAP_COMMON_CFG) {
                device.common = base;
                device.modern = true;
            } else if (head >> 24 == VIRTIO_PCI_CAP_NOTIFY_CFG) {
                device.notify = base;
                device.notify_multiplier = vm_pci_read32(function, at + VIRTIO_PCI_NOTIFY_CAP_MULT);
            }
        }
        at = head >> 8 & 0xfc;
    }
    uint32_t bar0 = vm_pci_read32(function, PCI_BASE_ADDRESS_0);
    device.legacy = vm_pci_read32(function, PCI_VENDOR_ID) >> 16 < 0x1040 && (bar0 & 1);
    device.port = device.legacy ? (uint16_t)(bar0 & ~3u) : 0;

    uint16_t command = vm_pci_command(function);
    if ((command & VM_COMMAND_DECODE) != VM_COMMAND_DECODE)
        vm_pci_set_command(function, command | VM_COMMAND_DECODE);
    return device;
}

size_t vm_virtio_find(struct vm_virtio *devices, size_t max)
{
    size_t count = 0;

    for (uint32_t bus = 0; bus < 8; bus++)
        for (uint32_t slot = 0; slot < 32; slot++)
            for (uint32_t function = 0; function < 8; function++) {
                uint32_t at = vm_pci_function(bus, slot, function);
                uint32_t id = vm_pci_read32(at, PCI_VENDOR_ID);
                if ((id == 0x10011af4 || id == 0x10421af4 || id == 0x10041af4 ||
                     id == 0x10481af4) &&
                    count < max)
                    devices[count++] = vm_virtio_at(at);
                /* An empty function 0 is an empty slot. */
                if (function == 0 && id == UINT32_MAX)
                    break;
            }
    return count;
}

uint8_t vm_virtio_status(const struct vm_virtio *device)
{
    uint8_t status = 0;

    if (device->modern)
        status |= *(volatile uint8_t *)(uintptr_t)(device->common + VIRTIO_PCI_COMMON_STATUS);
    if (device->legacy)
        status |= app_in8((uint16_t)(device->port + VIRTIO_PCI_STATUS));
    return status;
}

bool vm_virtio_queue_on(const struct vm_virtio *device)
{
    bool on = false;

    for (uint16_t queue = 0; queue < QUEUES; queue++) {
        if (device->modern) {
            volatile uint16_t *common = (volatile uint16_t *)(uintptr_t)device->common;
            common[VIRTIO_PCI_COMMON_Q_SELECT / 2] = queue;
            on |= common[VIRTIO_PCI_COMMON_Q_ENABLE / 2] != 0;
        }
        if (device->legacy) {
            out16((uint16_t)(device->port + VIRTIO_PCI_QUEUE_SEL), queue);
            on |= app_in32((uint16_t)(device->port + VIRTIO_PCI_QUEUE_PFN)) != 0;
        }
    }
    return on;
}

void vm_virtio_kick(const struct vm_virtio *device)
{
    for (uint16_t queue = 0; queue < QUEUES; queue++) {
        if (device->modern) {
            volatile uint16_t *common = (volatile uint16_t *)(uintptr_t)device->common;
            common[VIRTIO_PCI_COMMON_Q_SELECT / 2] = queue;
            if (common[VIRTIO_PCI_COMMON_Q_SIZE / 2] == 0)
                continue;
            uint64_t offset =
                (uint64_t)common[VIRTIO_PCI_COMMON_Q_NOFF / 2] * device->notify_multiplier;
            *(volatile uint16_t *)(uintptr_t)(device->notify + offset) = queue;
        }
        if (device->legacy)
            out16((uint16_t)(device->port + VIRTIO_PCI_QUEUE_NOTIFY), queue);
    }
}
