/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fp: single and double arithmetic, rounding modes, flags, fused operations, conversions, NaN boxing; prints bits. */
#include "runtime/uart.h"

static int failures;

static void verdict(int good)
{
    put_text(good ? ": ok\n" : ": WRONG\n");
    failures += !good;
}

/* The flags raised since the last call, as NV DZ OF UF NX in bits 4:0. */
static uint32_t take_flags(void)
{
    uintptr_t flags;
    __asm__ volatile("csrrw %0, fflags, zero" : "=r"(flags) : : "memory");
    return (uint32_t)flags;
}

static void put_result(const char *name, uint64_t bits)
{
    put_text(name);
    put_char(' ');
    put_hex64(bits);
    put_text(" flags ");
    put_unsigned(take_flags());
    put_char('\n');
}

/* d and s instructions on register images: `in` and `out` move bits between integer and floating registers. */
#define OPERATE(in, out, instruction, a, b, c) \
    ({ \
        uint64_t result_; \
        __asm__ volatile(in " ft0, %1\n\t" in " ft1, %2\n\t" in " ft2, %3\n\t" instruction "\n\t" out " %0, ft3" \
                         : "=r"(result_) : "r"(a), "r"(b), "r"(c) : "ft0", "ft1", "ft2", "ft3", "memory"); \
        result_; \
    })
#define DOUBLE(name, operands, a, b, c) put_result(name, OPERATE("fmv.d.x", "fmv.x.d", name operands, a, b, c))
#define SINGLE(name, operands, a, b, c) put_result(name, OPERATE("fmv.w.x", "fmv.x.w", name operands, a, b, c))
/* The same with an integer result. */
#define INTEGER(in, name, operands, a, b) \
    ({ \
        uint64_t result_; \
        __asm__ volatile(in " ft0, %1\n\t" in " ft1, %2\n\t" name operands \
                         : "=r"(result_) : "r"(a), "r"(b) : "ft0", "ft1", "memory"); \
        put_result(name, result_); \
    })

static const uint64_t doubles[][2] = {
    {0x3ff0000000000000, 0x4008000000000000}, /* 1, 3 */
    {0x3fb999999999999a, 0x3fc999999999999a}, /* 0.1, 0.2 */
    {0x7fefffffffffffff, 0x7fefffffffffffff}, /* largest, largest */
    {0x0010000000000000, 0x4000000000000000}, /* smallest normal, 2 */
    {0x0000000000000001, 0x3fe0000000000000}, /* smallest subnormal, 0.5 */
    {0x7ff0000000000000, 0xfff0000000000000}, /* +inf, -inf */
    {0x8000000000000000, 0x0000000000000000}, /* -0, +0 */
    {0x7ff8000000000001, 0x3ff0000000000000}, /* quiet NaN, 1 */
    {0x7ff0000000000001, 0xbff0000000000000}, /* signalling NaN, -1 */
};

static const uint32_t singles[][2] = {
    {0x3f800000, 0x40400000}, {0x3dcccccd, 0x3e4ccccd}, {0x7f7fffff, 0x7f7fffff},
    {0x00800000, 0x40000000}, {0x00000001, 0x3f000000}, {0x7f800000, 0xff800000},
    {0x80000000, 0x00000000}, {0x7fc00001, 0x3f800000}, {0x7f800001, 0xbf800000},
};

#define PAIRS (sizeof doubles / sizeof *doubles)

static void arithmetic(void)
{
    for (unsigned i = 0; i < PAIRS; i++) {
        uint64_t a = doubles[i][0], b = doubles[i][1];
        DOUBLE("fadd.d", " ft3, ft0, ft1", a, b, 0ull);
        DOUBLE("fsub.d", " ft3, ft0, ft1", a, b, 0ull);
        DOUBLE("fmul.d", " ft3, ft0, ft1", a, b, 0ull);
        DOUBLE("fdiv.d", " ft3, ft0, ft1", a, b, 0ull);
        DOUBLE("fsqrt.d", " ft3, ft0", a, b, 0ull);
        DOUBLE("fmin.d", " ft3, ft0, ft1", a, b, 0ull);
        DOUBLE("fmax.d", " ft3, ft0, ft1", a, b, 0ull);
        DOUBLE("fsgnjn.d", " ft3, ft0, ft1", a, b, 0ull);
        DOUBLE("fcvt.s.d", " ft3, ft0", a, b, 0ull);
        INTEGER("fmv.d.x", "feq.d", " %0, ft0, ft1", a, b);
        INTEGER("fmv.d.x", "flt.d", " %0, ft0, ft1", a, b);
        INTEGER("fmv.d.x", "fle.d", " %0, ft1, ft0", a, b);
        INTEGER("fmv.d.x", "fclass.d", " %0, ft0", a, b);
    }
    for (unsigned i = 0; i < PAIRS; i++) {
        uint64_t a = singles[i][0], b = singles[i][1];
        SINGLE("fadd.s", " ft3, ft0, ft1", a, b, 0ull);
        SINGLE("fsub.s", " ft3, ft0, ft1", a, b, 0ull);
        SINGLE("fmul.s", " ft3, ft0, ft1", a, b, 0ull);
        SINGLE("fdiv.s", " ft3, ft0, ft1", a, b, 0ull);
        SINGLE("fsqrt.s", " ft3, ft0", a, b, 0ull);
        SINGLE("fmin.s", " ft3, ft0, ft1", a, b, 0ull);
        SINGLE("fmax.s", " ft3, ft0, ft1", a, b, 0ull);
        SINGLE("fsgnjx.s", " ft3, ft0, ft1", a, b, 0ull);
        INTEGER("fmv.w.x", "feq.s", " %0, ft0, ft1", a, b);
        INTEGER("fmv.w.x", "flt.s", " %0, ft0, ft1", a, b);
        INTEGER("fmv.w.x", "fclass.s", " %0, ft0", a, b);
    }
}

