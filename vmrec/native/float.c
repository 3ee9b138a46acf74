/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Floating-point arithmetic by the manual (unprivileged manual, chapters 11 and 12; IEEE 754), in integers, which are the
 * same on every host.
 *
 *     operand ──▶ unpack ──▶ number_t: sign, class, exponent, 64-bit significand ──▶ exact result with a sticky bit
 *                                                                                          │
 *     register (a single is boxed: ones above it) ◀── pack: round once, flags ◀────────────┘
 *
 * The stepper does every such instruction here that has no quick way (stepper_float.h). The engine does most of those on
 * doubles, with equal results. Where Unicorn 2.1.4 departs from the manual the revisions of the machine differ. In
 * revision 2 such instructions are never the engine's: float_is_own says which. In revision 1 the engine's way is the
 * rule. Most of it is done here too:
 *
 *     a single in a register          has zeros above it; what is above an operand is not looked at
 *     fmv.w.x, fsgnj.s and its kin    are done on 64 bits
 *     a comparison, a conversion to   raises flags and leaves mstatus.FS as it was
 *     an integer
 *
 * and of a rest, minima of NaNs and infinity times zero in a fused operation, float_execute says that it is the engine's.
 */
#include "float_host.h"
#include "internal.h"
#include "isa_table.h"

#define NV 16u
#define DZ 8u
#define OF 4u
#define UF 2u
#define NX FLAG_NX

#define TOP (1ull << 63)

typedef unsigned __int128 wide_t;

enum rounding { RNE, RTZ, RDN, RUP, RMM, DYNAMIC = 7 };
enum kind { ZERO, FINITE, INFINITE, QUIET, SIGNALLING };

/* A FINITE one is significand * 2^(exponent - 63), with the top bit of the significand set. */
typedef struct {
    enum kind kind;
    int sign;
    int32_t exponent;
    uint64_t significand;
} number_t;

typedef struct {
    int single;
    enum rounding rounding;
    uint32_t flags;
} context_t;

static int fraction_bits(int single)
{
    return single ? 23 : 52;
}

static int32_t bias(int single)
{
    return single ? 127 : 1023;
}

static uint64_t sign_bit(int single)
{
    return single ? 1ull << 31 : TOP;
}

static uint64_t canonical_nan(int single)
{
    return single ? 0x7fc00000 : 0x7ff8000000000000;
}

static uint64_t infinity(int single)
{
    return single ? 0x7f800000 : 0x7ff0000000000000;
}

/* The bits of an operand: of a single that is not boxed, those of a NaN (12.2); in revision 1, what is there. */
static uint64_t operand(const vm_t *vm, uint32_t number, int single)
{
    uint64_t bits = vm->hart.f[number];
    if (!single)
        return bits;
    return bits >= BOX || !vm->in->supervisor ? (uint32_t)bits : canonical_nan(1);
}

static number_t unpack(uint64_t bits, int single)
{
    int width = fraction_bits(single);
    uint64_t fraction = bits & ((1ull << width) - 1);
    int32_t exponent = (int32_t)(bits >> width & (single ? 0xff : 0x7ff));
    number_t n = {.kind = FINITE, .sign = (bits & sign_bit(single)) != 0};
    if (exponent == (single ? 0xff : 0x7ff)) {
        n.kind = !fraction ? INFINITE : fraction >> (width - 1) ? QUIET : SIGNALLING;
    } else if (exponent) {
        n.exponent = exponent - bias(single);
        n.significand = TOP | fraction << (63 - width);
    } else if (fraction) {
        int zeros = __builtin_clzll(fraction);
        n.exponent = 1 - bias(single) - (zeros - (63 - width));
        n.significand = fraction << zeros;
    } else {
        n.kind = ZERO;
    }
    return n;
}

static int is_nan(number_t n)
{
    return n.kind >= QUIET;
}

/* Is `kept`, with `rest` of `half * 2` below its last bit, to be rounded up in magnitude? */
static int rounds_up(enum rounding rounding, int sign, uint64_t kept, uint64_t rest, uint64_t half)
{
    switch (rounding) {
    case RNE: return rest > half || (rest == half && (kept & 1));
    case RMM: return rest >= half;
    case RDN: return sign && rest;
    case RUP: return !sign && rest;
    default: return 0;
    }
}

