/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The stepper: a small exact interpreter over the same hart record, the same door and the same devices as the engine.
 *
 * It does what must be looked at closely: instructions that the engine must not run (CSRs, traps, wfi), accesses that
 * the door refused the engine (devices, stores to code, tohost), the way to an exact position inside a block, and all
 * of a run whose rows are captured. It knows RV32 and RV64 with M, A, C, Zicsr and machine mode; floating-point
 * loads and stores too; other floating-point instructions it hands to the engine one by one.
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

#include "internal.h"
#include "isa_table.h"

#define LINGER 64u
#define LINGER_TAIL 192u

static int load_slow(vm_t *vm, uint64_t address, uint32_t size, uint64_t *value)
{
    int result = door_load(vm, address, size, value);
    return result == 1 ? bus_load(vm, address, size, value) : result;
}

static uint64_t low_bytes(uint64_t value, uint32_t size)
{
    return size == 8 ? value : value & ((1ull << (8 * size)) - 1);
}

/*
 * Is any of the RAM range in the page whose code is being executed, or in the two bytes behind it that its last
 * instruction may reach into? Such a store ends the captured block.
 */
static int into_executing(const vm_t *vm, uint64_t address, uint32_t size)
{
    uint64_t offset = address - RAM_BASE, start = vm->in->executing << PAGE_SHIFT;
    return vm->in->executing != NEVER && offset < start + PAGE_SIZE + 2 && offset + size > start;
}

static decoded_page *rom_page(vm_t *vm, uint64_t pc)
{
    decoded_page **page = &vm->in->rom_decoded[(pc - ROM_BASE) >> PAGE_SHIFT];
    if (!*page)
        *page = door_new_decoded();
    return *page;
}

/* The page of decoded code for `pc`: NULL and *fault set (1 fetch fault, 2 missing page) if there is none. */
static decoded_page *code_page(vm_t *vm, uint64_t pc, int *fault)
{
    struct vm_internal *in = vm->in;
    uint64_t offset = pc - RAM_BASE, page = offset >> PAGE_SHIFT;
    *fault = 0;
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
    return NULL;
}

/*
 * Decodes the instruction at `pc` into its page. 0 done, 1 fetch fault at *tval, 2 exit wanted. An instruction that
 * straddles two pages is kept with the first; the second then counts as decoded too, so that a store to it is seen.
 */
static int decode_at(vm_t *vm, decoded_page *page, uint64_t pc, uint64_t *tval)
{
    const uint8_t *low = door_fetch(vm, pc), *high;
    uint32_t word = low[0] | (uint32_t)low[1] << 8;
    if ((word & 3) == 3) {
        if ((pc & (PAGE_SIZE - 1)) == PAGE_SIZE - 2) {
            int fault;
            uint64_t executing = vm->in->executing;
            *tval = pc + 2;
            decoded_page *next = code_page(vm, pc + 2, &fault);
            vm->in->executing = executing;
            if (!next)
                return fault;
        }
        high = door_fetch(vm, pc + 2);
        word |= (uint32_t)high[0] << 16 | (uint32_t)high[1] << 24;
    }
    insn_t *insn = &page->insn[(pc & (PAGE_SIZE - 1)) >> 1];
    decode(vm, word, insn);
    if (UNLIKELY(vm->in->points.break_count) && points_inside(vm, pc, pc + 1))
        insn->op |= OP_POINT;
    return 0;
}

/* A CSR instruction at the current position. 0 done and *old is what rd gets, -1 illegal. */
static int csr_instruction(vm_t *vm, const insn_t *d, uint64_t operand, uint64_t *old)
{
    uint32_t op = d->op & (OP_POINT - 1);
    int writes = op == OP_CSRRW || op == OP_CSRRWI || d->rs1 != 0;
    uint64_t value = operand;
    vm->in->reasons++;
    if (writes && (d->extra >> 10) == 3)
        return -1;
    if (csr_read(vm, d->extra, old))
        return -1;
    registers_inflow(vm, *old);
    if (!writes)
        return 0;
    if (op == OP_CSRRS || op == OP_CSRRSI)
        value = *old | operand;
    else if (op == OP_CSRRC || op == OP_CSRRCI)
        value = *old & ~operand;
    return csr_write(vm, d->extra, value);
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
