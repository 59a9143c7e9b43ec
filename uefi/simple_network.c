// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "uefi/simple_network.h"

/* RFC 1700, "Hardware Type". */
#define ETHERNET 1

#define FILTERS                                                                                    \
    (EFI_SIMPLE_NETWORK_RECEIVE_UNICAST | EFI_SIMPLE_NETWORK_RECEIVE_MULTICAST |                   \
     EFI_SIMPLE_NETWORK_RECEIVE_BROADCAST | EFI_SIMPLE_NETWORK_RECEIVE_PROMISCUOUS |               \
     EFI_SIMPLE_NETWORK_RECEIVE_PROMISCUOUS_MULTICAST)
/* What an interface that has just been initialized receives: callers that set no filters expect
 * what is addressed to them. */
#define FILTERS_AT_FIRST (EFI_SIMPLE_NETWORK_RECEIVE_UNICAST | EFI_SIMPLE_NETWORK_RECEIVE_BROADCAST)

#define NOT_COUNTED UINT64_MAX /* "not available on the device" (§24.1, Statistics()) */

/* How long a frame may wait for the caller to come back, in units of 100 ns: to the next tick of
 * the firmware's timer. */
#define TICK_100NS 10000u

/* ---- Coming in, going out ---- */

static struct simple_network *network_of(EFI_SIMPLE_NETWORK_PROTOCOL *this)
{
    return CONTAINER_OF(this, struct simple_network, snp);
}

/* What every function begins with: keeps others out, if the interface is in the one state that the
 * function is for. On success leave() has to follow. */
static EFI_STATUS enter(EFI_SIMPLE_NETWORK_PROTOCOL *this, EFI_SIMPLE_NETWORK_STATE state,
                        EFI_TPL *tpl)
{
    if (!this)
        return EFI_INVALID_PARAMETER;
    *tpl = bs->RaiseTPL(TPL_NOTIFY);
    UINT32 now = network_of(this)->mode.State;
    if (now == (UINT32)state)
        return EFI_SUCCESS;
    bs->RestoreTPL(*tpl);
    return now == EfiSimpleNetworkStopped ? EFI_NOT_STARTED : EFI_DEVICE_ERROR;
}

static EFI_STATUS leave(EFI_TPL tpl, EFI_STATUS status)
{
    bs->RestoreTPL(tpl);
    return status;
}

/* ---- States ---- */

static void note_media(struct simple_network *network)
{
    network->mode.MediaPresent = network->net->link_up;
}

static void clear_statistics(struct simple_network *network)
{
    network->statistics = (EFI_NETWORK_STATISTICS){
        .RxOversizeFrames = NOT_COUNTED, /* the device's affair, as are the others */
        .RxDroppedFrames = NOT_COUNTED,
        .RxCrcErrorFrames = NOT_COUNTED,
        .TxUndersizeFrames = NOT_COUNTED,
        .TxOversizeFrames = NOT_COUNTED,
        .TxDroppedFrames = NOT_COUNTED,
        .TxCrcErrorFrames = NOT_COUNTED,
        .Collisions = NOT_COUNTED,
        .UnsupportedProtocol = NOT_COUNTED,
    };
}

static EFI_STATUS EFIAPI start(EFI_SIMPLE_NETWORK_PROTOCOL *this)
{
    EFI_TPL tpl;

    EFI_STATUS status = enter(this, EfiSimpleNetworkStopped, &tpl);
    if (EFI_ERROR(status))
        return this ? EFI_ALREADY_STARTED : status;
    struct simple_network *network = network_of(this);
    network->mode.State = EfiSimpleNetworkStarted;
    network->mode.CurrentAddress = network->mode.PermanentAddress;
    clear_statistics(network);
    return leave(tpl, EFI_SUCCESS);
}

static EFI_STATUS EFIAPI stop(EFI_SIMPLE_NETWORK_PROTOCOL *this)
{
    EFI_TPL tpl;

    EFI_STATUS status = enter(this, EfiSimpleNetworkStarted, &tpl);
    if (EFI_ERROR(status))
        return status;
    network_of(this)->mode.State = EfiSimpleNetworkStopped;
    return leave(tpl, EFI_SUCCESS);
}

