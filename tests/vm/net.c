/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * The Simple Network Protocol of Baton's virtio-net driver, against a peer on the host that echoes
 * what it gets and does what it is told (tests/vm/peer.py).
 *
 * Options, done in this order, on each interface by itself:
 *   nics=N        how many interfaces there must be
 *   states        every function in every state, and bad parameters
 *   frames        frames of every size, and of sizes that cannot be
 *   filters       what is received
 *   echo=N        N frames there and back, many under way
 *   cycles=N      N times started, initialized, shut down and stopped
 *   link          the link goes down and up
 *   faults        Start() with every call failing once, and many times without
 *   leave         ExitBootServices while the peers send as fast as they can; how far each interface
 *                 is by then:
 *   as=WORD       running, or one each: stopped, started, running, and so on
 *   early         before the exit, the exit handlers run once without one
 */
#include "tests/vm/after.h"
#include "tests/vm/spy.h"
#include "tests/vm/vm.h"

#include <efinet.h>

enum { NICS_MAX = 8, MAC = 6, HEADER = 14, MTU = 1500, LONGEST = HEADER + MTU, WINDOW = 32 };
enum { TYPE_ECHO = 0x88b5, TYPE_COMMAND = 0x88b6 };

static EFI_GUID simple_network_guid = EFI_SIMPLE_NETWORK_PROTOCOL_GUID;
static const uint8_t peer_mac[MAC] = {0x02, 0xba, 0x70, 0, 0, 1};

struct nic {
    EFI_HANDLE handle;
    EFI_SIMPLE_NETWORK_PROTOCOL *snp;
    EFI_SIMPLE_NETWORK_MODE *mode;
    struct app_pci pci;
};
static struct nic nics[NICS_MAX];
static size_t nic_count;
static uint8_t *out[WINDOW], *in; /* a page each */

/* ---- Finding them ---- */

static bool refresh(struct nic *nic)
{
    static EFI_HANDLE handles[64];
    size_t count = app_handles(&simple_network_guid, handles, 64);

    for (size_t i = 0; i < count; i++) {
        struct app_pci pci;
        if (handles[i] == nic->pci.handle || !app_pci_of(handles[i], &pci) ||
            pci.handle != nic->pci.handle)
            continue;
        nic->handle = handles[i];
        nic->snp = app_protocol(handles[i], &simple_network_guid);
        nic->mode = nic->snp->Mode;
        return true;
    }
    return false;
}

/* Nothing but the driver itself is to be on it: no network stack. */
static EFI_STATUS connect(struct nic *nic)
{
    return app.bs->ConnectController(nic->pci.handle, NULL, NULL, FALSE);
}

static EFI_STATUS disconnect(struct nic *nic)
{
    return app.bs->DisconnectController(nic->pci.handle, NULL, NULL);
}

static void check_path(const struct nic *nic)
{
    char text[256];
    struct app_driver drivers[VM_DRIVERS_MAX];

    app_path_text(app_protocol(nic->handle, &(EFI_GUID)EFI_DEVICE_PATH_PROTOCOL_GUID), text,
                  sizeof(text));
    app_print("vm: interface at %s\n", text);
    size_t count = app_drivers_of(nic->handle, drivers, VM_DRIVERS_MAX);
    app_assert(count > 0);
    app_check(strcmp(drivers[count - 1].name, "Baton virtio-net driver") == 0);
}

static void find_nics(void)
{
    static EFI_HANDLE handles[256];
    size_t count = app_handles(&vm_pci_io_guid, handles, 256);

    for (size_t i = 0; i < count; i++) {
        EFI_PCI_IO_PROTOCOL *io = app_protocol(handles[i], &vm_pci_io_guid);
        struct nic nic = {.pci.handle = handles[i]};
        UINT16 id[2];
        if (EFI_ERROR(io->Pci.Read(io, EfiPciIoWidthUint16, 0, 2, id)) || id[0] != 0x1af4 ||
            (id[1] != 0x1000 && id[1] != 0x1041))
            continue;
        app_assert(nic_count < NICS_MAX);
        app_assert_ok(io->GetLocation(io, &nic.pci.segment, &nic.pci.bus, &nic.pci.device,
                                      &nic.pci.function));
        disconnect(&nic);
        app_assert_ok(connect(&nic));
        app_assert(refresh(&nic));
        check_path(&nic);
        nics[nic_count++] = nic;
    }
    app_assert(nic_count == app_option_number("nics", 1));
}

/* ---- Frames ---- */

static void up(struct nic *nic)
{
    app_assert_ok(nic->snp->Start(nic->snp));
    app_assert_ok(nic->snp->Initialize(nic->snp, 0, 0));
}

static void down(struct nic *nic)
{
    app_assert_ok(nic->snp->Shutdown(nic->snp));
    app_assert_ok(nic->snp->Stop(nic->snp));
}

