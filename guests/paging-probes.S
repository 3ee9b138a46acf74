/* SPDX-License-Identifier: GPL-2.0-or-later */
/* paging-probes.S: part of paging: the way down into another mode and back, and what is done there. */
#include "runtime/registers.h"

#define SAVED 14

    .section .text.probes, "ax"
    .balign 4

/*
 * run_at(mode << 11, pc, first, second): goes on at `pc` in that mode, with a0 = first and a1 = second, until a trap
 * comes back to machine mode; what it and a0, a2 to a5 held is in `seen`. Everything else is as before.
 */
    .globl run_at
    .type run_at, @function
run_at:
    addi sp, sp, -(SAVED + 2) * WORD
    STORE ra, 0(sp)
    STORE gp, WORD(sp)
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11
    STORE s\n, (2 + \n) * WORD(sp)
    .endr
    csrw mscratch, sp
    la t0, run_trap
    csrrw t0, mtvec, t0
    STORE t0, SAVED*WORD(sp)
    li t0, 3 << 11
    csrc mstatus, t0
    csrs mstatus, a0
    csrw mepc, a1
    mv a0, a2
    mv a1, a3
    li a2, 0
    mret
    .balign 4
run_trap:
    csrrw sp, mscratch, sp
    la t0, seen
    csrr t1, mcause
    STORE t1, 0(t0)
    csrr t1, mepc
    STORE t1, WORD(t0)
    csrr t1, mtval
    STORE t1, 2*WORD(t0)
    csrr t1, mstatus
    STORE t1, 3*WORD(t0)
    STORE a0, 4*WORD(t0)
    STORE a2, 5*WORD(t0)
    STORE a3, 6*WORD(t0)
    STORE a4, 7*WORD(t0)
    STORE a5, 8*WORD(t0)
    LOAD t0, SAVED*WORD(sp)
    csrw mtvec, t0
    LOAD ra, 0(sp)
    LOAD gp, WORD(sp)
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11
    LOAD s\n, (2 + \n) * WORD(sp)
    .endr
    addi sp, sp, (SAVED + 2) * WORD
    ret
    .size run_at, . - run_at

/* load_as(mode << 11, address): a load in machine mode by the rights and tables of another (mstatus.MPRV). */
    .globl load_as
    .type load_as, @function
load_as:
    li t0, 3 << 11
    csrc mstatus, t0
    li t0, 1 << 17
    or t0, t0, a0
    csrs mstatus, t0
    lw a0, 0(a1)
    li t1, 1 << 17
    csrc mstatus, t1
    ret
    .size load_as, . - load_as

/*
 * Two pages that are mapped somewhere else: nothing in them may depend on where. A probe that does what it is to do
 * ends at its ebreak.
 */
    .macro probe name:req, instruction:vararg
    .globl probe_\name, trap_\name
    .type probe_\name, @function
probe_\name:
trap_\name:
    .option push
    .option norvc
    \instruction
    ebreak
    .option pop
    .size probe_\name, . - probe_\name
    .endm

    .section .text.probe_pages, "ax"
    .option norelax
    .balign 4096
    .globl probe_pages
probe_pages:
    probe load, lw a0, 0(a0)
    probe store, sw a1, 0(a0)
    probe jump, jr a0
    probe ecall, ecall
    probe sret, sret
    probe wfi, wfi
    probe sfence, sfence.vma
    probe satp, csrr a0, satp
    probe machine_csr, csrr a0, mscratch
    probe gate, csrsi sstatus, 2

    /* Supervisor mode's handler: tells what it saw; goes on behind a user's call, and ends at anything else. */
    .balign 4
    .globl handler
    .type handler, @function
handler:
    csrr a2, scause
    csrr a3, sepc
    csrr a4, stval
    csrr a5, sstatus
    li t0, 8
    bne a2, t0, 1f
    addi t0, a3, 4
    csrw sepc, t0
    sret
1:  .option push
    .option norvc
    ebreak
    .option pop
    .size handler, . - handler

    /* One instruction, half of it in each page. */
    .globl probe_straddle
    .type probe_straddle, @function
    .org probe_pages + 4096 - 2
probe_straddle:
    .option push
    .option norvc
    addi a0, a0, 0x155
    ebreak
    .option pop
    .size probe_straddle, . - probe_straddle
    .balign 4096
