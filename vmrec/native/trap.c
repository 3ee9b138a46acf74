/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Traps and interrupts, and who takes them (privileged manual 3.1.6 to 3.1.9, 4.1).
 *
 * They are taken here and nowhere else: the engine never takes one itself.
 */
#include "internal.h"

/* Ends the run; the output carries `position`. Called with the step complete, or in a wait. */
void machine_stop(vm_t *vm, enum vm_stop reason, uint64_t code, uint64_t position)
{
    static const char *const names[] = {"running", "poweroff", "reset", "waiting-for-ever", "trap-loop"};
    if (vm->time.stopped)
        return;
    vm->time.stopped = reason;
    vm->time.exit_code = code;
    vm->in->recheck = 1;
    mp_array(&vm->in->outputs, 4);
    mp_str(&vm->in->outputs, "stop");
    mp_uint(&vm->in->outputs, position);
    mp_str(&vm->in->outputs, names[reason]);
    mp_uint(&vm->in->outputs, code);
}

static void enter_machine(vm_t *vm, uint64_t mcause, uint64_t tval, uint64_t mask)
{
    hart_state *h = &vm->hart;
    h->mepc = h->pc & mask;
    h->mcause = mcause;
    h->mtval = tval & mask;
    h->mstatus = (h->mstatus & ~(MSTATUS_MPIE | MSTATUS_MIE | MSTATUS_MPP))
                 | ((h->mstatus & MSTATUS_MIE) ? MSTATUS_MPIE : 0) | h->priv << 11;
    h->priv = PRIV_M;
}

static void enter_supervisor(vm_t *vm, uint64_t scause, uint64_t tval, uint64_t mask)
{
    hart_state *h = &vm->hart;
    vm->supervisor.sepc = h->pc & mask;
    vm->supervisor.scause = scause;
    vm->supervisor.stval = tval & mask;
    h->mstatus = (h->mstatus & ~(MSTATUS_SPIE | MSTATUS_SIE | MSTATUS_SPP))
                 | ((h->mstatus & MSTATUS_SIE) ? MSTATUS_SPIE : 0) | (h->priv == PRIV_S ? MSTATUS_SPP : 0);
    h->priv = PRIV_S;
}

static void enter(vm_t *vm, enum privilege mode, uint64_t cause, uint64_t tval, uint64_t vector)
{
    hart_state *h = &vm->hart;
    uint64_t mask = vm->xlen == 32 ? 0xffffffffull : ~0ull;
    if (mode == PRIV_M)
        enter_machine(vm, cause, tval, mask);
    else
        enter_supervisor(vm, cause, tval, mask);
    h->reservation = NEVER;
    h->reserved_value = 0;
    h->pc = vector & mask;
    if (vm->in->supervisor)
        walk_view_changed(vm);
}

/* Where a trap or interrupt of this number goes that `delegated` (medeleg or mideleg) is about. */
static enum privilege target(const vm_t *vm, uint64_t delegated, uint64_t number)
{
    return vm->hart.priv != PRIV_M && (delegated >> number & 1) ? PRIV_S : PRIV_M;
}

static uint64_t vector_of(const vm_t *vm, enum privilege mode)
{
    return mode == PRIV_M ? vm->hart.mtvec : vm->supervisor.stvec;
}

/* Can nothing take the hart out of a loop of traps in `mode` any more? Such a trap has its own mode's interrupts off. */
static int no_way_out(const vm_t *vm, enum privilege mode)
{
    return mode == PRIV_M || !(vm->hart.mie & ~vm->supervisor.mideleg);
}

/* Faults: traps that a handler does not ask for. */
static int is_fault(uint64_t cause)
{
    return cause != CAUSE_BREAKPOINT && (cause < CAUSE_ECALL_U || cause > CAUSE_ECALL_M);
}

/*
 * Has the handler of `mode` faulted at one place so often, with no return from a trap and no interrupt between, that it
 * will do nothing else? One that pushes registers to a stack that is gone is like this: each time lower.
 */
static int faults_for_ever(vm_t *vm, enum privilege mode, enum privilege before, uint64_t from, uint64_t cause)
{
    supervisor_state *s = &vm->supervisor;
    if (mode != before || !is_fault(cause)) {
        s->faults = 0;
        return 0;
    }
    s->faults = from != s->fault_pc ? 1 : s->faults + (s->faults < FAULTS_MAX);
    s->fault_pc = from;
    return s->faults >= FAULTS_MAX && no_way_out(vm, mode);
}

/*
 * A synchronous trap at hart.pc. It is one step that retires nothing. Where the VMM is the firmware, a supervisor's call
 * is answered instead of being entered.
 *
 * If the trap vector itself faults there, the hart can do nothing else for ever: every further step is this one
 * again. The machine stops then instead of running in place; and in revision 2 too when the handler faults further on.
 */
