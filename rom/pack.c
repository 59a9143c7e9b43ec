// SPDX-License-Identifier: BSD-2-Clause-Patent
/*
 * baton-pack -o ROM [-b IMAGE.bin] [IMAGE.efi]
 *
 * Packs images into a PCI expansion ROM (PCI Firmware Specification 3.3 §5.1; UEFI 2.10 §14.4.2 for
 * the EFI image). Firmware walks the images in order until the one marked as the last, and takes
 * the one that is for it. The PC-BIOS image, which has its headers in it, comes first: that is
 * where those look that were made before there were others.
 *
 * Exit status: 0 packed; 1 the input is no image that firmware would run; 2 it could not be done.
 */

#define _XOPEN_SOURCE 700
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define UNIT      512u /* what lengths in a ROM are counted in */
#define UNITS_MAX 0xffffu
#define BAD_INPUT 1
#define NOT_DONE  2

/* The PCI data structure follows the ROM header, on a dword. */
#define ROM_HEADER 0x1cu
#define PCIR_BYTES 0x1cu

/* The devices that Baton drives, all of one vendor. The first is the one that the fixed field of
 * the PCI data structure names; its device list names the others. */
#define VENDOR 0x1af4
static const uint16_t devices[] = {
    0x1001, /* virtio-blk, transitional */
    0x1042, /* virtio-blk */
    0x1004, /* virtio-scsi, transitional */
    0x1048, /* virtio-scsi */
    0x1000, /* virtio-net, transitional */
    0x1041, /* virtio-net */
};
#define DEVICES (sizeof(devices) / sizeof(devices[0]))

/* Class code of the device that the ROM names: mass storage, SCSI, as QEMU's virtio-blk says. */
static const uint8_t class_code[3] = {0x00, 0x00, 0x01};

struct bytes {
    uint8_t *data;
    size_t size;
};

static const char *temporary; /* a file to be removed if we fail */

__attribute__((noreturn, format(printf, 2, 3))) static void fail(int status, const char *format,
                                                                 ...)
{
    va_list args;

    va_start(args, format);
    fputs("baton-pack: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    if (temporary)
        unlink(temporary);
    exit(status);
}

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t get32(const uint8_t *at)
{
    return get16(at) | (uint32_t)get16(at + 2) << 16;
}

static void put16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, (uint16_t)value);
    put16(at + 2, (uint16_t)(value >> 16));
}

/* ---- Files ---- */

/* A pipe would be waited for, and a device replaced. */
static void refuse_special(const char *path)
{
    struct stat info;

    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode))
        fail(NOT_DONE, "%s: not a regular file", path);
}

static struct bytes read_file(const char *path)
{
    struct bytes file = {malloc((size_t)UNITS_MAX * UNIT + 1), 0};

    if (!file.data)
        fail(NOT_DONE, "out of memory");
    refuse_special(path);
    FILE *stream = fopen(path, "rb");
    if (!stream)
        fail(NOT_DONE, "%s: %s", path, strerror(errno));
    file.size = fread(file.data, 1, (size_t)UNITS_MAX * UNIT + 1, stream);
    if (ferror(stream))
        fail(NOT_DONE, "%s: cannot be read: %s", path, strerror(errno));
    fclose(stream);
    return file;
}

/* Under another name first: what stands at `path` is a whole ROM at every moment. */
static void write_file(const char *path, struct bytes file)
{
    refuse_special(path);
    /* What a link points to is replaced, not the link. */
    char *real = realpath(path, NULL);
    if (real)
        path = real;
    size_t length = strlen(path) + sizeof(".part");
    char *part = malloc(length);

    if (!part)
        fail(NOT_DONE, "out of memory");
    snprintf(part, length, "%s.part", path);
    FILE *stream = fopen(part, "wb");
    if (!stream)
        fail(NOT_DONE, "%s: cannot be written: %s", path, strerror(errno));
    temporary = part;
    bool written = fwrite(file.data, 1, file.size, stream) == file.size;
    written = fclose(stream) == 0 && written;
    if (!written)
        fail(NOT_DONE, "%s: cannot be written: %s", part, strerror(errno));
    if (rename(part, path) != 0)
        fail(NOT_DONE, "%s: %s", path, strerror(errno));
    temporary = NULL;
    free(part);
    free(real);
}