static void head(const struct nic *nic, uint8_t *frame, uint16_t type)
{
    memcpy(frame, peer_mac, MAC);
    memcpy(frame + MAC, nic->mode->CurrentAddress.Addr, MAC);
    frame[12] = (uint8_t)(type >> 8);
    frame[13] = (uint8_t)type;
}

/* Both wait for what has to come, and give up when it has not for a very long time. */
static bool too_late(uint64_t since)
{
    return app_us(app_tsc() - since) > 60000000;
}

static void wait_sent(struct nic *nic, const void *buffer)
{
    uint64_t since = app_tsc();
    void *sent = NULL;

    while (!sent) {
        app_assert(!too_late(since));
        app_assert_ok(nic->snp->GetStatus(nic->snp, NULL, &sent));
    }
    app_assert(sent == buffer);
}

static UINTN wait_received(struct nic *nic)
{
    uint64_t since = app_tsc();
    EFI_STATUS status;
    UINTN bytes;

    do {
        app_assert(!too_late(since));
        bytes = EFI_PAGE_SIZE;
        status = nic->snp->Receive(nic->snp, NULL, &bytes, in, NULL, NULL, NULL);
    } while (status == EFI_NOT_READY);
    app_assert_ok(status);
    return bytes;
}

static void send(struct nic *nic, uint8_t *frame, UINTN bytes)
{
    app_assert_ok(nic->snp->Transmit(nic->snp, 0, bytes, frame, NULL, NULL, NULL));
    wait_sent(nic, frame);
}

/* Tells the peer to do something, and waits until it says that it has. Frames that the peer sends
 * meanwhile, before its answer, are counted. */
static unsigned command(struct nic *nic, const char *text)
{
    uint8_t *frame = out[0];
    unsigned others = 0;

    memset(frame, 0, LONGEST);
    head(nic, frame, TYPE_COMMAND);
    app_format((char *)frame + HEADER, 200, "%s", text);
    send(nic, frame, HEADER + 200);
    for (;;) {
        wait_received(nic);
        if (in[12] == TYPE_COMMAND >> 8 && in[13] == (TYPE_COMMAND & 0xff))
            return others;
        others++;
    }
}

static void fill(uint8_t *frame, UINTN bytes)
{
    if (bytes > HEADER)
        vm_random_fill(frame + HEADER, bytes - HEADER);
}

static bool came_back(const struct nic *nic, const uint8_t *sent, UINTN bytes)
{
    return memcmp(in, nic->mode->CurrentAddress.Addr, MAC) == 0 &&
           memcmp(in + MAC, peer_mac, MAC) == 0 &&
           memcmp(in + 2 * MAC, sent + 2 * MAC, bytes - 2 * MAC) == 0;
}

static void one_echo(struct nic *nic, UINTN bytes)
{
    head(nic, out[0], TYPE_ECHO);
    fill(out[0], bytes);
    send(nic, out[0], bytes);
    app_assert(wait_received(nic) == bytes);
    app_assert(came_back(nic, out[0], bytes));
}

/* ---- States and parameters ---- */

static void all_others(EFI_SIMPLE_NETWORK_PROTOCOL *snp, EFI_STATUS expected)
{
    EFI_IP_ADDRESS ip = {.v4.Addr = {224, 0, 0, 1}};
    EFI_MAC_ADDRESS mac = {{2, 3, 4, 5, 6, 7}};
    EFI_NETWORK_STATISTICS table;
    UINTN bytes = sizeof(table), frame = EFI_PAGE_SIZE;
    UINT32 interrupts;
    void *sent;

    app_check_status(snp->Reset(snp, FALSE), expected);
    app_check_status(snp->Shutdown(snp), expected);
    app_check_status(snp->ReceiveFilters(snp, 1, 0, FALSE, 0, NULL), expected);
    app_check_status(snp->StationAddress(snp, FALSE, &mac), expected);
    app_check_status(snp->Statistics(snp, FALSE, &bytes, &table), expected);
    app_check_status(snp->MCastIpToMac(snp, FALSE, &ip, &mac), expected);
    app_check_status(snp->NvData(snp, TRUE, 0, 4, &ip), expected);
    app_check_status(snp->GetStatus(snp, &interrupts, &sent), expected);
    app_check_status(snp->Transmit(snp, 0, 60, out[0], NULL, NULL, NULL), expected);
    app_check_status(snp->Receive(snp, NULL, &frame, in, NULL, NULL, NULL), expected);
}

