/* SPDX-License-Identifier: BSD-2-Clause-Patent */
/* What is found, said (report.h), and gathered until the domain is judged. */
#pragma once

#include <stddef.h>

enum { LINES_MAX = 32 }; /* of one kind */

enum truth { WRONG, RIGHT, NEITHER };

/* The domain as a whole, as a device's name. */
extern const char domain_name[];

/* One line: "what" of a device is this, and whether it is as it was found. */
__attribute__((format(printf, 4, 5))) void say(const char *device, const char *what, enum truth ok,
                                               const char *format, ...);

/* So many more there were that got no line; of 0, nothing is said. */
void say_lost(const char *what, size_t count);

/* Reasons, strung together. */
struct reasons {
    char text[240];
};

__attribute__((format(printf, 2, 3))) void reason(struct reasons *to, const char *format, ...);

/* What breaks C7 for the domain as a whole, and what of it could not be seen. */
extern struct reasons domain_wrong, domain_unseen;
