/* SPDX-License-Identifier: GPL-2.0-or-later */
/* lrsc: load-reserved and store-conditional, and every atomic memory operation; prints all results. */
#include "runtime/uart.h"

static volatile uint32_t words[256] __attribute__((aligned(4096))); /* [0] and [128]: far apart for any reservation */
static int failures;

static void verdict(int good)
{
    put_text(good ? ": ok\n" : ": WRONG\n");
    failures += !good;
}

/* One line: did the sc fail, and what is in memory afterwards? */
static void check(const char *name, uintptr_t failed, uint32_t memory, int want_failed, uint32_t want_memory)
{
    put_text(name);
    put_text(failed ? ": sc failed, memory " : ": sc done, memory ");
    put_hex32(memory);
    verdict((failed != 0) == want_failed && memory == want_memory);
}

/* Goes on behind the ecall. */
__attribute__((interrupt("machine"), aligned(4))) static void on_trap(void) { csr_write(mepc, csr_read(mepc) + 4); }

static void reservations(void)
{
    uintptr_t value, failed, again;

    words[0] = 5;
    __asm__ volatile("lr.w %0, (%2)\n\tsc.w %1, %3, (%2)"
                     : "=&r"(value), "=&r"(failed) : "r"(words), "r"(7) : "memory");
    check("sc after lr", failed | (value != 5), words[0], 0, 7);

    __asm__ volatile("sc.w %0, %2, (%1)" : "=&r"(failed) : "r"(words), "r"(8) : "memory");
    check("sc without lr", failed, words[0], 1, 7);

    __asm__ volatile("lr.w %0, (%3)\n\tsc.w %1, %4, (%3)\n\tsc.w %2, %5, (%3)"
                     : "=&r"(value), "=&r"(failed), "=&r"(again) : "r"(words), "r"(9), "r"(10) : "memory");
    check("first sc of two", failed, words[0], 0, 9);
    check("second sc of two", again, words[0], 1, 9);

    words[128] = 20;
    __asm__ volatile("lr.w %0, (%3)\n\tsc.w %1, %5, (%4)\n\tsc.w %2, %5, (%3)"
                     : "=&r"(value), "=&r"(failed), "=&r"(again)
                     : "r"(words), "r"(words + 128), "r"(11) : "memory");
    check("sc to another place", failed, words[128], 1, 20);
    check("sc after the failed one", again, words[0], 1, 9);

    __asm__ volatile("lr.w %0, (%2)\n\tlr.w %0, (%3)\n\tsc.w %1, %4, (%2)"
                     : "=&r"(value), "=&r"(failed) : "r"(words), "r"(words + 128), "r"(12) : "memory");
    check("sc to the first lr of two", failed, words[0], 1, 9);

    __asm__ volatile("lr.w %0, (%2)\n\tecall\n\tsc.w %1, %3, (%2)"
                     : "=&r"(value), "=&r"(failed) : "r"(words), "r"(13) : "memory");
    put_text("sc after a trap");
    verdict(words[0] == (failed ? 9 : 13)); /* the manual lets it fail or not; it must keep its word */

    words[0] = 0x80000001u;
    __asm__ volatile("lr.w.aq %0, (%2)\n\tadd t0, %0, %0\n\tsc.w.rl %1, t0, (%2)"
                     : "=&r"(value), "=&r"(failed) : "r"(words) : "t0", "memory");
    put_text("lr.w reads ");
    put_hex(value);
    put_char('\n');
    check("a loop's body", failed, words[0], 0, 2);

    uint32_t rounds = 0;
    for (int i = 0; i < 1000; i++)
        do {
            rounds++;
            __asm__ volatile("lr.w %0, (%2)\n\taddi %0, %0, 1\n\tsc.w %1, %0, (%2)"
                             : "=&r"(value), "=&r"(failed) : "r"(words) : "memory");
        } while (failed);
    put_text("1000 increments");
    verdict(words[0] == 1002 && rounds >= 1000);
}

/* One AMO on each of the values below: prints what it returned and what it left. */
#define AMO(instruction, type, show) \
    do { \
        put_text(#instruction "\n"); \
        for (unsigned i = 0; i < sizeof inputs_##type / sizeof *inputs_##type; i++) { \
            static volatile type cell __attribute__((aligned(8))); \
            cell = inputs_##type[i][0]; \
            uintptr_t old; \
            __asm__ volatile(#instruction " %0, %1, (%2)" \
                             : "=&r"(old) : "r"((uintptr_t)inputs_##type[i][1] + extra_##type), "r"(&cell) \
                             : "memory"); \
            put_text("  "); \
            put_hex(old); \
            put_char(' '); \
            show(cell); \
            put_char('\n'); \
        } \
    } while (0)

static const uint32_t inputs_uint32_t[][2] = {
    {5, 3}, {0xffffffffu, 1}, {0x80000000u, 0x7fffffffu}, {0x12345678u, 0xf0f0f0f0u},
};
/* The upper half of the operand is no business of a .w operation. */
#define extra_uint32_t ((uintptr_t)(0x1234567800000000u & UINTPTR_MAX))

static void amo_words(void)
{
    AMO(amoswap.w, uint32_t, put_hex32);
    AMO(amoadd.w, uint32_t, put_hex32);
    AMO(amoxor.w, uint32_t, put_hex32);
    AMO(amoand.w, uint32_t, put_hex32);
    AMO(amoor.w, uint32_t, put_hex32);
    AMO(amomin.w, uint32_t, put_hex32);
    AMO(amomax.w, uint32_t, put_hex32);
    AMO(amominu.w, uint32_t, put_hex32);
    AMO(amomaxu.w.aqrl, uint32_t, put_hex32);
}

#if __riscv_xlen == 64
static const uint64_t inputs_uint64_t[][2] = {
    {5, 3}, {~0ull, 1}, {1ull << 63, ~0ull >> 1}, {0x0123456789abcdefull, 0xf0f0f0f0f0f0f0f0ull},
};
#define extra_uint64_t 0

static void amo_doublewords(void)
{
    AMO(amoswap.d, uint64_t, put_hex64);
    AMO(amoadd.d, uint64_t, put_hex64);
    AMO(amoxor.d, uint64_t, put_hex64);
    AMO(amoand.d, uint64_t, put_hex64);
    AMO(amoor.d, uint64_t, put_hex64);
    AMO(amomin.d, uint64_t, put_hex64);
    AMO(amomax.d, uint64_t, put_hex64);
    AMO(amominu.d, uint64_t, put_hex64);
    AMO(amomaxu.d.aqrl, uint64_t, put_hex64);

    static volatile uint64_t cell;
    uint64_t value, failed, again;
    cell = 0xfedcba9876543210ull;
    __asm__ volatile("lr.d %0, (%3)\n\taddi %0, %0, 1\n\tsc.d %1, %0, (%3)\n\tsc.d %2, zero, (%3)"
                     : "=&r"(value), "=&r"(failed), "=&r"(again) : "r"(&cell) : "memory");
    put_text("lr.d, sc.d ");
    put_hex64(cell);
    verdict(!failed && again && cell == 0xfedcba9876543211ull);
}
#else
static void amo_doublewords(void) {}
#endif

int main(void)
{
    csr_write(mtvec, on_trap);
    reservations();
    amo_words();
    amo_doublewords();
    put_text(GUEST);
    put_text(failures ? ": some are wrong\n" : ": all as they must be\n");
    return failures != 0;
}
