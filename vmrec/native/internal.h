/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the native core tell each other and nobody else.
 */
#ifndef VMREC_INTERNAL_H
#define VMREC_INTERNAL_H

#include <string.h>

#include "virtio.h"
#include "vmrec.h"

#define LIKELY(condition) __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

#define NEVER UINT64_MAX
#define PAGE_SHIFT 12
#define PAGE_SIZE 4096u

/* Memory map (QEMU `virt`), the parts that the native core knows. */
#define ROM_BASE 0x1000ull
#define ROM_SIZE 0xf000ull
#define SCRATCH_BASE 0x0ff00000ull /* not the guest's: see engine.c */
#define SCRATCH_SIZE 0x10000ull
#define RAM_BASE 0x80000000ull
#define DRIVES 4u
#define SLOTS 8u /* of virtio devices */

#define TIMEBASE_DIVISOR 100u /* steps per tick of mtime: 1 step = 1 ns, 10 MHz */

/* mstatus and mip/mie bits (privileged manual 3.1.6, 3.1.9). */
#define MSTATUS_SIE (1ull << 1)
#define MSTATUS_MIE (1ull << 3)
#define MSTATUS_SPIE (1ull << 5)
#define MSTATUS_MPIE (1ull << 7)
#define MSTATUS_SPP (1ull << 8)
#define MSTATUS_MPP (3ull << 11)
#define MSTATUS_FS (3ull << 13)
#define MSTATUS_MPRV (1ull << 17)
#define MSTATUS_SUM (1ull << 18)
#define MSTATUS_MXR (1ull << 19)
#define MSTATUS_TVM (1ull << 20)
#define MSTATUS_TW (1ull << 21)
#define MSTATUS_TSR (1ull << 22)
#define MIP_SSIP (1ull << 1)
#define MIP_MSIP (1ull << 3)
#define MIP_STIP (1ull << 5)
#define MIP_MTIP (1ull << 7)
#define MIP_SEIP (1ull << 9)
#define MIP_MEIP (1ull << 11)
#define MIP_SUPERVISOR (MIP_SSIP | MIP_STIP | MIP_SEIP)
#define MENVCFG_STCE (1ull << 63) /* supervisor timer compare: the Sstc extension */

/* So often a handler may fault at one place before the machine stops, if nothing can take the hart out of it. */
#define FAULTS_MAX (1u << 16)

enum privilege { PRIV_U = 0, PRIV_S = 1, PRIV_M = 3 };

/* Synchronous causes (privileged manual, table 3.6). */
enum cause {
    CAUSE_FETCH_MISALIGNED = 0,
    CAUSE_FETCH_ACCESS = 1,
    CAUSE_ILLEGAL = 2,
    CAUSE_BREAKPOINT = 3,
    CAUSE_LOAD_MISALIGNED = 4,
    CAUSE_LOAD_ACCESS = 5,
    CAUSE_STORE_MISALIGNED = 6,
    CAUSE_STORE_ACCESS = 7,
    CAUSE_ECALL_U = 8, /* and one more for each mode above */
    CAUSE_ECALL_S = 9,
    CAUSE_ECALL_M = 11,
    CAUSE_FETCH_PAGE = 12,
    CAUSE_LOAD_PAGE = 13,
    CAUSE_STORE_PAGE = 15
};

/* Page flags of door.c. A store may go straight to RAM if the flags are exactly PAGE_DIRTY. */
#define PAGE_DIRTY 0x01   /* stored to since the last vm_take_dirty */
#define PAGE_CODE 0x02    /* the engine may hold translations of it; the engine may not store to it */
#define PAGE_STALE 0x04   /* some of those translations are out of date: it is in `stale` */
#define PAGE_STEPPED 0x08 /* its code is run by the stepper only: it is stored to too often */
#define PAGE_DECODED 0x10 /* the stepper holds decoded instructions of it */
#define PAGE_WATCHED 0x20 /* every store is looked at: it holds tohost, or a range of points.c */
#define PAGE_MISSING 0x40 /* not here yet */
#define PAGE_READ_WATCHED 0x80 /* every load and store is looked at */
#define PAGE_TABLE 0x100 /* translations that somebody keeps were read from it: walk.c */
#define PAGE_HERE 0x200 /* a drive's block, and it is here: those are missing unless told otherwise */

