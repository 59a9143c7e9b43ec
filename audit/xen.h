/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * A domain's side of Xen, as somebody sees it who has just become its owner: was it left as found
 * (C7), and can nobody reach into its memory any more (C4)? Looks at the XenStore ring, at every
 * frontend and backend, at what is left of keys, watches and transactions, at the grant table and
 * the event channels.
 *
 * What cannot be seen: which keys a watch is on that was left behind, unless it is on a frontend's
 * own (that there is one is seen, and how many there are); pages of Xen's that were mapped other
 * than for grants; with a version 2 grant table, whether a granted page is mapped just now.
 */
#pragma once

#include <stdbool.h>

/*
 * Whether this is a Xen HVM domain (CPUID, any leaf base). Call with boot services, before the map
 * is read that is used to exit: it allocates. It learns where the XenStore ring is, how big the
 * grant table is and where the firmware has mapped it, and which event channels there are, without
 * disturbing the ring's present owner (looks at shared memory, asks the hypervisor, sends nothing).
 * False on anything else than Xen, where the other functions do nothing.
 */
bool xen_before(void);

/*
 * Right after the exit, before anything else is done to the machine: is the ring idle? Which grants
 * are in use, which event channels bound? Reads only; a grant table that the firmware has not
 * mapped, or no longer, is mapped at the end of the platform device's BAR 1 until xen_end().
 *
 * Needs that BAR, the ring and the rest of the first 4 GiB mapped one to one, as firmware does it;
 * xen_end() needs the same.
 */
void xen_exit(void);

/*
 * After the watch: takes the XenStore ring over, asks for every frontend's and backend's state, for
 * leftover keys and watches, and gives the verdicts (report_verdict()) for "xen:domain" and every
 * "xen:vbd/…" and "xen:vif/…". Ends all watches and transactions, and writes to every frontend's
 * state the value that it has. At most a minute, five seconds for each answer: a XenStore that does
 * not answer makes rules unseen or failed, as the contract has it, never the audit hang.
 */
void xen_end(void);
