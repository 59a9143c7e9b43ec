// SPDX-License-Identifier: BSD-2-Clause-Patent
/* virtio-scsi for those who put disks of their own on it. */
#pragma once

#include "core/scsi_disk.h"
#include "core/virtio/scsi.h"

/* Its functions. `scsi`, which has been started, must outlive whoever uses them. */
struct scsi_adapter scsi_adapter_of(struct scsi *scsi);
