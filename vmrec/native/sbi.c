/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The firmware that is not there: an ecall from supervisor mode, answered by the VMM (RISC-V SBI specification 2.0).
 *
 *     a7 extension, a6 function, a0 … a5 arguments   ──▶   a0 error, a1 value (legacy extensions: a0 alone)
 *
 *     Base 0x10 · Timer "TIME" · IPI "sPI" · RFENCE "RFNC" · Hart State Management "HSM" · System Reset "SRST"
 *     Debug Console "DBCN" · legacy 0 to 8
 *
 * A call is one step, a synchronous trap that nobody enters: the hart goes on behind the ecall and is never in machine
 * mode. There is one hart, hart 0. What the specification leaves to the implementation:
 *
 *   - nothing but calls of supervisor mode comes here: every other trap and every interrupt is delegated;
 *   - the timer is stimecmp, which the guest may also write itself (Sstc);
 *   - remote fences do nothing, since no translation is ever seen to be kept (walk.c);
 *   - the debug console is the UART. A write takes at most 4096 bytes, a read what has been received;
 *   - a hart that stops itself can never be started again: the machine stops, waiting for ever.
 */
#include "device.h"
#include "internal.h"
#include "isa_table.h"

#define EID_LEGACY_LAST 8u
#define EID_BASE 0x10u
#define EID_TIME 0x54494d45u
#define EID_IPI 0x735049u
#define EID_RFENCE 0x52464e43u
#define EID_HSM 0x48534du
#define EID_SRST 0x53525354u
#define EID_DBCN 0x4442434eu

#define SBI_VERSION (2ull << 24)       /* 2.0 */
#define SBI_IMPLEMENTATION 0x766d7265u /* "vmre": not among the assigned numbers */

#define SUCCESS 0
#define ERR_NOT_SUPPORTED -2
#define ERR_INVALID_PARAM -3
#define ERR_INVALID_ADDRESS -5
#define ERR_ALREADY_AVAILABLE -6

#define WRITE_MAX 4096u
#define SUSPEND_RETENTIVE 0u
#define SUSPEND_NON_RETENTIVE 0x80000000u

enum { A0 = 10, A1, A2, A3, A4, A5, A6, A7 };

typedef struct {
    int64_t error;
    uint64_t value;
} answer_t;

static const answer_t not_supported = {ERR_NOT_SUPPORTED, 0};

static uint64_t in_width(const vm_t *vm, uint64_t value)
{
    return vm->xlen == 32 ? (uint32_t)value : value;
}

/* ------------------------------------------------------------------------------------------------------- console */

static void print(vm_t *vm, const uint8_t *bytes, uint32_t length)
{
    buffer_t *out = &vm->in->outputs;
    mp_array(out, 3);
    mp_str(out, "console");
    mp_uint(out, vm->time.position);
    mp_bin(out, bytes, length);
    if (out->length > 60000 && !vm->in->exit)
        vm->in->exit = VM_EXIT_OUTPUT_FULL + 1;
}

/* The next received byte, or -1. The caller has to update the lines. */
static int received(vm_t *vm)
{
    uint64_t byte = 0;
    port_t port = {0};
    uint8_t lcr = vm->uart.lcr;
    if (!vm->uart.fifo_length) {
        if (vm->rx_paced && (!vm->in->exit || vm->in->exit == VM_EXIT_POINT + 1))
            vm->in->exit = VM_EXIT_RX_WANTED + 1;
        return -1;
    }
    vm->uart.lcr = 0; /* the receive buffer, whatever the guest last had at its address */
    uart_read(&vm->uart, &port, 0, 1, &byte);
    vm->uart.lcr = lcr;
    return (int)byte;
}

/* The memory of a debug console call: 1 if all of it is in RAM. */
static int console_memory(const vm_t *vm, uint64_t *address, uint64_t *length)
{
    const uint64_t *x = vm->hart.x;
    *length = x[A0];
    *address = vm->xlen == 32 ? x[A2] << 32 | (uint32_t)x[A1] : x[A1];
    uint64_t offset = *address - RAM_BASE;
    if (vm->xlen == 64 && x[A2])
        return 0;
    return offset < vm->ram_size && *length <= vm->ram_size - offset;
}

/* How much of it is touched. */
static uint32_t console_part(const vm_t *vm, uint64_t function, uint64_t length)
{
    uint64_t most = function == 0 ? WRITE_MAX : vm->uart.fifo_length;
    return (uint32_t)(length < most ? length : most);
}

static answer_t console_read(vm_t *vm, uint64_t address, uint64_t length)
{
    uint32_t part = console_part(vm, 1, length);
    if (length && !part)
        (void)received(vm); /* nothing there: says so to whom it concerns */
    for (uint32_t done = 0, size; done < part; done += size) {
        uint64_t bytes = 0;
        size = part - done < 8 ? part - done : 8;
        for (uint32_t i = 0; i < size; i++)
            bytes |= (uint64_t)received(vm) << (8 * i);
        points_stored(vm, vm->hart.pc, address + done, size, bytes);
        door_store(vm, address + done, size, bytes);
    }
    return (answer_t){SUCCESS, part};
}

static answer_t console_call(vm_t *vm, uint64_t function)
{
    uint64_t address, length;
    uint8_t byte = (uint8_t)vm->hart.x[A0];
    if (function == 2) {
        print(vm, &byte, 1);
        return (answer_t){SUCCESS, 0};
    }
    if (function > 2)
        return not_supported;
    if (!console_memory(vm, &address, &length))
        return (answer_t){ERR_INVALID_PARAM, 0};
    if (function == 1)
        return console_read(vm, address, length);
    uint32_t part = console_part(vm, 0, length);
    if (part)
        print(vm, vm->in->ram + (address - RAM_BASE), part);
    return (answer_t){SUCCESS, part};
}

/* ---------------------------------------------------------------------------------------------------- everything else */

/* Is hart 0, or none, all that (mask, base) names? */
static int names_harts(const vm_t *vm, uint64_t mask, uint64_t base)
{
    if (base == in_width(vm, NEVER))
        return 1;
    return !mask || (base == 0 && mask == 1);
}

static void raise_software_interrupt(vm_t *vm, uint64_t mask, uint64_t base)
{
    if (base == in_width(vm, NEVER) || (mask & 1))
        vm->supervisor.soft_mip |= MIP_SSIP;
}

static answer_t base_call(const vm_t *vm, uint64_t function)
{
    static const uint32_t offered[] = {EID_BASE, EID_TIME, EID_IPI, EID_RFENCE, EID_HSM, EID_SRST, EID_DBCN};
    uint64_t wanted = vm->hart.x[A0];
    switch (function) {
    case 0: return (answer_t){SUCCESS, SBI_VERSION};
    case 1: return (answer_t){SUCCESS, SBI_IMPLEMENTATION};
    case 2: return (answer_t){SUCCESS, 1};
    case 3:
        for (size_t i = 0; i < sizeof offered / sizeof *offered; i++)
            if (offered[i] == wanted)
                return (answer_t){SUCCESS, 1};
        return (answer_t){SUCCESS, wanted <= EID_LEGACY_LAST};
    case 4: /* mvendorid, marchid, mimpid */
    case 5:
    case 6: return (answer_t){SUCCESS, 0};
    default: return not_supported;
    }
}

static void set_timer(vm_t *vm)
{
    const uint64_t *x = vm->hart.x;
    csr_write_stimecmp(vm, vm->xlen == 32 ? x[A1] << 32 | (uint32_t)x[A0] : x[A0]);
}

static answer_t rfence_call(const vm_t *vm, uint64_t function)
{
    if (function > 2) /* what is above is about the hypervisor extension */
        return not_supported;
    return (answer_t){names_harts(vm, vm->hart.x[A0], vm->hart.x[A1]) ? SUCCESS : ERR_INVALID_PARAM, 0};
}

/* The wait begins with the step behind this one. A hart that keeps nothing goes on elsewhere when it ends. */
static answer_t suspend(vm_t *vm)
{
    hart_state *h = &vm->hart;
    uint64_t kind = h->x[A0] & 0xffffffffu, resume = h->x[A1], opaque = h->x[A2];
    if (kind != SUSPEND_RETENTIVE && kind != SUSPEND_NON_RETENTIVE)
        return (answer_t){ERR_INVALID_PARAM, 0};
    if (kind == SUSPEND_NON_RETENTIVE) {
        if (resume - RAM_BASE >= vm->ram_size || (resume & 1))
            return (answer_t){ERR_INVALID_ADDRESS, 0};
        h->pc = resume - 4; /* the ecall is passed over below */
        h->mstatus &= ~MSTATUS_SIE;
        vm->supervisor.satp = 0;
        walk_view_changed(vm);
        vm->time.waiting = 1;
        return (answer_t){0 /* the hart's id */, opaque};
    }
    vm->time.waiting = 1;
    return (answer_t){SUCCESS, 0};
}

static answer_t hart_call(vm_t *vm, uint64_t function)
{
    uint64_t hart = vm->hart.x[A0];
    switch (function) {
    case 0: return (answer_t){hart ? ERR_INVALID_PARAM : ERR_ALREADY_AVAILABLE, 0};
    case 1: machine_stop(vm, VM_STOP_WAITING, 0, vm->time.position); return (answer_t){SUCCESS, 0};
    case 2: return (answer_t){hart ? ERR_INVALID_PARAM : SUCCESS, 0 /* started */};
    case 3: return suspend(vm);
    default: return not_supported;
    }
}

