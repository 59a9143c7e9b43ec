// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "uefi/scsi_pass_thru.h"
#include "uefi/log.h"

static EFI_GUID ext_scsi_pass_thru_guid = EFI_EXT_SCSI_PASS_THRU_PROTOCOL_GUID;

/* A device that answers at once is given as long to do so when there is an event to be signalled.
 * After that, somebody has to look: the timer, and the firmware's ticks may be 10 ms apart. */
#define AT_ONCE_US 200u

/* A command on its way. */
struct pass_thru {
    struct scsi_request request;
    struct scsi_pass_thru *owner;
    EFI_EXT_SCSI_PASS_THRU_SCSI_REQUEST_PACKET *packet;
    EFI_EVENT event; /* NULL for a call that waits */
    volatile bool done;
    struct pass_thru *next; /* of the spare ones */
};

static struct scsi_pass_thru *of(EFI_EXT_SCSI_PASS_THRU_PROTOCOL *this)
{
    return CONTAINER_OF(this, struct scsi_pass_thru, protocol);
}

static void poll(void *scsi)
{
    scsi_poll(scsi);
}

static bool ready(const void *scsi)
{
    return scsi_ready(scsi);
}

static const struct waiting_ops while_it_works = {.poll = poll, .ready = ready};

/* ---- Targets ---- */

static bool first_target(const UINT8 *target)
{
    for (unsigned i = 0; i < TARGET_MAX_BYTES; i++)
        if (target[i] != 0xff)
            return false;
    return true;
}

/* Whether target and unit can be: whether they are there, only they can say. */
static bool unit_of(const struct scsi_pass_thru *pass, const UINT8 *target, UINT64 lun,
                    struct scan_unit *unit)
{
    for (unsigned i = 1; i < TARGET_MAX_BYTES; i++)
        if (target[i] != 0)
            return false;
    if (target[0] > pass->scsi->max_target || lun > pass->scsi->max_lun)
        return false;
    *unit = (struct scan_unit){target[0], (uint16_t)lun};
    return true;
}

static void put_target(UINT8 *target, uint8_t number)
{
    bs->SetMem(target, TARGET_MAX_BYTES, 0);
    target[0] = number;
}

/* ---- Commands ---- */

/*
 * What the specification's two bytes say of how far a command got, and what the call returns. For a
 * command with an event, the bytes are all that its caller learns: edk2's disk driver takes OTHER
 * for success, and at BUS_FREE and PHASE_ERROR it resets the whole channel. What is neither of the
 * specific cases is therefore MESSAGE_REJECT, which it takes for a failure of this command.
 */
static EFI_STATUS status_of_host(enum scsi_host host,
                                 EFI_EXT_SCSI_PASS_THRU_SCSI_REQUEST_PACKET *packet)
{
    static const struct {
        EFI_STATUS status;
        UINT8 host, target;
    } names[] = {
        [SCSI_HOST_OK] = {EFI_SUCCESS, EFI_EXT_SCSI_STATUS_HOST_ADAPTER_OK, 0},
        [SCSI_HOST_OVERRUN] = {EFI_DEVICE_ERROR,
                               EFI_EXT_SCSI_STATUS_HOST_ADAPTER_DATA_OVERRUN_UNDERRUN, 0},
        [SCSI_HOST_ABORTED] = {EFI_DEVICE_ERROR, EFI_EXT_SCSI_STATUS_HOST_ADAPTER_BUS_RESET,
                               EFI_EXT_SCSI_STATUS_TARGET_TASK_ABORTED},
        [SCSI_HOST_NO_TARGET] = {EFI_TIMEOUT, EFI_EXT_SCSI_STATUS_HOST_ADAPTER_SELECTION_TIMEOUT,
                                 0},
        [SCSI_HOST_RESET] = {EFI_DEVICE_ERROR, EFI_EXT_SCSI_STATUS_HOST_ADAPTER_BUS_RESET, 0},
        [SCSI_HOST_BUSY] = {EFI_NOT_READY, EFI_EXT_SCSI_STATUS_HOST_ADAPTER_OK,
                            EFI_EXT_SCSI_STATUS_TARGET_BUSY},
        [SCSI_HOST_TRANSPORT] = {EFI_DEVICE_ERROR, EFI_EXT_SCSI_STATUS_HOST_ADAPTER_MESSAGE_REJECT,
                                 0},
        [SCSI_HOST_TARGET] = {EFI_DEVICE_ERROR, EFI_EXT_SCSI_STATUS_HOST_ADAPTER_MESSAGE_REJECT, 0},
        [SCSI_HOST_NEXUS] = {EFI_DEVICE_ERROR, EFI_EXT_SCSI_STATUS_HOST_ADAPTER_MESSAGE_REJECT, 0},
        [SCSI_HOST_FAILURE] = {EFI_DEVICE_ERROR, EFI_EXT_SCSI_STATUS_HOST_ADAPTER_MESSAGE_REJECT,
                               0},
    };

    packet->HostAdapterStatus = names[host].host;
    packet->TargetStatus = names[host].target;
    return names[host].status;
}

