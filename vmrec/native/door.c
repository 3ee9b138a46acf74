/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The one door to RAM.
 *
 * Guest RAM is one host mapping. The engine reaches a page of it only after its fill callback asked here, the stepper
 * through the calls below. So this file knows, page by page, what was written since the last checkpoint, what holds
 * code that somebody translated or decoded, and what is not here yet.
 *
 *     page flags         engine may            stepper may
 *     DIRTY              load, store           load, store on its fast path
 *     (none)             load                  load; a store comes here first and makes it DIRTY
 *     CODE               load, fetch           a store comes here first
 *     DECODED            load                  fetch from its decoded copy; a store comes here first
 *     STEPPED            load, store           fetch (the engine does not run this page's code any more)
 *     WATCHED            load                  a store comes here first
 *     TABLE              load                  a store comes here first, and walk.c may forget what it keeps
 *     READ_WATCHED       fetch                 a load or a store comes here first
 *     MISSING            nothing               nothing: vm_run returns MISSING_PAGE
 *
 * Stores are visible to the very next fetch. The engine never does a store into a CODE page itself. One that changes
 * translated code marks the page STALE, and the page's translations are dropped before the engine runs again. A store
 * into a DECODED page forgets just the entries that it overlaps.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "internal.h"
#include "isa_table.h"

/*
 * Each store into a page that the engine holds code of makes the engine leave. After so many of them the page's code
 * is left to the stepper, until that has run it for so many whiles without a store to it.
 */
#define CODE_STORES_MAX 16
#define PATIENCE 1024

int door_create(vm_t *vm)
{
    struct vm_internal *in = vm->in;
    in->pages = vm->ram_size >> PAGE_SHIFT;
    in->drive_page[0] = in->pages;
    for (uint32_t drive = 0; drive < DRIVES; drive++)
        in->drive_page[drive + 1] = in->drive_page[drive] + (vm->drive_size[drive] + PAGE_SIZE - 1) / PAGE_SIZE;
    uint64_t all = vm_pages(vm);
    in->ram = mmap(NULL, all << PAGE_SHIFT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (in->ram == MAP_FAILED) {
        in->ram = NULL;
        return -1;
    }
    in->rom = calloc(1, ROM_SIZE);
    in->page_flags = calloc(all, sizeof *in->page_flags);
    in->tables = calloc(in->pages, sizeof *in->tables);
    in->code_slots = calloc(in->pages, sizeof *in->code_slots);
    in->dirty = calloc(all, sizeof *in->dirty);
    in->code_chunks = calloc(in->pages, sizeof *in->code_chunks);
    in->write_epoch = calloc(in->pages, sizeof *in->write_epoch);
    in->code_stores = calloc(in->pages, 1);
    in->decoded = calloc(in->pages, sizeof *in->decoded);
    in->stale = calloc(in->pages, sizeof *in->stale);
    in->patience = calloc(in->pages, sizeof *in->patience);
    in->tlb_epoch = 1;
    in->ram_fast_limit = vm->ram_size - 7;
    in->view = in->last_view = 1; /* machine mode's, for ever */
    in->identity = 1;
    return in->rom && in->page_flags && in->dirty && in->code_chunks && in->write_epoch && in->code_stores
                   && in->decoded && in->stale && in->patience && in->tables && in->code_slots ? 0 : -1;
}

void door_destroy(vm_t *vm)
{
    struct vm_internal *in = vm->in;
    if (in->decoded)
        for (uint64_t page = 0; page < in->pages; page++)
            free(in->decoded[page]);
    for (size_t page = 0; page < ROM_SIZE / PAGE_SIZE; page++)
        free(in->rom_decoded[page]);
    if (in->ram)
        munmap(in->ram, vm_pages(vm) << PAGE_SHIFT);
    free(in->rom);
    free(in->page_flags);
    free(in->tables);
    free(in->code_slots);
    free(in->dirty);
    free(in->code_chunks);
    free(in->write_epoch);
    free(in->code_stores);
    free(in->stale);
    free(in->patience);
    free(in->decoded);
}

void door_mark_dirty(vm_t *vm, uint64_t page)
{
    struct vm_internal *in = vm->in;
    if (!(in->page_flags[page] & PAGE_DIRTY)) {
        in->page_flags[page] |= PAGE_DIRTY;
        in->dirty[in->dirty_count++] = (uint32_t)page;
    }
}

static void forget_insn(decoded_page *decoded, uint64_t first, uint64_t last)
{
    for (uint64_t i = first; i <= last; i++)
        decoded->insn[i].op = 0;
    decoded->version++;
}

void door_make_stale(vm_t *vm, uint64_t page)
{
    struct vm_internal *in = vm->in;
    uint16_t *flags = &in->page_flags[page];
    if ((*flags & (PAGE_CODE | PAGE_STALE)) == PAGE_CODE) {
        *flags |= PAGE_STALE;
        in->stale[in->stale_count++] = (uint32_t)page;
    }
}

/*
 * Called before the bytes change, with the whole range inside one page. A four-byte instruction that begins two bytes
 * before the range is overlapped too; if that is in the previous page, it is never kept decoded, but it may have been
 * translated.
 */
void door_code_store(vm_t *vm, uint64_t offset, uint32_t length)
{
    struct vm_internal *in = vm->in;
    uint64_t page = offset >> PAGE_SHIFT, at = offset & (PAGE_SIZE - 1);
    uint64_t chunks = in->code_chunks[page];
    uint64_t touched = (1ull << (at >> 6)) | (1ull << ((at + length - 1) >> 6));
    in->patience[page] = PATIENCE;
    if (in->page_flags[page] & PAGE_DECODED)
        forget_insn(in->decoded[page], at >= 2 ? (at - 2) >> 1 : 0, (at + length - 1) >> 1);
    if (chunks & touched)
        door_make_stale(vm, page);
    if (at < 2 && in->supervisor) /* the half before may be in any page: have the stepper decode it anew */
        in->recheck = 1;
    if (at < 2 && page > 0) {
        door_make_stale(vm, page - 1);
        if (in->page_flags[page - 1] & PAGE_DECODED)
            forget_insn(in->decoded[page - 1], 2047, 2047);
    }
}

decoded_page *door_new_decoded(void)
{
    decoded_page *decoded = calloc(1, sizeof *decoded);
    if (!decoded)
        abort();
    decoded->version = 1;
    decoded->insn[2048].op = decoded->insn[2049].op = OPX_PAGE_END;
    return decoded;
}

/* The decoded copy of a RAM page, made if there is none. The engine loses its store permission to the page. */
decoded_page *door_decoded(vm_t *vm, uint64_t page)
{
    struct vm_internal *in = vm->in;
    decoded_page *decoded = in->decoded[page];
    if (!decoded)
        in->decoded[page] = decoded = door_new_decoded();
    if (!(in->page_flags[page] & PAGE_DECODED)) {
        in->page_flags[page] |= PAGE_DECODED;
        if (in->write_epoch[page] == in->tlb_epoch)
            in->tlb_flush_needed = 1;
    }
    return decoded;
}

/* Is the page's code the stepper's? Asked each time before the engine would go on there. */
int door_is_stepped(vm_t *vm, uint64_t page)
{
    struct vm_internal *in = vm->in;
    if (!(in->page_flags[page] & PAGE_STEPPED))
        return 0;
    if (in->patience[page]) {
        in->patience[page]--;
        return 1;
    }
    in->page_flags[page] &= (uint16_t)~PAGE_STEPPED;
    return 0;
}

/* An instruction that begins in the page before goes too: it was decoded from both. */
void door_forget_decoded(vm_t *vm, uint64_t page)
{
    struct vm_internal *in = vm->in;
    in->patience[page] = PATIENCE;
    if (in->page_flags[page] & PAGE_DECODED) {
        forget_insn(in->decoded[page], 0, 2047);
        in->page_flags[page] &= (uint16_t)~PAGE_DECODED;
        if (page > 0 && (in->page_flags[page - 1] & PAGE_DECODED))
            forget_insn(in->decoded[page - 1], 2047, 2047);
    }
}

/* memcpy of at most eight bytes: with a length that it does not know the compiler takes `rep movs`, which is slow. */
static void copy_few(void *to, const void *from, uint32_t size)
{
    switch (size) {
    case 1: memcpy(to, from, 1); break;
    case 2: memcpy(to, from, 2); break;
    case 4: memcpy(to, from, 4); break;
    case 8: memcpy(to, from, 8); break;
    default: memcpy(to, from, size);
    }
}

static int missing_exit(vm_t *vm, uint64_t page)
{
    vm->exit_detail = page;
    vm->in->exit = VM_EXIT_MISSING_PAGE + 1;
    vm->in->recheck = 1;
    return 2;
}

/* Is [offset, offset + size) in RAM and here? 0 yes, 1 not RAM, 2 exit wanted. */
static int reach(vm_t *vm, uint64_t offset, uint32_t size)
{
    struct vm_internal *in = vm->in;
    if (offset >= vm->ram_size || size > vm->ram_size - offset)
        return 1;
    if (in->missing)
        for (uint64_t page = offset >> PAGE_SHIFT; page <= (offset + size - 1) >> PAGE_SHIFT; page++)
            if (in->page_flags[page] & PAGE_MISSING)
                return missing_exit(vm, page);
    return 0;
}

int door_load(vm_t *vm, uint64_t address, uint32_t size, uint64_t *value)
{
    uint64_t offset = address - RAM_BASE;
    int refused = reach(vm, offset, size);
    if (!refused) {
        *value = 0;
        copy_few(value, vm->in->ram + offset, size);
    }
    return refused;
}

/* May a store be done here and now? To be asked before door_store; nothing has changed if not. */
int door_store_ready(vm_t *vm, uint64_t address, uint32_t size)
{
    return reach(vm, address - RAM_BASE, size);
}

static void store_part(vm_t *vm, uint64_t offset, const uint8_t *bytes, uint32_t length)
{
    struct vm_internal *in = vm->in;
    uint64_t page = offset >> PAGE_SHIFT;
    uint16_t flags = in->page_flags[page];
    door_mark_dirty(vm, page);
    if (flags & (PAGE_CODE | PAGE_DECODED))
        door_code_store(vm, offset, length);
    if (flags & PAGE_TABLE)
        walk_table_store(vm, offset, length);
    copy_few(in->ram + offset, bytes, length);
    if (flags & PAGE_CODE) {
        in->reasons++;
        if (++in->code_stores[page] >= CODE_STORES_MAX)
            engine_give_up_page(vm, page);
    }
}

/* `tohost` of the Berkeley host-target interface: device 1 command 1 prints a byte, another odd value ends the run. */
static void look_at_tohost(vm_t *vm)
{
    uint64_t offset = vm->tohost - RAM_BASE, value = 0;
    memcpy(&value, vm->in->ram + offset, vm->xlen / 8);
    if (value >> 48 == 0x0101) {
        uint8_t byte = (uint8_t)value;
        mp_array(&vm->in->outputs, 3);
        mp_str(&vm->in->outputs, "console");
        mp_uint(&vm->in->outputs, vm->time.position);
        mp_bin(&vm->in->outputs, &byte, 1);
        door_code_store(vm, offset, 8);
        memset(vm->in->ram + offset, 0, 8);
    } else if (value & 1) {
        machine_stop(vm, VM_STOP_POWEROFF, value >> 1, vm->time.position);
    }
}

void door_store(vm_t *vm, uint64_t address, uint32_t size, uint64_t value)
{
    uint64_t offset = address - RAM_BASE, end = offset + size;
    uint32_t first = (uint32_t)(PAGE_SIZE - (offset & (PAGE_SIZE - 1)));
    if (first > size)
        first = size;
    store_part(vm, offset, (uint8_t *)&value, first);
    if (first < size)
        store_part(vm, offset + first, (uint8_t *)&value + first, size - first);
    if (vm->tohost && offset < vm->tohost - RAM_BASE + vm->xlen / 8 && end > vm->tohost - RAM_BASE)
        look_at_tohost(vm);
}

void door_store_entry(vm_t *vm, uint64_t address, uint32_t size, uint64_t entry)
{
    uint64_t offset = address - RAM_BASE;
    door_mark_dirty(vm, offset >> PAGE_SHIFT);
    door_code_store(vm, offset, size);
    memcpy(vm->in->ram + offset, &entry, size);
}

/* Code at a physical address: two bytes that lie together, or NULL if nothing can be executed there. */
const uint8_t *door_fetch(vm_t *vm, uint64_t address)
{
    struct vm_internal *in = vm->in;
    if (address - RAM_BASE < vm->ram_size)
        return in->ram + (address - RAM_BASE);
    if (address - ROM_BASE < ROM_SIZE)
        return in->rom + (address - ROM_BASE);
    return NULL;
}

/* Whole pieces of pages: what is kept of the code in them goes, chunk by chunk is not worth it. */
static void store_piece(vm_t *vm, uint64_t offset, const uint8_t *bytes, uint32_t length)
{
    struct vm_internal *in = vm->in;
    uint64_t page = offset >> PAGE_SHIFT;
    uint16_t flags = in->page_flags[page];
    door_mark_dirty(vm, page);
    door_make_stale(vm, page);
    door_code_store(vm, offset, length);
    memmove(in->ram + offset, bytes, length);
    if (flags & PAGE_TABLE)
        walk_forget(vm);
}

/* The hart will find these bytes in RAM, without having stored them: see registers.c. */
static void tell_inflow(vm_t *vm, uint64_t offset, const uint8_t *bytes, uint64_t length)
{
    registers_inflow(vm, offset ^ length << 40);
    for (uint64_t at = 0; at < length; at += 8) {
        uint64_t word = 0;
        memcpy(&word, bytes + at, length - at < 8 ? length - at : 8);
        registers_inflow(vm, word);
    }
}

void door_store_many(vm_t *vm, uint64_t offset, const uint8_t *bytes, uint64_t length)
{
    tell_inflow(vm, offset, bytes, length);
    if (vm->in->points.range_count)
        points_dma(vm, RAM_BASE + offset, bytes, length);
    while (length) {
        uint32_t piece = PAGE_SIZE - (uint32_t)(offset & (PAGE_SIZE - 1));
        if (piece > length)
            piece = (uint32_t)length;
        store_piece(vm, offset, bytes, piece);
        offset += piece;
        bytes += piece;
        length -= piece;
    }
}

uint8_t *vm_ram(vm_t *vm)
{
    return vm->in->ram;
}

uint64_t vm_pages(const vm_t *vm)
{
    return vm->in->drive_page[DRIVES];
}

uint64_t vm_drive_page(const vm_t *vm, uint32_t drive)
{
    return vm->in->drive_page[drive <= DRIVES ? drive : DRIVES];
}

uint8_t *vm_rom(vm_t *vm, size_t *length)
{
    *length = ROM_SIZE;
    return vm->in->rom;
}

void vm_host_replaced(vm_t *vm, uint64_t page)
{
    if (page >= vm->in->pages)
        return;
    door_make_stale(vm, page);
    door_code_store(vm, page << PAGE_SHIFT, PAGE_SIZE);
    if (vm->in->page_flags[page] & PAGE_TABLE)
        walk_forget(vm);
}

void vm_host_wrote(vm_t *vm, uint64_t page)
{
    door_mark_dirty(vm, page);
    vm_host_replaced(vm, page);
}

size_t vm_dirty_count(const vm_t *vm)
{
    return vm->in->dirty_count;
}

/* The engine must ask again before it stores to a page that has just become clean. */
void vm_take_dirty(vm_t *vm, uint32_t *pages)
{
    struct vm_internal *in = vm->in;
    memcpy(pages, in->dirty, in->dirty_count * sizeof *pages);
    for (size_t i = 0; i < in->dirty_count; i++)
        in->page_flags[in->dirty[i]] &= (uint16_t)~PAGE_DIRTY;
    in->dirty_count = 0;
    engine_flush_tlb(vm);
}

void vm_watch(vm_t *vm, uint64_t address)
{
    if (address - RAM_BASE < vm->ram_size)
        vm->in->page_flags[(address - RAM_BASE) >> PAGE_SHIFT] |= PAGE_WATCHED;
}

int door_is_missing(const vm_t *vm, uint64_t page)
{
    uint16_t flags = vm->in->page_flags[page];
    return page < vm->in->pages ? (flags & PAGE_MISSING) != 0 : !(flags & PAGE_HERE);
}

int vm_is_missing(const vm_t *vm, uint64_t page)
{
    return door_is_missing(vm, page);
}

void vm_set_missing(vm_t *vm, uint64_t page, int missing)
{
    struct vm_internal *in = vm->in;
    int was = in->page_flags[page] & PAGE_MISSING;
    if (page >= in->pages) {
        in->page_flags[page] &= (uint16_t)~PAGE_HERE;
        in->page_flags[page] |= missing ? 0 : PAGE_HERE;
    } else if (missing && !was) {
        door_forget_decoded(vm, page);
        door_code_store(vm, page << PAGE_SHIFT, PAGE_SIZE);
        if (in->page_flags[page] & PAGE_TABLE)
            walk_forget(vm);
        in->page_flags[page] |= PAGE_MISSING;
        in->missing++;
        engine_flush_tlb(vm);
        if (in->supervisor)
            walk_forget_fast(vm);
    } else if (!missing && was) {
        in->page_flags[page] &= (uint16_t)~PAGE_MISSING;
        in->missing--;
    }
}
