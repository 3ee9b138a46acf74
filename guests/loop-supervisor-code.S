/* SPDX-License-Identifier: GPL-2.0-or-later */
/* loop-supervisor-code.S: part of loop-fault and loop-tick: their loops and handlers, in supervisor mode. */

    .section .text.loop_fault, "ax"
    .balign 4
    .type fault_handler, @function
fault_handler:                  /* a2 += a0, and behind the instruction, which has four bytes */
    csrr t0, sepc
    addi t0, t0, 4
    csrw sepc, t0
    add a2, a2, a0
    sret
    .size fault_handler, . - fault_handler

    /* uint64_t fault_loop(a0 = iterations, a1 = address where no page is): the sum 1 .. iterations */
    .globl fault_loop
    .type fault_loop, @function
fault_loop:
    la t0, fault_handler
    csrw stvec, t0
    li a2, 0
    .option push
    .option norvc
1:  lw t1, 0(a1)
    .option pop
    addi a0, a0, -1
    bnez a0, 1b
    mv a0, a2
    ret
    .size fault_loop, . - fault_loop

    .section .text.loop_tick, "ax"
    .balign 4
    .type tick_handler, @function
tick_handler:                   /* a2 += a0-- and the next deadline a1 ticks from now, none at the end */
    add a2, a2, a0
    addi a0, a0, -1
    csrr t0, time
    add t0, t0, a1
    bgtz a0, 1f
    li t0, -1
1:  csrw 0x14d, t0              /* stimecmp */
    sret
    .size tick_handler, . - tick_handler

    /* uint64_t tick_loop(a0 = iterations, a1 = ticks): the sum 1 .. iterations */
    .globl tick_loop
    .type tick_loop, @function
tick_loop:
    la t0, tick_handler
    csrw stvec, t0
    li a2, 0
    li t1, 0x20                 /* sie.STIE */
    csrw sie, t1
    csrw 0x14d, zero
    csrsi sstatus, 2            /* SIE */
1:  addi t1, t1, 1              /* as much as loop-reg does between two branches */
    addi t2, t2, 2
    addi t3, t3, 3
    addi t4, t4, 4
    addi t5, t5, 5
    addi t6, t6, 6
    xor a3, a3, t1
    bgtz a0, 1b
    csrci sstatus, 2
    mv a0, a2
    ret
    .size tick_loop, . - tick_loop
