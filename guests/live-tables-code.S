/* SPDX-License-Identifier: GPL-2.0-or-later */
/* live-tables-code.S: part of live-tables: the way into supervisor mode, and two pages of code for one address. */

    .text
    .balign 4
    .globl enter_supervisor
    .type enter_supervisor, @function
enter_supervisor:
    li t0, 3 << 11
    csrc mstatus, t0
    li t0, 1 << 11
    csrs mstatus, t0
    csrw mepc, a0
    mret
    .size enter_supervisor, . - enter_supervisor

    .section .text.live_pages, "ax"
    .option norelax
    .balign 4096
    .globl live_code
    .type live_code, @function
live_code:
    addi a0, a0, 1
    slli a0, a0, 3
    ret
    .size live_code, . - live_code
    .balign 4096
    .type other_code, @function
other_code:
    not a0, a0
    addi a0, a0, 100
    ret
    .size other_code, . - other_code
    .balign 4096