static uint64_t overflow(context_t *c, int sign)
{
    int to_largest = c->rounding == RTZ || c->rounding == (sign ? RUP : RDN);
    c->flags |= OF | NX;
    return (sign ? sign_bit(c->single) : 0) | (infinity(c->single) - (uint64_t)to_largest);
}

/*
 * The nearest representable number, as the rounding mode has it, of significand * 2^(exponent - 63), whose lowest bit
 * also stands for whatever lies below it. Underflow is of results that are tiny after rounding, and inexact (11.2).
 */
static uint64_t pack(context_t *c, int sign, int32_t exponent, uint64_t significand)
{
    int width = fraction_bits(c->single), shift = 63 - width;
    int32_t biased = exponent + bias(c->single);
    uint64_t above = sign ? sign_bit(c->single) : 0, kept, rest, half = 1ull << (shift - 1);
    int tiny = 0;
    if (biased < 1) {
        kept = significand >> shift;
        rest = significand & (2 * half - 1);
        tiny = biased < 0 || kept + (uint64_t)rounds_up(c->rounding, sign, kept, rest, half) < 2ull << width;
        int32_t more = 1 - biased;
        if (more > 63)
            significand = 1;
        else
            significand = significand >> more | ((significand & ((1ull << more) - 1)) != 0);
        biased = 0;
    }
    kept = significand >> shift;
    rest = significand & (2 * half - 1);
    kept += (uint64_t)rounds_up(c->rounding, sign, kept, rest, half);
    /* The bit above the fraction adds 1 to the exponent: into the normal numbers, or into the next power of two. */
    uint64_t bits = ((uint64_t)(biased ? biased - 1 : 0) << width) + kept;
    if (biased >= 2 * bias(c->single) + 1 || bits >= infinity(c->single))
        return overflow(c, sign);
    if (rest)
        c->flags |= NX | (tiny ? UF : 0);
    return above | bits;
}

/* As pack, of value * 2^(exponent - 127). */
static uint64_t pack_wide(context_t *c, int sign, int32_t exponent, wide_t value)
{
    uint64_t high = (uint64_t)(value >> 64);
    int zeros = high ? __builtin_clzll(high) : 64 + __builtin_clzll((uint64_t)value);
    value <<= zeros;
    return pack(c, sign, exponent - zeros, (uint64_t)(value >> 64) | ((uint64_t)value != 0));
}

static uint64_t invalid(context_t *c)
{
    c->flags |= NV;
    return canonical_nan(c->single);
}

/* The result of an operation with a NaN among its operands (11.3). */
static uint64_t of_nans(context_t *c, number_t a, number_t b)
{
    if (a.kind == SIGNALLING || b.kind == SIGNALLING)
        c->flags |= NV;
    return canonical_nan(c->single);
}

static uint64_t zero(const context_t *c, int sign)
{
    return sign ? sign_bit(c->single) : 0;
}

static uint64_t infinite(const context_t *c, int sign)
{
    return zero(c, sign) | infinity(c->single);
}

/* value >> distance, with the lowest bit standing for what is shifted out. */
static wide_t shift_jam(wide_t value, int64_t distance)
{
    if (distance > 127)
        return value != 0;
    return value >> distance | ((value & (((wide_t)1 << distance) - 1)) != 0);
}

/* a * 2^(x - 126) + b * 2^(y - 126), each 0 or with bit 126 its top one: the sum of a product and a third is like this. */
static uint64_t sum(context_t *c, int a_sign, int32_t x, wide_t a, int b_sign, int32_t y, wide_t b)
{
    if (x < y || (x == y && a < b)) {
        int sign = a_sign;
        int32_t exponent = x;
        wide_t value = a;
        a_sign = b_sign, x = y, a = b;
        b_sign = sign, y = exponent, b = value;
    }
    b = shift_jam(b, (int64_t)x - y);
    if (a_sign != b_sign) {
        a -= b;
        if (!a)
            return zero(c, c->rounding == RDN);
    } else {
        a += b;
    }
    return pack_wide(c, a_sign, x + 1, a);
}

