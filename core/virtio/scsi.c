// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "core/virtio/scsi.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <linux/virtio_scsi.h>

/* Queues (§5.6.2). */
#define CONTROL_QUEUE 0u
#define REQUEST_QUEUE 2u

/* Each slot's own shared memory: the request, and the response where it is aligned. */
#define RESPONSE_AT 64u
#define SLOT_BYTES  (RESPONSE_AT + 112u)
_Static_assert(sizeof(struct virtio_scsi_cmd_req) <= RESPONSE_AT &&
                   sizeof(struct virtio_scsi_cmd_resp) <= SLOT_BYTES - RESPONSE_AT,
               "both fit");
_Static_assert(VIRTIO_SCSI_CDB_DEFAULT_SIZE == SCSI_CDB_BYTES &&
                   VIRTIO_SCSI_SENSE_DEFAULT_SIZE == SCSI_SENSE_BYTES,
               "the sizes that a reset device has");
#define CHAIN 3u /* request, data, response */

/* What the control queue has behind its ring, and how much memory it starts on (legacy). */
#define CONTROL_RESPONSE_AT 32u
#define CONTROL_BYTES       64u
#define CONTROL_ALIGN       4096u

#define SECTOR               512u
#define RESPONSE_NOT_WRITTEN 0xff

static struct scsi *scsi_of(struct requests *requests)
{
    return (struct scsi *)(void *)((char *)requests - offsetof(struct scsi, requests));
}

static void scsi_log(const struct scsi *scsi, const char *sentence, uint64_t number)
{
    scsi->requests.device.rich->log(scsi->requests.device.rich->context, sentence, number);
}

/* ---- Coming up ---- */

static uint32_t config32(const struct scsi *scsi, size_t offset)
{
    return virtio_config32(&scsi->requests.device, offset);
}

/* All of these are hints or limits that do not change (§5.6.4). */
static enum result read_config(struct scsi *scsi)
{
    const struct virtio_device *device = &scsi->requests.device;
    uint64_t sectors = config32(scsi, offsetof(struct virtio_scsi_config, max_sectors));

    /* Nothing beyond the window may be written to, later (C9). */
    if (device->config.bytes < offsetof(struct virtio_scsi_config, cdb_size) + sizeof(uint32_t) ||
        config32(scsi, offsetof(struct virtio_scsi_config, num_queues)) == 0) {
        scsi_log(scsi, "the device has no request queue; configuration bytes",
                 device->config.bytes);
        return RESULT_UNSUPPORTED;
    }
    /* What is mapped is one segment: any seg_max will do. */
    scsi->most_bytes = UINT32_MAX / 2;
    if (sectors != 0 && sectors * SECTOR < scsi->most_bytes)
        scsi->most_bytes = (size_t)(sectors * SECTOR);
    scsi->commands_per_unit = config32(scsi, offsetof(struct virtio_scsi_config, cmd_per_lun));
    /* A limit that is never reached need not be looked at for each command. */
    if (scsi->commands_per_unit >= RING_SLOTS_MAX)
        scsi->commands_per_unit = 0;
    scsi->max_target = virtio_config16(device, offsetof(struct virtio_scsi_config, max_target));
    if (scsi->max_target > SCSI_TARGET_MAX)
        scsi->max_target = SCSI_TARGET_MAX;
    scsi->max_lun = config32(scsi, offsetof(struct virtio_scsi_config, max_lun));
    if (scsi->max_lun > SCSI_LUN_MAX)
        scsi->max_lun = SCSI_LUN_MAX;
    return RESULT_OK;
}

static enum result plan(struct scsi *scsi, size_t *memory_bytes)
{
    struct virtio_device *device = &scsi->requests.device;
    uint16_t control = virtio_queue_size(device, CONTROL_QUEUE);

    scsi->requests.segment_bytes = UINT32_MAX;
    enum result result =
        requests_plan(&scsi->requests, REQUEST_QUEUE, virtio_queue_size(device, REQUEST_QUEUE),
                      CHAIN, SLOT_BYTES, memory_bytes);
    if (result)
        return result;
    /* One request at a time; where we have a say, there is room for no more. */
    if (device->modern && control > 2)
        control = 2;
    if (ring_plan(&scsi->control, control, 2, device->features, device->modern)) {
        scsi_log(scsi, "commands cannot be given up singly; the control queue's size is", control);
        scsi->control.size = 0;
        return RESULT_OK;
    }
    scsi->control_at = (*memory_bytes + CONTROL_ALIGN - 1) & ~(size_t)(CONTROL_ALIGN - 1);
    *memory_bytes = scsi->control_at + ring_bytes(&scsi->control) + CONTROL_BYTES;
    return RESULT_OK;
}

