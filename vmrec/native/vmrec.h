/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The whole public face of the native core: the machine's state records, and the calls that run it.
 *
 * Everything between the two marker lines is also the cffi declaration (build.py reads it from here), so it holds
 * plain C declarations only. Every field of a `*_state` record is part of the guest-visible or time-keeping state of
 * the machine: Python saves, restores and digests them by walking the fields, so a field cannot be forgotten, and a
 * field that is not state must not be added to them.
 *
 *     Python (vmrec.machine)
 *        │  vm_run(until)                      ▲  an exit, at an exact position, with a reason
 *        ▼                                     │
 *     loop.c     enter, run until an exit, handle it, enter again; interrupts, deadlines, waiting
 *        ├── engine.c   Unicorn: fast, plain instructions only; the block hook counts
 *        │      └── inline_x86.c  counting without a call, where the host allows it
 *        └── stepper.c  a pre-decoding interpreter: everything that needs a close look
 *               │
 *            door.c     the one door to RAM: page rights, dirty pages, missing pages, code pages
 *            bus.c      physical addresses outside RAM: boot ROM and devices (vmrec/devices/)
 *            dma.c      RAM and drives, for devices
 *            walk.c     virtual addresses: page tables, and what physical memory protection allows
 *            float.c    floating point by the manual, where the engine departs from it
 *            csr.c      control and status registers · trap.c traps and interrupts
 *            sbi.c      calls of a supervisor that runs without firmware
 *            capture.c  rows of full capture: blocks and accesses, written or checked
 *            registers.c  which step changed which register, and what the hart was told from outside
 *            points.c   instructions, accesses and traps that a run is to stop at, or to note
 */
#ifndef VMREC_H
#define VMREC_H

#include <stddef.h>
#include <stdint.h>

/* cdef begin */

/* The hart: architectural registers. RV32 registers are kept zero-extended to 64 bits. */
typedef struct {
    uint64_t x[32];          /* x[0] is always 0 */
    uint64_t f[32];          /* raw, NaN-boxed; all 0 without the F extension */
    uint64_t pc;
    uint64_t reservation;    /* address reserved by lr, all ones when there is none */
    uint64_t reserved_value; /* the value lr read; 0 when there is no reservation */
    uint64_t fflags;
    uint64_t frm;
    uint64_t priv;           /* 3 machine mode, the only one in machine revision 1; 1 supervisor, 0 user */
    uint64_t mstatus;
    uint64_t mie;
    uint64_t mip;
    uint64_t mtvec;
    uint64_t mscratch;
    uint64_t mepc;
    uint64_t mcause;
    uint64_t mtval;
    uint64_t mcycle_offset;  /* what a guest write added to the counter, modulo 2^64 */
    uint64_t minstret_offset;
} hart_state;

/* What a hart has more if it has supervisor and user mode (machine revision 2). All zero, and no state, without. */
typedef struct {
    uint64_t medeleg;
    uint64_t mideleg;
    uint64_t mcounteren;
    uint64_t menvcfg;
    uint64_t soft_mip;       /* bits of mip that software has set: SSIP, STIP, SEIP */
    uint64_t stvec;
    uint64_t scounteren;
    uint64_t senvcfg;
    uint64_t sscratch;
    uint64_t sepc;
    uint64_t scause;
    uint64_t stval;
    uint64_t satp;
    uint64_t stimecmp;
    uint64_t fault_pc;       /* where a handler faulted last, and how often in a row: trap.c */
    uint64_t faults;
    uint64_t pmpaddr[16];
    uint8_t pmpcfg[16];
    uint32_t plic_enable[3]; /* of the PLIC's second context, the supervisor's */
    uint32_t plic_threshold;
} supervisor_state;

/* The machine's only clock, and what a run ended with. */
typedef struct {
    uint64_t position;      /* steps since reset */
    uint64_t traps;         /* synchronous traps among them */
    uint64_t idle;          /* steps' worth of time spent waiting in wfi */
    uint64_t ticks;         /* stepped time rule: mtime before the CLINT's offset */
    uint64_t waiting;       /* 1: in wfi, nothing pending */
    uint64_t woke_position; /* position at which a wait was last ended by a deadline, all ones if never */
    uint64_t stopped;       /* enum vm_stop */
    uint64_t exit_code;
} time_state;

