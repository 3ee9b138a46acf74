/* SPDX-License-Identifier: GPL-2.0-or-later */
/* traps-probes.S: part of traps and traps-manual: the single instructions that trap, and a vector table. */

    /* t1 is 0 before the instruction that traps and is returned: a trapping instruction writes no register. */
    .macro probe name:req, instruction:vararg
    .globl probe_\name, trap_\name, done_\name
    .type probe_\name, @function
probe_\name:
    li t1, 0
trap_\name:
    \instruction
    .balign 4
done_\name:
    mv a0, t1
    ret
    .size probe_\name, . - probe_\name
    .endm

    .section .text.probes, "ax"
    .balign 4
    probe zero_word, .word 0
    probe ones_word, .word 0xffffffff
    probe unknown_csr, csrr t1, 0x5c0
    probe readonly_csr, csrrw t1, cycle, zero
    probe jalr_misaligned, jalr t1, 0(a0)
    probe jal_misaligned, .word 0x0060036f      /* jal t1, .+6 */
    probe branch_misaligned, .word 0x00000363   /* beq zero, zero, .+6 */
    probe jump_unmapped, jr a0
    probe load_unmapped, lw t1, 0(a0)
    probe store_unmapped, sw t1, 0(a0)
    probe ecall, ecall
    probe ebreak, ebreak

    /* Opens the gate; a pending interrupt is taken before the instruction at trap_enable. */
    .globl probe_enable, trap_enable, done_enable
    .type probe_enable, @function
probe_enable:
    csrsi mstatus, 8
trap_enable:
    li a0, 0
done_enable:
    ret
    .size probe_enable, . - probe_enable

    .globl vector_table
    .balign 64
    .type vector_table, @function
vector_table:
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    j slot_\n
    .endr
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
slot_\n:
    csrwi mscratch, \n
    j on_trap
    .endr
    .size vector_table, . - vector_table
