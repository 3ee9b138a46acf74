/* SPDX-License-Identifier: GPL-2.0-or-later */
/* loop-branchy: speed: branches that depend on pseudo-random data. */
#include "runtime/uart.h"

#ifndef ITERATIONS
#define ITERATIONS 40000000u
#endif

static inline void keep(void) { __asm__ volatile("" : : : "memory"); } /* no branch may become arithmetic */

__attribute__((noinline)) static uint32_t hot_loop(uint32_t iterations)
{
    uint32_t x = 12345, sum = 0;
    while (iterations--) {
        x = x * 1664525u + 1013904223u;
        if (x & 0x80000000u) {
            sum += x >> 7;
            keep();
        } else {
            sum ^= x;
            keep();
        }
        if ((x & 0x00300000u) == 0) {
            sum = sum << 1 | sum >> 31;
            keep();
        }
        if ((x >> 24 & 7) < 3) {
            sum += 3;
            keep();
        } else if ((x >> 27 & 3) == 1) {
            sum -= x;
            keep();
        }
    }
    return sum;
}

int main(void)
{
    put_checksum(GUEST, hot_loop(ITERATIONS));
    return 0;
}
