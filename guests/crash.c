/* SPDX-License-Identifier: GPL-2.0-or-later */
/* crash: greets who is named on the console; a long name smashes the stack, and the return goes where the input says. */
#include "runtime/finisher.h"
#include "runtime/uart.h"

__attribute__((interrupt("machine"), aligned(4))) static void on_trap(void)
{
    put_text("crash: mcause ");
    put_hex(csr_read(mcause));
    put_text(" mepc ");
    put_hex(csr_read(mepc));
    put_text(" mtval ");
    put_hex(csr_read(mtval));
    put_char('\n');
    power_off(2);
}

static char read_char(void)
{
    while (!(uart_read(UART_LSR) & UART_LSR_DR))
        ;
    return (char)uart_read(UART_RBR);
}

/* The bug, that of gets(): nobody says how long `line` may become. */
__attribute__((noinline)) static void read_line(char *line)
{
    for (;;) {
        char c = read_char();
        if (c == '\n' || c == '\r')
            break;
        *line++ = c;
    }
    *line = 0;
}

__attribute__((noinline)) static void greet(void)
{
    char name[16];
    put_text("name? ");
    read_line(name);
    put_text("hello, ");
    put_text(name);
    put_char('\n');
}

int main(void)
{
    csr_write(mtvec, on_trap);
    greet();
    return 0;
}
