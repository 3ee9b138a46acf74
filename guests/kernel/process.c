/* SPDX-License-Identifier: GPL-2.0-or-later */
/* process.c: the life of processes, and whose turn it is. */
#include "kernel.h"

/*
 *              fork                 scheduler()                 exit
 *   FREE ------------> RUNNABLE ----------------> RUNNING ------------> ZOMBIE ----> FREE
 *                       ^    ^    yield(): timer   |    |                      wait of
 *                       |    +---------------------+    | sleep_on()           the parent
 *                       |                               v
 *                       +-------------------------- SLEEPING
 *                          wake(), or its time is here
 */
static struct process process[PROCESSES];
static struct context scheduler_context;
static int last_pid;
struct process *current;

#define STACK_MARK 0x6b6361747321656eul /* at the low end of each kernel stack: gone if one grew too far */

static void enter_scheduler(void) { switch_context(&current->context, &scheduler_context); }

/* A process that cannot run yet: a pid, a kernel stack with an empty frame, nothing else. NULL: there is no room. */
static struct process *process_new(void)
{
    for (struct process *p = process; p < process + PROCESSES; p++) {
        if (p->state != FREE)
            continue;
        memset(p, 0, sizeof *p);
        p->stack = page_alloc();
        if (!p->stack)
            return NULL;
        *(uint64_t *)p->stack = STACK_MARK;
        p->frame = (struct frame *)((uint8_t *)p->stack + PAGE_SIZE) - 1;
        p->pid = ++last_pid;
        p->context.ra = (uint64_t)trap_return; /* which finds the frame at sp */
        p->context.sp = (uint64_t)p->frame;
        return p;
    }
    return NULL;
}

/* The first process: it has never been in user mode, but begins with `first`, and goes there when that returns. */
static void (*begin)(void);
static void begin_first(void)
{
    begin();
    __asm__ volatile("mv sp, %0; j trap_return" : : "r"(current->frame) : "memory");
    __builtin_unreachable();
}

void process_init(void (*first)(void))
{
    struct process *p = process_new();
    if (!p || !vm_new(&p->space))
        panic("no memory for the first process");
    begin = first;
    text_copy(p->name, "init", sizeof p->name);
    p->context.ra = (uint64_t)begin_first;
    p->state = RUNNABLE;
}

int process_fork(void)
{
    struct process *child = process_new();
    if (!child)
        return -1;
    if (!vm_copy(&child->space, &current->space)) {
        page_free(child->stack);
        return -1;
    }
    *child->frame = *current->frame;
    child->frame->x[A0] = 0; /* what fork returns in the child */
    child->parent = current;
    text_copy(child->name, current->name, sizeof child->name);
    descriptors_copy(child, current);
    child->state = RUNNABLE;
    return child->pid;
}

void process_exit(int status)
{
    if (current == &process[0]) {
        print("kernel: init has ended with %d, power off\n", status);
        power_off(status);
    }
    descriptors_close(current);
    vm_switch(kernel_root, 0);
    vm_destroy(&current->space);
    for (struct process *p = process; p < process + PROCESSES; p++)
        if (p->parent == current) { /* init takes care of those who lose their parent */
            p->parent = &process[0];
            if (p->state == ZOMBIE)
                wake(&process[0]);
        }
    current->status = status;
    current->state = ZOMBIE; /* its kernel stack is in use until the next line: the parent frees it */
    wake(current->parent);
    enter_scheduler();
    panic("a process goes on after its end");
}

/* Sleeps until a child has ended. Its pid, or -1 without any child. */
int process_wait(uint64_t status_address)
{
    for (;;) {
        bool children = false;
        for (struct process *p = process; p < process + PROCESSES; p++) {
            if (p->state == FREE || p->parent != current)
                continue;
            children = true;
            if (p->state != ZOMBIE)
                continue;
            if (status_address && !vm_write(&current->space, status_address, &p->status, sizeof p->status))
                return -1;
            page_free(p->stack);
            p->state = FREE;
            p->parent = NULL;
            return p->pid;
        }
        if (!children)
            return -1;
        sleep_on(current);
    }
}

/* --- whose turn it is --- */

void yield(void)
{
    current->state = RUNNABLE;
    enter_scheduler();
}

void sleep_on(void *what)
{
    if (!current)
        panic("only a process can sleep");
    current->sleeps_on = what;
    current->state = SLEEPING;
    enter_scheduler();
    current->sleeps_on = NULL;
}

void sleep_until(uint64_t when)
{
    current->wake_time = when;
    sleep_on(&current->wake_time);
    current->wake_time = 0;
}

/* All that sleep on `what` may go on: each must look whether what it waited for is still there. */
void wake(void *what)
{
    for (struct process *p = process; p < process + PROCESSES; p++)
        if (p->state == SLEEPING && p->sleeps_on == what)
            p->state = RUNNABLE;
}

/* Wakes those whose time has come. The time at which the next one's will; all ones: nobody waits for a time. */
static uint64_t wake_sleepers(void)
{
    uint64_t earliest = ~0ul, now = time_now();
    for (struct process *p = process; p < process + PROCESSES; p++) {
        if (p->state != SLEEPING || !p->wake_time)
            continue;
        if (p->wake_time <= now)
            p->state = RUNNABLE;
        else if (p->wake_time < earliest)
            earliest = p->wake_time;
    }
    return earliest;
}

/* Nobody can run: until an interrupt comes. wfi ends when one is pending, also while interrupts are off, so none can
   slip through between the scheduler's look at the processes and the wfi. */
static void idle(void)
{
    wait_for_interrupt();
    csr_set(sstatus, SSTATUS_SIE); /* it is taken here */
    csr_clear(sstatus, SSTATUS_SIE);
}

/* Round robin, for ever, on the stack that the kernel booted on. */
void scheduler(void)
{
    int turn = 0;
    for (;;) {
        uint64_t alarm = wake_sleepers();
        struct process *next = NULL;
        for (int i = 1; i <= PROCESSES && !next; i++)
            if (process[(turn + i) % PROCESSES].state == RUNNABLE)
                next = &process[(turn + i) % PROCESSES];
        uint64_t slice_end = time_now() + machine.slice;
        if (!next && !machine.tick)
            slice_end = alarm; /* nothing is to be done before then */
        timer_set(alarm < slice_end ? alarm : slice_end);
        if (!next) {
            idle();
            continue;
        }
        turn = (int)(next - process);
        vm_switch(next->space.root, next->pid);
        current = next;
        next->state = RUNNING;
        switch_context(&scheduler_context, &next->context);
        current = NULL;
        if (*(uint64_t *)next->stack != STACK_MARK)
            panic("process %d (%s) has overrun its kernel stack", next->pid, next->name);
    }
}

/* For who presses ctrl-p on the console. */
void process_list(void)
{
    static const char *const states[] = {"free", "runnable", "running", "sleeping", "zombie"};
    print("\n  pid state    name\n");
    for (struct process *p = process; p < process + PROCESSES; p++)
        if (p->state != FREE)
            print("%5d %8s %s\n", p->pid, states[p->state], p->name);
    print("%d pages free\n", (int)page_count_free());
}
