/* SPDX-License-Identifier: GPL-2.0-or-later */
/* loop-fault: speed: page faults, delegated to a small handler in supervisor mode. */
#include "supervisor.h"

#ifndef ITERATIONS
#define ITERATIONS 1000000u
#endif

int main(void)
{
    enter_supervisor();
    put_checksum(GUEST, (uint32_t)fault_loop(ITERATIONS, NOWHERE));
    return 0;
}