static const struct requests_ops scsi_requests;

enum result scsi_attach(struct scsi *scsi, const struct rich_door *rich,
                        const struct pci_function *where, size_t *memory_bytes)
{
    *scsi = (struct scsi){0};

    enum result result = requests_attach(&scsi->requests, &scsi_requests, rich, where,
                                         VIRTIO_FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |
                                             VIRTIO_FEATURE(VIRTIO_RING_F_EVENT_IDX));
    if (!result)
        result = read_config(scsi);
    if (!result)
        result = plan(scsi, memory_bytes);
    if (result)
        virtio_down(&scsi->requests.device, VIRTIO_RESET_MS, 0);
    return result;
}

/* The sizes of a request's and a response's last field, which a reset has set to their defaults. */
static enum result check_size(const struct scsi *scsi, size_t offset, uint32_t bytes)
{
    if (config32(scsi, offset) != bytes)
        reg_write32(&scsi->requests.device.config, offset, bytes);
    if (config32(scsi, offset) == bytes)
        return RESULT_OK;
    scsi_log(scsi, "the device insists on a size of CDBs or sense data, of bytes",
             config32(scsi, offset));
    return RESULT_UNSUPPORTED;
}

/* What there is besides the request queue, before the device may begin. */
static enum result start(struct requests *requests)
{
    struct scsi *scsi = scsi_of(requests);
    enum result result =
        check_size(scsi, offsetof(struct virtio_scsi_config, cdb_size), SCSI_CDB_BYTES);

    if (!result)
        result =
            check_size(scsi, offsetof(struct virtio_scsi_config, sense_size), SCSI_SENSE_BYTES);
    if (result || scsi->control.size == 0)
        return result;
    ring_init(&scsi->control, &scsi->control_memory);
    return virtio_queue_start(&requests->device, CONTROL_QUEUE, &scsi->control);
}

enum result scsi_start(struct scsi *scsi, const struct dma_block *memory)
{
    scsi->control_memory = (struct dma_block){
        .cpu = (unsigned char *)memory->cpu + scsi->control_at,
        .address = memory->address + scsi->control_at,
        .bytes = memory->bytes - scsi->control_at,
    };
    return requests_start(&scsi->requests, memory);
}

/* ---- Commands on their way to the device ---- */

/* §5.6.6.1: one level, in eight bytes; numbers that need it in the flat form. */
static void put_lun(uint8_t *bytes, uint8_t target, uint16_t lun)
{
    bytes[0] = 1;
    bytes[1] = target;
    bytes[2] = (uint8_t)(lun < 256 ? 0 : 0x40 | lun >> 8);
    bytes[3] = (uint8_t)lun;
    __builtin_memset(bytes + 4, 0, 4);
}

static bool is_for(const struct io_request *base, uint8_t target, uint16_t lun)
{
    const struct scsi_request *request = (const struct scsi_request *)(const void *)base;
    return request->target == target && request->lun == lun;
}

/* How many parts of commands a unit has in flight. */
static unsigned in_flight(const struct scsi *scsi, uint8_t target, uint16_t lun)
{
    const struct pieces *pieces = &scsi->requests.pieces;
    unsigned count = 0;

    for (unsigned i = 0; i < pieces->count; i++)
        count += pieces->busy >> i & 1 && is_for(pieces->at[i].request, target, lun);
    return count;
}

