// SPDX-License-Identifier: BSD-2-Clause-Patent

#include "core/scsi_disk.h"

/* SBC-4 §5 */
#define READ_10              0x28
#define WRITE_10             0x2a
#define READ_16              0x88
#define WRITE_16             0x8a
#define SYNCHRONIZE_CACHE_10 0x35
#define BLOCKS_MOST          0xffffu /* of one command, also where its form would hold more */

/* SAM-5 §5.3 */
#define STATUS_BUSY          0x08
#define STATUS_TASK_SET_FULL 0x28

/* Sense keys, and additional codes with their qualifiers (SPC-5 §4.4). */
#define KEY_NOT_READY       0x2
#define KEY_ILLEGAL_REQUEST 0x5
#define KEY_UNIT_ATTENTION  0x6
#define KEY_DATA_PROTECT    0x7
#define ASC_BECOMING_READY  0x0401
#define ASC_NO_COMMAND      0x2000
#define ASC_OUT_OF_RANGE    0x2100
#define ASC_NO_MEDIUM       0x3a /* whatever the qualifier */

/* SPC-5 §6, SBC-4 §5: what there is to ask, how much room the answer has, and how much of it there
 * has to be. */
struct scsi_question {
    uint8_t cdb[16];
    uint8_t cdb_bytes, bytes, least;
};
static const struct scsi_question inquiry = {{0x12, [4] = 36}, 6, 36, 5};
static const struct scsi_question test_unit_ready = {{0x00}, 6, 0, 0};
static const struct scsi_question read_capacity_10 = {{0x25}, 10, 8, 8};
static const struct scsi_question read_capacity_16 = {{0x9e, 0x10, [13] = 32}, 16, 32, 16};
/* All pages, and no block descriptors before them. */
static const struct scsi_question mode_sense_10 = {{0x5a, 0x08, 0x3f, [8] = 255}, 10, 255, 8};

#define VERSION_SPC_3 5 /* from here on, a unit that does not know READ CAPACITY(16) says so */

/* SPC-5 §7.5, SBC-4 §6.5; the geometry's page is in no standard since SBC-2. */
#define PAGE_GEOMETRY 0x04
#define PAGE_CACHING  0x08
#define PAGE_SUBPAGE  0x40

static struct scsi_disk *scsi_disk_of(struct disk *disk)
{
    return (struct scsi_disk *)(void *)((char *)disk - offsetof(struct scsi_disk, disk));
}

static struct scsi_disk *scsi_disk_of_pieces(struct pieces *pieces)
{
    return (struct scsi_disk *)(void *)((char *)pieces - offsetof(struct scsi_disk, pieces));
}

static void disk_log(const struct scsi_disk *disk, const char *sentence, uint64_t number)
{
    disk->rich->log(disk->rich->context, sentence, number);
}

static uint32_t be16(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 8 | bytes[1];
}

static void put_be(uint8_t *to, size_t bytes, uint64_t value)
{
    for (size_t i = bytes; i-- > 0; value >>= 8)
        to[i] = (uint8_t)value;
}

/* ---- Commands on their way back ---- */

/* Key, code and qualifier, from the top down; 0 for none. */
static uint32_t sense_of(const struct scsi_request *request)
{
    const uint8_t *sense = request->sense;

    if (request->sense_bytes >= 14 && (sense[0] & 0x7e) == 0x70)
        return (sense[2] & 0xfu) << 16 | be16(sense + 12);
    if (request->sense_bytes >= 4 && (sense[0] & 0x7e) == 0x72)
        return (sense[1] & 0xfu) << 16 | be16(sense + 2);
    return 0;
}

/* What became of a command, and for how long it is worth sending again: 0 if it is not. */
static enum result judge(const struct scsi_request *request, uint32_t *retry_ms)
{
    uint32_t sense = sense_of(request), code = sense & 0xffff;

    *retry_ms = 0;
    if (request->base.result != RESULT_DEVICE_ERROR)
        return request->base.result;
    if (request->host == SCSI_HOST_BUSY || request->host == SCSI_HOST_RESET ||
        request->status == STATUS_BUSY || request->status == STATUS_TASK_SET_FULL) {
        *retry_ms = SCSI_DISK_RETRY_MS;
        return RESULT_BUSY;
    }
    if (request->host != SCSI_HOST_OK || request->status != SCSI_CHECK_CONDITION)
        return RESULT_DEVICE_ERROR;

