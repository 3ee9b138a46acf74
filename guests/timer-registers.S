/* SPDX-License-Identifier: GPL-2.0-or-later */
/* timer-registers.S: part of timer: keeps known values in the registers while the clock ticks, then checks them. */
#include "runtime/registers.h"

    /* uint32_t hold_registers(a0 = seed, a1 = rounds): 0 if every register kept its value. */
    .section .text.hold_registers, "ax"
    .globl hold_registers
    .type hold_registers, @function
hold_registers:
    addi sp, sp, -13 * WORD
    STORE ra, 0(sp)
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11
    STORE s\n, (\n + 1) * WORD(sp)
    .endr
    .irp n, 1,5,6,7,8,9,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    addi x\n, a0, \n
    .endr
1:  addi a1, a1, -1
    bnez a1, 1b
    .irp n, 1,5,6,7,8,9,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    addi x\n, x\n, -\n
    sub x\n, x\n, a0
    or a1, a1, x\n
    .endr
    snez a0, a1
    LOAD ra, 0(sp)
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11
    LOAD s\n, (\n + 1) * WORD(sp)
    .endr
    addi sp, sp, 13 * WORD
    ret
    .size hold_registers, . - hold_registers
