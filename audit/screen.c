/* SPDX-License-Identifier: BSD-2-Clause-Patent */
#include "audit/screen.h"
#include "audit/protocol/hii_font.h"

enum { LETTER_FIRST = 0x20, LETTERS = 0x5f, LETTER_WIDTH = 8, LETTER_HEIGHT = 19 };

/* One byte a row, the leftmost dot in the highest bit. */
static uint8_t letters[LETTERS][LETTER_HEIGHT];

static struct {
    volatile uint32_t *dots; /* NULL: no screen */
    uint64_t base, size;
    uint32_t pitch, columns, rows; /* in dots, letters, letters */
    uint32_t column, row;
} screen;

static uint32_t background; /* of the firmware's letters: the first dot of a space */

static bool letter_find(const EFI_HII_FONT_PROTOCOL *font, unsigned i)
{
    EFI_IMAGE_OUTPUT *image = NULL;

    if (EFI_ERROR(font->GetGlyph(font, (CHAR16)(LETTER_FIRST + i), NULL, &image, NULL)))
        return false;
    for (unsigned y = 0; y < image->Height && y < LETTER_HEIGHT; y++) {
        for (unsigned x = 0; x < image->Width && x < LETTER_WIDTH; x++) {
            uint32_t dot;
            memcpy(&dot, &image->Bitmap[y * image->Width + x], sizeof(dot));
            if (i == 0 && x == 0 && y == 0)
                background = dot;
            if (dot != background)
                letters[i][y] |= (uint8_t)(0x80u >> x);
        }
    }
    app.bs->FreePool(image->Bitmap);
    app.bs->FreePool(image);
    return true;
}

/* The first with four bytes a dot, of which white is all ones in either order of the colours: what
 * only copies to others has no frame buffer of its own. */
static EFI_GRAPHICS_OUTPUT_PROTOCOL *graphics_find(void)
{
    static const EFI_GUID graphics_guid = EFI_GRAPHICS_OUTPUT_PROTOCOL_GUID;
    EFI_HANDLE handles[16];
    size_t count = app_handles(&graphics_guid, handles, 16);

    for (size_t i = 0; i < count; i++) {
        EFI_GRAPHICS_OUTPUT_PROTOCOL *graphics = app_protocol(handles[i], &graphics_guid);
        if (graphics != NULL && graphics->Mode != NULL && graphics->Mode->Info != NULL &&
            graphics->Mode->FrameBufferBase != 0 &&
            (graphics->Mode->Info->PixelFormat == PixelRedGreenBlueReserved8BitPerColor ||
             graphics->Mode->Info->PixelFormat == PixelBlueGreenRedReserved8BitPerColor))
            return graphics;
    }
    return NULL;
}

void screen_find(void)
{
    static const EFI_GUID font_guid = EFI_HII_FONT_PROTOCOL_GUID;
    EFI_GRAPHICS_OUTPUT_PROTOCOL *graphics = graphics_find();
    EFI_HII_FONT_PROTOCOL *font = app_locate(&font_guid);

    if (graphics == NULL || font == NULL)
        return;
    const EFI_GRAPHICS_OUTPUT_MODE_INFORMATION *mode = graphics->Mode->Info;
    for (unsigned i = 0; i < LETTERS; i++)
        if (!letter_find(font, i))
            return;
    screen.base = graphics->Mode->FrameBufferBase;
    screen.size = graphics->Mode->FrameBufferSize;
    screen.pitch = mode->PixelsPerScanLine;
    screen.columns = mode->HorizontalResolution / LETTER_WIDTH;
    screen.rows = mode->VerticalResolution / LETTER_HEIGHT;
    if (screen.columns == 0 || screen.rows == 0 || screen.pitch < mode->HorizontalResolution ||
        (uint64_t)screen.pitch * mode->VerticalResolution * 4 > screen.size)
        return;
    screen.dots = (volatile uint32_t *)(uintptr_t)screen.base;
    screen_clear();
}

void screen_memory(uint64_t *base, uint64_t *size)
{
    *base = screen.base;
    *size = screen.dots != NULL ? screen.size : 0;
}

static void draw(uint32_t column, uint32_t row, char c)
{
    const uint8_t *letter = letters[(unsigned char)c - LETTER_FIRST];

    for (uint32_t y = 0; y < LETTER_HEIGHT; y++)
        for (uint32_t x = 0; x < LETTER_WIDTH; x++)
            screen.dots[(row * LETTER_HEIGHT + y) * screen.pitch + column * LETTER_WIDTH + x] =
                letter[y] & 0x80u >> x ? 0xffffffffu : 0;
}

static void clear_row(uint32_t row)
{
    for (uint32_t column = 0; column < screen.columns; column++)
        draw(column, row, ' ');
}

/* At the bottom it goes on at the top: to scroll would be to read the frame buffer, which takes
 * seconds a page on real machines. */
static void next_row(void)
{
    screen.column = 0;
    screen.row = (screen.row + 1) % screen.rows;
    clear_row(screen.row);
}

void screen_put(char c)
{
    if (screen.dots == NULL)
        return;
    if (c == '\n') {
        next_row();
        return;
    }
    if (screen.column == screen.columns)
        next_row();
    draw(screen.column++, screen.row, c < LETTER_FIRST || c >= LETTER_FIRST + LETTERS ? '?' : c);
}

void screen_clear(void)
{
    if (screen.dots == NULL)
        return;
    for (uint32_t row = 0; row < screen.rows; row++)
        clear_row(row);
    screen.column = screen.row = 0;
}
