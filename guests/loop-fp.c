/* SPDX-License-Identifier: GPL-2.0-or-later */
/* loop-fp: speed: double and single precision arithmetic: add, multiply, divide, convert, compare. */
#include "runtime/uart.h"

#ifndef ITERATIONS
#define ITERATIONS 10000000u
#endif

__attribute__((noinline)) static uint64_t hot_loop(uint32_t iterations)
{
    double x = 0.5, y = 0.25, z = 1.0;
    float f = 1.5f;
    for (uint32_t i = 0; i < iterations; i++) {
        double step = (double)(int32_t)(i & 255) * 0.0078125;
        x = x * 0.75 + step;
        y = y * 0.5 - x * 0.25 + z;
        z = z / (1.0 + x * x) + y * 0.125;
        f = f * 0.75f + (float)y;
        if (y > 1.0)
            y = y * 0.5 - 1.0;
    }
    union {
        double number;
        uint64_t bits;
    } result = {.number = x + y + z + (double)f};
    return result.bits;
}

int main(void)
{
    put_text(GUEST);
    put_char(' ');
    put_hex64(hot_loop(ITERATIONS));
    put_char('\n');
    return 0;
}
