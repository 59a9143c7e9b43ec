/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "audit/report.h"
#include "audit/screen.h"

/* ---- Text ---- */

static bool screen_text = true, screen_json;

void report_screen(void)
{
    const char *what = app_option("screen");

    if (what != NULL) {
        screen_text = strcmp(what, "text") == 0 || strcmp(what, "both") == 0;
        screen_json = strcmp(what, "json") == 0 || strcmp(what, "both") == 0;
    }
    if (screen_text || screen_json)
        screen_find();
}

void report_screen_memory(uint64_t *base, uint64_t *size)
{
    screen_memory(base, size);
}

static void put(char c)
{
    if (c == '\n')
        app_put('\r');
    app_put(c);
}

void report_print(const char *format, ...)
{
    static char text[1024];
    va_list args;

    va_start(args, format);
    app_format_args(text, sizeof(text), format, args);
    va_end(args);
    for (const char *at = text; *at != '\0'; at++) {
        put(*at);
        if (screen_text)
            screen_put(*at);
    }
}

/* ---- JSON ---- */

static bool comma; /* whether a value stands before, in the list or object that is being written */

static void json_put(char c)
{
    put(c);
    if (screen_json)
        screen_put(c);
}

static void json_raw(const char *text)
{
    while (*text != '\0')
        json_put(*text++);
}

static void json_string(const char *text)
{
    json_put('"');
    for (; *text != '\0'; text++) {
        char escape[8];

        if (*text == '"' || *text == '\\') {
            json_put('\\');
            json_put(*text);
        } else if (*text >= ' ' && *text < 0x7f) {
            json_put(*text);
        } else {
            app_format(escape, sizeof(escape), "\\u%04x", (unsigned)(unsigned char)*text);
            json_raw(escape);
        }
    }
    json_put('"');
}

static void json_key(const char *key)
{
    if (comma)
        json_put(',');
    comma = true;
    if (key != NULL) {
        json_string(key);
        json_put(':');
    }
}

void json_begin(const char *type)
{
    comma = false;
    json_put('{');
    json_text("type", type);
}

void json_end(void)
{
    json_raw("}\n");
}

void json_text(const char *key, const char *text)
{
    json_key(key);
    if (text != NULL)
        json_string(text);
    else
        json_raw("null");
}

void json_number(const char *key, uint64_t number)
{
    char text[24];

    json_key(key);
    app_format(text, sizeof(text), "%llu", number);
    json_raw(text);
}

void json_signed(const char *key, int64_t number)
{
    char text[24];

    json_key(key);
    app_format(text, sizeof(text), "%lld", number);
    json_raw(text);
}

void json_hex(const char *key, uint64_t number)
{
    char text[24];

    json_key(key);
    app_format(text, sizeof(text), "\"0x%llx\"", number);
    json_raw(text);
}

void json_bytes(const char *key, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    char text[4];

    json_key(key);
    json_put('"');
    for (size_t i = 0; i < size; i++) {
        app_format(text, sizeof(text), "%02x", at[i]);
        json_raw(text);
    }
    json_put('"');
}

void json_bool(const char *key, bool truth)
{
    json_key(key);
    json_raw(truth ? "true" : "false");
}

void json_null(const char *key)
{
    json_text(key, NULL);
}

void json_list(const char *key)
{
    json_key(key);
    json_put('[');
    comma = false;
}

void json_list_end(void)
{
    json_put(']');
    comma = true;
}

void json_object(const char *key)
{
    json_key(key);
    json_put('{');
    comma = false;
}

void json_object_end(void)
{
    json_put('}');
    comma = true;
}

/* ---- Time ---- */

static uint64_t zero;
static bool zero_known;

void report_time_zero(void)
{
    if (!zero_known)
        zero = app_tsc();
    zero_known = true;
}

int64_t report_us(uint64_t ticks)
{
    return ticks >= zero ? (int64_t)app_us(ticks - zero) : -(int64_t)app_us(zero - ticks);
}

void report_phase(const char *phase, const char *key, uint64_t value)
{
    uint64_t now = app_tsc();

    json_begin("phase");
    json_text("phase", phase);
    if (zero_known)
        json_signed("us", report_us(now));
    if (key != NULL)
        json_number(key, value);
    json_end();
}

/* ---- Verdicts ---- */

enum { VERDICTS_MAX = 4096, RULES = 7 };

static struct judged {
    enum subject subject;
    enum verdict verdict;
    int image;
    char rule[4], name[96], why[256];
} judged[VERDICTS_MAX];
static size_t judged_count;
static uint64_t judged_lost;

static const char *const verdict_names[] = {[UNSEEN] = "unseen", [PASS] = "pass", [FAIL] = "fail"};
static const char *const subject_names[] = {
    [SUBJECT_FIRMWARE] = "firmware", [SUBJECT_DRIVER] = "driver", [SUBJECT_DEVICE] = "device"};

