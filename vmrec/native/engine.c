/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unicorn as a fast executor of plain instructions.
 *
 * The engine gets the hart's registers, runs translated blocks, and gives them back. It never sees a CSR instruction,
 * a trap, an interrupt or a device: those end its run, and the stepper does them. What makes that exact:
 *
 *  - UC_HOOK_BLOCK runs before the first instruction of every block. It counts the block's instructions, and stops
 *    there if the block would pass the target or holds an instruction that needs the stepper. A stop from this hook
 *    leaves the pc at the block's start (stops from memory hooks execute the instruction twice, so there are none).
 *    Short blocks come here once: inline_x86.c then has them count by themselves, down to where a slice ends.
 *  - Translations of bytes that have changed are dropped before the engine is entered. Nothing changes them while it
 *    runs: it has no page both for storing and for executing.
 *  - The engine runs with UC_TLB_VIRTUAL: our fill callback is asked before it first touches a page. A refusal ends
 *    the run with the pc exactly at the instruction, and nothing of it done.
 *  - Exceptions inside the engine (a misaligned jump, an instruction it does not know) reach UC_HOOK_INTR with
 *    pc + 4, whatever the instruction's length. The hook stops; the stepper then does the instruction by the manual.
 *  - The exit address list is switched on and left empty; `count`, `until` and `timeout` are never used; the pc is
 *    never written inside a hook.
 *  - With mstatus.FS off the engine would still run compressed floating-point loads and stores, and fsgnj.d. So blocks
 *    are looked at once with FS off and once with it on, and kept apart; with it off, one that holds a floating-point
 *    instruction is the stepper's.
 *  - Registers travel through a saved context whose layout is probed at start. fflags are outside of it and travel
 *    by themselves; they can be read only while mstatus.FS is on.
 *
 * In revision 1 the engine's floating-point arithmetic is the rule, and some of it the stepper cannot do by itself
 * (float.c). Such an instruction is copied to a slot of a scratch page that the guest cannot reach, with an ebreak behind
 * it, and run there: same softfloat, one exact step (SCRATCH_BASE in internal.h).
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <unicorn/unicorn.h>

#include "internal.h"
#include "isa_table.h"

#define SLICE (1u << 16) /* steps between two looks at the attention flag; no block is longer */

static struct {
    uc_err (*emu_start)(uc_engine *, uint64_t, uint64_t, uint64_t, size_t);
    uc_err (*emu_stop)(uc_engine *);
    uc_err (*hook_add)(uc_engine *, uc_hook *, int, void *, void *, uint64_t, uint64_t, ...);
    uc_err (*ctl)(uc_engine *, uc_control_type, ...);
    uc_err (*context_alloc)(uc_engine *, uc_context **);
    uc_err (*context_save)(uc_engine *, uc_context *);
    uc_err (*context_restore)(uc_engine *, uc_context *);
    uc_err (*context_free)(uc_context *);
    size_t (*context_size)(uc_engine *);
    uc_err (*reg_read)(uc_engine *, int, void *);
    uc_err (*reg_write)(uc_engine *, int, const void *);
    uc_err (*mem_map_ptr)(uc_engine *, uint64_t, uint64_t, uint32_t, void *);
    void *exit_check_32, *exit_check_64;
} api;

/* The header's uc_ctl_* macros call `uc_ctl`. */
#define uc_ctl api.ctl

void vm_set_api(const engine_api *from)
{
    memcpy(&api.emu_start, &from->emu_start, sizeof(void *));
    memcpy(&api.emu_stop, &from->emu_stop, sizeof(void *));
    memcpy(&api.hook_add, &from->hook_add, sizeof(void *));
    memcpy(&api.ctl, &from->ctl, sizeof(void *));
    memcpy(&api.context_alloc, &from->context_alloc, sizeof(void *));
    memcpy(&api.context_save, &from->context_save, sizeof(void *));
    memcpy(&api.context_restore, &from->context_restore, sizeof(void *));
    memcpy(&api.context_free, &from->context_free, sizeof(void *));
    memcpy(&api.context_size, &from->context_size, sizeof(void *));
    memcpy(&api.reg_read, &from->reg_read, sizeof(void *));
    memcpy(&api.reg_write, &from->reg_write, sizeof(void *));
    memcpy(&api.mem_map_ptr, &from->mem_map_ptr, sizeof(void *));
    api.exit_check_32 = from->exit_check_32;
    api.exit_check_64 = from->exit_check_64;
}

