/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * Extended SCSI Pass Thru on Baton's adapters, and the units behind them, asked in every way.
 *
 * Options:
 *   adapters=N   how many there must be
 *   unplug=T     afterwards, tells QEMU's monitor, which listens on port 0xe9, to take away the
 * unit "gone", which is the first of target T on the first adapter
 *
 * Prints what each adapter has, and what is on it: a line for each unit, with the CRC of its first
 * 10,000 bytes and more; the Python side knows what is right.
 */
#include "tests/vm/vm.h"
#include "uefi/protocol/ext_scsi_pass_thru.h"

enum { ADAPTERS_MAX = 8, UNITS_MAX = 200, PIECE = 1 << 20, MANY = 40, COMPARED = 10000 };

typedef EFI_EXT_SCSI_PASS_THRU_PROTOCOL PASS;
typedef EFI_EXT_SCSI_PASS_THRU_SCSI_REQUEST_PACKET PACKET;

static EFI_GUID pass_guid = EFI_EXT_SCSI_PASS_THRU_PROTOCOL_GUID;

static struct unit {
    UINT8 target[TARGET_MAX_BYTES];
    UINT64 lun;
    UINT8 type;
    UINT32 block;
    UINT64 blocks;
} units[UNITS_MAX];
static size_t unit_count;
static uint8_t *buffer, *other;
static UINT8 sense[252];

/* ---- Commands ---- */

static void be(uint8_t *to, unsigned bytes, uint64_t value)
{
    for (unsigned i = bytes; i-- > 0; value >>= 8)
        to[i] = (uint8_t)value;
}

static PACKET packet_of(UINT8 *cdb, UINT8 cdb_bytes, bool write, void *data, UINT32 bytes)
{
    return (PACKET){
        .Timeout = 100000000, /* 10 s */
        .InDataBuffer = write ? NULL : data,
        .OutDataBuffer = write ? data : NULL,
        .InTransferLength = write ? 0 : bytes,
        .OutTransferLength = write ? bytes : 0,
        .SenseData = sense,
        .SenseDataLength = sizeof(sense),
        .Cdb = cdb,
        .CdbLength = cdb_bytes,
        .DataDirection = write,
    };
}

/* A command, which after a reset may have to be said twice. */
static EFI_STATUS command(PASS *pass, struct unit *unit, PACKET *packet)
{
    PACKET before = *packet;
    EFI_STATUS status = pass->PassThru(pass, unit->target, unit->lun, packet, NULL);

    for (unsigned i = 0;
         i < 2 && status == EFI_SUCCESS && packet->TargetStatus == 2 && (sense[2] & 15) == 6; i++) {
        *packet = before;
        status = pass->PassThru(pass, unit->target, unit->lun, packet, NULL);
    }
    return status;
}

static EFI_STATUS transfer(PASS *pass, struct unit *unit, bool write, UINT64 lba, UINT32 blocks,
                           void *data, PACKET *packet)
{
    UINT8 cdb[16] = {write ? 0x8a : 0x88};

    be(cdb + 2, 8, lba);
    be(cdb + 10, 4, blocks);
    if (unit->type == 5) { /* a CD-ROM drive knows READ(12) */
        cdb[0] = 0xa8;
        be(cdb + 2, 4, lba);
        be(cdb + 6, 4, blocks);
        be(cdb + 10, 4, 0);
    }
    *packet = packet_of(cdb, unit->type == 5 ? 12 : 16, write, data, blocks * unit->block);
    return command(pass, unit, packet);
}

/* ---- What there is ---- */

static void enumerate(PASS *pass)
{
    UINT8 target[TARGET_MAX_BYTES], *at = target, last[TARGET_MAX_BYTES];
    UINT64 lun = 0;
    size_t targets = 0, seen = 0;

    memset(target, 0xff, sizeof(target));
    unit_count = 0;
    uint64_t start = app_tsc();
    EFI_STATUS status = pass->GetNextTargetLun(pass, &at, &lun);
    app_print("vm: the scan took %llu us\n", app_us(app_tsc() - start));
    for (; status == EFI_SUCCESS; status = pass->GetNextTargetLun(pass, &at, &lun)) {
        app_assert(unit_count < UNITS_MAX && at == target);
        if (unit_count == 0 || memcmp(last, target, sizeof(target)) != 0)
            targets++;
        memcpy(last, target, sizeof(last));
        struct unit *unit = &units[unit_count++];
        memcpy(unit->target, target, sizeof(target));
        unit->lun = lun;
    }
    app_check_status(status, EFI_NOT_FOUND);

    memset(target, 0xff, sizeof(target));
    while ((status = pass->GetNextTarget(pass, &at)) == EFI_SUCCESS)
        seen++;
    app_check_status(status, EFI_NOT_FOUND);
    app_check(seen == targets);
}

