/* SPDX-License-Identifier: GPL-2.0-or-later */
/* loop-trap: speed: ecalls with a small handler. */
#include "runtime/uart.h"

#ifndef ITERATIONS
#define ITERATIONS 1000000u
#endif

/* loop-trap-code.S: does that many ecalls; the handler adds up what it is given. */
uint32_t ecall_loop(uint32_t iterations);

int main(void)
{
    put_checksum(GUEST, ecall_loop(ITERATIONS));
    return 0;
}
