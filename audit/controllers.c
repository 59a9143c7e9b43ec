/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "audit/controllers.h"
#include "audit/virtio.h"

static const char *on(bool bit)
{
    return bit ? "on" : "off";
}

/* ---- NVM Express (base specification 2.0 §3.1) ---- */

enum { NVME_CC = 0x14, NVME_CSTS = 0x1c, NVME_AQA = 0x24, NVME_ASQ = 0x28, NVME_ACQ = 0x30 };

static void nvme_look(const struct device *device, struct state *state)
{
    uint32_t cc = mmio_read32(device->bar[0] + NVME_CC);
    uint32_t csts = mmio_read32(device->bar[0] + NVME_CSTS);

    state->live = (cc & 1) || (csts & 1) ? LIVE_YES : LIVE_NO;
    app_format(state->what, sizeof(state->what), "enabled %s, ready %s", on(cc & 1), on(csts & 1));
}

static void nvme_share(const struct device *device)
{
    uint32_t aqa = mmio_read32(device->bar[0] + NVME_AQA);

    shared_add(device, mmio_read64(device->bar[0] + NVME_ASQ), 64ull * ((aqa & 0xfff) + 1),
               DEVICE_OBEYS | DEVICE_KEEPS, "admin submission queue", 0);
    shared_add(device, mmio_read64(device->bar[0] + NVME_ACQ), 16ull * ((aqa >> 16 & 0xfff) + 1),
               DEVICE_WRITES | DEVICE_KEEPS, "admin completion queue", 0);
}

/* ---- AHCI (1.3.1 §3.1, §3.3) ---- */

enum {
    AHCI_PI = 0x0c,
    AHCI_PORTS = 0x100,
    AHCI_PORT = 0x80,
    AHCI_CLB = 0x00,
    AHCI_FB = 0x08,
    AHCI_CMD = 0x18,
    AHCI_ST = 1 << 0,
    AHCI_FRE = 1 << 4,
    AHCI_FR = 1 << 14,
    AHCI_CR = 1 << 15,
};

static uint64_t ahci_port(const struct device *device, unsigned port)
{
    return device->bar[5] + AHCI_PORTS + AHCI_PORT * (uint64_t)port;
}

static void ahci_look(const struct device *device, struct state *state)
{
    uint32_t implemented = mmio_read32(device->bar[5] + AHCI_PI);
    unsigned lists = 0, receivers = 0;

    for (unsigned port = 0; port < 32; port++) {
        if (!(implemented & 1u << port))
            continue;
        uint32_t command = mmio_read32(ahci_port(device, port) + AHCI_CMD);
        lists += (command & (AHCI_ST | AHCI_CR)) != 0;
        receivers += (command & (AHCI_FRE | AHCI_FR)) != 0;
    }
    state->live = lists > 0 || receivers > 0 ? LIVE_YES : LIVE_NO;
    app_format(state->what, sizeof(state->what),
               "%u ports run their command list, %u receive into memory", lists, receivers);
}

static void ahci_share(const struct device *device)
{
    uint32_t implemented = mmio_read32(device->bar[5] + AHCI_PI);

    for (unsigned port = 0; port < 32; port++) {
        if (!(implemented & 1u << port))
            continue;
        uint64_t at = ahci_port(device, port);
        uint32_t command = mmio_read32(at + AHCI_CMD);
        if (command & (AHCI_ST | AHCI_CR))
            shared_add(device, mmio_read64(at + AHCI_CLB), 1024,
                       DEVICE_OBEYS | DEVICE_WRITES | DEVICE_KEEPS, "port %u command list", port);
        if (command & (AHCI_FRE | AHCI_FR))
            shared_add(device, mmio_read64(at + AHCI_FB), 256, DEVICE_WRITES | DEVICE_KEEPS,
                       "port %u received FIS", port);
    }
}

/* ---- Bus-master IDE (SFF-8038i) ---- */

