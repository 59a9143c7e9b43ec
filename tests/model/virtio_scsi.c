// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "tests/model/virtio_scsi.h"
#include "tests/model/virtio_kind.h"

#include <stdlib.h>
#include <string.h>

#include <linux/virtio_config.h>
#include <linux/virtio_scsi.h>

#define FUZZED_BLOCKS 64u /* enough for who only wants to see what happens */

struct vscsi_adapter vscsi;

static unsigned char *disk;
static size_t disk_bytes;
static struct vscsi_counts counts;
static unsigned lists_in_flight;
static uint32_t cdb_size, sense_size;

struct command {
    bool control;
    bool troubled;
    bool given_up;
    uint8_t given_up_by; /* response */
    struct virtio_scsi_cmd_req request;
    struct virtio_scsi_ctrl_tmf_req tmf;
    uint8_t target;
    uint16_t lun;
    struct command *next;
};
static struct command *commands; /* in flight, not answered */

static void plug(void)
{
    disk_bytes = (vdev_now()->fuzz ? FUZZED_BLOCKS : VSCSI_BLOCKS) * 512u;
    disk = malloc(disk_bytes);
    if (!disk)
        abort();
    for (size_t i = 0; i < disk_bytes; i++)
        disk[i] = (unsigned char)(i / 512 * 7 + i * 13);
    memset(&counts, 0, sizeof(counts));
    lists_in_flight = 0;
    commands = NULL;
    cdb_size = vscsi.cdb_size;
    sense_size = vscsi.sense_size;
}

static void unplug(void)
{
    free(disk);
    disk = NULL;
}

unsigned char *vscsi_disk(void)
{
    return disk;
}

size_t vscsi_disk_bytes(void)
{
    return disk_bytes;
}

const struct vscsi_counts *vscsi_counted(void)
{
    return &counts;
}

/* ---- Configuration (§5.6.4) ---- */

static uint32_t config_read(uint64_t offset, unsigned bytes)
{
    switch (offset) {
    case offsetof(struct virtio_scsi_config, num_queues):
        return vdev_config_field(offset, bytes, 4, -1, vscsi.num_queues);
    case offsetof(struct virtio_scsi_config, seg_max):
        return vdev_config_field(offset, bytes, 4, -1, vscsi.seg_max);
    case offsetof(struct virtio_scsi_config, max_sectors):
        return vdev_config_field(offset, bytes, 4, -1, vscsi.max_sectors);
    case offsetof(struct virtio_scsi_config, cmd_per_lun):
        return vdev_config_field(offset, bytes, 4, -1, vscsi.cmd_per_lun);
    case offsetof(struct virtio_scsi_config, sense_size):
        return vdev_config_field(offset, bytes, 4, -1, sense_size);
    case offsetof(struct virtio_scsi_config, cdb_size):
        return vdev_config_field(offset, bytes, 4, -1, cdb_size);
    case offsetof(struct virtio_scsi_config, max_target):
        return vdev_config_field(offset, bytes, 2, -1, vscsi.max_target);
    case offsetof(struct virtio_scsi_config, max_lun):
        return vdev_config_field(offset, bytes, 4, -1, vscsi.max_lun);
    default:
        vdev_breach("read of configuration %#llx", (unsigned long long)offset);
        return 0;
    }
}

static void config_write(uint64_t offset, unsigned bytes, uint32_t value)
{
    if (bytes != 4)
        vdev_breach("a write of %u bytes to configuration", bytes);
    if (vscsi.size_fixed)
        return;
    if (offset == offsetof(struct virtio_scsi_config, cdb_size))
        cdb_size = value;
    else if (offset == offsetof(struct virtio_scsi_config, sense_size))
        sense_size = value;
    else
        vdev_breach("a write to configuration %#llx", (unsigned long long)offset);
}

/* ---- Units ---- */

struct vscsi_unit *vscsi_add(uint8_t target, uint16_t lun)
{
    struct vscsi_unit *unit = &vscsi.units[vscsi.unit_count++];

    *unit = (struct vscsi_unit){.target = target, .lun = lun, .block_size = 512, .version = 5};
    return unit;
}