    switch (sense >> 16) {
    case KEY_NOT_READY:
        if (code >> 8 == ASC_NO_MEDIUM)
            return RESULT_NO_MEDIA;
        if (code != ASC_BECOMING_READY)
            return RESULT_DEVICE_ERROR;
        *retry_ms = SCSI_DISK_START_MS;
        return RESULT_BUSY;
    case KEY_ILLEGAL_REQUEST:
        /* Who cannot flush has nothing to be flushed. */
        if (code == ASC_NO_COMMAND && request->cdb[0] == SYNCHRONIZE_CACHE_10)
            return RESULT_OK;
        return code == ASC_OUT_OF_RANGE ? RESULT_OUT_OF_RANGE : RESULT_DEVICE_ERROR;
    case KEY_UNIT_ATTENTION:
        *retry_ms = SCSI_DISK_RETRY_MS;
        return RESULT_DEVICE_ERROR;
    case KEY_DATA_PROTECT:
        return RESULT_WRITE_PROTECTED;
    default:
        return RESULT_DEVICE_ERROR;
    }
}

/* From anywhere in the adapter, which may not be entered again: so a command that is to be sent
 * again waits for the next poll. */
static void command_done(struct io_request *base)
{
    struct scsi_disk_command *command = (struct scsi_disk_command *)(void *)base;
    const struct scsi_request *request = &command->request;
    struct scsi_disk *disk = command->owner;
    unsigned number = (unsigned)(command - disk->commands);
    uint32_t retry_ms;
    enum result result = judge(request, &retry_ms);

    if (retry_ms != 0 && !deadline_passed(command->since + retry_ms * disk->rich->ticks_per_ms)) {
        command->again_at = deadline_in_ms(disk->rich, SCSI_DISK_AGAIN_MS);
        disk->again |= 1u << number;
        return;
    }
    disk->received = request->transferred;
    /* Answers may be short; data may not. */
    if (result == RESULT_OK && request->transferred < base->bytes &&
        disk->pieces.at[number].request != &disk->request.base)
        result = RESULT_DEVICE_ERROR;
    pieces_finish(&disk->pieces, number, result, true);
}

static void release(struct pieces *pieces, unsigned number, enum result result, bool let_go)
{
    (void)result;
    (void)let_go;
    scsi_disk_of_pieces(pieces)->again &= ~(1u << number);
}

/* ---- And on their way to the unit ---- */

static void send(struct scsi_disk *disk, unsigned number)
{
    enum result result =
        disk->adapter.submit(disk->adapter.context, &disk->commands[number].request);

    if (result)
        pieces_finish(&disk->pieces, number, result, true);
}

static void put_cdb(const struct scsi_disk *disk, struct scsi_request *command,
                    const struct disk_request *request)
{
    uint64_t lba = (request->sector >> (disk->block_shift - __builtin_ctz(DISK_SECTOR))) +
                   (request->base.issued >> disk->block_shift);
    size_t blocks = command->base.bytes >> disk->block_shift;
    uint8_t *cdb = command->cdb;

    command->cdb_bytes = 10;
    if (request == &disk->request) {
        command->cdb_bytes = disk->question->cdb_bytes;
        __builtin_memcpy(cdb, disk->question->cdb, sizeof(disk->question->cdb));
    } else if (request->op == DISK_FLUSH) {
        cdb[0] = SYNCHRONIZE_CACHE_10; /* no blocks from the first on: all of them */
    } else if (lba + blocks - 1 <= UINT32_MAX) {
        cdb[0] = request->op == DISK_READ ? READ_10 : WRITE_10;
        put_be(cdb + 2, 4, lba);
        put_be(cdb + 7, 2, blocks);
    } else {
        command->cdb_bytes = 16;
        cdb[0] = request->op == DISK_READ ? READ_16 : WRITE_16;
        put_be(cdb + 2, 8, lba);
        put_be(cdb + 10, 4, blocks);
    }
}

static enum post post(struct pieces *pieces, struct io_request *base)
{
    struct scsi_disk *disk = scsi_disk_of_pieces(pieces);
    const struct disk_request *request = disk_request_of(base);
    size_t bytes = base->bytes - base->issued;
    unsigned number;

    if (request->op == DISK_FLUSH && !disk->disk.info.write_cache)
        return POSTED;
    if (!pieces_free(pieces, &number))
        return POST_LATER;
    if (bytes > (size_t)BLOCKS_MOST << disk->block_shift)
        bytes = (size_t)BLOCKS_MOST << disk->block_shift;

