/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Full capture: what the stepper executed, as columns.
 *
 * A *block* is a straight run of instructions: from where control arrived to the next taken jump, trap, interrupt,
 * page end, or store into the page being executed. Where blocks end follows from the instructions alone, not from how
 * the run was cut, so that the columns of a replay are the columns of its recording.
 *
 *     known                        blocks that earlier rows defined; 0: a new dictionary begins here
 *     definitions                  blocks that are new here; their ids follow on from `known`
 *     pcs, steps, traps, lengths   of each definition; trap: 0 none, 1 the last instruction trapped, 2 its fetch
 *                                  trapped (one step more than the code has instructions)
 *     code                         of all definitions, one after the other
 *     blocks, ids                  executed blocks, the id of each
 *     accesses, addresses, values  in order; address all ones for an sc that failed; value the bytes in memory,
 *                                  zero-extended
 *
 * Kind and size of each access follow from the code. In the trace the columns are transposed byte by byte, addresses
 * as differences before that (see below), which is what makes them compress well.
 *
 * In check mode nothing is stored: each block and access is compared with the recording's as it is executed.
 */
#include <stdlib.h>

#include "internal.h"
#include "isa_table.h"

/* --- columns ---------------------------------------------------------------------------------------------------- */

/*
 * A column on disk is its byte planes, lowest byte first: all first bytes, then all second bytes, … Each plane is
 *
 *     0, b            every byte of the plane is b
 *     1, b, b, b, …   one byte for each number
 *
 * With `delta` each number is the difference to the one before it (the first: to 0), modulo 2^64.
 */
#define COLUMN_CHUNK 2048u /* numbers that are taken apart at a time: they stay in the first-level cache */

static inline __attribute__((always_inline)) uint64_t column_get(const uint8_t *in, size_t index, uint32_t width)
{
    uint64_t value = 0;
    memcpy(&value, in + index * width, width);
    return value;
}

static inline __attribute__((always_inline)) uint64_t column_number(const uint8_t *in, size_t index, uint32_t width,
                                                                    int delta)
{
    uint64_t value = column_get(in, index, width);
    return delta && index ? value - column_get(in, index - 1, width) : value;
}

/* Room that a column of `count` numbers may need. */
static size_t column_room(size_t count, uint32_t width)
{
    return width * (count + 2);
}

static inline __attribute__((always_inline)) size_t encode(const uint8_t *in, uint8_t *out, size_t count,
                                                           uint32_t width, int delta)
{
    uint64_t first = count ? column_number(in, 0, width, delta) : 0, varying = 0, numbers[COLUMN_CHUNK];
    uint8_t *planes[8], *at = out;
    for (size_t i = 0; i < count; i++)
        varying |= column_number(in, i, width, delta) ^ first;
    for (uint32_t byte = 0; byte < width; byte++) {
        int varies = (varying >> (8 * byte) & 0xff) != 0;
        *at++ = (uint8_t)varies;
        planes[byte] = varies ? at : NULL;
        if (!varies)
            *at = (uint8_t)(first >> (8 * byte));
        at += varies ? count : 1;
    }
    for (size_t start = 0; start < count; start += COLUMN_CHUNK) {
        size_t some = count - start < COLUMN_CHUNK ? count - start : COLUMN_CHUNK;
        for (size_t i = 0; i < some; i++)
            numbers[i] = column_number(in, start + i, width, delta);
        for (uint32_t byte = 0; byte < width; byte++)
            if (planes[byte])
                for (size_t i = 0; i < some; i++)
                    planes[byte][start + i] = (uint8_t)(numbers[i] >> (8 * byte));
    }
    return (size_t)(at - out);
}

size_t column_encode(const uint8_t *in, uint8_t *out, size_t count, uint32_t width, int delta)
{
    if (width == 4)
        return delta ? encode(in, out, count, 4, 1) : encode(in, out, count, 4, 0);
    return delta ? encode(in, out, count, 8, 1) : encode(in, out, count, 8, 0);
}

/* Where each plane begins (NULL: all its bytes alike, then they are in *constant). -1 if the column is not whole. */
static int find_planes(const uint8_t *in, size_t length, size_t count, uint32_t width, const uint8_t **planes,
                       uint64_t *constant)
{
    const uint8_t *end = in + length;
    *constant = 0;
    for (uint32_t byte = 0; byte < width; byte++) {
        if (end - in < 2 && !(end - in == 1 && count == 0))
            return -1;
        size_t size = *in == 1 ? count : 1;
        if (*in > 1 || (size_t)(end - in) - 1 < size)
            return -1;
        planes[byte] = *in == 1 ? in + 1 : NULL;
        if (!planes[byte])
            *constant |= (uint64_t)in[1] << (8 * byte);
        in += 1 + size;
    }
    return in == end ? 0 : -1;
}

