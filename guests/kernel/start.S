/* SPDX-License-Identifier: GPL-2.0-or-later */
/* start.S: the first instructions: firmware jumps here in supervisor mode, a0 = hart, a1 = device tree. */
        .cfi_sections .debug_frame      # for debuggers, not for unwinding at run time

        .section .text.start, "ax"
        .globl _start
        .type _start, @function
_start:
        .cfi_startproc
        .cfi_undefined ra
        .option push
        .option norelax
        la      gp, __global_pointer$
        .option pop
        csrw    sie, zero               # nothing may interrupt until there is a handler
        csrw    satp, zero
        la      sp, boot_stack_end

        la      t0, bss_start           # C expects zeros there
        la      t1, bss_end
1:      bgeu    t0, t1, 2f
        sd      zero, 0(t0)
        addi    t0, t0, 8
        j       1b
2:
        mv      s0, zero                # where a backtrace ends
        mv      ra, zero
        call    main
3:      wfi                             # main does not return
        j       3b
        .cfi_endproc
        .size _start, . - _start

        .section .data
        .balign 16
boot_stack:                             # also the scheduler's; in .data, since the loop above must not run over it
        .space  4096
boot_stack_end:
