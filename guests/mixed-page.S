/* SPDX-License-Identifier: GPL-2.0-or-later */
/* mixed-page.S: part of mixed and loop-mixed: one page with a loop and the eight words that it works on. */

    .section .rwx.mixed, "awx"
    .balign 4096
mixed_words:
    .word 1, 2, 3, 4, 5, 6, 7, 8

    /* uint32_t mixed_loop(a0 = iterations): ten instructions each, with one load and one store. */
    .globl mixed_loop
    .type mixed_loop, @function
mixed_loop:
    la a1, mixed_words
    li a2, 0                    /* offset of the word */
    li a3, 1                    /* checksum */
1:  add a4, a1, a2
    lw a5, 0(a4)
    add a3, a3, a5
    slli a6, a3, 3
    xor a3, a3, a6
    sw a3, 0(a4)
    addi a2, a2, 12
    andi a2, a2, 28
    addi a0, a0, -1
    bnez a0, 1b
    mv a0, a3
    ret
    .size mixed_loop, . - mixed_loop
    .balign 4096
