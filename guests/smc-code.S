/* SPDX-License-Identifier: GPL-2.0-or-later */
/* smc-code.S: part of smc and smc-nofence: the code that is patched, with or without fence.i behind the store. */

    .macro fence_if_wanted
#ifndef NO_FENCE
    fence.i
#endif
    .endm

    .macro function name:req
    .globl \name
    .type \name, @function
\name:
    .endm

    .macro end name:req
    .size \name, . - \name
    .endm

    .section .rwx.smc, "awx"
    .balign 4096

    function patched_function
    .globl patched_word
patched_word:
    li a0, 0
    ret
    end patched_function

    /* a0 is the whole new instruction */
    function patch_later
    la t0, 1f
    sw a0, 0(t0)
    fence_if_wanted
    addi t1, zero, 1
    addi t2, t1, 1
1:  li a0, 0
    ret
    end patch_later

    function patch_next
    la t0, 1f
    sw a0, 0(t0)
    fence_if_wanted
1:  li a0, 0
    ret
    end patch_next

    /* a0 is the upper half of addi a0, zero, immediate */
    function patch_half
    la t0, 1f
    sh a0, 2(t0)
    fence_if_wanted
    nop
1:  li a0, 0
    ret
    end patch_half

    /* a0 is the top byte of it: bits 11:4 of the immediate */
    function patch_byte
    la t0, 1f
    sb a0, 3(t0)
    fence_if_wanted
    nop
1:  li a0, 0
    ret
    end patch_byte

    /* a0 is the upper half of the first instruction and the lower half of the second */
    function patch_two
    la t0, 1f
    sw a0, 2(t0)
    fence_if_wanted
    nop
1:  li a0, 0
    addi a0, a0, 1
    ret
    end patch_two

    /* Round i patches the loop to add i: the sum of 0 .. rounds - 1. */
    function patch_loop
    mv a1, a0
    li a0, 0
    li a2, 0                    /* i */
    la t0, 2f
    lw t1, 0(t0)
1:  slli t2, a2, 20
    add t2, t2, t1
    sw t2, 0(t0)
    fence_if_wanted
2:  addi a0, a0, 0
    addi a2, a2, 1
    blt a2, a1, 1b
    sw t1, 0(t0)
    ret
    end patch_loop

    .balign 4096
    .skip 4092
    .globl page_end_code
page_end_code:
    .skip 8
    .balign 16