/* The engine's registers in the saved context. */

static uint8_t *blob(const struct vm_internal *in)
{
    return in->context;
}

static void put(const struct vm_internal *in, size_t at, uint64_t value)
{
    memcpy(blob(in) + at, &value, in->word_bytes);
}

static uint64_t get(const struct vm_internal *in, size_t at)
{
    uint64_t value = 0;
    memcpy(&value, blob(in) + at, in->word_bytes);
    return value;
}

/* --- blocks ------------------------------------------------------------------------------------------------- */

static block_info *block_slot(const struct vm_internal *in, uint64_t pc)
{
    return &in->blocks[(pc >> 1) & (BLOCK_SLOTS - 1)];
}

/* A 64th of some tables, the blocks of all virtual pages whose number ends so. */
static void clear_slot(struct vm_internal *in, uint64_t slot, uint32_t first_table, uint32_t end)
{
    for (uint32_t table = first_table; table < end && in->block_tables[table]; table++)
        memset(in->block_tables[table] + slot * BLOCKS_PER_PAGE, 0, BLOCKS_PER_PAGE * sizeof(block_info));
}

void engine_forget_blocks(vm_t *vm, uint64_t page)
{
    struct vm_internal *in = vm->in;
    for (uint64_t slots = in->code_slots[page]; slots; slots &= slots - 1)
        clear_slot(in, (uint64_t)__builtin_ctzll(slots), 0, BLOCK_TABLES);
    in->code_slots[page] = 0;
}

/* Blocks that hold the instruction at `pc`, a virtual address: one may have begun in the page before. */
void engine_forget_blocks_at(vm_t *vm, uint64_t pc)
{
    clear_slot(vm->in, pc >> PAGE_SHIFT & 63, 0, BLOCK_TABLES);
    clear_slot(vm->in, ((pc >> PAGE_SHIFT) - 1) & 63, 0, BLOCK_TABLES);
}

static int float_on(const vm_t *vm)
{
    return (vm->extensions & EXT_F) && (vm->hart.mstatus & MSTATUS_FS);
}

static const uint8_t *code_at(vm_t *vm, uint64_t pc)
{
    uint64_t physical;
    uint32_t may;
    return walk_look(vm, pc, ACCESS_FETCH, &physical, &may) ? NULL : door_fetch(vm, physical);
}

static uint32_t word_at(vm_t *vm, uint64_t pc)
{
    const uint8_t *low = code_at(vm, pc), *high = code_at(vm, pc + 2);
    uint32_t word = low ? low[0] | (uint32_t)low[1] << 8 : 0;
    if ((word & 3) == 3 && high)
        word |= (uint32_t)high[0] << 16 | (uint32_t)high[1] << 24;
    return word;
}

/*
 * The engine takes some ten times as long for floating-point arithmetic as for other instructions, and longer than the
 * stepper. So blocks that are full of it, one instruction in so many, are left to that.
 */
#define FLOATS_LEAVE 3u

/* Instructions from `pc` up to `end`; BLOCK_STOP more if one of them is not for the engine. */
static uint64_t count_instructions(vm_t *vm, uint64_t pc, uint64_t end, int look)
{
    uint64_t count = 0, floats = 0, slow_floats = 0;
    if (look && points_inside(vm, pc, end))
        return BLOCK_STOP;
    while (pc < end) {
        insn_t insn;
        uint32_t word = word_at(vm, pc);
        if (look) {
            decode(vm, word, &insn);
            if (decode_needs_stepper(&insn) || (!float_on(vm) && decode_uses_float(&insn))
                || (vm->in->supervisor && insn.extra == FLOAT_OWN && decode_is_float_arithmetic(&insn)))
                return BLOCK_STOP;
            floats += (uint64_t)decode_is_quick_float(&insn);
            slow_floats += (uint64_t)(decode_is_float_arithmetic(&insn) && !decode_is_quick_float(&insn));
        }
        pc += (word & 3) == 3 ? 4 : 2;
        count++;
    }
    if (floats * FLOATS_LEAVE >= count && floats && !slow_floats && !vm->in->engine_only)
        return BLOCK_STOP;
    return count;
}

