/* SPDX-License-Identifier: GPL-2.0-or-later */
/* registers.h: the width of a register, for the assembly that RV32 and RV64 share. */
#if __riscv_xlen == 64
#define WORD 8
#define LOAD ld
#define STORE sd
#else
#define WORD 4
#define LOAD lw
#define STORE sw
#endif