static void fused(void)
{
    /* (1 + 2^-52)^2 - (1 + 2^-51) is 2^-104 in one rounding and 0 in two */
    const uint64_t a = 0x3ff0000000000001, c = 0x3ff0000000000002;
    DOUBLE("fmadd.d", " ft3, ft0, ft1, ft2", a, a, c ^ 1ull << 63);
    DOUBLE("fmsub.d", " ft3, ft0, ft1, ft2", a, a, c);
    DOUBLE("fnmadd.d", " ft3, ft0, ft1, ft2", a, a, c);
    DOUBLE("fnmsub.d", " ft3, ft0, ft1, ft2", a, a, c);
    DOUBLE("fmadd.d", " ft3, ft0, ft1, ft2", 0x7ff0000000000000ull, 0ull, 0x7ff8000000000000ull); /* inf * 0 + NaN */
    SINGLE("fmadd.s", " ft3, ft0, ft1, ft2", 0x3f800001ull, 0x3f800001ull, 0xbf800002ull);
    SINGLE("fmsub.s", " ft3, ft0, ft1, ft2", 0x3f800001ull, 0x3f800001ull, 0x3f800002ull);
    SINGLE("fnmadd.s", " ft3, ft0, ft1, ft2", 0x3f800001ull, 0x3f800001ull, 0x3f800002ull);
    SINGLE("fnmsub.s", " ft3, ft0, ft1, ft2", 0x3f800001ull, 0x3f800001ull, 0x3f800002ull);
}

/* Round to nearest even, to zero, down, up, to nearest with ties away: from frm, and from the instruction. */
static void rounding(void)
{
    const uint64_t one = 0x3ff0000000000000, three = 0x4008000000000000;
    const uint64_t halves[] = {0x4004000000000000, 0xc004000000000000, 0x400c000000000000, 0xbfe0000000000000};
    for (uint32_t mode = 0; mode < 5; mode++) {
        __asm__ volatile("csrw frm, %0" : : "r"((uintptr_t)mode) : "memory");
        put_text("frm ");
        put_unsigned(mode);
        put_char('\n');
        DOUBLE("fdiv.d", " ft3, ft0, ft1", one, three, 0ull);
        DOUBLE("fdiv.d", " ft3, ft0, ft1", one | 1ull << 63, three, 0ull);
        DOUBLE("fsub.d", " ft3, ft0, ft1", one, one, 0ull);
        DOUBLE("fcvt.s.d", " ft3, ft0", 0x3fb999999999999aull, 0ull, 0ull);
        for (int i = 0; i < 4; i++)
            INTEGER("fmv.d.x", "fcvt.w.d", " %0, ft0, dyn", halves[i], 0ull);
    }
    __asm__ volatile("csrw frm, zero" : : : "memory");
    for (int i = 0; i < 4; i++) {
        INTEGER("fmv.d.x", "fcvt.l.d", " %0, ft0, rne", halves[i], 0ull);
        INTEGER("fmv.d.x", "fcvt.l.d", " %0, ft0, rtz", halves[i], 0ull);
        INTEGER("fmv.d.x", "fcvt.l.d", " %0, ft0, rdn", halves[i], 0ull);
        INTEGER("fmv.d.x", "fcvt.l.d", " %0, ft0, rup", halves[i], 0ull);
        INTEGER("fmv.d.x", "fcvt.l.d", " %0, ft0, rmm", halves[i], 0ull);
    }
}

