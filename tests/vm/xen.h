/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the programs for guests of Xen share: a way to have dom0 do something, which works before
 * the exit and after it, and needs nothing that is under test.
 */
#pragma once

#include "tests/vm/vm.h"

/* Prints "vm: please WORD", and waits until dom0 has done it and pressed the power button
 * (xl trigger), which nothing else here listens to. */
void xen_ask(const char *word);

/* The disk by this number, among these; the end of the program if it is not there. */
struct vm_disk *xen_disk(struct vm_disk *disks, size_t count, UINT32 number);
