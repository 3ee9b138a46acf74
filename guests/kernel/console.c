/* SPDX-License-Identifier: GPL-2.0-or-later */
/* console.c: the 16550 UART: output by waiting, input by interrupts, with line editing. */
#include "kernel.h"

enum { DATA = 0, IER = 1, FCR = 2, LCR = 3, LSR = 5 };
#define IER_RECEIVE 1
#define FCR_ENABLE 1
#define LCR_8_BITS 3
#define LSR_RECEIVED 0x01
#define LSR_CAN_SEND 0x20

#define CONTROL(letter) ((letter) - '@')
#define ROOM 256

/*
 *   line: what has been typed         taken <= ended <= typed, all modulo ROOM
 *
 *   | taken by programs | lines that are complete | the line that can still be edited |
 *                       taken                     ended                               typed
 */
static char line[ROOM];
static unsigned taken, ended, typed;

void console_init(void)
{
    write8(UART + LCR, LCR_8_BITS);
    write8(UART + FCR, FCR_ENABLE);
    write8(UART + IER, IER_RECEIVE);
}

void console_put(char c)
{
    if (!csr_read(satp)) /* before vm_init(): the UART is at its physical address */
        return (void)(*(volatile uint8_t *)(UART - DEVICES) = (uint8_t)c);
    if (c == '\n')
        console_put('\r');
    while (!(read8(UART + LSR) & LSR_CAN_SEND))
        ;
    write8(UART + DATA, (uint8_t)c);
}

static void rub_out(void)
{
    typed--;
    console_put('\b');
    console_put(' ');
    console_put('\b');
}

static void type(char c)
{
    switch (c) {
    case CONTROL('P'): process_list(); return;
    case CONTROL('U'):
        while (typed != ended)
            rub_out();
        return;
    case '\b':
    case 0x7f:
        if (typed != ended)
            rub_out();
        return;
    case '\r': c = '\n'; break;
    }
    if (typed - taken == ROOM)
        return; /* nobody reads: the key is lost */
    if (c != CONTROL('D'))
        console_put(c);
    line[typed++ % ROOM] = c;
    if (c == '\n' || c == CONTROL('D') || typed - taken == ROOM) {
        ended = typed;
        wake(line);
    }
}

void console_interrupt(void)
{
    while (read8(UART + LSR) & LSR_RECEIVED)
        type((char)read8(UART + DATA));
}

/* Up to the end of a line. 0: ctrl-d was pressed, the end of the input. */
int console_read(char *to, int room)
{
    int size = 0;
    while (taken == ended)
        sleep_on(line);
    while (size < room && taken != ended) {
        char c = line[taken % ROOM];
        if (c == CONTROL('D')) {
            if (!size)
                taken++; /* after some bytes it stays, and the next read returns 0 */
            break;
        }
        taken++;
        to[size++] = c;
        if (c == '\n')
            break;
    }
    return size;
}