static void send(struct scsi *scsi, unsigned slot, struct scsi_request *request, size_t bytes)
{
    struct requests *requests = &scsi->requests;
    uint64_t address;
    unsigned char *own = requests_own(requests, slot, &address);
    struct virtio_scsi_cmd_req *command = (struct virtio_scsi_cmd_req *)(void *)own;
    struct virtio_scsi_cmd_resp *response =
        (struct virtio_scsi_cmd_resp *)(void *)(own + RESPONSE_AT);
    bool read = request->direction == DMA_FROM_DEVICE;
    struct vring_desc *desc = ring_descriptors(&requests->ring, slot);
    unsigned count = 0;

    *command = (struct virtio_scsi_cmd_req){
        .tag = slot, /* of all that are in flight, nothing else has it */
        .task_attr = VIRTIO_SCSI_S_SIMPLE,
    };
    put_lun(command->lun, request->target, request->lun);
    __builtin_memcpy(command->cdb, request->cdb, request->cdb_bytes);
    if (bytes < request->base.bytes)
        cdb_part(command->cdb, request->base.issued / request->block,
                 (uint32_t)(bytes / request->block));
    response->response = RESPONSE_NOT_WRITTEN;
    scsi->slots[slot] = (struct scsi_slot){.offset = request->base.issued};

    count += ring_describe(&desc[count], address, sizeof(*command), 0);
    if (!read)
        count += requests_describe(requests, slot, &desc[count], 0);
    count +=
        ring_describe(&desc[count], address + RESPONSE_AT, sizeof(*response), VRING_DESC_F_WRITE);
    if (read)
        count += requests_describe(requests, slot, &desc[count], VRING_DESC_F_WRITE);
    requests_send(requests, slot, &request->base, (uint32_t)bytes, count);
}

static enum post post(struct requests *requests, struct io_request *base)
{
    struct scsi *scsi = scsi_of(requests);
    struct scsi_request *request = scsi_request_of(base);
    size_t bytes = 0;
    unsigned slot;

    if (!ring_free_slot(&requests->ring, &slot) ||
        (scsi->commands_per_unit != 0 &&
         in_flight(scsi, request->target, request->lun) >= scsi->commands_per_unit))
        return POST_LATER;
    requests->mappings[slot].bytes = 0;
    if (base->bytes != 0) {
        size_t most = request->block != 0 && scsi->most_bytes > REQUESTS_PIECE_MAX
                          ? REQUESTS_PIECE_MAX
                          : scsi->most_bytes;
        bytes = requests_map(requests, slot, base, request->direction,
                             request->block ? request->block : base->bytes, most);
        if (bytes == 0) {
            request->most = requests->mappings[slot].bytes;
            return POST_NEVER;
        }
    }
    send(scsi, slot, request, bytes);
    return POSTED;
}

enum result scsi_submit(struct scsi *scsi, struct scsi_request *request)
{
    request->base.alone = false;
    request->host = SCSI_HOST_OK;
    request->status = SCSI_GOOD;
    request->sense_bytes = 0;
    request->transferred = request->base.bytes;
    request->most = 0;
    request->told_at = SIZE_MAX;
    if (request->target > scsi->max_target || request->lun > scsi->max_lun ||
        request->cdb_bytes == 0 || request->cdb_bytes > SCSI_CDB_BYTES)
        return RESULT_OUT_OF_RANGE;
    request->block =
        cdb_block(request->cdb, request->cdb_bytes, request->direction, request->base.bytes);
    if (request->base.bytes > scsi->most_bytes &&
        (request->block == 0 || request->block > scsi->most_bytes)) {
        request->most = scsi->most_bytes;
        return RESULT_NO_MEMORY;
    }
    return requests_submit(&scsi->requests, &request->base);
}

/* ---- And on their way back ---- */

