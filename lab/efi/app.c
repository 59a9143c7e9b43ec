/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "lab/efi/app.h"

struct app app;

static const EFI_GUID loaded_image_guid = EFI_LOADED_IMAGE_PROTOCOL_GUID;
static const EFI_GUID device_path_guid = EFI_DEVICE_PATH_PROTOCOL_GUID;
static const EFI_GUID block_io_guid = EFI_BLOCK_IO_PROTOCOL_GUID;
static const EFI_GUID pci_io_guid = EFI_PCI_IO_PROTOCOL_GUID;
static const EFI_GUID path_to_text_guid = EFI_DEVICE_PATH_TO_TEXT_PROTOCOL_GUID;

static uint64_t ticks_per_us;
static char options[1024]; /* words, each ended by a zero; an empty word ends the list */

/* gnu-efi's prototypes take GUIDs without const; firmware does not write to them. */
static EFI_GUID *plain(const EFI_GUID *guid)
{
    return (EFI_GUID *)(uintptr_t)guid;
}

/* ---- Memory and strings ---- */

/* A word that may lie anywhere and alias anything, for copying eight bytes at a time. */
typedef uint64_t __attribute__((may_alias, aligned(1))) any_word;

void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
    uint8_t *out = to;
    const uint8_t *in = from;

    for (; size >= sizeof(any_word); size -= sizeof(any_word)) {
        *(any_word *)out = *(const any_word *)in;
        out += sizeof(any_word);
        in += sizeof(any_word);
    }
    while (size-- > 0)
        *out++ = *in++;
    return to;
}

void *memmove(void *to, const void *from, size_t size)
{
    if ((uintptr_t)to <= (uintptr_t)from || (uintptr_t)to - (uintptr_t)from >= size) {
        uint8_t *out = to;
        const uint8_t *in = from;

        while (size-- > 0)
            *out++ = *in++;
    } else {
        uint8_t *out = (uint8_t *)to + size;
        const uint8_t *in = (const uint8_t *)from + size;

        while (size-- > 0)
            *--out = *--in;
    }
    return to;
}

void *memset(void *to, int value, size_t size)
{
    uint8_t *out = to;
    uint64_t word = (uint8_t)value * UINT64_C(0x0101010101010101);

    for (; size >= sizeof(any_word); size -= sizeof(any_word)) {
        *(any_word *)out = word;
        out += sizeof(any_word);
    }
    while (size-- > 0)
        *out++ = (uint8_t)value;
    return to;
}

int memcmp(const void *a, const void *b, size_t size)
{
    const uint8_t *x = a, *y = b;

    for (; size >= sizeof(any_word); size -= sizeof(any_word)) {
        if (*(const any_word *)x != *(const any_word *)y)
            break; /* the bytes below find out where */
        x += sizeof(any_word);
        y += sizeof(any_word);
    }
    for (; size > 0; size--, x++, y++) {
        if (*x != *y)
            return *x < *y ? -1 : 1;
    }
    return 0;
}

size_t strlen(const char *text)
{
    size_t n = 0;

    while (text[n] != '\0')
        n++;
    return n;
}

int strncmp(const char *a, const char *b, size_t size)
{
    for (; size > 0; size--, a++, b++) {
        if (*a != *b)
            return (uint8_t)*a < (uint8_t)*b ? -1 : 1;
        if (*a == '\0')
            break;
    }
    return 0;
}

int strcmp(const char *a, const char *b)
{
    return strncmp(a, b, SIZE_MAX);
}

