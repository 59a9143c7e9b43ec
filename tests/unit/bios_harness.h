// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * What the tests of INT 13h share. A test says what goes into a call and what is to come out of it:
 * `now` and `wanted` begin the same, with something in every register, and so do memory and what it
 * is to be. Whatever the test does not say must not change.
 */
#pragma once

/* cmocka wants these first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "bios/int13.h"
#include "tests/model/pc.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* What AH says. */
enum {
    GOOD = 0x00,
    BAD_REQUEST = 0x01,
    WRITE_PROTECTED = 0x03,
    BAD_ADDRESS = 0x09,
    FAILED = 0x20,
    NO_MEDIA = 0x31,
    TIMED_OUT = 0x80,
    NOT_READY = 0xaa,
    NOT_REMOVABLE = 0xb2,
    UNDEFINED = 0xbb,
};

/* And for what. */
extern const struct said {
    enum result result;
    uint8_t status;
} results_said[9]; /* each but RESULT_OK */

extern struct frame now, wanted;

/* The usual disk: 80h, 300 cylinders of 16 heads of 17 sectors, and some left over. */
#define USUAL_BLOCKS 82000u
extern struct pc_disk disk;

#define ON_A_MACHINE(test) cmocka_unit_test_setup_teardown(test, machine_on, machine_off)
int machine_on(void **state);
int machine_off(void **state);
/* Another disk in its place. */
void disk_is(uint32_t block_size, uint64_t blocks);

/* A call's beginning: AH and AL; DL is 80h. */
void begin(unsigned ax);

/* The lower half of a register, that goes in; or that comes out. */
#define gives(name, value)                                                                         \
    (now.registers.name = wanted.registers.name = with_half(now.registers.name, (value)))
#define returns(name, value)       (wanted.registers.name = with_half(wanted.registers.name, (value)))
#define gives_segment(name, value) (now.registers.name = wanted.registers.name = (uint16_t)(value))
uint32_t with_half(uint32_t reg, unsigned value);
void returns_al(uint8_t al);

/* Something in memory; or that is to be there afterwards: sectors as nobody has written them. */
void pokes(uint32_t at, const void *data, size_t bytes);
void wants(uint32_t at, const void *data, size_t bytes);
void wants_sectors(uint32_t at, uint64_t sector, unsigned count);

/* The call itself, which ends so; AH is something else in two cases. */
void served(uint8_t status);
void served_with(uint8_t status, uint8_t ah);
/* And one that is somebody else's. */
void passed_on(void);

/* The disk was asked for this, as number `which`; and for so much in all. */
void assert_asked(unsigned which, enum disk_op op, uint64_t sector, size_t bytes);
void assert_asked_at(unsigned which, enum disk_op op, uint64_t sector, size_t bytes,
                     uint32_t address);
#define assert_asked_times(times) assert_int_equal(disk.count, (times))

/* Sectors that are kept: as in memory, or as nobody has written them. */
void assert_written(uint64_t sector, uint32_t at, unsigned count);
void assert_unwritten(void);
