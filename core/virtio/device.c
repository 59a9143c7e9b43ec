// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "core/virtio/device.h"
#include "core/virtio/ring.h"

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#define BARS 6u

/* ---- Finding the registers ---- */

static bool window_within(struct reg_window *window, uint32_t offset, uint32_t bytes)
{
    if (offset > window->bytes || bytes > window->bytes - offset)
        return false;
    window->base += offset;
    window->bytes = bytes;
    return true;
}

/* Reads the capability at `at` and gives the registers that it points to. False if they are not
 * where it says, or not aligned as §4.1.4 demands (C9). */
static bool capability_window(const struct rich_door *rich, uint32_t at, uint32_t alignment,
                              struct reg_window *window)
{
    uint32_t bar = rich->config_read32(rich->context, at + VIRTIO_PCI_CAP_BAR) & 0xff;
    uint32_t offset = rich->config_read32(rich->context, at + VIRTIO_PCI_CAP_OFFSET);
    uint32_t bytes = rich->config_read32(rich->context, at + VIRTIO_PCI_CAP_LENGTH);

    return bar < BARS && offset % alignment == 0 && rich->bar(rich->context, bar, window) &&
           window_within(window, offset, bytes);
}

/* virtio 1.2 §4.1.4: the first usable capability of each type counts. */
static bool find_modern(struct virtio_device *device)
{
    const struct rich_door *rich = device->rich;
    bool common = false, notify = false, config = false;

    uint32_t status = rich->config_read32(rich->context, PCI_COMMAND) >> 16;
    if (!(status & PCI_STATUS_CAP_LIST))
        return false;

    uint32_t at = rich->config_read32(rich->context, PCI_CAPABILITY_LIST) & 0xfc;
    /* A list that is longer than the space it lives in runs in a circle (C9). */
    for (unsigned steps = 0; at >= PCI_STD_HEADER_SIZEOF && steps < 48; steps++) {
        uint32_t head = rich->config_read32(rich->context, at);
        struct reg_window window;

        if ((head & 0xff) == PCI_CAP_ID_VNDR) {
            switch (head >> 24) {
            case VIRTIO_PCI_CAP_COMMON_CFG:
                if (!common && capability_window(rich, at, 4, &window) &&
                    window.bytes >= sizeof(struct virtio_pci_common_cfg)) {
                    device->common = window;
                    common = true;
                }
                break;
            case VIRTIO_PCI_CAP_NOTIFY_CFG:
                if (!notify && capability_window(rich, at, 2, &window)) {
                    device->notify = window;
                    device->notify_multiplier =
                        rich->config_read32(rich->context, at + VIRTIO_PCI_NOTIFY_CAP_MULT);
                    notify = true;
                }
                break;
            case VIRTIO_PCI_CAP_DEVICE_CFG:
                if (!config && capability_window(rich, at, 4, &window)) {
                    device->config = window;
                    config = true;
                }
                break;
            default:
                break;
            }
        }
        at = head >> 8 & 0xfc;
    }
    return common && notify && config;
}

/* virtio 1.2 §4.1.4.10: everything is in BAR 0, an I/O BAR. The device's own configuration follows
 * the header, which has no MSI-X fields because nobody has enabled MSI-X. */
static bool find_legacy(struct virtio_device *device)
{
    const struct rich_door *rich = device->rich;
    uint32_t id = rich->config_read32(rich->context, PCI_VENDOR_ID) >> 16;
    uint32_t revision = rich->config_read32(rich->context, PCI_REVISION_ID) & 0xff;
    struct reg_window bar;

    if (id < 0x1000 || id > 0x103f || revision != VIRTIO_PCI_ABI_VERSION)
        return false;
    if (!rich->bar(rich->context, 0, &bar) || !bar.port || bar.bytes < VIRTIO_PCI_CONFIG_OFF(false))
        return false;

    device->common = bar;
    device->notify = bar;
    device->config = bar;
    device->config.base += VIRTIO_PCI_CONFIG_OFF(false);
    device->config.bytes -= VIRTIO_PCI_CONFIG_OFF(false);
    return true;
}

enum result virtio_find(struct virtio_device *device, const struct rich_door *rich,
                        const struct pci_function *where)
{
    *device = (struct virtio_device){.rich = rich, .exit = {.function = *where}};

    device->modern = find_modern(device);
    if (!device->modern && !find_legacy(device)) {
        rich->log(rich->context, "neither the modern nor the legacy virtio registers are usable",
                  0);
        return RESULT_UNSUPPORTED;
    }

    device->exit.status = device->common;
    device->exit.status.base += device->modern ? VIRTIO_PCI_COMMON_STATUS : VIRTIO_PCI_STATUS;
    device->exit.status.bytes = 1;
    return RESULT_OK;
}