/* A decoded instruction. `op` is an enum op, or one of the pseudo ops of stepper.c. */
typedef struct {
    uint16_t op;
    uint8_t rd, rs1, rs2, length;
    uint16_t extra; /* CSR number; or of floating-point arithmetic, FLOAT_* */
    int32_t imm; /* of floating-point arithmetic: bits of frm that must be 0 for rounding to nearest even, 8 if it is
                    not that; of a CSR instruction: where in vm_t its register is, if it is one without effects; then rs2 are
                    the bits of it that stay 0; or CSR_IS_SSTATUS */
    uint32_t word;
} insn_t;

#define CSR_IS_SSTATUS (-1)

/* One page of decoded instructions, an entry per halfword, and two sentinels that mean "page end". */
typedef struct {
    uint32_t version;          /* bumped when an entry is forgotten */
    uint32_t last_block[2048]; /* capture.c: id of the block last closed that began here */
    insn_t insn[2048 + 2];
} decoded_page;

/* What the block hook knows of a translated block. */
typedef struct {
    uint64_t pc;
    uint32_t size;
    uint32_t count; /* instructions, at most a few hundred; BLOCK_STOP if the block must not run in the engine */
} block_info;

/* A table holds the blocks of 64 pages, a slot per halfword: those of one page lie together. */
#define BLOCKS_PER_PAGE 2048u
#define BLOCK_SLOTS (64u * BLOCKS_PER_PAGE)
#define BLOCK_STOP (1u << 31)
#define BLOCK_TABLES 8
#define TRANSLATED 2 /* tables of blocks by virtual addresses: those from here on */

/* The engine's TLB has a part for each mode; supervisor mode has two, without and with mstatus.SUM. */
#define TLB_PARTS 4
#define TLB_SUPERVISOR 1
#define TLB_SUPERVISOR_SUM 2

typedef struct {
    uint8_t *data;
    size_t length, capacity;
} buffer_t;

/* How the engine came back. */
enum engine_stop { ENGINE_NONE, ENGINE_AT_BLOCK, ENGINE_TRAP };

/* Is a block's head rewritten, so that it counts without a call? See inline_x86.c. */
enum inlining { INLINE_OFF, INLINE_WANTED, INLINE_PROVED };

/* Blocks that can be: the low bits of their address and the count are to fit into 32 bits, the tag. */
#define INLINE_COUNT_BITS 5
#define INLINE_COUNT_MAX ((1u << INLINE_COUNT_BITS) - 1)
#define INLINE_PC_MASK ((1ull << (32 - INLINE_COUNT_BITS + 1)) - 1)

/* vm_run returns CAPTURE_FULL at these numbers of rows; the arrays are larger by what one stepper run can add. */
#define ROWS_BLOCKS (1u << 16)
#define ROWS_ACCESSES (1u << 17)
#define ROWS_SLACK (1u << 18)

typedef struct {
    uint32_t *ids;
    uint64_t *addresses, *values;
    size_t blocks, accesses, committed; /* committed: accesses that belong to closed blocks */
} rows_t;

typedef struct {
    uint64_t pc;
    uint32_t steps, length, trap;
    uint32_t version;   /* of the decoded page when the code was last compared */
    uint32_t code;      /* offset in code bytes */
    uint64_t hash;
} block_def;