/* Code of the block at `pc` lies at RAM offsets `first` to `last`, in one page. */
static void mark_code(vm_t *vm, uint64_t pc, uint64_t first, uint64_t last)
{
    for (uint64_t chunk = first >> 6; chunk <= last >> 6; chunk++)
        vm->in->code_chunks[chunk >> 6] |= 1ull << (chunk & 63);
    vm->in->code_slots[first >> PAGE_SHIFT] |= 1ull << (pc >> PAGE_SHIFT & 63);
}

/* The RAM offset of the code at `pc`. 0, or -1: not in RAM, or nothing can be executed there as things are. */
static int code_offset(vm_t *vm, uint64_t pc, uint64_t *offset)
{
    uint64_t physical;
    uint32_t may;
    if (walk_look(vm, pc, ACCESS_FETCH, &physical, &may))
        return -1;
    *offset = physical - RAM_BASE;
    return *offset < vm->ram_size ? 0 : -1;
}

static void stop(vm_t *vm, enum engine_stop why)
{
    vm->in->stop = why;
    api.emu_stop(vm->in->uc);
}

/* The next steps that need no decision: they end at the target, or earlier to look at the attention flag. */
static void begin_slice(struct vm_internal *in, uint64_t position)
{
    uint64_t steps = in->engine_target - position;
    in->left = steps < SLICE ? (uint32_t)steps : SLICE;
    in->slice_end = position + in->left;
}

/* May a block of `count` instructions run now, though the slice ends inside it? If not, stops before it. */
static int next_slice(struct vm_internal *in, uint32_t count)
{
    uint64_t position = in->slice_end - in->left;
    if (in->vm->attention || count > in->engine_target - position) {
        stop(in->vm, ENGINE_AT_BLOCK);
        return 0;
    }
    begin_slice(in, position);
    return 1;
}

/* A block that is new, not for the engine, or would pass the end of the slice: what is known of it; NULL: not now. */
static __attribute__((noinline)) block_info *on_block_slow(vm_t *vm, uint64_t pc, uint32_t size)
{
    struct vm_internal *in = vm->in;
    block_info *block = block_slot(in, pc);
    uint64_t first, last;
    if (in->in_scratch)
        return NULL;
    if (size == 0 || code_offset(vm, pc, &first) || code_offset(vm, pc + size - 1, &last)) {
        stop(vm, ENGINE_AT_BLOCK);
        return NULL;
    }
    int across = in->supervisor && (pc ^ (pc + size - 1)) >> PAGE_SHIFT;
    if (across || block->pc != pc || block->size != size) {
        if (across)
            block = &in->across;
        block->pc = pc;
        block->size = size;
        block->count = (uint32_t)count_instructions(vm, pc, pc + size, 1);
        if (first >> PAGE_SHIFT != last >> PAGE_SHIFT) {
            mark_code(vm, pc, first, first | (PAGE_SIZE - 1));
            mark_code(vm, pc, last & ~(uint64_t)(PAGE_SIZE - 1), last);
        } else {
            mark_code(vm, pc, first, last);
        }
    }
    return block->count <= in->left || next_slice(in, block->count) ? block : NULL;
}

static void on_block(uc_engine *uc, uint64_t pc, uint32_t size, void *user)
{
    struct vm_internal *in = user;
    block_info *block = block_slot(in, pc);
    (void)uc;
    if (UNLIKELY(block->pc != pc || block->size != size || block->count > in->left))
        if (!(block = on_block_slow(in->vm, pc, size)))
            return;
    in->block = block;
    in->tag = 0;
    in->left -= block->count;
    if (in->inlining && block->count <= INLINE_COUNT_MAX)
        inline_count(in, __builtin_return_address(0), pc, size, block->count);
}

