/* SPDX-License-Identifier: GPL-2.0-or-later */
/* forever: an endless loop. */
    .section .text.start, "ax"
    .globl _start
    .type _start, @function
_start:
    j _start
    .size _start, . - _start