/* Puts what became of a command into its packet. */
static EFI_STATUS answer(const struct scsi_request *request, enum result result,
                         EFI_EXT_SCSI_PASS_THRU_SCSI_REQUEST_PACKET *packet)
{
    bool answered =
        result == RESULT_OK || request->host != SCSI_HOST_OK || request->status != SCSI_GOOD;
    EFI_STATUS status = status_of_host(request->host, packet);
    size_t length = 0;

    switch (result) {
    case RESULT_OUT_OF_RANGE:
    case RESULT_UNSUPPORTED:
        return status_of(result); /* not sent: nothing to be told */
    case RESULT_TIMEOUT:
        packet->HostAdapterStatus = EFI_EXT_SCSI_STATUS_HOST_ADAPTER_TIMEOUT_COMMAND;
        status = EFI_TIMEOUT;
        answered = false;
        break;
    case RESULT_NO_MEMORY:
        packet->HostAdapterStatus = EFI_EXT_SCSI_STATUS_HOST_ADAPTER_MESSAGE_REJECT;
        status = request->most != 0 ? EFI_BAD_BUFFER_SIZE : EFI_DEVICE_ERROR;
        length = request->most;
        answered = false;
        break;
    case RESULT_ABORTED:
        answered = false;
        break;
    default:
        break;
    }
    if (answered && request->host == SCSI_HOST_OK) {
        packet->TargetStatus = request->status;
        length = request->transferred;
    } else if (!answered && !EFI_ERROR(status)) {
        /* The device has been reset, or has let go of everything for the exit. */
        packet->HostAdapterStatus = EFI_EXT_SCSI_STATUS_HOST_ADAPTER_BUS_RESET;
        status = EFI_DEVICE_ERROR;
    }
    /* Where nothing was transferred, and not all is well, the length stays the caller's: whoever
     * tries again with what is left of it must not try with nothing, and take that for success. */
    if (length != 0 || (status == EFI_SUCCESS && request->status == SCSI_GOOD)) {
        if (request->direction == DMA_FROM_DEVICE)
            packet->InTransferLength = (UINT32)length;
        else
            packet->OutTransferLength = (UINT32)length;
    }
    packet->SenseDataLength = (UINT8)(answered ? request->sense_bytes : 0);
    return status;
}

static void done(struct io_request *base)
{
    struct pass_thru *entry = CONTAINER_OF(base, struct pass_thru, request.base);

    entry->done = true;
    if (!entry->event)
        return; /* somebody is waiting for `done` */
    answer(&entry->request, base->result, entry->packet);
    bs->SignalEvent(entry->event);
    entry->owner->waiting.tokens--;
    entry->next = entry->owner->spare;
    entry->owner->spare = entry;
}

/* At TPL_NOTIFY. There are as many as ever were in use at a time. */
static struct pass_thru *take_entry(struct scsi_pass_thru *pass)
{
    struct pass_thru *entry = pass->spare;

    if (entry)
        pass->spare = entry->next;
    else if (EFI_ERROR(bs->AllocatePool(EfiBootServicesData, sizeof(*entry), (void **)&entry)))
        return NULL;
    return entry;
}

/* Waits for one answer of the device, for a moment. */
static void wait_at_once(struct scsi_pass_thru *pass)
{
    uint64_t deadline = clock_ticks() + AT_ONCE_US * exit_shared->ticks_per_ms / 1000;

    while (!scsi_ready(pass->scsi) && !deadline_passed(deadline))
        continue;
    waiting_poll(&pass->waiting);
}

