/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include <linux/pci_regs.h>

#include "audit/calls.h"
#include "audit/controllers.h"
#include "audit/devices.h"
#include "audit/report.h"
#include "audit/virtio.h"

struct device devices[DEVICES_MAX];
size_t device_count;

static const char *const kind_names[] = {
    [KIND_OTHER] = "other",
    [KIND_BRIDGE] = "bridge",
    [KIND_DISPLAY] = "display",
    [KIND_NETWORK] = "network",
    [KIND_VIRTIO_BLK] = "virtio-blk",
    [KIND_VIRTIO_SCSI] = "virtio-scsi",
    [KIND_VIRTIO_NET] = "virtio-net",
    [KIND_VIRTIO] = "virtio",
    [KIND_NVME] = "nvme",
    [KIND_AHCI] = "ahci",
    [KIND_IDE] = "ide",
    [KIND_UHCI] = "uhci",
    [KIND_OHCI] = "ohci",
    [KIND_EHCI] = "ehci",
    [KIND_XHCI] = "xhci",
    [KIND_E1000] = "e1000",
    [KIND_XEN_PLATFORM] = "xen-platform",
};

/* ---- What there is ---- */

bool kind_is_virtio(enum kind kind)
{
    return kind == KIND_VIRTIO || kind == KIND_VIRTIO_BLK || kind == KIND_VIRTIO_SCSI ||
           kind == KIND_VIRTIO_NET;
}

static enum kind virtio_kind(const struct pci *pci, uint16_t id)
{
    /* virtio 1.2 §4.1.2.1: a modern device's ID tells the type, an old one's subsystem does. */
    unsigned type = id >= 0x1040 ? id - 0x1040u : pci_read16(pci, PCI_SUBSYSTEM_ID);

    switch (type) {
    case 1:
        return KIND_VIRTIO_NET;
    case 2:
        return KIND_VIRTIO_BLK;
    case 8:
        return KIND_VIRTIO_SCSI;
    default:
        return KIND_VIRTIO;
    }
}

static bool is_e1000(uint16_t vendor, uint16_t id)
{
    /* The PCI and PCI-X generations, and those that QEMU offers of the later ones. */
    return vendor == 0x8086 && ((id >= 0x1000 && id <= 0x1028) || id == 0x10d3 || id == 0x10c9);
}

static enum kind kind_of(const struct device *device)
{
    if (device->vendor == 0x1af4 && device->id >= 0x1000 && device->id < 0x1080)
        return virtio_kind(&device->pci, device->id);
    if (device->vendor == 0x5853 && device->id == 0x0001)
        return KIND_XEN_PLATFORM;
    if (device->class >> 16 == 0x02 && is_e1000(device->vendor, device->id))
        return KIND_E1000;
    switch (device->class >> 8) {
    case 0x0101:
        return KIND_IDE;
    case 0x0106:
        return device->class == 0x010601 ? KIND_AHCI : KIND_OTHER;
    case 0x0108:
        return device->class == 0x010802 ? KIND_NVME : KIND_OTHER;
    case 0x0c03:
        return device->class == 0x0c0300   ? KIND_UHCI
               : device->class == 0x0c0310 ? KIND_OHCI
               : device->class == 0x0c0320 ? KIND_EHCI
               : device->class == 0x0c0330 ? KIND_XHCI
                                           : KIND_OTHER;
    default:
        break;
    }
    switch (device->class >> 16) {
    case 0x02:
        return KIND_NETWORK;
    case 0x03:
        return KIND_DISPLAY;
    case 0x06:
        return KIND_BRIDGE;
    default:
        return KIND_OTHER;
    }
}

static void found(const struct pci *pci)
{
    if (device_count == DEVICES_MAX)
        report_give_up("there are more than %u PCI functions", (unsigned)DEVICES_MAX);
    struct device *device = &devices[device_count++];
    *device = (struct device){.pci = *pci, .busy = "idle"};
    app_format(device->name, sizeof(device->name), "%04x:%02x:%02x.%u", pci->segment, pci->bus,
               pci->device, pci->function);
    device->vendor = pci_read16(pci, PCI_VENDOR_ID);
    device->id = pci_read16(pci, PCI_DEVICE_ID);
    device->class = pci_read32(pci, PCI_CLASS_REVISION) >> 8;
    device->kind = kind_of(device);
    if ((pci_read8(pci, PCI_HEADER_TYPE) & 0x7f) == PCI_HEADER_TYPE_NORMAL)
        for (unsigned i = 0; i < 6; i++) {
            device->bar[i] = pci_bar(pci, i, &device->bar_ports[i]);
            /* A 64-bit register takes two places. */
            if (!device->bar_ports[i] && (pci_read32(pci, PCI_BASE_ADDRESS_0 + 4 * i) & 6) == 4)
                i++;
        }
    if (kind_is_virtio(device->kind))
        virtio_find(device);
}