/* ---- The EFI image ---- */

#define PE_X64              0x8664
#define PE32_PLUS           0x20b
#define EFI_BOOT_DRIVER     11
#define COFF_BYTES          20u
#define OPTIONAL_MIN        112u
#define SECTION_BYTES       40u
#define OPTIONAL_SUBSYSTEM  68u
#define SECTION_RAW_SIZE    16u
#define SECTION_RAW_POINTER 20u

/* Refuses what firmware would refuse, or worse, would run: PE/COFF specification §2 to §4. */
static void check_driver(const char *path, struct bytes file)
{
    if (file.size == 0)
        fail(BAD_INPUT, "%s: the file is empty", path);
    if (file.size > (size_t)UNITS_MAX * UNIT - UNIT)
        fail(BAD_INPUT, "%s: too large for a ROM image", path);
    if (file.size < 0x40 || memcmp(file.data, "MZ", 2) != 0)
        fail(BAD_INPUT, "%s: not a PE image", path);

    uint32_t pe = get32(file.data + 0x3c);
    if (pe > file.size || file.size - pe < 4 + COFF_BYTES + OPTIONAL_MIN ||
        memcmp(file.data + pe, "PE\0\0", 4) != 0)
        fail(BAD_INPUT, "%s: not a PE image, or cut short", path);

    const uint8_t *coff = file.data + pe + 4;
    const uint8_t *optional = coff + COFF_BYTES;
    if (get16(coff) != PE_X64)
        fail(BAD_INPUT, "%s: built for machine 0x%04x, not for x64", path, get16(coff));
    if (get16(optional) != PE32_PLUS)
        fail(BAD_INPUT, "%s: not a PE32+ image", path);
    if (get16(optional + OPTIONAL_SUBSYSTEM) != EFI_BOOT_DRIVER)
        fail(BAD_INPUT, "%s: subsystem %u, not an EFI boot service driver (%u)", path,
             get16(optional + OPTIONAL_SUBSYSTEM), EFI_BOOT_DRIVER);

    size_t sections = (size_t)(optional - file.data) + get16(coff + 16);
    size_t count = get16(coff + 2);
    if (sections > file.size || count > (file.size - sections) / SECTION_BYTES)
        fail(BAD_INPUT, "%s: cut short: its section table is not all there", path);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *section = file.data + sections + i * SECTION_BYTES;
        uint32_t at = get32(section + SECTION_RAW_POINTER);
        uint32_t bytes = get32(section + SECTION_RAW_SIZE);
        if (at > file.size || bytes > file.size - at)
            fail(BAD_INPUT, "%s: cut short: section %zu ends after the file does", path, i);
    }
}

/* Makes room for one more image of so many bytes: zeroes, in whole units. */
static uint8_t *append(struct bytes *rom, size_t bytes)
{
    size_t whole = (bytes + UNIT - 1) / UNIT * UNIT;

    rom->data = realloc(rom->data, rom->size + whole);
    if (!rom->data)
        fail(NOT_DONE, "out of memory");
    uint8_t *image = rom->data + rom->size;
    memset(image, 0, whole);
    rom->size += whole;
    return image;
}

/* ---- The PC-BIOS image ---- */

/* Its length is a byte. */
#define BIOS_UNITS_MAX  0xffu
#define PCIR_POINTER    0x18u
#define CODE_TYPE_BIOS  0
#define BIOS_PCIR_BYTES 0x18u