static const struct vscsi_unit *find(uint8_t target, int lun)
{
    for (unsigned i = 0; i < vscsi.unit_count; i++)
        if (vscsi.units[i].target == target && (lun < 0 || vscsi.units[i].lun == lun))
            return &vscsi.units[i];
    return NULL;
}

/* §5.6.6.1: the only form that there is. */
static void parse_lun(const uint8_t *bytes, uint8_t *target, uint16_t *lun)
{
    bool flat = bytes[2] >> 6 == 1;

    if (bytes[0] != 1 || (bytes[2] != 0 && !flat) || bytes[4] || bytes[5] || bytes[6] || bytes[7])
        vdev_breach("a logical unit %02x %02x %02x %02x", bytes[0], bytes[1], bytes[2], bytes[3]);
    *target = bytes[1];
    *lun = (uint16_t)((bytes[2] & 0x3f) << 8 | bytes[3]);
    if (flat && *lun < 256)
        vdev_breach("unit %u in the flat form", *lun);
    if (*target > vscsi.max_target || *lun > vscsi.max_lun)
        vdev_breach("target %u, unit %u", *target, *lun);
}

/* ---- Requests ---- */

static bool in_trouble(const struct command *command)
{
    struct vscsi_trouble *trouble = &vscsi.trouble;

    if (trouble->times == 0 ||
        (trouble->operation != VSCSI_ANY && trouble->operation != command->request.cdb[0]))
        return false;
    if (trouble->after != 0) {
        trouble->after--;
        return false;
    }
    trouble->times--;
    counts.troubled++;
    return true;
}

static bool accept(struct vdev_chain *chain)
{
    struct command *command;

    if (chain->queue == VSCSI_EVENT_QUEUE) {
        vdev_breach("a buffer for events");
        return false;
    }
    bool control = chain->queue == VSCSI_CONTROL_QUEUE;
    size_t least = control ? sizeof(command->tmf) : sizeof(command->request);
    size_t answer =
        control ? sizeof(struct virtio_scsi_ctrl_tmf_resp) : sizeof(struct virtio_scsi_cmd_resp);
    if (chain->readable < least || chain->writable < answer) {
        vdev_breach("a request of %llu and %llu bytes", (unsigned long long)chain->readable,
                    (unsigned long long)chain->writable);
        return false;
    }
    chain->own = command = calloc(1, sizeof(*command));
    if (!command)
        abort();
    command->control = control;
    if (control) {
        vdev_copy(chain, false, 0, &command->tmf, sizeof(command->tmf));
        parse_lun(command->tmf.lun, &command->target, &command->lun);
        if (command->tmf.type != VIRTIO_SCSI_T_TMF)
            vdev_breach("a control request of type %u", command->tmf.type);
        return true;
    }
    vdev_copy(chain, false, 0, &command->request, sizeof(command->request));
    parse_lun(command->request.lun, &command->target, &command->lun);
    if (command->request.task_attr != VIRTIO_SCSI_S_SIMPLE || command->request.prio != 0 ||
        command->request.crn != 0)
        vdev_breach("an attribute of %u", command->request.task_attr);
    uint64_t out = chain->readable - least, in = chain->writable - answer;
    if (out != 0 && in != 0)
        vdev_breach("data in both directions");
    if (vscsi.max_sectors != 0 && (out + in + 511) / 512 > vscsi.max_sectors)
        vdev_breach("%llu bytes of data", (unsigned long long)(out + in));
    unsigned of_unit = 1;
    for (const struct command *other = commands; other; other = other->next) {
        if (other->request.tag == command->request.tag)
            vdev_breach("two commands with tag %llu", (unsigned long long)other->request.tag);
        of_unit += other->target == command->target && other->lun == command->lun;
    }
    if (vscsi.cmd_per_lun != 0 && of_unit > vscsi.cmd_per_lun)
        vdev_breach("%u commands of a unit", of_unit);
    command->troubled = in_trouble(command);
    command->next = commands;
    commands = command;
    counts.commands++;
    if (out + in > counts.largest)
        counts.largest = (uint32_t)(out + in);
    if (command->request.cdb[0] == 0xa0 && ++lists_in_flight > counts.most_at_once)
        counts.most_at_once = lists_in_flight;
    return true;
}

