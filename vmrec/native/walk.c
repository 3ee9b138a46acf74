/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtual addresses: page tables (privileged manual 4.3 to 4.5) and what is kept of them.
 *
 *     virtual address ──▶ kept? ──▶ physical address ──▶ door.c, bus.c
 *                           │ no
 *                           ▼
 *            Sv32, Sv39, Sv48 walk ──▶ rights of the leaf ∩ rights by pmp.c ──▶ kept; A and D bits set in memory
 *
 * Translations are kept here and in the engine's TLB, and nobody can tell: a page that a walk read from is PAGE_TABLE
 * from then on, every store to such a page comes to the door, and the door has everything forgotten that is kept. So
 * the answer is always what a walk would give now, however the run was cut, and sfence.vma has nothing to do. An A or
 * D bit is set by the access that needs it and by no other: the engine's fill callback only looks (walk_look), and
 * leaves such an access to the stepper.
 *
 * The stepper has a third place, for RAM alone: `fast`, by virtual page and view. Changing between views that were met
 * before keeps what is known in each; whatever makes walks differ begins all of them anew.
 *
 * A store of an A or D bit forgets nothing: it changes no translation, since such a bit has no part in one and makes
 * no leaf out of a pointer, nor the other way round. Nor does one over entries that were not valid: faults are not kept.
 *
 * All that is kept belongs to a view, in the engine's TLB too: so a kernel may go to and fro between its modes and
 * address spaces without anything being forgotten.
 */
#include "internal.h"
#include "isa_table.h"

#define PTE_V 0x01u
#define PTE_R 0x02u
#define PTE_W 0x04u
#define PTE_X 0x08u
#define PTE_U 0x10u
#define PTE_A 0x40u
#define PTE_D 0x80u
#define PTE_PPN_SHIFT 10
#define PTE_RESERVED (0x3ffull << 54) /* of 64-bit entries: N, PBMT and what has no use yet */

static const enum cause page_fault[] = {CAUSE_LOAD_PAGE, CAUSE_STORE_PAGE, CAUSE_FETCH_PAGE};
static const enum cause access_fault[] = {CAUSE_LOAD_ACCESS, CAUSE_STORE_ACCESS, CAUSE_FETCH_ACCESS};
static const uint32_t needed[] = {MAY_LOAD, MAY_STORE, MAY_FETCH};

/* How satp's mode cuts an address up. No levels: an address is physical. */
typedef struct {
    uint32_t levels, index_bits, entry_size, width;
    uint64_t root;
} shape_t;

static shape_t shape(const vm_t *vm)
{
    uint64_t satp = vm->supervisor.satp;
    if (vm->xlen == 32) {
        uint64_t root = (satp & 0x3fffff) << PAGE_SHIFT;
        return satp >> 31 ? (shape_t){2, 10, 4, 32, root} : (shape_t){0};
    }
    uint64_t root = (satp & 0xfffffffffffull) << PAGE_SHIFT;
    switch (satp >> 60) {
    case 8: return (shape_t){3, 9, 8, 39, root};
    case 9: return (shape_t){4, 9, 8, 48, root};
    default: return (shape_t){0};
    }
}

static uint64_t mode_of(const vm_t *vm, enum access access)
{
    const hart_state *h = &vm->hart;
    if (access != ACCESS_FETCH && (h->mstatus & MSTATUS_MPRV))
        return (h->mstatus & MSTATUS_MPP) >> 11;
    return h->priv;
}

#define TABLE_STORES_MAX 256u

/* What a leaf entry allows, its A and D bits aside. */
static uint32_t rights(uint64_t pte, uint64_t mode, uint64_t mstatus)
{
    uint32_t may = 0;
    int user = (pte & PTE_U) != 0;
    if (mode == PRIV_U && !user)
        return 0;
    if (mode == PRIV_U || !user || (mstatus & MSTATUS_SUM)) {
        if ((pte & PTE_R) || ((mstatus & MSTATUS_MXR) && (pte & PTE_X)))
            may |= MAY_LOAD;
        if (pte & PTE_W)
            may |= MAY_STORE;
    }
    if ((pte & PTE_X) && (mode == PRIV_U || !user))
        may |= MAY_FETCH;
    return may;
}

