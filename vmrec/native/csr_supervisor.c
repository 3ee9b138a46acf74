/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The CSRs that a hart has more with supervisor and user mode (privileged manual 3.1 and 4.1; Sstc for stimecmp), and
 * who may reach which.
 *
 * sstatus, sie and sip are views of mstatus, mie and mip: csr.c does those. Here a number either exists or does not,
 * as there; csr_forbidden says what the hart's present mode has no right to.
 */
#include "internal.h"
#include "isa_table.h"

#define CSR_SSTATUS 0x100
#define CSR_SIE 0x104
#define CSR_STVEC 0x105
#define CSR_SCOUNTEREN 0x106
#define CSR_SENVCFG 0x10a
#define CSR_SSCRATCH 0x140
#define CSR_SEPC 0x141
#define CSR_SCAUSE 0x142
#define CSR_STVAL 0x143
#define CSR_SIP 0x144
#define CSR_STIMECMP 0x14d
#define CSR_STIMECMPH 0x15d
#define CSR_SATP 0x180
#define CSR_MSTATUS 0x300
#define CSR_MEDELEG 0x302
#define CSR_MIDELEG 0x303
#define CSR_MIE 0x304
#define CSR_MCOUNTEREN 0x306
#define CSR_MENVCFG 0x30a
#define CSR_MENVCFGH 0x31a
#define CSR_MIP 0x344
#define CSR_TSELECT 0x7a0
#define CSR_TDATA1 0x7a1
#define CSR_TDATA2 0x7a2
#define CSR_TDATA3 0x7a3
#define CSR_TINFO 0x7a4
#define CSR_CYCLE 0xc00

#define MEDELEG_BITS 0xb3ffull /* every cause there is but ecall from machine mode */
#define ENVCFG_FIOM 1ull

int csr_supervisor_read(vm_t *vm, uint32_t number, uint64_t *value)
{
    const supervisor_state *s = &vm->supervisor;
    int narrow = vm->xlen == 32;
    switch (number) {
    case CSR_SSTATUS: *value = (vm->hart.mstatus & SSTATUS_BITS) | csr_status_fixed(vm); return 0;
    case CSR_SIE: *value = vm->hart.mie & s->mideleg; return 0;
    case CSR_SIP: *value = vm->hart.mip & s->mideleg; return 0;
    case CSR_STVEC: *value = s->stvec; return 0;
    case CSR_SCOUNTEREN: *value = s->scounteren; return 0;
    case CSR_SENVCFG: *value = s->senvcfg; return 0;
    case CSR_SSCRATCH: *value = s->sscratch; return 0;
    case CSR_SEPC: *value = s->sepc; return 0;
    case CSR_SCAUSE: *value = s->scause; return 0;
    case CSR_STVAL: *value = s->stval; return 0;
    case CSR_STIMECMP: *value = s->stimecmp; return 0;
    case CSR_STIMECMPH: *value = s->stimecmp >> 32; return narrow ? 0 : -1;
    case CSR_SATP: *value = s->satp; return 0;
    case CSR_MEDELEG: *value = s->medeleg; return 0;
    case CSR_MIDELEG: *value = s->mideleg; return 0;
    case CSR_MCOUNTEREN: *value = s->mcounteren; return 0;
    case CSR_MENVCFG: *value = s->menvcfg; return 0;
    case CSR_MENVCFGH: *value = s->menvcfg >> 32; return narrow ? 0 : -1;
    /* There is one trigger, of type 0, which is to say none: those who enumerate find that out (Sdtrig 5.7.1). */
    case CSR_TSELECT:
    case CSR_TDATA1:
    case CSR_TDATA2:
    case CSR_TDATA3: *value = 0; return 0;
    case CSR_TINFO: *value = 1; return 0;
    default: return pmp_read(vm, number, value);
    }
}

static uint64_t join(const vm_t *vm, uint64_t old, uint64_t value, int upper)
{
    if (vm->xlen == 64)
        return value;
    return upper ? value << 32 | (uint32_t)old : (old & ~0xffffffffull) | (uint32_t)value;
}

/* A mode that is not offered leaves satp as it was, so that a kernel can find out which are. */
static void write_satp(vm_t *vm, uint64_t value)
{
    uint64_t mode = value >> 60;
    if (vm->xlen == 64 && mode != 0 && mode != 8 && mode != 9)
        return;
    vm->supervisor.satp = value;
    walk_view_changed(vm);
    vm->in->recheck = 1;
}