static void leave(struct command *command)
{
    for (struct command **link = &commands; *link; link = &(*link)->next)
        if (*link == command) {
            *link = command->next;
            if (command->request.cdb[0] == 0xa0)
                lists_in_flight--;
            break;
        }
}

static void forget(struct vdev_chain *chain)
{
    struct command *command = chain->own;

    if (command)
        leave(command);
    free(command);
}

static bool is_transfer(const struct command *command)
{
    uint8_t code = command->request.cdb[0];
    return code == 0x08 || code == 0x0a || code == 0x28 || code == 0x2a || code == 0xa8 ||
           code == 0xaa || code == 0x88 || code == 0x8a;
}

static bool concerned(const struct command *command)
{
    return is_transfer(command) && (vscsi.only_target < 0 || command->target == vscsi.only_target);
}

static bool ready(const struct vdev_chain *chain)
{
    const struct command *command = chain->own;

    if (command->control)
        return !vscsi.control_deaf;
    if (command->given_up)
        return true;
    return command->troubled ? !vscsi.trouble.mute : !(vscsi.deaf && concerned(command));
}

/* ---- Doing what is asked ---- */

static uint64_t be(const uint8_t *from, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | from[i];
    return value;
}

static void put_be(uint8_t *to, unsigned bytes, uint64_t value)
{
    for (unsigned i = bytes; i-- > 0; value >>= 8)
        to[i] = (uint8_t)value;
}

struct answer {
    struct virtio_scsi_cmd_resp response;
    uint64_t moved; /* bytes of data */
};

static void refuse(struct answer *answer, uint8_t status, uint8_t key, uint16_t code)
{
    answer->response.status = status;
    if (status != 2)
        return;
    for (unsigned i = 0; i < vscsi.sense_bytes && i < sizeof(answer->response.sense); i++)
        answer->response.sense[i] = (uint8_t)i;
    answer->response.sense[0] = vscsi.descriptors ? 0x72 : 0x70;
    answer->response.sense[vscsi.descriptors ? 1 : 2] = key;
    put_be(answer->response.sense + (vscsi.descriptors ? 2 : 12), 2, code);
    answer->response.sense_len = vscsi.sense_bytes;
}

/* Answers with data made here. */
static void send(const struct vdev_chain *chain, struct answer *answer, void *data, uint64_t bytes)
{
    uint64_t room = chain->writable - sizeof(answer->response);

    if (bytes > room)
        bytes = room;
    if (vdev_now()->fuzz && bytes != 0) /* almost what it should be */
        for (uint32_t wrong = vdev_chance() % 4; wrong > 0; wrong--)
            ((uint8_t *)data)[vdev_chance() % bytes] = (uint8_t)vdev_chance();
    vdev_copy(chain, true, sizeof(answer->response), data, bytes);
    answer->moved = bytes;
}

static void report_luns(const struct vdev_chain *chain, const struct command *command,
                        struct answer *answer)
{
    static uint8_t list[8 + 8 * (3 * VSCSI_UNITS_MAX + 2 + 16384)];
    size_t at = 8, allocation = (size_t)be(command->request.cdb + 6, 4);

    memset(list, 0, sizeof(list[0]) * 8 * (3 * VSCSI_UNITS_MAX + 3));
    for (unsigned i = 0; i < vscsi.unit_count; i++) {
        if (vscsi.units[i].target != command->target)
            continue;
        unsigned times = vdev_lie(chain, LIE_SCSI_LIST_REPEATS) ? 3 : 1;
        while (times-- > 0 && at + 8 <= sizeof(list)) {
            list[at] = (uint8_t)(vscsi.units[i].lun < 256 ? 0 : 0x40 | vscsi.units[i].lun >> 8);
            list[at + 1] = (uint8_t)vscsi.units[i].lun;
            if (vdev_lie(chain, LIE_SCSI_LIST_METHODS))
                list[at] |= (uint8_t)(i % 2 ? 0xc0 : 0x80);
            at += 8;
        }
    }
    if (vdev_lie(chain, LIE_SCSI_LIST_METHODS)) {
        list[at] = 3; /* of another bus */
        at += 8;
        list[at + 2] = 1; /* of another level */
        at += 8;
    }
    if (vdev_lie(chain, LIE_SCSI_LIST_HUGE))
        for (unsigned lun = 0; lun <= 16383; lun++, at += 8) {
            list[at] = (uint8_t)(0x40 | lun >> 8);
            list[at + 1] = (uint8_t)lun;
        }
    put_be(list, 4, at - 8);
    if (vdev_lie(chain, LIE_SCSI_LIST_LENGTH))
        put_be(list, 4, 0xfffffff0);
    if (vdev_lie(chain, LIE_SCSI_LIST_GARBAGE))
        for (size_t i = 0; i < at; i++)
            list[i] = (uint8_t)vdev_chance();
    send(chain, answer, list, at < allocation ? at : allocation);
}