/* One step of a mixer in which every bit of the input reaches every bit of the output. */
static uint64_t pattern_word(uint64_t seed, uint64_t offset)
{
    uint64_t x = (offset / 8 + 1) * UINT64_C(0x9e3779b97f4a7c15) + seed;

    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

void app_fill(void *buffer, size_t size, uint64_t seed, uint64_t offset)
{
    app_assert(size % 8 == 0 && offset % 8 == 0);
    for (size_t i = 0; i < size; i += 8)
        *(any_word *)((uint8_t *)buffer + i) = pattern_word(seed, offset + i);
}

bool app_filled(const void *buffer, size_t size, uint64_t seed, uint64_t offset)
{
    app_assert(size % 8 == 0 && offset % 8 == 0);
    for (size_t i = 0; i < size; i += 8) {
        uint64_t want = pattern_word(seed, offset + i);
        uint64_t got = *(const any_word *)((const uint8_t *)buffer + i);

        if (got != want) {
            app_print("pattern differs at byte 0x%zx of 0x%zx: 0x%016llx, should be 0x%016llx\n", i,
                      size, got, want);
            return false;
        }
    }
    return true;
}

/* ---- Output ---- */

enum {
    COM1 = 0x3f8,
    COM_LINE_STATUS = COM1 + 5,
    COM_CAN_SEND = 0x20,
    DEBUG_PORT = 0xe9,
    DEBUG_EXIT_PORT = 0xf4,
};

void app_put(char c)
{
    static bool dead;

    if (app.debug_port) {
        app_out8(DEBUG_PORT, (uint8_t)c);
        return;
    }
    /* A port that is not there reads as all ones; one that never gets rid of a character is given
     * up after a second or so. */
    for (unsigned i = 0; !dead && (app_in8(COM_LINE_STATUS) & COM_CAN_SEND) == 0; i++)
        dead = i > 1000000;
    if (!dead)
        app_out8(COM1, (uint8_t)c);
}

/* Where formatted text goes: to COM1, or to a buffer if there is one. */
struct sink {
    char *buffer;
    size_t size, length;
};

static void sink_put(struct sink *sink, char c)
{
    if (sink->buffer == NULL) {
        if (c == '\n')
            app_put('\r');
        app_put(c);
    } else if (sink->length + 1 < sink->size) {
        sink->buffer[sink->length++] = c;
    }
}

struct field {
    size_t width;
    bool left, zero;
};

/* `sign` (or zero) goes before the zeros of a padded number, and after its spaces. */
static void sink_field(struct sink *sink, struct field field, char sign, const char *text,
                       size_t length)
{
    size_t total = length + (sign != '\0');
    size_t padding = field.width > total ? field.width - total : 0;

    if (!field.left && !field.zero) {
        for (; padding > 0; padding--)
            sink_put(sink, ' ');
    }
    if (sign != '\0')
        sink_put(sink, sign);
    if (!field.left) {
        for (; padding > 0; padding--)
            sink_put(sink, '0');
    }
    for (size_t i = 0; i < length; i++)
        sink_put(sink, text[i]);
    for (; padding > 0; padding--)
        sink_put(sink, ' ');
}

static void sink_number(struct sink *sink, struct field field, char sign, uint64_t value,
                        unsigned base, bool capitals)
{
    const char *digits = capitals ? "0123456789ABCDEF" : "0123456789abcdef";
    char text[20];
    size_t at = sizeof(text);

    do {
        text[--at] = digits[value % base];
        value /= base;
    } while (value > 0);
    sink_field(sink, field, sign, text + at, sizeof(text) - at);
}

static void sink_wide(struct sink *sink, struct field field, const CHAR16 *text, size_t most)
{
    size_t length = 0;

    while (length < most && text[length] != 0)
        length++;
    size_t padding = field.width > length ? field.width - length : 0;

    for (; !field.left && padding > 0; padding--)
        sink_put(sink, ' ');
    for (size_t i = 0; i < length; i++)
        sink_put(sink, text[i] >= ' ' && text[i] < 0x7f ? (char)text[i] : '?');
    for (; padding > 0; padding--)
        sink_put(sink, ' ');
}

static void sink_print(struct sink *sink, const char *format, va_list args)
{
    for (const char *p = format; *p != '\0'; p++) {
        struct field field = {0};
        size_t most = SIZE_MAX;
        int longs = 0;

        if (*p != '%') {
            sink_put(sink, *p);
            continue;
        }
        p++;
        for (; *p == '-' || *p == '0'; p++) {
            field.left = field.left || *p == '-';
            field.zero = field.zero || *p == '0';
        }
        if (*p == '*') {
            field.width = (size_t)va_arg(args, int);
            p++;
        }
        for (; *p >= '0' && *p <= '9'; p++)
            field.width = field.width * 10 + (size_t)(*p - '0');
        if (*p == '.') {
            p++;
            most = 0;
            if (*p == '*') {
                most = (size_t)va_arg(args, int);
                p++;
            }
            for (; *p >= '0' && *p <= '9'; p++)
                most = most * 10 + (size_t)(*p - '0');
        }
        for (; *p == 'l' || *p == 'z'; p++)
            longs += *p == 'z' ? 2 : 1;

        switch (*p) {
        case 'd':
        case 'i': {
            int64_t value = longs >= 2 ? va_arg(args, int64_t)
                                       : (longs == 1 ? va_arg(args, long) : va_arg(args, int));
            uint64_t size = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;

            sink_number(sink, field, value < 0 ? '-' : '\0', size, 10, false);
            break;
        }
        case 'u':
        case 'x':
        case 'X': {
            uint64_t value =
                longs >= 2 ? va_arg(args, uint64_t)
                           : (longs == 1 ? va_arg(args, unsigned long) : va_arg(args, unsigned));

            sink_number(sink, field, '\0', value, *p == 'u' ? 10 : 16, *p == 'X');
            break;
        }
        case 'p':
            sink_put(sink, '0');
            sink_put(sink, 'x');
            sink_number(sink, field, '\0', (uintptr_t)va_arg(args, void *), 16, false);
            break;
        case 'c': {
            char c = (char)va_arg(args, int);

            field.zero = false;
            sink_field(sink, field, '\0', &c, 1);
            break;
        }
        case 's': {
            field.zero = false;
            if (longs > 0) {
                const CHAR16 *wide = va_arg(args, const CHAR16 *);

                sink_wide(sink, field, wide == NULL ? L"(null)" : wide, most);
                break;
            }
            const char *text = va_arg(args, const char *);
            size_t length = 0;

            if (text == NULL)
                text = "(null)";
            while (length < most && text[length] != '\0')
                length++;
            sink_field(sink, field, '\0', text, length);
            break;
        }
        case '%':
            sink_put(sink, '%');
            break;
        default: /* the compiler has warned of it; show it as it stands */
            sink_put(sink, '%');
            if (*p == '\0')
                return;
            sink_put(sink, *p);
        }
    }
}

void app_print_args(const char *format, va_list args)
{
    struct sink sink = {0};

    sink_print(&sink, format, args);
}

void app_print(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    app_print_args(format, args);
    va_end(args);
}

size_t app_format_args(char *buffer, size_t size, const char *format, va_list args)
{
    struct sink sink = {.buffer = buffer, .size = size};

    app_assert(buffer != NULL && size > 0);
    sink_print(&sink, format, args);
    buffer[sink.length] = '\0';
    return sink.length;
}

size_t app_format(char *buffer, size_t size, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    size_t length = app_format_args(buffer, size, format, args);
    va_end(args);
    return length;
}

/* ---- Checking ---- */

const char *app_status_name(EFI_STATUS status)
{
    static const struct {
        EFI_STATUS status;
        const char *name;
    } names[] = {
        {EFI_SUCCESS, "success"},
        {EFI_LOAD_ERROR, "load error"},
        {EFI_INVALID_PARAMETER, "invalid parameter"},
        {EFI_UNSUPPORTED, "unsupported"},
        {EFI_BAD_BUFFER_SIZE, "bad buffer size"},
        {EFI_BUFFER_TOO_SMALL, "buffer too small"},
        {EFI_NOT_READY, "not ready"},
        {EFI_DEVICE_ERROR, "device error"},
        {EFI_WRITE_PROTECTED, "write protected"},
        {EFI_OUT_OF_RESOURCES, "out of resources"},
        {EFI_NO_MEDIA, "no media"},
        {EFI_MEDIA_CHANGED, "media changed"},
        {EFI_NOT_FOUND, "not found"},
        {EFI_ACCESS_DENIED, "access denied"},
        {EFI_TIMEOUT, "timeout"},
        {EFI_NOT_STARTED, "not started"},
        {EFI_ALREADY_STARTED, "already started"},
        {EFI_ABORTED, "aborted"},
        {EFI_INCOMPATIBLE_VERSION, "incompatible version"},
        {EFI_SECURITY_VIOLATION, "security violation"},
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].status == status)
            return names[i].name;
    }
    return "error";
}