static EFI_STATUS EFIAPI initialize(EFI_SIMPLE_NETWORK_PROTOCOL *this, UINTN extra_receive,
                                    UINTN extra_transmit)
{
    EFI_TPL tpl;

    EFI_STATUS status = enter(this, EfiSimpleNetworkStarted, &tpl);
    if (EFI_ERROR(status))
        return status;
    /* There are as many buffers as the queues take. */
    if (extra_receive || extra_transmit)
        return leave(tpl, EFI_UNSUPPORTED);

    struct simple_network *network = network_of(this);
    enum result result = net_open(network->net);
    if (result)
        return leave(tpl, result == RESULT_NO_MEMORY ? EFI_OUT_OF_RESOURCES : EFI_DEVICE_ERROR);
    network->mode.State = EfiSimpleNetworkInitialized;
    network->mode.ReceiveFilterSetting = FILTERS_AT_FIRST;
    network->mode.MCastFilterCount = 0;
    note_media(network);
    return leave(tpl, EFI_SUCCESS);
}

static EFI_STATUS EFIAPI reset(EFI_SIMPLE_NETWORK_PROTOCOL *this, BOOLEAN extended)
{
    EFI_TPL tpl;
    (void)extended;

    EFI_STATUS status = enter(this, EfiSimpleNetworkInitialized, &tpl);
    if (EFI_ERROR(status))
        return status;
    struct simple_network *network = network_of(this);
    if (net_restart(network->net))
        status = EFI_DEVICE_ERROR;
    note_media(network);
    return leave(tpl, status);
}

static EFI_STATUS EFIAPI shutdown(EFI_SIMPLE_NETWORK_PROTOCOL *this)
{
    EFI_TPL tpl;

    EFI_STATUS status = enter(this, EfiSimpleNetworkInitialized, &tpl);
    if (EFI_ERROR(status))
        return status;
    struct simple_network *network = network_of(this);
    /* One that is quiet but could not be got ready for the next Initialize() has been shut down. */
    if (net_close(network->net) && network->net->device.exit.state == VIRTIO_STUCK)
        status = EFI_DEVICE_ERROR;
    network->mode.State = EfiSimpleNetworkStarted;
    network->mode.ReceiveFilterSetting = 0;
    network->mode.MCastFilterCount = 0;
    return leave(tpl, status);
}

/* ---- Addresses and filters ---- */

static bool same_address(const void *one, const void *other)
{
    const UINT8 *a = one, *b = other;
    UINT8 different = 0;

    for (unsigned i = 0; i < NET_MAC_BYTES; i++)
        different |= a[i] ^ b[i];
    return !different;
}

static bool group_address(const UINT8 *address)
{
    return address[0] & 1;
}

/* The device is asked to filter nothing: that needs a queue more, and firmware's interfaces see
 * little that is not for them. */
static bool wanted(const EFI_SIMPLE_NETWORK_MODE *mode, const UINT8 *destination)
{
    UINT32 filters = mode->ReceiveFilterSetting;

    if (filters & EFI_SIMPLE_NETWORK_RECEIVE_PROMISCUOUS)
        return true;
    if (!group_address(destination))
        return filters & EFI_SIMPLE_NETWORK_RECEIVE_UNICAST &&
               same_address(destination, &mode->CurrentAddress);
    if (same_address(destination, &mode->BroadcastAddress))
        return filters & EFI_SIMPLE_NETWORK_RECEIVE_BROADCAST;
    if (filters & EFI_SIMPLE_NETWORK_RECEIVE_PROMISCUOUS_MULTICAST)
        return true;
    if (filters & EFI_SIMPLE_NETWORK_RECEIVE_MULTICAST)
        for (UINT32 i = 0; i < mode->MCastFilterCount; i++)
            if (same_address(destination, &mode->MCastFilter[i]))
                return true;
    return false;
}

