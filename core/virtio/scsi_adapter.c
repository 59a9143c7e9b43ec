// SPDX-License-Identifier: BSD-2-Clause-Patent
/* virtio-scsi as an adapter for core/scsi_disk.h. */

#include "core/virtio/scsi_adapter.h"

static enum result submit(void *context, struct scsi_request *request)
{
    return scsi_submit(context, request);
}

static void poll(void *context)
{
    scsi_poll(context);
}

static bool ready(const void *context)
{
    return scsi_ready(context);
}

static enum result restart(void *context, enum result why)
{
    return scsi_restart(context, why);
}

struct scsi_adapter scsi_adapter_of(struct scsi *scsi)
{
    return (struct scsi_adapter){scsi, submit, poll, ready, restart};
}
