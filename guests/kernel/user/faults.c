/* SPDX-License-Identifier: GPL-2.0-or-later */
/* faults.c: what a process may not do, each in a child: the kernel ends the child, and nothing else. */
#include "user.h"

#define KERNEL 0x80200000ul

static void read_null(void) { (void)*(volatile int *)8; }
static void read_kernel(void) { (void)*(volatile int *)KERNEL; }
static void write_text(void) { *(volatile int *)(uintptr_t)&read_null = 0; }
static void run_data(void)
{
    static int code = 0x00008067; /* ret */
    ((void (*)(void))(uintptr_t)&code)();
}
static void illegal(void) { __asm__ volatile(".word 0"); }
static void supervisor(void) { __asm__ volatile("csrr zero, sstatus"); }
static void run_over_stack(void) { (void)*(volatile int *)(0x40000000ul - 17 * 4096); }
static void bad_pointer(void)
{
    if (write(1, (void *)KERNEL, 1) != -1 || read(0, (void *)8, 1) != -1 || open((char *)1, O_READ) != -1
        || wait((int *)KERNEL) != -1)
        return;
    exit(-1); /* as it should be: an error, not an end */
}

static void (*const deeds[])(void) = {
    read_null, read_kernel, write_text, run_data, illegal, supervisor, run_over_stack, bad_pointer,
};

int main(void)
{
    for (unsigned i = 0; i < sizeof deeds / sizeof *deeds; i++) {
        int status;
        if (!fork()) {
            deeds[i]();
            exit(0);
        }
        wait(&status);
        if (status != -1) {
            print("faults: number %u was let through\n", i);
            return 1;
        }
    }
    print("faults: all %u ended\n", (unsigned)(sizeof deeds / sizeof *deeds));
    return 0;
}