typedef struct capture {
    int on, check, open;
    uint64_t open_page; /* RAM page of the open block's first byte, NEVER if ROM */
    uint64_t open_pc, open_position, first; /* first: position of the first row not yet taken */
    rows_t rows;
    block_def *defs;
    size_t def_count, def_capacity, def_sent;
    uint32_t *table; /* open addressing: id + 1 */
    size_t table_size;
    buffer_t code, out;
    /* check mode */
    const uint32_t *want_ids;
    const uint64_t *want_addresses, *want_values;
    size_t want_blocks, want_accesses, next_block, next_access;
    uint32_t want_steps, want_length; /* done of the next block, if the executed one ended before it did */
    check_result result;
    int diverged;
} capture_t;

typedef struct {
    break_point *breaks; /* by address, of which several may be the same */
    watch_range *ranges;
    uint64_t *dma_hits; /* of each range: the step in which a device last hit it */
    size_t break_count, range_count;
    uint32_t kinds;   /* POINT_TRAP, POINT_INTERRUPT */
    int load_watched; /* a range wants loads: the stepper may not do them by itself */
    point_log *log;
} points_t;

/* Translations kept, per kind of access: see walk.c. */
#define KEPT 256u
typedef struct {
    uint64_t tag;      /* virtual page << 2 | privilege mode */
    uint64_t physical; /* of the page's first byte */
    uint64_t view;     /* valid in this one */
    uint32_t may;      /* MAY_*: less, if D was not set then */
} kept_t;

enum access { ACCESS_LOAD, ACCESS_STORE, ACCESS_FETCH };

/* Where the engine was left soon: see engine_worth. */
#define SHORT_RUNS 1024u
#define SHORT_RUN 256u      /* steps */
#define SHORT_RUN_SKIP 31u  /* visits before it is tried again */
typedef struct {
    uint64_t pc;
    uint32_t skip;
} short_run;

/*
 * RAM that the stepper reaches by virtual address without asking: see walk.c. A *view* is what a translation depends
 * on besides tables; its key is the low bits of the tags that are valid in it.
 */
#define FAST 256u
#define FAST_KEYS (PAGE_SIZE - 1) /* 0 stands for none, and a tag of all ones is no page's */
#define VIEWS 64u
typedef struct {
    uint64_t tag;   /* address of the virtual page, and the key */
    uint64_t page;  /* of RAM */
    uint8_t *bytes; /* of that page */
} fast_t;
typedef struct {
    uint64_t satp, rest; /* rest: privilege mode of loads and stores, mstatus.SUM and MXR */
    uint64_t number;     /* no other view ever has it; 0: no such view */
    uint64_t key;
} view_t;

/* What the walk says of a page, as bits. */
#define MAY_LOAD 1u
#define MAY_STORE 2u
#define MAY_FETCH 4u

struct vm_internal {
    /* What is touched for every block, in one cache line. The engine's position is slice_end - left. */
    uint32_t left;      /* steps that may be done before something has to be decided */
    uint32_t tag;       /* the block being executed, if its head was rewritten; else 0, and it is `block` */
    void (*countdown_over)(struct vm_internal *in); /* what a rewritten head calls */
    block_info *block;
    block_info *blocks; /* the table in use: one of block_tables */
    uint64_t slice_end;
    uint64_t engine_target;
    vm_t *vm;
    int inlining;       /* enum inlining */

    void *uc;
    int uncounted;
    int engine_only;    /* VM_MODE_ENGINE: it runs what it can */
    uint8_t *ram, *rom, *scratch;
    uint16_t *page_flags;
    uint64_t pages, ram_fast_limit; /* pages of RAM; fast loads need offset < limit */
    uint64_t drive_page[DRIVES + 1]; /* the first page of each drive, and the end of all pages */
    uint32_t *dirty;
    size_t dirty_count;
    uint32_t *stale;        /* pages whose translations are to be dropped before the engine runs again */
    size_t stale_count;
    uint64_t missing;       /* number of missing pages */
    uint64_t *code_chunks;  /* per page: which 64-byte chunks hold translated code */
    uint32_t *write_epoch;  /* per page: TLB epoch in which the engine got write permission */
    uint64_t *code_slots;   /* per page: in which 64ths of the block tables blocks of it may be */
    uint8_t *code_stores;   /* per page: how often a store into code left the engine */
    uint16_t *patience;     /* per PAGE_STEPPED page: how often the engine is not given it yet */
    uint32_t tlb_epoch;
    int tlb_flush_needed;