static EFI_STATUS set_filters(EFI_SIMPLE_NETWORK_MODE *mode, UINT32 enable, UINT32 disable,
                              BOOLEAN reset_list, UINTN count, const EFI_MAC_ADDRESS *list)
{
    if ((enable | disable) & ~mode->ReceiveFilterMask)
        return EFI_INVALID_PARAMETER;
    if (reset_list) {
        /* Whatever else is said of multicast. */
        disable |= EFI_SIMPLE_NETWORK_RECEIVE_MULTICAST;
        count = 0;
    }
    if (enable & ~disable & EFI_SIMPLE_NETWORK_RECEIVE_MULTICAST && count == 0)
        return EFI_INVALID_PARAMETER;
    if (count > mode->MaxMCastFilterCount || (count && !list))
        return EFI_INVALID_PARAMETER;
    for (UINTN i = 0; i < count; i++)
        if (!group_address(list[i].Addr))
            return EFI_INVALID_PARAMETER;

    if (count || reset_list) {
        for (UINTN i = 0; i < count; i++)
            mode->MCastFilter[i] = list[i];
        mode->MCastFilterCount = (UINT32)count;
    }
    mode->ReceiveFilterSetting = (mode->ReceiveFilterSetting | enable) & ~disable;
    return EFI_SUCCESS;
}

static EFI_STATUS EFIAPI receive_filters(EFI_SIMPLE_NETWORK_PROTOCOL *this, UINT32 enable,
                                         UINT32 disable, BOOLEAN reset_list, UINTN count,
                                         EFI_MAC_ADDRESS *list)
{
    EFI_TPL tpl;

    EFI_STATUS status = enter(this, EfiSimpleNetworkInitialized, &tpl);
    if (EFI_ERROR(status))
        return status;
    status = set_filters(&network_of(this)->mode, enable, disable, reset_list, count, list);
    return leave(tpl, status);
}

static EFI_STATUS EFIAPI station_address(EFI_SIMPLE_NETWORK_PROTOCOL *this, BOOLEAN to_permanent,
                                         EFI_MAC_ADDRESS *new)
{
    static const UINT8 nobody[NET_MAC_BYTES];
    EFI_TPL tpl;

    EFI_STATUS status = enter(this, EfiSimpleNetworkInitialized, &tpl);
    if (EFI_ERROR(status))
        return status;
    EFI_SIMPLE_NETWORK_MODE *mode = &network_of(this)->mode;
    if (to_permanent)
        mode->CurrentAddress = mode->PermanentAddress;
    else if (!new || group_address(new->Addr) || same_address(new, nobody))
        status = EFI_INVALID_PARAMETER;
    else
        __builtin_memcpy(&mode->CurrentAddress, new, NET_MAC_BYTES);
    return leave(tpl, status);
}

static EFI_STATUS EFIAPI group_of_ip(EFI_SIMPLE_NETWORK_PROTOCOL *this, BOOLEAN ipv6,
                                     EFI_IP_ADDRESS *ip, EFI_MAC_ADDRESS *mac)
{
    EFI_TPL tpl;

    EFI_STATUS status = enter(this, EfiSimpleNetworkInitialized, &tpl);
    if (EFI_ERROR(status))
        return status;
    if (!ip || !mac) {
        status = EFI_INVALID_PARAMETER;
    } else if (ipv6) { /* RFC 2464 §7 */
        const UINT8 *from = ip->v6.Addr;
        if (from[0] != 0xff)
            return leave(tpl, EFI_INVALID_PARAMETER);
        *mac = (EFI_MAC_ADDRESS){{0x33, 0x33, from[12], from[13], from[14], from[15]}};
    } else { /* RFC 1112 §6.4 */
        const UINT8 *from = ip->v4.Addr;
        if ((from[0] & 0xf0) != 0xe0)
            return leave(tpl, EFI_INVALID_PARAMETER);
        *mac = (EFI_MAC_ADDRESS){{0x01, 0x00, 0x5e, from[1] & 0x7f, from[2], from[3]}};
    }
    return leave(tpl, status);
}

/* ---- What there is to know ---- */

