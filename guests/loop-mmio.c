/* SPDX-License-Identifier: GPL-2.0-or-later */
/* loop-mmio: speed: reads of device registers, the UART's LSR and the CLINT's mtime. */
#include "runtime/clint.h"
#include "runtime/uart.h"

#ifndef ITERATIONS
#define ITERATIONS 500000u
#endif

static uint32_t backwards; /* how often mtime went back */

__attribute__((noinline)) static uint32_t hot_loop(uint32_t iterations)
{
    uint32_t sum = 0, before = 0;
    while (iterations--) {
        sum += uart_read(UART_LSR) & (UART_LSR_THRE | UART_LSR_TEMT);
        uint32_t now = read32(CLINT_BASE + CLINT_MTIME);
        backwards += now < before;
        before = now;
    }
    return sum;
}

int main(void)
{
    put_checksum(GUEST, hot_loop(ITERATIONS) + backwards);
    return 0;
}