/* ---- Starting up ---- */

static uint8_t status_get(const struct virtio_device *device)
{
    return reg_read8(&device->exit.status, 0);
}

static void status_add(const struct virtio_device *device, uint8_t bits)
{
    reg_write8(&device->exit.status, 0, (uint8_t)(status_get(device) | bits));
}

enum result virtio_begin(struct virtio_device *device)
{
    const struct rich_door *rich = device->rich;
    struct poor_door door = {.deadline = deadline_in_ms(rich, VIRTIO_RESET_MS)};

    if (!virtio_reset(&device->exit, &door)) {
        rich->log(rich->context, "the device does not acknowledge a reset; its status stays",
                  status_get(device));
        return RESULT_TIMEOUT;
    }
    /* From the first status bit on there is something to take back (C7), memory shown or not. */
    device->exit.state = VIRTIO_LIVE;
    status_add(device, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    status_add(device, VIRTIO_CONFIG_S_DRIVER);
    return RESULT_OK;
}

static uint64_t features_offered(const struct virtio_device *device)
{
    if (!device->modern)
        return reg_read32(&device->common, VIRTIO_PCI_HOST_FEATURES);

    reg_write32(&device->common, VIRTIO_PCI_COMMON_DFSELECT, 0);
    uint64_t low = reg_read32(&device->common, VIRTIO_PCI_COMMON_DF);
    reg_write32(&device->common, VIRTIO_PCI_COMMON_DFSELECT, 1);
    uint64_t high = reg_read32(&device->common, VIRTIO_PCI_COMMON_DF);
    return high << 32 | low;
}

enum result virtio_negotiate(struct virtio_device *device, uint64_t wanted)
{
    const struct rich_door *rich = device->rich;
    uint64_t offered = features_offered(device);

    if (!device->modern) {
        device->features = offered & wanted;
        reg_write32(&device->common, VIRTIO_PCI_GUEST_FEATURES, (uint32_t)device->features);
        return RESULT_OK;
    }

    if (!(offered & VIRTIO_FEATURE(VIRTIO_F_VERSION_1))) {
        rich->log(rich->context, "a modern device without VERSION_1; it offers features", offered);
        return RESULT_UNSUPPORTED;
    }
    /* ACCESS_PLATFORM is kept because every address comes from map(). ORDER_PLATFORM is kept
     * because an x86 orders its accesses for hardware as it does for other CPUs. */
    device->features = offered & (wanted | VIRTIO_FEATURE(VIRTIO_F_VERSION_1) |
                                  VIRTIO_FEATURE(VIRTIO_F_ACCESS_PLATFORM) |
                                  VIRTIO_FEATURE(VIRTIO_F_ORDER_PLATFORM));
    reg_write32(&device->common, VIRTIO_PCI_COMMON_GFSELECT, 0);
    reg_write32(&device->common, VIRTIO_PCI_COMMON_GF, (uint32_t)device->features);
    reg_write32(&device->common, VIRTIO_PCI_COMMON_GFSELECT, 1);
    reg_write32(&device->common, VIRTIO_PCI_COMMON_GF, (uint32_t)(device->features >> 32));

    status_add(device, VIRTIO_CONFIG_S_FEATURES_OK);
    if (!(status_get(device) & VIRTIO_CONFIG_S_FEATURES_OK)) {
        rich->log(rich->context, "the device refuses the features that it offered; asked for",
                  device->features);
        return RESULT_DEVICE_ERROR;
    }
    return RESULT_OK;
}

uint16_t virtio_queue_size(struct virtio_device *device, uint16_t index)
{
    if (device->modern) {
        reg_write16(&device->common, VIRTIO_PCI_COMMON_Q_SELECT, index);
        return reg_read16(&device->common, VIRTIO_PCI_COMMON_Q_SIZE);
    }
    reg_write16(&device->common, VIRTIO_PCI_QUEUE_SEL, index);
    return reg_read16(&device->common, VIRTIO_PCI_QUEUE_NUM);
}

static void queue_address(const struct virtio_device *device, uint64_t reg, uint64_t address)
{
    reg_write32(&device->common, reg, (uint32_t)address);
    reg_write32(&device->common, reg + 4, (uint32_t)(address >> 32));
}

enum result virtio_queue_start(struct virtio_device *device, uint16_t index, struct ring *ring)
{
    const struct rich_door *rich = device->rich;
    uint16_t offered = virtio_queue_size(device, index);

    /* A legacy driver has no say in the size. After a restart a device may offer something new;
     * the ring was made for what it offered first. */
    if (device->modern ? offered < ring->size : offered != ring->size) {
        rich->log(rich->context, "the device has changed its queue size to", offered);
        return RESULT_DEVICE_ERROR;
    }

