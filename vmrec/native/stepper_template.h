/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The interpreter itself; stepper.c includes it once for each XLEN (32, 64) and CAPTURE (0, 1).
 *
 * Inside, `d` is the decoded instruction and the pc follows from it; `left` counts down the steps, so that the
 * position is `end - left`. SYNC() writes both back before anybody else looks at them.
 */

#define PASTE2(a, b, c) a##b##_##c
#define PASTE(a, b, c) PASTE2(a, b, c)
#define STEP PASTE(step_, XLEN, CAPTURE)

#if XLEN == 32
#define UX uint32_t
#define SX int32_t
#define WIDE_S int64_t
#define WIDE_U uint64_t
#else
#define UX uint64_t
#define SX int64_t
#define WIDE_S __int128
#define WIDE_U unsigned __int128
#endif

#define PC() ((UX)(page_pc + (((uintptr_t)d - (uintptr_t)page->insn) >> 3)))
#define POSITION() (end - left)
#define SYNC() (vm->time.position = POSITION(), h->pc = PC())
#define DISPATCH() goto *labels[d->op]
#define OP() (d->op & (OP_POINT - 1))
#define ADVANCE() (d += d->length >> 1)
/* On to the next: so many entries of the page further, a constant wherever it can be, since all else waits for it. */
#define NEXT_BY(entries)                                                                                                \
    do {                                                                                                                \
        d += (entries);                                                                                                 \
        if (UNLIKELY(--left == 0))                                                                                      \
            goto out;                                                                                                   \
        DISPATCH();                                                                                                     \
    } while (0)
#define NEXT NEXT_BY(d->length >> 1)
#define TRAP(cause_, tval_)                                                                                             \
    do {                                                                                                                \
        cause = (cause_);                                                                                               \
        tval = (tval_);                                                                                                 \
        goto trap;                                                                                                      \
    } while (0)
#define RS1 ((UX)x[d->rs1])
#define RS2 ((UX)x[d->rs2])
#define IMM ((UX)(SX)d->imm)
#define SET(value) (x[d->rd] = (UX)(value))
#define SET_W(value) (x[d->rd] = (UX)(SX)(int32_t)(value))
/* L_ is an instruction of four bytes, S_ the same of two. */
#define ALU(name, expression)                                                                                           \
    L_##name:                                                                                                           \
    SET(expression);                                                                                                    \
    NEXT_BY(2)
#define ALU_S(name, expression)                                                                                         \
    ALU(name, expression);                                                                                              \
    S_##name:                                                                                                           \
    SET(expression);                                                                                                    \
    NEXT_BY(1)
#define ALU_W(name, expression)                                                                                         \
    L_##name:                                                                                                           \
    SET_W(expression);                                                                                                  \
    NEXT_BY(2)
#define ALU_WS(name, expression)                                                                                        \
    ALU_W(name, expression);                                                                                            \
    S_##name:                                                                                                           \
    SET_W(expression);                                                                                                  \
    NEXT_BY(1)
#define BRANCH(name, condition)                                                                                         \
    L_##name:                                                                                                           \
    if (condition)                                                                                                      \
        goto branch;                                                                                                    \
    NEXT_BY(2)
#define BRANCH_S(name, condition)                                                                                       \
    BRANCH(name, condition);                                                                                            \
    S_##name:                                                                                                           \
    if (condition)                                                                                                      \
        goto branch;                                                                                                    \
    NEXT_BY(1)

#if CAPTURE
#define ROW(address, value) capture_access(vm, (address), (value), POSITION(), PC())
#define CLOSE(end_pc, position, trap) capture_close(vm, (end_pc), (position), (trap))
#define BEHIND() ((PC() & (PAGE_SIZE - 1)) + d->length > PAGE_SIZE ? 2u : 0u)
#else
#define ROW(address, value) ((void)0)
#define CLOSE(end_pc, position, trap) ((void)0)
#define BEHIND() 0u
#endif

/* An access that left the fast path, where a watched one never goes; a store is told of before it is done. */
#define SEEN(address, size, value, write)                                                                               \
    (UNLIKELY(in->points.range_count) ? points_access(vm, PC(), (address), (size), (value), (write)) : (void)0)

/* RAM at `address` that walk.c has told of, and all of it in one page; NULL: ask. */
#define FAST_PLACE(access, address, size)                                                                               \
    ((in->fast[access][((address) >> PAGE_SHIFT) % FAST].tag                                                            \
      == (((uint64_t)(address) & ~(uint64_t)(PAGE_SIZE - 1)) | in->fast_key))                                           \
             && ((address) & (PAGE_SIZE - 1)) <= PAGE_SIZE - (size)                                                     \
         ? &in->fast[access][((address) >> PAGE_SHIFT) % FAST]                                                          \
         : NULL)

