/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The machine's main loop: enter the guest, run until an exit, handle it, enter again.
 *
 * The order of things at one position is fixed here, and it is the same whether a run stops there or goes on:
 *
 *     1. lines follow time and devices; a wait ends if an enabled interrupt is pending
 *     2. the run returns if this is the position it was asked to reach   ◀── observations, then events
 *     3. a wait jumps to its deadline, or stops, or asks the live side
 *     4. an interrupt is entered (no step)
 *     5. steps are executed, up to the next deadline or the position asked for
 *
 * So the state that is seen at a position never depends on how the run was cut. A debugger wants to see the next step
 * instead, the first instruction of an interrupt's handler for example: vm_settle goes on to the end of 4, and a run
 * after that finds nothing left to do there.
 */
#include <stdlib.h>

#include "device.h"
#include "float_host.h"
#include "internal.h"
#include "isa_table.h"

#define STEPPER_CHUNK (1u << 16) /* steps between two looks at the attention flag, in long stepper runs */
#define SHORT_WAY 512u           /* no longer than a block can be: not worth entering the engine for */

uint64_t vm_mtime(const vm_t *vm)
{
    uint64_t base = vm->stepped_time ? vm->time.ticks : (vm->time.position + vm->time.idle) / TIMEBASE_DIVISOR;
    return base + vm->clint.mtime_offset;
}

