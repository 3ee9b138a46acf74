/* SPDX-License-Identifier: GPL-2.0-or-later */
/* start.S: the first instructions: stack, trap vector, cleared bss, main, power off with main's result. */
#include "registers.h"

    .section .text.start, "ax"
    .globl _start
    .type _start, @function
_start:
    .option push
    .option norelax
    la gp, __global_pointer$
    .option pop
    la sp, __stack_top
    la t0, start_trap
    csrw mtvec, t0
#ifdef __riscv_flen
    li t0, 0x2000               /* mstatus.FS = initial: floating point on */
    csrs mstatus, t0
    csrw fcsr, zero
#endif
    la t0, __bss_start
    la t1, __bss_end
    bgeu t0, t1, 2f
1:  STORE zero, 0(t0)
    addi t0, t0, WORD
    bltu t0, t1, 1b
2:  call main
    call finish
    .size _start, . - _start

    /* Until a guest sets its own vector, a trap is a failure: say so and power off with 3. */
    .balign 4
    .type start_trap, @function
start_trap:
    csrr a0, mcause
    csrr a1, mepc
    csrr a2, mtval
    call unexpected_trap
    .size start_trap, . - start_trap