/* ---- Who drives it ---- */

static void driver_add(struct device *device, int image)
{
    for (size_t i = 0; i < device->driver_count; i++)
        if (device->drivers[i] == image)
            return;
    if (image != IMAGE_NONE && device->driver_count < DEVICE_DRIVERS_MAX) {
        device->drivers[device->driver_count++] = image;
        calls_driver(image);
    }
}

/* Whoever has a protocol of this handle open as its driver, and so on upwards as long as somebody
 * drives what the one below has made there (virtio: the transport's driver, then the disk's). */
static void drivers_of(struct device *device)
{
    EFI_GUID **protocols;
    UINTN count;

    if (EFI_ERROR(app.bs->ProtocolsPerHandle(device->handle, &protocols, &count)))
        return;
    /* The firmware keeps what was installed last at the front (edk2), so the order is turned. */
    for (UINTN i = count; i-- > 0;) {
        static const EFI_GUID above[] = {EFI_BLOCK_IO_PROTOCOL_GUID, EFI_BLOCK_IO2_PROTOCOL_GUID,
                                         EFI_DISK_IO_PROTOCOL_GUID, EFI_DEVICE_PATH_PROTOCOL_GUID};
        EFI_OPEN_PROTOCOL_INFORMATION_ENTRY *entries;
        UINTN entry_count;
        bool uses = false;

        /* Who opens one of these uses the device and does not drive it. */
        for (size_t at = 0; at < sizeof(above) / sizeof(above[0]); at++)
            uses |= app_guid_equal(protocols[i], &above[at]);
        if (uses || EFI_ERROR(app.bs->OpenProtocolInformation(device->handle, protocols[i],
                                                              &entries, &entry_count)))
            continue;
        for (UINTN at = 0; at < entry_count; at++)
            if (entries[at].Attributes & EFI_OPEN_PROTOCOL_BY_DRIVER)
                driver_add(device, image_of_agent(entries[at].AgentHandle));
        app.bs->FreePool(entries);
    }
    app.bs->FreePool(protocols);
}

static void find_handles(void)
{
    static const EFI_GUID pci_io_guid = EFI_PCI_IO_PROTOCOL_GUID;
    static const EFI_GUID path_guid = EFI_DEVICE_PATH_PROTOCOL_GUID;
    static EFI_HANDLE handles[1024];
    size_t count = app_handles(&pci_io_guid, handles, 1024);

    for (size_t i = 0; i < count; i++) {
        struct app_pci place;

        if (!app_pci_of(handles[i], &place) || place.handle != handles[i])
            continue;
        for (size_t at = 0; at < device_count; at++) {
            struct device *device = &devices[at];
            if (device->pci.segment != place.segment || device->pci.bus != place.bus ||
                device->pci.device != place.device || device->pci.function != place.function)
                continue;
            device->handle = handles[i];
            app_path_text(app_protocol(handles[i], &path_guid), device->path, sizeof(device->path));
            drivers_of(device);
        }
    }
}

void devices_find(void)
{
    device_count = 0;
    pci_find_segments();
    pci_each(found);
    find_handles();
}

void devices_each_window(void (*range)(uint64_t base, uint64_t size))
{
    pci_each_window(range);
    /* The registers that are looked at lie in the first part of each BAR, whatever its size, but
     * for virtio's, which say themselves where they are. */
    for (size_t i = 0; i < device_count; i++) {
        const struct device *device = &devices[i];
        for (unsigned bar = 0; bar < 6; bar++)
            if (device->bar[bar] != 0 && !device->bar_ports[bar])
                range(device->bar[bar], REGISTERS_MAX);
        if (device->virtio.modern) {
            range(device->virtio.common, 4096);
            range(device->virtio.notify, device->virtio.notify_size);
        }
    }
}

/* ---- How it is now ---- */

/* What of the function's decoding is of use: a register that was given no address must not decode
 * address 0. */