static void bad_this(EFI_SIMPLE_NETWORK_PROTOCOL *snp)
{
    app_check_status(snp->Start(NULL), EFI_INVALID_PARAMETER);
    app_check_status(snp->Stop(NULL), EFI_INVALID_PARAMETER);
    app_check_status(snp->Initialize(NULL, 0, 0), EFI_INVALID_PARAMETER);
    app_check_status(snp->Reset(NULL, FALSE), EFI_INVALID_PARAMETER);
    app_check_status(snp->Shutdown(NULL), EFI_INVALID_PARAMETER);
    app_check_status(snp->ReceiveFilters(NULL, 0, 0, FALSE, 0, NULL), EFI_INVALID_PARAMETER);
    app_check_status(snp->StationAddress(NULL, TRUE, NULL), EFI_INVALID_PARAMETER);
    app_check_status(snp->Statistics(NULL, TRUE, NULL, NULL), EFI_INVALID_PARAMETER);
    app_check_status(snp->MCastIpToMac(NULL, FALSE, NULL, NULL), EFI_INVALID_PARAMETER);
    app_check_status(snp->NvData(NULL, TRUE, 0, 0, NULL), EFI_INVALID_PARAMETER);
    app_check_status(snp->GetStatus(NULL, NULL, NULL), EFI_INVALID_PARAMETER);
    app_check_status(snp->Transmit(NULL, 0, 60, out[0], NULL, NULL, NULL), EFI_INVALID_PARAMETER);
    app_check_status(snp->Receive(NULL, NULL, NULL, NULL, NULL, NULL, NULL), EFI_INVALID_PARAMETER);
}

static void check_statistics(EFI_SIMPLE_NETWORK_PROTOCOL *snp)
{
    EFI_NETWORK_STATISTICS table;
    UINTN bytes = 0;

    app_check_status(snp->Statistics(snp, FALSE, NULL, &table), EFI_INVALID_PARAMETER);
    app_check_status(snp->Statistics(snp, FALSE, NULL, NULL), EFI_SUCCESS);
    app_check_status(snp->Statistics(snp, FALSE, &bytes, NULL), EFI_BUFFER_TOO_SMALL);
    app_check(bytes == sizeof(table));
    bytes = 12;
    memset(&table, 0x55, sizeof(table));
    app_check_status(snp->Statistics(snp, FALSE, &bytes, &table), EFI_BUFFER_TOO_SMALL);
    app_check(bytes == sizeof(table) && table.RxGoodFrames == 0x5555555555555555);
    app_check_status(snp->Statistics(snp, TRUE, NULL, NULL), EFI_SUCCESS);
    app_check_status(snp->Statistics(snp, FALSE, &bytes, &table), EFI_SUCCESS);
    app_check(table.TxGoodFrames == 0 && table.RxTotalBytes == 0 && ~table.Collisions == 0);
}

static void check_groups(EFI_SIMPLE_NETWORK_PROTOCOL *snp)
{
    static const uint8_t group4[MAC] = {1, 0, 0x5e, 0x7f, 2, 3};
    static const uint8_t group6[MAC] = {0x33, 0x33, 1, 2, 3, 4};
    EFI_IP_ADDRESS ip = {.v4.Addr = {239, 255, 2, 3}};
    EFI_MAC_ADDRESS mac;

    app_check_status(snp->MCastIpToMac(snp, FALSE, NULL, &mac), EFI_INVALID_PARAMETER);
    app_check_status(snp->MCastIpToMac(snp, FALSE, &ip, NULL), EFI_INVALID_PARAMETER);
    app_check_status(snp->MCastIpToMac(snp, FALSE, &ip, &mac), EFI_SUCCESS);
    app_check(memcmp(&mac, group4, MAC) == 0);
    app_check_status(snp->MCastIpToMac(snp, TRUE, &ip, &mac), EFI_INVALID_PARAMETER);
    ip.v4.Addr[0] = 192;
    app_check_status(snp->MCastIpToMac(snp, FALSE, &ip, &mac), EFI_INVALID_PARAMETER);
    ip = (EFI_IP_ADDRESS){.v6.Addr = {0xff, 2, [12] = 1, 2, 3, 4}};
    app_check_status(snp->MCastIpToMac(snp, TRUE, &ip, &mac), EFI_SUCCESS);
    app_check(memcmp(&mac, group6, MAC) == 0);
}