static EFI_STATUS with_event(struct scsi_pass_thru *pass, const struct pass_thru *what)
{
    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    struct pass_thru *entry = take_entry(pass);
    EFI_STATUS status = EFI_NOT_READY; /* too many for the memory that there is */

    if (entry) {
        *entry = *what;
        pass->waiting.tokens++;
        enum result result = scsi_submit(pass->scsi, &entry->request);
        status = EFI_SUCCESS;
        if (result) {
            status = answer(&entry->request, result, entry->packet);
            pass->waiting.tokens--;
            entry->next = pass->spare;
            pass->spare = entry;
        }
        waiting_tick(&pass->waiting);
    }
    /* Before others get a chance to stop the driver while we are in it. */
    pass->waiting.calls++;
    bs->RestoreTPL(tpl);
    if (!EFI_ERROR(status))
        wait_at_once(pass);
    pass->waiting.calls--;
    return status;
}

static EFI_STATUS and_wait(struct scsi_pass_thru *pass, struct pass_thru *entry)
{
    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    enum result result = scsi_submit(pass->scsi, &entry->request);
    /* Before others get a chance to stop the driver while we are in it. */
    pass->waiting.calls++;
    bs->RestoreTPL(tpl);
    if (!result) {
        waiting_until(&pass->waiting, &entry->done);
        result = entry->request.base.result;
    }
    pass->waiting.calls--;
    return answer(&entry->request, result, entry->packet);
}

static uint32_t ms_of(UINT64 timeout)
{
    if (timeout / 10000 >= UINT32_MAX)
        return UINT32_MAX;
    return (uint32_t)(timeout / 10000 + (timeout % 10000 != 0));
}

static EFI_STATUS EFIAPI pass_thru(EFI_EXT_SCSI_PASS_THRU_PROTOCOL *this, UINT8 *target, UINT64 lun,
                                   EFI_EXT_SCSI_PASS_THRU_SCSI_REQUEST_PACKET *packet,
                                   EFI_EVENT event)
{
    struct scsi_pass_thru *pass = of(this);
    struct scan_unit unit;

    if (!target || !packet || !unit_of(pass, target, lun, &unit) || !packet->Cdb ||
        packet->CdbLength == 0 ||
        packet->DataDirection > EFI_EXT_SCSI_DATA_DIRECTION_BIDIRECTIONAL ||
        (packet->SenseDataLength != 0 && !packet->SenseData))
        return EFI_INVALID_PARAMETER;
    if (packet->CdbLength > SCSI_CDB_BYTES ||
        packet->DataDirection == EFI_EXT_SCSI_DATA_DIRECTION_BIDIRECTIONAL)
        return EFI_UNSUPPORTED;
    bool read = packet->DataDirection == EFI_EXT_SCSI_DATA_DIRECTION_READ;
    void *buffer = read ? packet->InDataBuffer : packet->OutDataBuffer;
    UINT32 bytes = read ? packet->InTransferLength : packet->OutTransferLength;
    if (bytes != 0 && !buffer)
        return EFI_INVALID_PARAMETER;

    struct pass_thru what = {
        .request =
            {
                .base =
                    {
                        .buffer = buffer,
                        .bytes = bytes,
                        .timeout_ms = ms_of(packet->Timeout),
                        .done = done,
                    },
                .direction = read ? DMA_FROM_DEVICE : DMA_TO_DEVICE,
                .target = unit.target,
                .lun = unit.lun,
                .cdb_bytes = packet->CdbLength,
                .sense = packet->SenseData,
                .sense_room = packet->SenseDataLength,
            },
        .owner = pass,
        .packet = packet,
        .event = event,
    };
    bs->CopyMem(what.request.cdb, packet->Cdb, packet->CdbLength);
    return event ? with_event(pass, &what) : and_wait(pass, &what);
}

/* ---- Resets ---- */

/* A device that has failed could never be stopped, if its drivers could not reset it any more.
 * Nothing is in flight, which is what they want. */
static EFI_STATUS status_of_reset(const struct scsi_pass_thru *pass, enum result result)
{
    return pass->stopping ? EFI_SUCCESS : status_of(result);
}

static EFI_STATUS EFIAPI reset_channel(EFI_EXT_SCSI_PASS_THRU_PROTOCOL *this)
{
    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    enum result result = scsi_restart(of(this)->scsi, RESULT_ABORTED);
    bs->RestoreTPL(tpl);
    return status_of_reset(of(this), result);
}

static EFI_STATUS EFIAPI reset_target_lun(EFI_EXT_SCSI_PASS_THRU_PROTOCOL *this, UINT8 *target,
                                          UINT64 lun)
{
    struct scan_unit unit;

    if (!target || !unit_of(of(this), target, lun, &unit))
        return EFI_INVALID_PARAMETER;
    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    enum result result = scsi_reset_unit(of(this)->scsi, unit.target, unit.lun);
    bs->RestoreTPL(tpl);
    return status_of_reset(of(this), result);
}

