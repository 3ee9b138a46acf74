/* SPDX-License-Identifier: GPL-2.0-or-later */
/* wfi-forever: waits for an interrupt that nothing can send. */
    .section .text.start, "ax"
    .globl _start
    .type _start, @function
_start:
    csrw mie, zero
1:  wfi
    j 1b
    .size _start, . - _start