static void check_parameters(struct nic *nic)
{
    EFI_SIMPLE_NETWORK_PROTOCOL *snp = nic->snp;
    EFI_SIMPLE_NETWORK_MODE *mode = nic->mode;
    EFI_MAC_ADDRESS list[MAX_MCAST_FILTER_CNT + 1] = {{{1, 0, 0x5e}}, {{2, 0, 0x5e}}};
    EFI_MAC_ADDRESS zero = {{0}}, group = {{1, 2, 3, 4, 5, 6}}, mine = {{2, 9, 8, 7, 6, 5}};
    UINT32 multicast = EFI_SIMPLE_NETWORK_RECEIVE_MULTICAST, setting = mode->ReceiveFilterSetting;
    UINTN bytes = EFI_PAGE_SIZE;
    UINT16 type = TYPE_ECHO;

    app_check_status(snp->ReceiveFilters(snp, 0x20, 0, FALSE, 0, NULL), EFI_INVALID_PARAMETER);
    app_check_status(snp->ReceiveFilters(snp, 0, 0x20, FALSE, 0, NULL), EFI_INVALID_PARAMETER);
    app_check_status(snp->ReceiveFilters(snp, multicast, 0, FALSE, 0, NULL), EFI_INVALID_PARAMETER);
    app_check_status(snp->ReceiveFilters(snp, multicast, 0, FALSE, 1, NULL), EFI_INVALID_PARAMETER);
    app_check_status(snp->ReceiveFilters(snp, multicast, 0, FALSE, 2, list), EFI_INVALID_PARAMETER);
    for (unsigned i = 0; i <= MAX_MCAST_FILTER_CNT; i++)
        list[i] = (EFI_MAC_ADDRESS){{1, 0, 0x5e, 0, 0, (uint8_t)i}};
    app_check_status(
        snp->ReceiveFilters(snp, multicast, 0, FALSE, mode->MaxMCastFilterCount + 1, list),
        EFI_INVALID_PARAMETER);
    app_check(mode->ReceiveFilterSetting == setting && mode->MCastFilterCount == 0);
    app_check_status(snp->ReceiveFilters(snp, multicast, 0, FALSE, mode->MaxMCastFilterCount, list),
                     EFI_SUCCESS);
    app_check(mode->ReceiveFilterSetting == (setting | multicast));
    app_check(mode->MCastFilterCount == mode->MaxMCastFilterCount);
    app_check_status(snp->ReceiveFilters(snp, multicast, 0, TRUE, 0, NULL), EFI_SUCCESS);
    app_check(mode->ReceiveFilterSetting == setting && mode->MCastFilterCount == 0);
    app_check_status(snp->ReceiveFilters(snp, 8, 8, FALSE, 0, NULL), EFI_SUCCESS);
    app_check(mode->ReceiveFilterSetting == setting);

    app_check_status(snp->StationAddress(snp, FALSE, NULL), EFI_INVALID_PARAMETER);
    app_check_status(snp->StationAddress(snp, FALSE, &zero), EFI_INVALID_PARAMETER);
    app_check_status(snp->StationAddress(snp, FALSE, &group), EFI_INVALID_PARAMETER);
    app_check_status(snp->StationAddress(snp, FALSE, &mine), EFI_SUCCESS);
    app_check(memcmp(&mode->CurrentAddress, &mine, MAC) == 0);
    app_check_status(snp->StationAddress(snp, TRUE, NULL), EFI_SUCCESS);
    app_check(memcmp(&mode->CurrentAddress, &mode->PermanentAddress, MAC) == 0);

    app_check_status(snp->Transmit(snp, 0, 60, NULL, NULL, NULL, NULL), EFI_INVALID_PARAMETER);
    app_check_status(snp->Transmit(snp, 0, HEADER - 1, out[0], NULL, NULL, NULL),
                     EFI_BUFFER_TOO_SMALL);
    app_check_status(snp->Transmit(snp, 0, LONGEST + 1, out[0], NULL, NULL, NULL),
                     EFI_INVALID_PARAMETER);
    app_check_status(snp->Transmit(snp, 13, 60, out[0], NULL, &mine, &type), EFI_INVALID_PARAMETER);
    app_check_status(snp->Transmit(snp, 14, 60, out[0], NULL, NULL, &type), EFI_INVALID_PARAMETER);
    app_check_status(snp->Transmit(snp, 14, 60, out[0], NULL, &mine, NULL), EFI_INVALID_PARAMETER);
    app_check_status(snp->Receive(snp, NULL, NULL, in, NULL, NULL, NULL), EFI_INVALID_PARAMETER);
    app_check_status(snp->Receive(snp, NULL, &bytes, NULL, NULL, NULL, NULL),
                     EFI_INVALID_PARAMETER);
    app_check_status(snp->Receive(snp, NULL, &bytes, in, NULL, NULL, NULL), EFI_NOT_READY);
    app_check_status(snp->NvData(snp, TRUE, 0, 4, in), EFI_UNSUPPORTED);
    app_check_status(app.bs->CheckEvent(snp->WaitForPacket), EFI_NOT_READY);
}

