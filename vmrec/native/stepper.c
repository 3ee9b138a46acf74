/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The stepper: a small exact interpreter over the same hart record, the same door and the same devices as the engine.
 *
 * It does what must be looked at closely: instructions that the engine must not run (CSRs, traps, wfi), accesses that
 * the door refused the engine (devices, stores to code, tohost), the way to an exact position inside a block, and all
 * of a run whose rows are captured. It knows RV32 and RV64 with M, A, C, Zicsr and all modes; it does floating-point
 * arithmetic by stepper_float.h and float.c, and a rest of it, in revision 1, by handing it to the engine one by one.
 *
 * Code is decoded once per page into `decoded_page`, an entry per halfword; a store into such a page forgets the
 * entries that it overlaps. There are four copies of the interpreter, made from stepper_template.h: RV32 and RV64,
 * with and without capture.
 *
 * How long it runs: up to `limit` exactly; or, with `linger`, until it has done a while (LINGER steps) of plain
 * instructions, and then up to a taken jump, so that the engine starts where a block starts. Code that needs the
 * stepper often thus stays here instead of going to and fro.
 *
 * Where Unicorn departs from the manual and the VMM cannot see it, the stepper does as the engine does; that is part
 * of machine revision 1: sc to an address that is not the reserved one fails without looking at its alignment;
 * a reservation is lost by comparing the value in memory, not by the store itself; and sc.w after lr.d compares and
 * stores a word, but reports a failure unless the doubleword that lr.d read was the word's sign extension.
 */
#include <stdlib.h>

#include "float_host.h"
#include "internal.h"
#include "isa_table.h"

#define LINGER 64u
#define LINGER_TAIL 192u
#define FLOATS_STAY 4u /* floating-point arithmetic, one instruction in so many, is a reason to stay too */

static uint64_t low_bytes(uint64_t value, uint32_t size)
{
    return size == 8 ? value : value & ((1ull << (8 * size)) - 1);
}

/*
 * Is any of the RAM range in the page whose code is being executed, or in the `behind` bytes behind it that the storing
 * instruction itself reaches into? Such a store ends the captured block. (The page behind is none that every store is
 * looked at in, unless there is an instruction across its begin: an earlier one of the block must not be asked about
 * it.) With virtual addresses those bytes may be anywhere, and capture.c has a copy of them.
 */
static int into_executing(const vm_t *vm, const uint64_t place[2], uint32_t size, uint64_t behind)
{
    uint64_t offset = place[0] - RAM_BASE, other = place[1] - RAM_BASE, start = vm->in->executing << PAGE_SHIFT;
    if (vm->in->supervisor)
        return offset >> PAGE_SHIFT == vm->in->executing
               || ((offset & (PAGE_SIZE - 1)) + size > PAGE_SIZE && other >> PAGE_SHIFT == vm->in->executing);
    return vm->in->executing != NEVER && offset < start + PAGE_SIZE + behind && offset + size > start;
}

static decoded_page *rom_page(vm_t *vm, uint64_t pc)
{
    decoded_page **page = &vm->in->rom_decoded[(pc - ROM_BASE) >> PAGE_SHIFT];
    if (!*page)
        *page = door_new_decoded();
    vm->in->executing_rom = (pc - ROM_BASE) >> PAGE_SHIFT;
    return *page;
}

/* The page of decoded code for `pc`: NULL and *fault set (1 fetch fault of *cause, 2 missing page) if there is none. */
static decoded_page *code_page(vm_t *vm, uint64_t pc, int *fault, uint64_t *cause)
{
    struct vm_internal *in = vm->in;
    uint64_t page, address = pc;
    *fault = 0;
    if (UNLIKELY(!in->identity)) {
        int refused = walk_address(vm, pc, ACCESS_FETCH, &pc);
        if (refused) {
            *cause = (uint64_t)refused;
            *fault = refused < 0 ? 2 : 1;
            return NULL;
        }
        walk_remember(vm, address, pc, ACCESS_FETCH);
    }
    uint64_t offset = pc - RAM_BASE;
    page = offset >> PAGE_SHIFT;
    if (LIKELY(offset < vm->ram_size)) {
        in->executing = page;
        if (UNLIKELY(in->page_flags[page] & PAGE_MISSING)) {
            uint64_t ignored;
            door_load(vm, pc, 1, &ignored);
            *fault = 2;
            return NULL;
        }
        return LIKELY(in->page_flags[page] & PAGE_DECODED) ? in->decoded[page] : door_decoded(vm, page);
    }
    in->executing = NEVER;
    if (pc - ROM_BASE < ROM_SIZE)
        return rom_page(vm, pc);
    *fault = 1;
    *cause = CAUSE_FETCH_ACCESS;
    return NULL;
}