static void transfer(const struct vdev_chain *chain, const struct command *command,
                     const struct vscsi_unit *unit, struct answer *answer)
{
    const uint8_t *cdb = command->request.cdb;
    uint64_t lba, blocks, bytes;
    bool write = (cdb[0] & 0x0f) == 0x0a;
    uint64_t out = chain->readable - sizeof(command->request);
    uint64_t in = chain->writable - sizeof(answer->response);

    switch (cdb[0] >> 5) {
    case 0:
        lba = be(cdb + 1, 3) & 0x1fffff;
        blocks = cdb[4] ? cdb[4] : 256;
        break;
    case 1:
        lba = be(cdb + 2, 4);
        blocks = be(cdb + 7, 2);
        break;
    case 5:
        lba = be(cdb + 2, 4);
        blocks = be(cdb + 6, 4);
        break;
    default:
        lba = be(cdb + 2, 8);
        blocks = be(cdb + 10, 4);
        break;
    }
    bytes = blocks * unit->block_size;
    if (bytes != (write ? out : in)) {
        answer->response.response = VIRTIO_SCSI_S_OVERRUN;
        return;
    }
    if (lba < unit->window || lba - unit->window > disk_bytes / unit->block_size ||
        blocks > disk_bytes / unit->block_size - (lba - unit->window)) {
        refuse(answer, 2, 5, 0x2100);
        return;
    }
    lba -= unit->window;
    if (write && unit->read_only) {
        refuse(answer, 2, 7, 0x2700);
        return;
    }
    if (vscsi.bad_block >= lba && vscsi.bad_block < lba + blocks) {
        bytes = (vscsi.bad_block - lba) * unit->block_size;
        refuse(answer, 2, 3, 0x1100);
    }
    bytes -= vscsi.short_by < bytes ? vscsi.short_by : bytes;
    if (vdev_lie(chain, LIE_SCSI_GOOD_FOR_NOTHING))
        bytes = 0;
    unsigned char *at = disk + lba * unit->block_size;
    if (write)
        vdev_copy(chain, false, sizeof(command->request), at, bytes);
    else
        vdev_copy(chain, true, sizeof(answer->response), at, bytes);
    answer->moved = bytes;
}

/* ---- What it is ---- */

static void put_text(uint8_t *to, unsigned bytes, const char *text)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (uint8_t)(text && *text ? *text++ : ' ');
}

static void answer_inquiry(const struct vdev_chain *chain, const struct command *command,
                           const struct vscsi_unit *unit, struct answer *answer)
{
    uint8_t data[36] = {0, 0, 5, 2, 31};
    uint64_t room = be(command->request.cdb + 3, 2);

    if (!unit || unit->absent) {
        data[0] = 0x7f;
    } else {
        data[1] = unit->removable ? 0x80 : 0;
        data[2] = unit->version;
        put_text(data + 8, 8, unit->vendor);
        put_text(data + 16, 16, unit->product);
    }
    send(chain, answer, data, room < sizeof(data) ? room : sizeof(data));
}

static void read_capacity(const struct vdev_chain *chain, const struct command *command,
                          const struct vscsi_unit *unit, struct answer *answer)
{
    uint64_t blocks = unit->blocks ? unit->blocks : disk_bytes / unit->block_size;
    uint8_t data[32] = {0};

    if (command->request.cdb[0] == 0x25) {
        put_be(data, 4, blocks - 1 < UINT32_MAX ? blocks - 1 : UINT32_MAX);
        put_be(data + 4, 4, unit->block_size);
        send(chain, answer, data, 8);
        return;
    }
    uint64_t room = be(command->request.cdb + 10, 4);
    put_be(data, 8, blocks - 1);
    put_be(data + 8, 4, unit->block_size);
    data[13] = unit->physical;
    put_be(data + 14, 2, 0xc000u | unit->aligned); /* it can be provisioned thinly, too */
    send(chain, answer, data, room < sizeof(data) ? room : sizeof(data));
}