static EFI_STATUS EFIAPI statistics(EFI_SIMPLE_NETWORK_PROTOCOL *this, BOOLEAN reset, UINTN *bytes,
                                    EFI_NETWORK_STATISTICS *table)
{
    EFI_TPL tpl;

    EFI_STATUS status = enter(this, EfiSimpleNetworkInitialized, &tpl);
    if (EFI_ERROR(status))
        return status;
    struct simple_network *network = network_of(this);
    const UINTN all = sizeof(network->statistics);
    if (table && !bytes)
        return leave(tpl, EFI_INVALID_PARAMETER);
    if (bytes) {
        /* As many whole counters as there is room for. */
        UINTN part = *bytes < all ? *bytes / sizeof(UINT64) * sizeof(UINT64) : all;
        if (table)
            __builtin_memcpy(table, &network->statistics, part);
        if (!table || *bytes < all)
            status = EFI_BUFFER_TOO_SMALL;
        *bytes = all;
    }
    if (reset)
        clear_statistics(network);
    /* One who only resets does not ask for a table. */
    return leave(tpl, reset && !table ? EFI_SUCCESS : status);
}

/* There is none: NvRamSize is 0. */
static EFI_STATUS EFIAPI nv_data(EFI_SIMPLE_NETWORK_PROTOCOL *this, BOOLEAN read, UINTN offset,
                                 UINTN bytes, void *buffer)
{
    EFI_TPL tpl;
    (void)read;
    (void)offset;
    (void)bytes;
    (void)buffer;

    EFI_STATUS status = enter(this, EfiSimpleNetworkInitialized, &tpl);
    return EFI_ERROR(status) ? status : leave(tpl, EFI_UNSUPPORTED);
}

/* ---- Frames ---- */

/* The next frame that is for us, which stays where it is; others are dropped on the way, but not
 * for ever: they may come as fast as they are dropped. */
static enum result next_frame(struct simple_network *network, const UINT8 **frame, size_t *bytes)
{
    EFI_NETWORK_STATISTICS *count = &network->statistics;

    for (unsigned i = 0; i < RING_SLOTS_MAX; i++) {
        const void *at;
        enum result result = net_received(network->net, &at, bytes);
        if (result)
            return result;
        *frame = at;
        if (*bytes >= NET_HEADER_BYTES && wanted(&network->mode, at))
            return RESULT_OK;
        count->RxUndersizeFrames += *bytes < NET_HEADER_BYTES;
        count->RxTotalFrames++;
        count->RxTotalBytes += *bytes;
        net_release(network->net);
    }
    return RESULT_BUSY;
}

static void count_frame(const UINT8 *destination, UINT64 *unicast, UINT64 *broadcast,
                        UINT64 *multicast, const EFI_SIMPLE_NETWORK_MODE *mode)
{
    if (!group_address(destination))
        ++*unicast;
    else if (same_address(destination, &mode->BroadcastAddress))
        ++*broadcast;
    else
        ++*multicast;
}

static void EFIAPI signal_if_received(EFI_EVENT event, void *context)
{
    struct simple_network *network = context; /* the event's TPL is TPL_NOTIFY already */
    const UINT8 *frame;
    size_t bytes;

    if (network->mode.State == EfiSimpleNetworkInitialized &&
        next_frame(network, &frame, &bytes) == RESULT_OK)
        bs->SignalEvent(event);
}

static EFI_STATUS EFIAPI get_status(EFI_SIMPLE_NETWORK_PROTOCOL *this, UINT32 *interrupts,
                                    void **transmitted)
{
    const UINT8 *frame;
    size_t bytes;
    EFI_TPL tpl;

    EFI_STATUS status = enter(this, EfiSimpleNetworkInitialized, &tpl);
    if (EFI_ERROR(status))
        return status;
    struct simple_network *network = network_of(this);
    struct net *net = network->net;

    /* Who asks for no buffer wants to know about the link; who asks for buffers does so for every
     * one that he sends. */
    enum result result = net_look(net, !transmitted);
    note_media(network);
    /* Buffers are given back also by an interface that has failed. */
    if (result && !(transmitted && net_any_sent(net)))
        return leave(tpl, EFI_DEVICE_ERROR);
    if (interrupts) {
        /* As long as there is a cause: who takes one frame or buffer at a time misses none. */
        *interrupts = 0;
        if (next_frame(network, &frame, &bytes) == RESULT_OK)
            *interrupts |= EFI_SIMPLE_NETWORK_RECEIVE_INTERRUPT;
        if (net_any_sent(net))
            *interrupts |= EFI_SIMPLE_NETWORK_TRANSMIT_INTERRUPT;
    }
    if (transmitted && !net_sent(net, transmitted))
        *transmitted = NULL;
    return leave(tpl, EFI_SUCCESS);
}