/* The first part that did not go well tells what became of the command. */
static void tell(struct scsi_request *request, size_t offset,
                 const struct virtio_scsi_cmd_resp *response)
{
    if (offset >= request->told_at)
        return;
    request->told_at = offset;
    request->host = response->response <= VIRTIO_SCSI_S_FAILURE         ? response->response
                    : response->response == VIRTIO_SCSI_S_INCORRECT_LUN ? SCSI_HOST_NO_TARGET
                                                                        : SCSI_HOST_FAILURE;
    request->status = request->host == SCSI_HOST_OK ? response->status : SCSI_GOOD;
    request->sense_bytes =
        response->sense_len < request->sense_room ? response->sense_len : request->sense_room;
    if (request->sense_bytes != 0)
        __builtin_memcpy(request->sense, response->sense, request->sense_bytes);
}
_Static_assert((int)SCSI_HOST_OVERRUN == VIRTIO_SCSI_S_OVERRUN &&
                   (int)SCSI_HOST_ABORTED == VIRTIO_SCSI_S_ABORTED &&
                   (int)SCSI_HOST_NO_TARGET == VIRTIO_SCSI_S_BAD_TARGET &&
                   (int)SCSI_HOST_RESET == VIRTIO_SCSI_S_RESET &&
                   (int)SCSI_HOST_BUSY == VIRTIO_SCSI_S_BUSY &&
                   (int)SCSI_HOST_TRANSPORT == VIRTIO_SCSI_S_TRANSPORT_FAILURE &&
                   (int)SCSI_HOST_TARGET == VIRTIO_SCSI_S_TARGET_FAILURE &&
                   (int)SCSI_HOST_NEXUS == VIRTIO_SCSI_S_NEXUS_FAILURE &&
                   (int)SCSI_HOST_FAILURE == VIRTIO_SCSI_S_FAILURE,
               "one is the other");

static bool collect(struct requests *requests, unsigned slot, uint32_t written, enum result *result)
{
    struct scsi *scsi = scsi_of(requests);
    const struct piece *piece = &requests->pieces.at[slot];
    struct scsi_request *request = scsi_request_of(piece->request);
    struct virtio_scsi_cmd_resp response;

    /* Anything less is common, also data that was read from us: devices have always been careless
     * with this field, and QEMU is. */
    if (written > sizeof(response) + piece->bytes) {
        scsi_log(scsi, "the device says that it wrote more than it was given room for; bytes",
                 written);
        return false;
    }
    /* Once, and into memory of ours (C9). */
    __builtin_memcpy(&response, (unsigned char *)requests_own(requests, slot, NULL) + RESPONSE_AT,
                     sizeof(response));
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (response.response == VIRTIO_SCSI_S_OK &&
        (response.resid > piece->bytes || response.sense_len > SCSI_SENSE_BYTES)) {
        scsi_log(scsi, "an answer that cannot be true; bytes not transferred", response.resid);
        response.response = VIRTIO_SCSI_S_FAILURE;
    }
    size_t moved = piece->bytes - response.resid;
    /* Less than a block, and all is well: whoever goes on from there would never get on. */
    if (response.response == VIRTIO_SCSI_S_OK && response.status == SCSI_GOOD &&
        moved < request->block)
        response.response = VIRTIO_SCSI_S_OVERRUN;
    /* Only what has reached its unit has moved anything, or has sense data. */
    if (response.response == VIRTIO_SCSI_S_OK)
        scsi->slots[slot].transferred = moved;
    else
        response.sense_len = 0;
    *result = RESULT_OK;
    if (response.response != VIRTIO_SCSI_S_OK || response.status != SCSI_GOOD) {
        tell(request, scsi->slots[slot].offset, &response);
        *result = RESULT_DEVICE_ERROR;
    }
    return true;
}

/* Data counts from the first byte on, up to the first that is missing. */
static void release(struct requests *requests, unsigned slot, enum result result)
{
    const struct scsi_slot *part = &scsi_of(requests)->slots[slot];
    const struct piece *piece = &requests->pieces.at[slot];
    struct scsi_request *request = scsi_request_of(piece->request);
    size_t end = part->offset + part->transferred;

    (void)result;
    if (part->transferred < piece->bytes && end < request->transferred)
        request->transferred = end;
}

/* ---- Task management (§5.6.6.2) ---- */

#define NO_ANSWER (-1)

/* Asks the device for something by the control queue, and takes in meanwhile what comes back in the
 * other. Gives its response, or NO_ANSWER: then only a reset of the device helps. */