    /* walk.c */
    int supervisor;         /* the hart has supervisor and user mode */
    int identity;           /* loads, stores and fetches reach the physical address that they name */
    uint64_t view;          /* the present one's number; 1 while addresses are physical */
    uint64_t last_view;     /* the number given last */
    int locked;             /* physical memory protection holds for machine mode too */
    uint32_t table_stores;  /* to tables, with nothing forgotten */
    kept_t kept[3][KEPT];
    fast_t fast[3][FAST];   /* per kind of access */
    uint64_t fast_key;      /* of the view in force; 0: ask for each access */
    uint64_t last_key;
    view_t views[VIEWS];
    short_run short_runs[SHORT_RUNS];
    uint32_t *tables;       /* pages that are PAGE_TABLE */
    size_t table_count;
    uint8_t straddle[2];    /* the upper half of the instruction last decoded across the end of a page */
    /* Per part of the TLB and 64th of the block tables: virtual and physical page last fetched from there. */
    uint64_t slot_pages[TLB_PARTS][64][2];

    decoded_page **decoded, *rom_decoded[ROM_SIZE / PAGE_SIZE];

    /* engine */
    void *context;
    size_t context_size;
    uint32_t word_bytes; /* XLEN / 8 */
    size_t at_gpr, at_fpr, at_pc, at_reservation, at_value, at_frm, at_priv, at_mstatus;
    /* With mstatus.FS off, on; then the same for the parts of the TLB below machine mode's. */
    block_info *block_tables[BLOCK_TABLES];
    uint32_t tlb_part;             /* in use, or used last */
    uint64_t tlb_views[TLB_PARTS]; /* which view each part is filled from; 0: it is empty */
    enum engine_stop stop;
    int refused_fetch, in_scratch, dropping;
    void *hook, *exit_check; /* addresses that a call of the block hook holds: see inline_x86.c */
    uint8_t *readable_from, *readable_to; /* translations that are known to be there */
    block_info across; /* the block that goes on in another page by virtual addresses: in no table */

    /* loop */
    uint64_t deadline;     /* position at which a timer line rises, NEVER if none */
    int polled;            /* so many accesses to the UART in a row polled LSR in vain, counted to 3 */
    int lingering;         /* the stepper left in the middle of its work: go on there, not in the engine */
    int recheck;           /* leave the stepper: lines, waiting or an exit changed */
    int exit;              /* exit reason + 1 wanted by the current step, 0 if none */
    uint64_t reasons;      /* things that only the stepper can do, done so far */
    uint64_t executing;    /* RAM page index of the code now being stepped, NEVER if ROM */
    uint64_t executing_rom; /* ROM page index then */
    uint8_t supplied[SUPPLY_MAX];
    uint32_t supplied_length;
    int has_supplied;
    virtio_work work;       /* what a store to a virtio device has asked for */
    uint32_t slots;         /* virtio slots up to the last that has a device */
    buffer_t outputs;
    capture_t capture;
    points_t points;
};

