// SPDX-License-Identifier: BSD-2-Clause-Patent
/* The virtio drivers that there are. */

#include "tests/unit/harness.h"

extern const struct test_kind blk_test, scsi_test, net_test;

const struct test_kind *const test_kinds[] = {&blk_test, &scsi_test, &net_test};
const size_t test_kind_count = LENGTH(test_kinds);