static void mode_sense(const struct vdev_chain *chain, const struct command *command,
                       const struct vscsi_unit *unit, struct answer *answer)
{
    uint8_t data[8 + 8 + 12 + 20 + 24] = {0};
    bool descriptor = !(command->request.cdb[1] & 0x08);
    uint64_t at = descriptor ? 16 : 8, room = be(command->request.cdb + 7, 2);

    if (command->request.cdb[2] != 0x3f) {
        refuse(answer, 2, 5, 0x2400);
        return;
    }
    data[3] = unit->read_only ? 0x90 : 0x10;
    data[7] = descriptor ? 8 : 0;
    data[at] = 0x81; /* errors; this page can be saved */
    data[at + 1] = 10;
    at += 12;
    data[at] = 0x04;
    data[at + 1] = 22;
    put_be(data + at + 2, 3, unit->cylinders);
    data[at + 5] = unit->heads;
    at += 24;
    data[at] = 0x08;
    data[at + 1] = 18;
    data[at + 2] = unit->write_through ? 0 : 0x04;
    at += 20;
    put_be(data, 2, at - 2);
    send(chain, answer, data, room < at ? room : at);
}

/* ---- Any command ---- */

static void perform(const struct vdev_chain *chain, const struct command *command,
                    struct answer *answer)
{
    const uint8_t *cdb = command->request.cdb;
    const struct vscsi_unit *unit = find(command->target, command->lun);

    if (command->given_up) {
        answer->response.response = command->given_up_by;
        return;
    }
    if (concerned(command) && vscsi.response != 0) {
        answer->response.response = vscsi.response;
        return;
    }
    /* A target answers some questions for units that it does not have. */
    if (!find(command->target, -1)) {
        answer->response.response = VIRTIO_SCSI_S_BAD_TARGET;
        return;
    }
    if (unit && unit->status != 0) {
        refuse(answer, unit->status, 2, 0);
        return;
    }
    if (command->troubled) {
        answer->response.response = vscsi.trouble.response;
        if (vscsi.trouble.response == 0)
            refuse(answer, vscsi.trouble.status, vscsi.trouble.key, vscsi.trouble.code);
        return;
    }
    for (size_t i = 0; i < sizeof(vscsi.words) / sizeof(vscsi.words[0]); i++)
        if (vscsi.words[i].used && vscsi.words[i].operation == cdb[0]) {
            send(chain, answer, vscsi.words[i].bytes, vscsi.words[i].count);
            return;
        }
    switch (cdb[0]) {
    case 0x12:
        answer_inquiry(chain, command, unit, answer);
        return;
    case 0xa0:
        if (unit && unit->old)
            refuse(answer, 2, 5, 0x2000);
        else
            report_luns(chain, command, answer);
        return;
    default:
        break;
    }
    if (!unit || unit->absent)
        answer->response.response = VIRTIO_SCSI_S_BAD_TARGET;
    else if (is_transfer(command))
        transfer(chain, command, unit, answer);
    else if (cdb[0] == 0x25 || (cdb[0] == 0x9e && (cdb[1] & 0x1f) == 0x10))
        read_capacity(chain, command, unit, answer);
    else if (cdb[0] == 0x5a)
        mode_sense(chain, command, unit, answer);
    else if (cdb[0] == 0x35)
        counts.flushes++;
    else if (cdb[0] != 0) /* TEST UNIT READY */
        refuse(answer, 2, 5, 0x2000);
}

