/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Control and status registers of the machine-mode hart (privileged manual chapter 2 and 3.1); those that come with
 * supervisor mode are in csr_supervisor.c.
 *
 * Whether an access is a read or a write, and that the two top bits of the number say "read only", is the stepper's
 * business; here a number either exists or does not. Fields that the manual calls WARL and that this machine does not
 * offer read as they were.
 */
#include "internal.h"
#include "isa_table.h"

#define CSR_FFLAGS 0x001
#define CSR_FRM 0x002
#define CSR_FCSR 0x003
#define CSR_MSTATUS 0x300
#define CSR_MISA 0x301
#define CSR_MIE 0x304
#define CSR_MTVEC 0x305
#define CSR_MSTATUSH 0x310
#define CSR_MCOUNTINHIBIT 0x320
#define CSR_MSCRATCH 0x340
#define CSR_MEPC 0x341
#define CSR_MCAUSE 0x342
#define CSR_MTVAL 0x343
#define CSR_MIP 0x344
#define CSR_MCYCLE 0xb00
#define CSR_MINSTRET 0xb02
#define CSR_CYCLE 0xc00
#define CSR_TIME 0xc01
#define CSR_INSTRET 0xc02
#define CSR_MVENDORID 0xf11
#define CSR_MCONFIGPTR 0xf15

#define MIE_WRITABLE (MIP_MSIP | MIP_MTIP | MIP_MEIP)
#define MSTATUS_XLENS (2ull << 34 | 2ull << 32) /* SXL, UXL: 64 bits */
#define MSTATUS_SUPERVISOR                                                                                              \
    (MSTATUS_SIE | MSTATUS_SPIE | MSTATUS_SPP | MSTATUS_MPRV | MSTATUS_SUM | MSTATUS_MXR | MSTATUS_TVM | MSTATUS_TW     \
     | MSTATUS_TSR)

static uint64_t xlen_mask(const vm_t *vm)
{
    return vm->xlen == 32 ? 0xffffffffull : ~0ull;
}

uint64_t csr_misa(const vm_t *vm)
{
    static const struct {
        uint32_t extension;
        char letter;
    } letters[] = {{EXT_I, 'I'}, {EXT_M, 'M'}, {EXT_A, 'A'}, {EXT_F, 'F'}, {EXT_D, 'D'}, {EXT_C, 'C'},
                   {EXT_S, 'S'}, {EXT_U, 'U'}};
    uint64_t misa = vm->xlen == 32 ? 1ull << 30 : 2ull << 62;
    for (size_t i = 0; i < sizeof letters / sizeof *letters; i++)
        if (vm->extensions & letters[i].extension)
            misa |= 1ull << (letters[i].letter - 'A');
    return misa;
}

static uint64_t mcycle(const vm_t *vm)
{
    return vm->time.position + vm->time.idle + vm->hart.mcycle_offset;
}

static uint64_t minstret(const vm_t *vm)
{
    return vm->time.position - vm->time.traps + vm->hart.minstret_offset;
}

/* The 64-bit counter behind a number with its `h` and its user-mode shadow bits removed. */
static int counter(vm_t *vm, uint32_t number, uint64_t *value)
{
    uint32_t index = number & 0x1f;
    if (index == 0)
        *value = mcycle(vm);
    else if (index == 1 && (number & 0xf00) == 0xc00)
        *value = vm_mtime(vm);
    else if (index == 2)
        *value = minstret(vm);
    else if (index >= 3)
        *value = 0;
    else
        return -1;
    return 0;
}

static int is_counter(const vm_t *vm, uint32_t number)
{
    uint32_t group = number & ~0x1fu;
    return group == 0xb00 || group == 0xc00 || (vm->xlen == 32 && (group == 0xb80 || group == 0xc80));
}

static int float_ready(const vm_t *vm)
{
    return (vm->extensions & EXT_F) && (vm->hart.mstatus & MSTATUS_FS);
}