/* ---- What there is ---- */

static enum result submit_probe(void *context, struct scsi_request *request)
{
    struct scsi_pass_thru *pass = context;
    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    enum result result = scsi_submit(pass->scsi, request);
    bs->RestoreTPL(tpl);
    return result;
}

static void wait_for_probes(void *context)
{
    waiting_turn(&((struct scsi_pass_thru *)context)->waiting, NULL);
}

/* Asks all targets. What was known before is forgotten only when there is something to take its
 * place. Somebody else may be in the middle of the same. */
static EFI_STATUS find_units(struct scsi_pass_thru *pass)
{
    struct scan_unit *units = NULL;
    struct scan *found;

    EFI_STATUS status = bs->AllocatePool(EfiBootServicesData, sizeof(*found), (void **)&found);
    if (EFI_ERROR(status))
        return status;
    found->context = pass;
    found->submit = submit_probe;
    found->wait = wait_for_probes;
    found->ticks_per_ms = exit_shared->ticks_per_ms;
    found->max_target = pass->scsi->max_target;
    found->max_lun = pass->scsi->max_lun;
    pass->waiting.calls++;
    scan(found);
    pass->waiting.calls--;
    if (found->more)
        log_line(L"SCSI", "there are more logical units than can be listed; listed:", found->count);

    size_t bytes = (found->count + 1) * sizeof(*units);
    status = bs->AllocatePool(EfiBootServicesData, bytes, (void **)&units);
    if (!EFI_ERROR(status)) {
        bs->CopyMem(units, found->units, found->count * sizeof(*units));
        EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
        struct scan_unit *before = pass->units;
        pass->units = units;
        pass->unit_count = found->count;
        bs->RestoreTPL(tpl);
        if (before)
            bs->FreePool(before);
    }
    /* A device that has not let go may still write into it (C5). */
    if (pass->scsi->requests.device.exit.state != VIRTIO_STUCK)
        bs->FreePool(found);
    return status;
}

/* The first unit after the given one, or of another target than its. */
static EFI_STATUS next_unit(struct scsi_pass_thru *pass, const UINT8 *target, UINT64 lun,
                            bool other_target, struct scan_unit *next)
{
    struct scan_unit unit;
    size_t at = 0;

    if (first_target(target)) {
        EFI_STATUS status = find_units(pass);
        if (EFI_ERROR(status))
            return EFI_NOT_FOUND;
    } else if (!unit_of(pass, target, lun, &unit)) {
        return EFI_INVALID_PARAMETER;
    }

    EFI_TPL tpl = bs->RaiseTPL(TPL_NOTIFY);
    EFI_STATUS status = EFI_SUCCESS;
    if (!first_target(target)) {
        bool known = false;
        for (; at < pass->unit_count && pass->units[at].target <= unit.target; at++) {
            if (pass->units[at].target != unit.target)
                continue;
            if (!other_target && pass->units[at].lun > unit.lun)
                break;
            known |= other_target || pass->units[at].lun == unit.lun;
        }
        if (!known)
            status = EFI_INVALID_PARAMETER;
    }
    if (!EFI_ERROR(status) && at == pass->unit_count)
        status = EFI_NOT_FOUND;
    if (!EFI_ERROR(status))
        *next = pass->units[at];
    bs->RestoreTPL(tpl);
    return status;
}

static EFI_STATUS EFIAPI get_next_target_lun(EFI_EXT_SCSI_PASS_THRU_PROTOCOL *this, UINT8 **target,
                                             UINT64 *lun)
{
    struct scan_unit next;

    if (!target || !*target || !lun)
        return EFI_INVALID_PARAMETER;
    EFI_STATUS status = next_unit(of(this), *target, *lun, false, &next);
    if (EFI_ERROR(status))
        return status;
    put_target(*target, next.target);
    *lun = next.lun;
    return EFI_SUCCESS;
}

static EFI_STATUS EFIAPI get_next_target(EFI_EXT_SCSI_PASS_THRU_PROTOCOL *this, UINT8 **target)
{
    struct scan_unit next;

    if (!target || !*target)
        return EFI_INVALID_PARAMETER;
    EFI_STATUS status = next_unit(of(this), *target, 0, true, &next);
    if (!EFI_ERROR(status))
        put_target(*target, next.target);
    return status;
}

/* ---- Device paths ---- */