typedef struct {
    uint64_t msip;
    uint64_t mtimecmp;
    uint64_t mtime_offset;
} clint_state;

typedef struct {
    uint32_t priority[96];
    uint32_t level[3];
    uint32_t pending[3];
    uint32_t claimed[3];
    uint32_t enable[3];
    uint32_t threshold;
} plic_state;

typedef struct {
    uint8_t fifo[16];
    uint8_t fifo_length;
    uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
    uint8_t overrun;
    uint8_t thre_pending;
} uart_state;

typedef struct {
    uint64_t time_offset; /* ns, added by guest writes to TIME */
    uint64_t alarm;       /* ns */
    uint32_t alarm_armed;
    uint32_t irq_enabled;
    uint32_t irq_pending;
    uint32_t time_high;   /* latched by a read of TIME_LOW */
} rtc_state;

typedef struct {
    uint64_t reads; /* how often the guest pulled */
} entropy_state;

/*
 * One virtio device of machine revision 2: virtio_mmio.c. State only in slots that have a device. Queue addresses are
 * the guest's, and may be nonsense.
 */
typedef struct {
    uint32_t status;
    uint32_t interrupt_status;
    uint32_t device_features_sel;
    uint32_t driver_features_sel;
    uint64_t driver_features;
    uint32_t queue_sel;
    uint32_t guest_page_size; /* legacy layout only */
    uint32_t queue_num[2];    /* entries; 0 until the driver says how many */
    uint32_t queue_align[2];  /* legacy layout only */
    uint32_t queue_ready[2];
    uint64_t queue_desc[2];   /* descriptor table */
    uint64_t queue_driver[2]; /* available ring */
    uint64_t queue_device[2]; /* used ring */
    uint16_t queue_seen[2];   /* available entries taken so far, modulo 2^16 */
    uint16_t queue_used[2];   /* used entries given so far, modulo 2^16 */
} virtio_state;

enum virtio_kind { VIRTIO_NONE = 0, VIRTIO_BLOCK = 2, VIRTIO_CONSOLE = 3, VIRTIO_RNG = 4 };

enum vm_exit {
    VM_EXIT_POSITION,
    VM_EXIT_WAITING,
    VM_EXIT_STOPPED,
    VM_EXIT_ATTENTION,
    VM_EXIT_PULL,
    VM_EXIT_RX_WANTED,
    VM_EXIT_OUTPUT_FULL,
    VM_EXIT_CAPTURE_FULL,
    VM_EXIT_DEADLINE,
    VM_EXIT_MISSING_PAGE,
    VM_EXIT_DIVERGED,
    VM_EXIT_POINT,
    VM_EXIT_ERROR
};

enum vm_stop { VM_RUNNING, VM_STOP_POWEROFF, VM_STOP_RESET, VM_STOP_WAITING, VM_STOP_TRAP_LOOP };

enum vm_mode { VM_MODE_AUTO, VM_MODE_ENGINE, VM_MODE_STEPPER };

struct vm_internal;

