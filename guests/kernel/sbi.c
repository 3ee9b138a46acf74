/* SPDX-License-Identifier: GPL-2.0-or-later */
/* sbi.c: calls of the firmware in machine mode, as the RISC-V SBI specification 1.0 has them. */
#include "kernel.h"

#define EXTENSION_TIME 0x54494d45ul         /* "TIME" */
#define EXTENSION_SYSTEM_RESET 0x53525354ul /* "SRST" */

/* An ecall from supervisor mode goes to the firmware as one from user mode comes to us. */
static int64_t call(uint64_t extension, uint64_t function, uint64_t argument0, uint64_t argument1)
{
    register uint64_t a0 __asm__("a0") = argument0;
    register uint64_t a1 __asm__("a1") = argument1;
    register uint64_t a6 __asm__("a6") = function;
    register uint64_t a7 __asm__("a7") = extension;
    __asm__ volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a6), "r"(a7) : "memory");
    return (int64_t)a0;
}

void sbi_set_timer(uint64_t when) { call(EXTENSION_TIME, 0, when, 0); }

void power_off(int status)
{
    call(EXTENSION_SYSTEM_RESET, 0, 0, status ? 1 : 0); /* shut down; reason: none, or system failure */
    for (;;)
        wait_for_interrupt();
}
