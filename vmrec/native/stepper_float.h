/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The quick ways through floating-point arithmetic: a part of the interpreter's body, stepper_template.h.
 *
 *     instruction ──▶ quick way, by the host (float_host.h) ──▶ next
 *                        │ not sure of the result, or of a flag
 *                        ▼
 *                     L_OTHER: float.c, or in revision 1 sometimes the engine
 *
 * Whoever does it, the result is the same: a quick way is taken where it can be no other. All of them want the unit dirty
 * (mstatus.FS), so that they leave it as it is. `floats` counts what is done here, `kinds` gathers whose it is (FLOAT_*).
 *
 * A single-precision number in a register has ones above it (`box`) in revision 2; in revision 1 the engine's results have
 * zeros there, and its operands anything.
 */

#define FLOAT_ON() (HOST_FLOATS && LIKELY((h->mstatus & MSTATUS_FS) == MSTATUS_FS))
/* insn->imm, of decode.c: bits of frm that have to be 0 for rounding to nearest even; 8 if it is not that. */
#define FLOAT_NEAREST() (FLOAT_ON() && LIKELY(!((h->frm | 8) & (uint32_t)d->imm)))
#define FLOAT_INEXACT() (h->fflags & FLAG_NX)
#define FLOAT_DONE()                                                                                                    \
    do {                                                                                                                \
        floats++;                                                                                                       \
        kinds |= d->extra;                                                                                              \
        NEXT_BY(2);                                                                                                     \
    } while (0)
#define BOXED(bits) (((bits) & box) == box)
#define F1 (h->f[d->rs1])
#define F2 (h->f[d->rs2])
#define F3 (h->f[d->word >> 27])

/* Something that is rounded: a number `r` in double, in single precision, and whether it is exact. */
#define FLOAT_D(name, expression, exact)                                                                                \
    L_##name:                                                                                                           \
    {                                                                                                                   \
        double r = (expression);                                                                                        \
        uint64_t bits = bits_of_double(r);                                                                              \
        if (FLOAT_NEAREST() && (LIKELY(FLOAT_INEXACT() && is_plain_double(bits)) || (exact))) {                         \
            h->f[d->rd] = bits;                                                                                         \
            FLOAT_DONE();                                                                                               \
        }                                                                                                               \
        goto L_OTHER;                                                                                                   \
    }
#define FLOAT_S(name, operands, expression, exact)                                                                      \
    L_##name:                                                                                                           \
    {                                                                                                                   \
        float r = (expression);                                                                                         \
        uint32_t bits = bits_of_float(r);                                                                               \
        if (FLOAT_NEAREST() && BOXED(operands)                                                                          \
            && (LIKELY(FLOAT_INEXACT() && is_plain_float(bits)) || (exact))) {                                          \
            h->f[d->rd] = bits | box;                                                                                   \
            FLOAT_DONE();                                                                                               \
        }                                                                                                               \
        goto L_OTHER;                                                                                                   \
    }
/* A number to another register, an integer, as it is: no rounding, no flag. */
#define FLOAT_BITS(name, condition, expression)                                                                         \
    L_##name:                                                                                                           \
    {                                                                                                                   \
        if (FLOAT_ON() && LIKELY(condition)) {                                                                          \
            h->f[d->rd] = (expression);                                                                                 \
            FLOAT_DONE();                                                                                               \
        }                                                                                                               \
        goto L_OTHER;                                                                                                   \
    }
#define FLOAT_TO_X(name, condition, expression)                                                                         \
    L_##name:                                                                                                           \
    {                                                                                                                   \
        if (FLOAT_ON() && LIKELY(condition)) {                                                                          \
            SET(expression);                                                                                            \
            x[0] = 0;                                                                                                   \
            FLOAT_DONE();                                                                                               \
        }                                                                                                               \
        goto L_OTHER;                                                                                                   \
    }
/* An integer above `below` and below `above`, by cutting off: rounding mode 1, and what a cast does. */
#define FLOAT_CUT(name, value, boxed, below, above, cast)                                                               \
    FLOAT_TO_X(name,                                                                                                    \
               (d->word >> 12 & 7) == 1 && (boxed) && (value) > (below) && (value) < (above)                            \
                   && (FLOAT_INEXACT() || (value) == cast(value)),                                                      \
               (SX)(int32_t)cast(value))