static void states(struct nic *nic)
{
    EFI_SIMPLE_NETWORK_PROTOCOL *snp = nic->snp;

    app_check(nic->mode->State == EfiSimpleNetworkStopped);
    app_check(nic->mode->HwAddressSize == MAC && nic->mode->MediaHeaderSize == HEADER);
    app_check(nic->mode->MaxPacketSize == MTU && nic->mode->IfType == 1);
    app_check(nic->mode->NvRamSize == 0 && nic->mode->MediaPresentSupported);
    bad_this(snp);
    app_check_status(snp->Stop(snp), EFI_NOT_STARTED);
    app_check_status(snp->Initialize(snp, 0, 0), EFI_NOT_STARTED);
    all_others(snp, EFI_NOT_STARTED);
    app_check_status(app.bs->CheckEvent(snp->WaitForPacket), EFI_NOT_READY);

    app_check_status(snp->Start(snp), EFI_SUCCESS);
    app_check(nic->mode->State == EfiSimpleNetworkStarted);
    app_check_status(snp->Start(snp), EFI_ALREADY_STARTED);
    all_others(snp, EFI_DEVICE_ERROR);
    app_check_status(snp->Initialize(snp, 4096, 0), EFI_UNSUPPORTED);
    app_check_status(snp->Initialize(snp, 0, 4096), EFI_UNSUPPORTED);

    app_check_status(snp->Initialize(snp, 0, 0), EFI_SUCCESS);
    app_check(nic->mode->State == EfiSimpleNetworkInitialized && nic->mode->MediaPresent);
    app_check_status(snp->Start(snp), EFI_ALREADY_STARTED);
    app_check_status(snp->Stop(snp), EFI_DEVICE_ERROR);
    app_check_status(snp->Initialize(snp, 0, 0), EFI_DEVICE_ERROR);
    check_parameters(nic);
    check_statistics(snp);
    check_groups(snp);
    app_check_status(snp->Reset(snp, TRUE), EFI_SUCCESS);
    one_echo(nic, 60);

    app_check_status(snp->Shutdown(snp), EFI_SUCCESS);
    app_check(nic->mode->State == EfiSimpleNetworkStarted);
    all_others(snp, EFI_DEVICE_ERROR);
    app_check_status(snp->Stop(snp), EFI_SUCCESS);
    all_others(snp, EFI_NOT_STARTED);
}

/* ---- Frames of every size ---- */

static void header_is_filled_in(struct nic *nic)
{
    EFI_SIMPLE_NETWORK_PROTOCOL *snp = nic->snp;
    EFI_MAC_ADDRESS to = {{0}}, from, dest;
    UINT16 type = TYPE_ECHO, got = 0;
    UINTN bytes = EFI_PAGE_SIZE, header = 0;
    uint64_t since = app_tsc();
    UINT32 interrupts = 0;
    EFI_STATUS status;

    memcpy(&to, peer_mac, MAC);
    memset(out[0], 0xee, 100);
    app_assert_ok(snp->Transmit(snp, HEADER, 100, out[0], NULL, &to, &type));
    app_check(memcmp(out[0], peer_mac, MAC) == 0);
    app_check(memcmp(out[0] + MAC, &nic->mode->CurrentAddress, MAC) == 0);
    app_check(out[0][12] == TYPE_ECHO >> 8 && out[0][13] == (TYPE_ECHO & 0xff));
    wait_sent(nic, out[0]);

    while (app.bs->CheckEvent(snp->WaitForPacket) == EFI_NOT_READY)
        app_assert(!too_late(since));
    app_check_status(snp->GetStatus(snp, &interrupts, NULL), EFI_SUCCESS);
    app_check(interrupts == EFI_SIMPLE_NETWORK_RECEIVE_INTERRUPT);
    status = snp->Receive(snp, &header, &bytes, in, &from, &dest, &got);
    app_assert_ok(status);
    app_check(header == HEADER && bytes == 100 && got == TYPE_ECHO);
    app_check(memcmp(&from, peer_mac, MAC) == 0);
    app_check(memcmp(&dest, &nic->mode->CurrentAddress, MAC) == 0);
}

/* A buffer that is too small by one byte: the size is told, and the frame is still there. */
static void too_small(struct nic *nic, UINTN bytes)
{
    uint64_t since = app_tsc();
    UINTN room = bytes - 1;
    EFI_STATUS status;

    do {
        app_assert(!too_late(since));
        room = bytes - 1;
        status = nic->snp->Receive(nic->snp, NULL, &room, in, NULL, NULL, NULL);
    } while (status == EFI_NOT_READY);
    app_assert(status == EFI_BUFFER_TOO_SMALL && room == bytes);
}

static void frames(struct nic *nic)
{
    up(nic);
    header_is_filled_in(nic);
    for (UINTN bytes = HEADER; bytes <= LONGEST; bytes++) {
        head(nic, out[0], TYPE_ECHO);
        fill(out[0], bytes);
        send(nic, out[0], bytes);
        if (bytes % 8 == 0)
            too_small(nic, bytes);
        app_assert(wait_received(nic) == bytes);
        app_assert(came_back(nic, out[0], bytes));
    }
    /* Shorter than a header: dropped. A tag for virtual LANs: there is room. Longer: dropped, by
     * the device or by us. */
    for (unsigned bytes = 1; bytes < HEADER; bytes++) {
        char text[40];
        app_format(text, sizeof(text), "frame - %u", bytes);
        app_check(command(nic, text) == 0);
    }
    app_check(command(nic, "frame - 14") == 1);
    app_check(command(nic, "frame - 1518") == 1);
    app_check(command(nic, "frame - 1519") == 0);
    app_check(command(nic, "frame - 9000") == 0);
    app_check(command(nic, "frame - 65000") == 0);
    one_echo(nic, LONGEST);
    down(nic);
}