static void look_at(PASS *pass, struct unit *unit)
{
    UINT8 inquiry[6] = {0x12, 0, 0, 0, 96}, capacity[16] = {0x9e, 0x10}, old_capacity[10] = {0x25};
    PACKET packet = packet_of(inquiry, 6, false, buffer, 96);

    capacity[13] = 32;
    app_assert_ok(command(pass, unit, &packet));
    app_check(packet.HostAdapterStatus == 0 && packet.TargetStatus == 0);
    app_check(packet.InTransferLength >= 36 && packet.InTransferLength <= 96);
    app_check(buffer[0] >> 5 == 0);
    unit->type = buffer[0] & 31;
    if (unit->type == 5)
        packet = packet_of(old_capacity, 10, false, buffer, 8);
    else
        packet = packet_of(capacity, 16, false, buffer, 32);
    app_assert_ok(command(pass, unit, &packet));
    app_check(packet.TargetStatus == 0);
    const uint8_t *at = buffer;
    unit->blocks = 0;
    for (unsigned i = 0; i < (unit->type == 5 ? 4u : 8u); i++)
        unit->blocks = unit->blocks << 8 | *at++;
    unit->blocks++;
    unit->block = (UINT32)at[0] << 24 | (UINT32)at[1] << 16 | (UINT32)at[2] << 8 | at[3];
}

/* ---- Device paths ---- */

static void check_paths(PASS *pass, struct unit *unit)
{
    EFI_DEVICE_PATH *path = NULL;
    UINT8 target[TARGET_MAX_BYTES], *at = target, none[TARGET_MAX_BYTES] = {0, 7};
    UINT64 lun = 0;

    app_assert_ok(pass->BuildDevicePath(pass, unit->target, unit->lun, &path));
    app_check(path->Type == 3 && path->SubType == 2 && path->Length[0] == 8);
    app_assert_ok(pass->GetTargetLun(pass, path, &at, &lun));
    app_check(memcmp(target, unit->target, sizeof(target)) == 0 && lun == unit->lun);
    app_check_status(pass->GetTargetLun(pass, NULL, &at, &lun), EFI_INVALID_PARAMETER);
    app_check_status(pass->GetTargetLun(pass, path, NULL, &lun), EFI_INVALID_PARAMETER);
    app_check_status(pass->GetTargetLun(pass, path, &at, NULL), EFI_INVALID_PARAMETER);
    ((uint8_t *)path)[5] = 1; /* target 256 and more */
    app_check_status(pass->GetTargetLun(pass, path, &at, &lun), EFI_NOT_FOUND);
    path->SubType = 1;
    app_check_status(pass->GetTargetLun(pass, path, &at, &lun), EFI_UNSUPPORTED);
    app.bs->FreePool(path);
    app_check_status(pass->BuildDevicePath(pass, unit->target, unit->lun, NULL),
                     EFI_INVALID_PARAMETER);
    app_check_status(pass->BuildDevicePath(pass, none, 0, &path), EFI_NOT_FOUND);
    app_check_status(pass->BuildDevicePath(pass, unit->target, 16384, &path), EFI_NOT_FOUND);
}

/* ---- Bad calls ---- */