static void mark_table(vm_t *vm, uint64_t page)
{
    struct vm_internal *in = vm->in;
    if (in->page_flags[page] & PAGE_TABLE)
        return;
    in->page_flags[page] |= PAGE_TABLE;
    in->tables[in->table_count++] = (uint32_t)page;
    if (in->write_epoch[page] == in->tlb_epoch)
        engine_flush_tlb(vm); /* the engine may store to it now */
}

/* What a walk may do besides finding out: nothing, keep the tables it read under watch, and set A and D too. */
enum effect { EFFECT_NONE, EFFECT_KEEP, EFFECT_ACCESS };

/* 0, a cause, or -1: a page is missing, or A or D would have to be set. */
static int walk(vm_t *vm, uint64_t address, enum access access, uint64_t mode, enum effect effect, uint64_t *physical,
                uint32_t *may)
{
    struct vm_internal *in = vm->in;
    const shape_t s = shape(vm);
    uint64_t pte = 0, at = 0, table = s.root;
    *physical = address;
    *may = MAY_LOAD | MAY_STORE | MAY_FETCH;
    if (mode != PRIV_M && s.levels) {
        uint32_t level = s.levels, low = 0;
        int64_t above = (int64_t)address >> (s.width - 1);
        if (s.width > 32 && above != 0 && above != -1)
            return page_fault[access];
        for (;;) {
            level--;
            low = PAGE_SHIFT + level * s.index_bits;
            at = table + ((address >> low) & ((1u << s.index_bits) - 1)) * s.entry_size;
            uint64_t offset = at - RAM_BASE;
            if (offset >= vm->ram_size || !(pmp_rights(vm, at, PRIV_S) & MAY_LOAD))
                return access_fault[access];
            if (in->page_flags[offset >> PAGE_SHIFT] & PAGE_MISSING) {
                if (effect == EFFECT_ACCESS)
                    door_load(vm, at, s.entry_size, &pte); /* asks for the page */
                return -1;
            }
            if (effect != EFFECT_NONE)
                mark_table(vm, offset >> PAGE_SHIFT);
            pte = 0;
            memcpy(&pte, in->ram + offset, s.entry_size);
            if (!(pte & PTE_V) || (pte & (PTE_R | PTE_W)) == PTE_W || (s.width > 32 && (pte & PTE_RESERVED)))
                return page_fault[access];
            table = (pte >> PTE_PPN_SHIFT) << PAGE_SHIFT;
            if (pte & (PTE_R | PTE_X))
                break;
            if (level == 0 || (pte & (PTE_A | PTE_D | PTE_U)))
                return page_fault[access];
        }
        *may = rights(pte, mode, vm->hart.mstatus);
        uint64_t inside = (1ull << low) - 1;
        if (!(*may & needed[access]) || (table & inside))
            return page_fault[access];
        *physical = table | (address & inside);
    }
    uint32_t allowed = pmp_rights(vm, *physical, mode);
    if (!(allowed & needed[access]))
        return access_fault[access];
    *may &= allowed;
    if (mode == PRIV_M || !s.levels)
        return 0;
    uint64_t wanted = PTE_A | (access == ACCESS_STORE ? PTE_D : 0);
    if (~pte & wanted) {
        if (effect == EFFECT_KEEP)
            return -1;
        if (!(pmp_rights(vm, at, PRIV_S) & MAY_STORE))
            return access_fault[access];
        pte |= wanted;
        if (effect == EFFECT_ACCESS)
            door_store_entry(vm, at, s.entry_size, pte);
    }
    if (!(pte & PTE_D))
        *may &= ~MAY_STORE;
    return 0;
}

static uint64_t in_width(const vm_t *vm, uint64_t address)
{
    return vm->xlen == 32 ? (uint32_t)address : address;
}

