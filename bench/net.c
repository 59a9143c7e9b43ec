// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * Two drivers, the same network cards, in turn: frames per second through the Simple Network
 * Protocol, and a download through the firmware's own stack on top of it.
 *
 * What is behind the cards (bench/net), in the order of their PCI places: a host that
 * takes every frame and answers none; a mirror, which sends every frame back; a TFTP server
 * at 10.0.2.2 with a file of `mib` MiB.
 *
 * Options:
 *   rounds=N   how often each driver gets its turn (default 5)
 *   ms=N       about how long one measurement takes (default 200)
 *   mib=N      size of the file; 0: no download (default 64)
 *   count      instead of measuring, move a fixed number of frames once with each driver, so that
 *              the host can count notifications between the lines
 */

#include "lab/efi/app.h"
#include "lab/efi/driver.h"

#include <efinet.h>
#include <efipxebc.h>

enum { SINK, MIRROR, SERVER, CARDS };
enum { MAC = 6, HEADER = 14, WINDOW = 16, COUNTED = 1000 };

static EFI_GUID pci_io_guid = EFI_PCI_IO_PROTOCOL_GUID;
static EFI_GUID simple_network_guid = EFI_SIMPLE_NETWORK_PROTOCOL_GUID;
static EFI_GUID pxe_guid = EFI_PXE_BASE_CODE_PROTOCOL_GUID;

static const uint32_t sizes[] = {60, 590, 1514};
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

static EFI_HANDLE cards[CARDS]; /* the PCI devices */
static uint8_t *out[WINDOW], *in;
static uint64_t mib;

/* ---- Choosing the driver ---- */

static void find_cards(void)
{
    static EFI_HANDLE handles[256];
    size_t count = app_handles(&pci_io_guid, handles, 256), found = 0;

    for (size_t i = 0; i < count; i++) {
        EFI_PCI_IO_PROTOCOL *io = app_protocol(handles[i], &pci_io_guid);
        UINTN segment, bus, device, function;
        UINT16 id[2];
        if (EFI_ERROR(io->Pci.Read(io, EfiPciIoWidthUint16, 0, 2, id)) || id[0] != 0x1af4 ||
            EFI_ERROR(io->GetLocation(io, &segment, &bus, &device, &function)) || device < 4)
            continue;
        app_assert(device - 4 < CARDS);
        cards[device - 4] = handles[i];
        found++;
    }
    app_assert(found == CARDS);
}

/* The interface on a card, made by one of the two drivers. */
static EFI_HANDLE bind(EFI_HANDLE card, bool baton)
{
    static EFI_HANDLE interfaces[64];
    struct app_driver who[4];

    /* A network stack does not always come down at the first call. */
    for (unsigned i = 0; i < 3 && EFI_ERROR(app.bs->DisconnectController(card, NULL, NULL)); i++)
        continue;
    app_connect_by(card, baton);
    size_t count = app_handles(&simple_network_guid, interfaces, 64);
    for (size_t i = 0; i < count; i++) {
        struct app_pci pci;
        if (!app_pci_of(interfaces[i], &pci) || pci.handle != card)
            continue;
        /* The PCI device's driver is the first. */
        app_assert(app_drivers_of(interfaces[i], who, 4) > 0);
        app_assert((strncmp(who[0].name, "Baton", 5) == 0) == baton);
        return interfaces[i];
    }
    app_failed(__FILE__, __LINE__, "no interface");
}

static EFI_SIMPLE_NETWORK_PROTOCOL *up(EFI_HANDLE card, bool baton)
{
    EFI_SIMPLE_NETWORK_PROTOCOL *snp = app_protocol(bind(card, baton), &simple_network_guid);

    app_assert_ok(snp->Start(snp));
    app_assert_ok(snp->Initialize(snp, 0, 0));
    /* To itself: a mirror brings it back. */
    for (unsigned i = 0; i < WINDOW; i++) {
        memset(out[i], 0x5a, 1514);
        memcpy(out[i], &snp->Mode->CurrentAddress, MAC);
        memcpy(out[i] + MAC, &snp->Mode->CurrentAddress, MAC);
        out[i][12] = 0x88;
        out[i][13] = 0xb5;
    }
    return snp;
}