static void check_parameters(PASS *pass, struct unit *unit)
{
    UINT8 ready[6] = {0}, read[10] = {0x28, 0, 0, 0, 0, 0, 0, 0, 1}, vendor[16] = {0xc1};
    UINT8 none[TARGET_MAX_BYTES] = {254}, bad[TARGET_MAX_BYTES] = {0, 1}, *at = bad;
    UINT64 lun = 0;
    UINT8 *t = unit->target;
    PACKET packet;

#define TRY(change, expected)                                                                      \
    do {                                                                                           \
        packet = packet_of(read, 10, false, buffer, unit->block);                                  \
        change;                                                                                    \
        app_check_status(pass->PassThru(pass, t, unit->lun, &packet, NULL), expected);             \
    } while (0)
    TRY(packet.CdbLength = 0, EFI_INVALID_PARAMETER);
    TRY(packet.CdbLength = 33, EFI_UNSUPPORTED);
    TRY(packet.Cdb = NULL, EFI_INVALID_PARAMETER);
    TRY(packet.DataDirection = 2, EFI_UNSUPPORTED);
    TRY(packet.DataDirection = 3, EFI_INVALID_PARAMETER);
    TRY(packet.InDataBuffer = NULL, EFI_INVALID_PARAMETER);
    TRY(packet.SenseData = NULL, EFI_INVALID_PARAMETER);
    TRY(packet.SenseData = NULL; packet.SenseDataLength = 0; packet.Timeout = 0, EFI_SUCCESS);
    packet = packet_of(ready, 6, false, NULL, 0);
    app_check_status(pass->PassThru(pass, NULL, 0, &packet, NULL), EFI_INVALID_PARAMETER);
    app_check_status(pass->PassThru(pass, t, 16384, &packet, NULL), EFI_INVALID_PARAMETER);
    app_check_status(pass->PassThru(pass, bad, 0, &packet, NULL), EFI_INVALID_PARAMETER);
    app_check_status(pass->PassThru(pass, t, unit->lun, NULL, NULL), EFI_INVALID_PARAMETER);
    /* There could be such a target, but there is none. */
    app_check_status(pass->PassThru(pass, none, 0, &packet, NULL), EFI_TIMEOUT);
    app_check(packet.HostAdapterStatus == EFI_EXT_SCSI_STATUS_HOST_ADAPTER_SELECTION_TIMEOUT);
    /* A command that the unit does not know: sense data, and as much as there is room for. */
    packet = packet_of(vendor, 16, false, NULL, 0);
    packet.SenseDataLength = 5;
    sense[5] = 0xa5;
    app_check_status(command(pass, unit, &packet), EFI_SUCCESS);
    app_check(packet.TargetStatus == EFI_EXT_SCSI_STATUS_TARGET_CHECK_CONDITION);
    app_check(packet.SenseDataLength == 5 && (sense[2] & 15) == 5 && sense[5] == 0xa5);

    app_check_status(pass->GetNextTargetLun(pass, NULL, &lun), EFI_INVALID_PARAMETER);
    app_check_status(pass->GetNextTargetLun(pass, &at, NULL), EFI_INVALID_PARAMETER);
    app_check_status(pass->GetNextTargetLun(pass, &at, &lun), EFI_INVALID_PARAMETER);
    app_check_status(pass->GetNextTarget(pass, NULL), EFI_INVALID_PARAMETER);
    at = none;
    app_check_status(pass->GetNextTarget(pass, &at), EFI_INVALID_PARAMETER);
    app_check_status(pass->ResetTargetLun(pass, NULL, 0), EFI_INVALID_PARAMETER);
    app_check_status(pass->ResetTargetLun(pass, bad, 0), EFI_INVALID_PARAMETER);
    app_check_status(pass->ResetTargetLun(pass, none, 0), EFI_DEVICE_ERROR);
}

/* ---- Data ---- */

/* Everything, in pieces that are not on any boundary; its CRC is for the other side to judge. */
static uint32_t crc_of(PASS *pass, struct unit *unit)
{
    UINT32 blocks = PIECE / unit->block;
    uint8_t *all = app_pages(unit->blocks * unit->block + EFI_PAGE_SIZE) + 3;
    PACKET packet;

    for (UINT64 lba = 0; lba < unit->blocks; lba += blocks) {
        UINT32 now = unit->blocks - lba < blocks ? (UINT32)(unit->blocks - lba) : blocks;
        app_assert_ok(transfer(pass, unit, false, lba, now, all + lba * unit->block, &packet));
        app_check(packet.TargetStatus == 0 && packet.InTransferLength == now * unit->block);
    }
    uint32_t crc = vm_crc32(all, unit->blocks * unit->block);
    app.bs->FreePages((uintptr_t)all & ~(uintptr_t)4095,
                      (unit->blocks * unit->block + 2 * EFI_PAGE_SIZE - 1) / EFI_PAGE_SIZE);
    return crc;
}