static uint16_t decode_wanted(const struct device *device)
{
    uint16_t wanted = 0;

    for (unsigned i = 0; i < 6; i++)
        if (device->bar[i] != 0)
            wanted |= device->bar_ports[i] ? PCI_DECODE_IO : PCI_DECODE_MEMORY;
    return wanted;
}

static uint16_t decode_on(const struct device *device)
{
    uint16_t command = pci_read16(&device->pci, PCI_COMMAND);
    uint16_t wanted = decode_wanted(device);

    if ((command & wanted) != wanted)
        pci_set_command(&device->pci, command | wanted);
    return command;
}

static void decode_back(const struct device *device, uint16_t command)
{
    uint16_t wanted = decode_wanted(device);

    if ((command & wanted) != wanted)
        pci_set_command(&device->pci, command);
}

/* The power state, 0 to 3: in any but 0 there are no registers to look at (PCI Power Management 1.2
 * §3.2.4). */
static unsigned power_state(const struct device *device)
{
    uint8_t at = pci_capability(&device->pci, PCI_CAP_ID_PM, 0);

    return at == 0 ? 0 : pci_read16(&device->pci, at + PCI_PM_CTRL) & PCI_PM_CTRL_STATE_MASK;
}

static void virtio_look(const struct device *device, struct state *state)
{
    if (!device->virtio.modern && !device->virtio.legacy)
        return;
    uint8_t status = virtio_status(device);
    if (status == 0xff)
        return;
    state->status = status;
    state->queues = virtio_queues(device);
    state->live = (state->status & 4) || state->queues != 0 ? LIVE_YES : LIVE_NO;
    unsigned count = 0;
    for (uint64_t left = state->queues; left != 0; left &= left - 1)
        count++;
    app_format(state->what, sizeof(state->what), "status 0x%02x, %u queues enabled", state->status,
               count);
}

void device_look(struct device *device, struct state *state)
{
    *state = (struct state){.taken = true, .ticks = app_tsc(), .status = -1};
    if (device->kind == KIND_BRIDGE || device->kind == KIND_DISPLAY || device->kind == KIND_OTHER ||
        device->kind == KIND_NETWORK || device->kind == KIND_XEN_PLATFORM) {
        state->command = pci_read16(&device->pci, PCI_COMMAND);
        return;
    }
    unsigned power = power_state(device);
    if (power != 0) {
        state->command = pci_read16(&device->pci, PCI_COMMAND);
        app_format(state->what, sizeof(state->what), "asleep, in power state D%u", power);
        return;
    }
    state->command = decode_on(device);
    if (kind_is_virtio(device->kind))
        virtio_look(device, state);
    else
        controller_look(device, state);
    decode_back(device, state->command);
    if (state->live == LIVE_UNKNOWN)
        app_format(state->what, sizeof(state->what), "its registers do not answer");
}

void device_let_master(struct device *device)
{
    pci_set_command(&device->pci, (uint16_t)(pci_read16(&device->pci, PCI_COMMAND) |
                                             decode_wanted(device) | PCI_MASTER));
}

unsigned device_notify(struct device *device)
{
    if (!kind_is_virtio(device->kind) || (!device->virtio.modern && !device->virtio.legacy))
        return 0;
    uint16_t command = decode_on(device);
    unsigned count = virtio_notify(device);
    decode_back(device, command);
    return count;
}

/* ---- Memory that it was shown ---- */

struct shared shared[SHARED_MAX];
size_t shared_count;
static size_t shared_at_call; /* what a look after the exit need not say again */
static unsigned shared_lost;
static const struct app_map *memory;

bool shared_is_memory(uint64_t base, uint64_t size)
{
    const EFI_MEMORY_DESCRIPTOR *entry;

    if (size == 0 || base + size < base)
        return false;
    for (size_t i = 0; (entry = app_map_entry(memory, i)) != NULL; i++) {
        uint64_t end = entry->PhysicalStart + entry->NumberOfPages * 4096;
        if (entry->Type == EfiMemoryMappedIO || entry->Type == EfiMemoryMappedIOPortSpace ||
            entry->Type == EfiUnusableMemory || base < entry->PhysicalStart || base >= end)
            continue;
        /* It may go on in the next entry. */
        return base + size <= end || shared_is_memory(end, base + size - end);
    }
    return false;
}