/* Loads: `raw` is the zero-extended memory value, `put` stores the register. */
#define LOAD_BY(label, entries, type, put)                                                                                           \
    label:                                                                                                              \
    {                                                                                                                   \
        UX address = RS1 + IMM;                                                                                         \
        uint64_t offset = (uint64_t)address - RAM_BASE, raw = 0;                                                        \
        if (LIKELY(offset < fast_limit)) {                                                                              \
            memcpy(&raw, ram + offset, sizeof(type));                                                                   \
            ROW(address, raw);                                                                                          \
            put;                                                                                                        \
            x[0] = 0;                                                                                                   \
            NEXT_BY(entries);                                                                                                       \
        }                                                                                                               \
        const fast_t *fast = FAST_PLACE(ACCESS_LOAD, address, sizeof(type));                                            \
        if (LIKELY(fast)) {                                                                             \
            memcpy(&raw, fast->bytes + (address & (PAGE_SIZE - 1)), sizeof(type));                                      \
            ROW(address, raw);                                                                                          \
            put;                                                                                                        \
            x[0] = 0;                                                                                                   \
            NEXT_BY(entries);                                                                                                       \
        }                                                                                                               \
        SYNC();                                                                                                         \
        int result = walk_load(vm, address, sizeof(type), &raw, &cause, &tval);                                         \
        if (result == 1)                                                                                                \
            goto trap;                                                                                                  \
        if (result == 2)                                                                                                \
            goto leave;                                                                                                 \
        SEEN(address, sizeof(type), raw, 0);                                                                            \
        ROW(address, raw);                                                                                              \
        put;                                                                                                            \
        x[0] = 0;                                                                                                       \
        goto retire;                                                                                                    \
    }
#define STORE_BY(label, entries, type, source)                                                                                       \
    label:                                                                                                              \
    {                                                                                                                   \
        store_address = RS1 + IMM;                                                                                      \
        store_value = (type)(source);                                                                                   \
        store_size = sizeof(type);                                                                                      \
        uint64_t offset = (uint64_t)store_address - RAM_BASE;                                                           \
        if (LIKELY(offset < fast_limit && flags[offset >> PAGE_SHIFT] == PAGE_DIRTY                                     \
                   && (offset & (PAGE_SIZE - 1)) <= PAGE_SIZE - sizeof(type))) {                                        \
            ROW(store_address, store_value);                                                                            \
            memcpy(ram + offset, &store_value, sizeof(type));                                                           \
            NEXT_BY(entries);                                                                                                       \
        }                                                                                                               \
        const fast_t *fast = FAST_PLACE(ACCESS_STORE, store_address, sizeof(type));                                     \
        if (LIKELY(fast && flags[fast->page] == PAGE_DIRTY)) {                                          \
            ROW(store_address, store_value);                                                                            \
            memcpy(fast->bytes + (store_address & (PAGE_SIZE - 1)), &store_value, sizeof(type));                        \
            NEXT_BY(entries);                                                                                                       \
        }                                                                                                               \
        goto store_slow;                                                                                                \
    }
#define LOAD(name, type, put) LOAD_BY(L_##name, 2, type, put)
#define STORE(name, type, source) STORE_BY(L_##name, 2, type, source)
#define LOAD_ANY(name, type, put) LOAD_BY(L_##name, d->length >> 1, type, put)
#define STORE_ANY(name, type, source) STORE_BY(L_##name, d->length >> 1, type, source)
#define LOAD_S(name, type, put) LOAD_BY(L_##name, 2, type, put) LOAD_BY(S_##name, 1, type, put)
#define STORE_S(name, type, source) STORE_BY(L_##name, 2, type, source) STORE_BY(S_##name, 1, type, source)