void app_failed(const char *file, int line, const char *what)
{
    app_print("%s:%d: %s\n", file, line, what);
    if (app.failed != NULL)
        app.failed(what);
    app_exit(1);
}

bool app_count_failure(const char *file, int line, const char *what)
{
    app_print("%s:%d: %s\n", file, line, what);
    app.failures++;
    return false;
}

void app_require_ok(EFI_STATUS status, const char *file, int line, const char *what)
{
    if (!EFI_ERROR(status))
        return;
    app_print("%s:%d: %s: %s (0x%llx)\n", file, line, what, app_status_name(status), status);
    if (app.failed != NULL)
        app.failed(what);
    app_exit(1);
}

bool app_count_status(EFI_STATUS status, EFI_STATUS expected, const char *file, int line,
                      const char *what)
{
    if (status == expected)
        return true;
    app_print("%s:%d: %s: %s (0x%llx), should be %s (0x%llx)\n", file, line, what,
              app_status_name(status), status, app_status_name(expected), expected);
    app.failures++;
    return false;
}

/* ---- Options ---- */

static size_t options_used;

static void option_char(unsigned c)
{
    /* Twice a zero ends the list, so one place is kept. */
    if (options_used + 2 >= sizeof(options))
        app_failed(__FILE__, __LINE__, "the options are too long");
    if (c > ' ')
        options[options_used++] = c < 0x7f ? (char)c : '?';
    else if (options_used > 0 && options[options_used - 1] != '\0')
        options[options_used++] = '\0';
}