    struct scsi_disk_command *command = &disk->commands[number];
    *command = (struct scsi_disk_command){
        .request =
            {
                .base =
                    {
                        .buffer = bytes ? (uint8_t *)base->buffer + base->issued : NULL,
                        .bytes = bytes,
                        .timeout_ms = base->timeout_ms,
                        .done = command_done,
                    },
                .direction = request->op == DISK_READ ? DMA_FROM_DEVICE : DMA_TO_DEVICE,
                .target = disk->target,
                .lun = disk->lun,
                .sense = command->sense,
                .sense_room = sizeof(command->sense),
            },
        .owner = disk,
        .since = clock_ticks(),
    };
    put_cdb(disk, &command->request, request);
    pieces_begin(pieces, number, base, (uint32_t)bytes);
    send(disk, number);
    return POSTED;
}

static const struct pieces_ops pieces_ops = {.post = post, .release = release};

static enum result scsi_disk_submit(struct disk *base, struct disk_request *request)
{
    struct scsi_disk *disk = scsi_disk_of(base);
    enum result result = disk_check(&base->info, request);

    if (result)
        return result;
    pieces_submit(&disk->pieces, &request->base);
    pieces_issue(&disk->pieces);
    return RESULT_OK;
}

static void scsi_disk_poll(struct disk *base)
{
    struct scsi_disk *disk = scsi_disk_of(base);

    disk->adapter.poll(disk->adapter.context);
    for (unsigned i = 0; i < SCSI_DISK_COMMANDS; i++)
        if (disk->again >> i & 1 && deadline_passed(disk->commands[i].again_at)) {
            disk->again &= ~(1u << i);
            send(disk, i);
        }
    pieces_issue(&disk->pieces);
}

/* What a poll of another disk has finished may have left room here. */
static bool scsi_disk_ready(const struct disk *base)
{
    const struct scsi_disk *disk =
        (const struct scsi_disk *)(const void *)((const char *)base -
                                                 offsetof(struct scsi_disk, disk));

    return disk->adapter.ready(disk->adapter.context) || disk->again != 0 ||
           (disk->pieces.pending && disk->pieces.busy == 0);
}

static enum result scsi_disk_restart(struct disk *base, enum result why)
{
    struct scsi_disk *disk = scsi_disk_of(base);
    enum result result = disk->adapter.restart(disk->adapter.context, why);

    /* What the adapter did not have. */
    pieces_fail(&disk->pieces, why, true);
    return result;
}

static const struct disk_ops scsi_disk_ops = {
    .submit = scsi_disk_submit,
    .poll = scsi_disk_poll,
    .ready = scsi_disk_ready,
    .restart = scsi_disk_restart,
};

/* ---- Coming up ---- */

static void answered(struct io_request *base)
{
    struct disk_request *request = disk_request_of(base);
    ((struct scsi_disk *)(void *)((char *)request - offsetof(struct scsi_disk, request)))->over =
        true;
}

/* The answer is in disk->data; what it does not say is zero, whatever a mapping left there. */
static enum result ask(struct scsi_disk *disk, const struct scsi_question *question)
{
    disk->question = question;
    if (deadline_passed(disk->deadline))
        return RESULT_TIMEOUT;
    disk->over = false;
    disk->request = (struct disk_request){
        .base = {.buffer = disk->data,
                 .bytes = question->bytes,
                 .timeout_ms = SCSI_DISK_ASK_MS,
                 .done = answered},
        .op = DISK_READ,
    };
    pieces_submit(&disk->pieces, &disk->request.base);
    pieces_issue(&disk->pieces);
    while (!disk->over) {
        scsi_disk_poll(&disk->disk);
        cpu_relax();
    }
    if (disk->request.base.result)
        return disk->request.base.result;
    __builtin_memset(disk->data + disk->received, 0, sizeof(disk->data) - disk->received);
    return disk->received < question->least ? RESULT_DEVICE_ERROR : RESULT_OK;
}

/* No blank at the beginning, and not two in a row; and what cannot be printed is one. */
static size_t add_to_name(char *name, size_t at, uint8_t byte)
{
    if (byte <= ' ' || byte > '~') {
        if (at == 0 || name[at - 1] == ' ')
            return at;
        byte = ' ';
    }
    name[at] = (char)byte;
    return at + 1;
}

static enum result identify(struct scsi_disk *disk, uint8_t *version, bool *qemu)
{
    const uint8_t *data = disk->data;
    enum result result = ask(disk, &inquiry);
    size_t at = 0;

