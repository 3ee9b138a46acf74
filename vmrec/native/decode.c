/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From an instruction word to its operation and operands, by the table of vmrec/isa/instructions.py.
 *
 * Compressed instructions are expanded here: c.addi becomes OP_ADDI with length 2, so that the stepper knows each
 * operation once (unprivileged manual, chapter 16). A word that no row of the machine's profile matches, and a HINT,
 * become pseudo operations.
 */
#include "internal.h"
#include "isa_table.h"

/* Rows by quadrant and major opcode (bits 6..2 of a word, or 15..13 of a compressed one), filled on first use. */
static uint16_t bucket_rows[64][96];
static uint8_t bucket_length[64];
static int buckets_ready;

static uint32_t bucket_of(uint32_t word)
{
    return (word & 3) == 3 ? (word >> 2) & 31 : 32 + ((word & 3) << 3) + ((word >> 13) & 7);
}

static void fill_buckets(void)
{
    for (uint32_t row = 0; row < ISA_ROWS; row++) {
        uint32_t bucket = bucket_of(isa_rows[row].match);
        bucket_rows[bucket][bucket_length[bucket]++] = (uint16_t)row;
    }
    buckets_ready = 1;
}

uint32_t isa_decode(uint32_t word, uint32_t xlen, uint32_t extensions)
{
    uint32_t bucket = bucket_of(word);
    if (!buckets_ready)
        fill_buckets();
    if ((word & 3) != 3)
        word &= 0xffff;
    for (uint32_t i = 0; i < bucket_length[bucket]; i++) {
        const struct isa_row *row = &isa_rows[bucket_rows[bucket][i]];
        if ((word & row->mask) == row->match && (row->xlens & (xlen == 32 ? 1 : 2))
            && (row->extensions & extensions) == row->extensions && (!row->nonzero[0] || (word & row->nonzero[0]))
            && (!row->nonzero[1] || (word & row->nonzero[1])))
            return row->op;
    }
    return OP_INVALID;
}

const char *isa_op_name(uint32_t op)
{
    return op < OP_COUNT ? op_names[op] : "";
}

uint32_t isa_extension_bit(const char *name)
{
    static const struct {
        const char *name;
        uint32_t bit;
    } bits[] = {{"I", EXT_I}, {"M", EXT_M}, {"A", EXT_A}, {"F", EXT_F}, {"D", EXT_D}, {"C", EXT_C},
                {"Zicsr", EXT_ZICSR}, {"Zifencei", EXT_ZIFENCEI}, {"Priv", EXT_PRIV},
                {"S", EXT_S}, {"U", EXT_U}};
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
        if (!strcmp(bits[i].name, name))
            return bits[i].bit;
    return 0;
}

/* Bits high..low of the word, at position `to` of the result. */
static uint32_t field(uint32_t word, int high, int low, int to)
{
    return ((word >> low) & ((1u << (high - low + 1)) - 1)) << to;
}

static int32_t sign(uint32_t value, int bits)
{
    return (int32_t)(value << (32 - bits)) >> (32 - bits);
}

static int32_t imm_ci(uint32_t w)
{
    return sign(field(w, 12, 12, 5) | field(w, 6, 2, 0), 6);
}

static int32_t imm_cj(uint32_t w)
{
    return sign(field(w, 12, 12, 11) | field(w, 11, 11, 4) | field(w, 10, 9, 8) | field(w, 8, 8, 10)
                    | field(w, 7, 7, 6) | field(w, 6, 6, 7) | field(w, 5, 3, 1) | field(w, 2, 2, 5), 12);
}

static int32_t imm_cb(uint32_t w)
{
    return sign(field(w, 12, 12, 8) | field(w, 11, 10, 3) | field(w, 6, 5, 6) | field(w, 4, 3, 1) | field(w, 2, 2, 5),
                9);
}

static uint32_t offset_w(uint32_t w) /* c.lw, c.sw */
{
    return field(w, 12, 10, 3) | field(w, 6, 6, 2) | field(w, 5, 5, 6);
}

static uint32_t offset_d(uint32_t w) /* c.ld, c.sd */
{
    return field(w, 12, 10, 3) | field(w, 6, 5, 6);
}

static void set(insn_t *insn, uint32_t op, uint32_t rd, uint32_t rs1, uint32_t rs2, int32_t imm)
{
    insn->op = (uint16_t)op;
    insn->rd = (uint8_t)rd;
    insn->rs1 = (uint8_t)rs1;
    insn->rs2 = (uint8_t)rs2;
    insn->imm = imm;
}

