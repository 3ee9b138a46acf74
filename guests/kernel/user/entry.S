/* SPDX-License-Identifier: GPL-2.0-or-later */
/* entry.S: where a program begins, and its system calls. */
        .cfi_sections .debug_frame      # for debuggers, not for unwinding at run time
#include "../abi.h"

        .section .text.start, "ax"
        .globl _start
        .type _start, @function
_start:                                 # the kernel has set sp, a0 = argc, a1 = argv
        .cfi_startproc
        .cfi_undefined ra
        .option push
        .option norelax
        la      gp, __global_pointer$
        .option pop
        mv      s0, zero
        call    main
        call    exit                    # with what main returned
        .cfi_endproc
        .size _start, . - _start

        .text
.macro system_call name, number         # arguments and result are where C has them already
        .globl \name
        .type \name, @function
\name:
        .cfi_startproc
        li      a7, \number
        ecall
        ret
        .cfi_endproc
        .size \name, . - \name
.endm

        system_call exit, SYS_exit
        system_call fork, SYS_fork
        system_call wait, SYS_wait
        system_call exec, SYS_exec
        system_call getpid, SYS_getpid
        system_call yield, SYS_yield
        system_call sleep, SYS_sleep
        system_call uptime, SYS_uptime
        system_call sbrk, SYS_sbrk
        system_call open, SYS_open
        system_call close, SYS_close
        system_call read, SYS_read
        system_call write, SYS_write
        system_call seek, SYS_seek
        system_call unlink, SYS_unlink
        system_call list, SYS_list
