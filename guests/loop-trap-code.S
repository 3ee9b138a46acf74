/* SPDX-License-Identifier: GPL-2.0-or-later */
/* loop-trap-code.S: part of loop-trap: a loop of ecalls and their handler. */

    .section .text.loop_trap, "ax"
    .balign 4
    .type ecall_handler, @function
ecall_handler:                  /* a1 += a0 */
    csrw mscratch, t0
    csrr t0, mepc
    addi t0, t0, 4
    csrw mepc, t0
    add a1, a1, a0
    csrr t0, mscratch
    mret
    .size ecall_handler, . - ecall_handler

    /* uint32_t ecall_loop(a0 = iterations): the sum 1 .. iterations, added up by the handler */
    .globl ecall_loop
    .type ecall_loop, @function
ecall_loop:
    la t0, ecall_handler
    csrrw t1, mtvec, t0
    li a1, 0
1:  ecall
    addi a0, a0, -1
    bnez a0, 1b
    csrw mtvec, t1
    mv a0, a1
    ret
    .size ecall_loop, . - ecall_loop