static void conversions(void)
{
    const uint64_t numbers[] = {
        0x7ff8000000000000, 0x7ff0000000000000, 0xfff0000000000000, /* NaN, inf, -inf */
        0x41dfffffffc00000, 0x41e0000000000000, 0xc1e0000000200000, /* 2^31 - 1, 2^31, -(2^31 + 1) */
        0x43e0000000000000, 0xbff0000000000000, 0x3fefffffffffffff, /* 2^63, -1, just below 1 */
    };
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        INTEGER("fmv.d.x", "fcvt.w.d", " %0, ft0, rtz", numbers[i], 0ull);
        INTEGER("fmv.d.x", "fcvt.wu.d", " %0, ft0, rtz", numbers[i], 0ull);
        INTEGER("fmv.d.x", "fcvt.l.d", " %0, ft0, rtz", numbers[i], 0ull);
        INTEGER("fmv.d.x", "fcvt.lu.d", " %0, ft0, rtz", numbers[i], 0ull);
    }
    const uint64_t integers[] = {0, 1, 0xffffffffffffffff, 0x7fffffffffffffff, 0x0020000000000001, 0x01000001};
    for (unsigned i = 0; i < sizeof integers / sizeof *integers; i++) {
        DOUBLE("fcvt.d.w", " ft3, %1", integers[i], 0ull, 0ull);
        DOUBLE("fcvt.d.wu", " ft3, %1", integers[i], 0ull, 0ull);
        DOUBLE("fcvt.d.l", " ft3, %1", integers[i], 0ull, 0ull);
        DOUBLE("fcvt.d.lu", " ft3, %1", integers[i], 0ull, 0ull);
        SINGLE("fcvt.s.w", " ft3, %1", integers[i], 0ull, 0ull);
        SINGLE("fcvt.s.lu", " ft3, %1", integers[i], 0ull, 0ull);
    }
}

/* A single lives in a double register with all upper bits set; anything else there reads as a NaN. */
static void nan_boxing(void)
{
    uint64_t bits;
    put_text("nan boxing\n");
    DOUBLE("fmv.w.x", " ft3, %1", 0x3f800000ull, 0ull, 0ull);
    DOUBLE("fadd.s", " ft3, ft0, ft1", 0xffffffff3f800000ull, 0xffffffff3f800000ull, 0ull);
    DOUBLE("fadd.s", " ft3, ft0, ft1", 0x000000003f800000ull, 0xffffffff3f800000ull, 0ull);
    DOUBLE("fsgnj.s", " ft3, ft0, ft0", 0x000000003f800000ull, 0ull, 0ull);
    INTEGER("fmv.d.x", "fmv.x.w", " %0, ft0", 0x0123456780000001ull, 0ull);
    INTEGER("fmv.d.x", "fclass.s", " %0, ft0", 0xfffffffe3f800000ull, 0ull);
    uint32_t memory = 0xc0490fdb;
    __asm__ volatile("flw ft0, 0(%1)\n\tfmv.x.d %0, ft0" : "=r"(bits) : "r"(&memory) : "ft0", "memory");
    put_result("flw", bits);
    __asm__ volatile("fmv.d.x ft0, %1\n\tfsw ft0, 0(%2)\n\tlwu %0, 0(%2)"
                     : "=r"(bits) : "r"(0x0123456789abcdefull), "r"(&memory) : "ft0", "memory");
    put_result("fsw", bits);
}

static volatile uintptr_t trap_cause;

__attribute__((interrupt("machine"), aligned(4))) static void on_trap(void)
{
    trap_cause = csr_read(mcause);
    csr_write(mepc, csr_read(mepc) + 4);
}

/* mstatus.FS: off traps, and what changes a floating register makes it dirty. */
static void unit_state(void)
{
    csr_write(mtvec, on_trap);
    csr_clear(mstatus, MSTATUS_FS);
    __asm__ volatile(".option push\n\t.option norvc\n\tfadd.d ft0, ft0, ft0\n\t.option pop" : : : "ft0");
    put_text("fadd.d with the unit off: mcause ");
    put_unsigned((uint32_t)trap_cause);
    verdict(trap_cause == 2);
    trap_cause = 0;
    __asm__ volatile("csrr t0, fcsr" : : : "t0");
    put_text("fcsr with the unit off: mcause ");
    put_unsigned((uint32_t)trap_cause);
    verdict(trap_cause == 2);
    csr_set(mstatus, 0x2000);
    __asm__ volatile("fmv.d.x ft0, zero" : : : "ft0");
    put_text("dirty, and the summary bit");
    uintptr_t mstatus = csr_read(mstatus);
    verdict((mstatus & MSTATUS_FS) == MSTATUS_FS && mstatus >> 63);
}

/* Something to be fast at: the sum of 1/(i*i), which tends to pi*pi/6. */
static void series(void)
{
    double sum = 0;
    for (int i = 1; i <= 100000; i++)
        sum += 1.0 / ((double)i * (double)i);
    union {
        double number;
        uint64_t bits;
    } result = {.number = sum};
    put_result("series", result.bits);
}

int main(void)
{
    take_flags();
    arithmetic();
    fused();
    rounding();
    conversions();
    nan_boxing();
    unit_state();
    series();
    put_text(failures ? "fp: some are wrong\n" : "fp: done\n");
    return failures != 0;
}
