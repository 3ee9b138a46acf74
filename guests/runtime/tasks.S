/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tasks.S: the context switch: saves every register of a task, asks next_task(), restores the next one's. */
#include "registers.h"

    .section .text.tasks, "ax"

    /* mscratch always points at the running task's struct task: pc, x0 .. x31. */
    .balign 4
    .type task_trap, @function
task_trap:
    csrrw a0, mscratch, a0
    .irp n, 1,2,3,4,5,6,7,8,9,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    STORE x\n, (\n + 1) * WORD(a0)
    .endr
    csrr t0, mscratch
    STORE t0, (10 + 1) * WORD(a0)
    csrr t0, mepc
    STORE t0, 0(a0)
    la sp, switch_stack_top
    csrr a1, mcause
    call next_task
task_resume:
    csrw mscratch, a0
    LOAD t0, 0(a0)
    csrw mepc, t0
    .irp n, 1,2,3,4,5,6,7,8,9,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    LOAD x\n, (\n + 1) * WORD(a0)
    .endr
    LOAD a0, (10 + 1) * WORD(a0)
    mret
    .size task_trap, . - task_trap

    .globl tasks_start
    .type tasks_start, @function
tasks_start:
    la t0, task_trap
    csrw mtvec, t0
    li t0, 0x1880               /* mret goes to machine mode (MPP) with interrupts on (MPIE) */
    csrs mstatus, t0
    j task_resume
    .size tasks_start, . - tasks_start

    .section .bss.switch_stack, "aw", @nobits
    .balign 16
    .skip 1024
switch_stack_top:
