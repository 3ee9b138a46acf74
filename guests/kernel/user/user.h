/* SPDX-License-Identifier: GPL-2.0-or-later */
/* user.h: what a program can call: the kernel (entry.S), and a little library (lib.c). */
#ifndef USER_H
#define USER_H

#include <stddef.h>
#include <stdint.h>

#include "../abi.h"

_Noreturn void exit(int status);
int fork(void);            /* the child's pid; 0 in the child */
int wait(int *status);     /* for a child to end: its pid, or -1 without children; `status` may be NULL */
int exec(const char *name, char *const argv[]); /* returns only if it failed */
int getpid(void);
int yield(void);           /* the others' turn */
int sleep(unsigned milliseconds);
long uptime(void);         /* milliseconds */
void *sbrk(long bytes);    /* whole pages; where the heap ended before, or (void *)-1 */
int open(const char *name, int flags);
int close(int fd);
long read(int fd, void *to, size_t size); /* 0: the end */
long write(int fd, const void *from, size_t size);
int seek(int fd, size_t offset);
int unlink(const char *name); /* fails while it is open or runs */
int list(unsigned number, struct listed *to); /* 1; 0: no file has the number; -1: no file can have it */

size_t text_length(const char *text);
int text_equal(const char *a, const char *b);
unsigned number_of(const char *text, unsigned otherwise); /* decimal */
void *memset(void *to, int byte, size_t size);
void *memcpy(void *to, const void *from, size_t size);
void print(const char *format, ...) __attribute__((format(printf, 1, 2))); /* %s %d %u %x %c, a line at a time */
void fail(const char *what) __attribute__((noreturn)); /* says so, and ends with 1 */

#endif