static void EFIAPI tick(EFI_EVENT event, void *context)
{
    struct simple_network *network = context; /* the event's TPL is TPL_NOTIFY already */
    (void)event;

    network->ticking = false;
    net_tell(network->net);
}

static EFI_STATUS send(struct simple_network *network, UINTN header_bytes, UINTN bytes,
                       UINT8 *buffer, const EFI_MAC_ADDRESS *source,
                       const EFI_MAC_ADDRESS *destination, const UINT16 *protocol)
{
    const EFI_SIMPLE_NETWORK_MODE *mode = &network->mode;
    EFI_NETWORK_STATISTICS *count = &network->statistics;

    if (!buffer)
        return EFI_INVALID_PARAMETER;
    if (header_bytes && (header_bytes != mode->MediaHeaderSize || !destination || !protocol))
        return EFI_INVALID_PARAMETER;
    if (bytes < mode->MediaHeaderSize)
        return EFI_BUFFER_TOO_SMALL;
    if (bytes > mode->MediaHeaderSize + mode->MaxPacketSize)
        return EFI_INVALID_PARAMETER;
    if (header_bytes) {
        __builtin_memcpy(buffer, destination, NET_MAC_BYTES);
        __builtin_memcpy(buffer + NET_MAC_BYTES, source ? source : &mode->CurrentAddress,
                         NET_MAC_BYTES);
        buffer[2 * NET_MAC_BYTES] = (UINT8)(*protocol >> 8);
        buffer[2 * NET_MAC_BYTES + 1] = (UINT8)*protocol;
    }
    enum result result = net_send(network->net, buffer, bytes, buffer);
    if (result)
        return result == RESULT_BUSY ? EFI_NOT_READY : EFI_DEVICE_ERROR;
    if (net_untold(network->net) && !network->ticking) {
        network->ticking = !EFI_ERROR(bs->SetTimer(network->timer, TimerRelative, TICK_100NS));
        if (!network->ticking)
            net_tell(network->net);
    }
    count->TxTotalFrames++;
    count->TxGoodFrames++;
    count->TxTotalBytes += bytes;
    count_frame(buffer, &count->TxUnicastFrames, &count->TxBroadcastFrames,
                &count->TxMulticastFrames, mode);
    return EFI_SUCCESS;
}

static EFI_STATUS EFIAPI transmit(EFI_SIMPLE_NETWORK_PROTOCOL *this, UINTN header_bytes,
                                  UINTN bytes, void *buffer, EFI_MAC_ADDRESS *source,
                                  EFI_MAC_ADDRESS *destination, UINT16 *protocol)
{
    EFI_TPL tpl;

    EFI_STATUS status = enter(this, EfiSimpleNetworkInitialized, &tpl);
    if (EFI_ERROR(status))
        return status;
    status = send(network_of(this), header_bytes, bytes, buffer, source, destination, protocol);
    return leave(tpl, status);
}