static void write_envcfg(vm_t *vm, uint64_t value)
{
    vm->supervisor.menvcfg = value & (ENVCFG_FIOM | MENVCFG_STCE);
    bus_update_lines(vm);
    vm->in->recheck = 1; /* a timer began or ended to count */
}

void csr_write_stimecmp(vm_t *vm, uint64_t value)
{
    vm->supervisor.stimecmp = value;
    bus_update_lines(vm);
    vm->in->recheck = 1;
    if (vm->watch_deadline && !vm->in->exit)
        vm->in->exit = VM_EXIT_DEADLINE + 1;
}

/* Of a register that csr_supervisor_read knows. */
void csr_supervisor_write(vm_t *vm, uint32_t number, uint64_t value)
{
    supervisor_state *s = &vm->supervisor;
    uint64_t code = (vm->extensions & EXT_C) ? ~1ull : ~3ull;
    switch (number) {
    case CSR_SSTATUS:
        csr_write(vm, CSR_MSTATUS, (vm->hart.mstatus & ~SSTATUS_BITS) | (value & SSTATUS_BITS));
        break;
    case CSR_SIE: csr_write(vm, CSR_MIE, (vm->hart.mie & ~s->mideleg) | (value & s->mideleg)); break;
    case CSR_SIP:
        s->soft_mip = (s->soft_mip & ~(MIP_SSIP & s->mideleg)) | (value & MIP_SSIP & s->mideleg);
        bus_update_lines(vm);
        break;
    case CSR_STVEC:
        if ((value & 3) < 2)
            s->stvec = value;
        break;
    case CSR_SCOUNTEREN: s->scounteren = (uint32_t)value; break;
    case CSR_SENVCFG: s->senvcfg = value & ENVCFG_FIOM; break;
    case CSR_SSCRATCH: s->sscratch = value; break;
    case CSR_SEPC: s->sepc = value & code; break;
    case CSR_SCAUSE: s->scause = value; break;
    case CSR_STVAL: s->stval = value; break;
    case CSR_STIMECMP:
    case CSR_STIMECMPH: csr_write_stimecmp(vm, join(vm, s->stimecmp, value, number == CSR_STIMECMPH)); break;
    case CSR_SATP: write_satp(vm, value); break;
    case CSR_MEDELEG: s->medeleg = value & MEDELEG_BITS; break;
    case CSR_MIDELEG: s->mideleg = value & MIP_SUPERVISOR; break;
    case CSR_MCOUNTEREN: s->mcounteren = (uint32_t)value; break;
    case CSR_MENVCFG:
    case CSR_MENVCFGH: write_envcfg(vm, join(vm, s->menvcfg, value, number == CSR_MENVCFGH)); break;
    case CSR_TSELECT:
    case CSR_TDATA1:
    case CSR_TDATA2:
    case CSR_TDATA3:
    case CSR_TINFO: break;
    default: pmp_write(vm, number, value); break;
    }
}

/* The bits of mip that a machine-mode write changes. */
void csr_supervisor_write_mip(vm_t *vm, uint64_t value)
{
    supervisor_state *s = &vm->supervisor;
    uint64_t writable = MIP_SUPERVISOR & ~(s->menvcfg & MENVCFG_STCE ? MIP_STIP : 0);
    s->soft_mip = (s->soft_mip & ~writable) | (value & writable);
    bus_update_lines(vm);
}

/* Reads and writes of stimecmp and of the counters need leave of the modes above. */
static int needs_leave(const vm_t *vm, uint32_t number)
{
    const supervisor_state *s = &vm->supervisor;
    uint64_t bit = 1ull << (number & 0x1f);
    if (number == CSR_STIMECMP || number == CSR_STIMECMPH)
        return !(s->menvcfg & MENVCFG_STCE) || !(s->mcounteren & 2);
    if ((number & ~0x9fu) != CSR_CYCLE)
        return 0;
    return !(s->mcounteren & bit) || (vm->hart.priv == PRIV_U && !(s->scounteren & bit));
}

int csr_forbidden(const vm_t *vm, uint32_t number)
{
    uint64_t mode = vm->hart.priv;
    if (mode == PRIV_M)
        return 0;
    if ((number >> 8 & 3) > mode)
        return 1;
    if (number == CSR_SATP && (vm->hart.mstatus & MSTATUS_TVM))
        return 1;
    return needs_leave(vm, number);
}

/* The external interrupt's line is no part of what csrrs and csrrc write back to mip (3.1.9). */
uint64_t csr_modified(const vm_t *vm, uint32_t number, uint64_t read)
{
    return number == CSR_MIP ? (read & ~MIP_SEIP) | (vm->supervisor.soft_mip & MIP_SEIP) : read;
}
