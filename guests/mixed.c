/* SPDX-License-Identifier: GPL-2.0-or-later */
/* mixed: a hot loop whose code and data share one page: it stores to its own page, but never to its code. */
#include "runtime/uart.h"

#ifndef ITERATIONS
#define ITERATIONS 200000u
#endif

/* mixed-page.S */
uint32_t mixed_loop(uint32_t iterations);

int main(void)
{
    put_checksum(GUEST, mixed_loop(ITERATIONS));
    return 0;
}
