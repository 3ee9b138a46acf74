/* SPDX-License-Identifier: GPL-2.0-or-later */
/* loop-smc: speed: patches an instruction of the loop in every round, with fence.i. */
#include "runtime/uart.h"

#ifndef ITERATIONS
#define ITERATIONS 100000u
#endif

/* loop-smc-code.S: the sum of i modulo 1024 over that many rounds, by adding an immediate patched each time. */
uint32_t patch_loop(uint32_t iterations);

int main(void)
{
    put_checksum(GUEST, patch_loop(ITERATIONS));
    return 0;
}
