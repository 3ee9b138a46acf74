/* SPDX-License-Identifier: GPL-2.0-or-later */
/* loop-tick: speed: timer interrupts by stimecmp, one every ten ticks, with a small handler in supervisor mode. */
#include "supervisor.h"

#ifndef ITERATIONS
#define ITERATIONS 100000u
#endif

int main(void)
{
    enter_supervisor();
    put_checksum(GUEST, (uint32_t)tick_loop(ITERATIONS, 10));
    return 0;
}