/* door.c */
int door_create(vm_t *vm);
void door_destroy(vm_t *vm);
void door_mark_dirty(vm_t *vm, uint64_t page);
/* What the engine knows of the code in a page does not hold any more, and is dropped before it runs again. */
void door_make_stale(vm_t *vm, uint64_t page);
/* A store of `length` bytes at RAM offset is about to change code that somebody may hold. */
void door_code_store(vm_t *vm, uint64_t offset, uint32_t length);
decoded_page *door_new_decoded(void); /* with nothing decoded in it */
decoded_page *door_decoded(vm_t *vm, uint64_t page);
void door_forget_decoded(vm_t *vm, uint64_t page);
/* RAM access that is not on the fast path. 0 done, 1 refused (not RAM), 2 exit wanted (missing page). */
int door_load(vm_t *vm, uint64_t address, uint32_t size, uint64_t *value);
int door_store_ready(vm_t *vm, uint64_t address, uint32_t size);
void door_store(vm_t *vm, uint64_t address, uint32_t size, uint64_t value);
void door_store_entry(vm_t *vm, uint64_t address, uint32_t size, uint64_t entry); /* of a page table: its A and D bits */
const uint8_t *door_fetch(vm_t *vm, uint64_t address); /* two bytes of code, or NULL */
int door_is_missing(const vm_t *vm, uint64_t page);
int door_is_stepped(vm_t *vm, uint64_t page);
/* A device stores bytes into RAM, where they are known to fit and every page is here. */
void door_store_many(vm_t *vm, uint64_t offset, const uint8_t *bytes, uint64_t length);

/* walk.c */
/*
 * The physical address of one byte. 0; the cause of a fault; or -1: exit wanted. Page tables' A and D bits follow the
 * access, so it must be one that is made.
 */
int walk_address(vm_t *vm, uint64_t address, enum access access, uint64_t *physical);
/* The same without any effect, for the engine. What else the page allows goes to *may. -1: only walk_address can. */
int walk_look(vm_t *vm, uint64_t address, enum access access, uint64_t *physical, uint32_t *may);
/*
 * One load or store by virtual address. 0 done; 2 exit wanted; 1 refused: a trap with *cause at *tval. A store is asked
 * for first, and its places are given then; 3: not RAM, for the bus to do at place[0].
 */
int walk_load(vm_t *vm, uint64_t address, uint32_t size, uint64_t *value, uint64_t *cause, uint64_t *tval);
int walk_store_ready(vm_t *vm, uint64_t address, uint32_t size, uint64_t place[2], uint64_t *cause, uint64_t *tval);
void walk_store(vm_t *vm, uint64_t address, uint32_t size, const uint64_t place[2], uint64_t value);
uint64_t walk_space(const vm_t *vm, enum access access); /* the satp that translates such accesses now; 0: none */
void walk_forget(vm_t *vm);       /* a page table, or physical memory protection, may have changed */
void walk_view_changed(vm_t *vm); /* mode, satp, mstatus, physical memory protection or watched ranges changed */
/* A store is about to change a page that is PAGE_TABLE. */
void walk_table_store(vm_t *vm, uint64_t offset, uint32_t length);
/* The RAM page of the code at `pc`, if it was walked to before; NEVER: ask walk_address, and tell of its answer. */
static inline uint64_t walk_code_page(const struct vm_internal *in, uint64_t pc)
{
    const fast_t *fast = &in->fast[ACCESS_FETCH][(pc >> PAGE_SHIFT) % FAST];
    return fast->tag == ((pc & ~(uint64_t)(PAGE_SIZE - 1)) | in->fast_key) ? fast->page : NEVER;
}
void walk_remember(vm_t *vm, uint64_t address, uint64_t physical, enum access access);
void walk_forget_fast(vm_t *vm);  /* a page of RAM is no more to be reached without asking */

/* pmp.c */
uint32_t pmp_rights(const vm_t *vm, uint64_t physical, uint64_t mode); /* MAY_* */
void pmp_changed(vm_t *vm);
int pmp_read(const vm_t *vm, uint32_t number, uint64_t *value);
void pmp_write(vm_t *vm, uint32_t number, uint64_t value);

