/* SPDX-License-Identifier: GPL-2.0-or-later */
/* abi.h: what kernel and programs agree on: numbers of system calls, flags, names. */
#ifndef ABI_H
#define ABI_H

/*
 * A program puts the number into a7 and up to three arguments into a0 to a2, and executes ecall.
 * The result is in a0: negative if the call failed. All other registers are kept.
 */
#define SYS_exit 1
#define SYS_fork 2
#define SYS_wait 3
#define SYS_exec 4
#define SYS_getpid 5
#define SYS_yield 6
#define SYS_sleep 7
#define SYS_uptime 8
#define SYS_sbrk 9
#define SYS_open 10
#define SYS_close 11
#define SYS_read 12
#define SYS_write 13
#define SYS_seek 14
#define SYS_unlink 15
#define SYS_list 16

#define O_READ 1
#define O_WRITE 2
#define O_CREATE 4
#define O_TRUNCATE 8

#define NAME_SIZE 28 /* of a file, with the 0 at its end */
#define MAX_ARGS 16

#ifndef __ASSEMBLER__
/* What SYS_list tells of one file. */
struct listed {
    char name[NAME_SIZE];
    unsigned size;
};
#endif

#endif