static void expand(uint32_t op, uint32_t w, insn_t *insn)
{
    uint32_t rd = field(w, 11, 7, 0), rs2 = field(w, 6, 2, 0);
    uint32_t rdc = 8 + field(w, 4, 2, 0), rs1c = 8 + field(w, 9, 7, 0);
    uint32_t sp_w = field(w, 12, 12, 5) | field(w, 6, 4, 2) | field(w, 3, 2, 6);  /* c.lwsp */
    uint32_t sp_d = field(w, 12, 12, 5) | field(w, 6, 5, 3) | field(w, 4, 2, 6);  /* c.ldsp */
    uint32_t ssp_w = field(w, 12, 9, 2) | field(w, 8, 7, 6);                      /* c.swsp */
    uint32_t ssp_d = field(w, 12, 10, 3) | field(w, 9, 7, 6);                     /* c.sdsp */
    int32_t shamt = (int32_t)(field(w, 12, 12, 5) | field(w, 6, 2, 0));
    switch (op) {
    case OP_C_ADDI4SPN:
        set(insn, OP_ADDI, rdc, 2, 0,
            (int32_t)(field(w, 12, 11, 4) | field(w, 10, 7, 6) | field(w, 6, 6, 2) | field(w, 5, 5, 3)));
        break;
    case OP_C_FLD: set(insn, OP_FLD, rdc, rs1c, 0, (int32_t)offset_d(w)); break;
    case OP_C_LW: set(insn, OP_LW, rdc, rs1c, 0, (int32_t)offset_w(w)); break;
    case OP_C_FLW: set(insn, OP_FLW, rdc, rs1c, 0, (int32_t)offset_w(w)); break;
    case OP_C_LD: set(insn, OP_LD, rdc, rs1c, 0, (int32_t)offset_d(w)); break;
    case OP_C_FSD: set(insn, OP_FSD, 0, rs1c, rdc, (int32_t)offset_d(w)); break;
    case OP_C_SW: set(insn, OP_SW, 0, rs1c, rdc, (int32_t)offset_w(w)); break;
    case OP_C_FSW: set(insn, OP_FSW, 0, rs1c, rdc, (int32_t)offset_w(w)); break;
    case OP_C_SD: set(insn, OP_SD, 0, rs1c, rdc, (int32_t)offset_d(w)); break;
    case OP_C_NOP: set(insn, OP_ADDI, 0, 0, 0, 0); break;
    case OP_C_ADDI: set(insn, OP_ADDI, rd, rd, 0, imm_ci(w)); break;
    case OP_C_JAL: set(insn, OP_JAL, 1, 0, 0, imm_cj(w)); break;
    case OP_C_ADDIW: set(insn, OP_ADDIW, rd, rd, 0, imm_ci(w)); break;
    case OP_C_LI: set(insn, OP_ADDI, rd, 0, 0, imm_ci(w)); break;
    case OP_C_ADDI16SP:
        set(insn, OP_ADDI, 2, 2, 0,
            sign(field(w, 12, 12, 9) | field(w, 6, 6, 4) | field(w, 5, 5, 6) | field(w, 4, 3, 7) | field(w, 2, 2, 5),
                 10));
        break;
    case OP_C_LUI: set(insn, OP_LUI, rd, 0, 0, imm_ci(w) * 4096); break;
    case OP_C_SRLI: set(insn, OP_SRLI, rs1c, rs1c, 0, shamt); break;
    case OP_C_SRAI: set(insn, OP_SRAI, rs1c, rs1c, 0, shamt); break;
    case OP_C_ANDI: set(insn, OP_ANDI, rs1c, rs1c, 0, imm_ci(w)); break;
    case OP_C_SUB: set(insn, OP_SUB, rs1c, rs1c, rdc, 0); break;
    case OP_C_XOR: set(insn, OP_XOR, rs1c, rs1c, rdc, 0); break;
    case OP_C_OR: set(insn, OP_OR, rs1c, rs1c, rdc, 0); break;
    case OP_C_AND: set(insn, OP_AND, rs1c, rs1c, rdc, 0); break;
    case OP_C_SUBW: set(insn, OP_SUBW, rs1c, rs1c, rdc, 0); break;
    case OP_C_ADDW: set(insn, OP_ADDW, rs1c, rs1c, rdc, 0); break;
    case OP_C_J: set(insn, OP_JAL, 0, 0, 0, imm_cj(w)); break;
    case OP_C_BEQZ: set(insn, OP_BEQ, 0, rs1c, 0, imm_cb(w)); break;
    case OP_C_BNEZ: set(insn, OP_BNE, 0, rs1c, 0, imm_cb(w)); break;
    case OP_C_SLLI: set(insn, OP_SLLI, rd, rd, 0, shamt); break;
    case OP_C_FLDSP: set(insn, OP_FLD, rd, 2, 0, (int32_t)sp_d); break;
    case OP_C_LWSP: set(insn, OP_LW, rd, 2, 0, (int32_t)sp_w); break;
    case OP_C_FLWSP: set(insn, OP_FLW, rd, 2, 0, (int32_t)sp_w); break;
    case OP_C_LDSP: set(insn, OP_LD, rd, 2, 0, (int32_t)sp_d); break;
    case OP_C_JR: set(insn, OP_JALR, 0, rd, 0, 0); break;
    case OP_C_MV: set(insn, OP_ADD, rd, 0, rs2, 0); break;
    case OP_C_EBREAK: set(insn, OP_EBREAK, 0, 0, 0, 0); break;
    case OP_C_JALR: set(insn, OP_JALR, 1, rd, 0, 0); break;
    case OP_C_ADD: set(insn, OP_ADD, rd, rd, rs2, 0); break;
    case OP_C_FSDSP: set(insn, OP_FSD, 0, 2, rs2, (int32_t)ssp_d); break;
    case OP_C_SWSP: set(insn, OP_SW, 0, 2, rs2, (int32_t)ssp_w); break;
    case OP_C_FSWSP: set(insn, OP_FSW, 0, 2, rs2, (int32_t)ssp_w); break;
    case OP_C_SDSP: set(insn, OP_SD, 0, 2, rs2, (int32_t)ssp_d); break;
    default: set(insn, OPX_ILLEGAL, 0, 0, 0, 0); break;
    }
}