/* bus.c */
int bus_load(vm_t *vm, uint64_t address, uint32_t size, uint64_t *value);  /* 0, 1 refused, 2 exit wanted */
int bus_store(vm_t *vm, uint64_t address, uint32_t size, uint64_t value);
/* After a store that left work (in->work.pending): does it. Nothing can stand in its way any more. */
void bus_do_work(vm_t *vm);
uint32_t bus_push_input(vm_t *vm, const uint8_t *data, uint32_t length);
uint32_t bus_input_room(vm_t *vm, uint64_t *missing_page);
void bus_update_lines(vm_t *vm);
void bus_reset(vm_t *vm);

/* trap.c */
void trap_enter(vm_t *vm, uint64_t cause, uint64_t tval); /* counts the step; pc must be the faulting one */
int interrupt_enter(vm_t *vm);                            /* 1 if one was taken */
void trap_return(vm_t *vm);
void trap_return_supervisor(vm_t *vm);
void machine_stop(vm_t *vm, enum vm_stop reason, uint64_t code, uint64_t position);

/* sbi.c: `ecall` from supervisor mode where the VMM is the firmware */
#define SBI_MEDELEG 0xb1ffull /* every cause but that call itself */
int sbi_ready(vm_t *vm);
void sbi_call(vm_t *vm);

/* What supervisor mode sees of mstatus, without the bits that are the same for ever or follow from FS. */
#define SSTATUS_BITS (MSTATUS_SIE | MSTATUS_SPIE | MSTATUS_SPP | MSTATUS_FS | MSTATUS_SUM | MSTATUS_MXR)
#define SSTATUS_UXL (2ull << 32)
/* Those: UXL, and SD, which says that FS is dirty. */
static inline uint64_t csr_status_fixed(const vm_t *vm)
{
    uint64_t dirty = (vm->hart.mstatus & MSTATUS_FS) == MSTATUS_FS ? 1ull << (vm->xlen - 1) : 0;
    return dirty | (vm->xlen == 64 ? SSTATUS_UXL : 0);
}

/* csr.c */
int csr_read(vm_t *vm, uint32_t number, uint64_t *value); /* 0 done, -1 there is no such register */
void csr_write(vm_t *vm, uint32_t number, uint64_t value); /* of a register that csr_read knows */
int csr_supervisor_read(vm_t *vm, uint32_t number, uint64_t *value);
void csr_supervisor_write(vm_t *vm, uint32_t number, uint64_t value);
void csr_supervisor_write_mip(vm_t *vm, uint64_t value);
void csr_write_stimecmp(vm_t *vm, uint64_t value);
int csr_forbidden(const vm_t *vm, uint32_t number); /* to the hart's privilege mode */
uint64_t csr_modified(const vm_t *vm, uint32_t number, uint64_t read); /* what csrrs and csrrc change, given what was read */
uint64_t csr_misa(const vm_t *vm);

/* decode.c */
void decode(const vm_t *vm, uint32_t word, insn_t *insn);
int decode_needs_stepper(const insn_t *insn);
int decode_is_float_arithmetic(const insn_t *insn);
int decode_uses_float(const insn_t *insn);
int decode_is_quick_float(const insn_t *insn);

/* float.c */
#define FLOAT_SHARED 1 /* insn_t.extra of floating-point arithmetic: the engine does it too */
#define FLOAT_OWN 2    /* in revision 2: the stepper alone */
int float_is_own(const insn_t *insn); /* an instruction that the engine may not run in revision 2 */
/* Floating-point arithmetic. 0 done, -1 the instruction is illegal, 1 it is the engine's (in revision 1). */
int float_execute(vm_t *vm, uint32_t word);

/* stepper.c */
/* Pseudo operations, behind those of isa_table.h: a word outside the profile, the end of a decoded page, a HINT. */
#define OPX_ILLEGAL (OP_COUNT + 0)
#define OPX_PAGE_END (OP_COUNT + 1)
#define OPX_NOP (OP_COUNT + 2)
#define OPX_COUNT (OP_COUNT + 3)
#define OP_POINT 256u /* set in insn_t.op: points.c is asked before the instruction */
#define OP_SHORT 512u /* of two bytes, and one that is often so */
void stepper_run(vm_t *vm, uint64_t limit, int linger);