void app_options_add(const char *text, size_t size)
{
    option_char(' ');
    for (size_t i = 0; i < size && text[i] != '\0'; i++)
        option_char((unsigned char)text[i]);
}

static void options_read(void)
{
    EFI_LOADED_IMAGE *image = app_protocol(app.image, &loaded_image_guid);
    const CHAR16 *text = image == NULL ? NULL : image->LoadOptions;
    size_t length = text == NULL ? 0 : image->LoadOptionsSize / sizeof(CHAR16);

    for (size_t i = 0; i < length && text[i] != 0; i++)
        option_char(text[i]);
}

void app_options_file(const CHAR16 *name)
{
    enum { PATH_MAX = 256 };
    EFI_LOADED_IMAGE *image = app_protocol(app.image, &loaded_image_guid);
    CHAR16 path[PATH_MAX] = {0};
    size_t length = 0, folder = 0;
    UINTN size;

    /* The folder of our own file, if it is one: a path node with the text after its header. */
    if (image != NULL && image->FilePath != NULL && image->FilePath->Type == 4 &&
        image->FilePath->SubType == 4) {
        const CHAR16 *text = (const CHAR16 *)(const void *)(image->FilePath + 1);
        for (; text[length] != 0 && length < PATH_MAX - 16; length++) {
            path[length] = text[length];
            if (text[length] == '\\')
                folder = length + 1;
        }
    }
    if (folder == 0)
        path[folder++] = '\\';
    for (length = folder; *name != 0 && length < PATH_MAX - 1; name++)
        path[length++] = *name;
    path[length] = 0;
    uint8_t *text = app_file(path, &size);
    if (text == NULL)
        return;
    /* What an editor may have put in front, and made of the letters. */
    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        size -= 3;
    } else if (size >= 2 && text[0] == 0xff && text[1] == 0xfe) {
        for (UINTN i = 2; i + 1 < size; i += 2)
            text[i / 2 - 1] = text[i + 1] == 0 ? text[i] : '?';
        size = size / 2 - 1;
    }
    app_options_add((const char *)text, size);
}

const char *app_option_word(const char *after)
{
    const char *word = after == NULL ? options : after + strlen(after) + 1;

    return *word != '\0' ? word : NULL;
}