/* A walk, unless its answer is kept. `effect` is that of a walk that is made: not none, since its answer is kept then. */
static inline int walk_kept(vm_t *vm, uint64_t address, enum access access, enum effect effect, uint64_t *physical,
                            uint32_t *may)
{
    struct vm_internal *in = vm->in;
    *physical = address;
    *may = MAY_LOAD | MAY_STORE | MAY_FETCH;
    if (in->identity)
        return 0;
    address = in_width(vm, address);
    uint64_t mode = mode_of(vm, access), tag = address >> PAGE_SHIFT << 2 | mode;
    kept_t *kept = &in->kept[access][(address >> PAGE_SHIFT) % KEPT];
    if (LIKELY(kept->tag == tag && kept->view == in->view)) {
        *physical = kept->physical | (address & (PAGE_SIZE - 1));
        *may = kept->may;
        return 0;
    }
    int result = walk(vm, address, access, mode, effect, physical, may);
    if (result == 0) /* and the A and D bits that the access needs are set */
        *kept = (kept_t){tag, *physical & ~(uint64_t)(PAGE_SIZE - 1), in->view, *may};
    return result;
}

int walk_address(vm_t *vm, uint64_t address, enum access access, uint64_t *physical)
{
    uint32_t may;
    return walk_kept(vm, address, access, EFFECT_ACCESS, physical, &may);
}

int walk_look(vm_t *vm, uint64_t address, enum access access, uint64_t *physical, uint32_t *may)
{
    return walk_kept(vm, address, access, EFFECT_KEEP, physical, may);
}

int vm_translate(vm_t *vm, uint64_t address, int access, int mode, uint64_t *physical)
{
    uint32_t may;
    uint64_t as = mode < 0 ? mode_of(vm, (enum access)access) : (uint64_t)mode;
    if (!vm->in->supervisor) {
        *physical = address;
        return 0;
    }
    int result = walk(vm, in_width(vm, address), (enum access)access, as, EFFECT_NONE, physical, &may);
    return result;
}

uint64_t walk_space(const vm_t *vm, enum access access)
{
    return vm->in->supervisor && mode_of(vm, access) != PRIV_M && shape(vm).levels ? vm->supervisor.satp : 0;
}

static int load_physical(vm_t *vm, uint64_t address, uint32_t size, uint64_t *value)
{
    int result = door_load(vm, address, size, value);
    return result == 1 ? bus_load(vm, address, size, value) : result;
}

/*
 * The physical addresses of an access: of its first byte, and of the first byte behind the end of the page if it goes
 * on there. Nothing is done if the second page refuses, except that the first one's A and D bits are set: the manual
 * allows that, and it is the same in every run.
 */
static int places(vm_t *vm, uint64_t address, uint32_t size, enum access access, uint64_t place[2], uint64_t *cause,
                  uint64_t *tval)
{
    uint32_t first = PAGE_SIZE - (uint32_t)(address & (PAGE_SIZE - 1));
    place[0] = address;
    place[1] = address + first;
    if (vm->in->identity)
        return 0;
    *tval = address;
    int result = walk_address(vm, address, access, &place[0]);
    if (result == 0 && first < size) {
        *tval = in_width(vm, address + first);
        result = walk_address(vm, *tval, access, &place[1]);
    } else {
        place[1] = place[0] + first;
    }
    *cause = (uint64_t)result;
    return result < 0 ? 2 : result > 0;
}

/* The access at `address` was done at `physical`, in one page: the next ones to it may go straight to RAM. */
void walk_remember(vm_t *vm, uint64_t address, uint64_t physical, enum access access)
{
    struct vm_internal *in = vm->in;
    uint64_t page = (physical - RAM_BASE) >> PAGE_SHIFT;
    if (!in->fast_key || physical - RAM_BASE >= vm->ram_size)
        return;
    fast_t *fast = &in->fast[access][(address >> PAGE_SHIFT) % FAST];
    fast->tag = (address & ~(uint64_t)(PAGE_SIZE - 1)) | in->fast_key;
    fast->page = page;
    fast->bytes = in->ram + (page << PAGE_SHIFT);
}

int walk_load(vm_t *vm, uint64_t address, uint32_t size, uint64_t *value, uint64_t *cause, uint64_t *tval)
{
    uint64_t place[2], high;
    uint32_t first = PAGE_SIZE - (uint32_t)(address & (PAGE_SIZE - 1));
    int result = places(vm, address, size, ACCESS_LOAD, place, cause, tval);
    if (result)
        return result;
    *cause = CAUSE_LOAD_ACCESS;
    *tval = address;
    if (first >= size || place[1] == place[0] + first) {
        result = load_physical(vm, place[0], size, value);
        if (result == 0)
            walk_remember(vm, address, place[0], ACCESS_LOAD);
        return result;
    }
    result = door_load(vm, place[0], first, value);
    if (result)
        return result;
    *tval = in_width(vm, address + first);
    result = door_load(vm, place[1], size - first, &high);
    *value |= high << (8 * first);
    return result;
}