static inline __attribute__((always_inline)) void decode_planes(const uint8_t *const *planes, uint64_t constant,
                                                                uint8_t *out, size_t count, uint32_t width,
                                                                int delta)
{
    uint64_t previous = 0, numbers[COLUMN_CHUNK];
    for (size_t start = 0; start < count; start += COLUMN_CHUNK) {
        size_t some = count - start < COLUMN_CHUNK ? count - start : COLUMN_CHUNK;
        for (size_t i = 0; i < some; i++)
            numbers[i] = constant;
        for (uint32_t byte = 0; byte < width; byte++)
            if (planes[byte])
                for (size_t i = 0; i < some; i++)
                    numbers[i] |= (uint64_t)planes[byte][start + i] << (8 * byte);
        if (delta)
            for (size_t i = 0; i < some; i++)
                numbers[i] = previous += numbers[i];
        for (size_t i = 0; i < some; i++)
            memcpy(out + (start + i) * width, &numbers[i], width);
    }
}

int column_decode(const uint8_t *in, size_t length, uint8_t *out, size_t count, uint32_t width, int delta)
{
    const uint8_t *planes[8];
    uint64_t constant;
    if (find_planes(in, length, count, width, planes, &constant))
        return -1;
    if (width == 4)
        decode_planes(planes, constant, out, count, 4, delta);
    else
        decode_planes(planes, constant, out, count, 8, delta);
    return 0;
}

/* --- the dictionary of blocks ------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9e3779b97f4a7c15ull;
    return hash ^ hash >> 29;
}

static uint64_t hash_block(uint64_t pc, uint32_t length, uint32_t steps, uint32_t trap, const uint8_t *code)
{
    uint64_t hash = mix(pc, (uint64_t)length << 32 | steps << 2 | trap);
    for (uint32_t i = 0; i < length; i += 8) {
        uint64_t word = 0;
        memcpy(&word, code + i, length - i < 8 ? length - i : 8);
        hash = mix(hash, word);
    }
    return hash;
}

static void forget_dictionary(capture_t *c)
{
    c->def_count = c->def_sent = 0;
    c->code.length = 0;
    if (c->table)
        memset(c->table, 0, c->table_size * sizeof *c->table);
}

static void grow_table(capture_t *c)
{
    size_t size = c->table_size ? c->table_size * 2 : 4096;
    free(c->table);
    c->table = calloc(size, sizeof *c->table);
    if (!c->table)
        abort();
    c->table_size = size;
    for (size_t id = 0; id < c->def_count; id++) {
        size_t at = c->defs[id].hash & (size - 1);
        while (c->table[at])
            at = (at + 1) & (size - 1);
        c->table[at] = (uint32_t)id + 1;
    }
}

static uint32_t add_definition(capture_t *c, const block_def *wanted, const uint8_t *code)
{
    if (c->def_count == c->def_capacity) {
        c->def_capacity = c->def_capacity ? 2 * c->def_capacity : 1024;
        c->defs = realloc(c->defs, c->def_capacity * sizeof *c->defs);
        if (!c->defs)
            abort();
    }
    block_def *def = &c->defs[c->def_count];
    *def = *wanted;
    def->code = (uint32_t)c->code.length;
    memcpy(buffer_room(&c->code, wanted->length + 1), code, wanted->length);
    c->code.length += wanted->length;
    return (uint32_t)c->def_count++;
}

static int same_block(const capture_t *c, const block_def *def, const block_def *wanted, const uint8_t *code)
{
    return def->pc == wanted->pc && def->steps == wanted->steps && def->length == wanted->length
           && def->trap == wanted->trap && !memcmp(c->code.data + def->code, code, def->length);
}

static uint32_t find_or_add(capture_t *c, const block_def *wanted, const uint8_t *code)
{
    if (2 * (c->def_count + 1) > c->table_size)
        grow_table(c);
    size_t at = wanted->hash & (c->table_size - 1);
    while (c->table[at]) {
        uint32_t id = c->table[at] - 1;
        if (c->defs[id].hash == wanted->hash && same_block(c, &c->defs[id], wanted, code))
            return id;
        at = (at + 1) & (c->table_size - 1);
    }
    uint32_t id = add_definition(c, wanted, code);
    c->table[at] = id + 1;
    return id;
}

/* --- checking --------------------------------------------------------------------------------------------------------- */