static uint32_t serve_command(struct vdev_chain *chain, struct command *command)
{
    struct answer answer = {0};
    uint64_t wanted =
        chain->readable - sizeof(command->request) + chain->writable - sizeof(answer.response);

    if (vdev_fault())
        answer.response.response = VIRTIO_SCSI_S_FAILURE;
    else
        perform(chain, command, &answer);
    answer.response.resid = (uint32_t)(wanted - answer.moved);
    if (vdev_lie(chain, LIE_SCSI_UNKNOWN))
        answer.response.response = 0x77;
    if (vdev_lie(chain, LIE_SCSI_RESIDUAL))
        answer.response.resid = (uint32_t)wanted + 1;
    if (vdev_lie(chain, LIE_SCSI_SENSE)) {
        answer.response.status = 2;
        answer.response.sense_len = 97;
    }
    if (vdev_now()->fuzz) { /* anything */
        uint32_t chance = vdev_chance();
        if (chance % 4 == 0) {
            answer.response.resid = vdev_chance();
            answer.response.sense_len = vdev_chance() % 128;
            answer.response.sense[chance >> 24 & 15] = (uint8_t)vdev_chance();
            answer.response.status = (uint8_t)(chance >> 8);
            answer.response.response = (uint8_t)(chance >> 16 & 15);
        }
    }
    if (!vdev_lie(chain, LIE_SCSI_NOT_WRITTEN))
        vdev_copy(chain, true, 0, &answer.response, sizeof(answer.response));
    leave(command);
    if (vdev_lie(chain, LIE_SCSI_CARELESS))
        return (uint32_t)(sizeof(answer.response) + wanted);
    return (uint32_t)(sizeof(answer.response) +
                      (chain->writable > sizeof(answer.response) ? answer.moved : 0));
}

static uint32_t serve_control(struct vdev_chain *chain, const struct command *control)
{
    bool abort_one = control->tmf.subtype == VIRTIO_SCSI_T_TMF_ABORT_TASK;
    struct virtio_scsi_ctrl_tmf_resp response = {VIRTIO_SCSI_S_OK};

    if (abort_one)
        counts.aborts++;
    else if (control->tmf.subtype == VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET)
        counts.unit_resets++;
    else
        vdev_breach("task management of kind %u", control->tmf.subtype);
    if (vscsi.control_refuses || vdev_fault())
        response.response = VIRTIO_SCSI_S_FUNCTION_REJECTED;
    else if (!find(control->target, -1))
        response.response = VIRTIO_SCSI_S_BAD_TARGET;
    else if (!find(control->target, control->lun))
        response.response = VIRTIO_SCSI_S_INCORRECT_LUN;
    else if (!vscsi.control_forgets)
        for (struct command *command = commands; command; command = command->next)
            if (command->target == control->target && command->lun == control->lun &&
                (!abort_one || command->request.tag == control->tmf.tag)) {
                command->given_up = true;
                command->given_up_by = abort_one ? VIRTIO_SCSI_S_ABORTED : VIRTIO_SCSI_S_RESET;
            }
    if (vdev_now()->fuzz)
        response.response = (uint8_t)(vdev_chance() % 16);
    vdev_copy(chain, true, 0, &response, sizeof(response));
    return sizeof(response);
}

static uint32_t serve(struct vdev_chain *chain)
{
    struct command *command = chain->own;
    return command->control ? serve_control(chain, command) : serve_command(chain, command);
}

/* ---- The kind ---- */

const struct vdev_kind vscsi_kind = {
    .name = "virtio-scsi",
    .device_id = 0x1048,
    .transitional_id = 0x1004,
    .queues = 3,
    .config_bytes = 36,
    .features = VDEV_FEATURE(VIRTIO_SCSI_F_HOTPLUG) | VDEV_FEATURE(VIRTIO_SCSI_F_CHANGE),
    .lies = LIE_SCSI_END - LIE_OF_KIND,
    .plug = plug,
    .unplug = unplug,
    .config_read = config_read,
    .config_write = config_write,
    .accept = accept,
    .ready = ready,
    .serve = serve,
    .forget = forget,
};

struct vdev_options vscsi_usual(void)
{
    vscsi = (struct vscsi_adapter){
        .num_queues = 1,
        .seg_max = 254,
        .max_sectors = 65535,
        .cmd_per_lun = 128,
        .sense_size = 96,
        .cdb_size = 32,
        .max_target = 255,
        .max_lun = 16383,
        .only_target = -1,
        .sense_bytes = 18,
        .bad_block = UINT64_MAX,
    };
    vscsi_add(0, 0);
    return vdev_usual(&vscsi_kind);
}