/* ---- Filters ---- */

static void filters(struct nic *nic)
{
    enum {
        UNICAST = EFI_SIMPLE_NETWORK_RECEIVE_UNICAST,
        MULTICAST = EFI_SIMPLE_NETWORK_RECEIVE_MULTICAST,
        BROADCAST = EFI_SIMPLE_NETWORK_RECEIVE_BROADCAST,
        ALL = EFI_SIMPLE_NETWORK_RECEIVE_PROMISCUOUS,
        GROUPS = EFI_SIMPLE_NETWORK_RECEIVE_PROMISCUOUS_MULTICAST,
    };
    static const char *const to[] = {"-", "02aabbccddee", "ffffffffffff", "01005e000001",
                                     "01005e000002"};
    static const struct {
        UINT32 setting;
        unsigned comes[5];
    } cases[] = {
        {UNICAST, {1, 0, 0, 0, 0}},
        {UNICAST | BROADCAST, {1, 0, 1, 0, 0}},
        {UNICAST | MULTICAST, {1, 0, 0, 1, 0}},
        {UNICAST | GROUPS, {1, 0, 0, 1, 1}},
        {UNICAST | BROADCAST | GROUPS, {1, 0, 1, 1, 1}},
        {ALL, {1, 1, 1, 1, 1}},
    };
    EFI_SIMPLE_NETWORK_PROTOCOL *snp = nic->snp;
    EFI_MAC_ADDRESS group = {{1, 0, 0x5e, 0, 0, 1}}, mine = {{2, 9, 8, 7, 6, 5}};

    up(nic);
    app_check(nic->mode->ReceiveFilterSetting == (UNICAST | BROADCAST));
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        UINTN count = cases[i].setting & MULTICAST ? 1 : 0;
        app_check_status(snp->ReceiveFilters(snp, cases[i].setting, 0x1f & ~cases[i].setting,
                                             count == 0, count, &group),
                         EFI_SUCCESS);
        app_check(nic->mode->ReceiveFilterSetting == cases[i].setting);
        for (unsigned k = 0; k < 5; k++) {
            char text[40];
            app_format(text, sizeof(text), "frame %s 100", to[k]);
            if (!app_check(command(nic, text) == cases[i].comes[k]))
                app_print("    setting %u, to %s\n", cases[i].setting, to[k]);
        }
    }
    /* Another address: frames for it come, those for the old one do not. */
    app_check_status(snp->ReceiveFilters(snp, UNICAST, ALL, FALSE, 0, NULL), EFI_SUCCESS);
    app_check_status(snp->StationAddress(snp, FALSE, &mine), EFI_SUCCESS);
    app_check(command(nic, "frame 020908070605 100") == 1);
    char text[40];
    const uint8_t *old = nic->mode->PermanentAddress.Addr;
    app_format(text, sizeof(text), "frame %02x%02x%02x%02x%02x%02x 100", old[0], old[1], old[2],
               old[3], old[4], old[5]);
    app_check(command(nic, text) == 0);
    one_echo(nic, 100);
    down(nic);
}

/* ---- There and back ---- */

static bool flying[WINDOW]; /* the buffer is the interface's */

static void take_sent(struct nic *nic, unsigned *sent)
{
    for (;;) {
        void *buffer = NULL;
        app_assert_ok(nic->snp->GetStatus(nic->snp, NULL, &buffer));
        if (!buffer)
            return;
        unsigned i = 0;
        while (i < WINDOW && out[i] != buffer)
            i++;
        /* Given back once, and only if it was given away. */
        app_assert(i < WINDOW && flying[i]);
        flying[i] = false;
        ++*sent;
    }
}

