/* SPDX-License-Identifier: GPL-2.0-or-later */
/* string.c: bytes and texts; memcpy and memset by name, since the compiler calls them too. */
#include "kernel.h"

void *memcpy(void *to, const void *from, size_t size)
{
    uint8_t *d = to;
    const uint8_t *s = from;
    if ((((uintptr_t)d | (uintptr_t)s) & 7) == 0) /* whole pages, mostly */
        for (; size >= 8; size -= 8, d += 8, s += 8)
            *(uint64_t *)d = *(const uint64_t *)s;
    while (size--)
        *d++ = *s++;
    return to;
}

void *memset(void *to, int byte, size_t size)
{
    uint8_t *d = to;
    uint64_t word = (uint8_t)byte * 0x0101010101010101ul;
    if (((uintptr_t)d & 7) == 0)
        for (; size >= 8; size -= 8, d += 8)
            *(uint64_t *)d = word;
    while (size--)
        *d++ = (uint8_t)byte;
    return to;
}

int memcmp(const void *a, const void *b, size_t size)
{
    const uint8_t *x = a, *y = b;
    for (; size; size--, x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}

size_t text_length(const char *text)
{
    size_t length = 0;
    while (text[length])
        length++;
    return length;
}

bool text_equal(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

/* As much as there is room for, and a 0. */
void text_copy(char *to, const char *from, size_t room)
{
    while (room > 1 && *from) {
        *to++ = *from++;
        room--;
    }
    *to = 0;
}
