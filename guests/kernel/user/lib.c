/* SPDX-License-Identifier: GPL-2.0-or-later */
/* lib.c: texts and printing for programs. */
#include "user.h"

#include <stdarg.h>

size_t text_length(const char *text)
{
    size_t length = 0;
    while (text[length])
        length++;
    return length;
}

int text_equal(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

unsigned number_of(const char *text, unsigned otherwise)
{
    unsigned value = 0;
    if (!text || !*text)
        return otherwise;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return otherwise;
        value = value * 10 + (unsigned)(*text - '0');
    }
    return value;
}

void *memset(void *to, int byte, size_t size)
{
    for (unsigned char *at = to; size; size--)
        *at++ = (unsigned char)byte;
    return to;
}

void *memcpy(void *to, const void *from, size_t size)
{
    unsigned char *d = to;
    for (const unsigned char *s = from; size; size--)
        *d++ = *s++;
    return to;
}

/* One write for all that a print() says: so lines of several processes do not mix. */
struct text {
    char byte[160];
    size_t size;
};

static void put(struct text *text, char c)
{
    if (text->size < sizeof text->byte)
        text->byte[text->size++] = c;
}

static void put_number(struct text *text, unsigned value, unsigned base)
{
    char digits[10];
    int n = 0;
    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    while (n)
        put(text, digits[--n]);
}

static void put_list(struct text *text, const char *format, va_list arguments)
{
    for (; *format; format++) {
        if (*format != '%') {
            put(text, *format);
            continue;
        }
        switch (*++format) {
        case 's':
            for (const char *s = va_arg(arguments, const char *); *s; s++)
                put(text, *s);
            break;
        case 'c': put(text, (char)va_arg(arguments, int)); break;
        case 'd': {
            int value = va_arg(arguments, int);
            if (value < 0)
                put(text, '-');
            put_number(text, value < 0 ? -(unsigned)value : (unsigned)value, 10);
            break;
        }
        case 'u': put_number(text, va_arg(arguments, unsigned), 10); break;
        case 'x': put_number(text, va_arg(arguments, unsigned), 16); break;
        default: put(text, '%'); put(text, *format);
        }
    }
}

void print(const char *format, ...)
{
    struct text text = {.size = 0};
    va_list arguments;
    va_start(arguments, format);
    put_list(&text, format, arguments);
    va_end(arguments);
    write(1, text.byte, text.size);
}

void fail(const char *what)
{
    print("failed: %s\n", what);
    exit(1);
}
