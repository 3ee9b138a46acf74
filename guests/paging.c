/* SPDX-License-Identifier: GPL-2.0-or-later */
/* paging: Sv39 or Sv32, privilege, protection and delegation: each access with the exact cause, epc and tval it must have. */
#include "runtime/uart.h"

typedef uintptr_t entry_t;

#define PAGE 4096u
#define ENTRIES (PAGE / sizeof(entry_t))
#if __riscv_xlen == 64
#define INDEX_BITS 9
#define SATP_MODE ((uintptr_t)8 << 60)
#define NO_SUCH_MODE ((uintptr_t)11 << 60)
#else
#define INDEX_BITS 10
#define SATP_MODE ((uintptr_t)1 << 31)
#endif
#define ASID_SHIFT (__riscv_xlen == 64 ? 44 : 22)
#define LARGE ((uintptr_t)PAGE << INDEX_BITS) /* what one entry above the last level spans */

enum { V = 1, R = 2, W = 4, X = 8, U = 16, A = 64, D = 128 };
enum { USER = 0, SUPERVISOR = 1 << 11 };
enum { FETCH_ACCESS = 1, ILLEGAL = 2, BREAKPOINT = 3, LOAD_ACCESS = 5, STORE_ACCESS = 7, USER_CALL = 8, FETCH_PAGE = 12,
       LOAD_PAGE = 13, STORE_PAGE = 15 };
#define SPP (1u << 8)
#define SUM (1u << 18)
#define MXR (1u << 19)
#define TVM (1u << 20)
#define TW (1u << 21)
#define TSR (1u << 22)

/* paging-probes.S */
uintptr_t run_at(uintptr_t mode, uintptr_t pc, uintptr_t first, uintptr_t second);
uint32_t load_as(uintptr_t mode, uintptr_t address);
extern char probe_pages[], handler[];
extern char probe_load[], probe_store[], probe_jump[], probe_ecall[], probe_sret[], probe_wfi[], probe_sfence[];
extern char probe_satp[], probe_machine_csr[], probe_gate[], probe_straddle[];
struct {
    uintptr_t cause, epc, tval, status, value, scause, sepc, stval, sstatus;
} seen;

/*
 *     BASE + 0, 1    the probes, for supervisor mode      BASE + 8       readable, accessed never
 *     BASE + 2       data, supervisor mode's              BASE + 9, 10   data, and a page that is not there
 *     BASE + 3       data, user mode's                    BASE + 11, 12  two pages of data that lie the other way round
 *     BASE + 4       the same, read only                  BASE + 16, 17  the probes, for user mode
 *     BASE + 5       the probes, execute only             BASE + 20, 21  the first page of them, and nothing
 *     BASE + 6       an entry of no kind (W without R)
 *     LARGE_BASE     the start of RAM in one large page   BAD_LARGE      the same, not aligned
 */
#define BASE ((uintptr_t)0x40000000)
#define AT(page) (BASE + (page) * (uintptr_t)PAGE)
#define LARGE_BASE (BASE + LARGE)
#define BAD_LARGE (BASE + 2 * LARGE)
#define RAM ((uintptr_t)0x80000000)

static entry_t root[ENTRIES] __attribute__((aligned(4096))), other_root[ENTRIES] __attribute__((aligned(4096)));
static entry_t middle[ENTRIES] __attribute__((aligned(4096))), last[ENTRIES] __attribute__((aligned(4096)));
static entry_t other_middle[ENTRIES] __attribute__((aligned(4096)));
static entry_t other_last[ENTRIES] __attribute__((aligned(4096)));
static uint32_t data[4][PAGE / 4] __attribute__((aligned(4096)));
static int failures;

static void fence(void)
{
    __asm__ volatile("sfence.vma" : : : "memory");
}

static entry_t entry(const void *page, uintptr_t flags)
{
    return (uintptr_t)page >> 12 << 10 | flags;
}

static uintptr_t satp_of(const entry_t *table, uintptr_t asid)
{
    return SATP_MODE | asid << ASID_SHIFT | (uintptr_t)table >> 12;
}

/* The tables above the last level; `large` is where entries of LARGE_BASE and BAD_LARGE belong. */
static void build(entry_t *top, entry_t *between, entry_t *bottom)
{
    entry_t *large = __riscv_xlen == 64 ? between : &top[BASE >> (12 + INDEX_BITS)];
    large[0] = entry(bottom, V);
    large[1] = entry((void *)RAM, V | R | W | A | D);
    large[2] = entry((void *)(RAM + PAGE), V | R | W | A | D);
    if (__riscv_xlen == 64)
        top[BASE >> 30] = entry(between, V);
}

