// SPDX-License-Identifier: BSD-2-Clause-Patent
/* UEFI 2.10 §15.7, EFI_EXT_SCSI_PASS_THRU_PROTOCOL: SCSI commands through an adapter. gnu-efi does
 * not have it. */
#pragma once

#include <efi.h>

#define EFI_EXT_SCSI_PASS_THRU_PROTOCOL_GUID                                                       \
    {                                                                                              \
        0x143b7632, 0xb81b, 0x4cb7,                                                                \
        {                                                                                          \
            0xab, 0xd3, 0xb6, 0x25, 0xa5, 0xb9, 0xbf, 0xfe                                         \
        }                                                                                          \
    }

#define TARGET_MAX_BYTES 0x10

#define EFI_EXT_SCSI_PASS_THRU_ATTRIBUTES_PHYSICAL   0x0001
#define EFI_EXT_SCSI_PASS_THRU_ATTRIBUTES_LOGICAL    0x0002
#define EFI_EXT_SCSI_PASS_THRU_ATTRIBUTES_NONBLOCKIO 0x0004

typedef struct {
    UINT32 AdapterId;
    UINT32 Attributes;
    UINT32 IoAlign;
} EFI_EXT_SCSI_PASS_THRU_MODE;

/* DataDirection */
#define EFI_EXT_SCSI_DATA_DIRECTION_READ          0
#define EFI_EXT_SCSI_DATA_DIRECTION_WRITE         1
#define EFI_EXT_SCSI_DATA_DIRECTION_BIDIRECTIONAL 2

/* HostAdapterStatus */
#define EFI_EXT_SCSI_STATUS_HOST_ADAPTER_OK                    0x00
#define EFI_EXT_SCSI_STATUS_HOST_ADAPTER_TIMEOUT_COMMAND       0x09
#define EFI_EXT_SCSI_STATUS_HOST_ADAPTER_TIMEOUT               0x0b
#define EFI_EXT_SCSI_STATUS_HOST_ADAPTER_MESSAGE_REJECT        0x0d
#define EFI_EXT_SCSI_STATUS_HOST_ADAPTER_BUS_RESET             0x0e
#define EFI_EXT_SCSI_STATUS_HOST_ADAPTER_PARITY_ERROR          0x0f
#define EFI_EXT_SCSI_STATUS_HOST_ADAPTER_REQUEST_SENSE_FAILED  0x10
#define EFI_EXT_SCSI_STATUS_HOST_ADAPTER_SELECTION_TIMEOUT     0x11
#define EFI_EXT_SCSI_STATUS_HOST_ADAPTER_DATA_OVERRUN_UNDERRUN 0x12
#define EFI_EXT_SCSI_STATUS_HOST_ADAPTER_BUS_FREE              0x13
#define EFI_EXT_SCSI_STATUS_HOST_ADAPTER_PHASE_ERROR           0x14
#define EFI_EXT_SCSI_STATUS_HOST_ADAPTER_OTHER                 0x7f

/* TargetStatus */
#define EFI_EXT_SCSI_STATUS_TARGET_GOOD            0x00
#define EFI_EXT_SCSI_STATUS_TARGET_CHECK_CONDITION 0x02
#define EFI_EXT_SCSI_STATUS_TARGET_BUSY            0x08
#define EFI_EXT_SCSI_STATUS_TARGET_TASK_SET_FULL   0x28
#define EFI_EXT_SCSI_STATUS_TARGET_TASK_ABORTED    0x40

typedef struct {
    UINT64 Timeout; /* in units of 100 ns; 0 for none */
    VOID *InDataBuffer;
    VOID *OutDataBuffer;
    VOID *SenseData;
    VOID *Cdb;
    UINT32 InTransferLength; /* bytes of the buffer; then, how many were transferred */
    UINT32 OutTransferLength;
    UINT8 CdbLength;
    UINT8 DataDirection;
    UINT8 HostAdapterStatus;
    UINT8 TargetStatus;
    UINT8 SenseDataLength; /* bytes of the buffer; then, how many were written */
} EFI_EXT_SCSI_PASS_THRU_SCSI_REQUEST_PACKET;

typedef struct _EFI_EXT_SCSI_PASS_THRU_PROTOCOL EFI_EXT_SCSI_PASS_THRU_PROTOCOL;

/* `Target` is an array of TARGET_MAX_BYTES. */
typedef EFI_STATUS(EFIAPI *EFI_EXT_SCSI_PASS_THRU_PASSTHRU)(
    EFI_EXT_SCSI_PASS_THRU_PROTOCOL *This, UINT8 *Target, UINT64 Lun,
    EFI_EXT_SCSI_PASS_THRU_SCSI_REQUEST_PACKET *Packet, EFI_EVENT Event);
typedef EFI_STATUS(EFIAPI *EFI_EXT_SCSI_PASS_THRU_GET_NEXT_TARGET_LUN)(
    EFI_EXT_SCSI_PASS_THRU_PROTOCOL *This, UINT8 **Target, UINT64 *Lun);
typedef EFI_STATUS(EFIAPI *EFI_EXT_SCSI_PASS_THRU_BUILD_DEVICE_PATH)(
    EFI_EXT_SCSI_PASS_THRU_PROTOCOL *This, UINT8 *Target, UINT64 Lun, EFI_DEVICE_PATH **DevicePath);
typedef EFI_STATUS(EFIAPI *EFI_EXT_SCSI_PASS_THRU_GET_TARGET_LUN)(
    EFI_EXT_SCSI_PASS_THRU_PROTOCOL *This, EFI_DEVICE_PATH *DevicePath, UINT8 **Target,
    UINT64 *Lun);
typedef EFI_STATUS(EFIAPI *EFI_EXT_SCSI_PASS_THRU_RESET_CHANNEL)(
    EFI_EXT_SCSI_PASS_THRU_PROTOCOL *This);
typedef EFI_STATUS(EFIAPI *EFI_EXT_SCSI_PASS_THRU_RESET_TARGET_LUN)(
    EFI_EXT_SCSI_PASS_THRU_PROTOCOL *This, UINT8 *Target, UINT64 Lun);
typedef EFI_STATUS(EFIAPI *EFI_EXT_SCSI_PASS_THRU_GET_NEXT_TARGET)(
    EFI_EXT_SCSI_PASS_THRU_PROTOCOL *This, UINT8 **Target);

struct _EFI_EXT_SCSI_PASS_THRU_PROTOCOL {
    EFI_EXT_SCSI_PASS_THRU_MODE *Mode;
    EFI_EXT_SCSI_PASS_THRU_PASSTHRU PassThru;
    EFI_EXT_SCSI_PASS_THRU_GET_NEXT_TARGET_LUN GetNextTargetLun;
    EFI_EXT_SCSI_PASS_THRU_BUILD_DEVICE_PATH BuildDevicePath;
    EFI_EXT_SCSI_PASS_THRU_GET_TARGET_LUN GetTargetLun;
    EFI_EXT_SCSI_PASS_THRU_RESET_CHANNEL ResetChannel;
    EFI_EXT_SCSI_PASS_THRU_RESET_TARGET_LUN ResetTargetLun;
    EFI_EXT_SCSI_PASS_THRU_GET_NEXT_TARGET GetNextTarget;
};