/* engine.c */
const char *engine_create(vm_t *vm, void *uc);
void engine_destroy(vm_t *vm);
void engine_run(vm_t *vm, uint64_t target);
int engine_takes(vm_t *vm, uint64_t pc); /* may it run the code there? */
int engine_worth(vm_t *vm, uint64_t pc); /* is it likely to get far? */
int engine_float(vm_t *vm, uint32_t word); /* of machine revision 1; 0 done, -1 the instruction is illegal */
void engine_flush_tlb(vm_t *vm);
void engine_give_up_page(vm_t *vm, uint64_t page);
void engine_forget_blocks(vm_t *vm, uint64_t page); /* of a RAM page */
void engine_forget_blocks_at(vm_t *vm, uint64_t pc);

/* inline_x86.c */
void inline_count(struct vm_internal *in, void *back, uint64_t pc, uint32_t size, uint32_t count);
static inline uint32_t inline_tag(uint64_t pc, uint32_t count)
{
    return (uint32_t)(pc >> 1) << INLINE_COUNT_BITS | count;
}
/* The address of the block that `inside` lies in. */
static inline uint64_t inline_pc(uint32_t tag, uint64_t inside)
{
    uint64_t low = (uint64_t)(tag >> INLINE_COUNT_BITS) << 1;
    return inside - ((inside - low) & INLINE_PC_MASK);
}

/* loop.c */
void loop_update_deadline(vm_t *vm);
void loop_update_lines(vm_t *vm);

/* capture.c: called by the stepper */
void capture_access(vm_t *vm, uint64_t address, uint64_t value, uint64_t position, uint64_t pc);
void capture_close(vm_t *vm, uint64_t end_pc, uint64_t position, uint32_t trap);
void capture_destroy(vm_t *vm);

/* points.c */
int points_inside(const vm_t *vm, uint64_t pc, uint64_t end);            /* is there an instruction in [pc, end)? */
int points_near(const vm_t *vm, uint64_t pc); /* may `pc`, or another address of the same code, be one? */
int points_instruction(vm_t *vm, uint64_t pc, uint64_t position);        /* 1: leave before it */
void points_access(vm_t *vm, uint64_t pc, uint64_t address, uint32_t size, uint64_t value, int write); /* before it */
/* The same of a store into RAM, of at most 8 bytes, by somebody else than the instruction at `pc`, but in its step. */
void points_stored(vm_t *vm, uint64_t pc, uint64_t physical, uint32_t size, uint64_t value);
uint16_t points_page(const vm_t *vm, uint64_t address); /* PAGE_WATCHED, PAGE_READ_WATCHED for a virtual page */
void points_trap(vm_t *vm, uint32_t kind, uint64_t pc, uint64_t position, uint64_t cause);
void points_privilege(vm_t *vm, uint32_t kind, uint64_t pc, uint64_t position, uint64_t before); /* when it has changed */
int points_full(const vm_t *vm); /* is there no room for more hits? */
void points_dma(vm_t *vm, uint64_t physical, const uint8_t *bytes, uint64_t length); /* a device's store, before it */
void points_destroy(vm_t *vm);

/* registers.c */
void registers_inflow(vm_t *vm, uint64_t value);

/* msgpack.c */
void mp_uint(buffer_t *out, uint64_t value);
void mp_bin(buffer_t *out, const void *data, size_t length);
void mp_str(buffer_t *out, const char *text);
void mp_array(buffer_t *out, uint32_t count);
void mp_map(buffer_t *out, uint32_t count);
uint8_t *buffer_room(buffer_t *out, size_t length);

#endif