/* Code in the page that is executing: `pc` lies there. */
static const uint8_t *code_bytes(const vm_t *vm, uint64_t pc)
{
    const struct vm_internal *in = vm->in;
    uint64_t at = pc & (PAGE_SIZE - 1);
    if (LIKELY(in->executing != NEVER))
        return in->ram + (in->executing << PAGE_SHIFT) + at;
    return in->rom + (in->executing_rom << PAGE_SHIFT) + at;
}

/* The operations for which the interpreter has a copy of its own for instructions of two bytes. */
static int is_often_short(uint32_t op)
{
    switch (op) {
    case OP_LUI: case OP_ADDI: case OP_SLLI: case OP_SRLI: case OP_SRAI: case OP_ANDI: case OP_ADD: case OP_SUB: case OP_XOR:
    case OP_OR: case OP_AND: case OP_BEQ: case OP_BNE: case OP_LW: case OP_SW: case OP_ADDIW: case OP_ADDW: case OP_SUBW:
    case OP_LD: case OP_SD:
        return 1;
    default: return 0;
    }
}

/*
 * Decodes the instruction at `pc` into its page. 0 done, 1 fetch fault of *cause at *tval, 2 exit wanted. An instruction
 * that straddles two pages is kept with the first; the second then counts as decoded too, so that a store to it is seen.
 * With virtual addresses that holds until the page is entered anew: the second half may be elsewhere then.
 */
static int decode_at(vm_t *vm, decoded_page *page, uint64_t pc, uint64_t *cause, uint64_t *tval)
{
    const uint8_t *low = code_bytes(vm, pc), *high;
    uint32_t word = low[0] | (uint32_t)low[1] << 8;
    if ((word & 3) == 3) {
        if ((pc & (PAGE_SIZE - 1)) == PAGE_SIZE - 2) {
            int fault;
            uint64_t executing = vm->in->executing, rom = vm->in->executing_rom;
            *tval = pc + 2;
            decoded_page *next = code_page(vm, pc + 2, &fault, cause);
            high = next ? code_bytes(vm, pc + 2) : low;
            vm->in->executing = executing;
            vm->in->executing_rom = rom;
            if (!next)
                return fault;
            memcpy(vm->in->straddle, high, 2);
        } else {
            high = low + 2;
        }
        word |= (uint32_t)high[0] << 16 | (uint32_t)high[1] << 24;
    }
    insn_t *insn = &page->insn[(pc & (PAGE_SIZE - 1)) >> 1];
    decode(vm, word, insn);
    if (insn->length == 2 && is_often_short(insn->op))
        insn->op |= OP_SHORT;
    if (UNLIKELY(vm->in->points.break_count) && points_near(vm, pc))
        insn->op |= OP_POINT;
    return 0;
}

/*
 * A CSR instruction on sstatus that changes nothing but whether interrupts are taken: what kernels do around each lock.
 * `kind`: 1 write, 2 set, 3 clear. 1 if it was one, and *old is what rd gets; else nothing was done.
 */
