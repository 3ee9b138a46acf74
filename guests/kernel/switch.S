/* SPDX-License-Identifier: GPL-2.0-or-later */
/* switch.S: from one kernel stack to another: the instant at which one process stops and another goes on. */
        .cfi_sections .debug_frame      # for debuggers, not for unwinding at run time

        .text
        .globl switch_context
        .type switch_context, @function
switch_context:                         # a0: struct context to save into, a1: the one to go on with
        .cfi_startproc
        sd      ra, 0(a0)
        sd      sp, 8(a0)
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11
        sd      s\n, 8*(\n+2)(a0)
        .endr
        ld      ra, 0(a1)
        ld      sp, 8(a1)
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11
        ld      s\n, 8*(\n+2)(a1)
        .endr
        ret                             # returns to where the other one called it
        .cfi_endproc
        .size switch_context, . - switch_context
