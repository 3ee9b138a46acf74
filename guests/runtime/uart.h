/* SPDX-License-Identifier: GPL-2.0-or-later */
/* uart.h: the 16550 UART: its registers, and the output functions of uart.c. */
#ifndef UART_H
#define UART_H

#include "board.h"

#define UART_RBR 0 /* receiver buffer (read) */
#define UART_THR 0 /* transmitter holding (write) */
#define UART_IER 1 /* interrupt enable */
#define UART_IIR 2 /* interrupt identification (read) */
#define UART_FCR 2 /* FIFO control (write) */
#define UART_LSR 5 /* line status */

#define UART_IER_ERBFI 0x01 /* received data available */
#define UART_IER_ETBEI 0x02 /* transmitter holding register empty */
#define UART_FCR_ENABLE 0x01
#define UART_LSR_DR 0x01   /* data ready */
#define UART_LSR_THRE 0x20 /* transmitter holding register empty */
#define UART_LSR_TEMT 0x40 /* transmitter empty */

#define UART_IRQ 10 /* its source number at the PLIC */

static inline uint8_t uart_read(uint32_t reg) { return read8(UART_BASE + reg); }
static inline void uart_write(uint32_t reg, uint8_t value) { write8(UART_BASE + reg, value); }

void put_char(char c);
void put_text(const char *text);
void put_unsigned(uint32_t value);
void put_column(uint32_t value, int width); /* right-aligned in `width` columns */
void put_hex(uintptr_t value);              /* at the width of a register */
void put_hex32(uint32_t value);
void put_hex64(uint64_t value);
void put_checksum(const char *name, uint32_t value); /* "name 0x...\n" */

#endif
