/* SPDX-License-Identifier: GPL-2.0-or-later */
/* live-tables: supervisor mode that edits entries of its own page tables while they are in use, without sfence.vma. */
#include "runtime/uart.h"

/*
 * A hart may keep translations until an sfence.vma, so what this guest prints is the hart's business. On vmrec a store
 * to a page table counts at once: the same checksums always, however often a run was stopped, saved or moved.
 *
 *     devices and RAM    mapped as they are, by large pages
 *     WINDOW + 0 to 15   data pages, remapped all the time; some are not there until they fault
 *     WINDOW + 16, 17    code: two pages of functions, in turn
 *     WINDOW + 18        the table of the window itself
 */
typedef uintptr_t entry_t;
#define PAGE 4096u
#define ENTRIES (PAGE / sizeof(entry_t))
#if __riscv_xlen == 64
#define LEVEL_SHIFT 30
#define SATP_MODE ((uintptr_t)8 << 60)
#else
#define LEVEL_SHIFT 22
#define SATP_MODE ((uintptr_t)1 << 31)
#endif
#define WINDOW ((uintptr_t)0x40000000)
#define DATA_PAGES 16u
#define CODE_PAGE 16u
#define TABLE_PAGE 18u

enum { V = 1, R = 2, W = 4, X = 8, A = 64, D = 128 };

extern char live_code[]; /* live-tables-code.S: two pages, each a function that adds something of its own to a0 */
void enter_supervisor(void (*go_on)(void));

static entry_t root[ENTRIES] __attribute__((aligned(4096))), middle[ENTRIES] __attribute__((aligned(4096)));
static entry_t window[ENTRIES] __attribute__((aligned(4096)));
static uint32_t data[DATA_PAGES][PAGE / 4] __attribute__((aligned(4096)));
static uint32_t state = 0x2545f491, sum, faults;
volatile uint32_t rounds = 40000; /* tests make it more */

static uint32_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

static void mix(uint32_t value)
{
    sum = (sum << 5 | sum >> 27) + value;
}

static entry_t entry(const void *page, uintptr_t flags)
{
    return (uintptr_t)page >> 12 << 10 | flags;
}

static volatile uint32_t *at(uint32_t page, uint32_t word)
{
    return (volatile uint32_t *)(WINDOW + page * PAGE) + word;
}

/* A page that was taken away comes back as another one; a page that is read only becomes writable. */
__attribute__((interrupt("supervisor"), aligned(4))) static void on_fault(void)
{
    uint32_t page = (uint32_t)((csr_read(stval) - WINDOW) / PAGE);
    faults++;
    mix((uint32_t)csr_read(scause) << 8 | page);
    window[page] = entry(data[(page * 7 + faults) % DATA_PAGES], V | R | W);
}

static void edit(void)
{
    const uint32_t chosen = draw(), page = chosen % DATA_PAGES, word = chosen >> 8 & 1023, what = chosen >> 20 & 7;
    volatile entry_t *const entry_ = &window[page];
    switch (what) {
    case 0: /* seen again? */
        *entry_ &= ~(entry_t)(A | D);
        mix(*at(page, word));
        break;
    case 1: /* written again? */
        *entry_ &= ~(entry_t)D;
        *at(page, word) = sum;
        break;
    case 2:
        *entry_ = entry(data[chosen >> 4 & 15], V | R | W | A | D);
        mix(*at(page, word));
        break;
    case 3:
        *entry_ = 0;
        *at(page, word) += chosen;
        break;
    case 4: /* by its own mapping */
        mix(*at(page, word));
        *(volatile entry_t *)(WINDOW + TABLE_PAGE * PAGE + page * sizeof(entry_t)) = entry(data[what], V | R | A);
        *at(page, word) = chosen;
        break;
    case 5:
        window[CODE_PAGE] = entry(live_code + (chosen >> 9 & 1) * PAGE, V | R | X | (chosen >> 10 & 1 ? A : 0));
        mix(((uint32_t(*)(uint32_t))(WINDOW + CODE_PAGE * PAGE))(chosen));
        break;
    default: /* over two pages */
        if (page + 1 < DATA_PAGES) {
            uintptr_t border = WINDOW + (page + 1) * PAGE - 2;
            __asm__ volatile("sw %0, 0(%1)" : : "r"(chosen), "r"(border) : "memory");
        }
    }
    mix((uint32_t)*entry_);
}

static void run(void)
{
    for (uint32_t round = 1; round <= rounds; round++) {
        edit();
        if (round % (rounds / 8) == 0) {
            put_column(faults, 7);
            put_checksum(" faults,", sum);
        }
    }
    write32(FINISHER_BASE, 0x5555);
    for (;;)
        ;
}

int main(void)
{
    for (uint32_t page = 0; page < DATA_PAGES; page++)
        for (uint32_t i = 0; i < PAGE / 4; i++)
            data[page][i] = page << 24 | i;
    for (uint32_t page = 0; page < DATA_PAGES; page++)
        window[page] = page % 3 ? entry(data[page], V | R | W) : 0;
    window[TABLE_PAGE] = entry(window, V | R | W);
    const uintptr_t large[] = {0, UART_BASE, 0x80000000u};
    for (int i = 0; i < 3; i++)
        root[large[i] >> LEVEL_SHIFT] = entry((void *)(large[i] >> LEVEL_SHIFT << LEVEL_SHIFT), V | R | W | X | A | D);
    root[WINDOW >> LEVEL_SHIFT] = entry(__riscv_xlen == 64 ? middle : window, V);
    middle[0] = entry(window, V);
    csr_write(pmpaddr0, (uintptr_t)-1);
    csr_write(pmpcfg0, 0x1f);
    csr_write(medeleg, 1u << 12 | 1u << 13 | 1u << 15);
    csr_write(stvec, on_fault);
    csr_write(satp, SATP_MODE | (uintptr_t)root >> 12);
    enter_supervisor(run);
    return 1;
}