static void diverge(vm_t *vm, uint32_t what, uint64_t position, uint64_t pc, uint64_t expected, uint64_t actual)
{
    capture_t *c = &vm->in->capture;
    if (c->diverged)
        return;
    c->diverged = 1;
    c->result.what = what;
    c->result.position = position;
    c->result.pc = pc;
    c->result.expected = expected;
    c->result.actual = actual;
    vm->in->recheck = 1;
}

/* The first instruction at which two runs of code from the same pc part. */
static void diverge_in_block(vm_t *vm, const block_def *want, const uint8_t *want_code, const block_def *have,
                             const uint8_t *code)
{
    uint64_t position = vm->in->capture.open_position;
    uint32_t at = 0;
    if (want->pc != have->pc) {
        diverge(vm, 1, position, have->pc, want->pc, have->pc);
        return;
    }
    while (at < want->length && at < have->length) {
        uint32_t length = (want_code[at] & 3) == 3 ? 4 : 2;
        uint64_t a = 0, b = 0;
        memcpy(&a, want_code + at, at + length <= want->length ? length : 2);
        memcpy(&b, code + at, at + length <= have->length ? length : 2);
        if (a != b) {
            diverge(vm, 1, position, have->pc + at, a, b);
            return;
        }
        at += length;
        position++;
    }
    if (want->length == have->length)
        diverge(vm, 4, have->trap || want->trap ? position - (at > 0) : position, have->pc + at, want->trap,
                have->trap);
    else
        diverge(vm, 1, position, have->pc + at, want->pc + want->length, have->pc + have->length);
}

/* `def` without its first instructions: `steps` of them, `length` bytes. */
static block_def rest_of(const block_def *def, uint32_t steps, uint32_t length)
{
    return (block_def){.pc = def->pc + length, .steps = def->steps - steps, .length = def->length - length,
                       .trap = def->trap, .code = def->code + length};
}

/*
 * Rows are compared, not where blocks end: one that ends in the middle of another goes on in the next. (Early
 * recordings have blocks that also end at the first store to the page behind.)
 */
static void check_block(vm_t *vm, const block_def *block, const uint8_t *code)
{
    capture_t *c = &vm->in->capture;
    if (LIKELY(!c->want_steps && c->next_block < c->want_blocks
               && same_block(c, &c->defs[c->want_ids[c->next_block]], block, code))) {
        c->next_block++;
        return;
    }
    block_def have = *block;
    while (have.steps) {
        if (c->next_block >= c->want_blocks) {
            diverge(vm, 5, c->open_position, have.pc, 0, have.steps);
            return;
        }
        const block_def *whole = &c->defs[c->want_ids[c->next_block]];
        block_def want = rest_of(whole, c->want_steps, c->want_length);
        const uint8_t *want_code = c->code.data + want.code;
        uint32_t steps = want.steps < have.steps ? want.steps : have.steps;
        uint32_t length = want.length < have.length ? want.length : have.length;
        if (want.pc != have.pc || memcmp(want_code, code, length)
            || (want.steps == have.steps ? want.length != have.length || want.trap != have.trap
                                         : (want.steps < have.steps ? want.trap : have.trap))) {
            diverge_in_block(vm, &want, want_code, &have, code);
            return;
        }
        have = rest_of(&have, steps, length);
        code += length;
        c->open_position += steps;
        c->want_steps += steps;
        c->want_length += length;
        if (c->want_steps == whole->steps) {
            c->next_block++;
            c->want_steps = c->want_length = 0;
        }
    }
}

static void check_access(vm_t *vm, uint64_t address, uint64_t value, uint64_t position, uint64_t pc)
{
    capture_t *c = &vm->in->capture;
    if (c->next_access >= c->want_accesses) {
        diverge(vm, 5, position, pc, 0, address);
        return;
    }
    size_t at = c->next_access++;
    if (c->want_addresses[at] != address)
        diverge(vm, 2, position, pc, c->want_addresses[at], address);
    else if (c->want_values[at] != value)
        diverge(vm, 3, position, pc, c->want_values[at], value);
}

/* --- called by the stepper --------------------------------------------------------------------------------------------- */

void capture_access(vm_t *vm, uint64_t address, uint64_t value, uint64_t position, uint64_t pc)
{
    capture_t *c = &vm->in->capture;
    if (UNLIKELY(c->check)) {
        check_access(vm, address, value, position, pc);
        return;
    }
    c->rows.addresses[c->rows.accesses] = address;
    c->rows.values[c->rows.accesses++] = value;
}

/*
 * The code of the open block. It lies in one page of RAM or ROM, but for an instruction across the page's end: with
 * virtual addresses its second half may be anywhere, and the bytes are put together in `straddling`.
 */