int walk_store_ready(vm_t *vm, uint64_t address, uint32_t size, uint64_t place[2], uint64_t *cause, uint64_t *tval)
{
    uint32_t first = PAGE_SIZE - (uint32_t)(address & (PAGE_SIZE - 1));
    int result = places(vm, address, size, ACCESS_STORE, place, cause, tval);
    if (result)
        return result;
    *cause = CAUSE_STORE_ACCESS;
    *tval = address;
    if (first >= size || place[1] == place[0] + first) {
        result = door_store_ready(vm, place[0], size);
        if (result == 0)
            walk_remember(vm, address, place[0], ACCESS_STORE);
        return result == 1 ? 3 : result;
    }
    result = door_store_ready(vm, place[0], first);
    if (result)
        return result;
    *tval = in_width(vm, address + first);
    return door_store_ready(vm, place[1], size - first);
}

void walk_store(vm_t *vm, uint64_t address, uint32_t size, const uint64_t place[2], uint64_t value)
{
    uint32_t first = PAGE_SIZE - (uint32_t)(address & (PAGE_SIZE - 1));
    if (first >= size || place[1] == place[0] + first) {
        door_store(vm, place[0], size, value);
        return;
    }
    door_store(vm, place[0], first, value);
    door_store(vm, place[1], size - first, value >> (8 * first));
}

static void choose_view(vm_t *vm)
{
    struct vm_internal *in = vm->in;
    uint64_t satp = vm->supervisor.satp;
    uint64_t rest = mode_of(vm, ACCESS_LOAD) | (vm->hart.mstatus & (MSTATUS_SUM | MSTATUS_MXR));
    in->fast_key = 0;
    in->view = 1;
    if (in->identity)
        return;
    view_t *view = &in->views[((satp ^ rest << 44) * 0x9e3779b97f4a7c15ull) >> 58];
    if (!view->number || view->satp != satp || view->rest != rest) {
        if (++in->last_key == FAST_KEYS) { /* tags with these keys may still be there */
            memset(in->fast, 0xff, sizeof in->fast);
            memset(in->views, 0, sizeof in->views);
            in->last_key = 1;
        }
        *view = (view_t){satp, rest, ++in->last_view, in->last_key};
    }
    in->view = view->number;
    in->fast_key = in->points.range_count ? 0 : view->key;
}

void walk_forget_fast(vm_t *vm)
{
    memset(vm->in->views, 0, sizeof vm->in->views);
    choose_view(vm);
}

void walk_forget(vm_t *vm)
{
    struct vm_internal *in = vm->in;
    if (!in->supervisor)
        return;
    for (size_t i = 0; i < in->table_count; i++)
        in->page_flags[in->tables[i]] &= (uint16_t)~PAGE_TABLE;
    in->table_count = 0;
    in->table_stores = 0;
    in->tlb_flush_needed = 1;
    in->recheck = 1;
    walk_forget_fast(vm);
}

/*
 * Entries that were not valid can be made so without anything being forgotten. But a page that is no table any more
 * would go on to be one: so after a while it is forgotten that it was.
 */
void walk_table_store(vm_t *vm, uint64_t offset, uint32_t length)
{
    uint32_t size = vm->xlen / 8;
    for (uint64_t at = offset & ~(uint64_t)(size - 1); at < offset + length; at += size)
        if (vm->in->ram[at] & PTE_V) {
            walk_forget(vm);
            return;
        }
    if (++vm->in->table_stores >= TABLE_STORES_MAX)
        walk_forget(vm);
}

void walk_view_changed(vm_t *vm)
{
    struct vm_internal *in = vm->in;
    if (!in->supervisor)
        return;
    int identity = vm->hart.priv == PRIV_M && !in->locked && mode_of(vm, ACCESS_LOAD) == PRIV_M;
    if (identity != in->identity)
        in->recheck = 1;
    in->identity = identity;
    choose_view(vm);
}
