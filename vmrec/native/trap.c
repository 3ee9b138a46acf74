/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Traps and interrupts, machine mode (privileged manual 3.1.6 to 3.1.9).
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

static void enter(vm_t *vm, uint64_t mcause, uint64_t tval, uint64_t vector)
{
    hart_state *h = &vm->hart;
    uint64_t mask = vm->xlen == 32 ? 0xffffffffull : ~0ull;
    h->mepc = h->pc & mask;
    h->mcause = mcause;
    h->mtval = tval & mask;
    h->mstatus = (h->mstatus & ~(MSTATUS_MPIE | MSTATUS_MIE)) | ((h->mstatus & MSTATUS_MIE) ? MSTATUS_MPIE : 0)
                 | MSTATUS_MPP;
    h->reservation = NEVER;
    h->reserved_value = 0;
    h->pc = vector & mask;
}

/*
 * A synchronous trap at hart.pc. It is one step that retires nothing.
 *
 * If the trap vector itself faults there, the hart can do nothing else for ever: every further step is this one
 * again. The machine stops then instead of running in place.
 */
void trap_enter(vm_t *vm, uint64_t cause, uint64_t tval)
{
    uint64_t from = vm->hart.pc, vector = vm->hart.mtvec & ~3ull, at = vm->time.position;
    enter(vm, cause, tval, vector);
    points_trap(vm, POINT_TRAP, from, at, cause);
    vm->time.position++;
    vm->time.traps++;
    vm->in->reasons++;
    if (from == vector && (cause == CAUSE_FETCH_ACCESS || cause == CAUSE_ILLEGAL))
        machine_stop(vm, VM_STOP_TRAP_LOOP, 1, at);
}

/* Takes the interrupt of highest priority if one is pending and enabled. It is not a step. */
int interrupt_enter(vm_t *vm)
{
    hart_state *h = &vm->hart;
    uint64_t pending = h->mip & h->mie;
    uint64_t number;
    if (LIKELY(!pending) || !(h->mstatus & MSTATUS_MIE))
        return 0;
    if (pending & MIP_MEIP)
        number = 11;
    else if (pending & MIP_MSIP)
        number = 3;
    else
        number = 7;
    if (vm->in->capture.on)
        capture_close(vm, h->pc, vm->time.position, 0);
    uint64_t vector = h->mtvec & ~3ull;
    if (h->mtvec & 1)
        vector += 4 * number;
    enter(vm, (1ull << (vm->xlen - 1)) | number, 0, vector);
    points_trap(vm, POINT_INTERRUPT, h->pc, vm->time.position, h->mcause);
    vm->interrupts++;
    vm->last_interrupt = number;
    vm->entered_position = vm->time.position;
    registers_inflow(vm, vm->time.position << 4 | number);
    vm->in->reasons++;
    return 1;
}

/* mret; the caller counts the step. */
void trap_return(vm_t *vm)
{
    hart_state *h = &vm->hart;
    h->mstatus = (h->mstatus & ~MSTATUS_MIE) | ((h->mstatus & MSTATUS_MPIE) ? MSTATUS_MIE : 0) | MSTATUS_MPIE;
    h->reservation = NEVER;
    h->reserved_value = 0;
    h->pc = h->mepc;
    if (h->mip & h->mie)
        vm->in->recheck = 1;
    vm->in->reasons++;
}