#define FLOAT_CUT_L(name, value, boxed, above)                                                                          \
    FLOAT_TO_X(name,                                                                                                    \
               (d->word >> 12 & 7) == 1 && (boxed) && (value) > -(above) && (value) < (above)                           \
                   && (FLOAT_INEXACT() || (value) == (int64_t)(value)),                                                 \
               (SX)(int64_t)(value))

#define A double_of(F1)
#define B double_of(F2)
#define C double_of(F3)
    FLOAT_D(FADD_D, A + B, exact_sum(A, B, r));
    FLOAT_D(FSUB_D, A - B, exact_sum(A, -B, r));
    FLOAT_D(FMUL_D, A * B, exact_product(A, B, r));
    FLOAT_D(FDIV_D, A / B, exact_quotient(A, B, r));
    FLOAT_D(FSQRT_D, __builtin_sqrt(A), exact_root(A, r));
    FLOAT_D(FMADD_D, __builtin_fma(A, B, C), exact_fused(A, B, C, r));
    FLOAT_D(FMSUB_D, __builtin_fma(A, B, -C), exact_fused(A, B, -C, r));
    FLOAT_D(FNMSUB_D, __builtin_fma(-A, B, C), exact_fused(-A, B, C, r));
    FLOAT_D(FNMADD_D, __builtin_fma(-A, B, -C), exact_fused(-A, B, -C, r));
    FLOAT_S(FCVT_S_D, ~0ull, (float)A, A == 0 || (is_plain_float(bits) && (double)r == A));
    FLOAT_TO_X(FEQ_D, !__builtin_isunordered(A, B), A == B);
    FLOAT_TO_X(FLT_D, !__builtin_isunordered(A, B), A < B);
    FLOAT_TO_X(FLE_D, !__builtin_isunordered(A, B), A <= B);
    FLOAT_BITS(FMIN_D, A < B || A > B, A < B ? F1 : F2);
    FLOAT_BITS(FMAX_D, A < B || A > B, A > B ? F1 : F2);
    FLOAT_CUT(FCVT_W_D, A, 1, -2147483649.0, 2147483648.0, (int32_t));
    FLOAT_CUT(FCVT_WU_D, A, 1, -1.0, 4294967296.0, (uint32_t)(int64_t));
#undef A
#undef B
#undef C
#define A float_of(F1)
#define B float_of(F2)
#define C float_of(F3)
    FLOAT_S(FADD_S, F1 & F2, A + B, exact_sum_float(A, B, r));
    FLOAT_S(FSUB_S, F1 & F2, A - B, exact_sum_float(A, -B, r));
    FLOAT_S(FMUL_S, F1 & F2, A * B, exact_product_float(A, B, r));
    FLOAT_S(FDIV_S, F1 & F2, A / B, exact_quotient_float(A, B, r));
    FLOAT_S(FSQRT_S, F1, __builtin_sqrtf(A), exact_root_float(A, r));
    FLOAT_S(FMADD_S, F1 & F2 & F3, __builtin_fmaf(A, B, C), exact_fused_float(A, B, C, r));
    FLOAT_S(FMSUB_S, F1 & F2 & F3, __builtin_fmaf(A, B, -C), exact_fused_float(A, B, -C, r));
    FLOAT_S(FNMSUB_S, F1 & F2 & F3, __builtin_fmaf(-A, B, C), exact_fused_float(-A, B, C, r));
    FLOAT_S(FNMADD_S, F1 & F2 & F3, __builtin_fmaf(-A, B, -C), exact_fused_float(-A, B, -C, r));
    /* Every single is a double; but a NaN gets another form, and a tiny number goes the long way. */
    FLOAT_BITS(FCVT_D_S, FLOAT_NEAREST() && BOXED(F1) && (is_plain_float((uint32_t)F1) || A == 0), bits_of_double(A));
    FLOAT_TO_X(FEQ_S, BOXED(F1 & F2) && !__builtin_isunordered(A, B), A == B);
    FLOAT_TO_X(FLT_S, BOXED(F1 & F2) && !__builtin_isunordered(A, B), A < B);
    FLOAT_TO_X(FLE_S, BOXED(F1 & F2) && !__builtin_isunordered(A, B), A <= B);
    FLOAT_BITS(FMIN_S, BOXED(F1 & F2) && (A < B || A > B), (uint32_t)(A < B ? F1 : F2) | box);
    FLOAT_BITS(FMAX_S, BOXED(F1 & F2) && (A < B || A > B), (uint32_t)(A > B ? F1 : F2) | box);
    FLOAT_CUT(FCVT_W_S, A, BOXED(F1), -2147483648.0f, 2147483648.0f, (int32_t));
    FLOAT_CUT(FCVT_WU_S, A, BOXED(F1), -1.0f, 4294967296.0f, (uint32_t)(int64_t));