static wide_t widened(uint64_t significand)
{
    return (wide_t)significand << 63;
}

static uint64_t add(context_t *c, number_t a, number_t b)
{
    if (is_nan(a) || is_nan(b))
        return of_nans(c, a, b);
    if (a.kind == INFINITE || b.kind == INFINITE) {
        if (a.kind == b.kind && a.sign != b.sign)
            return invalid(c);
        return infinite(c, a.kind == INFINITE ? a.sign : b.sign);
    }
    if (a.kind == ZERO && b.kind == ZERO)
        return zero(c, a.sign == b.sign ? a.sign : c->rounding == RDN);
    if (a.kind == ZERO)
        return pack(c, b.sign, b.exponent, b.significand);
    if (b.kind == ZERO)
        return pack(c, a.sign, a.exponent, a.significand);
    return sum(c, a.sign, a.exponent, widened(a.significand), b.sign, b.exponent, widened(b.significand));
}

static uint64_t multiply(context_t *c, number_t a, number_t b)
{
    int sign = a.sign ^ b.sign;
    if (is_nan(a) || is_nan(b))
        return of_nans(c, a, b);
    if (a.kind == INFINITE || b.kind == INFINITE)
        return a.kind == ZERO || b.kind == ZERO ? invalid(c) : infinite(c, sign);
    if (a.kind == ZERO || b.kind == ZERO)
        return zero(c, sign);
    return pack_wide(c, sign, a.exponent + b.exponent + 1, (wide_t)a.significand * b.significand);
}

static uint64_t divide(context_t *c, number_t a, number_t b)
{
    int sign = a.sign ^ b.sign;
    if (is_nan(a) || is_nan(b))
        return of_nans(c, a, b);
    if (a.kind == INFINITE)
        return b.kind == INFINITE ? invalid(c) : infinite(c, sign);
    if (b.kind == INFINITE)
        return zero(c, sign);
    if (b.kind == ZERO) {
        if (a.kind == ZERO)
            return invalid(c);
        c->flags |= DZ;
        return infinite(c, sign);
    }
    if (a.kind == ZERO)
        return zero(c, sign);
    wide_t dividend = widened(a.significand);
    uint64_t quotient = (uint64_t)(dividend / b.significand), exact = (wide_t)quotient * b.significand == dividend;
    int32_t exponent = a.exponent - b.exponent;
    if (!(quotient & TOP)) {
        quotient <<= 1;
        exponent--;
    }
    return pack(c, sign, exponent, quotient | !exact);
}

