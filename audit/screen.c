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

static bool letter_find(const EFI_HII_FONT_PROTOCOL *font, unsigned i)
{
    EFI_IMAGE_OUTPUT *image = NULL;

    if (EFI_ERROR(font->GetGlyph(font, (CHAR16)(LETTER_FIRST + i), NULL, &image, NULL)))
        return false;
    for (unsigned y = 0; y < image->Height && y < LETTER_HEIGHT; y++) {
        for (unsigned x = 0; x < image->Width && x < LETTER_WIDTH; x++) {
            /* Whatever is not the background of the first dot of a space is ink: its own colours
             * are of no interest. */
            EFI_GRAPHICS_OUTPUT_BLT_PIXEL dot = image->Bitmap[y * image->Width + x];
            if (dot.Red | dot.Green | dot.Blue)
                letters[i][y] |= (uint8_t)(0x80u >> x);
        }
    }
    app.bs->FreePool(image->Bitmap);
    app.bs->FreePool(image);
    return true;
}

void screen_find(void)
{
    static const EFI_GUID graphics_guid = EFI_GRAPHICS_OUTPUT_PROTOCOL_GUID;
    static const EFI_GUID font_guid = EFI_HII_FONT_PROTOCOL_GUID;
    EFI_GRAPHICS_OUTPUT_PROTOCOL *graphics = app_locate(&graphics_guid);
    EFI_HII_FONT_PROTOCOL *font = app_locate(&font_guid);

    if (graphics == NULL || font == NULL || graphics->Mode == NULL)
        return;
    const EFI_GRAPHICS_OUTPUT_MODE_INFORMATION *mode = graphics->Mode->Info;

    /* Four bytes a dot, of which white is all ones in either order of the colours. */
    if (mode->PixelFormat != PixelRedGreenBlueReserved8BitPerColor &&
        mode->PixelFormat != PixelBlueGreenRedReserved8BitPerColor)
        return;
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