int csr_read(vm_t *vm, uint32_t number, uint64_t *value)
{
    hart_state *h = &vm->hart;
    uint64_t v;
    if (is_counter(vm, number)) {
        if (counter(vm, number, &v))
            return -1;
        *value = (number & 0x80) ? v >> 32 : v & xlen_mask(vm);
        return 0;
    }
    switch (number) {
    case CSR_FFLAGS:
    case CSR_FRM:
    case CSR_FCSR:
        if (!float_ready(vm))
            return -1;
        v = number == CSR_FFLAGS ? h->fflags : number == CSR_FRM ? h->frm : h->frm << 5 | h->fflags;
        break;
    case CSR_MSTATUS:
        v = h->mstatus | ((h->mstatus & MSTATUS_FS) == MSTATUS_FS ? 1ull << (vm->xlen - 1) : 0);
        if (vm->in->supervisor && vm->xlen == 64)
            v |= MSTATUS_XLENS;
        break;
    case CSR_MSTATUSH:
        if (vm->xlen != 32)
            return -1;
        v = 0;
        break;
    case CSR_MISA: v = csr_misa(vm); break;
    case CSR_MIE: v = h->mie; break;
    case CSR_MTVEC: v = h->mtvec; break;
    case CSR_MSCRATCH: v = h->mscratch; break;
    case CSR_MEPC: v = h->mepc; break;
    case CSR_MCAUSE: v = h->mcause; break;
    case CSR_MTVAL: v = h->mtval; break;
    case CSR_MIP: v = h->mip; break;
    default:
        if (number == CSR_MCOUNTINHIBIT || (number >= 0x323 && number <= 0x33f)
            || (number >= CSR_MVENDORID && number <= CSR_MCONFIGPTR)) {
            v = 0; /* mhpmevent, vendor, architecture, implementation, hart id: all zero */
            break;
        }
        if (!vm->in->supervisor || csr_supervisor_read(vm, number, &v))
            return -1;
    }
    *value = v & xlen_mask(vm);
    return 0;
}

/* The instruction that writes a counter does not count itself: the next one reads what was written. */
static void write_counter(uint64_t *offset, uint64_t now, uint32_t number, uint64_t value, uint32_t xlen)
{
    uint64_t wanted = value;
    if (xlen == 32)
        wanted = (number & 0x80) ? value << 32 | (uint32_t)(now + *offset)
                                 : ((now + *offset) & 0xffffffff00000000ull) | (uint32_t)value;
    *offset = wanted - (now + 1);
}

static void write_mstatus(vm_t *vm, uint64_t value)
{
    hart_state *h = &vm->hart;
    uint64_t old = h->mstatus, writable = MSTATUS_MIE | MSTATUS_MPIE | ((vm->extensions & EXT_F) ? MSTATUS_FS : 0);
    if (vm->in->supervisor) {
        writable |= MSTATUS_SUPERVISOR;
        if ((value & MSTATUS_MPP) >> 11 != 2) /* there is no such mode */
            writable |= MSTATUS_MPP;
    }
    h->mstatus = (old & ~writable) | (value & writable);
    if ((old ^ h->mstatus) & (MSTATUS_SUM | MSTATUS_MXR | MSTATUS_MPRV | MSTATUS_MPP))
        walk_view_changed(vm);
}

void csr_write(vm_t *vm, uint32_t number, uint64_t value)
{
    hart_state *h = &vm->hart;
    uint64_t ignored;
    value &= xlen_mask(vm);
    switch (number) {
    case CSR_FFLAGS: h->fflags = value & 31; break;
    case CSR_FRM: h->frm = value & 7; break;
    case CSR_FCSR:
        h->fflags = value & 31;
        h->frm = value >> 5 & 7;
        break;
    case CSR_MSTATUS:
        write_mstatus(vm, value);
        break;
    case CSR_MIE: h->mie = value & (MIE_WRITABLE | (vm->in->supervisor ? MIP_SUPERVISOR : 0)); break;
    case CSR_MIP:
        if (vm->in->supervisor)
            csr_supervisor_write_mip(vm, value);
        break;
    case CSR_MTVEC:
        if ((value & 3) < 2)
            h->mtvec = value;
        break;
    case CSR_MSCRATCH: h->mscratch = value; break;
    case CSR_MEPC: h->mepc = value & ((vm->extensions & EXT_C) ? ~1ull : ~3ull); break;
    case CSR_MCAUSE: h->mcause = value; break;
    case CSR_MTVAL: h->mtval = value; break;
    case CSR_MCYCLE:
    case CSR_MCYCLE | 0x80:
        write_counter(&h->mcycle_offset, vm->time.position + vm->time.idle, number, value, vm->xlen);
        break;
    case CSR_MINSTRET:
    case CSR_MINSTRET | 0x80:
        write_counter(&h->minstret_offset, vm->time.position - vm->time.traps, number, value, vm->xlen);
        break;
    default: /* exists; the machine-mode hart has nothing else that is writable */
        if (vm->in->supervisor && !csr_supervisor_read(vm, number, &ignored))
            csr_supervisor_write(vm, number, value);
        break;
    }
    if (number <= CSR_FCSR && number >= CSR_FFLAGS)
        h->mstatus |= MSTATUS_FS;
    if (h->mip & h->mie)
        vm->in->recheck = 1; /* an interrupt may have become deliverable */
}

int vm_csr_read(vm_t *vm, uint32_t number, uint64_t *value)
{
    return csr_read(vm, number, value);
}