void shared_add(const struct device *device, uint64_t base, uint64_t size, unsigned access,
                const char *what, unsigned number)
{
    struct shared new = {.base = base,
                         .size = size,
                         .device = (uint16_t)(device - devices),
                         .access = (uint8_t)access};

    if (!shared_is_memory(base, size))
        return;
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wformat-nonliteral"
    app_format(new.what, sizeof(new.what), what, number);
#pragma clang diagnostic pop
    for (size_t i = 0; i < shared_at_call; i++)
        if (shared[i].base <= base && base + size <= shared[i].base + shared[i].size &&
            shared[i].device == new.device &&shared[i].access == access)
            return;
    /* A receive queue's hundreds of buffers mostly lie side by side. */
    struct shared *last = shared_count > shared_at_call ? &shared[shared_count - 1] : NULL;
    if (last != NULL && last->base + last->size == base && last->device == new.device &&
        last->access == access &&strcmp(last->what, new.what) == 0) {
        last->size += size;
        return;
    }
    if (shared_count == SHARED_MAX) {
        shared_lost++;
        return;
    }
    shared[shared_count++] = new;
}

void devices_share(const struct app_map *map, enum share when)
{
    memory = map;
    shared_at_call = when == SHARE_AT_CALL ? 0 : shared_count;
    for (size_t i = 0; i < device_count; i++) {
        struct device *device = &devices[i];
        const struct state *state = when == SHARE_AT_CALL ? &device->call : &device->exit;
        if (state->live != LIVE_YES)
            continue;
        uint16_t command = decode_on(device);
        if (kind_is_virtio(device->kind))
            virtio_share(device);
        else
            controller_share(device);
        decode_back(device, command);
    }
}

/* By reads that change nothing: this is in the middle of somebody's exit handler, which may have
 * selected a queue. */
static bool is_live_now(const struct device *device)
{
    struct state now = {.live = LIVE_UNKNOWN};

    if (kind_is_virtio(device->kind)) {
        uint8_t status = virtio_status(device);
        return status != 0xff && (status & 4);
    }
    controller_look(device, &now);
    return now.live == LIVE_YES;
}

int devices_holding(uint64_t base, uint64_t size)
{
    for (size_t i = 0; i < shared_count; i++)
        if ((shared[i].access & DEVICE_KEEPS) && base < shared[i].base + shared[i].size &&
            shared[i].base < base + size && is_live_now(&devices[shared[i].device]))
            return shared[i].device;
    return -1;
}

const struct shared *shared_at(uint64_t address)
{
    for (size_t i = 0; i < shared_count; i++)
        if (address - shared[i].base < shared[i].size && (shared[i].access & DEVICE_WRITES))
            return &shared[i];
    for (size_t i = 0; i < shared_count; i++)
        if (address - shared[i].base < shared[i].size)
            return &shared[i];
    return NULL;
}

/* ---- The report ---- */

void devices_report(void)
{
    for (size_t i = 0; i < device_count; i++) {
        const struct device *device = &devices[i];
        char class[8];

        app_format(class, sizeof(class), "%06x", device->class);
        json_begin("device");
        json_text("device", device->name);
        json_hex("vendor", device->vendor);
        json_hex("id", device->id);
        json_text("class", class);
        json_text("kind", kind_names[device->kind]);
        json_text("path", device->path[0] != '\0' ? device->path : NULL);
        json_list("drivers");
        for (size_t at = 0; at < device->driver_count; at++)
            json_number(NULL, (uint64_t)device->drivers[at]);
        json_list_end();
        json_text("busy", device->busy);
        json_end();
        report_print(
            "  %s %04x:%04x %s%s%s, %s\n", device->name, device->vendor, device->id,
            kind_names[device->kind], device->driver_count > 0 ? ", driven by " : "",
            device->driver_count > 0 ? image_name(device->drivers[device->driver_count - 1]) : "",
            device->busy);
    }
    for (size_t i = 0; i < shared_count; i++) {
        json_begin("shared");
        json_text("device", devices[shared[i].device].name);
        json_text("what", shared[i].what);
        json_hex("base", shared[i].base);
        json_number("size", shared[i].size);
        json_bool("write", shared[i].access & DEVICE_WRITES);
        json_end();
    }
    if (shared_lost > 0) {
        json_begin("lost");
        json_text("what", "shared");
        json_number("count", shared_lost);
        json_end();
    }
}