static void echo(struct nic *nic, unsigned total)
{
    unsigned begun = 0, sent = 0, received = 0;
    uint64_t since = app_tsc();

    up(nic);
    while (received < total) {
        /* Never more under way than the peer's socket has room for. */
        unsigned slot = begun % WINDOW;
        if (begun < total && begun - received < WINDOW && !flying[slot]) {
            UINTN bytes = HEADER + 4 + vm_random(MTU - 3);
            head(nic, out[slot], TYPE_ECHO);
            memset(out[slot] + HEADER, (int)(begun & 0xff), bytes - HEADER);
            memcpy(out[slot] + HEADER, &begun, 4);
            EFI_STATUS status = nic->snp->Transmit(nic->snp, 0, bytes, out[slot], NULL, NULL, NULL);
            if (status != EFI_NOT_READY) {
                app_assert_ok(status);
                flying[slot] = true;
                begun++;
            }
        }
        take_sent(nic, &sent);
        UINTN bytes = EFI_PAGE_SIZE;
        EFI_STATUS status = nic->snp->Receive(nic->snp, NULL, &bytes, in, NULL, NULL, NULL);
        if (status == EFI_NOT_READY) {
            app_assert(!too_late(since));
            continue;
        }
        app_assert_ok(status);
        since = app_tsc();
        /* In the order in which they were sent, each once, and whole. */
        app_assert(memcmp(in + HEADER, &received, 4) == 0);
        for (UINTN i = HEADER + 4; i < bytes; i += 97)
            app_assert(in[i] == (received & 0xff));
        received++;
    }
    while (sent < total) {
        app_assert(!too_late(since));
        take_sent(nic, &sent);
    }
    EFI_NETWORK_STATISTICS table;
    UINTN bytes = sizeof(table);
    app_assert_ok(nic->snp->Statistics(nic->snp, FALSE, &bytes, &table));
    app_check(table.TxGoodFrames == total && table.RxGoodFrames == total);
    app_check(table.RxTotalBytes == table.TxTotalBytes);
    app_print("vm: %u there, %u given back, %u came back\n", begun, sent, received);
    down(nic);
}

/* ---- Up and down ---- */

static void cycles(struct nic *nic, unsigned count)
{
    struct vm_inventory before, after;

    vm_inventory_take(&before);
    for (unsigned i = 0; i < count; i++) {
        up(nic);
        if (i % 50 == 0)
            one_echo(nic, 600);
        down(nic);
    }
    vm_inventory_take(&after);
    vm_inventory_compare(&before, &after);
    app_print("vm: %u times up and down\n", count);
}

static void link(struct nic *nic)
{
    uint64_t since = app_tsc();

    up(nic);
    app_check(nic->mode->MediaPresent);
    command(nic, "link");
    while (nic->mode->MediaPresent) {
        app_assert(!too_late(since));
        app_assert_ok(nic->snp->GetStatus(nic->snp, NULL, NULL));
    }
    app_print("vm: link down\n");
    since = app_tsc();
    while (!nic->mode->MediaPresent) {
        app_assert(!too_late(since));
        app_assert_ok(nic->snp->GetStatus(nic->snp, NULL, NULL));
    }
    app_print("vm: link up\n");
    one_echo(nic, 200);
    down(nic);
}

/* ---- Start and stop, with and without failures ---- */

static struct vm_virtio virtio_of(const struct nic *nic)
{
    return vm_virtio_at(vm_pci_function(nic->pci.bus, nic->pci.device, nic->pci.function));
}

static void faults(struct nic *nic)
{
    struct vm_inventory before, after;
    unsigned failed = 0;

    app_assert_ok(disconnect(nic));
    spy_install();
    spy_watch_pci(nic->pci.handle);
    for (unsigned nth = 1;; nth++) {
        spy_fail(nth);
        connect(nic);
        if (!spy.failed_name) { /* that was the last */
            app_assert(refresh(nic));
            app_assert_ok(disconnect(nic));
            break;
        }
        spy_fail(0);
        failed++;
        /* A call whose failure does not matter, or one that undid everything. */
        if (refresh(nic))
            app_assert_ok(disconnect(nic));
        app_check(spy.exit_events_open == 0 && spy.other_events_open == 0 && spy.pool_live == 0);
        spy_forget();
    }
    for (unsigned i = 0; i < 50; i++) {
        /* By now the firmware's own pools have grown as far as they will. */
        if (i == 10)
            vm_inventory_take(&before);
        app_assert_ok(connect(nic));
        app_assert(refresh(nic));
        if (i % 2)
            up(nic); /* and is stopped as it is */
        app_assert_ok(disconnect(nic));
        struct vm_virtio device = virtio_of(nic);
        app_check(vm_virtio_status(&device) == 0);
    }
    app_check(spy.exit_events_open == 0 && spy.other_events_open == 0 && spy.pool_live == 0);
    vm_inventory_take(&after);
    vm_inventory_compare(&before, &after);
    spy_remove();
    app_print("vm: %u calls failed\n", failed);
    app_check(failed > 5);
    app_assert_ok(connect(nic));
    app_assert(refresh(nic));
}

/* ---- The exit ---- */

static struct app_map map;

static void check_handlers(unsigned calls)
{
    for (size_t i = 0; i < spy.event_count; i++)
        app_check(!spy.events[i].open ||
                  (spy.events[i].calls == calls && app_us(spy.events[i].ticks) < 1000000)); /* C6 */
    app_check(spy.in_exit == 0);                                                            /* C2 */
    app_check(spy.dead == 0);                                                               /* C1 */
}