static int manage(struct scsi *scsi, uint32_t what, uint8_t target, uint16_t lun, uint64_t tag,
                  uint64_t deadline)
{
    size_t at = ring_bytes(&scsi->control);
    unsigned char *own = (unsigned char *)scsi->control_memory.cpu + at;
    struct virtio_scsi_ctrl_tmf_req *request = (struct virtio_scsi_ctrl_tmf_req *)(void *)own;
    volatile uint8_t *response = own + CONTROL_RESPONSE_AT;
    uint64_t address = scsi->control_memory.address + at;
    enum ring_event event = RING_EMPTY;
    unsigned slot;
    uint32_t written;

    if (scsi->control.size == 0 || !ring_free_slot(&scsi->control, &slot))
        return NO_ANSWER;
    *request =
        (struct virtio_scsi_ctrl_tmf_req){.type = VIRTIO_SCSI_T_TMF, .subtype = what, .tag = tag};
    put_lun(request->lun, target, lun);
    *response = RESPONSE_NOT_WRITTEN;
    struct vring_desc *desc = ring_descriptors(&scsi->control, slot);
    ring_describe(&desc[0], address, sizeof(*request), 0);
    ring_describe(&desc[1], address + CONTROL_RESPONSE_AT, sizeof(struct virtio_scsi_ctrl_tmf_resp),
                  VRING_DESC_F_WRITE);
    ring_post(&scsi->control, slot, 2);
    ring_notify(&scsi->control);

    while (requests_take(&scsi->requests) && event == RING_EMPTY) {
        event = ring_take(&scsi->control, &slot, &written);
        if (event == RING_USED)
            return written <= 1 ? *response : NO_ANSWER;
        if (deadline_passed(deadline))
            break;
        cpu_relax();
    }
    return NO_ANSWER;
}

static bool complete(int response)
{
    return response == VIRTIO_SCSI_S_OK || response == VIRTIO_SCSI_S_FUNCTION_SUCCEEDED;
}

static bool abort_request(struct requests *requests, struct io_request *base)
{
    struct scsi *scsi = scsi_of(requests);
    const struct pieces *pieces = &requests->pieces;
    uint64_t deadline = deadline_in_ms(requests->device.rich, SCSI_CONTROL_MS);
    uint8_t target = scsi_request_of(base)->target;
    uint16_t lun = scsi_request_of(base)->lun;

    /* No more of it goes out; and this is what it ends with, whatever is still heard of it. Once it
     * is done, it is its owner's: from then on only its address is looked at. */
    base->result = RESULT_TIMEOUT;
    for (unsigned i = 0; i < pieces->count; i++) {
        if (!(pieces->busy >> i & 1) || pieces->at[i].request != base)
            continue;
        if (!complete(manage(scsi, VIRTIO_SCSI_T_TMF_ABORT_TASK, target, lun, i, deadline)))
            return false;
        /* The command itself comes back as well, perhaps a little later. */
        while (pieces->busy >> i & 1) {
            if (!requests_take(requests) || deadline_passed(deadline))
                return false;
            cpu_relax();
        }
    }
    return true;
}

static const struct requests_ops scsi_requests = {
    .post = post,
    .collect = collect,
    .release = release,
    .start = start,
    .abort = abort_request,
};

enum result scsi_reset_unit(struct scsi *scsi, uint8_t target, uint16_t lun)
{
    uint64_t deadline = deadline_in_ms(scsi->requests.device.rich, SCSI_CONTROL_MS);

    if (target > scsi->max_target || lun > scsi->max_lun)
        return RESULT_OUT_OF_RANGE;
    if (scsi->requests.device.exit.state != VIRTIO_LIVE)
        return RESULT_DEVICE_ERROR;
    int response = manage(scsi, VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET, target, lun, 0, deadline);
    if (response != NO_ANSWER && !complete(response))
        return RESULT_DEVICE_ERROR;

    bool sane = response != NO_ANSWER;
    while (sane && in_flight(scsi, target, lun) != 0) {
        sane = requests_take(&scsi->requests) && !deadline_passed(deadline);
        cpu_relax();
    }
    if (sane)
        return RESULT_OK;
    scsi_log(scsi,
             "no answer to the reset of a unit, for this many milliseconds:", SCSI_CONTROL_MS);
    scsi_restart(scsi, RESULT_ABORTED);
    return RESULT_TIMEOUT;
}

/* ---- The rest is the same for every kind of request ---- */

void scsi_poll(struct scsi *scsi)
{
    requests_poll(&scsi->requests);
}

bool scsi_ready(const struct scsi *scsi)
{
    return requests_ready(&scsi->requests);
}

enum result scsi_restart(struct scsi *scsi, enum result why)
{
    return requests_restart(&scsi->requests, why);
}

bool scsi_detach(struct scsi *scsi)
{
    return requests_detach(&scsi->requests);
}