/* A rewritten head has counted its block, and it passes the end of the slice. */
static void on_countdown_over(struct vm_internal *in)
{
    uint32_t count = in->tag & INLINE_COUNT_MAX;
    in->left += count;
    if (next_slice(in, count))
        in->left -= count;
}

/* Makes vm_run return soon, from any thread or signal handler: the flag is looked at once in a slice. */
void vm_set_attention(vm_t *vm)
{
    vm->attention = 1;
}

void vm_count_by_calls(vm_t *vm)
{
    vm->in->inlining = INLINE_OFF;
}

static void on_exception(uc_engine *uc, uint32_t number, void *user)
{
    vm_t *vm = user;
    (void)uc;
    (void)number;
    stop(vm, ENGINE_TRAP);
}

/* --- the fill callback: the engine at the door ------------------------------------------------------------------ */

static enum access access_of(uc_mem_type type)
{
    return type == UC_MEM_FETCH ? ACCESS_FETCH : type == UC_MEM_WRITE ? ACCESS_STORE : ACCESS_LOAD;
}

/* The tables of blocks that belong to a part of the TLB: the first of two. */
static uint32_t block_table(uint32_t part)
{
    return part == PRIV_M ? 0 : TRANSLATED * (1 + part);
}

/*
 * The virtual page is fetched from this RAM page from now on. What the tables hold of it may be from another one: it is
 * not, if the slot was last filled for this very pair. Every change of a translation flushes that part of the engine's
 * TLB, so that this is asked again; machine mode, whose addresses are physical, needs no such care.
 */
static void own_slot(vm_t *vm, uint64_t virtual_page, uint64_t page)
{
    struct vm_internal *in = vm->in;
    uint64_t slot = virtual_page & 63, *owner = in->slot_pages[in->tlb_part][slot];
    uint32_t table = block_table(in->tlb_part);
    if (vm->hart.priv == PRIV_M || (owner[0] == virtual_page && owner[1] == page))
        return;
    clear_slot(in, slot, table, table + TRANSLATED);
    owner[0] = virtual_page;
    owner[1] = page;
}

static bool on_fill(uc_engine *uc, uint64_t address, uc_mem_type type, uc_tlb_entry *entry, void *user)
{
    vm_t *vm = user;
    struct vm_internal *in = vm->in;
    uint64_t physical = address;
    uint32_t may = MAY_LOAD | MAY_STORE | MAY_FETCH;
    (void)uc;
    in->refused_fetch = type == UC_MEM_FETCH;
    if (in->in_scratch || in->dropping || in->identity) {
        entry->paddr = address;
        if (address - SCRATCH_BASE < SCRATCH_SIZE) {
            entry->perms = UC_PROT_EXEC;
            return (in->in_scratch || in->dropping) && type == UC_MEM_FETCH;
        }
    } else if (walk_look(vm, address, access_of(type), &physical, &may)) {
        return false;
    }
    entry->paddr = physical;
    uint64_t page = (physical - RAM_BASE) >> PAGE_SHIFT;
    if (physical - RAM_BASE >= vm->ram_size)
        return false;
    uint16_t flags = in->page_flags[page];
    if (UNLIKELY(in->points.range_count))
        flags |= points_page(vm, address);
    if ((flags & PAGE_MISSING) && !in->dropping) /* to drop translations, the engine asks for their page's address */
        return false;
    if (type == UC_MEM_FETCH) {
        if ((flags & PAGE_STEPPED) && !in->dropping)
            return false;
        if (in->write_epoch[page] == in->tlb_epoch)
            engine_flush_tlb(vm);
        in->page_flags[page] |= PAGE_CODE;
        own_slot(vm, address >> PAGE_SHIFT, page);
        entry->perms = (flags & PAGE_READ_WATCHED) || !(may & MAY_LOAD) ? UC_PROT_EXEC : UC_PROT_READ | UC_PROT_EXEC;
        return true;
    }
    if (flags & PAGE_READ_WATCHED)
        return false;
    if (type == UC_MEM_WRITE) {
        if (flags & (PAGE_CODE | PAGE_WATCHED | PAGE_TABLE))
            return false;
        door_forget_decoded(vm, page);
        door_mark_dirty(vm, page);
        flags = PAGE_DIRTY;
    }
    entry->perms = may & MAY_LOAD ? UC_PROT_READ : 0;
    if (flags & PAGE_CODE) {
        if (vm->hart.priv == PRIV_M)
            entry->perms |= UC_PROT_EXEC; /* in other modes a fetch has to ask: own_slot */
    } else if ((flags & PAGE_DIRTY) && (may & MAY_STORE) && !(flags & (PAGE_DECODED | PAGE_WATCHED | PAGE_TABLE))) {
        entry->perms |= UC_PROT_WRITE;
        in->write_epoch[page] = in->tlb_epoch;
    }
    return true;
}