static const uint8_t *block_code(const vm_t *vm, uint32_t length, uint8_t *straddling)
{
    const struct vm_internal *in = vm->in;
    const capture_t *c = &in->capture;
    uint64_t at = c->open_pc & (PAGE_SIZE - 1);
    if (c->open_page == NEVER)
        return door_fetch((vm_t *)vm, c->open_pc);
    const uint8_t *code = in->ram + (c->open_page << PAGE_SHIFT) + at;
    if (!in->supervisor || at + length <= PAGE_SIZE)
        return code;
    memcpy(straddling, code, PAGE_SIZE - at);
    memcpy(straddling + PAGE_SIZE - at, in->straddle, 2);
    return straddling;
}

/* Ends the open block at `end_pc`, with `position` steps done. Called before the bytes of its code can change. */
void capture_close(vm_t *vm, uint64_t end_pc, uint64_t position, uint32_t trap)
{
    capture_t *c = &vm->in->capture;
    if (!c->open)
        return;
    c->open = 0;
    block_def block = {.pc = c->open_pc, .steps = (uint32_t)(position - c->open_position),
                       .length = (uint32_t)(end_pc - c->open_pc), .trap = trap};
    if (!block.steps)
        return;
    uint8_t straddling[PAGE_SIZE + 2];
    const uint8_t *code = block_code(vm, block.length, straddling);
    if (c->check) {
        check_block(vm, &block, code);
        return;
    }
    /* Most blocks are the one that began here last time, of code that has not changed since. */
    decoded_page *page = NULL;
    uint32_t *last = NULL;
    if (c->open_page != NEVER && code != straddling) {
        page = vm->in->decoded[c->open_page];
        last = &page->last_block[(c->open_pc & (PAGE_SIZE - 1)) >> 1];
    }
    uint32_t id = last ? *last : NEVER;
    if (!last || id >= c->def_count || c->defs[id].version != page->version || c->defs[id].pc != block.pc
        || c->defs[id].length != block.length || c->defs[id].steps != block.steps || c->defs[id].trap != trap) {
        block.hash = hash_block(block.pc, block.length, block.steps, trap, code);
        id = find_or_add(c, &block, code);
        if (last) {
            *last = id;
            c->defs[id].version = page->version;
        }
    }
    c->rows.ids[c->rows.blocks++] = id;
    c->rows.committed = c->rows.accesses;
}

/* --- the host's side -------------------------------------------------------------------------------------------------- */

static void *room(size_t count, size_t size)
{
    void *memory = malloc(count * size);
    if (!memory)
        abort();
    return memory;
}

void vm_capture_start(vm_t *vm)
{
    capture_t *c = &vm->in->capture;
    if (!c->rows.ids) {
        c->rows.ids = room(ROWS_BLOCKS + ROWS_SLACK, sizeof *c->rows.ids);
        c->rows.addresses = room(ROWS_ACCESSES + ROWS_SLACK, sizeof *c->rows.addresses);
        c->rows.values = room(ROWS_ACCESSES + ROWS_SLACK, sizeof *c->rows.values);
    }
    c->rows.blocks = c->rows.accesses = c->rows.committed = 0;
    c->on = 1;
    c->check = c->diverged = c->open = 0;
    c->first = vm->time.position;
    forget_dictionary(c);
}

void vm_capture_stop(vm_t *vm)
{
    vm->in->capture.on = vm->in->capture.open = vm->in->capture.diverged = 0;
}

static void put_column(buffer_t *out, const void *column, size_t count, uint32_t width, int delta)
{
    uint8_t *at = buffer_room(out, column_room(count, width) + 5);
    size_t length = column_encode(column, at + 5, count, width, delta);
    at[0] = 0xc6; /* bin 32: the length is known only now */
    for (int i = 0; i < 4; i++)
        at[1 + i] = (uint8_t)(length >> (8 * (3 - i)));
    out->length += length + 5;
}

enum { DEF_PC, DEF_STEPS, DEF_TRAP, DEF_LENGTH };

static void put_definition_column(const capture_t *c, buffer_t *out, const char *name, int field)
{
    size_t count = c->def_count - c->def_sent;
    uint64_t *numbers = room(count + 1, sizeof *numbers);
    for (size_t i = 0; i < count; i++) {
        const block_def *def = &c->defs[c->def_sent + i];
        numbers[i] = field == DEF_PC ? def->pc : field == DEF_STEPS ? def->steps : field == DEF_TRAP ? def->trap
                                                                                                    : def->length;
    }
    mp_str(out, name);
    put_column(out, numbers, count, 8, field == DEF_PC);
    free(numbers);
}