    if (result)
        return result;
    /* A qualifier of 0, for connected, and the type of a disk. */
    if (data[0] != 0)
        return RESULT_UNSUPPORTED;
    disk->disk.info.removable = data[1] & 0x80;
    *version = data[2];
    *qemu = scsi_be32(data + 8) == 0x51454d55 && scsi_be32(data + 12) == 0x20202020;
    for (unsigned i = 8; i < 32; i++) {
        if (i == 16)
            at = add_to_name(disk->name, at, ' ');
        at = add_to_name(disk->name, at, data[i]);
    }
    if (at != 0 && disk->name[at - 1] == ' ')
        at--;
    disk->name[at] = '\0';
    return RESULT_OK;
}

static enum result measure(struct scsi_disk *disk, uint8_t version)
{
    struct disk_info *info = &disk->disk.info;
    const uint8_t *data = disk->data;
    enum result result = ask(disk, &read_capacity_10);
    uint64_t last = scsi_be32(data);
    uint32_t block_size = scsi_be32(data + 4);
    bool too_long = last == UINT32_MAX;

    info->blocks_per_physical = 1;
    if (!result && (too_long || version >= VERSION_SPC_3)) {
        enum result more = ask(disk, &read_capacity_16);
        if (!more) {
            last = (uint64_t)scsi_be32(data) << 32 | scsi_be32(data + 4);
            block_size = scsi_be32(data + 8);
            info->blocks_per_physical = 1u << (data[13] & 0xf);
            info->lowest_aligned_block = be16(data + 14) & 0x3fff;
        } else if (too_long) {
            result = more;
        }
    }
    if (result)
        return result;
    if (!disk_block_size(block_size)) {
        disk_log(disk, "the block size is not a power of two from 512 to 65536:", block_size);
        return RESULT_UNSUPPORTED;
    }
    disk->block_shift = (unsigned)__builtin_ctz(block_size);
    if (last >= UINT64_MAX >> disk->block_shift) {
        disk_log(disk, "there cannot be so many bytes; the last block is", last);
        return RESULT_DEVICE_ERROR;
    }
    info->block_size = block_size;
    info->blocks = last + 1;
    return RESULT_OK;
}

/* As SeaBIOS does, so that a disk is the same under either: the page is believed where it comes
 * from QEMU, which is told what to say, and where it comes out even. */
static void read_geometry(struct scsi_disk *disk, uint32_t cylinders, uint32_t heads)
{
    uint32_t tracks = cylinders * heads, blocks = (uint32_t)disk->disk.info.blocks;

    if (tracks != 0 && disk->disk.info.blocks <= UINT32_MAX && blocks % tracks == 0)
        disk->geometry = (struct geometry){cylinders, heads, blocks / tracks};
}

/* Hints, all of them: a unit need not know the question. */
static void read_modes(struct scsi_disk *disk, bool qemu)
{
    const uint8_t *data = disk->data;

    disk->disk.info.write_cache = true;
    if (ask(disk, &mode_sense_10))
        return;
    disk->disk.info.read_only = data[3] & 0x80;
    size_t end = 2 + be16(data);
    if (end > disk->received)
        end = disk->received;
    for (size_t at = 8 + be16(data + 6), next; at + 2 <= end; at = next) {
        const uint8_t *page = data + at;
        next = at + 2 + page[1];
        if (page[0] & PAGE_SUBPAGE || next > end)
            return;
        if ((page[0] & 0x3f) == PAGE_CACHING && page[1] >= 1)
            disk->disk.info.write_cache = page[2] & 0x04;
        else if ((page[0] & 0x3f) == PAGE_GEOMETRY && page[1] >= 4 && qemu)
            read_geometry(disk, scsi_be32(page + 1) & 0xffffff, page[5]);
    }
}

enum result scsi_disk_start(struct scsi_disk *disk, const struct rich_door *rich,
                            const struct scsi_adapter *adapter, uint8_t target, uint16_t lun)
{
    uint8_t version = 0;
    bool qemu = false;

    __builtin_memset(disk, 0, sizeof(*disk));
    disk->disk.ops = &scsi_disk_ops;
    disk->rich = rich;
    disk->adapter = *adapter;
    disk->target = target;
    disk->lun = lun;
    disk->block_shift = (unsigned)__builtin_ctz(DISK_SECTOR);
    disk->deadline = deadline_in_ms(rich, SCSI_DISK_START_MS);
    pieces_init(&disk->pieces, &pieces_ops, rich, SCSI_DISK_COMMANDS);

    enum result result = identify(disk, &version, &qemu);
    if (!result)
        result = ask(disk, &test_unit_ready);
    if (!result)
        result = measure(disk, version);
    if (!result)
        read_modes(disk, qemu);
    else if (result != RESULT_UNSUPPORTED)
        disk_log(disk, "a unit is of no use, after what it said to the command",
                 disk->question->cdb[0]);
    return result;
}
