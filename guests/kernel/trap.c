/* SPDX-License-Identifier: GPL-2.0-or-later */
/* trap.c: why the kernel was entered, and who deals with it. */
#include "kernel.h"

void trap_entry(void);

void trap_init(void)
{
    csr_write(stvec, (uint64_t)trap_entry);
    csr_write(sscratch, 0); /* we are in the kernel: see trap.S */
    csr_write(sie, SIE_TIMER | SIE_EXTERNAL);
}

static void external_interrupt(void)
{
    int source = plic_claim();
    if (!source)
        return; /* it has gone away meanwhile */
    if (source == UART_IRQ)
        console_interrupt();
    else if (!disk_interrupt(source))
        print("kernel: interrupt %d, of no device that is used\n", source);
    plic_complete(source);
}

/* Whether it was one. */
static bool interrupt(uint64_t cause)
{
    if (cause == CAUSE_TIMER)
        timer_set(~0ul); /* else it would stay pending; the scheduler sets the next */
    else if (cause == CAUSE_EXTERNAL)
        external_interrupt();
    return cause == CAUSE_TIMER || cause == CAUSE_EXTERNAL;
}

static uint64_t right_for(uint64_t cause)
{
    return cause == CAUSE_FETCH_PAGE ? PTE_X : cause == CAUSE_LOAD_PAGE ? PTE_R : PTE_W;
}

static void trap_from_user(struct frame *frame)
{
    switch (frame->cause) {
    case CAUSE_ECALL_U:
        frame->pc += 4; /* goes on behind the ecall */
        syscall(frame);
        return;
    case CAUSE_FETCH_PAGE:
    case CAUSE_LOAD_PAGE:
    case CAUSE_STORE_PAGE:
        if (vm_fault(&current->space, frame->value, right_for(frame->cause)))
            return; /* the page is there now: the instruction is tried again */
        break;
    default:
        if (interrupt(frame->cause)) {
            if (frame->cause == CAUSE_TIMER)
                yield(); /* its turn is over, or a sleeper's time has come: the scheduler decides */
            return;
        }
    }
    print("kernel: process %d (%s) killed: cause %d, pc %p, value %p\n", current->pid, current->name,
          (int)frame->cause, (void *)frame->pc, (void *)frame->value);
    process_exit(-1);
}

/* trap_entry calls it, interrupts off. */
void trap(struct frame *frame)
{
    if (!(frame->status & SSTATUS_SPP))
        trap_from_user(frame);
    else if (!interrupt(frame->cause)) /* interrupts are on in idle() only; anything else is a bug */
        panic("trap in the kernel: cause %d, pc %p, value %p", (int)frame->cause, (void *)frame->pc,
              (void *)frame->value);
}