void engine_flush_tlb(vm_t *vm)
{
    struct vm_internal *in = vm->in;
    uint64_t present = in->tlb_views[in->tlb_part]; /* it may be running, and goes on to be filled */
    uc_ctl_flush_tlb(in->uc);
    memset(in->tlb_views, 0, sizeof in->tlb_views);
    in->tlb_views[in->tlb_part] = present;
    in->tlb_epoch++;
    in->tlb_flush_needed = 0;
    vm->tlb_flushes++;
}

/* Has the engine use the part of its TLB that belongs to the hart's mode, filled from the present view alone. */
static void choose_tlb(vm_t *vm)
{
    struct vm_internal *in = vm->in;
    uint32_t part = (uint32_t)vm->hart.priv;
    if (part == PRIV_S && in->uncounted)
        part = PRIV_U; /* without a block hook: so the engine refuses all CSR instructions */
    else if (part == PRIV_S)
        part = vm->hart.mstatus & MSTATUS_SUM ? TLB_SUPERVISOR_SUM : TLB_SUPERVISOR;
    uint64_t view = in->view, before = in->tlb_views[part];
    in->tlb_part = part;
    in->tlb_views[part] = view;
    if (in->tlb_flush_needed || (before && before != view))
        engine_flush_tlb(vm);
}

/* Drops translations of physical addresses: in machine mode, whose part of the TLB never translates. */
static void drop_code(struct vm_internal *in, uint64_t address, uint64_t end)
{
    if (in->supervisor) {
        put(in, in->at_priv, PRIV_M);
        api.context_restore(in->uc, in->context);
    }
    in->dropping = 1;
    uc_ctl_remove_cache(in->uc, address, end);
    in->dropping = 0;
}

/* Drops every translation of a RAM page. Outside emulation only. */
static void drop_page(vm_t *vm, uint64_t page)
{
    struct vm_internal *in = vm->in;
    uint64_t address = RAM_BASE + (page << PAGE_SHIFT);
    drop_code(in, address, address + PAGE_SIZE);
    engine_forget_blocks(vm, page);
    in->code_chunks[page] = 0;
    in->page_flags[page] &= (uint16_t) ~(PAGE_STALE | PAGE_CODE);
    vm->code_drops++;
}

/* The page is stored to so often that its code is better stepped. */
void engine_give_up_page(vm_t *vm, uint64_t page)
{
    drop_page(vm, page);
    vm->in->code_stores[page] = 0;
    vm->in->page_flags[page] |= PAGE_STEPPED;
    engine_flush_tlb(vm);
}

/* --- registers, both ways ------------------------------------------------------------------------------------ */

static void give_registers(vm_t *vm, uint64_t pc)
{
    struct vm_internal *in = vm->in;
    const hart_state *h = &vm->hart;
    if (in->word_bytes == 8)
        memcpy(blob(in) + in->at_gpr, h->x, sizeof h->x);
    else
        for (int i = 1; i < 32; i++)
            put(in, in->at_gpr + 4 * i, h->x[i]);
    put(in, in->at_pc, pc);
    put(in, in->at_reservation, h->reservation);
    put(in, in->at_value, h->reserved_value);
    put(in, in->at_priv, in->in_scratch ? PRIV_M : in->tlb_part);
    put(in, in->at_mstatus, h->mstatus & MSTATUS_FS);
    if (vm->extensions & EXT_F) {
        memcpy(blob(in) + in->at_fpr, h->f, sizeof h->f);
        put(in, in->at_frm, h->frm);
    }
    api.context_restore(in->uc, in->context);
    if (float_on(vm)) {
        uint64_t fflags = h->fflags;
        api.reg_write(in->uc, UC_RISCV_REG_FFLAGS, &fflags);
        if ((h->mstatus & MSTATUS_FS) != MSTATUS_FS)
            api.context_restore(in->uc, in->context); /* that write made mstatus.FS dirty, which it was not */
    }
}