typedef struct vm {
    /* state: saved, restored, digested */
    hart_state hart;
    time_state time;
    clint_state clint;
    plic_state plic;
    uart_state uart;
    rtc_state rtc;
    entropy_state entropy;
    supervisor_state supervisor; /* state only with EXT_S */
    virtio_state virtio[8];      /* state only with EXT_S, of slots that have a device */

    /* fixed at creation: the machine's configuration */
    uint32_t xlen;          /* 32 or 64 */
    uint32_t extensions;    /* EXT_* bits of the profile */
    uint64_t ram_size;      /* bytes, a multiple of 4096; RAM starts at 0x80000000 */
    uint32_t stepped_time;  /* time rule: 0 virtual, 1 stepped */
    uint64_t rtc_base;      /* ns since 1970 at mtime 0 */
    uint64_t tohost;        /* address of the tohost symbol, 0 if none */
    uint32_t sbi;           /* 1: the VMM is the firmware, and answers calls of supervisor mode: sbi.c */
    uint64_t drive_size[4]; /* bytes, multiples of 512; 0: no such drive. Drive n is in slot n */
    uint32_t virtio_kind[8]; /* enum virtio_kind, of each slot */
    uint32_t virtio_legacy; /* 1: the register layout of virtio 0.9.5 */

    /* the live side's wishes: they decide when vm_run returns, never what the guest sees */
    volatile uint32_t attention; /* set by vm_set_attention; vm_run clears it and returns */
    uint32_t auto_idle;          /* wfi: jump to the next deadline without asking */
    uint32_t rx_paced;           /* return RX_WANTED when the guest waits for a console byte */
    uint32_t watch_deadline;     /* return DEADLINE when the guest writes mtimecmp */

    /* details of the last exit */
    uint64_t exit_detail;        /* PULL: bytes wanted; MISSING_PAGE: page index; ERROR: code */
    uint64_t pulled_position;    /* where the next step was last given what it pulled; all ones if never */
    const char *error;           /* ERROR: a sentence */

    /* what happened, for reports: never state */
    uint64_t engine_entries;
    uint64_t engine_steps;
    uint64_t stepper_steps;
    uint64_t interrupts;
    uint64_t mmio_accesses;
    uint64_t code_drops;
    uint64_t tlb_flushes;
    uint64_t inlined_blocks; /* translations that count without a call: inline_x86.c */
    uint64_t dropped_checks; /* behind loads and stores in them */
    uint64_t last_interrupt; /* number of the interrupt that was entered last */
    uint64_t entered_position; /* and where; all ones if never since the state was set */
    uint64_t last_cause;     /* of the synchronous trap that was taken last */
    uint64_t inflow; /* hash of all that reached the hart from outside it and RAM: registers.c */

    struct vm_internal *in;
} vm_t;

/* Entry points of the unicorn library, as addresses. The extension links nothing; Python fills this once. */
typedef struct {
    void *emu_start, *emu_stop, *hook_add, *ctl, *context_alloc, *context_save, *context_restore, *context_free;
    void *context_size, *reg_read, *reg_write, *mem_map_ptr;
    /* What translations call, per XLEN. NULL if the library does not tell: blocks are then counted by calls. */
    void *exit_check_32, *exit_check_64;
} engine_api;

/* The hash of the sources that this was built from: see sources.py. */
const char *vm_sources(void);

void vm_set_api(const engine_api *api);

/*
 * `uc` is an open engine that belongs to the caller and outlives the machine. `drives`: sizes of four drives, 0 for
 * none; NULL: no drives. NULL (and *error set) on failure.
 */
vm_t *vm_create(void *uc, uint32_t xlen, uint32_t extensions, uint64_t ram_size, const uint64_t *drives,
                const char **error);
void vm_destroy(vm_t *vm);
/* Before the first run: the devices in the eight virtio slots (enum virtio_kind), and their layout of registers. */
void vm_set_virtio(vm_t *vm, const uint32_t *kinds, int legacy);
/* Before the first run: count every block by a call. The results are the same. */
void vm_count_by_calls(vm_t *vm);
void vm_reset(vm_t *vm, uint64_t entry);
/* Behind vm_reset: the hart starts in supervisor mode instead, with the VMM as its firmware. See sbi.c. */
void vm_start_supervisor(vm_t *vm, uint64_t entry, uint64_t tree);
/* To be called after state was written from outside: lines, deadlines and caches follow it. */
void vm_state_changed(vm_t *vm);

/* Runs until `position == until` or an exit; returns enum vm_exit. `mode`: enum vm_mode. */
int vm_run(vm_t *vm, uint64_t until, int mode);
/* Ends a wait and enters an interrupt, as the next step would first; then returns POSITION, or what stands in the way. */
int vm_settle(vm_t *vm);

void vm_set_attention(vm_t *vm);