/* Many at a time, each with an event. */
static void with_events(PASS *pass, struct unit *unit)
{
    static PACKET packets[MANY];
    static UINT8 cdbs[MANY][10];
    static EFI_EVENT events[MANY];
    UINTN index;
    PACKET packet;

    if (unit->blocks < MANY)
        return;
    app_assert_ok(transfer(pass, unit, false, 0, MANY, other, &packet));
    memset(buffer, 0xaa, MANY * unit->block);
    for (unsigned i = 0; i < MANY; i++) {
        cdbs[i][0] = 0x28;
        cdbs[i][5] = (UINT8)i;
        cdbs[i][8] = 1;
        packets[i] = packet_of(cdbs[i], 10, false, buffer + i * unit->block, unit->block);
        packets[i].SenseData = NULL;
        packets[i].SenseDataLength = 0;
        app_assert_ok(app.bs->CreateEvent(0, 0, NULL, NULL, &events[i]));
        app_assert_ok(pass->PassThru(pass, unit->target, unit->lun, &packets[i], events[i]));
    }
    for (unsigned i = 0; i < MANY; i++) {
        app_assert_ok(app.bs->WaitForEvent(1, &events[i], &index));
        app_check(packets[i].HostAdapterStatus == 0 && packets[i].TargetStatus == 0);
        app_check(packets[i].InTransferLength == unit->block);
        app.bs->CloseEvent(events[i]);
    }
    app_check(memcmp(buffer, other, MANY * unit->block) == 0);
    /* What is refused has no event. */
    packets[0].CdbLength = 0;
    app_assert_ok(app.bs->CreateEvent(0, 0, NULL, NULL, &events[0]));
    app_check_status(pass->PassThru(pass, unit->target, unit->lun, &packets[0], events[0]),
                     EFI_INVALID_PARAMETER);
    app_check_status(app.bs->CheckEvent(events[0]), EFI_NOT_READY);
    app.bs->CloseEvent(events[0]);
}

/* Writes COMPARED bytes and more, reads them back. A read-only unit says what it is. */
static bool writes(PASS *pass, struct unit *unit)
{
    UINT32 blocks = (COMPARED + unit->block - 1) / unit->block, bytes = blocks * unit->block;
    PACKET packet;

    vm_random_fill(buffer, bytes);
    if (unit->type == 5)
        return false;
    app_check_status(transfer(pass, unit, true, unit->blocks - blocks, blocks, buffer + 1, &packet),
                     EFI_SUCCESS);
    if (packet.TargetStatus != 0) {
        app_check(packet.TargetStatus == 2 && (sense[2] & 15) == 7 && packet.SenseDataLength > 12);
        return false;
    }
    app_check(packet.OutTransferLength == bytes);
    app_assert_ok(transfer(pass, unit, false, unit->blocks - blocks, blocks, other + 2, &packet));
    app_check(memcmp(other + 2, buffer + 1, bytes) == 0);
    return true;
}

static void resets(PASS *pass, struct unit *unit)
{
    PACKET packet;

    app_check_status(pass->ResetTargetLun(pass, unit->target, unit->lun), EFI_SUCCESS);
    app_check_status(transfer(pass, unit, false, 0, 1, buffer, &packet), EFI_SUCCESS);
    app_check(packet.TargetStatus == 0);
    app_check_status(pass->ResetChannel(pass), EFI_SUCCESS);
    app_check_status(transfer(pass, unit, false, 0, 1, other, &packet), EFI_SUCCESS);
    app_check(packet.TargetStatus == 0 && memcmp(buffer, other, unit->block) == 0);
}

