/* SPDX-License-Identifier: GPL-2.0-or-later */
/* trap.S: the door between user mode and the kernel: saves and restores all registers. */
        .cfi_sections .debug_frame      # for debuggers, not for unwinding at run time

/* Offsets in struct frame. */
#define X(n) (8 * (n))
#define FRAME_PC (8 * 32)
#define FRAME_STATUS (8 * 33)
#define FRAME_CAUSE (8 * 34)
#define FRAME_VALUE (8 * 35)
#define FRAME_SIZE (8 * 36)
#define SPP 0x100

.macro each_register, instruction       /* all but x0 and sp */
        \instruction x1, X(1)(sp)
        .irp n, 3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        \instruction x\n, X(\n)(sp)
        .endr
.endm

/* For debuggers: where the registers of the interrupted code are. So a backtrace goes on from the kernel into the
   program that called it. 4417 is the number that debug information has for sepc. */
.macro interrupted_registers
        .cfi_signal_frame
        .cfi_return_column 4417
        .cfi_def_cfa sp, FRAME_SIZE
        .cfi_offset 4417, FRAME_PC - FRAME_SIZE
        .irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        .cfi_offset \n, X(\n) - FRAME_SIZE
        .endr
.endm

        .text
        .balign 4
        .globl trap_entry
        .type trap_entry, @function
trap_entry:
        .cfi_startproc
        interrupted_registers
        # In user mode sscratch holds the end of the kernel stack, in the kernel 0: so one swap tells where we come
        # from, and gives a stack. A trap of the kernel itself goes on on the stack that it had.
        csrrw   sp, sscratch, sp
        bnez    sp, 1f
        csrr    sp, sscratch
1:      addi    sp, sp, -FRAME_SIZE
        each_register sd
        csrr    t0, sscratch            # either way: sp as it was
        sd      t0, X(2)(sp)
        csrw    sscratch, zero
        csrr    t0, sepc
        csrr    t1, sstatus
        csrr    t2, scause
        csrr    t3, stval
        sd      t0, FRAME_PC(sp)
        sd      t1, FRAME_STATUS(sp)
        sd      t2, FRAME_CAUSE(sp)
        sd      t3, FRAME_VALUE(sp)
        .option push
        .option norelax
        la      gp, __global_pointer$   # the program has its own
        .option pop
        mv      s0, zero                # a backtrace of the kernel ends here
        mv      a0, sp
        call    trap
        .cfi_endproc
        .size trap_entry, . - trap_entry
        # falls through

        .globl trap_return
        .type trap_return, @function
trap_return:                            # sp: a struct frame
        .cfi_startproc
        interrupted_registers
        ld      t0, FRAME_PC(sp)
        ld      t1, FRAME_STATUS(sp)
        csrw    sepc, t0
        csrw    sstatus, t1
        andi    t1, t1, SPP
        bnez    t1, 1f
        addi    t0, sp, FRAME_SIZE
        csrw    sscratch, t0
1:      each_register ld
        ld      sp, X(2)(sp)
        sret
        .cfi_endproc
        .size trap_return, . - trap_return