static inline int sstatus_interrupts(vm_t *vm, uint32_t kind, uint64_t operand, uint64_t *old)
{
    const uint64_t quick = MSTATUS_SIE | MSTATUS_SPIE | MSTATUS_SPP;
    hart_state *h = &vm->hart;
    uint64_t now = h->mstatus & SSTATUS_BITS, wanted = kind == 1 ? operand : kind == 2 ? now | operand : now & ~operand;
    uint64_t changed = (now ^ wanted) & SSTATUS_BITS;
    if (changed & ~quick)
        return 0;
    *old = csr_status_fixed(vm) | now;
    h->mstatus ^= changed;
    vm->in->reasons++;
    if ((changed & wanted & MSTATUS_SIE) && (h->mip & h->mie))
        vm->in->recheck = 1;
    return 1;
}

/* A CSR instruction at the current position. 0 done and *old is what rd gets, -1 illegal. */
static int csr_instruction(vm_t *vm, const insn_t *d, uint64_t operand, uint64_t *old)
{
    uint32_t op = d->op & (OP_POINT - 1);
    int writes = op == OP_CSRRW || op == OP_CSRRWI || d->rs1 != 0;
    uint64_t value = operand;
    vm->in->reasons++;
    const int modes = vm->in->supervisor;
    if ((writes && (d->extra >> 10) == 3) || (modes && csr_forbidden(vm, d->extra)))
        return -1;
    if (csr_read(vm, d->extra, old))
        return -1;
    registers_inflow(vm, *old);
    if (!writes)
        return 0;
    if (op == OP_CSRRS || op == OP_CSRRSI)
        value = (modes ? csr_modified(vm, d->extra, *old) : *old) | operand;
    else if (op == OP_CSRRC || op == OP_CSRRCI)
        value = (modes ? csr_modified(vm, d->extra, *old) : *old) & ~operand;
    csr_write(vm, d->extra, value);
    return 0;
}

/* May the hart's mode execute sret, sfence.vma or wfi? (3.1.6.5) */
static int permitted(const vm_t *vm, uint32_t op)
{
    uint64_t mode = vm->hart.priv, traps;
    switch (op) {
    case OP_SRET: traps = MSTATUS_TSR; break;
    case OP_SFENCE_VMA: traps = MSTATUS_TVM; break;
    default: traps = MSTATUS_TW; break;
    }
    return mode == PRIV_M || (mode == PRIV_S && !(vm->hart.mstatus & traps));
}

static uint64_t amo_result(uint32_t op, uint64_t memory, uint64_t operand, uint32_t size)
{
    int64_t a = size == 4 ? (int32_t)memory : (int64_t)memory, b = size == 4 ? (int32_t)operand : (int64_t)operand;
    uint64_t ua = low_bytes(memory, size), ub = low_bytes(operand, size);
    switch (op) {
    case OP_AMOSWAP_W: case OP_AMOSWAP_D: return operand;
    case OP_AMOADD_W: case OP_AMOADD_D: return memory + operand;
    case OP_AMOXOR_W: case OP_AMOXOR_D: return memory ^ operand;
    case OP_AMOAND_W: case OP_AMOAND_D: return memory & operand;
    case OP_AMOOR_W: case OP_AMOOR_D: return memory | operand;
    case OP_AMOMIN_W: case OP_AMOMIN_D: return a < b ? memory : operand;
    case OP_AMOMAX_W: case OP_AMOMAX_D: return a > b ? memory : operand;
    case OP_AMOMINU_W: case OP_AMOMINU_D: return ua < ub ? memory : operand;
    default: return ua > ub ? memory : operand;
    }
}

#define XLEN 32
#define CAPTURE 0
#include "stepper_template.h"
#undef CAPTURE
#define CAPTURE 1
#include "stepper_template.h"
#undef CAPTURE
#undef XLEN
#define XLEN 64
#define CAPTURE 0
#include "stepper_template.h"
#undef CAPTURE
#define CAPTURE 1
#include "stepper_template.h"
#undef CAPTURE
#undef XLEN

void stepper_run(vm_t *vm, uint64_t limit, int linger)
{
    if (vm->in->capture.on) {
        if (vm->xlen == 32)
            step_32_1(vm, limit, linger);
        else
            step_64_1(vm, limit, linger);
    } else {
        if (vm->xlen == 32)
            step_32_0(vm, limit, linger);
        else
            step_64_0(vm, limit, linger);
    }
}
