/* SPDX-License-Identifier: GPL-2.0-or-later */
/* loop-reg: speed: a loop that touches registers only. */
#include "runtime/uart.h"

#ifndef ITERATIONS
#define ITERATIONS 100000000u
#endif

__attribute__((noinline)) static uint32_t hot_loop(uint32_t iterations)
{
    uint32_t a = 1, b = 2, c = 3;
    for (uint32_t i = 0; i < iterations; i++) {
        a += b ^ i;
        b = (b << 1) - c;
        c ^= a + b;
    }
    return a ^ b ^ c;
}

int main(void)
{
    put_checksum(GUEST, hot_loop(ITERATIONS));
    return 0;
}
