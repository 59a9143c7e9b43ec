/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* For a program that stands in the place of a disk's boot loader. */
#pragma once

/* Starts EFI\BOOT\NEXT.EFI of the disk that the program was read from, if there is one. Comes back
 * if there is none, or if that one comes back. */
void app_start_next(void);
