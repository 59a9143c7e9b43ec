// SPDX-License-Identifier: BSD-2-Clause-Patent
/* Letting go of PV disks: the exit through the poor door, detach, restart, and hosts that do not
 * answer (C2 to C7). */

#include "tests/unit/xen_harness.h"

static void exit_of_an_idle_disk(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    (void)state;

    xhost_plug(&options);
    guest_up(&guest);
    assert_reads(&guest, 0, 0, 65536, 0);
    guest_exit(&guest, EXIT_MS);
    xhost_check_as_found();
    assert_no_violation();
    guest_handed_over(&guest);
    assert_no_violation();
}

static void detach_of_an_idle_disk(void **state)
{
    struct xhost_options options = xhost_usual(1);
    struct guest guest;
    (void)state;

    xhost_plug(&options);
    guest_up(&guest);
    assert_reads(&guest, 0, 0, 65536, 0);
    guest_down(&guest);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        xen_test(exit_of_an_idle_disk),
        xen_test(detach_of_an_idle_disk),
    };
    return cmocka_run_group_tests_name("Xen disks letting go", tests, NULL, NULL);
}
