/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Watching the hart: which step changed which register, and what the hart was told from outside.
 *
 * Both are for comparing runs and for reports. They are no part of the machine's state and cost nothing when unused.
 *
 * The *inflow* is a running hash of everything that reached the hart from outside its registers and RAM: values
 * loaded from devices, what devices stored into RAM, interrupts with their positions, and what CSR instructions read. Two machines whose registers
 * and RAM were equal, and that took in the same inflow since, have executed the same steps in between.
 */
#include "internal.h"

#define WORDS (sizeof(hart_state) / sizeof(uint64_t))
#define SUPERVISOR_WORDS (offsetof(supervisor_state, plic_enable) / sizeof(uint64_t)) /* a device's come behind */
#define PC_WORD (offsetof(hart_state, pc) / sizeof(uint64_t))
#define LOG_STEP_ROOM (WORDS + SUPERVISOR_WORDS + 2) /* at most STEP_ROOM of machine/watch.py */

void registers_inflow(vm_t *vm, uint64_t value)
{
    uint64_t hash = (vm->inflow ^ value) * 0x9e3779b97f4a7c15ull;
    vm->inflow = hash ^ hash >> 32;
}

static void add_change(register_log *log, uint64_t position, uint64_t word, uint64_t value)
{
    if (!log->changes)
        return;
    register_change *change = &log->changes[log->count++];
    change->position = position;
    change->word = word;
    change->value = value;
}

/* Every word but the pc that is not as it was; `first`: the number of the first one. */
static void log_words(register_log *log, uint64_t position, void *seen, const void *now, uint64_t count, uint64_t first)
{
    uint64_t *before = seen;
    const uint64_t *after = now;
    for (uint64_t word = 0; word < count; word++) {
        if (LIKELY(before[word] == after[word]))
            continue;
        before[word] = after[word];
        if (first + word == PC_WORD)
            continue;
        add_change(log, position, first + word, after[word]);
        if (log->last)
            log->last[first + word] = position;
    }
}

/* The step at `position` is done. */
static void log_step(vm_t *vm, register_log *log, uint64_t position)
{
    log_words(log, position, &log->seen, &vm->hart, WORDS, 0);
    if (vm->in->supervisor)
        log_words(log, position, &log->supervisor, &vm->supervisor, SUPERVISOR_WORDS, WORDS);
}

int vm_run_logged(vm_t *vm, uint64_t until, register_log *log)
{
    for (;;) {
        if (log->changes && log->room - log->count < LOG_STEP_ROOM)
            return VM_EXIT_CAPTURE_FULL;
        uint64_t position = vm->time.position, interrupts = vm->interrupts, traps = vm->time.traps;
        int exit = vm_run(vm, position < until ? position + 1 : until, VM_MODE_STEPPER);
        /* An interrupt is entered without a step, and the step after it may have to wait for its entropy. */
        if (vm->interrupts != interrupts)
            add_change(log, position, WORDS + SUPERVISOR_WORDS, vm->last_interrupt);
        if (vm->time.traps != traps)
            add_change(log, position, WORDS + SUPERVISOR_WORDS + 1, vm->last_cause);
        if (vm->time.position != position)
            log_step(vm, log, position);
        if (exit != VM_EXIT_POSITION || vm->time.position >= until)
            return exit;
    }
}
