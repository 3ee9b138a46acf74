/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the host's own floating point may be asked: its result can be no other than the guest's, bit for bit.
 *
 * Both follow IEEE 754. What may differ is the form of a NaN, how a tiny result is found (before or after rounding) and,
 * if somebody asked for it, that small numbers count as zero. So an answer is taken if it is *plain*: a normal number
 * above the smallest one, which no invalid, overflowing, underflowing or dividing-by-zero operation gives. The one flag
 * that is left, inexact, must be raised already, and the rounding be to nearest even, which is how float_host_begin
 * leaves the host. (Unicorn's own arithmetic takes the same way, by the same conditions.) Or if it is *exact*, and not
 * tiny unless it is zero: then there is no flag at all. The functions exact_* say yes only where they are sure.
 *
 * Hosts that compute in a wider format than they were asked for have no such way: HOST_FLOATS is 0.
 */
#ifndef FLOAT_HOST_H
#define FLOAT_HOST_H

#include <fenv.h>
#include <float.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD == 0
#define HOST_FLOATS 1
#else
#define HOST_FLOATS 0
#endif

#define FLAG_NX 1u /* inexact, in fflags */
#define SIGN_D (1ull << 63)
#define SIGN_S (1ull << 31)
#define BOX 0xffffffff00000000ull /* above a single-precision number in a register */

static inline double double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint64_t bits_of_double(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Of the lower half of a register. */
static inline float float_of(uint64_t bits)
{
    uint32_t low = (uint32_t)bits;
    float value;
    memcpy(&value, &low, sizeof value);
    return value;
}

static inline uint32_t bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline int is_plain_double(uint64_t bits)
{
    const uint64_t smallest = 0x0010000000000000ull << 1, infinity = 0x7ff0000000000000ull << 1;
    return (bits << 1) - smallest - 1 < infinity - smallest - 1;
}

static inline int is_plain_float(uint32_t bits)
{
    const uint32_t smallest = 0x00800000u << 1, infinity = 0x7f800000u << 1;
    return (bits << 1) - smallest - 1 < infinity - smallest - 1;
}

/* The bits from the first one of the significand to the last that is set; of zero and of tiny numbers at least that. */
static inline int width_of_double(double value)
{
    return 53 - __builtin_ctzll(bits_of_double(value) | 1ull << 52);
}

/* Is `sum` what a and b make? What rounding took away is itself a number (Knuth, 4.2.2, theorem B); a sum is never tiny
 * and inexact. Infinities and NaNs fail, since what is taken away is none then. */
static inline int exact_sum(double a, double b, double sum)
{
    double of_b = sum - a;
    return (a - (sum - of_b)) + (b - of_b) == 0;
}

static inline int exact_sum_float(float a, float b, float sum)
{
    float of_b = sum - a;
    return (a - (sum - of_b)) + (b - of_b) == 0;
}

static inline int exact_product(double a, double b, double product)
{
    if (product == 0)
        return a == 0 || b == 0;
    return is_plain_double(bits_of_double(product)) && width_of_double(a) + width_of_double(b) <= 53;
}

static inline int exact_quotient(double a, double b, double quotient)
{
    if (quotient == 0)
        return a == 0;
    return is_plain_double(bits_of_double(quotient)) && is_plain_double(bits_of_double(a))
           && exact_product(quotient, b, quotient * b) && quotient * b == a;
}

static inline int exact_root(double a, double root)
{
    return is_plain_double(bits_of_double(root)) && exact_product(root, root, root * root) && root * root == a;
}

static inline int exact_fused(double a, double b, double c, double result)
{
    double product = a * b;
    return exact_product(a, b, product) && product + c == result && exact_sum(product, c, result);
}

/* Of singles, whose products are doubles. */

static inline int exact_product_float(float a, float b, float product)
{
    if (product == 0)
        return a == 0 || b == 0;
    return is_plain_float(bits_of_float(product)) && (double)a * (double)b == (double)product;
}

static inline int exact_quotient_float(float a, float b, float quotient)
{
    if (quotient == 0)
        return a == 0;
    return is_plain_float(bits_of_float(quotient)) && (double)quotient * (double)b == (double)a;
}

static inline int exact_root_float(float a, float root)
{
    return is_plain_float(bits_of_float(root)) && (double)root * (double)root == (double)a;
}

static inline int exact_fused_float(float a, float b, float c, float result)
{
    double product = (double)a * (double)b, sum = product + (double)c;
    if (result == 0)
        return product == 0 && c == 0;
    return is_plain_float(bits_of_float(result)) && sum == (double)result && exact_sum(product, (double)c, sum);
}

/* How the host computed before: for float_host_end. */
typedef struct {
#if defined(__SSE2__)
    uint32_t control;
#else
    fenv_t environment;
#endif
} float_host;

/*
 * From here on the host rounds to nearest even, traps nothing and flushes nothing to zero, whatever the program around
 * us or one of its libraries has asked for. (The engine relies on that as well.)
 */
static inline float_host float_host_begin(void)
{
    float_host before;
#if defined(__SSE2__)
    const uint32_t flags = 0x3f, usual = 0x1f80;
    before.control = _mm_getcsr();
    if ((before.control & ~flags) != usual)
        _mm_setcsr(usual);
#else
    fegetenv(&before.environment);
    fesetenv(FE_DFL_ENV);
#endif
    return before;
}

static inline void float_host_end(const float_host *before)
{
#if defined(__SSE2__)
    if (before->control != _mm_getcsr())
        _mm_setcsr(before->control);
#else
    fesetenv(&before->environment);
#endif
}

#endif