void trap_enter(vm_t *vm, uint64_t cause, uint64_t tval)
{
    enum privilege mode = target(vm, vm->supervisor.medeleg, cause), before = (enum privilege)vm->hart.priv;
    uint64_t from = vm->hart.pc, vector = vector_of(vm, mode) & ~3ull, at = vm->time.position;
    int call = vm->sbi && cause == CAUSE_ECALL_S;
    vm->last_cause = cause;
    if (UNLIKELY(vm->in->points.kinds))
        points_trap(vm, POINT_TRAP, from, at, cause);
    vm->supervisor.faults = call ? 0 : vm->supervisor.faults;
    if (call)
        sbi_call(vm);
    else
        enter(vm, mode, cause, tval, vector);
    if (UNLIKELY(vm->in->points.kinds))
        points_privilege(vm, 0, from, at, before);
    vm->time.position++;
    vm->time.traps++;
    vm->in->reasons++;
    int again = cause == CAUSE_FETCH_ACCESS || cause == CAUSE_ILLEGAL || cause == CAUSE_FETCH_PAGE;
    if (!call && from == vector && again && mode == before && no_way_out(vm, mode))
        machine_stop(vm, VM_STOP_TRAP_LOOP, 1, at);
    else if (vm->in->supervisor && faults_for_ever(vm, mode, before, from, cause))
        machine_stop(vm, VM_STOP_TRAP_LOOP, 1, at);
}

/* The order of the manual, 3.1.9. */
static uint64_t most_urgent(uint64_t ready)
{
    static const uint8_t order[] = {11, 3, 7, 9, 1, 5};
    size_t i = 0;
    while (!(ready >> order[i] & 1))
        i++;
    return order[i];
}

/* Takes the interrupt of highest priority if one is pending and enabled. It is not a step. */
int interrupt_enter(vm_t *vm)
{
    hart_state *h = &vm->hart;
    uint64_t pending = h->mip & h->mie, delegated = vm->supervisor.mideleg, ready = 0, before = h->priv;
    if (LIKELY(!pending))
        return 0;
    if (h->priv != PRIV_M || (h->mstatus & MSTATUS_MIE))
        ready = pending & ~delegated;
    if (!ready && (h->priv == PRIV_U || (h->priv == PRIV_S && (h->mstatus & MSTATUS_SIE))))
        ready = pending & delegated;
    if (!ready)
        return 0;
    vm->supervisor.faults = 0;
    uint64_t number = most_urgent(ready);
    enum privilege mode = target(vm, delegated, number);
    if (vm->in->capture.on)
        capture_close(vm, h->pc, vm->time.position, 0);
    uint64_t vector = vector_of(vm, mode) & ~3ull, cause = (1ull << (vm->xlen - 1)) | number;
    if (vector_of(vm, mode) & 1)
        vector += 4 * number;
    enter(vm, mode, cause, 0, vector);
    points_trap(vm, POINT_INTERRUPT, h->pc, vm->time.position, cause);
    points_privilege(vm, POINT_ENTRY, h->pc, vm->time.position, before);
    vm->interrupts++;
    vm->last_interrupt = number;
    vm->entered_position = vm->time.position;
    registers_inflow(vm, vm->time.position << 4 | number);
    vm->in->reasons++;
    return 1;
}

/* The end of a trap: on to `pc`, in the mode that is the hart's by now; it was `before`. */
static void leave(vm_t *vm, uint64_t pc, uint64_t before)
{
    hart_state *h = &vm->hart;
    if (UNLIKELY(vm->in->points.kinds))
        points_privilege(vm, 0, h->pc, vm->time.position, before);
    if (h->priv != PRIV_M)
        h->mstatus &= ~MSTATUS_MPRV;
    vm->supervisor.faults = 0;
    h->reservation = NEVER;
    h->reserved_value = 0;
    h->pc = pc;
    if (vm->in->supervisor)
        walk_view_changed(vm);
    if (h->mip & h->mie)
        vm->in->recheck = 1;
    vm->in->reasons++;
}

/* mret; the caller counts the step. */
void trap_return(vm_t *vm)
{
    hart_state *h = &vm->hart;
    uint64_t before = h->priv;
    h->mstatus = (h->mstatus & ~MSTATUS_MIE) | ((h->mstatus & MSTATUS_MPIE) ? MSTATUS_MIE : 0) | MSTATUS_MPIE;
    if (vm->in->supervisor) {
        h->priv = (h->mstatus & MSTATUS_MPP) >> 11;
        h->mstatus &= ~MSTATUS_MPP;
    }
    leave(vm, h->mepc, before);
}

/* sret, in a mode that may. */
void trap_return_supervisor(vm_t *vm)
{
    hart_state *h = &vm->hart;
    uint64_t before = h->priv;
    h->mstatus = (h->mstatus & ~MSTATUS_SIE) | ((h->mstatus & MSTATUS_SPIE) ? MSTATUS_SIE : 0) | MSTATUS_SPIE;
    h->priv = h->mstatus & MSTATUS_SPP ? PRIV_S : PRIV_U;
    h->mstatus &= ~MSTATUS_SPP;
    leave(vm, vm->supervisor.sepc, before);
}