static void check_bios(const char *path, struct bytes file)
{
    if (file.size <= PCIR_POINTER + 2 || get16(file.data) != 0xaa55)
        fail(BAD_INPUT, "%s: not a PC-BIOS option ROM image", path);
    if (file.size >= (size_t)BIOS_UNITS_MAX * UNIT)
        fail(BAD_INPUT, "%s: too large for a PC-BIOS option ROM image", path);
    size_t at = get16(file.data + PCIR_POINTER);
    if (at + BIOS_PCIR_BYTES > file.size || memcmp(file.data + at, "PCIR", 4) != 0 ||
        file.data[at + 0x14] != CODE_TYPE_BIOS)
        fail(BAD_INPUT, "%s: no PCI data structure of a PC-BIOS image where its header says", path);
}

/* Appends it with its lengths, and a last byte that makes the sum of all of them 0; `last` marks
 * the end of the ROM. */
static void append_bios(struct bytes *rom, struct bytes bios, bool last)
{
    size_t start = rom->size;
    uint8_t *image = append(rom, bios.size + 1);
    size_t bytes = rom->size - start;
    uint8_t sum = 0;

    memcpy(image, bios.data, bios.size);
    uint8_t *pcir = image + get16(image + PCIR_POINTER);
    image[2] = (uint8_t)(bytes / UNIT);
    put16(pcir + 0x10, image[2]);
    pcir[0x15] = last ? 0x80 : 0;
    for (size_t i = 0; i < bytes; i++)
        sum = (uint8_t)(sum + image[i]);
    image[bytes - 1] = (uint8_t)-sum;
}

/* Appends an EFI image to the ROM; `last` marks the end of the ROM. */
static void append_driver(struct bytes *rom, struct bytes driver, bool last)
{
    size_t list = ROM_HEADER + PCIR_BYTES;
    size_t start = (list + 2 * DEVICES + 15u) & ~(size_t)15;
    size_t units = (start + driver.size + UNIT - 1) / UNIT;
    uint8_t *image = append(rom, start + driver.size);
    uint8_t *pcir = image + ROM_HEADER;

    put16(image, 0xaa55);
    put16(image + 2, (uint16_t)units);
    put32(image + 4, 0x0ef1); /* EFI signature */
    put16(image + 8, EFI_BOOT_DRIVER);
    put16(image + 10, PE_X64);
    put16(image + 12, 0); /* not compressed */
    put16(image + 0x16, (uint16_t)start);
    put16(image + 0x18, ROM_HEADER);

    memcpy(pcir, "PCIR", 4);
    put16(pcir + 4, VENDOR);
    put16(pcir + 6, devices[0]);
    put16(pcir + 8, PCIR_BYTES); /* the device list follows */
    put16(pcir + 0x0a, PCIR_BYTES);
    pcir[0x0c] = 3; /* structure revision */
    memcpy(pcir + 0x0d, class_code, sizeof(class_code));
    put16(pcir + 0x10, (uint16_t)units);
    pcir[0x14] = 3; /* code type: EFI */
    pcir[0x15] = last ? 0x80 : 0;

    for (size_t i = 1; i < DEVICES; i++)
        put16(image + list + 2 * (i - 1), devices[i]); /* and a zero ends it */

    memcpy(image + start, driver.data, driver.size);
}

int main(int argc, char **argv)
{
    const char *out = NULL, *bios_path = NULL;
    int option;

    while ((option = getopt(argc, argv, "o:b:")) != -1) {
        if (option == 'o')
            out = optarg;
        else if (option == 'b')
            bios_path = optarg;
        else
            break;
    }
    int images = argc - optind;
    if (option != -1 || !out || !*out || images > 1 || (images == 0 && !bios_path)) {
        fprintf(stderr, "usage: %s -o ROM [-b IMAGE.bin] [IMAGE.efi]\n", argv[0]);
        return NOT_DONE;
    }

    struct bytes driver = {NULL, 0}, rom = {NULL, 0};
    if (images) {
        driver = read_file(argv[optind]);
        check_driver(argv[optind], driver);
    }
    if (bios_path) {
        struct bytes bios = read_file(bios_path);
        check_bios(bios_path, bios);
        append_bios(&rom, bios, !images);
        free(bios.data);
    }
    if (images)
        append_driver(&rom, driver, true);
    write_file(out, rom);
    free(driver.data);
    free(rom.data);
    return 0;
}
