/* SPDX-License-Identifier: GPL-2.0-or-later */
/* kernel.h: every structure of the kernel, and who offers what to whom. */
#ifndef KERNEL_H
#define KERNEL_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs.h"
#include "layout.h"
#include "riscv.h"

/*
 * The one rule that replaces locks: *the kernel runs with interrupts off*, on one hart. It is left only by returning
 * to user mode, or by sleep_on(), which runs somebody else. So whatever happens between two calls of sleep_on() is
 * atomic, and a comment says so wherever a function may sleep. Interrupts are let in in user mode and in idle().
 */

/* What a trap saves: at the top of the kernel stack of the process. trap.S knows the offsets. */
struct frame {
    uint64_t x[32]; /* x[0] is not used */
    uint64_t pc;
    uint64_t status;
    uint64_t cause;
    uint64_t value;
};
enum { SP = 2, A0 = 10, A1, A2, A7 = 17 }; /* indices of x */

/* What a switch from one kernel stack to another must keep: what a function must keep. switch.S knows the offsets. */
struct context {
    uint64_t ra, sp, s[12];
};

/* A stretch of a process's addresses. Its pages come into being when they are first touched. */
struct region {
    uint64_t start, end;  /* page by page; empty if equal */
    uint64_t rights;      /* PTE_R, PTE_W, PTE_X */
    int inode;            /* of the file behind it, or -1: zeros */
    uint64_t data, bytes; /* first address that comes from the file, and how many do */
    uint64_t offset;      /* of that byte in the file */
};
enum { HEAP, STACK, SEGMENTS, REGIONS = SEGMENTS + 4 };

/* An address space. */
struct space {
    uint64_t *root; /* the table that satp points to */
    struct region region[REGIONS];
};

struct file {
    int uses; /* how many descriptors mean it; 0: free */
    int flags;
    int inode; /* -1: the console */
    uint64_t offset;
};
#define FILES 48
#define DESCRIPTORS 8

enum state { FREE, RUNNABLE, RUNNING, SLEEPING, ZOMBIE };

struct process {
    enum state state;
    int pid;
    int status; /* what exit was given */
    struct process *parent;
    char name[NAME_SIZE];
    void *stack;            /* the page of its kernel stack */
    struct frame *frame;    /* at its end: the registers of user mode */
    struct context context; /* where it goes on in the kernel */
    void *sleeps_on;        /* what wake() must be called with */
    uint64_t wake_time;     /* or when the time comes; 0: never */
    struct space space;
    struct file *file[DESCRIPTORS];
};
#define PROCESSES 32

/* main.c */
extern struct machine {
    uint64_t ram_end;
    uint64_t timebase; /* ticks a second */
    uint64_t slice;    /* ticks that a process may run before another has its turn */
    bool tick;         /* wake up once in a slice even when there is nothing to do */
    bool sstc;         /* the hart has stimecmp */
    int hart;
    char arguments[256]; /* of the boot: "run=work 10" */
} machine;

/* devicetree.c: fills `machine`. */
void devicetree_read(const void *blob);

/* sbi.c: the firmware below. */
void sbi_set_timer(uint64_t when);
_Noreturn void power_off(int status);

/* print.c: %s %c %d %u %x %p, with a width and zeros in front as in %08x. */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void panic(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* string.c */
void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);
size_t text_length(const char *text);
bool text_equal(const char *a, const char *b);
void text_copy(char *to, const char *from, size_t room);

/* page.c: physical pages. */
void page_init(uint64_t first, uint64_t end);
void *page_alloc(void); /* of zeros; NULL if there is none */
void page_share(void *page);
void page_free(void *page); /* one user less */
int page_users(void *page);
uint64_t page_count_free(void);

/* vm.c: address spaces. */
extern uint64_t *kernel_root;
void vm_init(void);
void vm_switch(uint64_t *root, int asid);
bool vm_new(struct space *space);
bool vm_copy(struct space *to, struct space *from);
void vm_destroy(struct space *space);
bool vm_fault(struct space *space, uint64_t address, uint64_t right); /* may sleep */
void vm_unmap(struct space *space, uint64_t start, uint64_t end);
void *vm_reach(struct space *space, uint64_t address, uint64_t right); /* may sleep */
bool vm_read(struct space *space, void *to, uint64_t from, uint64_t size);       /* may sleep */
bool vm_write(struct space *space, uint64_t to, const void *from, uint64_t size); /* may sleep */
bool vm_read_text(struct space *space, char *to, uint64_t from, uint64_t room);  /* may sleep */

/* process.c */
extern struct process *current; /* NULL in the scheduler */
void process_init(void (*first)(void));
_Noreturn void scheduler(void);
void sleep_on(void *what);       /* until wake(what) */
void sleep_until(uint64_t when);
void wake(void *what);
void yield(void);
int process_fork(void);
int process_wait(uint64_t status_address);
_Noreturn void process_exit(int status);
void process_list(void);

/* exec.c: may sleep. `texts`: `count` arguments, each with its 0, `size` bytes in all; a page at most. */
int process_exec(const char *name, int count, const char *texts, uint64_t size);

/* trap.c, trap.S, switch.S */
void trap_init(void);
void trap(struct frame *frame);
void trap_return(void);
void switch_context(struct context *from, const struct context *to);

/* timer.c */
void timer_set(uint64_t when);
uint64_t milliseconds(void);

/* plic.c */
void plic_init(void);
void plic_enable(int source);
int plic_claim(void);
void plic_complete(int source);

/* console.c */
void console_init(void);
void console_put(char c);
void console_interrupt(void);
int console_read(char *to, int room); /* may sleep */

/* disk.c: may sleep. */
void disk_init(void);
bool disk_interrupt(int source);
void disk_transfer(uint32_t block, void *page, bool write);
uint32_t disk_blocks(void);

/* buffer.c: blocks in memory. */
struct buffer {
    uint32_t block; /* 0: holds none */
    bool busy;      /* somebody has it from buffer_get() */
    uint64_t last_used;
    uint8_t *data;
};
struct buffer *buffer_get(uint32_t block, bool fresh); /* may sleep; fresh: zeros, whatever the disk has */
void buffer_write(struct buffer *buffer);  /* may sleep */
void buffer_put(struct buffer *buffer);

/* files.c: the file system. `to` and `from` are the kernel's. */
void files_init(void); /* may sleep */
int file_find(const char *name);
int file_create(const char *name);               /* may sleep */
bool file_remove(const char *name);              /* may sleep */
void file_truncate(int inode);                   /* may sleep */
void file_hold(int inode);                       /* it cannot be removed until file_release() */
void file_release(int inode);
uint64_t file_size(int inode);
int64_t file_read(int inode, uint64_t offset, void *to, uint64_t size);          /* may sleep */
int64_t file_write(int inode, uint64_t offset, const void *from, uint64_t size); /* may sleep */
const char *file_name(int inode); /* NULL if it is free */

/* syscall.c */
void syscall(struct frame *frame); /* may sleep */
void descriptors_copy(struct process *to, const struct process *from);
void descriptors_close(struct process *process);
bool descriptors_console(struct process *process);

#endif