/* The virtual-time position at which mtime (before the CLINT's offset) reaches `ticks`. */
static uint64_t position_of(const vm_t *vm, uint64_t ticks)
{
    uint64_t time;
    if (__builtin_mul_overflow(ticks, (uint64_t)TIMEBASE_DIVISOR, &time))
        return NEVER;
    return time > vm->time.idle ? time - vm->time.idle : 0;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t sum(uint64_t a, uint64_t b)
{
    uint64_t total;
    return __builtin_add_overflow(a, b, &total) ? NEVER : total;
}

/* Does stimecmp drive mip.STIP? */
static int supervisor_timer(const vm_t *vm)
{
    return (vm->supervisor.menvcfg & MENVCFG_STCE) != 0;
}

/*
 * When the next timer line rises by the passing of virtual time alone; `must_wake`: only lines that could end a wait.
 * Counted from now, since the guest can set either clock back behind the start of time.
 */
static uint64_t next_deadline(const vm_t *vm, int must_wake)
{
    uint64_t now = vm_mtime(vm), ticks = now - vm->clint.mtime_offset, left = NEVER;
    if (now < vm->clint.mtimecmp && (!must_wake || (vm->hart.mie & MIP_MTIP)))
        left = vm->clint.mtimecmp - now;
    if (supervisor_timer(vm) && now < vm->supervisor.stimecmp && (!must_wake || (vm->hart.mie & MIP_STIP)))
        left = least(left, vm->supervisor.stimecmp - now);
    if (vm->rtc.alarm_armed && (!must_wake || (vm->hart.mie & MIP_MEIP))) {
        port_t port = {.base = vm->rtc_base, .mtime = ticks};
        uint64_t ns = vm->rtc.alarm - rtc_now(&vm->rtc, &port), alarm = ns / 100 + (ns % 100 != 0);
        if (alarm < left)
            left = alarm;
    }
    return left == NEVER ? NEVER : position_of(vm, sum(ticks, left));
}

void loop_update_deadline(vm_t *vm)
{
    vm->in->deadline = vm->stepped_time ? NEVER : next_deadline(vm, 0);
    if (vm->in->deadline <= vm->time.position)
        vm->in->deadline = vm->time.position + 1; /* due already, or rounded down: look again after a step */
}

void loop_update_lines(vm_t *vm)
{
    bus_update_lines(vm);
    loop_update_deadline(vm);
    if (vm->time.waiting && (vm->hart.mip & vm->hart.mie))
        vm->time.waiting = 0;
}

/* The mtime at which a timer could end a wait, all ones if none is set. */
static uint64_t stepped_deadline(const vm_t *vm)
{
    uint64_t machine = vm->hart.mie & MIP_MTIP ? vm->clint.mtimecmp : NEVER;
    uint64_t supervisor = supervisor_timer(vm) && (vm->hart.mie & MIP_STIP) ? vm->supervisor.stimecmp : NEVER;
    return least(machine, supervisor);
}

uint64_t vm_deadline_steps(const vm_t *vm)
{
    uint64_t now = vm->time.position, deadline;
    if (vm->stepped_time) { /* nominal: what the clock has to advance */
        uint64_t wanted = stepped_deadline(vm);
        if (wanted == NEVER || vm_mtime(vm) >= wanted)
            return NEVER;
        uint64_t ticks = wanted - vm_mtime(vm);
        return ticks > NEVER / TIMEBASE_DIVISOR ? NEVER : ticks * TIMEBASE_DIVISOR;
    }
    deadline = next_deadline(vm, 1);
    return deadline == NEVER ? NEVER : deadline > now ? deadline - now : 0;
}

/* Ends a wait by letting virtual time pass to the next deadline that can end it. 0 if there is none. */
int vm_idle_to_deadline(vm_t *vm)
{
    uint64_t steps = vm->stepped_time ? NEVER : vm_deadline_steps(vm);
    if (!vm->time.waiting || steps == NEVER)
        return 0;
    vm->time.idle += steps;
    vm->time.woke_position = vm->time.position;
    loop_update_lines(vm);
    return steps > 0 || !vm->time.waiting; /* a wait must not go on for ever in one place */
}

/* 1: the wait is over, -1: return WAITING, 0: the machine has stopped. */
static int wait_for_interrupt(vm_t *vm)
{
    if (!vm->auto_idle)
        return -1;
    if (vm->stepped_time && vm_deadline_steps(vm) != NEVER)
        return -1; /* only a clock event can end it */
    if (vm_idle_to_deadline(vm))
        return 1;
    machine_stop(vm, VM_STOP_WAITING, 0, vm->time.position);
    return 0;
}

static void execute(vm_t *vm, uint64_t until, int mode)
{
    struct vm_internal *in = vm->in;
    uint64_t limit = least(until, in->deadline);
    limit = least(limit, vm->time.position + BLOCK_STOP / 2); /* nearer than any block that is not the engine's */
    in->recheck = 0;
    if (in->capture.on || mode == VM_MODE_STEPPER) {
        stepper_run(vm, least(limit, vm->time.position + STEPPER_CHUNK), 0);
        return;
    }
    if (!in->lingering && (limit - vm->time.position > SHORT_WAY || mode == VM_MODE_ENGINE)) {
        engine_run(vm, limit);
        if (vm->error || vm->time.position >= limit || vm->attention)
            return;
    }
    if (mode == VM_MODE_ENGINE)
        stepper_run(vm, vm->time.position + 1, 0); /* just what the engine could not do */
    else
        stepper_run(vm, limit, limit - vm->time.position > SHORT_WAY);
}

static int run(vm_t *vm, uint64_t until, int mode, int settle)
{
    struct vm_internal *in = vm->in;
    in->engine_only = mode == VM_MODE_ENGINE;
    int hit = points_full(vm); /* by what an event made a device store: it belongs to the step that comes now */
    if (hit)
        until = least(until, vm->time.position + 1);
    in->exit = 0;
    for (;;) {
        if (vm->error)
            return VM_EXIT_ERROR;
        if (vm->time.stopped)
            return VM_EXIT_STOPPED;
        loop_update_lines(vm);
        if (in->exit)
            return in->exit - 1;
        if (in->capture.diverged)
            return VM_EXIT_DIVERGED;
        if (vm->time.position >= until && !settle)
            return hit ? VM_EXIT_POINT : VM_EXIT_POSITION;
        /* A step that was given what it pulled is done first: nobody but it could use that. */
        if (vm->attention && !settle && vm->pulled_position != vm->time.position) {
            vm->attention = 0;
            return VM_EXIT_ATTENTION;
        }
        if (in->capture.on && (in->capture.rows.accesses >= ROWS_ACCESSES || in->capture.rows.blocks >= ROWS_BLOCKS))
            return VM_EXIT_CAPTURE_FULL;
        if (vm->time.waiting) {
            int waited = wait_for_interrupt(vm);
            if (waited < 0)
                return VM_EXIT_WAITING;
            continue;
        }
        if (interrupt_enter(vm))
            continue;
        if (settle)
            return VM_EXIT_POSITION;
        execute(vm, until, mode);
    }
}

int vm_run(vm_t *vm, uint64_t until, int mode)
{
    float_host before = float_host_begin();
    int exit = run(vm, until, mode, 0);
    float_host_end(&before);
    return exit;
}

int vm_settle(vm_t *vm)
{
    return run(vm, vm->time.position, VM_MODE_AUTO, 1);
}

int vm_push_input(vm_t *vm, const uint8_t *data, uint32_t length)
{
    uint32_t taken = bus_push_input(vm, data, length);
    loop_update_lines(vm);
    return (int)taken;
}

void vm_push_clock(vm_t *vm, uint64_t ticks)
{
    if (ticks > vm->time.ticks)
        vm->time.ticks = ticks;
    loop_update_lines(vm);
}

void vm_push_idle(vm_t *vm, uint64_t steps)
{
    vm->time.idle += steps;
    loop_update_lines(vm);
}

void vm_supply(vm_t *vm, const uint8_t *data, uint32_t length)
{
    if (length > SUPPLY_MAX)
        return;
    memcpy(vm->in->supplied, data, length);
    vm->in->supplied_length = length;
    vm->in->has_supplied = 1;
    vm->pulled_position = vm->time.position;
}

uint32_t vm_input_room(vm_t *vm, uint64_t *missing_page)
{
    return bus_input_room(vm, missing_page);
}

/* Where the machine's virtio devices are: `kinds` of 8 slots. Before the first run. */
void vm_set_virtio(vm_t *vm, const uint32_t *kinds, int legacy)
{
    vm->virtio_legacy = legacy != 0;
    vm->in->slots = 0;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        vm->virtio_kind[slot] = kinds[slot];
        if (kinds[slot])
            vm->in->slots = slot + 1;
    }
}

