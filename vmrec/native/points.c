/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Points: instructions, accesses and traps that somebody outside wants to hear of. They change nothing for the guest.
 *
 *     instruction   a block that holds it is not for the engine (engine.c); the stepper's decoded copy of it has
 *                   OP_POINT set, so that it is looked at before it is executed and nothing else is slowed down
 *     access        its page is WATCHED (stores) or READ_WATCHED (loads and stores): the door refuses it to the
 *                   engine, and the stepper asks here whenever it leaves its fast path
 *     trap, change of the privilege mode: trap.c tells
 *
 * Addresses are the guest's, virtual ones where it has such. A range of them may be meant in one address space alone: an
 * address space is a value of satp, and what is not translated is in none. Or a range is of physical addresses, and
 * sees what reaches these bytes by whatever address. The flags of pages serve physical addresses, and all others while
 * nothing is translated; for virtual ones the engine's fill callback asks points_page() in their place.
 *
 * Hits go into a log of the caller. Either it keeps the last `room` hits and the run goes on, or the run returns
 * POINT when there are `room` of them: before the instruction of a point, after the step of an access or trap, right
 * behind the entry into an interrupt. A step can add a few hits (STEP_ROOM of machine/pointlog.py), the last beyond `room`.
 */
#include <stdlib.h>

#include "internal.h"
#include "isa_table.h"

/* Who waits for a byte must be told so, points or not; the log says itself that it is full. */
static void leave(vm_t *vm)
{
    if (vm->in->exit != VM_EXIT_RX_WANTED + 1)
        vm->in->exit = VM_EXIT_POINT + 1;
    vm->in->recheck = 1;
}

/* Returns 1 if the log is full now, and the run is to return. */
static int add(vm_t *vm, const point_hit *hit)
{
    point_log *log = vm->in->points.log;
    if (!log)
        return 0;
    if (!log->keep_last && log->count >= log->capacity) {
        leave(vm);
        return 1;
    }
    log->hits[log->keep_last ? log->count % log->room : log->count] = *hit;
    log->count++;
    if (log->keep_last || log->count < log->room)
        return 0;
    leave(vm);
    return 1;
}

int points_full(const vm_t *vm)
{
    const point_log *log = vm->in->points.log;
    return log && !log->keep_last && log->count >= log->room;
}

