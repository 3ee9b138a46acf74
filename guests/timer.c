/* SPDX-License-Identifier: GPL-2.0-or-later */
/* timer: three tasks, switched round robin by the timer interrupt, check that no register is lost. */
#include "runtime/clint.h"
#include "runtime/finisher.h"
#include "runtime/tasks.h"
#include "runtime/uart.h"

#define TASKS 3
#define SWITCHES 60
#define PERIOD 300 /* mtime ticks, 30 microseconds */

static struct task tasks[TASKS];
static uint8_t stacks[TASKS][512] __attribute__((aligned(16)));
static uint32_t slices[TASKS];
static uint32_t switches;
static uint64_t deadline;
static volatile uint32_t damaged;

/* timer-registers.S: holds `seed`-derived values in 24 registers for a while; 0 if all of them survived. */
uint32_t hold_registers(uintptr_t seed, uint32_t rounds);

static void worker(uintptr_t id)
{
    for (uint32_t round = 0;; round++)
        damaged |= hold_registers((id << 24) + round, 100);
}

static _Noreturn void report(void)
{
    for (int i = 0; i < TASKS; i++) {
        put_text("task ");
        put_unsigned((uint32_t)i);
        put_text(": slices ");
        put_unsigned(slices[i]);
        put_char('\n');
    }
    put_text(damaged ? "registers: damaged\n" : "registers: kept\n");
    power_off(damaged ? 1 : 0);
}

struct task *next_task(struct task *current, uintptr_t mcause)
{
    if (mcause != CAUSE_TIMER) {
        put_checksum("unexpected trap: mcause", (uint32_t)mcause);
        power_off(3);
    }
    uint32_t id = (uint32_t)(current - tasks);
    slices[id]++;
    if (++switches % 20 == 0) {
        put_text("switch ");
        put_unsigned(switches);
        put_text(": from task ");
        put_unsigned(id);
        put_char('\n');
    }
    if (switches == SWITCHES)
        report();
    deadline += PERIOD;
    clint_set_mtimecmp(deadline);
    return &tasks[(id + 1) % TASKS];
}

int main(void)
{
    put_text("timer: 3 tasks\n");
    for (uintptr_t i = 0; i < TASKS; i++)
        task_prepare(&tasks[i], worker, i, stacks[i] + sizeof stacks[i]);
    deadline = clint_mtime() + PERIOD;
    clint_set_mtimecmp(deadline);
    csr_write(mie, MIP_MTIP);
    tasks_start(&tasks[0]);
}
