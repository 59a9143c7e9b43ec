/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "audit/report.h"
#include "audit/xen/findings.h"

const char domain_name[] = "xen:domain";
struct reasons domain_wrong, domain_unseen;

void say(const char *device, const char *what, enum truth ok, const char *format, ...)
{
    static char value[512];
    va_list args;

    va_start(args, format);
    app_format_args(value, sizeof(value), format, args);
    va_end(args);
    report_print("%-16s %-16s %s%s\n", device, what, value, ok == WRONG ? "  (not as found)" : "");
    json_begin("xen");
    json_text("device", device);
    json_text("what", what);
    json_text("value", value);
    if (ok == NEITHER)
        json_null("ok");
    else
        json_bool("ok", ok == RIGHT);
    json_end();
}

void say_lost(const char *what, size_t count)
{
    if (count == 0)
        return;
    report_print("%-16s … and %zu more of these: %s\n", "", count, what);
    json_begin("lost");
    json_text("what", what);
    json_number("count", count);
    json_end();
}

void reason(struct reasons *to, const char *format, ...)
{
    size_t length = strlen(to->text);
    va_list args;

    if (length > 0 && length + 2 < sizeof(to->text)) {
        memcpy(to->text + length, "; ", 3);
        length += 2;
    }
    va_start(args, format);
    app_format_args(to->text + length, sizeof(to->text) - length, format, args);
    va_end(args);
}