static void at_each_level(PASS *pass, struct unit *unit)
{
    static const EFI_TPL levels[] = {TPL_APPLICATION, TPL_CALLBACK, TPL_NOTIFY};
    PACKET packet;

    for (unsigned i = 0; i < 3; i++) {
        EFI_TPL before = app.bs->RaiseTPL(levels[i]);
        EFI_STATUS status = transfer(pass, unit, false, 0, 1, buffer, &packet);
        app.bs->RestoreTPL(before);
        app_check_status(status, EFI_SUCCESS);
    }
}

/* Somebody pulls a unit. It is noticed, and nothing else is touched. */
static void unplug(PASS *pass, UINT8 target)
{
    struct unit before[2] = {units[0]}, *gone = &before[1];
    UINT8 ready[6] = {0};
    PACKET packet = packet_of(ready, 6, false, NULL, 0);
    size_t count = unit_count;

    for (size_t i = 0; i < unit_count; i++)
        if (units[i].target[0] == target)
            *gone = units[i];
    app_assert(gone->block != 0 && gone->target[0] != before[0].target[0]);
    for (const char *at = "device_del gone\n"; *at; at++)
        app_out8(0xe9, (uint8_t)*at);
    for (unsigned tries = 0; unit_count == count; tries++) {
        app_assert(tries < 1000);
        app.bs->Stall(10000);
        enumerate(pass);
    }
    app_check(unit_count == count - 1);
    app_check_status(pass->PassThru(pass, gone->target, gone->lun, &packet, NULL), EFI_TIMEOUT);
    app_check(packet.HostAdapterStatus == EFI_EXT_SCSI_STATUS_HOST_ADAPTER_SELECTION_TIMEOUT);
    app_check_status(pass->ResetTargetLun(pass, gone->target, gone->lun), EFI_DEVICE_ERROR);
    app_check_status(transfer(pass, &before[0], false, 0, 1, buffer, &packet), EFI_SUCCESS);
    app_check(packet.TargetStatus == 0 && packet.InTransferLength == before[0].block);
    app_print("vm: unplugged\n");
}

int app_main(void)
{
    static EFI_HANDLE handles[ADAPTERS_MAX * 2];
    size_t ours = 0;

    vm_begin();
    vm_random_seed(app_option_number("seed", 1));
    buffer = app_pages(PIECE + EFI_PAGE_SIZE);
    other = app_pages(PIECE + EFI_PAGE_SIZE);
    app_connect_all();
    size_t count = app_handles(&pass_guid, handles, ADAPTERS_MAX * 2);
    for (size_t i = 0; i < count; i++) {
        PASS *pass = app_protocol(handles[i], &pass_guid);
        EFI_PCI_IO_PROTOCOL *io;
        struct app_pci pci;
        UINT16 vendor;
        app_assert(app_pci_of(handles[i], &pci));
        io = app_protocol(pci.handle, &vm_pci_io_guid);
        app_assert_ok(io->Pci.Read(io, EfiPciIoWidthUint16, 0, 1, &vendor));
        if (vendor != 0x1af4)
            continue; /* disks on SATA and IDE have it, too */
        ours++;
        app_print("vm: adapter pci=%02llx:%02llx.%llx attributes=%u align=%u\n", pci.bus,
                  pci.device, pci.function, pass->Mode->Attributes, pass->Mode->IoAlign);
        enumerate(pass);
        for (size_t k = 0; k < unit_count; k++) {
            struct unit *unit = &units[k];
            look_at(pass, unit);
            uint32_t crc = crc_of(pass, unit);
            with_events(pass, unit);
            bool written = writes(pass, unit);
            app_print("vm: unit %u:%llu type=%u block=%u blocks=%llu crc=%08x writes=%d "
                      "after=%08x\n",
                      unit->target[0], unit->lun, unit->type, unit->block, unit->blocks, crc,
                      written, written ? crc_of(pass, unit) : crc);
        }
        if (unit_count > 0) {
            check_paths(pass, &units[unit_count - 1]);
            check_parameters(pass, &units[0]);
            at_each_level(pass, &units[0]);
            resets(pass, &units[0]);
        }
        if (ours == 1 && app_option_number("unplug", 0) != 0)
            unplug(pass, (UINT8)app_option_number("unplug", 0));
    }
    app_assert(ours == app_option_number("adapters", 1));
    app_print("vm: leaving\n");
    app_exit_boot_services();
    return 0;
}