#undef A
#undef B
#undef C

    /* Of integers. Every one of 32 bits is a double. */
    FLOAT_BITS(FCVT_D_W, FLOAT_NEAREST(), bits_of_double((double)(int32_t)x[d->rs1]));
    FLOAT_BITS(FCVT_D_WU, FLOAT_NEAREST(), bits_of_double((double)(uint32_t)x[d->rs1]));
    FLOAT_S(FCVT_S_W, ~0ull, (float)(int32_t)x[d->rs1], (double)r == (double)(int32_t)x[d->rs1]);
    FLOAT_S(FCVT_S_WU, ~0ull, (float)(uint32_t)x[d->rs1], (double)r == (double)(uint32_t)x[d->rs1]);
#if XLEN == 64
    FLOAT_D(FCVT_D_L, (double)(int64_t)x[d->rs1], x[d->rs1] + (1ull << 53) <= 1ull << 54);
    FLOAT_D(FCVT_D_LU, (double)x[d->rs1], x[d->rs1] <= 1ull << 53);
    FLOAT_S(FCVT_S_L, ~0ull, (float)(int64_t)x[d->rs1], x[d->rs1] + (1ull << 24) <= 1ull << 25);
    FLOAT_S(FCVT_S_LU, ~0ull, (float)x[d->rs1], x[d->rs1] <= 1ull << 24);
    FLOAT_CUT_L(FCVT_L_D, double_of(F1), 1, 9223372036854775808.0);
    FLOAT_CUT_L(FCVT_L_S, float_of(F1), BOXED(F1), 9223372036854775808.0f);
#endif

    /* Bits as they are. */
    FLOAT_BITS(FSGNJ_D, 1, (F1 & ~SIGN_D) | (F2 & SIGN_D));
    FLOAT_BITS(FSGNJN_D, 1, (F1 & ~SIGN_D) | (~F2 & SIGN_D));
    FLOAT_BITS(FSGNJX_D, 1, F1 ^ (F2 & SIGN_D));
    FLOAT_BITS(FSGNJ_S, box && BOXED(F1 & F2), (F1 & ~SIGN_S) | (F2 & SIGN_S));
    FLOAT_BITS(FSGNJN_S, box && BOXED(F1 & F2), (F1 & ~SIGN_S) | (~F2 & SIGN_S));
    FLOAT_BITS(FSGNJX_S, box && BOXED(F1 & F2), F1 ^ (F2 & SIGN_S));

    FLOAT_TO_X(FMV_X_W, 1, (SX)(int32_t)F1);
    FLOAT_BITS(FMV_W_X, 1, box ? (uint32_t)x[d->rs1] | box : x[d->rs1]);
#if XLEN == 64
    FLOAT_TO_X(FMV_X_D, 1, F1);
    FLOAT_BITS(FMV_D_X, 1, x[d->rs1]);
#endif

#undef FLOAT_ON
#undef FLOAT_NEAREST
#undef FLOAT_INEXACT
#undef FLOAT_DONE
#undef BOXED
#undef F1
#undef F2
#undef F3
#undef FLOAT_D
#undef FLOAT_S
#undef FLOAT_BITS
#undef FLOAT_TO_X
#undef FLOAT_CUT
#undef FLOAT_CUT_L
