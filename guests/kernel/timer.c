/* SPDX-License-Identifier: GPL-2.0-or-later */
/* timer.c: one deadline, by the hart's own register if it has it, else by the firmware. */
#include "kernel.h"

/* The timer interrupt is pending as long as time >= when. */
void timer_set(uint64_t when)
{
    if (machine.sstc)
        csr_write(0x14d, when); /* stimecmp, of the extension Sstc */
    else
        sbi_set_timer(when);
}

uint64_t milliseconds(void) { return time_now() / (machine.timebase / 1000); }