/* The pc is the caller's business: what the engine reports depends on how it came back. */
static void take_registers(vm_t *vm)
{
    struct vm_internal *in = vm->in;
    hart_state *h = &vm->hart;
    api.context_save(in->uc, in->context);
    if (in->word_bytes == 8)
        memcpy(h->x, blob(in) + in->at_gpr, sizeof h->x);
    else
        for (int i = 1; i < 32; i++)
            h->x[i] = get(in, in->at_gpr + 4 * i);
    h->x[0] = 0;
    h->reservation = get(in, in->at_reservation);
    h->reserved_value = get(in, in->at_value);
    if (h->reservation == (vm->xlen == 32 ? 0xffffffffull : NEVER)) {
        h->reservation = NEVER;
        h->reserved_value = 0;
    }
    if (vm->extensions & EXT_F) {
        memcpy(h->f, blob(in) + in->at_fpr, sizeof h->f);
        h->mstatus = (h->mstatus & ~MSTATUS_FS) | (get(in, in->at_mstatus) & MSTATUS_FS);
        if (float_on(vm)) {
            uint64_t fflags = 0;
            api.reg_read(in->uc, UC_RISCV_REG_FFLAGS, &fflags);
            if (in->supervisor && (fflags & 31 & ~h->fflags))
                h->mstatus |= MSTATUS_FS; /* the engine says so of registers only */
            h->fflags = fflags & 31;
        }
    }
}

/* --- running ------------------------------------------------------------------------------------------------- */

/* The block that the engine has begun last, and left at `pc` in its middle; its count is 0 if there is none. */
static block_info running_block(const struct vm_internal *in, uint64_t pc)
{
    if (!in->tag)
        return *in->block;
    return (block_info){.pc = inline_pc(in->tag, pc), .count = in->tag & INLINE_COUNT_MAX};
}

/* Drops the translations of code that has changed since the engine ran last. */
static void drop_stale(vm_t *vm)
{
    struct vm_internal *in = vm->in;
    for (size_t i = 0; i < in->stale_count; i++)
        if (in->page_flags[in->stale[i]] & PAGE_STALE)
            drop_page(vm, in->stale[i]);
    in->tlb_flush_needed |= in->stale_count > 0;
    in->stale_count = 0;
}

static void give_up(vm_t *vm, const char *sentence)
{
    vm->error = sentence;
}

int engine_takes(vm_t *vm, uint64_t pc)
{
    uint64_t offset;
    if (!vm->in->identity && (vm->hart.mstatus & MSTATUS_MPRV))
        return 0; /* code and data of different modes */
    return !code_offset(vm, pc, &offset) && !door_is_stepped(vm, offset >> PAGE_SHIFT);
}

/*
 * Is the engine likely to get far from `pc`? Entering and leaving it costs as much as some hundred steps of the stepper.
 * Kernels are full of code that it can run only so far, to the next lock or CSR: where it was left soon the last time,
 * most of the next ones are the stepper's. Who executes makes no difference to the result.
 */
int engine_worth(vm_t *vm, uint64_t pc)
{
    struct vm_internal *in = vm->in;
    short_run *run = &in->short_runs[(pc >> 1) % SHORT_RUNS];
    if (run->pc != pc || !run->skip)
        return 1;
    run->skip--;
    return 0;
}

static void note_run(struct vm_internal *in, uint64_t pc, uint64_t steps)
{
    short_run *run = &in->short_runs[(pc >> 1) % SHORT_RUNS];
    if (steps < SHORT_RUN)
        *run = (short_run){pc, SHORT_RUN_SKIP};
    else if (run->pc == pc)
        run->skip = 0;
}