static void down(EFI_SIMPLE_NETWORK_PROTOCOL *snp)
{
    app_assert_ok(snp->Shutdown(snp));
    app_assert_ok(snp->Stop(snp));
}

/* ---- Frames ---- */

static unsigned flying; /* frames whose buffers are not back yet */

static void take_sent(EFI_SIMPLE_NETWORK_PROTOCOL *snp)
{
    void *buffer;

    do {
        app_assert_ok(snp->GetStatus(snp, NULL, &buffer));
        flying -= buffer != NULL;
    } while (buffer && flying);
}

static bool send(EFI_SIMPLE_NETWORK_PROTOCOL *snp, uint64_t number, uint32_t size)
{
    EFI_STATUS status = snp->Transmit(snp, 0, size, out[number % WINDOW], NULL, NULL, NULL);

    if (status == EFI_NOT_READY)
        return false;
    app_assert_ok(status);
    flying++;
    return true;
}

static bool receive(EFI_SIMPLE_NETWORK_PROTOCOL *snp, uint32_t size)
{
    UINTN bytes = EFI_PAGE_SIZE;
    EFI_STATUS status = snp->Receive(snp, NULL, &bytes, in, NULL, NULL, NULL);

    if (status == EFI_NOT_READY)
        return false;
    app_assert_ok(status);
    app_assert(bytes == size);
    return true;
}

static void result_line(const char *driver, const char *what, uint32_t size, uint64_t count,
                        uint64_t ticks)
{
    app_print("bench: driver=%s what=%s size=%u count=%llu ns=%llu\n", driver, what, size,
              (unsigned long long)count, (unsigned long long)app_ns(ticks));
}

/* As fast as buffers come back. */
static uint64_t transmit(EFI_SIMPLE_NETWORK_PROTOCOL *snp, uint32_t size, uint64_t budget,
                         uint64_t most)
{
    uint64_t sent = 0, start = app_tsc();

    while (sent < most && app_tsc() - start < budget) {
        if (flying < WINDOW && send(snp, sent, size))
            sent++;
        take_sent(snp);
    }
    while (flying)
        take_sent(snp);
    return sent;
}

/* There and back, many under way. */
static uint64_t mirror(EFI_SIMPLE_NETWORK_PROTOCOL *snp, uint32_t size, uint64_t budget,
                       uint64_t most)
{
    uint64_t sent = 0, received = 0, start = app_tsc();

    while (received < sent || (sent < most && app_tsc() - start < budget)) {
        app_assert(most != UINT64_MAX || app_tsc() - start < budget + 20000000 * app_tsc_per_us());
        if (sent < most && app_tsc() - start < budget && sent - received < WINDOW / 2 &&
            flying < WINDOW && send(snp, sent, size))
            sent++;
        if (flying)
            take_sent(snp);
        received += receive(snp, size);
    }
    while (flying)
        take_sent(snp);
    return received;
}

/* Only receiving is timed: of frames that have all come, one window after the other. */
static uint64_t receive_only(EFI_SIMPLE_NETWORK_PROTOCOL *snp, uint32_t size, uint64_t budget,
                             uint64_t *ticks)
{
    uint64_t received = 0, start = app_tsc();

    *ticks = 0;
    while (app_tsc() - start < budget) {
        unsigned sent = 0, got = 0;
        while (sent < WINDOW / 2)
            sent += send(snp, sent, size);
        while (flying)
            take_sent(snp);
        app_delay_us(200);
        uint64_t begin = app_tsc();
        while (got < sent)
            got += receive(snp, size);
        *ticks += app_tsc() - begin;
        received += got;
    }
    return received;
}

static void measure_frames(bool baton, uint64_t budget)
{
    const char *name = baton ? "baton" : "firmware";
    uint64_t start, count, ticks;

    EFI_SIMPLE_NETWORK_PROTOCOL *snp = up(cards[SINK], baton);
    for (size_t i = 0; i < SIZES; i++) {
        transmit(snp, sizes[i], budget, COUNTED);
        start = app_tsc();
        count = transmit(snp, sizes[i], budget, UINT64_MAX);
        result_line(name, "transmit", sizes[i], count, app_tsc() - start);
    }
    down(snp);

    snp = up(cards[MIRROR], baton);
    for (size_t i = 0; i < SIZES; i++) {
        mirror(snp, sizes[i], budget, COUNTED);
        count = receive_only(snp, sizes[i], budget, &ticks);
        result_line(name, "receive", sizes[i], count, ticks);
        start = app_tsc();
        count = mirror(snp, sizes[i], budget, UINT64_MAX);
        result_line(name, "both", sizes[i], count, app_tsc() - start);
    }
    down(snp);
}

