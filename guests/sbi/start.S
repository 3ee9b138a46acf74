/* SPDX-License-Identifier: GPL-2.0-or-later */
/* start.S: from the firmware's jump to main(hart id, device tree), and the way through a trap. */
#include "../runtime/registers.h"

    .section .text.start, "ax"
    .globl _start
    .type _start, @function
_start:
    .option push
    .option norelax
    la gp, __global_pointer$
    .option pop
    la sp, __stack_top
    la t0, trap_entry
    csrw stvec, t0
    la t0, __bss_start
    la t1, __bss_end
    bgeu t0, t1, 2f
1:  STORE zero, 0(t0)
    addi t0, t0, WORD
    bltu t0, t1, 1b
2:  call main
3:  wfi
    j 3b
    .size _start, . - _start

    /* The caller-saved registers, since whoever was interrupted is C; trap() says where to go on. */
    .balign 4
    .type trap_entry, @function
trap_entry:
    addi sp, sp, -16 * WORD
    STORE ra, 0 * WORD(sp)
    STORE t0, 1 * WORD(sp)
    STORE t1, 2 * WORD(sp)
    STORE t2, 3 * WORD(sp)
    STORE a0, 4 * WORD(sp)
    STORE a1, 5 * WORD(sp)
    STORE a2, 6 * WORD(sp)
    STORE a3, 7 * WORD(sp)
    STORE a4, 8 * WORD(sp)
    STORE a5, 9 * WORD(sp)
    STORE a6, 10 * WORD(sp)
    STORE a7, 11 * WORD(sp)
    STORE t3, 12 * WORD(sp)
    STORE t4, 13 * WORD(sp)
    STORE t5, 14 * WORD(sp)
    STORE t6, 15 * WORD(sp)
    csrr a0, scause
    csrr a1, sepc
    csrr a2, stval
    call trap
    csrw sepc, a0
    LOAD ra, 0 * WORD(sp)
    LOAD t0, 1 * WORD(sp)
    LOAD t1, 2 * WORD(sp)
    LOAD t2, 3 * WORD(sp)
    LOAD a0, 4 * WORD(sp)
    LOAD a1, 5 * WORD(sp)
    LOAD a2, 6 * WORD(sp)
    LOAD a3, 7 * WORD(sp)
    LOAD a4, 8 * WORD(sp)
    LOAD a5, 9 * WORD(sp)
    LOAD a6, 10 * WORD(sp)
    LOAD a7, 11 * WORD(sp)
    LOAD t3, 12 * WORD(sp)
    LOAD t4, 13 * WORD(sp)
    LOAD t5, 14 * WORD(sp)
    LOAD t6, 15 * WORD(sp)
    addi sp, sp, 16 * WORD
    sret
    .size trap_entry, . - trap_entry

    /* Where a hart that kept nothing wakes up: a0 = hart id, a1 = what it was given to take along. */
    .globl wake_entry
    .type wake_entry, @function
wake_entry:
    .option push
    .option norelax
    la gp, __global_pointer$
    .option pop
    la sp, __stack_top
    call woken
    .size wake_entry, . - wake_entry