/* Runs from the current position towards `target`; returns at an exact step boundary, wherever that is. */
void engine_run(vm_t *vm, uint64_t target)
{
    static block_info nothing;
    struct vm_internal *in = vm->in;
    if (!engine_takes(vm, vm->hart.pc))
        return;
    if (vm->attention)
        return;
    drop_stale(vm);
    choose_tlb(vm);
    in->stop = ENGINE_NONE;
    in->refused_fetch = 0;
    in->blocks = in->block_tables[(uint32_t)float_on(vm) + block_table(in->tlb_part)];
    in->block = &nothing;
    in->tag = 0;
    in->engine_target = target;
    begin_slice(in, vm->time.position);
    give_registers(vm, vm->hart.pc);
    uc_err error = api.emu_start(in->uc, vm->hart.pc, 0, 0, 0);
    take_registers(vm);
    uint64_t pc = get(in, in->at_pc), position = in->slice_end - in->left;
    int inside = 0; /* the engine left before an instruction of the block, which is counted whole */
    if (in->stop == ENGINE_TRAP) {
        pc = vm->xlen == 32 ? (uint32_t)(pc - 4) : pc - 4;
        inside = 1;
    } else if (error == UC_ERR_EXCEPTION && in->stop == ENGINE_NONE) {
        inside = !in->refused_fetch;
    } else if (error == UC_ERR_INSN_INVALID && in->stop == ENGINE_NONE) {
        inside = 1;
    } else if (!in->uncounted && in->stop != ENGINE_AT_BLOCK) {
        give_up(vm, "the engine came back without saying why");
    }
    block_info block = running_block(in, pc);
    if (inside && block.count)
        position += count_instructions(vm, block.pc, pc, 0) - block.count;
    if (in->supervisor && target - vm->time.position > SHORT_RUN)
        note_run(in, vm->hart.pc, position - vm->time.position);
    vm->hart.pc = pc;
    vm->engine_entries++;
    vm->engine_steps += position - vm->time.position;
    vm->time.position = position;
}

static int same_slot(const uint8_t *slot, uint32_t word)
{
    return !memcmp(slot, &word, 4);
}

int engine_float(vm_t *vm, uint32_t word)
{
    static const uint32_t ebreak = 0x00100073;
    struct vm_internal *in = vm->in;
    uint64_t index = (word * 0x9e3779b1u) >> 19; /* 8192 slots of eight bytes */
    uint8_t *slot = in->scratch + index * 8;
    uint64_t address = SCRATCH_BASE + index * 8;
    if (!same_slot(slot, word)) {
        drop_code(in, address, address + 8);
        memcpy(slot, &word, 4);
        memcpy(slot + 4, &ebreak, 4);
    }
    uint64_t pc = vm->hart.pc;
    in->stop = ENGINE_NONE;
    in->in_scratch = 1;
    give_registers(vm, address);
    uc_err error = api.emu_start(in->uc, address, 0, 0, 0);
    take_registers(vm);
    in->in_scratch = 0;
    vm->hart.pc = pc;
    if (in->stop == ENGINE_TRAP)
        return -1;
    if (error != UC_ERR_INSN_INVALID || get(in, in->at_pc) != address + 4)
        give_up(vm, "the engine did not finish one floating-point instruction");
    return 0;
}

/* --- set-up -------------------------------------------------------------------------------------------------- */