static void count_frames(bool baton)
{
    const char *name = baton ? "baton" : "firmware";

    for (unsigned card = SINK; card <= MIRROR; card++) {
        EFI_SIMPLE_NETWORK_PROTOCOL *snp = up(cards[card], baton);
        const char *what = card == SINK ? "transmit" : "both";
        app_print("count: driver=%s what=%s frames=%u begin\n", name, what, COUNTED);
        if (card == SINK)
            transmit(snp, 1514, UINT64_MAX, COUNTED);
        else
            mirror(snp, 1514, UINT64_MAX, COUNTED);
        app_print("count: driver=%s what=%s frames=%u end\n", name, what, COUNTED);
        down(snp);
    }
}

/* ---- A file ---- */

static void measure_download(bool baton)
{
    EFI_IP_ADDRESS station = {.v4 = {{10, 0, 2, 15}}}, mask = {.v4 = {{255, 255, 255, 0}}};
    EFI_IP_ADDRESS server = {.v4 = {{10, 0, 2, 2}}};
    static uint8_t *file;
    UINT64 bytes = mib << 20;
    UINTN block = 1428;

    if (!file)
        file = app_pages(bytes);
    EFI_HANDLE interface = bind(cards[SERVER], baton);
    app.bs->ConnectController(interface, NULL, NULL, TRUE);
    static EFI_HANDLE handles[16];
    size_t count = app_handles(&pxe_guid, handles, 16);
    EFI_PXE_BASE_CODE_PROTOCOL *pxe = NULL;
    /* One for IPv4 and one for IPv6, on handles below the interface. */
    for (size_t i = 0; i < count && !pxe; i++) {
        struct app_pci pci;
        EFI_PXE_BASE_CODE_PROTOCOL *candidate = app_protocol(handles[i], &pxe_guid);
        if (!app_pci_of(handles[i], &pci) || pci.handle != cards[SERVER] ||
            EFI_ERROR(candidate->Start(candidate, FALSE)))
            continue;
        if (candidate->Mode->UsingIpv6)
            candidate->Stop(candidate);
        else
            pxe = candidate;
    }
    app_assert(pxe);
    app_assert_ok(pxe->SetStationIp(pxe, &station, &mask));
    memset(file, 0, bytes);
    uint64_t start = app_tsc();
    app_assert_ok(pxe->Mtftp(pxe, EFI_PXE_BASE_CODE_TFTP_READ_FILE, file, FALSE, &bytes, &block,
                             &server, (UINT8 *)"file", NULL, FALSE));
    uint64_t ticks = app_tsc() - start;
    app_assert(bytes == mib << 20);
    /* bench/net made the file of numbered lines. */
    for (uint64_t at = 0; at < bytes; at += 1u << 20)
        app_assert(memcmp(file + at, &at, 8) == 0);
    app_assert_ok(pxe->Stop(pxe));
    app.bs->DisconnectController(interface, NULL, NULL);
    result_line(baton ? "baton" : "firmware", "download", (uint32_t)(mib << 20), 1, ticks);
}

int app_main(void)
{
    uint64_t rounds = app_option_number("rounds", 5);
    uint64_t budget = app_option_number("ms", 200) * 1000 * app_tsc_per_us();

    mib = app_option_number("mib", 64);
    for (unsigned i = 0; i < WINDOW; i++)
        out[i] = app_pages(EFI_PAGE_SIZE);
    in = app_pages(EFI_PAGE_SIZE);
    app_connect_all();
    find_cards();
    if (app_flag("count")) {
        count_frames(true);
        count_frames(false);
        return 0;
    }
    for (uint64_t round = 0; round < rounds; round++) {
        app_print("bench: round=%llu of=%llu\n", (unsigned long long)round + 1,
                  (unsigned long long)rounds);
        for (unsigned baton = 2; baton-- > 0;) {
            measure_frames(baton, budget);
            if (mib)
                measure_download(baton);
        }
    }
    return 0;
}
