/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tasks.h: preemptive tasks: the saved registers of one, and how to start and switch them. */
#ifndef TASKS_H
#define TASKS_H

#include "board.h"

struct task {
    uintptr_t pc;
    uintptr_t x[32]; /* x[0] is not used */
};

/* Called on every trap, on a stack of its own, with interrupts off: returns the task to go on with. */
struct task *next_task(struct task *current, uintptr_t mcause);

/* Makes `task` ready to run entry(argument) on the given stack. */
__attribute__((unused)) static void task_prepare(struct task *task, void (*entry)(uintptr_t),
                                                 uintptr_t argument, void *stack_top)
{
    uintptr_t gp, tp;
    __asm__("mv %0, gp\n\tmv %1, tp" : "=r"(gp), "=r"(tp));
    task->pc = (uintptr_t)entry;
    task->x[2] = (uintptr_t)stack_top;
    task->x[3] = gp;
    task->x[4] = tp;
    task->x[10] = argument;
}

/* tasks.S: points mtvec at the switch and goes on with `first`, interrupts on. */
_Noreturn void tasks_start(struct task *first);

#endif