/* Instructions that change nothing but rd; with rd = x0 they are HINTs. */
static int only_writes_rd(uint32_t op)
{
    switch (op) {
    case OP_LUI: case OP_AUIPC: case OP_ADDI: case OP_SLTI: case OP_SLTIU: case OP_XORI: case OP_ORI: case OP_ANDI:
    case OP_SLLI: case OP_SRLI: case OP_SRAI: case OP_ADD: case OP_SUB: case OP_SLL: case OP_SLT: case OP_SLTU:
    case OP_XOR: case OP_SRL: case OP_SRA: case OP_OR: case OP_AND: case OP_ADDIW: case OP_SLLIW: case OP_SRLIW:
    case OP_SRAIW: case OP_ADDW: case OP_SUBW: case OP_SLLW: case OP_SRLW: case OP_SRAW: case OP_MUL: case OP_MULH:
    case OP_MULHSU: case OP_MULHU: case OP_DIV: case OP_DIVU: case OP_REM: case OP_REMU: case OP_MULW: case OP_DIVW:
    case OP_DIVUW: case OP_REMW: case OP_REMUW: case OP_FENCE: case OP_FENCE_I:
        return 1;
    default: return 0;
    }
}

/*
 * Where in vm_t a control and status register is that no other depends on, and that is all of its value: those that
 * trap handlers save and restore. 0: it is another, or not there.
 */
static size_t plain_csr(const vm_t *vm, uint32_t number)
{
    switch (number) {
    case 0x340: return offsetof(vm_t, hart.mscratch);
    case 0x341: return offsetof(vm_t, hart.mepc);
    case 0x342: return offsetof(vm_t, hart.mcause);
    case 0x343: return offsetof(vm_t, hart.mtval);
    default: break;
    }
    if (!vm->in->supervisor)
        return 0;
    switch (number) {
    case 0x140: return offsetof(vm_t, supervisor.sscratch);
    case 0x141: return offsetof(vm_t, supervisor.sepc);
    case 0x142: return offsetof(vm_t, supervisor.scause);
    case 0x143: return offsetof(vm_t, supervisor.stval);
    default: return 0;
    }
}

static void decode_system(const vm_t *vm, uint32_t w, insn_t *insn)
{
    insn->extra = (uint16_t)(w >> 20);
    insn->imm = 0;
    if ((w >> 12 & 3) && insn->extra == 0x100 && vm->in->supervisor) {
        insn->imm = CSR_IS_SSTATUS;
    } else if (w >> 12 & 3) { /* with a register */
        insn->imm = (int32_t)plain_csr(vm, insn->extra);
        insn->rs2 = (insn->extra & 0xff) == 0x41 ? ((vm->extensions & EXT_C) ? 1 : 3) : 0; /* an address of code */
    }
}