/* The first of the instructions at or behind `pc`; their number if there is none. */
static size_t first_break(const points_t *points, uint64_t pc)
{
    size_t low = 0, high = points->break_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (points->breaks[middle].address < pc)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int points_inside(const vm_t *vm, uint64_t pc, uint64_t end)
{
    const points_t *points = &vm->in->points;
    size_t first = first_break(points, pc);
    return first < points->break_count && points->breaks[first].address < end;
}

/* Is one of the instruction's points meant, with the registers as they are? */
static int is_meant(const vm_t *vm, uint64_t pc)
{
    const points_t *points = &vm->in->points;
    for (size_t i = first_break(points, pc); i < points->break_count && points->breaks[i].address == pc; i++)
        if (!points->breaks[i].reg || vm->hart.x[points->breaks[i].reg] == points->breaks[i].value)
            return 1;
    return 0;
}

/* A page of code may be executed at several virtual addresses, and is decoded once. */
int points_near(const vm_t *vm, uint64_t pc)
{
    const points_t *points = &vm->in->points;
    if (!vm->in->supervisor)
        return points_inside(vm, pc, pc + 1);
    for (size_t i = 0; i < points->break_count; i++)
        if (!((points->breaks[i].address ^ pc) & (PAGE_SIZE - 1)))
            return 1;
    return 0;
}

int points_instruction(vm_t *vm, uint64_t pc, uint64_t position)
{
    point_log *log = vm->in->points.log;
    if (vm->in->supervisor && !points_inside(vm, pc, pc + 1))
        return 0;
    vm->in->reasons++;
    if (!log || position < log->from || !is_meant(vm, pc))
        return 0;
    log->from = position + 1; /* the step may have to be tried again: it waits for a page, or for entropy */
    return add(vm, &(point_hit){.position = position, .kind = POINT_BREAK, .pc = pc,
                                .space = walk_space(vm, ACCESS_FETCH)});
}

void points_trap(vm_t *vm, uint32_t kind, uint64_t pc, uint64_t position, uint64_t cause)
{
    points_t *points = &vm->in->points;
    if (!(points->kinds & kind) || !points->log || (kind == POINT_INTERRUPT && position < points->log->from))
        return;
    add(vm, &(point_hit){.position = position, .kind = kind, .pc = pc, .value = cause});
}

/* `kind`: POINT_ENTRY or 0; `before`: the mode that it was. */
void points_privilege(vm_t *vm, uint32_t kind, uint64_t pc, uint64_t position, uint64_t before)
{
    points_t *points = &vm->in->points;
    if (before == vm->hart.priv || !(points->kinds & POINT_PRIVILEGE) || !points->log
        || (kind == POINT_ENTRY && position < points->log->from))
        return;
    add(vm, &(point_hit){.position = position, .kind = POINT_PRIVILEGE | kind, .pc = pc, .value = vm->hart.priv,
                         .before = before});
}

/* An access, and where in physical memory it goes: `first` bytes from place[0] on, the rest from place[1] on. */
typedef struct {
    uint64_t address, place[2], space, before, value;
    uint32_t size, first;
    int write, device;
} seen_t;

static int in_ram(const vm_t *vm, uint64_t place, uint32_t size)
{
    return place - RAM_BASE < vm->ram_size && size <= vm->ram_size - (place - RAM_BASE);
}

static void look(vm_t *vm, seen_t *seen)
{
    enum access access = seen->write ? ACCESS_STORE : ACCESS_LOAD;
    uint32_t room = PAGE_SIZE - (uint32_t)(seen->address & (PAGE_SIZE - 1));
    seen->first = seen->size < room ? seen->size : room;
    seen->place[0] = seen->address;
    seen->place[1] = seen->address + room;
    if (!vm->in->identity) {
        seen->space = walk_space(vm, access);
        if (vm_translate(vm, seen->address, access, -1, &seen->place[0]))
            seen->device = 1;
        seen->place[1] = seen->place[0] + room;
        if (seen->first < seen->size && vm_translate(vm, seen->address + room, access, -1, &seen->place[1]))
            seen->device = 1;
    }
    uint32_t rest = seen->size - seen->first;
    seen->device |= !in_ram(vm, seen->place[0], seen->first) || (rest && !in_ram(vm, seen->place[1], rest));
    if (!seen->write || seen->device)
        return;
    memcpy(&seen->before, vm->in->ram + (seen->place[0] - RAM_BASE), seen->first);
    if (rest)
        memcpy((uint8_t *)&seen->before + seen->first, vm->in->ram + (seen->place[1] - RAM_BASE), rest);
}

/* The address of byte `i` of an access, as a range has addresses. */
static uint64_t byte_at(const watch_range *range, const seen_t *seen, uint32_t i)
{
    if (!(range->kinds & POINT_PHYSICAL))
        return seen->address + i;
    return i < seen->first ? seen->place[0] + i : seen->place[1] + (i - seen->first);
}

static int near(const watch_range *range, const seen_t *seen)
{
    uint64_t first = range->address >> PAGE_SHIFT, pages = ((range->address + range->size - 1) >> PAGE_SHIFT) - first;
    return (byte_at(range, seen, 0) >> PAGE_SHIFT) - first <= pages
           || (byte_at(range, seen, seen->size - 1) >> PAGE_SHIFT) - first <= pages;
}

/* Is a byte of the access in the range? `differs`: one that the store changes. */
static int inside(const watch_range *range, const seen_t *seen, int differs)
{
    for (uint32_t i = 0; i < seen->size; i++)
        if (byte_at(range, seen, i) - range->address < range->size
            && (!differs || ((seen->before ^ seen->value) >> (8 * i) & 0xff)))
            return 1;
    return 0;
}

static int wants(const watch_range *range, const seen_t *seen)
{
    if (!seen->write)
        return (range->kinds & POINT_READ) && inside(range, seen, 0);
    return (range->kinds & POINT_WRITE) ? inside(range, seen, 0)
                                        : (range->kinds & POINT_CHANGE) && inside(range, seen, !seen->device);
}

/* `named`: the access has an address as instructions name it, too. */
static void tell(vm_t *vm, uint64_t pc, const seen_t *seen, int named)
{
    points_t *points = &vm->in->points;
    int wanted = 0;
    for (size_t i = 0; i < points->range_count; i++) {
        const watch_range *range = &points->ranges[i];
        if ((range->space && range->space != seen->space) || !near(range, seen)
            || !(named || (range->kinds & POINT_PHYSICAL)))
            continue;
        vm->in->reasons++; /* what happens here is better stepped */
        wanted |= wants(range, seen);
    }
    if (wanted)
        add(vm, &(point_hit){.position = vm->time.position,
                             .kind = (seen->write ? POINT_WRITE : POINT_READ) | (seen->device ? POINT_DEVICE : 0),
                             .pc = pc,
                             .address = seen->address,
                             .size = seen->size,
                             .value = seen->value,
                             .before = seen->before,
                             .space = seen->space,
                             .physical = seen->place[0],
                             .beyond = seen->place[1]});
}

void points_access(vm_t *vm, uint64_t pc, uint64_t address, uint32_t size, uint64_t value, int write)
{
    seen_t seen = {.address = address, .size = size, .value = value, .write = write};
    look(vm, &seen);
    tell(vm, pc, &seen, 1);
}

void points_stored(vm_t *vm, uint64_t pc, uint64_t physical, uint32_t size, uint64_t value)
{
    seen_t seen = {.address = physical, .size = size, .value = value, .write = 1, .first = size,
                   .place = {physical, physical + size}};
    if (!vm->in->points.range_count)
        return;
    memcpy(&seen.before, vm->in->ram + (physical - RAM_BASE), size);
    tell(vm, pc, &seen, vm->in->identity || !vm->supervisor.satp);
}

static uint16_t page_flag(const watch_range *range)
{
    return range->kinds & POINT_READ ? PAGE_READ_WATCHED : PAGE_WATCHED;
}

uint16_t points_page(const vm_t *vm, uint64_t address)
{
    const points_t *points = &vm->in->points;
    uint64_t space = walk_space(vm, ACCESS_LOAD);
    uint16_t flags = 0;
    for (size_t i = 0; i < points->range_count && !vm->in->identity; i++) {
        const watch_range *range = &points->ranges[i];
        uint64_t first = range->address >> PAGE_SHIFT, last = (range->address + range->size - 1) >> PAGE_SHIFT;
        if (!(range->kinds & POINT_PHYSICAL) && (!range->space || range->space == space)
            && (address >> PAGE_SHIFT) - first <= last - first)
            flags |= page_flag(range);
    }
    return flags;
}

/* The ranges that a hit is one of need no other one in this step. */
static void mark_hit(vm_t *vm, const seen_t *seen)
{
    points_t *points = &vm->in->points;
    for (size_t i = 0; i < points->range_count; i++)
        if ((!points->ranges[i].space || points->ranges[i].space == seen->space) && wants(&points->ranges[i], seen))
            points->dma_hits[i] = vm->time.position;
}

/*
 * A device's store of `length` bytes to RAM, as far as it lies in `size` bytes from `at` on, which a range calls
 * `address`. Returns 1 if there is such a byte that the range wants.
 */
static int dma_part(vm_t *vm, const watch_range *range, uint64_t address, uint64_t size, uint64_t at, uint64_t space,
                    uint64_t physical, const uint8_t *bytes, uint64_t length)
{
    uint64_t first = at > physical ? at : physical, end = at + size < physical + length ? at + size : physical + length;
    while (first < end && !(range->kinds & POINT_WRITE) && vm->in->ram[first - RAM_BASE] == bytes[first - physical])
        first++;
    if (first >= end)
        return 0;
    uint32_t part = end - first < 8 ? (uint32_t)(end - first) : 8, room = PAGE_SIZE - (uint32_t)(first & (PAGE_SIZE - 1));
    seen_t seen = {.address = address + (first - at), .size = part, .first = part < room ? part : room, .space = space,
                   .place = {first, first + room}, .write = 1};
    memcpy(&seen.value, bytes + (first - physical), part);
    memcpy(&seen.before, vm->in->ram + (first - RAM_BASE), part);
    add(vm, &(point_hit){.position = vm->time.position,
                         .kind = POINT_WRITE,
                         .pc = vm->hart.pc,
                         .address = seen.address,
                         .size = part,
                         .value = seen.value,
                         .before = seen.before,
                         .space = space,
                         .physical = first,
                         .beyond = first + room});
    mark_hit(vm, &seen);
    return 1;
}

/* The same for a range of virtual addresses, page by page: where they lead the hart at this moment. */
static void dma_translated(vm_t *vm, const watch_range *range, uint64_t physical, const uint8_t *bytes, uint64_t length)
{
    uint64_t space = walk_space(vm, ACCESS_STORE), address = range->address, left = range->size, at;
    if (range->space && range->space != space)
        return;
    while (left) {
        uint64_t piece = PAGE_SIZE - (address & (PAGE_SIZE - 1));
        if (piece > left)
            piece = left;
        if (!vm_translate(vm, address, ACCESS_LOAD, -1, &at)
            && dma_part(vm, range, address, piece, at, space, physical, bytes, length))
            return;
        address += piece;
        left -= piece;
    }
}

/*
 * A device's store is a hit at the step that set it off, or that comes behind the input that did, with the first eight
 * bytes of what it stores into a range; the first into each range is one.
 */
void points_dma(vm_t *vm, uint64_t physical, const uint8_t *bytes, uint64_t length)
{
    points_t *points = &vm->in->points;
    for (size_t i = 0; i < points->range_count; i++) {
        const watch_range *range = &points->ranges[i];
        if (!(range->kinds & (POINT_WRITE | POINT_CHANGE)) || points->dma_hits[i] == vm->time.position)
            continue;
        if (!vm->in->identity && !(range->kinds & POINT_PHYSICAL))
            dma_translated(vm, range, physical, bytes, length);
        else if (!range->space)
            dma_part(vm, range, range->address, range->size, range->address, 0, physical, bytes, length);
    }
}

static void forget_decoded(decoded_page *decoded, uint64_t pc)
{
    decoded->insn[(pc & (PAGE_SIZE - 1)) >> 1].op = 0;
    decoded->version++;
}

/* In any page, since the address is virtual. */
static void forget_everywhere(vm_t *vm, uint64_t pc, int on)
{
    struct vm_internal *in = vm->in;
    engine_forget_blocks_at(vm, pc);
    for (uint64_t page = 0; page < in->pages; page++) {
        if (in->page_flags[page] & PAGE_DECODED)
            forget_decoded(in->decoded[page], pc);
        if (on)
            door_make_stale(vm, page);
    }
}

/*
 * Whoever holds the instruction at `pc` in his own form must look at it again. Translated blocks without a point need
 * not come to the block hook any more, so a new point has them dropped; those with one do, and are just looked at again.
 */
static void forget_instruction(vm_t *vm, uint64_t pc, int on)
{
    struct vm_internal *in = vm->in;
    uint64_t offset = pc - RAM_BASE, page = offset >> PAGE_SHIFT;
    decoded_page *decoded = NULL;
    if (in->supervisor)
        forget_everywhere(vm, pc, on);
    if (offset < vm->ram_size) {
        uint64_t first = page > 0 ? page - 1 : page; /* a block may have begun there */
        for (uint64_t i = first; i <= page; i++)
            if (on)
                door_make_stale(vm, i);
            else
                engine_forget_blocks(vm, i);
        if (in->page_flags[page] & PAGE_DECODED)
            decoded = in->decoded[page];
    } else if (pc - ROM_BASE < ROM_SIZE) {
        decoded = in->rom_decoded[(pc - ROM_BASE) >> PAGE_SHIFT];
    }
    if (decoded)
        forget_decoded(decoded, pc);
}

static void mark_pages(vm_t *vm, const watch_range *range, int on)
{
    uint64_t first = range->address - RAM_BASE, last = first + range->size - 1;
    uint16_t flag = page_flag(range);
    if (range->space && !(range->kinds & POINT_PHYSICAL))
        return;
    if (range->address < RAM_BASE) {
        if (range->size <= RAM_BASE - range->address)
            return;
        last = range->size - (RAM_BASE - range->address) - 1;
        first = 0;
    }
    if (last >= vm->ram_size)
        last = vm->ram_size - 1;
    for (uint64_t page = first >> PAGE_SHIFT; page <= last >> PAGE_SHIFT && first < vm->ram_size; page++) {
        if (on)
            vm->in->page_flags[page] |= flag;
        else
            vm->in->page_flags[page] &= (uint16_t)~flag;
    }
}

static void set_all(vm_t *vm, int on)
{
    points_t *points = &vm->in->points;
    for (size_t i = 0; i < points->break_count; i++)
        forget_instruction(vm, points->breaks[i].address, on);
    points->load_watched = 0;
    for (size_t i = 0; i < points->range_count; i++) {
        mark_pages(vm, &points->ranges[i], on);
        points->load_watched |= on && (points->ranges[i].kinds & POINT_READ);
    }
    if (points->range_count)
        engine_flush_tlb(vm);
}

int vm_points_set(vm_t *vm, const break_point *breaks, size_t break_count, const watch_range *ranges, size_t range_count,
                  uint32_t kinds, point_log *log)
{
    points_t *points = &vm->in->points;
    break_point *new_breaks = break_count ? malloc(break_count * sizeof *breaks) : NULL;
    watch_range *new_ranges = range_count ? malloc(range_count * sizeof *ranges) : NULL;
    uint64_t *dma_hits = range_count ? malloc(range_count * sizeof *dma_hits) : NULL;
    if ((break_count && !new_breaks) || (range_count && (!new_ranges || !dma_hits))) {
        free(new_breaks);
        free(new_ranges);
        free(dma_hits);
        return -1;
    }
    if (break_count)
        memcpy(new_breaks, breaks, break_count * sizeof *breaks);
    if (range_count) {
        memcpy(new_ranges, ranges, range_count * sizeof *ranges);
        memset(dma_hits, 0xff, range_count * sizeof *dma_hits);
    }
    set_all(vm, 0);
    free(points->breaks);
    free(points->ranges);
    free(points->dma_hits);
    *points = (points_t){.breaks = new_breaks,
                         .ranges = new_ranges,
                         .dma_hits = dma_hits,
                         .break_count = break_count,
                         .range_count = range_count,
                         .kinds = kinds,
                         .log = log};
    set_all(vm, 1);
    if (vm->tohost)
        vm_watch(vm, vm->tohost);
    walk_view_changed(vm);
    return 0;
}

void points_destroy(vm_t *vm)
{
    free(vm->in->points.breaks);
    free(vm->in->points.ranges);
    free(vm->in->points.dma_hits);
}
