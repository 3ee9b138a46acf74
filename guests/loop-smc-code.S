/* SPDX-License-Identifier: GPL-2.0-or-later */
/* loop-smc-code.S: part of loop-smc: the loop that patches itself. */

    .section .rwx.loop_smc, "awx"
    .balign 4096
    .globl patch_loop
    .type patch_loop, @function
patch_loop:
    mv a1, a0                   /* rounds to go */
    li a0, 0
    li a2, 0                    /* i */
    la t0, 2f
    lw t1, 0(t0)
1:  andi t2, a2, 1023
    slli t2, t2, 20
    add t2, t2, t1
    sw t2, 0(t0)
    fence.i
    addi a2, a2, 1
2:  addi a0, a0, 0              /* its immediate is what is patched */
    bne a2, a1, 1b
    sw t1, 0(t0)
    ret
    .size patch_loop, . - patch_loop
    .balign 4096
