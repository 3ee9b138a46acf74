/* SPDX-License-Identifier: GPL-2.0-or-later */
/* uart.c: polled output of text and numbers: waits for LSR.THRE before every byte. */
#include "uart.h"

void put_char(char c)
{
    while (!(uart_read(UART_LSR) & UART_LSR_THRE))
        ;
    uart_write(UART_THR, (uint8_t)c);
}

void put_text(const char *text)
{
    while (*text)
        put_char(*text++);
}

void put_unsigned(uint32_t value)
{
    char digits[10];
    int n = 0;
    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    while (n)
        put_char(digits[--n]);
}

void put_column(uint32_t value, int width)
{
    for (uint32_t rest = value; rest >= 10; rest /= 10)
        width--;
    while (--width > 0)
        put_char(' ');
    put_unsigned(value);
}

static void put_hex_digits(uint64_t value, int digits)
{
    put_text("0x");
    for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4)
        put_char("0123456789abcdef"[(value >> shift) & 15]);
}

/* put_hex: 8 digits on RV32, 16 on RV64. */
void put_hex(uintptr_t value) { put_hex_digits(value, (int)sizeof value * 2); }
void put_hex32(uint32_t value) { put_hex_digits(value, 8); }
void put_hex64(uint64_t value) { put_hex_digits(value, 16); }

void put_checksum(const char *name, uint32_t value)
{
    put_text(name);
    put_char(' ');
    put_hex32(value);
    put_char('\n');
}