/* Where the registers lie in a saved context: found by writing known values, checked once more through pc and FS. */
static const char *probe_context(vm_t *vm)
{
    struct vm_internal *in = vm->in;
    uint32_t w = in->word_bytes;
    uint64_t mark[3] = {0x1234567889abcdefull, 0x2345678119abcde7ull, 0x3456781229abcd7full};
    for (int i = 0; i < 3; i++)
        api.reg_write(in->uc, UC_RISCV_REG_X5 + i, &mark[i]);
    uint64_t pc = 0x76543210, status = MSTATUS_FS;
    api.reg_write(in->uc, UC_RISCV_REG_PC, &pc);
    api.reg_write(in->uc, UC_RISCV_REG_MSTATUS, &status);
    api.context_save(in->uc, in->context);
    size_t at = 0;
    while (at + 4096 / 8 < in->context_size
           && (memcmp(blob(in) + at, &mark[0], w) || memcmp(blob(in) + at + w, &mark[1], w)
               || memcmp(blob(in) + at + 2 * w, &mark[2], w)))
        at += 4;
    in->at_gpr = at - 5 * w;
    in->at_fpr = in->at_gpr + 32 * w;
    in->at_pc = in->at_fpr + 256;
    in->at_reservation = in->at_pc + w;
    in->at_value = in->at_pc + 2 * w;
    in->at_frm = in->at_pc + 3 * w;
    size_t at_misa = in->at_pc + 7 * w, at_misa_mask = at_misa + w;
    in->at_priv = at_misa_mask + w + (w == 8 ? 8 : 4);
    in->at_mstatus = in->at_priv + 4 * w;
    if (in->at_mstatus + w > in->context_size || get(in, in->at_pc) != pc || !(get(in, in->at_mstatus) & MSTATUS_FS))
        return "the engine's register context is not laid out as in Unicorn 2.1.4";
    uint64_t mask = w == 4 ? 0xffffffffull : ~0ull;
    for (int i = 5; i < 8; i++)
        put(in, in->at_gpr + i * w, 0);
    put(in, in->at_priv, PRIV_M);
    put(in, in->at_mstatus, 0);
    put(in, at_misa, csr_misa(vm) & mask);
    put(in, at_misa_mask, csr_misa(vm) & mask);
    return NULL;
}

const char *engine_create(vm_t *vm, void *uc)
{
    struct vm_internal *in = vm->in;
    uc_hook hook;
    uc_context *context = NULL;
    in->vm = vm;
    in->uc = uc;
    in->word_bytes = vm->xlen / 8;
    in->hook = (void *)on_block;
    in->countdown_over = on_countdown_over;
    in->exit_check = vm->xlen == 32 ? api.exit_check_32 : api.exit_check_64;
    in->inlining = in->exit_check ? INLINE_WANTED : INLINE_OFF;
    for (uint32_t table = 0; table < (in->supervisor ? BLOCK_TABLES : TRANSLATED); table++) {
        in->block_tables[table] = calloc(BLOCK_SLOTS, sizeof *in->blocks);
        if (!in->block_tables[table])
            return "out of memory";
    }
    in->blocks = in->block_tables[0];
    in->tlb_part = PRIV_M;
    in->scratch = mmap(NULL, SCRATCH_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (in->scratch == MAP_FAILED) {
        in->scratch = NULL;
        return "out of memory";
    }
    if (api.mem_map_ptr(uc, RAM_BASE, vm->ram_size, UC_PROT_ALL, in->ram)
        || api.mem_map_ptr(uc, SCRATCH_BASE, SCRATCH_SIZE, UC_PROT_ALL, in->scratch))
        return "the engine refused to map guest RAM";
    if (api.context_alloc(uc, &context))
        return "the engine refused a context";
    in->context = context;
    in->context_size = api.context_size(uc);
    const char *error = probe_context(vm);
    if (error)
        return error;
    if (uc_ctl_tlb_mode(uc, UC_TLB_VIRTUAL) || uc_ctl_exits_enable(uc) || uc_ctl_set_exits(uc, NULL, 0)
        || api.hook_add(uc, &hook, UC_HOOK_TLB_FILL, (void *)on_fill, vm, 1, 0)
        || api.hook_add(uc, &hook, UC_HOOK_INTR, (void *)on_exception, vm, 1, 0)
        || (!in->uncounted && api.hook_add(uc, &hook, UC_HOOK_BLOCK, (void *)on_block, in, 1, 0)))
        return "the engine refused a hook or a mode";
    return NULL;
}

void engine_destroy(vm_t *vm)
{
    struct vm_internal *in = vm->in;
    if (in->context)
        api.context_free(in->context);
    if (in->scratch)
        munmap(in->scratch, SCRATCH_SIZE);
    for (int table = 0; table < BLOCK_TABLES; table++)
        free(in->block_tables[table]);
}