void device_report_state(const struct device *device, const char *when, const struct state *state)
{
    json_begin("state");
    json_text("device", device->name);
    json_text("when", when);
    json_signed("us", report_us(state->ticks));
    json_hex("command", state->command);
    if (state->live == LIVE_UNKNOWN)
        json_null("live");
    else
        json_bool("live", state->live == LIVE_YES);
    if (state->status < 0)
        json_null("status");
    else
        json_hex("status", (uint64_t)state->status);
    json_list("queues");
    for (unsigned queue = 0; queue < QUEUES_MAX; queue++)
        if (state->queues & 1ull << queue)
            json_number(NULL, queue);
    json_list_end();
    json_text("what", state->what);
    json_end();
}

/* ---- The judgement ---- */

static void judge_c4(const struct device *device, bool watched)
{
    const char *name = device->name;
    const struct state *exit = &device->exit, *end = &device->end;
    bool master = exit->command & PCI_MASTER;

    if (device->changes > 0) {
        report_verdict(SUBJECT_DEVICE, name, IMAGE_NONE, "C4", FAIL,
                       "after the exit %llu bytes of the memory that it had been shown changed: %s",
                       device->changes, device->change);
    } else if (exit->live == LIVE_YES) {
        report_verdict(SUBJECT_DEVICE, name, IMAGE_NONE, "C4", FAIL,
                       "live after the exit: %s; bus mastering %s", exit->what,
                       master ? "on" : "off, which is all that holds it back");
    } else if (exit->live == LIVE_NO && end->taken && end->status != exit->status) {
        report_verdict(SUBJECT_DEVICE, name, IMAGE_NONE, "C4", FAIL,
                       "it answered when it was notified: status 0x%02x, was 0x%02x", end->status,
                       exit->status);
    } else if (exit->live == LIVE_NO && watched) {
        report_verdict(SUBJECT_DEVICE, name, IMAGE_NONE, "C4", PASS, "quiet after the exit: %s",
                       exit->what);
    } else if (!watched) {
        report_verdict(SUBJECT_DEVICE, name, IMAGE_NONE, "C4", UNSEEN,
                       "more memory changed than the auditor has room to put down");
    } else if (!master) {
        report_verdict(SUBJECT_DEVICE, name, IMAGE_NONE, "C4", PASS, "bus mastering is off%s%s",
                       exit->what[0] != '\0' ? "; " : "", exit->what);
    } else {
        report_verdict(SUBJECT_DEVICE, name, IMAGE_NONE, "C4", UNSEEN,
                       "bus mastering is on, and whether this kind of device is live is not known; "
                       "it wrote nothing while it was watched");
    }
}

static void judge_c7(const struct device *device)
{
    const struct state *exit = &device->exit;
    const char *rest = exit->command & PCI_MASTER ? " (bus mastering is on)" : "";

    if (exit->status < 0)
        report_verdict(SUBJECT_DEVICE, device->name, IMAGE_NONE, "C7", UNSEEN,
                       "the rule says nothing of this kind of device");
    else if (exit->status != 0 || exit->queues != 0)
        report_verdict(SUBJECT_DEVICE, device->name, IMAGE_NONE, "C7", FAIL,
                       "not as after power-on: %s", exit->what);
    else
        report_verdict(SUBJECT_DEVICE, device->name, IMAGE_NONE, "C7", PASS,
                       "as after power-on: %s%s", exit->what, rest);
}

void devices_judge(bool watched)
{
    for (size_t i = 0; i < device_count; i++) {
        const struct device *device = &devices[i];

        if (device->kind == KIND_BRIDGE || device->kind == KIND_XEN_PLATFORM ||
            (device->driver_count == 0 && device->call.live != LIVE_YES &&
             device->exit.live != LIVE_YES && device->changes == 0))
            continue;
        report_verdict(SUBJECT_DEVICE, device->name, IMAGE_NONE, "C3", UNSEEN,
                       "it takes a device that is not live at the call, and a host that looks on");
        judge_c4(device, watched);
        /* Of other controllers than virtio's not all memory is known; but where none was given
         * back, theirs was not. */
        if (!calls_freed_memory())
            report_verdict(SUBJECT_DEVICE, device->name, IMAGE_NONE, "C5", PASS,
                           "no memory was given back during the exit");
        else if (device->call.live == LIVE_YES && kind_is_virtio(device->kind) && shared_lost == 0)
            report_verdict(SUBJECT_DEVICE, device->name, IMAGE_NONE, "C5", PASS,
                           "no memory that it was using was given back during the exit");
        else
            report_verdict(SUBJECT_DEVICE, device->name, IMAGE_NONE, "C5", UNSEEN,
                           "memory was given back during the exit, and not all that it uses is "
                           "known");
        judge_c7(device);
    }
}