const char *app_option_next(const char *name, const char *after)
{
    size_t length = strlen(name);

    for (const char *word = after == NULL ? options : after + strlen(after) + 1; *word != '\0';
         word += strlen(word) + 1) {
        if (strncmp(word, name, length) == 0 && word[length] == '=')
            return word + length + 1;
    }
    return NULL;
}

const char *app_option(const char *name)
{
    size_t length = strlen(name);

    for (const char *word = options; *word != '\0'; word += strlen(word) + 1) {
        if (strncmp(word, name, length) != 0)
            continue;
        if (word[length] == '=')
            return word + length + 1;
        if (word[length] == '\0')
            return word + length;
    }
    return NULL;
}

bool app_flag(const char *name)
{
    const char *value = app_option(name);

    return value != NULL && strcmp(value, "0") != 0 && strcmp(value, "no") != 0;
}

static bool parse_number(const char *text, uint64_t *number)
{
    unsigned base = 10;
    uint64_t value = 0;

    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
        base = 16;
        text += 2;
    }
    const char *start = text;

    for (;; text++) {
        unsigned digit;

        if (*text >= '0' && *text <= '9')
            digit = (unsigned)(*text - '0');
        else if (base == 16 && (*text | 0x20) >= 'a' && (*text | 0x20) <= 'f')
            digit = (unsigned)((*text | 0x20) - 'a') + 10;
        else
            break;
        if (__builtin_mul_overflow(value, base, &value) ||
            __builtin_add_overflow(value, digit, &value))
            return false;
    }
    if (text == start)
        return false;

    uint64_t unit = *text == 'K' ? 1 << 10 : *text == 'M' ? 1 << 20 : *text == 'G' ? 1 << 30 : 1;

    if (unit != 1)
        text++;
    return *text == '\0' && !__builtin_mul_overflow(value, unit, number);
}

uint64_t app_option_number(const char *name, uint64_t otherwise)
{
    const char *text = app_option(name);
    uint64_t number;

    if (text == NULL)
        return otherwise;
    if (!parse_number(text, &number)) {
        app_print("option %s=%s is not a number\n", name, text);
        if (app.failed != NULL)
            app.failed("an option that should be a number is none");
        app_exit(1);
    }
    return number;
}

/* ---- Time ---- */

/* A wait that the host interrupts comes out too long: the shortest of some is nearest the truth. */
static void clock_measure(void)
{
    enum { MEASURE_US = 4000, TIMES = 5 };
    uint64_t best = UINT64_MAX;

    for (unsigned i = 0; i < TIMES; i++) {
        uint64_t start = app_tsc();
        app.bs->Stall(MEASURE_US);
        uint64_t ticks = app_tsc() - start;
        if (ticks < best)
            best = ticks;
    }
    ticks_per_us = best < MEASURE_US ? 1 : best / MEASURE_US;
}

uint64_t app_tsc_per_us(void)
{
    return ticks_per_us;
}

uint64_t app_us(uint64_t ticks)
{
    return ticks / ticks_per_us;
}

uint64_t app_ns(uint64_t ticks)
{
    /* Whole microseconds first: ticks * 1000 would overflow after some days. */
    return ticks / ticks_per_us * 1000 + ticks % ticks_per_us * 1000 / ticks_per_us;
}

void app_delay_us(uint64_t us)
{
    uint64_t start = app_tsc();

    while (app_tsc() - start < us * ticks_per_us)
        __asm__ volatile("pause");
}

/* ---- Handles and protocols ---- */