/* Events, at the current position. */
int vm_push_input(vm_t *vm, const uint8_t *data, uint32_t length); /* bytes taken: what fits the FIFO */
void vm_push_clock(vm_t *vm, uint64_t ticks);
void vm_push_idle(vm_t *vm, uint64_t steps);
void vm_supply(vm_t *vm, const uint8_t *data, uint32_t length);     /* the answer to PULL, at most 65536 bytes */
/*
 * Bytes that the console's receiver can take: the UART's, or a virtio console's once it has a driver. *missing_page: a
 * page of RAM that must be here to know that, and for vm_push_input; all ones if none.
 */
uint32_t vm_input_room(vm_t *vm, uint64_t *missing_page);
uint64_t vm_mtime(const vm_t *vm);
/* Steps until the next timer deadline that could end a wait; all ones if there is none. */
uint64_t vm_deadline_steps(const vm_t *vm);
int vm_idle_to_deadline(vm_t *vm);

/* Outputs: msgpack objects since the last take. */
const uint8_t *vm_outputs(vm_t *vm, size_t *length);
void vm_clear_outputs(vm_t *vm);

/*
 * The door to RAM, for the host. Pages are counted from the start of RAM; behind those of RAM come the blocks of drive
 * 0, then of drive 1, … which no guest address reaches. A block is missing until it is set or all of it written.
 */
uint8_t *vm_ram(vm_t *vm);
uint64_t vm_pages(const vm_t *vm);                /* of RAM and drives */
uint64_t vm_drive_page(const vm_t *vm, uint32_t drive); /* the first page of a drive, 0 to 4: the last is the end */
uint8_t *vm_rom(vm_t *vm, size_t *length);
void vm_host_wrote(vm_t *vm, uint64_t page);      /* the host wrote this page: dirty, and its code forgotten */
size_t vm_dirty_count(const vm_t *vm);
void vm_take_dirty(vm_t *vm, uint32_t *pages);    /* room for vm_dirty_count; the pages become clean */
void vm_watch(vm_t *vm, uint64_t address);        /* every store to the RAM page of `address` is looked at */
void vm_set_missing(vm_t *vm, uint64_t page, int missing);
int vm_is_missing(const vm_t *vm, uint64_t page);
void vm_host_replaced(vm_t *vm, uint64_t page);   /* as vm_host_wrote, but the page is clean now */

/*
 * Where a virtual address leads: `access` 0 load, 1 store, 2 fetch; `mode` the privilege mode, or -1 for the hart's
 * own (with mstatus.MPRV for loads and stores). Changes nothing, not even a page table's A and D bits.
 * 0, or the cause of the fault that the access would take.
 */
int vm_translate(vm_t *vm, uint64_t address, int access, int mode, uint64_t *physical);

/* CSR file, as the hart would read it now. 0, or -1 if there is no such CSR. */
int vm_csr_read(vm_t *vm, uint32_t number, uint64_t *value);

/* One device or ROM access as the guest would make it; for tests. 0, or -1 if the bus refuses it. */
int vm_bus_access(vm_t *vm, uint64_t address, uint32_t size, int write, uint64_t *value);

/* Full capture. Rows are whole blocks; `close` also ends the open block (grid positions and the end). */
void vm_capture_start(vm_t *vm);
void vm_capture_stop(vm_t *vm);
void vm_capture_end_block(vm_t *vm);              /* before an edit from outside: ends the open block here */
/* A msgpack map of the committed columns covering [*first, *last), or NULL if there is none. */
const uint8_t *vm_capture_take(vm_t *vm, int close, int reset_dictionary, size_t *length, uint64_t *first,
                               uint64_t *last);
/* Check mode: the next run's rows are compared with these, which must stay until vm_check_end. Definitions are given
 * one by one. */
int vm_check_define(vm_t *vm, uint32_t id, uint64_t pc, uint32_t steps, uint32_t trap, const uint8_t *code,
                    uint32_t length);
void vm_check_forget(vm_t *vm);
int vm_check_begin(vm_t *vm, const uint32_t *ids, size_t blocks, const uint64_t *addresses, const uint64_t *values,
                   size_t accesses);
/* Ends the open block; 1 if everything agreed and all expected rows were met, else 0 (see vm_check_result). */
int vm_check_end(vm_t *vm);
typedef struct {
    uint64_t position;
    uint32_t what;           /* 1 path (pc or instruction), 2 access address, 3 access value, 4 trap, 5 length */
    uint64_t pc, expected, actual;
} check_result;
void vm_check_result(const vm_t *vm, check_result *result);