static void ide_look(const struct device *device, struct state *state)
{
    if (!device->bar_ports[4] || device->bar[4] == 0)
        return;
    uint16_t port = (uint16_t)device->bar[4];
    if (app_in8(port) == 0xff)
        return;
    bool first = app_in8(port) & 1, second = app_in8((uint16_t)(port + 8)) & 1;

    state->live = first || second ? LIVE_YES : LIVE_NO;
    app_format(state->what, sizeof(state->what), "bus-master transfer %s, %s", on(first),
               on(second));
}

/* ---- USB host controllers ---- */

static void uhci_look(const struct device *device, struct state *state)
{
    if (!device->bar_ports[4] || device->bar[4] == 0)
        return;
    uint16_t command = port_read16((uint16_t)device->bar[4]);
    uint16_t status = port_read16((uint16_t)(device->bar[4] + 2));
    bool halted = status & 1 << 5;
    if (status == 0xffff)
        return;

    state->live = (command & 1) || !halted ? LIVE_YES : LIVE_NO;
    app_format(state->what, sizeof(state->what), "run %s, halted %s", on(command & 1), on(halted));
}

static void ohci_look(const struct device *device, struct state *state)
{
    uint32_t control = mmio_read32(device->bar[0] + 4);
    bool operational = (control >> 6 & 3) == 2;

    state->live = operational ? LIVE_YES : LIVE_NO;
    app_format(state->what, sizeof(state->what), "operational %s", on(operational));
}

/* EHCI 1.0 §2.3, xHCI 1.2 §5.4: the registers of interest are at the same place in both, behind the
 * capabilities, but for the bit that says halted. */
static uint64_t operational(const struct device *device)
{
    return device->bar[0] + mmio_read8(device->bar[0]);
}

static void ehci_xhci_look(const struct device *device, struct state *state)
{
    uint32_t command = mmio_read32(operational(device));
    uint32_t status = mmio_read32(operational(device) + 4);
    bool halted = status & (device->kind == KIND_XHCI ? 1u << 0 : 1u << 12);

    state->live = (command & 1) || !halted ? LIVE_YES : LIVE_NO;
    app_format(state->what, sizeof(state->what), "run %s, halted %s", on(command & 1), on(halted));
}

enum {
    UHCI_FRAMES = 0x08,
    OHCI_HCCA = 0x18,
    EHCI_FRAMES = 0x14,
    EHCI_ASYNC = 0x18,
    XHCI_DCBAA = 0x30,
    XHCI_RUNTIME = 0x18,
    XHCI_ERST = 0x30,
};

static void usb_share(const struct device *device)
{
    switch (device->kind) {
    case KIND_UHCI:
        shared_add(device, app_in32((uint16_t)(device->bar[4] + UHCI_FRAMES)) & ~4095ull, 4096,
                   DEVICE_OBEYS | DEVICE_KEEPS, "frame list", 0);
        break;
    case KIND_OHCI:
        shared_add(device, mmio_read32(device->bar[0] + OHCI_HCCA), 256,
                   DEVICE_OBEYS | DEVICE_WRITES | DEVICE_KEEPS, "HCCA", 0);
        break;
    case KIND_EHCI:
        shared_add(device, mmio_read32(operational(device) + EHCI_FRAMES), 4096,
                   DEVICE_OBEYS | DEVICE_KEEPS, "frame list", 0);
        shared_add(device, mmio_read32(operational(device) + EHCI_ASYNC) & ~31ull, 48,
                   DEVICE_OBEYS | DEVICE_WRITES, "asynchronous list head", 0);
        break;
    default: {
        uint32_t offset = mmio_read32(device->bar[0] + XHCI_RUNTIME) & ~31u;
        uint64_t runtime = device->bar[0] + offset;
        uint64_t table = offset < REGISTERS_MAX ? mmio_read64(runtime + XHCI_ERST) & ~63ull : 0;
        shared_add(device, mmio_read64(operational(device) + XHCI_DCBAA) & ~63ull, 2048,
                   DEVICE_OBEYS | DEVICE_KEEPS, "device context array", 0);
        shared_add(device, table, 16, DEVICE_OBEYS | DEVICE_KEEPS, "event ring table", 0);
        /* Its first entry: where the controller writes what has happened. */
        if (shared_is_memory(table, 16))
            shared_add(device, mmio_read64(table), 16ull * (mmio_read32(table + 8) & 0xffff),
                       DEVICE_WRITES | DEVICE_KEEPS, "event ring", 0);
        break;
    }
    }
}