static void build_all(void)
{
    build(root, middle, last);
    build(other_root, other_middle, other_last);
    for (int page = 0; page < 2; page++) {
        char *code = probe_pages + page * PAGE;
        last[page] = other_last[page] = entry(code, V | R | X | A | D);
        last[16 + page] = entry(code, V | R | X | U | A | D);
    }
    last[2] = entry(data[0], V | R | W | A | D);
    last[3] = entry(data[1], V | R | W | U | A | D);
    other_last[3] = entry(data[2], V | R | W | U | A | D);
    last[4] = entry(data[1], V | R | U | A | D);
    last[5] = entry(probe_pages, V | X | U | A | D);
    last[6] = entry(data[1], V | W | U | A | D);
    last[8] = entry(data[3], V | R | W | U);
    last[9] = entry(data[0], V | R | W | U | A | D);
    last[11] = entry(data[3], V | R | W | U | A | D);
    last[12] = entry(data[2], V | R | W | U | A | D);
    last[20] = entry(probe_pages, V | R | X | A | D);
}

static uintptr_t mapped(const char *probe, uintptr_t page)
{
    return AT(page) + (uintptr_t)(probe - probe_pages);
}

static void verdict(int good)
{
    put_text(good ? ": ok\n" : ": WRONG\n");
    failures += !good;
}

static void put_trap(const char *name)
{
    put_text(name);
    put_text(": cause ");
    put_unsigned((uint32_t)seen.cause);
    put_text(" epc ");
    put_hex(seen.epc);
    put_text(" tval ");
    put_hex(seen.tval);
}

/* A probe that traps as it is said. */
static void traps(const char *name, uintptr_t mode, uintptr_t pc, uintptr_t argument, uintptr_t cause, uintptr_t epc,
                  uintptr_t tval)
{
    run_at(mode, pc, argument, 0);
    put_trap(name);
    verdict(seen.cause == cause && seen.epc == epc && seen.tval == tval && (seen.status & MSTATUS_MPP) == mode);
}

/* A probe that gets to its end, with this value in a0. */
static void works(const char *name, uintptr_t mode, uintptr_t pc, uintptr_t argument, uintptr_t stored, uintptr_t value)
{
    run_at(mode, pc, argument, stored);
    put_text(name);
    put_text(": ");
    put_hex(seen.value);
    verdict(seen.cause == BREAKPOINT && seen.epc == pc + 4 && seen.value == value);
}

static void pages(void)
{
    const uintptr_t load = mapped(probe_load, 16), store = mapped(probe_store, 16);
    const uintptr_t s_load = mapped(probe_load, 0), s_store = mapped(probe_store, 0), s_jump = mapped(probe_jump, 0);
    works("user loads its data", USER, load, AT(3) + 8, 0, 0x1102);
    works("user stores", USER, store, AT(3) + 12, 77, AT(3) + 12);
    traps("user loads what is the supervisor's", USER, load, AT(2), LOAD_PAGE, load, AT(2));
    traps("user stores to a page that is read only", USER, store, AT(4) + 4, STORE_PAGE, store, AT(4) + 4);
    traps("user jumps to data", USER, mapped(probe_jump, 16), AT(3), FETCH_PAGE, AT(3), AT(3));
    traps("a page that is not there", USER, load, AT(7) + 5, LOAD_PAGE, load, AT(7) + 5);
    traps("writable and not readable", USER, store, AT(6), STORE_PAGE, store, AT(6));
    works("a page twice mapped", USER, load, AT(4) + 12, 0, 77);
    works("supervisor loads its data", SUPERVISOR, s_load, AT(2), 0, 0x1000);
    traps("supervisor without SUM loads the user's", SUPERVISOR, s_load, AT(3), LOAD_PAGE, s_load, AT(3));
    csr_set(mstatus, SUM);
    works("supervisor with SUM does", SUPERVISOR, s_load, AT(3) + 8, 0, 0x1102);
    traps("but does not execute it", SUPERVISOR, s_jump, AT(16), FETCH_PAGE, AT(16), AT(16));
    csr_clear(mstatus, SUM);
    traps("execute only is not readable", USER, load, AT(5), LOAD_PAGE, load, AT(5));
    csr_set(mstatus, MXR);
    works("with MXR it is", USER, load, AT(5), 0, (uintptr_t)(intptr_t)(int32_t)read32((uintptr_t)probe_pages));
    traps("and not writable", USER, store, AT(5), STORE_PAGE, store, AT(5));
    csr_clear(mstatus, MXR);
    works("a large page", SUPERVISOR, s_load, LARGE_BASE + ((uintptr_t)&data[1][3] - RAM), 0, 77);
    traps("a large page that is not aligned", SUPERVISOR, s_store, BAD_LARGE, STORE_PAGE, s_store, BAD_LARGE);
#if __riscv_xlen == 64
    const uintptr_t beyond = (uintptr_t)1 << 38;
    traps("an address of too many bits", SUPERVISOR, s_load, beyond, LOAD_PAGE, s_load, beyond);
#endif
}