static EFI_STATUS receive_one(struct simple_network *network, UINTN *header_bytes, UINTN *bytes,
                              UINT8 *buffer, EFI_MAC_ADDRESS *source, EFI_MAC_ADDRESS *destination,
                              UINT16 *protocol)
{
    EFI_NETWORK_STATISTICS *count = &network->statistics;
    const UINT8 *frame;
    size_t length;

    if (!bytes || !buffer)
        return EFI_INVALID_PARAMETER;
    enum result result = next_frame(network, &frame, &length);
    if (result)
        return result == RESULT_BUSY ? EFI_NOT_READY : EFI_DEVICE_ERROR;
    bool fits = *bytes >= length;
    *bytes = length;
    if (!fits)
        return EFI_BUFFER_TOO_SMALL; /* and the frame is there next time */

    /* Everything else is read from the copy: the device could still write to the frame (C9). */
    __builtin_memcpy(buffer, frame, length);
    net_release(network->net);
    if (header_bytes)
        *header_bytes = NET_HEADER_BYTES;
    if (destination)
        __builtin_memcpy(destination, buffer, NET_MAC_BYTES);
    if (source)
        __builtin_memcpy(source, buffer + NET_MAC_BYTES, NET_MAC_BYTES);
    if (protocol)
        *protocol = (UINT16)(buffer[2 * NET_MAC_BYTES] << 8 | buffer[2 * NET_MAC_BYTES + 1]);
    count->RxTotalFrames++;
    count->RxGoodFrames++;
    count->RxTotalBytes += length;
    count_frame(buffer, &count->RxUnicastFrames, &count->RxBroadcastFrames,
                &count->RxMulticastFrames, &network->mode);
    return EFI_SUCCESS;
}

static EFI_STATUS EFIAPI receive(EFI_SIMPLE_NETWORK_PROTOCOL *this, UINTN *header_bytes,
                                 UINTN *bytes, void *buffer, EFI_MAC_ADDRESS *source,
                                 EFI_MAC_ADDRESS *destination, UINT16 *protocol)
{
    EFI_TPL tpl;

    EFI_STATUS status = enter(this, EfiSimpleNetworkInitialized, &tpl);
    if (EFI_ERROR(status))
        return status;
    status =
        receive_one(network_of(this), header_bytes, bytes, buffer, source, destination, protocol);
    return leave(tpl, status);
}

/* ---- Coming and going ---- */

EFI_STATUS simple_network_init(struct simple_network *network, struct net *net)
{
    *network = (struct simple_network){
        .snp =
            {
                .Revision = EFI_SIMPLE_NETWORK_PROTOCOL_REVISION,
                .Start = start,
                .Stop = stop,
                .Initialize = initialize,
                .Reset = reset,
                .Shutdown = shutdown,
                .ReceiveFilters = receive_filters,
                .StationAddress = station_address,
                .Statistics = statistics,
                .MCastIpToMac = group_of_ip,
                .NvData = nv_data,
                .GetStatus = get_status,
                .Transmit = transmit,
                .Receive = receive,
                .Mode = &network->mode,
            },
        .mode =
            {
                .State = EfiSimpleNetworkStopped,
                .HwAddressSize = NET_MAC_BYTES,
                .MediaHeaderSize = NET_HEADER_BYTES,
                .MaxPacketSize = net->mtu,
                .ReceiveFilterMask = FILTERS,
                .MaxMCastFilterCount = MAX_MCAST_FILTER_CNT,
                .IfType = ETHERNET,
                .MacAddressChangeable = TRUE,
                .MultipleTxSupported = TRUE,
                .MediaPresentSupported = net->link_known,
                .MediaPresent = net->link_up,
            },
        .net = net,
    };
    __builtin_memcpy(&network->mode.PermanentAddress, net->mac, NET_MAC_BYTES);
    network->mode.CurrentAddress = network->mode.PermanentAddress;
    __builtin_memset(&network->mode.BroadcastAddress, 0xff, NET_MAC_BYTES);
    EFI_STATUS status =
        bs->CreateEvent(EVT_TIMER | EVT_NOTIFY_SIGNAL, TPL_NOTIFY, tick, network, &network->timer);
    if (EFI_ERROR(status))
        return status;
    status = bs->CreateEvent(EVT_NOTIFY_WAIT, TPL_NOTIFY, signal_if_received, network,
                             &network->snp.WaitForPacket);
    if (EFI_ERROR(status))
        bs->CloseEvent(network->timer);
    return status;
}

void simple_network_finish(struct simple_network *network)
{
    bs->CloseEvent(network->snp.WaitForPacket);
    bs->CloseEvent(network->timer);
}