static void put_definitions(capture_t *c, buffer_t *out)
{
    size_t code = c->def_sent < c->def_count ? c->defs[c->def_sent].code : c->code.length;
    mp_str(out, "known");
    mp_uint(out, c->def_sent);
    mp_str(out, "definitions");
    mp_uint(out, c->def_count - c->def_sent);
    put_definition_column(c, out, "pcs", DEF_PC);
    put_definition_column(c, out, "steps", DEF_STEPS);
    put_definition_column(c, out, "traps", DEF_TRAP);
    put_definition_column(c, out, "lengths", DEF_LENGTH);
    mp_str(out, "code");
    mp_bin(out, c->code.data + code, c->code.length - code);
    c->def_sent = c->def_count;
}

const uint8_t *vm_capture_take(vm_t *vm, int close, int reset_dictionary, size_t *length, uint64_t *first,
                               uint64_t *last)
{
    capture_t *c = &vm->in->capture;
    rows_t *rows = &c->rows;
    buffer_t *out = &c->out;
    if (close)
        capture_close(vm, vm->hart.pc, vm->time.position, 0);
    *first = c->first;
    *last = c->open ? c->open_position : vm->time.position;
    if (!rows->blocks) {
        if (reset_dictionary)
            forget_dictionary(c);
        return NULL;
    }
    out->length = 0;
    mp_map(out, 12);
    put_definitions(c, out);
    mp_str(out, "blocks");
    mp_uint(out, rows->blocks);
    mp_str(out, "accesses");
    mp_uint(out, rows->committed);
    mp_str(out, "ids");
    put_column(out, rows->ids, rows->blocks, 4, 0);
    mp_str(out, "addresses");
    put_column(out, rows->addresses, rows->committed, 8, 1);
    mp_str(out, "values");
    put_column(out, rows->values, rows->committed, 8, 0);
    rows->accesses -= rows->committed;
    memmove(rows->addresses, rows->addresses + rows->committed, rows->accesses * sizeof *rows->addresses);
    memmove(rows->values, rows->values + rows->committed, rows->accesses * sizeof *rows->values);
    rows->blocks = rows->committed = 0;
    c->first = *last;
    if (reset_dictionary)
        forget_dictionary(c);
    *length = out->length;
    return out->data;
}

/* Somebody is about to change registers or code from outside: a block must not go on beyond that. */
void vm_capture_end_block(vm_t *vm)
{
    capture_close(vm, vm->hart.pc, vm->time.position, 0);
}

int vm_check_define(vm_t *vm, uint32_t id, uint64_t pc, uint32_t steps, uint32_t trap, const uint8_t *code,
                    uint32_t length)
{
    capture_t *c = &vm->in->capture;
    block_def def = {.pc = pc, .steps = steps, .length = length, .trap = trap};
    if (id != c->def_count)
        return -1; /* definitions come in order */
    add_definition(c, &def, code);
    return 0;
}

void vm_check_forget(vm_t *vm)
{
    forget_dictionary(&vm->in->capture);
}

int vm_check_begin(vm_t *vm, const uint32_t *ids, size_t blocks, const uint64_t *addresses, const uint64_t *values,
                   size_t accesses)
{
    capture_t *c = &vm->in->capture;
    for (size_t i = 0; i < blocks; i++)
        if (ids[i] >= c->def_count)
            return -1;
    c->want_ids = ids;
    c->want_addresses = addresses;
    c->want_values = values;
    c->want_blocks = blocks;
    c->want_accesses = accesses;
    c->next_block = c->next_access = 0;
    c->want_steps = c->want_length = 0;
    c->on = c->check = 1;
    c->diverged = c->open = 0;
    return 0;
}

int vm_check_end(vm_t *vm)
{
    capture_t *c = &vm->in->capture;
    if (!c->diverged)
        capture_close(vm, vm->hart.pc, vm->time.position, 0);
    if (!c->diverged && (c->next_block < c->want_blocks || c->next_access < c->want_accesses))
        diverge(vm, 5, vm->time.position, vm->hart.pc, c->want_blocks - c->next_block, 0);
    int good = !c->diverged;
    c->on = c->check = c->open = c->diverged = 0;
    return good;
}

void vm_check_result(const vm_t *vm, check_result *result)
{
    *result = vm->in->capture.result;
}

void capture_destroy(vm_t *vm)
{
    capture_t *c = &vm->in->capture;
    free(c->rows.ids);
    free(c->rows.addresses);
    free(c->rows.values);
    free(c->defs);
    free(c->table);
    free(c->code.data);
    free(c->out.data);
}
