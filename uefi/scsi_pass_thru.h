// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * Extended SCSI Pass Thru (UEFI 2.10 §15.7) over a SCSI adapter of core/. How its calls wait:
 * waiting.h.
 *
 * A target is a number, in the first byte of the array, and a logical unit is its number. The units
 * are asked for anew whenever somebody begins to enumerate them: it takes milliseconds, and units
 * come and go.
 */
#pragma once

#include "core/scan.h"
#include "core/virtio/scsi.h"
#include "uefi/protocol/ext_scsi_pass_thru.h"
#include "uefi/waiting.h"

struct scsi_pass_thru {
    EFI_EXT_SCSI_PASS_THRU_PROTOCOL protocol;
    EFI_EXT_SCSI_PASS_THRU_MODE mode;
    struct scsi *scsi;
    EFI_HANDLE handle;
    struct waiting waiting;
    bool stopping;           /* scsi_pass_thru_remove() is under way */
    struct pass_thru *spare; /* entries for commands with an event that are not in use */
    struct scan_unit *units; /* what the last scan has found; NULL if there was none */
    size_t unit_count;
};

/* Installs the protocol on the handle. The adapter must stay until scsi_pass_thru_remove(). */
EFI_STATUS scsi_pass_thru_install(struct scsi_pass_thru *pass, struct scsi *scsi,
                                  EFI_HANDLE handle);

/* As block_io_remove() and block_io_finish(). */
EFI_STATUS scsi_pass_thru_remove(struct scsi_pass_thru *pass);
void scsi_pass_thru_finish(struct scsi_pass_thru *pass);
