/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * ONE_TEST=test_NAME runs that one of a suite alone: of a broken build, most of what the suite says
 * is known from the unbroken one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

__attribute__((constructor)) static void choose(void)
{
    cmocka_set_test_filter(getenv("ONE_TEST"));
}