/* The hart sets A with the first access and D with the first store; a store that fails sets neither. */
static void accessed_and_dirty(void)
{
    works("first load", USER, mapped(probe_load, 16), AT(8) + 4, 0, 0x1301);
    put_text("sets A");
    verdict((last[8] & (A | D)) == A);
    works("first store", USER, mapped(probe_store, 16), AT(8) + 4, 5, AT(8) + 4);
    put_text("sets D");
    verdict((last[8] & (A | D)) == (A | D));
    last[8] = entry(data[3], V | R | U);
    fence();
    run_at(USER, mapped(probe_store, 16), AT(8), 5);
    put_text("a store that fails sets neither");
    verdict(seen.cause == STORE_PAGE && !(last[8] & (A | D)));
}

/* Accesses and instructions over the end of a page. */
static void borders(void)
{
    const uintptr_t load = mapped(probe_load, 16), store = mapped(probe_store, 16);
    traps("a load into a page that is not there", USER, load, AT(10) - 3, LOAD_PAGE, load, AT(10));
    traps("a store there", USER, store, AT(10) - 2, STORE_PAGE, store, AT(10));
    works("a store over two pages", USER, store, AT(12) - 1, 0x44332211, AT(12) - 1);
    put_text("reaches both");
    verdict(((uint8_t *)data[3])[PAGE - 1] == 0x11 && (data[2][0] & 0xffffff) == 0x443322);
    works("a load over two pages", USER, load, AT(12) - 1, 0, 0x44332211);
    const uintptr_t straddle = mapped(probe_straddle, 0), alone = mapped(probe_straddle, 20);
    works("an instruction over two pages", SUPERVISOR, straddle, 1, 0, 0x156);
    traps("the second half is not there", SUPERVISOR, alone, 1, FETCH_PAGE, alone, AT(21));
    put_text("nothing was done");
    verdict(seen.value == 1);
    last[21] = entry(probe_pages + PAGE, V | R | X | A | D);
    fence();
    works("when it is", SUPERVISOR, alone, 1, 0, 0x156);
}

static void machine_mode_in_disguise(void)
{
    put_text("MPRV: ");
    uint32_t value = load_as(USER, AT(3) + 8);
    put_hex32(value);
    verdict(value == 0x1102 && load_as(SUPERVISOR, AT(2)) == 0x1000);
}

static void privileges(void)
{
    const struct {
        const char *name, *probe;
        uintptr_t bits;
        int user;
    } rows[] = {
        {"sret by user", probe_sret, 0, 1},         {"sfence.vma by user", probe_sfence, 0, 1},
        {"satp by user", probe_satp, 0, 1},         {"a machine register by user", probe_machine_csr, 0, 1},
        {"by supervisor", probe_machine_csr, 0, 0}, {"TSR: sret", probe_sret, TSR, 0},
        {"TVM: satp", probe_satp, TVM, 0},          {"TVM: sfence.vma", probe_sfence, TVM, 0},
        {"TW: wfi", probe_wfi, TW, 0},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        const uintptr_t pc = mapped(rows[i].probe, rows[i].user ? 16 : 0), at = (uintptr_t)rows[i].probe;
        csr_set(mstatus, rows[i].bits);
        /* the word may lie at an odd multiple of two */
        const uintptr_t word = *(uint16_t *)at | (uintptr_t)*(uint16_t *)(at + 2) << 16;
        traps(rows[i].name, rows[i].user ? USER : SUPERVISOR, pc, 0, ILLEGAL, pc, word);
        csr_clear(mstatus, rows[i].bits);
    }
    works("sfence.vma by supervisor", SUPERVISOR, mapped(probe_sfence, 0), 3, 0, 3);
    works("satp by supervisor", SUPERVISOR, mapped(probe_satp, 0), 0, 0, satp_of(root, 0));
#if __riscv_xlen == 64
    csr_write(satp, NO_SUCH_MODE);
    put_text("a mode that there is not leaves satp as it was");
    verdict(csr_read(satp) == satp_of(root, 0));
#endif
}

static void put_supervisor_trap(const char *name)
{
    put_text(name);
    put_text(": scause ");
    put_hex(seen.scause);
    put_text(" sepc ");
    put_hex(seen.sepc);
    put_text(" stval ");
    put_hex(seen.stval);
}

