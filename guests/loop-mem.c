/* SPDX-License-Identifier: GPL-2.0-or-later */
/* loop-mem: speed: loads and stores that walk over 256 KiB. */
#include "runtime/uart.h"

#ifndef ITERATIONS
#define ITERATIONS 70000000u
#endif
#define WORDS (256u * 1024 / sizeof(uintptr_t))

static uintptr_t data[WORDS + 1] __attribute__((aligned(4096)));

/* Two loads and one store an iteration, at an address that visits every word. */
__attribute__((noinline)) static uintptr_t hot_loop(uint32_t iterations)
{
    uintptr_t sum = 1;
    uintptr_t offset = 0;
    while (iterations--) {
        uintptr_t *at = (uintptr_t *)((uintptr_t)data + offset);
        sum += at[0] ^ at[1];
        at[0] = sum;
        offset = (offset + 17 * sizeof(uintptr_t)) & ((WORDS - 1) * sizeof(uintptr_t));
    }
    return sum;
}

int main(void)
{
    uintptr_t sum = hot_loop(ITERATIONS);
    put_text(GUEST " ");
    put_hex(sum);
    put_char('\n');
    return 0;
}