/* The register log: see registers.c. `last` and `changes` may be NULL. */
typedef struct {
    uint64_t position, word, value;
} register_change;
typedef struct {
    hart_state seen;          /* the hart when the log was begun, or after the last step */
    supervisor_state supervisor;
    uint64_t *last;           /* per word of hart_state, then of supervisor_state: the last step that changed it */
    register_change *changes; /* what steps changed, in order; a step adds at most LOG_STEP_ROOM */
    size_t count, room;
} register_log;
/* As vm_run with the stepper, and each step is logged. Returns CAPTURE_FULL while there is no room for a step. */
int vm_run_logged(vm_t *vm, uint64_t until, register_log *log);

/* Points: see points.c. */
enum point_kind {
    POINT_BREAK = 1,      /* an instruction about to be executed */
    POINT_READ = 2,
    POINT_WRITE = 4,
    POINT_CHANGE = 8,     /* of a range: only stores that change a byte of it */
    POINT_TRAP = 16,
    POINT_INTERRUPT = 32,
    POINT_DEVICE = 64,    /* of a hit: not RAM, so `before` says nothing */
    POINT_PRIVILEGE = 128, /* a trap or a return that changes the privilege mode */
    POINT_ENTRY = 256,    /* of a hit: the entry into an interrupt changed it, before the step */
    POINT_PHYSICAL = 512  /* of a range: its addresses are physical, whatever names them */
};
typedef struct {
    uint64_t address, size; /* size 1 to 2^32 */
    uint32_t kinds;
    uint64_t space; /* only accesses that this satp translates; 0: any */
} watch_range;
typedef struct {
    uint64_t address;
    uint64_t reg, value; /* only where this x register has this value; reg 0: always */
} break_point;
typedef struct {
    uint64_t position, kind, pc;
    uint64_t address, size, value, before; /* value: of an access, zero-extended; or mcause */
    uint64_t space;            /* of an instruction or access: the satp that translates it; 0: none does */
    uint64_t physical, beyond; /* of an access: of its first byte, and of the first in the next page */
} point_hit;
typedef struct {
    point_hit *hits;
    uint64_t count, room, capacity; /* capacity: of `hits`; what a step adds beyond it is lost */
    uint64_t keep_last; /* the last `room` hits, at index count % room; else the run returns POINT at `room` */
    uint64_t from;      /* no instruction or interrupt before this position is a hit */
} point_log;
/* What the runs from now on look for; replaces what was set before. `breaks` by address. -1: out of memory. */
int vm_points_set(vm_t *vm, const break_point *breaks, size_t break_count, const watch_range *ranges, size_t range_count,
                  uint32_t kinds, point_log *log);

/* Columns of numbers, `width` 4 or 8 bytes each, to and from their form on disk (see capture.c). */
size_t column_encode(const uint8_t *in, uint8_t *out, size_t count, uint32_t width, int delta);
int column_decode(const uint8_t *in, size_t length, uint8_t *out, size_t count, uint32_t width, int delta);

/* Decoder, for tests: the op number or 0; its name. */
uint32_t isa_decode(uint32_t word, uint32_t xlen, uint32_t extensions);
const char *isa_op_name(uint32_t op);
uint32_t isa_extension_bit(const char *name);

/* Bench only: the engine with the owned MMU and no counting; positions are meaningless afterwards. */
vm_t *vm_create_uncounted(void *uc, uint32_t xlen, uint32_t extensions, uint64_t ram_size, const uint64_t *drives,
                          const char **error);

/* msgpack writer, for tests. Returns the bytes written into out (at most 9 + length). */
size_t mp_test_uint(uint8_t *out, uint64_t value);
size_t mp_test_bin(uint8_t *out, const uint8_t *data, size_t length);
size_t mp_test_str(uint8_t *out, const char *text);
size_t mp_test_array(uint8_t *out, uint32_t count);
size_t mp_test_map(uint8_t *out, uint32_t count);

/* cdef end */

#endif