/* Nothing wakes the device up again (C4). Down it goes as ever. */
static void let_go_for_good(EFI_SIMPLE_NETWORK_PROTOCOL *snp)
{
    UINTN bytes = EFI_PAGE_SIZE;
    unsigned given_back = 0;
    void *buffer;

    if (snp->Mode->State == EfiSimpleNetworkInitialized) {
        while (snp->GetStatus(snp, NULL, &buffer) == EFI_SUCCESS)
            given_back++;
        app_check(given_back <= WINDOW);
        app_check_status(snp->GetStatus(snp, NULL, &buffer), EFI_DEVICE_ERROR);
        app_check_status(snp->Transmit(snp, 0, 60, out[0], NULL, NULL, NULL), EFI_DEVICE_ERROR);
        app_check_status(snp->Receive(snp, NULL, &bytes, in, NULL, NULL, NULL), EFI_DEVICE_ERROR);
        app_check_status(snp->GetStatus(snp, NULL, NULL), EFI_DEVICE_ERROR);
        app_check_status(snp->Reset(snp, FALSE), EFI_DEVICE_ERROR);
        app_check_status(snp->Shutdown(snp), EFI_SUCCESS);
    }
    if (snp->Mode->State == EfiSimpleNetworkStopped)
        app_check_status(snp->Start(snp), EFI_SUCCESS);
    app_check_status(snp->Initialize(snp, 0, 0), EFI_DEVICE_ERROR);
}

static void leave(void)
{
    static const char *const names[] = {"stopped", "started", "running"};
    unsigned calls = 1, far = 0;

    for (size_t i = 0; i < nic_count; i++)
        app_assert_ok(disconnect(&nics[i]));
    spy_install();
    for (size_t i = 0; i < nic_count; i++) {
        spy_watch_pci(nics[i].pci.handle);
        app_assert_ok(connect(&nics[i]));
        app_assert(refresh(&nics[i]));
    }
    app_check(spy.exit_events_open == nic_count);
    for (size_t i = 0; i < nic_count; i++) {
        struct nic *nic = &nics[i];
        far = strcmp(app_option("as"), "each") == 0 ? (unsigned)i % 3 : 2;
        app_print("vm: interface %zu is %s\n", i, names[far]);
        if (far > 0)
            app_assert_ok(nic->snp->Start(nic->snp));
        if (far > 1) {
            app_assert_ok(nic->snp->Initialize(nic->snp, 0, 0));
            command(nic, "flood");
            for (unsigned k = 0; k < 100; k++)
                wait_received(nic);
            /* Frames on their way out, too. */
            for (unsigned k = 0; k < WINDOW; k++)
                nic->snp->Transmit(nic->snp, 0, LONGEST, out[k], NULL, NULL, NULL);
        }
    }
    if (app_flag("early")) {
        spy_notify_exit();
        calls++;
        for (size_t i = 0; i < nic_count; i++) {
            EFI_SIMPLE_NETWORK_PROTOCOL *snp = nics[i].snp;
            struct vm_virtio device = virtio_of(&nics[i]);
            app_check(vm_virtio_status(&device) == 0);
            let_go_for_good(snp);
            app_check(vm_virtio_status(&device) == 0);
            app_check(!(vm_pci_command(device.function) & VM_COMMAND_MASTER));
        }
    }
    app_map_read(&map);
    app_print("vm: leaving\n");
    app_assert_ok(app_map_exit(&map));
    check_handlers(calls);

    after_take(&map);
    for (size_t i = 0; i < nic_count; i++) {
        struct vm_virtio device = virtio_of(&nics[i]);
        app_check(!(vm_pci_command(device.function) & VM_COMMAND_MASTER));
        app_check(vm_virtio_status(&device) == 0);
        app_check(!vm_virtio_queue_on(&device));
    }
    after_fill();
    app_delay_us(500000);
    /* Only a device that was reset stays quiet now. */
    for (size_t i = 0; i < nic_count; i++) {
        struct vm_virtio device = virtio_of(&nics[i]);
        vm_pci_set_command(device.function, vm_pci_command(device.function) | VM_COMMAND_MASTER);
        vm_virtio_kick(&device);
    }
    app_delay_us(2000000);
    after_look();
}

int app_main(void)
{
    for (unsigned i = 0; i < WINDOW; i++)
        out[i] = app_pages(EFI_PAGE_SIZE);
    in = app_pages(EFI_PAGE_SIZE);
    find_nics();
    for (size_t i = 0; i < nic_count; i++) {
        app_print("vm: interface %zu\n", i);
        if (app_flag("states"))
            states(&nics[i]);
        if (app_flag("frames"))
            frames(&nics[i]);
        if (app_flag("filters"))
            filters(&nics[i]);
        if (app_option("echo"))
            echo(&nics[i], (unsigned)app_option_number("echo", 0));
        if (app_option("cycles"))
            cycles(&nics[i], (unsigned)app_option_number("cycles", 0));
        if (app_flag("link"))
            link(&nics[i]);
        if (app_flag("faults"))
            faults(&nics[i]);
    }
    if (app_flag("leave"))
        leave();
    return 0;
}
