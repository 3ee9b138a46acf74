/* SPDX-License-Identifier: GPL-2.0-or-later */
/* race: two preemptive tasks add to one counter without a lock: a timer interrupt at the wrong moment loses updates. */
#include "runtime/clint.h"
#include "runtime/finisher.h"
#include "runtime/tasks.h"
#include "runtime/uart.h"

#define TASKS 2
#define DEPOSITS 1000u /* of each task */
#define PERIOD 400     /* mtime ticks between two task switches: 40 microseconds */
#define WORK 250u      /* rounds of work between two deposits, four instructions each */

static volatile uint32_t counter;
static volatile uint32_t earned[TASKS];
static volatile uint32_t finished[TASKS];
static struct task tasks[TASKS];
static uint8_t stacks[TASKS][512] __attribute__((aligned(16)));
static uint64_t deadline;

/* The bug: a task switch between the two lines loses what the other task adds meanwhile. */
__attribute__((noinline)) static void deposit(void)
{
    uint32_t value = counter;
    counter = value + 1;
}

/* Where nearly all of the time goes, so that nearly all task switches do no harm. */
__attribute__((noinline)) static void earn(uintptr_t me)
{
    uint32_t sum = earned[me];
    for (uint32_t round = 0; round < WORK; round++)
        sum = sum * 1664525u + 1013904223u;
    earned[me] = sum;
}

static _Noreturn void report(void)
{
    interrupts_off();
    uint32_t total = counter;
    put_text("total ");
    put_unsigned(total);
    put_text(" of ");
    put_unsigned(TASKS * DEPOSITS);
    put_text(total == TASKS * DEPOSITS ? ": good\n" : ": LOST UPDATES\n");
    power_off(total != TASKS * DEPOSITS);
}

static void saver(uintptr_t me)
{
    for (uint32_t i = 0; i < DEPOSITS; i++) {
        earn(me);
        deposit();
    }
    finished[me] = 1;
    while (!finished[!me])
        ;
    report();
}

/* The timer interrupt: the other task's turn. */
struct task *next_task(struct task *current, uintptr_t mcause)
{
    if (mcause != CAUSE_TIMER) {
        put_checksum("race: unexpected trap, mcause", (uint32_t)mcause);
        power_off(3);
    }
    deadline += PERIOD;
    clint_set_mtimecmp(deadline);
    return current == &tasks[0] ? &tasks[1] : &tasks[0];
}

int main(void)
{
    put_text("race: 2 tasks, 1000 deposits each\n");
    for (uintptr_t i = 0; i < TASKS; i++)
        task_prepare(&tasks[i], saver, i, stacks[i] + sizeof stacks[i]);
    deadline = clint_mtime() + PERIOD;
    clint_set_mtimecmp(deadline);
    csr_write(mie, MIP_MTIP);
    tasks_start(&tasks[0]);
}