static uint64_t square_root(context_t *c, number_t a)
{
    if (is_nan(a))
        return of_nans(c, a, a);
    if (a.kind == ZERO)
        return zero(c, a.sign);
    if (a.sign)
        return invalid(c);
    if (a.kind == INFINITE)
        return infinite(c, 0);
    int odd = a.exponent & 1;
    wide_t rest = (wide_t)a.significand << (63 + odd), root = 0;
    for (wide_t bit = (wide_t)1 << 126; bit; bit >>= 2) {
        if (rest >= root + bit) {
            rest -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
    }
    return pack(c, 0, (a.exponent - odd) / 2, (uint64_t)root | (rest != 0));
}

/* a * b + d, rounded once. Infinity times zero is invalid even if the third is a quiet NaN (11.6). */
static uint64_t fused(context_t *c, number_t a, number_t b, number_t d)
{
    int sign = a.sign ^ b.sign;
    int impossible = (a.kind == INFINITE && b.kind == ZERO) || (a.kind == ZERO && b.kind == INFINITE);
    if (d.kind == SIGNALLING || impossible)
        c->flags |= NV;
    if (is_nan(a) || is_nan(b))
        return of_nans(c, a, b);
    if (impossible || is_nan(d))
        return canonical_nan(c->single);
    if (a.kind == INFINITE || b.kind == INFINITE)
        return d.kind == INFINITE && d.sign != sign ? invalid(c) : infinite(c, sign);
    if (d.kind == INFINITE)
        return infinite(c, d.sign);
    if (a.kind == ZERO || b.kind == ZERO) {
        if (d.kind == ZERO)
            return zero(c, sign == d.sign ? sign : c->rounding == RDN);
        return pack(c, d.sign, d.exponent, d.significand);
    }
    /* 53 bits times 53 fill the upper 106: nothing is lost by the shifts. */
    wide_t product = (wide_t)a.significand * b.significand;
    int32_t exponent = a.exponent + b.exponent;
    if (product >> 127) {
        product >>= 1;
        exponent++;
    }
    if (d.kind == ZERO)
        return pack_wide(c, sign, exponent + 1, product);
    return sum(c, sign, exponent, product, d.sign, d.exponent, widened(d.significand));
}

/* Of a and b: the first if it is less, equal, or the order does not say (11.8). */
static int less(uint64_t a, uint64_t b, int single, int or_equal)
{
    uint64_t sign = sign_bit(single);
    if (!((a | b) & ~sign)) /* zeros are equal */
        return or_equal;
    if ((a ^ b) & sign)
        return (a & sign) != 0;
    if (a == b)
        return or_equal;
    return (a < b) != ((a & sign) != 0);
}

/* fmin and fmax: a NaN is left out, a signalling one is invalid too; -0 is less than +0 (11.6). */
static uint64_t extreme(context_t *c, uint64_t a, uint64_t b, int largest)
{
    number_t x = unpack(a, c->single), y = unpack(b, c->single);
    if (x.kind == SIGNALLING || y.kind == SIGNALLING)
        c->flags |= NV;
    if (is_nan(x))
        return is_nan(y) ? canonical_nan(c->single) : b;
    if (is_nan(y))
        return a;
    int first = x.kind == ZERO && y.kind == ZERO ? x.sign : less(a, b, c->single, 0);
    return first != largest ? a : b;
}

/* feq 2, flt 1, fle 0 */
static uint64_t compare(context_t *c, uint64_t a, uint64_t b, uint32_t which)
{
    number_t x = unpack(a, c->single), y = unpack(b, c->single);
    if (is_nan(x) || is_nan(y)) {
        if (which != 2 || x.kind == SIGNALLING || y.kind == SIGNALLING)
            c->flags |= NV;
        return 0;
    }
    if (which == 2)
        return a == b || (x.kind == ZERO && y.kind == ZERO);
    return (uint64_t)less(a, b, c->single, which == 0);
}

static uint64_t sign_injected(uint64_t a, uint64_t b, int single, uint32_t which)
{
    uint64_t sign = sign_bit(single);
    switch (which) {
    case 0: return (a & ~sign) | (b & sign);
    case 1: return (a & ~sign) | (~b & sign);
    default: return a ^ (b & sign);
    }
}

/* Table 11.5 */
static uint64_t class_of(uint64_t bits, int single)
{
    number_t n = unpack(bits, single);
    switch (n.kind) {
    case ZERO: return n.sign ? 1 << 3 : 1 << 4;
    case INFINITE: return n.sign ? 1 << 0 : 1 << 7;
    case QUIET: return 1 << 9;
    case SIGNALLING: return 1 << 8;
    default:
        if (n.exponent < 1 - bias(single))
            return n.sign ? 1 << 2 : 1 << 5;
        return n.sign ? 1 << 1 : 1 << 6;
    }
}

/* `which`: 0 w, 1 wu, 2 l, 3 lu. What does not fit is invalid, and the nearest that does (11.7, table 11.4). */
static uint64_t to_integer(context_t *c, number_t n, uint32_t which)
{
    int bits = which & 2 ? 64 : 32, is_signed = !(which & 1);
    uint64_t most = is_signed ? (1ull << (bits - 1)) - 1 : bits == 64 ? ~0ull : 0xffffffffull;
    uint64_t least = is_signed ? 1ull << (bits - 1) : 0, magnitude = 0, rest = 0; /* least: its magnitude */
    if (is_nan(n)) {
        c->flags |= NV;
        magnitude = most;
        n.sign = 0;
    } else if (n.kind == INFINITE || (n.kind == FINITE && n.exponent > 63)) {
        c->flags |= NV;
        magnitude = n.sign ? least : most;
    } else if (n.kind == FINITE) {
        uint64_t half = TOP;
        if (n.exponent == 63) {
            magnitude = n.significand;
        } else if (n.exponent >= 0) {
            magnitude = n.significand >> (63 - n.exponent);
            rest = n.significand << (1 + n.exponent);
        } else {
            rest = n.exponent == -1 ? n.significand : 1;
        }
        magnitude += (uint64_t)rounds_up(c->rounding, n.sign, magnitude, rest, half);
        if (magnitude > (n.sign ? least : most)) {
            c->flags |= NV;
            magnitude = n.sign ? least : most;
        } else if (rest) {
            c->flags |= NX;
        }
    }
    uint64_t value = n.sign ? 0 - magnitude : magnitude;
    return bits == 64 ? value : (uint64_t)(int64_t)(int32_t)value;
}

static uint64_t from_integer(context_t *c, uint64_t value, uint32_t which)
{
    if (!(which & 2))
        value = which & 1 ? (uint32_t)value : (uint64_t)(int64_t)(int32_t)value;
    int sign = !(which & 1) && value >> 63;
    if (sign)
        value = 0 - value;
    if (!value)
        return 0;
    int zeros = __builtin_clzll(value);
    return pack(c, sign, 63 - zeros, value << zeros);
}

/* From the other format into that of the context. */
static uint64_t converted(context_t *c, number_t n)
{
    if (is_nan(n))
        return of_nans(c, n, n);
    if (n.kind == INFINITE)
        return infinite(c, n.sign);
    return n.kind == ZERO ? zero(c, n.sign) : pack(c, n.sign, n.exponent, n.significand);
}

/* Bits 31:27 of an OP-FP word: what it does. */
enum function {
    ADD = 0x00, SUBTRACT = 0x01, MULTIPLY = 0x02, DIVIDE = 0x03, SIGN = 0x04, EXTREME = 0x05, CONVERT = 0x08,
    SQUARE_ROOT = 0x0b, COMPARE = 0x14, TO_INTEGER = 0x18, FROM_INTEGER = 0x1a, MOVE_OUT = 0x1c, MOVE_IN = 0x1e
};

int float_is_own(const insn_t *insn)
{
    uint32_t word = insn->word, function = word >> 27;
    if (!decode_is_float_arithmetic(insn))
        return 0;
    if ((word & 0x7f) != 0x53)
        return 1; /* fused: the flags of infinity times zero */
    if (function == EXTREME || function == CONVERT)
        return 1;
    if (word >> 25 & 3) /* on doubles */
        return 0;
    return function != MOVE_OUT || (word >> 12 & 7); /* fmv.x.w takes the bits as they are */
}

/* Operations that the rounding mode has no part in have something else in its place. */
static int has_rounding(uint32_t word)
{
    switch (word >> 27) {
    case SIGN: case EXTREME: case COMPARE: case MOVE_OUT: case MOVE_IN: return (word & 0x7f) != 0x53;
    default: return 1;
    }
}

static void set_float(vm_t *vm, uint32_t rd, uint64_t bits, int single)
{
    vm->hart.f[rd] = single && vm->in->supervisor ? bits | BOX : bits;
    vm->hart.mstatus |= MSTATUS_FS;
}

static void set_integer(vm_t *vm, uint32_t rd, uint64_t value)
{
    if (rd)
        vm->hart.x[rd] = vm->xlen == 32 ? (uint32_t)value : value;
}

/* 1 if it is the engine's. */
static int fused_instruction(vm_t *vm, context_t *c, uint32_t word)
{
    number_t a = unpack(operand(vm, word >> 15 & 31, c->single), c->single);
    number_t b = unpack(operand(vm, word >> 20 & 31, c->single), c->single);
    number_t d = unpack(operand(vm, word >> 27, c->single), c->single);
    uint32_t kind = word >> 2 & 3; /* madd, msub, nmsub, nmadd */
    a.sign ^= kind >= 2;
    d.sign ^= kind == 1 || kind == 3;
    if (!vm->in->supervisor && ((a.kind == INFINITE && b.kind == ZERO) || (a.kind == ZERO && b.kind == INFINITE)))
        return 1;
    set_float(vm, word >> 7 & 31, fused(c, a, b, d), c->single);
    return 0;
}

/* Sign injection into a single as the engine does it: fmv.s, fneg.s and fabs.s are cases of their own. */
static uint64_t injected_wide(const vm_t *vm, uint32_t rs1, uint32_t rs2, uint32_t which)
{
    const uint64_t above = ~(uint64_t)0x7fffffff, a = vm->hart.f[rs1], b = vm->hart.f[rs2];
    switch (which) {
    case 0: return rs1 == rs2 ? a : (b & above) | (a & ~above);
    case 1: return rs1 == rs2 ? a ^ above : (~b & above) | (a & ~above);
    default: return rs1 == rs2 ? a & ~above : a ^ (b & above);
    }
}

int float_execute(vm_t *vm, uint32_t word)
{
    uint32_t rd = word >> 7 & 31, rs1 = word >> 15 & 31, rs2 = word >> 20 & 31, minor = word >> 12 & 7;
    context_t c = {.single = !(word >> 25 & 3), .rounding = minor == DYNAMIC ? vm->hart.frm : minor};
    if (has_rounding(word) && c.rounding > RMM)
        return -1;
    const int single = c.single, first_revision = !vm->in->supervisor;
    if ((word & 0x7f) != 0x53) {
        if (fused_instruction(vm, &c, word))
            return 1;
    } else {
        uint64_t a = operand(vm, rs1, single), b = operand(vm, rs2, single);
        enum function function = word >> 27;
        switch (function) {
        case ADD: set_float(vm, rd, add(&c, unpack(a, single), unpack(b, single)), single); break;
        case SUBTRACT: {
            number_t y = unpack(b, single);
            y.sign ^= 1;
            set_float(vm, rd, add(&c, unpack(a, single), y), single);
            break;
        }
        case MULTIPLY: set_float(vm, rd, multiply(&c, unpack(a, single), unpack(b, single)), single); break;
        case DIVIDE: set_float(vm, rd, divide(&c, unpack(a, single), unpack(b, single)), single); break;
        case SQUARE_ROOT: set_float(vm, rd, square_root(&c, unpack(a, single)), single); break;
        case SIGN:
            if (single && first_revision)
                set_float(vm, rd, injected_wide(vm, rs1, rs2, minor), 0);
            else
                set_float(vm, rd, sign_injected(a, b, single, minor), single);
            break;
        case EXTREME:
            if (first_revision && (is_nan(unpack(a, single)) || is_nan(unpack(b, single))))
                return 1;
            set_float(vm, rd, extreme(&c, a, b, (int)minor), single);
            break;
        case CONVERT:
            set_float(vm, rd, converted(&c, unpack(operand(vm, rs1, !single), !single)), single);
            break;
        case COMPARE: set_integer(vm, rd, compare(&c, a, b, minor)); break;
        case TO_INTEGER: set_integer(vm, rd, to_integer(&c, unpack(a, single), rs2)); break;
        case FROM_INTEGER: set_float(vm, rd, from_integer(&c, vm->hart.x[rs1], rs2), single); break;
        case MOVE_OUT:
            if (minor)
                set_integer(vm, rd, class_of(a, single));
            else
                set_integer(vm, rd, single ? (uint64_t)(int64_t)(int32_t)vm->hart.f[rs1] : vm->hart.f[rs1]);
            break;
        case MOVE_IN:
            if (single && !first_revision)
                set_float(vm, rd, (uint32_t)vm->hart.x[rs1], 1);
            else
                set_float(vm, rd, vm->hart.x[rs1], 0);
            break;
        default: return -1;
        }
    }
    if (c.flags & ~vm->hart.fflags) {
        vm->hart.fflags |= c.flags;
        if (!first_revision)
            vm->hart.mstatus |= MSTATUS_FS;
    }
    return 0;
}