    ring->index = index;
    ring->notify = device->notify;
    if (!device->modern) {
        uint64_t frame = ring->desc_address >> VIRTIO_PCI_QUEUE_ADDR_SHIFT;
        if (frame > UINT32_MAX) {
            rich->log(rich->context, "the ring is out of a legacy device's reach, at page", frame);
            return RESULT_NO_MEMORY;
        }
        ring->notify_offset = VIRTIO_PCI_QUEUE_NOTIFY;
        reg_write32(&device->common, VIRTIO_PCI_QUEUE_PFN, (uint32_t)frame);
        return RESULT_OK;
    }

    ring->notify_offset =
        (uint64_t)reg_read16(&device->common, VIRTIO_PCI_COMMON_Q_NOFF) * device->notify_multiplier;
    if (ring->notify.bytes < 2 || ring->notify_offset > ring->notify.bytes - 2 ||
        ring->notify_offset % 2 != 0) {
        rich->log(rich->context,
                  "the queue's notify register is not in its window; it is said to be at",
                  ring->notify_offset);
        return RESULT_DEVICE_ERROR;
    }
    reg_write16(&device->common, VIRTIO_PCI_COMMON_Q_SIZE, ring->size);
    queue_address(device, VIRTIO_PCI_COMMON_Q_DESCLO, ring->desc_address);
    queue_address(device, VIRTIO_PCI_COMMON_Q_AVAILLO, ring->avail_address);
    queue_address(device, VIRTIO_PCI_COMMON_Q_USEDLO, ring->used_address);
    reg_write16(&device->common, VIRTIO_PCI_COMMON_Q_ENABLE, 1);
    return RESULT_OK;
}

enum result virtio_go(struct virtio_device *device)
{
    const struct rich_door *rich = device->rich;

    if (!rich->bus_master(rich->context, true)) {
        rich->log(rich->context, "bus mastering cannot be switched on; status", status_get(device));
        return RESULT_DEVICE_ERROR;
    }
    status_add(device, VIRTIO_CONFIG_S_DRIVER_OK);
    return RESULT_OK;
}

bool virtio_down(struct virtio_device *device, uint64_t ms, size_t bytes)
{
    const struct rich_door *rich = device->rich;
    struct poor_door door = {.deadline = deadline_in_ms(rich, ms)};

    if (virtio_quiesce(&device->exit, &door))
        return true;
    /* The poor door's way does not reach every segment, and not every machine has it. */
    rich->bus_master(rich->context, false);
    rich->log(rich->context, "the device has not let go: memory lost for good, in bytes", bytes);
    return false;
}

/* ---- Starting anew ---- */

bool virtio_let_go(struct virtio_device *device, size_t bytes)
{
    struct poor_door door = {.deadline = deadline_in_ms(device->rich, VIRTIO_RESET_MS)};

    return virtio_reset(&device->exit, &door) || virtio_down(device, 0, bytes);
}

enum result virtio_agree_again(struct virtio_device *device, uint64_t wanted)
{
    uint64_t features = device->features;

    if (device->exit.state != VIRTIO_LIVE)
        return RESULT_DEVICE_ERROR;
    enum result result = virtio_begin(device);
    if (!result)
        result = virtio_negotiate(device, wanted);
    return !result && device->features != features ? RESULT_DEVICE_ERROR : result;
}

void virtio_give_up(struct virtio_device *device, enum result why, size_t bytes)
{
    device->rich->log(device->rich->context,
                      "the device does not come back after a reset; given up with error",
                      (uint64_t)why);
    if (device->exit.state == VIRTIO_LIVE)
        virtio_down(device, VIRTIO_RESET_MS, bytes);
}

/* ---- The device's own configuration ---- */

uint8_t virtio_config_generation(const struct virtio_device *device)
{
    return device->modern ? reg_read8(&device->common, VIRTIO_PCI_COMMON_CFGGENERATION) : 0;
}

static bool config_holds(const struct virtio_device *device, uint64_t offset, uint64_t bytes)
{
    return offset + bytes <= device->config.bytes;
}

uint8_t virtio_config8(const struct virtio_device *device, uint64_t offset)
{
    return config_holds(device, offset, 1) ? reg_read8(&device->config, offset) : 0;
}

uint16_t virtio_config16(const struct virtio_device *device, uint64_t offset)
{
    return config_holds(device, offset, 2) ? reg_read16(&device->config, offset) : 0;
}

uint32_t virtio_config32(const struct virtio_device *device, uint64_t offset)
{
    return config_holds(device, offset, 4) ? reg_read32(&device->config, offset) : 0;
}
