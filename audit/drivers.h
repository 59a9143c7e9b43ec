/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* Drivers that the audit is to include: the options driver=… */
#pragma once

/*
 * Loads and starts each. driver=\DIR\NAME.EFI is a file of the volume that the auditor came from;
 * driver=NAME is what QEMU's firmware configuration device has as opt/baton/driver/NAME. Gives the
 * audit up if one cannot be loaded or started. Needs boot services, allocates.
 */
void drivers_load(void);