static answer_t reset_call(vm_t *vm, uint64_t function)
{
    uint64_t type = (uint32_t)vm->hart.x[A0], reason = (uint32_t)vm->hart.x[A1];
    if (function != 0)
        return not_supported;
    if (type > 2 || reason > 1)
        return (answer_t){ERR_INVALID_PARAM, 0};
    machine_stop(vm, type == 0 ? VM_STOP_POWEROFF : VM_STOP_RESET, reason, vm->time.position);
    return (answer_t){SUCCESS, 0};
}

static answer_t call(vm_t *vm, uint64_t extension, uint64_t function)
{
    const uint64_t *x = vm->hart.x;
    switch (extension) {
    case EID_BASE: return base_call(vm, function);
    case EID_TIME:
        if (function != 0)
            return not_supported;
        set_timer(vm);
        return (answer_t){SUCCESS, 0};
    case EID_IPI:
        if (function != 0)
            return not_supported;
        if (!names_harts(vm, x[A0], x[A1]))
            return (answer_t){ERR_INVALID_PARAM, 0};
        raise_software_interrupt(vm, x[A0], x[A1]);
        return (answer_t){SUCCESS, 0};
    case EID_RFENCE: return rfence_call(vm, function);
    case EID_HSM: return hart_call(vm, function);
    case EID_SRST: return reset_call(vm, function);
    case EID_DBCN: return console_call(vm, function);
    default: return not_supported;
    }
}

/* The extensions of SBI 0.1, one function each. Masks of harts are in memory there; there is one hart to be meant. */
static int64_t legacy_call(vm_t *vm, uint64_t extension)
{
    uint8_t byte = (uint8_t)vm->hart.x[A0];
    switch (extension) {
    case 0: set_timer(vm); break;
    case 1: print(vm, &byte, 1); break;
    case 2: return received(vm);
    case 3: vm->supervisor.soft_mip &= ~MIP_SSIP; break;
    case 4: vm->supervisor.soft_mip |= MIP_SSIP; break;
    case 8: machine_stop(vm, VM_STOP_POWEROFF, 0, vm->time.position); break;
    default: break; /* 5 to 7: fences */
    }
    return 0;
}

/* Can the call be made now? 0: a page that it needs is missing, and the run is to return. Nothing has changed then. */
int sbi_ready(vm_t *vm)
{
    const uint64_t *x = vm->hart.x;
    uint64_t address, length;
    if (x[A7] != EID_DBCN || x[A6] > 1 || !console_memory(vm, &address, &length))
        return 1;
    uint32_t part = console_part(vm, x[A6], length);
    return !part || door_store_ready(vm, address, part) == 0;
}

/* The call of the ecall at hart.pc; the caller counts the step. */
void sbi_call(vm_t *vm)
{
    hart_state *h = &vm->hart;
    uint64_t extension = h->x[A7], function = h->x[A6];
    if (extension <= EID_LEGACY_LAST) {
        h->x[A0] = in_width(vm, (uint64_t)legacy_call(vm, extension));
    } else {
        answer_t answer = call(vm, extension, function);
        h->x[A0] = in_width(vm, (uint64_t)answer.error);
        h->x[A1] = in_width(vm, answer.value);
    }
    h->pc = in_width(vm, h->pc + 4);
    h->reservation = NEVER;
    h->reserved_value = 0;
    registers_inflow(vm, h->x[A0]);
    registers_inflow(vm, h->x[A1]);
    bus_update_lines(vm);
    vm->in->recheck = 1;
}

/*
 * A hart as firmware hands it to a supervisor: everything that can be is delegated, all of memory and every counter is
 * open, the timer is the supervisor's own, the console is set up. a0 = hart id, a1 = `tree`, the device tree's address.
 * To be called behind vm_reset.
 */
void vm_start_supervisor(vm_t *vm, uint64_t entry, uint64_t tree)
{
    supervisor_state *s = &vm->supervisor;
    vm->sbi = 1;
    vm->hart.pc = entry;
    vm->hart.priv = PRIV_S;
    vm->hart.mstatus = vm->extensions & EXT_F ? MSTATUS_FS : 0;
    vm->hart.x[A1] = tree;
    s->medeleg = SBI_MEDELEG;
    s->mideleg = MIP_SUPERVISOR;
    s->mcounteren = 0xffffffff;
    s->scounteren = 7;
    s->menvcfg = MENVCFG_STCE;
    s->pmpcfg[0] = 0x1f; /* NAPOT: everything, for everybody */
    s->pmpaddr[0] = vm->xlen == 32 ? 0xffffffff : (1ull << 54) - 1;
    vm->uart.lcr = 3;
    vm->uart.fcr = 1;
    vm_state_changed(vm);
}