/* Traps of user mode that supervisor mode takes, and its own that it does not hand on. */
static void delegation(void)
{
    csr_write(stvec, mapped(handler, 0));
    csr_write(medeleg, 1u << USER_CALL | 1u << LOAD_PAGE);
    const uintptr_t call = mapped(probe_ecall, 16), load = mapped(probe_load, 16), s_load = mapped(probe_load, 0);
    run_at(USER, call, 9, 0);
    put_supervisor_trap("a call");
    verdict(seen.scause == USER_CALL && seen.sepc == call && !(seen.sstatus & SPP));
    put_text("goes on in user mode");
    verdict(seen.cause == BREAKPOINT && seen.epc == call + 4 && seen.value == 9 && (seen.status & MSTATUS_MPP) == USER);
    run_at(USER, load, AT(7), 0);
    put_supervisor_trap("a page fault");
    verdict(seen.scause == LOAD_PAGE && seen.sepc == load && seen.stval == AT(7) && !(seen.sstatus & SPP));
    run_at(SUPERVISOR, s_load, AT(7) + 1, 0);
    put_supervisor_trap("its own");
    verdict(seen.scause == LOAD_PAGE && seen.sepc == s_load && seen.stval == AT(7) + 1 && (seen.sstatus & SPP));
    traps("what is not delegated", USER, mapped(probe_store, 16), AT(7), STORE_PAGE, mapped(probe_store, 16), AT(7));
    csr_write(mideleg, 1u << 1);
    csr_write(mie, 1u << 1);
    csr_set(mip, 1u << 1);
    run_at(SUPERVISOR, mapped(probe_gate, 0), 0, 0);
    put_supervisor_trap("an interrupt behind the open gate");
    verdict(seen.scause == (CAUSE_INTERRUPT | 1) && seen.sepc == mapped(probe_gate, 0) + 4 && (seen.sstatus & SPP));
    csr_clear(mip, 1u << 1);
    csr_clear(mstatus, 1u << 1);
    csr_write(mie, 0);
    csr_write(medeleg, 0);
}

/* Two address spaces, switched without a fence in between: their ASIDs differ. */
static void spaces(void)
{
    csr_set(mstatus, SUM);
    for (int round = 0; round < 2; round++) {
        csr_write(satp, satp_of(other_root, 1));
        works("in the other space", SUPERVISOR, mapped(probe_load, 0), AT(3) + 8, 0, 0x1202);
        csr_write(satp, satp_of(root, 0));
        works("and back", SUPERVISOR, mapped(probe_load, 0), AT(3) + 8, 0, 0x1102);
    }
    csr_clear(mstatus, SUM);
}

/* Physical memory protection: the first entry covers one page of data, with the rights `cfg`. */
static void protection(void)
{
    const uintptr_t load = mapped(probe_load, 16), store = mapped(probe_store, 16), rest = 0x1f;
    csr_write(pmpaddr1, (uintptr_t)-1);
    csr_write(pmpaddr0, (uintptr_t)data[1] >> 2 | (PAGE / 8 - 1));
    csr_write(pmpcfg0, rest << 8 | 0x19);
    fence();
    works("protected: a load", USER, load, AT(3) + 8, 0, 0x1102);
    traps("protected: a store", USER, store, AT(3), STORE_ACCESS, store, AT(3));
    csr_write(pmpcfg0, rest << 8 | 0x18);
    fence();
    traps("protected: nothing", USER, load, AT(3), LOAD_ACCESS, load, AT(3));
    csr_write(pmpaddr0, (uintptr_t)last >> 2 | (PAGE / 8 - 1));
    fence();
    traps("protected: the tables", USER, load, AT(3), FETCH_ACCESS, load, load);
    csr_write(pmpcfg0, rest);
    csr_write(pmpaddr0, (uintptr_t)-1);
    fence();
    works("open again", USER, load, AT(3) + 8, 0, 0x1102);
}

int main(void)
{
    for (uint32_t page = 0; page < 4; page++)
        for (uint32_t i = 0; i < 4; i++)
            data[page][i] = 0x1000 + page * 0x100 + i;
    csr_write(pmpaddr0, (uintptr_t)-1);
    csr_write(pmpcfg0, 0x1f);
    build_all();
    csr_write(satp, satp_of(root, 0));
    fence();
    pages();
    accessed_and_dirty();
    borders();
    machine_mode_in_disguise();
    privileges();
    delegation();
    spaces();
    protection();
    put_text(failures ? "paging: some are wrong\n" : "paging: all as they must be\n");
    return failures != 0;
}