/* ---- Intel's gigabit Ethernet (82540EM, 82574, 82576 and their kin) ---- */

enum {
    E1000_RCTL = 0x0100,
    E1000_TCTL = 0x0400,
    E1000_RDBA = 0x2800,
    E1000_RDLEN = 0x2808,
    E1000_TDBA = 0x3800,
    E1000_TDLEN = 0x3808,
    E1000_ENABLE = 1 << 1,
    E1000_BUFFER = 2048, /* the size in use everywhere; the true one may be smaller */
};

static void e1000_look(const struct device *device, struct state *state)
{
    bool receive = mmio_read32(device->bar[0] + E1000_RCTL) & E1000_ENABLE;
    bool transmit = mmio_read32(device->bar[0] + E1000_TCTL) & E1000_ENABLE;

    state->live = receive || transmit ? LIVE_YES : LIVE_NO;
    app_format(state->what, sizeof(state->what), "receiver %s, transmitter %s", on(receive),
               on(transmit));
}

static void e1000_share(const struct device *device)
{
    uint64_t ring = mmio_read64(device->bar[0] + E1000_RDBA);
    uint32_t bytes = mmio_read32(device->bar[0] + E1000_RDLEN);

    shared_add(device, ring, bytes, DEVICE_OBEYS | DEVICE_WRITES | DEVICE_KEEPS, "receive ring", 0);
    shared_add(device, mmio_read64(device->bar[0] + E1000_TDBA),
               mmio_read32(device->bar[0] + E1000_TDLEN),
               DEVICE_OBEYS | DEVICE_WRITES | DEVICE_KEEPS, "transmit ring", 0);
    if (!shared_is_memory(ring, bytes))
        return;
    for (uint32_t i = 0; i < bytes / 16; i++)
        shared_add(device, mmio_read64(ring + 16ull * i), E1000_BUFFER, DEVICE_WRITES,
                   "receive buffer", 0);
}

/* ---- All of them ---- */

/* All ones is what nobody answers with: a function whose bridge is closed, or that has gone. The
 * first register of these controllers is never that. */
static bool has_registers(const struct device *device)
{
    unsigned bar = device->kind == KIND_AHCI ? 5 : 0;

    return !device->bar_ports[bar] && device->bar[bar] != 0 &&
           mmio_read32(device->bar[bar]) != UINT32_MAX;
}

void controller_look(const struct device *device, struct state *state)
{
    static void (*const look[])(const struct device *, struct state *) = {
        [KIND_NVME] = nvme_look,      [KIND_AHCI] = ahci_look,      [KIND_OHCI] = ohci_look,
        [KIND_EHCI] = ehci_xhci_look, [KIND_XHCI] = ehci_xhci_look, [KIND_E1000] = e1000_look,
    };

    if (device->kind == KIND_IDE)
        ide_look(device, state);
    else if (device->kind == KIND_UHCI)
        uhci_look(device, state);
    else if ((size_t)device->kind < sizeof(look) / sizeof(look[0]) && look[device->kind] != NULL &&
             has_registers(device))
        look[device->kind](device, state);
}

void controller_share(const struct device *device)
{
    switch (device->kind) {
    case KIND_NVME:
        nvme_share(device);
        break;
    case KIND_AHCI:
        ahci_share(device);
        break;
    case KIND_UHCI:
    case KIND_OHCI:
    case KIND_EHCI:
    case KIND_XHCI:
        usb_share(device);
        break;
    case KIND_E1000:
        e1000_share(device);
        break;
    default:
        break;
    }
}