const uint8_t *vm_outputs(vm_t *vm, size_t *length)
{
    *length = vm->in->outputs.length;
    return vm->in->outputs.data;
}

void vm_clear_outputs(vm_t *vm)
{
    vm->in->outputs.length = 0;
}

static vm_t *create(void *uc, uint32_t xlen, uint32_t extensions, uint64_t ram_size, const uint64_t *drives,
                    int uncounted, const char **error)
{
    vm_t *vm = calloc(1, sizeof *vm);
    *error = "out of memory";
    if (!vm)
        return NULL;
    vm->xlen = xlen;
    vm->extensions = extensions;
    vm->ram_size = ram_size;
    if (drives)
        memcpy(vm->drive_size, drives, sizeof vm->drive_size);
    vm->auto_idle = 1;
    vm->in = calloc(1, sizeof *vm->in);
    if (vm->in) {
        vm->in->uncounted = uncounted;
        vm->in->supervisor = (extensions & EXT_S) != 0;
        memset(vm->in->fast, 0xff, sizeof vm->in->fast);
        if (!door_create(vm))
            *error = engine_create(vm, uc);
    }
    if (*error) {
        vm_destroy(vm);
        return NULL;
    }
    vm_reset(vm, RAM_BASE);
    return vm;
}

vm_t *vm_create(void *uc, uint32_t xlen, uint32_t extensions, uint64_t ram_size, const uint64_t *drives,
                const char **error)
{
    return create(uc, xlen, extensions, ram_size, drives, 0, error);
}

vm_t *vm_create_uncounted(void *uc, uint32_t xlen, uint32_t extensions, uint64_t ram_size, const uint64_t *drives,
                          const char **error)
{
    return create(uc, xlen, extensions, ram_size, drives, 1, error);
}

void vm_destroy(vm_t *vm)
{
    if (!vm)
        return;
    if (vm->in) {
        engine_destroy(vm);
        capture_destroy(vm);
        points_destroy(vm);
        door_destroy(vm);
        free(vm->in->outputs.data);
        work_free(&vm->in->work);
        free(vm->in);
    }
    free(vm);
}

/*
 * The boot ROM of QEMU's `virt`, less the parts about firmware: a0 = hart id, a1 = device tree (none: 0), then to the
 * entry point, which stands behind the code with the device tree's address.
 */
static void write_boot_rom(vm_t *vm, uint64_t entry)
{
    uint32_t load = vm->xlen == 32 ? 2 : 3; /* funct3 of lw, ld */
    uint32_t code[] = {
        0x00000297,                              /* auipc t0, 0 */
        0xf1402573,                              /* csrr  a0, mhartid */
        0x02000003 | 5u << 15 | load << 12 | 11u << 7, /* l{w,d} a1, 32(t0) */
        0x01800003 | 5u << 15 | load << 12 | 5u << 7,  /* l{w,d} t0, 24(t0) */
        0x00028067,                              /* jr t0 */
        0,
    };
    memset(vm->in->rom, 0, ROM_SIZE);
    memcpy(vm->in->rom, code, sizeof code);
    memcpy(vm->in->rom + 24, &entry, sizeof entry);
}

void vm_reset(vm_t *vm, uint64_t entry)
{
    memset(&vm->hart, 0, sizeof vm->hart);
    memset(&vm->time, 0, sizeof vm->time);
    memset(&vm->supervisor, 0, sizeof vm->supervisor);
    vm->hart.pc = ROM_BASE;
    vm->hart.priv = 3;
    vm->hart.mstatus = vm->in->supervisor ? 0 : MSTATUS_MPP;
    if (vm->in->supervisor)
        vm->supervisor.stimecmp = NEVER;
    vm->hart.reservation = NEVER;
    vm->time.woke_position = NEVER;
    bus_reset(vm);
    write_boot_rom(vm, entry);
    vm_state_changed(vm);
}

void vm_state_changed(vm_t *vm)
{
    vm->in->has_supplied = 0;
    vm->in->polled = 0;
    vm->in->exit = 0;
    vm->error = NULL;
    vm->entered_position = NEVER;
    vm->pulled_position = NEVER;
    vm->in->work.pending = 0;
    pmp_changed(vm);
    loop_update_lines(vm);
}
