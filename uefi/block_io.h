// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * Block I/O and Block I/O 2 (UEFI 2.10 §13.9, §13.10) over any disk of core/.
 * How they wait: waiting.h.
 */
#pragma once

#include "core/disk.h"
#include "uefi/waiting.h"

/* Requests with a token that can be under way at once; one more waits for one of them. */
#define BLOCK_IO_TOKENS 64

struct block_io_request {
    struct disk_request request;
    struct block_io *owner;
    EFI_BLOCK_IO2_TOKEN *token; /* NULL for a call that waits, and for a free entry */
    volatile bool done;
};

struct block_io {
    EFI_BLOCK_IO_PROTOCOL block_io;
    EFI_BLOCK_IO2_PROTOCOL block_io2;
    EFI_BLOCK_IO_MEDIA media;
    struct disk *disk;
    EFI_HANDLE handle;
    struct waiting waiting; /* its tokens: entries of `requests` in use */
    bool stopping;          /* block_io_remove() is under way */
    struct block_io_request requests[BLOCK_IO_TOKENS];
};

/* Installs both protocols on the handle. The disk must stay until block_io_remove(). */
EFI_STATUS block_io_install(struct block_io *block, struct disk *disk, EFI_HANDLE handle);

/*
 * Takes both protocols away. EFI_ACCESS_DENIED if somebody will not let go of them, or is in the
 * middle of a call: all works on, then. On success, requests with tokens may still be under way:
 * ending the disk (detach) finishes them; then call block_io_finish().
 */
EFI_STATUS block_io_remove(struct block_io *block);
void block_io_finish(struct block_io *block);