static struct judged *judged_find(enum subject subject, const char *name, int image,
                                  const char *rule)
{
    for (size_t i = 0; i < judged_count; i++) {
        struct judged *known = &judged[i];
        if (known->subject == subject && known->image == image && strcmp(known->rule, rule) == 0 &&
            strcmp(known->name, name) == 0)
            return known;
    }
    if (judged_count == VERDICTS_MAX)
        return NULL;
    struct judged *new = &judged[judged_count++];
    *new = (struct judged){.subject = subject, .image = image};
    app_format(new->name, sizeof(new->name), "%s", name);
    app_format(new->rule, sizeof(new->rule), "%s", rule);
    return new;
}

void report_verdict(enum subject subject, const char *name, int image, const char *rule,
                    enum verdict verdict, const char *format, ...)
{
    struct judged *entry = judged_find(subject, name, image, rule);
    va_list args;

    if (entry == NULL) {
        judged_lost++;
        return;
    }
    if (entry->why[0] != '\0' && verdict <= entry->verdict)
        return;
    entry->verdict = verdict;
    va_start(args, format);
    app_format_args(entry->why, sizeof(entry->why), format, args);
    va_end(args);
}

/* One line for each subject that has verdicts: its name, and a column for each rule. */
static void table(enum subject subject)
{
    for (size_t i = 0; i < judged_count; i++) {
        const struct judged *first = &judged[i];
        bool shown = first->subject != subject;

        for (size_t j = 0; j < i && !shown; j++)
            shown = judged[j].subject == subject && judged[j].image == first->image &&
                    strcmp(judged[j].name, first->name) == 0;
        if (shown)
            continue;
        report_print("%-8s %-36.36s", subject_names[subject], first->name);
        for (unsigned rule = 1; rule <= RULES; rule++) {
            const char *cell = "-";
            for (size_t j = i; j < judged_count; j++)
                if (judged[j].subject == subject && judged[j].image == first->image &&
                    judged[j].rule[1] == (char)('0' + rule) &&
                    strcmp(judged[j].name, first->name) == 0)
                    cell = judged[j].verdict == FAIL   ? "FAIL"
                           : judged[j].verdict == PASS ? "pass"
                                                       : "?";
            report_print(" %-4s", cell);
        }
        report_print("\n");
    }
}

static bool ended;

unsigned report_end(void)
{
    unsigned counts[3] = {0};

    if (judged_lost > 0)
        report_give_up("there are more verdicts than room for them: %llu are lost", judged_lost);
    for (size_t i = 0; i < judged_count; i++) {
        const struct judged *entry = &judged[i];

        counts[entry->verdict]++;
        json_begin("verdict");
        json_text("subject", subject_names[entry->subject]);
        json_text("name", entry->name);
        if (entry->image >= 0)
            json_number("image", (uint64_t)entry->image);
        else
            json_null("image");
        json_text("rule", entry->rule);
        json_text("verdict", verdict_names[entry->verdict]);
        json_text("why", entry->why);
        json_end();
    }

    /* What a person photographs from the screen is this page, so it begins at the top. */
    screen_clear();
    report_print("\n%-45s C1   C2   C3   C4   C5   C6   C7\n", "Verdicts (?: could not be seen)");
    table(SUBJECT_FIRMWARE);
    table(SUBJECT_DRIVER);
    table(SUBJECT_DEVICE);
    report_print("\n");
    for (size_t i = 0; i < judged_count; i++)
        if (judged[i].verdict == FAIL)
            report_print("%s %s, %s: %s\n", subject_names[judged[i].subject], judged[i].name,
                         judged[i].rule, judged[i].why);
    report_print("%s: %u passed, %u failed, %u could not be seen\n",
                 counts[FAIL] > 0 ? "violations" : "clean", counts[PASS], counts[FAIL],
                 counts[UNSEEN]);
    json_begin("end");
    json_number("pass", counts[PASS]);
    json_number("fail", counts[FAIL]);
    json_number("unseen", counts[UNSEEN]);
    json_end();
    ended = true;
    return counts[FAIL];
}

bool report_is_ended(void)
{
    return ended;
}

/* Before there is a screen of ours, people without a serial port see only what firmware shows. */
static void tell_console(const char *text)
{
    static CHAR16 wide[512];
    size_t length = 0;

    if (app.bs == NULL || app.st->ConOut == NULL)
        return;
    while (text[length] != '\0' && length < 500) {
        wide[length] = (CHAR16)text[length];
        length++;
    }
    app.st->ConOut->OutputString(app.st->ConOut, (CHAR16 *)u"\r\nhandover.efi could not audit: ");
    app.st->ConOut->OutputString(app.st->ConOut, wide);
    app.st->ConOut->OutputString(app.st->ConOut, (CHAR16 *)u"\r\n");
    if (app_option("exit") == NULL)
        app.bs->Stall(10 * 1000 * 1000);
}

void report_give_up(const char *format, ...)
{
    static char text[512];
    va_list args;

    va_start(args, format);
    app_format_args(text, sizeof(text), format, args);
    va_end(args);
    report_print("could not audit: %s\n", text);
    tell_console(text);
    json_begin("error");
    json_text("what", text);
    json_end();
    app_exit(2);
}
