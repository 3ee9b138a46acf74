/* SPDX-License-Identifier: GPL-2.0-or-later */
/* timer-long: speed: three computing tasks under a 1 kHz timer, with a line on the console now and then. */
#include "runtime/clint.h"
#include "runtime/finisher.h"
#include "runtime/tasks.h"
#include "runtime/uart.h"

#ifndef TICKS
#define TICKS 1050u /* milliseconds: a million instructions each */
#endif
#define TASKS 3
#define PERIOD 10000 /* mtime ticks */
#define WORDS 1024

static struct task tasks[TASKS];
static uint8_t stacks[TASKS][512] __attribute__((aligned(16)));
static uint32_t data[TASKS][WORDS];
static uint32_t ticks;
static uint64_t deadline;
static volatile uint32_t wrong;

/* A pass over the task's own words that leaves them as they were; the same result every time. */
__attribute__((noinline)) static uint32_t compute(uint32_t *words, uint32_t id)
{
    uint32_t sum = id;
    for (int i = 0; i < WORDS; i++) {
        uint32_t mixed = words[i] * 2654435761u ^ sum;
        sum = (sum << 5 | sum >> 27) + mixed;
        words[i] = ~words[i];
    }
    for (int i = WORDS - 1; i >= 0; i--) {
        words[i] = ~words[i];
        sum ^= words[i] + (uint32_t)i;
    }
    return sum;
}

static void worker(uintptr_t id)
{
    for (uint32_t i = 0; i < WORDS; i++)
        data[id][i] = i * (uint32_t)(id + 1);
    uint32_t first = compute(data[id], (uint32_t)id);
    for (;;)
        wrong |= compute(data[id], (uint32_t)id) != first;
}

struct task *next_task(struct task *current, uintptr_t mcause)
{
    if (mcause != CAUSE_TIMER) {
        put_checksum("timer-long: unexpected trap, mcause", (uint32_t)mcause);
        power_off(3);
    }
    if (++ticks % 100 == 0) {
        put_unsigned(ticks);
        put_text(" ms\n");
    }
    if (ticks == TICKS) {
        put_text(wrong ? "timer-long: wrong\n" : "timer-long: every sum the same\n");
        power_off(wrong);
    }
    deadline += PERIOD;
    clint_set_mtimecmp(deadline);
    return &tasks[(current - tasks + 1) % TASKS];
}

int main(void)
{
    for (uintptr_t i = 0; i < TASKS; i++)
        task_prepare(&tasks[i], worker, i, stacks[i] + sizeof stacks[i]);
    deadline = clint_mtime() + PERIOD;
    clint_set_mtimecmp(deadline);
    csr_write(mie, MIP_MTIP);
    tasks_start(&tasks[0]);
}
