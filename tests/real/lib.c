/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include <stdarg.h>
#include "tests/real/real.h"
#include "tests/real/io.h"

enum { COM1 = 0x3f8, LINE_STATUS = COM1 + 5, CAN_SEND = 0x20 };

unsigned wrongs;
char first_wrong[160];

/* ---- Words ---- */

struct line {
    char *at, *end;
};

static void put(struct line *line, char c)
{
    if (line->at < line->end)
        *line->at++ = c;
}

static void put_number(struct line *line, u64 value, u32 base, unsigned width, char fill)
{
    char digits[20];
    unsigned count = 0;
    do {
        /* The compiler's 64-bit division is in a library. */
        u32 digit = base == 16 ? (u32)value & 0xf : (u32)value % 10;
        value = base == 16 ? value >> 4 : (u32)value / 10;
        digits[count++] = "0123456789abcdef"[digit];
    } while (value);
    for (; width > count; width--)
        put(line, fill);
    while (count)
        put(line, digits[--count]);
}

static void format_line(struct line *line, const char *format, va_list list)
{
    for (; *format; format++) {
        if (*format != '%') {
            put(line, *format);
            continue;
        }
        format++;
        char fill = ' ';
        unsigned width = 0;
        if (*format == '0')
            fill = *format++;
        while (*format >= '0' && *format <= '9')
            width = width * 10 + (unsigned)(*format++ - '0');
        bool is_long = false;
        while (*format == 'l') {
            is_long = true;
            format++;
        }
        const char *s;
        switch (*format) {
        case 'c':
            put(line, (char)va_arg(list, int));
            break;
        case 's':
            for (s = va_arg(list, const char *); *s; s++)
                put(line, *s);
            break;
        case 'u':
            put_number(line, va_arg(list, u32), 10, width, fill);
            break;
        case 'x':
            put_number(line, is_long ? va_arg(list, u64) : va_arg(list, u32), 16, width, fill);
            break;
        default:
            put(line, '?');
        }
    }
}

static void send(const char *text, const char *end)
{
    for (; text < end; text++) {
        while (!(in8(LINE_STATUS) & CAN_SEND))
            ;
        out8(COM1, (u8)*text);
    }
}

void say(const char *format, ...)
{
    char text[400];
    struct line line = {text, text + sizeof text - 2};
    va_list list;
    va_start(list, format);
    format_line(&line, "real: ", list);
    format_line(&line, format, list);
    va_end(list);
    *line.at++ = '\r';
    *line.at++ = '\n';
    send(text, line.at);
}

void say_end(void)
{
    static const char end[] = "\r\n";
    send(end, end + 2);
}

void say_to(char *text, u32 bytes, const char *format, ...)
{
    struct line line = {text, text + bytes - 1};
    va_list list;
    va_start(list, format);
    format_line(&line, format, list);
    va_end(list);
    *line.at = 0;
}

bool wrong(const char *format, ...)
{
    char text[sizeof first_wrong];
    struct line line = {text, text + sizeof text - 1};
    va_list list;
    va_start(list, format);
    format_line(&line, format, list);
    va_end(list);
    *line.at = 0;
    if (wrongs++ == 0)
        memcpy(first_wrong, text, sizeof text);
    say("wrong: %s", text);
    return true;
}

/* ---- Chance ---- */

static u32 random_state;

void random_seed(u32 seed)
{
    random_state = seed * 2654435761u | 1;
}

u32 random32(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

u32 random_below(u32 limit)
{
    return (u32)((u64)random32() * limit >> 32);
}
