/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/*
 * What the auditor says: text for people and lines of JSON (docs/audit-format.md), on the serial
 * port and, where there is one, on the screen. All of it works after ExitBootServices as before, at
 * any TPL, and never calls firmware; only report_screen() does.
 */
#pragma once

#include "lab/efi/app.h"

/* Finds a screen to draw on and the firmware's letters to draw with. Call it last before the exit:
 * connecting drivers may change the screen. Allocates; without a screen or a font, nothing is
 * drawn. */
void report_screen(void);

/* The frame buffer, which the owner's page tables must map. Size 0: there is none. */
void report_screen_memory(uint64_t *base, uint64_t *size);

/* Text for people, to both. Not to begin with '{'. */
__attribute__((format(printf, 1, 2))) void report_print(const char *format, ...);

/*
 * One line of JSON: json_begin("call"), its fields in any order, json_end(). A NULL text is null.
 * Lists and objects nest; inside a list, the key is NULL.
 */
void json_begin(const char *type);
void json_text(const char *key, const char *text);
void json_number(const char *key, uint64_t number);
void json_signed(const char *key, int64_t number);
void json_hex(const char *key, uint64_t number); /* "0x…", for addresses and registers */
void json_bytes(const char *key, const void *bytes, size_t size);
void json_bool(const char *key, bool truth);
void json_null(const char *key);
void json_list(const char *key);
void json_list_end(void);
void json_object(const char *key);
void json_object_end(void);
void json_end(void);

/* The time that all lines have in common: microseconds since the first call of ExitBootServices. */
void report_time_zero(void);       /* that call comes now */
int64_t report_us(uint64_t ticks); /* a TSC value in that time */

/* A line that says where the audit is, with a number if it has a key. */
void report_phase(const char *phase, const char *key, uint64_t value);

enum verdict { UNSEEN, PASS, FAIL };
enum subject { SUBJECT_FIRMWARE, SUBJECT_DRIVER, SUBJECT_DEVICE };

/*
 * Judges a rule ("C4") for a subject. Asked again about the same subject and rule, the worse of the
 * two stands (fail before pass before unseen), with its reason. Texts are copied. `image` is an
 * image's number, -1 for none.
 */
__attribute__((format(printf, 6, 7))) void report_verdict(enum subject subject, const char *name,
                                                          int image, const char *rule,
                                                          enum verdict verdict, const char *format,
                                                          ...);

/* Writes out all verdicts, as lines and as a table, and the end line. Gives how many failed. */
unsigned report_end(void);
bool report_is_ended(void);

/* The audit cannot go on: says why, and ends the program as its options say, with result 2. */
_Noreturn __attribute__((format(printf, 1, 2))) void report_give_up(const char *format, ...);