static void STEP(vm_t *vm, uint64_t limit, int linger)
{
    /* Everything not named goes to L_OTHER; the names override that on purpose. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"
    _Static_assert(OPX_COUNT <= OP_POINT, "a flag above all operations");
    static const void *const labels[4 * OP_POINT] = {
        [0 ... OP_POINT - 1] = &&L_OTHER, [OP_POINT ... 2 * OP_POINT - 1] = &&L_POINT,
        [2 * OP_POINT ... 3 * OP_POINT - 1] = &&L_OTHER, [3 * OP_POINT ... 4 * OP_POINT - 1] = &&L_POINT,
#define SHORT(name) [OP_SHORT + OP_##name] = &&S_##name
        SHORT(LUI), SHORT(ADDI), SHORT(SLLI), SHORT(SRLI), SHORT(SRAI), SHORT(ANDI), SHORT(ADD), SHORT(SUB), SHORT(XOR),
        SHORT(OR), SHORT(AND), SHORT(BEQ), SHORT(BNE), SHORT(LW), SHORT(SW),
#if XLEN == 64
        SHORT(ADDIW), SHORT(ADDW), SHORT(SUBW), SHORT(LD), SHORT(SD),
#endif
#undef SHORT
        [OP_INVALID] = &&L_UNDECODED, [OPX_ILLEGAL] = &&L_ILLEGAL, [OPX_PAGE_END] = &&L_PAGE_END, [OPX_NOP] = &&L_NOP,
        [OP_LUI] = &&L_LUI, [OP_AUIPC] = &&L_AUIPC, [OP_JAL] = &&L_JAL, [OP_JALR] = &&L_JALR,
        [OP_BEQ] = &&L_BEQ, [OP_BNE] = &&L_BNE, [OP_BLT] = &&L_BLT, [OP_BGE] = &&L_BGE, [OP_BLTU] = &&L_BLTU,
        [OP_BGEU] = &&L_BGEU, [OP_LB] = &&L_LB, [OP_LH] = &&L_LH, [OP_LW] = &&L_LW, [OP_LBU] = &&L_LBU,
        [OP_LHU] = &&L_LHU, [OP_SB] = &&L_SB, [OP_SH] = &&L_SH, [OP_SW] = &&L_SW, [OP_ADDI] = &&L_ADDI,
        [OP_SLTI] = &&L_SLTI, [OP_SLTIU] = &&L_SLTIU, [OP_XORI] = &&L_XORI, [OP_ORI] = &&L_ORI,
        [OP_ANDI] = &&L_ANDI, [OP_SLLI] = &&L_SLLI, [OP_SRLI] = &&L_SRLI, [OP_SRAI] = &&L_SRAI, [OP_ADD] = &&L_ADD,
        [OP_SUB] = &&L_SUB, [OP_SLL] = &&L_SLL, [OP_SLT] = &&L_SLT, [OP_SLTU] = &&L_SLTU, [OP_XOR] = &&L_XOR,
        [OP_SRL] = &&L_SRL, [OP_SRA] = &&L_SRA, [OP_OR] = &&L_OR, [OP_AND] = &&L_AND,
        [OP_ECALL] = &&L_ECALL, [OP_EBREAK] = &&L_EBREAK, [OP_MRET] = &&L_MRET, [OP_WFI] = &&L_WFI,
        [OP_SRET] = &&L_SRET, [OP_SFENCE_VMA] = &&L_SFENCE,
        [OP_CSRRW] = &&L_CSR, [OP_CSRRS] = &&L_CSR, [OP_CSRRC] = &&L_CSR,
        [OP_CSRRWI] = &&L_CSRI, [OP_CSRRSI] = &&L_CSRI, [OP_CSRRCI] = &&L_CSRI,
        [OP_MUL] = &&L_MUL, [OP_MULH] = &&L_MULH, [OP_MULHSU] = &&L_MULHSU, [OP_MULHU] = &&L_MULHU,
        [OP_DIV] = &&L_DIV, [OP_DIVU] = &&L_DIVU, [OP_REM] = &&L_REM, [OP_REMU] = &&L_REMU,
        [OP_LR_W] = &&L_LR, [OP_SC_W] = &&L_SC, [OP_AMOSWAP_W] = &&L_AMO, [OP_AMOADD_W] = &&L_AMO,
        [OP_AMOXOR_W] = &&L_AMO, [OP_AMOAND_W] = &&L_AMO, [OP_AMOOR_W] = &&L_AMO, [OP_AMOMIN_W] = &&L_AMO,
        [OP_AMOMAX_W] = &&L_AMO, [OP_AMOMINU_W] = &&L_AMO, [OP_AMOMAXU_W] = &&L_AMO,
        [OP_FLW] = &&L_FLW, [OP_FLD] = &&L_FLD, [OP_FSW] = &&L_FSW, [OP_FSD] = &&L_FSD,
#define FLOAT(name) [OP_##name] = &&L_##name
        FLOAT(FADD_D), FLOAT(FSUB_D), FLOAT(FMUL_D), FLOAT(FDIV_D), FLOAT(FSQRT_D), FLOAT(FMADD_D),
        FLOAT(FMSUB_D), FLOAT(FNMSUB_D), FLOAT(FNMADD_D), FLOAT(FSGNJ_D), FLOAT(FSGNJN_D), FLOAT(FSGNJX_D),
        FLOAT(FEQ_D), FLOAT(FLT_D), FLOAT(FLE_D), FLOAT(FMIN_D), FLOAT(FMAX_D), FLOAT(FCVT_W_D),
        FLOAT(FCVT_WU_D), FLOAT(FCVT_D_W), FLOAT(FCVT_D_WU), FLOAT(FADD_S), FLOAT(FSUB_S), FLOAT(FMUL_S),
        FLOAT(FDIV_S), FLOAT(FSQRT_S), FLOAT(FMADD_S), FLOAT(FMSUB_S), FLOAT(FNMSUB_S), FLOAT(FNMADD_S),
        FLOAT(FSGNJ_S), FLOAT(FSGNJN_S), FLOAT(FSGNJX_S), FLOAT(FEQ_S), FLOAT(FLT_S), FLOAT(FLE_S),
        FLOAT(FMIN_S), FLOAT(FMAX_S), FLOAT(FCVT_W_S), FLOAT(FCVT_WU_S), FLOAT(FCVT_S_W), FLOAT(FCVT_S_WU),
        FLOAT(FCVT_S_D), FLOAT(FCVT_D_S), FLOAT(FMV_X_W), FLOAT(FMV_W_X),
#if XLEN == 64
        FLOAT(FCVT_D_L), FLOAT(FCVT_D_LU), FLOAT(FCVT_S_L), FLOAT(FCVT_S_LU), FLOAT(FCVT_L_D),
        FLOAT(FCVT_L_S), FLOAT(FMV_X_D), FLOAT(FMV_D_X),
#endif
#undef FLOAT
#if XLEN == 64
        [OP_LD] = &&L_LD, [OP_LWU] = &&L_LWU, [OP_SD] = &&L_SD, [OP_ADDIW] = &&L_ADDIW, [OP_SLLIW] = &&L_SLLIW,
        [OP_SRLIW] = &&L_SRLIW, [OP_SRAIW] = &&L_SRAIW, [OP_ADDW] = &&L_ADDW, [OP_SUBW] = &&L_SUBW,
        [OP_SLLW] = &&L_SLLW, [OP_SRLW] = &&L_SRLW, [OP_SRAW] = &&L_SRAW, [OP_MULW] = &&L_MULW,
        [OP_DIVW] = &&L_DIVW, [OP_DIVUW] = &&L_DIVUW, [OP_REMW] = &&L_REMW, [OP_REMUW] = &&L_REMUW,
        [OP_LR_D] = &&L_LR, [OP_SC_D] = &&L_SC, [OP_AMOSWAP_D] = &&L_AMO, [OP_AMOADD_D] = &&L_AMO,
        [OP_AMOXOR_D] = &&L_AMO, [OP_AMOAND_D] = &&L_AMO, [OP_AMOOR_D] = &&L_AMO, [OP_AMOMIN_D] = &&L_AMO,
        [OP_AMOMAX_D] = &&L_AMO, [OP_AMOMINU_D] = &&L_AMO, [OP_AMOMAXU_D] = &&L_AMO,
#endif
    };
#pragma GCC diagnostic pop
    struct vm_internal *in = vm->in;
    hart_state *h = &vm->hart;
    uint64_t *x = h->x;
    uint8_t *ram = in->ram;
    const uint16_t *flags = in->page_flags;
    uint64_t fast_limit = 0, ram_page, place[2];
    const int compressed = (vm->extensions & EXT_C) != 0;
    const uint64_t begin = vm->time.position;
    const uint64_t box = in->supervisor ? BOX : 0;
    uint64_t end = limit, left, tail, page_pc, chunk, reasons, cause = 0, tval = 0, store_value = 0;
    UX pc = (UX)h->pc, store_address = 0, csr_operand = 0;
    uint32_t store_size = 0, floats, kinds;
    decoded_page *page = NULL;
    const insn_t *d = NULL, *to;
    int fault;

chunk:
    tail = 0;
    end = limit;
    chunk = vm->time.position;
    floats = kinds = 0;
    reasons = in->reasons;
    if (linger && limit - chunk > LINGER + LINGER_TAIL) {
        end = chunk + LINGER + LINGER_TAIL;
        tail = LINGER_TAIL;
    }
    left = end - chunk;
    if (!left)
        return;

fetch:
#if CAPTURE
    /* A run that was cut at the end of a page goes on in the next: the block ends as it does in an uncut run. */
    if (in->capture.open && (in->capture.open_pc ^ pc) >> PAGE_SHIFT)
        capture_close(vm, pc, POSITION(), 0);
#endif
    fast_limit = in->missing || in->points.load_watched || !in->identity ? 0 : in->ram_fast_limit;
    ram_page = in->identity ? ((uint64_t)pc - RAM_BASE) >> PAGE_SHIFT : walk_code_page(in, pc);
    if (LIKELY(ram_page < in->pages && (flags[ram_page] & (PAGE_DECODED | PAGE_MISSING)) == PAGE_DECODED)) {
        in->executing = ram_page;
        page = in->decoded[ram_page];
    } else {
        page = code_page(vm, pc, &fault, &cause);
    }
    if (UNLIKELY(!page)) {
        vm->time.position = POSITION();
        h->pc = pc;
        if (fault == 2 || (points_inside(vm, pc, pc + 1) && points_instruction(vm, pc, POSITION())))
            goto finish;
#if CAPTURE
        if (!in->capture.open) {
            in->capture.open = 1;
            in->capture.open_pc = pc;
            in->capture.open_page = NEVER; /* nothing of it can be read */
            in->capture.open_position = POSITION();
        }
        capture_close(vm, pc, POSITION() + 1, 2);
#endif
        trap_enter(vm, cause, pc);
        left--;
        pc = (UX)h->pc;
        if (in->recheck || left == 0)
            goto finish;
        goto fetch;
    }
    if (UNLIKELY(in->supervisor))
        page->insn[2047].op = 0;
#if CAPTURE
    if (in->capture.open && in->executing != in->capture.open_page)
        capture_close(vm, pc, POSITION(), 0); /* the same address is elsewhere now */
#endif
    page_pc = pc & ~(uint64_t)(PAGE_SIZE - 1);
    d = &page->insn[(pc & (PAGE_SIZE - 1)) >> 1];
#if CAPTURE
    if (!in->capture.open) {
        in->capture.open = 1;
        in->capture.open_pc = pc;
        in->capture.open_page = in->executing;
        in->capture.open_position = POSITION();
    }
#endif
    DISPATCH();

L_POINT:
    SYNC();
    if (points_instruction(vm, PC(), POSITION()))
        goto leave;
    goto *labels[d->op & ~OP_POINT];

L_UNDECODED:
    fault = decode_at(vm, page, PC(), &cause, &tval);
    if (LIKELY(!fault))
        DISPATCH();
    if (fault == 2) {
        SYNC();
        goto finish;
    }
    SYNC();
    if (points_inside(vm, PC(), PC() + 1) && points_instruction(vm, PC(), POSITION()))
        goto leave;
    CLOSE(PC(), POSITION() + 1, 2);
    trap_enter(vm, cause, tval);
    left--;
    pc = (UX)h->pc;
    if (in->recheck || left == 0)
        goto finish;
    goto fetch;

L_PAGE_END:
    pc = PC();
    CLOSE(pc, POSITION(), 0);
    goto fetch;

L_NOP:
    NEXT;

    ALU_S(LUI, (SX)d->imm);
    ALU(AUIPC, PC() + IMM);
    ALU_S(ADDI, RS1 + IMM);
    ALU(SLTI, (SX)RS1 < (SX)IMM);
    ALU(SLTIU, RS1 < IMM);
    ALU(XORI, RS1 ^ IMM);
    ALU(ORI, RS1 | IMM);
    ALU_S(ANDI, RS1 & IMM);
    ALU_S(SLLI, RS1 << (d->imm & (XLEN - 1)));
    ALU_S(SRLI, RS1 >> (d->imm & (XLEN - 1)));
    ALU_S(SRAI, (SX)RS1 >> (d->imm & (XLEN - 1)));
    ALU_S(ADD, RS1 + RS2);
    ALU_S(SUB, RS1 - RS2);
    ALU(SLL, RS1 << (RS2 & (XLEN - 1)));
    ALU(SLT, (SX)RS1 < (SX)RS2);
    ALU(SLTU, RS1 < RS2);
    ALU_S(XOR, RS1 ^ RS2);
    ALU(SRL, RS1 >> (RS2 & (XLEN - 1)));
    ALU(SRA, (SX)RS1 >> (RS2 & (XLEN - 1)));
    ALU_S(OR, RS1 | RS2);
    ALU_S(AND, RS1 & RS2);
    /* Division never traps: chapter 7.2, table 7.1. */
    ALU(MUL, RS1 * RS2);
    ALU(MULH, ((WIDE_S)(SX)RS1 * (SX)RS2) >> XLEN);
    ALU(MULHSU, ((WIDE_S)(SX)RS1 * (WIDE_S)(WIDE_U)RS2) >> XLEN);
    ALU(MULHU, ((WIDE_U)RS1 * RS2) >> XLEN);
    ALU(DIV, RS2 == 0 ? (UX)-1 : RS2 == (UX)-1 ? (UX)0 - RS1 : (UX)((SX)RS1 / (SX)RS2));
    ALU(DIVU, RS2 == 0 ? (UX)-1 : RS1 / RS2);
    ALU(REM, RS2 == 0 ? RS1 : RS2 == (UX)-1 ? 0 : (UX)((SX)RS1 % (SX)RS2));
    ALU(REMU, RS2 == 0 ? RS1 : RS1 % RS2);
#if XLEN == 64
    ALU_WS(ADDIW, RS1 + IMM);
    ALU_W(SLLIW, (uint32_t)RS1 << (d->imm & 31));
    ALU_W(SRLIW, (uint32_t)RS1 >> (d->imm & 31));
    ALU_W(SRAIW, (int32_t)RS1 >> (d->imm & 31));
    ALU_WS(ADDW, RS1 + RS2);
    ALU_WS(SUBW, RS1 - RS2);
    ALU_W(SLLW, (uint32_t)RS1 << (RS2 & 31));
    ALU_W(SRLW, (uint32_t)RS1 >> (RS2 & 31));
    ALU_W(SRAW, (int32_t)RS1 >> (RS2 & 31));
    ALU_W(MULW, RS1 * RS2);
    ALU_W(DIVW, (uint32_t)RS2 == 0 ? -1
                : (uint32_t)RS2 == (uint32_t)-1 ? (int32_t)(0u - (uint32_t)RS1) : (int32_t)RS1 / (int32_t)RS2);
    ALU_W(DIVUW, (uint32_t)RS2 == 0 ? (uint32_t)-1 : (uint32_t)RS1 / (uint32_t)RS2);
    ALU_W(REMW, (uint32_t)RS2 == 0 ? (int32_t)RS1
                : (uint32_t)RS2 == (uint32_t)-1 ? 0 : (int32_t)RS1 % (int32_t)RS2);
    ALU_W(REMUW, (uint32_t)RS2 == 0 ? (uint32_t)RS1 : (uint32_t)RS1 % (uint32_t)RS2);
#endif

    BRANCH_S(BEQ, RS1 == RS2);
    BRANCH_S(BNE, RS1 != RS2);
    BRANCH(BLT, (SX)RS1 < (SX)RS2);
    BRANCH(BGE, (SX)RS1 >= (SX)RS2);
    BRANCH(BLTU, RS1 < RS2);
    BRANCH(BGEU, RS1 >= RS2);

L_JAL:
    if (UNLIKELY(!compressed && (d->imm & 2)))
        TRAP(CAUSE_FETCH_MISALIGNED, (UX)(PC() + IMM));
    if (d->rd)
        SET(PC() + d->length);
    goto branch;

branch: /* taken: a page has an entry for each two bytes, so the way to the next one follows from imm alone */
    if (UNLIKELY(!compressed && (d->imm & 2)))
        TRAP(CAUSE_FETCH_MISALIGNED, (UX)(PC() + IMM));
    CLOSE(PC() + d->length, POSITION() + 1, 0);
    if (UNLIKELY(--left <= tail)) {
        h->pc = (UX)(PC() + IMM);
        goto finish;
    }
    to = (const insn_t *)((const char *)d + (intptr_t)d->imm * (intptr_t)(sizeof *d / 2));
    if (UNLIKELY((uintptr_t)to - (uintptr_t)page->insn >= PAGE_SIZE / 2 * sizeof *d)) {
        pc = PC() + IMM;
        goto fetch;
    }
    d = to;
#if CAPTURE
    in->capture.open = 1;
    in->capture.open_pc = PC();
    in->capture.open_page = in->executing;
    in->capture.open_position = POSITION();
#endif
    DISPATCH();

L_JALR:
    pc = (RS1 + IMM) & ~(UX)1;
    if (UNLIKELY(!compressed && (pc & 2)))
        TRAP(CAUSE_FETCH_MISALIGNED, pc);
    if (d->rd)
        SET(PC() + d->length);
    goto jump;

jump: /* taken, to `pc` */
    if (UNLIKELY(!compressed && (pc & 2)))
        TRAP(CAUSE_FETCH_MISALIGNED, pc);
    CLOSE(PC() + d->length, POSITION() + 1, 0);
    if (UNLIKELY(--left <= tail)) {
        h->pc = pc;
        goto finish;
    }
    if (LIKELY((pc & ~(uint64_t)(PAGE_SIZE - 1)) == page_pc)) {
        d = &page->insn[(pc & (PAGE_SIZE - 1)) >> 1];
#if CAPTURE
        in->capture.open = 1;
        in->capture.open_pc = pc;
        in->capture.open_page = in->executing;
        in->capture.open_position = POSITION();
#endif
        DISPATCH();
    }
    goto fetch;

    LOAD(LB, uint8_t, SET((SX)(int8_t)raw));
    LOAD(LH, uint16_t, SET((SX)(int16_t)raw));
    LOAD_S(LW, uint32_t, SET((SX)(int32_t)raw));
    LOAD(LBU, uint8_t, SET(raw));
    LOAD(LHU, uint16_t, SET(raw));
    STORE(SB, uint8_t, RS2);
    STORE(SH, uint16_t, RS2);
    STORE_S(SW, uint32_t, RS2);
#if XLEN == 64
    LOAD(LWU, uint32_t, SET(raw));
    LOAD_S(LD, uint64_t, SET(raw));
    STORE_S(SD, uint64_t, RS2);
#endif

L_FLW:
    if (!(h->mstatus & MSTATUS_FS))
        goto L_ILLEGAL;
    goto L_FLOAD_W;
    LOAD_ANY(FLOAD_W, uint32_t, (h->f[d->rd] = raw | 0xffffffff00000000ull, h->mstatus |= MSTATUS_FS));
L_FLD:
    if (!(h->mstatus & MSTATUS_FS))
        goto L_ILLEGAL;
    goto L_FLOAD_D;
    LOAD_ANY(FLOAD_D, uint64_t, (h->f[d->rd] = raw, h->mstatus |= MSTATUS_FS));
L_FSW:
    if (!(h->mstatus & MSTATUS_FS))
        goto L_ILLEGAL;
    goto L_FSTORE_W;
    STORE_ANY(FSTORE_W, uint32_t, h->f[d->rs2]);
L_FSD:
    if (!(h->mstatus & MSTATUS_FS))
        goto L_ILLEGAL;
    goto L_FSTORE_D;
    STORE_ANY(FSTORE_D, uint64_t, h->f[d->rs2]);

store_slow: {
    int result;
    SYNC();
    result = walk_store_ready(vm, store_address, store_size, place, &cause, &tval);
    if (result == 2)
        goto leave;
    if (result == 1)
        goto trap;
    if (result == 0) {
        SEEN(store_address, store_size, store_value, 1);
        ROW(store_address, store_value);
        if (CAPTURE && into_executing(vm, place, store_size, BEHIND()))
            CLOSE(PC() + d->length, POSITION() + 1, 0);
        walk_store(vm, store_address, store_size, place, store_value);
    } else {
        result = bus_store(vm, place[0], store_size, store_value);
        if (result == 1)
            goto trap;
        if (result == 2)
            goto leave;
        SEEN(store_address, store_size, store_value, 1);
        ROW(store_address, store_value);
        if (UNLIKELY(in->work.pending)) { /* it may change any code, that of the open block too */
            CLOSE(PC() + d->length, POSITION() + 1, 0);
            bus_do_work(vm);
        }
    }
    goto retire;
}

L_LR: {
    uint32_t size = OP() == OP_LR_W ? 4 : 8;
    uint64_t raw = 0;
    UX address = RS1;
    SYNC();
    if (address & (size - 1))
        TRAP(CAUSE_LOAD_MISALIGNED, address);
    int result = walk_load(vm, address, size, &raw, &cause, &tval);
    if (result == 1)
        goto trap;
    if (result == 2)
        goto leave;
    SEEN(address, size, raw, 0);
    ROW(address, raw);
    raw = size == 4 ? (UX)(SX)(int32_t)raw : raw;
    h->reservation = address;
    h->reserved_value = raw;
    if (d->rd)
        SET(raw);
    goto retire;
}

L_SC: {
    uint32_t size = OP() == OP_SC_W ? 4 : 8;
    uint64_t raw = 0, operand = low_bytes(RS2, size);
    UX address = RS1;
    int failed = 1, stored = 0;
    SYNC();
    if (h->reservation == address) {
        if (address & (size - 1))
            TRAP(CAUSE_STORE_MISALIGNED, address);
        int result = walk_store_ready(vm, address, size, place, &cause, &tval);
        if (result == 2)
            goto leave;
        if (result != 0)
            goto trap;
        door_load(vm, place[0], size, &raw);
        stored = raw == low_bytes(h->reserved_value, size);
        failed = (size == 4 ? (UX)(SX)(int32_t)raw : raw) != h->reserved_value;
    }
    ROW(stored ? address : NEVER, stored ? operand : 0);
    if (stored) {
        SEEN(address, size, operand, 1);
        if (CAPTURE && into_executing(vm, place, size, BEHIND()))
            CLOSE(PC() + d->length, POSITION() + 1, 0);
        door_store(vm, place[0], size, operand);
    }
    h->reservation = NEVER;
    h->reserved_value = 0;
    if (d->rd)
        SET(failed);
    goto retire;
}

L_AMO: {
    uint32_t size = (d->word >> 12 & 7) == 2 ? 4 : 8;
    uint64_t raw = 0, operand = RS2, value;
    UX address = RS1;
    uint64_t offset = (uint64_t)address - RAM_BASE;
    const fast_t *fast = FAST_PLACE(ACCESS_STORE, address, size);
    uint8_t *direct = NULL;
    if (offset < fast_limit && flags[offset >> PAGE_SHIFT] == PAGE_DIRTY)
        direct = ram + offset;
    else if (fast && flags[fast->page] == PAGE_DIRTY)
        direct = fast->bytes + (address & (PAGE_SIZE - 1));
    if (LIKELY(direct && !(address & (size - 1)))) {
        memcpy(&raw, direct, size);
        value = low_bytes(amo_result(OP(), raw, operand, size), size);
        ROW(address, raw);
        ROW(address, value);
        memcpy(direct, &value, size);
        SET(size == 4 ? (UX)(SX)(int32_t)raw : raw);
        x[0] = 0;
        NEXT_BY(2);
    }
    SYNC();
    if (address & (size - 1))
        TRAP(CAUSE_STORE_MISALIGNED, address);
    int result = walk_store_ready(vm, address, size, place, &cause, &tval);
    if (result == 2)
        goto leave;
    if (result == 1)
        goto trap;
    int device = result == 3;
    uint64_t inflow = vm->inflow;
    result = device ? bus_load(vm, place[0], size, &raw) : door_load(vm, place[0], size, &raw);
    if (result == 1)
        TRAP(CAUSE_STORE_ACCESS, address);
    if (result == 2)
        goto leave;
    value = low_bytes(amo_result(OP(), raw, operand, size), size);
    if (device) {
        result = bus_store(vm, place[0], size, value);
        if (result == 1)
            TRAP(CAUSE_STORE_ACCESS, address);
        if (result == 2) { /* the step is tried again, with its load */
            vm->inflow = inflow;
            goto leave;
        }
    }
    SEEN(address, size, raw, 0);
    SEEN(address, size, value, 1);
    ROW(address, raw);
    ROW(address, value);
    if (!device) {
        if (CAPTURE && into_executing(vm, place, size, BEHIND()))
            CLOSE(PC() + d->length, POSITION() + 1, 0);
        door_store(vm, place[0], size, value);
    } else if (UNLIKELY(in->work.pending)) {
        CLOSE(PC() + d->length, POSITION() + 1, 0);
        bus_do_work(vm);
    }
    if (d->rd)
        SET(size == 4 ? (UX)(SX)(int32_t)raw : raw);
    goto retire;
}

L_CSR:
    csr_operand = RS1;
    goto csr;

L_CSRI:
    csr_operand = d->rs1;
    goto csr;

csr: {
    uint64_t old = 0;
    if (d->imm == CSR_IS_SSTATUS) {
        if (LIKELY(h->priv >= PRIV_S && sstatus_interrupts(vm, d->word >> 12 & 3, csr_operand, &old))) {
            SET(old);
            x[0] = 0;
            if (in->recheck)
                goto retire;
            NEXT_BY(2);
        }
    } else if (LIKELY(d->imm && h->priv >= (uint64_t)(d->extra >> 8 & 3))) {
        uint64_t *place = (uint64_t *)((char *)vm + d->imm);
        old = *place;
        switch (d->word >> 12 & 3) {
        case 1: *place = csr_operand & ~(uint64_t)d->rs2; break;
        case 2: *place |= csr_operand & ~(uint64_t)d->rs2; break;
        default: *place &= ~(uint64_t)csr_operand; break;
        }
        in->reasons++;
        SET(old);
        x[0] = 0;
        NEXT_BY(2);
    }
    SYNC();
    if (csr_instruction(vm, d, csr_operand, &old))
        goto L_ILLEGAL;
    if (d->rd)
        SET(old);
    goto retire;
}

L_WFI:
    SYNC();
    if (!permitted(vm, OP_WFI))
        goto L_ILLEGAL;
    vm->time.waiting = 1;
    in->recheck = 1;
    in->reasons++;
    goto retire;

L_SFENCE: /* nothing kept of a translation can be told from a walk: walk.c */
    if (!permitted(vm, OP_SFENCE_VMA))
        goto L_ILLEGAL;
    NEXT;

L_SRET:
L_MRET:
    SYNC();
    if (OP() == OP_SRET ? !permitted(vm, OP_SRET) : h->priv != PRIV_M)
        goto L_ILLEGAL;
    CLOSE(PC() + d->length, POSITION() + 1, 0);
    if (OP() == OP_SRET)
        trap_return_supervisor(vm);
    else
        trap_return(vm);
    pc = (UX)h->pc;
    if (--left == 0 || in->recheck)
        goto finish;
    goto fetch;

L_ECALL:
    if (UNLIKELY(vm->sbi) && h->priv == PRIV_S) {
        SYNC();
        if (!sbi_ready(vm))
            goto leave;
    }
    TRAP(CAUSE_ECALL_U + h->priv, 0);
L_EBREAK:
    TRAP(CAUSE_BREAKPOINT, PC());
L_ILLEGAL:
    TRAP(CAUSE_ILLEGAL, d->word);

#include "stepper_float.h"

L_OTHER: /* floating-point arithmetic */
    if (!d->extra || !(h->mstatus & MSTATUS_FS))
        goto L_ILLEGAL;
    fault = float_execute(vm, d->word);
    if (LIKELY(!fault)) {
        floats++;
        kinds |= d->extra;
        NEXT_BY(2);
    }
    if (fault < 0)
        goto L_ILLEGAL;
    SYNC();
    if (engine_float(vm, d->word))
        goto L_ILLEGAL;
    x[0] = 0;
    if (vm->error)
        goto leave;
    goto retire;

retire: /* after anything that somebody else did for us: leave if it changed what must be looked at */
    if (CAPTURE && UNLIKELY(!in->capture.open)) {
        pc = PC() + d->length;
        if (--left == 0 || in->recheck) {
            h->pc = pc;
            goto finish;
        }
        goto fetch;
    }
    ADVANCE();
    if (--left == 0 || in->recheck)
        goto out;
    DISPATCH();

trap:
    SYNC();
    CLOSE(PC() + d->length, POSITION() + 1, 1);
    trap_enter(vm, cause, tval);
    left--;
    pc = (UX)h->pc;
    if (in->recheck || left == 0)
        goto finish;
    goto fetch;

leave: /* the current instruction is not done: everything stays as before it */
    h->pc = PC();
    goto finish;

out:
    h->pc = PC();
finish:
    vm->time.position = POSITION();
    pc = (UX)h->pc;
    if (!in->recheck && linger && vm->time.position < limit && !vm->attention) {
        int dense = floats * FLOATS_STAY >= vm->time.position - chunk && !in->uncounted;
        if (in->reasons != reasons || (kinds & FLOAT_OWN) || dense || !engine_takes(vm, pc) || !engine_worth(vm, pc))
            goto chunk;
    }
    in->lingering = in->recheck;
    vm->stepper_steps += vm->time.position - begin;
}

#undef STEP
#undef PASTE
#undef PASTE2
#undef UX
#undef SX
#undef WIDE_S
#undef WIDE_U
#undef PC
#undef POSITION
#undef SYNC
#undef DISPATCH
#undef OP
#undef SEEN
#undef ADVANCE
#undef NEXT
#undef NEXT_BY
#undef ALU_S
#undef ALU_WS
#undef BRANCH_S
#undef LOAD_S
#undef LOAD_ANY
#undef STORE_ANY
#undef STORE_S
#undef LOAD_BY
#undef STORE_BY
#undef TRAP
#undef RS1
#undef RS2
#undef IMM
#undef SET
#undef SET_W
#undef ALU
#undef ALU_W
#undef BRANCH
#undef ROW
#undef CLOSE
#undef BEHIND
#undef FAST_PLACE
#undef LOAD
#undef STORE