static EFI_STATUS EFIAPI build_device_path(EFI_EXT_SCSI_PASS_THRU_PROTOCOL *this, UINT8 *target,
                                           UINT64 lun, EFI_DEVICE_PATH **path)
{
    SCSI_DEVICE_PATH *node;
    struct scan_unit unit;

    if (!target || !path)
        return EFI_INVALID_PARAMETER;
    if (!unit_of(of(this), target, lun, &unit))
        return EFI_NOT_FOUND;
    EFI_STATUS status = bs->AllocatePool(EfiBootServicesData, sizeof(*node), (void **)&node);
    if (EFI_ERROR(status))
        return status;
    *node = (SCSI_DEVICE_PATH){
        .Header = {MESSAGING_DEVICE_PATH, MSG_SCSI_DP, {sizeof(*node), 0}},
        .Pun = unit.target,
        .Lun = unit.lun,
    };
    *path = &node->Header;
    return EFI_SUCCESS;
}

static EFI_STATUS EFIAPI get_target_lun(EFI_EXT_SCSI_PASS_THRU_PROTOCOL *this,
                                        EFI_DEVICE_PATH *path, UINT8 **target, UINT64 *lun)
{
    const struct scsi *scsi = of(this)->scsi;
    SCSI_DEVICE_PATH node;

    if (!path || !target || !*target || !lun)
        return EFI_INVALID_PARAMETER;
    if (path->Type != MESSAGING_DEVICE_PATH || path->SubType != MSG_SCSI_DP ||
        path->Length[0] != sizeof(node) || path->Length[1] != 0)
        return EFI_UNSUPPORTED;
    bs->CopyMem(&node, path, sizeof(node)); /* it may lie anywhere */
    if (node.Pun > scsi->max_target || node.Lun > scsi->max_lun)
        return EFI_NOT_FOUND;
    put_target(*target, (uint8_t)node.Pun);
    *lun = node.Lun;
    return EFI_SUCCESS;
}

/* ---- Install and remove ---- */

EFI_STATUS scsi_pass_thru_install(struct scsi_pass_thru *pass, struct scsi *scsi, EFI_HANDLE handle)
{
    *pass = (struct scsi_pass_thru){
        .protocol =
            {
                .Mode = &pass->mode,
                .PassThru = pass_thru,
                .GetNextTargetLun = get_next_target_lun,
                .BuildDevicePath = build_device_path,
                .GetTargetLun = get_target_lun,
                .ResetChannel = reset_channel,
                .ResetTargetLun = reset_target_lun,
                .GetNextTarget = get_next_target,
            },
        .mode =
            {
                .AdapterId = UINT32_MAX, /* it is no target of its own */
                .Attributes = EFI_EXT_SCSI_PASS_THRU_ATTRIBUTES_PHYSICAL |
                              EFI_EXT_SCSI_PASS_THRU_ATTRIBUTES_LOGICAL |
                              EFI_EXT_SCSI_PASS_THRU_ATTRIBUTES_NONBLOCKIO,
                .IoAlign = 0, /* any buffer will do */
            },
        .scsi = scsi,
        .handle = handle,
    };
    EFI_STATUS status = waiting_open(&pass->waiting, &while_it_works, scsi);
    if (EFI_ERROR(status))
        return status;
    status = bs->InstallMultipleProtocolInterfaces(&pass->handle, &ext_scsi_pass_thru_guid,
                                                   &pass->protocol, NULL);
    if (EFI_ERROR(status))
        waiting_close(&pass->waiting);
    return status;
}

EFI_STATUS scsi_pass_thru_remove(struct scsi_pass_thru *pass)
{
    if (pass->waiting.calls)
        return EFI_ACCESS_DENIED;
    pass->stopping = true;
    EFI_STATUS status = bs->UninstallMultipleProtocolInterfaces(
        pass->handle, &ext_scsi_pass_thru_guid, &pass->protocol, NULL);
    pass->stopping = false;
    if (!EFI_ERROR(status))
        return EFI_SUCCESS;
    /* What stood above it may have been taken down in part before it was refused. */
    bs->ConnectController(pass->handle, NULL, NULL, TRUE);
    return EFI_ACCESS_DENIED;
}

void scsi_pass_thru_finish(struct scsi_pass_thru *pass)
{
    waiting_close(&pass->waiting);
    while (pass->spare) {
        struct pass_thru *next = pass->spare->next;
        bs->FreePool(pass->spare);
        pass->spare = next;
    }
    if (pass->units)
        bs->FreePool(pass->units);
}