void decode(const vm_t *vm, uint32_t w, insn_t *insn)
{
    uint32_t op = isa_decode(w, vm->xlen, vm->extensions);
    uint32_t rd = field(w, 11, 7, 0), rs1 = field(w, 19, 15, 0), rs2 = field(w, 24, 20, 0);
    int32_t imm_i = (int32_t)w >> 20;
    memset(insn, 0, sizeof *insn);
    insn->length = (w & 3) == 3 ? 4 : 2;
    insn->word = insn->length == 4 ? w : w & 0xffff;
    if (op == OP_INVALID) {
        insn->op = OPX_ILLEGAL;
        return;
    }
    if (insn->length == 2) {
        expand(op, w, insn);
    } else {
        set(insn, op, rd, rs1, rs2, imm_i);
        switch (w & 0x7f) {
        case 0x37: /* lui */
        case 0x17: /* auipc */ insn->imm = (int32_t)(w & 0xfffff000); break;
        case 0x6f: /* jal */
            insn->imm = sign(field(w, 31, 31, 20) | field(w, 19, 12, 12) | field(w, 20, 20, 11) | field(w, 30, 21, 1),
                             21);
            break;
        case 0x63: /* branches */
            insn->imm = sign(field(w, 31, 31, 12) | field(w, 7, 7, 11) | field(w, 30, 25, 5) | field(w, 11, 8, 1), 13);
            break;
        case 0x23: /* stores */
        case 0x27: insn->imm = sign(field(w, 31, 25, 5) | field(w, 11, 7, 0), 12); break;
        case 0x73: /* system */ decode_system(vm, w, insn); break;
        default: break;
        }
        if (insn->op == OP_SLLI || insn->op == OP_SRLI || insn->op == OP_SRAI)
            insn->imm = (int32_t)(field(w, 25, 20, 0));
        if (insn->op == OP_SLLIW || insn->op == OP_SRLIW || insn->op == OP_SRAIW)
            insn->imm = (int32_t)rs2;
    }
    if (decode_is_float_arithmetic(insn)) {
        uint32_t rounding = w >> 12 & 7;
        insn->extra = vm->in->supervisor && float_is_own(insn) ? FLOAT_OWN : FLOAT_SHARED;
        insn->imm = rounding == 7 || rounding == 0 ? (int32_t)rounding : 8;
    }
    if ((insn->rd == 0 && only_writes_rd(insn->op)) || insn->op == OP_FENCE || insn->op == OP_FENCE_I)
        insn->op = OPX_NOP;
}

/* May the engine run it? Everything that touches CSRs or privilege, waits or traps is the stepper's. */
int decode_needs_stepper(const insn_t *insn)
{
    switch (insn->op) {
    case OPX_ILLEGAL: case OP_ECALL: case OP_EBREAK: case OP_MRET: case OP_SRET: case OP_SFENCE_VMA: case OP_WFI: case OP_CSRRW: case OP_CSRRS:
    case OP_CSRRC: case OP_CSRRWI: case OP_CSRRSI: case OP_CSRRCI:
        return 1;
    default: return 0;
    }
}

/* Floating-point arithmetic: major opcodes MADD, MSUB, NMSUB, NMADD and OP-FP. */
int decode_is_float_arithmetic(const insn_t *insn)
{
    switch (insn->word & 0x7f) {
    case 0x43: case 0x47: case 0x4b: case 0x4f: case 0x53: return 1;
    default: return 0;
    }
}

/* Floating-point arithmetic that the stepper does in no time, if it is on usual numbers: see stepper_float.h. */
int decode_is_quick_float(const insn_t *insn)
{
    switch (insn->op) {
    case OP_FCVT_W_D: case OP_FCVT_WU_D: case OP_FCVT_L_D: case OP_FCVT_W_S: case OP_FCVT_WU_S: case OP_FCVT_L_S:
        return (insn->word >> 12 & 7) == 1;
    case OP_FCVT_LU_D: case OP_FCVT_LU_S: case OP_FCLASS_D: case OP_FCLASS_S: return 0;
    case OP_FSGNJ_D: case OP_FSGNJN_D: case OP_FSGNJX_D: case OP_FSGNJ_S: case OP_FSGNJN_S: case OP_FSGNJX_S:
    case OP_FEQ_D: case OP_FLT_D: case OP_FLE_D: case OP_FEQ_S: case OP_FLT_S: case OP_FLE_S: case OP_FMIN_D:
    case OP_FMAX_D: case OP_FMIN_S: case OP_FMAX_S: case OP_FMV_X_W: case OP_FMV_W_X: case OP_FMV_X_D: case OP_FMV_D_X:
        return 1;
    default: return decode_is_float_arithmetic(insn) && insn->imm != 8;
    }
}

/* Does it need mstatus.FS? */
int decode_uses_float(const insn_t *insn)
{
    switch (insn->op) {
    case OP_FLW: case OP_FLD: case OP_FSW: case OP_FSD: return 1;
    default: return decode_is_float_arithmetic(insn);
    }
}