bool app_guid_equal(const EFI_GUID *a, const EFI_GUID *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

size_t app_handles(const EFI_GUID *protocol, EFI_HANDLE *handles, size_t max)
{
    static EFI_HANDLE all[1024]; /* LocateHandle stores all of them or none */
    UINTN size = sizeof(all);
    EFI_STATUS status = app.bs->LocateHandle(ByProtocol, plain(protocol), NULL, &size, all);

    if (status == EFI_NOT_FOUND)
        return 0;
    app_assert_ok(status);
    size_t count = size / sizeof(all[0]);

    if (count > max)
        count = max;
    memcpy(handles, all, count * sizeof(all[0]));
    return count;
}

void *app_protocol(EFI_HANDLE handle, const EFI_GUID *protocol)
{
    void *interface = NULL;

    if (EFI_ERROR(app.bs->HandleProtocol(handle, plain(protocol), &interface)))
        return NULL;
    return interface;
}

void *app_locate(const EFI_GUID *protocol)
{
    void *interface = NULL;

    if (EFI_ERROR(app.bs->LocateProtocol(plain(protocol), NULL, &interface)))
        return NULL;
    return interface;
}

void app_connect_all(void)
{
    static EFI_HANDLE handles[1024];
    size_t count = app_handles(&device_path_guid, handles, 1024);

    /* Not found only says that no driver wanted this one. */
    for (size_t i = 0; i < count; i++)
        (void)app.bs->ConnectController(handles[i], NULL, NULL, TRUE);
}

bool app_pci_of(EFI_HANDLE handle, struct app_pci *pci)
{
    EFI_DEVICE_PATH *path = app_protocol(handle, &device_path_guid);

    /* The nearest handle at or above this path that has PciIo. */
    if (path == NULL ||
        EFI_ERROR(app.bs->LocateDevicePath(plain(&pci_io_guid), &path, &pci->handle)))
        return false;

    EFI_PCI_IO_PROTOCOL *io = app_protocol(pci->handle, &pci_io_guid);

    return io != NULL &&
           !EFI_ERROR(io->GetLocation(io, &pci->segment, &pci->bus, &pci->device, &pci->function));
}

static uint64_t pci_order(const struct app_pci *pci)
{
    return pci->segment << 32 | pci->bus << 16 | pci->device << 8 | pci->function;
}

size_t app_disks(EFI_HANDLE *handles, size_t max)
{
    static EFI_HANDLE all[1024];
    size_t count = app_handles(&block_io_guid, all, 1024), kept = 0;
    struct app_pci pci;

    for (size_t i = 0; i < count; i++) {
        EFI_BLOCK_IO_PROTOCOL *block = app_protocol(all[i], &block_io_guid);

        if (block == NULL || block->Media == NULL || block->Media->LogicalPartition ||
            !app_pci_of(all[i], &pci))
            continue;

        /* Insert in order. The number of disks is small. */
        size_t at = kept;
        struct app_pci other;

        while (at > 0 && app_pci_of(all[at - 1], &other) && pci_order(&other) > pci_order(&pci))
            at--;
        EFI_HANDLE disk = all[i];

        memmove(&all[at + 1], &all[at], (kept - at) * sizeof(all[0]));
        all[at] = disk;
        kept++;
    }
    if (kept > max)
        kept = max;
    memcpy(handles, all, kept * sizeof(all[0]));
    return kept;
}

void app_path_text(const EFI_DEVICE_PATH *path, char *text, size_t size)
{
    EFI_DEVICE_PATH_TO_TEXT_PROTOCOL *converter = app_locate(&path_to_text_guid);
    CHAR16 *wide;

    text[0] = '\0';
    if (path == NULL)
        return;
    if (converter == NULL) {
        app_format(text, size, "(no text protocol)");
        return;
    }
    wide = converter->ConvertDevicePathToText(path, FALSE, FALSE);
    if (wide == NULL)
        return;
    app_format(text, size, "%ls", wide);
    app.bs->FreePool(wide);
}

void *app_pages(size_t bytes)
{
    EFI_PHYSICAL_ADDRESS address = 0;

    app_assert_ok(
        app.bs->AllocatePages(AllocateAnyPages, EfiLoaderData, (bytes + 4095) / 4096, &address));
    return (void *)(uintptr_t)address;
}

void *app_file(const CHAR16 *path, UINTN *size)
{
    static const EFI_GUID volume_guid = EFI_SIMPLE_FILE_SYSTEM_PROTOCOL_GUID;
    static const EFI_GUID info_guid = EFI_FILE_INFO_ID;
    static _Alignas(16) uint8_t info[1024];
    EFI_LOADED_IMAGE *image = app_protocol(app.image, &loaded_image_guid);
    EFI_SIMPLE_FILE_SYSTEM_PROTOCOL *volume = image == NULL || image->DeviceHandle == NULL
                                                  ? NULL
                                                  : app_protocol(image->DeviceHandle, &volume_guid);
    EFI_FILE_PROTOCOL *root, *file;
    UINTN info_size = sizeof(info);
    void *bytes = NULL;

    if (volume == NULL || EFI_ERROR(volume->OpenVolume(volume, &root)))
        return NULL;
    if (!EFI_ERROR(root->Open(root, &file, (CHAR16 *)(uintptr_t)path, EFI_FILE_MODE_READ, 0))) {
        if (!EFI_ERROR(file->GetInfo(file, plain(&info_guid), &info_size, info))) {
            *size = (UINTN)((EFI_FILE_INFO *)(void *)info)->FileSize;
            bytes = app_pages(*size + 1);
            if (EFI_ERROR(file->Read(file, size, bytes)))
                bytes = NULL;
        }
        file->Close(file);
    }
    root->Close(root);
    return bytes;
}

/* ---- The memory map and the exit ---- */

void app_map_read(struct app_map *map)
{
    map->size = sizeof(map->bytes);
    app_assert_ok(app.bs->GetMemoryMap(&map->size, (EFI_MEMORY_DESCRIPTOR *)map->bytes, &map->key,
                                       &map->entry_size, &map->version));
}

const EFI_MEMORY_DESCRIPTOR *app_map_entry(const struct app_map *map, size_t i)
{
    if (i >= map->size / map->entry_size)
        return NULL;
    /* The firmware's entries may be longer than the structure known here. */
    return (const EFI_MEMORY_DESCRIPTOR *)(map->bytes + i * map->entry_size);
}

uint64_t app_map_pages(const struct app_map *map, UINT32 type)
{
    const EFI_MEMORY_DESCRIPTOR *entry;
    uint64_t pages = 0;

    for (size_t i = 0; (entry = app_map_entry(map, i)) != NULL; i++) {
        if (entry->Type == type)
            pages += entry->NumberOfPages;
    }
    return pages;
}

EFI_STATUS app_map_exit(const struct app_map *map)
{
    EFI_STATUS status = app.bs->ExitBootServices(app.image, map->key);

    if (!EFI_ERROR(status))
        app.bs = NULL;
    return status;
}

void app_exit_boot_services(void)
{
    static struct app_map map;
    EFI_STATUS status = EFI_ABORTED;

    /* The first call may itself run handlers that change the map; a second one, by the
     * specification, must then do. Two more are for the benefit of whoever reads the failure. */
    for (int tries = 0; tries < 4; tries++) {
        app_map_read(&map);
        status = app_map_exit(&map);
        if (!EFI_ERROR(status))
            return;
    }
    app_assert_ok(status);
}

/* ---- Beginning and ending ---- */

static _Noreturn void halt(void)
{
    for (;;)
        __asm__ volatile("cli; hlt");
}

void app_power_off(void)
{
    app.rt->ResetSystem(EfiResetShutdown, EFI_SUCCESS, 0, NULL);
    halt();
}

void app_exit(int result)
{
    const char *how = app_option("exit");

    if (result == 0 && app.failures > 0)
        result = 1;
    app_print("app: result %d\n", result);
    if (how != NULL && strcmp(how, "debug") == 0)
        app_out8(DEBUG_EXIT_PORT, (uint8_t)result);
    if (how != NULL && strcmp(how, "halt") == 0)
        halt();
    if (app.bs == NULL || app.no_return || how != NULL)
        app_power_off();
    app.bs->Exit(app.image, result == 0 ? EFI_SUCCESS : EFI_ABORTED, 0, NULL);
    halt(); /* Exit() does not return */
}

EFI_STATUS EFIAPI efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *system_table)
{
    app.image = image;
    app.st = system_table;
    app.bs = system_table->BootServices;
    app.rt = system_table->RuntimeServices;

    options_read();
    clock_measure();
    /* The firmware ends programs that run for more than five minutes; the lab has its own limit. */
    app.bs->SetWatchdogTimer(0, 0, 0, NULL);
    /* What the firmware has printed stays on its own line. */
    app_print("\n");
    app_exit(app_main());
}
